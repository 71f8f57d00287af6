"""DDSM patches: TFRecord and .npy files of 299x299 pixels (docs/ddsm_patches.md)."""

from mammodet.converters.ddsm_patches.archive import CLASSES
from mammodet.converters.ddsm_patches.converter import DdsmPatches, PatchOptions, convert

ARCHIVE = DdsmPatches

__all__ = ["ARCHIVE", "CLASSES", "DdsmPatches", "PatchOptions", "convert"]
