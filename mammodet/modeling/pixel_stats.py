"""Mean and standard deviation of pixels that a network expects."""

from __future__ import annotations

from dataclasses import dataclass

PIXEL_MEAN, PIXEL_STD = 0.449, 0.226  # ImageNet's, averaged over its channels


@dataclass(frozen=True, slots=True)
class PixelStats:
    """A network sees `(pixel - mean) / std` of pixels in [0, 1], the same for all channels: windows of a grey image."""

    mean: float = PIXEL_MEAN
    std: float = PIXEL_STD
