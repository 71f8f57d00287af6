"""A classifier's pictures for the report: images with a wrong answer, and images without one; it has no boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mammodet.records import Dataset, ImagePrediction
from mammodet.reporting.answers import answers_text, judge_answer, truth_text
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.report_gallery import Choice, ImageReader, Judged, gallery


def judge_answers(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> list[Judged]:
    """Images that have a prediction, in the data set's order, with the answers that are wrong."""
    by_id = {prediction.image_id: prediction for prediction in predictions}
    return [
        (record, by_id[record.image_id], judge_answer(record, by_id[record.image_id]))
        for record in dataset.images
        if record.image_id in by_id
    ]


def answer_gallery(
    judged: Sequence[Judged], choice: Choice, reader: ImageReader, options: OverlayOptions, *, budget: int
) -> dict[str, Any]:
    """As `report_gallery.gallery`, with the answers of a classifier under the pictures.

    Args:
        choice: of `report_gallery.choose_gallery`.
        budget: bytes of a picture.
    """
    found = gallery(judged, choice, reader, options, budget=budget)
    for items, cards in ((choice.label, found["label"]), (choice.clean, found["clean"])):
        for (record, prediction, _), card in zip(items, cards, strict=True):
            card["truth"], card["prediction"] = truth_text(record, prediction), answers_text(prediction)
    return {**found, "of_answers": True}
