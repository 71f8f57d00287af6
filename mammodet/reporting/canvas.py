"""The part of an image that is shown, and lines, fills and labels on it.

A canvas is uint8 RGB (h, w, 3) and is drawn on in place. Everything is clipped to it. An outline of width 1
covers exactly the rim of a mask (its pixels with a neighbour outside); a wider one grows outwards, so that
it never hides what it surrounds. Dashes run along the middle of the rim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodet.geometry import as_boxes, rle_box, rle_to_mask
from mammodet.records import BoxXYXY, Rle
from mammodet.reporting.text import fit_text, line_height, printable, text_alpha, text_width, wrap_text

Canvas = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

PAPER: Colour = (18, 18, 20)


@dataclass(frozen=True, slots=True)
class View:
    """Which part of an image is shown, and how large."""

    window_xyxy: tuple[int, int, int, int]  #: whole pixels of the image file
    scale: float = 1.0  #: canvas pixels per image pixel

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.window_xyxy
        if x2 <= x1 or y2 <= y1:
            raise ValueError(f"window_xyxy {self.window_xyxy}: expected x2 > x1 and y2 > y1")
        if not self.scale > 0:
            raise ValueError(f"scale {self.scale}: expected a number above 0")

    @staticmethod
    def around(
        size_hw: tuple[int, int], boxes_xyxy: ArrayLike = (), *, margin: float = 0.04, height: int | None = None
    ) -> "View":
        """The region around boxes, or the whole image where there are none.

        Args:
            size_hw: of the image file.
            boxes_xyxy: (n, 4) that must be seen.
            margin: around them, as a part of the longer side of their hull.
            height: of the canvas in pixels, less where it would become more than twice as wide; None for the
                image's own resolution.
        """
        image_height, image_width = size_hw
        x1, y1, x2, y2 = 0, 0, image_width, image_height
        boxes = as_boxes(boxes_xyxy)
        if len(boxes):
            low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            pad = margin * float((high - low).max())
            left, top = np.floor(np.clip(low - pad, 0, [image_width - 1, image_height - 1])).astype(int)
            right, bottom = np.ceil(np.clip(high + pad, 1, [image_width, image_height])).astype(int)
            if right > left and bottom > top:
                x1, y1, x2, y2 = int(left), int(top), int(right), int(bottom)
        scale = 1.0 if height is None else min(height / (y2 - y1), 2 * height / (x2 - x1))
        return View((x1, y1, x2, y2), scale)

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the canvas."""
        x1, y1, x2, y2 = self.window_xyxy
        return max(1, round((y2 - y1) * self.scale)), max(1, round((x2 - x1) * self.scale))

    def render(self, pixels: NDArray[np.uint8]) -> Canvas:
        """A canvas with the image on it, from uint8 (H, W) or RGB (H, W, 3); the input stays as it is."""
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise ValueError(
                f"pixels: expected uint8 (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}; "
                "window the image to 8 bits first"
            )
        x1, y1, x2, y2 = self.window_xyxy
        part = pixels[y1:y2, x1:x2]
        height, width = self.size_hw
        if part.shape[:2] != (height, width):
            shrinks = height < part.shape[0]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            part = np.asarray(cv2.resize(part, (width, height), interpolation=how), dtype=np.uint8)
        if part.ndim == 2:
            return np.asarray(cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_GRAY2RGB), dtype=np.uint8)
        return np.array(part, dtype=np.uint8, order="C")

    def box(self, box_xyxy: BoxXYXY) -> BoxXYXY:
        """A box in pixels of the canvas; it may leave the canvas."""
        x1, y1, x2, y2 = (float(value) for value in box_xyxy)
        left, top = self.window_xyxy[:2]
        return ((x1 - left) * self.scale, (y1 - top) * self.scale, (x2 - left) * self.scale, (y2 - top) * self.scale)

    def mask(self, rle: Rle) -> tuple[Mask, tuple[int, int]] | None:
        """A mask at the canvas's resolution.

        Returns:
            bool (h, w) and the canvas column and row of its top-left pixel, which may lie outside; None
            where the mask is empty.
        """
        x1, y1, x2, y2 = (int(value) for value in rle_box(rle))
        if x2 <= x1 or y2 <= y1:
            return None
        patch = rle_to_mask(rle)[y1:y2, x1:x2]
        left, top = self.window_xyxy[:2]
        if self.scale == 1.0:
            return np.ascontiguousarray(patch), (x1 - left, y1 - top)
        u1, v1, u2, v2 = self.box((x1, y1, x2, y2))
        column, row = int(np.floor(u1)), int(np.floor(v1))
        size_wh = (int(np.ceil(u2)) - column, int(np.ceil(v2)) - row)
        values: NDArray[Any] = patch.astype(np.float32)
        reach = 0
        if self.scale < 0.5:
            reach = round(1 / self.scale)
            values = np.pad(values, reach)
            values = cv2.blur(values, (reach, reach), borderType=cv2.BORDER_CONSTANT)
        # pixel centres: canvas column u + column + 0.5 is image column x + x1 + 0.5
        step = 1 / self.scale
        matrix = np.array(
            [
                [step, 0, (column + 0.5) * step + left - x1 + reach - 0.5],
                [0, step, (row + 0.5) * step + top - y1 + reach - 0.5],
            ]
        )
        values = cv2.warpAffine(values, matrix, size_wh, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        # what is thinner than a canvas pixel must not vanish
        return np.asarray(values >= min(0.5, float(np.max(values)) or 0.5)), (column, row)


def paint(
    canvas: Canvas, mask: NDArray[np.generic], corner_xy: tuple[int, int], colour: Colour, alpha: float = 1.0
) -> None:
    """Colour the pixels of a mask.

    Args:
        mask: bool (h, w), or a coverage uint8 (h, w) from 0 to 255.
        corner_xy: canvas column and row of its top-left pixel; what lies outside is left out.
        alpha: 1 covers, 0 leaves as it is.
    """
    (height, width), (x, y) = canvas.shape[:2], corner_xy
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + mask.shape[1], width), min(y + mask.shape[0], height)
    if x2 <= x1 or y2 <= y1:
        return
    part = mask[y1 - y : y2 - y, x1 - x : x2 - x]
    target = canvas[y1:y2, x1:x2]
    if mask.dtype == np.bool_ and alpha >= 1:
        target[part.astype(bool)] = colour
        return
    where = np.nonzero(part)
    weight = alpha * part[where].astype(np.float32)[:, None] / (1.0 if mask.dtype == np.bool_ else 255.0)
    old = target[where].astype(np.float32)
    target[where] = np.round(old + (np.array(colour, np.float32) - old) * weight).astype(np.uint8)


