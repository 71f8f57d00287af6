"""Backbones with a feature pyramid (Lin et al., CVPR 2017): levels P2 (or P3) to P6 at strides 4 (8) to 64."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from mammodet.config import BackboneConfig
from mammodet.errors import InputError
from mammodet.modeling.norms import norm_layer
from mammodet.modeling.pretrained import check_timm_name, imagenet_state, load_timm

#: Of the features that a pyramid is built on.
STRIDES = (4, 8, 16, 32)


def build_backbone(
    config: BackboneConfig, *, in_channels: int, fpn_channels: int, finest_level: int = 2, load_pretrained: bool
) -> nn.Module:
    """A module from images (B, C, H, W) to an ordered dict of the levels, with `out_channels`.

    Args:
        finest_level: 2 or 3; the coarsest level is 6.
        load_pretrained: start from ImageNet weights.
    Raises:
        InputError: unknown timm model, or weights that cannot be had.
    """
    used = STRIDES[finest_level - 2 :]
    make = _timm_body if config.name.startswith("timm/") else _torchvision_body
    body, channels, channels_last = make(config, in_channels, used, load_pretrained)
    if config.norm == "FrozenBN":
        from mammodet.modeling.folding import fold_frozen_norms  # here, since it imports timm, which takes long

        fold_frozen_norms(body, in_channels)
    fpn_norm = norm_layer("GN") if config.norm == "GN" else None
    return Pyramid(body, channels, fpn_channels, fpn_norm, channels_last=channels_last)


def _torchvision_body(
    config: BackboneConfig, in_channels: int, strides: Sequence[int], load_pretrained: bool
) -> tuple[nn.Module, list[int], bool]:
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
    stages = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    frozen = tuple(f"{name}." for stage in stages[: 5 - config.trainable_layers] for name in stage)
    for name, parameter in body.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)
    width = body.fc.in_features // 8
    layers = {f"layer{stage}": str(stage) for stage, stride in enumerate(STRIDES, 1) if stride in strides}
    return IntermediateLayerGetter(body, layers), [width * stride // 4 for stride in strides], False


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


class Pyramid(nn.Module):
    """A body that gives feature maps, under a feature pyramid.

    Args:
        body: gives feature maps, fine to coarse, as a list or a dict.
        in_channels: channels of each.
        channels_last: whether its maps are (B, H, W, C).
    """

    def __init__(
        self,
        body: nn.Module,
        in_channels: list[int],
        out_channels: int,
        norm: Callable[[int], nn.Module] | None,
        *,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.body = body
        self.channels_last = channels_last
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels, LastLevelMaxPool(), norm_layer=norm)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, C, H, W) to levels `0`, `1`, ... and `pool`, fine to coarse."""
        given = self.body(images)
        maps = list(given.values()) if isinstance(given, dict) else given
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2).contiguous() for features in maps]
        return OrderedDict(self.fpn(OrderedDict((str(level), features) for level, features in enumerate(maps))))


def _timm_body(
    config: BackboneConfig, in_channels: int, strides: Sequence[int], load_pretrained: bool
) -> tuple[nn.Module, list[int], bool]:
    import timm  # here, since importing it takes longer than building a ResNet

    from mammodet.modeling.folding import replace_batch_norm

    name = config.name.removeprefix("timm/")
    check_timm_name(name, "backbone")
    try:
        info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
        reductions = info.reduction()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"backbone 'timm/{name}' gives no feature maps ({error}); choose another") from error
    if not set(strides) <= set(reductions):
        raise InputError(f"backbone 'timm/{name}' has strides {reductions}; expected {list(strides)} among them")
    body: Any = timm.create_model(
        name,
        features_only=True,
        pretrained=False,
        in_chans=in_channels,
        out_indices=[reductions.index(stride) for stride in strides],
    )
    if load_pretrained:
        load_timm(body, name, in_channels)
    replace_batch_norm(body, config.norm)
    if config.trainable_layers < 5:
        freeze_first_stages(body, name, config.trainable_layers, "model.detector.backbone")
    formats = getattr(body, "output_fmt", None)
    channels_last = str(getattr(formats, "value", formats)) == "NHWC"
    return body, list(body.feature_info.channels()), channels_last


def freeze_first_stages(body: nn.Module, name: str, trainable_layers: int, place: str) -> None:
    """Freeze a timm model's parameters up to the features at stride 2 (of four learning stages), 4 (of three), ...

    Args:
        place: in the config, for messages.
    """
    import timm

    last_stride = 2 ** (5 - trainable_layers)
    info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
    places = {entry["reduction"]: entry["module"].replace(".", "_") for entry in info.info}
    names = [each for each, _ in body.named_parameters()]
    ends = [
        position
        for position, each in enumerate(names)
        if last_stride in places and each.replace(".", "_").startswith(f"{places[last_stride]}_")
    ]
    if not ends:
        raise InputError(
            f"{place}.trainable_layers={trainable_layers}: timm/{name} has no stage that ends at "
            f"stride {last_stride}; its strides are {sorted(places)}. Choose 5, or another number"
        )
    frozen = set(names[: max(ends) + 1])
    for each, parameter in body.named_parameters():
        if each in frozen:
            parameter.requires_grad_(False)
