"""Options of the folder converter: as a dataclass, on the command line, and the mapping of classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from mammodet.converters.base import SplitOptions
from mammodet.converters.folder.words import Meaning, fold_name

from mammodet.errors import InputError, raise_faults

ALL_LEVELS = "all"
NUMBERS = ("count", "class")
_LABELS = ("tumor", "malignant")
_TEXTS = ("density", "birads", "name")
_UNKNOWN = ("unknown", "none", "null", "")


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What the user says of one folder.

    Attributes:
        folder: its name as the user wrote it.
        meaning: of the images in it; None: the words of its name count.
        name: of the class; None keeps the folder's.
        skip: its images are left out.
    """

    folder: str
    meaning: Meaning | None = None
    name: str | None = None
    skip: bool = False


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What is converted, and how.

    Attributes:
        rules: classes that the user explains; the others are read from their folders' names.
        numbers: what a number means by which alone folders differ: `count` (nothing: they are one class), `class`
            (each is a class without labels); None refuses such folders unless `rules` explain them.
        level: which folder below the source is the class, counted from 1 without the subset's; `all`: all of them
            together; None: the one whose names are understood.
        patient: regular expression, searched in the path below the source; a group `patient` (or the first), and
            `laterality` and `view`. None: every image with its copies is a patient.
        split: `given` (by the folders), `holdout` (by shares of patients), None: given where all images are told.
        resolve_leaks: where patients and identical files go that are given to two subsets; None refuses them.
        images: `copy` or `link`.
        crop: `breast`: the breast is looked for, so that training may crop to it; `whole`: images are patches.
        name: of the data set, in every record; None: that of the source's folder.
    """

    rules: tuple[ClassRule, ...] = ()
    numbers: str | None = None
    level: int | str | None = None
    patient: str | None = None
    split: str | None = None
    resolve_leaks: str | None = None
    images: str = "copy"
    crop: str = "breast"
    name: str | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    classes = parser.add_argument_group("classes")
    classes.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="FOLDER=KEY:VALUE,...",
        help="what a folder means, for instance stage2=malignant:1,density:B,name:late or junk=skip; keys: "
        f"{', '.join((*_LABELS, *_TEXTS))} (default: known words of its name)",
    )
    classes.add_argument("--map", type=Path, metavar="FILE.yaml", help="the same for many folders, as YAML")
    classes.add_argument(
        "--numbers",
        choices=NUMBERS,
        help="folders that differ in a number alone (x_0, x_1): 'count': one class in parts; 'class': classes without "
        "labels (default: refused unless --class says what each means)",
    )
    classes.add_argument(
        "--level",
        metavar="N",
        help="the class is the N-th folder below --source, not counting train and test; 'all': all folders together "
        "(default: the one whose names are understood)",
    )
    classes.add_argument("--name", help="of the data set, kept with every image (default: the name of the folder)")
    files = parser.add_argument_group("images and patients")
    files.add_argument(
        "--patient",
        metavar="REGEX",
        help=r"searched in the path below --source; its group is the patient, for instance '(P_\d{5})'; groups "
        "'laterality' and 'view' are read too (default: every image, with its copies, is a patient)",
    )
    files.add_argument(
        "--images", choices=["copy", "link"], default="copy", help="'link': symbolic links, no copies (%(default)s)"
    )
    files.add_argument(
        "--crop",
        choices=["breast", "whole"],
        default="breast",
        help="'breast': look for the breast, for training to crop to; 'whole': images are patches (%(default)s)",
    )
    subsets = parser.add_argument_group("subsets")
    subsets.add_argument(
        "--split",
        choices=["given", "holdout"],
        help="'given': by folders train, val, test; 'holdout': --test-fraction of the patients (default: given where "
        "there are such folders)",
    )
    subsets.add_argument(
        "--resolve-leaks",
        choices=["test", "train"],
        help="where patients and identical files go that are given to two subsets: to the one nearer to test, or "
        "nearer to train",
    )


def options_from(args: argparse.Namespace) -> FolderOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs.

    Raises:
        InputError: a mapping that cannot be read.
    """
    rules = [_rule_of_text(text) for text in args.classes]
    if args.map:
        rules += read_map(args.map)
    level: int | str | None = args.level
    if level is not None and level != ALL_LEVELS:
        if not str(level).isdecimal() or int(level) < 1:
            raise InputError(f"--level {level}: expected a number from 1, or '{ALL_LEVELS}'")
        level = int(level)
    return FolderOptions(
        rules=tuple(rules),
        numbers=args.numbers,
        level=level,
        patient=args.patient,
        split=args.split,
        resolve_leaks=args.resolve_leaks,
        images=args.images,
        crop=args.crop,
        name=args.name,
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
    )


