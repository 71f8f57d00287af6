"""Masks in files of their own: what is set, how they come to the size of their image, and what is connected in them."""

from __future__ import annotations

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

    Shrinking averages areas, as `mammodet.trace.Trace` does; only the part around the lesion is computed.
    """
    (height, width), (new_height, new_width) = mask.shape, size_hw
    if new_height > height or new_width > width:
        cover = cv2.resize(mask.view(np.uint8) * np.uint8(255), (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        # A lesion of a pixel or two is nowhere covered by a half.
        return np.asarray(cover >= max(min(128, int(cover.max())), 1))
    resized = np.zeros(size_hw, dtype=bool)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return resized
    over_rows, top = _shares(rows[0], rows[-1] + 1, height, new_height)
    over_columns, left = _shares(columns[0], columns[-1] + 1, width, new_width)
    patch = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    share = over_rows @ patch @ over_columns.T
    # A rounding error must not lose a pixel that is covered by exactly a half.
    inside = share >= min(0.5, float(share.max())) - 1e-5
    resized[top : top + share.shape[0], left : left + share.shape[1]] = inside
    return resized


def _shares(first: int, stop: int, length: int, new_length: int) -> tuple[NDArray[np.float32], int]:
    """How much of each new pixel the old pixels `first` to `stop` cover, along one side.

    Returns:
        float32 (new pixels, old pixels), each row for a new pixel; and the first new pixel.
    """
    scale = length / new_length
    new_first, new_stop = int(first / scale), min(int(np.ceil(stop / scale)), new_length)
    new = np.arange(new_first, new_stop)[:, None] * scale
    old = np.arange(first, stop)[None, :]
    overlap = np.minimum(new + scale, old + 1) - np.maximum(new, old)
    return (np.clip(overlap, 0, None) / scale).astype(np.float32), new_first


def components(mask: Mask, min_pixels: int) -> tuple[list[Outline], int]:
    """Connected regions of a mask (height, width), 8-connected, and how many smaller ones were dropped."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    outlines: list[Outline] = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= min_pixels:
            outlines.append(Outline(labels[y : y + height, x : x + width] == label, (x, y)))
    return outlines, count - 1 - len(outlines)
