"""Tables of boxes (CSV, TSV), whose columns the user names."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mammodet.data.checks import short
from mammodet.errors import InputError, raise_faults
from mammodet.imports.base import Collector, Wording
from mammodet.imports.options import TableOptions
from mammodet.records import BoxXYXY, ImageRecord

WORDING = Wording("line", ("box", "as in the table"), "say --coordinates normalized")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DELIMITERS = ",;\t|"


def read(source: Path, collector: Collector) -> None:
    """Take the rows of a table. A row whose box cells are all empty says that there is no detection.

    Raises:
        InputError: it is no table, or lacks a column that was named.
    """
    table = collector.options.table
    if table is None:
        raise InputError("--image-column: name the columns of the table")
    if table.category is None and len(collector.dataset.categories) > 1 and table.box:
        names = ", ".join(map(repr, collector.dataset.categories))
        raise InputError(f"--category-column: the ground truth has several categories ({names}); name the column")
    text = _text(source)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count), strict=True)
    columns: Mapping[str, int] = {}
    scores: dict[tuple[int, str], tuple[float, int]] = {}
    width = 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num
            if not columns:
                columns, width = _columns([cell.strip() for cell in cells], table, source), len(cells)
            elif len(cells) < width or any(cell.strip() for cell in cells[width:]):
                collector.fault(line, f"{len(cells)} cells; expected {width}, as in the header")
            else:
                _read_row({name: cells[place].strip() for name, place in columns.items()}, line, collector, scores)
    except csv.Error as error:
        collector.fault(reader.line_num, f"cannot be read ({error}); it is damaged or cut short")
    if not columns:
        raise InputError(f"{source}: is empty; expected a header with the columns' names")
    if table.image_scores and not collector.faults:
        collector.check_image_scores(dict(table.image_scores))


def _text(source: Path) -> str:
    try:
        content = source.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{source}: is a folder; expected a table (CSV, TSV)") from None
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; expected a table (CSV, TSV)") from None
    try:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what a spreadsheet calls Unicode text
            return content.decode("utf-16")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{source}: holds a null byte, so it is no text; expected a table (CSV, TSV)")
    return text


def _columns(header: Sequence[str], table: TableOptions, source: Path) -> dict[str, int]:
    """Position of every column that was named; case and `_` for a space count only where they must."""
    folded: dict[str, list[int]] = {}
    for position, name in enumerate(header):
        folded.setdefault(_fold(name), []).append(position)
    places: dict[str, int] = {}
    faults: list[str] = []
    for name in table.columns():
        exact = [position for position, other in enumerate(header) if other == name]
        found = exact or folded.get(_fold(name), [])
        if len(found) == 1:
            places[name] = found[0]
        elif found:
            faults.append(f"column {name!r} stands {len(found)} times")
        else:
            near = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=0.5)
            hint = f"; the nearest is {header[folded[near[0]][0]]!r}" if near else ""
            faults.append(f"no column {name!r}{hint}")
    raise_faults(faults, where=str(source), advice=f"It has {', '.join(map(repr, header))}.")
    return places


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _read_row(
    cells: Mapping[str, str], line: int, collector: Collector, scores: dict[tuple[int, str], tuple[float, int]]
) -> None:
    table = collector.options.table
    assert table is not None  # for the type checker: `read` has looked
    record = _image(cells[table.image], line, collector, table)
    if record is None:
        return
    for label, column in table.image_scores:
        if cells[column]:
            _take_image_score(label, column, cells[column], line, record, collector, scores)
    box_cells = [cells[name] for name in table.box]
    if not any(box_cells):
        own = [column for _, column in table.image_scores]
        if table.box and table.score is not None and table.score not in own and cells[table.score]:
            collector.fault(line, f"has the score {short(cells[table.score])} and no box", record)
        return
    category: int | None = 1  # of a ground truth with this one alone: `read` has looked
    if table.category is not None:
        category = collector.category(None, cells[table.category], line)
    score = None
    text = cells[table.score] if table.score is not None else ""
    number = _number(text)
    if text and number is None:
        collector.fault(line, f"{table.score} is {short(text)}; expected a number{_comma(text)}", record)
    else:
        score = collector.score(number, line, record)
    box = _box(cells, line, record, collector, table)
    if box is not None:
        collector.add(record, box, score, category, line, given=", ".join(box_cells))


def _image(text: str, line: int, collector: Collector, table: TableOptions) -> ImageRecord | None:
    if table.match == "name":
        if text:
            return collector.image(text, line)
        collector.fault(line, f"{table.image} is empty; expected a file name")
    elif re.fullmatch(r"-?\d{1,18}", text):
        return collector.image(int(text), line)
    else:
        collector.fault(line, f"{table.image} is {short(text)}; expected an id, a whole number")
    return None


def _take_image_score(
    label: str,
    column: str,
    text: str,
    line: int,
    record: ImageRecord,
    collector: Collector,
    scores: dict[tuple[int, str], tuple[float, int]],
) -> None:
    """Note the score of an image, which all of its rows must agree on."""
    number = _number(text)
    if number is None:
        collector.fault(line, f"{column} is {short(text)}; expected a number{_comma(text)}", record)
        return
    score = collector.score(number, line, record, column)
    if score is None:
        return
    before, first = scores.setdefault((record.image_id, label), (score, line))
    if before != score:
        collector.fault(line, f"{column} is {text}, but on line {first} of the same image it is another", record)
    collector.image_score(record, label, score)


def _box(
    cells: Mapping[str, str], line: int, record: ImageRecord, collector: Collector, table: TableOptions
) -> BoxXYXY | None:
    """The box in pixels of the image file; None where its cells are wrong, and it is noted."""
    names = [*table.box, *(table.size or ())]
    numbers = {name: _number(cells[name]) for name in names}
    wrong = [name for name in names if numbers[name] is None]
    for name in wrong:
        collector.fault(line, f"{name} is {short(cells[name])}; expected a number{_comma(cells[name])}", record)
    values = [number for name in table.box if (number := numbers[name]) is not None]
    if wrong or len(values) != 4:
        return None
    height, width = record.size_hw
    scale_x, scale_y = 1.0, 1.0
    if collector.options.coordinates == "normalized":
        scale_x, scale_y = float(width), float(height)
    elif table.size is not None:
        sizes = [number for name in table.size if (number := numbers[name]) is not None]
        if min(sizes) <= 0:
            collector.fault(line, f"width and height are {sizes}; expected positive numbers (px)", record)
            return None
        scale_x, scale_y = width / sizes[0], height / sizes[1]
    a, b, c, d = values[0] * scale_x, values[1] * scale_y, values[2] * scale_x, values[3] * scale_y
    if table.box_kind == "xyxy":
        return a, b, c, d
    if table.box_kind == "xywh":
        return a, b, a + c, b + d
    return a - c / 2, b - d / 2, a + c / 2, b + d / 2


def _number(text: str) -> float | None:
    """A finite number; None for anything else, NaN and `1_000` too, which Python would take."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if abs(number) < 1e300 else None


def _comma(text: str) -> str:
    return " with a decimal point, not a comma" if re.fullmatch(r"[-+]?\d+,\d+", text) else ""
