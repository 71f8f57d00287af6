"""Whether grey pixels are a mammogram with tissue bright: a small logistic model on what every mammogram has in common.

A dark, flat background; one convex bright region that leans on a side; tissue that fades towards the skin; no edges as
sharp as those of letters and things. `benchmarks/domain_guard.py` fits and measures it; no archive's look is needed.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.data.images import Pixels

LEAST = 64  # pixels of the longer side
DOUBTED, REFUSED = 0.1, 0.03  # probabilities of being a mammogram below which an image is doubted, and refused
_SMALL = 128  # longest side on which everything is measured
_FLAT = 0.01  # standard deviation of 5x5 pixels, as a part of the image's range
_DARK, _BRIGHT = 0.25, 0.65  # levels of flat areas, as parts of the range
_FRAME = 0.02  # standard deviation of a row or column that is part of a bright frame
_MOST = 4.0  # standard deviations, beyond which a measurement says no more

#: What is measured, each about 0 to 1.
MEASURES = (
    "dark",  # share of flat, dark pixels
    "bright",  # share of flat, bright pixels
    "breast",  # share of the breast
    "solidity",  # of the breast: its area over that of its convex hull
    "opposite",  # share of the side facing it
    "beside",  # share of the other two sides
    "mirror",  # correlation of the image with its mirror image
    "depth",  # correlation of brightness and distance from the border within the breast
    "level",  # mean brightness of the breast
    "contrast",  # standard deviation within the breast
    "edges",  # 98th percentile of the gradient inside of the breast
    "outside",  # standard deviation outside of the breast
    "filled",  # share of the breast in its box
    "around",  # mean brightness outside of the breast
    "wall",  # share of the side that the breast covers most
    "grain",  # detail of one pixel's size within the breast, as a part of its contrast
)
JUDGED = len(MEASURES) - 2  # the last ones differ between archives: they serve to compare with a known one


def measure(pixels: Pixels) -> NDArray[np.float64]:
    """`MEASURES` of pixels (H, W), uint8 or uint16, without a bright frame around them.

    Most are measured in the box of the breast, so that it does not count how much background an archive leaves.
    """
    whole = _without_frame(_shrunk(pixels))
    found = _breast(whole)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    small = _shrunk(whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    mask = _breast(small)
    all_mean = cv2.blur(whole, (5, 5))
    flat = cv2.blur(whole * whole, (5, 5)) - all_mean * all_mean < _FLAT**2
    sides = [float(side.mean()) for side in (mask[:, 0], mask[:, -1], mask[0], mask[-1])]
    wall = int(np.argmax(sides))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines))) if outlines else 0.0
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    inner = inner if inner.any() else mask
    tissue = small[mask]
    contrast = float(tissue.std())
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    distance = np.minimum(distance, _SMALL)  # it is infinite where all is breast
    gradient = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)) / 8
    detail = np.abs(small - cv2.GaussianBlur(small, (0, 0), 1.0))
    return np.array(
        [
            (flat & (all_mean < _DARK)).mean(),
            (flat & (all_mean > _BRIGHT)).mean(),
            found.mean(),
            min(float(mask.sum()) / max(hull, 1.0), 1.2),
            sides[wall ^ 1],
            (sum(sides) - sides[wall] - sides[wall ^ 1]) / 2,
            _correlation(small, small[:, ::-1]),
            _correlation(distance[mask], tissue),
            tissue.mean(),
            contrast,
            np.quantile(gradient[inner], 0.98),
            small[~mask].std() if not mask.all() else 0.0,
            mask.mean(),
            whole[~found].mean() if not found.all() else 1.0,
            sides[wall],
            detail[inner].mean() / max(contrast, 0.01),
        ],
        dtype=np.float64,
    )


def mammogram_probability(measured: NDArray[np.float64]) -> float:
    """How likely an image that measures so is a mammogram with tissue bright, from 0 to 1."""
    model = _model()
    terms = scaled_terms(measured, model["mean"], model["std"])
    logit = float(model["bias"][0] + terms @ np.concatenate([model["linear"], model["square"]]))
    return float(1 / (1 + np.exp(-logit)))


def scaled_terms(
    measured: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The first `JUDGED` measurements in standard deviations from the mammograms' mean, and their squares."""
    scaled = np.clip((measured[..., :JUDGED] - mean) / std, -_MOST, _MOST)
    return np.concatenate([scaled, scaled**2], axis=-1)


@cache
def _model() -> dict[str, NDArray[np.float64]]:
    text = files("mammodet.data").joinpath("guard.json").read_text(encoding="utf-8")
    return {name: np.array(value, dtype=np.float64) for name, value in json.loads(text)["model"].items()}


def _shrunk(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels on 0 to 1, the longest side 128."""
    scale = _SMALL / max(pixels.shape)
    size = max(round(pixels.shape[1] * scale), 8), max(round(pixels.shape[0] * scale), 8)
    small = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    low, high = float(small.min()), float(np.quantile(small, 0.995))
    return np.clip((small - low) / max(high - low, 1e-6), 0, 1)


def _without_frame(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without rows and columns at the border that are flat and not dark, as around a collimated or a scanned field."""
    top, left = 0, 0
    bottom, right = small.shape

    def framed(line: NDArray[np.float32]) -> bool:
        return float(line.std()) < _FRAME and float(line.mean()) > _DARK / 2

    changed = True
    while changed and bottom - top > _SMALL // 4 and right - left > _SMALL // 4:
        before = top, bottom, left, right
        top += framed(small[top, left:right])
        bottom -= framed(small[bottom - 1, left:right])
        left += framed(small[top:bottom, left])
        right -= framed(small[top:bottom, right - 1])
        changed = before != (top, bottom, left, right)
    if (top, left, bottom, right) == (0, 0, *small.shape):
        return small
    return _shrunk(np.ascontiguousarray(small[top:bottom, left:right]))


def _breast(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest bright region, roughly: `find_breast` costs twenty times as much. Never empty."""
    otsu, _ = cv2.threshold(np.round(small * 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = float(np.median(small[small <= otsu / 255]))
    bright = (small > dark + max(0.15 * (otsu / 255 - dark), 0.03)).astype(np.uint8)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return np.asarray(bright > 0) if bright.any() else np.ones(small.shape, dtype=bool)
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else 0.0
