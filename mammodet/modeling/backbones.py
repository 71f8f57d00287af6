"""Backbones with a feature pyramid (Lin et al., CVPR 2017): levels P2 to P6 at strides 4 to 64."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import Bottleneck
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from mammodet.config import BackboneConfig
from mammodet.errors import InputError
from mammodet.modeling.norms import norm_layer, replace_batch_norm

T = TypeVar("T")
LEVELS = ("0", "1", "2", "3", "pool")


def build_backbone(config: BackboneConfig, *, in_channels: int, fpn_channels: int, load_pretrained: bool) -> nn.Module:
    """A module from images (B, C, H, W) to an ordered dict of five levels, with `out_channels`.

    Args:
        load_pretrained: start from ImageNet weights.
    Raises:
        InputError: unknown timm model, or weights that cannot be had.
    """
    fpn_norm = norm_layer("GN") if config.norm == "GN" else None
    if config.name.startswith("timm/"):
        return _timm(config, in_channels, fpn_channels, fpn_norm, load_pretrained)
    body = getattr(torchvision.models, config.name)(weights=None, norm_layer=norm_layer(config.norm))
    if config.stride_in_1x1:
        if load_pretrained:
            raise InputError(
                "model.weights=imagenet: torchvision's ImageNet weights have their stride in the 3x3 convolution; set "
                "model.detector.backbone.stride_in_1x1=false, or give other weights (docs/weights.md)"
            )
        _move_stride(body)
    if load_pretrained:
        body.load_state_dict(imagenet_state(config.name), strict=False)
    if in_channels != 3:
        body.conv1 = adapt_first_conv(body.conv1, in_channels)
    _freeze(body, config.trainable_layers)
    width = body.fc.in_features // 8
    return BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)},
        in_channels_list=[width, 2 * width, 4 * width, 8 * width],
        out_channels=fpn_channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=fpn_norm,
    )


def adapt_first_conv(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The same convolution for another number of input channels.

    The kernels' sum over channels is kept, so that a grey image answers as it did when repeated in all channels.
    """
    new = nn.Conv2d(
        in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    new.weight.data.copy_(conv.weight.data.sum(dim=1, keepdim=True).expand_as(new.weight) / in_channels)
    if conv.bias is not None and new.bias is not None:
        new.bias.data.copy_(conv.bias.data)
    return new


def _move_stride(body: nn.Module) -> None:
    """The stride of every bottleneck from its 3x3 to its first 1x1 convolution.

    So it was in the first ResNets (He et al., CVPR 2016), and is in most networks of detectron2's model zoo.
    """
    for block in body.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def has_stride_in_1x1(module: nn.Module) -> bool | None:
    """Where the bottlenecks inside a module have their stride; None where it has no ResNet's bottlenecks."""
    strided = [part for part in module.modules() if isinstance(part, Bottleneck) and part.stride != 1]
    return strided[0].conv1.stride != (1, 1) if strided else None


def _freeze(body: nn.Module, trainable_layers: int) -> None:
    stages = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
    if trainable_layers == 5:
        stages.append("bn1")
    for name, parameter in body.named_parameters():
        if not any(name.startswith(stage) for stage in stages):
            parameter.requires_grad_(False)


def imagenet_state(name: str) -> dict[str, Tensor]:
    """ImageNet weights of a torchvision model."""
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    return dict(fetch_hub(lambda: weights.get_state_dict(progress=True), f"ImageNet weights of {name}", weights.url))


def fetch_hub(fetch: Callable[[], T], what: str, where: str) -> T:
    """Run a download; where the hub cannot be reached, say the two ways on."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{what} could not be downloaded from {where} ({error}). Either bring the file by other means and give its "
            "path (model.weights=PATH), or start without (model.weights=none with model.detector.backbone.norm=GN)."
        ) from error


class TimmPyramid(nn.Module):
    """A timm `features_only` model under a feature pyramid.

    Args:
        body: gives four feature maps, fine to coarse.
        in_channels: channels of each.
    """

    def __init__(
        self,
        body: nn.Module,
        in_channels: list[int],
        out_channels: int,
        norm: Callable[[int], nn.Module] | None,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.body = body
        self.channels_last = channels_last
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels, LastLevelMaxPool(), norm_layer=norm)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, C, H, W) to levels `0` to `3` and `pool`."""
        maps = self.body(images)
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2).contiguous() for features in maps]
        return OrderedDict(self.fpn(OrderedDict(zip(LEVELS, maps, strict=False))))


def _timm(
    config: BackboneConfig,
    in_channels: int,
    fpn_channels: int,
    fpn_norm: Callable[[int], nn.Module] | None,
    load_pretrained: bool,
) -> nn.Module:
    import timm  # here, since importing it takes longer than building a ResNet

    name = config.name.removeprefix("timm/")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4)
        raise InputError(f"backbone 'timm/{name}': timm knows no such model; near: {', '.join(near) or 'none'}")
    try:
        info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
        reductions = info.reduction()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"backbone 'timm/{name}' gives no feature maps ({error}); choose another") from error
    if not {4, 8, 16, 32} <= set(reductions):
        raise InputError(f"backbone 'timm/{name}' has strides {reductions}; expected 4, 8, 16 and 32 among them")
    indices = [reductions.index(stride) for stride in (4, 8, 16, 32)]

    def create() -> nn.Module:
        return timm.create_model(
            name, features_only=True, pretrained=load_pretrained, in_chans=in_channels, out_indices=indices
        )

    body = fetch_hub(create, f"timm weights of {name}", "the hub") if load_pretrained else create()
    replace_batch_norm(body, config.norm)
    formats = getattr(body, "output_fmt", None)
    channels_last = str(getattr(formats, "value", formats)) == "NHWC"
    return TimmPyramid(body, list(body.feature_info.channels()), fpn_channels, fpn_norm, channels_last)  # type: ignore[operator,union-attr]
