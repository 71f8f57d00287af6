"""The table of the RSNA archive (`train.csv`, `test.csv`): one row per image, the label that of the whole breast.

What the files are like: numbers with `.0` (written by a program whose column had gaps), blanks for what a site did not
give, `True`/`False` beside `0`/`1`; `test.csv` has fewer columns and no label. Copies saved by spreadsheets come with
`;`, a byte order mark, or image ids rounded to `1.46E+09`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.sheet import read_sheet, without_point_zero
from mammodet.errors import InputError

#: Columns of `test.csv` that are used here, and those that only a labelled table has.
TEST_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "age", "implant", "machine_id")
LABEL_COLUMNS = ("cancer", "biopsy", "invasive", "BIRADS", "density", "difficult_negative_case")
#: The archive's own order, as `train.csv` has it.
TRAIN_COLUMNS = (
    *("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive", "BIRADS"),
    *("implant", "density", "machine_id", "difficult_negative_case"),
)
STANDARD_VIEWS = ("CC", "MLO")
DENSITIES = ("A", "B", "C", "D")
_MOST_ID = 2**53  # image ids become numbers of a JSON file
_FLAGS = {"0": 0, "1": 1, "FALSE": 0, "TRUE": 1}


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image.

    What the table leaves blank, or has no column for, is None.
    """

    line: int  #: of the table, from 1, for messages
    patient: int
    image: int
    laterality: str  #: `L` or `R`
    view: str | None = None  #: as written, in capitals
    #: cancer, biopsy, invasive, difficult_negative: 0 or 1, of the breast
    cancer: int | None = None
    birads: str | None = None  #: `0`, `1`, `2`
    density: str | None = None  #: `A` to `D`
    age: float | None = None  #: in years
    implant: int | None = None  #: 0 or 1, of site 1 of the woman
    biopsy: int | None = None
    invasive: int | None = None
    difficult_negative: int | None = None
    site: int | None = None
    machine: int | None = None

    @property
    def name(self) -> str:
        """`10006_462822612`: patient and image."""
        return f"{self.patient}_{self.image}"

    @property
    def breast(self) -> tuple[int, str]:
        """Patient and side: what the label belongs to."""
        return self.patient, self.laterality


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that the table says."""

    path: Path
    rows: tuple[ImageRow, ...]  #: image ids unique, one label for each breast
    labelled: bool  #: whether it has the column `cancer`; `test.csv` has not
    quarantine: tuple[Quarantined, ...]  #: rows that cannot be used, each with its line and reason


def find_table(source: Path) -> Path:
    """`train.csv`, else `test.csv`, in a folder or one below it.

    Raises InputError: none is there, or several of the same name are.
    """
    for name in ("train.csv", "test.csv"):
        found = [path for pattern in (name, f"*/{name}") for path in sorted(source.glob(pattern)) if path.is_file()]
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(source)) for path in found[:5])
            raise InputError(f"{source}: has {len(found)} tables {name} ({shown}); say by --table which is meant")
        if found:
            return found[0]
    there = sorted(path.name for path in source.iterdir())[:5]
    raise InputError(
        f"{source}: no train.csv or test.csv; expected the unpacked archive with train.csv and train_images/. Where "
        f"the table lies elsewhere, name it by --table. Found: {', '.join(there) if there else 'an empty folder'}"
    )


def read_table(path: Path) -> Table:
    """Read and check a table.

    Raises InputError: the file cannot be read as a table, columns are missing, or no row can be used.
    """
    columns, lines = read_sheet(path)
    names = _header(path, columns)
    labelled = "cancer" in names
    rows: list[ImageRow] = []
    quarantine: list[Quarantined] = []
    labels: dict[tuple[int, str], set[int]] = {}
    for line, cells, fault in lines:
        place = f"{path.name} line {line}"
        if fault:
            quarantine.append(Quarantined(Reason.BAD_ROW, "row", place, fault))
            continue
        row, faults = _row(line, dict(zip(names, map(without_point_zero, cells), strict=True)), labelled)
        if row is not None and row.cancer is not None:
            # Of a row that cannot be used, too: what it says of its breast contradicts the others all the same.
            labels.setdefault(row.breast, set()).add(row.cancer)
        if faults or row is None:
            quarantine.append(Quarantined(Reason.BAD_ROW, "row", place, "; ".join(faults)))
        else:
            rows.append(row)
    if not rows and not quarantine:
        raise InputError(f"{path}: has a header and not one row; the file is damaged or cut short")
    kept = _with_one_label(path, _without_doubles(path, rows, quarantine), labels, quarantine)
    if not kept:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in quarantine[:3])
        raise InputError(f"{path}: none of its {len(quarantine)} rows can be used ({reasons})")
    return Table(path, tuple(kept), labelled, tuple(quarantine))


def _header(path: Path, written: Sequence[str]) -> list[str]:
    """Names of the columns, spelled as the archive does.

    Raises InputError: columns are missing, or stand there twice.
    """
    known = {name.lower(): name for name in TRAIN_COLUMNS}
    names = [known.get(name.lower(), name) for name in written]
    # A table without any of the labels is a test table; one that has some of them has lost the others.
    test = path.stem.lower() != "train" and not set(names) & set(LABEL_COLUMNS)
    missing = [name for name in (TEST_COLUMNS if test else TRAIN_COLUMNS) if name not in names]
    if missing:
        raise InputError(
            f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; found "
            f"{', '.join(name for name in written if name) or 'none'}. Expected the archive's own table"
        )
    doubled = sorted({name for name in names if name in known.values() and names.count(name) > 1})
    if doubled:
        raise InputError(f"{path}: column {', '.join(doubled)} stands there more than once; keep one of them")
    return names


def _row(line: int, cells: Mapping[str, str], labelled: bool) -> tuple[ImageRow | None, list[str]]:
    """One row, and what is wrong with it; None where it cannot even be said whose breast it is."""
    faults: list[str] = []

    def fault(column: str, expected: str) -> None:
        faults.append(f"{column} {cells.get(column, '')[:40]!r}, expected {expected}")

    def number(column: str, *, need: bool = False) -> int | None:
        text = cells.get(column, "")
        if re.fullmatch(r"\d{1,16}", text) and int(text) < _MOST_ID:
            return int(text)
        if re.fullmatch(r"[\d.,]+[eE]\+?\d+", text):
            fault(column, "a whole number; a spreadsheet rounded it, so take the archive's own table")
        elif need or text:
            fault(column, "a whole number")
        return None

    def flag(column: str, *, need: bool = False) -> int | None:
        text = cells.get(column, "")
        if text.upper() not in _FLAGS and (need or text):
            fault(column, "0 or 1")
        return _FLAGS.get(text.upper())

    def word(column: str, allowed: Sequence[str], *, need: bool = False) -> str | None:
        text = cells.get(column, "").upper()
        if text in allowed:
            return text
        if need or text:
            fault(column, " or ".join(allowed))
        return None

    view = cells["view"].upper()
    if re.fullmatch(r"[A-Z]{0,8}", view) is None:
        fault("view", "CC, MLO, or another view's letters")
    age = cells["age"]
    if age and (re.fullmatch(r"\d{1,3}(\.\d+)?", age) is None or float(age) > 130):
        fault("age", "years, 0 to 130")
        age = ""
    patient, image = number("patient_id", need=True), number("image_id", need=True)
    laterality = word("laterality", ("L", "R"), need=True)
    row = ImageRow(
        line=line,
        patient=patient or 0,
        image=image or 0,
        laterality=laterality or "",
        view=view or None,
        cancer=flag("cancer", need=labelled),
        birads=word("BIRADS", tuple("0123456")),
        density=word("density", DENSITIES),
        age=float(age) if age else None,
        **{name: flag(name) for name in ("implant", "biopsy", "invasive")},
        difficult_negative=flag("difficult_negative_case"),
        site=number("site_id"),
        machine=number("machine_id"),
    )
    for column, value in (("invasive", row.invasive == 1), ("difficult_negative_case", row.difficult_negative == 1)):
        if value and row.cancer == (0 if column == "invasive" else 1):
            faults.append(f"{column} {cells[column]!r} contradicts cancer {cells['cancer']!r}")
    return (row if patient is not None and laterality is not None else None), faults


def _without_doubles(path: Path, rows: Sequence[ImageRow], quarantine: list[Quarantined]) -> list[ImageRow]:
    """Rows with image ids of their own. Of rows that say the same the first is kept; where they differ, none is: which
    of them is right is not known."""
    by_image: dict[int, list[ImageRow]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    kept: list[ImageRow] = []
    for row in rows:
        same = by_image[row.image]
        differ = any(replace(other, line=row.line) != row for other in same)
        if row is same[0] and not differ:
            kept.append(row)
            continue
        others = ", ".join(str(other.line) for other in same[:5] if other is not row)
        reason = f"image_id {row.image} is also in line {others}, {'with other facts' if differ else 'as here'}"
        quarantine.append(Quarantined(Reason.DUPLICATE, "row", f"{path.name} line {row.line}", reason))
    return kept


def _with_one_label(
    path: Path, rows: Sequence[ImageRow], labels: Mapping[tuple[int, str], set[int]], quarantine: list[Quarantined]
) -> list[ImageRow]:
    """Rows of breasts that are either positive or negative."""
    kept: list[ImageRow] = []
    for row in rows:
        if len(labels.get(row.breast, ())) < 2:
            kept.append(row)
            continue
        reason = f"the rows of breast {row.patient} {row.laterality} say both cancer 0 and cancer 1"
        quarantine.append(Quarantined(Reason.CONTRADICTION, "row", f"{path.name} line {row.line}", reason))
    return kept
