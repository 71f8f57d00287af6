"""Trees of folders whose names are classes (docs/folder.md)."""

from converters.folder.converter import convert
from converters.folder.options import FolderOptions, add_arguments, options_from
from converters.folder.words import Meaning, read_name

__all__ = ["FolderOptions", "Meaning", "add_arguments", "convert", "options_from", "read_name"]
