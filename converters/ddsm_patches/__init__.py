"""DDSM patches: TFRecord and .npy files of 299x299 pixels (docs/ddsm_patches.md)."""

from mammodet.converters.ddsm_patches.archive import CLASSES
from mammodet.converters.ddsm_patches.converter import convert
from mammodet.converters.ddsm_patches.options import PatchOptions, add_arguments, options_from

__all__ = ["CLASSES", "PatchOptions", "add_arguments", "convert", "options_from"]
