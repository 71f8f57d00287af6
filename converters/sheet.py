"""Rows of a table, as text: CSV whatever its separator, encoding and line ends, or an Excel file (XLSX).

All tables of archives are read here, so that a row that was cut short is one everywhere: it never says that nothing
was found.
"""

import codecs
import csv
import io
import posixpath
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from mammodet.data.inputs import DAMAGED_ZIP
from mammodet.errors import InputError
from mammodet.files import check_is_file, parse_xml

_MOST_BYTES = 2**28  # held in memory
_MOST_CSV_BYTES = 2**31  # read row by row
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"


class Line(NamedTuple):
    """A row that is not blank."""

    number: int  #: of its first line, from 1
    cells: list[str]  #: without white space at their ends
    fault: str = ""  #: set where it has not one cell for each column, so that none of them can be trusted


def read_bytes(path: Path) -> bytes:
    """The content of a file, if it is none too large for a table.

    Raises InputError: it is missing, cannot be read, or is too large.
    """
    check_is_file(path, "a table")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; a table of up to {_MOST_BYTES} is read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def column_name(name: str) -> str:
    """Lower case, `_` as a space: `breast_density` and `Breast density` are one column."""
    return " ".join(name.replace("_", " ").lower().split())


def without_point_zero(cell: str) -> str:
    """`3.0`, as programs write numbers of a column with gaps, is 3."""
    return re.sub(r"^(\d+)\.0$", r"\1", cell)


def find_tables(places: Sequence[Path], levels: int) -> Iterator[tuple[Path, bool]]:
    """The given files (True), and the CSV files in the given folders and so many levels below; each content once.

    Raises InputError: a place is missing, or a file cannot be read.
    """
    contents: set[bytes] = set()
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: no such file or folder; expected a table (CSV), or a folder with tables")
        below = [path for level in range(levels + 1) for path in sorted(place.glob("*/" * level + "*.[cC][sS][vV]"))]
        for path in [place] if place.is_file() else below:
            named = path == place
            if not named and (path.name[0] == "." or not path.is_file() or path.stat().st_size > _MOST_BYTES):
                continue
            content = sha256(read_bytes(path)).digest()
            if content not in contents:  # as in folders that were unpacked twice
                contents.add(content)
                yield path, named


def read_sheet(path: Path, sheet: str = "all") -> tuple[list[str], Iterator[Line]]:
    """Names of the columns as they are written, and the rows below them; a CSV is never held in memory as a whole.

    Empty columns behind the last one that has a name are left out, as are empty cells below them.

    Args:
        sheet: of an Excel file; where it has none of that name, its first.
    Raises:
        InputError: the file is missing or damaged, or has no row; the rows raise it, too.
    """
    lines = _lines(path, sheet)
    _, columns = next(lines, (0, []))
    if not columns:
        raise InputError(f"{path}: has no row; expected a table with a header")
    while not columns[-1]:
        columns.pop()
    return columns, (_checked(number, cells, len(columns)) for number, cells in lines)


def _checked(number: int, cells: list[str], width: int) -> Line:
    if not any(cells[width:]):
        cells = cells[:width]
    return Line(number, cells, f"{len(cells)} cells, the header has {width}" if len(cells) != width else "")


def _lines(path: Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    check_is_file(path, "a table")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"\xd0\xcf\x11\xe0":
            raise InputError(f"{path}: is an old (.xls) or encrypted Excel file; save it as CSV or XLSX")
        for number, cells in _xlsx(path, read_bytes(path), sheet) if magic == b"PK\x03\x04" else _csv(path):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield number, stripped
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    if path.stat().st_size > _MOST_CSV_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; a table of up to {_MOST_CSV_BYTES} is read")
    with path.open(encoding=_encoding(path), newline="") as text:
        number = 1
        try:
            header = next((line for line in text if line.strip()), "")
            text.seek(0)
            reader = csv.reader(text, delimiter=max(",;\t", key=header.count), strict=True)
            for cells in reader:
                if any("\0" in cell for cell in cells):
                    raise csv.Error("it holds a null byte")
                yield number, cells
                number = reader.line_num + 1
        except (csv.Error, UnicodeError) as error:
            raise InputError(
                f"{path}: line {number} cannot be read ({error}); the file is damaged or cut short"
            ) from None


def _encoding(path: Path) -> str:
    """UTF-8, what a spreadsheet calls Unicode text, else the letters of Western Europe."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        file.seek(0)
        try:
            for block in iter(partial(file.read, 2**20), b""):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig"


def _xlsx(path: Path, content: bytes, sheet: str) -> list[tuple[int, list[str]]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            if sum(item.file_size for item in package.infolist()) > _MOST_BYTES:
                raise InputError(f"{path}: unpacks to more than {_MOST_BYTES} bytes; it is not the archive's table")
            sheets = {
                item.get("name", ""): item.get(_LINK)
                for item in _part(package, "xl/workbook.xml").iter(f"{_MAIN}sheet")
            }
            targets = {
                item.get("Id"): item.get("Target", "")
                for item in _part(package, "xl/_rels/workbook.xml.rels").iter(f"{_PACKAGE}Relationship")
            }
            target = targets[sheets.get(sheet) or next(iter(sheets.values()))]
            shared: list[str] = []
            if "xl/sharedStrings.xml" in package.namelist():
                shared = [_text(item) for item in _part(package, "xl/sharedStrings.xml").iter(f"{_MAIN}si")]
            page = _part(package, posixpath.normpath(posixpath.join("/xl", target)).lstrip("/"))
            rows = [
                (int(row.get("r") or number), _cells(row, shared))
                for number, row in enumerate(page.iter(f"{_MAIN}row"), start=1)
            ]
            width = next((len(cells) for _, cells in rows if any(cells)), 0)
            # A row ends with its last cell that holds something.
            return [(line, cells + [""] * (width - len(cells))) for line, cells in rows]
    except (*DAMAGED_ZIP, ElementTree.ParseError, LookupError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as XLSX ({error}); save its sheet {sheet!r} as CSV") from None


def _part(package: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return parse_xml(package.read(name), name)


def _text(item: ElementTree.Element) -> str:
    return "".join(piece.text or "" for piece in item.iter(f"{_MAIN}t"))


def _cells(row: ElementTree.Element, shared: list[str]) -> list[str]:
    """Cells by their column; a sheet leaves out empty ones."""
    cells: dict[int, str] = {}
    for cell in row.iter(f"{_MAIN}c"):
        column = 0
        for letter in re.sub(r"[^A-Z]", "", cell.get("r", "")):
            column = column * 26 + ord(letter) - ord("A") + 1
        value = cell.findtext(f"{_MAIN}v", "")
        if cell.get("t") == "s":
            value = shared[int(value)]
        elif cell.get("t") == "inlineStr":
            value = _text(cell)
        cells[column - 1 if column else len(cells)] = value
    return [cells.get(column, "") for column in range(max(cells, default=-1) + 1)]
