"""Damaged DICOM files: an image or an `InputError`, in little time and memory, and never the end of the interpreter."""

from __future__ import annotations

import multiprocessing
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1
from small_dicom import compressed, image, jpeg_baseline, jpeg_lossless, save

from mammodet.data.dicom import read_dicom, read_stored
from mammodet.errors import InputError

resource = pytest.importorskip("resource")  # Windows has none

PIXELS = (np.add.outer(np.arange(40) * 37, np.arange(32) * 91) % 4096).astype(np.uint16)
FILES_PER_SEED = 200
OF_PYDICOM = {
    "implicit": "MR_small_implicit.dcm",
    "big_endian": "MR_small_bigendian.dcm",
    "rle": "MR_small_RLE.dcm",
    "jpeg2000": "MR_small_jp2klossless.dcm",
    "jpeg_ls": "MR_small_jpeg_ls_lossless.dcm",
}
#: Words of Python's, that no user can act on.
INTERNAL = re.compile(
    r"[a-z](Error|Exception)\b|'\w+' object|PosixPath|<class|can only|index out of range|unpack requires"
)
OWN = ("sequences", "deflated", "jpeg_lossless", "jpeg_baseline")


def seed_file(folder: Path, name: str) -> bytes:
    """A whole file to damage."""
    if name in OF_PYDICOM:
        return (Path(pydicom.__file__).parent / "data" / "test_files" / OF_PYDICOM[name]).read_bytes()
    path = folder / "seed.dcm"
    if name == "jpeg_lossless":
        save(path, compressed(image(PIXELS, 12), jpeg_lossless(PIXELS, 12)), JPEGLosslessSV1)
    elif name == "jpeg_baseline":
        low = PIXELS.astype(np.uint8)
        save(path, compressed(image(low), jpeg_baseline(low)), JPEGBaseline8Bit)
    else:
        view, table = Dataset(), Dataset()
        view.CodeValue = "R-10242"
        table.LUTDescriptor, table.LUTData = [256, 0, 12], np.arange(256, dtype="<u2").tobytes()
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
        dataset = image(PIXELS, 12, WindowCenter=[2000, 3000], WindowWidth=[100, 200], RescaleSlope=1)
        dataset.ViewCodeSequence, dataset.VOILUTSequence = [view], [table]
        save(path, dataset, DeflatedExplicitVRLittleEndian if name == "deflated" else ExplicitVRLittleEndian)
    return path.read_bytes()


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A copy with one to eight injuries, half of the time only behind the head of the pixel data."""
    split = max(content.find(b"\xe0\x7f\x10\x00"), content.find(b"\x7f\xe0\x00\x10"))
    keep = split + 20 if split > 0 and draw.random() < 0.5 else 0
    copy = bytearray(content[keep:])
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        if not copy:
            break
        at = draw.randrange(min(len(copy), 1600) if draw.random() < 0.4 else len(copy))
        size, other = draw.randrange(1, 64), draw.randrange(len(copy))
        injury = draw.choice(["bit", "byte", "cut", "double", "drop", "length", "swap"])
        if injury == "bit":
            copy[at] ^= 1 << draw.randrange(8)
        elif injury == "byte":
            copy[at] = draw.choice([0, 1, 127, 128, 254, 255, draw.randrange(256)])
        elif injury == "cut":
            del copy[at:]
        elif injury == "double":
            copy[at:at] = copy[at : at + size]
        elif injury == "drop":
            del copy[at : at + size]
        elif injury == "length":
            copy[at : at + 4] = draw.choice(
                [b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xfe\xff\0\xe0"]
            )
        else:
            copy[at : at + 4], copy[other : other + 4] = copy[other : other + 4], copy[at : at + 4]
    return content[:keep] + bytes(copy)


def fuzz_file(
    path: Path, content: bytes, readers: Sequence[Callable[[Path], object]], files: int
) -> tuple[Counter[str], float, float]:
    """Read damaged copies: how many were read and refused, the slowest in CPU seconds, and memory's growth in MB."""
    counts: Counter[str] = Counter()
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(files):
        path.write_bytes(damaged(content, random.Random(f"{path.stem} {number}")))
        start = time.process_time()
        for read in readers:
            try:
                read(path)
                counts["read"] += 1
            except InputError as error:
                counts["refused"] += 1
                if INTERNAL.search(str(error)):
                    raise RuntimeError(f"{path.name} {number}: {error}") from None
            except BaseException as error:  # what a Rust panic raises is no Exception
                raise RuntimeError(f"{path.name} {number}: {error!r}") from None
        slowest = max(slowest, time.process_time() - start)
    return counts, slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def pool_of_one() -> ProcessPoolExecutor:
    """Another process: a decoder that crashes breaks it, and so fails its test, instead of ending the test run."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    with pool_of_one() as pool:
        yield pool


@pytest.mark.parametrize("name", [*OF_PYDICOM, *OWN])
def test_damaged_files_are_read_or_refused(name, tmp_path, other_process):
    arguments = tmp_path / f"{name}.dcm", seed_file(tmp_path, name), (read_dicom, read_stored), FILES_PER_SEED
    counts, slowest, growth_mb = other_process.submit(fuzz_file, *arguments).result()
    assert counts["read"] + counts["refused"] == 2 * FILES_PER_SEED
    assert min(counts["read"], counts["refused"]) >= FILES_PER_SEED // 20  # else it is not the decoder that is tried
    assert slowest < 5
    assert growth_mb < 400


def test_damage_is_reproducible_and_real():
    content = bytes(range(256)) * 8
    assert damaged(content, random.Random(5)) == damaged(content, random.Random(5))
    assert sum(damaged(content, random.Random(n)) != content for n in range(50)) > 45
