"""Trees of folders whose names are classes (docs/folder.md)."""

from mammodet.converters.folder.converter import convert
from mammodet.converters.folder.options import FolderOptions, add_arguments, options_from
from mammodet.converters.folder.words import Meaning, read_name

__all__ = ["FolderOptions", "Meaning", "add_arguments", "convert", "options_from", "read_name"]
