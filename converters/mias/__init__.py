"""mini-MIAS (docs/mias.md)."""

from mammodet.converters.mias.converter import CATEGORY_SCHEMES, SPACING_MM, MiasOptions, convert, find_archive
from mammodet.converters.mias.options import add_arguments, options_from
from mammodet.converters.mias.scale import TABLE_SIZE

__all__ = [
    "CATEGORY_SCHEMES",
    "SPACING_MM",
    "TABLE_SIZE",
    "MiasOptions",
    "add_arguments",
    "convert",
    "find_archive",
    "options_from",
]
