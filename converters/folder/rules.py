"""What the user says of class folders: on the command line, or in a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mammodet.converters.folder.words import Meaning, fold_name
from mammodet.data.json_values import short
from mammodet.errors import InputError, raise_faults
from mammodet.files import load_yaml

_LABELS = ("tumor", "malignant")
_TEXTS = ("density", "birads", "name")
RULE_KEYS = (*_LABELS, *_TEXTS)
_UNKNOWN = ("unknown", "none", "null", "")


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What the user says of one folder."""

    folder: str  #: its name as the user wrote it
    meaning: Meaning | None = None  #: of the images in it; None: the words of its name count
    name: str | None = None  #: of the class; None keeps the folder's
    skip: bool = False  #: its images are left out


def read_map(path: Path) -> list[ClassRule]:
    """The mapping of a YAML file: folder to `skip`, or to keys and values.

    Raises InputError: the file is missing or is no such mapping; with every fault.
    """
    value = load_yaml(path)
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
        raise InputError(f"{folder}: is {short(content)}; expected skip, or keys such as {{malignant: 1}}")
    pairs: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, bool | list | dict):
            raise InputError(f"{folder}: {key} is {value!r}; expected a number or word, quoted where YAML has its own")
        pairs[str(key)] = "" if value is None else str(value)
    return _rule(str(folder), pairs)


def rule_of_text(text: str) -> ClassRule:
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
        if key not in RULE_KEYS:
            raise InputError(f"class {folder!r}: key {key!r}; expected {', '.join(RULE_KEYS)}")
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
    """Folded folder name to its rule. Raises InputError: a folder is said twice."""
    found: dict[str, ClassRule] = {}
    twice = [rule.folder for rule in rules if found.setdefault(fold_name(rule.folder), rule) is not rule]
    raise_faults([f"{name!r} is said twice" for name in twice], where="--class and --map")
    return found
