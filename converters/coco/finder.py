"""Which image file an entry of a COCO file means."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from mammodet.converters.coco.source import SUBSET_WORDS
from mammodet.data.json_values import check_file_name


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and its entry's name as it should be read."""

    path: Path
    name: str  #: the entry's own, or that of the file where the entry has a path of another machine
    exact: bool = True  #: it lies where the name says


@dataclass
class ImageFinder:
    """Finds the file that an entry means; remembers what lies in folders.

    A name is looked for in the JSON's folder and in `images/` there, a name without a folder also in the sub-folders,
    then in the same way from `source`, since annotations often lie in a folder of their own beside the images.

    A name with folders that are not here (`C:\\set\\a.png`, `../upload/4/a.png`, `/data/a%20b.png`) means the file
    whose place agrees with the end of it, seen from the JSON's folder, `source`, or `images/` in them. Of a path of
    another machine the file's own name is enough, if it is the only one in the tree, lies in no folder of its own but
    `images/` or its subset's, and if no folder of the path is here: `left/a.png` is never `right/a.png`, nor
    `images/a.png` where there is a `left/`.
    """

    source: Path
    _below: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)
    _tree: dict[str, list[Path]] | None = None
    _folders: set[str] = field(default_factory=set)

    def find(self, folder: Path, name: str) -> Found:
        """The file of `name`, in a COCO file that lies in `folder`.

        Raises LookupError: with the reason: there is none, there are several, or it lies in another folder.
        """
        for spelling in dict.fromkeys((name, unquote(name).replace("\\", "/"))):
            # A Mac writes the ä of a file name as two characters.
            for form in dict.fromkeys((spelling, *(unicodedata.normalize(kind, spelling) for kind in ("NFC", "NFD")))):
                if path := self._at(folder, form):
                    return Found(path, spelling)
        return self._by_end(folder, name)

    def _at(self, folder: Path, name: str) -> Path | None:
        """Where a name says, seen from the JSON's folder or from the source."""
        if check_file_name(name):
            return None
        for base in dict.fromkeys((folder, self.source)):
            found = [path for path in (base / name, base / "images" / name) if _is_file(path)]
            if not found and "/" not in name:
                found = self._in_sub_folders(base).get(name, [])
            if len(found) > 1:
                places = ", ".join(path.relative_to(base).as_posix() for path in found[:3])
                raise LookupError(f"{len(found)} files of this name: {places}; remove all but the one that is meant")
            if found:
                return found[0]
        return None

    def _by_end(self, folder: Path, name: str) -> Found:
        """By the end of a path that is not here, whatever its case."""
        *named, last = [part for part in unquote(name).replace("\\", "/").rpartition("?d=")[2].split("/") if part] or [
            ""
        ]
        named = [_fold(part) for part in named if part not in (".", "..") and not part.endswith(":")]
        files = self._in_tree().get(_fold(last), [])
        if not files:
            raise LookupError(check_file_name(name) or f"no such image file in {folder}, its images/ or sub-folders")
        places = ", ".join(path.relative_to(self.source).as_posix() for path in files[:3])
        if not named:
            best = files
        else:
            foreign = check_file_name(name) is not None or "upload" in named
            agree = {path: self._agreement(path, folder, named, foreign) for path in files}
            most = max(agree.values())
            best = [path for path in files if agree[path] == most]
            if most < 0:
                raise LookupError(f"no file there; {places} has this name, but lies in another folder; move it")
            if most == 0:
                best = files
            if here := [part for part in named[: len(named) - most] if part in self._folders]:
                raise LookupError(f"no file there, but there is a folder {here[-1]!r}; {places} may be another image")
        if len(best) > 1:
            raise LookupError(f"no file there, and {len(files)} files of this name: {places}; name the folder")
        base = folder if best[0].is_relative_to(folder) else self.source
        return Found(best[0], best[0].relative_to(base).as_posix(), exact=False)

    def _agreement(self, path: Path, folder: Path, named: Sequence[str], foreign: bool) -> int:
        """How many folders of a file's place are the end of `named`; -1 where another one lies between.

        0, no folder at all, is enough for a `foreign` path alone.
        """
        most = -1
        for base in (folder, folder / "images", self.source, self.source / "images"):
            if path.is_relative_to(base):
                own = [_fold(part) for part in path.relative_to(base).parts[:-1]]
                if own and own == list(named[len(named) - len(own) :]):
                    most = max(most, len(own))
                elif not own and foreign and self._is_of_subset(folder, named):
                    most = max(most, 0)
        return most

    def _is_of_subset(self, folder: Path, named: Sequence[str]) -> bool:
        """Whether the JSON's folder is a subset's at most, and not of another subset than `named` says."""
        if not folder.is_relative_to(self.source):
            return True
        own = {SUBSET_WORDS.get(_fold(part)) for part in folder.relative_to(self.source).parts}
        said = {SUBSET_WORDS[part] for part in named if part in SUBSET_WORDS}
        return None not in own and (not own or said <= own)

    def _in_tree(self) -> dict[str, list[Path]]:
        """Folded name to the files below the source; each folder once, also where links lead back."""
        if self._tree is None:
            self._tree, seen = {}, set()
            for place, folders, names in os.walk(self.source, followlinks=True):
                real = os.path.realpath(place)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders.sort()
                self._folders.update(map(_fold, folders))
                for name in sorted(names):
                    self._tree.setdefault(_fold(name), []).append(Path(place, name))
        return self._tree

    def _in_sub_folders(self, base: Path) -> dict[str, list[Path]]:
        if base not in self._below:
            index: dict[str, list[Path]] = {}
            for folder in sorted(path for path in base.iterdir() if path.is_dir()):
                for name in sorted(os.listdir(folder)):
                    index.setdefault(name, []).append(folder / name)
            self._below[base] = index
        return self._below[base]


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is longer than the disk allows
        return False
