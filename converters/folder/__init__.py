"""Trees of folders whose names are classes (docs/folder.md)."""

from mammodet.converters.folder.converter import Folder, FolderOptions, convert
from mammodet.converters.folder.words import Meaning, read_name

ARCHIVE = Folder

__all__ = ["ARCHIVE", "Folder", "FolderOptions", "Meaning", "convert", "read_name"]
