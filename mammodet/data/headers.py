"""What an image file's header says: its kind, size and orientation, before anything is decoded.

Everything is read by the content's own marks, since files carry wrong suffixes, and bounded: no size is believed that
the file cannot hold.
"""

import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodet.data.jpeg import PROGRESSIVE, SEQUENTIAL, JpegHead, read_head
from mammodet.errors import InputError

MOST_PIXELS = 2**26  # 8192 x 8192; the largest scans of films have 40 million
MOST_BYTES = 2**28  # of decoded pixels
MOST_FILE_BYTES = 2**29
#: Beyond 2**25 pixels a file must weigh something: a byte for as many pixels.
MOST_PIXELS_PER_BYTE = 128
_MOST_PNG_CHUNKS = 2**17
_PNM = re.compile(rb"P([2356])(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s")
#: TIFF compressions whose decoders report missing data: none, LZW, deflate (old and new), PackBits.
_TIFF_COMPRESSIONS = (1, 5, 8, 32946, 32773)
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a header says."""

    kind: str  #: JPEG, PNG, TIFF, PNM or BMP
    stored_hw: tuple[int, int]  #: (height, width) as the pixels are stored
    orientation: int = 1  #: 1 to 8, as Exif and TIFF count: how the stored picture lies; 1 is upright
    inverted: bool = False  #: whether the lowest value is white in what the decoder gives
    #: highest, data_at: of a PNM file the value of white, and where its pixels begin.
    highest: int = 255
    data_at: int = 0
    jpeg: JpegHead | None = None  #: of a JPEG file
    compressed: bool = False  #: of a TIFF file, whether its pixels are

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        return self.stored_hw[::-1] if self.orientation >= 5 else self.stored_hw


def read_image_header(path: Path, file: BinaryIO, size: int) -> ImageHeader:
    """Read the header of a file of `size` bytes that is open at its beginning.

    Raises InputError: it is of no kind that is read here, damaged, cut short, too large, or holds several pictures.
    """
    if size > MOST_FILE_BYTES:
        raise InputError(f"{path}: has {size} bytes; expected an image of at most {MOST_FILE_BYTES}")
    magic = file.read(8)
    file.seek(0)
    if not magic:
        raise InputError(f"{path}: the file is empty")
    if magic[:2] == b"\xff\xd8":
        return _jpeg(path, file.read(), size)
    if magic == b"\x89PNG\r\n\x1a\n":
        return _png(path, file, size)
    if magic[:1] == b"P" and magic[1:2].isalnum():
        return _pnm(path, file, size)
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(path, file, size)
    if magic[:2] == b"BM":
        return _bmp(path, file, size)
    raise InputError(
        f"{path}: cannot be decoded: it begins with {magic!r}, as no JPEG, PNG, TIFF, PNM or BMP file does; the "
        "file is damaged or not what its name says"
    )


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels (height, width, ...) turned upright; orientations are counted 1 to 8 as in Exif and TIFF."""
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if right else 1])


def _check_bounds(path: Path, stored_hw: tuple[int, int], pixel_bytes: int, size: int, per_byte: float | None) -> None:
    """Refuse sizes that a decoder would reserve memory for, but the file cannot hold, or could only as a bomb."""
    height, width = stored_hw
    pixels = height * width
    if not pixels:
        raise InputError(f"{path}: cannot be decoded: it states {height} rows x {width} columns")
    if pixels > MOST_PIXELS or pixels * pixel_bytes > MOST_BYTES:
        raise InputError(
            f"{path}: states {height} rows x {width} columns of {pixel_bytes} bytes; expected at most {MOST_PIXELS} "
            f"pixels and {MOST_BYTES} bytes; make it smaller"
        )
    if per_byte is None:
        per_byte = MOST_PIXELS_PER_BYTE if pixels > 2**25 else pixels
    if size * per_byte < pixels:
        raise InputError(
            f"{path}: {size} bytes cannot hold the {height} rows x {width} columns that it states; the file is damaged "
            "or cut short"
        )


def _jpeg(path: Path, content: bytes, size: int) -> ImageHeader:
    try:
        head = read_head(content)
    except ValueError as error:
        raise InputError(f"{path}: the JPEG is damaged or cut short: {error}") from None
    if head.frame not in (*SEQUENTIAL, PROGRESSIVE) or head.precision != 8 or len(head.components) not in (1, 3):
        raise InputError(
            f"{path}: is a JPEG of frame type {head.frame:02X}, {head.precision} bits and {len(head.components)} "
            "components; expected baseline or progressive, 8 bits, grey or RGB"
        )
    # A block of 64 takes two bits at least; in progressive streams one, and runs of blocks.
    per_byte = 1024 if head.frame == PROGRESSIVE else 256
    _check_bounds(path, head.size_hw, len(head.components), size, per_byte)
    return ImageHeader("JPEG", head.size_hw, _exif_orientation(path, head.exif), jpeg=head)


