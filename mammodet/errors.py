"""Errors that a user can act on; all faults are reported at once."""

import reprlib
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Cf")


class InputError(ValueError):
    """Wrong input; the message says where, what, and what to do."""


def printable(text: str) -> str:
    """Text with control characters and undecodable bytes escaped (`\\x1b`), except line ends and tabs."""
    return "".join(
        letter if letter in "\n\t" or not _steers(letter) else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 120


def short_repr(value: Any) -> str:
    """A shortened repr for messages, safe for values that reference one list many times."""
    return _REPR.repr(value)


def raise_faults(faults: Sequence[str], *, where: str, advice: str = "", most: int = 25) -> None:
    """Raise one `InputError` that lists the faults; return if there are none.

    Args:
        faults: one line each, already naming the record and the value.
        where: the file, folder or config that holds them.
        advice: what to do about them.
        most: how many are listed; the rest are counted.
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


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid list": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "an object",
    "a valid boolean": "true or false",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def faults_of(error: "ValidationError") -> list[str]:
    """Every fault that pydantic found: the place in the file, what stands there, and what was expected."""
    faults = []
    for item in error.errors(include_url=False):
        place = ".".join(map(str, item["loc"])) or "the whole"
        told = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            faults.append(f"{place} is missing")
        elif told.startswith("Input should be "):
            expected = told.removeprefix("Input should be ")
            for theirs, ours in _WORDS.items():
                expected = expected.replace(theirs, ours)
            faults.append(f"{place} is {short_repr(item['input'])}; expected {expected}")
        else:
            faults.append(f"{place}: {told} (is {short_repr(item['input'])})")
    return faults
