"""The data set that patches are cut from: its files, and every image once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import ALL, FOLDS, stored_files
from mammodet.errors import InputError, raise_faults
from mammodet.records import Dataset, ImageRecord


@dataclass(frozen=True, slots=True)
class Source:
    """What `--data` names."""

    root: Path  #: folder that file names start from
    tables: Mapping[str, Dataset]  #: file name to data set
    images: tuple[ImageRecord, ...]  #: every image of any table, once

    @property
    def categories(self) -> tuple[str, ...]:
        """One and the same in all tables."""
        return next(iter(self.tables.values())).categories


def find_tables(folder: Path) -> list[Path]:
    """The data set files in a folder, `all.json` of an older converter first; without `folds.json`."""
    found = [path for path in stored_files(folder) if path.name != FOLDS]
    return sorted(found, key=lambda path: path.name != ALL)


def read_source(data: Path) -> Source:
    """Read a converted folder, or one of its files.

    Raises InputError: there is none, it cannot be read, or its tables contradict each other.
    """
    paths = find_tables(data) if data.is_dir() else [data]
    if not paths:
        raise InputError(f"{data}: holds no train.json, val.json, ...; expected the --output of mammodet convert")
    tables = {path.name: read_coco(path) for path in paths}
    first_name, first = next(iter(tables.items()))
    images: dict[str, tuple[str, ImageRecord]] = {}
    faults = []
    for name, table in tables.items():
        if table.categories != first.categories:
            faults.append(f"{name}: its categories are {table.categories}, those of {first_name} {first.categories}")
        for record in table.images:
            known_in, known = images.setdefault(record.file_name, (name, record))
            # Its subset and its number are a table's own.
            if replace(record, split=known.split, image_id=known.image_id) != known:
                faults.append(f"{name}: image {record.file_name!r} differs from that in {known_in}")
    raise_faults(faults, where=str(data), advice="The files are of two conversions; convert the archive again.")
    records = sorted((record for _, record in images.values()), key=lambda record: record.image_id)
    return Source(data if data.is_dir() else data.parent, tables, tuple(records))


def patch_stems(images: tuple[ImageRecord, ...]) -> tuple[dict[str, str], list[str]]:
    """File name to what its patches' names start with, and faults: names that two images would share.

    The name without suffix and, where it has one, without the leading folder `images`.
    """
    stems = {}
    for record in images:
        pure = PurePosixPath(record.file_name.replace("\\", "/"))
        parts = pure.parts[1:] if pure.parts[0] == "images" and len(pure.parts) > 1 else pure.parts
        stems[record.file_name] = str(PurePosixPath(*parts).with_suffix(""))
    counts = Counter(stem.casefold() for stem in stems.values())
    faults = [
        f"image {name!r}: another image has the name {stem!r} too, but for suffix or case; rename one of them"
        for name, stem in stems.items()
        if counts[stem.casefold()] > 1
    ]
    return stems, faults
