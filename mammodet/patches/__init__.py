"""Patches around lesions and of lesion-free tissue, as a data set of their own (docs/patches.md)."""
