"""torchvision's Mask R-CNN and Faster R-CNN behind the `Detector` contract (He et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from mammodet.config import DetectorConfig
from mammodet.modeling.contract import DetectorOutput, silent_loss, teaching_images

PIXEL_MEAN, PIXEL_STD = 0.449, 0.226  # ImageNet's, averaged over its channels


class SizedTransform(GeneralizedRCNNTransform):
    """Normalise and pad to a batch, but never resize: images come in the network's size (`Trace` knows the way back).

    torchvision's own `_skip_resize` holds in training only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, 1, image_mean=[PIXEL_MEAN] * channels, image_std=[PIXEL_STD] * channels)

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The image as it is."""
        return image, target


class FloatAnchors(AnchorGenerator):
    """Anchors in float32 whatever the features are: bfloat16 tells no odd pixel from an even one beyond 256."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """As torchvision's, in float32."""
        super().set_cell_anchors(torch.float32, device)


class FloatBoxCoder(BoxCoder):
    """Boxes decoded in float32 whatever the network's answers are."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """As torchvision's, in float32."""
        return super().decode_single(rel_codes.float(), boxes.float())


class TorchvisionDetector(nn.Module):
    """A torchvision `GeneralizedRCNN`, with its features laid open and images that teach no boxes left out.

    Where every image teaches boxes, losses and detections are those of the model's own forward, bit for bit.

    Args:
        model: `MaskRCNN` or `FasterRCNN` that resizes nothing (its inputs come in their size).
    """

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model
        self.feature_channels = int(model.backbone.out_channels)
        self.feature_strides = (4, 8, 16, 32, 64)
        self.with_masks = isinstance(model, MaskRCNN)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
        use_boxes: Sequence[bool] | None = None,
    ) -> DetectorOutput:
        """See `mammodet.modeling.contract.Detector`."""
        model = self.model
        if self.training and targets is None:
            raise ValueError("targets: needed in training mode")
        sizes_hw = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        batch, moved = model.transform(list(images), list(targets) if targets is not None else None)
        features = model.backbone(batch.tensors)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training:
            losses = self._losses(batch, features, moved, use_boxes)
        else:
            proposals, _ = model.rpn(batch, features, None)
            raw, _ = model.roi_heads(features, proposals, batch.image_sizes, None)
            detections = model.transform.postprocess(raw, batch.image_sizes, sizes_hw)
        return DetectorOutput(
            features=list(features.values()),
            sizes_hw=[(int(height), int(width)) for height, width in batch.image_sizes],
            padded_hw=(int(batch.tensors.shape[-2]), int(batch.tensors.shape[-1])),
            losses=losses,
            detections=detections,
        )

    def _losses(
        self,
        batch: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]],
        use_boxes: Sequence[bool] | None,
    ) -> dict[str, Tensor]:
        model = self.model
        keep = teaching_images(len(targets), use_boxes)
        if not keep:
            return {"loss_none": silent_loss(self)}
        if len(keep) < len(targets):
            features = {name: level[keep] for name, level in features.items()}
            targets = [targets[index] for index in keep]
            batch = ImageList(batch.tensors[keep], [batch.image_sizes[index] for index in keep])
        proposals, proposal_losses = model.rpn(batch, features, targets)
        _, head_losses = model.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**head_losses, **proposal_losses}


def build_torchvision(
    config: DetectorConfig,
    backbone: nn.Module,
    *,
    num_categories: int,
    in_channels: int,
    anchor_sizes: Sequence[float],
) -> TorchvisionDetector:
    """Wire a detector.

    Args:
        num_categories: without the background.
        anchor_sizes: one side per level, in the network's pixels.
    """
    width = int(backbone.out_channels)  # type: ignore[arg-type]
    pool = MultiScaleRoIAlign(featmap_names=["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    options: dict[str, Any] = {
        "rpn_anchor_generator": FloatAnchors(
            tuple((float(side),) for side in anchor_sizes),
            (tuple(config.anchors.ratios),) * len(anchor_sizes),
        ),
        "rpn_pre_nms_top_n_train": config.rpn_pre_nms_top_n,
        "rpn_pre_nms_top_n_test": config.rpn_pre_nms_top_n,
        "rpn_post_nms_top_n_train": config.rpn_post_nms_top_n,
        "rpn_post_nms_top_n_test": config.rpn_post_nms_top_n,
        "rpn_batch_size_per_image": config.rpn_batch_per_image,
        "box_roi_pool": pool,
        "box_head": TwoMLPHead(width * 7 * 7, config.box_head_channels),
        "box_predictor": FastRCNNPredictor(config.box_head_channels, num_categories + 1),
        "box_batch_size_per_image": config.box_batch_per_image,
        "box_positive_fraction": config.box_positive_fraction,
        "box_score_thresh": config.score_threshold,
        "box_nms_thresh": config.nms_threshold,
        "box_detections_per_img": config.max_detections,
    }
    if config.arch == "faster_rcnn":
        return TorchvisionDetector(_finish(FasterRCNN(backbone, **options), in_channels))
    depth = config.mask_head_channels
    mask_head = MaskRCNNHeads(width, (depth,) * config.mask_head_layers, 1)
    mask_pool = MultiScaleRoIAlign(featmap_names=["0", "1", "2", "3"], output_size=14, sampling_ratio=2)
    model = MaskRCNN(
        backbone,
        mask_roi_pool=mask_pool,
        mask_head=mask_head,
        mask_predictor=MaskRCNNPredictor(depth, depth, num_categories + 1),
        **options,
    )
    return TorchvisionDetector(_finish(model, in_channels))


def _finish(model: FasterRCNN, in_channels: int) -> FasterRCNN:
    """Exchange the parts that resize, or that lose precision under autocast."""
    model.transform = SizedTransform(in_channels)
    for part in (model.rpn, model.roi_heads):
        part.box_coder = FloatBoxCoder(part.box_coder.weights)
    return model
