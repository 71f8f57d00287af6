"""TFRecord files of `tf.train.Example`, read without TensorFlow.

A record is: length, uint64; its masked CRC-32C, uint32; `length` bytes; their masked CRC-32C, uint32; all
little-endian. The bytes are a protobuf message (tensorflow/core/example/example.proto). Both checksums are checked.

Written here, since readers on the package index need protobuf, and do not look at the checksums.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from mammodet.errors import InputError

#: The values of a feature: of one kind.
Values = list[bytes] | list[float] | list[int]

_HEADER, _FOOTER = 12, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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

    Raises:
        InputError: the file cannot be opened, or is compressed.
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

    Raises:
        RecordError: its checksum is wrong, or the file has become shorter.
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


def parse_example(message: bytes) -> dict[str, Values]:
    """Features of a `tf.train.Example`: name to its values; a feature without values is an empty list.

    Raises:
        ValueError: not such a message; the text says at which byte of it.
    """
    features: dict[str, Values] = {}
    for start, stop in _messages(message, 0, len(message), field=1):  # Example.features
        for entry in _messages(message, start, stop, field=1):  # Features.feature
            name, values = "", list[bytes]()
            parsed: Values = values
            for number, kind, first, last in _fields(message, *entry):
                if number == 1 and kind == _BYTES:
                    name = message[first:last].decode("utf-8")
                elif number == 2 and kind == _BYTES:
                    parsed = _values(message, first, last)
            features[name] = parsed
    return features


def _messages(message: bytes, start: int, stop: int, *, field: int) -> Iterator[tuple[int, int]]:
    """Where the sub-messages of one field lie; other fields are passed over, as protobuf asks for."""
    for number, kind, first, last in _fields(message, start, stop):
        if number == field:
            if kind != _BYTES:
                raise ValueError(f"byte {first}: field {field} is no message (wire type {kind})")
            yield first, last


def _values(message: bytes, start: int, stop: int) -> Values:
    """The values of a `Feature`; of several lists in it the last one holds, as in protobuf's oneof."""
    result: Values = []
    for number, kind, first, last in _fields(message, start, stop):
        if number in (1, 2, 3) and kind != _BYTES:
            raise ValueError(f"byte {first}: field {number} is no list of values (wire type {kind})")
        if number == 1:
            result = [message[a:b] for a, b in _messages(message, first, last, field=1)]
        elif number == 2:
            result = _floats(message, first, last)
        elif number == 3:
            result = _integers(message, first, last)
    return result


def _floats(message: bytes, start: int, stop: int) -> list[float]:
    values: list[float] = []
    for number, kind, first, last in _fields(message, start, stop):
        if number != 1:
            continue
        if kind not in (_BYTES, _FIXED32) or (last - first) % 4:
            raise ValueError(f"byte {first}: no list of floats (wire type {kind}, {last - first} bytes)")
        values.extend(struct.unpack(f"<{(last - first) // 4}f", message[first:last]))
    return values


def _integers(message: bytes, start: int, stop: int) -> list[int]:
    values: list[int] = []
    for number, kind, first, last in _fields(message, start, stop):
        if number != 1:
            continue
        if kind not in (_BYTES, _VARINT):
            raise ValueError(f"byte {first}: no list of whole numbers (wire type {kind})")
        while first < last:  # packed, or a single number
            value, first = _varint(message, first, last)
            values.append(value - 2**64 if value >= 2**63 else value)
    return values


def _fields(message: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, first byte, byte behind the last) of each field of a message within another."""
    position = start
    while position < stop:
        key, first = _varint(message, position, stop)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, last = _varint(message, first, stop)
        elif kind == _BYTES:
            length, first = _varint(message, first, stop)
            last = first + length
        elif kind in (_FIXED32, _FIXED64):
            last = first + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"byte {position}: wire type {kind} is not known")
        if number == 0 or last > stop:
            raise ValueError(f"byte {position}: field {number} {'ends beyond its message' if number else 'is none'}")
        yield number, kind, first, last
        position = last


def _varint(message: bytes, position: int, stop: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the position behind it."""
    value = 0
    for place in range(10):
        if position + place >= stop:
            raise ValueError(f"byte {position}: a number ends beyond its message")
        octet = message[position + place]
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value & (2**64 - 1), position + place + 1
    raise ValueError(f"byte {position}: a number of more than 10 bytes")


def single_integer(features: dict[str, Values], name: str) -> int:
    """The one whole number of a feature.

    Raises:
        ValueError: it is missing, or is something else.
    """
    value = _single(features, name)
    if not isinstance(value, int):
        raise ValueError(f"feature '{name}' is {_kind(value)}; expected one whole number")
    return value


def single_bytes(features: dict[str, Values], name: str) -> bytes:
    """The one byte string of a feature.

    Raises:
        ValueError: it is missing, or is something else.
    """
    value = _single(features, name)
    if not isinstance(value, bytes):
        raise ValueError(f"feature '{name}' is {_kind(value)}; expected one byte string")
    return value


def _single(features: dict[str, Values], name: str) -> bytes | float | int:
    if name not in features:
        there = ", ".join(map(repr, sorted(features))) or "none"
        raise ValueError(f"feature '{name}' is missing; the record has {there}")
    values: Sequence[bytes | float | int] = features[name]
    if len(values) != 1:
        raise ValueError(f"feature '{name}' has {len(values)} values; expected one")
    return values[0]


def _kind(value: bytes | float | int) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"the number {value}" if math.isfinite(value) else "no finite number"
