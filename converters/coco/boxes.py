"""Annotations of COCO files that others made: what their categories mean, and lesions out of the sound ones."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.coco.source import CocoFile, CocoId, SourceImage
from mammodet.data.images import read_size_hw
from mammodet.data.json_values import Checker, is_finite, read_id, read_segmentation, short
from mammodet.errors import InputError, raise_faults
from mammodet.files import canonical_hash
from mammodet.geometry import box_iou, clip_boxes, fits_outline, rle_box, xywh_to_xyxy, xyxy_to_xywh
from mammodet.outlines import turned_box
from mammodet.records import BoxXYXY, Geometry, Lesion, Rle

#: The key of an annotation that a reader found to have no place, with the reason; JSON has only texts as keys.
FAULT = ("fault",)
_CORNER_PX = 1.0  # how far an outline's corners may lie from those of the box that it is
_ROUNDING_PX = 1e-3
_LEAST_BOXES = 3  # from which on what all boxes of a file have in common is no chance
_LARGE_SHARE = 0.05  # of an image, above the mean of real lesions
_PERCENT = 100
_NORMAL = ("normal", "no finding", "no findings", "no lesion", "negative", "none", "healthy", "background")
_WHOLE = {"fractions": 1, "percent": _PERCENT}  # what a side of the image counts


@dataclass(frozen=True, slots=True)
class HowToRead:
    """`crowd_is_lesion`: what `iscrowd` means in this file; the others as in `CocoFile` and `LabelledOptions`."""

    crowd_is_lesion: bool = False
    boxes: str | None = None
    clip_px: float = 0.0
    sizes_told: bool = True


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

    Raises InputError: `renames` names a category that is not there, or nothing is left.
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
        file.categories[number]
        for file in files
        for image in file.images
        for _, item in image.annotations
        if (number := read_id(item.get("category_id"))) is not None and number in file.categories
    }
    kept = [name for name in originals if name in chosen or name in used or not used]
    if empty := [name for name in kept if name in used and name not in chosen and says_normal(name)]:
        drop = f"--category {empty[0]}= (regions to ignore), or " if set(kept) - set(empty) else ""
        raise InputError(
            f"category {empty[0]!r} seems to say that there is no lesion, and has annotations. If these are findings: "
            f"--category {empty[0]}={empty[0]}; if they are none: {drop}remove them and say which images are normal"
        )
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


def says_normal(name: str) -> bool:
    """Whether the name of a category says that nothing was found."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower()) in _NORMAL


def _items(file: CocoFile) -> Iterator[Mapping[str, Any]]:
    return (item for image in file.images for _, item in image.annotations)


def crowd_means(file: CocoFile, crowd: str) -> bool:
    """Whether `iscrowd` says no more than that an outline is run lengths; `crowd` as in `CocoOptions`."""
    if crowd != "auto":
        return crowd == "lesion"
    flags = [Checker().flag(item, "iscrowd", "") for item in _items(file)]
    return bool(flags) and all(flags)


def check_units(files: Sequence[CocoFile], *, are_corners_possible: bool) -> None:
    """Refuse files whose boxes all look like corners, or not like pixels, unless `boxes` says what they are.

    Raises InputError: with each such file.
    """
    faults = []
    for file in files:
        found = [item["bbox"] for item in _items(file) if _has_extent(item.get("bbox"))]
        if file.boxes is not None or not found:
            continue
        if all(map(_is_fraction, found)):
            seen, advice = "lie within one pixel", "fractions of the image: --boxes fractions"
        elif len(found) >= _LEAST_BOXES and all(map(_is_percent, found)) and _are_large(file):
            seen, advice = f"lie within {_PERCENT} px of the corner", "percent of the image: --boxes percent"
        elif are_corners_possible and _seem_corners(file):
            seen, advice = "have w > x and h > y", "x1, y1, x2, y2: --boxes corners"
        else:
            continue
        shown = f"{file.label}: all {len(found)} boxes {seen}, for instance {short(found[0])}"
        faults.append(f"{shown}; if they are {advice}")
    raise_faults(faults, where="boxes", advice="If they are x, y, width and height in pixels: --boxes pixels.")


