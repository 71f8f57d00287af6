"""The predictions file: what a model said of each image, in the pixels of the image file, and what model it was.

Evaluation and pictures need this file and the data set file, no model (docs/data_format.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mammodet.data.json_values import check_file_name
from mammodet.data.sources import sources_of
from mammodet.errors import InputError, raise_faults
from mammodet.files import read_json, write_json
from mammodet.geometry import xywh_to_xyxy, xyxy_to_xywh
from mammodet.records import LATERALITIES, Dataset, Detections, ImagePrediction, ImageRecord, Rle
from mammodet.run_lengths import check_counts

FORMAT = "mammodet-predictions/1"
_HASHES = ("checkpoint_sha256", "data_hash", "split_hash", "predicted_data_hash")
_LISTS = ("patients", "packed_from", "images_seen")


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

    def dataset(self) -> Dataset:
        """The images that were predicted, of which nothing else is known."""
        names = ("image_id", "file_name", "size_hw", "patient_id", "laterality", "view")
        records = (ImageRecord(**{name: getattr(image, name) for name in names}) for image in self.images)
        return Dataset(self.categories, tuple(records))


@dataclass
class Repairs:
    """Faults of a predictions file that can be mended, and were: one line each."""

    scores: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


def prediction_to_json(prediction: ImagePrediction) -> dict[str, Any]:
    """One image's entry."""
    found = prediction.detections.in_order()
    boxes = xyxy_to_xywh(found.boxes_xyxy)
    items = []
    for index in range(len(found)):
        item: dict[str, Any] = {
            "bbox": [round(float(value), 6) for value in boxes[index]],
            "score": float(found.scores[index]),
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
        "scores": dict(prediction.scores),
        "scores_by_rule": {rule: dict(scores) for rule, scores in prediction.scores_by_rule.items()},
        **_class_scores_to_json(prediction),
        **({"warnings": list(prediction.warnings)} if prediction.warnings else {}),
        "detections": items,
    }


def _class_scores_to_json(prediction: ImagePrediction) -> dict[str, Any]:
    """Nothing for a model that knows no classes."""
    if not prediction.class_scores:
        return {}
    return {"class_scores": {name: dict(classes) for name, classes in prediction.class_scores.items()}}


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


def prediction_from_json(item: Any, where: str, repairs: Repairs | None = None) -> ImagePrediction:
    """Read one image's entry.

    Args:
        repairs: where to note scores outside [0, 1], which are then clipped; None to refuse them.
    Raises:
        ValueError: saying what is wrong with it.
    """

    def score(value: Any, name: str) -> float:
        if repairs is not None and isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 <= value <= 1:
                repairs.scores.append(f"{where}: {name} is {value!r:.60}")
            value = min(max(value, 0.0), 1.0)
        return _score(value, name)

    def scores_of(value: Any, name: str) -> dict[str, float]:
        if not isinstance(value, dict):
            raise ValueError(f"{name}s are {value!r:.60}; expected an object of numbers in [0, 1]")
        return {key: score(member, f"{name} '{key}'") for key, member in value.items()}

    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object")
    try:
        found = item["detections"]
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise ValueError(f"'detections' is {found!r:.60}; expected a list of objects")
        size_hw = (_integer(item["height"], "height", 1, 100_000), _integer(item["width"], "width", 1, 100_000))
        file_name = _text(item["file_name"], "file_name", need=True)
        if fault := check_file_name(str(file_name)):
            raise ValueError(fault)
        laterality = _text(item.get("laterality"), "laterality")
        if laterality not in (None, *LATERALITIES):
            raise ValueError(f"laterality is {laterality!r}; expected 'L', 'R' or null")
        by_rule = item.get("scores_by_rule", {})
        if not isinstance(by_rule, dict):
            raise ValueError(f"'scores_by_rule' is {by_rule!r:.60}; expected an object")
        by_class = item.get("class_scores", {})
        if not isinstance(by_class, dict):
            raise ValueError(f"'class_scores' is {by_class!r:.60}; expected an object")
        boxes = xywh_to_xyxy([_bbox(entry["bbox"]) for entry in found])
        scores = np.array([score(entry["score"], "detection score") for entry in found], dtype=np.float64)
        categories = np.array([_integer(entry["category_id"], "category_id", 1) for entry in found], dtype=np.int64)
        with_masks = any("segmentation" in entry for entry in found)
        rles = [_rle(entry["segmentation"], size_hw) for entry in found] if with_masks else None
        return ImagePrediction(
            image_id=_integer(item["image_id"], "image_id"),
            file_name=str(file_name),
            size_hw=size_hw,
            scores=scores_of(item["scores"], "score"),
            detections=Detections(boxes, scores, categories, rles if found else []).in_order(),
            scores_by_rule={rule: scores_of(values, f"{rule} score") for rule, values in by_rule.items()},
            class_scores={name: scores_of(values, f"{name} class score") for name, values in by_class.items()},
            patient_id=_text(item.get("patient_id"), "patient_id"),
            laterality=laterality,
            view=_text(item.get("view"), "view"),
            warnings=tuple(str(_text(line, "a warning", need=True)) for line in item.get("warnings") or ()),
        )
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _score(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r:.60}; expected a number in [0, 1]")
    return float(value)


