"""Curves as figures, and figures as SVG or PNG. No window system, no global pyplot state."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# after Okabe & Ito, shifted so that each is seen on white and on black
COLOURS = ("#1F83C6", "#D55E00", "#009E73", "#CC79A7", "#A6761D", "#56B4E9", "#7A5195", "#888888")
LINE_STYLES = ("-", "--", "-.", ":")
INK = "#010203"  # a colour that nothing else has: in an SVG it becomes the text colour of the page around it
MUTED = "#8a8f98"
FPPI_RANGE = (0.05, 8.0)
LEVELS = ("image", "breast", "patient")
_SVG_METADATA = ("Date", "Creator", "Format", "Type")  # no time, no version: equal figures are equal text
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mammodet",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.facecolor": "none",
    "grid.color": MUTED,
    "grid.alpha": 0.28,
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def to_svg(figure: Figure) -> str:
    """A figure as an `<svg>` element to stand in a page: text in the page's colour, a clear ground."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_SVG_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """A figure as PNG on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def froc_figure(froc: Mapping[str, Any] | None) -> Figure:
    """Lesion sensitivity against false positives per image, logarithmic from 0.05 to 8.

    Args:
        froc: `curve` {fppi, sensitivity}, `points` [{fppi, sensitivity}] (drawn as dots), `match`,
            `denominator`, `cpm`; each may be missing or None. Left of 0.05 the curve is drawn at 0.05.
    """
    froc = froc or {}
    denominator = froc.get("denominator") or "denominator not stated"

    def draw(axes: Axes) -> None:
        axes.set_title(f"FROC{_suffix(froc.get('match'), ', match ')}")
        axes.set_xscale("log")
        axes.set_xlim(*FPPI_RANGE)
        axes.set_ylim(-0.02, 1.02)
        ticks = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "1/16" if value < 0.1 else f"{value:g}"))
        axes.set_xlabel(f"false positives per image ({denominator})")
        axes.set_ylabel("lesion sensitivity")
        fppi, sensitivity = _pairs(froc.get("curve"), "fppi", "sensitivity")
        low, high = FPPI_RANGE
        points = [point for point in froc.get("points") or [] if isinstance(point, Mapping)]
        dots_x, dots_y = _numbers([p.get("fppi") for p in points], [p.get("sensitivity") for p in points])
        if len(fppi) == 0 and len(dots_x) == 0:
            _say(axes, "no curve: no lesions to find,\nor no detections to count")
            return
        label = f"CPM {froc['cpm']:.3f}" if _is_number(froc.get("cpm")) else "sensitivity"
        if len(fppi) == 1:
            axes.plot(np.clip(fppi, low, high), sensitivity, "o", color=COLOURS[0], markersize=7, label=label)
            _say(axes, "a single operating point", at=0.06)
        elif len(fppi):
            x = np.clip(fppi, low, None)
            if x.max() < high:  # no lower threshold is left: more false positives find nothing more
                axes.plot([x.max(), high], [sensitivity[np.argmax(x)]] * 2, ":", color=COLOURS[0], linewidth=1.4)
            axes.plot(x, sensitivity, drawstyle="steps-post", color=COLOURS[0], label=label)
        axes.plot(dots_x, dots_y, "o", color=COLOURS[1], markersize=5.5, label="reported points", zorder=3)
        for x_value, y_value in zip(dots_x, dots_y, strict=True):
            axes.annotate(
                f"{y_value:.2f}",
                (x_value, y_value),
                (6, -11),
                textcoords="offset points",
                fontsize=8.5,
                color=INK,
            )
        axes.legend(loc="upper left" if np.median([*sensitivity, *dots_y]) < 0.45 else "lower right")

    return _figure(draw)