def _seem_corners(file: CocoFile) -> bool:
    """Whether all boxes, read as sizes, are large, wider than what is left of them, and higher than what is above."""
    shares = []
    for image in file.images:
        sides: list[Any] = [image.item.get(key) for key in ("height", "width")]
        area = sides[0] * sides[1] if all(map(is_finite, sides)) else 0
        for _, item in image.annotations:
            x, y, w, h = item["bbox"] if _has_extent(item.get("bbox")) else (0, 0, 0, 0)
            if x > 0 and y > 0:  # else both readings are one
                shares.append(w * h / area if area else 1.0)
                if w <= x or h <= y:
                    return False
    return len(shares) >= _LEAST_BOXES and sum(shares) > _LARGE_SHARE * len(shares)


def _has_extent(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite, value)) and min(value[2:]) > 0


def _is_percent(box_xywh: Sequence[float]) -> bool:
    x, y, w, h = box_xywh
    return max(x + w, y + h) <= _PERCENT


def _are_large(file: CocoFile) -> bool:
    """Whether images are said to be so large that hardly all of their lesions lie in the corner."""
    for image in file.images:
        sides: list[Any] = [image.item.get(key) for key in ("height", "width")]
        try:
            told = sides if all(map(is_finite, sides)) else read_size_hw(file.path.parent / image.name)
        except InputError:  # a path of another machine
            return False
        if image.annotations and min(told) < 2.5 * _PERCENT:
            return False
    return True


def _is_fraction(box_xywh: Sequence[float]) -> bool:
    return all(abs(number) <= 1 for number in box_xywh)


@dataclass
class Boxes:
    """The annotations of one image."""

    lesions: list[Lesion] = field(default_factory=list)  #: the sound ones
    #: the others, a copy of a sound one is among them; and outlines of lesions that keep their box.
    quarantine: list[Quarantined] = field(default_factory=list)
    #: lesions without a place: category of each quarantined annotation that is no copy, None where unknown.
    lost: list[Category | None] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)  #: counts for the summary


def read_boxes(
    image: SourceImage, size_hw: tuple[int, int], categories: Mapping[CocoId, Category], label: str, how: HowToRead
) -> Boxes:
    """Lesions of an image of `size_hw` (height, width); `label` names the COCO file in messages."""
    boxes = Boxes()
    seen: dict[str, str] = {}
    for name, item in image.annotations:
        own = item.get("attributes")
        content = canonical_hash(
            [item.get(key) for key in ("category_id", "bbox", "segmentation", "iscrowd", "ignore", "rotation", FAULT)]
            + [own.get("rotation") if isinstance(own, dict) else None]
        )
        if content in seen:
            reason = f"is the same as {seen[content]}"
            boxes.quarantine.append(Quarantined(Reason.DUPLICATE, "annotation", f"{image.name}, {name}", reason, label))
            continue
        seen[content] = name
        checker, outline = Checker(), Checker()
        lesion = _lesion(item, size_hw, categories, how, checker, outline, boxes.facts)
        if lesion is not None:
            boxes.lesions.append(lesion)
            for fault in outline.faults:
                reason = fault.removeprefix(": ") + "; its box is kept"
                boxes.quarantine.append(Quarantined(Reason.NO_PLACE, "outline", f"{image.name}, {name}", reason, label))
            continue
        checker.faults += outline.faults
        reason = "; ".join(fault.removeprefix(": ") for fault in checker.faults)
        boxes.quarantine.append(Quarantined(Reason.NO_PLACE, "annotation", f"{image.name}, {name}", reason, label))
        boxes.lost.append(_category(item, categories))
    return boxes


