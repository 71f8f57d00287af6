"""Read, check and write the data set file: COCO JSON with more keys (docs/data_format.md).

The file is valid for pycocotools as it is. The reader checks everything and tells all faults at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mammodet.errors import InputError, raise_faults
from mammodet.files import canonical_hash, read_json, write_json
from mammodet.geometry import rle_area
from mammodet.records import (
    GEOMETRIES,
    LATERALITIES,
    SUBSETS,
    BoxXYXY,
    Dataset,
    ImageRecord,
    Lesion,
    Rle,
)
from mammodet.trace import Trace

FORMAT = "mammodet-coco/1"
_SLACK = 1e-3  # pixels by which a box may pass the border through rounding


def to_json(dataset: Dataset) -> dict[str, Any]:
    """The COCO JSON value of a data set."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.images:
        images.append(_image_to_json(record))
        for lesion in record.lesions:
            annotations.append(
                _lesion_to_json(lesion, len(annotations) + 1, record, dataset.category_id(lesion.category))
            )
    categories = [
        {"id": number, "name": name, "supercategory": "abnormality"}
        for number, name in enumerate(dataset.categories, start=1)
    ]
    info = {"format": FORMAT, **dataset.info}
    return {"info": info, "categories": categories, "images": images, "annotations": annotations}


def write_coco(dataset: Dataset, path: Path) -> None:
    """Write a data set, whole or not at all."""
    write_json(path, to_json(dataset))


def data_hash(dataset: Dataset) -> str:
    """SHA-256 over images, annotations and categories; provenance in `info` does not count."""
    value = to_json(dataset)
    value.pop("info")
    return canonical_hash(value)


def _image_to_json(record: ImageRecord) -> dict[str, Any]:
    height, width = record.size_hw
    box = record.breast_box_xyxy
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "width": width,
        "height": height,
        "patient_id": record.patient_id,
        "laterality": record.laterality,
        "view": record.view,
        "density": record.density,
        "birads": record.birads,
        "labels": dict(record.labels),
        "source": record.source,
        "split": record.split,
        "spacing_mm_rc": list(record.spacing_mm_rc) if record.spacing_mm_rc else None,
        "breast_bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]] if box else None,
        "trace": dict(record.trace) if record.trace else None,
        "unlocalized": record.unlocalized,
        "notes": list(record.notes),
    }


def _lesion_to_json(lesion: Lesion, number: int, record: ImageRecord, category_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = lesion.box_xyxy
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": record.image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": rle_area(lesion.rle) if lesion.rle else (x2 - x1) * (y2 - y1),
        # pycocotools knows regions to ignore by `iscrowd` only.
        "iscrowd": int(lesion.ignore),
        "ignore": int(lesion.ignore),
        "geometry": lesion.geometry,
        "attributes": dict(lesion.attributes),
    }
    if lesion.rle:
        annotation["segmentation"] = dict(lesion.rle)
    return annotation


