"""The input channels that a config can name, side by side on the same images. Knows no torch."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from mammodet.config import ImageConfig
from mammodet.config.data import CHANNELS
from mammodet.data.images import read_image
from mammodet.data.inputs import Inputs
from mammodet.data.preprocess import prepare_image
from mammodet.errors import InputError
from mammodet.explain.images import tell_faults
from mammodet.files import write_bytes
from mammodet.records import ImageRecord
from mammodet.reporting.curves import _RC, COLOURS, INK, to_png
from mammodet.reporting.overlay import truth_words
from mammodet.reporting.text import printable

IMAGES_A_PAGE = 4
_BINS = 64
_SIDE, _HISTOGRAM = 2.1, 0.85  # inches


def write_filters(
    images: Inputs,
    output: Path,
    *,
    channels: Sequence[str] | None = None,
    size: int = 224,
    crop: Literal["breast", "none"] = "breast",
) -> list[Path]:
    """Draw each image through each channel, with the histogram of its values below it.

    Writes `filters_1.png`, `filters_2.png`, ..., four images each.

    Args:
        channels: None for all; at most eight.
        size: longest side in pixels, which the channels' kernels are measured in.
    Returns:
        the files' paths.
    Raises:
        InputError: unknown channels, a size out of range; or images that could not be read, after all others.
    """
    names = _checked(CHANNELS if channels is None else channels)
    if not 32 <= size <= 8192:
        raise InputError(f"--size {size}: expected 32 to 8192 pixels")
    config = ImageConfig.model_validate({"channels": list(names), "max_size": size, "crop": crop})
    rows: list[tuple[ImageRecord, NDArray[np.float32]]] = []
    faults: list[str] = []
    files: list[Path] = []
    records = images.dataset.images
    for number, record in enumerate(records):
        try:
            pixels = read_image(images.root / record.file_name)
            rows.append((record, prepare_image(pixels, config, record.breast_box_xyxy)[0]))
        except InputError as error:
            faults.append(str(error))
        if rows and (len(rows) == IMAGES_A_PAGE or number == len(records) - 1):
            files.append(output / f"filters_{len(files) + 1}.png")
            write_bytes(files[-1], to_png(filters_figure(rows, names), dpi=110))
            rows = []
    tell_faults(images, faults, output)
    return files


def _checked(channels: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(channels))
    for name in names:
        if name not in CHANNELS:
            near = difflib.get_close_matches(name, CHANNELS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"--channels: {name!r} is no channel{hint} Known are {', '.join(CHANNELS)}")
    return names


def filters_figure(rows: Sequence[tuple[ImageRecord, NDArray[np.float32]]], names: Sequence[str]) -> Figure:
    """One row an image of channels float (C, H, W) in [0, 1], one column a channel, histograms below images."""
    heights = [min(_SIDE * array.shape[1] / array.shape[2], 1.6 * _SIDE) for _, array in rows]
    size = max(_SIDE * len(names) + 0.9, 4.4), sum(heights) + (_HISTOGRAM + 0.5) * len(rows) + 0.4
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        ratios = [height + _HISTOGRAM + 0.5 for height in heights]
        parts: Any = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=ratios)
        for part, height, (record, array) in zip(parts[:, 0], heights, rows, strict=True):
            title = printable(f"{record.file_name}   {truth_words(record)}".strip())
            part.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left", color=INK)
            images, histograms = part.subplots(2, len(names), squeeze=False, height_ratios=(height, _HISTOGRAM))
            for axes, values, name in zip(images, array, names, strict=True):
                axes.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
                axes.set_title(name, fontsize=10)
                axes.set_axis_off()
            top = max(_draw_histogram(axes, values) for axes, values in zip(histograms, array, strict=True))
            for axes in histograms:
                axes.set_ylim(0.7 / array[0].size, max(2 * top, 1e-3))
                axes.tick_params(labelleft=axes is histograms[0])
            histograms[0].set_ylabel("pixels", fontsize=8)
            scale = ScalarMappable(Normalize(0, 1), "gray")
            part.colorbar(scale, ax=list(images), fraction=0.02, pad=0.01, ticks=[0, 0.5, 1], panchor=False)
    return figure


def _draw_histogram(axes: Axes, values: NDArray[np.float32]) -> float:
    """The share of pixels in each bin, on a logarithmic scale: most pixels are background. Gives the highest share."""
    counts, edges = np.histogram(values, bins=_BINS, range=(0, 1))
    shares = counts / values.size
    axes.stairs(shares, edges, fill=True, color=COLOURS[0])
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    return float(shares.max())