def roc_figure(levels: Mapping[str, Any] | None, label: str = "tumor") -> Figure:
    """Sensitivity against 1 - specificity, one line per level.

    Args:
        levels: `image`, `breast`, `patient` to {label: {roc: {fpr, tpr}, roc_auc, n_positive, n_negative}};
            other keys are passed over, so that the whole metrics mapping may come.
        label: `tumor`, `malignant`, ...
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"ROC, {label}")
        axes.set_xlabel("1 - specificity (part of negatives)")
        axes.set_ylabel("sensitivity (part of positives)")
        _unit_square(axes)
        axes.plot([0, 1], [0, 1], linestyle=":", color=MUTED, linewidth=1.2)
        _draw_levels(axes, levels, label, ("roc", "fpr", "tpr"), "roc_auc", "AUC")

    return _figure(draw, size=(5.2, 4.4))


def pr_figure(levels: Mapping[str, Any] | None, label: str = "tumor") -> Figure:
    """Precision against recall, one line per level, the prevalence dotted; arguments as `roc_figure`."""

    def draw(axes: Axes) -> None:
        axes.set_title(f"precision and recall, {label}")
        axes.set_xlabel("recall (part of positives)")
        axes.set_ylabel("precision (part of those called positive)")
        _unit_square(axes)
        _draw_levels(axes, levels, label, ("pr", "recall", "precision"), "pr_auc", "area")

    return _figure(draw, size=(5.2, 4.4))


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of Lightning's `metrics.csv`: column to number, without blank, broken and non-finite cells."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = []
        for row in csv.DictReader(file):
            numbers = {name: _number(cell) for name, cell in row.items() if isinstance(name, str)}
            rows.append({name: value for name, value in numbers.items() if value is not None})
    return [row for row in rows if row]


def training_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, validation metrics and learning rate over the training steps, a panel each.

    Args:
        rows: of `read_history`, sparse: columns with `loss` are losses, `lr...` learning rates,
            other `val/...` metrics.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str)))
    axis = "step" if any(_is_number(row.get("step")) for row in rows) else "epoch"
    rates = [name for name in names if name.split("/")[-1].startswith(("lr", "learning_rate"))]
    losses = [name for name in names if "loss" in name and name not in rates]
    metrics = [name for name in names if name.startswith(("val", "test")) and name not in losses]
    panels = (("losses", losses), ("validation metrics", metrics), ("learning rate", rates))
    epochs = [int(row["epoch"]) for row in rows if _is_number(row.get("epoch"))]
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


def _draw_series(axes: Axes, rows: Sequence[Mapping[str, Any]], axis: str, name: str, index: int) -> bool:
    pairs = [(row.get(axis), row.get(name)) for row in rows]
    x, y = _numbers([pair[0] for pair in pairs], [pair[1] for pair in pairs])
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


def _draw_levels(
    axes: Axes,
    levels: Mapping[str, Any] | None,
    label: str,
    curve: tuple[str, str, str],
    area: str,
    area_name: str,
) -> None:
    drawn = False
    for index, level in enumerate(LEVELS):
        section = ((levels or {}).get(level) or {}).get(label) or {}
        x, y = _pairs(section.get(curve[0]), curve[1], curve[2])
        if len(x) == 0:
            continue
        drawn = True
        value = section.get(area)
        positive, negative = _number(section.get("n_positive")), _number(section.get("n_negative"))
        text = f"{level}: {area_name} {value:.3f}" if _is_number(value) else f"{level}: {area_name} not defined"
        if positive is not None and negative is not None:
            text += f" ({positive:g} pos., {negative:g} neg.)"
            if area == "pr_auc" and positive + negative:
                prevalence = positive / (positive + negative)
                axes.axhline(prevalence, linestyle=":", color=COLOURS[index], linewidth=1.2)
        style = {"marker": "o"} if len(x) == 1 else {"linestyle": LINE_STYLES[index]}
        axes.plot(x, y, color=COLOURS[index], label=text, **style)  # type: ignore[arg-type]
    if drawn:
        axes.legend(loc="lower right" if area == "roc_auc" else "lower left", fontsize=8.5)
    else:
        _say(axes, f"no curve: {label} needs images\nof both kinds, with a score")


def _figure(draw: Callable[[Axes], None], size: tuple[float, float] = (6.4, 4.4)) -> Figure:
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
    return figure


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def _say(axes: Axes, text: str, *, at: float = 0.5) -> None:
    axes.text(0.5, at, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=11)


def _suffix(value: Any, before: str) -> str:
    return f"{before}{value}" if value else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _numbers(first: Sequence[Any], second: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Those pairs of two sequences in which both are finite numbers, as float (n,) and (n,)."""
    pairs = [(_number(a), _number(b)) for a, b in zip(first, second, strict=False)]
    good = [(a, b) for a, b in pairs if a is not None and b is not None]
    array = np.array(good, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _pairs(curve: Any, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(curve, Mapping):
        return np.zeros(0), np.zeros(0)
    return _numbers(curve.get(x) or [], curve.get(y) or [])
