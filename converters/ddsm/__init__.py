"""DDSM (docs/ddsm.md)."""

from mammodet.converters.ddsm.converter import Ddsm

ARCHIVE = Ddsm

__all__ = ["ARCHIVE", "Ddsm"]
