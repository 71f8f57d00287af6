"""`MammoRCNN`: a detector and an image head that learn together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_area

from mammodet.modeling.contract import Detector, DetectorOutput
from mammodet.modeling.image_head import ImageHead, image_loss


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """Attributes: `losses` name to scalar (training); `detections` per image (eval); `logits` (B, T) or None."""

    losses: dict[str, Tensor]
    detections: list[dict[str, Tensor]]
    logits: Tensor | None


class MammoRCNN(nn.Module):
    """A detector, whatever its library, with an image head on its features.

    Args:
        detector: fulfils the `Detector` contract.
        image_head: or None for a plain detector.
        targets: names of the head's questions.
        head_weight: weight of the head's loss.
        with_masks: whether detections have masks.
        containment_threshold: see `inside_others`; 1 drops no detection.
    """

    def __init__(
        self,
        detector: nn.Module,
        image_head: ImageHead | None,
        targets: Sequence[str],
        head_weight: float,
        with_masks: bool,
        containment_threshold: float = 1.0,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.image_head = image_head
        self.targets = tuple(targets)
        self.head_weight = head_weight
        self.with_masks = with_masks
        self.containment_threshold = containment_threshold

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
        labels: Tensor | None = None,
        use_boxes: Sequence[bool] | None = None,
    ) -> ModelOutput:
        """Losses in training mode, detections and logits in eval mode.

        Args:
            images: float (C, H, W) in [0, 1] each.
            targets: boxes, labels, masks per image (training).
            labels: (B, T) image labels, NaN for unknown (training).
            use_boxes: images that may teach boxes (training).
        """
        detector: Detector = self.detector  # type: ignore[assignment]
        output: DetectorOutput = detector(images, targets, use_boxes)
        logits = self.image_head(output) if self.image_head is not None else None
        losses = dict(output.losses)
        if self.training and logits is not None and labels is not None:
            losses["loss_image"] = self.head_weight * image_loss(logits, labels)
        detections = output.detections
        if self.containment_threshold < 1:
            detections = [_without_nested(found, self.containment_threshold) for found in detections]
        return ModelOutput(losses, detections, logits)


def _without_nested(found: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    keep = ~inside_others(found["boxes"], found["labels"], threshold)
    return {name: values[keep] for name, values in found.items()}


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
