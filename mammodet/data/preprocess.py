"""From a mammogram's pixels to the network's input, and the `Trace` that leads back."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.config import ImageConfig
from mammodet.config.data import Channel
from mammodet.data.breast import find_breast
from mammodet.data.images import Pixels, to_unit
from mammodet.records import BoxXYXY
from mammodet.trace import Trace

PREPARATION = 2  # raise it with every change of what `prepare_image` answers: caches of older answers are passed over
CLAHE_CLIP = 0.01  # of a tile's pixels; tiles are an eighth of the sides
KERNEL = 5  # pixels of the network's input: side of the Gaussian, mean and Laplacian kernels
TISSUE_QUANTILES = (0.01, 0.995)


def prepare_image(
    pixels: Pixels, config: ImageConfig, breast_box_xyxy: BoxXYXY | None = None
) -> tuple[NDArray[np.float32], Trace]:
    """Crop, orient, resize and window one image.

    Args:
        pixels: uint8 or uint16 (height, width), native.
        breast_box_xyxy: crop box in native pixels; looked for where it is None and the config crops.
    Returns:
        float32 (channels, height, width) in [0, 1], longest side `config.max_size` (both with `aspect: stretch`), and
        the trace from native to it.
    """
    trace = plan_trace(pixels, config, breast_box_xyxy)
    # Shrinking averages: in float, so that 8-bit steps do not limit the result.
    first = trace.steps[0] if trace.steps and trace.steps[0].name == "crop" else None
    if first is not None:
        x, y, w, h = first.values
        cropped = to_unit(pixels[y : y + h, x : x + w])
        unit = Trace((h, w), trace.steps[1:]).image_forward(cropped)
    else:
        unit = trace.image_forward(to_unit(pixels))
    np.clip(unit, 0, 1, out=unit)  # interpolation rounds to a little more than 1
    channels = [_CHANNELS[name](unit) for name in config.channels]
    return np.ascontiguousarray(np.stack(channels)), trace


def to_8_bits(pixels: Pixels, channel: Channel) -> NDArray[np.uint8]:
    """Pixels (height, width) for programs that read 8 bits, windowed as a channel; those of 8 bits stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(_CHANNELS[channel](to_unit(pixels)) * 255).astype(np.uint8)


def plan_trace(pixels: Pixels, config: ImageConfig, breast_box_xyxy: BoxXYXY | None) -> Trace:
    """The steps for an image, without doing them."""
    height, width = pixels.shape
    trace = Trace((height, width))
    if config.crop == "breast":
        x1, y1, x2, y2 = breast_box_xyxy or find_breast(pixels).box_xyxy
        left, top = max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0)
        right, bottom = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
        if (left, top, right, bottom) != (0, 0, width, height):
            trace = trace.then("crop", left, top, right - left, bottom - top)
    if config.orient == "left" and chest_wall_on_right(pixels, trace):
        trace = trace.then("flip")
    height, width = trace.output_size_hw
    scale = config.max_size / max(height, width)
    resized = max(round(height * scale), 1), max(round(width * scale), 1)
    if config.aspect == "stretch":
        resized = config.max_size, config.max_size
    if resized != (height, width):
        trace = trace.then("resize", *resized)
    return trace


def chest_wall_on_right(pixels: Pixels, trace: Trace) -> bool:
    """Whether more tissue meets the crop's right edge than its left one."""
    crop = pixels
    if trace.steps:
        x, y, w, h = trace.steps[0].values
        crop = pixels[y : y + h, x : x + w]
    strip = max(crop.shape[1] // 10, 1)
    return float(crop[::4, -strip:].mean()) > float(crop[::4, :strip].mean())


def _tissue(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch the breast's own range to [0, 1]; the film's background does not count."""
    sample = unit[::2, ::2]
    tissue = sample[sample > 0.05 * float(sample.max(initial=0))]
    if tissue.size < 16:
        return unit
    low, high = (float(value) for value in np.quantile(tissue, TISSUE_QUANTILES))
    if high - low < 1e-6:
        return unit
    return np.clip((unit - low) / (high - low), 0, 1).astype(np.float32)


def _clahe(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """scikit-image's: 14 bits deep. OpenCV's loses depth at 8 bits, and does next to nothing at 16.

    (Its 65536 bins hold less than one pixel each, and the clip takes nearly all of them.)
    """
    from skimage.exposure import equalize_adapthist  # here, since importing it takes longer than reading an image

    high = float(unit.max(initial=0))
    if high - float(unit.min(initial=high)) < 1e-6:
        return unit
    return np.asarray(equalize_adapthist(unit / high, clip_limit=CLAHE_CLIP), dtype=np.float32).clip(0, 1)


def _laplacian(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """The size of the second derivative, stretched so that its 99.5th percentile is 1."""
    edges = np.abs(cv2.Laplacian(_tissue(unit), cv2.CV_32F, ksize=KERNEL))
    high = float(np.quantile(edges, TISSUE_QUANTILES[1]))
    return np.clip(edges / high, 0, 1).astype(np.float32) if high > 1e-6 else np.zeros_like(unit)


_CHANNELS: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "full": lambda unit: unit,
    "tissue": _tissue,
    "clahe": _clahe,
    "gaussian": lambda unit: cv2.GaussianBlur(_tissue(unit), (KERNEL, KERNEL), 0),
    "mean": lambda unit: cv2.blur(_tissue(unit), (KERNEL, KERNEL)),
    "laplacian": _laplacian,
}
