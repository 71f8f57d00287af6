"""COCO average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mammodet.data.coco import to_json
from mammodet.data.predictions import prediction_to_json
from mammodet.geometry import clip_boxes, patch_to_rle
from mammodet.records import BoxXYXY, Dataset, ImagePrediction, Lesion, Rle

Kind = Literal["bbox", "segm"]


def average_precision(dataset: Dataset, predictions: Sequence[ImagePrediction], kind: Kind) -> dict[str, float | None]:
    """AP50:95, AP50 and AP75 over all categories.

    Images on which a lesion is known but has no place take no part; ignored regions count neither way. A lesion
    without a mask stands with its box for one.

    Args:
        predictions: one per image of the data set, in its order, with the same image ids.
        kind: `bbox` or `segm`.
    Returns:
        `AP`, `AP50`, `AP75`, and `AP50/NAME` per category where there are several; None where no lesion is to be found.
    """
    scored = [record for record in dataset.images if not record.unlocalized]
    if kind == "segm":
        scored = [
            replace(record, lesions=tuple(_with_mask(one, record.size_hw) for one in record.lesions))
            for record in scored
        ]
    ids = {record.image_id for record in scored}
    truth = to_json(Dataset(dataset.categories, tuple(scored)))
    results: list[dict[str, Any]] = []
    for prediction in predictions:
        if prediction.image_id not in ids:
            continue
        for item in prediction_to_json(prediction)["detections"]:
            results.append({**item, "image_id": prediction.image_id})
    lesions = [lesion.category for record in scored for lesion in record.lesions if not lesion.ignore]
    parts = dataset.categories if len(dataset.categories) > 1 else ()
    if not lesions or not results:  # pycocotools cannot load an empty list of results
        nothing = 0.0 if lesions else None
        return {
            **dict.fromkeys(("AP", "AP50", "AP75"), nothing),
            **{f"AP50/{name}": 0.0 if name in lesions else None for name in parts},
        }
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
    # precision: (IoU thresholds, recalls, categories, areas, detections per image)
    for position, name in enumerate(parts):
        precision = evaluation.eval["precision"][0, :, position, 0, -1]
        valid = precision[precision > -1]
        figures[f"AP50/{name}"] = float(valid.mean()) if valid.size else None
    return figures


def _with_mask(lesion: Lesion, size_hw: tuple[int, int]) -> Lesion:
    return lesion if lesion.rle else replace(lesion, rle=_box_rle(lesion.box_xyxy, size_hw))


def _box_rle(box_xyxy: BoxXYXY, size_hw: tuple[int, int]) -> Rle:
    """The box as a mask, at least one pixel large."""
    height, width = size_hw
    x1, y1, x2, y2 = (int(value) for value in clip_boxes([box_xyxy], size_hw)[0].round())
    left, top = min(x1, width - 1), min(y1, height - 1)
    return patch_to_rle(np.ones((max(y2 - top, 1), max(x2 - left, 1)), dtype=bool), (left, top), size_hw)


def _figure(value: float) -> float | None:
    return float(value) if value > -1 else None
