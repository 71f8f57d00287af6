"""By how much the circles of the table are to be scaled: copies of mini-MIAS are passed on resized, cut and padded.

The table counts pixels of films of 1024x1024. Of a film of another square size nothing says whether it was resized or
cut; its masses do, if there are enough of them: they are brighter than their surround where the circles belong.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.mias.table import MASSES, FilmEntry
from mammodet.data.images import read_image, read_size_hw
from mammodet.errors import InputError
from mammodet.geometry import surround_contrast

TABLE_SIZE = 1024
_LEAST_MASSES, _LEAST_BRIGHTER = 6, 0.9


def find_scales(
    entries: Mapping[str, FilmEntry], files: Mapping[str, Path], told: int | None, usual: int | None, table: str
) -> tuple[dict[str, float], list[Quarantined], list[str]]:
    """What the circles of each film are multiplied by.

    Args:
        told: side of the films that the table was written for, as the user says; then other square films are resized.
        usual: the same where the user says nothing; None: the table was written for these films.
        table: its name, for messages.
    Returns:
        film to scale; films whose circles have no sure place; warnings.
    """
    side = told or usual
    if side is None:
        return dict.fromkeys(entries, 1.0), [], []
    scales: dict[str, float] = {}
    refused: list[Quarantined] = []
    squares: dict[str, int] = {}
    for name in entries:
        try:
            height, width = read_size_hw(files[name])
        except InputError:  # refused with its reason when its pixels are read
            height = width = side
        if height == width == side:
            scales[name] = 1.0
        elif height == width:
            squares[name] = height
        else:
            reason = f"is {height}x{width} (height x width); the circles of {table} fit films of {side}x{side} alone"
            refused.append(Quarantined(Reason.OTHER_SIZE, "image", name, reason))
    if not squares:
        return scales, refused, []
    fault = None if told else _why_not_resized({name: entries[name] for name in squares}, files, squares, side)
    if fault:
        for name, found in squares.items():
            reason = (
                f"is {found}x{found}, and the circles of {table} count pixels of {side}x{side}: {fault}; if the films "
                f"were resized, say --table-size {side}, if {table} was written for these, --table-size {found}"
            )
            refused.append(Quarantined(Reason.OTHER_SIZE, "image", name, reason))
        return scales, refused, [f"{len(squares)} films are not {side}x{side} and were left out: {fault}"]
    sizes = ", ".join(f"{count} of {found}x{found}" for found, count in sorted(Counter(squares.values()).items()))
    warning = f"films are resized copies ({sizes}): their circles were rescaled from {side}x{side}"
    scales |= {name: found / side for name, found in squares.items()}
    return {name: scales[name] for name in sorted(scales)}, refused, [warning]


def _why_not_resized(
    entries: Mapping[str, FilmEntry], files: Mapping[str, Path], squares: Mapping[str, int], side: int
) -> str | None:
    """What speaks against films of one other size being resized ones; None where their masses prove that they are."""
    sizes = sorted(set(squares.values()))
    if len(sizes) > 1:
        return f"the films have several sizes ({', '.join(map(str, sizes))})"
    found = sizes[0]
    scale, shift = found / side, (found - side) / 2
    lit: dict[str, list[float]] = {"resized": [], "cut or padded in the middle": [], "written for these films": []}
    for name, entry in entries.items():
        circles = [item.circle for item in entry.findings if item.circle is not None and item.kind in MASSES]
        if not circles:
            continue
        try:
            pixels = read_image(files[name])
        except InputError:
            continue
        for x, y, radius in circles:
            places = {
                "resized": ((x + 0.5) * scale, (y + 0.5) * scale, radius * scale),
                "cut or padded in the middle": (x + 0.5 + shift, y + 0.5 + shift, radius),
                "written for these films": (x + 0.5, y + 0.5, radius),
            }
            for what, (column, row, size) in places.items():
                lit[what].append(surround_contrast(pixels, (column, found - row), size))
    here = lit["resized"]
    if len(here) < _LEAST_MASSES:
        return f"{len(here)} masses are too few to prove that they were resized"
    brighter = sum(value > 0 for value in here)
    if brighter < _LEAST_BRIGHTER * len(here):
        return f"of {len(here)} masses only {brighter} are brighter than their surround if they were resized"
    best = max(lit, key=lambda what: sum(lit[what]))
    return None if best == "resized" else f"the masses fit better if they were {best}"
