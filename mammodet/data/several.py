"""Several data sets as one: common categories, image numbers and file names, and whose images are whose."""

import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mammodet.config.data import DataFileConfig, PlacedFile
from mammodet.data.coco import data_hash
from mammodet.data.seen_images import sample
from mammodet.data.sources import WORDS, SourceFile, share_women
from mammodet.errors import InputError, listed, raise_faults
from mammodet.files import canonical_hash, file_hash
from mammodet.records import LABELS, Dataset, ImageRecord, Lesion


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a training or validation set."""

    path: Path
    root: Path  #: folder that its image names start from
    said: DataFileConfig  #: what the config says of it
    dataset: Dataset  #: as it lies on disk
    source: SourceFile  #: what a checkpoint says of it

    @staticmethod
    def of(placed: PlacedFile, dataset: Dataset, subset: Literal["train", "val"]) -> "Part":
        """The part that a file of the config is."""
        path, root, said = placed
        return Part(path, root, said, dataset, SourceFile.of(dataset, str(path), subset, said.patient_prefix or ""))

    @property
    def prefix(self) -> str:
        """What stands before its patient ids."""
        return self.source.patient_prefix


@dataclass(frozen=True, slots=True)
class Joined:
    """Several files as one training and one validation set."""

    train: Dataset
    val: Dataset
    root: Path  #: folder that all image names start from: the nearest that holds the images of every file
    weights: tuple[float, ...]  #: of each training image, how often it is drawn
    data_hash: str  #: of what is trained on; it does not depend on where the files lie


def join_sets(parts: Sequence[Part]) -> Joined:
    """Join files whose categories, after their mappings, are the same.

    Images are numbered from 1 in the order of the files. Image names start at a common folder, so that they name the
    data set, too.

    Args:
        parts: those of training first.
    Raises:
        InputError: categories that differ, patient ids that may or may not be the same people, images that occur twice.
    """
    paths = [str(part.path) for part in parts]
    where = f"joining {', '.join(paths)}"
    faults: list[str] = []
    datasets = [map_categories(part.dataset, part.said.categories, str(part.path), faults) for part in parts]
    raise_faults(faults, where=where, advice="See docs/several_data_sets.md.")
    faults = _category_faults(parts, datasets) + _patient_faults(parts)
    root, folders = _common_root(parts)
    order = datasets[0].categories
    records: dict[str, list[ImageRecord]] = {subset: [] for subset in WORDS}
    hashes: list[str] = []
    owners: dict[tuple[str, str], Part] = {}
    number = itertools.count(1)
    for part, folder, dataset in zip(parts, folders, datasets, strict=True):
        own = [
            replace(record, patient_id=part.prefix + record.patient_id) if record.patient_id else record
            for record in dataset.images
        ]
        subset = part.source.subset
        if subset == "train":
            hashes.append(data_hash(Dataset(dataset.categories, tuple(own))))
        twice: dict[Path, list[str]] = {}
        for record in own:
            name = (folder / record.file_name).as_posix()
            first = owners.setdefault((subset, name), part)
            if first is not part:
                twice.setdefault(first.path, []).append(name)
            records[subset].append(replace(record, image_id=next(number), file_name=name))
        faults += [
            f"{len(names)} images of {part.path} are in {path}, too: {listed(names)}; leave one file out"
            for path, names in twice.items()
        ]
    joined = {subset: Dataset(order, tuple(images), _joined_info(parts, subset)) for subset, images in records.items()}
    if not faults:  # reads image files, the work that takes longest
        faults = _copies(joined["train"], joined["val"], root)
    raise_faults(faults, where=where, advice="See docs/several_data_sets.md.")
    if len(_sets_of(parts)) > 1:
        command = shlex.join(["mammodet", "audit", *paths[:1], "--with", *paths[1:], "--output", "audit"])
        print(f"image files of validation were compared byte by byte; to find re-encoded copies: {command}")
    weights = tuple(part.said.weight for part in parts if part.source.subset == "train" for _ in part.dataset.images)
    return Joined(joined["train"], joined["val"], root, weights, canonical_hash(hashes))


def map_categories(dataset: Dataset, mapping: Mapping[str, str | None], where: str, faults: list[str]) -> Dataset:
    """A data set with its categories renamed, those of None regions to ignore; `faults` takes wrong names.

    What an image is labelled for may then be one of these: its labels become unknown unless other findings show them.
    """
    if not mapping:
        return dataset
    unknown = [name for name in mapping if name not in dataset.categories]
    if unknown:
        faults.append(f"{where}: categories {unknown}: not among its own, {list(dataset.categories)}")
        return dataset
    plan = {name: mapping.get(name, name) for name in dataset.categories}
    names = tuple(dict.fromkeys(new for new in plan.values() if new is not None))
    if not names:
        faults.append(f"{where}: categories: no category is left of {list(dataset.categories)}; keep one")
        return dataset
    drops = None in plan.values()
    return replace(
        dataset, categories=names, images=tuple(_mapped(record, plan, names, drops) for record in dataset.images)
    )


def _mapped(record: ImageRecord, plan: Mapping[str, str | None], names: Sequence[str], drops: bool) -> ImageRecord:
    lesions = tuple(_mapped_lesion(lesion, plan[lesion.category], names) for lesion in record.lesions)
    dropped = [lesion for lesion in record.lesions if plan[lesion.category] is None]
    kept = [lesion for lesion in record.lesions if plan[lesion.category] is not None and not lesion.ignore]
    labels = dict(record.labels)
    if not kept and (dropped or (drops and record.unlocalized)):  # an unlocalized finding may be of any category
        labels |= {name: None for name in LABELS if name in labels}
    elif dropped and labels.get("malignant") == 1:
        left, lost = ({lesion.attributes.get("pathology") for lesion in each} for each in (kept, dropped))
        if "malignant" not in left and lost != {"benign"}:
            labels["malignant"] = None
    return replace(record, lesions=lesions, labels=labels)


def _mapped_lesion(lesion: Lesion, new: str | None, names: Sequence[str]) -> Lesion:
    if new == lesion.category:
        return lesion
    attributes: dict[str, Any] = {"category_original": lesion.category, **lesion.attributes}
    if new is None:
        return replace(lesion, category=names[0], ignore=True, attributes=attributes)
    return replace(lesion, category=new, attributes=attributes)


def _category_faults(parts: Sequence[Part], datasets: Sequence[Dataset]) -> list[str]:
    if len({frozenset(dataset.categories) for dataset in datasets}) == 1:
        return []
    shown = "; ".join(
        f"{part.path} has {', '.join(dataset.categories)}" for part, dataset in zip(parts, datasets, strict=True)
    )
    return [
        f"categories differ, as far as they are renamed: {shown}. Rename to common ones, and drop what a set does not "
        "know, in the lists of data.train and data.val: {file: ..., categories: {lesion: mass, calcification: null}}"
    ]


def _patient_faults(parts: Sequence[Part]) -> list[str]:
    """Prefixes that would hide a leak, and equal ids that may or may not be the same people."""
    sets = _sets_of(parts)
    faults = []
    for name, members in sets.items():
        prefixes = {part.prefix for part in members}
        if len(prefixes) > 1:
            files = ", ".join(f"{part.path} ({part.prefix or 'none'})" for part in members)
            faults.append(
                f"{name}: its files have different values of patient_prefix: {files}; give all the same. If they hold "
                "other people, the archives need other names: convert one again with another --name"
            )
        _tell_shared(name, members)
    for (one, first), (other, second) in itertools.combinations(sets.items(), 2):
        said = [{part.said.patient_prefix for part in members} for members in (first, second)]
        if "" not in said[0] | said[1] and _share_women(first, second):
            faults.append(
                f"{one} and {other} hold films of the same women under different ids: those in training may be in "
                "validation, too. Train on one of them; or give common ids to both, and say so: patient_prefix: ''"
            )
        if "" in said[0] | said[1] or (said[0] == said[1] and None not in said[0]):
            continue
        shared = sorted(_ids(first) & _ids(second))
        if shared:
            word = re.sub(r"\W", "_", other)
            faults.append(
                f"{len(shared)} patient ids of {one} are those of {other}: {listed(shared)}. If they are other people, "
                f"tell them apart: {{file: {second[0].said.file}, patient_prefix: {word}/}} for every file of "
                "it; if they are the same people, say so: patient_prefix: ''"
            )
    for name, members in sets.items():
        others = {patient for other, rest in sets.items() if other != name for patient in _ids(rest)}
        prefix = members[0].prefix
        if prefix and not any(part.prefix == prefix for other in sets if other != name for part in sets[other]):
            faults += [
                f"{name}: patient_prefix {prefix!r} is how ids of another set begin: {patient}; choose another"
                for patient in sorted(others)
                if patient.startswith(prefix)
            ][:1]
    return faults


def _share_women(first: Sequence[Part], second: Sequence[Part]) -> bool:
    """Whether training images of one set, and validation images of another, may be of the same women."""
    return any(
        share_women(part.source.archive, other.source.archive) and part.source.subset != other.source.subset
        for part, other in itertools.product(first, second)
    )


def _sets_of(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """Files by the data set that they belong to: those of one folder, of one archive, or of the same content."""
    groups: list[tuple[set[Any], list[Part]]] = []
    for part in parts:
        archive = part.source.archive
        signs: set[Any] = {part.root.resolve(), part.source.data_hash, *([archive] if archive else [])}
        members = [part]
        for group in [group for group in groups if group[0] & signs]:
            signs |= group[0]
            members = group[1] + members
            groups.remove(group)
        groups.append((signs, members))
    named: dict[str, list[Part]] = {}
    for _, members in groups:
        archives = [part.source.archive for part in members if part.source.archive]
        name = archives[0] if archives else members[0].root.resolve().name
        named[name if name not in named else str(members[0].root)] = members
    return named


def _tell_shared(name: str, parts: Sequence[Part]) -> None:
    """Say which ids of several folders are taken for the same people since their archive is."""
    folders = {
        part.root.resolve(): [each for each in parts if each.root.resolve() == part.root.resolve()] for part in parts
    }
    for (one, first), (other, second) in itertools.combinations(folders.items(), 2):
        if shared := sorted(_ids(first) & _ids(second)):
            print(f"{len(shared)} patients are in {one} and in {other}, both of {name}: taken for the same people")


def _ids(parts: Sequence[Part]) -> set[str]:
    return {part.prefix + record.patient_id for part in parts for record in part.dataset.images if record.patient_id}


def _common_root(parts: Sequence[Part]) -> tuple[Path, list[Path]]:
    """The nearest folder above the images of all parts, and where those of each lie below it."""
    roots = [part.root.resolve() for part in parts]
    try:
        common = Path(os.path.commonpath(roots))
    except ValueError:
        raise InputError(f"data.train and data.val: {', '.join(map(str, roots))} lie on different drives") from None
    return common, [root.relative_to(common) for root in roots]


def _joined_info(parts: Sequence[Part], subset: str) -> dict[str, Any]:
    parts = [part for part in parts if part.source.subset == subset]
    archives = dict.fromkeys(part.source.archive or part.root.resolve().name for part in parts)
    hashes = {part.source.split_hash for part in parts}
    split = {"name": "joined", "subset": subset, "hash": hashes.pop() if len(hashes) == 1 else None}
    return {"archive": " + ".join(archives), "split": split}


def _copies(train: Dataset, val: Dataset, root: Path) -> list[str]:
    """Image files of validation that training has, byte for byte; missing files are for others to report."""
    sides = [{record.file_name for record in dataset.images} for dataset in (train, val)]
    for key_of in (os.path.getsize, sample, file_hash):
        keys = [{name: key_of(root / name) for name in side if (root / name).is_file()} for side in sides]
        both = set(keys[0].values()) & set(keys[1].values())
        sides = [{name for name, key in side.items() if key in both} for side in keys]
    if not sides[1]:
        return []
    twins = {key: min(name for name in sides[0] if keys[0][name] == key) for key in both}
    pairs = [f"{name} (= {twins[keys[1][name]]})" for name in sorted(sides[1])]
    return [f"{len(pairs)} image files of validation are in training, too: {listed(pairs)}; leave them out of one"]
