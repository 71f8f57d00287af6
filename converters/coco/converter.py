"""COCO files that others made, with what file names and tables say of their images (docs/coco.md).

Three steps: the COCO files are read and every image is met with its rows, before a pixel is touched, so that what does
not fit is told at once; each image is checked and copied; patients are divided. What goes in is what comes out plus
what stands in quarantine, for images and for annotations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mammodet.converters.base import Quarantined, Summary, check_folders, note_stretched, split_records, write_outputs
from mammodet.converters.coco.boxes import Categories, HowToRead, check_units, crowd_means, plan_categories
from mammodet.converters.coco.finder import Found, ImageFinder
from mammodet.converters.coco.image import HowToConvert, ImageTask, convert_image, set_aside
from mammodet.converters.coco.join import Joined, check_rule, join_images
from mammodet.converters.coco.official import check_official
from mammodet.converters.coco.options import CROWD, PRESETS, UNITS, CocoOptions
from mammodet.converters.coco.source import CocoFile, SourceImage, find_coco_files
from mammodet.converters.coco.summary import MOST_NAMES, count, warn_of

from mammodet.data.splits import check_shares
from mammodet.errors import InputError, raise_faults
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, ImageRecord


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of one COCO file (`number`: which)."""

    number: int
    file: CocoFile
    image: SourceImage


def convert(source: Path, output: Path, options: CocoOptions) -> Summary:
    """Convert COCO files and their images.

    Raises:
        InputError: no COCO file there, images that do not meet their tables, patients in two subsets, nothing that can
            be converted, or options that cannot be met.
    """
    _check_options(options)
    check_folders(source, output)
    if (output / "images").resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output / 'images'}: leads into the archive {source}; choose another --output")
    files = find_coco_files(source, options.annotations)
    categories = plan_categories(files, options.categories)
    entries = [_Entry(number, file, image) for number, file in enumerate(files) for image in file.images]
    if not entries:
        raise InputError(f"{source}: {', '.join(file.label for file in files)}: no image listed")
    check_units(files, options.boxes)
    found, quarantine = _find_images(source, entries)
    paths = {position: file.path for position, file in found.items()}
    entries = [
        replace(entry, image=replace(entry.image, name=found[position].name)) if position in found else entry
        for position, entry in enumerate(entries)
    ]
    joined = join_images(options.join, [(entry.file.label, entry.image) for entry in entries])
    kind = _split_kind(files, options)
    given, leaking = _given(entries, joined, options) if kind == "given" else (None, {})

    read = [HowToRead(crowd_means(file, options.crowd), options.boxes, options.clip_boxes) for file in files]
    tasks = _tasks(entries, paths, joined, categories, read)
    unmatched = {(item.file, item.name): item.reason for item in joined.quarantine}
    for position, entry in enumerate(entries):
        reason = unmatched.get((entry.file.label, entry.image.name))
        if reason is not None and position in paths:
            quarantine.extend(set_aside(entry.image, entry.file.label, reason))
    orphans = sum(len(file.quarantine) for file in files)
    name = options.name or source.resolve().name
    how = HowToConvert(output, name, options.images, options.without_boxes, has_orphans=orphans > 0)
    results = list(
        in_parallel(
            convert_image, [(task, how) for task in tasks], jobs=options.jobs, name="coco", progress=options.progress
        )
    )
    records = [result.record for result in results if result.record is not None]
    for file in files:
        quarantine.extend(file.quarantine)
    quarantine.extend(item for result in results for item in result.quarantine)
    if not records:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in quarantine if item.what == "image")
        raise InputError(f"{source}: no image could be converted ({reasons[:600]})")

    summary = Summary(how.source_name, str(source), str(output), quarantine=quarantine)
    if options.preset:
        records = note_stretched(records)
    count(summary, files, categories, joined, tasks, results)
    warn_of(summary, files, joined, records, tasks, results, options, kind)
    if given is not None and leaking:
        moved = ", ".join(f"{patient} (to {given[patient]})" for patient in leaking)
        summary.warnings.append(
            f"{len(leaking)} patients stood in two subsets and were moved to one: {moved}; figures do not compare with "
            "those of the given test set"
        )
    if options.preset:
        sides = [(entry.file.subset, facts) for entry, facts in zip(entries, joined.facts, strict=True) if facts]
        check_official(summary, sides, joined)
    _split_and_write(output, categories, records, given, summary, options)
    return summary


def _check_options(options: CocoOptions) -> None:
    chosen = options.splits
    for name, value, allowed in (
        ("split", options.split, (None, "given", "holdout")),
        ("resolve-leaks", options.resolve_leaks, (None, "train", "test")),
        ("images", options.images, ("copy", "link")),
        ("without-boxes", options.without_boxes, ("unknown", "normal")),
        ("preset", options.preset, (None, *PRESETS)),
        ("crowd", options.crowd, CROWD),
        ("boxes", options.boxes, UNITS),
    ):
        if value not in allowed:
            raise InputError(f"--{name} {value}: expected one of {', '.join(str(choice) for choice in allowed)}")
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected at least 1")
    if not 0 <= options.clip_boxes < math.inf:
        raise InputError(f"--clip-boxes {options.clip_boxes}: expected a number of pixels from 0")
    test_fraction = 0.0 if options.split == "given" else chosen.test_fraction
    check_shares(test_fraction=test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)
    check_rule(options.join)


