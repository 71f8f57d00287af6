"""Read mammograms from image files, without loss of depth; DICOM files by `mammodet.data.dicom`.

One convention: a two-dimensional array in the file's own integer depth, uint8 or uint16. `to_unit` makes of it float32
in [0, 1], where 1 is the largest value the depth can hold, so that 8- and 16-bit files meet on one scale.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodet.errors import InputError
from mammodet.files import atomic_path

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".pgm", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_PGM_HEADER = re.compile(
    rb"P5\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s"
)

# On mammograms of 8 and 16 bit twice as fast as OpenCV's default and smaller than it (benchmarks/write_png.py).
_PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]

Pixels = NDArray[Any]  # uint8 or uint16; NumPy has no name for just these two


def read_image(path: Path) -> Pixels:
    """Read one grey image.

    A colour file is taken when its channels are equal, else its luminance is (ITU-R BT.601); alpha is dropped. A DICOM
    file comes through its window, tissue bright.

    Returns:
        uint8 or uint16 (height, width).
    Raises:
        InputError: the file is missing, empty, cut short, or of a kind or depth that is not read here.
    """
    path = Path(path)
    if path.suffix.lower() in DICOM_SUFFIXES:
        from mammodet.data.dicom import read_dicom  # here, since importing pydicom takes longer than reading a PNG

        return read_dicom(path)[0]
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        expected = ", ".join((*IMAGE_SUFFIXES, *DICOM_SUFFIXES))
        raise InputError(f"{path}: cannot read '{path.suffix}' files; expected one of {expected}")
    try:
        # Not cv2.imread: it answers None for a missing file, and on Windows for a name with non-ASCII letters.
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected an image file") from None
    except (OSError, ValueError) as error:  # no permission, a name too long or with a NUL, a broken disk
        raise InputError(f"{path}: cannot be read ({error})") from None
    _check_whole(path, content)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({error.err})") from None
    if pixels is None:
        raise InputError(f"{path}: cannot be decoded; the file is damaged or not what its name says")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {pixels.dtype}; expected 8- or 16-bit unsigned integers")
    return _to_grey(pixels)


def read_size_hw(path: Path) -> tuple[int, int]:
    """(height, width) of an image or DICOM file from its header, without decoding its pixels.

    Raises:
        InputError: the file is missing, or its header cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() in DICOM_SUFFIXES:
        from mammodet.data.dicom import read_header

        return read_header(path).size_hw
    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: its header cannot be read ({error})") from None
    return height, width


def _check_whole(path: Path, content: bytes) -> None:
    """Refuse what a decoder would silently fill up: files that end before their pixels do."""
    if not content:
        raise InputError(f"{path}: the file is empty")
    # By the content's own mark: files carry wrong suffixes.
    if content[:2] == b"P5":
        header = _PGM_HEADER.match(content)
        if header is None:
            raise InputError(f"{path}: the PGM header is damaged: {content[:20]!r}")
        width, height, most = (int(number) for number in header.groups())
        expected = width * height * (2 if most > 255 else 1)
        found = len(content) - header.end()
        if found < expected:
            raise InputError(f"{path}: is cut short: {found} bytes of pixels, expected {expected} ({width}x{height})")
    if content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-4096:]:
        raise InputError(f"{path}: is cut short: a JPEG without its end marker")
    if content[:8] == b"\x89PNG\r\n\x1a\n" and b"IEND" not in content[-4096:]:
        raise InputError(f"{path}: is cut short: a PNG without its end chunk")


def _to_grey(pixels: NDArray[Any]) -> Pixels:
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 2:  # grey and alpha
        return np.ascontiguousarray(pixels[..., 0])
    colour = pixels[..., :3]
    first = np.ascontiguousarray(colour[..., 0])
    if np.array_equal(first, colour[..., 1]) and np.array_equal(first, colour[..., 2]):
        return first
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_BGR2GRAY))


def to_unit(pixels: Pixels) -> NDArray[np.float32]:
    """Integer pixels on the scale [0, 1] of their depth: 255 or 65535 becomes 1; float32 holds all 16 bits."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def to_display(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels for a screen: uint8, stretched so that the brightest thousandth is white."""
    if pixels.dtype == np.uint8:
        return pixels
    high = max(float(np.quantile(pixels[::4, ::4], 0.999)), 1.0)
    return np.clip(pixels.astype(np.float32) * (255.0 / high) + 0.5, 0, 255).astype(np.uint8)


def write_png(path: Path, pixels: Pixels) -> None:
    """Write a grey (height, width) or an RGB (height, width, 3) PNG, lossless, whole or not at all."""
    _write(path, ".png", pixels, _PNG_OPTIONS)


def write_jpeg(path: Path, pixels: Pixels, *, quality: int = 95) -> None:
    """Write a grey (height, width) or an RGB (height, width, 3) JPEG of 8 bit, whole or not at all.

    16-bit pixels lose their lower 8 bits, and all pixels some more to the compression.
    """
    _write(
        path,
        ".jpg",
        (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels,
        [cv2.IMWRITE_JPEG_QUALITY, quality],
    )


def _write(path: Path, suffix: str, pixels: Pixels, options: list[int]) -> None:
    array = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    good, content = cv2.imencode(suffix, np.ascontiguousarray(array), options)
    if not good:
        raise ValueError(f"{path}: an array of {pixels.shape} {pixels.dtype} cannot be written as {suffix[1:]}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.tobytes())
