"""Where a config becomes modules; nothing else wires a model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mammodet.config import Config
from mammodet.errors import InputError
from mammodet.modeling.backbones import build_backbone
from mammodet.modeling.image_head import ImageHead
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.torchvision_detector import build_torchvision
from mammodet.modeling.weights import coco_state, load_matching, read_torch, state_of


def build_model(config: Config, num_categories: int, *, load_weights: bool = True) -> MammoRCNN:
    """The model of a config.

    Args:
        num_categories: of the data set, without the background.
        load_weights: False where a checkpoint follows: nothing is then downloaded or read.
    Raises:
        InputError: anchors still `auto`, weights that cannot be had.
    """
    detector_config, head_config = config.model.detector, config.model.image_head
    sizes = detector_config.anchors.sizes
    if sizes == "auto":
        raise InputError("model.detector.anchors.sizes=auto: must be fitted to a training set before a model is built")
    in_channels = len(config.data.image.channels)
    weights = config.model.weights if load_weights else "none"
    backbone = build_backbone(
        detector_config.backbone,
        in_channels=in_channels,
        fpn_channels=detector_config.fpn_channels,
        load_pretrained=weights == "imagenet",
    )
    detector = build_torchvision(
        detector_config, backbone, num_categories=num_categories, in_channels=in_channels, anchor_sizes=sizes
    )
    head = None
    if head_config.enabled:
        head = ImageHead(detector.feature_channels, head_config.channels, len(head_config.targets), head_config.dropout)
    model = MammoRCNN(
        detector,
        head,
        head_config.targets if head_config.enabled else (),
        head_config.loss_weight,
        with_masks=detector_config.arch == "mask_rcnn",
    )
    _start(model, detector.model, weights)
    return model


def _start(model: MammoRCNN, detector: nn.Module, weights: str) -> None:
    if weights in ("none", "imagenet"):
        return
    if weights == "coco":
        print(f"COCO weights: {load_matching(detector, coco_state()).to_text()}")
        return
    path = Path(weights)
    state = state_of(read_torch(path), path)
    # A checkpoint of ours names the whole model, one of torchvision's the detector only.
    ours = any(name.startswith("detector.") for name in state)
    report = load_matching(model if ours else detector, state)
    if not report.loaded:
        raise InputError(f"{path}: none of its {len(state)} tensors fits this model; {report.to_text()}")
    print(f"{path}: {report.to_text()}")
