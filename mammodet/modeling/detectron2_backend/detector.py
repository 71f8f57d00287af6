"""detectron2's R-CNNs and RetinaNet behind the `Detector` contract (Wu et al., 2019).

Mask R-CNN, Faster R-CNN and Cascade Mask R-CNN (Cai and Vasconcelos, CVPR 2018), PointRend's heads (Kirillov et al.,
CVPR 2020), RetinaNet (Lin et al., ICCV 2017).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mammodet.config import DetectorModelConfig
from mammodet.errors import InputError
from mammodet.modeling.contract import DetectorOutput, silent_loss
from mammodet.modeling.detectron2_backend.config import fit, instantiate, resolve
from mammodet.modeling.detectron2_backend.opts import LIMITS

#: detectron2's networks take images from 0 to 255.
PIXEL_SCALE = 255.0


class Detectron2Detector(nn.Module):
    """A detectron2 network, with its features laid open and images that teach no boxes left out.

    Where every image teaches boxes, losses and detections are those of the network's own forward; masks are the
    probabilities that it thresholds at 0.5.

    Args:
        model: `GeneralizedRCNN` with region proposals of its own, or `RetinaNet`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        network: Any = model
        shapes = sorted(network.backbone.output_shape().items(), key=lambda item: item[1].stride)
        self._levels = [name for name, _ in shapes]
        self.feature_strides = tuple(int(shape.stride) for _, shape in shapes)
        widths = sorted({int(shape.channels) for _, shape in shapes})
        if len(widths) != 1:
            raise InputError(f"model.detectron2: feature levels of {widths} channels; expected one width for all")
        self.feature_channels = widths[0]
        self._dense = not hasattr(model, "roi_heads")
        self.with_masks = not self._dense and bool(network.roi_heads.mask_on)
        self._deformable = _has_deformable(model)
        if self._dense:
            # A running mean that detectron2 keeps outside of the state; as a buffer it survives --resume.
            model.register_buffer("loss_normalizer", torch.tensor(100.0))

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
        use_boxes: Sequence[bool] | None = None,
    ) -> DetectorOutput:
        """See `mammodet.modeling.contract.Detector`."""
        if self.training and targets is None:
            raise ValueError("targets: needed in training mode")
        network: Any = self.model
        batch = network.preprocess_image([{"image": image * PIXEL_SCALE} for image in images])
        features = network.backbone(batch.tensor)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training:
            assert targets is not None
            losses = self._losses(batch, features, targets, use_boxes)
        else:
            found = self._run(batch, features, None)
            detections = [_to_detections(each) for each in found]
        return DetectorOutput(
            features=[features[name] for name in self._levels],
            sizes_hw=[(int(height), int(width)) for height, width in batch.image_sizes],
            padded_hw=(int(batch.tensor.shape[-2]), int(batch.tensor.shape[-1])),
            losses=losses,
            detections=detections,
        )

    def _losses(
        self,
        batch: Any,
        features: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        use_boxes: Sequence[bool] | None,
    ) -> dict[str, Tensor]:
        from detectron2.structures import ImageList
        from detectron2.utils.events import EventStorage

        if self._deformable and batch.tensor.device.type == "cpu":
            raise InputError(
                "model.detectron2: deformable convolutions learn on a GPU only; choose another config, or "
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE [false, false, false, false] in model.detectron2.opts"
            )
        whole = [not len(target.get("ignored", ())) for target in targets]  # detectron2 ignores no region
        keep = [index for index, fit in enumerate(whole) if fit and (use_boxes is None or use_boxes[index])]
        if not keep:
            return {"loss_none": silent_loss(self)}
        if len(keep) < len(targets):
            features = {name: level[keep] for name, level in features.items()}
            batch = ImageList(batch.tensor[keep], [batch.image_sizes[index] for index in keep])
        truth = [_to_instances(targets[index], batch.image_sizes[place]) for place, index in enumerate(keep)]
        # detectron2's losses write their statistics into the innermost open storage; ours is closed again at once.
        with EventStorage():
            losses = self._run(batch, features, truth)
        return dict(losses)

    def _run(self, batch: Any, features: dict[str, Tensor], truth: list[Any] | None) -> Any:
        """Losses with truth, `Instances` per image without."""
        model: Any = self.model
        if not self._dense:
            proposals, proposal_losses = model.proposal_generator(batch, features, truth)
            if truth is not None and self.with_masks and not any(len(each) for each in truth):
                head_losses = self._losses_without_masks(batch, features, proposals, truth)
            else:
                found, head_losses = model.roi_heads(batch, features, proposals, truth)
            return found if truth is None else {**head_losses, **proposal_losses}
        levels = [features[name] for name in model.head_in_features]
        answers = model.head(levels)
        if truth is None:
            return model.forward_inference(batch, levels, answers)
        # Its scripted focal loss would be compiled anew after some calls, and a resumed run differ in the last digits.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return model.forward_training(batch, levels, answers, truth)

    def _losses_without_masks(self, batch: Any, features: Any, proposals: Any, truth: Any) -> dict[str, Tensor]:
        """Losses of a batch without lesions: its mask loss is 0, and PointRend's heads and batch norm fail on it."""
        network: Any = self.model
        heads = network.roi_heads
        heads.mask_on = False
        try:
            _, losses = heads(batch, features, proposals, truth)
        finally:
            heads.mask_on = True
        return {**losses, "loss_mask": silent_loss(heads.mask_head)}


