"""torchvision's Mask R-CNN and Faster R-CNN behind the `Detector` contract (He et al., ICCV 2017)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from mammodet.config import DetectorConfig
from mammodet.modeling.contract import DetectorOutput, silent_loss
from mammodet.modeling.pixel_stats import PixelStats
from mammodet.modeling.roi_heads import IgnoringRPN, LaterHead, RegionHeads
from mammodet.modeling.winograd import WinogradConv2d


class SizedTransform(GeneralizedRCNNTransform):
    """Normalise and pad to a batch, but never resize: images come in the network's size (`Trace` knows the way back).

    torchvision's own `_skip_resize` holds in training only.
    """

    def __init__(self, channels: int, pixels: PixelStats) -> None:
        super().__init__(1, 1, image_mean=[pixels.mean] * channels, image_std=[pixels.std] * channels)

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        return result


class FloatAnchors(AnchorGenerator):
    """Anchors in float32 whatever the features are: bfloat16 tells no odd pixel from an even one beyond 256.

    Levels without sides are left out.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> None:
        self.levels = [level for level, sides in enumerate(sizes) if sides]
        super().__init__(tuple(tuple(sizes[level]) for level in self.levels), (tuple(ratios),) * len(self.levels))

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """As torchvision's."""
        anchors: list[Tensor] = super().forward(image_list, [feature_maps[level] for level in self.levels])
        return anchors

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(torch.float32, device)


