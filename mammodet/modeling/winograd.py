"""3x3 convolutions with a third of the multiplications, for prediction on a CPU (Lavin and Gray, CVPR 2016)."""

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing

#: NNPACK comes with torch for x86-64 and ARM.
_AVAILABLE = torch.backends.nnpack.is_available() and hasattr(torch, "_nnpack_spatial_convolution")

_FEWEST = 512  # pixels of all maps, below which the transform of the weights costs more than it saves


class WinogradConv2d(nn.Conv2d):
    """torch's convolution; where nothing learns, on a CPU in float32, by NNPACK's transform of 6x6 tiles.

    That rounds about four times as coarsely: answers differ by some 1e-5 of the largest.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _AVAILABLE or _plain(input) or not _fits(self):
            return super()._conv_forward(input, weight, bias)
        return torch._nnpack_spatial_convolution(input.contiguous(), weight.contiguous(), bias, (1, 1))


def use_winograd(model: nn.Module) -> None:
    """Exchange the class of torch's convolutions in a model; parameters and names stay."""
    for part in model.modules():
        if type(part) is nn.Conv2d:
            part.__class__ = WinogradConv2d


def _fits(conv: nn.Conv2d) -> bool:
    found = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return found == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def _plain(images: Tensor) -> bool:
    """Whether a call learns, is traced for an export, is in 16 bits, on another device, or small."""
    if torch.is_grad_enabled() or is_tracing() or torch.is_autocast_enabled("cpu"):
        return True
    small = images.numel() < _FEWEST * images.shape[-3]
    return small or images.ndim != 4 or images.device.type != "cpu" or images.dtype != torch.float32