def _exif_orientation(path: Path, exif: bytes | None) -> int:
    if exif is None:
        return 1
    found = Image.Exif()
    try:
        with warnings.catch_warnings(record=True) as damage:
            warnings.simplefilter("always")
            found.load(exif)
            value = found.get(_ORIENTATION)
        if value is None and damage:
            raise ValueError(str(damage[0].message))
    except Exception as error:  # the parser meets hostile bytes here
        raise InputError(
            f"{path}: its Exif data cannot be read ({str(error)[:80]}), so that it is not known how the picture "
            "lies; save it again, or remove the Exif data"
        ) from None
    return _orientation(path, value)


def _orientation(path: Path, value: Any) -> int:
    if value in (None, 0):  # 0 is what writers put who do not know
        return 1
    if not (isinstance(value, int) and 1 <= value <= 8):
        raise InputError(f"{path}: its orientation (tag 274) is {str(value)[:40]!r}; expected 1 to 8. Save it upright.")
    return value


def _png(path: Path, file: BinaryIO, size: int) -> ImageHeader:
    """Walk through the chunks (PNG, third edition, 5.3)."""
    at, exif, header, ended, animated, has_profile = 8, None, b"", False, False, False
    for _ in range(_MOST_PNG_CHUNKS):
        file.seek(at)
        length, name = struct.unpack(">L4s", file.read(8).ljust(8, b"\0"))
        if name in (b"IHDR", b"eXIf") and length < 2**20:
            body = file.read(length)
            header, exif = (body, exif) if name == b"IHDR" else (header, body)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            has_profile |= file.read(min(length, 17)) == b"Raw profile type "
        animated |= name == b"acTL"
        at += 12 + length
        if at > size:
            break
        if name == b"IEND":
            ended = True
            break
    if len(header) != 13:
        raise InputError(f"{path}: the PNG header is damaged")
    if not ended:
        raise InputError(f"{path}: is cut short: a PNG without its end chunk")
    if animated:
        raise InputError(f"{path}: is an animated PNG; several pictures in one file are not read; save one alone")
    width, height, depth, colour = struct.unpack(">LLBB", header[:10])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 4)
    _check_bounds(path, (height, width), channels * (2 if depth == 16 else 1), size, None)
    orientation = _exif_orientation(path, exif)
    if exif is None and has_profile and _text_orientation(path, file) != 1:
        raise InputError(
            f"{path}: its Exif orientation is in a text chunk, which some viewers obey and others do not: save it "
            "upright, or remove the text"
        )
    return ImageHeader("PNG", (height, width), orientation)


