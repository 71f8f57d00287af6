"""Tables as records, and as text, Markdown and CSV; how numbers are written. What is shown is made once, here.

A page renders the same tables (templates/report.html.j2).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mammodet.evaluation.results import Figure
from mammodet.files import csv_text

UNKNOWN = "\u2013"
VOID = "NOT A RESULT"
_ASCII = str.maketrans({UNKNOWN: "-", "\u2212": "-", "\u2264": "<="})  # for terminals that know few letters
_MARKDOWN = re.compile(r"([\\`*{}\[\]#|~!$]|(?<!\w)_|_(?!\w))")


class Shown(NamedTuple):
    """A value and its 95 % interval as text; the interval is empty where there is none."""

    value: str
    interval: str = ""
    cases: str = ""  #: the link to what was counted (`mammodet.reporting.case_links`), or empty


Cell = Figure | Shown | float | int | str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    corner: tuple[str, ...]  #: heads of the columns that name a row
    head: tuple[str, ...]  #: heads of the other columns
    #: names (as many as `corner`) and cells (as many as `head`).
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    title: str = ""  #: what stands above it; may be empty


def shown(cell: Cell) -> Shown:
    """A cell as text."""
    if isinstance(cell, Shown):
        return cell
    if isinstance(cell, str):
        return Shown(cell)
    return Shown(number(cell.value), interval(cell.ci95)) if isinstance(cell, Figure) else Shown(number(cell))


def number(value: float | None, *, sign: bool = False) -> str:
    """Three digits: `0.412`, `3.41`, `34.1`; whole numbers as they are; a dash for what is not known."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int):
        text = str(abs(value))
    else:
        size = abs(value)
        digits = 3 if size < 1.0005 else 2 if size < 9.995 else 1 if size < 99.95 else 0
        text = f"{size:.{digits}f}"
    if value < 0 and float(text):
        return f"\u2212{text}"
    return f"+{text}" if sign and float(text) else text


def interval(value: tuple[float, float] | None) -> str:
    """`0.41 to 0.52`; a third digit where two would hide the width; empty for None."""
    if value is None:
        return ""
    low, high = value
    digits = 3 if 0 < high - low < 0.02 else 2
    if max(abs(low), abs(high)) >= 9.995:
        digits = 1
    return " to ".join(f"{end:.{digits}f}".replace("-", "\u2212") for end in (low, high))


def p_value(value: float | None, resamples: int = 0) -> str:
    """`0.031`, `< 0.001`; `≤ 0.002` where so many resamples cannot tell less."""
    if resamples and value is not None and 0.001 <= value <= 2.002 / (resamples + 1):
        return f"\u2264 {number(value)}"
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def words(value: Any) -> str:
    """A fact as text."""
    return UNKNOWN if value is None else number(value) if isinstance(value, int | float) else str(value)


def to_text(table: Table) -> str:
    """For a screen: names to the left, numbers to the right, intervals in brackets."""
    head = [*table.corner, *table.head]
    rows = [[*names, *(_one_line(cell).translate(_ASCII) for cell in cells)] for names, cells in table.rows]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if place < len(table.corner) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"  {'   '.join(cells)}".rstrip()

    return "\n".join(([table.title] if table.title else []) + [line(row) for row in [head, *rows]])


def to_markdown(table: Table) -> list[str]:
    """Lines of a Markdown table, everything escaped."""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    rows = [[*names, *map(_one_line, cells)] for names, cells in table.rows]
    marks = ["---"] * len(table.corner) + ["---:"] * len(table.head)
    head = [escape(name) for name in (*table.corner, *table.head)]
    return [line(head), line(marks), *(line([escape(text) for text in row]) for row in rows)]


def to_csv(table: Table) -> str:
    """Numbers in full; None is an empty field."""
    rows = [[*names, *cells] for names, cells in table.rows]
    return csv_text([(*table.corner, *table.head), *rows]).encode("utf-8", "backslashreplace").decode()


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no markup, no HTML, no link."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"^(\d*)([-+.)])(?=\s|$)", r"\1\\\2", _MARKDOWN.sub(r"\\\1", line))  # no list inside a list
    return line.encode("utf-8", "backslashreplace").decode()


def _one_line(cell: Cell) -> str:
    value, between, _ = shown(cell)
    return f"{value} ({between})" if between else value
