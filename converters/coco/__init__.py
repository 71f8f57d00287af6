"""COCO files that others made (docs/coco.md)."""

from mammodet.converters.coco.converter import convert
from mammodet.converters.coco.options import PRESETS, CocoOptions, add_arguments, options_from

__all__ = ["PRESETS", "CocoOptions", "add_arguments", "convert", "options_from"]
