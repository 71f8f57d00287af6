"""CBIS-DDSM (docs/cbis_ddsm.md)."""

from mammodet.converters.cbis_ddsm.converter import CbisDdsm, CbisOptions, convert
from mammodet.converters.cbis_ddsm.image import ImageOptions
from mammodet.converters.skeleton import JOURNAL

ARCHIVE = CbisDdsm

__all__ = ["ARCHIVE", "JOURNAL", "CbisDdsm", "CbisOptions", "ImageOptions", "convert"]
