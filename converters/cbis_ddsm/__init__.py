"""CBIS-DDSM (docs/cbis_ddsm.md)."""

from mammodet.converters.cbis_ddsm.converter import (
    CATEGORY_SCHEMES,
    DEFAULT_MAX_SIZE,
    FORMATS,
    JOURNAL,
    CbisOptions,
    convert,
)
from mammodet.converters.cbis_ddsm.image import ImageOptions
from mammodet.converters.cbis_ddsm.options import add_arguments, options_from

__all__ = [
    "CATEGORY_SCHEMES",
    "DEFAULT_MAX_SIZE",
    "FORMATS",
    "JOURNAL",
    "CbisOptions",
    "ImageOptions",
    "add_arguments",
    "convert",
    "options_from",
]
