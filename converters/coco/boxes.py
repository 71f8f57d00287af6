"""Annotations of COCO files that others made: what their categories mean, and lesions out of the sound ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.base import Quarantined
from converters.coco.source import CocoFile, CocoId, SourceImage
from mammodet.data.checks import Checker, read_segmentation, short
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.geometry import clip_boxes, rle_box
from mammodet.records import BoxXYXY, Geometry, Lesion, Rle

CLIP_PX = 1.0  # what a box may pass the border by, through rounding or counting pixels from 1
_ROUNDING_PX = 1e-3


@dataclass(frozen=True, slots=True)
class Category:
    """What a category of the source becomes: `original` is its name there, `name` the one here; `ignore`: dropped."""

    original: str
    name: str
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class Categories:
    """`names` in the order of the new ids; `by_file`: for each file, old id to category; `unused`: left out."""

    names: tuple[str, ...]
    by_file: tuple[Mapping[CocoId, Category], ...]
    unused: tuple[str, ...]


def plan_categories(files: Sequence[CocoFile], renames: Sequence[tuple[str, str]]) -> Categories:
    """New names: lower case, or as `renames` has it (old name, new name; no new name drops it).

    A category without annotations is left out unless `renames` names it: exports list super-categories, too.

    Raises:
        InputError: `renames` names a category that is not there, or nothing is left.
    """
    originals = list(dict.fromkeys(name for file in files for name in file.categories.values()))
    chosen: dict[str, str] = {}
    for old, new in renames:
        found = [name for name in originals if name == old] or [
            name for name in originals if name.strip().lower() == old.strip().lower()
        ]
        if not found:
            raise InputError(f"--category {old}={new}: no such category; there are {', '.join(map(repr, originals))}")
        chosen |= dict.fromkeys(found, new.strip())
    used = {
        file.categories[item["category_id"]]
        for file in files
        for image in file.images
        for _, item in image.annotations
        if isinstance(item.get("category_id"), int | str) and item["category_id"] in file.categories
    }
    kept = [name for name in originals if name in chosen or name in used or not used]
    names = tuple(dict.fromkeys(new for name in kept if (new := chosen.get(name, name.strip().lower()))))
    if not names:
        raise InputError(
            f"no category is left of {', '.join(map(repr, originals)) or 'an empty list'}; keep one with --category"
        )
    plan = {
        name: Category(name, chosen.get(name, name.strip().lower()) or names[0], chosen.get(name) == "")
        for name in originals
    }
    by_file = tuple({number: plan[name] for number, name in file.categories.items()} for file in files)
    return Categories(names, by_file, tuple(name for name in originals if name not in kept))


@dataclass
class Boxes:
    """The annotations of one image.

    Attributes:
        lesions: the sound ones.
        quarantine: the others; a copy of a sound one is among them.
        lost: lesions without a place: category of each quarantined annotation that is no copy, None where unknown.
        facts: counts for the summary.
    """

    lesions: list[Lesion] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    lost: list[Category | None] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)


def read_boxes(
    image: SourceImage, size_hw: tuple[int, int], categories: Mapping[CocoId, Category], label: str
) -> Boxes:
    """Lesions of an image of `size_hw` (height, width); `label` names the COCO file in messages."""
    boxes = Boxes()
    seen: dict[str, str] = {}
    for name, item in image.annotations:
        content = canonical_hash(
            [item.get(key) for key in ("category_id", "bbox", "segmentation", "iscrowd", "ignore")]
        )
        if content in seen:
            reason = f"is the same as {seen[content]}"
            boxes.quarantine.append(Quarantined("annotation", f"{image.name}, {name}", reason, label))
            continue
        seen[content] = name
        checker = Checker()
        lesion = _lesion(item, size_hw, categories, checker, boxes.facts)
        if lesion is not None:
            boxes.lesions.append(lesion)
            continue
        reason = "; ".join(fault.removeprefix(": ") for fault in checker.faults)
        boxes.quarantine.append(Quarantined("annotation", f"{image.name}, {name}", reason, label))
        boxes.lost.append(_category(item, categories))
    return boxes


def _category(item: Mapping[str, Any], categories: Mapping[CocoId, Category]) -> Category | None:
    number = item.get("category_id")
    return categories.get(number) if isinstance(number, int | str) and not isinstance(number, bool) else None


def _lesion(
    item: Mapping[str, Any],
    size_hw: tuple[int, int],
    categories: Mapping[CocoId, Category],
    checker: Checker,
    facts: Counter[str],
) -> Lesion | None:
    """One lesion, or None and faults."""
    category = _category(item, categories)
    if category is None:
        checker.faults.append(f"category_id {short(item.get('category_id'))}; expected one of {short([*categories])}")
    attributes = checker.take(item, "attributes", dict, "", need=False) or {}
    ignored = [checker.flag(item, key, "") for key in ("ignore", "iscrowd")]
    segmentation = item.get("segmentation")
    rle = read_segmentation(segmentation, *size_hw, "", checker)
    outlined = rle is not None and item.get("bbox") is None
    box_xywh = None if outlined else checker.numbers(item, "bbox", 4, "", need=True)
    box: BoxXYXY | None = None
    if outlined and rle is not None:
        box = rle_box(rle)
        facts["boxes made from masks"] += 1
    elif box_xywh is not None:
        box = _box(box_xywh, size_hw, checker, facts)
    if checker.faults or category is None or box is None:
        return None
    if rle is not None and box_xywh is not None and _is_rectangle(segmentation, box_xywh):
        rle = None
        facts["rectangles taken as boxes"] += 1
    facts["masks"] += rle is not None
    return Lesion(
        category=category.name,
        box_xyxy=box,
        rle=rle,
        geometry=_geometry(item, rle),
        attributes={**attributes, **_category_attributes(category)},
        ignore=category.ignore or any(ignored),
    )


def _box(box_xywh: Sequence[float], size_hw: tuple[int, int], checker: Checker, facts: Counter[str]) -> BoxXYXY | None:
    x, y, w, h = box_xywh
    height, width = size_hw
    text = f"bbox {[round(number, 3) for number in box_xywh]} (xywh px)"
    if w <= 0 or h <= 0:
        checker.faults.append(f"{text} is empty; expected a positive width and height")
        return None
    over = max(-x, -y, x + w - width, y + h - height)
    if over > CLIP_PX + _ROUNDING_PX:
        checker.faults.append(f"{text} leaves the image by {over:g} px (it is {height}x{width}, height x width)")
        return None
    x1, y1, x2, y2 = (float(number) for number in clip_boxes([[x, y, x + w, y + h]], size_hw)[0])
    if x2 <= x1 or y2 <= y1:
        checker.faults.append(f"{text} has nothing inside the image ({height}x{width}, height x width)")
        return None
    facts["boxes cut to the image"] += over > _ROUNDING_PX
    return x1, y1, x2, y2


def _is_rectangle(segmentation: Any, box_xywh: Sequence[float]) -> bool:
    """Whether an outline is the box itself, as labelling tools write it where only a box was drawn."""
    if not isinstance(segmentation, list) or len(segmentation) != 1 or len(segmentation[0]) not in (8, 10):
        return False
    x, y, w, h = box_xywh
    corners = set()
    for px, py in zip(segmentation[0][::2], segmentation[0][1::2], strict=True):
        at = [(side_x, side_y) for side_x in (0, 1) for side_y in (0, 1)]
        near = [(i, j) for i, j in at if abs(px - x - i * w) <= CLIP_PX and abs(py - y - j * h) <= CLIP_PX]
        if not near:
            return False
        corners.update(near)
    return len(corners) == 4


def _geometry(item: Mapping[str, Any], rle: Rle | None) -> Geometry:
    """A drawn outline, unless the file says that it is a circle."""
    if rle is None:
        return "box"
    return "circle" if item.get("geometry") == "circle" else "contour"


def _category_attributes(category: Category) -> dict[str, Any]:
    """What a new name would lose, and the pathology where the source's categories are that."""
    attributes: dict[str, Any] = {}
    original = category.original.strip().lower()
    if category.ignore or original != category.name:
        attributes["category_original"] = category.original
    if original in ("benign", "malignant"):
        attributes["pathology"] = original
    return attributes
