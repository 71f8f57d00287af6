"""The classes of a tree: their names, what they mean, and what is odd about their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.folder.options import ClassRule, FolderOptions, rules_by_name
from converters.folder.tree import Tree, choose_level, class_folder
from converters.folder.words import Meaning, fold_name, read_name
from mammodet.errors import InputError


@dataclass(frozen=True, slots=True)
class Classes:
    """What folders are called in the data set, and what that says.

    Attributes:
        level: the folder that is the class; None: all of them.
        names: folded folder name to class name, None for a folder that is skipped.
        meanings: class name to what it says.
        told: names of classes whose meaning the user told.
        warnings: for the summary.
    """

    level: int | None
    names: dict[str, str | None]
    meanings: dict[str, Meaning]
    told: frozenset[str]
    warnings: tuple[str, ...]

    def of(self, folder: str) -> str | None:
        """The class of a folder, None where it is skipped."""
        return self.names[fold_name(folder)]

    def name(self, folders: Sequence[str]) -> str:
        """The class of an image by the folders above it; it lies in one and is not skipped."""
        return str(self.of(str(class_folder(folders, self.level))))


def plan_classes(source: Path, tree: Tree, options: FolderOptions) -> Classes:
    """Find the class folders and what they mean.

    Raises:
        InputError: they cannot be told, there is only one, a rule names no folder, or two rules of one class differ.
    """
    rules = rules_by_name(options.rules)
    try:
        level = choose_level(tree, options.level, lambda name: fold_name(name) in rules or read_name(name) is not None)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    spelled: dict[str, list[str]] = {}
    for image in tree.images:
        folder = class_folder(image.folders, level)
        if folder is not None and folder not in spelled.setdefault(fold_name(folder), []):
            spelled[fold_name(folder)].append(folder)
    if strange := [rule.folder for name, rule in rules.items() if name not in spelled]:
        there = ", ".join(sorted(names[0] for names in spelled.values()))
        raise InputError(f"{source}: no class folder {', '.join(map(repr, strange))} with images; there are {there}")
    names: dict[str, str | None] = {}
    meanings: dict[str, Meaning] = {}
    told: set[str] = set()
    for folded, spellings in sorted(spelled.items()):
        rule = rules.get(folded)
        if rule is not None and rule.skip:
            names[folded] = None
            continue
        name, meaning = _meaning(spellings[0], rule)
        if meanings.setdefault(name, meaning) != meaning:
            raise InputError(
                f"{source}: class {name!r} means '{meanings[name]}' in one folder and '{meaning}' in another"
            )
        names[folded] = name
        if rule is not None and rule.meaning is not None:
            told.add(name)
    if len(meanings) < 2:
        raise InputError(
            f"{source}: only one class, {next(iter(meanings), 'none')!r}; a classifier needs two. Is --source the "
            "folder above the class folders?"
        )
    return Classes(level, names, meanings, frozenset(told), _warnings(tree, level, spelled))


def _meaning(folder: str, rule: ClassRule | None) -> tuple[str, Meaning]:
    name = rule.name or folder if rule else folder
    if rule is None or rule.meaning is None:
        return name, read_name(folder) or Meaning()
    return name, rule.meaning


def _warnings(tree: Tree, level: int | None, spelled: dict[str, list[str]]) -> tuple[str, ...]:
    found: list[str] = []
    empty = [
        "/".join(folders)
        for folders, has_images in tree.folders.items()
        if not has_images and len(folders) == (level or 1)
    ]
    if empty:
        found.append(f"class folders without images: {', '.join(sorted(empty))}")
    if several := [" = ".join(names) for names in spelled.values() if len(names) > 1]:
        found.append(f"folders that differ in case or in _ and - alone are one class: {', '.join(several)}")
    return tuple(found)
