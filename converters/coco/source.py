"""COCO files that others made: where they lie and what they list.

Only what makes a file no COCO file is refused here: ids that occur twice, lists that are none. Everything that concerns
one image or one annotation is left to the converter, which quarantines it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodet.converters.base import Quarantined, Reason
from mammodet.data.json_values import read_id, short
from mammodet.errors import InputError, raise_faults
from mammodet.files import read_json
from mammodet.folders import files_below

CocoId = int | str  # as `read_id` gives it

SUBSET_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SUBSET_WORD = re.compile(r"(?<![a-z])(" + "|".join(sorted(SUBSET_WORDS, key=len, reverse=True)) + r")(?![a-z])")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One entry of `images`, with the entries of `annotations` that name it."""

    name: str  #: its file name as the JSON has it, with `/`
    item: Mapping[str, Any]  #: the entry
    #: (its name for messages, the entry); a key that is no text is `boxes.FAULT`.
    annotations: tuple[tuple[str, Mapping[Any, Any]], ...]


@dataclass(frozen=True, slots=True)
class CocoFile:
    """One COCO file."""

    path: Path
    label: str  #: its path below the source, for messages
    subset: str | None  #: `train`, `val`, `test`, or None where neither the user nor its path says
    categories: Mapping[CocoId, str]  #: id to name, as written
    images: tuple[SourceImage, ...]
    quarantine: tuple[Quarantined, ...] = ()  #: annotations that belong to no image
    repeated_ids: int = 0  #: annotations whose id another one has
    #: `pixels`, `fractions` or `percent` of the image, or `corners` x1, y1, x2, y2 in pixels; None: not told.
    boxes: str | None = None
    sizes_told: bool = True  #: images without a size are faulty; else they have that of their file
    annotated: bool = True  #: it has a list of annotations

    @property
    def annotation_count(self) -> int:
        return len(self.quarantine) + sum(len(image.annotations) for image in self.images)


