"""COCO files that others made (docs/coco.md)."""

from mammodet.converters.coco.converter import Coco, convert
from mammodet.converters.coco.official import PRESETS
from mammodet.converters.coco.options import CocoOptions

ARCHIVE = Coco

__all__ = ["ARCHIVE", "PRESETS", "Coco", "CocoOptions", "convert"]