def _integer(value: Any, name: str, least: int = -(2**53), most: int = 2**53) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r:.60}; expected a whole number from {least} to {most}")
    return value


def _text(value: Any, name: str, *, need: bool = False) -> str | None:
    if not isinstance(value, str) and (need or value is not None):
        raise ValueError(f"{name} is {value!r:.60}; expected text{'' if need else ' or null'}")
    return value


def _bbox(value: Any) -> list[float]:
    numbers = isinstance(value, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e9 for number in value
    )
    if not numbers or len(value) != 4 or min(value[2:]) < 0:
        raise ValueError(f"bbox is {value!r:.60}; expected x, y, width and height in pixels")
    return [float(number) for number in value]


def _rle(value: Any, size_hw: tuple[int, int]) -> Rle:
    if not isinstance(value, dict) or value.get("size") != list(size_hw) or "counts" not in value:
        raise ValueError(f"segmentation: expected run lengths of size {list(size_hw)} (height, width)")
    if not isinstance(value["counts"], str):
        raise ValueError(f"segmentation: counts are {value['counts']!r:.60}; expected compressed run lengths, a text")
    check_counts(value["counts"].encode("ascii"), size_hw[0] * size_hw[1])
    return Rle(size=list(size_hw), counts=value["counts"])


def read_predictions(path: Path, repairs: Repairs | None = None) -> Predictions:
    """Read and check a predictions file.

    Args:
        repairs: where to note scores outside [0, 1], which are clipped, and second entries of an image, which are
            dropped; None to refuse both.
    Raises:
        InputError: with every fault in the file.
    """
    value = read_json(path)
    if isinstance(value, dict) and "annotations" in value:
        raise InputError(
            f"{path}: is a data set (COCO JSON), no predictions. Were --ground-truth and --predictions exchanged?"
        )
    if isinstance(value, list):
        raise InputError(f"{path}: is a list, as of COCO results; mammodet import makes predictions of it")
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise InputError(f"{path}: expected a predictions object with a list 'images' (mammodet predict writes one)")
    if value.get("format") != FORMAT:
        raise InputError(f"{path}: format is {value.get('format')!r}; expected {FORMAT!r}")
    faults: list[str] = []
    names = _categories(value.get("categories"), faults)
    images: list[ImagePrediction] = []
    for position, item in enumerate(value["images"]):
        name = item.get("file_name", position) if isinstance(item, dict) else position
        where = f"image {name!r:.200}"
        try:
            image = prediction_from_json(item, where, repairs)
        except ValueError as error:
            faults.append(str(error))
            continue
        images.append(image)
        unknown = sorted({int(number) for number in image.detections.category_ids if number > len(names)})
        if unknown:
            faults.append(f"{where}: category_id {unknown}; expected 1 to {len(names)}, as in 'categories'")
    for key in ("image_id", "file_name"):
        for member, count in Counter(getattr(image, key) for image in images).items():
            if count > 1:
                notes = faults if repairs is None else repairs.duplicates
                notes.append(f"{key} {member!r} stands {count} times; expected once")
    for key in ("image_id", "file_name"):
        images = list({getattr(image, key): image for image in reversed(images)}.values())[::-1]
    model = value.get("model") or {}
    if not isinstance(model, dict) or not all(_is_list_of(str, model.get(key)) for key in _LISTS):
        faults.append(f"'model' cannot be read; expected an object in which {', '.join(_LISTS)} are lists of texts")
    else:
        unknown_count = model.get("unknown_patients")
        if isinstance(unknown_count, bool) or not isinstance(unknown_count, int | None):
            faults.append(f"'model': 'unknown_patients' is {unknown_count!r:.60}; expected a number of images or null")
        faults += [
            f"'model': '{key}' is {model[key]!r:.60}; expected text or null"
            for key in (*_HASHES, "unknown_start")
            if not isinstance(model.get(key), str | None)
        ]
        try:
            sources_of(model)
        except InputError as error:
            faults.append(str(error))
    for key in ("breasts", "patients"):
        if not _is_list_of(dict, value.get(key)):
            faults.append(f"'{key}' is {value[key]!r:.60}; expected a list of objects")
    raise_faults(faults, where=str(path), advice="Predict again, or mend the file.")
    breasts, patients = tuple(value.get("breasts") or ()), tuple(value.get("patients") or ())
    return Predictions(tuple(images), names, model, breasts, patients)


