"""KAU-BCMD (docs/kau_bcmd.md)."""

from mammodet.converters.kau_bcmd.converter import KauBcmd

ARCHIVE = KauBcmd

__all__ = ["ARCHIVE", "KauBcmd"]
