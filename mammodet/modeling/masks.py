"""Masks of boxes put back into the image."""

import math

import numpy as np
from numpy.typing import NDArray


def paste_mask(
    mask: NDArray[np.floating], box_xyxy: NDArray[np.floating], size_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Probabilities inside a box at the pixels of an image.

    Each pixel takes the mask's value at its centre, linear between those of the mask's own pixels, as detectron2 does.
    torchvision rounds boxes to whole pixels and counts both ends, which makes small lesions a pixel too large.

    Args:
        mask: (M, M) on the box's grid.
        box_xyxy: (4,) in pixels.
    Returns:
        float32 (h, w), the part of the image that the box meets, and the (x, y) of its first pixel; 0 elsewhere.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    x, columns = _weights(left, right, size_hw[1], mask.shape[1])
    y, rows = _weights(top, bottom, size_hw[0], mask.shape[0])
    return rows @ mask.astype(np.float32) @ columns.T, (x, y)


def _weights(low: float, high: float, size: int, cells: int) -> tuple[int, NDArray[np.float32]]:
    """The first pixel that a box's side meets, and weights (pixels, cells) of the cells for it and those after it."""
    pixels = np.arange(max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, size))
    places = (pixels + 0.5 - low) * (cells / max(high - low, 1e-6)) - 0.5
    weights = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None).astype(np.float32)
    return int(pixels[0]) if len(pixels) else 0, weights
