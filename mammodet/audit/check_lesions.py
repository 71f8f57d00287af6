"""Checks of lesions: on the breast, the right way up, masks and boxes as one, and no contradiction with the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import binomtest

from mammodet.audit.facts import LesionFacts, Place
from mammodet.audit.findings import AuditedImage, Finding, Item, Severity, count, is_mass, own, pathology
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


def _each(
    images: Sequence[AuditedImage], check: str, text_of: Callable[[AuditedImage, int, Lesion], str | None]
) -> Iterator[Item]:
    """An item of each lesion of the audited file for which `text_of` gives a text, marked with the check's name."""
    for image in own(images):
        for position, lesion in enumerate(image.record.lesions):
            text = text_of(image, position, lesion)
            if text is not None:
                mark = check.replace("_", " "), lesion.box_xyxy
                yield Item(f"{image.lesion_name(position)}: {text}", (image,), (mark,))


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
    return Finding.of(
        items,
        check,
        "error",
        f"lesions seem to be {mirrored} ({counted} counted from the other end): {better} of {decided} fit better at "
        f"the mirrored place (p = {p:.2g})",
        "Where they are said to be, masses are brighter than the ring around them, and lesions lie on the breast.",
        "Check from which corner the archive counts (mini-MIAS: bottom-left), and whether images were flipped "
        "without their boxes; then re-run the converter. Lesions off the breast that it explains are listed here.",
        counted="",
    )


def _standing(facts: LesionFacts, place: Place) -> str:
    return f"{facts.contrast[place]:+.1f} grey levels and {100 * facts.on_breast[place]:.0f} % on the breast"


def _mirrored(box_xyxy: BoxXYXY, size_hw: tuple[int, int], place: Place) -> BoxXYXY:
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    if place in ("flipped_x", "turned"):
        x1, x2 = width - x2, width - x1
    if place in ("flipped_y", "turned"):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def check_on_breast(images: Sequence[AuditedImage]) -> list[Finding]:
    """Lesions lie on the breast; `check_origin` reports those that a wrong origin explains."""
    wrong = find_wrong_origin(images)
    shares = {
        (image.record.image_id, position): facts.on_breast["here"]
        for image, position, _, facts in _each_lesion(images)
        if wrong is None or not facts.on_breast["here"] < WARNING_ON_BREAST <= facts.on_breast[wrong[0]]
    }

    def found(check: str, severity: Severity, what: str, low: float, high: float) -> list[Finding]:
        def text_of(image: AuditedImage, position: int, lesion: Lesion) -> str | None:
            share = shares.get((image.record.image_id, position), 1.0)
            return f"{100 * share:.0f} % of it on the breast" if low <= share < high else None

        return Finding.of(
            _each(images, check, text_of),
            check,
            severity,
            what,
            f"At least {100 * WARNING_ON_BREAST:.0f} % of a lesion's mask on tissue, as found on the image.",
            "Look at the pictures: a wrong place, a box of another image size, or a breast that was not found. "
            "Leave out lesions whose place is wrong, and mark their images `unlocalized`.",
            counted="lesion",
        )

    return [
        *found("lesion_off_breast", "error", "off the breast", -1.0, ERROR_ON_BREAST),
        *found(
            "lesion_half_off_breast",
            "warning",
            "more than half off the breast",
            ERROR_ON_BREAST,
            WARNING_ON_BREAST,
        ),
    ]


def check_mask_against_box(images: Sequence[AuditedImage]) -> list[Finding]:
    """A lesion's box is the tight box of its mask."""

    def text_of(image: AuditedImage, position: int, lesion: Lesion) -> str | None:
        if lesion.rle is None:
            return None
        mask_box = np.array(rle_box(lesion.rle))
        box = np.array(lesion.box_xyxy)
        if lesion.geometry == "circle":
            # A circle's box may be written whole where its mask is cut at the image's border.
            height, width = image.record.size_hw
            box = np.clip(box, 0, [width, height, width, height])
        apart = float(np.abs(mask_box - box).max())
        if apart <= MOST_BOX_DIFFERENCE:
            return None
        tight = [round(float(value), 1) for value in (*mask_box[:2], *(mask_box[2:] - mask_box[:2]))]
        return f"its mask's box is {tight}, {apart:.1f} px off"

    return Finding.of(
        _each(images, "mask_against_box", text_of),
        "mask_against_box",
        "error",
        "whose box is not that of the mask",
        f"Equal to {MOST_BOX_DIFFERENCE:g} px on every side.",
        "One of both belongs to another lesion or image size. Mend the masks, and take the boxes from them.",
        counted="lesion",
    )


