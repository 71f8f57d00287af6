"""Tables of boxes (CSV, TSV), whose columns the user names."""

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mammodet.data.json_values import short
from mammodet.errors import InputError, raise_faults
from mammodet.files import check_is_file
from mammodet.imports import ImportOptions
from mammodet.imports.entry import FAULTY, Entry, read_number
from mammodet.records import Dataset

_DELIMITERS = ",;\t|"


def read(source: Path, options: ImportOptions, dataset: Dataset) -> Iterator[Entry]:
    """The rows of a table. A row whose box cells are all empty says that there is no detection.

    Raises InputError: it is no table, or lacks a column that was named.
    """
    if options.image_column is None:
        raise InputError("--image-column: name the columns of the table")
    if options.category_column is None and len(dataset.categories) > 1 and options.box_kind:
        names = ", ".join(map(repr, dataset.categories))
        raise InputError(f"--category-column: the ground truth has several categories ({names}); name the column")
    text = _text(source)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count), strict=True)
    columns: Mapping[str, int] = {}
    width = 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num
            if not columns:
                columns, width = _columns([cell.strip() for cell in cells], options, source), len(cells)
            elif len(cells) < width or any(cell.strip() for cell in cells[width:]):
                yield Entry(line, FAULTY, faults=[f"{len(cells)} cells; expected {width}, as in the header"])
            else:
                yield _read_row({name: cells[place].strip() for name, place in columns.items()}, line, options, dataset)
    except csv.Error as error:
        yield Entry(reader.line_num, FAULTY, faults=[f"cannot be read ({error}); it is damaged or cut short"])
    if not columns:
        raise InputError(f"{source}: is empty; expected a header with the columns' names")


def _text(source: Path) -> str:
    check_is_file(source, "a table")
    content = source.read_bytes()
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


def _columns(header: Sequence[str], options: ImportOptions, source: Path) -> dict[str, int]:
    """Position of every column that was named; case and `_` for a space count only where they must."""
    folded: dict[str, list[int]] = {}
    for position, name in enumerate(header):
        folded.setdefault(_fold(name), []).append(position)
    places: dict[str, int] = {}
    faults: list[str] = []
    for name in options.columns:
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


def _read_row(cells: Mapping[str, str], line: int, options: ImportOptions, dataset: Dataset) -> Entry:
    entry = Entry(line, cells[options.image_column or ""], score_name="score")
    if options.match == "id" and re.fullmatch(r"-?\d{1,18}", entry.image):
        entry.image = int(entry.image)
    elif options.match == "id" or not entry.image:
        expected = "an id, a whole number" if options.match == "id" else "a file name"
        found = short(entry.image) if entry.image else "empty"
        return Entry(line, FAULTY, faults=[f"{options.image_column} is {found}; expected {expected}"])
    columns = {label: column for label, column in options.score_columns.items() if cells[column]}
    entry.image_scores = {label: (column, _number(cells, column, entry)) for label, column in columns.items()}
    given = [cells[name] for name in options.box_columns]
    score = cells[options.score_column] if options.score_column else ""
    if not any(given):
        if given and score and options.score_column not in columns.values():
            entry.faults.append(f"has the score {short(score)} and no box")
        return entry
    entry.given, entry.box_kind = ", ".join(given), options.box_kind or ""
    entry.score = _number(cells, options.score_column, entry) if score and options.score_column else None
    # Without a column that of the ground truth's only category: `read` has looked.
    entry.class_name = cells[options.category_column] if options.category_column else "".join(dataset.categories)
    entry.box = [_number(cells, name, entry) for name in options.box_columns]
    if options.width_column and options.height_column:
        width, height = (_number(cells, name, entry) for name in (options.width_column, options.height_column))
        if FAULTY in (width, height):
            entry.box = [FAULTY]
        elif min(width, height) > 0:
            entry.size_wh = width, height
        else:
            entry.faults.append(f"width and height are {[width, height]}; expected positive numbers (px)")
            entry.box = [FAULTY]
    if FAULTY in entry.box:
        entry.box = FAULTY
    entry.shares = options.coordinates == "normalized"
    return entry


def _number(cells: Mapping[str, str], name: str, entry: Entry) -> float:
    """The number in a cell; FAULTY for anything else, which is noted."""
    found = read_number(cells[name])
    if found is not None:
        return found
    comma = " with a decimal point, not a comma" if re.fullmatch(r"[-+]?\d+,\d+", cells[name]) else ""
    entry.faults.append(f"{name} is {short(cells[name])}; expected a number{comma}")
    return FAULTY
