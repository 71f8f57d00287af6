"""From stored to shown values by the file's own tables: modality (PS3.3 C.11.1), then values of interest (C.11.2).

All of it is done once per possible stored value, never per pixel: at most 65536 entries in double precision.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from mammodet.data.dicom import tags
from mammodet.data.dicom.codec import StoredFormat
from mammodet.errors import InputError

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """One of the views of the image that its maker proposes."""

    function: str  #: `LUT` for a table, else LINEAR, LINEAR_EXACT, SIGMOID, or what the file says instead
    #: center, width: in units of the modality's output; None for a table, NaN where unreadable or missing.
    center: float | None = None
    width: float | None = None
    explanation: str | None = None  #: the maker's name for it, such as `NORMAL` or `HARDER`


def windows(dataset: Dataset) -> tuple[Window, ...]:
    """What the file proposes, tables first, then centres and widths; as it stands, even where it is nonsense."""
    tables = [
        Window("LUT", explanation=tags.text(item, "LUTExplanation")) for item in tags.items(dataset, "VOILUTSequence")
    ]
    centers, widths = tags.numbers(dataset, "WindowCenter"), tags.numbers(dataset, "WindowWidth")
    names = (tags.text(dataset, "WindowCenterWidthExplanation") or "").split("\\")
    function = (tags.text(dataset, "VOILUTFunction") or "LINEAR").upper()

    def at(values: list[float], number: int) -> float:
        return values[number] if number < len(values) else math.nan

    return (
        *tables,
        *(
            Window(function, at(centers, n), at(widths, n), (names[n].strip() or None) if n < len(names) else None)
            for n in range(max(len(centers), len(widths)))
        ),
    )


def value_table(path: Path, dataset: Dataset, stored: StoredFormat, window: int | None) -> NDArray[Any]:
    """What each stored value is shown as, for the stored values from `stored.lowest` to `stored.highest`.

    Returns:
        uint8 (2**bits,) where at most 8 bits are stored and neither a modality step nor a window was applied,
        else uint16; MONOCHROME1 is inverted, and padding is 0.
    Raises:
        InputError: there is no such window, or a table, window, rescaling or padding is nonsense.
    """
    values = np.arange(stored.lowest, stored.highest + 1, dtype=np.float64)
    values, low, high, same = _modality(path, dataset, values)
    proposed = windows(dataset)
    if window is not None and (proposed or window != 0):
        if not 0 <= window < len(proposed):
            raise InputError(
                f"{path}: has no window {window}; it has {len(proposed)}, counted from 0. Choose one of them, or None "
                "for no window."
            )
        values, same = _voi(path, dataset, values, window, proposed), False
    else:
        values = (values - low) / (high - low)
    if stored.photometric == "MONOCHROME1":
        values = 1 - values
    kind = np.uint8 if same and stored.bits_stored <= 8 else np.uint16
    table = np.floor(values * np.iinfo(kind).max + 0.5).astype(kind)
    table[_padded(path, dataset, stored)] = 0
    return table


def _padded(path: Path, dataset: Dataset, stored: StoredFormat) -> slice:
    """Which entries of a table are padding: Pixel Padding Value, or all up to the Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = _stored_value(path, dataset, "PixelPaddingValue", stored)
    if value is None:
        return slice(0)
    limit = _stored_value(path, dataset, "PixelPaddingRangeLimit", stored)
    ends = sorted((value, value if limit is None else limit))
    first, last = max(ends[0], stored.lowest), min(ends[1], stored.highest)
    if (first, last) == (stored.lowest, stored.highest):
        raise InputError(f"{path}: its padding covers all values from {first} to {last}; nothing is left to show")
    return slice(first - stored.lowest, max(last + 1 - stored.lowest, 0))


def _stored_value(path: Path, dataset: Dataset, keyword: str, stored: StoredFormat) -> int | None:
    """A value in the encoding of the pixels: the element's own kind, US or SS, is often the wrong one."""
    raw = tags.raw_bytes(dataset, keyword)
    if not raw:
        return None
    if len(raw) != 2:
        raise InputError(f"{path}: {keyword} is {tags.shown(dataset, keyword)!r}; expected one value of 16 bits")
    return int(struct.unpack(_order(dataset, keyword) + ("h" if stored.signed else "H"), raw)[0])


