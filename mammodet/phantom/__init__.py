"""Synthetic mammograms, and archives of them with the quirks of the real ones."""

from mammodet.phantom.archive import (
    ALL_QUIRKS,
    OPTIONAL_QUIRKS,
    QUIRK_HELP,
    PhantomSummary,
    write_mias_archive,
)
from mammodet.phantom.cbis_ddsm import CbisPhantomSummary, write_cbis_archive
from mammodet.phantom.cbis_layouts import LAYOUTS
from mammodet.phantom.cbis_plan import CBIS_OPTIONAL_QUIRKS, CBIS_QUIRK_HELP, CBIS_QUIRKS
from mammodet.phantom.lesions import DIFFICULTIES

__all__ = [
    "ALL_QUIRKS",
    "CBIS_OPTIONAL_QUIRKS",
    "CBIS_QUIRKS",
    "CBIS_QUIRK_HELP",
    "DIFFICULTIES",
    "LAYOUTS",
    "OPTIONAL_QUIRKS",
    "QUIRK_HELP",
    "CbisPhantomSummary",
    "PhantomSummary",
    "write_cbis_archive",
    "write_mias_archive",
]
