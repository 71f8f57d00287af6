"""mini-MIAS (docs/mias.md)."""

from mammodet.converters.mias.converter import CATEGORY_SCHEMES, SPACING_MM, Mias, MiasOptions, convert, find_archive
from mammodet.converters.mias.scale import TABLE_SIZE

ARCHIVE = Mias

__all__ = ["ARCHIVE", "CATEGORY_SCHEMES", "SPACING_MM", "TABLE_SIZE", "Mias", "MiasOptions", "convert", "find_archive"]
