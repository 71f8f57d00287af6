"""mini-MIAS (docs/mias.md)."""

from converters.mias.converter import CATEGORY_SCHEMES, SPACING_MM, MiasOptions, convert, find_archive
from converters.mias.scale import TABLE_SIZE

__all__ = ["CATEGORY_SCHEMES", "SPACING_MM", "TABLE_SIZE", "MiasOptions", "convert", "find_archive"]
