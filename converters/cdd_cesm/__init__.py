"""CDD-CESM: low-energy and subtracted contrast-enhanced mammograms with outlines (docs/cdd_cesm.md)."""

from mammodet.converters.cdd_cesm.converter import CddCesm, CesmOptions, convert

ARCHIVE = CddCesm

__all__ = ["ARCHIVE", "CddCesm", "CesmOptions", "convert"]
