"""INbreast (docs/inbreast.md)."""

from mammodet.converters.inbreast.converter import InBreast, InBreastOptions

ARCHIVE = InBreast

__all__ = ["ARCHIVE", "InBreast", "InBreastOptions"]