def subset_of(path: Path) -> str | None:
    """The subset that a path names: by the file's name first, then by its folders, the nearest first."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        found = {SUBSET_WORDS[word] for word in _SUBSET_WORD.findall(part.lower())}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def find_coco_files(source: Path, chosen: Sequence[tuple[str | None, Path]] = ()) -> list[CocoFile]:
    """Every COCO file below a folder, or the chosen ones, in the order of their paths.

    Args:
        chosen: (subset or None, path); a path is looked for as it is, then below `source`.
    Raises:
        InputError: there is none, one cannot be read or is no COCO file, or two list the same image files.
    """
    faults: list[str] = []
    files: list[CocoFile] = []
    seen: dict[Path, str] = {}
    for subset, path in _chosen(source, chosen) if chosen else [(None, path) for path in files_below(source, ".json")]:
        label = path.relative_to(source).as_posix() if path.is_relative_to(source) else path.as_posix()
        if path.resolve() in seen:
            faults.append(f"{label}: is named twice")
            continue
        seen[path.resolve()] = label
        try:
            value = read_json(path)
        except InputError as error:
            faults.append(str(error))
            continue
        if chosen or _looks_like_coco(value):
            told = subset or subset_of(path.relative_to(source) if path.is_relative_to(source) else Path(path.name))
            files.append(_read(path, label, told, value, faults))
    advice = "Mend or remove these files, or say which ones are meant: --annotations train=a.json test=b.json"
    raise_faults(faults, where=str(source), advice=advice)
    if not files:
        found = sorted(path.name for path in source.iterdir())[:5]
        raise InputError(
            f"{source}: no COCO file; expected a JSON file with 'images', 'annotations' and 'categories' in it or in "
            f"its folders. Found: {', '.join(found) if found else 'an empty folder'}"
        )
    return files


def _chosen(source: Path, chosen: Sequence[tuple[str | None, Path]]) -> list[tuple[str | None, Path]]:
    paths: list[tuple[str | None, Path]] = []
    for subset, path in chosen:
        places = [place for place in (path, source / path) if place.is_file()]
        if not places:
            raise InputError(f"--annotations {path}: no such file, neither as it is nor below {source}")
        paths.append((subset, places[0]))
    return paths


def _looks_like_coco(value: Any) -> bool:
    if not isinstance(value, dict) or str(value.get("format", "")).startswith("mammodet-predictions"):
        return False
    return "images" in value and ("annotations" in value or "categories" in value)


def _read(path: Path, label: str, subset: str | None, value: Any, faults: list[str]) -> CocoFile:
    """One file; what makes it no COCO file goes to `faults`."""
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        entries = value.get(key, [] if key == "annotations" else None) if isinstance(value, dict) else None
        if not isinstance(entries, list):
            faults.append(
                f"{label}: '{key}' is {short(entries) if entries is not None else 'missing'}; expected a list"
            )
        lists[key] = entries if isinstance(entries, list) else []
    categories = _categories(lists["categories"], label, faults)
    items = _image_entries(lists["images"], label, faults)
    owned: dict[CocoId, list[tuple[str, Mapping[str, Any]]]] = {number: [] for number in items}
    quarantine: list[Quarantined] = []
    ids: set[str] = set()
    repeated = 0
    for position, item in enumerate(lists["annotations"]):
        if not isinstance(item, dict):
            name = f"annotation at position {position}"
            quarantine.append(
                Quarantined(Reason.BAD_ROW, "annotation", name, f"is {short(item)}; expected an object", label)
            )
            continue
        name = f"annotation {short(item['id'])}" if "id" in item else f"annotation at position {position}"
        repeated += "id" in item and repr(item["id"]) in ids
        ids.add(repr(item.get("id")))
        image_id = read_id(item.get("image_id"))
        if image_id is None or image_id not in owned:
            reason = f"its image_id {short(item.get('image_id'))} is not among the images"
            quarantine.append(Quarantined(Reason.BAD_ROW, "annotation", name, reason, label))
            continue
        owned[image_id].append((name, item))
    images = tuple(
        SourceImage(item["file_name"].replace("\\", "/"), item, tuple(owned[number])) for number, item in items.items()
    )
    annotated = isinstance(value, dict) and "annotations" in value
    return CocoFile(path, label, subset, categories, images, tuple(quarantine), repeated, annotated=annotated)


def _categories(entries: Sequence[Any], label: str, faults: list[str]) -> dict[CocoId, str]:
    categories: dict[CocoId, str] = {}
    for position, item in enumerate(entries):
        where = f"{label}: category at position {position}"
        number = read_id(item.get("id")) if isinstance(item, dict) else None
        if number is None or not isinstance(item.get("name"), str):
            faults.append(f"{where}: is {short(item)}; expected an object with an id and a name")
        elif number in categories:
            faults.append(f"{where}: its id {short(item['id'])} occurs more than once")
        else:
            categories[number] = item["name"]
    return categories


def _image_entries(entries: Sequence[Any], label: str, faults: list[str]) -> dict[CocoId, dict[str, Any]]:
    items: dict[CocoId, dict[str, Any]] = {}
    names: dict[str, CocoId] = {}
    for position, item in enumerate(entries):
        where = f"{label}: image at position {position}"
        number = read_id(item.get("id")) if isinstance(item, dict) else None
        if number is None or not isinstance(item.get("file_name"), str):
            faults.append(f"{where}: is {short(item)}; expected an object with an id and a file_name")
            continue
        where = f"{label}: image {short(item['file_name'])} (id {short(item['id'])})"
        name = item["file_name"].replace("\\", "/")
        if number in items:
            faults.append(f"{where}: its id is also that of {short(items[number]['file_name'])}")
        elif name in names:
            faults.append(f"{where}: its file_name is also that of id {short(names[name])}")
        else:
            items[number] = item
            names[name] = number
    return items
