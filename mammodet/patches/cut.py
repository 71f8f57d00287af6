"""The record of a patch: what of its image's lesions lies on it, its labels, its class, and its trace."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mammodet.geometry import clip_boxes, mask_to_rle, rle_area, rle_box
from mammodet.patches import PatchOptions
from mammodet.patches.plan import Patch
from mammodet.records import BoxXYXY, ImageRecord, Lesion, Rle
from mammodet.run_lengths import mask_patch
from mammodet.trace import Trace

#: Another lesion of which less than this share lies on a patch is a region to ignore: neither target nor background.
LEAST_SHARE = 0.25
NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Shown:
    """A lesion as it lies on a patch: `number` is its position on the image."""

    number: int
    lesion: Lesion


def file_trace(record: ImageRecord, patch: Patch, file_side: int) -> Trace:
    """From the pixels of the image file to those of the patch file."""
    trace = Trace(record.size_hw).then("crop", *patch.corner_xy, patch.side, patch.side)
    return trace if patch.side == file_side else trace.then("resize", file_side, file_side)


def patch_record(record: ImageRecord, patch: Patch, file_name: str, options: PatchOptions) -> ImageRecord | None:
    """The record of a patch, with `image_id` 0; None where too little of its own lesion is left to be seen.

    Density, view, BI-RADS and patient are the image's. `labels` and `class_name` speak of the patch.
    """
    side = options.file_side
    shown = _shown_lesions(record, patch, side)
    if patch.lesion is not None and patch.lesion not in [item.number for item in shown]:
        return None
    own = Trace.from_json(record.trace) if record.trace else Trace(record.size_hw)
    steps = file_trace(record, patch, side).steps
    scale = patch.side / side
    labels = _labels(record, patch, shown)
    return replace(
        record,
        image_id=0,
        file_name=file_name,
        size_hw=(side, side),
        labels=labels,
        class_name=_class_name(labels, patch, shown, options.classes),
        spacing_mm_rc=(record.spacing_mm_rc[0] * scale, record.spacing_mm_rc[1] * scale)
        if record.spacing_mm_rc
        else None,
        # The whole patch, so that no loader crops it once more.
        breast_box_xyxy=(0.0, 0.0, float(side), float(side)),
        trace=Trace(own.native_size_hw, (*own.steps, *steps)).to_json(),
        notes=(*record.notes, *_notes(record, patch)),
        lesions=tuple(item.lesion for item in shown),
    )


def _notes(record: ImageRecord, patch: Patch) -> list[str]:
    if patch.lesion is not None:
        return [f"patch of {record.file_name}, lesion {patch.lesion + 1}"]
    notes = [f"patch of {record.file_name}"]
    return notes if patch.score is None else [*notes, f"hard negative, score {patch.score:.2f}"]


def _shown_lesions(record: ImageRecord, patch: Patch, file_side: int) -> list[Shown]:
    """Lesions cut to a patch, in its pixels. `attributes.share_on_patch` is there where a part is cut off."""
    shown = []
    trace = file_trace(record, patch, file_side)
    for number, lesion in enumerate(record.lesions):
        cut = _cut(lesion, patch, trace)
        if cut is None:
            continue
        box, rle, share = cut
        attributes = _moved_attributes(lesion.attributes, trace)
        if share < 1:
            attributes["share_on_patch"] = round(share, 4)
        ignore = lesion.ignore or (number != patch.lesion and share < LEAST_SHARE)
        shown.append(Shown(number, replace(lesion, box_xyxy=box, rle=rle, attributes=attributes, ignore=ignore)))
    return shown


def _cut(lesion: Lesion, patch: Patch, trace: Trace) -> tuple[BoxXYXY, Rle | None, float] | None:
    """Box, mask and share of a lesion on a patch; None where no pixel of the patch file shows it."""
    side = trace.output_size_hw
    if lesion.rle is not None:
        x, y = patch.corner_xy
        native = mask_patch(lesion.rle, (x, y, x + patch.side, y + patch.side))
        mask = Trace(native.shape).then("resize", *side).mask_forward(native)
        if not mask.any():
            return None
        rle = mask_to_rle(mask)
        return rle_box(rle), rle, float(native.sum()) / rle_area(lesion.rle)
    mapped = trace.boxes_forward([lesion.box_xyxy])
    ((x1, y1, x2, y2),) = clip_boxes(mapped, side).tolist()
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None
    (left, top, right, bottom) = mapped[0]
    share = (x2 - x1) * (y2 - y1) / ((right - left) * (bottom - top))
    return (x1, y1, x2, y2), None, float(share)


def _moved_attributes(attributes: Mapping[str, Any], trace: Trace) -> dict[str, Any]:
    """Attributes with the archive's circle, the one in pixels, in those of the patch."""
    moved = dict(attributes)
    circle = moved.get("circle_xyr")
    if isinstance(circle, list) and len(circle) == 3:
        scale, shift = trace.affine()
        x, y, radius = circle
        moved["circle_xyr"] = [
            round(float(value), 6) for value in (x * scale[0] + shift[0], y * scale[1] + shift[1], radius * scale[0])
        ]
    return moved


def _labels(record: ImageRecord, patch: Patch, shown: list[Shown]) -> dict[str, int | None]:
    """The worst of the lesions that lie on a patch; not known where one that is not known could be worse."""
    if patch.lesion is None:
        return {"tumor": 0, "malignant": 0}
    malignant = [item.lesion.malignant for item in shown if not item.lesion.ignore]
    if 1 in malignant:
        return {"tumor": 1, "malignant": 1}
    # A lesion without a place may lie here, too.
    hidden = record.unlocalized and record.label("malignant") != 0
    return {"tumor": 1, "malignant": None if hidden or None in malignant else 0}


def _abnormality(lesion: Lesion) -> str | None:
    value = lesion.attributes.get("abnormality")
    return None if value is None else str(value)


def _class_name(labels: Mapping[str, int | None], patch: Patch, shown: list[Shown], scheme: str) -> str | None:
    """The class, None where it is not known. It never contradicts the labels."""
    if patch.lesion is None:
        return NORMAL
    if scheme == "tumor":
        return "tumor"
    (own,) = (item.lesion for item in shown if item.number == patch.lesion)
    if scheme == "category":
        return own.category
    if scheme == "abnormality":
        return _abnormality(own)
    if labels["malignant"] is None:
        return None
    if labels["malignant"] == 1 and own.malignant != 1:  # a malignant neighbour is what the patch is called after
        own = next(item.lesion for item in shown if not item.lesion.ignore and item.lesion.malignant == 1)
    abnormality = _abnormality(own)
    return f"{('benign', 'malignant')[labels['malignant']]} {abnormality}" if abnormality else None