def read_map(path: Path) -> list[ClassRule]:
    """The mapping of a YAML file: folder to `skip`, or to keys and values.

    Raises:
        InputError: the file is missing or is no such mapping; with every fault.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: expected lines like 'stage2: {{malignant: 1, density: B}}' or 'junk: skip'")
    rules: list[ClassRule] = []
    faults: list[str] = []
    for folder, content in value.items():
        try:
            rules.append(_rule_of_yaml(folder, content))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults, where=str(path))
    return rules


def _rule_of_yaml(folder: Any, content: Any) -> ClassRule:
    if isinstance(folder, bool) or not isinstance(folder, str | int):
        raise InputError(f"{folder!r}: expected the name of a folder; YAML needs quotes around words like no and 1.0")
    if content == "skip":
        return ClassRule(str(folder), skip=True)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{folder}: is {content!r}; expected skip, or keys such as {{malignant: 1}}")
    pairs: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, bool | list | dict):
            raise InputError(
                f"{folder}: {key} is {value!r}; expected a number or a word, in quotes where YAML has its own"
            )
        pairs[str(key)] = "" if value is None else str(value)
    return _rule(str(folder), pairs)


def _rule_of_text(text: str) -> ClassRule:
    """`FOLDER=KEY:VALUE,KEY:VALUE`, or `FOLDER=skip`; the folder's name may hold a `=`."""
    folder, sign, said = text.rpartition("=")
    if not sign or not folder.strip() or not said.strip():
        raise InputError(f"--class {text!r}: expected FOLDER=KEY:VALUE,... or FOLDER=skip")
    if said.strip() == "skip":
        return ClassRule(folder.strip(), skip=True)
    pairs: dict[str, str] = {}
    for part in said.split(","):
        key, colon, value = part.partition(":")
        if not colon or key.strip() in pairs:
            fault = "is said twice" if colon else "is no KEY:VALUE"
            raise InputError(
                f"--class {text!r}: {part.strip()!r} {fault}; expected FOLDER=KEY:VALUE,... or FOLDER=skip"
            )
        pairs[key.strip()] = value.strip()
    return _rule(folder.strip(), pairs)


def _rule(folder: str, pairs: Mapping[str, str]) -> ClassRule:
    values: dict[str, Any] = {}
    for key, text in pairs.items():
        if key not in (*_LABELS, *_TEXTS):
            raise InputError(f"class {folder!r}: key {key!r}; expected {', '.join((*_LABELS, *_TEXTS))}")
        if key in _LABELS:
            if text not in ("0", "1") and text.lower() not in _UNKNOWN:
                raise InputError(f"class {folder!r}: {key} is {text!r}; expected 0, 1 or unknown")
            values[key] = int(text) if text in ("0", "1") else None
        elif text:
            values[key] = text
        elif key == "name":
            raise InputError(f"class {folder!r}: its new name is empty")
    name = values.pop("name", None)
    meaning = _completed(folder, Meaning(**values), pairs) if pairs.keys() - {"name"} else None
    return ClassRule(folder, meaning, name)


def _completed(folder: str, meaning: Meaning, said: Mapping[str, str]) -> Meaning:
    """What follows: a malignant image shows a tumor, and one without tumor is not malignant."""
    if meaning.malignant == 1 and meaning.tumor == 0:
        raise InputError(f"class {folder!r}: malignant:1 and tumor:0 contradict each other")
    if meaning.malignant == 1 and "tumor" not in said:
        return replace(meaning, tumor=1)
    if meaning.tumor == 0 and "malignant" not in said:
        return replace(meaning, malignant=0)
    return meaning


def rules_by_name(rules: Sequence[ClassRule]) -> dict[str, ClassRule]:
    """Folded folder name to its rule.

    Raises:
        InputError: a folder is said twice.
    """
    found: dict[str, ClassRule] = {}
    twice = [rule.folder for rule in rules if found.setdefault(fold_name(rule.folder), rule) is not rule]
    raise_faults([f"{name!r} is said twice" for name in twice], where="--class and --map")
    return found
