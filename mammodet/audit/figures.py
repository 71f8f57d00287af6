"""Figures of an audit: counts as stacked bars, values as stacked histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammodet.reporting.curves import COLOURS, MUTED, _figure

#: What images and lesions count as has one colour in all figures.
KIND_COLOURS = {
    "malignant": COLOURS[1],
    "benign": COLOURS[0],
    "no lesion": COLOURS[2],
    "not known": COLOURS[7],
    "positive": COLOURS[1],
    "negative": COLOURS[2],
    "unknown": COLOURS[7],
}
_SPARE = (COLOURS[3], COLOURS[4], COLOURS[5], COLOURS[6])
LONGEST_NAME = 34


def bars_figure(title: str, table: Mapping[str, Mapping[str, int]], *, what: str, shares: bool = False) -> Figure:
    """Counts as lying stacked bars, with the counts written in.

    Args:
        table: row to column to count; rows from top to bottom, columns become colours.
        what: is counted: `images`, `lesions`.
        shares: bars of one length, as percentages.
    """
    columns = _ordered({column for row in table.values() for column in row})
    colours = _colours(columns)

    def draw(axes: Axes) -> None:
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
        totals = {row: sum(table[row].values()) for row in table}
        most = max(totals.values(), default=0) or 1
        left = np.zeros(len(table))
        for column in columns:
            counts = np.array([table[row].get(column, 0) for row in table], dtype=np.float64)
            scale = np.array([100 / max(totals[row], 1) if shares else 1.0 for row in table])
            widths = counts * scale
            axes.barh(range(len(table)), widths, left=left, height=0.68, color=colours[column], label=column)
            for y, (number, width, start) in enumerate(zip(counts, widths, left, strict=True)):
                if width > 0.055 * (100 if shares else most):
                    axes.text(
                        start + width / 2, y, f"{number:.0f}", ha="center", va="center", color="white", fontsize=9
                    )
            left += widths
        axes.set_yticks(range(len(table)), [_short(f"{row} ({totals[row]})") for row in table])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.set_xlabel(f"% of {what}" if shares else what)
        if not shares:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend(axes, columns)

    return _figure(draw, (6.4, 1.45 + 0.38 * len(table)))


def histogram_figure(
    title: str, values: Sequence[tuple[float, str]], *, x_label: str, what: str, log: bool = False, bins: int = 24
) -> Figure:
    """Values of several groups as a stacked histogram.

    Args:
        values: (value, group); groups become colours.
        what: is counted: `images`, `lesions`.
        log: bins that grow by a factor, on a logarithmic axis; the values are above 0.
    """
    groups = _ordered({group for _, group in values})
    colours = _colours(groups)

    def draw(axes: Axes) -> None:
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(what)
        numbers = np.array([value for value, _ in values], dtype=np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        if low == high:
            low, high = low * 0.9 - 1e-6, high * 1.1 + 1e-6
        edges = np.geomspace(max(low, 1e-6), high, bins + 1) if log else np.linspace(low, high, bins + 1)
        # Rounding must not leave the smallest or the largest value out.
        edges[0], edges[-1] = min(edges[0], numbers.min()), max(edges[-1], numbers.max())
        parts = [[value for value, group in values if group == name] for name in groups]
        axes.hist(parts, bins=edges.tolist(), stacked=True, color=[colours[name] for name in groups], label=groups)
        if log:
            axes.set_xscale("log")
            round_ones = (factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5))
            ticks = [tick for tick in round_ones if edges[0] <= tick <= edges[-1]] or [edges[0], edges[-1]]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.axvline(float(np.median(numbers)), color=MUTED, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"median {np.median(numbers):.3g}",
            (float(np.median(numbers)), 1),
            (4, -10),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8.5,
            color=MUTED,
        )
        _legend(axes, groups)

    return _figure(draw, (6.4, 3.6))


def _ordered(names: set[str]) -> list[str]:
    """Kinds first, then others by name, and last what is not known."""
    known = list(KIND_COLOURS)
    place = {name: known.index(name) if name in known else len(known) for name in names}
    return sorted(names, key=lambda name: (name in ("not known", "unknown"), place[name], name))


def _colours(names: Sequence[str]) -> dict[str, str]:
    spare = [name for name in names if name not in KIND_COLOURS]
    return {name: KIND_COLOURS.get(name) or _SPARE[spare.index(name) % len(_SPARE)] for name in names}


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Below the figure, unless there is one colour without a meaning."""
    if len(names) > 1 or any(name in KIND_COLOURS for name in names):
        axes.figure.legend(loc="outside lower center", ncols=max(min(len(names), 4), 1), handlelength=1.0)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
