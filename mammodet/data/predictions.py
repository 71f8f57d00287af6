"""The predictions file: what a model said of each image, in the pixels of the image file, and what model it was.

Evaluation and pictures need this file and the data set file, no model (docs/data_format.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mammodet.errors import InputError, raise_faults
from mammodet.files import read_json, write_json
from mammodet.geometry import xywh_to_xyxy, xyxy_to_xywh
from mammodet.records import Dataset, Detections, ImagePrediction, Rle

FORMAT = "mammodet-predictions/1"


@dataclass(frozen=True, slots=True)
class Predictions:
    """A predictions file.

    Attributes:
        model: what made it: checkpoint hash, config, data and split hash, version.
        categories: names; the id of a category is its position + 1.
        breasts, patients: joined scores, as they stand in the file.
    """

    images: tuple[ImagePrediction, ...]
    categories: tuple[str, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    breasts: tuple[Mapping[str, Any], ...] = ()
    patients: tuple[Mapping[str, Any], ...] = ()


def prediction_to_json(prediction: ImagePrediction) -> dict[str, Any]:
    """One image's entry."""
    found = prediction.detections
    boxes = xyxy_to_xywh(found.boxes_xyxy)
    items = []
    for index in range(len(found)):
        item: dict[str, Any] = {
            "bbox": [round(float(value), 2) for value in boxes[index]],
            "score": round(float(found.scores[index]), 6),
            "category_id": int(found.category_ids[index]),
        }
        if found.rles is not None:
            item["segmentation"] = dict(found.rles[index])
        items.append(item)
    return {
        "image_id": prediction.image_id,
        "file_name": prediction.file_name,
        "height": prediction.size_hw[0],
        "width": prediction.size_hw[1],
        "patient_id": prediction.patient_id,
        "laterality": prediction.laterality,
        "view": prediction.view,
        "scores": {name: round(value, 6) for name, value in prediction.scores.items()},
        "scores_by_rule": {
            rule: {name: round(value, 6) for name, value in scores.items()}
            for rule, scores in prediction.scores_by_rule.items()
        },
        "detections": items,
    }


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a predictions file, whole or not at all."""
    write_json(
        path,
        {
            "format": FORMAT,
            "model": dict(predictions.model),
            "categories": [{"id": number, "name": name} for number, name in enumerate(predictions.categories, start=1)],
            "images": [prediction_to_json(image) for image in predictions.images],
            "breasts": [dict(item) for item in predictions.breasts],
            "patients": [dict(item) for item in predictions.patients],
        },
    )


def prediction_from_json(item: Any, where: str) -> ImagePrediction:
    """Read one image's entry.

    Raises:
        ValueError: saying what is wrong with it.
    """
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object")
    try:
        found = item["detections"]
        size_hw = (int(item["height"]), int(item["width"]))
        boxes = xywh_to_xyxy([entry["bbox"] for entry in found])
        scores = np.array([_score(entry["score"], "detection score") for entry in found], dtype=np.float64)
        categories = np.array([int(entry["category_id"]) for entry in found], dtype=np.int64)
        with_masks = bool(found) and all("segmentation" in entry for entry in found)
        rles = [_rle(entry["segmentation"], size_hw) for entry in found] if with_masks else None
        if not np.isfinite(boxes).all():
            raise ValueError("a bbox is not finite")
        order = np.argsort(-scores, kind="stable")
        return ImagePrediction(
            image_id=int(item["image_id"]),
            file_name=str(item["file_name"]),
            size_hw=size_hw,
            scores={str(name): _score(value, f"score '{name}'") for name, value in item["scores"].items()},
            detections=Detections(
                boxes[order],
                scores[order],
                categories[order],
                [rles[index] for index in order] if rles is not None else ([] if not found else None),
            ),
            scores_by_rule={
                str(rule): {str(name): _score(value, f"{rule} score '{name}'") for name, value in values.items()}
                for rule, values in item.get("scores_by_rule", {}).items()
            },
            patient_id=item.get("patient_id"),
            laterality=item.get("laterality"),
            view=item.get("view"),
        )
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _score(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; expected a number in [0, 1]")
    return float(value)


def _rle(value: Any, size_hw: tuple[int, int]) -> Rle:
    if not isinstance(value, dict) or list(value.get("size", [])) != list(size_hw) or "counts" not in value:
        raise ValueError(f"segmentation: expected run lengths of size {list(size_hw)} (height, width)")
    return Rle(size=list(size_hw), counts=str(value["counts"]))


def read_predictions(path: Path) -> Predictions:
    """Read and check a predictions file.

    Raises:
        InputError: with every fault in the file.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise InputError(f"{path}: expected a predictions object with a list 'images' (tools/predict.py writes one)")
    if value.get("format") != FORMAT:
        raise InputError(f"{path}: format is {value.get('format')!r}; expected {FORMAT!r}")
    faults: list[str] = []
    images: list[ImagePrediction] = []
    for position, item in enumerate(value["images"]):
        name = item.get("file_name", position) if isinstance(item, dict) else position
        try:
            images.append(prediction_from_json(item, f"image {name!r}"))
        except ValueError as error:
            faults.append(str(error))
    for number, count in Counter(image.image_id for image in images).items():
        if count > 1:
            faults.append(f"image_id {number} stands {count} times; expected once")
    raise_faults(faults, where=str(path), advice="Predict again, or mend the file.")
    categories = value.get("categories") or []
    try:
        names = tuple(str(item["name"]) for item in sorted(categories, key=lambda item: item["id"]))
    except (KeyError, TypeError):
        raise InputError(f"{path}: 'categories' cannot be read; expected objects with id and name") from None
    model = value.get("model")
    return Predictions(
        tuple(images),
        names,
        model if isinstance(model, dict) else {},
        tuple(value.get("breasts") or ()),
        tuple(value.get("patients") or ()),
    )


