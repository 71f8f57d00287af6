"""CBIS-DDSM (docs/cbis_ddsm.md)."""

from converters.cbis_ddsm.converter import (
    CATEGORY_SCHEMES,
    DEFAULT_MAX_SIZE,
    FORMATS,
    JOURNAL,
    CbisOptions,
    convert,
)
from converters.cbis_ddsm.image import ImageOptions

__all__ = [
    "CATEGORY_SCHEMES",
    "DEFAULT_MAX_SIZE",
    "FORMATS",
    "JOURNAL",
    "CbisOptions",
    "ImageOptions",
    "convert",
]
