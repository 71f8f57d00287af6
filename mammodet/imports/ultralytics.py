"""Ultralytics: `predictions.json` of a validation, and `Results.summary()` or `Results.to_json()` per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mammodet.data.checks import is_finite, short
from mammodet.errors import InputError
from mammodet.imports.base import Collector, Wording, read_results
from mammodet.imports.coco import read_list
from mammodet.records import ImageRecord

WORDING = Wording("entry", ("box", "px"), "say --coordinates normalized")
_HOW = "write them with json.dump({result.path: result.summary() for result in results}, file)"


def read(source: Path, collector: Collector) -> None:
    """Take any of these forms.

    - a list of `{image_id, category_id, bbox, score}`: `predictions.json` of `yolo val save_json=True`, whose
      `image_id` is the stem of the file name, as a number where it is one;
    - an object of file name to list of `{name, class, confidence, box {x1, y1, x2, y2}, segments {x, y}}`;
    - a folder of JSON files with such a list each, every file named as its image.

    Raises:
        InputError: it is none of them.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*.json") if path.is_file() and not path.name.startswith("."))
        if not paths:
            raise InputError(f"{source}: holds no .json file; expected one per image, or name predictions.json itself")
        for path in paths:
            name = path.relative_to(source).as_posix()
            _read_summary(name.removesuffix(".json"), read_results(path), name, collector)
        return
    value = read_results(source)
    if isinstance(value, dict):
        for name, items in value.items():
            _read_summary(name, items, short(name), collector)
    elif isinstance(value, list) and all(isinstance(item, dict) and "image_id" in item for item in value):
        if collector.options.coordinates == "normalized":
            raise InputError(f"{source}: a list with image_id is in pixels; leave out --coordinates normalized")
        read_list(value, collector, number="stem")
    else:
        raise InputError(
            f"{source}: is {short(value)}; expected a list with image_id in every entry (predictions.json), or an "
            f"object of file names: a summary alone does not say of which image it is. {_HOW}"
        )


def _read_summary(name: str, items: Any, label: str, collector: Collector) -> None:
    record = collector.image(name, label)
    if record is None:
        return
    if isinstance(items, str):  # to_json() answers text
        try:
            items = json.loads(items)
        except (ValueError, RecursionError) as error:
            collector.fault(label, f"its text is no JSON, or was cut short ({error})", record)
            return
    if not isinstance(items, list):
        collector.fault(label, f"is {short(items)}; expected a list of detections", record)
        return
    for number, item in enumerate(items):
        place = f"{label} entry {number}"
        if not isinstance(item, dict):
            collector.fault(place, f"is {short(item)}; expected an object", record)
        else:
            _read_detection(item, place, record, collector)


def _read_detection(item: dict[str, Any], place: str, record: ImageRecord, collector: Collector) -> None:
    number, name = item.get("class"), item.get("name")
    if (number is not None and type(number) is not int) or (name is not None and not isinstance(name, str)):
        collector.fault(place, f"class is {short(number)}, name {short(name)}; expected a number and a text", record)
        return
    if number is None and name is None:
        collector.fault(place, "has neither 'class' nor 'name'; expected one of them", record)
        return
    category = collector.category(number, name, place)
    score = collector.score(item.get("confidence"), place, record, "confidence" if "confidence" in item else "score")
    box = item.get("box")
    box = box if isinstance(box, dict) else {}
    corners: list[Any] = [box.get(key) for key in ("x1", "y1", "x2", "y2")]
    if not all(map(is_finite, corners)):
        collector.fault(place, f"box is {short(item.get('box'))}; expected an object of x1, y1, x2 and y2", record)
        return
    if "x3" in box:
        collector.fault(place, f"box is {short(box)}, a turned one; expected x1, y1, x2 and y2 alone", record)
        return
    height, width = record.size_hw if collector.options.coordinates == "normalized" else (1, 1)
    x1, y1, x2, y2 = (float(value) for value in corners)
    collector.add(
        record,
        (x1 * width, y1 * height, x2 * width, y2 * height),
        score,
        category,
        place,
        given=corners,
        mask=_outline(item.get("segments"), (height, width), place, record, collector),
    )


def _outline(
    segments: Any, scale_hw: tuple[int, int], place: str, record: ImageRecord, collector: Collector
) -> Any | None:
    """The polygon of a detection, in pixels; of a mask without pixels, the run lengths of none."""
    if segments is None:
        return None
    xs, ys = (segments.get("x"), segments.get("y")) if isinstance(segments, dict) else (None, None)
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        collector.fault(place, f"segments are {short(segments)}; expected lists x and y of one length", record)
        return None
    if not all(map(is_finite, [*xs, *ys])):
        collector.fault(place, f"segments are {short(segments)}; expected numbers", record)
        return None
    if len(xs) < 3:  # it writes one or two points, or none, for a mask of about a pixel
        return {"size": list(record.size_hw), "counts": [record.size_hw[0] * record.size_hw[1]]}
    height, width = scale_hw
    return [[number for x, y in zip(xs, ys, strict=True) for number in (x * width, y * height)]]
