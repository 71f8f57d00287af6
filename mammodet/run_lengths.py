"""COCO's compressed run lengths without their pixels: check them, count them, and cut a patch out of them.

The format is that of `rleToString` in pycocotools: little-endian groups of five bits, the sixth saying that more
follow, from the fourth run on as the difference to the run two before; runs go down the columns, zeros first.
"""

import numpy as np
from numpy.typing import NDArray

from mammodet.records import Rle


def decode_runs(counts: bytes) -> NDArray[np.int64]:
    """The runs of compressed run lengths, zeros first.

    Raises ValueError: a character that does not belong there, a run that is cut short, negative or beyond 32 bits.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    wrong = np.flatnonzero((codes < 0) | (codes >= 64))
    if len(wrong):
        raise ValueError(f"run lengths hold the character {chr(counts[wrong[0]])!r}")
    last = (codes & 0x20) == 0
    ends = np.flatnonzero(np.append(last[:-1], True))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("a run length has more than 32 bits")
    if not last[-1]:
        raise ValueError("run lengths are cut short")
    within = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * within), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    # From the fourth on, each is the difference to the run two before.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError("run lengths hold a negative run")
    return values


def check_counts(counts: bytes, pixels: int) -> None:
    """Refuse compressed run lengths that do not cover the image; the C decoder would write past its buffer.

    Raises ValueError: saying what is wrong with them.
    """
    runs = decode_runs(counts)
    # The C code adds in 32 bits; runs that long are refused before they can be added.
    if len(runs) and int(runs.max()) > pixels:
        raise ValueError(f"run lengths cover more than the {pixels} pixels of the image")
    total = int(runs.sum())
    if total != pixels:
        raise ValueError(f"run lengths cover {total} pixels, the image has {pixels}")


def mask_patch(rle: Rle, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The part of a mask in a box, without decoding the rest.

    Args:
        box: (x1, y1, x2, y2) in whole pixels; may reach beyond the image, where the mask is empty.
    Returns:
        bool (y2 - y1, x2 - x1).
    """
    height, width = rle["size"]
    x1, y1, x2, y2 = box
    patch = np.zeros((max(y2 - y1, 0), max(x2 - x1, 0)), dtype=bool)
    left, right = max(x1, 0), min(x2, width)
    top, bottom = max(y1, 0), min(y2, height)
    if left >= right or top >= bottom:
        return patch
    edges = np.concatenate([[0], np.cumsum(decode_runs(rle["counts"].encode("ascii")))])
    edges = np.clip(edges, left * height, right * height)
    values = (np.arange(len(edges) - 1) % 2).astype(bool)
    strip = np.repeat(values, np.diff(edges)).reshape(right - left, height).T
    patch[top - y1 : bottom - y1, left - x1 : right - x1] = strip[top:bottom]
    return patch
