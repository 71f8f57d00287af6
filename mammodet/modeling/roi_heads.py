"""torchvision's proposals and heads with regions to ignore, the generalised IoU, and masks learnt where they lie."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_area, generalized_box_iou_loss, roi_align

from mammodet.modeling.contract import silent_loss

#: The generalised IoU's weight beside the classification, as in MMDetection's configs.
GIOU_WEIGHT = 10.0
#: A box of which this share lies in a region to ignore teaches nothing, unless it is on a lesion.
IGNORED_SHARE = 0.5


def in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which boxes (n, 4) lie in one of the regions (m, 4), xyxy both: bool (n,)."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    shares = (high - low).clamp(min=0).prod(dim=2) / box_area(boxes).clamp(min=1e-6)[:, None]
    return (shares >= IGNORED_SHARE).any(dim=1)


class IgnoringRPN(RegionProposalNetwork):
    """Anchors in regions to ignore are no background; a target may hold `ignored` boxes."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's, with label -1 (of no use) for such anchors."""
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for each, boxes, target in zip(labels, anchors, targets, strict=True):
            if len(target.get("ignored", ())):
                each[(each == 0) & in_ignored(boxes, target["ignored"])] = -1
        return labels, matched


class RegionHeads(RoIHeads):
    """torchvision's heads; proposals in regions to ignore are no background, and masks are learnt where they lie.

    Attributes:
        box_loss: `smooth_l1`, as torchvision, or `giou`: boxes learn their overlap (Rezatofighi et al., CVPR 2019).
    """

    box_loss: Literal["smooth_l1", "giou"]

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As torchvision's: detections in eval mode, losses in training mode.

        A batch in which no proposal and no lesion is left teaches nothing.
        """
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        assert targets is not None
        proposals = [self._to_learn(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        if not any(len(boxes) + len(target["boxes"]) for boxes, target in zip(proposals, targets, strict=True)):
            return [], {"loss_none": silent_loss(self)}
        proposals, matched, labels, offsets = self.select_training_samples(proposals, targets)
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        loss_classifier, loss_box = fastrcnn_loss(logits, deltas, labels, offsets)
        if self.box_loss == "giou":
            loss_box = self._giou_loss(deltas, proposals, labels, matched, targets)
        losses = {"loss_classifier": loss_classifier, "loss_box_reg": loss_box}
        if self.has_mask():
            found = [torch.where(each > 0)[0] for each in labels]
            boxes = [each[index] for each, index in zip(proposals, found, strict=True)]
            masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
            lesions = [each[index] for each, index in zip(matched, found, strict=True)]
            losses["loss_mask"] = mask_loss(masks, boxes, targets, lesions)
        return [], losses

    def _to_learn(self, proposals: Tensor, target: dict[str, Tensor]) -> Tensor:
        """The proposals on lesions and outside of regions to ignore."""
        if not len(target.get("ignored", ())):
            return proposals
        left = ~in_ignored(proposals, target["ignored"])
        if len(target["boxes"]):
            overlaps = self.box_similarity(target["boxes"], proposals).amax(dim=0)
            left |= overlaps >= self.proposal_matcher.high_threshold
        return proposals[left]

    def _giou_loss(
        self,
        deltas: Tensor,
        proposals: list[Tensor],
        labels: list[Tensor],
        matched: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        """1 - GIoU of the boxes that proposals on lesions become, over the number of all proposals."""
        parts = []
        moved = self.box_coder.decode(deltas, proposals).split([len(each) for each in proposals])
        for boxes, classes, index, target in zip(moved, labels, matched, targets, strict=True):
            found = torch.where(classes > 0)[0]  # none where there is no box
            pairs = boxes[found, classes[found]].float(), target["boxes"][index[found]].float()
            parts.append(generalized_box_iou_loss(*pairs, reduction="sum"))
        return GIOU_WEIGHT * torch.stack(parts).sum() / max(sum(len(each) for each in labels), 1)


def mask_loss(logits: Tensor, boxes: list[Tensor], targets: list[dict[str, Tensor]], lesions: list[Tensor]) -> Tensor:
    """Cross-entropy of masks with those of their lesions inside their boxes.

    As torchvision's `maskrcnn_loss`, but for where the lesions' masks are looked at: the centres of the grid's cells,
    as `mammodet.modeling.masks.paste_mask` puts them back. torchvision's lie half a pixel off.

    Args:
        logits: (n, categories + 1, M, M) of the boxes of all images.
        boxes: of each image, (k, 4) xyxy.
        lesions: of each image, the place in its targets of the lesion that each box is on, (k,).
    """
    if not len(logits):
        return logits.sum() * 0
    wanted = torch.cat(
        [
            masks_on_boxes(target["masks"], each, index, logits.shape[-1])
            for target, each, index in zip(targets, boxes, lesions, strict=True)
        ]
    )
    categories = torch.cat([target["labels"][index] for target, index in zip(targets, lesions, strict=True)])
    chosen = logits[torch.arange(len(logits), device=logits.device), categories]
    return functional.binary_cross_entropy_with_logits(chosen, wanted)


def masks_on_boxes(masks: Tensor, boxes: Tensor, lesions: Tensor, size: int) -> Tensor:
    """The masks uint8 (m, H, W) of `lesions` (k,) inside boxes (k, 4) on a grid: float (k, size, size)."""
    rois = torch.cat([lesions[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), rois, (size, size), 1.0, aligned=True)[:, 0]
