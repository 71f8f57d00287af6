"""INbreast (docs/inbreast.md)."""

from mammodet.converters.inbreast.converter import InBreast

ARCHIVE = InBreast

__all__ = ["ARCHIVE", "InBreast"]
