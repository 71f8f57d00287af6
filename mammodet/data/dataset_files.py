"""The files of a data set: their names, and the ones that are made when they are read.

A converted folder holds `train.json`, `val.json` and `test.json` (those that have images) and `splits.json`. Four more
names mean images of these: `all.json`, `folds.json` (all images outside the test set), `foldK_train.json` and
`foldK_val.json`. Older converters wrote such files, and where there is one, it is what is read. `NAME_` before a name
means the subset NAME (mammodet subset).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mammodet.data.splits import Splits
from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.files import check_is_file, read_json, write_json
from mammodet.records import SUBSETS, Dataset, fold_file

SPLITS, SUMMARY, QUARANTINE, IMAGES = "splits.json", "summary.json", "quarantine.csv", "images"
ALL, FOLDS = "all.json", "folds.json"
_HOLDOUT = tuple(f"{subset}.json" for subset in SUBSETS)
_FOLD = re.compile(r"fold(?P<fold>\d+)_(?P<subset>train|val)\.json")
_MADE = re.compile(rf"(?P<prefix>(\w+_)?)(?P<name>all\.json|folds\.json|{_FOLD.pattern})")


def write_splits(folder: Path, splits: Splits) -> None:
    """Write `splits.json`: patient to subset and fold."""
    value = {"name": splits.name, "seed": splits.seed, "hash": splits.hash}
    write_json(folder / SPLITS, {**value, "holdout": splits.holdout, "folds": splits.folds}, indent=1)


def read_splits(folder: Path) -> Splits | None:
    """What `splits.json` says; None where there is none. Raises InputError: it is not what converters write."""
    path = folder / SPLITS
    if not path.is_file():
        return None
    try:
        splits = TypeAdapter(Splits).validate_python(read_json(path))
    except ValidationError as error:
        raise_faults(faults_of(error), where=str(path), advice="Convert the archive again.")
        raise
    strange = sorted(set(splits.holdout.values()) - set(SUBSETS))
    if strange or any(fold < 0 for fold in splits.folds.values()):
        raise InputError(f"{path}: subsets {strange or 'below fold 0'}; expected {', '.join(SUBSETS)}, folds from 0")
    return splits


@dataclass(frozen=True, slots=True)
class View:
    """A data set that is taken from the images of other files."""

    path: Path  #: its name; there is no such file
    parts: tuple[Path, ...]  #: the files that hold its images
    name: str | None  #: of its split, as `info.split` says; None: the parts' own, and so are the subsets of its images
    subset: str  #: of its split
    splits: Splits | None  #: the patients' subsets and folds; None where there is no `splits.json`
    fold: int | None = None  #: whose training or validation set it is; None: it is none of a fold

    def take(self, parts: Sequence[Dataset]) -> Dataset:
        """Its images among those of the parts, in the order of their numbers.

        Raises InputError: the parts are not of one conversion, or not of the one that `splits.json` is of.
        """
        raise_faults(
            self._faults(parts),
            where=f"{self.path}: is made of {', '.join(part.name for part in self.parts)} and {SPLITS}",
            advice="Convert the archive again, so that all are of one conversion.",
        )
        images = [record for part in parts for record in part.images if self._has(str(record.patient_id))]
        images.sort(key=lambda record: record.image_id)
        if self.name is not None:
            images = [replace(record, split=self.subset) for record in images]
        info = dict(parts[0].info)
        info["split"] = {**(info.get("split") or {}), "subset": self.subset}
        if self.name is not None:
            info["split"]["name"] = self.name
        for key in ("dropped", "clipped"):
            if lines := [line for part in parts for line in part.info.get(key) or ()]:
                info[key] = lines
        return Dataset(parts[0].categories, tuple(images), info)

    def _has(self, patient: str) -> bool:
        if self.splits is None or self.name is None:
            return True
        if self.fold is None:
            return patient in self.splits.folds
        return self.splits.subset(patient, self.fold) == self.subset

    def _faults(self, parts: Sequence[Dataset]) -> list[str]:
        hashes = {str((part.info.get("split") or {}).get("hash")) for part in parts}
        records = [record for part in parts for record in part.images]
        patients = {str(record.patient_id) for record in records}
        faults = []
        if self.splits is not None:
            hashes.add(self.splits.hash)
            lost = sorted(patients - set(self.splits.holdout))
            faults += [f"{SPLITS} does not have patients {', '.join(lost[:10])}"] if lost else []
        if len(hashes) > 1:
            faults.append(f"they are of different splits: {', '.join(sorted(each[:12] for each in hashes))}")
        if len({part.categories for part in parts}) > 1:
            faults.append(f"their categories differ: {'; '.join(', '.join(part.categories) for part in parts)}")
        for what in ("image_id", "file_name"):
            if len({getattr(record, what) for record in records}) < len(records):
                faults.append(f"two of their images have the same {what}")
        return faults


def find_view(path: Path) -> View | None:
    """How a data set is made of other files; None where its file is there, or is no name of such a set."""
    found = _MADE.fullmatch(path.name)
    if found is None or path.exists():
        return None
    splits = read_splits(path.parent)
    if splits is None and found["name"] == FOLDS:  # a folder of hand-made folds
        names = [fold_file(fold, "val") for fold in fold_numbers(path.parent, found["prefix"])]
    else:
        names = list(_HOLDOUT) if splits is not None else []
    parts = tuple(part for part in (path.with_name(found["prefix"] + name) for name in names) if part.is_file())
    if not parts:
        return None
    if found["name"] == ALL:
        return View(path, parts, None, "all", splits)
    if found["name"] == FOLDS:
        return View(path, parts, "folds", "val", splits) if splits is None or splits.folds else None
    fold = int(found["fold"])
    known = splits is not None and fold in splits.folds.values()
    return View(path, parts, f"fold{fold}", found["subset"], splits, fold) if known else None


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a data set is read from: its own, or those that it is made of."""
    view = find_view(path)
    return view.parts if view else (path,)


