"""Mean and standard deviation of pixels that a network expects."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PixelStats:
    """A network sees `(pixel - mean) / std` of pixels in [0, 1], the same for all channels: windows of a grey image."""

    mean: float
    std: float


#: ImageNet's, averaged over its colours.
IMAGENET = PixelStats(0.449, 0.226)
