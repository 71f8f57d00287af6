"""Checks of lesions: on the breast, the right way up, masks and boxes as one, and no contradiction with the labels."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import binomtest

from mammodet.audit.facts import LesionFacts, Place
from mammodet.audit.findings import AuditedImage, Finding, Found, Item, count, grouped, is_mass, own, pathology
from mammodet.geometry import box_iou, rle_box
from mammodet.records import BoxXYXY, Lesion

ERROR_ON_BREAST, WARNING_ON_BREAST = 0.1, 0.5
MOST_BOX_DIFFERENCE = 1.0  # px
FEWEST_MASSES = 6
# Where the origin is right, few masses are brighter at a mirrored place: 12 to 14 % of those of mini-MIAS.
ORIGIN_P = 0.05
LARGEST_SHARE, SMALLEST_SIDE, SAME_LESION_IOU = 0.5, 4.0, 0.95
#: Of a mirrored place the check's name, how lesions lie there, and which coordinates make it so.
ORIGINS: dict[Place, tuple[str, str, str]] = {
    "flipped_y": ("y_origin", "upside down", "y"),
    "flipped_x": ("x_origin", "mirrored", "x"),
    "turned": ("xy_origin", "turned by half", "x and y"),
}


def _each_lesion(images: Sequence[AuditedImage]) -> Iterator[tuple[AuditedImage, int, Lesion, LesionFacts]]:
    """Measured lesions of the audited file; those of unreadable or wrong-sized images have no facts."""
    for image in own(images):
        if image.facts.lesions:
            for position, (lesion, facts) in enumerate(zip(image.record.lesions, image.facts.lesions, strict=True)):
                yield image, position, lesion, facts


def _of(image: AuditedImage, position: int, check: str, text: str) -> tuple[str, Item]:
    """A finding of a lesion, marked with the finding's name."""
    mark = check.replace("_", " "), image.record.lesions[position].box_xyxy
    return check, Item(f"{image.lesion_name(position)}: {text}", (image,), (mark,))


def find_wrong_origin(images: Sequence[AuditedImage]) -> tuple[Place, int, int, float] | None:
    """Whether lesions lie better at a mirrored place.

    A mass is brighter than the ring around it, and every lesion lies on the breast. Where coordinates are counted from
    another corner than the archive meant, the mirrored places are the better ones: a sign test of each mirrored place
    against the given one, over all masses, or over all lesions where there are hardly any masses.

    Returns:
        the best mirrored place, at how many lesions it is better than the given one, of how many at which one of both
        is, and the one-sided p; None where the given place holds, or there are too few lesions to say.
    """
    lesions = [(lesion, facts) for _, _, lesion, facts in _each_lesion(images) if not lesion.ignore]
    masses = [(lesion, facts) for lesion, facts in lesions if is_mass(lesion)]
    members = masses if len(masses) >= FEWEST_MASSES else lesions
    best: tuple[Place, int, int, float] | None = None
    for place in ORIGINS:
        verdicts = [verdict for lesion, facts in members if (verdict := _is_better(place, lesion, facts)) is not None]
        if len(verdicts) < FEWEST_MASSES or 2 * sum(verdicts) <= len(members):
            continue
        p = float(binomtest(sum(verdicts), len(verdicts), alternative="greater").pvalue)
        if p < ORIGIN_P and (best is None or p < best[3]):
            best = place, sum(verdicts), len(verdicts), p
    return best


def _is_better(place: Place, lesion: Lesion, facts: LesionFacts) -> bool | None:
    """Whether a mirrored place suits a lesion better than the given one; None where neither does."""
    on_breast = facts.on_breast[place] - facts.on_breast["here"]
    if abs(on_breast) > 0.5:
        return on_breast > 0
    contrast = facts.contrast[place] - facts.contrast["here"]
    # Calcifications are too small a part of their place to make it brighter.
    return contrast > 0 if contrast and is_mass(lesion) else None


def check_origin(images: Sequence[AuditedImage]) -> list[Finding]:
    """Masses are brighter than what surrounds them, at the place that is given rather than at a mirrored one."""
    wrong = find_wrong_origin(images)
    if wrong is None:
        return []
    place, better, decided, p = wrong
    check, mirrored, counted = ORIGINS[place]
    items = (
        Item(
            f"{image.lesion_name(position)}: here {_standing(facts, 'here')}, {mirrored} {_standing(facts, place)}",
            (image,),
            (("mirrored place", _mirrored(lesion.box_xyxy, image.record.size_hw, place)),),
        )
        for image, position, lesion, facts in _each_lesion(images)
        if not lesion.ignore and _is_better(place, lesion, facts)
    )
    return [Finding.of(check, items, mirrored=mirrored, counted=counted, better=better, decided=decided, p=p)]


