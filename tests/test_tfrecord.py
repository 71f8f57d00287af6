"""TFRecord frames and tf.train.Example: a record byte by byte, checksums the slow way, damage told by its place."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mammodet.converters.ddsm_patches.tfrecord import (
    Place,
    RecordError,
    index_records,
    parse_example,
    read_record,
    single,
)
from mammodet.errors import InputError
from mammodet.phantom.ddsm_patches import encode_example, frame_record

# Example{features{feature{key "a", value{int64_list{value [5]}}}}}, by protobuf's encoding.
MESSAGE = bytes.fromhex("0a0c 0a0a 0a0161 1205 1a03 0a0105")


def slow_crc32c(content: bytes) -> int:
    """By the definition, bit for bit: the reflected polynomial 0x1EDC6F41, all ones before and after."""
    state = 0xFFFFFFFF
    for octet in content:
        for bit in range(8):
            low = (state ^ octet >> bit) & 1
            state = state >> 1 ^ (0x82F63B78 if low else 0)
    return state ^ 0xFFFFFFFF


def slow_frame(message: bytes) -> bytes:
    """A record by TFRecord's definition, its checksums by the slow way."""

    def masked(content: bytes) -> bytes:
        crc = slow_crc32c(content)
        return struct.pack("<I", (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(message))
    return length + masked(length) + message + masked(message)


def test_slow_checksum_gives_the_published_value() -> None:
    """The check value of the catalogue of CRCs."""
    assert slow_crc32c(b"123456789") == 0xE3069283


def test_literal_record_is_read(tmp_path: Path) -> None:
    assert len(MESSAGE) == 14
    path = tmp_path / "a.tfrecords"
    path.write_bytes(slow_frame(MESSAGE) + slow_frame(b""))
    index = index_records(path)
    assert index.fault is None
    assert index.places == (Place(0, 14), Place(30, 0))  # 12 + 14 + 4
    assert read_record(path, index.places[0], 0) == MESSAGE
    assert read_record(path, index.places[1], 1) == b""
    assert parse_example(MESSAGE) == {"a": [5]}


def test_phantom_writes_the_same_frame() -> None:
    assert frame_record(MESSAGE) == slow_frame(MESSAGE)
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    features = parse_example(encode_example(image, 4))
    assert features == {"label": [4], "label_normal": [1], "image": [bytes(range(6))]}


def field(number: int, kind: int, content: bytes) -> bytes:
    return bytes([number << 3 | kind]) + content


def sized(number: int, content: bytes) -> bytes:
    return field(number, 2, bytes([len(content)]) + content)


def example(*features: tuple[str, bytes]) -> bytes:
    return sized(1, b"".join(sized(1, sized(1, name.encode()) + sized(2, value)) for name, value in features))


MINUS_ONE = b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (sized(3, sized(1, b"\x96\x01\x07")), [150, 7]),  # packed
        (sized(3, field(1, 0, b"\x96\x01") + field(1, 0, b"\x07")), [150, 7]),  # one by one
        (sized(3, sized(1, MINUS_ONE)), [-1]),
        (sized(3, b""), []),
        (sized(2, sized(1, struct.pack("<2f", 0.5, -2.0))), [0.5, -2.0]),
        (sized(2, field(1, 5, struct.pack("<f", 0.25))), [0.25]),
        (sized(1, sized(1, b"") + sized(1, b"xy")), [b"", b"xy"]),
        (b"", []),
        # Fields of numbers that are not known are passed over: a varint, 8 bytes, a string, 4 bytes.
        (
            field(9, 0, b"\x01")
            + field(9, 1, bytes(8))
            + sized(9, b"q")
            + field(9, 5, bytes(4))
            + sized(3, sized(1, b"\x03")),
            [3],
        ),
    ],
)
def test_feature_of_every_kind_is_read(feature: bytes, values: list[object]) -> None:
    assert parse_example(example(("x", feature), ("y", sized(3, sized(1, b"\x01"))))) == {"x": values, "y": [1]}


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (b"\x0a\x05abc", "is no tf.train.Example"),
        (b"\x0a", "is no tf.train.Example"),
        (b"\x0a" + b"\xff" * 10 + b"\x01", "is no tf.train.Example"),
        (sized(1, sized(1, sized(1, b"\xff"))), "is no tf.train.Example"),
        (b"\x08\x01", "the record has none"),
        (example(("x", sized(3, field(1, 5, bytes(4))))), r"the record has x \(0 values\)"),
        (example(("x", field(3, 0, b"\x01"))), r"the record has x \(0 values\)"),
        (example(("x", sized(3, sized(1, b"\x01\x02")))), r"'x': expected one value, int; .* x \(2 values\)"),
        (example(("x", sized(1, sized(1, b"xyz")))), "'x': expected one value, int"),
        (example(("y", sized(3, sized(1, b"\x01")))), r"'x'.* the record has y \(1 values\)"),
    ],
)
def test_message_without_the_one_number_is_refused(message: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        single(parse_example(message), "x", int)


def damaged(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.tfrecords"
    path.write_bytes(content)
    return path


def test_damaged_content_is_told_by_its_place_and_the_next_record_is_read(tmp_path: Path) -> None:
    first, second = bytearray(slow_frame(MESSAGE)), slow_frame(b"next")
    first[20] ^= 1
    path = damaged(tmp_path, bytes(first) + second)
    index = index_records(path)
    assert index.fault is None
    with pytest.raises(RecordError, match=r"a\.tfrecords: record 0 at byte 0: the checksum of its content is wrong"):
        read_record(path, index.places[0], 0)
    assert read_record(path, index.places[1], 1) == b"next"


@pytest.mark.parametrize("place", range(12))
def test_damaged_length_ends_the_file(tmp_path: Path, place: int) -> None:
    second = bytearray(slow_frame(MESSAGE))
    second[place] ^= 0x10
    index = index_records(damaged(tmp_path, slow_frame(MESSAGE) + bytes(second) + slow_frame(MESSAGE)))
    assert index.places == (Place(0, 14),)
    assert "record 1 at byte 30: the checksum of its length is wrong" in str(index.fault)


@pytest.mark.parametrize("left", [1, 11, 12, 29])
def test_file_that_is_cut_short_says_what_is_left(tmp_path: Path, left: int) -> None:
    index = index_records(damaged(tmp_path, slow_frame(MESSAGE) + slow_frame(MESSAGE)[:left]))
    assert index.places == (Place(0, 14),)
    assert (
        f"record 1 at byte 30: the file is cut short: {'' if left < 12 else 'the record has 30 bytes, '}{left}"
        in str(index.fault)
    )


def test_file_that_is_no_tfrecord_or_compressed_or_missing_is_told(tmp_path: Path) -> None:
    index = index_records(damaged(tmp_path, b"a text that is longer than a record's head"))
    assert index.places == ()
    assert "is no TFRecord file" in str(index.fault)
    with pytest.raises(InputError, match="is compressed"):
        index_records(damaged(tmp_path, gzip.compress(slow_frame(MESSAGE))))
    with pytest.raises(InputError, match="cannot be read"):
        index_records(tmp_path / "missing.tfrecords")


def test_empty_file_has_no_records(tmp_path: Path) -> None:
    assert index_records(damaged(tmp_path, b"")).places == ()


def test_frames_are_those_of_another_writer(tmp_path: Path) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    path = tmp_path / "a.tfrecords"
    with open(path, "wb") as file:
        writer = record_writer.RecordWriter(file)
        for message in (MESSAGE, b"", bytes(5000)):
            writer.write(message)
    index = index_records(path)
    assert index.fault is None
    assert [read_record(path, place, 0) for place in index.places] == [MESSAGE, b"", bytes(5000)]
