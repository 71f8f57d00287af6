"""A tree of folders whose names are classes, made a data set: labels from the names, patients from the paths.

Everything that can be told from names and bytes is told before a pixel is decoded: which folder is the class, what it
means, whose image it is, and what lies on both sides of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.converters.base import Quarantined, Summary, check_folders, link_file, write_outputs
from mammodet.converters.folder.classes import Classes, plan_classes
from mammodet.converters.folder.duplicates import Cleaned, Entry, clean, given_subsets
from mammodet.converters.folder.options import NUMBERS, FolderOptions
from mammodet.converters.folder.patients import Copies, compile_patient, guess_persons, read_persons
from mammodet.converters.folder.tree import Tree, class_folder, read_tree, told_subsets

from mammodet.data.breast import find_breast
from mammodet.data.images import read_image
from mammodet.data.splits import Splits, check_shares, make_splits
from mammodet.errors import InputError, raise_faults
from mammodet.files import write_bytes
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, ImageRecord
from mammodet.synthetic import is_synthetic

_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known before pixels are read."""

    entries: list[Entry]
    quarantine: list[Quarantined]
    given: dict[str, str] | None
    leaking: dict[str, list[str]]
    copies: Copies | None
    cleaned: Cleaned
    skipped: int


@dataclass(frozen=True, slots=True)
class _How:
    """What every image needs: `name` of the data set, `prefix` of its patients."""

    name: str
    prefix: str
    output: Path
    classes: Classes
    options: FolderOptions


def convert(source: Path, output: Path, options: FolderOptions) -> Summary:
    """Convert a tree of folders.

    Raises:
        InputError: no classes, classes or patients that cannot be told, what lies on two sides of a given split,
            nothing that can be converted, or options that cannot be met.
    """
    _check_options(options)
    check_folders(source, output)
    if (output / "images").resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output / 'images'}: leads into the archive {source}; choose another --output")
    tree = read_tree(source)
    classes = plan_classes(source, tree, options)
    plan = _plan(tree, classes, options)
    phantom = is_synthetic([source])
    name = "phantom" if phantom else options.name or source.resolve().name
    how = _How(name, "phantom_" if phantom else "", output, classes, options)
    tasks = [(number, entry, how) for number, entry in enumerate(plan.entries, start=1)]
    quarantine = list(plan.quarantine)
    records: list[ImageRecord] = []
    for result in in_parallel(_convert_image, tasks, jobs=options.jobs, name="folder", progress=options.progress):
        if isinstance(result, Quarantined):
            quarantine.append(result)
        else:
            records.append(result)
    if not records:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in quarantine[:3])
        raise InputError(f"{source}: no image could be converted ({reasons})")

    summary = Summary(name, str(source), str(output), quarantine=quarantine)
    given = None if plan.given is None else {how.prefix + patient: side for patient, side in plan.given.items()}
    splits = _split(records, options, given)
    _count(summary, tree, classes, plan, records)
    _warn(summary, tree, classes, plan, records, options)
    if plan.given is not None and "test" not in splits.holdout.values():
        summary.warnings.append("no folder is named test: there is no test set (--split holdout makes one)")
    write_outputs(
        output, ("lesion",), records, splits, summary, has_lesions=False, knows_patients=options.patient is not None
    )
    return summary


def _check_options(options: FolderOptions) -> None:
    for name, value, allowed in (
        ("split", options.split, (None, "given", "holdout")),
        ("resolve-leaks", options.resolve_leaks, (None, "train", "test")),
        ("images", options.images, ("copy", "link")),
        ("crop", options.crop, ("breast", "whole")),
        ("numbers", options.numbers, (None, *NUMBERS)),
    ):
        if value not in allowed:
            raise InputError(f"--{name} {value}: expected one of {', '.join(str(choice) for choice in allowed)}")
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected at least 1")
    chosen = options.splits
    test_fraction = 0.0 if options.split == "given" else chosen.test_fraction
    check_shares(test_fraction=test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)


