"""Images and masks in folders (docs/masks.md)."""

from mammodet.converters.masks.converter import Masks, MasksOptions, convert

ARCHIVE = Masks

__all__ = ["ARCHIVE", "Masks", "MasksOptions", "convert"]
