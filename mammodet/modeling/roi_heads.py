"""torchvision's region heads with the generalised IoU as box loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.ops import generalized_box_iou_loss

#: The generalised IoU's weight beside the classification, as in MMDetection's configs.
GIOU_WEIGHT = 10.0


class GIoURoIHeads(RoIHeads):
    """Boxes learn their overlap (Rezatofighi et al., CVPR 2019); detections are torchvision's."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As torchvision's: detections in eval mode, losses in training mode."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        assert targets is not None
        proposals, matched, labels, offsets = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, deltas = self.box_predictor(pooled)
        # torchvision's own loss of the classes; its loss of the offsets is left unused
        loss_classifier, _ = fastrcnn_loss(logits, deltas.detach(), labels, offsets)
        losses = {
            "loss_classifier": loss_classifier,
            "loss_box_reg": self._giou_loss(deltas, proposals, labels, matched, targets),
        }
        if self.has_mask():
            found = [torch.where(each > 0)[0] for each in labels]
            boxes = [each[index] for each, index in zip(proposals, found, strict=True)]
            masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
            losses["loss_mask"] = maskrcnn_loss(
                masks,
                boxes,
                [target["masks"] for target in targets],
                [target["labels"] for target in targets],
                [each[index] for each, index in zip(matched, found, strict=True)],
            )
        return [], losses

    def _giou_loss(
        self,
        deltas: Tensor,
        proposals: list[Tensor],
        labels: list[Tensor],
        matched: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        """1 - GIoU of the boxes that proposals on lesions become, over the number of all proposals, as torchvision's."""
        parts = []
        moved = self.box_coder.decode(deltas, proposals).split([len(each) for each in proposals])
        for boxes, classes, index, target in zip(moved, labels, matched, targets, strict=True):
            found = torch.where(classes > 0)[0]  # none where there is no box
            pairs = boxes[found, classes[found]].float(), target["boxes"][index[found]].float()
            parts.append(generalized_box_iou_loss(*pairs, reduction="sum"))
        return GIOU_WEIGHT * torch.stack(parts).sum() / max(sum(len(each) for each in labels), 1)
