"""Pictures of heat maps and feature maps. Arrays and records in, uint8 RGB out; knows no torch.

Colours are perceptually uniform maps that every common kind of colour vision tells apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from mammodet.records import ImageRecord
from mammodet.reporting.canvas import PAPER, Canvas, Line, View, banner, draw_box, draw_outline, paint, paper, titled
from mammodet.reporting.overlay import FAINT, TITLE, TRUTH, OverlayOptions, draw_truth, font_size, line_width
from mammodet.reporting.text import fit_text, line_height, printable, text_alpha, text_width

HEAT_COLOURS, MAP_COLOURS, SIGNED_COLOURS = "inferno", "viridis", "RdBu_r"
STRONGEST = 0.72  # how much a heat map covers the image where it is 1
_BAR_GREY = 0.35


@dataclass(frozen=True, slots=True)
class HeatPanel:
    """One heat map beside others.

    Attributes:
        heat: float (height, width) in native pixels, in [0, 1].
        title: of the panel.
        note: below the title.
        peak_xy: marked by a cross; None for none.
    """

    heat: NDArray[np.float32]
    title: str
    note: str = ""
    peak_xy: tuple[float, float] | None = None


def heat_picture(
    pixels: NDArray[np.uint8],
    record: ImageRecord,
    panels: Sequence[HeatPanel],
    lines: Sequence[Line],
    *,
    height: int | None = 900,
    crop_to_breast: bool = False,
) -> Canvas:
    """The image with its lesions, and beside it each heat map over it, with a scale.

    Args:
        pixels: uint8 (H, W), at the file's own size.
        lines: what is written above.
        height: of a panel in pixels; None for the image's own resolution.
    """
    boxes = []
    if crop_to_breast and record.breast_box_xyxy is not None:
        boxes = [record.breast_box_xyxy, *(lesion.box_xyxy for lesion in record.lesions)]
    view = View.around(record.size_hw, np.array(boxes, dtype=np.float64), height=height)
    size = font_size(view.size_hw)
    bar = colour_bar(view.size_hw[0], size, _over_grey, [(0.0, "0"), (0.5, "0.5"), (1.0, "1")])
    shown: list[tuple[Sequence[Line], Canvas]] = [
        ([Line("image and lesions", TITLE)], draw_truth(pixels, record, OverlayOptions(), view=view))
    ]
    for panel in panels:
        title = [Line(panel.title, TITLE), *([Line(panel.note, FAINT)] if panel.note else [])]
        shown.append((title, _heat_canvas(pixels, record, panel, view)))
    body = titled([*shown, ((), bar)], size, max(4, size // 2))
    foot = [Line("heat: part of the layer's maximum on this image; + its place. Blue: lesions of the truth.", FAINT)]
    return np.concatenate([banner(lines, body.shape[1], size), body, banner(foot, body.shape[1], size)])


def _heat_canvas(pixels: NDArray[np.uint8], record: ImageRecord, panel: HeatPanel, view: View) -> Canvas:
    if panel.heat.shape != record.size_hw:
        raise ValueError(f"heat: expected {record.size_hw} (height, width), got {panel.heat.shape}")
    canvas = view.render(pixels)
    x1, y1, x2, y2 = view.window_xyxy
    height, width = view.size_hw
    how = cv2.INTER_AREA if height < y2 - y1 else cv2.INTER_LINEAR
    heat = np.asarray(cv2.resize(panel.heat[y1:y2, x1:x2], (width, height), interpolation=how)).clip(0, 1)
    canvas[:] = blend(canvas, heat)
    thickness = line_width(view.size_hw)
    for lesion in record.lesions:
        if lesion.ignore:
            continue
        shape = view.mask(lesion.rle) if lesion.rle is not None and lesion.geometry != "box" else None
        for colour, wide in ((PAPER, thickness + 2), (TRUTH, thickness + 1)):  # a dark rim, to be seen on the heat
            if shape is None:
                draw_box(canvas, view.box(lesion.box_xyxy), colour, wide)
            else:
                draw_outline(canvas, *shape, colour, wide)
    if panel.peak_xy is not None:
        x, y = panel.peak_xy
        place = round((x - x1) * view.scale - 0.5), round((y - y1) * view.scale - 0.5)
        arm = max(9, round(0.022 * max(height, width)))
        for colour, wide in ((PAPER, thickness + 2), (TITLE, max(thickness, 1))):
            cv2.drawMarker(canvas, place, colour, cv2.MARKER_CROSS, arm, wide, cv2.LINE_AA)
    return canvas


def blend(grey: Canvas, heat: NDArray[np.float32]) -> Canvas:
    """A heat map float (h, w) in [0, 1] over a picture (h, w, 3): where it is 0, the picture stays as it is."""
    colours = matplotlib.colormaps[HEAT_COLOURS](0.15 + 0.8 * heat)[..., :3].astype(np.float32) * 255
    cover = (STRONGEST * np.sqrt(heat))[..., None]
    return np.asarray(np.round(grey * (1 - cover) + colours * cover), dtype=np.uint8)


def _over_grey(values: NDArray[np.float32]) -> Canvas:
    grey = np.full((*values.shape, 3), round(255 * _BAR_GREY), dtype=np.uint8)
    return blend(grey, values)


def colour_bar(
    height: int,
    size_px: int,
    colours: Callable[[NDArray[np.float32]], Canvas],
    ticks: Sequence[tuple[float, str]],
) -> Canvas:
    """A vertical scale, its top the highest value.

    Args:
        height: in pixels.
        size_px: of the letters.
        colours: function of values float (h, w) in [0, 1] to RGB (h, w, 3).
        ticks: place in [0, 1], and what stands there.
    """
    bar_width, pad = max(10, size_px), max(3, size_px // 2)
    margin = line_height(size_px) // 2 + 1
    inner = max(height - 2 * margin, 2)
    wide = max(text_width(printable(text), size_px) for _, text in ticks)
    strip = paper(height, 3 * pad + bar_width + wide)
    values = np.repeat(np.linspace(1, 0, inner, dtype=np.float32)[:, None], bar_width, axis=1)
    strip[margin : margin + inner, pad : pad + bar_width] = colours(values)[: height - margin]
    for place, text in ticks:
        row = margin + round((1 - place) * (inner - 1))
        strip[row : row + 1, pad + bar_width : pad + bar_width + pad // 2] = TITLE
        paint(
            strip,
            text_alpha(printable(text), size_px),
            (2 * pad + bar_width, row - line_height(size_px) // 2),
            TITLE,
        )
    return strip


@dataclass(frozen=True, slots=True)
class Scale:
    """The colours of feature maps: one scale for all channels of a layer.

    Attributes:
        low, high: values at its ends; what lies beyond is shown as these.
        signed: two colours that meet at 0.
    """

    low: float
    high: float
    signed: bool

    @staticmethod
    def of(maps: NDArray[np.float32]) -> Scale:
        """From the values of channels (C, h, w): 99.5 in 100 lie inside; around 0 where some are negative."""
        if float(maps.min()) < 0:
            high = float(np.quantile(np.abs(maps), 0.995)) or float(np.abs(maps).max())
            return Scale(-high, high, True)
        return Scale(0.0, float(np.quantile(maps, 0.995)) or float(maps.max()) or 1.0, False)

    def colours(self, unit: NDArray[np.float32]) -> Canvas:
        """RGB (h, w, 3) of places on the scale, float (h, w) in [0, 1]."""
        name = SIGNED_COLOURS if self.signed else MAP_COLOURS
        return np.asarray(matplotlib.colormaps[name](unit, bytes=True)[..., :3])

    def picture(self, map_: NDArray[np.float32]) -> Canvas:
        """RGB of a map float (h, w)."""
        unit = (map_ - self.low) / (self.high - self.low)
        return self.colours(np.clip(unit, 0, 1).astype(np.float32))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """For `colour_bar`."""
        middle = (self.low + self.high) / 2
        return [(0.0, f"{self.low:.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{self.high:.3g}")]


def feature_picture(
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: Sequence[int],
    lines: Sequence[Line],
    *,
    tile: int = 160,
    columns: int = 8,
) -> Canvas:
    """The network's input, the mean over all channels, and some channels of a layer, on one scale.

    Args:
        image: float (H, W) in [0, 1], the input's first channel.
        maps: float (C, h, w), all channels of the layer.
        channels: positions of those that are shown.
        lines: what is written above.
        tile: longest side of a map in the picture, in pixels; one cell is one square.
    """
    scale = Scale.of(maps)
    ratio = tile / max(image.shape)
    size_hw = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
    grey = np.repeat(np.round(image.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    tiles = [("input", _resized(grey, size_hw)), ("mean of all", _resized(scale.picture(maps.mean(axis=0)), size_hw))]
    tiles += [(f"{channel}", _resized(scale.picture(maps[channel]), size_hw)) for channel in channels]
    size = max(11, tile // 12)
    body = _grid(tiles, columns, size)
    bar = colour_bar(len(body), size, scale.colours, scale.ticks)
    body = np.concatenate([body, bar], axis=1)
    least = 520
    if body.shape[1] < least:
        body = np.concatenate([body, paper(len(body), least - body.shape[1])], axis=1)
    return np.concatenate([banner(lines, body.shape[1], size + 1), body])


def sheet(tiles: Sequence[tuple[str, Canvas]], lines: Sequence[Line], *, columns: int = 4) -> Canvas:
    """Titled pictures of any size side by side.

    Args:
        lines: what is written above.
    """
    height, width = (max(canvas.shape[axis] for _, canvas in tiles) for axis in (0, 1))
    framed = []
    for title, canvas in tiles:
        tile = paper(height, width)
        tile[: canvas.shape[0], : canvas.shape[1]] = canvas
        framed.append((title, tile))
    size = max(11, min(height, width) // 24)
    body = _grid(framed, columns, size)
    return np.concatenate([banner(lines, body.shape[1], size + 1), body])


def _resized(picture: Canvas, size_hw: tuple[int, int]) -> Canvas:
    """Cells as squares where it grows; averaged where it shrinks."""
    shrinks = size_hw[0] < picture.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size_hw[::-1], interpolation=how), dtype=np.uint8)


def _grid(tiles: Sequence[tuple[str, Canvas]], columns: int, size: int) -> Canvas:
    """Rows of tiles of one size with their titles above."""
    columns = min(columns, len(tiles))
    rows = [_row(tiles[start : start + columns], columns, size) for start in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _row(tiles: Sequence[tuple[str, Canvas]], columns: int, size: int) -> Canvas:
    """Tiles side by side with their titles above."""
    height, width = tiles[0][1].shape[:2]
    head, gap = line_height(size) + 4, 5
    strip = paper(head + height + gap, columns * (width + gap) + gap)
    for index, (title, canvas) in enumerate(tiles):
        x = gap + index * (width + gap)
        text, fitted = fit_text(printable(title), size, width)
        paint(strip, text_alpha(text, fitted), (x, 2), FAINT)
        strip[head : head + height, x : x + width] = canvas
    return strip
