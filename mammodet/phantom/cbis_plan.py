"""What a phantom CBIS-DDSM archive shows: films, lesions, quirks, and the rows of its tables."""

import csv
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mammodet.data.json_values import check_file_name
from mammodet.errors import InputError, raise_faults
from mammodet.phantom import CbisPhantom

COLUMNS = {
    "mass": "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path",
    "calc": "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,"
    "calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path",
}
_WORDS = {
    "mass": (("OVAL", "ROUND", "LOBULATED", "IRREGULAR", "N/A"), ("CIRCUMSCRIBED", "SPICULATED", "ILL_DEFINED", "NA")),
    "calc": (("PLEOMORPHIC", "AMORPHOUS", "PUNCTATE", "N/A"), ("CLUSTERED", "SEGMENTAL", "LINEAR", "N/A")),
}
_KIND = {"mass": "mass", "calc": "calcification"}
_SUBSET = {"train": "Training", "test": "Test"}
_UID_ROOT = "1.3.6.1.4.1.9590.100.1.2"
_NUMBERS = ("abnormality id", "assessment", "subtlety")
_FORM = re.compile(r"(P_\d{5})_(LEFT|RIGHT)_(CC|MLO)")

Row = dict[str, str]


@dataclass
class LesionPlan:
    """One lesion, and so one row: `kind` is `mass` or `calc`, `number` its abnormality id."""

    kind: str
    subset: str
    number: int
    pathology: str
    assessment: int
    subtlety: int
    words: tuple[str, str]
    quirks: set[str] = field(default_factory=set)


@dataclass
class FilmPlan:
    """One image with its lesions: side `LEFT` or `RIGHT`, view `CC` or `MLO`."""

    patient: str
    side: str
    view: str
    density: int
    lesions: list[LesionPlan]
    quirks: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """`P_00001_LEFT_CC`."""
        return f"{self.patient}_{self.side}_{self.view}"

    def case(self, lesion: LesionPlan) -> str:
        """Folder of the full image in the lesion's set: `Mass-Training_P_00001_LEFT_CC`."""
        return f"{lesion.kind.capitalize()}-{_SUBSET[lesion.subset]}_{self.name}"

    def row(self, lesion: LesionPlan, seed: int) -> Row:
        """The lesion's row, with the paths of the original layout."""
        case = self.case(lesion)
        roi = f"{case}_{lesion.number}"
        series = [f"{roi}/{uid(seed, roi, 'study', k)}/{uid(seed, roi, 'series', k)}" for k in (0, 1)]
        # In one series the mass sets have the crop first, the calcification sets the mask.
        crop, mask = f"{series[0]}/000000.dcm", f"{series[0]}/000001.dcm"
        if lesion.kind == "calc":
            crop, mask = mask, crop
        if "split_series" in lesion.quirks:
            crop, mask = (f"{folder}/000000.dcm" for folder in series)
        if "swapped_columns" in lesion.quirks:
            crop, mask = mask, crop
        values = (
            self.patient,
            str(self.density),
            self.side,
            self.view,
            str(lesion.number),
            _KIND[lesion.kind],
            *lesion.words,
            str(lesion.assessment),
            lesion.pathology,
            str(lesion.subtlety),
            f"{case}/{uid(seed, case, 'study')}/{uid(seed, case, 'series')}/000000.dcm",
            crop,
            mask,
        )
        return dict(zip(COLUMNS[lesion.kind].split(","), values, strict=True))


def uid(*parts: object) -> str:
    """A UID of the archive's form that depends on the parts alone."""
    digest = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "big")
    return f"{_UID_ROOT}.{10**38 + digest % 10**38}"


def plan_films(patients: int, abnormality: str, seed: int, quirks: Collection[str]) -> list[FilmPlan]:
    """Two views of one breast for each patient, every fifth patient in the test set, and the quirks on some of them."""
    films = []
    for number in range(1, patients + 1):
        rng = np.random.default_rng([seed, number, 21])
        kind = ("mass", "calc")[number % 2 == 0] if abnormality == "both" else abnormality
        subset = "test" if number % 5 == 0 else "train"
        side, density = str(rng.choice(["LEFT", "RIGHT"])), int(rng.integers(1, 5))
        for view in ("CC", "MLO"):
            films.append(FilmPlan(f"P_{number:05d}", side, view, density, [_lesion(rng, kind, subset, 1)]))
    _place_quirks(films, abnormality, seed, [name for name in CbisPhantom.QUIRKS if name in quirks])
    return films


def _lesion(rng: np.random.Generator, kind: str, subset: str, number: int, pathology: str | None = None) -> LesionPlan:
    first, second = (str(rng.choice(words)) for words in _WORDS[kind])
    return LesionPlan(
        kind,
        subset,
        number,
        pathology or str(rng.choice(["BENIGN", "MALIGNANT"])),
        int(rng.integers(2, 6)),
        int(rng.integers(1, 6)),
        (first, second),
    )