@dataclass
class _Checker:
    """Collects faults; each `take` answers the value, or None and a fault."""

    faults: list[str] = field(default_factory=list)

    def take(self, item: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], where: str, need: bool) -> Any:
        value = item.get(key)
        if value is None:
            if need:
                self.faults.append(f"{where}: '{key}' is missing")
            return None
        wrong_bool = isinstance(value, bool) and bool not in (kinds if isinstance(kinds, tuple) else (kinds,))
        if wrong_bool or not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            self.faults.append(f"{where}: '{key}' is {_short(value)}; expected {names}")
            return None
        return value

    def numbers(self, item: Mapping[str, Any], key: str, count: int, where: str, need: bool) -> list[float] | None:
        value = self.take(item, key, list, where, need)
        if value is None:
            return None
        good = len(value) == count and all(
            isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            for number in value
        )
        if not good:
            self.faults.append(f"{where}: '{key}' is {_short(value)}; expected {count} finite numbers")
            return None
        return [float(number) for number in value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_coco(path: Path, *, skip_invalid: bool = False) -> Dataset:
    """Read and check a data set file.

    Args:
        skip_invalid: drop annotations and images with faults instead of refusing the file; what was dropped is
            listed in `info["dropped"]`.
    Raises:
        InputError: with every fault in the file: its place, its value and what was expected.
    """
    path = Path(path)
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in ("images", "categories")):
        raise InputError(f"{path}: expected a COCO object with lists 'images', 'annotations' and 'categories'")
    annotations = value.get("annotations", [])
    if not isinstance(annotations, list):
        raise InputError(f"{path}: 'annotations' is {_short(annotations)}; expected a list")
    checker = _Checker()
    names = _read_categories(value["categories"], checker)
    raise_faults(checker.faults, where=str(path), advice="Category faults cannot be skipped.")

    records: dict[int, ImageRecord] = {}
    for position, item in enumerate(value["images"]):
        record = _read_image(item, position, checker)
        if record is None:
            continue
        if record.image_id in records:
            checker.faults.append(f"{_image_name(item, position)}: its id occurs more than once")
            continue
        records[record.image_id] = record
    for file_name, count in Counter(record.file_name for record in records.values()).items():
        if count > 1:
            checker.faults.append(f"file_name {file_name!r} stands {count} times; expected once")

    lesions: dict[int, list[Lesion]] = {number: [] for number in records}
    seen: set[Any] = set()
    for position, item in enumerate(annotations):
        _read_annotation(item, position, records, names, lesions, seen, checker)

    if not skip_invalid:
        raise_faults(
            checker.faults,
            where=str(path),
            advice="Re-run the converter, mend the file, or drop the faulty records (data.skip_invalid=true).",
        )
    ordered = sorted(names)
    info = dict(value.get("info") or {})
    if checker.faults:
        info["dropped"] = checker.faults
    return Dataset(
        categories=tuple(names[number] for number in ordered),
        images=tuple(replace(record, lesions=tuple(lesions[record.image_id])) for record in records.values()),
        info=info,
    )


def _read_categories(items: Sequence[Any], checker: _Checker) -> dict[int, str]:
    names: dict[int, str] = {}
    for position, item in enumerate(items):
        where = f"category at position {position}"
        if not isinstance(item, dict):
            checker.faults.append(f"{where}: is {_short(item)}; expected an object")
            continue
        number = checker.take(item, "id", int, where, need=True)
        name = checker.take(item, "name", str, where, need=True)
        if number is None or name is None:
            continue
        if number in names or name in names.values():
            checker.faults.append(f"{where}: id {number} or name {name!r} occurs more than once")
        names[number] = name
    if not names and not checker.faults:
        checker.faults.append("'categories' is empty; expected at least one")
    if names and not checker.faults and sorted(names) != list(range(1, len(names) + 1)):
        checker.faults.append(
            f"category ids are {sorted(names)}; expected 1 to {len(names)} without gaps (0 is the background)"
        )
    return names


def _image_name(item: Any, position: int) -> str:
    if isinstance(item, dict) and "file_name" in item:
        return f"image {item['file_name']!r} (id {item.get('id')})"
    return f"image at position {position}"


