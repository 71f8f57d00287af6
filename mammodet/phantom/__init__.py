"""Synthetic mammograms, and archives of them with the quirks of the real ones."""

from mammodet.phantom.archive import (
    ALL_QUIRKS,
    OPTIONAL_QUIRKS,
    QUIRK_HELP,
    PhantomSummary,
    write_mias_archive,
)
from mammodet.phantom.lesions import DIFFICULTIES

__all__ = [
    "ALL_QUIRKS",
    "DIFFICULTIES",
    "OPTIONAL_QUIRKS",
    "QUIRK_HELP",
    "PhantomSummary",
    "write_mias_archive",
]
