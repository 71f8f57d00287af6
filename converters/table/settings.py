"""What readers of tables and of labelling tools' files need beside a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Literal

from mammodet.converters.coco.tables import fold
from mammodet.data.images import IMAGE_SUFFIXES, is_image
from mammodet.folders import walk_files

_FOLDERS = ("", "images", "JPEGImages", "imgs", "../images", "../JPEGImages", "../imgs")


@dataclass
class HowToReadTables:
    """As in `TableOptions`; `boxes` of tables, `words` of pathologies, in lower case."""

    source: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    xy: Literal["corner", "centre"] | None = None
    boxes: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """Stem to the paths, below the source, of the images that have it."""
        found: dict[str, list[str]] = {}
        for folder, names in walk_files(self.source):
            for path in (folder / name for name in names):
                if is_image(path):
                    found.setdefault(path.stem, []).append(path.relative_to(self.source).as_posix())
        return found

    def file_name(self, name: str, annotations: Path) -> str:
        """The path below the source of an image that lies near its annotations, else the name as it is.

        A name without the suffix of an image means the only image of that stem.
        """
        own = annotations.relative_to(self.source).parent if annotations.is_relative_to(self.source) else Path()
        pure = PurePosixPath(name.strip())
        if not name.strip() or pure.is_absolute():
            return name.strip()
        for folder in _FOLDERS:
            base = own.parent / folder[3:] if folder.startswith("../") else own / folder
            for found in self.images.get(pure.stem, ()):
                if found == normpath(base / pure):
                    return found
        bare = self.images.get(pure.name, ())
        if pure.suffix.lower() not in IMAGE_SUFFIXES and len(bare) == 1:
            return bare[0]
        return pure.as_posix()

    def pathology(self, word: str | None) -> str | None:
        """What a word of a column of pathologies means; None where nothing explains it."""
        return self.words.get(fold(word)) if word is not None else None
