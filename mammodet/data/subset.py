"""A part of a converted data set, as more JSON files in its folder: one view, one source, known labels, ..."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.dataset_files import stored_files
from mammodet.data.several import map_categories
from mammodet.errors import InputError, raise_faults
from mammodet.records import SUBSETS, Dataset, ImageRecord
from mammodet.targets import CLASS_FIELDS, class_of, is_known


@dataclass(frozen=True, slots=True)
class Filter:
    """Which images stay."""

    #: `view`, `laterality`, `density`, `birads` or `class` to the values that stay.
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: Sequence[str] = ()  #: targets (`mammodet.targets`) that must be known
    sources: Sequence[str] = ()  #: archives that stay; empty for all
    #: own category to its new name; None makes its findings regions to ignore.
    categories: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.fields) - set(CLASS_FIELDS))
        if unknown:
            raise InputError(f"fields {unknown}: expected some of {', '.join(CLASS_FIELDS)}")
        if not (self.fields or self.known or self.sources or self.categories):
            raise InputError("nothing to choose by: give at least one field, target, source or category")

    def keeps(self, record: ImageRecord) -> bool:
        """Whether an image stays."""
        return (
            all(class_of(record, name) in values for name, values in self.fields.items())
            and all(is_known(record, target) for target in self.known)
            and (not self.sources or record.source in self.sources)
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a subset: how many of how many images stayed. `path` is None where none did."""

    name: str
    path: Path | None
    kept: int
    of: int


def write_subset(folder: Path, name: str, chosen: Filter) -> list[Part]:
    """Write `NAME_train.json`, `NAME_val.json`, ... for every file of a converted folder.

    Images stay where they are. `NAME_all.json`, `NAME_fold0_val.json`, ... can be read, too. Each file keeps its split,
    so that leakage is still seen.

    Raises InputError: no data set there, a name that is none, or a value that no image has (with those that occur).
    """
    if not name.isidentifier() or name in (*SUBSETS, "all") or name.startswith("fold"):
        raise InputError(f"name {name!r}: expected a word of letters, digits and _ that is no file's own, as cc")
    paths = stored_files(folder)
    if not paths:
        raise InputError(f"{folder}: no train.json, val.json or test.json; expected a folder of mammodet convert")
    faults: list[str] = []
    datasets = {path: map_categories(read_coco(path), chosen.categories, str(path), faults) for path in paths}
    raise_faults(faults, where=str(folder))
    _check_values(folder, list(datasets.values()), chosen)
    parts = []
    for path, dataset in datasets.items():
        kept = tuple(record for record in dataset.images if chosen.keeps(record))
        target = folder / f"{name}_{path.name}"
        if kept:
            write_coco(replace(dataset, images=kept), target)
        else:
            target.unlink(missing_ok=True)
        parts.append(Part(target.name, target if kept else None, len(kept), len(dataset.images)))
    return parts


def _check_values(folder: Path, datasets: Sequence[Dataset], chosen: Filter) -> None:
    records = [record for dataset in datasets for record in dataset.images]
    faults = []
    for name, values in chosen.fields.items():
        occurring = {class_of(record, name) for record in records} - {None}
        strange = [value for value in values if value not in occurring]
        if strange:
            faults.append(
                f"{name} {strange}: no image has it; found: {', '.join(sorted(map(str, occurring))) or 'none'}"
            )
    sources = {str(record.source) for record in records}
    strange = [source for source in chosen.sources if source not in sources]
    if strange:
        faults.append(f"source {strange}: no image is from it; found: {', '.join(sorted(sources))}")
    for target in chosen.known:
        if not any(is_known(record, target) for record in records):
            faults.append(f"{target}: is known of no image")
    raise_faults(faults, where=str(folder), advice="docs/data_format.md names what images can have.")
