"""mini-MIAS (docs/mias.md)."""

from converters.mias.converter import CATEGORY_SCHEMES, SPACING_MM, MiasOptions, convert, find_archive

__all__ = ["CATEGORY_SCHEMES", "SPACING_MM", "MiasOptions", "convert", "find_archive"]
