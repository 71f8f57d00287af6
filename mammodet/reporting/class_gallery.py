"""A classifier's pictures for the report: images with a wrong answer, and images without one; it has no boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mammodet.evaluation.classes import in_order
from mammodet.records import Dataset, ImagePrediction, ImageRecord
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.ranking import Verdict
from mammodet.reporting.report_gallery import Choice, ImageReader, Judged, gallery
from mammodet.targets import class_of


def judge_answers(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> list[Judged]:
    """Images that have a prediction, in the data set's order, with the answers that are wrong."""
    by_id = {prediction.image_id: prediction for prediction in predictions}
    return [
        (record, by_id[record.image_id], judge_answer(record, by_id[record.image_id]))
        for record in dataset.images
        if record.image_id in by_id
    ]


def judge_answer(record: ImageRecord, prediction: ImagePrediction) -> Verdict:
    """Compare the labels and classes of a prediction with those of its image.

    The error is the largest of |label - score| and of 1 - the probability of the true class.
    """
    faults: list[tuple[float, str, bool]] = []  # error, words, whether the answer is wrong
    for name, score in prediction.scores.items():
        truth = record.label(name)
        if truth is not None:
            words = f"{name} is {truth}, predicted {score:.2f}"
            faults.append((abs(truth - score), words, (score >= 0.5) != bool(truth)))
    for question, classes in prediction.class_scores.items():
        true = class_of(record, question)
        if true is not None:
            answer = _answer(question, prediction)
            own = f", {true} {classes[true]:.2f}" if true in classes else ", which does not know the true one"
            words = f"{question} is {true}, predicted {answer} {classes[answer]:.2f}{own if answer != true else ''}"
            faults.append((1 - classes.get(true, 0.0), words, answer != true))
    if not faults:
        return Verdict(0.0, "not judged", "nothing on it that can be compared", False)
    error = min(max(fault[0] for fault in faults), 1.0)
    wrong = sorted((fault for fault in faults if fault[2]), key=lambda fault: -fault[0])
    if not wrong:
        return Verdict(error, "clean", "every answer is right", False)
    return Verdict(error, "image label", "; ".join(fault[1] for fault in wrong), False)


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
            card["truth"], card["prediction"] = _truth_text(record, prediction), _prediction_text(prediction)
    return {**found, "of_answers": True}


def _answer(question: str, prediction: ImagePrediction) -> str:
    """The most probable class, the first in order of equal ones."""
    classes = prediction.class_scores[question]
    return max(in_order(question, tuple(classes)), key=lambda name: classes[name])


def _truth_text(record: ImageRecord, prediction: ImagePrediction) -> str:
    parts = [f"{name} {value}" for name, value in record.labels.items() if value is not None]
    answers = ((question, class_of(record, question)) for question in prediction.class_scores)
    parts += [f"{question} {name}" for question, name in answers if name is not None]
    return "ground truth: " + (" \u00b7 ".join(parts) or "not known")


def _prediction_text(prediction: ImagePrediction) -> str:
    parts = [f"{name} {score:.2f}" for name, score in prediction.scores.items()]
    for question, classes in prediction.class_scores.items():
        answer = _answer(question, prediction)
        parts.append(f"{question} {answer} ({classes[answer]:.2f})")
    return "prediction: " + (" \u00b7 ".join(parts) or "none")
