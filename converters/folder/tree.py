"""The tree of folders: its images, the subset that each is said to be in, and the folder that is its class."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason, listed
from mammodet.converters.folder.words import fold_name
from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_image
from mammodet.errors import InputError, raise_faults
from mammodet.records import SUBSETS

_SUFFIXES = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
_MOST_NAMES = 6
_SUBSET = re.compile(
    r"(?:(?P<train>train|training|trn)|(?P<val>val|valid|validation|validate|dev)|(?P<test>test|testing|tst))"
    r"(?: ?(?:set|data|dataset|images?|imgs?|split))?"
)


def subset_of(folder: str) -> str | None:
    """`train`, `val` or `test` where a folder is named so, in any of the usual spellings."""
    match = _SUBSET.fullmatch(fold_name(folder))
    return match.lastgroup if match else None


@dataclass(frozen=True, slots=True)
class TreeImage:
    """An image file."""

    path: Path
    relative: str  #: its path below the source, with `/`
    folders: tuple[str, ...]  #: those above it, below the source, without the subset's
    subset: str | None  #: the one that a folder names


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below a folder."""

    images: tuple[TreeImage, ...]  #: by path
    #: of all folders, without the subset's, and whether there is an image below it.
    folders: dict[tuple[str, ...], bool]
    others: dict[str, int]  #: suffix to the number of files that are no images, hidden ones not counted
    quarantine: tuple[Quarantined, ...]


def read_tree(source: Path) -> Tree:
    """Walk through the folders, following links, hidden files and folders passed over.

    Raises InputError: no images, or a path that names two subsets.
    """
    images: list[TreeImage] = []
    folders: dict[tuple[str, ...], bool] = {}
    others: Counter[str] = Counter()
    quarantine: list[Quarantined] = []
    faults: list[str] = []
    for parts, names in _walk(source, (), (), set()):
        subsets = [part for part in parts if subset_of(part)]
        if len(subsets) > 1:
            faults.append(f"{'/'.join(parts)}: names two subsets, {' and '.join(subsets)}")
            continue
        inner = tuple(part for part in parts if not subset_of(part))
        subset = subset_of(subsets[0]) if subsets else None
        folders.setdefault(inner, False)
        for name in names:
            relative = "/".join((*parts, name))
            if not is_image(source / relative):
                others[Path(name).suffix.lower() or "without suffix"] += 1
            elif (fault := _name_fault(relative)) is not None:
                quarantine.append(Quarantined(Reason.BAD_NAME, "image", ascii(relative), fault))
            else:
                images.append(TreeImage(source / relative, relative, inner, subset))
                for depth in range(len(inner) + 1):
                    folders[inner[:depth]] = True
    raise_faults(faults, where=str(source), advice="Move what lies in the inner one, or rename it.")
    if not images:
        found = f"; it has files {', '.join(others)}" if others else ""
        raise InputError(f"{source}: no images; expected folders of {', '.join(_SUFFIXES)}{found}")
    return Tree(tuple(sorted(images, key=lambda image: image.relative)), folders, dict(others), tuple(quarantine))


def _walk(
    folder: Path, parts: tuple[str, ...], above: tuple[str, ...], seen: set[str], linked: bool = False
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Folders below the source as names from it, with the names of their files.

    A link back up is not followed, nor, below a link (`linked`), another one to a folder that was `seen`: folders that
    link to each other have endless paths.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    folders = [entry for entry in shown if os.path.isdir(entry.path)]  # no error of a link to itself, unlike is_dir()
    yield parts, [entry.name for entry in shown if entry not in folders]
    for entry in folders:
        link = entry.is_symlink()
        if not (link and linked and os.path.realpath(entry.path) in seen):
            yield from _walk(folder / entry.name, (*parts, entry.name), (*above, real), seen, linked or link)


def _name_fault(relative: str) -> str | None:
    try:
        relative.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if "\\" in relative or not relative.isprintable():
        return "its name holds a backslash or a character that cannot be printed; rename it"
    return None


def choose_level(tree: Tree, level: int | str | None, understood: Callable[[str], bool]) -> int | None:
    """Which folder is the class, counted from 1; None: all of them together.

    Args:
        level: as in `FolderOptions`.
        understood: whether a folder's name is explained by the user or says something by its words.
    Raises:
        InputError: there is no such folder, or which one is meant is not clear.
    """
    deepest = max(len(image.folders) for image in tree.images)
    if deepest == 0:
        raise InputError(
            "all images lie in one folder, and in none that is named after a class; expected folders such as benign "
            "and malignant below --source"
        )
    if isinstance(level, int) and level > deepest:
        raise InputError(f"--level {level}: the images lie {deepest} folders deep\n{_levels_text(tree, deepest)}")
    if level == "all":
        return None
    if isinstance(level, int):
        return level
    names = [_names_at(tree, number) for number in range(1, deepest + 1)]
    first = 1
    while first < deepest and len(names[first - 1]) == 1 and not understood(next(iter(names[first - 1]))):
        first += 1  # a folder that holds everything is no class
    clear = [number for number in range(first, deepest + 1) if all(map(understood, names[number - 1]))]
    if len(clear) == 1:
        return clear[0]
    if first == deepest:
        return first
    several = " and ".join(f"level {number}" for number in clear)
    why = f"the names of {several} say something" if clear else "the names of no level are understood throughout"
    raise InputError(
        f"the images lie in folders within folders, and which of them are the classes is not clear: {why}\n"
        f"{_levels_text(tree, deepest)}\nSay it: --level 1, or --level all to join the names"
    )


def _names_at(tree: Tree, level: int) -> set[str]:
    return {image.folders[level - 1] for image in tree.images if len(image.folders) >= level}


def _levels_text(tree: Tree, deepest: int) -> str:
    lines = []
    for level in range(1, deepest + 1):
        names = sorted(_names_at(tree, level))
        lines.append(f"  level {level}: {listed(names, _MOST_NAMES)}")
    return "\n".join(lines)


def class_folder(folders: Sequence[str], level: int | None) -> str | None:
    """The folder that is an image's class, several joined by ` / `; None where it lies above it."""
    if level is None:
        return " / ".join(folders) or None
    return folders[level - 1] if len(folders) >= level else None


def told_subsets(images: Sequence[TreeImage], split: str | None) -> bool:
    """Whether the folders divide the images; `split` as in `FolderOptions`.

    Raises InputError: a folder names the subset of some images and not of others.
    """
    counts = Counter(image.subset for image in images)
    untold = [image.relative for image in images if image.subset is None]
    if split == "holdout" or (split is None and len(untold) == len(images)):
        return False
    if untold:
        told = ", ".join(f"{counts[subset]} in {subset}" for subset in SUBSETS if counts[subset]) or "none"
        raise InputError(
            f"{len(untold)} images lie in no folder named train, val or test, for instance {untold[0]} (else: {told}); "
            "move them, or divide all anew with --split holdout"
        )
    return True
