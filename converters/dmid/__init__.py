"""DMID (docs/dmid.md)."""

from mammodet.converters.dmid.converter import Dmid, DmidOptions

ARCHIVE = Dmid

__all__ = ["ARCHIVE", "Dmid", "DmidOptions"]
