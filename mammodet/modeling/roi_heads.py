"""torchvision's proposals and heads with regions to ignore, a cascade, generalised IoU, and masks where they lie."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_area, clip_boxes_to_image, generalized_box_iou_loss, roi_align

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

    With heads in `later` it is a cascade (Cai and Vasconcelos, CVPR 2018): each of these is asked about the boxes that
    the one before it made, scores are the mean of all, boxes the last one's. Masks learn from the proposals.
    """

    #: `smooth_l1`, as torchvision, or `giou`: boxes learn their overlap (Rezatofighi et al., CVPR 2019).
    box_loss: Literal["smooth_l1", "giou"]
    later: nn.ModuleList  #: box heads after the first, each with a `box_head` and a `box_predictor`
    later_ious: tuple[float, ...]  #: of each of these, the IoU with a lesion from which on a box counts as on it

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
            if len(self.later):
                return self._detect(features, proposals, image_shapes), {}
            return super().forward(features, proposals, image_shapes, targets)
        assert targets is not None
        proposals = [self._to_learn(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        if not any(len(boxes) + len(target["boxes"]) for boxes, target in zip(proposals, targets, strict=True)):
            return [], {"loss_none": silent_loss(self)}
        proposals, matched, labels, offsets = self.select_training_samples(proposals, targets)
        logits, deltas = self._ask(0, features, proposals, image_shapes)
        losses = self._box_losses(logits, deltas, proposals, matched, labels, offsets, targets)
        if self.has_mask():
            found = [torch.where(each > 0)[0] for each in labels]
            boxes = [each[index] for each, index in zip(proposals, found, strict=True)]
            masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
            lesions = [each[index] for each, index in zip(matched, found, strict=True)]
            losses["loss_mask"] = mask_loss(masks, boxes, targets, lesions)
        for number, iou in enumerate(self.later_ious, start=1):
            proposals = self._moved(logits, deltas, proposals, image_shapes)
            matched, labels, offsets = self._match(proposals, targets, iou)
            logits, deltas = self._ask(number, features, proposals, image_shapes)
            parts = self._box_losses(logits, deltas, proposals, matched, labels, offsets, targets)
            losses |= {f"{name}_{number + 1}": loss for name, loss in parts.items()}
        return [], losses

    def _detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Detections of a cascade, as torchvision's."""
        logits, deltas = self._ask(0, features, proposals, image_shapes)
        scores = logits.float().softmax(dim=1)
        for number in range(1, 1 + len(self.later)):
            proposals = self._moved(logits, deltas, proposals, image_shapes)
            logits, deltas = self._ask(number, features, proposals, image_shapes)
            scores = scores + logits.float().softmax(dim=1)
        means = (scores / (1 + len(self.later))).clamp(min=1e-9).log()
        found = self.postprocess_detections(means, deltas, proposals, image_shapes)
        boxes, _, labels = found
        detections = [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*found, strict=True)]
        if self.has_mask():
            masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
            for detection, probabilities in zip(detections, maskrcnn_inference(masks, labels), strict=True):
                detection["masks"] = probabilities
        return detections

    def _ask(
        self, number: int, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, categories + 1) and offsets (n, 4 (categories + 1)) of a head for the boxes of all images.

        The features learn a share of what the later heads ask of them, as in detectron2.
        """
        pooled = self.box_roi_pool(features, boxes, image_shapes)
        head: Any = self if number == 0 else self.later[number - 1]
        if self.training and number:
            share = 1 / (1 + len(self.later))
            pooled = share * pooled + (1 - share) * pooled.detach()
        answers: tuple[Tensor, Tensor] = head.box_predictor(head.box_head(pooled))
        return answers

    def _moved(
        self, logits: Tensor, deltas: Tensor, boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """What becomes of boxes (n, 4) by the offsets for their likeliest category, inside of their images."""
        category = logits[:, 1:].argmax(dim=1) + 1
        moved = self.box_coder.decode(deltas, boxes).gather(1, category[:, None, None].expand(-1, 1, 4))[:, 0]
        parts = moved.detach().split([each.shape[0] for each in boxes])
        return [clip_boxes_to_image(each, size_hw) for each, size_hw in zip(parts, image_shapes, strict=True)]

    def _match(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]], iou: float
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each image's boxes: the lesion that they overlap most, its label (0 below `iou`), the offsets to it."""
        matched, labels, lesions = [], [], []
        for boxes, target in zip(proposals, targets, strict=True):
            if not len(target["boxes"]):
                target = {
                    "boxes": boxes.new_zeros((1, 4)),
                    "labels": torch.zeros(1, dtype=torch.int64).to(boxes.device),
                }
            overlaps, index = self.box_similarity(target["boxes"], boxes).max(dim=0)
            matched.append(index)
            labels.append(torch.where(overlaps >= iou, target["labels"][index], 0))
            lesions.append(target["boxes"][index].to(boxes))
        return matched, labels, list(self.box_coder.encode(lesions, proposals))

    def _box_losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        offsets: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        loss_classifier, loss_box = fastrcnn_loss(logits, deltas, labels, offsets)
        if self.box_loss == "giou":
            loss_box = self._giou_loss(deltas, proposals, labels, matched, targets)
        return {"loss_classifier": loss_classifier, "loss_box_reg": loss_box}

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
        classes = torch.cat(labels)
        found = torch.where(classes > 0)[0]
        none = deltas.new_zeros((1, 4))  # for an image without lesions, whose proposals all stand at 0
        lesions = [target["boxes"] if len(target["boxes"]) else none for target in targets]
        wanted = torch.cat([boxes[index] for boxes, index in zip(lesions, matched, strict=True)])[found].float()
        moved = self.box_coder.decode(deltas, proposals)[found, classes[found]]
        return GIOU_WEIGHT * generalized_box_iou_loss(moved, wanted, reduction="sum") / max(len(classes), 1)


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


class LaterHead(nn.Module):
    """A box head of a cascade after the first, made like that one."""

    def __init__(self, box_head: nn.Module, box_predictor: nn.Module) -> None:
        super().__init__()
        self.box_head, self.box_predictor = box_head, box_predictor


def with_later_heads(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Weights of a detector without a cascade for one with `heads` later ones, which start as the first."""
    first = re.compile(r"((?:.*\.)?roi_heads\.)(box_(?:head|predictor)\..+)")
    found = {name: match for name in state if (match := first.fullmatch(name)) is not None}
    copies = {
        f"{match[1]}later.{number}.{match[2]}": state[name] for name, match in found.items() for number in range(heads)
    }
    return {**copies, **state}
