"""The files of the archive: which there are, and where in them each patch lies."""

import filecmp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.ddsm_patches.tfrecord import Place, index_records, parse_example, read_record, single
from mammodet.errors import InputError, raise_faults

#: By label. The order is the archive's own, as its description tells it.
CLASSES = ("negative", "benign calcification", "benign mass", "malignant calcification", "malignant mass")

_TRAINING = re.compile(r"training(\d+)_(\d+)\.tfrecords?", re.IGNORECASE)
_ARRAY = re.compile(r"(test|cv)(\d+)_(data|labels)\.npy", re.IGNORECASE)
_EXPECTED = (
    "expected training10_0.tfrecords ... training10_4.tfrecords, test10_data.npy, test10_labels.npy, cv10_data.npy and "
    "cv10_labels.npy, here or one folder below"
)


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """Patches of a .npy file with their labels."""

    path: Path
    #: uint8 (n, height, width) or (n, height, width, 1), mapped from the file; n counts its whole patches.
    data: NDArray[Any]
    labels: NDArray[Any]  #: integers (m,); m is larger than n where the file of the patches is cut short


@dataclass(frozen=True, slots=True)
class Archive:
    """Everything that there is: training records by file, and arrays by subset (`val`, `test`)."""

    version: str
    records: dict[Path, tuple[Place, ...]]
    arrays: dict[str, ArrayFile]
    quarantine: tuple[Quarantined, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Patch:
    """Where one patch lies: a record of a TFRecord file, or a row of an array; `number`: which, from 0."""

    path: Path
    number: int
    place: Place | None = None
    array: ArrayFile | None = None

    @property
    def name(self) -> str:
        """As in the quarantine list."""
        return f"{self.path.name} {'row' if self.place is None else 'record'} {self.number}"

    @property
    def offset(self) -> int:
        """First byte of its record, 0 for a row."""
        return self.place.offset if self.place else 0


def open_archive(source: Path) -> Archive:
    """Find the files in `source` and up to two folders below it, and where the patches lie in them.

    Raises InputError: no patches, patches without labels, two files of a name, several editions, or arrays of another
    kind.
    """
    found = _find(source)
    training = {name: path for name, path in found.items() if _TRAINING.fullmatch(name)}
    arrays = {name: path for name, path in found.items() if _ARRAY.fullmatch(name)}
    versions = {_version(name) for name in found}
    if len(versions) > 1:
        raise InputError(f"{source}: files of several editions ({', '.join(sorted(versions))}); keep those of one")
    if not any(name.endswith(("_data.npy", ".tfrecords", ".tfrecord")) for name in found):
        there = sorted(path.name for path in source.iterdir())[:5]
        raise InputError(f"{source}: no patches; {_EXPECTED}. Found: {', '.join(there) or 'an empty folder'}")
    version = versions.pop()
    quarantine: list[Quarantined] = []
    records: dict[Path, tuple[Place, ...]] = {}
    for name in sorted(training, key=_training_number):
        path = training[name]
        index = index_records(path)
        records[path] = index.places
        if index.fault:
            quarantine.append(Quarantined(Reason.UNREADABLE, "rest of a file", name, str(index.fault), str(path)))
        elif not index.places:
            quarantine.append(Quarantined(Reason.UNREADABLE, "file", name, f"{name}: is empty", str(path)))
    opened: dict[str, ArrayFile] = {}
    for subset, prefix in (("val", "cv"), ("test", "test")):
        data, labels = (arrays.get(f"{prefix}{version}_{kind}.npy") for kind in ("data", "labels"))
        if data is None and labels is None:
            continue
        if data is None or labels is None:
            lacking = "data" if data is None else "labels"
            raise InputError(f"{source}: {prefix}{version}_{lacking}.npy is missing; {_EXPECTED}")
        opened[subset], lost = _open_array(data, labels)
        quarantine.extend(lost)
    return Archive(version, records, opened, tuple(quarantine), _missing(training, opened, version))


def _find(source: Path) -> dict[str, Path]:
    """Name in lower case to file. Raises InputError: files of one name that differ; exact copies may be there."""
    found: dict[str, Path] = {}
    faults: list[str] = []
    for path in sorted([*source.glob("*"), *source.glob("*/*"), *source.glob("*/*/*")]):
        name = path.name.lower()
        known = _TRAINING.fullmatch(name) or _ARRAY.fullmatch(name)
        if not known or not path.is_file():
            continue
        first = found.setdefault(name, path)
        if first != path and not filecmp.cmp(first, path, shallow=False):
            faults.append(f"{path.relative_to(source)} and {first.relative_to(source)}")
    raise_faults(faults, where=f"{source}: files of one name that differ", advice="Keep one of each.")
    return found


def _version(name: str) -> str:
    match = _TRAINING.fullmatch(name)
    if match:
        return match[1]
    match = _ARRAY.fullmatch(name)
    return match[2] if match else ""


def _training_number(name: str) -> int:
    match = _TRAINING.fullmatch(name)
    return int(match[2]) if match else 0


def _missing(training: dict[str, Path], arrays: dict[str, ArrayFile], version: str) -> tuple[str, ...]:
    numbers = {_training_number(name) for name in training}
    expected = range(max(5, *(number + 1 for number in numbers))) if numbers else range(5)
    lacking = [f"training{version}_{number}.tfrecords" for number in expected if number not in numbers]
    lacking += [
        f"{prefix}{version}_data.npy" for subset, prefix in (("val", "cv"), ("test", "test")) if subset not in arrays
    ]
    return tuple(lacking)


def _open_array(data_path: Path, labels_path: Path) -> tuple[ArrayFile, list[Quarantined]]:
    data, rows = _map_array(data_path)
    labels, label_count = _map_array(labels_path)
    if label_count != len(labels):
        raise InputError(f"{labels_path}: is cut short: {len(labels)} of {label_count} labels; fetch it again")
    labels = np.array(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    faults: list[str] = []
    if data.dtype != np.uint8 or data.ndim not in (3, 4) or (data.ndim == 4 and data.shape[3] != 1):
        shape = (rows, *data.shape[1:])
        faults.append(f"{data_path.name}: is {data.dtype} {shape}; expected uint8 (n, height, width, 1)")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        faults.append(f"{labels_path.name}: is {labels.dtype} {labels.shape}; expected whole numbers (n,)")
    elif len(labels) != rows:
        faults.append(f"{data_path.name} has {rows} patches, {labels_path.name} {len(labels)} labels")
    raise_faults(faults, where=str(data_path.parent), advice="Fetch these files again.")
    lost = []
    if len(data) < rows:
        reason = f"{data_path.name}: is cut short: {len(data)} of {rows} patches are whole; fetch it again"
        lost.append(Quarantined(Reason.UNREADABLE, "rest of a file", data_path.name, reason, str(data_path)))
    return ArrayFile(data_path, data, labels), lost


def _map_array(path: Path) -> tuple[NDArray[Any], int]:
    """An array as it lies in a file, with as many rows as are whole, and how many there should be.

    Raises InputError: not a .npy file of numbers.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
            start = file.tell()
        if dtype.hasobject or not shape:
            raise ValueError("it holds Python objects" if dtype.hasobject else "it holds a single value")
        size = path.stat().st_size - start
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        rows = min(shape[0], size // row_bytes) if row_bytes else 0
        if rows < shape[0] and fortran_order:  # its rows do not lie one behind the other
            raise ValueError(f"it is cut short: {size} of {row_bytes * shape[0]} bytes")
        if rows == 0:
            return np.zeros((0, *shape[1:]), dtype), shape[0]
        whole = (rows, *shape[1:])
        order: Literal["C", "F"] = "F" if fortran_order else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=whole, order=order), shape[0]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: is no .npy file of numbers that can be read ({error})") from None


def patches_of(archive: Archive) -> list[tuple[str, Patch]]:
    """Subset and place of every patch, in the order of the archive."""
    patches: list[tuple[str, Patch]] = []
    for path, places in archive.records.items():
        patches += [("train", Patch(path, number, place)) for number, place in enumerate(places)]
    for subset, array in archive.arrays.items():
        patches += [(subset, Patch(array.path, number, array=array)) for number in range(len(array.data))]
    return patches


def read_patch(patch: Patch, size: int) -> tuple[NDArray[np.uint8], int]:
    """Pixels, uint8 (size, size), and label of a patch.

    Raises InputError: it is damaged, of another size, or its labels are not those of the archive.
    """
    if patch.array is not None:
        pixels = np.array(patch.array.data[patch.number])
        label, normal = int(patch.array.labels[patch.number]), None
    else:
        pixels, label, normal = _read_record(patch)
    _check_label(patch, label, normal)
    if pixels.size != size * size or (pixels.ndim > 1 and pixels.shape[:2] != (size, size)):
        shape = "x".join(map(str, pixels.shape[:2])) if pixels.ndim > 1 else _guess(pixels.size)
        raise InputError(f"{patch.name}: has {shape}; expected {size}x{size} of one channel (--size says another size)")
    return pixels.reshape(size, size), label


def _read_record(patch: Patch) -> tuple[NDArray[np.uint8], int, int]:
    if patch.place is None:
        raise ValueError(f"{patch.name}: is no record")
    message = read_record(patch.path, patch.place, patch.number)
    try:
        features = parse_example(message)
        label, normal = single(features, "label", int), single(features, "label_normal", int)
        return np.frombuffer(single(features, "image", bytes), np.uint8), label, normal
    except ValueError as error:
        raise InputError(f"{patch.name} at byte {patch.offset}: is no patch ({error})") from None


def _check_label(patch: Patch, label: int, normal: int | None) -> None:
    if not 0 <= label < len(CLASSES):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES))
        raise InputError(f"{patch.name}: label {label}; expected one of {known}")
    if normal is not None and normal != int(label > 0):
        raise InputError(f"{patch.name}: label {label} ({CLASSES[label]}) contradicts label_normal {normal}")


def _guess(count: int) -> str:
    side = round(count**0.5)
    return f"{side}x{side} pixels" if side * side == count else f"{count} bytes"
