"""Damaged image files: an image or an `InputError`, in little time and memory, and never the end of the interpreter."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom_fuzz import fuzz_file, pool_of_one

from mammodet.data.images import read_image, read_size_hw

RNG = np.random.default_rng(0)
EIGHT = np.repeat(RNG.integers(0, 256, (12, 10), dtype=np.uint8), 4, axis=0)
SIXTEEN = RNG.integers(0, 65536, (30, 40), dtype=np.uint16)
FILES = 300
KINDS = ("exif.jpg", "progressive.jpg", "exif.png", "deflate.tif", "plain.tif", "bmp", "pgm", "ascii.pgm")


def seed_file(kind: str) -> bytes:
    """A whole file to damage; Exif and TIFF tags say that it is turned."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "scanner"
    grey = Image.fromarray(EIGHT)
    if kind == "exif.jpg":
        grey.save(content, "JPEG", exif=exif)
    elif kind == "progressive.jpg":
        Image.merge("RGB", [grey] * 3).save(content, "JPEG", progressive=True, restart_marker_blocks=2, exif=exif)
    elif kind == "exif.png":
        Image.fromarray(SIXTEEN).save(content, "PNG", exif=exif)
    elif kind.endswith(".tif"):
        compression = "tiff_adobe_deflate" if kind == "deflate.tif" else None
        Image.fromarray(SIXTEEN).save(content, "TIFF", compression=compression, tiffinfo={274: 8, 262: 1})
    elif kind == "bmp":
        grey.save(content, "BMP")
    elif kind == "pgm":
        return b"P5\n# scanned\n40 30\n65535\n" + SIXTEEN.byteswap().tobytes()
    else:
        return b"P2 10 48 255\n" + b" ".join(str(value).encode() for value in EIGHT.ravel().tolist())
    return content.getvalue()


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    with pool_of_one() as pool:
        yield pool


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_read_or_refused(kind, tmp_path: Path, other_process):
    path, content = tmp_path / f"x.{kind.rpartition('.')[2]}", seed_file(kind)
    arguments = path, content, (read_size_hw, read_image), FILES
    counts, slowest, growth_mb = other_process.submit(fuzz_file, *arguments).result()
    assert counts["read"] + counts["refused"] == 2 * FILES
    assert min(counts["read"], counts["refused"]) >= FILES // 20
    assert slowest < 5
    assert growth_mb < 400
