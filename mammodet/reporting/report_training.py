"""Curves of one or several trainings, from Lightning's `metrics.csv`."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mammodet.reporting.curves import _RC, COLOURS, INK, LINE_STYLES, MUTED, to_svg
from mammodet.reporting.text import printable

_TRAIN, _VALIDATION = "train", "val"
_NOT_DEFINED = -1  # of pycocotools' AP
Rows = list[dict[str, float]]


def read_history(path: Path) -> Rows:
    """Rows of Lightning's `metrics.csv`: column to number, without blank, broken and non-finite cells."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = []
        for row in csv.DictReader(file):
            numbers = {name: _number(cell) for name, cell in row.items() if isinstance(name, str)}
            rows.append({name: value for name, value in numbers.items() if value is not None})
    return [row for row in rows if row]


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def curves_figure(runs: dict[str, Rows]) -> Figure:
    """Losses, every other validation figure, and the learning rate of runs (`read_history` by name), over epochs."""
    columns = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    losses = [name for name in columns if "loss" in name.split("/")[-1]]
    parts = list(dict.fromkeys(name.split("/")[-1] for name in losses))
    # With one question its loss is the whole loss.
    parts = [name for name in parts if name == "loss" or not _repeats(runs, name)]
    figures = [name for name in columns if name.startswith(f"{_VALIDATION}/") and name not in losses]
    rates = [name for name in columns if name.split("/")[-1].startswith("lr")]
    panels = [(name, [f"{_TRAIN}/{name}", f"{_VALIDATION}/{name}"]) for name in parts]
    panels += [(name, [name]) for name in figures] + [("learning rate", [name]) for name in rates[:1]]
    wide = max(min(len(panels), 4 if len(panels) > 6 else 3), 1)
    deep = max(math.ceil(len(panels) / wide), 1)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.7 * wide + 0.2, 2.9 * deep + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(deep, wide, squeeze=False).ravel()
        for axes, (title, names) in zip(grid, panels, strict=False):
            _draw_panel(axes, title, names, runs)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _draw_legend(figure, list(runs), {name.split("/")[0] for name in losses})
    return figure


def _repeats(runs: dict[str, Rows], name: str) -> bool:
    """Whether a part of the loss is the whole of it in every row."""
    pairs = [(row[f"{_TRAIN}/{name}"], row.get(f"{_TRAIN}/loss")) for rows in runs.values() for row in rows
             if f"{_TRAIN}/{name}" in row]  # fmt: skip
    return bool(pairs) and all(part == whole for part, whole in pairs)


def _draw_panel(axes: Axes, title: str, columns: Sequence[str], runs: dict[str, Rows]) -> None:
    axes.set_title(printable(title), fontsize=min(11.5, 330 / max(len(title), 1)))
    axes.set_xlabel("epoch")
    values: list[float] = []
    for number, rows in enumerate(runs.values()):
        for column in columns:
            points = [(row["epoch"], row[column]) for row in rows if column in row]
            if "AP" in column:
                points = [(x, y) for x, y in points if y != _NOT_DEFINED]
            if not points:
                continue
            x, y = np.array(sorted(points)).T
            values += y.tolist()
            line = _style(number) if len(columns) == 1 else "--" if column.startswith(_TRAIN) else "-"
            axes.plot(
                x, y, color=COLOURS[number % len(COLOURS)], linestyle=line,
                linewidth=1.7, marker="o" if len(x) <= 25 else None, markersize=3.2,
            )  # fmt: skip
    axes.margins(y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title == "learning rate":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
        axes.set_ylim(bottom=0)
    elif values and "loss" not in title and min(values) >= 0 and max(values) <= 1:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.02), min(high, 1.02))
    if not values:
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _draw_legend(figure: Figure, names: Sequence[str], subsets: set[str]) -> None:
    entries = [(COLOURS[number % len(COLOURS)], _style(number), name) for number, name in enumerate(names) if name]
    kinds = ((_VALIDATION, "-", "loss: validation"), (_TRAIN, "--", "loss: training"))
    entries += [(INK, line, text) for subset, line, text in kinds if subset in subsets]
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=1.7, label=printable(text))  # type: ignore[arg-type]
        for colour, line, text in entries
    ]
    longest = max(map(len, names), default=0)
    columns = max(min(len(handles), 2 if longest > 30 else 4), 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9)


def _style(number: int) -> str:
    """Beyond the colours, another kind of line."""
    return LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]


def training_section(history_csv: Path | None) -> dict[str, Any]:
    """The training curves as `figure`, or in `missing` why there are none."""
    if history_csv is None:
        return {"figure": None, "missing": "No training log was given."}
    try:
        rows = read_history(Path(history_csv))
    except OSError as error:
        return {"figure": None, "missing": f"The training log {history_csv} could not be read: {error.strerror}."}
    rows = [row for row in rows if "epoch" in row]
    if not rows:
        return {"figure": None, "missing": f"The training log {history_csv} holds no epoch."}
    return {"figure": Markup(to_svg(curves_figure({"": rows}))), "missing": ""}