def check_lesion_size(images: Sequence[AuditedImage]) -> list[Finding]:
    """Boxes are neither specks nor half the image."""

    def huge(image: AuditedImage, position: int, lesion: Lesion) -> str | None:
        x1, y1, x2, y2 = lesion.box_xyxy
        share = (x2 - x1) * (y2 - y1) / (image.record.size_hw[0] * image.record.size_hw[1])
        return f"covers {100 * share:.0f} % of the image" if share > LARGEST_SHARE else None

    def tiny(image: AuditedImage, position: int, lesion: Lesion) -> str | None:
        x1, y1, x2, y2 = lesion.box_xyxy
        side = min(x2 - x1, y2 - y1)
        return f"its shorter side is {side:.1f} px" if side < SMALLEST_SIDE else None

    return Finding.of(
        _each(images, "huge_lesion", huge),
        "huge_lesion",
        "warning",
        f"that cover more than {100 * LARGEST_SHARE:.0f} % of their image",
        "A lesion is a part of the breast.",
        "A breast taken for its lesion, or a box in pixels of another image size? Mark such lesions `ignore`.",
        counted="lesion",
    ) + Finding.of(
        _each(images, "tiny_lesion", tiny),
        "tiny_lesion",
        "warning",
        f"with a side under {SMALLEST_SIDE:g} px",
        f"At least {SMALLEST_SIDE:g} px: smaller boxes vanish when the image is scaled down.",
        "A click instead of an outline, or pixels of a smaller image? Train at full size, or leave them out.",
        counted="lesion",
    )


def check_duplicate_lesions(images: Sequence[AuditedImage]) -> list[Finding]:
    """No lesion stands twice on one image."""

    def text_of(image: AuditedImage, position: int, lesion: Lesion) -> str | None:
        earlier = [other.box_xyxy for other in image.record.lesions[:position]]
        overlap = box_iou([lesion.box_xyxy], earlier)[0]
        if not len(overlap) or overlap.max() <= SAME_LESION_IOU:
            return None
        return f"the same place as lesion {int(overlap.argmax()) + 1} (IoU {overlap.max():.2f})"

    return Finding.of(
        _each(images, "duplicate_lesion", text_of),
        "duplicate_lesion",
        "warning",
        "at the place of another one",
        f"Boxes of one image overlap by less than {SAME_LESION_IOU:g} (IoU).",
        "The archive has the line twice, or two readers' outlines of one lesion. Keep one: the second is "
        "counted as missed.",
        counted="lesion",
    )


def check_labels(images: Sequence[AuditedImage]) -> list[Finding]:
    """Labels of an image do not contradict its lesions or each other."""
    members = own(images)
    return Finding.of(
        (Item(f"{image.name}: {'; '.join(faults)}", (image,)) for image in members if (faults := _conflicts(image))),
        "label_conflict",
        "error",
        "whose labels contradict themselves or the lesions",
        "tumor=1 where there is a lesion, malignant=1 where one is malignant; null where it is not known.",
        "Find out which is right, in the archive's table. The image label takes the worst of its lesions.",
    ) + Finding.of(
        (
            Item(f"{image.name}: tumor=1, no lesion, not `unlocalized`", (image,))
            for image in members
            if image.record.label("tumor") == 1 and not image.record.lesions and not image.record.unlocalized
        ),
        "positive_without_lesion",
        "warning",
        "without a lesion",
        "A positive image has lesions, or says `unlocalized: true`.",
        "Set `unlocalized`: else the lesion, wherever it is, is learnt as background.",
        counted="positive image",
    )


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