def check_file_name(name: str) -> str | None:
    """What is wrong with a file name that comes from JSON or CSV, or None: it must stay inside the data root."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if not name or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0] or "\0" in name:
        return f"file_name {name!r} leaves the data root; expected a relative path without '..'"
    return None


def _read_image(item: Any, position: int, checker: _Checker) -> ImageRecord | None:
    where = _image_name(item, position)
    if not isinstance(item, dict):
        checker.faults.append(f"{where}: is {_short(item)}; expected an object")
        return None
    before = len(checker.faults)
    number = checker.take(item, "id", int, where, need=True)
    file_name = checker.take(item, "file_name", str, where, need=True)
    height = checker.take(item, "height", int, where, need=True)
    width = checker.take(item, "width", int, where, need=True)
    if file_name is not None and (fault := check_file_name(file_name)):
        checker.faults.append(f"{where}: {fault}")
    for key, side in (("height", height), ("width", width)):
        if side is not None and not 0 < side <= 100_000:
            checker.faults.append(f"{where}: '{key}' is {side}; expected 1 to 100000 px")
    laterality = checker.take(item, "laterality", str, where, need=False)
    if laterality not in (None, *LATERALITIES):
        checker.faults.append(f"{where}: 'laterality' is {laterality!r}; expected 'L', 'R' or null")
    split = checker.take(item, "split", str, where, need=False)
    if split not in (None, *SUBSETS):
        checker.faults.append(f"{where}: 'split' is {split!r}; expected 'train', 'val', 'test' or null")
    labels = checker.take(item, "labels", dict, where, need=False) or {}
    for name, label in labels.items():
        if label not in (0, 1, None):
            checker.faults.append(f"{where}: label '{name}' is {_short(label)}; expected 0, 1 or null")
    spacing = checker.numbers(item, "spacing_mm_rc", 2, where, need=False)
    if spacing is not None and min(spacing) <= 0:
        checker.faults.append(f"{where}: 'spacing_mm_rc' is {spacing}; expected two positive numbers (mm)")
    breast = checker.numbers(item, "breast_bbox", 4, where, need=False)
    if breast is not None and height and width:
        fault = _box_fault(breast, height, width)
        if fault:
            checker.faults.append(f"{where}: breast_bbox {fault}")
    trace = checker.take(item, "trace", dict, where, need=False)
    if trace is not None:
        try:
            output = Trace.from_json(trace).output_size_hw
            if height and width and output != (height, width):
                checker.faults.append(f"{where}: 'trace' ends at {output} (height, width), the file is {height, width}")
        except (KeyError, TypeError, ValueError) as error:
            checker.faults.append(f"{where}: 'trace' cannot be read ({error})")
    texts = {
        key: checker.take(item, key, str, where, need=False)
        for key in ("patient_id", "view", "density", "birads", "source")
    }
    unlocalized = checker.take(item, "unlocalized", (bool, int), where, need=False)
    notes = checker.take(item, "notes", list, where, need=False) or []
    if len(checker.faults) > before:
        return None
    return ImageRecord(
        image_id=number,
        file_name=file_name,
        size_hw=(height, width),
        laterality=laterality,
        labels=labels,
        split=split,
        spacing_mm_rc=(spacing[0], spacing[1]) if spacing else None,
        breast_box_xyxy=_to_xyxy(breast) if breast else None,
        trace=trace,
        unlocalized=bool(unlocalized),
        notes=tuple(str(note) for note in notes),
        **texts,
    )


def _to_xyxy(box_xywh: Sequence[float]) -> BoxXYXY:
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def _box_fault(box: Sequence[float], height: int, width: int) -> str | None:
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return f"{list(box)} (xywh px) is empty; expected a positive width and height"
    if x < -_SLACK or y < -_SLACK:
        return f"{list(box)} (xywh px) leaves the image (negative corner)"
    if x + w > width + _SLACK:
        return f"{list(box)} (xywh px) leaves the image (width {width})"
    if y + h > height + _SLACK:
        return f"{list(box)} (xywh px) leaves the image (height {height})"
    return None


def _read_annotation(
    item: Any,
    position: int,
    records: Mapping[int, ImageRecord],
    names: Mapping[int, str],
    lesions: dict[int, list[Lesion]],
    seen: set[Any],
    checker: _Checker,
) -> None:
    if not isinstance(item, dict):
        checker.faults.append(f"annotation at position {position}: is {_short(item)}; expected an object")
        return
    where = f"annotation {item.get('id', f'at position {position}')}"
    before = len(checker.faults)
    number = checker.take(item, "id", int, where, need=True)
    image_id = checker.take(item, "image_id", int, where, need=True)
    category_id = checker.take(item, "category_id", int, where, need=True)
    box = checker.numbers(item, "bbox", 4, where, need=True)
    if number is not None and number in seen:
        checker.faults.append(f"{where}: its id occurs more than once")
    seen.add(number)
    if image_id is not None and image_id not in records:
        checker.faults.append(f"{where}: image_id {image_id} is not among the (valid) images")
        return
    if image_id is not None:
        where = f"image {records[image_id].file_name!r} (id {image_id}), {where}"
    if category_id is not None and category_id not in names:
        checker.faults.append(f"{where}: category_id {category_id}; expected one of {sorted(names)}")
    geometry = checker.take(item, "geometry", str, where, need=False)
    geometry = geometry or ("contour" if item.get("segmentation") else "box")
    if geometry not in GEOMETRIES:
        checker.faults.append(f"{where}: geometry {geometry!r}; expected one of {', '.join(GEOMETRIES)}")
    attributes = checker.take(item, "attributes", dict, where, need=False) or {}
    rle = None
    if image_id is not None and box is not None:
        height, width = records[image_id].size_hw
        if fault := _box_fault(box, height, width):
            checker.faults.append(f"{where}: bbox {fault}")
        rle = _read_segmentation(item.get("segmentation"), height, width, where, checker)
    if len(checker.faults) > before:
        return
    assert box is not None  # for the type checker: a missing box is a fault
    lesions[image_id].append(
        Lesion(
            category=names[category_id],
            box_xyxy=_to_xyxy(box),
            rle=rle,
            geometry=geometry,
            attributes=attributes,
            ignore=bool(item.get("ignore") or item.get("iscrowd")),
        )
    )


def _read_segmentation(value: Any, height: int, width: int, where: str, checker: _Checker) -> Rle | None:
    """Compressed or plain run lengths, or COCO polygons (turned into run lengths)."""
    from pycocotools import mask as coco_mask

    if not value:
        return None
    try:
        if isinstance(value, list):
            polygons = [np.asarray(polygon, dtype=float) for polygon in value]
            if any(polygon.ndim != 1 or polygon.size < 6 or polygon.size % 2 for polygon in polygons):
                raise ValueError("a polygon needs at least three x, y pairs")
            rle = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))
        elif isinstance(value, dict) and list(value.get("size", [])) == [height, width]:
            if isinstance(value["counts"], list):
                if sum(value["counts"]) != height * width or min(value["counts"]) < 0:
                    raise ValueError(f"run lengths cover {sum(value['counts'])} pixels, the image has {height * width}")
                rle = coco_mask.frPyObjects(value, height, width)
            else:
                rle = {"size": [height, width], "counts": str(value["counts"]).encode("ascii")}
                _check_counts(rle["counts"], height * width)
        else:
            raise ValueError(f"size is {value.get('size')}, the image is {[height, width]} (height, width)")
    except (KeyError, TypeError, ValueError, UnicodeEncodeError) as error:
        checker.faults.append(f"{where}: segmentation cannot be read ({error})")
        return None
    counts = rle["counts"].decode("ascii") if isinstance(rle["counts"], bytes) else rle["counts"]
    return Rle(size=[height, width], counts=counts)


def _check_counts(counts: bytes, pixels: int) -> None:
    """Refuse compressed run lengths that do not cover the image; the C decoder would write past its buffer."""
    total, position = 0, 0
    values: list[int] = []
    while position < len(counts):
        number, shift, more = 0, 0, True
        while more:
            if position >= len(counts):
                raise ValueError("run lengths are cut short")
            char = counts[position] - 48
            if not 0 <= char < 64:
                raise ValueError(f"run lengths hold the character {chr(counts[position])!r}")
            number |= (char & 0x1F) << shift
            more = bool(char & 0x20)
            position += 1
            shift += 5
            if not more and char & 0x10:
                number |= -1 << shift
        if len(values) > 2:
            number += values[-2]
        if number < 0:
            raise ValueError("run lengths hold a negative run")
        values.append(number)
        total += number
    if total != pixels:
        raise ValueError(f"run lengths cover {total} pixels, the image has {pixels}")
