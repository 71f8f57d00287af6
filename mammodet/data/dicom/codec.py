"""Stored pixel values of a DICOM file: plain, or decoded by pydicom's plugins after the codestream was checked.

The C decoders believe what a codestream says of itself, so that a few bytes can make them reserve gigabytes, or give an
image of another size. So each codestream is compared with the header (size, components, precision, end marker) before
a decoder sees it.
"""

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGTransferSyntaxes,
    RLELossless,
)

from mammodet.data.dicom.file import UNDEFINED_LENGTH, DicomFile, PixelElement, quiet
from mammodet.data.dicom.j2k import check_j2k
from mammodet.data.headers import MOST_PIXELS, MOST_PIXELS_PER_BYTE
from mammodet.data.jpeg import JPEG_LS, LOSSLESS, JpegScans, check_lossless, read_head, read_scans
from mammodet.errors import InputError

# By transfer syntax: the start-of-frame markers (ITU-T T.81 table B.1; T.87 for JPEG-LS) that it allows, and pydicom's
# decoding plugins, of which the first that is installed and can is taken. pylibjpeg reads JPEG by libjpeg, which is
# under the GPL and an extra, and JPEG 2000 by OpenJPEG, which is not.
_SYNTAXES: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    JPEGBaseline8Bit: ((0xC0,), ("pillow", "pylibjpeg")),
    JPEGExtended12Bit: ((0xC0, 0xC1), ("pillow", "pylibjpeg")),
    JPEGLossless: ((LOSSLESS,), ("gdcm", "pylibjpeg")),
    JPEGLosslessSV1: ((LOSSLESS,), ("gdcm", "pylibjpeg")),
    JPEGLSLossless: ((JPEG_LS,), ("pyjpegls", "pylibjpeg")),
    JPEGLSNearLossless: ((JPEG_LS,), ("pyjpegls", "pylibjpeg")),
    RLELossless: ((), ("pydicom",)),  # pylibjpeg's panics on damaged streams with what is no Exception
    **dict.fromkeys(JPEG2000TransferSyntaxes, ((), ("pylibjpeg",))),
}
_PACKAGES = {
    "gdcm": "python-gdcm",
    "pyjpegls": "pyjpegls",
    "pylibjpeg": "pylibjpeg pylibjpeg-openjpeg",
    "libjpeg": "pylibjpeg pylibjpeg-libjpeg (under the GPL 3)",
}


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """How the file says that its pixels are stored (PS3.3 C.7.6.3); already known to be free of contradictions."""

    size_hw: tuple[int, int]
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str

    @property
    def lowest(self) -> int:
        """Smallest value that the stored bits can hold."""
        return -(1 << self.bits_stored - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest value that the stored bits can hold."""
        return self.lowest + (1 << self.bits_stored) - 1

    @property
    def pixel_count(self) -> int:
        """Rows times columns."""
        return self.size_hw[0] * self.size_hw[1]


@dataclass(frozen=True, slots=True)
class Frame:
    """The pixel data of a file, compared with its header and not yet decoded; the file may be closed."""

    path: Path
    syntax: UID
    stored: StoredFormat
    #: plain pixels with their padding; or, of a compressed file, one codestream without the wrapping of a JP2 file or
    #: of fragments.
    value: bytes
    value_vr: str  #: VR of the pixel data, OW where the file states none
    #: bits of a value as a JPEG or JPEG 2000 codestream states them; None of plain and RLE pixels.
    precision: int | None = None
    scans: JpegScans | None = None  #: of a JPEG codestream


def read_frame(file: DicomFile, stored: StoredFormat) -> Frame:
    """The pixel data as they are stored.

    Raises InputError: no pixel data, cut short, an unknown or unsupported transfer syntax, or a codestream that is
    damaged or contradicts the header.
    """
    element = pixel_element(file)
    value_vr = element.vr or "OW"
    if element.length == UNDEFINED_LENGTH:
        return _compressed_frame(file, element, stored, value_vr)
    return Frame(file.path, file.syntax, stored, _plain_value(file, element, stored), value_vr)


def decode(frame: Frame) -> NDArray[Any]:
    """Stored values, uint8, int8, uint16 or int16 (height, width), in this machine's byte order.

    Raises InputError: the codestream is damaged, or its pixels contradict the header.
    """
    pixels, scans = _decoded(frame, frame.value), frame.scans
    if scans and scans.head.frame != LOSSLESS and not np.array_equal(pixels, _decoded(frame, scans.filled)):
        raise InputError(f"{frame.path}: is cut short: the scans of the JPEG stream do not hold all pixels")
    return _checked(frame, pixels)


def decode_reduced(frame: Frame, side: int) -> NDArray[Any] | None:
    """Stored values of fewer pixels, at least `side` of them on the longer side: for a first look, and unchecked.

    JPEG 2000 streams hold images of a half, a quarter, ... of the size, which are decoded in a fraction of the time.
    None of other files, signed values, and streams that hold no smaller image or are damaged.
    """
    halvings, bits = int(math.log2(max(frame.stored.size_hw) / side)), frame.precision or 0
    if frame.syntax not in JPEG2000TransferSyntaxes or frame.stored.signed or frame.value[42] & 128 or halvings < 1:
        return None
    try:
        with Image.open(io.BytesIO(frame.value), formats=("JPEG2000",)) as image:
            image.reduce = halvings  # type: ignore[method-assign, assignment]  # of JPEG 2000, before it is loaded
            pixels = np.asarray(image)
    except Exception:  # the decoder meets hostile bytes here; `decode` says what is wrong with them
        return None
    # Pillow shifts values of 9 to 15 bits to the top of 16.
    return np.minimum(pixels >> (8 * pixels.itemsize - bits if bits > 8 else 0), frame.stored.highest)


def decode_lossless_jpeg(path: Path, stream: bytes) -> NDArray[Any]:
    """Values, uint8 or uint16 (height, width), of a grey lossless JPEG stream that no DICOM file wraps.

    Raises InputError: the stream is damaged, cut short, too large, or of another kind.
    """
    try:
        head = read_head(stream)
    except ValueError as error:
        raise InputError(f"{path}: is damaged or no JPEG stream: {error}") from None
    stored = StoredFormat(head.size_hw, 16, head.precision, False, "MONOCHROME2")
    if stored.pixel_count > MOST_PIXELS:
        raise InputError(f"{path}: states {head.size_hw} pixels (height, width); at most {MOST_PIXELS} are read")
    _check_weight(path, stream, stored, JPEGLossless)
    precision, scans = _check_jpeg(path, stream, stored, JPEGLossless)
    return decode(Frame(path, JPEGLossless, stored, stream, "OW", precision, scans))


def _decoded(frame: Frame, stream: bytes) -> NDArray[Any]:
    stored, syntax = frame.stored, frame.syntax
    options: dict[str, Any] = {
        "rows": stored.size_hw[0],
        "columns": stored.size_hw[1],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": stored.bits_allocated,
        "bits_stored": stored.bits_stored,
        "pixel_representation": int(stored.signed),
        "photometric_interpretation": stored.photometric,
        "pixel_keyword": "PixelData",
        "view_only": True,  # no copy of uncompressed pixels
        "pixel_vr": frame.value_vr,
    }
    plugin = ""
    if syntax.is_encapsulated:
        plugin = _plugin(frame.path, syntax, frame.precision)
        stream = encapsulate([stream], has_bot=False)
    if plugin == "gdcm":  # ends the program where stream and header differ, and on less than 8 bits
        bits = max(frame.precision or 0, 8)
        if stored.signed and bits != max(stored.bits_stored, 8):
            raise InputError(
                f"{frame.path}: its signed values have {frame.precision} bits in the JPEG stream, {stored.bits_stored} "
                "in the header; what they mean is not known"
            )
        options |= {"bits_allocated": 8 if bits == 8 else 16, "bits_stored": bits}
    # A decoder meets hostile bytes here and may raise anything.
    try:
        with quiet:
            found = get_decoder(syntax).as_array(stream, index=0, raw=True, decoding_plugin=plugin, **options)[0]
    except Exception as error:
        raise InputError(
            f"{frame.path}: the pixel data cannot be decoded as {syntax.name}; they are damaged"
        ) from error
    return found


def _plugin(path: Path, syntax: UID, precision: int | None) -> str:
    """The plugin that decodes a compressed stream; an `InputError` where none that can is installed."""
    _, able = _SYNTAXES[syntax]
    if able[0] == "pillow" and precision != 8:
        able = able[1:]
    for plugin in able:
        if plugin in get_decoder(syntax).available_plugins:
            return plugin
    package = "libjpeg" if able[0] == "pylibjpeg" and syntax not in JPEG2000TransferSyntaxes else able[0]
    raise InputError(f"{path}: no decoder for {syntax.name} of {precision} bits; pip install {_PACKAGES[package]}")


def pixel_element(file: DicomFile) -> PixelElement:
    """Where the pixels lie; an `InputError` where there are none."""
    if file.ends_inside:
        raise InputError(f"{file.path}: is cut short: the file ends inside its header, before any pixel data")
    if file.pixels is None:
        raise InputError(f"{file.path}: has no pixel data; it was cut short, or is a header alone")
    if file.pixels.tag != 0x7FE00010:
        raise InputError(f"{file.path}: holds floating-point pixel data; expected integers (7FE0,0010)")
    return file.pixels


def _checked(frame: Frame, pixels: NDArray[Any]) -> NDArray[Any]:
    """Decoded pixels in this machine's byte order; an `InputError` where they contradict the header."""
    path, stored = frame.path, frame.stored
    if pixels.shape != stored.size_hw:
        raise InputError(f"{path}: the pixel data decode to {pixels.shape}; the header says {stored.size_hw}")
    low, high = int(pixels.min()), int(pixels.max())
    if low < stored.lowest or high > stored.highest:
        raise InputError(
            f"{path}: pixel values reach from {low} to {high}; {stored.bits_stored} bits stored "
            f"({'signed' if stored.signed else 'unsigned'}) hold {stored.lowest} to {stored.highest}"
        )
    if frame.scans and frame.scans.head.frame == LOSSLESS:
        try:
            check_lossless(frame.value, frame.scans, pixels)
        except ValueError as error:
            raise InputError(f"{path}: is cut short or damaged: of the JPEG stream, {error}") from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _plain_value(file: DicomFile, element: PixelElement, stored: StoredFormat) -> bytes:
    if file.syntax.is_encapsulated:
        raise InputError(
            f"{file.path}: the pixel data are not compressed (they have a length), although the transfer syntax is "
            f"{file.syntax.name}; the file is mislabelled"
        )
    expected = stored.pixel_count * stored.bits_allocated // 8
    found = min(element.length, element.bytes_left)
    if found < expected:
        height, width = stored.size_hw
        raise InputError(
            f"{file.path}: is cut short: {found} bytes of pixel data, expected {expected} "
            f"({height} rows x {width} columns x {stored.bits_allocated} bits)"
        )
    if found >= 2 * expected:
        raise InputError(
            f"{file.path}: holds {found} bytes of pixel data, those of {found // expected} frames, and states one "
            "frame; it is damaged"
        )
    file.stream.seek(element.offset)
    # With the padding byte of an odd length: in big-endian files of 16-bit words it is the last pixel.
    return file.stream.read(min(expected + expected % 2, found))


def _compressed_frame(file: DicomFile, element: PixelElement, stored: StoredFormat, value_vr: str) -> Frame:
    """The bare codestream, and what it states."""
    if not file.syntax_stated:
        raise InputError(f"{file.path}: its pixel data are compressed; it has no transfer syntax that says how")
    if not file.syntax.is_encapsulated:
        raise InputError(
            f"{file.path}: the pixel data are compressed (they have no length), although the transfer syntax is "
            f"{file.syntax.name}; the file is mislabelled"
        )
    if file.syntax not in _SYNTAXES:
        raise InputError(
            f"{file.path}: the transfer syntax {file.syntax.name} ({file.syntax}) is not read here; expected an "
            "uncompressed file, JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 or RLE. Convert it, e.g. with "
            "gdcmconv --raw."
        )
    file.stream.seek(element.offset)
    frame = _fragments(file.path, file.stream, element.bytes_left, 2**20 + 4 * stored.pixel_count)
    _check_weight(file.path, frame, stored, file.syntax)
    precision, scans = None, None
    if file.syntax in JPEG2000TransferSyntaxes:
        frame = check_j2k(file.path, frame, stored.size_hw, stored.bits_allocated)
        precision = (frame[42] & 127) + 1  # Ssiz, ITU-T T.800 A.5.1
    elif _SYNTAXES[file.syntax][0]:
        precision, scans = _check_jpeg(file.path, frame, stored, file.syntax)
    else:
        _check_rle(file.path, frame, stored)
    _plugin(file.path, file.syntax, precision)
    return Frame(file.path, file.syntax, stored, frame, value_vr, precision, scans)


def _fragments(path: Path, stream: BinaryIO, bytes_left: int, most: int) -> bytes:
    """The one frame of encapsulated pixel data, its fragments joined (PS3.5 A.4)."""
    parts: list[bytes] = []
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise InputError(f"{path}: is cut short: the compressed pixel data have no end")
        group, element, length = struct.unpack("<HHL", head)
        bytes_left -= 8
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000):
            raise InputError(
                f"{path}: the compressed pixel data are damaged: element ({group:04X},{element:04X}) stands where a "
                "fragment is expected"
            )
        if length > bytes_left:
            raise InputError(
                f"{path}: is cut short: a fragment of the pixel data should have {length} bytes, {bytes_left} are left"
            )
        most -= length
        if most < 0:
            raise InputError(f"{path}: its compressed pixel data are larger than its pixels; it is damaged")
        parts.append(stream.read(length))
        bytes_left -= length
    frame = b"".join(parts[1:])  # the first is the offset table
    if not frame:
        raise InputError(f"{path}: the compressed pixel data are empty")
    return frame