def _standing(facts: LesionFacts, place: Place) -> str:
    return f"{facts.contrast[place]:+.1f} grey levels and {100 * facts.on_breast[place]:.0f} % on the breast"


def _mirrored(box_xyxy: BoxXYXY, size_hw: tuple[int, int], place: Place) -> BoxXYXY:
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    if place in ("flipped_x", "turned"):
        x1, x2 = width - x2, width - x1
    if place in ("flipped_y", "turned"):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


@grouped(least=WARNING_ON_BREAST)
def check_on_breast(images: Sequence[AuditedImage]) -> Found:
    """Lesions lie on the breast; `check_origin` reports those that a wrong origin explains."""
    wrong = find_wrong_origin(images)
    for image, position, _, facts in _each_lesion(images):
        share = facts.on_breast["here"]
        explained = wrong is not None and facts.on_breast[wrong[0]] >= WARNING_ON_BREAST
        if share < WARNING_ON_BREAST and not explained:
            check = "lesion_off_breast" if share < ERROR_ON_BREAST else "lesion_half_off_breast"
            yield _of(image, position, check, f"{100 * share:.0f} % of it on the breast")


@grouped(most=MOST_BOX_DIFFERENCE)
def check_mask_against_box(images: Sequence[AuditedImage]) -> Found:
    """A lesion's box is the tight box of its mask."""
    for image in own(images):
        for position, lesion in enumerate(image.record.lesions):
            if lesion.rle is None:
                continue
            mask_box, box = np.array(rle_box(lesion.rle)), np.array(lesion.box_xyxy)
            if lesion.geometry == "circle":
                # A circle's box may be written whole where its mask is cut at the image's border.
                height, width = image.record.size_hw
                box = np.clip(box, 0, [width, height, width, height])
            apart = float(np.abs(mask_box - box).max())
            if apart > MOST_BOX_DIFFERENCE:
                tight = [round(float(value), 1) for value in (*mask_box[:2], *(mask_box[2:] - mask_box[:2]))]
                yield _of(image, position, "mask_against_box", f"its mask's box is {tight}, {apart:.1f} px off")


@grouped(largest=LARGEST_SHARE, smallest=SMALLEST_SIDE, same=SAME_LESION_IOU)
def check_boxes(images: Sequence[AuditedImage]) -> Found:
    """Boxes are neither specks nor half the image, and no lesion stands twice on it."""
    for image in own(images):
        boxes = [lesion.box_xyxy for lesion in image.record.lesions]
        for position, (x1, y1, x2, y2) in enumerate(boxes):
            share = (x2 - x1) * (y2 - y1) / (image.record.size_hw[0] * image.record.size_hw[1])
            side = min(x2 - x1, y2 - y1)
            overlap = box_iou([boxes[position]], boxes[:position])[0]
            if share > LARGEST_SHARE:
                yield _of(image, position, "huge_lesion", f"covers {100 * share:.0f} % of the image")
            if side < SMALLEST_SIDE:
                yield _of(image, position, "tiny_lesion", f"its shorter side is {side:.1f} px")
            if len(overlap) and overlap.max() > SAME_LESION_IOU:
                text = f"the same place as lesion {int(overlap.argmax()) + 1} (IoU {overlap.max():.2f})"
                yield _of(image, position, "duplicate_lesion", text)


@grouped()
def check_labels(images: Sequence[AuditedImage]) -> Found:
    """Labels of an image do not contradict its lesions or each other; a positive one has lesions, or says why not."""
    for image in own(images):
        record = image.record
        if faults := _conflicts(image):
            yield "label_conflict", Item(f"{image.name}: {'; '.join(faults)}", (image,))
        if record.label("tumor") == 1 and not record.lesions and not record.unlocalized:
            text = f"{image.name}: tumor=1, no lesion, not `unlocalized`"
            yield "positive_without_lesion", Item(text, (image,))


def _conflicts(image: AuditedImage) -> list[str]:
    record = image.record
    tumor, malignant = record.label("tumor"), record.label("malignant")
    lesions = [lesion for lesion in record.lesions if not lesion.ignore]
    kinds = [pathology(lesion) for lesion in lesions]
    faults = []
    if tumor == 0 and lesions:
        faults.append(f"tumor=0 with {count(len(lesions), 'lesion')}")
    if tumor == 0 and record.unlocalized:
        faults.append("tumor=0, but a lesion is known that has no place (unlocalized)")
    if tumor == 0 and malignant == 1:
        faults.append("tumor=0, but malignant=1")
    if malignant == 0 and "malignant" in kinds:
        faults.append("malignant=0 with a malignant lesion")
    if malignant == 1 and kinds and not record.unlocalized and all(kind == "benign" for kind in kinds):
        faults.append("malignant=1, but every lesion is benign")
    return faults