def outline(mask: Mask, thickness: int) -> tuple[Mask, int]:
    """The rim of a mask, grown outwards.

    Returns:
        bool (h + 2 margin, w + 2 margin), and the margin in pixels.
    """
    margin = max(1, thickness)
    padded = np.pad(mask, margin).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    rim = (padded > 0) & (cv2.erode(padded, cross) == 0)
    if thickness > 1:
        distance = cv2.distanceTransform(1 - padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        rim |= (distance > 0) & (distance <= thickness - 1)
    return rim, margin


def draw_outline(
    canvas: Canvas, mask: Mask, corner_xy: tuple[int, int], colour: Colour, thickness: int, *, dashed: bool = False
) -> None:
    """Draw the outline of a mask bool (h, w) whose top-left pixel is at `corner_xy` (column, row)."""
    if dashed:
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner_xy)
        for contour in contours:
            _draw_dashes(canvas, contour[:, 0, :].astype(np.float64), colour, thickness)
        return
    rim, margin = outline(mask, thickness)
    paint(canvas, rim, (corner_xy[0] - margin, corner_xy[1] - margin), colour)


def draw_box(canvas: Canvas, box_xyxy: BoxXYXY, colour: Colour, thickness: int, *, dashed: bool = False) -> None:
    """Draw a rectangle whose innermost line covers the first and last pixels that the box touches."""
    x1, y1 = (int(np.floor(value)) for value in box_xyxy[:2])
    x2, y2 = (int(np.ceil(value)) - 1 for value in box_xyxy[2:])
    if dashed:
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)
        _draw_dashes(canvas, corners, colour, thickness)
        return
    grow = thickness - 1
    height, width = canvas.shape[:2]
    left, right = np.clip([x1 - grow, x2 + grow + 1], 0, width)
    top, bottom = np.clip([y1 - grow, y2 + grow + 1], 0, height)
    for row in (y1 - grow, y2):
        canvas[max(row, 0) : max(row + thickness, 0), left:right] = colour
    for column in (x1 - grow, x2):
        canvas[top:bottom, max(column, 0) : max(column + thickness, 0)] = colour


