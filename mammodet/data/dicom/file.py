"""Open a DICOM file, whole or damaged, up to its pixels; pydicom does the parsing, and every fault is an `InputError`.

PS3.10 (file format) and PS3.5 (encoding). Nothing here believes a length that the file states before it is compared
with what the file holds.
"""

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from mammodet.errors import InputError

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double and integer pixel data
MOST_INFLATED_BYTES = 2**27  # of a deflated file: a 64-megapixel image of 16 bits

_VRS = {vr.value.encode() for vr in VR if len(vr.value) == 2}


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data lie: tag, VR (None in implicit files), stated length, and offset and size of the stream."""

    tag: int
    vr: str | None
    length: int
    offset: int
    bytes_left: int


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A data set read up to its pixels."""

    path: Path
    dataset: Dataset  #: the elements that were asked for, not yet converted
    syntax: UID  #: transfer syntax; the plain one that the bytes show where the file names none
    syntax_stated: bool  #: whether the file names it
    stream: BinaryIO  #: the bytes that `pixels` points into, inflated where the file is deflated
    pixels: PixelElement | None  #: None where the file ends before any pixel data
    ends_inside: bool  #: whether the file ends in the midst of an element


class _BoundedFile(io.BufferedReader):
    """A file of which no more is read at once than it holds: Python reserves memory for what is asked."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 4096:
            size = min(size, max(self.size - self.tell(), 0))
        return super().read(size)


class _Quiet:
    """No warnings and log lines of the libraries, for as long as any thread is inside.

    Both are switches of the whole process: the first thread in turns them off, the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._restore.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", ".* in file ")  # pydicom passes over an unexpected end of a data set
            for logger in (logging.getLogger(name) for name in ("pydicom", "openjpeg")):
                self._restore.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore.close()


#: What the libraries would print and matters is raised here, as errors: `with quiet: ...`
quiet = _Quiet()


@contextmanager
def open_dicom(path: Path, tags: list[int]) -> Iterator[DicomFile]:
    """A file parsed up to its pixel data, of which nothing is read.

    Args:
        path: a DICOM file, or a bare data set without preamble and file meta information.
        tags: the elements that are kept.
    Raises:
        InputError: the file is missing, empty, no DICOM file, or damaged before the pixel data.
    """
    path = Path(path)
    try:
        file = _BoundedFile(io.FileIO(os.fspath(path)))  # pydicom adds its name to a text
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a DICOM file") from None
    except (OSError, ValueError) as error:  # no permission, a name too long or with a NUL
        raise InputError(f"{path}: cannot be read ({error})") from None
    with file, quiet:  # once for all that is read of it: each change of a logger's level costs
        yield _parse(path, file, tags)


def _parse(path: Path, file: _BoundedFile, tags: list[int]) -> DicomFile:
    _check_looks_like_dicom(path, file)
    # The parser meets hostile bytes here and may raise anything at all (struct.error, RecursionError, KeyError, ...).
    try:
        with quiet:
            stated = _stated_syntax(file)
            if stated == DeflatedExplicitVRLittleEndian:
                stream: BinaryIO = _inflate(path, file)
                dataset = read_dataset(
                    stream, False, True, stop_when=lambda tag, vr, length: tag in PIXEL_TAGS, specific_tags=list(tags)
                )
            else:
                stream = cast(BinaryIO, file)
                file.seek(0)
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(tags))
            syntax = stated or _plain_syntax(dataset)
            if syntax.is_private or not syntax.is_transfer_syntax:
                raise InputError(
                    f"{path}: the transfer syntax {syntax[:64]!r} is none of the standard's; "
                    "expected one of PS3.6 table A-1"
                )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: the header cannot be parsed; the file is damaged or cut short") from error
    size = len(stream.getbuffer()) if isinstance(stream, io.BytesIO) else file.size
    ends_inside = stream.tell() > size or _last_element_is_short(dataset)
    pixels = None if ends_inside else _pixel_element(stream, size, bool(dataset.original_encoding[1]))
    return DicomFile(path, dataset, syntax, stated is not None, stream, pixels, ends_inside)


def _check_looks_like_dicom(path: Path, file: _BoundedFile) -> None:
    """Refuse what pydicom, told to read at any cost, would take for a data set."""
    head = file.read(132)
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head[128:] == b"DICM" or _begins_dataset(head, file.size):
        return
    raise InputError(
        f"{path}: is not a DICOM file: 'DICM' does not stand at byte 128, and the file does not begin with a data "
        f"element (it begins with {head[:8]!r})"
    )


def _begins_dataset(head: bytes, size: int) -> bool:
    """Whether bytes begin with an element of group 2 or 8, as data sets without a preamble do (PS3.5 7.1)."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group in (0x0002, 0x0008) and element <= 0x3000:
            explicit = head[4:6] in _VRS
            return explicit or (order == "<" and struct.unpack("<L", head[4:8])[0] < size)
    return False


def _stated_syntax(file: _BoundedFile) -> UID | None:
    """The transfer syntax of the file meta information; leaves the file at the first byte behind it."""
    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    text = str(meta.get("TransferSyntaxUID") or "").strip("\0 ")
    return UID(text) if text else None


def _plain_syntax(dataset: Dataset) -> UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _inflate(path: Path, file: _BoundedFile) -> io.BytesIO:
    """The data set of a deflated file (PS3.5 A.5), which may hold a thousand times what it weighs."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = engine.decompress(file.read(), MOST_INFLATED_BYTES)
    except zlib.error as error:
        raise InputError(f"{path}: the deflated data set cannot be inflated ({error}); it is damaged") from None
    if engine.unconsumed_tail:
        raise InputError(f"{path}: the deflated data set inflates to more than {MOST_INFLATED_BYTES} bytes")
    if not engine.eof:
        raise InputError(f"{path}: is cut short: the deflated data set has no end")
    return io.BytesIO(content)


def _last_element_is_short(dataset: Dataset) -> bool:
    elements = list(dataset._dict.values())  # not converted: conversion may fail, and is not needed for a length
    value = getattr(elements[-1], "value", None) if elements else None
    length = getattr(elements[-1], "length", UNDEFINED_LENGTH) if elements else 0
    return isinstance(value, bytes) and length != UNDEFINED_LENGTH and len(value) < length


def _pixel_element(stream: BinaryIO, size: int, little: bool) -> PixelElement | None:
    head = stream.read(8)
    order = "<" if little else ">"
    if len(head) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", head[:4])
    tag = group << 16 | element
    if tag not in PIXEL_TAGS:
        return None
    # An implicit length cannot look like one of these letters: it is even, and they are not.
    vr = head[4:6].decode() if head[4:6] in (b"OB", b"OD", b"OF", b"OW", b"UN") else None
    length_bytes = stream.read(4) if vr else head[4:]
    if len(length_bytes) < 4:
        return None
    length = struct.unpack(f"{order}L", length_bytes)[0]
    return PixelElement(tag, vr, length, stream.tell(), size - stream.tell())