def _modality(path: Path, dataset: Dataset, values: Values) -> tuple[Values, float, float, bool]:
    """Values after the modality step, the range they can take, and whether the step changed nothing."""
    sequence = tags.items(dataset, "ModalityLUTSequence")
    if sequence:
        entries, first, bits = _read_table(path, sequence[0], "Modality LUT", values[0], values[-1])
        return _look_up(entries, first, values), 0, float(2**bits - 1), False
    slope, intercept = (_rescale(path, dataset, name, lack) for name, lack in (("Slope", 1.0), ("Intercept", 0.0)))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * slope + intercept
        spread = scaled.max() - scaled.min()
    if not (np.isfinite(spread) and spread > 0):
        raise InputError(
            f"{path}: Rescale Slope {slope:g} and Intercept {intercept:g} leave no values to show; expected a finite "
            "slope other than 0"
        )
    return scaled, float(scaled.min()), float(scaled.max()), slope == 1 and intercept == 0


def _rescale(path: Path, dataset: Dataset, name: str, lack: float) -> float:
    found = tags.numbers(dataset, f"Rescale{name}") or [lack]
    if len(found) != 1 or not math.isfinite(found[0]):
        raise InputError(f"{path}: Rescale {name} is {tags.shown(dataset, f'Rescale{name}')!r}; expected one number")
    return found[0]


def _voi(path: Path, dataset: Dataset, values: Values, number: int, proposed: tuple[Window, ...]) -> Values:
    """Values on [0, 1] of a window's output range."""
    chosen = proposed[number]
    if chosen.function == "LUT":
        item = tags.items(dataset, "VOILUTSequence")[number]
        entries, first, bits = _read_table(path, item, f"VOI LUT {number}", values.min(), values.max())
        return _look_up(entries, first, np.rint(values)) / (2**bits - 1)
    center, width = chosen.center, chosen.width
    least = 1 if chosen.function == "LINEAR" else 0
    good = center is not None and width is not None and math.isfinite(center) and math.isfinite(width)
    if not good or center is None or width is None or width < least or width == 0:
        raise InputError(
            f"{path}: window {number} of {len(proposed)} has center {center} and width {width}; expected finite "
            f"numbers and a width {'of at least 1' if least else 'above 0'} for {chosen.function} (PS3.3 C.11.2.1). "
            "Choose another window, or None."
        )
    return apply_window(path, values, chosen.function, center, width)


def apply_window(path: Path, values: Values, function: str, center: float, width: float) -> Values:
    """A window's output on [0, 1], by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Args:
        values: after the modality step.
        function: LINEAR, whose width counts whole values, so that a width of 1 is a threshold; LINEAR_EXACT, whose
            width is a distance; or SIGMOID.
        path: for the message of the `InputError` that tells of any other function.
    """
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp runs into infinity, and 1 / infinity is the right 0
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise InputError(f"{path}: VOI LUT Function is {function[:40]!r}; expected LINEAR, LINEAR_EXACT or SIGMOID")
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    with np.errstate(over="ignore"):  # a width next to nothing is a threshold
        return np.clip((values - center) / width + 0.5, 0, 1)


def _look_up(entries: Values, first: int, values: Values) -> Values:
    """Entries of values; what lies before the first or behind the last entry has that entry (C.11.1.1.1)."""
    return entries[np.clip(values - first, 0, len(entries) - 1).astype(np.intp)]


def _read_table(path: Path, item: Dataset, name: str, low: float, high: float) -> tuple[Values, int, int]:
    """Entries (n,), the value of the first, whose sign the range looked up tells, and bits per entry."""
    descriptor, order = tags.raw_bytes(item, "LUTDescriptor"), _order(item)
    if descriptor is None or len(descriptor) != 6:
        raise InputError(f"{path}: the descriptor of {name} is missing or damaged; expected three numbers")
    count, first, bits = struct.unpack(f"{order}3H", descriptor)
    count = count or 65536
    # Unsigned or signed as the values are: the element's own kind is missing in half of the encodings, wrong in others.
    if first > 32767 and (low < 0 or first > high):
        first -= 65536
    data = tags.raw_bytes(item, "LUTData") or b""
    if not 8 <= bits <= 16:
        raise InputError(f"{path}: {name} states {bits} bits per entry; expected 8 to 16")
    if len(data) >= 2 * count:
        entries = np.frombuffer(data, f"{order}u2", count)
    elif bits == 8 and len(data) in (count, count + 1) and order == "<":
        entries = np.frombuffer(data, np.uint8, count)
    else:
        raise InputError(f"{path}: {name} holds {len(data)} bytes; its {count} entries need {2 * count}")
    if int(entries.max()) >= 2**bits:
        raise InputError(f"{path}: {name} holds the entry {entries.max()}, although it states {bits} bits per entry")
    return entries.astype(np.float64), first, bits


def _order(item: Dataset, keyword: str = "LUTDescriptor") -> str:
    element = item.get_item(keyword, keep_deferred=True)
    return "<" if not isinstance(element, RawDataElement) or element.is_little_endian else ">"
