"""Curves of a training, from Lightning's `metrics.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mammodet.reporting.curves import _RC, COLOURS, LINE_STYLES, _say, to_svg


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of Lightning's `metrics.csv`: column to number, without blank, broken and non-finite cells."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = []
        for row in csv.DictReader(file):
            numbers = {name: _number(cell) for name, cell in row.items() if isinstance(name, str)}
            rows.append({name: value for name, value in numbers.items() if value is not None})
    return [row for row in rows if row]


def training_figure(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Losses, validation metrics and learning rate over the training steps, a panel each.

    Args:
        rows: of `read_history`, sparse: columns with `loss` are losses, `lr...` learning rates,
            other `val/...` metrics.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    axis = "step" if any("step" in row for row in rows) else "epoch"
    rates = [name for name in names if name.split("/")[-1].startswith(("lr", "learning_rate"))]
    losses = [name for name in names if "loss" in name and name not in rates]
    metrics = [name for name in names if name.startswith(("val", "test")) and name not in losses]
    panels = (("losses", losses), ("validation metrics", metrics), ("learning rate", rates))
    epochs = [int(row["epoch"]) for row in rows if "epoch" in row]
    x_label = "optimiser step" if axis == "step" else "epoch"
    if axis == "step" and epochs:
        x_label += f" (epochs 0 to {max(epochs)})" if max(epochs) else " (one epoch)"
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(11.5, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, columns) in zip(figure.subplots(1, 3), panels, strict=True):
            axes.set_title(title)
            axes.set_xlabel(x_label)
            drawn = [_draw_series(axes, rows, axis, name, index) for index, name in enumerate(columns)]
            if not any(drawn):
                _say(axes, f"no {title} in the log")
                continue
            axes.margins(y=0.08)
            if title == "losses":
                axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
            elif title == "validation metrics" and axes.get_ylim()[1] <= 1.3:
                axes.set_ylim(-0.02, 1.02)
            if title == "learning rate":
                axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
    return figure


def _draw_series(axes: Axes, rows: Sequence[Mapping[str, float]], axis: str, name: str, index: int) -> bool:
    pairs = [(row[axis], row[name]) for row in rows if axis in row and name in row]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    if "AP" in name:  # pycocotools writes -1 for "not defined"
        x, y = x[y >= 0], y[y >= 0]
    if len(x) == 0:
        return False
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    total = name.split("/")[-1] in ("loss", "loss_step", "loss_epoch", "loss_total", "total_loss")
    axes.plot(
        x, y, label=name, color=COLOURS[index % len(COLOURS)],
        linestyle=LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)],
        linewidth=2.4 if total else 1.4, marker="o" if len(x) <= 30 else None, markersize=3.5,
    )  # fmt: skip
    return True


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def training_section(history_csv: Path | None) -> dict[str, Any]:
    """The training curves as `figure`, or in `missing` why there are none."""
    if history_csv is None:
        return {"figure": None, "missing": "No training log was given."}
    try:
        rows = read_history(Path(history_csv))
    except OSError as error:
        return {"figure": None, "missing": f"The training log {history_csv} could not be read: {error.strerror}."}
    if not rows:
        return {"figure": None, "missing": f"The training log {history_csv} is empty."}
    return {"figure": Markup(to_svg(training_figure(rows))), "missing": ""}
