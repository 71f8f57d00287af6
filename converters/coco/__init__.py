"""COCO files that others made (docs/coco.md)."""

from mammodet.converters.coco.converter import Coco, CocoOptions, convert
from mammodet.converters.coco.official import PRESETS

ARCHIVE = Coco

__all__ = ["ARCHIVE", "PRESETS", "Coco", "CocoOptions", "convert"]
