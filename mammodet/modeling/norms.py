"""The three normalisations, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm (Wu and He, ECCV 2018) with at most 32 groups that divide the channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def norm_layer(name: str) -> Callable[[int], nn.Module]:
    """From `GN`, `BN` or `FrozenBN` to a layer for a number of channels."""
    return {"GN": group_norm, "BN": nn.BatchNorm2d, "FrozenBN": FrozenBatchNorm2d}[name]


def replace_batch_norm(module: nn.Module, name: str) -> None:
    """Exchange every batch norm inside a module; statistics and affine weights are kept for FrozenBN only."""
    if name == "BN":
        return
    for key, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            replace_batch_norm(child, name)
            continue
        layer: nn.Module
        if name == "GN":
            layer = group_norm(child.num_features)
        else:
            layer = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            layer.load_state_dict(child.state_dict(), strict=False)
        # timm's batch norms carry the activation (and sometimes dropout) that follows.
        extra = [part for part in (getattr(child, "drop", None), getattr(child, "act", None)) if part is not None]
        setattr(module, key, nn.Sequential(layer, *extra) if extra else layer)
