"""What speaks against an image being a mammogram with tissue bright: a model scores whatever it is shown."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mammodet.data.breast import find_breast
from mammodet.data.images import Pixels, is_dicom, read_pixels, to_grey

LEAST_SIDE = 64  # pixels of the longer side
_SMALL = 128  # longest side on which flat areas are looked for
_FLAT = 0.01  # standard deviation of 5x5 pixels, as a part of the image's range
_COLOURED = 0.02  # share of pixels whose channels differ by an eighth of the scale
_BRIGHT = 0.65  # of the image's range: the middle level of what is flat


def read_with_doubts(path: Path) -> tuple[Pixels, list[str]]:
    """An image as `read_image` gives it, and why it may be no mammogram that a model can judge.

    Raises:
        InputError: as `read_image`.
    """
    if is_dicom(path):
        from mammodet.data.dicom import read_dicom  # here, since importing pydicom takes longer than reading a PNG

        pixels, header = read_dicom(path)
        doubts = ["its pixels are for processing, not for presentation"] if header.for_processing else []
    else:
        stored = read_pixels(path)
        pixels, doubts = to_grey(stored), ["is a colour picture"] if _is_coloured(stored) else []
    return pixels, [*doubts, *doubts_of(pixels)]


def _is_coloured(stored: Pixels) -> bool:
    if stored.ndim == 2 or stored.shape[2] < 3:
        return False
    spread = np.ptp(stored[..., :3], axis=2)
    return bool(np.mean(spread > np.iinfo(stored.dtype).max / 8) > _COLOURED)


def doubts_of(pixels: Pixels) -> list[str]:
    """What speaks against grey pixels (H, W) being a mammogram with tissue bright."""
    height, width = pixels.shape
    if max(height, width) < LEAST_SIDE:
        return [f"is {height}x{width} pixels small"]
    if find_breast(pixels).mask.all():
        return ["no breast was found on it"]
    return ["its background is brighter than the breast: is it inverted?"] if _is_inverted(pixels) else []


def _is_inverted(pixels: Pixels) -> bool:
    """Whether most of what is flat, as only background is over large areas, is bright."""
    scale = min(_SMALL / max(pixels.shape), 1.0)
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = (small - small.min()) / max(float(np.ptp(small)), 1.0)
    mean = cv2.blur(small, (5, 5))
    flat = cv2.blur(small * small, (5, 5)) - mean * mean < _FLAT**2
    return bool(flat.mean() > 0.05 and np.median(small[flat]) > _BRIGHT)