def _plan(tree: Tree, classes: Classes, options: FolderOptions) -> _Plan:
    quarantine = list(tree.quarantine)
    images, skipped = [], 0
    for image in tree.images:
        folder = class_folder(image.folders, classes.level)
        if folder is None:
            quarantine.append(Quarantined("image", image.relative, "lies in no class folder", str(image.path)))
        elif classes.of(folder) is None:
            skipped += 1
        else:
            images.append(image)
    given = told_subsets(images, options.split)
    copies: Copies | None = None
    if options.patient is None:
        persons, copies = guess_persons(images)
    else:
        persons = read_persons(images, compile_patient(options.patient))
    entries = [Entry(image, classes.name(image.folders), person) for image, person in zip(images, persons, strict=True)]
    _refuse_equal_names(entries)
    cleaned = clean(
        entries, given=given, resolve_leaks=options.resolve_leaks, jobs=options.jobs, progress=options.progress
    )
    quarantine += cleaned.quarantine
    subsets: dict[str, str] | None = None
    leaking: dict[str, list[str]] = {}
    if given:
        subsets, leaking = given_subsets(cleaned.entries, options.resolve_leaks, guessed=options.patient is None)
    return _Plan(cleaned.entries, quarantine, subsets, leaking, copies, cleaned, skipped)


def _refuse_equal_names(entries: Sequence[Entry]) -> None:
    """Compared without case, since some disks know none."""
    names = Counter(entry.image.relative.casefold() for entry in entries)
    twice = [name for name, count in names.items() if count > 1]
    raise_faults(twice, where="file names that differ in case alone", advice="Rename one of each.")


def _convert_image(number: int, entry: Entry, how: _How) -> ImageRecord | Quarantined:
    """Read an image, copy it or link to it, and make its record."""
    image, person = entry.image, entry.person
    try:
        pixels = read_image(image.path)
    except InputError as error:
        return Quarantined("image", image.relative, str(error), str(image.path))
    height, width = pixels.shape
    target = f"images/{image.relative}"
    if how.options.images == "link":
        link_file(how.output / target, image.path)
    else:
        write_bytes(how.output / target, image.path.read_bytes())
    meaning = how.classes.meanings[entry.class_name]
    whole = (0.0, 0.0, float(width), float(height))
    return ImageRecord(
        image_id=number,
        file_name=target,
        size_hw=(height, width),
        patient_id=how.prefix + person.patient,
        laterality=person.laterality,
        view=person.view,
        density=meaning.density,
        birads=meaning.birads,
        labels={"tumor": meaning.tumor, "malignant": meaning.malignant},
        class_name=entry.class_name,
        source=how.name,
        breast_box_xyxy=whole if how.options.crop == "whole" else find_breast(pixels).box_xyxy,
        unlocalized=meaning.tumor == 1,
    )


