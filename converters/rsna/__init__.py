"""The RSNA screening archive (docs/rsna.md)."""

from mammodet.converters.rsna.converter import JOURNAL, convert
from mammodet.converters.rsna.image import PixelOptions
from mammodet.converters.rsna.options import FORMATS, NEGATIVES, VIEWS, RsnaOptions, add_arguments, options_from

__all__ = [
    "FORMATS",
    "JOURNAL",
    "NEGATIVES",
    "VIEWS",
    "PixelOptions",
    "RsnaOptions",
    "add_arguments",
    "convert",
    "options_from",
]
