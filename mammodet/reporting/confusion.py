"""Confusion matrices as figures: which class is taken for which."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mammodet.evaluation.results import QuestionResult
from mammodet.reporting.case_links import SVG_CASES
from mammodet.reporting.curves import INK, MUTED, _figure, short

# One hue, from light to dark, so that it reads in grey and without red or green.
_BLUES = LinearSegmentedColormap.from_list("share of the row", ["#EEF4FA", "#9CC4E4", "#2F7FB8", "#0A3C66"])
_DARK, _LIGHT = "#10202E", "#FFFFFF"
_LIGHT_FROM = 0.62  # share of the row from which the ground is too dark for dark letters
_LONGEST_LEVEL_NAME = 5  # letters of a class that stand side by side below the columns
_OVERSIZE = 12  # classes from which cells no longer grow with their number


def confusion_figure(figures: QuestionResult, title: str, cases: Callable[[str, str], str] | None = None) -> Figure:
    """True classes as rows, predicted ones as columns; each cell with count, share of the row, and a link (`cases`).

    Rows of classes that the model does not know stand below a line. The diagonal is framed.
    """
    true, predicted, counts = figures.true_classes, figures.classes, figures.confusion

    def draw(axes: Axes) -> None:
        axes.set_title(title)
        links = [[cases(row, column) if cases else "" for column in predicted] for row in true]
        _draw_cells(axes, np.array(counts, dtype=np.float64), links)
        _draw_names(axes, true, predicted, counts)

    side = 0.78 if max(len(true), len(predicted)) <= _OVERSIZE else 0.5
    longest = max((len(short(name)) for name in [*true, *predicted]), default=0)
    wide = max(len(predicted), 2) * side + 1.6 + 0.075 * longest
    high = max(len(true), 2) * side + 1.2 + (0.06 * longest if longest > _LONGEST_LEVEL_NAME else 0)
    return _figure(draw, size=(max(wide, 4.2), high))


def _draw_cells(axes: Axes, counts: np.ndarray, links: Sequence[Sequence[str]]) -> None:
    whole = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, whole, out=np.zeros_like(counts), where=whole > 0)
    rows, columns = counts.shape
    axes.grid(visible=False)
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, shares, cmap=_BLUES, vmin=0, vmax=1,
        edgecolors=_LIGHT, linewidth=1.5,
    )  # fmt: skip
    most = max(rows, columns)
    size = 10.5 if most <= 8 else 9 if most <= _OVERSIZE else 7
    for row in range(rows):
        for column in range(columns):
            colour = _LIGHT if shares[row, column] >= _LIGHT_FROM else _DARK
            weight = "bold" if row == column else "normal"
            url = links[row][column] and SVG_CASES + links[row][column]
            axes.text(column, row - 0.14, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour,
                      fontsize=size, fontweight=weight, url=url)  # fmt: skip
            percent = _percent(shares[row, column]) if whole[row] else "\u2013"
            axes.text(column, row + 0.2, percent, ha="center", va="center", color=colour, fontsize=size - 2.5)
        if row < columns:
            axes.add_patch(Rectangle((row - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=_DARK, linewidth=1.4))
    if rows > columns:  # below, classes that the model does not know
        axes.axhline(columns - 0.5, color=INK, linewidth=1.6, linestyle="--")
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _draw_names(axes: Axes, true: Sequence[str], predicted: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    slanted = any(len(name) > _LONGEST_LEVEL_NAME for name in predicted)
    axes.set_xticks(
        range(len(predicted)), [short(name) for name in predicted], rotation=35 if slanted else 0,
        ha="right" if slanted else "center", rotation_mode="anchor" if slanted else "default",
    )  # fmt: skip
    known = set(predicted)
    axes.set_yticks(
        range(len(true)),
        [
            f"{short(name)}{'' if name in known else ', not known'}\n{sum(row)} images"
            for name, row in zip(true, counts, strict=True)
        ],
        fontsize=9,
    )
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.annotate(
        "count, and % of the row", (1, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", ha="right",
        va="bottom", fontsize=8, color=MUTED,
    )  # fmt: skip
