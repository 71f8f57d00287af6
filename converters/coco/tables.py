"""Tables beside annotations: their rows by the names of their columns, and which of them are meant."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.converters.sheet import column_name, find_tables, read_sheet
from mammodet.errors import InputError, raise_faults

#: Cells that say nothing.
MISSING = ("", "na", "n/a", "nan")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `table` is its file's name, `line` the number of its last line, `cells` column name to text."""

    table: str
    line: int
    cells: Mapping[str, str]

    def word(self, column: str) -> str | None:
        """The text of a cell, None where it says nothing."""
        text = self.cells.get(column, "")
        return None if text.lower() in MISSING else text


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows that are meant, and those that `where` leaves out; `skipped`: tables of a folder without the columns."""

    rows: tuple[Row, ...]
    left_out: tuple[Row, ...]
    files: tuple[Path, ...]
    skipped: tuple[str, ...] = ()


def fold(text: str) -> str:
    """Text as two cells are compared: without case and doubled white space, and ä as one character."""
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def read_tables(
    places: Sequence[Path], key_columns: Iterable[str], more_columns: Iterable[str], where: Sequence[tuple[str, str]]
) -> Tables:
    """Rows of the given files, and of the CSV files in the given folders and one level below them.

    Args:
        key_columns: every table needs them; of a folder's tables those without them are skipped.
        more_columns: needed in tables of which rows are meant.
        where: (column, value): only rows that have all of these values are meant.
    Raises:
        InputError: with every fault: a file that is no table, rows cut short, missing columns, no table at all.
    """
    faults: list[str] = []
    skipped: list[str] = []
    rows: list[Row] = []
    left_out: list[Row] = []
    files: list[Path] = []
    keys = list(dict.fromkeys(column_name(name) for name in [*key_columns, *(column for column, _ in where)]))
    more = list(dict.fromkeys(column_name(name) for name in more_columns))
    wanted = [(column_name(column), fold(value)) for column, value in where]
    for path, explicit in find_tables(places, 1):
        try:
            if not explicit and not path.read_bytes().strip():
                skipped.append(f"{path.name}: is empty")
                continue
            columns, found = read_table(path)
            missing = [name for name in keys if name not in columns]
            if missing and not explicit:
                skipped.append(_missing(path, missing, columns))
                continue
            if missing:
                raise InputError(_missing(path, missing, columns))
            meant = [row for row in found if all(fold(row.cells[name]) == value for name, value in wanted)]
            if meant and (missing := [name for name in more if name not in columns]):
                raise InputError(_missing(path, missing, columns))
        except InputError as error:
            faults.append(str(error))
            continue
        ids = {id(row) for row in meant}
        files.append(path)
        rows += meant
        left_out += [row for row in found if id(row) not in ids]
    raise_faults(faults, where="tables", advice="Mend the tables, or name other columns.")
    if not files:
        raise InputError(
            f"{', '.join(str(place) for place in places)}: no table with the columns {', '.join(map(repr, keys))}"
            + "".join(f"\n  - {line}" for line in skipped[:10])
        )
    if not rows:
        condition = " and ".join(f"{column!r} = {value!r}" for column, value in where)
        names = ", ".join(path.name for path in files)
        raise InputError(f"{names}: no row{' with ' + condition if condition else ''}; are other tables missing?")
    return Tables(tuple(rows), tuple(left_out), tuple(files), tuple(skipped))


def _missing(path: Path, missing: Sequence[str], columns: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in missing)
    there = ", ".join(repr(name) for name in columns) or "none"
    return f"{path.name}: column{'s' if len(missing) > 1 else ''} {names} missing; it has {there}"


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows; cells without white space at their ends, so a newline after a path is gone."""
    names, lines = read_sheet(path)
    columns = [column_name(name) for name in names]
    rows: list[Row] = []
    faults: list[str] = []
    if doubled := sorted({name for name in columns if name and columns.count(name) > 1}):
        faults.append(f"{path.name}: columns {', '.join(map(repr, doubled))} occur twice")
    for line in lines:
        if line.fault:
            faults.append(f"{path.name} line {line.number}: {line.fault}")
        else:
            rows.append(Row(path.name, line.number, dict(zip(columns, line.cells, strict=True))))
    raise_faults(faults, where=str(path))
    return columns, rows
