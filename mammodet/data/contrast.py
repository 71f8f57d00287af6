"""How much brighter a place is than what surrounds it: masses are, which tells whether coordinates are right."""

from typing import Any

from numpy.typing import NDArray

from mammodet.geometry import circle_mask


def surround_contrast(pixels: NDArray[Any], centre_xy: tuple[float, float], radius: float) -> float:
    """Mean of a disc less the mean of the ring around it, out to twice its radius.

    Args:
        pixels: grey (height, width).
        centre_xy: in the pixel frame of `mammodet.records`; what lies outside the image is left out.
        radius: in pixels.
    Returns:
        in grey levels; 0 where the disc or its ring lies wholly outside the image.
    """
    height, width = pixels.shape
    x, y = centre_xy
    left, right = max(int(x - 2 * radius), 0), min(int(x + 2 * radius) + 2, width)
    top, bottom = max(int(y - 2 * radius), 0), min(int(y + 2 * radius) + 2, height)
    if right <= left or bottom <= top:
        return 0.0
    patch = pixels[top:bottom, left:right]
    disc = circle_mask((x - left, y - top), radius, patch.shape)
    ring = circle_mask((x - left, y - top), 2 * radius, patch.shape) & ~disc
    if not disc.any() or not ring.any():
        return 0.0
    return float(patch[disc].mean() - patch[ring].mean())