def match_to_dataset(
    predictions: Sequence[ImagePrediction], dataset: Dataset, *, ignore_extra: bool = False
) -> list[ImagePrediction]:
    """One prediction for each image of a data set, in its order.

    Images meet by file name, else by the name without folder and suffix (a prediction made on a bare folder). What the
    data set knows (id, patient, side, view) replaces what the prediction says.

    Raises:
        InputError: images without a prediction, of another size, ambiguous names, or predictions for images that the
            data set lacks (unless `ignore_extra`).
    """
    by_name = {prediction.file_name: prediction for prediction in predictions}
    stems = Counter(Path(prediction.file_name).stem for prediction in predictions)
    by_stem = {Path(prediction.file_name).stem: prediction for prediction in predictions}
    matched: list[ImagePrediction] = []
    used: set[str] = set()
    faults: list[str] = []
    for record in dataset.images:
        stem = Path(record.file_name).stem
        prediction = by_name.get(record.file_name) or (by_stem.get(stem) if stems[stem] == 1 else None)
        if prediction is None:
            reason = f"{stems[stem]} predictions share its name" if stems[stem] > 1 else "has no prediction"
            faults.append(f"image {record.file_name!r} (id {record.image_id}): {reason}")
            continue
        used.add(prediction.file_name)
        if prediction.size_hw != record.size_hw:
            faults.append(
                f"image {record.file_name!r}: predicted at {prediction.size_hw}, the data set says {record.size_hw} "
                "(height, width)"
            )
            continue
        matched.append(
            replace(
                prediction,
                image_id=record.image_id,
                file_name=record.file_name,
                patient_id=record.patient_id,
                laterality=record.laterality,
                view=record.view,
            )
        )
    if not ignore_extra:
        extra = [name for name in by_name if name not in used]
        faults += [f"prediction for {name!r}: no such image in the ground truth" for name in extra]
    raise_faults(
        faults,
        where="predictions against ground truth",
        advice="Predict the images of the ground-truth file, or pass over additional predictions with --ignore-extra.",
    )
    return matched
