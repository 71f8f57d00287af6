"""Rows of a table, as text: CSV whatever its separator, encoding and line ends, or an Excel file (XLSX)."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from mammodet.errors import InputError
from mammodet.files import parse_xml

Rows = list[tuple[int, list[str]]]

_MOST_BYTES = 2**28
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"


def read_bytes(path: Path) -> bytes:
    """The content of a file, if it is none too large for a table.

    Raises:
        InputError: it is missing, cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; a table of up to {_MOST_BYTES} is read")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_rows(path: Path, sheet: str = "all") -> Rows:
    """The last line's number (from 1) and the stripped cells of every row that is not blank; the first is the header.

    Args:
        sheet: of an Excel file; where it has none of that name, its first.
    Raises:
        InputError: the file is missing or damaged, or has no row.
    """
    content = read_bytes(path)
    lines = _xlsx(path, content, sheet) if content[:4] == b"PK\x03\x04" else _csv(path, content)
    rows = [(line, [cell.strip() for cell in cells]) for line, cells in lines if any(cell.strip() for cell in cells)]
    if not rows:
        raise InputError(f"{path}: has no row; expected a table with a header")
    return rows


def _csv(path: Path, content: bytes) -> Rows:
    text = _decode(content)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(
            f"{path.name} line {reader.line_num}: cannot be read ({error}); it is damaged or cut short"
        ) from None


def _decode(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what a spreadsheet calls Unicode text
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _xlsx(path: Path, content: bytes, sheet: str) -> Rows:
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
    except (zipfile.BadZipFile, ElementTree.ParseError, LookupError, StopIteration, ValueError, EOFError) as error:
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
