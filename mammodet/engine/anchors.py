"""Anchor sizes fitted to the lesions that are to be found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mammodet.config import ImageConfig
from mammodet.data.images import read_image
from mammodet.data.preprocess import plan_trace
from mammodet.errors import InputError
from mammodet.geometry import box_area
from mammodet.records import Dataset

LEVELS = 5
SMALLEST = 8.0  # pixels; below this even the finest level (stride 4) sees nothing


def fit_anchor_sizes(dataset: Dataset, root: Path, image: ImageConfig) -> list[float]:
    """One anchor side per pyramid level, in the network's pixels.

    Sides run in equal ratios from the 5th to the 95th percentile of the training boxes' sides (square root of area), so
    that the middle levels meet the median lesion.

    Raises:
        InputError: the training set has no box.
    """
    sides: list[float] = []
    for record in dataset.images:
        boxes = [lesion.box_xyxy for lesion in record.lesions if not lesion.ignore]
        if not boxes:
            continue
        if image.crop == "breast" and record.breast_box_xyxy is None:
            pixels = read_image(root / record.file_name)
        else:
            pixels = np.zeros(record.size_hw, dtype=np.uint8)  # only the size counts: the crop box is known
        trace = plan_trace(pixels, image.model_copy(update={"orient": "none"}), record.breast_box_xyxy)
        sides.extend(np.sqrt(box_area(trace.boxes_forward(boxes))).tolist())
    if not sides:
        raise InputError("model.detector.anchors.sizes=auto: the training set has no boxes to fit; give five sizes")
    low, high = np.quantile(sides, [0.05, 0.95])
    low = max(float(low), SMALLEST)
    high = max(float(high), 2 * low)
    return [round(float(side), 1) for side in np.geomspace(low, high, LEVELS)]
