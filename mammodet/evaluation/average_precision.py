"""COCO average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mammodet.data.coco import to_json
from mammodet.data.predictions import prediction_to_json
from mammodet.records import Dataset, ImagePrediction

Kind = Literal["bbox", "segm"]


def average_precision(dataset: Dataset, predictions: Sequence[ImagePrediction], kind: Kind) -> dict[str, float | None]:
    """AP50:95, AP50 and AP75 over all categories.

    Images on which a lesion is known but has no place take no part; ignored regions count neither way.

    Args:
        predictions: one per image of the data set, in its order, with the same image ids.
        kind: `bbox` or `segm`.
    Returns:
        `AP`, `AP50`, `AP75`, and `AP50/NAME` per category where there are several; None where no lesion is to be found.
    """
    scored = [record for record in dataset.images if not record.unlocalized]
    ids = {record.image_id for record in scored}
    truth = to_json(Dataset(dataset.categories, tuple(scored)))
    results: list[dict[str, Any]] = []
    for prediction in predictions:
        if prediction.image_id not in ids:
            continue
        for item in prediction_to_json(prediction)["detections"]:
            results.append({**item, "image_id": prediction.image_id})
    names = {"AP": None, "AP50": None, "AP75": None}
    if not any(not annotation["ignore"] for annotation in truth["annotations"]):
        return dict(names)
    if not results:
        return dict.fromkeys(names, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures: dict[str, float | None] = {
        name: _figure(evaluation.stats[position]) for position, name in enumerate(("AP", "AP50", "AP75"))
    }
    if len(dataset.categories) > 1:
        # precision: (IoU thresholds, recalls, categories, areas, detections per image)
        for position, name in enumerate(dataset.categories):
            precision = evaluation.eval["precision"][0, :, position, 0, -1]
            valid = precision[precision > -1]
            figures[f"AP50/{name}"] = float(valid.mean()) if valid.size else None
    return figures


def _figure(value: float) -> float | None:
    return float(value) if value > -1 else None