def _category(item: Mapping[str, Any], categories: Mapping[CocoId, Category]) -> Category | None:
    number = read_id(item.get("category_id"))
    return categories.get(number) if number is not None else None


def _lesion(
    item: Mapping[Any, Any],
    size_hw: tuple[int, int],
    categories: Mapping[CocoId, Category],
    how: HowToRead,
    checker: Checker,
    outline: Checker,
    facts: Counter[str],
) -> Lesion | None:
    """One lesion, or None and faults in `checker`; faults of its outline alone are in `outline`."""
    if fault := item.get(FAULT):
        checker.faults.append(fault)
        return None
    category = _category(item, categories)
    if category is None:
        checker.faults.append(f"category_id {short(item.get('category_id'))}; expected one of {short([*categories])}")
    attributes = dict(checker.take(item, "attributes", dict, "", need=False) or {})
    crowd = checker.flag(item, "iscrowd", "")
    ignored = checker.flag(item, "ignore", "")
    bbox: Any = item.get("bbox")
    segmentation = item.get("segmentation")
    if how.boxes in _WHOLE:
        whole = _WHOLE[how.boxes]
        bbox, segmentation = (
            _to_pixels(value, size_hw, whole, to) for value, to in ((bbox, checker), (segmentation, outline))
        )
    elif how.boxes == "corners" and isinstance(bbox, list) and _has_extent(bbox):
        bbox = [*bbox[:2], bbox[2] - bbox[0], bbox[3] - bbox[1]]
    rle = read_segmentation(segmentation, *size_hw, "", outline)
    if rle is not None and bbox in ([], [0, 0, 0, 0]):  # as tools write a box that they do not make
        bbox = None
    box: BoxXYXY | None = None
    rectangle: Rle | None = None
    if rle is not None and bbox is None:
        box = rle_box(rle)
        facts["boxes made from masks"] += 1
    elif (box_xywh := checker.numbers({"bbox": bbox}, "bbox", 4, "", need=True)) is not None:
        if rle is not None and _is_rectangle(segmentation, box_xywh):
            rectangle, rle = rle, None
            facts["rectangles taken as boxes"] += 1
        if rle is None and _are_corners(box_xywh, item.get("area")):
            checker.faults.append(
                f"bbox {_rounded(box_xywh)} has the area {item['area']:g} only if it is x1, y1, x2, y2; expected x, y, "
                "width and height"
            )
        box_xywh = _upright(item, box_xywh, rle, attributes, checker, facts)
        box = _box(box_xywh, size_hw, how, checker, facts)
        if box is not None and rle is not None and not fits_outline(box, rle):
            x1, y1, x2, y2 = rle_box(rle)
            checker.faults.append(
                f"bbox {_rounded(box_xywh)} (xywh px) contradicts its outline, around which the box is "
                f"{_rounded((x1, y1, x2 - x1, y2 - y1))}; mend one of them, or remove it"
            )
    if checker.faults or category is None or box is None:
        return None
    facts["masks"] += rle is not None
    if crowd and not ignored:
        facts["crowd taken as lesions" if how.crowd_is_lesion else "crowd taken as regions to ignore"] += 1
    return Lesion(
        category=category.name,
        box_xyxy=box,
        rle=rectangle if rectangle is not None and "turned_deg" not in attributes else rle,
        geometry=_geometry(item, rle),
        attributes={**attributes, **_category_attributes(category)},
        ignore=category.ignore or ignored or (crowd and not how.crowd_is_lesion),
    )


def _are_corners(bbox: Sequence[float], area: Any) -> bool:
    """Whether the annotation's area fits only if its box is given by two corners."""
    x, y, w, h = bbox
    if not is_finite(area) or area <= 0 or w <= x or h <= y:
        return False
    return abs((w - x) * (h - y) - area) <= 0.02 * area and abs(w * h - area) > 0.1 * area


