"""Pictures of heat maps and feature maps. Arrays and records in, uint8 RGB out; knows no torch.

Colours are perceptually uniform maps that every common kind of colour vision tells apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mammodet.records import ImageRecord
from mammodet.reporting.canvas import PAPER, Canvas, Line, View, banner, draw_box, draw_outline, paint, paper, titled
from mammodet.reporting.curves import _RC
from mammodet.reporting.overlay import FAINT, TITLE, TRUTH, OverlayOptions, draw_truth, font_size, line_width
from mammodet.reporting.text import line_height, printable, text_alpha, text_width

HEAT_COLOURS, MAP_COLOURS, SIGNED_COLOURS = "inferno", "viridis", "RdBu_r"
STRONGEST = 0.72  # how much a heat map covers the image where it is 1
_BAR_GREY = 0.35


@dataclass(frozen=True, slots=True)
class HeatPanel:
    """One heat map beside others."""

    heat: NDArray[np.float32]  #: float (height, width) in native pixels, in [0, 1]
    title: str  #: of the panel
    note: str = ""  #: below the title
    peak_xy: tuple[float, float] | None = None  #: marked by a cross; None for none


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
    bar = heat_bar(view.size_hw[0], size)
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


def heat_bar(height: int, size_px: int) -> Canvas:
    """The scale of heat over grey, 1 at the top: a strip `height` pixels high, with letters of `size_px`."""
    bar_width, pad, ticks = max(10, size_px), max(3, size_px // 2), ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
    margin = line_height(size_px) // 2 + 1
    inner = max(height - 2 * margin, 2)
    strip = paper(height, 3 * pad + bar_width + max(text_width(text, size_px) for _, text in ticks))
    values = np.repeat(np.linspace(1, 0, inner, dtype=np.float32)[:, None], bar_width, axis=1)
    grey = np.full((*values.shape, 3), round(255 * _BAR_GREY), dtype=np.uint8)
    strip[margin : margin + inner, pad : pad + bar_width] = blend(grey, values)[: height - margin]
    for place, text in ticks:
        row = margin + round((1 - place) * (inner - 1))
        strip[row : row + 1, pad + bar_width : pad + bar_width + pad // 2] = TITLE
        paint(strip, text_alpha(text, size_px), (2 * pad + bar_width, row - line_height(size_px) // 2), TITLE)
    return strip


def scale_of(maps: NDArray[np.float32]) -> ScalarMappable:
    """The colours of a layer's channels (C, h, w): one scale for all, of which 99.5 in 100 values lie inside.

    Two colours that meet at 0 where some are negative.
    """
    if float(maps.min()) < 0:
        high = float(np.quantile(np.abs(maps), 0.995)) or float(np.abs(maps).max())
        return ScalarMappable(Normalize(-high, high), SIGNED_COLOURS)
    return ScalarMappable(Normalize(0, float(np.quantile(maps, 0.995)) or float(maps.max()) or 1.0), MAP_COLOURS)


def feature_figure(
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: Sequence[int],
    lines: Sequence[str],
    *,
    columns: int = 8,
) -> Figure:
    """The network's input, the mean over all channels, and some channels of a layer, on one scale.

    Args:
        image: float (H, W) in [0, 1], the input's first channel.
        maps: float (C, h, w), all channels of the layer.
        channels: positions of those that are shown.
        lines: what is written above.
    """
    tiles = [("input", image, "gray", (0.0, 1.0)), ("mean of all", maps.mean(axis=0), "", ())]
    tiles += [(f"{channel}", maps[channel], "", ()) for channel in channels]
    scale, rows = scale_of(maps), -(-len(tiles) // columns)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(1.5 * columns + 1, 1.7 * rows + 1.2), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("\n".join(map(printable, lines)), fontsize=9, x=0.01, ha="left")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for axes, (title, values, colours, limits) in zip(grid.ravel(), tiles, strict=False):
            low, high = limits or scale.get_clim()
            axes.imshow(values, cmap=colours or scale.get_cmap(), vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(title, fontsize=8)
        figure.colorbar(scale, ax=grid, fraction=0.02, pad=0.01)
    return figure


def sheet(tiles: Sequence[tuple[str, Canvas]], lines: Sequence[Line], *, columns: int = 4) -> Canvas:
    """Titled pictures of any size side by side, below the given lines."""
    height, width = (max(canvas.shape[axis] for _, canvas in tiles) for axis in (0, 1))
    framed = []
    for title, canvas in tiles:
        tile = paper(height, width)
        tile[: canvas.shape[0], : canvas.shape[1]] = canvas
        framed.append(([Line(title, FAINT)], tile))
    size = max(11, min(height, width) // 24)
    columns = min(columns, len(framed))
    rows = [titled(framed[start : start + columns], size, 5) for start in range(0, len(framed), columns)]
    rest = paper(len(rows[-1]), rows[0].shape[1] - rows[-1].shape[1])
    rows[-1] = np.concatenate([rows[-1], rest], axis=1)
    return np.concatenate([banner(lines, rows[0].shape[1], size + 1), *rows])
