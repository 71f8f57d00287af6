"""Networks that turn an image into a vector, for classifiers.

Each takes images float (B, C, S, S) and gives features (B, `out_features`).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from mammodet.config import ClassifierConfig, CnnConfig
from mammodet.config.classifier import RESNETS
from mammodet.errors import InputError
from mammodet.modeling.backbones import adapt_first_conv, freeze_first_stages
from mammodet.modeling.norms import norm_layer
from mammodet.modeling.pretrained import check_timm_name, imagenet_state, load_timm


class PlainCnn(nn.Module):
    """Blocks of 3x3 convolutions, each with max-pooling, then dense layers; `side` is at least 2 ** blocks px."""

    def __init__(self, config: CnnConfig, in_channels: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for block in config.blocks:
            for width in block:
                norms = [norm_layer(config.norm)(width)] if config.norm != "none" else []
                layers += [nn.Conv2d(channels, width, 3, padding=1), *norms, nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        dense: list[nn.Module] = []
        features = channels * (side // 2 ** len(config.blocks)) ** 2
        for width in config.dense:
            dense += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(config.dense_dropout)]
            features = width
        self.dense = nn.Sequential(*dense)
        self.out_features = features
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _start(module, config.init)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, out_features)."""
        features: Tensor = self.dense(self.dropout(self.blocks(images).flatten(1)))
        return features


def _start(module: nn.Conv2d | nn.Linear, init: str) -> None:
    if init == "normal":
        nn.init.normal_(module.weight, std=0.02)
    elif init == "glorot":
        nn.init.xavier_uniform_(module.weight)
    else:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Body(nn.Module):
    """A model of torchvision or timm without its classifier; its names are those of a detector's backbone body."""

    def __init__(self, body: nn.Module, out_features: int) -> None:
        super().__init__()
        self.body = body
        self.out_features = out_features

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, out_features)."""
        features: Tensor = self.body(images)
        return features.flatten(1)


def build_network(config: ClassifierConfig, *, in_channels: int, side: int, load_pretrained: bool) -> nn.Module:
    """The network of a config.

    Args:
        side: of the square input in pixels.
        load_pretrained: start from ImageNet weights.
    Raises:
        InputError: unknown timm model, one that cannot take such an input, or weights that cannot be had.
    """
    if config.network == "cnn":
        return PlainCnn(config.cnn, in_channels, side)
    if config.network.startswith("timm/"):
        return _timm(config, in_channels, side, load_pretrained)
    return _torchvision(config, in_channels, load_pretrained)


def _torchvision(config: ClassifierConfig, in_channels: int, load_pretrained: bool) -> nn.Module:
    make = getattr(torchvision.models, config.network)
    resnet = config.network in RESNETS
    body = make(weights=None, **({"norm_layer": norm_layer(config.used_norm)} if resnet else {}))
    if load_pretrained:
        body.load_state_dict(imagenet_state(config.network), strict=False)
    if resnet:
        if in_channels != 3:
            body.conv1 = adapt_first_conv(body.conv1, in_channels)
        features = body.fc.in_features
        body.fc = nn.Identity()
    else:
        if in_channels != 3:
            body.features[0][0] = adapt_first_conv(body.features[0][0], in_channels)
        features = body.classifier[1].in_features
        body.classifier = nn.Identity()
    return Body(body, features)


def _timm(config: ClassifierConfig, in_channels: int, side: int, load_pretrained: bool) -> nn.Module:
    import timm  # here, since importing it takes longer than building another network

    from mammodet.modeling.folding import fold_frozen_norms, replace_batch_norm

    name = config.network.removeprefix("timm/")
    check_timm_name(name, "network")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels}
    defaults = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if defaults is not None and defaults.fixed_input_size:
        options["img_size"] = side
    try:
        body = timm.create_model(name, pretrained=False, **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise InputError(f"network 'timm/{name}' cannot be built for {side}x{side} px inputs: {error}") from error
    if load_pretrained:
        load_timm(body, name, in_channels)
    replace_batch_norm(body, config.used_norm)
    fold_frozen_norms(body, in_channels, side)
    if config.trainable_layers < 5:
        freeze_first_stages(body, name, config.trainable_layers, "model.classifier")
    body.eval()
    with torch.no_grad():  # what timm calls the number of features is not what every model gives
        shape = tuple(body(torch.zeros(1, in_channels, side, side)).shape)
    if len(shape) != 2:
        raise InputError(f"network 'timm/{name}' gives features of shape {shape}; expected (1, n): choose another")
    return Body(body.train(), shape[1])


class GatedAttention(nn.Module):
    """Weights for the members of each group, together 1 (Ilse et al., ICML 2018)."""

    def __init__(self, features: int, hidden: int = 128) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, members: Tensor) -> Tensor:
        """Weights (groups, B) of features (B, F) for members bool (groups, B)."""
        scores = self.score(torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features)))
        return torch.softmax(scores.float().T.masked_fill(~members, -torch.inf), dim=1).to(features.dtype)


def membership(groups: Sequence[int], device: torch.device) -> Tensor:
    """Bool (number of groups, B) of group numbers 0 to n-1 for B members."""
    numbers = torch.tensor(groups, device=device)
    return numbers[None, :] == torch.arange(int(numbers.max()) + 1, device=device)[:, None]