def _text_orientation(path: Path, file: BinaryIO) -> int:
    """By Exif data that ImageMagick and others keep in a text chunk of a PNG."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _orientation(path, _opened(path, file, "PNG").getexif().get(_ORIENTATION))
    except InputError:
        raise
    except Exception as error:  # the parser meets hostile bytes here
        raise InputError(f"{path}: cannot be decoded; it is damaged") from error


def _pnm(path: Path, file: BinaryIO, size: int) -> ImageHeader:
    head = file.read(4096)
    if head[1:2] not in b"2356":
        raise InputError(f"{path}: is a portable map of kind {head[:2]!r}; expected P2 or P5 (grey), P3 or P6 (colour)")
    match = _PNM.match(head)
    if match is None:
        raise InputError(f"{path}: the PGM header is damaged: {head[:20]!r}")
    kind, width, height, highest = (int(number) for number in match.groups())
    if not 0 < highest < 65536:
        raise InputError(f"{path}: its largest value is {highest}; expected 1 to 65535")
    channels = 3 if kind in (3, 6) else 1
    _check_bounds(path, (height, width), channels * (2 if highest > 255 else 1), size, size * channels)
    return ImageHeader("PNM", (height, width), highest=highest, data_at=match.end())


def read_pnm(path: Path, content: bytes, header: ImageHeader) -> NDArray[Any]:
    """Values of a PNM file on the full scale of their depth: uint8, uint16 from a largest value of 256 on.

    Returns:
        (height, width), or (height, width, 3) in the order BGR.
    Raises:
        InputError: cut short, a value above the largest, or several pictures.
    """
    kind, highest = content[1:2], header.highest
    height, width = header.stored_hw
    channels = 3 if kind in b"36" else 1
    count = height * width * channels
    if kind in b"56":
        depth = 2 if highest > 255 else 1
        found = len(content) - header.data_at
        if found < count * depth:
            raise InputError(f"{path}: is cut short: {found} pixel bytes, expected {count * depth} ({width}x{height})")
        rest = content[header.data_at + count * depth :]
        values = np.frombuffer(content, f">u{depth}", count, header.data_at)
    else:
        words = content[header.data_at :].split(maxsplit=count)
        rest = b"" if len(words) <= count else words.pop()
        try:
            values = np.array([int(word) for word in words], np.int64)
        except ValueError:
            raise InputError(f"{path}: its pixels are damaged: they hold something else than numbers") from None
        if len(values) < count:
            raise InputError(f"{path}: is cut short: {len(values)} values, expected {count} ({width}x{height})")
    if rest.lstrip()[:2] == content[:2]:
        raise InputError(f"{path}: holds several pictures; save one alone")
    if values.max() > highest or values.min() < 0:
        raise InputError(f"{path}: holds the value {values.max()}; its header says at most {highest}")
    full = 255 if highest < 256 else 65535
    table = np.floor(np.arange(highest + 1) * (full / highest) + 0.5).astype(np.uint8 if full == 255 else np.uint16)
    pixels = table[values].reshape((height, width, channels))
    return pixels[..., ::-1] if channels == 3 else pixels[..., 0]


def _tiff(path: Path, file: BinaryIO, size: int) -> ImageHeader:
    image = _opened(path, file, "TIFF")
    tags: Any = getattr(image, "tag_v2", {})
    try:
        height, width, samples = (int(tags.get(tag, 1)) for tag in (257, 256, 277))
        bits = tuple(int(number) for number in np.atleast_1d(tags.get(258, 1)))
        photometric, compression, planes = int(tags[262]), int(tags.get(259, 1)), int(tags.get(284, 1))
        orientation = _orientation(path, tags.get(274))
        several = getattr(image, "is_animated", False)
        # of strips, else of tiles
        offsets, counts = (
            np.atleast_1d(tags.get(a, tags.get(b))).astype(np.int64) for a, b in ((273, 324), (279, 325))
        )
        data_end, data_bytes = int((offsets + counts).max()), int(counts.sum())
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: the TIFF header is damaged") from error
    _check_bounds(path, (height, width), samples * -(-max(bits) // 8), size, None)
    if several:
        raise InputError(f"{path}: is a TIFF of several pages; they are not read, only single images; save one alone")
    if compression not in _TIFF_COMPRESSIONS or (planes != 1 and samples > 1):
        raise InputError(
            f"{path}: is a TIFF of compression {compression} and planar configuration {planes}; expected none, "
            "LZW, deflate or PackBits, and 1; save it so"
        )
    expected = height * -(-width * sum(bits if len(bits) == samples else bits * samples) // 8)
    if data_end > size or data_bytes > size or (compression == 1 and data_bytes < expected):
        raise InputError(
            f"{path}: is cut short: a TIFF of {size} bytes whose {data_bytes} bytes of pixels end at {data_end}; "
            f"uncompressed, {expected} are expected"
        )
    deep = max(bits) > 8
    # 0 and 1 are grey, 2 is RGB, 3 a palette. Of 32 bits are floating-point numbers, which are refused when decoded.
    if photometric not in ((0, 1, 2) if deep else (0, 1, 2, 3)) or set(bits) not in ({1}, {4}, {8}, {16}, {32}):
        raise InputError(
            f"{path}: is a TIFF of photometric interpretation {photometric} and {bits} bits; expected grey or RGB of "
            "8 or 16 bits"
        )
    if photometric == 0 and samples > 1:
        raise InputError(f"{path}: is a TIFF whose lowest value is white, of {samples} samples per pixel; expected one")
    # OpenCV inverts up to 8 bits itself, and passes on more as they are.
    compressed = compression != 1
    return ImageHeader("TIFF", (height, width), orientation, photometric == 0 and deep, compressed=compressed)


def _bmp(path: Path, file: BinaryIO, size: int) -> ImageHeader:
    image = _opened(path, file, "BMP")
    width, height = image.size
    _check_bounds(path, (height, width), 4, size, None)
    return ImageHeader("BMP", (height, width))


def _opened(path: Path, file: BinaryIO, kind: str) -> Image.Image:
    """A file whose header Pillow has parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(file, formats=(kind,))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: its {kind} header states too many pixels: {error}") from None
    except Exception as error:  # the parser meets hostile bytes here, and raises what they lead it to
        raise InputError(f"{path}: cannot be decoded: its {kind} header is damaged") from error
