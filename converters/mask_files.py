"""Masks in files of their own: what is set, how they come to the size of their image, and what is connected in them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.geometry import Mask

_LOSSY = (".jpg", ".jpeg")
_MOST_COVERED = 0.9  # part of the image that a lesion can cover


class LesionError(ValueError):
    """Why a lesion cannot be converted."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A connected region: bool patch (h, w), and column and row of its top-left pixel in the image."""

    patch: Mask
    corner_xy: tuple[int, int]


def is_lossy(path: Path) -> bool:
    """Whether a file's values are only nearly what they were."""
    return path.suffix.lower() in _LOSSY


def two_valued(pixels: NDArray[Any], *, lossy: bool) -> Mask | None:
    """A picture of two values as bool (height, width), the higher one set; None for a grey picture.

    Args:
        lossy: JPEG leaves rings around edges; values then only have to keep away from the middle.
    """
    low, high = int(pixels.min()), int(pixels.max())
    sample = pixels[::61, ::61]  # tells most grey pictures without another look at all of it
    if not lossy and np.any((sample != low) & (sample != high)):
        return None
    if lossy:
        grey = np.count_nonzero((pixels > 64) & (pixels < 192))
        if grey > 0.02 * pixels.size or (low < 64 < high < 192):
            return None
        return np.asarray(pixels >= 128)
    if low == high:
        return np.full(pixels.shape, low > 0)
    mask = pixels == high
    if np.count_nonzero(mask) + np.count_nonzero(pixels == low) != pixels.size:
        return None
    return np.asarray(mask)


def check_covered(mask: Mask, path: Path) -> None:
    """Refuse a mask that is empty, or covers nearly all of its image, as an inverted one does."""
    covered = np.count_nonzero(mask) / mask.size
    if not covered:
        raise LesionError(f"its mask {path.name} is empty")
    if covered > _MOST_COVERED:
        raise LesionError(f"its mask {path.name} covers {100 * covered:.0f} % of the image")


def is_uniform_scale(size_hw: tuple[int, int], image_hw: tuple[int, int]) -> bool:
    """Whether one size is the other, made larger or smaller by at most 2, up to a pixel of rounding on each side."""
    scale = max(size_hw) / max(image_hw)
    if not 0.5 <= scale <= 2:
        return False
    slack = max(1.0, scale)
    return all(abs(side - expected * scale) <= slack for side, expected in zip(size_hw, image_hw, strict=True))


def resize_mask(mask: Mask, size_hw: tuple[int, int]) -> Mask:
    """A mask at another size: a pixel is set where at least half of it is covered; a lesion never vanishes.

    Shrinking averages areas, as `mammodet.trace.Trace` does, where the lesion is: most of a mask is empty.
    """
    (height, width), (new_height, new_width) = mask.shape, size_hw
    resized = np.zeros(size_hw, bool)
    part: tuple[slice, ...] = (slice(None), slice(None))
    lines = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    if not len(lines[0]):
        return resized
    ends = [(int(line[0]), int(line[-1]) + 1) for line in lines]
    grows = new_height > height or new_width > width
    if grows or 4 * math.prod(last - first for first, last in ends) > mask.size:
        way = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
        share = cv2.resize(mask.astype(np.float32), (new_width, new_height), interpolation=way)
    else:
        (down, rows), (across, columns) = map(_shares, ends, mask.shape, size_hw)
        share = rows @ mask[tuple(slice(*each) for each in ends)].astype(np.float32) @ columns.T
        part = (down, across)
    # A lesion of a pixel or two is nowhere covered by a half; a rounding error must not lose one that just is.
    resized[part] = (share >= min(0.5, float(share.max())) - 1e-5) & (share > 0)
    return resized


def _shares(ends: tuple[int, int], length: int, new_length: int) -> tuple[slice, NDArray[np.float32]]:
    """Which of `new_length` lines look at the lines from `ends[0]` to before `ends[1]`, and their shares (new, old)."""
    scale = length / new_length
    first, last = int(ends[0] / scale), min(math.ceil(ends[1] / scale), new_length)
    edges, old = np.arange(first, last + 1)[:, None] * scale, np.arange(*ends)[None]
    inside = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    return slice(first, last), (inside.clip(0) / scale).astype(np.float32)


def components(mask: Mask, min_pixels: int) -> tuple[list[Outline], int]:
    """Connected regions of a mask (height, width), 8-connected, and how many smaller ones were dropped."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    outlines: list[Outline] = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= min_pixels:
            outlines.append(Outline(labels[y : y + height, x : x + width] == label, (x, y)))
    return outlines, count - 1 - len(outlines)