def _categories(items: Any, faults: list[str]) -> tuple[str, ...]:
    items = [] if items is None else items
    if _is_list_of(dict, items):
        names = {item.get("id"): item.get("name") for item in items if isinstance(item.get("id"), int)}
        if sorted(names) == list(range(1, len(items) + 1)) and _is_list_of(str, list(names.values())):
            return tuple(names[number] for number in sorted(names))
    faults.append(f"'categories' is {items!r:.60}; expected objects with a name and an id, 1 to n without gaps")
    return ()


def _is_list_of(kind: type, value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(member, kind) for member in value))


def unmatched(predictions: Sequence[ImagePrediction], dataset: Dataset) -> tuple[list[str], list[str]]:
    """Images that no prediction could belong to, and predictions that belong to no image, in words."""
    pairs, extra = _pair(predictions, dataset)
    stems = {Path(name).stem for name in extra}
    missing = [
        _name(record) for record, prediction in pairs if prediction is None and Path(record.file_name).stem not in stems
    ]
    return missing, [repr(name) for name in extra]


def _name(record: ImageRecord) -> str:
    return f"image {record.file_name!r} (id {record.image_id})"


def _pair(
    predictions: Sequence[ImagePrediction], dataset: Dataset
) -> tuple[list[tuple[ImageRecord, ImagePrediction | None]], list[str]]:
    """Each image with its prediction, and the names of predictions that are left over."""
    by_name = {prediction.file_name: prediction for prediction in predictions}
    stems = Counter(Path(prediction.file_name).stem for prediction in predictions)
    by_stem = {Path(prediction.file_name).stem: prediction for prediction in predictions}
    sought = Counter(Path(record.file_name).stem for record in dataset.images)
    pairs: list[tuple[ImageRecord, ImagePrediction | None]] = []
    for record in dataset.images:
        stem = Path(record.file_name).stem
        unique = stems[stem] == sought[stem] == 1
        pairs.append((record, by_name.get(record.file_name) or (by_stem[stem] if unique else None)))
    used = {prediction.file_name for _, prediction in pairs if prediction is not None}
    return pairs, [name for name in by_name if name not in used]


def match_to_dataset(
    predictions: Sequence[ImagePrediction],
    dataset: Dataset,
    *,
    ignore_extra: bool = False,
    ignore_missing: bool = False,
    where: str = "predictions against ground truth",
) -> list[ImagePrediction]:
    """One prediction for each image of a data set, in its order; `where` names both in messages.

    Images meet by file name, else by the name without folder and suffix (a prediction made on a bare folder) where that
    is unique on both sides. What the data set knows (id, patient, side, view) replaces what the prediction says.

    Raises:
        InputError: images without a prediction (unless `ignore_missing`), of another size, ambiguous names, or
            predictions for images that the data set lacks (unless `ignore_extra`).
    """
    pairs, extra = _pair(predictions, dataset)
    left = {Path(name).stem for name in extra}
    stems = Counter(Path(prediction.file_name).stem for prediction in predictions)
    sought = Counter(Path(record.file_name).stem for record in dataset.images)
    matched: list[ImagePrediction] = []
    faults: list[str] = []
    for record, prediction in pairs:
        stem = Path(record.file_name).stem
        if prediction is None:
            if stem in left:
                faults.append(
                    f"{_name(record)}: has no prediction of this path, and {stems[stem]} predictions and "
                    f"{sought[stem]} images share its name"
                )
            elif not ignore_missing:
                faults.append(f"{_name(record)}: has no prediction")
            continue
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
        faults += [f"prediction for {name!r}: no such image in the ground truth" for name in extra]
    raise_faults(
        faults,
        where=where,
        advice="Predict the images of the ground-truth file (skipped.json beside the predictions names unread ones).",
    )
    return matched
