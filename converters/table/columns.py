"""Boxes in tables: which column is what, and what its numbers count."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammodet.converters.coco.boxes import says_normal
from mammodet.converters.coco.draft import Draft
from mammodet.converters.coco.tables import Row, read_table
from mammodet.converters.sheet import column_name
from mammodet.converters.table.settings import HowToReadTables
from mammodet.data.images import read_size_hw
from mammodet.errors import InputError

#: What a column can be: names by which it is recognised.
NAMES = {
    "file": ("file", "file name", "filename", "image", "image name", "image file", "image path", "path", "image id"),
    "x": ("x", "x left", "left", "bbox x", "box x", "x0"),
    "y": ("y", "y top", "top", "bbox y", "box y", "y0"),
    "w": ("w", "width", "bbox width", "box width", "bbox w", "box w"),
    "h": ("h", "height", "bbox height", "box height", "bbox h", "box h"),
    "x1": ("x1", "xmin", "x min", "bbox x1", "left"),
    "y1": ("y1", "ymin", "y min", "bbox y1", "top"),
    "x2": ("x2", "xmax", "x max", "bbox x2", "right"),
    "y2": ("y2", "ymax", "y max", "bbox y2", "bottom"),
    "cx": ("cx", "xc", "x center", "x centre", "xcenter", "center x", "centre x"),
    "cy": ("cy", "yc", "y center", "y centre", "ycenter", "center y", "centre y"),
    "category": ("category", "class", "class name", "label", "lesion type", "finding", "abnormality"),
    "image_width": ("image width", "img width", "img w", "width"),
    "image_height": ("image height", "img height", "img h", "height"),
    "patient_id": ("patient", "patient id", "patientid"),
    "laterality": ("laterality", "side", "breast", "left or right breast"),
    "view": ("view", "view position", "image view"),
    "density": ("density", "breast density"),
    "birads": ("birads", "bi rads", "breast birads"),
    "pathology": ("pathology",),
}
_BOXES = {"corners": ("x1", "y1", "x2", "y2"), "centre": ("cx", "cy", "w", "h"), "size": ("x", "y", "w", "h")}
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2},\d{3}")
_IMAGE = ("patient_id", "laterality", "view", "density", "birads")


def find_columns(path: Path, columns: Sequence[str], told: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """How boxes are given, a key of `_BOXES`, and the column of everything that has one.

    Raises InputError: a told column is missing, or columns are missing or could be several things.
    """
    found = {key: column_name(name) for key, name in told.items()}
    if missing := [name for name in found.values() if name not in columns]:
        raise InputError(f"{path.name}: no column {missing[0]!r}; it has {', '.join(map(repr, columns))}")
    ways = [way for way, keys in _BOXES.items() if all(_known(key, columns, found) for key in keys)]
    if any(key in told for key in ("x1", "x2", "cx", "x")):  # told ones decide
        ways = [way for way in ways if any(key in told for key in _BOXES[way][:2])] or ways
    if "corners" in ways and "size" in ways and not (set(_BOXES["size"]) & set(told)):
        ways.remove("size")  # left, top, right, bottom, beside the width and height of the image
    if len(ways) != 1:
        has = f"has {' and '.join(ways)}" if ways else "has none of them whole"
        raise InputError(
            f"{path.name}: expected boxes as x, y, w, h; x1, y1, x2, y2; or cx, cy, w, h, and it {has}. Its columns "
            f"are {', '.join(map(repr, columns))}; say which is which: --column x=COLUMN ..."
        )
    used: dict[str, str] = {key: _known(key, columns, found)[0] for key in _BOXES[ways[0]]}
    for key in NAMES:
        if key in used or key in {name for names in _BOXES.values() for name in names}:
            continue
        names = [name for name in _known(key, columns, found) if name not in used.values()]
        if len(names) > 1:
            listed = ", ".join(map(repr, names))
            raise InputError(f"{path.name}: columns {listed} could be the {key}; say it: --column {key}={names[0]!r}")
        if names:
            used[key] = names[0]
    if "file" not in used:
        raise InputError(
            f"{path.name}: no column names the image file; say it: --column file=COLUMN. Its columns are "
            f"{', '.join(map(repr, columns))}"
        )
    return ways[0], used


def _known(key: str, columns: Sequence[str], told: Mapping[str, str]) -> list[str]:
    if key in told:
        return [told[key]]
    return [name for name in NAMES[key] if name in columns and name not in told.values()]


def read_boxes_table(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """Add the rows of a table (CSV, TSV or XLSX) to a draft; a row without a box lists its image.

    Raises InputError: it is no table, its columns are not known, or x, y may be corner or centre.
    """
    columns, rows = read_table(path)
    way, used = find_columns(path, columns, how.columns)
    sizes = {"image_width": "width", "image_height": "height"}
    first: dict[str, Row] = {}
    ready: list[tuple[Row, str, list[Any]]] = []
    for row in rows:
        name = how.file_name((row.word(used["file"]) or "").replace("\\", "/"), path)
        if not name:
            draft.lose(f"{path.name} line {row.line}", "names no image file")
            continue
        earlier = first.setdefault(name, row)
        given = {key: (earlier.word(used[key]), row.word(used[key])) for key in _IMAGE[:3] if key in used}
        if odd := [key for key, (one, other) in given.items() if one != other]:
            raise InputError(
                f"{path.name}: lines {earlier.line} and {row.line} give {name} two values of {odd[0]}: "
                f"{' and '.join(map(str, given[odd[0]]))}"
            )
        ready.append((row, name, [as_number(row.word(used[key])) for key in _BOXES[way]]))
    if way == "size" and "x" not in how.columns:
        way = _corner_or_centre(path, draft, [(name, numbers) for _, name, numbers in ready], how)
    for row, name, numbers in ready:
        facts = {key: row.word(used[key]) for key in _IMAGE if key in used}
        told = {to: as_number(row.word(used[key])) for key, to in sizes.items() if key in used}
        subset = draft.image(name, path, **facts, **told)
        word = row.word(used["category"]) if "category" in used else None
        pathology = how.pathology(row.word(used["pathology"])) if "pathology" in used else None
        if all(number is None for number in numbers):
            if pathology == "normal" or says_normal(word or ""):
                draft.image(name, path, pathology="normal")
            elif word is not None or pathology is not None:
                reason = f"line {row.line} has no box"
                draft.mark(name, subset, f"line {row.line}", word or "lesion", fault=reason)
            continue
        attributes = {"pathology": pathology} if pathology in ("benign", "malignant") else None
        draft.mark(
            name, subset, f"line {row.line}", word or "lesion", bbox=_to_xywh(way, numbers), attributes=attributes
        )


def as_number(text: str | None) -> Any:
    """A number, with a decimal comma or point; other text as it is, which is a fault of its box.

    `1,080` may be a thousand and more, so that it is none.
    """
    if text is None:
        return None
    plain = text.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", text) and not _THOUSANDS.fullmatch(text) else text
    try:
        number = float(plain)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _to_xywh(way: str, numbers: Sequence[Any]) -> list[Any]:
    if not all(isinstance(number, int | float) for number in numbers):
        return list(numbers)
    a, b, c, d = numbers
    if way == "corners":
        return [a, b, c - a, d - b]
    return [a - c / 2, b - d / 2, c, d] if way == "centre" else [a, b, c, d]


def _corner_or_centre(
    path: Path, draft: Draft, boxes: Sequence[tuple[str, Sequence[Any]]], how: HowToReadTables
) -> str:
    """What x and y are, where their columns do not say it: told, or seen from boxes that would leave their image.

    Raises InputError: both could be, or neither.
    """
    if how.xy is not None:
        return "centre" if how.xy == "centre" else "size"
    outside = {"size": 0, "centre": 0}
    counted = 0
    for name, numbers in boxes:
        size_hw = {"fractions": (1, 1), "percent": (100, 100)}.get(how.boxes or "") or _size(draft.source / name)
        if size_hw is None or not all(isinstance(number, int | float) for number in numbers):
            continue
        counted += 1
        for way in outside:
            x, y, w, h = _to_xywh(way, numbers)
            slip = 0.01 * max(size_hw)
            outside[way] += min(x, y, size_hw[1] - x - w, size_hw[0] - y - h) < -slip
    fits = [way for way, number in outside.items() if not number]
    if len(fits) == 1 and counted:
        return fits[0]
    seen = f"of {counted} boxes {outside['size']} would leave their image from a corner, {outside['centre']} around it"
    raise InputError(f"{path.name}: are x and y a box's corner or centre? {seen}. Say it: --xy corner, or --xy centre")


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return read_size_hw(path)
    except InputError:
        return None
