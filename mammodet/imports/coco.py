"""COCO result lists: detectron2, MMDetection, torchvision's references, and every program that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mammodet.data.checks import is_finite, short
from mammodet.errors import InputError
from mammodet.geometry import rle_box
from mammodet.imports.base import Collector, Place, Wording, read_results
from mammodet.records import BoxXYXY, ImageRecord

WORDING = Wording("entry", ("bbox", "xywh px"))
DETECTRON2_FILE = "coco_instances_results.json"


def read(source: Path, collector: Collector) -> None:
    """Take a list of `{image_id, category_id, bbox, score, segmentation}`.

    Raises:
        InputError: it is no such list.
    """
    read_list(results_of(source), collector, number="id")


def results_of(source: Path) -> list[Any]:
    """The list in a results file.

    Raises:
        InputError: it is another thing.
    """
    if source.is_dir():
        raise InputError(f"{source}: is a folder; name the results file in it, for instance {source / DETECTRON2_FILE}")
    if source.suffix.lower() in (".pth", ".pt", ".pkl", ".pickle"):
        raise InputError(
            f"{source}: a pickle can run code and is not read; take the JSON beside it (detectron2 writes "
            f"{DETECTRON2_FILE})"
        )
    value = read_results(source)
    if isinstance(value, dict):
        raise InputError(
            f"{source}: is an object with {short(sorted(map(str, value)))}; expected a list of detections with "
            "image_id, category_id, bbox and score (of a whole COCO file, give the list 'annotations' alone)"
        )
    if not isinstance(value, list):
        raise InputError(f"{source}: is {short(value)}; expected a list of detections")
    return value


def read_list(items: list[Any], collector: Collector, *, number: str) -> None:
    """Take COCO's entries, and empty the list on the way, so that a large file is not held twice.

    Args:
        number: what a whole number as `image_id` is: the `id` in the ground truth, or the `stem` of a file name. With
            `stem`, an entry's own `file_name` comes first.
    """
    for place, item in enumerate(items):
        items[place] = None
        if not isinstance(item, dict):
            collector.fault(place, f"is {short(item)}; expected an object")
            continue
        record = _image(item, place, collector, number)
        if record is None:
            continue
        category = _category(item, place, collector, record)
        score = collector.score(item.get("score"), place, record)
        mask = item.get("segmentation") or None
        box = _box(item, mask, place, collector, record)
        if box is not None:
            collector.add(record, box, score, category, place, given=item.get("bbox") or "of the mask", mask=mask)


def _image(item: dict[str, Any], place: Place, collector: Collector, number: str) -> ImageRecord | None:
    image_id, file_name = item.get("image_id"), item.get("file_name")
    if number == "stem" and isinstance(file_name, str):
        return collector.image(file_name, place)
    if type(image_id) is not int and not isinstance(image_id, str):
        collector.fault(place, f"image_id is {short(image_id)}; expected a whole number, or a file name")
        return None
    record = collector.image(image_id, place, number=number)
    if record is not None and isinstance(file_name, str) and not collector.same_image(record, file_name):
        collector.fault(
            place,
            f"image_id {short(image_id)} is {record.file_name!r} in the ground truth, but the entry's file_name is "
            f"{short(file_name)}; the ids are of another data set",
        )
        return None
    return record


def _category(item: dict[str, Any], place: Place, collector: Collector, record: ImageRecord) -> int | None:
    number, name = item.get("category_id"), item.get("category_name")
    if type(number) is not int:
        collector.fault(place, f"category_id is {short(number)}; expected a whole number", record)
        return None
    return collector.category(number, name if isinstance(name, str) else None, place)


def _box(item: dict[str, Any], mask: Any, place: Place, collector: Collector, record: ImageRecord) -> BoxXYXY | None:
    bbox = item.get("bbox")
    if not bbox and mask is not None:
        return _box_of_mask(mask, place, collector, record)
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_finite, bbox)):
        collector.fault(place, f"bbox is {short(bbox)}; expected x, y, width and height in pixels", record)
        return None
    x, y, w, h = bbox
    return float(x), float(y), float(x + w), float(y + h)


def _box_of_mask(mask: Any, place: Place, collector: Collector, record: ImageRecord) -> BoxXYXY | None:
    """Mask results need no box in COCO."""
    rle = collector.read_mask(mask, record, place)
    return None if rle is None else rle_box(rle)
