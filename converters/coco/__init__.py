"""COCO files that others made, with what file names and tables say of their images (docs/coco.md).

Three steps: the COCO files are read and every image is met with its rows, before a pixel is touched, so that what does
not fit is listed at once; each image is checked and copied; patients are divided. What goes in is what comes out plus
what is in quarantine, for images and for annotations.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mammodet.converters.base import Quarantined, Reason, note_stretched, settle_sides
from mammodet.converters.coco.boxes import Categories, HowToRead, check_units, crowd_means, plan_categories
from mammodet.converters.coco.finder import Found, ImageFinder
from mammodet.converters.coco.image import HowToConvert, ImageTask, convert_image, set_aside
from mammodet.converters.coco.join import Joined, check_rule, join_images
from mammodet.converters.coco.official import PRESETS, check_official
from mammodet.converters.coco.options import CocoOptions, LabelledOptions
from mammodet.converters.coco.source import CocoFile, SourceImage, find_coco_files
from mammodet.converters.coco.summary import MOST_NAMES, count, warn_of, warn_of_crowd
from mammodet.converters.skeleton import Converter, Made
from mammodet.data.splits import Splits
from mammodet.errors import InputError, raise_faults
from mammodet.records import ImageRecord


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of one COCO file (`number`: which)."""

    number: int
    file: CocoFile
    image: SourceImage


LabelledT = TypeVar("LabelledT", bound=LabelledOptions)


class Labelled(Converter[LabelledT, ImageTask]):
    """Annotations that others made, in any format: `read_files` brings them as COCO would have them.

    Attributes:
        adds_images: there are images that no annotation lists.
    """

    adds_images = False

    @abstractmethod
    def read_files(self) -> list[CocoFile]:
        """The annotations of the source. Raises InputError: there are none, or a file of them is none."""

    def how_to_read(self, file: CocoFile) -> HowToRead:
        """What the numbers of a file mean."""
        return HowToRead(boxes=file.boxes, clip_px=self.options.clip_boxes, sizes_told=file.sizes_told)

    def find(self) -> None:
        options = self.options
        check_rule(options.rule)
        self.files = self.read_files()
        self.plan = plan_categories(self.files, options.categories)
        self.categories = self.plan.names
        self.entries = [_Entry(number, file, image) for number, file in enumerate(self.files) for image in file.images]
        if not self.entries:
            raise InputError(f"{self.source}: {', '.join(file.label for file in self.files)}: no image listed")
        check_units(self.files, are_corners_possible=self.options_type is CocoOptions)
        self.summary.archive = options.name or self.source.resolve().name

    def synthetic_folders(self) -> set[Path]:
        return set()

    def rows(self) -> list[ImageTask]:
        options, files = self.options, self.files
        found, quarantine = _find_images(self.source, self.entries)
        # An image is not normal if lesions were left out with an entry that may be its own.
        kinds = {item.kind for item in quarantine if item.what == "image"}
        doubtful = Reason.DUPLICATE in kinds or (Reason.NO_FILE in kinds and self.adds_images)
        self.has_orphans = doubtful or any(file.quarantine for file in self.files)
        paths = {position: file.path for position, file in found.items()}
        entries = self.entries = [
            replace(entry, image=replace(entry.image, name=found[position].name)) if position in found else entry
            for position, entry in enumerate(self.entries)
        ]
        joined = self.joined = join_images(options.rule, [(entry.file.label, entry.image) for entry in entries])
        self.kind = _split_kind(files, options)
        self.sides: Mapping[str, str] | None = None
        self.leaking: Mapping[str, Sequence[str]] = {}
        if self.kind == "given":
            self.sides, self.leaking = _given(entries, joined, options)
        tasks = _tasks(entries, paths, joined, self.plan, [self.how_to_read(file) for file in files])
        unmatched = {(item.file, item.name): item for item in joined.quarantine}
        for position, entry in enumerate(entries):
            lost = unmatched.get((entry.file.label, entry.image.name))
            if lost is not None and position in paths:
                quarantine.extend(set_aside(entry.image, entry.file.label, lost.kind, lost.reason))
        self.quarantine += [*quarantine, *(item for file in files for item in file.quarantine)]
        return tasks

    def how(self) -> HowToConvert:
        options = self.options
        return HowToConvert(
            self.output, self.summary.archive, options.images, options.without_boxes, has_orphans=self.has_orphans
        )

    @staticmethod
    def convert_one(row: ImageTask, how: HowToConvert) -> Made:
        return convert_image(row, how)

    def given(self) -> Mapping[str, str] | None:
        return self.sides

    def split(self, records: Sequence[ImageRecord]) -> Splits:
        splits = super().split(records)
        if self.sides is not None and "test" not in splits.holdout.values():
            self.warnings.append("there is no test set, since no file is named as one (--split holdout makes one)")
        return splits

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[ImageTask, Made]]) -> None:
        seen = [(task, made.facts) for task, made in done]
        count(self.summary, self.files, self.plan, self.joined, records, seen)
        warn_of(self.summary, self.files, self.joined, records, seen, self.kind)
        if self.sides is not None and self.leaking:
            moved = ", ".join(f"{patient} (to {self.sides[patient]})" for patient in self.leaking)
            self.warnings.append(
                f"{len(self.leaking)} patients were in two subsets and were moved to one: {moved}; figures do not "
                "compare with those of the given test set"
            )


