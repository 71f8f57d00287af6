"""The RSNA screening archive (docs/rsna.md)."""

from mammodet.converters.pixels import PixelOptions
from mammodet.converters.rsna.converter import Rsna, RsnaOptions, convert
from mammodet.converters.skeleton import JOURNAL

ARCHIVE = Rsna

__all__ = ["ARCHIVE", "JOURNAL", "PixelOptions", "Rsna", "RsnaOptions", "convert"]
