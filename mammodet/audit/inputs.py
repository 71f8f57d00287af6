"""The audited file and those that it is compared with."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import QUARANTINE, files_of, has_dataset
from mammodet.errors import InputError
from mammodet.files import read_json, short_names
from mammodet.records import SUBSETS, Dataset


@dataclass(frozen=True, slots=True)
class Source:
    """One JSON file."""

    path: Path
    name: str  #: for messages: the file's name, with its folder where two have one name
    dataset: Dataset
    is_own: bool = False  #: it is the audited file
    is_val: bool = False  #: it is the validation set that belongs to the audited training set
    dropped: tuple[str, ...] = ()  #: records that the reader refused, as messages

    def parts(self) -> list[str]:
        """The subset of each image: the file's own name, and where it holds several subsets, the record's split."""
        stem = self.name.removesuffix(".json")
        splits = {image.split for image in self.dataset.images}
        if len(splits) < 2:
            return [stem] * len(self.dataset.images)
        return [f"{stem}:{image.split or 'no split'}" for image in self.dataset.images]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line of the converter's quarantine list: `what` (image, circle, line, ...), its name and the reason."""

    what: str
    name: str
    reason: str


def find_siblings(path: Path) -> list[Path]:
    """Files in the same folder that must share no patient with this one.

    `train.json` has `val.json` and `test.json`; `fold0_train.json` has `fold0_val.json` and `test.json`; others none.
    """
    fold = re.fullmatch(r"(fold\d+_)(train|val)", path.stem)
    if fold:
        names = [f"{fold[1]}train", f"{fold[1]}val", "test"]
    elif path.stem in SUBSETS:
        names = list(SUBSETS)
    else:
        return []
    others = [path.with_name(f"{name}.json") for name in names if name != path.stem]
    return [other for other in others if has_dataset(other)]


def read_sources(path: Path, others: Sequence[Path], *, siblings: bool) -> list[Source]:
    """Read the audited file, its siblings and the further ones, each once.

    Faulty records are left out and told in `dropped`.

    Raises InputError: a file is missing, is no data set, or is given to be compared with itself.
    """
    paths = [path]
    for other in [*(find_siblings(path) if siblings else []), *others]:
        if other.resolve() == path.resolve():
            raise InputError(f"--with {other}: is the audited file itself; name the files that it is compared with")
        if other.resolve() not in {known.resolve() for known in paths}:
            paths.append(other)
    own_val = path.with_name(path.name.replace("train", "val")) if path.stem.endswith("train") else None
    sources = []
    for one, name in zip(paths, short_names(paths), strict=True):
        sources.append(replace(_read(one, name), is_own=one is path, is_val=siblings and one == own_val))
    return sources


def _read(path: Path, name: str) -> Source:
    dataset = read_coco(path, skip_invalid=True)
    dropped = tuple(str(fault) for fault in dataset.info.get("dropped", ()) or ())
    if dropped:
        # The reader makes images that lose a lesion `unlocalized`, which is no contradiction of their labels.
        said = {item["id"]: bool(item.get("unlocalized")) for item in _image_items(path)}
        images = tuple(
            replace(image, unlocalized=said[image.image_id]) if image.label("tumor") == 0 else image
            for image in dataset.images
        )
        dataset = replace(dataset, images=images)
    if not dataset.images and not dropped:
        raise InputError(f"{path}: holds no image; expected a data set of a converter")
    return Source(path, name, dataset, dropped=dropped)


def _image_items(path: Path) -> Iterator[dict[str, object]]:
    """Objects in the list of images that carry a usable id; of equal ids the first, as the reader takes it."""
    seen: set[object] = set()
    for item in (item for part in files_of(path) for item in read_json(part)["images"]):
        number = item.get("id") if isinstance(item, dict) else None
        if isinstance(number, int) and number not in seen:
            seen.add(number)
            yield item


def read_quarantine(folder: Path) -> list[LeftOut]:
    """The converter's `quarantine.csv` in a folder; empty where there is none.

    Raises InputError: the file cannot be read as the table that converters write.
    """
    path = folder / QUARANTINE
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); re-run the converter") from None
    if rows and not {"what", "name", "reason"} <= set(rows[0]):
        raise InputError(f"{path}: its columns are {list(rows[0])}; expected what, name, reason")
    return [LeftOut(str(row["what"]), str(row["name"]), str(row["reason"])) for row in rows]
