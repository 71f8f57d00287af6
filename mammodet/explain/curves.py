"""Training curves of one or several runs, laid over each other. Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mammodet.errors import InputError, raise_faults
from mammodet.reporting.curves import _RC, COLOURS, INK, LINE_STYLES, MUTED, write_figures
from mammodet.reporting.report_training import read_history
from mammodet.reporting.text import printable

TABLE = "metrics.csv"
_TRAIN, _VALIDATION = "train", "val"
_NOT_DEFINED = -1  # of pycocotools' AP
_Rows = list[dict[str, float]]


def write_curves(runs: Sequence[Path], output: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Draw the curves of trainings into `curves.png` and `curves.svg`.

    Args:
        runs: folders with a `metrics.csv`, or such files.
        names: of the runs; none for what their paths differ in.
    Returns:
        the files' paths.
    Raises:
        InputError: no such table, an empty one, or not as many names as runs.
    """
    if names and len(names) != len(runs):
        raise InputError(f"--names: {len(names)} names for {len(runs)} runs; give one each")
    if len(set(names)) != len(names):
        raise InputError(f"--names {' '.join(names)}: expected different names")
    histories, faults = [], []
    for run in runs:
        try:
            histories.append(_history(Path(run)))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults, where="runs")
    named = dict(zip(names or run_names(runs), histories, strict=True))
    return write_figures(output, {"curves": curves_figure(named)})


def _history(run: Path) -> _Rows:
    path = run / TABLE if run.is_dir() else run
    try:
        rows = read_history(path)
    except FileNotFoundError:
        inside = sorted(other.parent.name for other in run.glob(f"*/{TABLE}"))
        hint = f"; it holds runs: {', '.join(inside[:6])}; name them, as {run}/*" if inside else ""
        raise InputError(f"{path}: no such file; expected the folder of a training{hint}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    rows = [row for row in rows if "epoch" in row]
    if not rows:
        raise InputError(f"{path}: holds no epoch; expected the {TABLE} of a training, with a column 'epoch'")
    return rows


def run_names(runs: Sequence[Path]) -> list[str]:
    """Short names: the last parts of the paths, as many as tell them apart; with numbers where nothing does."""
    paths = [Path(run).absolute() for run in runs]
    paths = [path.parent if path.name == TABLE else path for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]


def curves_figure(runs: dict[str, _Rows]) -> Figure:
    """Loss of training and validation, every other validation figure, and the learning rate, over epochs.

    Args:
        runs: name to rows, each column to number; rows may lack columns.
    """
    columns = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    losses = [name for name in columns if "loss" in name.split("/")[-1]]
    parts = list(dict.fromkeys(name.split("/")[-1] for name in losses))
    # With one question its loss is the whole loss.
    parts = [name for name in parts if name == "loss" or not _repeats(runs, name)]
    figures = [name for name in columns if name.startswith(f"{_VALIDATION}/") and name not in losses]
    rates = [name for name in columns if name.split("/")[-1].startswith("lr")]
    panels = [(name, [f"{_TRAIN}/{name}", f"{_VALIDATION}/{name}"]) for name in parts]
    panels += [(name, [name]) for name in figures] + [("learning rate", [name]) for name in rates[:1]]
    wide = min(len(panels), 4 if len(panels) > 6 else 3)
    deep = math.ceil(len(panels) / wide)
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


def _repeats(runs: dict[str, _Rows], name: str) -> bool:
    """Whether a part of the loss is the whole of it in every row."""
    pairs = [(row[f"{_TRAIN}/{name}"], row.get(f"{_TRAIN}/loss")) for rows in runs.values() for row in rows
             if f"{_TRAIN}/{name}" in row]  # fmt: skip
    return bool(pairs) and all(part == whole for part, whole in pairs)


def _draw_panel(axes: Axes, title: str, columns: Sequence[str], runs: dict[str, _Rows]) -> None:
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
            axes.plot(
                x, y, color=COLOURS[number % len(COLOURS)], linestyle=_line(column, columns, number),
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


def _line(column: str, columns: Sequence[str], number: int) -> str:
    """Dashed for training beside validation."""
    if len(columns) > 1:
        return "--" if column.startswith(_TRAIN) else "-"
    return _style(number)


def _draw_legend(figure: Figure, names: Sequence[str], subsets: set[str]) -> None:
    entries = [(COLOURS[number % len(COLOURS)], _style(number), name) for number, name in enumerate(names)]
    kinds = ((_VALIDATION, "-", "loss: validation"), (_TRAIN, "--", "loss: training"))
    entries += [(INK, line, text) for subset, line, text in kinds if subset in subsets]
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=1.7, label=printable(text))  # type: ignore[arg-type]
        for colour, line, text in entries
    ]
    longest = max(len(name) for name in names)
    columns = min(len(handles), 2 if longest > 30 else 4)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9)


def _style(number: int) -> str:
    """Beyond the colours, another kind of line."""
    return LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]