def _find_images(source: Path, entries: Sequence[_Entry]) -> tuple[dict[int, Found], list[Quarantined]]:
    """Position of an entry to its file; what has none, or shares one that its name does not say, is quarantined.

    Raises:
        InputError: two COCO files list the same image file.
    """
    finder = ImageFinder(source)
    paths: dict[int, Found] = {}
    quarantine: list[Quarantined] = []
    owners: dict[Path, _Entry] = {}
    meant: Counter[Path] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    for position, entry in enumerate(entries):
        try:
            paths[position] = finder.find(entry.file.path.parent, entry.image.name)
            meant[paths[position].path.resolve()] += 1
        except LookupError as error:
            quarantine.extend(set_aside(entry.image, entry.file.label, str(error.args[0])))
    for position, found in list(paths.items()):
        entry, path = entries[position], found.path.resolve()
        if meant[path] > 1 and not found.exact:
            del paths[position]
            reason = f"its path is not here, and {meant[path]} entries could mean {found.name}; name the folder"
            quarantine.extend(set_aside(entry.image, entry.file.label, reason))
            continue
        first = owners.setdefault(path, entry)
        if first is not entry:
            pair = first.file.label, entry.file.label
            shared[pair] += 1
            if shared[pair] <= MOST_NAMES:
                faults.append(f"{entry.file.label}: {entry.image.name} is the same file as {first.file.label} has")
    faults += [
        f"{second}: {count - MOST_NAMES} more files that {first} has"
        for (first, second), count in shared.items()
        if count > MOST_NAMES
    ]
    advice = "Say which COCO files are meant: --annotations train=a.json test=b.json"
    raise_faults(faults, where=str(source), advice=advice)
    return paths, quarantine


def _split_kind(files: Sequence[CocoFile], options: CocoOptions) -> str:
    untold = [file.label for file in files if file.subset is None and file.images]
    if options.split == "given" and untold:
        raise InputError(
            f"--split given: neither file nor folder tells the subset of {', '.join(untold)}; say it by --annotations "
            "train=a.json test=b.json, or divide anew with --split holdout"
        )
    return options.split or ("holdout" if untold else "given")


def _given(
    entries: Sequence[_Entry], joined: Joined, options: CocoOptions
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Patient to the subset of its images, and to all of them where there are several.

    Raises:
        InputError: patients in two subsets, and nobody said where they are to go.
    """
    subsets: dict[str, set[str]] = {}
    for entry, facts in zip(entries, joined.facts, strict=True):
        if facts is not None:
            subsets.setdefault(facts.patient_id, set()).add(str(entry.file.subset))
    leaking = {
        patient: sorted(found, key=SUBSETS.index) for patient, found in sorted(subsets.items()) if len(found) > 1
    }
    if leaking and options.resolve_leaks is None:
        raise InputError(
            f"{len(leaking)} patients stand in two subsets: "
            + ", ".join(f"{patient} ({' and '.join(found)})" for patient, found in leaking.items())
            + ". Move them to one (--resolve-leaks test, or train), or divide anew (--split holdout)"
        )
    choose = min if options.resolve_leaks == "train" else max
    return {patient: choose(found, key=SUBSETS.index) for patient, found in subsets.items()}, leaking


def _tasks(
    entries: Sequence[_Entry],
    paths: Mapping[int, Path],
    joined: Joined,
    categories: Categories,
    read: Sequence[HowToRead],
) -> list[ImageTask]:
    """One for each image that has a file and facts, numbered in the order of their new names."""
    ready = [
        (entry, paths[position], facts)
        for position, (entry, facts) in enumerate(zip(entries, joined.facts, strict=True))
        if facts is not None and position in paths
    ]
    targets = _targets([entry for entry, _, _ in ready])
    order = sorted(range(len(ready)), key=lambda position: targets[position])
    return [
        ImageTask(
            image_id=number,
            image=ready[position][0].image,
            path=ready[position][1],
            target=targets[position],
            label=ready[position][0].file.label,
            subset=ready[position][0].file.subset,
            facts=ready[position][2],
            categories=categories.by_file[ready[position][0].number],
            read=read[ready[position][0].number],
        )
        for number, position in enumerate(order, start=1)
    ]


def _targets(entries: Sequence[_Entry]) -> list[str]:
    """File names in the data set; one that two COCO files have gets a folder of its file's.

    Compared without case, since some disks know none.
    """
    names = [str(PurePosixPath(entry.image.name)) for entry in entries]
    names = [name.removeprefix("images/") for name in names]
    owners: dict[str, set[int]] = {}
    for entry, name in zip(entries, names, strict=True):
        owners.setdefault(name.casefold(), set()).add(entry.number)
    # Two files of one subset: the folder is the subset's name with a number.
    folders: dict[int, str] = {}
    for entry in entries:
        if entry.number not in folders:
            folder = entry.file.subset or "other"
            taken = sum(name == folder or name.startswith(f"{folder}_") for name in folders.values())
            folders[entry.number] = f"{folder}_{taken + 1}" if taken else folder
    targets = [
        f"images/{folders[entry.number]}/{name}" if len(owners[name.casefold()]) > 1 else f"images/{name}"
        for entry, name in zip(entries, names, strict=True)
    ]
    twice = [name for name, count in Counter(target.casefold() for target in targets).items() if count > 1]
    advice = "Rename one of each: names that differ in case alone, or in images/ before them, meet in one file."
    raise_faults(twice, where="file names in the data set", advice=advice)
    return targets


def _split_and_write(
    output: Path,
    categories: Categories,
    records: Sequence[ImageRecord],
    given: Mapping[str, str] | None,
    summary: Summary,
    options: CocoOptions,
) -> None:
    splits = split_records(records, options.splits, given)
    if given is not None and "test" not in splits.holdout.values():
        summary.warnings.append("no file is told to be the test set: there is none (--split holdout makes one)")
    write_outputs(output, categories.names, records, splits, summary)
