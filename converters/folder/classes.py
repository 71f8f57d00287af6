"""The classes of a tree: their names, what they mean, and what is odd about their folders."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.converters.folder.rules import ClassRule, rules_by_name
from mammodet.converters.folder.tree import Tree, choose_level, class_folder
from mammodet.converters.folder.words import Meaning, fold_name, read_name, without_numbers
from mammodet.errors import InputError


@dataclass(frozen=True, slots=True)
class Classes:
    """What folders are called in the data set, and what that says."""

    level: int | None  #: the folder that is the class; None: all of them
    names: dict[str, str | None]  #: folded folder name to class name, None for a folder that is skipped
    meanings: dict[str, Meaning]  #: class name to what it says
    told: frozenset[str]  #: names of classes whose meaning the user told
    warnings: tuple[str, ...]  #: for the summary

    def of(self, folder: str) -> str | None:
        """The class of a folder, None where it is skipped."""
        return self.names[fold_name(folder)]

    def name(self, folders: Sequence[str]) -> str:
        """The class of an image by the folders above it; it lies in one and is not skipped."""
        return str(self.of(str(class_folder(folders, self.level))))


def plan_classes(
    source: Path, tree: Tree, given: Sequence[ClassRule], wanted: int | str | None, numbers: str | None
) -> Classes:
    """Find the class folders and what they mean; `wanted`: the level that the user names.

    Raises InputError: they are not clear, there is only one, a rule names no folder, or two rules of one class differ.
    """
    rules = rules_by_name(given)
    try:
        level = choose_level(tree, wanted, lambda name: fold_name(name) in rules or read_name(name) is not None)
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
    numbered = _numbered(spelled, rules)
    if numbered and numbers is None:
        first, second = numbered[0][:2]
        groups = "; ".join(", ".join(spelled[name][0] for name in group) for group in numbered)
        raise InputError(
            f"{source}: folders differ in a number alone, which may be a label or a plain count: {groups}. Say what "
            f"each means (--class '{spelled[first][0]}=tumor:0' --class '{spelled[second][0]}=malignant:1' ...), or "
            "that they are classes without labels (--numbers class), or parts of one class (--numbers count)"
        )
    of_numbers = {name for group in numbered for name in group}
    names: dict[str, str | None] = {}
    meanings: dict[str, Meaning] = {}
    told: set[str] = set()
    for folded, spellings in sorted(spelled.items()):
        rule = rules.get(folded)
        if rule is not None and rule.skip:
            names[folded] = None
            continue
        name, meaning = _meaning(spellings[0], rule, numbers if folded in of_numbers else None)
        if meanings.setdefault(name, meaning) != meaning:
            raise InputError(f"{source}: class {name!r} means '{meanings[name]}' in one folder, '{meaning}' in another")
        names[folded] = name
        if rule is not None and rule.meaning is not None:
            told.add(name)
    if len(meanings) < 2:
        raise InputError(
            f"{source}: only one class, {next(iter(meanings), 'none')!r}; a classifier needs two. Is --source the "
            "folder above the class folders?"
        )
    return Classes(level, names, meanings, frozenset(told), _warnings(tree, level, spelled))


def _numbered(spelled: Iterable[str], rules: Mapping[str, ClassRule]) -> list[list[str]]:
    """Folders that differ in a number alone, in groups, where the user does not say what each of them means."""
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name in sorted(spelled):
        groups.setdefault(without_numbers(name), []).append(name)
    answered = {name for name, rule in rules.items() if rule.skip or rule.meaning is not None}
    return [group for group in groups.values() if len(group) > 1 and not answered.issuperset(group)]


def _meaning(folder: str, rule: ClassRule | None, numbers: str | None) -> tuple[str, Meaning]:
    """Name and meaning of a class; `numbers` as in `FolderOptions` where the folder's number is in question."""
    name = folder
    if numbers == "count":
        name = " ".join(re.sub(r"\d+", " ", folder).split()).strip(" _-.()") or "unnamed"
    if rule is not None:
        name = rule.name or name
        if rule.meaning is not None:
            return name, rule.meaning
    return name, Meaning() if numbers == "class" else read_name(folder) or Meaning()


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
