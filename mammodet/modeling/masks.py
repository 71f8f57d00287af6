"""Masks of boxes put back into the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def paste_masks(masks: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Probabilities inside boxes at the pixels of an image, 0 outside of the boxes.

    Each pixel takes the mask's value at its centre, linear between those of the mask's own pixels, as detectron2 does.
    torchvision rounds boxes to whole pixels and counts both ends, which makes small lesions a pixel too large.

    Args:
        masks: float (n, 1, M, M).
        boxes: float (n, 4) xyxy in pixels.
    Returns:
        float (n, 1, H, W).
    """
    height, width = size_hw
    pasted = masks.new_zeros((len(masks), 1, height, width))
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        columns, x = _places(left, right, width, masks)
        rows, y = _places(top, bottom, height, masks)
        if len(x) and len(y):
            grid = torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)
            sampled = functional.grid_sample(masks[index : index + 1], grid[None], align_corners=False)
            pasted[index, 0, rows, columns] = sampled[0, 0]
    return pasted


def _places(low: float, high: float, size: int, like: Tensor) -> tuple[slice, Tensor]:
    """The pixels that a box's side meets, and their centres on it: -1 at its low end, 1 at its high end."""
    pixels = range(max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, size))
    centres = torch.tensor(pixels, dtype=like.dtype, device=like.device) + 0.5
    return slice(pixels.start, pixels.stop), (centres - low) * (2 / max(high - low, 1e-6)) - 1