def _to_pixels(value: Any, size_hw: tuple[int, int], whole: int, checker: Checker) -> Any:
    """A list x, y, x, y, ... in pixels, of which `whole` are a side, and lists of such lists; run lengths stay."""
    if not isinstance(value, list) or not all(map(is_finite, value)):
        return [_to_pixels(part, size_hw, whole, checker) for part in value] if isinstance(value, list) else value
    if any(abs(number) > 1.5 * whole for number in value):
        checker.faults.append(f"{short(value)}; expected numbers up to {whole}, a side of the image (--boxes)")
    return [number * size_hw[1 - position % 2] / whole for position, number in enumerate(value)]


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 3) for number in numbers]


def _upright(
    item: Mapping[str, Any],
    box_xywh: list[float],
    rle: Rle | None,
    attributes: dict[str, Any],
    checker: Checker,
    facts: Counter[str],
) -> list[float]:
    """The upright box around a turned one; `attributes` keep the angle under a name of our own.

    CVAT turns a box around its middle by `attributes.rotation`, in degrees, and writes it as if it were not turned.
    """
    if item.get("rotation") not in (None, 0):
        checker.faults.append(f"rotation is {short(item['rotation'])}: the point it is turned around is not known")
    angle = attributes.get("rotation")
    if angle in (None, 0):
        return box_xywh
    if not is_finite(angle):
        checker.faults.append(f"attributes.rotation is {short(angle)}; expected degrees")
        return box_xywh
    around = xyxy_to_xywh([turned_box(box_xywh, angle)])[0].tolist()
    attributes["turned_deg"] = attributes.pop("rotation")
    if rle is not None:  # which of them is the box of an outline that is turned already?
        mine, turned = box_iou(xywh_to_xyxy([box_xywh, around]), [rle_box(rle)])[:, 0]
        if mine >= turned:
            return box_xywh
    facts["turned boxes made upright"] += 1
    return around


def _box(
    box_xywh: Sequence[float], size_hw: tuple[int, int], how: HowToRead, checker: Checker, facts: Counter[str]
) -> BoxXYXY | None:
    x, y, w, h = box_xywh
    height, width = size_hw
    text = f"bbox {_rounded(box_xywh)} (xywh px)"
    if w <= 0 or h <= 0:
        checker.faults.append(f"{text} is empty; expected a positive width and height")
        return None
    if _is_fraction(box_xywh) and min(size_hw) > 2:
        checker.faults.append(f"{text} lies within one pixel: its numbers seem to be fractions of the image")
        return None
    over = max(-x, -y, x + w - width, y + h - height)
    if over > how.clip_px + _ROUNDING_PX:
        checker.faults.append(
            f"{text} leaves the image by {over:g} px (it is {height}x{width}, height x width); --clip-boxes "
            f"{math.ceil(over)} would cut it"
        )
        return None
    x1, y1, x2, y2 = (float(number) for number in clip_boxes([[x, y, x + w, y + h]], size_hw)[0])
    if x2 <= x1 or y2 <= y1:
        checker.faults.append(f"{text} has nothing inside the image ({height}x{width}, height x width)")
        return None
    facts["boxes cut to the image"] += over > _ROUNDING_PX
    return x1, y1, x2, y2


def _is_rectangle(segmentation: Any, box_xywh: Sequence[float]) -> bool:
    """Whether an outline is the box itself, as labelling tools write it where only a box was drawn."""
    if not isinstance(segmentation, list):
        return False
    (points, *more) = [segmentation] if is_finite(segmentation[0]) else [part for part in segmentation if part]
    if more or len(points) not in (8, 10):
        return False
    x, y, w, h = box_xywh
    corners = set()
    for px, py in zip(points[::2], points[1::2], strict=True):
        at = [(side_x, side_y) for side_x in (0, 1) for side_y in (0, 1)]
        near = [(i, j) for i, j in at if abs(px - x - i * w) <= _CORNER_PX and abs(py - y - j * h) <= _CORNER_PX]
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
