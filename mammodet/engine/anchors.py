"""Anchors fitted to the lesions that are to be found and to the strides of the features that find them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodet.config import ImageConfig
from mammodet.data.images import read_image
from mammodet.data.preprocess import plan_trace
from mammodet.errors import InputError
from mammodet.geometry import box_area
from mammodet.records import Dataset

#: From one side to the next: a box between two sides overlaps the nearer one by 0.7 or more, were they concentric.
STEP = 2**0.5
#: Sides are this many strides at least. Half a stride off in both directions, a square of 3.5 strides overlaps a box of
#: its size by 0.58, one of 2 strides by 0.39.
FEWEST_STRIDES = 3.5
SMALLEST = 8.0  # pixels; below this even the finest level sees nothing
QUANTILES = (0.02, 0.98)


def training_boxes(dataset: Dataset, root: Path, image: ImageConfig) -> NDArray[np.float64]:
    """Boxes (n, 4) xyxy of all lesions that teach, in the network's pixels. Raises InputError: there is none."""
    found = []
    for record in dataset.images:
        boxes = [lesion.box_xyxy for lesion in record.lesions if not lesion.ignore]
        if not boxes:
            continue
        if image.crop == "breast" and record.breast_box_xyxy is None:
            pixels = read_image(root / record.file_name)
        else:
            pixels = np.zeros(record.size_hw, dtype=np.uint8)  # only the size counts: the crop box is known
        trace = plan_trace(pixels, image.model_copy(update={"orient": "none"}), record.breast_box_xyxy)
        found.append(trace.boxes_forward(boxes))
    if not found:
        raise InputError("model.detector.anchors.sizes=auto: the training set has no boxes to fit; give the sizes")
    return np.concatenate(found)


def fit_anchors(boxes_xyxy: NDArray[np.float64], strides: Sequence[int], *, uniform: bool) -> list[list[float]]:
    """Anchor sides for each level, in the network's pixels.

    Sides run in steps of the square root of 2, or a little less, from the smallest to the largest lesions (2nd and 98th
    percentile of the square root of the area); each lies on the coarsest level on which it is `FEWEST_STRIDES` strides
    or more, the smaller ones on the finest level.

    Args:
        boxes_xyxy: (n, 4), n at least 1.
        strides: of the levels, fine to coarse.
        uniform: the same number of sides on each level, as detectron2 needs it: two steps on each, and levels go on
            where lesions end.
    """
    low, high = np.quantile(np.sqrt(box_area(boxes_xyxy)), QUANTILES)
    low = max(float(low), SMALLEST)
    high = max(float(high), low)
    if uniform:
        start = min(max(low * STEP**0.5 / strides[0], 1.0), FEWEST_STRIDES * STEP)
        return [[_tidy(start * stride), _tidy(start * stride * STEP)] for stride in strides]
    steps = int(np.ceil(np.log(high / low) / np.log(STEP)))
    sides = np.geomspace(low, high, steps + 1)
    levels: list[list[float]] = [[] for _ in strides]
    for side in sides:
        fitting = [level for level, stride in enumerate(strides) if side >= FEWEST_STRIDES * stride]
        levels[max(fitting, default=0)].append(_tidy(side))
    return levels


def _tidy(side: float) -> float:
    return round(float(side), 1)


def anchor_recall(
    boxes_xyxy: NDArray[np.float64],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    strides: Sequence[int],
    threshold: float,
) -> float:
    """Share of the boxes that some anchor overlaps by `threshold` or more, at its place on the level's grid.

    Anchors are centred on multiples of the stride, and their sides are whole pixels, as in torchvision.
    """
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    best = np.zeros(len(boxes_xyxy))
    for level, stride in zip(sizes, strides, strict=True):
        offsets = np.abs(centres - np.round(centres / stride) * stride)
        for side in level:
            for ratio in ratios:
                anchor = 2 * np.round(np.array([side / ratio**0.5, side * ratio**0.5]) / 2)
                shared = np.clip(np.minimum((sides + anchor) / 2 - offsets, np.minimum(sides, anchor)), 0, None)
                inside = shared.prod(axis=1)
                best = np.maximum(best, inside / (sides.prod(axis=1) + anchor.prod() - inside))
    return float((best >= threshold).mean())


def describe_anchors(
    boxes_xyxy: NDArray[np.float64], sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]
) -> str:
    """The sides of each level, and how many of the boxes they meet."""
    levels = "; ".join(
        f"stride {stride}: {', '.join(f'{side:g}' for side in level)} px"
        for stride, level in zip(strides, sizes, strict=True)
        if level
    )
    areas = box_area(boxes_xyxy)
    largest = boxes_xyxy[areas >= np.quantile(areas, 0.75)]
    shares = [
        f"{name} {anchor_recall(boxes, sizes, ratios, strides, 0.5):.0%} at IoU 0.5, "
        f"{anchor_recall(boxes, sizes, ratios, strides, 0.7):.0%} at 0.7"
        for name, boxes in (("all", boxes_xyxy), ("the largest quarter", largest))
    ]
    return f"anchors at {levels}\n  training boxes met by an anchor: {'; '.join(shares)}"
