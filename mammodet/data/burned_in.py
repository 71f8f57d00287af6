"""Rows of letters beside the breast, which may name the patient: found by their form, not read."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.data.breast import find_breast
from mammodet.data.images import to_display

_SIDE = 1024  # longest side on which letters are looked for
_GROUND, _MARGIN = np.ones((21, 21), np.uint8), np.ones((15, 15), np.uint8)  # strokes are narrower; distance from skin
_CONTRAST = 40  # of a stroke with its ground, of 255
_ROW = 4.0  # length of a row in heights of its marks: a side and a view, as RMLO, are shorter and name nobody
_MOST = 400  # marks: more are noise or a pattern


def has_letters(pixels: NDArray[Any]) -> bool:
    """Whether uint8 or uint16 pixels (height, width) show three marks or more in a row beside the breast.

    They are of one height, on one line, close to each other, and the row is four times as long as high. Small, dim,
    blurred, tilted and vertical letters are missed (docs/leakage.md has the rates).
    """
    scale = _SIDE / max(pixels.shape)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(to_display(pixels), None, fx=scale, fy=scale, interpolation=way)
    breast = cv2.dilate(find_breast(small).mask_at(small.shape).astype(np.uint8), _MARGIN) > 0
    return any(_longest_row(small, breast, way) >= _ROW for way in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))


def _longest_row(small: NDArray[Any], breast: NDArray[np.bool_], way: int) -> float:
    strokes = (cv2.morphologyEx(small, way, _GROUND) > _CONTRAST) & ~breast
    found = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)[2][1:]
    _, _, width, height, area = found.T
    is_mark = (height >= 6) & (height <= 48) & (width <= 4 * height) & (width >= 2) & (area >= 10)
    is_mark &= area < 0.85 * width * height + 6  # no bar, and no blot
    marks = found[is_mark]
    marks = marks[np.argsort(marks[:, 0])]
    if len(marks) > _MOST:
        return 0
    left, right, height = marks[:, 0], marks[:, 0] + marks[:, 2], marks[:, 3]
    foot, count, start = marks[:, 1] + height, np.ones(len(marks), np.int64), left.copy()
    longest = 0.0
    for number in range(1, len(marks)):
        tall, gap = height[number], left[number] - right[:number]
        before = (abs(foot[:number] - foot[number]) <= 0.25 * tall) & (abs(height[:number] - tall) <= 0.3 * tall)
        before &= (gap >= -1) & (gap <= 0.9 * tall)
        if before.any():
            best = int(np.flatnonzero(before)[start[:number][before].argmin()])
            start[number], count[number] = start[best], count[best] + 1
            if count[number] >= 3:
                longest = max(longest, (right[number] - start[number]) / tall)
    return longest
