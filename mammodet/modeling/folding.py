"""Batch norms of timm's networks exchanged, and frozen norms folded into the convolutions before them."""

import math

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d, GroupNormAct, freeze_batch_norm_2d
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from mammodet.modeling.norms import GROUPS, group_norm
from mammodet.modeling.winograd import WinogradConv2d


def replace_batch_norm(module: nn.Module, name: str) -> None:
    """Exchange every batch norm inside a timm module, under the same names.

    Scales and shifts are kept for FrozenBN and GN, statistics for FrozenBN.
    """
    if name == "FrozenBN":
        freeze_batch_norm_2d(module)
    if name != "GN":
        return
    for key, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            replace_batch_norm(child, name)
            continue
        channels = child.num_features
        layer = group_norm(channels)
        if isinstance(child, BatchNormAct2d):  # carries the activation (and sometimes dropout) that follows
            layer = GroupNormAct(channels, math.gcd(GROUPS, channels), apply_act=False)
            layer.drop, layer.act = child.drop, child.act
        layer.load_state_dict({"weight": child.weight, "bias": child.bias})
        setattr(module, key, layer)


def fold_frozen_norms(body: nn.Module, in_channels: int, side: int = 64) -> None:
    """Let each convolution that a frozen norm follows do that norm's work, in the same pass over its output.

    The norm's scale goes into the weights, its shift into the bias, anew in each call: parameters, gradients and the
    names in a state dict stay as they were.

    Args:
        body: from images (B, `in_channels`, H, W) to features; one call on a blank image of `side` x `side` tells which
            norm follows which convolution. On the meta device, where nothing is computed, it is left as it is.
    """
    if any(parameter.is_meta for parameter in body.parameters()):
        return
    makers: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def note_output(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        makers[id(output)] = (output, module)  # kept alive, so that no other tensor takes its id

    def note_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in makers:
            pairs.append((makers[id(inputs[0])][1], module))

    hooks = [part.register_forward_hook(note_output) for part in body.modules() if type(part) in _FOLDED_CONVS]
    hooks += [part.register_forward_pre_hook(note_input) for part in body.modules() if type(part) in _FOLDED_NORMS]
    training = body.training
    with torch.no_grad():
        if len(hooks) and any(type(part) in _FOLDED_NORMS for part in body.modules()):
            body.eval()(torch.zeros(1, in_channels, side, side))
    for hook in hooks:
        hook.remove()
    body.train(training)
    for conv, norm in pairs:
        conv.__class__, norm.__class__ = _FOLDED_CONVS[type(conv)], _FOLDED_NORMS[type(norm)]
        conv.norm_behind = (norm,)  # type: ignore[assignment]  # in a tuple, since it is registered elsewhere


def _folded(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the norm behind it."""
    (norm,) = conv.norm_behind  # type: ignore[misc]
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    return conv.weight * scale[:, None, None, None], shift


class _FoldedConv2d(WinogradConv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, *_folded(self))


class _FoldedConv2dSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = _folded(self)
        if self.stride == (2, 2) and x.shape[-2] % 2 == x.shape[-1] % 2 == 0 and self.dilation == (1, 1):
            # TensorFlow pads one pixel more at the far ends. Padding two more at the near ends and dropping the first
            # row and column gives the same places, without a padded copy of the largest maps of the network.
            near = [(size - 2) // 2 + 2 for size in weight.shape[-2:]]
            wide = functional.conv2d(x, weight, bias, self.stride, near, self.dilation, self.groups)
            return wide[:, :, 1:, 1:]
        padded = pad_same(x, list(weight.shape[-2:]), list(self.stride), list(self.dilation))
        return functional.conv2d(padded, weight, bias, self.stride, (0, 0), self.dilation, self.groups)


class _FoldedNorm(FrozenBatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x


class _FoldedNormAct(FrozenBatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(x))
        return activated


_FOLDED_CONVS: dict[type[nn.Module], type[nn.Conv2d]] = {nn.Conv2d: _FoldedConv2d, Conv2dSame: _FoldedConv2dSame}
_FOLDED_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    FrozenBatchNorm2d: _FoldedNorm,
    FrozenBatchNormAct2d: _FoldedNormAct,
}
