"""DDSM patches of 299x299 pixels: tiles of normal films (DDSM) and crops around lesions (CBIS-DDSM), in five classes.

What a reader of any figure on this archive has to know, and what this converter therefore says on every run:
- Nothing tells whose breast a patch shows. Every patch (with its exact copies) counts as a patient of its own.
- Each lesion was cropped three times at random, with flips and rotations: patches of one lesion are many.
- As given, validation holds calcifications only and test masses only (`--split given`).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from mammodet.converters.base import Summary
from mammodet.converters.ddsm_patches.archive import CLASSES, Archive, Patch, open_archive, patches_of, read_patch
from mammodet.converters.journal import files_fingerprint
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Made, Resumable, refused
from mammodet.data.images import write_png
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.records import SUBSETS, ImageRecord

_MALIGNANT = (3, 4)


class PatchOptions(Options):
    """What is converted, and how."""

    size: int = flag(299, "side of the patches; others are quarantined", metavar="PX", ge=1)
    split: Literal["given", "combined"] = flag(
        "combined",
        "'given': cv10 is validation (calcifications only), test10 is test (masses only); 'combined': both are "
        "test, and validation comes from the training patches by --val-fraction",
    )

    @property
    def divides_test(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class _Task:
    """One patch to convert; `target`: its file name in the data set, `number`: within its subset."""

    subset: str
    number: int
    patch: Patch
    fingerprint: str
    source_name: str

    @property
    def target(self) -> str:
        return f"images/{self.subset}/{self.number:06d}.png"


class _Facts(TypedDict):
    """Of a converted patch; `pixel_hash`: SHA-256 of its pixels."""

    label: int
    pixel_hash: str


class DdsmPatches(Resumable[PatchOptions, _Task]):
    """The archive."""

    NAME = "DDSM patches"
    options_type = PatchOptions
    has_lesions = False
    knows_patients = False

    def find(self) -> None:
        self.archive = open_archive(self.source)
        self.quarantine += self.archive.quarantine

    def rows(self) -> list[_Task]:
        archive = self.archive
        numbers: Counter[str] = Counter()
        facts: dict[Path, list[Any]] = {path: files_fingerprint([path]) for path in archive.records}
        for array in archive.arrays.values():
            facts[array.path] = [*files_fingerprint([array.path]), canonical_hash(array.labels.tolist())]
        prints = {path: canonical_hash(value) for path, value in facts.items()}
        name = "phantom" if self.phantom else self.NAME
        self.summary.archive = f"{name} (patients not known)"
        self.tasks: list[_Task] = []
        for subset, patch in patches_of(archive):
            fingerprint = f"{prints[patch.path]} {patch.number} {patch.offset}"
            self.tasks.append(_Task(subset, numbers[subset], patch, fingerprint, name))
            numbers[subset] += 1
        return self.tasks

    def key(self, row: _Task) -> str:
        return row.target

    def fingerprint(self, row: _Task) -> str:
        return row.fingerprint

    def settings(self) -> int:
        return self.options.size

    @staticmethod
    def convert_one(row: _Task, how: tuple[Path, PatchOptions]) -> Made:
        output, options = how
        try:
            pixels, label = read_patch(row.patch, options.size)
        except InputError as error:
            return refused("image", row.patch.name, error, row.patch.path)
        write_png(output / row.target, pixels)
        side = float(options.size)
        record = ImageRecord(
            image_id=3 * row.number + SUBSETS.index(row.subset),  # `complete` numbers those that are left
            file_name=row.target,
            size_hw=(options.size, options.size),
            labels={"tumor": int(label > 0), "malignant": int(label in _MALIGNANT)},
            class_name=CLASSES[label],
            source=row.source_name,
            breast_box_xyxy=(0.0, 0.0, side, side),
            unlocalized=label > 0,
        )
        return Made(record, facts=_Facts(label=label, pixel_hash=hashlib.sha256(pixels.tobytes()).hexdigest()))

    def complete(self, done: Sequence[tuple[_Task, Made]]) -> list[ImageRecord]:
        """Patches of one subset with equal pixels share a patient, so that no fold parts them."""
        prefix = "phantom_patch" if self.phantom else "ddsm_patch"
        owners: dict[tuple[str, str], int] = {}
        records: list[ImageRecord] = []
        self.sides: dict[str, str] = {}
        for number, (row, made) in enumerate(done, start=1):
            owner = owners.setdefault((row.subset, made.facts["pixel_hash"]), row.number)
            patient = f"{prefix}_{row.subset}_{owner:06d}"
            combined = self.options.split == "combined" and row.subset == "val"
            self.sides[patient] = "test" if combined else row.subset
            if made.record is not None:
                records.append(replace(made.record, image_id=number, patient_id=patient))
        return records

    def given(self) -> dict[str, str]:
        return self.sides

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[_Task, Made]]) -> None:
        converted = [(row, cast(_Facts, made.facts)) for row, made in done]
        _count(self.summary, self.archive, self.tasks, converted)
        _check_copies(self.summary, converted)
        _warn(self.summary, self.archive, converted, self.options)


convert = DdsmPatches.convert
ARCHIVE = DdsmPatches
_Converted = tuple[_Task, _Facts]


def _labels(converted: Sequence[_Converted]) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for row, facts in converted:
        labels.setdefault(row.subset, []).append(facts["label"])
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
        found = Counter(labels)
        summary.counts[f"class in {subset}"] = {name: found[k] for k, name in enumerate(CLASSES) if found[k]}


def _check_copies(summary: Summary, converted: Sequence[_Converted]) -> None:
    """Count patches with equal pixels: within a subset, and between two."""
    places: dict[str, list[_Converted]] = {}
    for item in converted:
        places.setdefault(item[1]["pixel_hash"], []).append(item)
    groups = [group for group in places.values() if len(group) > 1]
    counts: Counter[str] = Counter()
    crossing: list[str] = []
    for group in groups:
        by_subset = Counter(row.subset for row, _ in group)
        for subset, count in by_subset.items():
            counts[f"more in {subset}"] += count - 1
        subsets = sorted(by_subset, key=SUBSETS.index)
        if len(subsets) > 1:
            counts[" and ".join(subsets)] += 1
            crossing.append(" = ".join(f"{row.subset}/{row.number:06d}" for row, _ in group[:3]))
    summary.checks["identical patches"] = {name: count for name, count in sorted(counts.items()) if count} or "none"
    if crossing:
        summary.warnings.append(
            f"{len(crossing)} patches lie with equal pixels on several sides of the split: {', '.join(crossing[:5])}"
            f"{' ...' if len(crossing) > 5 else ''}; they count as what they are: known to the model"
        )
    torn = [group for group in groups if len({facts["label"] for _, facts in group}) > 1]
    if torn:
        names = [
            " = ".join(f"{row.target} ({CLASSES[facts['label']]})" for row, facts in group[:2]) for group in torn[:3]
        ]
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
