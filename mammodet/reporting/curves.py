"""Curves as figures, and figures as SVG or PNG. No window system, no global pyplot state."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mammodet.evaluation.results import LEVELS, FrocSection, LabelResult, Level, ModelResult
from mammodet.files import write_bytes
from mammodet.reporting.report_tables import by_level
from mammodet.reporting.tables import VOID, number
from mammodet.reporting.text import printable

# after Okabe & Ito, shifted so that each is seen on white and on black
COLOURS = ("#1F83C6", "#D55E00", "#009E73", "#CC79A7", "#A6761D", "#56B4E9", "#7A5195", "#888888")
LINE_STYLES = ("-", "--", "-.", ":")
INK = "#010203"  # a colour that nothing else has: in an SVG it becomes the text colour of the page around it
MUTED = "#8a8f98"
FPPI_RANGE = (0.05, 8.0)
LONGEST_SHORT_NAME = 30
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
    """A figure as an `<svg>` element for a page: text in the page's colour, a clear ground."""
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


def froc_figure(models: Sequence[ModelResult]) -> Figure:
    """Lesion sensitivity against false positives per image, logarithmic from 0.05 to 8, one line per model.

    The 95 % interval is shaded, the reported points are dots. Left of 0.05 a curve is drawn at 0.05.
    """
    found = [(model.name, model.froc) for model in models if model.froc]

    def draw(axes: Axes) -> None:
        axes.set_title(f"FROC, match {found[0][1].match}" if found else "FROC")
        axes.set_xscale("log")
        axes.set_xlim(*FPPI_RANGE)
        axes.set_ylim(-0.02, 1.02)
        ticks = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "1/16" if value < 0.1 else f"{value:g}"))
        axes.set_xlabel(f"false positives per image ({found[0][1].denominator if found else 'none counted'})")
        axes.set_ylabel("lesion sensitivity")
        known = [(place, name, froc) for place, (name, froc) in enumerate(found) if froc.cpm.value is not None]
        for place, name, froc in known:
            _draw_froc(axes, name if len(found) > 1 else "", froc, COLOURS[place % len(COLOURS)])
        if not known:
            _say(axes, "no curve: no lesions to find,\nor no images to count on")
            return
        if len(found) == 1 and found[0][1].curve and len(found[0][1].curve.fppi) == 1:
            _say(axes, "a single operating point", at=0.06)
        heights = [height for _, _, froc in known if froc.curve for height in froc.curve.sensitivity]
        _legend(axes, "upper left" if np.median(heights or [1.0]) < 0.45 else "lower right")

    return _figure(draw)


def _draw_froc(axes: Axes, name: str, froc: FrocSection, colour: str) -> None:
    """One model's curve, band and points."""
    low, high = FPPI_RANGE
    figure = f"CPM {number(froc.cpm.value)}"
    label: str | None = f"{short(name)}: {figure}" if name else figure
    if froc.band:
        axes.fill_between(
            np.clip(froc.band.fppi, low, None), froc.band.low, froc.band.high, step="post", color=colour, alpha=0.16,
            linewidth=0, label=None if name else "95 % interval",
        )  # fmt: skip
    if froc.curve and len(froc.curve.fppi) == 1:
        axes.plot(
            np.clip(froc.curve.fppi, low, high), froc.curve.sensitivity, "o", color=colour, markersize=7, label=label
        )
    elif froc.curve:
        x, y = np.clip(froc.curve.fppi, low, None), froc.curve.sensitivity
        if x.max() < high:  # no lower threshold is left: more false positives find nothing more
            axes.plot([x.max(), high], [y[int(np.argmax(x))]] * 2, ":", color=colour, linewidth=1.4)
        axes.plot(x, y, drawstyle="steps-post", color=colour, label=label)
    points = [(point.fppi, point.sensitivity.value) for point in froc.points if point.sensitivity.value is not None]
    style = {"color": colour, "markersize": 4.5} if name else {"color": COLOURS[1], "markersize": 5.5}
    axes.plot(*zip(*points, strict=True), "o", label=None if name else "reported points", zorder=3, **style)  # type: ignore[arg-type]
    for point in () if name else points:
        axes.annotate(f"{point[1]:.2f}", point, (6, -11), textcoords="offset points", fontsize=8.5, color=INK)


