"""Walk through a JPEG stream (ITU-T T.81; JPEG-LS: T.87) before a decoder sees it; nothing is decoded here.

Decoders fill up what a scan lacks, with grey and without an error. `read_scans` checks that all scans and restart
intervals are there, and puts filler behind the data of each. A decoder never reads that far in a whole stream; where
data are missing, the filler becomes pixels, other ones than without it. Of lossless streams `check_lossless` counts the
bits that the pixels take.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Start-of-frame markers (T.81 table B.1; T.87): sequential, progressive and lossless by Huffman codes, JPEG-LS.
SEQUENTIAL, PROGRESSIVE, LOSSLESS, JPEG_LS = (0xC0, 0xC1), 0xC2, 0xC3, 0xF7
MOST_SCANS = 1024  # arbitrary: ten are usual, and each is a walk through all pixels
MOST_SCANNED_PIXELS = 2**30
_PIXELS_AT_ONCE = 2**20

_START_OF_SCAN, _END, _RESTART_INTERVAL, _TABLES = 0xDA, 0xD9, 0xDD, (0xC4, 0xCC)
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff])")
_FILLER = bytes((37 * number * number + 11 * number + 85) % 251 for number in range(64))  # holds no 255


@dataclass(frozen=True, slots=True)
class JpegHead:
    """What a stream says before its first scan."""

    frame: int  #: its start-of-frame marker
    precision: int  #: bits of a value
    size_hw: tuple[int, int]
    components: tuple[tuple[int, int, int], ...]  #: number, horizontal and vertical sampling of each
    restart: int  #: minimum coded units between restart markers, 0 for none
    exif: bytes | None  #: the Exif segment's TIFF structure, where there is one
    scan_at: int  #: where the first scan's marker lies


def read_head(stream: bytes) -> JpegHead:
    """Walk up to the first scan.

    Raises ValueError: with the reason: the stream is damaged, or of a kind that no decoder here reads.
    """
    if stream[:2] != b"\xff\xd8":
        raise ValueError("it does not begin with a start-of-image marker")
    frames: list[tuple[int, bytes]] = []
    restart, exif = 0, None
    for marker, at, body in segments(stream, 2):
        if (0xC0 <= marker <= 0xCF and marker not in (*_TABLES, 0xC8)) or marker == JPEG_LS:
            frames.append((marker, body))
        elif marker == _RESTART_INTERVAL:
            restart = _restart_interval(body)
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and exif is None:
            exif = body[6:]
        elif marker == _START_OF_SCAN:
            if len(frames) != 1:
                raise ValueError(f"it has {len(frames)} frame headers; expected one")
            return JpegHead(frames[0][0], *_frame(*frames[0]), restart, exif, at)
    raise ValueError("it ends before any scan")


def segments(stream: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment, up to a start of scan or the end marker."""
    while True:
        while stream[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if stream[at : at + 2] == b"\xff\xd9":
            yield _END, at, b""
            return
        if len(stream) < at + 4 or stream[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if length < 2 or at + 2 + length > len(stream):
            raise ValueError(f"marker {marker:02X} at byte {at} states {length} bytes")
        # DC changes the height afterwards; DE and DF belong to hierarchical streams.
        if marker < 0xC0 or 0xD0 <= marker <= 0xD8 or marker in (0xC8, 0xDC, 0xDE, 0xDF):
            raise ValueError(f"marker {marker:02X} at byte {at} is not expected")
        yield marker, at, stream[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN:
            return
        at += 2 + length


def _restart_interval(body: bytes) -> int:
    if len(body) < 2:
        raise ValueError("its restart interval is cut short")
    return int(struct.unpack_from(">H", body)[0])


def _frame(marker: int, body: bytes) -> tuple[int, tuple[int, int], tuple[tuple[int, int, int], ...]]:
    """Precision, size and components of a frame header."""
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise ValueError("the frame header is cut short")
    precision, height, width, count = struct.unpack(">BHHB", body[:6])
    if marker not in (*SEQUENTIAL, PROGRESSIVE, LOSSLESS, JPEG_LS):
        raise ValueError(f"frame type {marker:02X} (arithmetic or hierarchical coding) is not read")
    if not (height and width and count):
        raise ValueError(f"it is {height} rows x {width} columns of {count} components")
    components = tuple((body[at], body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, 6 + 3 * count, 3))
    if not all(1 <= side <= 4 for _, *sides in components for side in sides):
        raise ValueError("its sampling factors are damaged")
    return precision, (height, width), components


@dataclass(frozen=True, slots=True)
class JpegScans:
    """The scans of a Huffman-coded stream."""

    head: JpegHead
    #: a copy of the stream with filler behind the data of each scan and restart interval. A decoder makes the same
    #: pixels of both if, and only if, the stream holds all its data.
    filled: bytes
    bits: tuple[int, ...]  #: of data in each scan and restart interval, without stuffing


def read_scans(stream: bytes, head: JpegHead) -> JpegScans:
    """Walk through the scans.

    Raises ValueError: with the reason: no end marker, or a scan or restart interval is missing.
    """
    parts: list[bytes] = []
    sizes: list[int] = []
    restart, at, copied, scans = head.restart, head.scan_at, 0, 0
    # Of each component the lowest bit that is there, for each coefficient; 64 means none yet (T.81 G.1.1.1).
    lowest = {number: [64] * (1 if head.frame == LOSSLESS else 64) for number, _, _ in head.components}
    while True:
        found = list(segments(stream, at))
        for marker, _, body in found:
            if marker == _RESTART_INTERVAL:
                restart = _restart_interval(body)
        marker, place, body = found[-1]
        if marker == _END:
            break
        scans += 1
        if scans > MOST_SCANS or scans * head.size_hw[0] * head.size_hw[1] > MOST_SCANNED_PIXELS:
            raise ValueError(f"it has {scans} scans or more over {head.size_hw[0]} x {head.size_hw[1]} pixels")
        units = _units(head, _note_scan(head, body, lowest))
        restarts, data_at = 0, place + 4 + len(body)
        for match in _MARKER_IN_SCAN.finditer(stream, data_at):
            sizes.append(8 * (match.start() - data_at - stream.count(b"\xff\x00", data_at, match.start())))
            data_at = match.end()
            parts += [stream[copied : match.start()], _FILLER]
            copied = at = match.start()
            if not 0xD0 <= match[1][0] <= 0xD7:
                break
            if match[1][0] != 0xD0 + restarts % 8:
                raise ValueError(f"restart marker {match[1][0]:02X} at byte {at} is out of its order: data are missing")
            restarts += 1
        else:
            raise ValueError("it has no end marker")
        expected = -(-units // restart) - 1 if restart else 0
        if restarts not in (expected, expected + 1):  # some encoders put one behind the last interval
            raise ValueError(f"a scan has {restarts + 1} restart intervals, expected {expected + 1}")
    if any(bit for bits in lowest.values() for bit in bits):
        raise ValueError("scans are missing")
    return JpegScans(head, b"".join([*parts, stream[copied:]]), tuple(sizes))


def _note_scan(head: JpegHead, body: bytes, lowest: dict[int, list[int]]) -> list[int]:
    """The components of a scan, by number; `lowest` is brought up to date."""
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count or not count:
        raise ValueError("a scan header is cut short")
    numbers = list(body[1 : 1 + 2 * count : 2])
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    if not set(numbers) <= set(lowest):
        raise ValueError(f"a scan is of components {numbers}, which the frame has not")
    for number in numbers:
        if head.frame == PROGRESSIVE:
            for coefficient in range(first, min(last, 63) + 1):
                lowest[number][coefficient] = bits & 15
        else:
            lowest[number] = [0] * len(lowest[number])
    return numbers


def _units(head: JpegHead, numbers: list[int]) -> int:
    """Minimum coded units of a scan (T.81 A.2)."""
    height, width = head.size_hw
    side = 1 if head.frame == LOSSLESS else 8
    most_h, most_v = (max(sides) for sides in zip(*((h, v) for _, h, v in head.components), strict=True))
    if len(numbers) == 1:
        ((h, v),) = [(h, v) for number, h, v in head.components if number == numbers[0]]
        height, width = -(-height * v // most_v), -(-width * h // most_h)
        return -(-height // side) * -(-width // side)
    return -(-height // (side * most_v)) * -(-width // (side * most_h))


def check_lossless(stream: bytes, scans: JpegScans, pixels: NDArray[Any]) -> None:
    """Compare the bits that pixels take in a lossless stream of one component (T.81 annex H) with those it holds.

    What a decoder filled up takes bits, too, so that the pixels of a stream that was cut take more than it holds.

    Args:
        pixels: (height, width) as they were decoded.
    Raises:
        ValueError: with the reason: they take more, or the stream has no code for them.
    """
    head = scans.head
    *tables, (_, _, scan) = segments(stream, 2)
    table, predict, shift = scan[2] >> 4, PREDICTORS.get(scan[3]), scan[5] & 15
    if predict is None:
        raise ValueError(f"its predictor is {scan[3]}; expected 1 to 7")
    lengths = _code_lengths(tables, table)
    # Of each difference modulo 2**16: the code of its category, and as many bits again (H.1.2.2).
    categories = np.frexp(np.abs((np.arange(65536) + 32767) % 65536 - 32767))[1]
    cost = (lengths + np.arange(17) * (np.arange(17) < 16))[categories]
    height, width = head.size_hw
    rows = head.restart // width if head.restart else height  # of a restart interval
    if head.restart % width:
        raise ValueError(f"its restart interval is {head.restart} samples, no whole rows of {width}")
    taken = np.empty(height, np.int64)
    step = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, step):
        values = (pixels[max(top - 1, 0) : top + step].astype(np.int32) & (1 << head.precision) - 1) >> shift
        if top == 0:
            values = np.concatenate([values[:1], values])  # any row: the first one is not predicted from above
        above, here = values[:-1], values[1:]
        predicted = np.empty_like(here)
        predicted[:, 0] = above[:, 0]
        predicted[:, 1:] = predict(here[:, :-1], above[:, 1:], above[:, :-1])
        first = np.arange(top, top + len(here)) % rows == 0
        predicted[first, 0] = 1 << head.precision - shift - 1
        predicted[first, 1:] = here[first, :-1]
        taken[top : top + step] = cost[(here - predicted) & 65535].sum(axis=1)
    if (np.add.reduceat(taken, np.arange(0, height, rows)) > scans.bits[: -(-height // rows)]).any():
        raise ValueError("its scan does not hold all pixels")


def _code_lengths(tables: list[tuple[int, int, bytes]], table: int) -> NDArray[np.int64]:
    """Bits of each category's code (T.81 B.2.4.2); a number beyond any sum for what has none."""
    lengths = np.full(17, 2**40, np.int64)
    for marker, _, body in tables:
        while marker == _TABLES[0] and len(body) >= 17:
            counts = body[1:17]
            symbols, rest = body[17 : 17 + sum(counts)], body[17 + sum(counts) :]
            if body[0] == table:
                lengths[:] = 2**40
                of_symbols = np.repeat(np.arange(1, 17), list(counts))
                for symbol, length in zip(symbols, of_symbols.tolist(), strict=False):
                    lengths[min(symbol, 16)] = length
            body = rest
    return lengths


#: The prediction of samples from their left and upper neighbours, and the one in the corner (T.81 table H.1).
PREDICTORS: dict[int, Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    1: lambda left, up, corner: left,
    2: lambda left, up, corner: up,
    3: lambda left, up, corner: corner,
    4: lambda left, up, corner: left + up - corner,
    5: lambda left, up, corner: left + (up - corner >> 1),
    6: lambda left, up, corner: up + (left - corner >> 1),
    7: lambda left, up, corner: left + up >> 1,
}
