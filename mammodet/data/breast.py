"""Find the breast on the film.

Digitised films hold more than tissue: labels, bright tape, white scanner borders, noise, dark padding. The breast is
the one thing that is large, brighter than the film's background, and not flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.geometry import Mask
from mammodet.records import BoxXYXY

_WORK_SIZE = 256  # longest side on which the outline is looked for
#: Thresholds that are tried, high to low, as shares of the way from the background to Otsu's.
_SHARES = (*(0.35 * 0.85**step for step in range(20)), 0.0)
_MOST_GROWTH = 0.15  # of the breast's area from one threshold to the next, outside of its convex hull
_MOST_STEP = 8  # pixels that its border moves then


@dataclass(frozen=True, slots=True)
class Breast:
    """The breast on an image of `size_hw`."""

    box_xyxy: BoxXYXY  #: crop box with a margin, whole pixels of the image
    mask: Mask  #: bool, low resolution (longest side 256); `mask_at` resizes it
    size_hw: tuple[int, int]  #: (height, width) of the image it was found on

    def mask_at(self, size_hw: tuple[int, int]) -> Mask:
        """The mask resized to (height, width)."""
        return np.asarray(cv2.resize(self.mask.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST) > 0)


def find_breast(pixels: NDArray[Any], margin: float = 0.02) -> Breast:
    """Segment the breast and give the box to crop to.

    Otsu's threshold (IEEE Trans. SMC 1979) on a small copy from which flat saturated areas (tape, labels, borders) are
    taken out; the component that is largest after an opening; then the threshold falls towards the background as long
    as the component does not leak, so that the skin line and dark tissue are kept.

    Args:
        pixels: uint8 or uint16 (height, width), tissue brighter than background.
        margin: added on each side of the box, as a part of its longer side.
    Returns:
        the whole image where nothing can be told from background (a constant or nearly empty image).
    """
    height, width = pixels.shape[:2]
    scale = _WORK_SIZE / max(height, width)
    small_hw = max(round(height * scale), 1), max(round(width * scale), 1)
    if pixels.dtype == np.uint8:
        pixels = np.multiply(pixels, 257, dtype=np.uint16)  # or the resized values were rounded to whole grey levels
    small = cv2.resize(pixels, small_hw[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    mask = _segment(small)
    if mask is None:
        return Breast((0.0, 0.0, float(width), float(height)), np.ones(small_hw, dtype=bool), (height, width))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    scale_x, scale_y = width / small_hw[1], height / small_hw[0]
    left, right = columns[0] * scale_x, (columns[-1] + 1) * scale_x
    top, bottom = rows[0] * scale_y, (rows[-1] + 1) * scale_y
    extra = margin * max(right - left, bottom - top)
    box = (
        float(max(np.floor(left - extra), 0)),
        float(max(np.floor(top - extra), 0)),
        float(min(np.ceil(right + extra), width)),
        float(min(np.ceil(bottom + extra), height)),
    )
    return Breast(box, mask, (height, width))


def _segment(small: NDArray[np.float32]) -> Mask | None:
    low, high = float(small.min()), float(small.max())
    if high - low < 1e-6:
        return None
    grey = np.round((small - low) / (high - low) * 255).astype(np.uint8)
    artefact = _flat_and_bright(grey)
    tissue = grey[~artefact]
    if tissue.size < 0.05 * grey.size:
        return None
    otsu, _ = cv2.threshold(tissue.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    background = float(np.median(tissue[tissue <= otsu])) if (tissue <= otsu).any() else 0.0
    breast: Mask | None = None
    for threshold in dict.fromkeys(np.floor(background + share * (otsu - background)) for share in _SHARES):
        found = _component((grey > threshold) & ~artefact, breast)
        if found is None:
            continue
        if breast is None:
            breast = found
        elif _has_leaked(breast, breast | found):
            break
        else:
            breast = breast | found
    if breast is None or breast.sum() < 0.01 * breast.size:
        return None
    return _filled(_outlines(breast), breast.shape)


def _component(foreground: Mask, breast: Mask | None) -> Mask | None:
    """What is connected in the opened foreground: to the breast where it is known, else the likeliest to be it."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    opened = cv2.morphologyEx(foreground.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return None
    if breast is not None:
        return np.asarray(labels == 1 + int(np.bincount(labels[breast], minlength=count)[1:].argmax()))
    # The larger and the less like a bare rectangle (a label, a strip of tape), the likelier it is the breast.
    area = stats[1:, cv2.CC_STAT_AREA].astype(float)
    sides = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(float)
    thin = sides.min(axis=1) < 0.08 * max(foreground.shape)
    return np.asarray(labels == 1 + int(np.argmax(area * np.where(thin, 0.05, 1.0))))


def _has_leaked(breast: Mask, grown: Mask) -> bool:
    """Whether a mask that grew by one step of the threshold has left the breast: for a label, or the film's base.

    Dark tissue between the skin and the bright gland lies inside the mask's convex hull, and may come in at any time.
    """
    hull = cv2.convexHull(np.concatenate(_outlines(breast)))
    outside = grown & ~_filled([hull], breast.shape)
    if outside.sum() > _MOST_GROWTH * breast.sum():
        return True
    distance = cv2.distanceTransform((~breast).astype(np.uint8), cv2.DIST_C, 3)
    return bool((outside & (distance > _MOST_STEP)).sum() > 0.002 * breast.sum())


def _flat_and_bright(grey: NDArray[np.uint8]) -> Mask:
    """Pixels of tape, labels and borders: nearly saturated over a neighbourhood, and standing in the dark.

    Saturated muscle or dense tissue is flat and bright too, but fades into tissue on at least one side.
    """
    values = grey.astype(np.float32)
    mean = cv2.blur(values, (5, 5))
    spread = np.sqrt(np.clip(cv2.blur(values * values, (5, 5)) - mean * mean, 0, None))
    core = ((mean > 235) & (spread < 4)).astype(np.uint8)
    artefact = np.zeros(grey.shape, dtype=bool)
    count, labels = cv2.connectedComponents(core)
    for label in range(1, count):
        part = (labels == label).astype(np.uint8)
        rim = cv2.dilate(part, np.ones((7, 7), np.uint8)) > 0
        around = (cv2.dilate(part, np.ones((13, 13), np.uint8)) > 0) & ~rim
        if not around.any() or np.mean(grey[around] > 110) < 0.25:
            artefact |= rim
    return artefact


def _outlines(mask: Mask) -> Sequence[NDArray[Any]]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]


def _filled(outlines: Sequence[NDArray[Any]], size_hw: tuple[int, ...]) -> Mask:
    filled = np.zeros(size_hw, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled > 0
