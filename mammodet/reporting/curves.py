"""Curves as figures and as CSV, and figures as SVG or PNG. No window system, no global pyplot state."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mammodet.files import write_bytes, write_text
from mammodet.reporting.report_csv import curve_tables, file_stems, to_csv
from mammodet.reporting.report_values import (
    LEVELS,
    VOID,
    Model,
    by_level,
    entries,
    is_classifier,
    is_number,
    labels_of,
    models_of,
    section,
    short,
    void_reason,
)

# after Okabe & Ito, shifted so that each is seen on white and on black
COLOURS = ("#1F83C6", "#D55E00", "#009E73", "#CC79A7", "#A6761D", "#56B4E9", "#7A5195", "#888888")
LINE_STYLES = ("-", "--", "-.", ":")
INK = "#010203"  # a colour that nothing else has: in an SVG it becomes the text colour of the page around it
MUTED = "#8a8f98"
FPPI_RANGE = (0.05, 8.0)
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
    text = _svg(figure, transparent=True).replace(INK, "currentColor")
    return text[text.index("<svg") :]


def to_svg_file(figure: Figure) -> bytes:
    """A figure as an SVG file of its own, on white."""
    return _svg(figure, facecolor="white").encode("utf-8", "backslashreplace")


def _svg(figure: Figure, **options: Any) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_SVG_METADATA), **options)
    return buffer.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """A figure as PNG on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def froc_figure(models: Sequence[Model]) -> Figure:
    """Lesion sensitivity against false positives per image, logarithmic from 0.05 to 8, one line per model.

    Args:
        models: names, and mappings with `froc`: `curve` {fppi, sensitivity}, `band` {fppi, low, high} (the 95 %
            interval, shaded), `points` [{fppi, sensitivity}] (dots), `match`, `denominator`, `cpm`; each may be
            missing or None. Left of 0.05 a curve is drawn at 0.05.
    """
    found = [(name, section(model, "froc")) for name, model in models]
    first = next((froc for _, froc in found if froc), {})

    def draw(axes: Axes) -> None:
        axes.set_title(f"FROC, match {short(first['match'])}" if first.get("match") else "FROC")
        axes.set_xscale("log")
        axes.set_xlim(*FPPI_RANGE)
        axes.set_ylim(-0.02, 1.02)
        ticks = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "1/16" if value < 0.1 else f"{value:g}"))
        axes.set_xlabel(f"false positives per image ({first.get('denominator') or 'denominator not stated'})")
        axes.set_ylabel("lesion sensitivity")
        heights = [
            _draw_froc(axes, name if len(found) > 1 else "", froc, COLOURS[index % len(COLOURS)])
            for index, (name, froc) in enumerate(found)
        ]
        drawn = np.concatenate(heights) if heights else np.zeros(0)
        if len(drawn) == 0:
            _say(axes, "no curve: no lesions to find,\nor no detections to count")
            return
        if len(found) == 1 and len(_pairs(found[0][1].get("curve"), "fppi", "sensitivity")[0]) == 1:
            _say(axes, "a single operating point", at=0.06)
        _legend(axes, "upper left" if np.median(drawn) < 0.45 else "lower right")

    return _figure(draw)


def _draw_froc(axes: Axes, name: str, froc: Mapping[str, Any], colour: str) -> np.ndarray:
    """One model's curve, band and points; the heights that were drawn, so that the legend finds room."""
    low, high = FPPI_RANGE
    fppi, sensitivity = _pairs(froc.get("curve"), "fppi", "sensitivity")
    points = entries(froc, "points")
    dots_x, dots_y = _numbers([p.get("fppi") for p in points], [p.get("sensitivity") for p in points])
    figure = f"CPM {froc['cpm']:.3f}" if is_number(froc.get("cpm")) else "sensitivity"
    label: str | None = f"{short(name)}: {figure}" if name else figure
    band = section(froc, "band")
    x_low, y_low = _pairs(band, "fppi", "low")
    x_high, y_high = _pairs(band, "fppi", "high")
    if len(x_low) and np.array_equal(x_low, x_high):
        axes.fill_between(
            np.clip(x_low, low, None), y_low, y_high, step="post", color=colour, alpha=0.16, linewidth=0,
            label=None if name else "95 % interval",
        )  # fmt: skip
    if len(fppi) == 1:
        axes.plot(np.clip(fppi, low, high), sensitivity, "o", color=colour, markersize=7, label=label)
        label = None
    elif len(fppi):
        x = np.clip(fppi, low, None)
        if x.max() < high:  # no lower threshold is left: more false positives find nothing more
            axes.plot([x.max(), high], [sensitivity[np.argmax(x)]] * 2, ":", color=colour, linewidth=1.4)
        axes.plot(x, sensitivity, drawstyle="steps-post", color=colour, label=label)
        label = None
    if len(dots_x):
        dots_colour = colour if name else COLOURS[1]
        label = label if name else "reported points"
        axes.plot(dots_x, dots_y, "o", color=dots_colour, markersize=5.5 if not name else 4.5, label=label, zorder=3)
    for x_value, y_value in zip(dots_x, dots_y, strict=True) if not name else ():
        axes.annotate(
            f"{y_value:.2f}", (x_value, y_value), (6, -11), textcoords="offset points", fontsize=8.5, color=INK
        )
    return np.concatenate([sensitivity, dots_y])


