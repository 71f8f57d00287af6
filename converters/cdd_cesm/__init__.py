"""CDD-CESM: low-energy and subtracted contrast-enhanced mammograms with outlines (docs/cdd_cesm.md)."""

from mammodet.converters.cdd_cesm.converter import convert
from mammodet.converters.cdd_cesm.options import CesmOptions, add_arguments, options_from

__all__ = ["CesmOptions", "add_arguments", "convert", "options_from"]
