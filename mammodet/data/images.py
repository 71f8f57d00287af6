"""Read mammograms from image files, without loss of depth; DICOM files by `mammodet.data.dicom`.

One convention: a two-dimensional array in the file's own integer depth, uint8 or uint16, upright, tissue bright.
`to_unit` makes of it float32 in [0, 1], where 1 is the largest value the depth can hold, so that 8- and 16-bit files
meet on one scale. Pixels, sizes and annotations are all in the frame of the upright picture, which viewers show.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodet.data.headers import ImageHeader, read_image_header, read_pnm, upright
from mammodet.data.jpeg import JpegScans, read_scans
from mammodet.errors import InputError
from mammodet.files import atomic_path, check_is_file

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (".png", ".pgm", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_COPIES = (".bak", ".old", ".orig", ".tmp", ".part")

# On mammograms of 8 and 16 bit twice as fast as OpenCV's default and smaller than it.
_PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]

Pixels = NDArray[Any]  # uint8 or uint16; NumPy has no name for just these two


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: by its suffix; or it has no suffix of an image, and `DICM` at byte 128.

    Archives name files `IM-0001`, or by a UID, whose last number is no suffix. Copies that editors left are not meant.
    """
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix in (*IMAGE_SUFFIXES, *_COPIES) or path.name.endswith("~") or path.name.upper() == "DICOMDIR":
        return False
    try:
        check_is_file(path)
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (InputError, OSError):
        return False


def is_image(path: Path) -> bool:
    """Whether a file is one that `read_image` reads, by its suffix or as `is_dicom` tells."""
    return path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path)


def read_image(path: Path) -> Pixels:
    """Read one grey image.

    A colour file is taken when its channels are equal, else its luminance is (ITU-R BT.601); alpha is dropped. It is
    turned upright as Exif or TIFF say, and inverted where they say that the lowest value is white. A DICOM file comes
    through its window, tissue bright.

    Returns:
        uint8 or uint16 (height, width).
    Raises:
        InputError: the file is missing, empty, cut short, too large, or of a kind or depth that is not read here.
    """
    path = Path(path)
    if is_dicom(path):
        from mammodet.data.dicom import read_dicom  # here, since importing pydicom takes longer than reading a PNG

        return read_dicom(path)[0]
    return to_grey(read_pixels(path))


def read_size_hw(path: Path) -> tuple[int, int]:
    """(height, width) of an image or DICOM file from its header, upright, without decoding its pixels.

    Raises InputError: the file is missing, or its header cannot be read.
    """
    path = Path(path)
    if is_dicom(path):
        from mammodet.data.dicom import read_header

        return read_header(path).size_hw
    with _opened(path) as (_, header):
        return header.size_hw


def read_orientation(path: Path) -> int:
    """How an image file's picture is stored, 1 to 8 as Exif and TIFF count; 1, upright, of DICOM files.

    Raises InputError: as `read_size_hw`.
    """
    if is_dicom(path):
        return 1
    with _opened(path) as (_, header):
        return header.orientation


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, ImageHeader]]:
    """An image file and its header."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        expected = ", ".join((*IMAGE_SUFFIXES, *DICOM_SUFFIXES))
        raise InputError(f"{path}: cannot read '{path.suffix}' files; expected one of {expected}")
    check_is_file(path, "an image")
    try:
        # Not cv2.imread: it answers None for a missing file, and on Windows for a name with non-ASCII letters.
        with open(path, "rb") as file:
            header = read_image_header(path, file, path.stat().st_size)
            yield file, header
    except OSError as error:  # no permission, a broken disk
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_pixels(path: Path) -> Pixels:
    """Pixels of an image file, upright, with the highest value white, and in its colours.

    Returns:
        uint8 or uint16 (height, width), or (height, width, channels) in the order BGR.
    Raises:
        InputError: as `read_image`.
    """
    with _opened(path) as (file, header):
        file.seek(0)
        content = file.read()
    if header.kind == "PNM":
        return read_pnm(path, content, header)
    scans = _read_scans(path, content, header)
    if header.compressed:  # of 8 bits OpenCV fills up what a strip lacks
        _by_pillow(path, content, header.kind)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({error.err})") from None
    if pixels is None:
        raise InputError(f"{path}: cannot be decoded; the file is damaged or not what its name says")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {pixels.dtype}; expected 8- or 16-bit unsigned integers")
    if scans is not None:
        _check_scans(path, content, scans.filled, pixels)
    if header.kind != "TIFF":  # OpenCV has turned those
        pixels = upright(pixels, header.orientation)
    if pixels.shape[:2] != header.size_hw:
        raise InputError(f"{path}: is decoded to {pixels.shape[:2]} pixels; its header says {header.size_hw}")
    return np.bitwise_not(pixels) if header.inverted else pixels


def _read_scans(path: Path, content: bytes, header: ImageHeader) -> JpegScans | None:
    if header.jpeg is None:
        return None
    try:
        return read_scans(content, header.jpeg)
    except ValueError as error:
        raise InputError(f"{path}: is cut short or damaged: in the JPEG, {error}") from None


def _check_scans(path: Path, content: bytes, filled: bytes, pixels: Pixels) -> None:
    """Refuse a JPEG whose scans lack data, which its decoder has made grey (`mammodet.data.jpeg`)."""
    shown = _by_pillow(path, filled, "JPEG")
    # The two decoders may differ by a grey level where they convert colours.
    if not np.array_equal(shown, pixels) and not np.array_equal(shown, _by_pillow(path, content, "JPEG")):
        raise InputError(f"{path}: is cut short: the scans of the JPEG do not hold all pixels")


def _by_pillow(path: Path, content: bytes, kind: str) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Exif data
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                pixels = np.asarray(image)
    except Exception as error:  # the decoder meets hostile bytes here
        raise InputError(f"{path}: cannot be decoded, it is damaged or cut short ({str(error)[:200]})") from None
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def to_grey(pixels: NDArray[Any]) -> Pixels:
    """The channel that all are equal to, else the luminance (ITU-R BT.601); alpha is dropped."""
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
