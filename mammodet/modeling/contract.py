"""The contract between a detector and what stands on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """What a detector answers."""

    features: list[Tensor]  #: pyramid, fine to coarse, each float (B, C, H, W) over the padded batch
    sizes_hw: list[tuple[int, int]]  #: (height, width) of each image inside the padded batch
    padded_hw: tuple[int, int]  #: (height, width) of the padded batch
    losses: dict[str, Tensor]  #: name to scalar; empty in eval mode
    #: per image `boxes` float (n, 4) xyxy in the input's pixels, `scores` (n,) falling, `labels` int64 (n,) 1-based,
    #: and with masks `masks` float (n, 1, M, M), probabilities on the grids of their boxes; empty in training mode.
    detections: list[dict[str, Tensor]]


class Detector(Protocol):
    """A lesion detector, whatever library it comes from."""

    #: Channels of every feature level.
    feature_channels: int
    #: Stride of each feature level, in the network's pixels, fine to coarse.
    feature_strides: tuple[int, ...]
    #: Whether detections have masks.
    with_masks: bool

    def __call__(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
        use_boxes: Sequence[bool] | None = None,
    ) -> DetectorOutput:
        """Run on images.

        Args:
            images: float (C, H, W) in [0, 1] each, of any sizes.
            targets: as in `Sample.target`; needed in training mode. What lies in `ignored` regions is no background.
            use_boxes: images that may teach boxes; None means all.
        """
        ...


def silent_loss(module: nn.Module) -> Tensor:
    """A zero that reaches every parameter: every process of a distributed run must see each of them in each step."""
    zero: Tensor = sum(parameter.sum() for parameter in module.parameters() if parameter.requires_grad) * 0.0  # type: ignore[assignment]
    return zero