def roc_figure(models: Sequence[ModelResult], label: str = "tumor") -> Figure:
    """Sensitivity against 1 - specificity, one line per level and model.

    With one model each level has its colour; with several each model has, and each level its kind of line.
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"ROC, {short(label)}")
        axes.set_xlabel("1 - specificity (part of negatives)")
        axes.set_ylabel("sensitivity (part of positives)")
        _unit_square(axes)
        axes.plot([0, 1], [0, 1], linestyle=":", color=MUTED, linewidth=1.2)
        lines = [
            (model, level, figures, figures.roc.fpr, figures.roc.tpr, f"AUC {number(figures.roc_auc.value)}")
            for model, level, figures in by_level(models, label)
            if figures.roc
        ]
        _draw_levels(axes, models, lines, label, "lower right")

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def pr_figure(models: Sequence[ModelResult], label: str = "tumor") -> Figure:
    """Precision against recall, one line per level and model, the prevalence dotted; lines as in `roc_figure`."""

    def draw(axes: Axes) -> None:
        axes.set_title(f"precision and recall, {short(label)}")
        axes.set_xlabel("recall (part of positives)")
        axes.set_ylabel("precision (part of those called positive)")
        _unit_square(axes)
        lines = [
            (model, level, figures, figures.pr.recall, figures.pr.precision, f"area {number(figures.pr_auc.value)}")
            for model, level, figures in by_level(models, label)
            if figures.pr
        ]
        _draw_levels(axes, models, lines, label, "lower left")
        shares: dict[float, str] = {}
        for model, level, figures, *_ in lines:
            share = figures.n_positive / (figures.n_positive + figures.n_negative)
            shares.setdefault(share, MUTED if len(models) > 1 else _style_of(models, model, level)[0])
        for share, colour in shares.items():
            axes.axhline(share, linestyle=":", color=colour, linewidth=1.2)

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def reliability_figure(models: Sequence[ModelResult], label: str = "tumor") -> Figure:
    """Share of positive cases against mean score, per bin of the score: on the diagonal, scores are probabilities.

    Larger dots are bins of more cases; calibrated scores are hollow and thinner. Lines as in `roc_figure`.
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"reliability, {short(label)}")
        axes.set_xlabel("mean score in the bin")
        axes.set_ylabel("share of positive cases in the bin")
        _unit_square(axes)
        axes.plot([0, 1], [0, 1], linestyle=":", color=MUTED, linewidth=1.2)
        for model, level, figures in by_level(models, label):
            colour, line = _style_of(models, model, level)
            for scores, kind in ((figures, ""), (figures.calibrated, ", calibrated")):
                if scores is None:
                    continue
                bins = scores.reliability
                rows = [row for row in zip(bins.mean_score, bins.share_positive, bins.count, strict=True) if row[2]]
                x, y, count = np.array(rows, dtype=np.float64).reshape(-1, 3).T
                text = f"{_line_name(models, model, level)}{kind}: ECE {number(scores.ece.value)}"
                axes.plot(x, y, linestyle=line, color=colour, label=text, linewidth=1.1 if kind else 1.8)
                sizes = 16 + 60 * count / max(count.max(initial=1.0), 1.0)
                axes.scatter(x, y, s=sizes, facecolors="none" if kind else colour, edgecolors=colour, zorder=3)
        _legend(axes, "upper left")

    return _figure(draw, size=(5.2, 4.4 + _legend_room(models, label)))


def stamped(figure: Figure, models: Sequence[ModelResult]) -> Figure:
    """The figure, with NOT A RESULT across it where that holds of one of its models."""
    if any(model.not_a_result for model in models):
        figure.text(
            0.5, 0.5, VOID, rotation=28, ha="center", va="center", fontsize=30, fontweight="bold", color="#b3261e",
            alpha=0.45, zorder=10,
        )  # fmt: skip
    return figure


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures, by file name without suffix, as SVG and PNG; the files' paths."""
    written = []
    for name, figure in figures.items():
        for suffix, content in ((".svg", to_svg_file(figure)), (".png", to_png(figure))):
            written.append(folder / f"{name}{suffix}")
            write_bytes(written[-1], content)
    return written


def _draw_levels(
    axes: Axes,
    models: Sequence[ModelResult],
    lines: Sequence[tuple[ModelResult, Level, LabelResult, list[float], list[float], str]],
    label: str,
    legend: Literal["lower left", "lower right"],
) -> None:
    for model, level, figures, x, y, area in lines:
        colour, line = _style_of(models, model, level)
        counts = "" if len(models) > 1 else f" ({figures.n_positive} pos., {figures.n_negative} neg.)"
        axes.plot(
            x, y, color=colour, label=f"{_line_name(models, model, level)}: {area}{counts}", linestyle=line,
            marker="o" if len(x) == 1 else None,
        )  # fmt: skip
    if lines:
        _legend(axes, legend)
    else:
        _say(axes, f"no curve: {short(label)} needs cases\nof both kinds, with a score")


def _style_of(models: Sequence[ModelResult], model: ModelResult, level: Level) -> tuple[str, str]:
    """Colour and kind of line: colours tell models apart, or the levels of the only model."""
    style = LEVELS.index(level)
    place = [one.name for one in models].index(model.name)
    return COLOURS[(place if len(models) > 1 else style) % len(COLOURS)], LINE_STYLES[style]


def _line_name(models: Sequence[ModelResult], model: ModelResult, level: Level) -> str:
    return f"{short(model.name)}, {level}" if len(models) > 1 else level


def _legend_room(models: Sequence[ModelResult], label: str) -> float:
    """Inches below the axes, where the legend has more lines than fit inside."""
    lines = sum(1 for _ in by_level(models, label))
    return 0.2 * lines if len(models) > 1 else 0.0


def short(name: str) -> str:
    """A name for a figure's legend: one line, without characters that its font lacks."""
    line = printable(" ".join(str(name).split()))
    return line if len(line) <= LONGEST_SHORT_NAME else line[: LONGEST_SHORT_NAME - 1] + "\u2026"


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
