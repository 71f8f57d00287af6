"""The tables of CBIS-DDSM (`mass_case_description_train_set.csv` ...): one row per lesion and view.

What the files are like: a trailing newline inside the last path of every row, `breast_density` in the mass tables and
`breast density` in the calcification tables, `NA` beside `N/A`, abnormality numbers that do not start at 1, and copies
saved by spreadsheets, with `;` or a byte order mark. Columns identify them, not names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.sheet import column_name, find_tables, read_sheet, without_point_zero
from mammodet.converters.tables import laterality_of
from mammodet.errors import InputError, raise_faults

#: Columns that make a file one of the tables; the rest may be missing.
KEY_COLUMNS = ("patient id", "left or right breast", "image view", "abnormality id", "abnormality type", "pathology")
PATHOLOGIES = ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
_ABNORMALITY = {"mass": "mass", "calcification": "calc", "calc": "calc"}
_PATIENT = re.compile(r"P_(\d{1,8})")
#: A file of this name is meant to be one of the tables, whatever it holds.
_OFFICIAL_NAME = re.compile(r"(mass|calc)_case_description", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RoiRow:
    """One lesion on one image."""

    place: str  #: table and line, for messages
    abnormality: str  #: `mass` or `calc`
    subset: str  #: `train` or `test` of the official split
    patient: str  #: `P_00001`
    laterality: str  #: `L` or `R`
    view: str  #: `CC` or `MLO`
    number: int  #: the abnormality id
    pathology: str  #: the table's word
    density: str | None = None  #: `1` to `4`, None where the table says 0 or nothing
    #: what else it says, in its own words; `NA`, `N/A` and blanks are left out.
    attributes: Mapping[str, Any] = field(default_factory=dict)
    #: image_path, crop_path, mask_path: as written, without white space; the last two are often swapped.
    image_path: str = ""
    crop_path: str = ""
    mask_path: str = ""

    @property
    def image_case(self) -> str:
        """Folder and PatientID of the full image: `Mass-Training_P_00001_LEFT_CC`."""
        kind = {"mass": "Mass", "calc": "Calc"}[self.abnormality]
        subset = {"train": "Training", "test": "Test"}[self.subset]
        side = {"L": "LEFT", "R": "RIGHT"}[self.laterality]
        return f"{kind}-{subset}_{self.patient}_{side}_{self.view}"

    @property
    def name(self) -> str:
        """Folder and PatientID of the lesion's crop and mask: `Mass-Training_P_00001_LEFT_CC_1`."""
        return f"{self.image_case}_{self.number}"

    @property
    def image_key(self) -> tuple[str, str, str]:
        """Patient, side and view: the same for the mass and the calcification entry of one image."""
        return self.patient, self.laterality, self.view


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything that the tables say."""

    rows: tuple[RoiRow, ...]  #: one per lesion, names unique
    files: tuple[Path, ...]  #: where they come from
    quarantine: tuple[Quarantined, ...]  #: rows that cannot be used, each with its reason
    incomplete: frozenset[tuple[str, str, str]]  #: images (patient, side, view) that such a row belongs to


class _RowError(ValueError):
    """A row that cannot be used: its image, or the patients whose images it may belong to, as far as it can be read."""

    def __init__(
        self, reason: str, image_key: tuple[str, str, str] | None = None, patients: Iterable[str] = ()
    ) -> None:
        super().__init__(reason)
        self.image_key = image_key
        self.patients = {f"P_{int(name[2:]):05d}" for name in patients}


def read_tables(places: Sequence[Path]) -> Tables:
    """Every row of every table among the given files and folders (with two levels below).

    Raises InputError: no table there, one that cannot be read, or columns missing in one.
    """
    rows: list[RoiRow] = []
    used: list[Path] = []
    quarantine: list[Quarantined] = []
    incomplete: set[tuple[str, str, str]] = set()
    faults: list[str] = []
    doubtful: set[str] = set()
    for path, named in find_tables(places, 2):
        try:
            found = _parse(path, explicit=named or _OFFICIAL_NAME.search(path.name) is not None)
        except InputError as error:
            faults.append(str(error))
            continue
        if found is None:
            continue
        used.append(path)
        rows.extend(found[0])
        for place, bad in found[1]:
            quarantine.append(Quarantined(Reason.BAD_ROW, "row", place, str(bad)))
            incomplete |= {bad.image_key} if bad.image_key else set()
            doubtful |= bad.patients
    raise_faults(faults, where="tables", advice="Download the tables again from the archive's page.")
    if not used:
        raise InputError(
            f"{', '.join(str(place) for place in places)}: no table; expected mass_case_description_train_set.csv, "
            "calc_case_description_test_set.csv ... Where they lie elsewhere, name them with --tables"
        )
    rows = _without_doubles(rows, quarantine, incomplete)
    incomplete |= {row.image_key for row in rows if row.patient in doubtful}
    return Tables(tuple(rows), tuple(used), tuple(quarantine), frozenset(incomplete))


def _parse(path: Path, *, explicit: bool) -> tuple[list[RoiRow], list[tuple[str, _RowError]]] | None:
    """Rows of one file; None where its columns are not those of a table and nobody said that it is one."""
    try:
        columns, lines = read_sheet(path)
    except InputError:
        if explicit:
            raise
        return None
    names = [column_name(name) for name in columns]
    missing = [name for name in KEY_COLUMNS if name not in names]
    if missing and not explicit and len(missing) > 2:
        return None
    if missing:
        raise InputError(
            f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(repr(name) for name in missing)} missing; "
            f"found {', '.join(repr(name) for name in sorted(names)) or 'none'}"
        )
    if doubled := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(f"{path}: column {', '.join(map(repr, doubled))} occurs more than once; keep one of them")
    rows: list[RoiRow] = []
    bad: list[tuple[str, _RowError]] = []
    for line, cells, fault in lines:
        place = f"{path.name} line {line}"
        try:
            if fault:
                patients = [cell for cell in cells if _PATIENT.fullmatch(cell)]
                if not patients:
                    raise InputError(f"{path}: line {line} has {fault}; whose lesion it is cannot be read")
                raise _RowError(fault, patients=patients)
            rows.append(_row(place, dict(zip(names, map(without_point_zero, cells), strict=True)), path.name))
        except _RowError as error:
            bad.append((place, error))
    if not rows and not bad:
        raise InputError(f"{path}: has a header and not one row; the file is damaged or cut short")
    return rows, bad


def _row(place: str, cells: Mapping[str, str], table: str) -> RoiRow:
    """One row, checked. Raises _RowError: with every fault of it."""
    faults: list[str] = []

    def fault(column: str, expected: str) -> None:
        faults.append(f"{column} {cells.get(column, '')[:40]!r}, expected {expected}")

    patient = _PATIENT.fullmatch(cells["patient id"])
    if patient is None:
        fault("patient id", "P_ and a number")
    laterality = laterality_of(cells["left or right breast"])
    if laterality is None:
        fault("left or right breast", "LEFT or RIGHT")
    view = cells["image view"].upper()
    if view not in ("CC", "MLO"):
        fault("image view", "CC or MLO")
    if re.fullmatch(r"\d{1,3}", cells["abnormality id"]) is None:
        fault("abnormality id", "a number")
    abnormality = _ABNORMALITY.get(cells["abnormality type"].lower())
    if abnormality is None:
        fault("abnormality type", "mass or calcification")
    pathology = cells["pathology"].upper()
    if pathology not in PATHOLOGIES:
        fault("pathology", " or ".join(PATHOLOGIES))
    subset = official_side(cells.get("image file path", ""), table)
    if subset is None:
        faults.append("neither its path nor the table's name says whether it is of the training or the test set")
    density = cells.get("breast density", "")
    if density not in ("", "0", "1", "2", "3", "4"):
        fault("breast density", "0 to 4")
    numbers = {name: cells.get(name, "") for name in ("assessment", "subtlety")}
    for name, text in numbers.items():
        if text and re.fullmatch(r"[0-6]", text) is None:
            fault(name, "0 to 6")
    key = None
    if patient is not None and laterality is not None and view in ("CC", "MLO"):
        key = f"P_{int(patient[1]):05d}", laterality, view
    if faults or key is None or abnormality is None or subset is None:
        raise _RowError("; ".join(faults), key, [patient[0]] if patient and key is None else ())
    words = {
        "shape": cells.get("mass shape", ""),
        "margins": cells.get("mass margins", ""),
        "calc_type": cells.get("calc type", ""),
        "calc_distribution": cells.get("calc distribution", ""),
    }
    attributes: dict[str, Any] = {key: word for key, word in words.items() if word.upper() not in ("", "NA", "N/A")}
    attributes |= {name: int(text) for name, text in numbers.items() if text}
    return RoiRow(
        place=place,
        abnormality=abnormality,
        subset=subset,
        patient=key[0],
        laterality=key[1],
        view=view,
        number=int(cells["abnormality id"]),
        pathology=pathology,
        density=density if density not in ("", "0") else None,
        attributes=attributes,
        image_path=cells.get("image file path", ""),
        crop_path=cells.get("cropped image file path", ""),
        mask_path=cells.get("roi mask file path", ""),
    )


def official_side(image_path: str, table: str) -> str | None:
    """`train` or `test`: by the case's name in the image's path, else by the table's name."""
    for text in (image_path.split("/")[0], table):
        found = re.search(r"train|test", text.lower())
        if found:
            return found[0]
    return None


def _without_doubles(
    rows: Sequence[RoiRow], quarantine: list[Quarantined], incomplete: set[tuple[str, str, str]]
) -> list[RoiRow]:
    """Rows with names of their own; a second row that says the same, as in a table saved anew, is dropped, and one
    that says something else is quarantined."""
    seen: dict[str, RoiRow] = {}
    for row in rows:
        first = seen.setdefault(row.name, row)
        if replace(first, place=row.place) != row:
            incomplete.add(row.image_key)
            reason = f"{row.name} occurs in {first.place} already"
            quarantine.append(Quarantined(Reason.DUPLICATE, "row", row.place, reason))
    return list(seen.values())
