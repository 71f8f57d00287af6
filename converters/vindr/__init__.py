"""VinDr-Mammo (docs/vindr.md)."""

from mammodet.converters.vindr.converter import VinDr, VinDrOptions

ARCHIVE = VinDr

__all__ = ["ARCHIVE", "VinDr", "VinDrOptions"]
