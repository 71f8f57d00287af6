"""The image-level head: one probability per question, from the detector's features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammodet.errors import InputError
from mammodet.modeling.contract import DetectorOutput
from mammodet.modeling.norms import group_norm

STRIDES = (8, 16, 32)  # of P3, P4, P5


class ImageHead(nn.Module):
    """Gated attention pooling over the pyramid (Ilse et al., ICML 2018), one attention map per question.

    The attention-weighted mean and the maximum over all places of P3 to P5 feed one linear answer each. Places in the
    padding of a batch never count.

    Args:
        in_channels: channels of the pyramid.
        strides: of its levels, in the order of `DetectorOutput.features`.
        channels: width of the head.
        targets: number of questions.
        dropout: before the answer.
    Raises:
        InputError: a pyramid without one of the levels.
    """

    def __init__(self, in_channels: int, strides: Sequence[int], channels: int, targets: int, dropout: float) -> None:
        super().__init__()
        if not set(STRIDES) <= set(strides):
            raise InputError(
                f"model.image_head: the detector's features have strides {', '.join(map(str, strides))}; expected 8, "
                "16 and 32 among them. Choose a detector with a feature pyramid, or model.image_head.enabled=false "
                "with model.aggregation.rule=max"
            )
        self.levels = [list(strides).index(stride) for stride in STRIDES]
        # 1x1: the pyramid has smoothed its levels, and a wider kernel would cost 5 % of a training step.
        self.project = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), group_norm(channels), nn.ReLU())
        self.value = nn.Conv2d(channels, channels // 2 + 1, 1)
        self.gate = nn.Conv2d(channels, channels // 2 + 1, 1)
        self.attention = nn.Conv2d(channels // 2 + 1, targets, 1)
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(targets, 2 * channels))
        self.bias = nn.Parameter(torch.zeros(targets))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, output: DetectorOutput) -> Tensor:
        """Logits float (B, targets)."""
        levels = [output.features[level] for level in self.levels]
        return self.pool(levels, [valid_places(output, level.shape[-2:], level.device) for level in levels])

    def pool(self, levels: Sequence[Tensor], places_valid: Sequence[Tensor]) -> Tensor:
        """Logits float (B, targets) of P3 to P5, each (B, C, H, W), and which of their places count, bool (B, H, W)."""
        values, scores = [], []
        for level, valid in zip(levels, places_valid, strict=True):
            features = self.project(level)
            score = self.attention(torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features)))
            values.append(features.masked_fill(~valid[:, None], 0).flatten(2))
            scores.append(score.float().masked_fill(~valid[:, None], -torch.inf).flatten(2))
        places = torch.cat(values, dim=2)  # (B, D, N)
        weights = torch.softmax(torch.cat(scores, dim=2), dim=2).to(places.dtype)  # (B, T, N)
        mean = torch.einsum("btn,bdn->btd", weights, places)
        peak = places.amax(dim=2)[:, None].expand_as(mean)
        pooled = self.dropout(torch.cat([mean, peak], dim=2))  # (B, T, 2D)
        return (pooled.float() * self.weight).sum(dim=2) + self.bias


def valid_places(output: DetectorOutput, size_hw: torch.Size, device: torch.device) -> Tensor:
    """Which cells of a feature map lie on the image and not in the batch's padding: bool (B, H, W)."""
    rows, columns = int(size_hw[0]), int(size_hw[1])
    valid = torch.zeros((len(output.sizes_hw), rows, columns), dtype=torch.bool, device=device)
    for index, (height, width) in enumerate(output.sizes_hw):
        bottom = max(-(-height * rows // output.padded_hw[0]), 1)
        right = max(-(-width * columns // output.padded_hw[1]), 1)
        valid[index, :bottom, :right] = True
    return valid


def image_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, T) over labels (B, T) that are not NaN; where all are, 0 with a gradient."""
    known = ~torch.isnan(labels)
    if not known.any():
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits[known], labels[known])
