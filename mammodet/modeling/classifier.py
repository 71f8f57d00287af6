"""`ImageClassifier`: labels and classes of an image, or of all images of a breast."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammodet.config import ClassHeadConfig
from mammodet.modeling.mammo_rcnn import ModelOutput
from mammodet.modeling.networks import GatedAttention, membership
from mammodet.modeling.pixel_stats import IMAGENET, PixelStats
from mammodet.targets import Target


class ImageClassifier(nn.Module):
    """A network, a linear answer to each question, and the losses.

    Args:
        network: images (B, C, S, S) to features (B, `out_features`).
        targets: the questions in order, with their classes.
        heads: how each is learnt.
        side: of the square input in pixels; smaller images are padded with black at the right and the bottom.
        dropout: of the features.
        views: `none`, or how the images of a breast are joined: `attention`, `mean` or `max`.
        pixels: that the network expects.
    """

    def __init__(
        self,
        network: nn.Module,
        targets: Sequence[Target],
        heads: Mapping[str, ClassHeadConfig],
        *,
        side: int,
        dropout: float = 0.0,
        views: str = "none",
        pixels: PixelStats = IMAGENET,
    ) -> None:
        super().__init__()
        self.network = network
        self.targets = tuple(targets)
        self.head_configs = dict(heads)
        self.side, self.views, self.pixels = side, views, pixels
        self.dropout = nn.Dropout(dropout)
        features = int(network.out_features)  # type: ignore[arg-type]
        self.attention = GatedAttention(features) if views == "attention" else None
        self.widths = [1 if target.classes is None else len(target.classes) for target in self.targets]
        self.answer = nn.Linear(features, sum(self.widths))

    def forward(
        self, images: Sequence[Tensor], labels: Tensor | None = None, breasts: Sequence[int] | None = None
    ) -> ModelOutput:
        """Logits (B, sum of widths), and losses where labels are given.

        Args:
            images: float (C, H, W) in [0, 1] each, no side above `side`.
            labels: (B, T) labels or class positions, NaN for unknown.
            breasts: the breast of each image, 0 to n-1; needed where views are joined. Every image of a breast then has
                the logits of the breast.
        """
        features = self.network((self.padded(images) - self.pixels.mean) / self.pixels.std)
        weights = None
        if self.views != "none":
            if breasts is None:
                raise ValueError("views are joined: the breast of each image is needed")
            own, members = torch.tensor(breasts, device=features.device), membership(breasts, features.device)
            features, weights = self.join(features, members)[own], 1 / members.sum(dim=1)[own]
            labels = self._breast_labels(labels, members)[own] if labels is not None else None
        logits = self.answer(self.dropout(features)).float()
        losses = self._losses(logits, labels, weights) if labels is not None else {}
        return ModelOutput(losses, [], logits)

    def padded(self, images: Sequence[Tensor]) -> Tensor:
        """One batch (B, C, side, side)."""
        first = images[0]
        shape = (len(images), first.shape[0], self.side, self.side)
        batch = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last).zero_()
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return batch

    def join(self, features: Tensor, members: Tensor) -> Tensor:
        """Features of images (B, F) to those of breasts (n, F)."""
        if self.attention is not None:
            return self.attention(features, members) @ features
        if self.views == "mean":
            shares = members / members.sum(dim=1, keepdim=True)
            return shares.to(features.dtype) @ features
        least = torch.finfo(features.dtype).min
        return features[None].masked_fill(~members[:, :, None], least).amax(dim=1)

    def _breast_labels(self, labels: Tensor, members: Tensor) -> Tensor:
        """A breast has a label if one image has it, and lacks it if all do; its class is that of its images if they
        agree. Labels (B, T) to (n, T), NaN for unknown."""
        columns = []
        for column, target in zip(labels.T, self.targets, strict=True):
            rows = [column[member] for member in members]
            if target.classes is None:
                joined = [row.new_tensor(1.0) if (row == 1).any() else row.sum() for row in rows]
            else:
                joined = [row[0] if (row == row[0]).all() else row.new_tensor(math.nan) for row in rows]
            columns.append(torch.stack(joined))
        return torch.stack(columns, dim=1)

    def _losses(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        losses = {}
        parts = logits.split(self.widths, dim=1)
        for target, part, column in zip(self.targets, parts, labels.T, strict=True):
            config = self.head_configs[target.name]
            known = ~torch.isnan(column)
            if not known.any():
                losses[f"loss_{target.name}"] = part.sum() * 0.0
                continue
            each = answer_loss(part[known], column[known], config, binary=target.classes is None)
            share = weights[known] if weights is not None else torch.ones_like(each)
            losses[f"loss_{target.name}"] = config.weight * (each * share).sum() / share.sum()
        return losses


def answer_loss(logits: Tensor, truth: Tensor, config: ClassHeadConfig, *, binary: bool) -> Tensor:
    """The loss (B,) of logits (B, 1) of a label or (B, k) of classes; truth (B,) is 0, 1 or a class position."""
    if binary:
        smooth = truth * (1 - config.label_smoothing) + config.label_smoothing / 2
        each = functional.binary_cross_entropy_with_logits(logits[:, 0], smooth, reduction="none")
        if config.loss == "focal":
            each = each * (truth - torch.sigmoid(logits[:, 0])).abs() ** config.focal_gamma
        return torch.where(truth == 1, each * config.positive_weight, each)
    positions = truth.long()
    each = functional.cross_entropy(logits, positions, reduction="none", label_smoothing=config.label_smoothing)
    if config.loss == "focal":
        right = torch.softmax(logits, dim=1).gather(1, positions[:, None])[:, 0]
        each = each * (1 - right) ** config.focal_gamma
    if isinstance(config.class_weights, list):
        each = each * logits.new_tensor(config.class_weights)[positions]
    return each