def _check_weight(path: Path, frame: bytes, stored: StoredFormat, syntax: UID) -> None:
    """Refuse streams that cannot hold their pixels, or could only as a bomb."""
    most_per_byte: float = MOST_PIXELS_PER_BYTE
    if syntax == RLELossless:
        most_per_byte = 64 / (stored.bits_allocated // 8)  # 2 bytes make at most 128
    elif _SYNTAXES[syntax][0] == (LOSSLESS,):
        most_per_byte = 8  # a bit per pixel
    elif syntax in JPEGTransferSyntaxes:
        most_per_byte = 256  # two bits per block of 64
    elif stored.pixel_count <= 2**25:
        return
    if len(frame) * most_per_byte < stored.pixel_count:
        raise InputError(
            f"{path}: {len(frame)} bytes of compressed pixel data cannot hold the {stored.pixel_count} pixels that the "
            "header states; the file is damaged or cut short"
        )


def _check_jpeg(path: Path, frame: bytes, stored: StoredFormat, syntax: UID) -> tuple[int, JpegScans | None]:
    """Compare a JPEG or JPEG-LS stream with the header; its precision in bits, and its scans."""
    if frame[:2] == b"\xff\xd8" and b"\xff\xd9" not in frame[-16:]:  # a few bytes of padding may follow
        raise InputError(f"{path}: is cut short: a JPEG stream without its end marker")
    try:
        head = read_head(frame)
        if head.frame not in _SYNTAXES[syntax][0]:
            raise ValueError(f"frame type {head.frame:02X} is not {syntax.name}")
        if head.size_hw != stored.size_hw:
            raise ValueError(
                f"it is {head.size_hw[0]} rows x {head.size_hw[1]} columns; the header says {stored.size_hw[0]} x "
                f"{stored.size_hw[1]}"
            )
        if len(head.components) != 1:
            raise ValueError(f"it has {len(head.components)} components; expected one grey channel")
        if not 2 <= head.precision <= stored.bits_allocated:
            raise ValueError(f"its precision is {head.precision} bits; {stored.bits_allocated} are allocated")
        # CharLS itself refuses JPEG-LS streams that lack data.
        return head.precision, None if head.frame == JPEG_LS else read_scans(frame, head)
    except ValueError as error:
        raise InputError(f"{path}: the JPEG stream is damaged or does not fit the header: {error}") from None


def _check_rle(path: Path, frame: bytes, stored: StoredFormat) -> None:
    """Compare the header of an RLE frame (PS3.5 G.5) with what is expected."""
    expected = stored.bits_allocated // 8
    if len(frame) < 64:
        raise InputError(f"{path}: is cut short: an RLE frame of {len(frame)} bytes, shorter than its 64-byte header")
    count, *offsets = struct.unpack("<16L", frame[:64])
    if count != expected:
        raise InputError(f"{path}: the RLE frame has {count} segments; {stored.bits_allocated} bits need {expected}")
    used = offsets[:count]
    if used[0] != 64 or sorted(set(used)) != used or used[-1] >= len(frame):
        raise InputError(f"{path}: the RLE frame is damaged: its segments begin at {used} of {len(frame)} bytes")
