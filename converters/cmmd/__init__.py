"""CMMD (docs/cmmd.md)."""

from mammodet.converters.cmmd.converter import Cmmd

ARCHIVE = Cmmd

__all__ = ["ARCHIVE", "Cmmd"]
