"""CBIS-DDSM: 3032 scanned films of 1566 women with outlined masses and calcifications (Lee et al., Sci. Data 4, 2017).

docs/cbis_ddsm.md describes the archive, and what this converter makes of it. In short: rows of the
tables become lesions, images of both the mass and the calcification set become one record, what a file holds
decides what it is, and every lesion is either converted or quarantined with its reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from mammodet.converters.base import Quarantined, Reason, Summary, counted, listed, settle_sides
from mammodet.converters.cbis_ddsm.archive import Archive, SourceFile, find_archive
from mammodet.converters.cbis_ddsm.image import ABNORMALITIES, NAME, ImageOptions, ImageTask, convert_image
from mammodet.converters.cbis_ddsm.table import RoiRow, Tables, read_tables
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Made, Resumable
from mammodet.errors import InputError
from mammodet.records import ImageRecord


class CbisOptions(Options):
    """What is converted, and how."""

    tables: tuple[Path, ...] = flag((), "the CSVs, where they lie outside --source")
    abnormality: Literal["mass", "calc", "both"] = flag("both", "what is converted")
    image: ImageOptions = ImageOptions()
    split: Literal["official", "holdout"] = flag(
        "official", "'official': the archive's test set; 'holdout': --test-fraction of the patients"
    )
    #: None refuses patients that the official split has on both sides.
    resolve_leaks: Literal["train", "test"] | None = flag(
        None,
        "where patients go that the official split has on both sides, when mass and calc are pooled",
        words="refuse them; test without a value",
        const="test",
    )
    backend: Literal["loky", "dask", "ray"] | None = flag(None, "run on a cluster by this backend of joblib")
    scheduler: str | None = flag(None, "of the cluster, for instance tcp://host:8786", metavar="ADDRESS")

    @property
    def divides_test(self) -> bool:
        return self.split != "official"


class CbisDdsm(Resumable[CbisOptions, ImageTask]):
    """CBIS-DDSM, or the part of it that is there."""

    NAME = NAME
    options_type = CbisOptions

    def find(self) -> None:
        options = self.options
        self.categories = _categories(options)
        self.tables = read_tables(options.tables or [self.source])
        self.selected = [row for row in self.tables.rows if options.abnormality in ("both", row.abnormality)]
        if not self.selected:
            names = ", ".join(path.name for path in self.tables.files)
            raise InputError(f"{names}: no row for --abnormality {options.abnormality}; are the other tables missing?")
        self.archive = find_archive(self.source)
        self.sides = _official_sides(self.selected, options) if options.split == "official" else None

    def synthetic_folders(self) -> set[Path]:
        files = self.tables.files
        return {self.source, *(path.parent for path in files), *(path.parent.parent for path in files)}

    def rows(self) -> list[ImageTask]:
        tasks, self.absent = _tasks(self.tables, self.selected, self.archive)
        if not tasks:
            raise InputError(
                f"{self.source}: {self.archive.layout_text()}, but not one full image of the {len(self.selected)} rows "
                f"for --abnormality {self.options.abnormality}; expected for instance a folder "
                f"{self.selected[0].image_case}"
            )
        self.quarantine += [*self.tables.quarantine, *self.absent]
        return tasks

    def how(self) -> Any:
        return self.source, self.output, self.options.image, self.phantom

    def refers(self) -> bool:
        return self.options.image.file_format == "reference"

    def uses_processes(self) -> bool:
        return True

    def key(self, row: ImageTask) -> str:
        return row.name

    def fingerprint(self, row: ImageTask) -> Any:
        rows = [[asdict(each) for each in rows] for rows in (row.rows, row.left_out)]
        return [*rows, row.incomplete, row.paths()]

    def settings(self) -> Any:
        return [asdict(self.options.image), self.phantom, self.categories]

    @staticmethod
    def convert_one(row: ImageTask, how: Any) -> Made:
        source, output, options, phantom = how
        return convert_image(row, source, output, options, phantom=phantom)

    def given(self) -> dict[str, str] | None:
        prefix = "phantom_" if self.phantom else ""
        return {f"{prefix}{patient}": side for patient, side in self.sides.items()} if self.sides is not None else None

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[ImageTask, Made]]) -> None:
        facts: Counter[str] = Counter()
        for _, made in done:
            facts.update(made.facts)
        _count(self.summary, self.archive, self.tables, self.selected, records, facts)
        both = sum(bool(task.left_out) for task, _ in done)
        _warn(self.summary, self.tables, self.selected, self.absent, both, self.options)
        _warn_of_cases_without_row(self.summary, self.tables, self.archive, self.options.abnormality)


convert = CbisDdsm.convert
ARCHIVE = CbisDdsm


def _official_sides(rows: Sequence[RoiRow], options: CbisOptions) -> dict[str, str]:
    """Patient to the archive's `train` or `test`.

    Raises InputError: patients are on both sides, and nobody said where they are to go.
    """
    sides, leaks = settle_sides(_sides(rows), options.resolve_leaks)
    leaking = list(leaks)
    if leaking and options.resolve_leaks is None:
        raise InputError(
            f"the official split puts {len(leaking)} patients into training and test, since the mass and the "
            f"calcification set were divided apart: {listed(leaking)}. Convert one of them (--abnormality mass), move "
            "these patients to one side (--resolve-leaks test, or train), or divide anew (--split holdout)"
        )
    return sides


def _tasks(tables: Tables, selected: Sequence[RoiRow], archive: Archive) -> tuple[list[ImageTask], list[Quarantined]]:
    """One task for each image of the selected rows that has a file, and the lesions of those that have none."""
    chosen: dict[tuple[str, str, str], list[RoiRow]] = {}
    others: dict[tuple[str, str, str], list[RoiRow]] = {}
    names = {row.name for row in selected}
    for row in tables.rows:
        (chosen if row.name in names else others).setdefault(row.image_key, []).append(row)
    tasks: list[ImageTask] = []
    absent: list[Quarantined] = []
    for key in sorted(chosen):
        # The mass set's entry first: of the two it is the one that is downloaded more often.
        rows = tuple(sorted(chosen[key], key=lambda row: (row.abnormality != "mass", row.subset, row.number)))
        cases: dict[str, tuple[SourceFile, ...]] = {}
        for row in rows:
            if row.image_case not in cases:
                cases[row.image_case] = tuple(archive.files(row.image_case, [row.image_path]))
        if not any(cases.values()):
            reason = f"the archive has no file for {' or '.join(cases)}"
            absent.append(Quarantined(Reason.NO_FILE, "image", "_".join(rows[0].image_case.split("_")[1:]), reason))
            lost = f"its image is missing: {reason}"
            absent.extend(Quarantined(Reason.IMAGE_LOST, "lesion", row.name, lost) for row in rows)
            continue
        tasks.append(
            ImageTask(
                rows=rows,
                left_out=tuple(others.get(key, ())),
                cases=cases,
                roi_files=tuple(tuple(archive.files(row.name, [row.crop_path, row.mask_path])) for row in rows),
                incomplete=key in tables.incomplete,
            )
        )
    return tasks, absent


def _categories(options: CbisOptions) -> tuple[str, ...]:
    if options.image.categories == "lesion":
        return ("lesion",)
    if options.image.categories == "pathology":
        return ("benign", "malignant")
    kinds = ("mass", "calc") if options.abnormality == "both" else (options.abnormality,)
    return tuple(ABNORMALITIES[kind] for kind in kinds)


def _count(
    summary: Summary,
    archive: Archive,
    tables: Tables,
    rows: Sequence[RoiRow],
    records: Sequence[ImageRecord],
    facts: Mapping[str, int],
) -> None:
    lesions = [lesion for record in records for lesion in record.lesions]
    lost = sum(item.what == "lesion" for item in summary.quarantine)
    summary.counts.update(
        {
            "layout": archive.layout_text(),
            "tables": ", ".join(path.name for path in tables.files),
            "rows": len(rows),
            "lesions": {"converted": len(lesions), "quarantined": lost},
            "images": len(records),
            "patients": len({record.patient_id for record in records}),
            "unlocalized images": sum(record.unlocalized for record in records),
            "official": counted(f"{row.abnormality} {row.subset}" for row in rows),
            "pathology": counted(str(item.attributes["pathology_csv"]) for item in lesions),
            "density": counted(str(record.density) for record in records),
            "view": counted(str(record.view) for record in records),
        }
    )
    summary.checks.update({name: count for name, count in sorted(facts.items()) if count})
    if len(lesions) + lost != len(rows):
        raise AssertionError(f"{len(rows)} rows became {len(lesions)} lesions and {lost} quarantined ones")


def _warn(
    summary: Summary,
    tables: Tables,
    rows: Sequence[RoiRow],
    absent: Sequence[Quarantined],
    marked: int,
    options: CbisOptions,
) -> None:
    """`marked`: images that also hold what is not converted."""
    missing = sum(item.what == "image" for item in absent)
    if missing:
        wanted = len({row.image_key for row in rows})
        summary.warnings.append(f"{missing} of {wanted} images are not in this part; quarantine.csv lists them")
    if tables.quarantine:
        summary.warnings.append(f"{len(tables.quarantine)} rows of the tables cannot be used (quarantine.csv)")
    both = list(settle_sides(_sides(rows), None)[1])
    if options.split == "official" and both:
        summary.warnings.append(
            f"{len(both)} patients are on both sides of the official split and were moved to "
            f"{options.resolve_leaks}: {', '.join(both)}; figures do not compare with those of the official test set"
        )
    if options.abnormality != "both":
        other = "calc" if options.abnormality == "mass" else "mass"
        if any(row.abnormality == other for row in tables.rows):
            summary.counts[f"also hold a {ABNORMALITIES[other]}"] = marked
        else:
            summary.warnings.append(
                f"the {ABNORMALITIES[other]} tables are not there: images that also hold one cannot be marked"
            )
    summary.warnings.append(
        "CBIS-DDSM has no normal images: labels tumor/no tumor cannot be learnt on it alone, and an image without a "
        "mass can hold a calcification"
    )


def _warn_of_cases_without_row(summary: Summary, tables: Tables, archive: Archive, abnormality: str) -> None:
    """Images that no table speaks of: a table is missing, or lost some of its rows."""
    known = {name for row in tables.rows for name in (row.image_case, row.name)}
    kinds = {"mass": ("Mass-",), "calc": ("Calc-",), "both": ("Mass-", "Calc-")}[abnormality]
    unknown = sorted(case for case in archive.by_case if case not in known and case.startswith(kinds))
    if unknown:
        summary.warnings.append(
            f"{len(unknown)} cases of the archive have no usable row in the tables and were not converted, for "
            f"instance {', '.join(unknown[:3])}; is a table missing?"
        )


def _sides(rows: Sequence[RoiRow]) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row.patient, set()).add(row.subset)
    return sides
