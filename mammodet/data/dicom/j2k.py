"""Check a JPEG 2000 codestream (ITU-T T.800 annex A) before a decoder sees it: walk its markers, decode nothing.

OpenJPEG reserves memory by tile, by precinct and by code block as the stream's header tells it, fills missing
parts with grey without a word, and reads streams of any size; what is refused here is each of these.
"""

import struct
from pathlib import Path

from mammodet.errors import InputError

_START = b"\xff\x4f\xff\x51"
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9


def check_j2k(path: Path, frame: bytes, size_hw: tuple[int, int], bits_allocated: int) -> bytes:
    """The bare codestream of a frame, which may lie in a JP2 file that DICOM forbids but writers write.

    Args:
        size_hw: what the DICOM header says.
    Raises:
        InputError: it is damaged, incomplete, contradicts the header, or is cut up so finely that it needs absurd
            memory.
    """
    start = frame.find(_START, 0, 4096)
    if start != 0 and (start < 0 or frame[4:8] != b"jP  "):
        raise _fault(path, "it does not begin with a codestream")
    stream = frame[start:]
    tiles_begin = _check_main_header(path, stream, size_hw, bits_allocated)
    _check_tile_parts(path, stream, tiles_begin)
    return stream


def _fault(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: the JPEG 2000 stream is damaged or does not fit the header: {reason}")


def _check_main_header(path: Path, stream: bytes, size_hw: tuple[int, int], bits_allocated: int) -> int:
    """Check SIZ and COD; where the first tile-part begins."""
    at, styles = 2, 0
    while True:
        marker, body = _segment(path, stream, at)
        if marker == _SOT:
            break
        if marker == 0xFF51:
            if at != 2:
                raise _fault(path, "it states its size twice")
            _check_size(path, body, size_hw, bits_allocated)
        elif marker == _COD:
            styles += 1
            _check_style(path, body, size_hw)
        elif marker in (_COC, _SOD, _EOC):
            raise _fault(path, f"marker {marker:04X} at byte {at} is not expected in one grey channel")
        at += 4 + len(body)
    if styles != 1:
        raise _fault(path, f"it has {styles} default coding styles; expected one")
    return at


def _segment(path: Path, stream: bytes, at: int) -> tuple[int, bytes]:
    """Marker and body of the segment at a byte."""
    if len(stream) < at + 4:
        raise InputError(f"{path}: is cut short: the JPEG 2000 stream ends at byte {len(stream)}, inside its header")
    marker, length = struct.unpack_from(">HH", stream, at)
    if marker < 0xFF00 or length < 2 or at + 2 + length > len(stream):
        raise _fault(path, f"no whole marker segment at byte {at}")
    return marker, stream[at + 4 : at + 2 + length]


def _check_size(path: Path, body: bytes, size_hw: tuple[int, int], bits_allocated: int) -> None:
    if len(body) < 36:
        raise _fault(path, "its size marker is cut short")
    (_, right, bottom, left, top, tile_w, tile_h, tile_x, tile_y, components) = struct.unpack(">H8LH", body[:36])
    if components != 1 or len(body) != 39:
        raise _fault(path, f"it has {components} components; expected one grey channel")
    precision, step_x, step_y = (body[36] & 127) + 1, body[37], body[38]
    if (bottom - top, right - left) != size_hw or (step_x, step_y) != (1, 1):
        raise _fault(
            path,
            f"it is {bottom - top} rows x {right - left} columns in steps of {step_y} and {step_x}; the header says "
            f"{size_hw[0]} x {size_hw[1]}",
        )
    if precision > bits_allocated:
        raise _fault(path, f"its precision is {precision} bits; {bits_allocated} are allocated")
    # Far offsets are allowed but used by nobody, and decoders have overflowed on them.
    if max(left, top) > 65535 or not (tile_x <= left < tile_x + tile_w and tile_y <= top < tile_y + tile_h):
        raise _fault(path, "its tiles do not cover its upper left corner")
    tiles = -(-(right - tile_x) // tile_w) * -(-(bottom - tile_y) // tile_h)
    if tiles > 64 + size_hw[0] * size_hw[1] // 1024:
        raise _fault(path, f"it is cut into {tiles} tiles")


def _check_style(path: Path, body: bytes, size_hw: tuple[int, int]) -> None:
    """Refuse code blocks, precincts and layers whose bookkeeping outweighs the image many times.

    Of 4 million pixels in 65535 layers of 32x32 precincts, OpenJPEG makes 2 GB and 18 s.
    """
    if len(body) < 10:
        raise _fault(path, "its coding style is cut short")
    pixels = size_hw[0] * size_hw[1]
    layers, levels = struct.unpack_from(">HxB", body, 2)
    exponents = body[10:] if body[0] & 1 else b"\xff" * (levels + 1)  # 2**15 where none is stated
    if levels > 32:
        raise _fault(path, f"it has {levels} decomposition levels; at most 32 are allowed")
    if body[6] + body[7] < 4 and pixels > 2**20:  # each is an exponent less 2
        raise _fault(path, f"its code blocks hold {2 ** (body[6] + body[7] + 4)} pixels; expected at least 256")
    if len(exponents) != levels + 1:
        raise _fault(path, f"it states {len(exponents)} precinct sizes for {levels + 1} resolutions")
    count = 0
    for resolution, sizes in enumerate(exponents):
        height, width = (-(-side >> levels - resolution) for side in size_hw)
        count += -(-height >> (sizes >> 4)) * -(-width >> (sizes & 15))
    if count > 4096 + pixels // 256:
        raise _fault(path, f"it is cut into {count} precincts")
    if count * layers > 2**20 + pixels:
        raise _fault(path, f"it is cut into {count} precincts of {layers} layers each")


def _check_tile_parts(path: Path, stream: bytes, at: int) -> None:
    """Walk the tile-parts by their stated lengths: a stream with a piece missing does not end at its end."""
    while stream[at : at + 2] != b"\xff\xd9":
        if len(stream) < at + 14:
            raise InputError(f"{path}: is cut short: a JPEG 2000 stream without its end marker")
        marker, body = _segment(path, stream, at)
        if marker != _SOT or len(body) != 8:
            raise _fault(path, f"no tile-part at byte {at}; a piece is missing")
        length = struct.unpack_from(">L", body, 2)[0]
        _check_tile_header(path, stream, at)
        if length == 0:  # the last one, up to the end marker
            end = stream.rfind(b"\xff\xd9", at)
            if end < 0:
                raise InputError(f"{path}: is cut short: a JPEG 2000 stream without its end marker")
            return
        if length < 14 or at + length + 2 > len(stream):
            raise InputError(
                f"{path}: is cut short: a tile-part of the JPEG 2000 stream at byte {at} should have {length} bytes, "
                f"{len(stream) - at} are left"
            )
        at += length


def _check_tile_header(path: Path, stream: bytes, at: int) -> None:
    at += 12
    while stream[at : at + 2] != b"\xff\x93":
        marker, body = _segment(path, stream, at)
        # Styles of single tiles would go round the check of the main header.
        if marker in (_COD, _COC, _SOT, _EOC):
            raise _fault(path, f"marker {marker:04X} at byte {at} is not read in a tile")
        at += 4 + len(body)
