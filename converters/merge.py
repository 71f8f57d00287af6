"""Converted data sets as one folder: common categories and numbers, each patient on one side, each film once.

Every set keeps its own split. What becomes of each image is in docs/several_data_sets.md.
"""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from mammodet.audit.copies import find_copies
from mammodet.audit.facts import measure_image
from mammodet.converters.base import Quarantined, Reason, counted, link_file, listed, settle_sides, split_counts
from mammodet.converters.options import Options, Pairs, flag, pairs
from mammodet.converters.skeleton import Converter, Made, refused
from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import has_dataset
from mammodet.data.several import map_categories
from mammodet.data.sources import archive_of, share_women
from mammodet.errors import raise_faults
from mammodet.files import atomic_path
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, Dataset, ImageRecord


class MergeOptions(Options):
    """What is joined, and how."""

    sets: tuple[str, ...] = flag((), "converted folders in --source", metavar="FOLDER", words="all of them")
    category: Annotated[Pairs, pairs("--category", empty=True)] = flag(
        (),
        "rename or merge a category of a set; FOLDER/OLD= makes its findings regions to ignore",
        metavar="FOLDER/OLD=NEW",
        each=True,
    )
    prefix: tuple[str, ...] = flag(
        (),
        "sets whose patients are other people than those of the same ids in another set: their ids begin with FOLDER/",
        metavar="FOLDER",
    )
    images: Literal["link", "copy"] = flag("link", "whether image files are links to those of the sets, or copies")

    @property
    def divides_test(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Source:
    """An image of a set: its file, its record as the joined set has it, and the subset that it is in."""

    folder: str
    path: Path
    record: ImageRecord
    subset: str


class Merge(Converter[MergeOptions, Source]):
    """Converted folders below one folder."""

    NAME = "merge"
    options_type = MergeOptions

    def find(self) -> None:
        held = sorted(path.name for path in self.source.iterdir() if any(_files(path)))
        names = list(dict.fromkeys(self.options.sets or held))
        faults = [f"{name}: no train.json, val.json or test.json in it" for name in names if name not in held]
        given = [("--category", key.partition("/")[0]) for key, _ in self.options.category]
        for option, name in [*given, *(("--prefix", name) for name in self.options.prefix)]:
            if name not in names:
                faults.append(f"{option} {name}: is not among the sets, {', '.join(names)}")
        if len(names) < 2:
            faults.append(f"{len(names)} converted folders; expected two or more (found: {', '.join(held) or 'none'})")
        raise_faults(faults, where=str(self.source), advice="Name folders of mammodet convert with --sets.")
        self.sets = {name: self._read(name, faults) for name in names}
        self.archives = {name: archive_of(next(iter(parts.values()))) or name for name, parts in self.sets.items()}
        raise_faults(faults + self._contradictions(), where=str(self.source))
        self.summary.archive = " + ".join(dict.fromkeys(self.archives.values()))
        self.categories = next(iter(next(iter(self.sets.values())).values())).categories

    def _read(self, name: str, faults: list[str]) -> dict[str, Dataset]:
        """Subsets of a set, with its categories and patients as the joined set has them."""
        said = {key.partition("/")[2]: new or None for key, new in self.options.category if key.startswith(f"{name}/")}
        prefix = f"{name}/" if name in self.options.prefix else ""
        parts = {}
        for subset, path in _files(self.source / name):
            dataset = map_categories(read_coco(path), said, str(path), faults)
            images = tuple(replace(record, patient_id=f"{prefix}{record.patient_id}") for record in dataset.images)
            faults += [f"{path}: {one.file_name!r} has no patient" for one in dataset.images if not one.patient_id]
            parts[subset] = replace(dataset, images=images)
        return parts

    def _contradictions(self) -> list[str]:
        faults = []
        found = {name: next(iter(parts.values())).categories for name, parts in self.sets.items()}
        if len({frozenset(names) for names in found.values()}) > 1:
            shown = "; ".join(f"{name} has {', '.join(names)}" for name, names in found.items())
            faults.append(f"categories differ: {shown}; rename them with --category FOLDER/OLD=NEW, or FOLDER/OLD=")
        for one, other in itertools.combinations(self.sets, 2):
            first, second = self.archives[one], self.archives[other]
            if share_women(first, second):
                faults.append(f"{one} ({first}) and {other} ({second}) show the same women under other ids; take one")
            both = sorted(_patients(self.sets[one]) & _patients(self.sets[other]))
            if both and first != second:
                faults.append(
                    f"{len(both)} patient ids of {one} ({first}) are those of {other} ({second}): {listed(both)}; if "
                    f"they are other people, --prefix {other} tells them apart"
                )
        return faults

    def rows(self) -> Sequence[Source]:
        every = [
            Source(name, self.source / name / record.file_name, record, subset)
            for name, parts in self.sets.items()
            for subset, dataset in parts.items()
            for record in dataset.images
        ]
        work = partial(measure_image, with_lesions=False)
        tasks = [(one.path, one.record) for one in every]
        options = self.options
        looked = list(in_parallel(work, tasks, jobs=options.jobs, name="look", progress=options.progress))
        same: dict[str, str] = {}
        twins: dict[int, int] = {}
        for copy in find_copies([facts.print for facts in looked], [facts.sha256 for facts in looked]):
            first, second = every[copy.first], every[copy.second]
            if first.folder != second.folder:
                twins.setdefault(copy.second, copy.first)
                kept, joined = (_root(same, str(each.record.patient_id)) for each in (first, second))
                same.update({joined: kept} if joined != kept else {})
        rows: list[Source] = []
        sides: dict[str, set[str]] = defaultdict(set)
        for position, each in enumerate(every):
            patient = _root(same, str(each.record.patient_id))
            sides[patient].add(each.subset)
            if position in twins:
                reason = f"shows the same film as {every[twins[position]].path.relative_to(self.source)}"
                name = each.path.relative_to(self.source).as_posix()
                self.quarantine.append(Quarantined(Reason.DUPLICATE, "image", name, reason))
                continue
            name = f"images/{each.folder}/{each.record.file_name.removeprefix('images/')}"
            record = replace(each.record, image_id=len(rows) + 1, file_name=name, patient_id=patient)
            rows.append(replace(each, record=record))
        self.subsets, moved = settle_sides(sides, "test")
        self.summary.counts["films of two sets"] = len(twins)
        self.summary.counts["patients of two sets"] = len(same)
        if moved:
            self.warnings.append(
                f"{len(moved)} patients were on two sides, and are on the one nearer to test: {listed(list(moved))}"
            )
        return rows

    def given(self) -> Mapping[str, str]:
        return self.subsets

    @staticmethod
    def convert_one(row: Source, how: Any) -> Made:
        output, options = how
        if not row.path.is_file():
            return refused("image", row.record.file_name, "has no file", row.path, Reason.NO_FILE)
        target = output / row.record.file_name
        if options.images == "link":
            link_file(target, row.path)
        else:
            with atomic_path(target) as temporary:
                shutil.copyfile(row.path, temporary)
        return Made(row.record)

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[Source, Made]]) -> None:
        self.summary.counts |= {
            **split_counts(records),
            "images of sets": counted([row.folder for row, _ in done]),
            "categories": counted([each.category for one in records for each in one.lesions if not each.ignore]),
        }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name in SUBSETS if has_dataset(path := folder / f"{name}.json"))


def _patients(parts: Mapping[str, Dataset]) -> set[str]:
    return {str(record.patient_id) for dataset in parts.values() for record in dataset.images}


def _root(same: Mapping[str, str], patient: str) -> str:
    while patient in same:
        patient = same[patient]
    return patient


ARCHIVE = Merge
