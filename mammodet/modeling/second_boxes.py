"""What becomes of a second detection on a lesion, after non-maximum suppression."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodet.config import DetectorConfig
from mammodet.geometry import Boxes, as_boxes, box_area, box_iou

#: The detections of an image, as in `DetectorOutput`, as arrays.
Found = dict[str, NDArray[Any]]


def without_second_boxes(found: Found, config: DetectorConfig, *, soften: bool = True) -> Found:
    """Detections that are left once nested ones are dropped and overlapping ones lowered, in falling order of scores.

    Args:
        soften: whether to lower scores, as `soft_nms_sigma` says; what falls below `score_threshold` is dropped.
    """
    if config.containment_threshold < 1:
        keep = ~inside_others(found["boxes"], found["labels"], config.containment_threshold)
        found = {name: values[keep] for name, values in found.items()}
    if config.soft_nms_sigma is not None and soften:
        scores = softened(found["boxes"], found["labels"], found["scores"], config.soft_nms_sigma)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= config.score_threshold]
        found = {name: values[order] for name, values in {**found, "scores": scores}.items()}
    return found


def inside_others(boxes_xyxy: Boxes, labels: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
    """Which detections are nested with a stronger one of their category: bool (n,).

    Two boxes are nested if their intersection is more than `threshold` of the smaller one's area.

    Args:
        boxes_xyxy: (n, 4) in falling order of their scores.
        labels: (n,).
    """
    boxes = as_boxes(boxes_xyxy)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    areas = box_area(boxes)
    shares = np.clip(high - low, 0, None).prod(axis=2) / np.minimum(areas[:, None], areas[None, :]).clip(min=1e-6)
    nested = (shares > threshold) & (labels[:, None] == labels[None, :])
    dropped = np.zeros(len(boxes), dtype=bool)
    for index in range(1, len(boxes)):  # a dropped one drops no other
        dropped[index] = (nested[index, :index] & ~dropped[:index]).any()
    return dropped


def softened(
    boxes_xyxy: Boxes, labels: NDArray[np.int64], scores: NDArray[np.floating], sigma: float
) -> NDArray[np.floating]:
    """Scores (n,) after soft non-maximum suppression (Bodla et al., ICCV 2017), in the order given.

    The strongest detection stays as it is; the score of each other one of its category is multiplied by
    exp(-IoU^2 / sigma). So with the strongest of the rest, until none is left.
    """
    lower = np.exp(-(box_iou(boxes_xyxy, boxes_xyxy) ** 2) / sigma).astype(scores.dtype)
    lower[labels[:, None] != labels[None, :]] = 1
    scores, left = scores.copy(), np.ones(len(scores), dtype=bool)
    for _ in range(len(scores)):
        best = int(np.where(left, scores, -1).argmax())
        left[best] = False
        scores = np.where(left, scores * lower[best], scores)
    return scores