def roc_figure(models: Sequence[Model], label: str = "tumor") -> Figure:
    """Sensitivity against 1 - specificity, one line per level and model.

    With one model each level has its colour; with several each model has, and each level its kind of line.

    Args:
        models: names, and mappings of `image`, `breast`, `patient` to {label: {roc: {fpr, tpr}, roc_auc, n_positive,
            n_negative}}; each may be missing or None.
        label: `tumor`, `malignant`, ...
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"ROC, {short(label)}")
        axes.set_xlabel("1 - specificity (part of negatives)")
        axes.set_ylabel("sensitivity (part of positives)")
        _unit_square(axes)
        axes.plot([0, 1], [0, 1], linestyle=":", color=MUTED, linewidth=1.2)
        _draw_levels(axes, models, label, ("roc", "fpr", "tpr"), "roc_auc", "AUC")

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def pr_figure(models: Sequence[Model], label: str = "tumor") -> Figure:
    """Precision against recall, one line per level and model, the prevalence dotted; arguments as `roc_figure`."""

    def draw(axes: Axes) -> None:
        axes.set_title(f"precision and recall, {short(label)}")
        axes.set_xlabel("recall (part of positives)")
        axes.set_ylabel("precision (part of those called positive)")
        _unit_square(axes)
        _draw_levels(axes, models, label, ("pr", "recall", "precision"), "pr_auc", "area")

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def reliability_figure(models: Sequence[Model], label: str = "tumor") -> Figure:
    """Share of positive cases against mean score, per bin of the score: on the diagonal, scores are probabilities.

    Larger dots are bins of more cases; calibrated scores are hollow and thinner. Arguments as `roc_figure`, with
    `reliability` {mean_score, share_positive, count}, `ece`, and `calibrated` of the same.
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"reliability, {short(label)}")
        axes.set_xlabel("mean score in the bin")
        axes.set_ylabel("share of positive cases in the bin")
        _unit_square(axes)
        axes.plot([0, 1], [0, 1], linestyle=":", color=MUTED, linewidth=1.2)
        drawn = False
        for name, level, figures in by_level(models, label):
            colour, line = _style_of(models, name, level)
            for scores, kind in ((figures, ""), (section(figures, "calibrated"), ", calibrated")):
                x, y, sizes = _bins(section(scores, "reliability"))
                if len(x) == 0:
                    continue
                drawn = True
                text = f"{_line_name(models, name, level)}{kind}"
                text += f": ECE {scores['ece']:.3f}" if is_number(scores.get("ece")) else ""
                axes.plot(x, y, linestyle=line, color=colour, label=text, linewidth=1.1 if kind else 1.8)
                axes.scatter(x, y, s=sizes, facecolors="none" if kind else colour, edgecolors=colour, zorder=3)
        if drawn:
            _legend(axes, "upper left")
        else:
            _say(axes, f"no reliability was measured for {short(label)}")

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def _bins(reliability: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean score, share of positives and dot size of the bins that hold cases."""
    columns = [reliability.get(name) or [] for name in ("mean_score", "share_positive", "count")]
    rows = [[_number(value) for value in row] for row in zip_longest(*columns)]
    good = np.array([row for row in rows if None not in row[:2]], dtype=np.float64).reshape(-1, 3)
    count = np.nan_to_num(good[:, 2], nan=1.0)
    return good[:, 0], good[:, 1], 16 + 60 * count / max(count.max(initial=1.0), 1.0)


def figures_of(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """All curves of the metrics by file name without suffix: `froc`, `roc_tumor`, `pr_tumor`, `reliability_tumor`.

    Without a detector there is no `froc`.
    """
    models = models_of(metrics)
    without_boxes = bool(models) and all(is_classifier(model) for _, model in models)
    figures = {} if without_boxes else {"froc": froc_figure(models)}
    for label, stem in file_stems(labels_of(models)).items():
        figures[f"roc_{stem}"] = roc_figure(models, label)
        figures[f"pr_{stem}"] = pr_figure(models, label)
        figures[f"reliability_{stem}"] = reliability_figure(models, label)
    return {name: stamped(figure, drawn_in(name, models)) for name, figure in figures.items()}


def drawn_in(name: str, models: Sequence[Model]) -> list[Model]:
    """The models that a figure of `figures_of` shows: those with boxes in `froc`, all in the others."""
    return [model for model in models if name != "froc" or not is_classifier(model[1])]


def stamped(figure: Figure, models: Sequence[Model]) -> Figure:
    """The figure, with NOT A RESULT across it where that holds of one of its models."""
    if any(void_reason(model) for _, model in models):
        figure.text(
            0.5, 0.5, VOID, rotation=28, ha="center", va="center", fontsize=30, fontweight="bold", color="#b3261e",
            alpha=0.45, zorder=10,
        )  # fmt: skip
    return figure


def write_curves(folder: Path, metrics: Mapping[str, Any]) -> list[Path]:
    """Write every curve as CSV, its numbers as they stand in the metrics, and every figure as SVG and PNG.

    CSV files, each with the model's name in the column `model`: `froc.csv` (fppi, sensitivity, threshold),
    `froc_band.csv` (fppi, low, high), and per level and label `roc_...`, `pr_...` and `reliability_...`, whose column
    `scores` is `as predicted` or `calibrated`. A curve that no model has is not written; an empty field is not known.

    Args:
        folder: made where it is missing.
        metrics: what `metrics.json` holds.
    Returns:
        the files' paths, in the order in which they were written.
    """
    folder = Path(folder)
    written = []
    for name, table in curve_tables(metrics).items():
        if table[1]:
            written.append(folder / f"{name}.csv")
            write_text(written[-1], to_csv(table))
    return written + write_figures(folder, figures_of(metrics))


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures, by file name without suffix, as SVG and PNG; the files' paths."""
    written = []
    for name, figure in figures.items():
        for suffix, content in ((".svg", to_svg_file(figure)), (".png", to_png(figure))):
            written.append(folder / f"{name}{suffix}")
            write_bytes(written[-1], content)
    return written


def _draw_levels(
    axes: Axes, models: Sequence[Model], label: str, curve: tuple[str, str, str], area: str, area_name: str
) -> None:
    drawn = False
    several = len(models) > 1
    prevalences: set[float] = set()
    for name, level, figures in by_level(models, label):
        x, y = _pairs(figures.get(curve[0]), curve[1], curve[2])
        if len(x) == 0:
            continue
        drawn = True
        colour, line = _style_of(models, name, level)
        value = figures.get(area)
        text = f"{_line_name(models, name, level)}: {area_name} "
        text += f"{value:.3f}" if is_number(value) else "not defined"
        positive, negative = _number(figures.get("n_positive")), _number(figures.get("n_negative"))
        if positive is not None and negative is not None:
            text += "" if several else f" ({positive:g} pos., {negative:g} neg.)"
            if area == "pr_auc" and positive + negative and positive / (positive + negative) not in prevalences:
                prevalences.add(positive / (positive + negative))
                ground = MUTED if several else colour
                axes.axhline(positive / (positive + negative), linestyle=":", color=ground, linewidth=1.2)
        style = {"marker": "o"} if len(x) == 1 else {"linestyle": line}
        axes.plot(x, y, color=colour, label=text, **style)  # type: ignore[arg-type]
    if drawn:
        _legend(axes, "lower right" if area == "roc_auc" else "lower left")
    else:
        _say(axes, f"no curve: {short(label)} needs cases\nof both kinds, with a score")


def _style_of(models: Sequence[Model], name: str, level: str) -> tuple[str, str]:
    """Colour and kind of line: colours tell models apart, or the levels of the only model."""
    style = LEVELS.index(level)
    names = [other for other, _ in models]
    return COLOURS[(names.index(name) if len(models) > 1 else style) % len(COLOURS)], LINE_STYLES[style]


def _line_name(models: Sequence[Model], name: str, level: str) -> str:
    return f"{short(name)}, {level}" if len(models) > 1 else level


def _legend_room(models: Sequence[Model], label: str) -> float:
    """Inches below the axes, where the legend has more lines than fit inside."""
    lines = sum(1 for _ in by_level(models, label))
    return 0.2 * lines if len(models) > 1 else 0.0


def _legend(axes: Axes, place: Literal["upper left", "lower left", "lower right"]) -> None:
    """Inside the axes; below them where it has many lines."""
    if len(axes.get_legend_handles_labels()[1]) > 4:
        axes.figure.legend(loc="outside lower center", fontsize=8.5)
    else:
        axes.legend(loc=place, fontsize=8.5)


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
