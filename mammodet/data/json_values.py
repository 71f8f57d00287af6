"""Checks of what comes out of JSON: types, file names, masks. They collect faults or raise ValueError with a reason."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pycocotools import mask as coco_mask

from mammodet.outlines import mend
from mammodet.records import Rle
from mammodet.run_lengths import check_counts

CLIP_PX = 3.0  # what a box may pass the border by: rounding, pixels counted from 1, a hand that slips


@dataclass
class Checker:
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
            self.faults.append(f"{where}: '{key}' is {short(value)}; expected {names}")
            return None
        return value

    def flag(self, item: Mapping[str, Any], key: str, where: str) -> bool:
        value = item.get(key)
        number = value if isinstance(value, bool) else read_id(value)
        if value is not None and number not in (0, 1):
            self.faults.append(f"{where}: '{key}' is {short(value)}; expected 0, 1, false or true")
        return number == 1

    def numbers(self, item: Mapping[str, Any], key: str, count: int, where: str, need: bool) -> list[float] | None:
        value = self.take(item, key, list, where, need)
        if value is None:
            return None
        if len(value) != count or not all(is_finite(number) for number in value):
            self.faults.append(f"{where}: '{key}' is {short(value)}; expected {count} finite numbers")
            return None
        return [float(number) for number in value]


def is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # beyond it, whole numbers do not fit a float


def read_id(value: Any) -> int | str | None:
    """An id as it is compared: 1, 1.0, "1" and "1.0" are one; other text is itself; None for what is no id."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(0|-?[1-9]\d{0,17})(\.0+)?\s*", value, re.ASCII)
        return int(found[1]) if found else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_file_name(name: str) -> str | None:
    """What is wrong with a file name that comes from JSON or CSV, or None: it must stay inside the data root."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if not pure.parts:
        return f"file_name {name!r} names no file"
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0] or "\0" in name:
        return f"file_name {short(name)} leaves the data root; expected a relative path without '..'"
    return None


def check_new_name(name: str) -> str | None:
    """Why a file of a folder (its path below it, with `/`) cannot be used in our JSON files, or None."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "holds control characters"
    if "\\" in name:
        return "holds a backslash, which is a separator elsewhere"
    return "begins with what elsewhere is a drive's name" if check_file_name(name) else None


def read_segmentation(value: Any, height: int, width: int, where: str, checker: Checker) -> Rle | None:
    """Compressed or plain run lengths, or COCO polygons (turned into run lengths).

    Of a list, empty polygons are passed over, and a list of numbers is one polygon, as other tools write them.
    """
    if isinstance(value, list):
        value = [value] if value and all(map(is_finite, value)) else [part for part in value if part != []]
    if value is None or value == [] or value == {}:
        return None
    try:
        if isinstance(value, list):
            for polygon in value:
                check_polygon(polygon, height, width)
            parts = [part for polygon in value for part in mend(polygon, (height, width))]
            rle = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
        elif not isinstance(value, dict):
            raise ValueError(f"is {short(value)}; expected run lengths or polygons")
        elif value.get("size") != [height, width]:
            raise ValueError(f"size is {short(value.get('size'))}, the image is {[height, width]} (height, width)")
        elif isinstance(value.get("counts"), list):
            runs = value["counts"]
            if not all(type(run) is int and run >= 0 for run in runs):
                raise ValueError("plain run lengths are whole numbers from 0")
            if sum(runs) != height * width:
                raise ValueError(f"run lengths cover {sum(runs)} pixels, the image has {height * width}")
            rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        elif isinstance(value.get("counts"), str):
            rle = {"size": [height, width], "counts": value["counts"].encode("ascii")}
            check_counts(rle["counts"], height * width)
        else:
            raise ValueError(f"counts is {short(value.get('counts'))}; expected text or a list")
        if not coco_mask.area(rle):
            raise ValueError("it holds no pixel")
    except ValueError as error:  # text beyond ASCII is one
        checker.faults.append(f"{where}: segmentation cannot be read ({error})")
        return None
    return Rle(size=[height, width], counts=rle["counts"].decode("ascii"))


def check_polygon(polygon: Any, height: int, width: int) -> None:
    """Refuse what the C code would not survive: a point far off makes it walk, and store, every step to it."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon needs at least three x, y pairs")
    if not all(is_finite(number) for number in polygon):
        raise ValueError("a polygon holds something else than finite numbers")
    for numbers, side in ((polygon[::2], width), (polygon[1::2], height)):
        if min(numbers) < -side or max(numbers) > 2 * side:
            raise ValueError(f"a polygon leaves the image (to {min(numbers):g} and {max(numbers):g}, side {side})")
    if min(height, width) > 2 and all(abs(number) <= 1 for number in polygon):
        raise ValueError("a polygon lies within the first pixel: its numbers seem to be fractions of the image")