def _has_deformable(model: nn.Module) -> bool:
    from detectron2.layers import DeformConv, ModulatedDeformConv

    return any(isinstance(part, (DeformConv, ModulatedDeformConv)) for part in model.modules())


def _to_instances(target: dict[str, Tensor], size_hw: tuple[int, int]) -> Any:
    """Our target in detectron2's words: its classes count from 0."""
    from detectron2.structures import BitMasks, Boxes, Instances

    truth = Instances((int(size_hw[0]), int(size_hw[1])))
    truth.gt_boxes = Boxes(target["boxes"])
    truth.gt_classes = target["labels"] - 1
    if "masks" in target:
        truth.gt_masks = BitMasks(target["masks"].bool())
    return truth


def _to_detections(found: Any) -> dict[str, Tensor]:
    """detectron2's detections in our words: clipped to the image, empty ones gone."""
    boxes = found.pred_boxes
    boxes.clip(found.image_size)
    found = found[boxes.nonempty()]
    detections = {
        "boxes": found.pred_boxes.tensor.float(),
        "scores": found.scores.float(),
        "labels": found.pred_classes + 1,
    }
    if found.has("pred_masks"):
        detections["masks"] = found.pred_masks.float()
    return detections


def build_detectron2(config: DetectorModelConfig, *, num_categories: int, in_channels: int) -> Detectron2Detector:
    """Wire a detector; `num_categories` are without the background.

    Raises InputError: detectron2 is missing, or cannot build what the config describes.
    """
    settings = config.detectron2
    if settings.resolved is None:
        settings = resolve(settings)
    assert settings.resolved is not None
    values = fit(
        settings.resolved,
        num_categories=num_categories,
        in_channels=in_channels,
        anchor_sizes=config.detector.anchors.per_level,
        anchor_ratios=config.detector.anchors.ratios,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = instantiate(values)
    _widen_input(model, in_channels)
    for part in model.modules():
        for name, ours in LIMITS.items():
            if hasattr(part, name):
                setattr(part, name, getattr(config.detector, ours))
    return Detectron2Detector(model)


def _widen_input(model: Any, in_channels: int) -> None:
    """Exchange a first convolution that is fixed to colour (RegNet, ViT) for one of our channels, its sum kept."""
    convolutions = [part for part in model.backbone.modules() if isinstance(part, nn.Conv2d)]
    if any(part.in_channels == in_channels for part in convolutions):
        return
    first = next((part for part in convolutions if part.in_channels == 3), None)
    if first is None:
        raise InputError(f"model.detectron2: its backbone has no convolution that takes 3 or {in_channels} channels")
    grey = first.weight.data.sum(dim=1, keepdim=True) / in_channels
    first.weight = nn.Parameter(grey.repeat(1, in_channels, 1, 1))
    first.in_channels = in_channels
