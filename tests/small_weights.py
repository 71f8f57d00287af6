"""Shared: weights with the names of whole detectors, and few numbers in them."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn


def fill(state: dict[str, Tensor], most: int = 20, seed: int = 0) -> dict[str, Tensor]:
    """Random numbers under the same names, no side longer than `most`; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    filled = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        numbers = torch.randn([min(side, most) for side in tensor.shape], generator=generator)
        filled[name] = numbers.abs() + 0.5 if name.endswith("running_var") else numbers
    return filled


def torchvision_state(categories: int = 3, *, masks: bool = True, most: int = 20) -> dict[str, Tensor]:
    """torchvision's Mask R-CNN or Faster R-CNN R50-FPN."""
    make = maskrcnn_resnet50_fpn if masks else fasterrcnn_resnet50_fpn
    with torch.device("meta"):
        model = make(weights=None, weights_backbone=None, num_classes=categories + 1)
    return fill(model.state_dict(), most)


def resnet_state(name: str = "resnet50") -> dict[str, Tensor]:
    """torchvision's ResNet for ImageNet, with its last layer."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(weights=None)
    return fill(model.state_dict())


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision named them before 2022, written out by hand."""
    renamed = {}
    for name, tensor in state.items():
        for kind in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                name = name.replace(f"{kind}.{level}.0.", f"{kind}.{level}.")
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for layer in range(4):
            name = name.replace(f"mask_head.{layer}.0.", f"mask_head.mask_fcn{layer + 1}.")
        renamed[name] = tensor
    return renamed
