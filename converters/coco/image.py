"""One image of a COCO file: checked, copied or linked, with its lesions and labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason, link_file
from mammodet.converters.coco.boxes import Boxes, Category, HowToRead, read_boxes
from mammodet.converters.coco.join import ImageFacts
from mammodet.converters.coco.source import CocoId, SourceImage
from mammodet.converters.skeleton import Made
from mammodet.data.breast import find_breast
from mammodet.data.images import read_image, read_orientation
from mammodet.data.json_values import is_finite, short
from mammodet.errors import InputError
from mammodet.files import write_bytes
from mammodet.records import ImageRecord

#: Images that Exif or TIFF turn upright, among the facts.
TURNED = "images turned upright"


@dataclass(frozen=True, slots=True)
class ImageTask:
    """What one image needs: `target` is its file name in the data set, `label` and `subset` those of its COCO file."""

    image_id: int
    image: SourceImage
    path: Path
    target: str
    label: str
    subset: str | None
    facts: ImageFacts
    categories: Mapping[CocoId, Category]
    read: HowToRead


@dataclass(frozen=True, slots=True)
class HowToConvert:
    """`images`: `copy` or `link`; `without_boxes`: what an image without boxes is, `unknown` or `normal`.

    `has_orphans`: some annotations have no image, so that any image may be theirs.
    """

    output: Path
    source_name: str
    images: str = "copy"
    without_boxes: str = "unknown"
    has_orphans: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Facts of an image: counts, and boxes and rows where their numbers differ."""

    counts: Counter[str]
    mismatch: tuple[int, int] | None = None


def set_aside(image: SourceImage, label: str, kind: Reason, reason: str) -> tuple[Quarantined, ...]:
    """The quarantine entries of an image and of everything on it."""
    lost = [
        Quarantined(Reason.IMAGE_LOST, "annotation", f"{image.name}, {name}", f"its image is left out: {reason}", label)
        for name, _ in image.annotations
    ]
    return Quarantined(kind, "image", image.name, reason, label), *lost


def convert_image(task: ImageTask, how: HowToConvert) -> Made:
    """Check an image, write it to the output, and make its record."""
    try:
        pixels, orientation = read_image(task.path), read_orientation(task.path)
    except InputError as error:
        return Made(None, set_aside(task.image, task.label, Reason.UNREADABLE, str(error)), Seen(Counter()))
    height, width = pixels.shape
    told = task.read.sizes_told or any(key in task.image.item for key in ("height", "width"))
    if told and (fault := _size_fault(task.image, (height, width), orientation)):
        return Made(None, set_aside(task.image, task.label, Reason.OTHER_SIZE, fault), Seen(Counter()))
    boxes = read_boxes(task.image, (height, width), task.categories, task.label, task.read)
    target = how.output / task.target
    if how.images == "link":
        link_file(target, task.path)
    else:
        write_bytes(target, task.path.read_bytes())
    facts = task.facts
    boxes.facts[TURNED] += orientation != 1
    boxes.lesions = [replace(lesion, attributes={**lesion.attributes, **facts.attributes}) for lesion in boxes.lesions]
    notes = [*facts.notes, *(f"{item.what} quarantined: {item.reason}" for item in boxes.quarantine)]
    marked = len(boxes.lesions) + len(boxes.lost)
    mismatch = (marked, facts.lesion_rows) if facts.lesion_rows not in (None, marked) else None
    if mismatch:
        notes.append(f"has {mismatch[0]} boxes and {mismatch[1]} rows: attributes may belong to other lesions")
    labels = image_labels(boxes, facts, how.without_boxes, has_orphans=how.has_orphans)
    fewer = mismatch is not None and mismatch[0] < mismatch[1]
    record = ImageRecord(
        image_id=task.image_id,
        file_name=task.target,
        size_hw=(height, width),
        patient_id=facts.patient_id,
        laterality=facts.laterality,
        view=facts.view,
        density=facts.density,
        birads=facts.birads,
        labels=labels,
        source=how.source_name,
        breast_box_xyxy=find_breast(pixels).box_xyxy,
        unlocalized=bool(boxes.lost) or fewer or (labels["tumor"] != 0 and not boxes.lesions),
        notes=tuple(notes),
        lesions=tuple(boxes.lesions),
    )
    return Made(record, tuple(boxes.quarantine), Seen(boxes.facts, mismatch))


def _size_fault(image: SourceImage, size_hw: tuple[int, int], orientation: int) -> str | None:
    told = [image.item.get(key) for key in ("height", "width")]
    for key, side in zip(("height", "width"), told, strict=True):
        if side is None or not is_finite(side) or side != int(side):
            return f"'{key}' is {short(side)}; expected a whole number of pixels"
    if (told[0], told[1]) == size_hw:
        return None
    if orientation != 1 and (told[1], told[0]) == size_hw:
        return (
            f"the JSON says {told[0]}x{told[1]}, the upright picture is {size_hw[0]}x{size_hw[1]} (height x width): "
            f"Exif orientation {orientation} turns it, and the boxes seem to lie on the picture as stored; remove the "
            "Exif data from the file if they do"
        )
    return (
        f"the JSON says {told[0]}x{told[1]}, the file is {size_hw[0]}x{size_hw[1]} (height x width): where its "
        "boxes lie is not known; take the images that the JSON was made for, or write the files' sizes into it "
        "if the boxes were drawn on these"
    )


def image_labels(
    boxes: Boxes, facts: ImageFacts, without_boxes: str, *, has_orphans: bool = False
) -> dict[str, int | None]:
    """The worst of what is known; None where something that is left out could be worse.

    Args:
        without_boxes: `normal` where an image without boxes and rows was looked at and found empty.
        has_orphans: a lesion of this image may be among annotations without an image: nothing is known to be absent.
    """
    kept = [lesion for lesion in boxes.lesions if not lesion.ignore]
    lost = [category for category in boxes.lost if category is not None and not category.ignore]
    rows_normal = bool(facts.pathologies) and set(facts.pathologies) == {"normal"}
    undecided = len(boxes.lesions) > len(kept) or len(boxes.lost) > len(lost) or bool(facts.left_out)
    tumor: int | None = None
    if kept or lost or (facts.lesion_rows or 0) > 0 or "malignant" in facts.pathologies:
        tumor = 1
    elif not undecided and not has_orphans and (rows_normal or (without_boxes == "normal" and not facts.pathologies)):
        tumor = 0
    on_boxes = [str(lesion.attributes.get("pathology", "unknown")) for lesion in kept]
    if "malignant" in (*facts.pathologies, *on_boxes):
        return {"tumor": tumor, "malignant": 1}
    if tumor == 0:
        return {"tumor": 0, "malignant": 0}
    known: Sequence[str] = facts.pathologies
    hidden = has_orphans or any(word in ("malignant", "unknown") for word in facts.left_out)
    if not known:
        known = [*on_boxes, *("unknown" for _ in lost)]
        hidden = hidden or undecided
    benign = bool(known) and all(word in ("benign", "normal") for word in known)
    return {"tumor": tumor, "malignant": 0 if benign and not hidden else None}
