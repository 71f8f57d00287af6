"""Ultralytics: `predictions.json` of a validation, and `Results.summary()` or `Results.to_json()` per image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammodet.data.json_values import is_finite, short
from mammodet.errors import InputError
from mammodet.folders import files_below
from mammodet.imports import ImportOptions
from mammodet.imports.coco import read_list
from mammodet.imports.entry import FAULTY, NO_PIXEL, Entry, read_results
from mammodet.records import Dataset

_HOW = "write them with json.dump({result.path: result.summary() for result in results}, file)"


def read(source: Path, options: ImportOptions, dataset: Dataset) -> Iterator[Entry]:
    """The entries of any of these forms.

    - a list of `{image_id, category_id, bbox, score}`: `predictions.json` of `yolo val save_json=True`, whose
      `image_id` is the stem of the file name, as a number where it is one;
    - an object of file name to list of `{name, class, confidence, box {x1, y1, x2, y2}, segments {x, y}}`;
    - a folder of JSON files with such a list each, every file named as its image.

    Raises InputError: it is none of them.
    """
    shares = options.coordinates == "normalized"
    if source.is_dir():
        paths = files_below(source, ".json")
        if not paths:
            raise InputError(f"{source}: holds no .json file; expected one per image, or name predictions.json itself")
        for path in paths:
            name = path.relative_to(source).as_posix()
            yield from _read_summary(name[: -len(".json")], read_results(path), name, shares)
        return
    value = read_results(source)
    if isinstance(value, dict):
        for name, items in value.items():
            yield from _read_summary(name, items, short(name), shares)
    elif isinstance(value, list) and all(isinstance(item, dict) and "image_id" in item for item in value):
        if shares:
            raise InputError(f"{source}: a list with image_id is in pixels; leave out --coordinates normalized")
        yield from read_list(value, number_is="stem")
    else:
        raise InputError(
            f"{source}: is {short(value)}; expected a list with image_id in every entry (predictions.json), or an "
            f"object of file names: a summary alone does not say of which image it is. {_HOW}"
        )


def _read_summary(name: str, items: Any, label: str, shares: bool) -> Iterator[Entry]:
    whole = Entry(label, name, opens=True)
    if isinstance(items, str):  # to_json() answers text
        try:
            items = json.loads(items)
        except (ValueError, RecursionError) as error:
            whole.faults.append(f"its text is no JSON, or was cut short ({error})")
    if not whole.faults and not isinstance(items, list):
        whole.faults.append(f"is {short(items)}; expected a list of detections")
    yield whole
    if whole.faults:
        return
    for number, item in enumerate(items):
        entry = Entry(f"{label} entry {number}", name, shares=shares, score_name="confidence")
        if isinstance(item, dict):
            _read_detection(item, entry)
        else:
            entry.faults.append(f"is {short(item)}; expected an object")
        yield entry


def _read_detection(item: dict[str, Any], entry: Entry) -> None:
    number, name, box = item.get("class"), item.get("name"), item.get("box")
    if (number is not None and type(number) is not int) or (name is not None and not isinstance(name, str)):
        entry.faults.append(f"class is {short(number)}, name {short(name)}; expected a number and a text")
        return
    if number is None and name is None:
        entry.faults.append("has neither 'class' nor 'name'; expected one of them")
        return
    corners = [box.get(key) for key in ("x1", "y1", "x2", "y2")] if isinstance(box, dict) else [None]
    entry.class_id, entry.class_name, entry.score = number, name, item.get("confidence")
    entry.box, entry.given, entry.mask = corners, corners, _outline(item.get("segments"), entry)
    if not all(map(is_finite, corners)):
        entry.box = FAULTY
        entry.faults.append(f"box is {short(box)}; expected an object of x1, y1, x2 and y2")
    elif isinstance(box, dict) and "x3" in box:
        entry.box = FAULTY
        entry.faults.append(f"box is {short(box)}, a turned one; expected x1, y1, x2 and y2 alone")


def _outline(segments: Any, entry: Entry) -> Any:
    """The polygon of a detection."""
    if segments is None:
        return None
    xs, ys = (segments.get("x"), segments.get("y")) if isinstance(segments, dict) else (None, None)
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        entry.faults.append(f"segments are {short(segments)}; expected lists x and y of one length")
    elif not all(map(is_finite, [*xs, *ys])):
        entry.faults.append(f"segments are {short(segments)}; expected numbers")
    else:  # it writes one or two points, or none, for a mask of about a pixel
        return [[number for point in zip(xs, ys, strict=True) for number in point]] if len(xs) > 2 else NO_PIXEL
    return FAULTY
