"""Errors that a user can act on, and how many faults are told at once."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Something that the user gave is wrong; the message says where, what, and what to do."""


def raise_faults(faults: Sequence[str], *, where: str, advice: str = "", most: int = 25) -> None:
    """Raise one `InputError` that lists the faults, or return where there are none.

    Args:
        faults: one line each, already naming the record and the value.
        where: the file, folder or config that holds them.
        advice: what to do about them.
        most: how many are printed in full; the rest are counted.
    """
    if not faults:
        return
    lines = [f"{where}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"]
    lines += [f"  - {fault}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  ... and {len(faults) - most} more")
    if advice:
        lines.append(advice)
    raise InputError("\n".join(lines))
