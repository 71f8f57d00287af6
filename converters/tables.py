"""Tables of archives, row by row, and the words that they use for side, view, density and BI-RADS."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mammodet.converters.sheet import Line, read_sheet
from mammodet.data.images import is_image
from mammodet.errors import InputError
from mammodet.folders import walk_files

Cells = dict[str, str]


def read_table(
    path: Path, needed: Sequence[str], wanted: Sequence[str] = (), *, sheet: str = ""
) -> Iterator[tuple[Line, Cells]]:
    """Every row that is not blank, and its cells by column.

    Columns are found whatever their case, blanks and punctuation. A cell that is missing, `nan` or `none` is "". Of a
    row with a `fault` only cells are given that surely were not cut.

    Args:
        needed: columns without which the table is not the archive's.
        wanted: columns that some editions lack; their cells are "" then.
        sheet: of an Excel file; its first where it has none of that name.
    Raises:
        InputError: the file cannot be read as CSV or XLSX, or lacks a needed column.
    """
    columns, lines = read_sheet(path, sheet)
    header = [_plain(cell) for cell in columns]
    missing = [name for name in needed if _plain(name) not in header]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} missing; found {', '.join(filter(None, columns))}")
    if doubled := [name for name in (*needed, *wanted) if header.count(_plain(name)) > 1]:
        raise InputError(f"{path}: column {', '.join(doubled)} occurs more than once; keep one of them")
    at = {name: header.index(_plain(name)) for name in (*needed, *wanted) if _plain(name) in header}
    for line in lines:
        whole = len(line.cells) - bool(line.fault)
        row = dict.fromkeys(wanted, "") | {
            name: _value(line.cells[column]) if column < whole else "" for name, column in at.items()
        }
        if line.fault or any(row.values()):
            yield line, row


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _value(cell: str) -> str:
    text = cell.strip()
    return "" if text.lower() in ("nan", "none", "null", "na", "n/a") else text


def find_files(source: Path) -> tuple[dict[str, Path], list[Path]]:
    """Files of a source by their lower-case names, and the images that have the name of an earlier one."""
    files: dict[str, Path] = {}
    others: list[Path] = []
    for folder, names in walk_files(source):
        for name in names:
            if files.setdefault(name.lower(), folder / name) != folder / name and is_image(folder / name):
                others.append(folder / name)
    return files, others


def images_by_stem(files: Mapping[str, Path]) -> dict[str, Path]:
    """Images by their lower-case names without suffix; a DICOM file counts before its copies in other formats."""
    images: dict[str, Path] = {}
    order = (".dcm", ".dicom", ".png", ".tif", ".tiff")
    for path in sorted(files.values(), key=lambda path: (*(path.suffix.lower() != suffix for suffix in order), path)):
        if is_image(path):
            images.setdefault(path.stem.lower(), path)
    return images


def table_of(source: Path, files: Mapping[str, Path], *names: str) -> Path:
    """The first of these tables that is there. Raises InputError: none is."""
    for name in names:
        if name.lower() in files:
            return files[name.lower()]
    found = ", ".join(sorted(files)[:5]) or "an empty folder"
    raise InputError(f"{source}: no {' or '.join(names)}; expected the unpacked archive. Found: {found}")


def laterality_of(text: str) -> str | None:
    """`L` or `R`, of `left`, `R`, ...; None of anything else, `B` for both among it."""
    return {"l": "L", "left": "L", "r": "R", "right": "R"}.get(text.strip().lower())


def density_of(text: str) -> str | None:
    """`A` to `D`, of `DENSITY C`, `c`, `3` or `3.0`; None of anything else."""
    found = re.fullmatch(r"(?:(?:breast |acr )?density|acr)?\s*([a-d]|[1-4](?:\.0)?)", text.strip().lower())
    return ("ABCD"["1234".index(found[1][0])] if found[1][0].isdigit() else found[1].upper()) if found else None


def birads_of(text: str) -> str | None:
    """`0` to `6`, and `4a` to `4c`, of `BI-RADS 4`, `4A`, `5.0`; None of anything else."""
    found = re.fullmatch(r"(?:bi-?rads?)?\s*([0-6]|4[abc])(?:\.0)?", text.strip().lower())
    return found[1] if found else None


def numbers_of(text: str) -> list[float]:
    """The numbers in a text, as in `((12, 30, 45, 60),)` or `(12.5, 30)`; none where one is too large to be one."""
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text.lower())]
    return numbers if all(map(math.isfinite, numbers)) else []


def size_of(height: str, width: str) -> tuple[int, int] | None:
    """The size that two cells say; None where both are empty, and (0, 0), that of no image, where they are no sizes."""
    if not height and not width:
        return None
    found = [numbers_of(cell) for cell in (height, width)]
    return (int(found[0][0]), int(found[1][0])) if [len(each) for each in found] == [1, 1] else (0, 0)