def _split(records: Sequence[ImageRecord], options: FolderOptions, given: Mapping[str, str] | None) -> Splits:
    """Divide the patients, stratified by the classes that each has."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(str(record.patient_id), set()).add(str(record.class_name))
    chosen = options.splits
    return make_splits(
        {patient: " + ".join(sorted(names)) for patient, names in found.items()},
        test_fraction=chosen.test_fraction,
        val_fraction=chosen.val_fraction,
        folds=chosen.folds,
        seed=chosen.seed,
        given={patient: given[patient] for patient in found} if given is not None else None,
    )


def _count(summary: Summary, tree: Tree, classes: Classes, plan: _Plan, records: Sequence[ImageRecord]) -> None:
    aside = sum(item.what == "image" for item in summary.quarantine)
    found = len(tree.images) + len(tree.quarantine)
    summary.counts["images"] = {"found": found, "converted": len(records), "quarantined": aside}
    if plan.skipped:
        summary.counts["images"]["skipped"] = plan.skipped
    if found != len(records) + aside + plan.skipped:
        raise AssertionError("images do not add up: more or fewer come out than go in")
    if tree.others:
        summary.counts["other files"] = dict(sorted(tree.others.items()))
    summary.counts["class"] = dict(sorted(Counter(str(record.class_name) for record in records).items()))
    for name, meaning in sorted(classes.meanings.items()):
        how = "as told" if name in classes.told else "by its name"
        summary.counts[f"  {name}"] = f"{meaning} ({how})" if str(meaning) != "nothing" else "no labels: a class only"
    for label in ("tumor", "malignant"):
        words = Counter({1: "yes", 0: "no", None: "not known"}[record.label(label)] for record in records)
        summary.counts[label] = dict(sorted(words.items(), reverse=True))
    if plan.given is not None:
        told = Counter(entry.image.subset for entry in plan.entries)
        summary.counts["images as told"] = {subset: told[subset] for subset in SUBSETS if told[subset]}
    summary.counts["patients"] = len({record.patient_id for record in records})
    if plan.copies is not None:
        groups = plan.copies.groups
        summary.counts["copies by name"] = {"groups": len(groups), "images": sum(len(names) for _, names in groups)}


def _warn(
    summary: Summary,
    tree: Tree,
    classes: Classes,
    plan: _Plan,
    records: Sequence[ImageRecord],
    options: FolderOptions,
) -> None:
    warn = summary.warnings.append
    if plan.copies is not None:
        _warn_of_patients(summary, plan.copies)
    summary.warnings += classes.warnings
    if plan.cleaned.torn:
        warn(f"{len(plan.cleaned.torn)} files lie in two classes: {_groups(plan.cleaned.torn)}; one label is wrong")
    if plan.cleaned.told_apart and options.patient is not None:
        warn(
            f"{len(plan.cleaned.told_apart)} files are given to several patients, who were taken for one: "
            f"{_groups(plan.cleaned.told_apart)}"
        )
    if plan.leaking and plan.given is not None:
        moved = ", ".join(f"{patient} (to {plan.given[patient]})" for patient in list(plan.leaking)[:_MOST_NAMES])
        warn(
            f"{len(plan.leaking)} patients stood in two subsets and were moved to one: {moved}; figures do not compare"
        )
    if plan.given is None and any(image.subset for image in tree.images):
        warn("folders named train, val or test were pooled and divided anew (--split holdout)")
    if plan.given is not None:
        by_subset = {
            subset: {entry.class_name for entry in plan.entries if entry.image.subset == subset} for subset in SUBSETS
        }
        for subset, present in by_subset.items():
            if present and (lacking := sorted(classes.meanings.keys() - present)):
                warn(f"{subset} has no image of the class {', '.join(lacking)}")
    if all(value is None for record in records for value in record.labels.values()):
        warn("no label is known: only the target 'class' can be learnt (--class says what a folder means)")


def _warn_of_patients(summary: Summary, copies: Copies) -> None:
    text = (
        "PATIENTS ARE NOT KNOWN (no --patient): every image counts as a patient of its own. Other views of one woman, "
        "and copies that names do not show, may lie on both sides of the split: figures are not patient-clean"
    )
    if copies.groups:
        largest = max(copies.groups, key=lambda group: len(group[1]))
        text += (
            f". {len(copies.groups)} groups of copies were told by their names and stay together, the largest "
            f"{largest[0]!r}: {_listed(largest[1])}"
        )
    summary.warnings.append(text)
    if copies.numbered:
        names = _listed([f"{name} {count} times" for name, count in copies.numbered.items()])
        summary.warnings.append(
            f"numbers in brackets were taken for a plain count, not for copies: {names}; if they are copies, say whose "
            "by --patient"
        )


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return _listed([" = ".join(names) for names in groups])


def _listed(names: Sequence[str]) -> str:
    more = f" ... (in all {len(names)})" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
