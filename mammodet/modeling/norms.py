"""The three normalisations, by name."""

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
