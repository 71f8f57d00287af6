"""COCO result lists: detectron2, MMDetection, torchvision's references, and every program that follows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mammodet.data.json_values import is_finite, short
from mammodet.errors import InputError
from mammodet.imports import ImportOptions
from mammodet.imports.entry import FAULTY, Entry, read_results
from mammodet.records import Dataset

DETECTRON2_FILE = "coco_instances_results.json"


def read(source: Path, options: ImportOptions, dataset: Dataset) -> Iterator[Entry]:
    """The entries of a list of `{image_id, category_id, bbox, score, segmentation}`.

    Raises InputError: it is no such list.
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
    yield from read_list(value, number_is="id")


def read_list(items: list[Any], *, number_is: Literal["id", "stem"]) -> Iterator[Entry]:
    """COCO's entries, `number_is` as of `Entry`, `stem` after an own `file_name`; the list is emptied on the way."""
    for place, item in enumerate(items):
        items[place] = None
        if not isinstance(item, dict):
            yield Entry(place, FAULTY, faults=[f"is {short(item)}; expected an object"])
            continue
        image, file_name = item.get("image_id"), item.get("file_name")
        file_name = file_name if isinstance(file_name, str) else None
        if number_is == "stem" and file_name is not None:
            image, file_name = file_name, None
        if type(image) is not int and not isinstance(image, str):
            yield Entry(place, FAULTY, faults=[f"image_id is {short(image)}; expected a whole number, or a file name"])
            continue
        name, number, bbox = item.get("category_name"), item.get("category_id"), item.get("bbox")
        entry = Entry(
            place,
            image,
            number_is,
            file_name,
            bbox or None,
            "xywh",
            bbox or "of the mask",
            item.get("segmentation") or None,
            class_id=number,
            class_name=name if isinstance(name, str) else None,
            score=item.get("score"),
        )
        if type(number) is not int:
            entry.class_id = FAULTY
            entry.faults.append(f"category_id is {short(number)}; expected a whole number")
        whole = isinstance(bbox, list) and len(bbox) == 4 and all(map(is_finite, bbox))
        if not whole and (entry.box is not None or entry.mask is None):  # mask results need no box in COCO
            entry.box = FAULTY
            entry.faults.append(f"bbox is {short(bbox)}; expected x, y, width and height in pixels")
        yield entry
