"""What tells synthetic mammograms from an archive of patients."""

from collections.abc import Iterable
from pathlib import Path

#: In the `Licence.txt` beside synthetic mammograms.
LICENCE_MARK = "SYNTHETIC MAMMOGRAMS (mammodet phantom archive)"


def is_synthetic(folders: Iterable[Path]) -> bool:
    """Whether one of the folders holds synthetic mammograms.

    Their patients must never be taken for real ones, by a leakage check above all.
    """
    marks = (folder / "Licence.txt" for folder in folders)
    return any(mark.is_file() and LICENCE_MARK.encode() in mark.read_bytes() for mark in marks)
