"""Where the cells of a feature map lie on the image, and a map of such cells in native pixels. Knows no torch.

A strided convolution of odd size looks around the first pixels of its steps, not around their middles: the cell j of
ResNet's last stage is centred at x = 32 j + 0.5, where stretching the map over the image would put it at 32 j + 16.
Over a mammogram at 224 px that is a seventh of its width, more than a lesion. So the grid is followed layer by layer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammodet.trace import Trace

Heat = NDArray[np.float32]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Grid:
    """Centres of cells in pixels of the network's input: row i is centred at y = start[0] + i * step[0]."""

    #: centre of the top-left cell; that of the top-left pixel is (0.5, 0.5).
    start_yx: tuple[float, float] = (0.5, 0.5)
    step_yx: tuple[float, float] = (1.0, 1.0)  #: from one cell to the next

    def after(self, kernel: Pair, stride: Pair, padding: Pair) -> "Grid":
        """The grid of what a convolution or a pooling makes of this one.

        Args:
            kernel: (height, width), dilation included.
            padding: at the top and at the left.
        """
        start = [self.start_yx[axis] + self.step_yx[axis] * ((kernel[axis] - 1) / 2 - padding[axis]) for axis in (0, 1)]
        return Grid((start[0], start[1]), (self.step_yx[0] * stride[0], self.step_yx[1] * stride[1]))

    def spread(self, size_hw: Pair, new_hw: Pair) -> "Grid":
        """The grid of as many cells as `new_hw` over the same area as this one's `size_hw`."""
        ratio = [size_hw[axis] / new_hw[axis] for axis in (0, 1)]
        step = [self.step_yx[axis] * ratio[axis] for axis in (0, 1)]
        start = [self.start_yx[axis] + (step[axis] - self.step_yx[axis]) / 2 for axis in (0, 1)]
        return Grid((start[0], start[1]), (step[0], step[1]))


#: The grid of the network's input itself.
PIXELS = Grid()


def to_native(heat: Heat, grid: Grid, trace: Trace) -> Heat:
    """A map of cells, float (h, w), at every pixel of the image file, float (height, width).

    Linear between the centres of cells, and as the outermost cell beyond it. Pixels that were cropped away are 0. What
    lies on the padding is gone.

    Args:
        grid: of the cells on the network's input.
        trace: from the image file to the network's input.
    """
    (scale_x, scale_y), (shift_x, shift_y) = trace.affine()
    (height, width), (rows, columns) = trace.native_size_hw, trace.output_size_hw
    y = (np.arange(height) + 0.5) * scale_y + shift_y
    x = (np.arange(width) + 0.5) * scale_x + shift_x
    tall = _at(heat, (y - grid.start_yx[0]) / grid.step_yx[0])
    native = _at(tall.T, (x - grid.start_yx[1]) / grid.step_yx[1]).T
    seen = ((y > 0) & (y < rows))[:, None] & ((x > 0) & (x < columns))[None]
    return np.ascontiguousarray(np.where(seen, native, 0), dtype=np.float32)


def _at(values: Heat, places: NDArray[np.float64]) -> Heat:
    """Rows of `values` (n, m) at fractional places (k,), linear in between and held at the ends: (k, m)."""
    places = np.clip(places, 0, len(values) - 1)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, len(values) - 1)
    part = (places - low).astype(np.float32)[:, None]
    return np.asarray(values[low] * (1 - part) + values[high] * part, dtype=np.float32)