def _in_float32(forward: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    """A module's forward that predicts in float32 whatever autocast says: rounded scores tie, rounded boxes move."""

    def run(module: nn.Module, x: Tensor) -> Any:
        if module.training or not torch.is_autocast_enabled(x.device.type):
            return forward(module, x)
        with torch.autocast(x.device.type, enabled=False):
            return forward(module, x.float())

    return run


class FloatConv(WinogradConv2d):
    """Scores or offsets of proposals."""

    forward = _in_float32(WinogradConv2d.forward)  # type: ignore[assignment]


class FloatBoxHead(TwoMLPHead):
    """Features of a box."""

    forward = _in_float32(TwoMLPHead.forward)


class FloatPredictor(FastRCNNPredictor):
    """Scores and offsets of a box."""

    forward = _in_float32(FastRCNNPredictor.forward)


class LevelRPNHead(RPNHead):
    """torchvision's head, shared by levels of different `counts` of anchors, which use the first of its outputs."""

    def __init__(self, in_channels: int, counts: Sequence[int]) -> None:
        super().__init__(in_channels, max(counts))
        self.counts = tuple(counts)
        self.cls_logits.__class__ = self.bbox_pred.__class__ = FloatConv

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (B, n, H, W) and offsets (B, 4 n, H, W) of each level that has anchors."""
        used = [(features, count) for features, count in zip(x, self.counts, strict=True) if count]
        objectness, offsets = super().forward([features for features, _ in used])
        return (
            [values[:, :count] for values, (_, count) in zip(objectness, used, strict=True)],
            [values[:, : 4 * count] for values, (_, count) in zip(offsets, used, strict=True)],
        )


class FloatBoxCoder(BoxCoder):
    """Boxes decoded in float32 whatever the network's answers are."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes.float(), boxes.float())


class TorchvisionDetector(nn.Module):
    """A torchvision `GeneralizedRCNN`, with its features laid open and images that teach no boxes left out.

    Where every image teaches boxes, and nothing is to be ignored, losses and detections are those of the model's own
    forward, bit for bit; masks stay on the grids of their boxes.

    Args:
        model: `MaskRCNN` or `FasterRCNN` that resizes nothing (its inputs come in their size).
        strides: of its pyramid, fine to coarse.
    """

    def __init__(self, model: FasterRCNN, strides: tuple[int, ...] = (4, 8, 16, 32, 64)) -> None:
        super().__init__()
        self.model = model
        self.feature_channels = int(model.backbone.out_channels)
        self.feature_strides = strides
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
        batch, moved = model.transform(list(images), list(targets) if targets is not None else None)
        batch.tensors = batch.tensors.contiguous(memory_format=torch.channels_last)
        features = model.backbone(batch.tensors)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training:
            losses = self._losses(batch, features, moved, use_boxes)
        else:
            proposals, _ = model.rpn(batch, features, None)
            detections, _ = model.roi_heads(features, proposals, batch.image_sizes, None)
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
        keep = [index for index in range(len(targets)) if use_boxes is None or use_boxes[index]]
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
    config: DetectorConfig, backbone: nn.Module, *, num_categories: int, in_channels: int, pixels: PixelStats
) -> TorchvisionDetector:
    """Wire a detector, whose anchors must not be `auto` any more; `num_categories` without the background."""
    width = int(backbone.out_channels)  # type: ignore[arg-type]
    anchors, ratios, most = config.anchors.per_level, tuple(config.anchors.ratios), config.rpn_post_nms_top_n
    levels = [str(number) for number in range(len(config.strides) - 1)]  # P6 is for proposals alone
    options: dict[str, Any] = {
        "rpn_anchor_generator": FloatAnchors(anchors, ratios),
        "rpn_head": LevelRPNHead(width, [len(sides) * len(ratios) for sides in anchors]),
        "rpn_pre_nms_top_n_train": config.rpn_pre_nms_top_n,
        "rpn_pre_nms_top_n_test": config.rpn_pre_nms_top_n,
        "rpn_post_nms_top_n_train": most,
        "rpn_post_nms_top_n_test": min(most, config.rpn_top_n_predict or most),
        "rpn_batch_size_per_image": config.rpn_batch_per_image,
        "box_roi_pool": _roi_pool(config, levels, output_size=7),
        "box_batch_size_per_image": config.box_batch_per_image,
        "box_positive_fraction": config.box_positive_fraction,
        "box_score_thresh": config.score_threshold,
        "box_nms_thresh": config.nms_threshold,
        "box_detections_per_img": config.max_detections,
    }
    options |= zip(("box_head", "box_predictor"), _box_head(config, width, num_categories), strict=True)
    model: FasterRCNN
    if config.arch == "faster_rcnn":
        model = FasterRCNN(backbone, **options)
    else:
        depth = config.mask_head_channels
        outliner = MaskRCNNPredictor(depth, depth, num_categories + 1)
        # As detectron2 starts it. torchvision's start takes its spread from the number of categories, and with one or
        # two of them the first mask loss is 10 in place of log 2, and drowns the others.
        nn.init.normal_(outliner.mask_fcn_logits.weight, std=0.001)
        nn.init.zeros_(outliner.mask_fcn_logits.bias)
        model = MaskRCNN(
            backbone,
            mask_roi_pool=_roi_pool(config, levels, output_size=14),
            mask_head=MaskRCNNHeads(width, (depth,) * config.mask_head_layers, 1),
            mask_predictor=outliner,
            **options,
        )
    # Exchange the parts that resize, or that lose precision under autocast.
    model.transform = SizedTransform(in_channels, pixels)
    model.rpn.__class__ = IgnoringRPN
    model.roi_heads.__class__ = RegionHeads
    model.roi_heads.box_loss = config.box_loss
    model.roi_heads.later_ious = tuple(config.cascade_ious)
    model.roi_heads.later = nn.ModuleList(
        LaterHead(*_box_head(config, width, num_categories)) for _ in config.cascade_ious
    )
    for part in (model.rpn, model.roi_heads):
        part.box_coder = FloatBoxCoder(part.box_coder.weights)
    return TorchvisionDetector(model, config.strides)


def _box_head(config: DetectorConfig, width: int, num_categories: int) -> tuple[nn.Module, nn.Module]:
    channels = config.box_head_channels
    return FloatBoxHead(width * 7 * 7, channels), FloatPredictor(channels, num_categories + 1)


def _roi_pool(config: DetectorConfig, levels: list[str], *, output_size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(
        featmap_names=levels, output_size=output_size, sampling_ratio=2, canonical_scale=config.roi_level_size
    )