def has_dataset(path: Path) -> bool:
    """Whether a data set can be read under a name."""
    return all(each.is_file() for each in files_of(path))


def check_dataset(path: Path) -> None:
    """Refuse a name under which no data set can be read. Raises InputError: with the names that the folder has."""
    if path.exists() or not _MADE.fullmatch(path.name):
        check_is_file(path, "a JSON file")
    elif find_view(path) is None:
        names = ", ".join(dataset_names(path.parent)) or "no data set"
        raise InputError(f"{path}: no such file; found {names}. mammodet convert makes folds with --folds K")


def stored_files(folder: Path) -> list[Path]:
    """The data set files in a folder under the usual names: `train.json`, ..., and those of older converters."""
    named = [folder / name for name in (*_HOLDOUT, ALL, FOLDS)]
    folds = [path for path in folder.glob("fold*.json") if _FOLD.fullmatch(path.name)]
    return [path for path in (*named, *sorted(folds)) if path.is_file()]


def dataset_names(folder: Path) -> list[str]:
    """All data sets that can be read from a folder: train, val, test, all, folds, then those of each fold."""
    folds = [fold_file(fold, subset) for subset in ("train", "val") for fold in fold_numbers(folder)]
    return [name for name in (*_HOLDOUT, ALL, FOLDS, *folds) if has_dataset(folder / name)]


def fold_numbers(folder: Path, prefix: str = "") -> list[int]:
    """Folds that the patients of a folder are divided into, by `splits.json` or by files of older converters.

    Raises InputError: `splits.json` cannot be read.
    """
    splits = read_splits(folder)
    numbers = set(splits.folds.values()) if splits else set()
    found = (_FOLD.fullmatch(path.name.removeprefix(prefix)) for path in folder.glob(f"{prefix}fold*_val.json"))
    return sorted(numbers | {int(each["fold"]) for each in found if each})
