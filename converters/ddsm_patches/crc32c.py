"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), as TFRecord files carry it, fast enough without a compiled package.

A checksum is linear: that of a message is the XOR of what each of its bytes adds, which depends on the byte and on how
many bytes follow it. So whole blocks are looked up in tables at once, and the blocks' checksums are folded by tables
in turn.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41, lowest bit first
_BLOCK = 64  # bytes that become one checksum, and checksums that are folded into one
_CHUNK = _BLOCK**3

_Words = NDArray[np.uint32]


def crc32c(content: bytes | memoryview) -> int:
    """The checksum of a message; `crc32c(b"123456789")` is 0xE3069283."""
    octets = np.frombuffer(content, np.uint8)
    if len(octets) < _BLOCK:
        return _bytewise(octets.tolist(), 0xFFFFFFFF) ^ 0xFFFFFFFF
    state = 0xFFFFFFFF
    # The odd length comes first: zeros before a message change nothing, zeros behind it would.
    start = 0
    for stop in range(len(octets) % _CHUNK, len(octets) + 1, _CHUNK):
        if stop - start >= 4:
            state = _chunk(octets[start:stop], state)
        else:
            state = _bytewise(octets[start:stop].tolist(), state)
        start = stop
    return state ^ 0xFFFFFFFF


def masked_crc32c(content: bytes | memoryview) -> int:
    """The checksum in TFRecord's form: turned right by 15 bits, and a constant added."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _bytewise(octets: list[int], state: int) -> int:
    table = _byte_table().tolist()
    for octet in octets:
        state = table[(state ^ octet) & 0xFF] ^ state >> 8
    return state


def _chunk(octets: NDArray[np.uint8], state: int) -> int:
    """Take up 4 to `_CHUNK` bytes into a state."""
    length = -(-len(octets) // _BLOCK**2) * _BLOCK**2
    padded = np.zeros(length, np.uint8)
    first = length - len(octets)
    padded[first:] = octets
    padded[first : first + 4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)
    blocks = padded.reshape(-1, _BLOCK) + (np.arange(_BLOCK, dtype=np.intp) * 256)
    sums = np.bitwise_xor.reduce(_block_tables().take(blocks), axis=1)
    folded = np.zeros(_BLOCK, np.uint32)
    of_blocks = _fold(sums, _BLOCK)
    folded[_BLOCK - len(of_blocks) :] = of_blocks
    return int(_fold(folded, _BLOCK**2)[0])


def _fold(sums: _Words, stride: int) -> _Words:
    """One checksum for each 64 in a row, of which each stands for `stride` bytes."""
    octets = sums.astype("<u4").view(np.uint8).reshape(-1, 4 * _BLOCK)
    places = octets + (np.arange(4 * _BLOCK, dtype=np.intp) * 256)
    return np.asarray(np.bitwise_xor.reduce(_fold_tables(stride).take(places), axis=1), np.uint32)


@cache
def _byte_table() -> _Words:
    """What a byte leaves in the state, uint32 (256,)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


def _after_zero(state: _Words) -> _Words:
    """States after one more byte 0."""
    return _byte_table()[state & np.uint32(0xFF)] ^ state >> np.uint32(8)


@cache
def _block_tables() -> _Words:
    """What a byte adds to its block's checksum: uint32, flat (place in the block, byte)."""
    tables = [_byte_table()]
    for _ in range(_BLOCK - 1):
        tables.append(_after_zero(tables[-1]))
    return np.concatenate(tables[::-1])


@cache
def _fold_tables(stride: int) -> _Words:
    """What a byte of a checksum adds, `stride` bytes for each checksum behind it: uint32, flat (place, byte, value)."""
    identity = np.concatenate([np.arange(256, dtype=np.uint32) << np.uint32(8 * place) for place in range(4)])
    step = identity
    for _ in range(stride):
        step = _after_zero(step)
    tables = [identity]
    for _ in range(_BLOCK - 1):
        before = tables[-1]
        parts = [step[256 * place + (before >> np.uint32(8 * place) & np.uint32(0xFF))] for place in range(4)]
        tables.append(parts[0] ^ parts[1] ^ parts[2] ^ parts[3])
    return np.concatenate(tables[::-1])