class Coco(Labelled[CocoOptions]):
    """COCO files and their images."""

    NAME = "coco"
    options_type = CocoOptions

    def read_files(self) -> list[CocoFile]:
        files = find_coco_files(self.source, self.options.annotations)
        if self.options.without_boxes == "normal":
            bare = [f"{file.label}: has no list 'annotations'" for file in files if not file.annotated]
            raise_faults(bare, where="--without-boxes normal", advice="Mend these files, or leave the option out.")
        return [replace(file, boxes=self.options.boxes) for file in files]

    def how_to_read(self, file: CocoFile) -> HowToRead:
        return replace(super().how_to_read(file), crowd_is_lesion=crowd_means(file, self.options.crowd))

    def find(self) -> None:
        super().find()
        if self.options.preset and not self.options.name:
            self.summary.archive = PRESETS[self.options.preset][0]

    def complete(self, done: Sequence[tuple[ImageTask, Made]]) -> list[ImageRecord]:
        records = super().complete(done)
        return note_stretched(records) if self.options.preset else records

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[ImageTask, Made]]) -> None:
        super().describe(records, done)
        warn_of_crowd(self.summary, [made.facts for _, made in done], self.options.crowd)
        if self.options.preset:
            facts = zip(self.entries, self.joined.facts, strict=True)
            check_official(self.summary, [(entry.file.subset, each) for entry, each in facts if each], self.joined)


convert = Coco.convert
ARCHIVE = Coco


def _find_images(source: Path, entries: Sequence[_Entry]) -> tuple[dict[int, Found], list[Quarantined]]:
    """Position of an entry to its file; what has none, or shares one that its name does not say, is quarantined.

    Raises InputError: two COCO files list the same image file.
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
            quarantine.extend(set_aside(entry.image, entry.file.label, Reason.NO_FILE, str(error.args[0])))
    for position, found in list(paths.items()):
        entry, path = entries[position], found.path.resolve()
        if meant[path] > 1 and not found.exact:
            del paths[position]
            reason = f"its path is not here, and {meant[path]} entries could mean {found.name}; name the folder"
            quarantine.extend(set_aside(entry.image, entry.file.label, Reason.DUPLICATE, reason))
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


def _split_kind(files: Sequence[CocoFile], options: LabelledOptions) -> str:
    untold = [file.label for file in files if file.subset is None and file.images]
    if options.split == "given" and untold:
        raise InputError(
            f"--split given: neither file nor folder tells the subset of {', '.join(untold)}; say it by --annotations "
            "train=a.json test=b.json, or divide anew with --split holdout"
        )
    return options.split or ("holdout" if untold else "given")


def _given(
    entries: Sequence[_Entry], joined: Joined, options: LabelledOptions
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Patient to the subset of its images, and to all of them where there are several.

    Raises InputError: patients in two subsets, and nobody said where they are to go.
    """
    subsets: dict[str, set[str]] = {}
    for entry, facts in zip(entries, joined.facts, strict=True):
        if facts is not None:
            subsets.setdefault(facts.patient_id, set()).add(str(entry.file.subset))
    sides, leaking = settle_sides(subsets, options.resolve_leaks)
    if leaking and options.resolve_leaks is None:
        raise InputError(
            f"{len(leaking)} patients are in two subsets: "
            + ", ".join(f"{patient} ({' and '.join(found)})" for patient, found in leaking.items())
            + ". Move them to one (--resolve-leaks test, or train), or divide anew (--split holdout)"
        )
    return sides, leaking


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