def _place_quirks(films: Sequence[FilmPlan], abnormality: str, seed: int, quirks: Sequence[str]) -> None:
    """Each quirk on a film of its own, as far as there are films; never two on one film."""
    rng = np.random.default_rng([seed, 22])
    free = [films[k] for k in rng.permutation(len(films))]
    for name in quirks:
        if name == "stray_files" or (name in ("shared_image", "leaking_patient") and abnormality != "both"):
            continue

        def fits(film: FilmPlan, name: str = name) -> bool:
            # The official split leaks from training of the mass set to test of the calcification set.
            return name != "leaking_patient" or (film.lesions[0].kind, film.lesions[0].subset) == ("mass", "train")

        film = next((film for film in free if fits(film)), None)
        if film is None:
            continue
        free.remove(film)
        _set_quirk(name, film, np.random.default_rng([seed, 23, len(free)]))
        film.quirks.add(name)


def _set_quirk(name: str, film: FilmPlan, rng: np.random.Generator) -> None:
    first = film.lesions[0]
    match name:
        case "several_lesions":
            for number in range(2, int(rng.integers(3, 9))):
                film.lesions.append(_lesion(rng, first.kind, first.subset, number, first.pathology))
        case "odd_ids":
            first.number = int(rng.integers(2, 5))
        case "mixed_pathology":
            first.pathology = "BENIGN"
            film.lesions.append(_lesion(rng, first.kind, first.subset, 2, "MALIGNANT"))
        case "shared_image":
            film.lesions.append(_lesion(rng, "calc" if first.kind == "mass" else "mass", first.subset, 1))
        case "leaking_patient":
            film.lesions.append(_lesion(rng, "calc", "test", 1))
        case "zero_scores":
            film.density, first.assessment = 0, 0
        case "without_callback":
            first.pathology = "BENIGN_WITHOUT_CALLBACK"
        case _:
            first.quirks.add(name)


def table_texts(films: Sequence[FilmPlan], seed: int) -> dict[str, str]:
    """File name to CSV text, with the newline that the archive has inside the last path of every row."""
    texts: dict[str, list[str]] = {}
    for film in films:
        for lesion in film.lesions:
            name = f"{lesion.kind}_case_description_{lesion.subset}_set.csv"
            lines = texts.setdefault(name, [COLUMNS[lesion.kind] + "\n"])
            row = film.row(lesion, seed)
            broken = "ROI mask file path" if lesion.kind == "mass" else "cropped image file path"
            cells = [f'"{value}\n"' if column == broken else value for column, value in row.items()]
            lines.append(",".join(cells) + "\n")
    return {name: "".join(lines) for name, lines in texts.items()}


def read_plan(tables: Path) -> tuple[list[FilmPlan], dict[str, Row], list[Path]]:
    """The films of tables that exist already: plans, rows by lesion name, and the tables' files.

    Raises InputError: no tables are there, or they hold rows or paths of another form.
    """
    files = sorted(tables.glob("*_case_description_*_set.csv"))
    if not files:
        raise InputError(f"{tables}: no tables; expected mass_case_description_train_set.csv ...")
    films: dict[str, FilmPlan] = {}
    rows: dict[str, Row] = {}
    faults: list[str] = []
    for path in files:
        for line, row in _read_rows(path):
            try:
                plan = _plan_of(path, row)
            except ValueError as error:
                faults.append(f"{path.name}, line {line}: {error}")
                continue
            film = films.setdefault(plan.name, plan)
            if film is not plan:
                film.lesions += plan.lesions
            rows[f"{film.case(plan.lesions[0])}_{plan.lesions[0].number}"] = row
    raise_faults(faults, where=str(tables), advice="Give the tables as they were published.")
    return [films[name] for name in sorted(films)], rows, files


def _read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a table, without the blanks around their values, and the last line of each."""
    columns = COLUMNS.get(path.name[:4], "").split(",")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != columns:
            raise InputError(f"{path}: columns {reader.fieldnames}; expected {columns}")
        for raw in reader:
            yield reader.line_num, {name: (raw[name] or "").strip() for name in columns}


def _plan_of(path: Path, row: Row) -> FilmPlan:
    """The film of one row, with its lesion; ValueError where a value is not of the archive's form."""
    match = _FORM.fullmatch("_".join(row[name] for name in ("patient_id", "left or right breast", "image view")))
    if match is None:
        raise ValueError(f"patient, side and view {list(row.values())[:4]}; expected P_00001, LEFT or RIGHT, CC or MLO")
    for column in list(row)[-3:]:  # files are written there
        if check_file_name(row[column]) or not re.fullmatch(r"([^/]+/){3}\d{6}\.dcm", row[column]):
            raise ValueError(f"{column} {row[column]!r}; expected case/study/series/000000.dcm")
    number, assessment, subtlety, density = (int(row[name]) for name in (*_NUMBERS, list(row)[1]))
    subset = "train" if "train" in path.name else "test"
    lesion = LesionPlan(path.name[:4], subset, number, row["pathology"], assessment, subtlety, ("", ""))
    return FilmPlan(match[1], match[2], match[3], density, [lesion])
