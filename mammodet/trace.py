"""How an image was cropped, turned and resized, kept so that boxes and masks can go both ways.

Every step maps x and y apart, as `x' = scale * x + shift`, in the pixel frame of `mammodet.records`. `forward` means
from native pixels (the file as it was read) to the network's input; `backward` the other way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodet.geometry import Boxes, Mask, as_boxes, clip_boxes, patch_to_rle
from mammodet.records import Rle

StepName = Literal["crop", "flip", "resize"]
_VALUES = {"crop": 4, "flip": 0, "resize": 2}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. `crop`: values (x, y, width, height); `flip` (left-right): (); `resize`: (height, width)."""

    name: StepName
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps from an image of `native_size_hw` to the network's input, in order."""

    native_size_hw: tuple[int, int]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        self.output_size_hw  # noqa: B018 (checks the steps)

    @property
    def output_size_hw(self) -> tuple[int, int]:
        """(height, width) after all steps.

        Raises ValueError: a step is unknown, has other values than it needs, or leaves the image.
        """
        height, width = self.native_size_hw
        if not _whole(height, width) or height < 1 or width < 1:
            raise ValueError(f"native_size_hw {self.native_size_hw}: expected two positive whole numbers")
        for step in self.steps:
            expected = _VALUES.get(step.name) if isinstance(step.name, str) else None
            if expected is None:
                raise ValueError(f"unknown step {step.name!r}: expected crop, flip or resize")
            if len(step.values) != expected or not _whole(*step.values):
                raise ValueError(f"{step.name} {step.values}: expected {expected} whole numbers")
            if step.name == "crop":
                x, y, w, h = step.values
                if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
                    raise ValueError(f"crop {step.values} (xywh) leaves the image {height}x{width} (height x width)")
                height, width = h, w
            elif step.name == "resize":
                height, width = step.values
                if height < 1 or width < 1:
                    raise ValueError(f"resize to {step.values}: expected two positive numbers")
        return height, width

    def then(self, name: StepName, *values: int) -> "Trace":
        """This trace with one more step."""
        return Trace(self.native_size_hw, (*self.steps, Step(name, tuple(int(value) for value in values))))

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale (2,) and shift (2,) over (x, y) of the forward map."""
        scale, shift = np.ones(2), np.zeros(2)
        height, width = self.native_size_hw
        for step in self.steps:
            if step.name == "crop":
                x, y, width, height = step.values
                shift = shift - (x, y)
            elif step.name == "flip":
                scale, shift = scale * (-1, 1), np.array([width - shift[0], shift[1]])
            else:
                factor = np.array([step.values[1] / width, step.values[0] / height])
                scale, shift = scale * factor, shift * factor
                height, width = step.values
        return scale, shift

    def boxes_forward(self, boxes_xyxy: ArrayLike) -> Boxes:
        """Native boxes (n, 4) in the output's pixels; they are not cut at its border."""
        scale, shift = self.affine()
        return _map_boxes(as_boxes(boxes_xyxy), scale, shift)

    def boxes_backward(self, boxes_xyxy: ArrayLike) -> Boxes:
        """Output boxes (n, 4) in native pixels, cut at the native image's border."""
        scale, shift = self.affine()
        return clip_boxes(_map_boxes(as_boxes(boxes_xyxy), 1 / scale, -shift / scale), self.native_size_hw)

    def image_forward(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Apply the steps to an image (height, width[, channels]); shrinking averages areas, growing is linear."""
        self._check(pixels, self.native_size_hw)
        for step in self.steps:
            if step.name == "crop":
                x, y, w, h = step.values
                pixels = pixels[y : y + h, x : x + w]
            elif step.name == "flip":
                pixels = pixels[:, ::-1]
            else:
                pixels = _resize(np.ascontiguousarray(pixels), (step.values[0], step.values[1]))
        return np.ascontiguousarray(pixels)

    def mask_forward(self, mask: NDArray[np.generic]) -> Mask:
        """A native binary mask (height, width) in the output's pixels: a pixel is set where half of it is covered."""
        resized = self.image_forward(mask.astype(np.float32))
        return np.asarray(resized >= 0.5)

    def patch_forward(self, patch: NDArray[np.generic], corner_xy: tuple[int, int]) -> Mask:
        """As `mask_forward`, of a mask that is empty but for a part (h, w) that begins at native pixel `corner_xy`.

        Only what the part covers is ever resized: of a small lesion on a large film hardly anything.
        """
        height, width = self.native_size_hw
        (x, y), part = corner_xy, patch.astype(np.float64)
        for step in self.steps:
            if step.name == "crop":
                left, top, width, height = step.values
                x, y = x - left, y - top
                part = part[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
                x, y = max(x, 0), max(y, 0)
            elif step.name == "flip":
                part, x = part[:, ::-1], width - x - part.shape[1]
            elif step.values != (height, width):
                shrinks = step.values[0] <= height and step.values[1] <= width
                y, rows = _weights(y, part.shape[0], height, step.values[0], shrinks)
                x, columns = _weights(x, part.shape[1], width, step.values[1], shrinks)
                part = np.asarray(rows @ part @ columns.T, dtype=np.float32)
                height, width = step.values
        mask = np.zeros((height, width), dtype=bool)
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part >= 0.5
        return mask

    def mask_backward(self, mask: NDArray[np.generic], threshold: float = 0.5) -> Rle:
        """An output mask (height, width), binary or of probabilities, as run lengths in native pixels.

        Only the part of the native image that the mask's tight box covers is ever resized.
        """
        self._check(mask, self.output_size_hw)
        return self.patch_backward(mask, (0, 0), threshold)

    def patch_backward(self, mask: NDArray[np.generic], corner_xy: tuple[int, int], threshold: float = 0.5) -> Rle:
        """As `mask_backward`, of a part (h, w) of an output mask that begins at `corner_xy`; the rest is empty."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return patch_to_rle(np.zeros((0, 0), dtype=bool), (0, 0), self.native_size_hw)
        scale, shift = self.affine()
        # One pixel of margin, so that the interpolation at the rim sees the zeros around the mask.
        (x, y), (height, width) = corner_xy, self.output_size_hw
        inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        first_y, first_x = y + int(rows[0]), x + int(columns[0])
        top, bottom = max(first_y - 1, 0), min(first_y + inner.shape[0] + 1, height)
        left, right = max(first_x - 1, 0), min(first_x + inner.shape[1] + 1, width)
        patch = np.zeros((bottom - top, right - left), dtype=np.float32)
        patch[first_y - top :, first_x - left :][: inner.shape[0], : inner.shape[1]] = inner
        ((x1, y1, x2, y2),) = _map_boxes(np.array([[left, top, right, bottom]], float), 1 / scale, -shift / scale)
        # Sample the patch at the native pixel centres that it covers. A centre, not a corner, decides: a crop's border
        # at 9.9999999 through rounding must not take in pixel 9.
        height, width = self.native_size_hw
        column0, column1 = max(int(np.ceil(x1 - 0.5)), 0), min(int(np.ceil(x2 - 0.5)), width)
        row0, row1 = max(int(np.ceil(y1 - 0.5)), 0), min(int(np.ceil(y2 - 0.5)), height)
        if column0 >= column1 or row0 >= row1:
            return patch_to_rle(np.zeros((0, 0), dtype=bool), (0, 0), self.native_size_hw)
        map_x = ((np.arange(column0, column1) + 0.5) * scale[0] + shift[0] - left - 0.5).astype(np.float32)
        map_y = ((np.arange(row0, row1) + 0.5) * scale[1] + shift[1] - top - 0.5).astype(np.float32)
        native = cv2.remap(
            patch,
            np.repeat(map_x[None], len(map_y), axis=0),
            np.repeat(map_y[:, None], len(map_x), axis=1),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return patch_to_rle(native >= threshold, (column0, row0), self.native_size_hw)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, read back by `from_json`."""
        return {
            "native_size_hw": list(self.native_size_hw),
            "steps": [[step.name, *step.values] for step in self.steps],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Trace":
        """The inverse of `to_json`.

        Raises KeyError, TypeError, ValueError: it cannot be read, or its steps do not fit.
        """
        height, width = value["native_size_hw"]
        return Trace((height, width), tuple(Step(name, tuple(rest)) for name, *rest in value["steps"]))

    @staticmethod
    def _check(array: NDArray[Any], size_hw: tuple[int, int]) -> None:
        if tuple(array.shape[:2]) != size_hw:
            raise ValueError(f"expected an array of {size_hw} (height, width), got {array.shape}")


def _whole(*values: Any) -> bool:
    return all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values)


def _map_boxes(boxes: Boxes, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Boxes:
    first = boxes[:, :2] * scale + shift
    second = boxes[:, 2:] * scale + shift
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def _weights(low: int, cells: int, side: int, new: int, shrinks: bool) -> tuple[int, NDArray[np.float32]]:
    """How `_resize` makes the pixels of a side of `new` from the `cells` pixels from `low` on of one of `side`.

    Returns:
        the first pixel that they reach, and weights (pixels, cells) of it and those after it.
    """
    scale = side / new
    if shrinks:  # shares of areas
        pixels = np.arange(int(low / scale), min(int(np.ceil((low + cells) / scale)), new))
        ends = np.minimum((pixels[:, None] + 1) * scale, low + np.arange(1, cells + 1))
        weights = np.clip(ends - np.maximum(pixels[:, None] * scale, low + np.arange(cells)), 0, None) / scale
    else:  # linear between centres, the outermost pixels beyond the rim
        reached = int((low - 0.5) / scale - 1), int(np.ceil((low + cells + 0.5) / scale))
        pixels = np.arange(max(reached[0], 0), min(reached[1] + 1, new))
        centres = np.clip((pixels[:, None] + 0.5) * scale - 0.5, 0, side - 1)
        weights = np.clip(1 - np.abs(centres - (low + np.arange(cells))), 0, None)
    return int(pixels[0]) if len(pixels) else 0, weights.astype(np.float32)


def _resize(pixels: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    height, width = size_hw
    if (height, width) == pixels.shape[:2]:
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
