"""CBIS-DDSM: 3032 scanned films of 1566 women with outlined masses and calcifications (Lee et al., Sci. Data 4, 2017).

What the archive is like, and what this converter makes of it, is told in docs/cbis_ddsm.md. In short: rows of the
tables become lesions, images that stand in the mass and in the calcification set become one record, what a file holds
decides what it is, and every lesion is either converted or quarantined with its reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodet.converters.base import (
    ARCHIVE_LINK,
    Quarantined,
    SplitOptions,
    Summary,
    check_folders,
    link_archive,
    remove_tables,
    split_records,
    write_outputs,
)
from mammodet.converters.cbis_ddsm.archive import Archive, SourceFile, find_archive
from mammodet.converters.cbis_ddsm.image import ABNORMALITIES, ImageOptions, ImageResult, ImageTask, convert_image
from mammodet.converters.cbis_ddsm.table import RoiRow, Tables, read_tables
from mammodet.converters.journal import Journal, files_fingerprint

import mammodet
from mammodet.data.coco import from_json, to_json
from mammodet.data.splits import check_shares
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.parallel import in_processes, on_backend
from mammodet.records import Dataset, ImageRecord
from mammodet.synthetic import is_synthetic

CATEGORY_SCHEMES = ("abnormality", "lesion", "pathology")
FORMATS = ("png16", "jpg", "reference")
DEFAULT_MAX_SIZE = 2048
JOURNAL = "converted.jsonl"


@dataclass(frozen=True, slots=True)
class CbisOptions:
    """What is converted, and how.

    Attributes:
        abnormality: `mass`, `calc` or `both`.
        image: pixels and lesions of one image.
        split: `official` (the archive's own test set) or `holdout` (shares of `splits`).
        resolve_leaks: side to which patients go that the official split has on both, None refuses them.
        tables: files or folders of the tables; none: they are looked for in the archive.
        jobs, backend, scheduler: processes, and the cluster that runs them (`mammodet.parallel.on_backend`).
    """

    abnormality: str = "both"
    image: ImageOptions = field(default_factory=ImageOptions)
    split: str = "official"
    resolve_leaks: str | None = None
    tables: tuple[Path, ...] = ()
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    backend: str | None = None
    scheduler: str | None = None
    progress: bool = True


def convert(source: Path, output: Path, options: CbisOptions) -> Summary:
    """Convert a CBIS-DDSM folder, or the part of it that is there; goes on where an earlier run was stopped.

    Raises:
        InputError: no archive or no tables there, nothing that can be converted, or options that cannot be met.
    """
    _check_options(options)
    source, output = Path(os.path.abspath(source)), Path(os.path.abspath(output))  # the same on a cluster's machines
    check_folders(source, output)
    tables = read_tables(options.tables or [source])
    selected = [row for row in tables.rows if options.abnormality in ("both", row.abnormality)]
    if not selected:
        names = ", ".join(path.name for path in tables.files)
        raise InputError(f"{names}: no row for --abnormality {options.abnormality}; are the other tables missing?")
    archive = find_archive(source)
    given = _official_sides(selected, options) if options.split == "official" else None

    tasks, absent = _tasks(tables, selected, archive)
    if not tasks:
        raise InputError(
            f"{source}: {archive.layout_text()}, but not one full image of the {len(selected)} rows for --abnormality "
            f"{options.abnormality}; expected for instance a folder {selected[0].image_case}"
        )
    image_options, name = _named(options.image, source, tables)
    summary = Summary(name, str(source), str(output), quarantine=[*tables.quarantine, *absent])
    results = _convert_all(tasks, source, output, image_options, options)
    facts: Counter[str] = Counter()
    records: list[ImageRecord] = []
    for result in results:
        facts.update(result.facts)
        summary.quarantine.extend(result.quarantine)
        if result.record is not None:
            records.append(result.record)
    if not records:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in summary.quarantine[:3])
        raise InputError(f"{source}: no image could be converted ({reasons})")
    if image_options.file_format == "reference":
        link_archive(source, output, "--format png16 or jpg")
    prefix = image_options.patient_prefix
    sides = {f"{prefix}{patient}": subset for patient, subset in given.items()} if given else None
    splits = split_records(records, options.splits, sides)
    _count(summary, archive, tables, selected, records, facts)
    _warn(summary, tables, selected, absent, records, options)
    _warn_of_cases_without_row(summary, tables, archive, options.abnormality)
    write_outputs(output, _categories(options), records, splits, summary)
    return summary


def _check_options(options: CbisOptions) -> None:
    chosen = options.splits
    for name, value, allowed in (
        ("abnormality", options.abnormality, ("mass", "calc", "both")),
        ("categories", options.image.categories, CATEGORY_SCHEMES),
        ("format", options.image.file_format, FORMATS),
        ("without-callback", options.image.without_callback, ("benign", "unknown")),
        ("split", options.split, ("official", "holdout")),
        ("resolve-leaks", options.resolve_leaks, (None, "train", "test")),
    ):
        if value not in allowed:
            raise InputError(f"--{name} {value}: expected one of {', '.join(str(choice) for choice in allowed)}")
    if options.image.max_size is not None and options.image.max_size < 16:
        raise InputError(f"--max-size {options.image.max_size}: expected at least 16 px, or 0 for the archive's size")
    if options.image.file_format == "reference" and options.image.max_size:
        raise InputError("--format reference: refers to the archive's own files, which --max-size cannot resize")
    official = options.split == "official"
    check_shares(
        test_fraction=0.0 if official else chosen.test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds
    )


def _official_sides(rows: Sequence[RoiRow], options: CbisOptions) -> dict[str, str]:
    """Patient to the archive's `train` or `test`.

    Raises:
        InputError: patients stand on both sides, and nobody said where they are to go.
    """
    leaking = _leaks(rows)
    if leaking and options.resolve_leaks is None:
        shown = ", ".join(leaking[:5]) + (f" ... (in all {len(leaking)})" if len(leaking) > 5 else "")
        raise InputError(
            f"the official split puts {len(leaking)} patients into training and test, since the mass and the "
            f"calcification set were divided apart: {shown}. Convert one of them (--abnormality mass), move these "
            "patients to one side (--resolve-leaks test, or train), or divide anew (--split holdout)"
        )
    sides = {row.patient: row.subset for row in rows}
    return sides | dict.fromkeys(leaking, str(options.resolve_leaks))


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
            absent.append(Quarantined("image", "_".join(rows[0].image_case.split("_")[1:]), reason))
            absent.extend(Quarantined("lesion", row.name, f"its image is missing: {reason}") for row in rows)
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


def _named(options: ImageOptions, source: Path, tables: Tables) -> tuple[ImageOptions, str]:
    """Whose patients these are."""
    near = {source, *(path.parent for path in tables.files), *(path.parent.parent for path in tables.files)}
    if is_synthetic(near):
        return replace(options, source_name="phantom", patient_prefix="phantom_"), "phantom"
    return options, "CBIS-DDSM"


def _convert_all(
    tasks: Sequence[ImageTask], source: Path, output: Path, image: ImageOptions, options: CbisOptions
) -> list[ImageResult]:
    """Results in the order of the tasks; what an earlier run has finished is taken from its journal."""
    results: dict[int, ImageResult] = {}
    fingerprints = [canonical_hash([_task_facts(task), files_fingerprint(task.paths())]) for task in tasks]
    settings = [mammodet.__version__, asdict(image), str(source)]
    categories = _categories(options)
    with Journal(output / JOURNAL, settings) as journal:
        for number, task in enumerate(tasks):
            entry = journal.get(task.name, fingerprints[number])
            result = _from_entry(entry, output)
            if result is not None:
                results[number] = result
        waiting = [(number, task, source, output, image) for number, task in enumerate(tasks) if number not in results]
        if waiting:
            # Until the new tables are written: images change under the old ones.
            remove_tables(output)
        with on_backend(options.backend if waiting else None, options.scheduler if waiting else None):
            for number, result in in_processes(
                _convert_numbered,
                waiting,
                jobs=options.jobs,
                name="cbis_ddsm",
                progress=options.progress,
                done=len(results),
            ):
                journal.put(tasks[number].name, fingerprints[number], _to_entry(result, categories))
                results[number] = result
    return [results[number] for number in range(len(tasks))]


def _convert_numbered(
    number: int, task: ImageTask, source: Path, output: Path, image: ImageOptions
) -> tuple[int, ImageResult]:
    return number, convert_image(task, source, output, image)


def _task_facts(task: ImageTask) -> list[Any]:
    return [[asdict(row) for row in task.rows], [asdict(row) for row in task.left_out], task.incomplete]


def _to_entry(result: ImageResult, categories: Sequence[str]) -> dict[str, Any]:
    record = result.record
    return {
        "dataset": to_json(Dataset(tuple(categories), (record,))) if record else None,
        "quarantine": [asdict(item) for item in result.quarantine],
        "facts": dict(result.facts),
    }


def _from_entry(entry: Any, output: Path) -> ImageResult | None:
    """A result of the journal; None where there is none, its image file is gone, or one of its files was refused.

    What refused a file may have been mended without a change of the file: its permissions, a disk, a missing decoder.
    """
    if entry is None or any(item["file"] for item in entry["quarantine"]):
        return None
    record = from_json(entry["dataset"], where=JOURNAL).images[0] if entry["dataset"] else None
    if record and not record.file_name.startswith(ARCHIVE_LINK) and not (output / record.file_name).is_file():
        return None
    return ImageResult(record, tuple(Quarantined(**item) for item in entry["quarantine"]), entry["facts"])


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
            "official": dict(sorted(Counter(f"{row.abnormality} {row.subset}" for row in rows).items())),
            "pathology": dict(sorted(Counter(str(item.attributes["pathology_csv"]) for item in lesions).items())),
            "density": dict(sorted(Counter(str(record.density) for record in records).items())),
            "view": dict(sorted(Counter(str(record.view) for record in records).items())),
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
    records: Sequence[ImageRecord],
    options: CbisOptions,
) -> None:
    missing = sum(item.what == "image" for item in absent)
    if missing:
        wanted = len({row.image_key for row in rows})
        summary.warnings.append(
            f"{missing} of {wanted} images are not in this part of the archive; quarantine.csv lists them"
        )
    if tables.quarantine:
        summary.warnings.append(f"{len(tables.quarantine)} rows of the tables cannot be used (quarantine.csv)")
    both = _leaks(rows)
    if options.split == "official" and both:
        summary.warnings.append(
            f"{len(both)} patients stand on both sides of the official split and were moved to "
            f"{options.resolve_leaks}: {', '.join(both)}; figures do not compare with those of the official test set"
        )
    if options.abnormality != "both":
        other = "calc" if options.abnormality == "mass" else "mass"
        marked = sum(any(note.startswith("also holds") for note in record.notes) for record in records)
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


def _leaks(rows: Sequence[RoiRow]) -> list[str]:
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row.patient, set()).add(row.subset)
    return sorted(patient for patient, subsets in sides.items() if len(subsets) > 1)
