"""TFRecord files of `tf.train.Example`, read without TensorFlow.

A record is: length, uint64; its masked CRC-32C, uint32; `length` bytes; their masked CRC-32C, uint32; all
little-endian. The bytes are a protobuf message (tensorflow/core/example/example.proto). Both checksums are checked.

The frames are read here, since readers on the package index do not look at the checksums.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mammodet.errors import InputError

T = TypeVar("T")
_HEADER, _FOOTER = 12, 4


class RecordError(InputError):
    """A record that is cut short or damaged; the message says at which byte of the file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record's frame starts in its file, in bytes, and how many bytes its message has."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """The records of a file that can be found; `fault`: what ended the search before the end of the file."""

    places: tuple[Place, ...]
    fault: RecordError | None


def index_records(path: Path) -> RecordIndex:
    """Find the records of a file by their lengths, which are checked; the messages are not read.

    Raises InputError: the file cannot be opened, or is compressed.
    """
    places: list[Place] = []
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise InputError(f"{path}: is compressed (gzip); unpack it first")
            offset = 0
            while offset < size:
                file.seek(offset)
                try:
                    length = _length(file.read(_HEADER), size - offset)
                except ValueError as error:
                    return RecordIndex(tuple(places), _fault(path, len(places), offset, str(error)))
                places.append(Place(offset, length))
                offset += _HEADER + length + _FOOTER
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return RecordIndex(tuple(places), None)


def _length(header: bytes, left: int) -> int:
    """The length of a message, from a frame's first bytes; `left`: bytes from the frame's start to the file's end."""
    if len(header) < _HEADER:
        raise ValueError(f"the file is cut short: {left} bytes are left, a record's head has {_HEADER}")
    length, crc = struct.unpack("<QI", header)
    if _masked_crc32c(header[:8]) != crc:
        raise ValueError("the checksum of its length is wrong: the file is damaged here, or is no TFRecord file")
    if _HEADER + length + _FOOTER > left:
        raise ValueError(f"the file is cut short: the record has {_HEADER + length + _FOOTER} bytes, {left} are left")
    return int(length)


def read_record(path: Path, place: Place, number: int) -> bytes:
    """The message of a record (`number`: which, from 0, for the error's text).

    Raises RecordError: its checksum is wrong, or the file has become shorter.
    """
    with open(path, "rb") as file:
        file.seek(place.offset + _HEADER)
        content = file.read(place.length + _FOOTER)
    if len(content) < place.length + _FOOTER:
        raise _fault(path, number, place.offset, "the file has become shorter while it was read")
    message = content[: place.length]
    if _masked_crc32c(message) != int.from_bytes(content[place.length :], "little"):
        raise _fault(path, number, place.offset, "the checksum of its content is wrong: the file is damaged here")
    return message


def _masked_crc32c(content: bytes) -> int:
    """CRC-32C in TFRecord's form: turned right by 15 bits, and a constant added."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fault(path: Path, number: int, offset: int, what: str) -> RecordError:
    return RecordError(f"{path.name}: record {number} at byte {offset}: {what}")


def _make_example() -> Any:
    """The class of `tf.train.Example`; its map of features is a list of entries on the wire."""
    kind = FieldDescriptorProto
    fields = {
        "BytesList": [("value", 1, kind.LABEL_REPEATED, kind.TYPE_BYTES, "")],
        "FloatList": [("value", 1, kind.LABEL_REPEATED, kind.TYPE_FLOAT, "")],
        "Int64List": [("value", 1, kind.LABEL_REPEATED, kind.TYPE_INT64, "")],
        "Feature": [
            (name, number, kind.LABEL_OPTIONAL, kind.TYPE_MESSAGE, f".example.{name}")
            for number, name in enumerate(("BytesList", "FloatList", "Int64List"), start=1)
        ],
        "Entry": [
            ("key", 1, kind.LABEL_OPTIONAL, kind.TYPE_STRING, ""),
            ("value", 2, kind.LABEL_OPTIONAL, kind.TYPE_MESSAGE, ".example.Feature"),
        ],
        "Features": [("feature", 1, kind.LABEL_REPEATED, kind.TYPE_MESSAGE, ".example.Entry")],
        "Example": [("features", 1, kind.LABEL_OPTIONAL, kind.TYPE_MESSAGE, ".example.Features")],
    }
    file = FileDescriptorProto(name="mammodet/example.proto", package="example", syntax="proto3")
    for message, members in fields.items():
        added = file.message_type.add(name=message)
        for name, number, label, type_, type_name in members:
            added.field.add(name=name, number=number, label=label, type=type_, type_name=type_name or None)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("example.Example"))


_Example = _make_example()


def parse_example(message: bytes) -> dict[str, list[Any]]:
    """Features of a `tf.train.Example`: name to its values, all bytes, floats or whole numbers.

    Raises ValueError: not such a message.
    """
    try:
        entries = _Example.FromString(message).features.feature
    except DecodeError:
        raise ValueError("it is no tf.train.Example") from None
    return {
        entry.key: [*entry.value.BytesList.value, *entry.value.FloatList.value, *entry.value.Int64List.value]
        for entry in entries
    }


def single(features: Mapping[str, Sequence[Any]], name: str, kind: type[T]) -> T:
    """The one value of a feature. Raises ValueError: it is missing, or is something else."""
    values = features.get(name, ())
    if len(values) != 1 or not isinstance(values[0], kind):
        there = ", ".join(f"{key} ({len(found)} values)" for key, found in sorted(features.items())) or "none"
        raise ValueError(f"feature '{name}': expected one value, {kind.__name__}; the record has {there}")
    return values[0]
