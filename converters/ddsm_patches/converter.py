"""DDSM patches of 299x299 pixels: tiles of normal films (DDSM) and crops around lesions (CBIS-DDSM), in five classes.

What a reader of any figure on this archive has to know, and what this converter therefore says on every run:
- Nothing tells whose breast a patch shows. Every patch (with its exact copies) counts as a patient of its own.
- Each lesion was cropped three times at random, with flips and rotations: patches of one lesion are many.
- As given, validation holds calcifications only and test masses only (`--split given`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodet.converters.base import Quarantined, Summary, check_folders, remove_tables, split_records, write_outputs
from mammodet.converters.ddsm_patches.archive import (
    CLASSES,
    Archive,
    Patch,
    class_counts,
    open_archive,
    patches_of,
    read_patch,
)
from mammodet.converters.ddsm_patches.options import SPLITS, PatchOptions
from mammodet.converters.journal import Journal, files_fingerprint

import mammodet
from mammodet.data.images import write_png
from mammodet.data.splits import check_shares
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, ImageRecord
from mammodet.synthetic import is_synthetic

JOURNAL = "converted.jsonl"
NAME = "DDSM patches"
_MALIGNANT = (3, 4)


@dataclass(frozen=True, slots=True)
class _Task:
    """One patch to convert; `target`: its file name in the data set, `number`: within its subset."""

    subset: str
    number: int
    patch: Patch
    fingerprint: str

    @property
    def target(self) -> str:
        return f"images/{self.subset}/{self.number:06d}.png"


@dataclass(frozen=True, slots=True)
class _Converted:
    """A patch whose image is written; `pixel_hash`: SHA-256 of its pixels."""

    task: _Task
    label: int
    pixel_hash: str


def convert(source: Path, output: Path, options: PatchOptions) -> Summary:
    """Convert the archive; a run that was ended goes on where it was.

    Raises:
        InputError: no archive there, nothing in it that can be converted, or options that cannot be met.
    """
    _check_options(options)
    check_folders(source, output)
    archive = open_archive(source)
    tasks = _tasks(archive)
    if not tasks:
        reasons = "; ".join(item.reason for item in archive.quarantine) or "all files are empty"
        raise InputError(f"{source}: no patch could be found ({reasons})")
    converted, lost = _convert_all(tasks, source, output, options)
    quarantine = [*archive.quarantine, *lost]
    if not converted:
        reasons = "; ".join(item.reason for item in quarantine[:3])
        raise InputError(f"{source}: no patch could be converted ({reasons})")

    name = _name(source)
    records = _records(converted, name, options.size)
    summary = Summary(f"{name} (patients not known)", str(source), str(output), quarantine=quarantine)
    _count(summary, archive, tasks, converted)
    _check_copies(summary, converted)
    _warn(summary, archive, converted, options)
    given = {
        str(record.patient_id): _side(item.task.subset, options.split)
        for record, item in zip(records, converted, strict=True)
    }
    splits = split_records(records, options.splits, given)
    write_outputs(output, ("lesion",), records, splits, summary, has_lesions=False, knows_patients=False)
    return summary


def _check_options(options: PatchOptions) -> None:
    if options.split not in SPLITS:
        raise InputError(f"--split {options.split}: expected one of {', '.join(SPLITS)}")
    if options.size < 1:
        raise InputError(f"--size {options.size}: expected the side of the patches in pixels")
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected at least 1")
    chosen = options.splits
    check_shares(test_fraction=0.0, val_fraction=chosen.val_fraction, folds=chosen.folds)


def _side(subset: str, split: str) -> str:
    return "test" if split == "combined" and subset == "val" else subset


def _tasks(archive: Archive) -> list[_Task]:
    numbers: Counter[str] = Counter()
    facts: dict[Path, list[Any]] = {path: files_fingerprint([path]) for path in archive.records}
    for array in archive.arrays.values():
        facts[array.path] = [*files_fingerprint([array.path]), canonical_hash(array.labels.tolist())]
    prints = {path: canonical_hash(value) for path, value in facts.items()}
    tasks: list[_Task] = []
    for subset, patch in patches_of(archive):
        fingerprint = f"{prints[patch.path]} {patch.number} {patch.offset}"
        tasks.append(_Task(subset, numbers[subset], patch, fingerprint))
        numbers[subset] += 1
    return tasks


def _convert_all(
    tasks: Sequence[_Task], source: Path, output: Path, options: PatchOptions
) -> tuple[list[_Converted], list[Quarantined]]:
    """Converted patches in the order of the tasks; what an earlier run has finished is taken from its journal."""
    done: dict[str, _Converted] = {}
    lost: list[Quarantined] = []
    with Journal(output / JOURNAL, [mammodet.__version__, options.size, str(source)]) as journal:
        for task in tasks:
            entry = journal.get(task.target, task.fingerprint)
            if entry is not None and (output / task.target).is_file():
                done[task.target] = _Converted(task, *entry)
        waiting = [(task, output, options.size) for task in tasks if task.target not in done]
        if waiting:
            # Until the new tables are written: images change under the old ones.
            remove_tables(output)
        for result in in_parallel(
            _convert_patch, waiting, jobs=options.jobs, name="ddsm_patches", progress=options.progress
        ):
            if isinstance(result, Quarantined):
                lost.append(result)
                continue
            journal.put(result.task.target, result.task.fingerprint, [result.label, result.pixel_hash])
            done[result.task.target] = result
    for left in (output / "images").glob("*/.*.tmp.png"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    return [done[task.target] for task in tasks if task.target in done], lost


def _convert_patch(task: _Task, output: Path, size: int) -> _Converted | Quarantined:
    try:
        pixels, label = read_patch(task.patch, size)
    except InputError as error:
        return Quarantined("image", task.patch.name, str(error), str(task.patch.path))
    write_png(output / task.target, pixels)
    return _Converted(task, label, hashlib.sha256(pixels.tobytes()).hexdigest())


def _name(source: Path) -> str:
    return "phantom" if is_synthetic([source]) else NAME


def _records(converted: Sequence[_Converted], name: str, size: int) -> list[ImageRecord]:
    """A record for each patch; patches of one subset with equal pixels share a patient, so that no fold parts them."""
    prefix = "phantom_patch" if name == "phantom" else "ddsm_patch"
    owners: dict[tuple[str, str], int] = {}
    records: list[ImageRecord] = []
    for image_id, item in enumerate(converted, start=1):
        subset = item.task.subset
        owner = owners.setdefault((subset, item.pixel_hash), item.task.number)
        tumor, malignant = int(item.label > 0), int(item.label in _MALIGNANT)
        records.append(
            ImageRecord(
                image_id=image_id,
                file_name=item.task.target,
                size_hw=(size, size),
                patient_id=f"{prefix}_{subset}_{owner:06d}",
                labels={"tumor": tumor, "malignant": malignant},
                class_name=CLASSES[item.label],
                source=name,
                breast_box_xyxy=(0.0, 0.0, float(size), float(size)),
                unlocalized=tumor == 1,
            )
        )
    return records


def _labels(converted: Sequence[_Converted]) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for item in converted:
        labels.setdefault(item.task.subset, []).append(item.label)
    return labels


def _count(summary: Summary, archive: Archive, tasks: Sequence[_Task], converted: Sequence[_Converted]) -> None:
    summary.counts["files"] = {
        "training": len(archive.records),
        "validation": int("val" in archive.arrays),
        "test": int("test" in archive.arrays),
    }
    summary.counts["patches"] = {
        "found": len(tasks),
        "converted": len(converted),
        "quarantined": len(tasks) - len(converted),
    }
    for subset, labels in _labels(converted).items():
        summary.counts[f"class in {subset}"] = class_counts(labels)


def _check_copies(summary: Summary, converted: Sequence[_Converted]) -> None:
    """Count patches with equal pixels: within a subset, and between two."""
    places: dict[str, list[_Converted]] = {}
    for item in converted:
        places.setdefault(item.pixel_hash, []).append(item)
    groups = [group for group in places.values() if len(group) > 1]
    counts: Counter[str] = Counter()
    crossing: list[str] = []
    for group in groups:
        by_subset = Counter(item.task.subset for item in group)
        for subset, count in by_subset.items():
            counts[f"more in {subset}"] += count - 1
        subsets = sorted(by_subset, key=SUBSETS.index)
        if len(subsets) > 1:
            counts[" and ".join(subsets)] += 1
            crossing.append(" = ".join(f"{item.task.subset}/{item.task.number:06d}" for item in group[:3]))
    summary.checks["identical patches"] = {name: count for name, count in sorted(counts.items()) if count} or "none"
    if crossing:
        summary.warnings.append(
            f"{len(crossing)} patches lie with equal pixels on several sides of the split: {', '.join(crossing[:5])}"
            f"{' ...' if len(crossing) > 5 else ''}; they count as what they are: known to the model"
        )
    torn = [group for group in groups if len({item.label for item in group}) > 1]
    if torn:
        names = [" = ".join(f"{item.task.target} ({CLASSES[item.label]})" for item in group[:2]) for group in torn[:3]]
        summary.warnings.append(f"{len(torn)} patches with equal pixels have different classes: {', '.join(names)}")


def _warn(summary: Summary, archive: Archive, converted: Sequence[_Converted], options: PatchOptions) -> None:
    warn = summary.warnings.append
    warn(
        "PATIENTS ARE NOT KNOWN: every patch counts as a patient of its own. Crops of one lesion, and patches of one "
        "woman, can lie on both sides of a split: figures on this set are not patient-clean, and its intervals are too "
        "narrow"
    )
    if archive.missing:
        warn(f"files of the archive that are not there: {', '.join(archive.missing)}")
    labels = _labels(converted)
    if options.split == "combined":
        warn("validation is a part of the training patches (--split combined): crops of its lesions are trained on")
    elif {"val", "test"} <= labels.keys():
        _warn_of_classes(summary, labels)
    if options.splits.folds:
        warn("folds divide training and validation patches: crops of one lesion lie in several folds")


def _warn_of_classes(summary: Summary, labels: Mapping[str, Sequence[int]]) -> None:
    lacks: dict[str, Any] = {
        subset: [name for number, name in enumerate(CLASSES) if number not in set(labels[subset])]
        for subset in ("val", "test")
    }
    if lacks["val"] or lacks["test"]:
        told = "; ".join(f"{subset} holds no {', no '.join(names)}" for subset, names in lacks.items() if names)
        summary.warnings.append(
            f"{told}: a model chosen on val is not chosen for what test asks, and test does not ask everything. The "
            "archive's author says to combine them (--split combined)"
        )
