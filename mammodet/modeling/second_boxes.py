"""What becomes of a second detection on a lesion, after non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou


@dataclass(slots=True)
class SecondBoxes:
    """Drops nested detections, then lowers the scores of overlapping ones.

    Attributes:
        containment_threshold: see `inside_others`; 1 drops none.
        soft_nms_sigma: see `softened`; None lowers none.
        score_threshold: what falls below is dropped.
    """

    containment_threshold: float = 1.0
    soft_nms_sigma: float | None = None
    score_threshold: float = 0.0

    def __call__(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The detections of an image, as in `DetectorOutput`, that are left, in falling order of their scores."""
        if self.containment_threshold < 1:
            keep = ~inside_others(found["boxes"], found["labels"], self.containment_threshold)
            found = {name: values[keep] for name, values in found.items()}
        if self.soft_nms_sigma is not None:
            scores = softened(found["boxes"], found["labels"], found["scores"], self.soft_nms_sigma)
            found = {**found, "scores": scores}
            order = torch.argsort(scores, descending=True, stable=True)
            order = order[scores[order] >= self.score_threshold]
            found = {name: values[order] for name, values in found.items()}
        return found


def inside_others(boxes_xyxy: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Which detections are nested with a stronger one of their category: bool (n,).

    Two boxes are nested if their intersection is more than `threshold` of the smaller one's area.

    Args:
        boxes_xyxy: (n, 4) in falling order of their scores.
        labels: (n,).
    """
    low = torch.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    high = torch.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    areas = box_area(boxes_xyxy)
    shares = (high - low).clamp(min=0).prod(dim=2) / torch.minimum(areas[:, None], areas[None, :]).clamp(min=1e-6)
    nested = (shares > threshold) & (labels[:, None] == labels[None, :])
    dropped = torch.zeros(len(boxes_xyxy), dtype=torch.bool, device=boxes_xyxy.device)
    for index in range(1, len(boxes_xyxy)):  # a dropped one drops no other
        dropped[index] = bool((nested[index, :index] & ~dropped[:index]).any())
    return dropped


def softened(boxes_xyxy: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Scores (n,) after soft non-maximum suppression (Bodla et al., ICCV 2017), in the order given.

    The strongest detection stays as it is; the score of each other one of its category is multiplied by
    exp(-IoU^2 / sigma). So with the strongest of the rest, until none is left.
    """
    lower = torch.exp(-(box_iou(boxes_xyxy, boxes_xyxy) ** 2) / sigma)
    lower[labels[:, None] != labels[None, :]] = 1
    scores, left = scores.clone(), torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    for _ in range(len(scores)):
        best = int(torch.where(left, scores, -1).argmax())
        left[best] = False
        scores = torch.where(left, scores * lower[best].to(scores.dtype), scores)
    return scores
