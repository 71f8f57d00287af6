"""Rows of a table that is a CSV or an Excel file (XLSX), as text."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from mammodet.errors import InputError

Rows = list[tuple[int, list[str]]]

_MOST_BYTES = 2**27
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"


def read_rows(path: Path, sheet: str = "all") -> Rows:
    """Line number (from 1) and stripped cells of every row that is not blank; the first row is the header.

    Args:
        sheet: of an Excel file; where it has none of that name, its first.
    Raises:
        InputError: the file is missing or damaged, or has no row.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MOST_BYTES else b""
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if size > _MOST_BYTES:
        raise InputError(f"{path}: {size} bytes; the archive's tables have less than {_MOST_BYTES}")
    lines = _xlsx(path, content, sheet) if content[:4] == b"PK\x03\x04" else _csv(path, content)
    rows = [(line, [cell.strip() for cell in cells]) for line, cells in lines if any(cell.strip() for cell in cells)]
    if not rows:
        raise InputError(f"{path}: has no row; expected a table with a header")
    return rows


def _csv(path: Path, content: bytes) -> Rows:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is neither XLSX nor UTF-8 text ({error.reason} at byte {error.start})") from None
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    rows: Rows = []
    while True:
        line = reader.line_num + 1
        try:
            rows.append((line, next(reader)))
        except StopIteration:
            return rows
        except csv.Error as error:
            raise InputError(f"{path}: line {line} cannot be read ({error}); the file is damaged") from None


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
            return [
                (int(row.get("r") or number), _cells(row, shared))
                for number, row in enumerate(page.iter(f"{_MAIN}row"), start=1)
            ]
    except (zipfile.BadZipFile, ElementTree.ParseError, LookupError, StopIteration, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as XLSX ({error}); save its sheet {sheet!r} as CSV") from None


def _part(package: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(package.read(name))


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