def _draw_dashes(canvas: Canvas, points: NDArray[np.float64], colour: Colour, thickness: int) -> None:
    dashes = [np.round(dash).astype(np.int32) for dash in _dashes(points, 8.0 * thickness + 6)]
    cv2.polylines(canvas, dashes, False, PAPER, thickness + 2)  # grey on grey tissue needs a dark rim
    cv2.polylines(canvas, dashes, False, colour, thickness)


def _dashes(points: NDArray[np.float64], period: float) -> Iterator[NDArray[np.float64]]:
    """Pieces (m, 2) of a closed line (n, 2): one every `period` px or less, at least eight in all."""
    closed = np.concatenate([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    length = float(along[-1])
    if length == 0:
        yield closed
        return
    count = max(8, round(length / period))
    for start in np.arange(count) * length / count:
        end = start + 0.6 * length / count
        inner = along[(along > start) & (along < end)]
        stations = np.concatenate([[start], inner, [end]])
        yield np.stack([np.interp(stations, along, closed[:, axis]) for axis in (0, 1)], axis=1)


def draw_label(
    canvas: Canvas, text: str, box_xyxy: BoxXYXY, colour: Colour, size_px: int, occupied: list[BoxXYXY], *, gap: int = 2
) -> None:
    """Write a label beside a box: where it covers least of what is `occupied`, and wholly inside the canvas.

    `occupied` holds boxes in canvas pixels; the label's own place is added to it.
    """
    height, width = canvas.shape[:2]
    pad = max(2, size_px // 5)
    text, size_px = fit_text(printable(text), size_px, width - 2 * pad)
    if not text or line_height(size_px) > height:
        return
    w, h = text_width(text, size_px) + 2 * pad, min(line_height(size_px) + pad, height)
    x1, y1, x2, y2 = box_xyxy
    candidates = [
        (x1 - gap, y1 - h - gap),
        (x1 - gap, y2 + gap),
        (x2 + gap, y1),
        (x1 - w - gap, y1),
        (x2 - w, y1 - h - gap),
        (x2 - w, y2 + gap),
        (x2 + gap, y2 - h),
        (x1 - w - gap, y2 - h),
        (x1, y1),
    ]
    places = [(min(max(round(x), 0), width - w), min(max(round(y), 0), height - h)) for x, y in candidates]
    covered = [sum(_overlap((x, y, x + w, y + h), other) for other in [*occupied, box_xyxy]) for x, y in places]
    x, y = places[int(np.argmin(covered))]
    paint(canvas, np.ones((h, w), dtype=bool), (x, y), PAPER, 0.72)
    paint(canvas, text_alpha(text, size_px), (x + pad, y + (h - line_height(size_px)) // 2), colour)
    occupied.append((x, y, x + w, y + h))


def _overlap(a: BoxXYXY, b: BoxXYXY) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a banner."""

    text: str
    colour: Colour
    bold: bool = False


def banner(lines: Sequence[Line], width: int, size_px: int) -> Canvas:
    """A strip of wrapped text, uint8 RGB (as high as it needs to be, width, 3)."""
    pad = max(3, size_px // 2)
    size_px = max(6, min(size_px, (width - 2) // 2))
    pad = min(pad, max(1, (width - size_px) // 2))
    rows = [
        (row, line)
        for line in lines
        for row in wrap_text(printable(line.text, bold=line.bold), size_px, width - 2 * pad, bold=line.bold)
    ]
    step = line_height(size_px) + size_px // 6
    strip = paper(2 * pad + step * len(rows), width)
    for index, (row, line) in enumerate(rows):
        paint(strip, text_alpha(row, size_px, bold=line.bold), (pad, pad + index * step), line.colour)
    return strip


def titled(panels: Sequence[tuple[Sequence[Line], Canvas]], size_px: int, gap: int) -> Canvas:
    """Canvases side by side, each below its own lines of text, with gaps of paper between them."""
    titles = [banner(lines, canvas.shape[1], size_px) if lines else None for lines, canvas in panels]
    top = max(len(title) if title is not None else 0 for title in titles)
    sheet = paper(top + max(len(canvas) for _, canvas in panels), sum(canvas.shape[1] + gap for _, canvas in panels))
    left = 0
    for title, (_, canvas) in zip(titles, panels, strict=True):
        right = left + canvas.shape[1]
        if title is not None:
            sheet[: len(title), left:right] = title
        sheet[top : top + len(canvas), left:right] = canvas
        left = right + gap
    return sheet[:, :-gap]


def paper(height: int, width: int) -> Canvas:
    """An empty canvas."""
    return np.full((height, width, 3), PAPER, dtype=np.uint8)
