"""Images prepared for the network, and kept in files or in memory: prepared once, not each epoch."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray

from mammodet.config import ImageConfig
from mammodet.data.images import Pixels, read_image
from mammodet.data.preprocess import PREPARATION, prepare_image
from mammodet.errors import InputError, raise_faults
from mammodet.files import atomic_path, canonical_hash
from mammodet.parallel import in_processes, reported
from mammodet.records import ImageRecord
from mammodet.trace import Trace
from mammodet.version import VERSION

#: The network's input, float32 (channels, height, width), and the trace that leads back.
Prepared = tuple[NDArray[np.float32], Trace]


def prepare_record(
    root: Path, image: ImageConfig, record: ImageRecord, read: Callable[[Path], Pixels] = read_image
) -> Prepared:
    """Read and prepare the image of a record, by `read_image` or what does more beside.

    Raises InputError: it cannot be read, or has another size than its record.
    """
    path = root / record.file_name
    pixels = read(path)
    if pixels.shape != record.size_hw:
        raise InputError(
            f"{path}: the file is {pixels.shape[0]}x{pixels.shape[1]}, its record says "
            f"{record.size_hw[0]}x{record.size_hw[1]} (height x width); re-run the converter"
        )
    return prepare_image(pixels, image, record.breast_box_xyxy)


class CacheError(InputError):
    """The cache's folder cannot be written."""


class MemoryCache:
    """Prepared images of one data set in memory, by the number of the image."""

    def __init__(self, root: Path, image: ImageConfig) -> None:
        self.root, self.image = root, image
        self.kept: dict[int, Prepared] = {}

    def __call__(self, record: ImageRecord) -> Prepared:
        """The image, prepared now if it was not before."""
        if record.image_id not in self.kept:
            self.kept[record.image_id] = prepare_record(self.root, self.image, record)
        return self.kept[record.image_id]

    def fill(self, records: Sequence[ImageRecord], *, jobs: int, name: str, say: Callable[[str], None]) -> None:
        """Prepare the images in parallel. Raises InputError: with all images that cannot be prepared."""
        make = partial(prepare_record, self.root, self.image)
        for number, made in _in_parallel(make, records, jobs, name, say, self.root):
            self.kept[number] = made
        size = sum(array.nbytes for array, _ in self.kept.values())
        amount = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
        say(f"{name}: {len(self.kept)} images take {amount} of memory")


class DiskCache:
    """Prepared images in a folder, one `.npz` file each, for any number of processes and runs.

    A file's name is a hash of all that decides its content: the image's place, size and time of change, its record, the
    config, and the software's version. So a changed image or config is never answered from an old file. A file that is
    damaged is made anew. Below the data root the cache moves with the data; elsewhere it belongs to this root.
    """

    def __init__(self, folder: Path, root: Path, image: ImageConfig) -> None:
        self.root, self.image = root, image
        versions = [PREPARATION, VERSION, cv2.getVersionString(), version("scikit-image"), np.__version__]
        config = canonical_hash([image.model_dump(mode="json"), versions])
        self.folder = folder / f"{image.max_size}px_{config[:12]}"
        place = root.resolve()
        self.place = None if folder.resolve().is_relative_to(place) else str(place)

    def __call__(self, record: ImageRecord) -> Prepared:
        """The image from its file, which is made if it is missing, outdated or damaged.

        Raises InputError: the image cannot be prepared, or the folder cannot be written.
        """
        path = self.path(record)
        found = _read(path) if path is not None else None
        return found or self._make(record, path)

    def path(self, record: ImageRecord) -> Path | None:
        """The file of an image; None where the image itself is missing."""
        try:
            status = (self.root / record.file_name).stat()
        except OSError:
            return None
        file = [self.place, record.file_name, status.st_size, status.st_mtime_ns]
        return self.folder / f"{canonical_hash([file, record.size_hw, record.breast_box_xyxy])[:40]}.npz"

    def fill(self, records: Sequence[ImageRecord], *, jobs: int, name: str, say: Callable[[str], None]) -> None:
        """Make the files that are missing, in parallel.

        Raises InputError: with all images that cannot be prepared, or a folder that cannot be written.
        """
        missing = [record for record in records if (path := self.path(record)) is None or not path.is_file()]
        say(f"{name}: {len(records) - len(missing)} of {len(records)} images lie in {self.folder}")
        for _ in _in_parallel(self._make_file, missing, jobs, name, say, self.root):
            pass

    def _make_file(self, record: ImageRecord) -> None:
        self._make(record, self.path(record))

    def _make(self, record: ImageRecord, path: Path | None) -> Prepared:
        array, trace = prepare_record(self.root, self.image, record)
        if path is not None:
            try:
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, image=array, trace=np.array(json.dumps(trace.to_json())))
            except OSError as error:
                raise CacheError(
                    f"{self.folder}: prepared images cannot be written there ({error.strerror or error}); name another "
                    "folder with data.cache_dir=..., or do without: data.cache=none"
                ) from None
        return array, trace


def _read(path: Path) -> Prepared | None:
    """A cached image; None where the file is missing or damaged (zip files have checksums)."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["image"], Trace.from_json(json.loads(str(content["trace"])))
    except Exception:  # a damaged file leads to errors of many kinds, and to a new file
        return None


def _in_parallel(
    make: Callable[[ImageRecord], Any],
    records: Sequence[ImageRecord],
    jobs: int,
    name: str,
    say: Callable[[str], None],
    root: Path,
) -> Iterator[tuple[int, Any]]:
    """Number and result of each image, as they are done; all faulty ones are reported at the end."""
    if not records:
        return
    tasks = [(make, record) for record in records]
    results = in_processes(_attempt, tasks, jobs=jobs, name=name, progress=False, option="data.num_workers")
    faults = []
    try:
        for number, made, fault in reported(results, len(tasks), name=name, say=say):
            if fault is None:
                yield number, made
            else:
                faults.append(fault)
    finally:
        if min(jobs, len(tasks)) > 1:
            get_reusable_executor().shutdown(wait=True)  # its processes would keep their memory through the training
    raise_faults(
        faults, where=f"{root}: images cannot be prepared", advice="Mend or replace them; the same command goes on."
    )


def _attempt(make: Callable[[ImageRecord], Any], record: ImageRecord) -> tuple[int, Any, str | None]:
    try:
        return record.image_id, make(record), None
    except CacheError:
        raise
    except InputError as error:
        return record.image_id, None, str(error)
