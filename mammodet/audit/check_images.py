"""Checks of image files: there, whole, of the size that the JSON says, of full depth, and on the side it says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from mammodet.audit.findings import AuditedImage, Finding, Item, Severity, count, own

LEAST_SIDE = 0.15  # of 322 mini-MIAS films the side is wrong on two, both below it
LEAST_MAJORITY = 0.8
FEWEST_SIDES = 5


def _select(
    images: Sequence[AuditedImage],
    check: str,
    severity: Severity,
    what: str,
    text_of: Callable[[AuditedImage], str | None],
    *,
    expected: str,
    advice: str,
) -> list[Finding]:
    """One finding of all images of the audited file for which `text_of` gives a text."""
    items = tuple(Item(text, (image,)) for image in own(images) if (text := text_of(image)) is not None)
    if not items:
        return []
    return [Finding(check, severity, f"{count(len(items), 'image')} {what}", expected, advice, items)]


def check_missing(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every image file is there."""

    def text_of(image: AuditedImage) -> str | None:
        return f"{image.name}: no such file: {image.path}" if image.facts.is_missing else None

    return _select(
        images,
        "missing_image",
        "error",
        "without a file",
        text_of,
        expected="Every file_name leads to a file, counted from the JSON's folder.",
        advice="Copy the missing images, or re-run the converter.",
    )


def check_unreadable(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every image file can be read to its end."""

    def text_of(image: AuditedImage) -> str | None:
        facts = image.facts
        return None if facts.fault is None or facts.is_missing else f"{image.name}: {facts.fault}"

    return _select(
        images,
        "unreadable_image",
        "error",
        "that cannot be read",
        text_of,
        expected="Whole files of 8- or 16-bit grey pixels.",
        advice="Copy or download these files again, and re-run the converter.",
    )


def check_constant(images: Sequence[AuditedImage]) -> list[Finding]:
    """Something is to be seen on every image."""

    def text_of(image: AuditedImage) -> str | None:
        facts = image.facts
        if not facts.is_flat:
            return None
        return f"{image.name}: {100 * facts.flat_share:.2f} % of its pixels have one value"

    return _select(
        images,
        "constant_image",
        "error",
        "with nothing on it",
        text_of,
        expected="More than one grey value on more than a thousandth of the pixels.",
        advice="Look at the original: a wrong window, a blank frame, a failed decoder? Convert again, or leave it out.",
    )


def check_size(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every file has the size that the JSON says: else every box on it is misplaced."""

    def text_of(image: AuditedImage) -> str | None:
        found, said = image.facts.size_hw, tuple(image.record.size_hw)
        if found is None or found == said:
            return None
        return (
            f"{image.name}: the file has {found[0]}x{found[1]} px (height x width), the JSON says {said[0]}x{said[1]}"
        )

    return _select(
        images,
        "wrong_size",
        "error",
        "whose file has another size than the JSON says",
        text_of,
        expected="Equal sizes: boxes and masks count in pixels of the file.",
        advice="Do not resize images after the conversion; re-run the converter on the copies that you want to use.",
    )


def check_depth(images: Sequence[AuditedImage]) -> list[Finding]:
    """Grey values were not thrown away on the way."""

    def shallow(image: AuditedImage) -> str | None:
        facts = image.facts
        if facts.bits != 16 or facts.is_flat or facts.levels > 256:
            return None
        return f"{image.name}: a 16-bit file with {facts.levels} distinct grey values"

    def lossy(image: AuditedImage) -> str | None:
        return f"{image.name}: a JPEG" if image.facts.is_jpeg else None

    found = _select(
        images,
        "depth_loss",
        "warning",
        "of 16 bits with no more than 256 grey values",
        shallow,
        expected="Mammograms have 10 to 16 bits; a 16-bit file that holds 8 bits was windowed or converted on the way.",
        advice="Convert from the originals (DICOM or 16-bit PNG), without a detour over 8 bits.",
    )
    found += _select(
        images,
        "lossy_image",
        "warning",
        "compressed with loss (JPEG)",
        lossy,
        expected="Lossless files: JPEG blurs calcifications and leaves blocks.",
        advice="Convert from the originals, if there are any; else say in the report that images are JPEGs.",
    )
    # Of files that are found fault with already there is nothing to add.
    eight = [image for image in own(images) if image.facts.bits == 8 and not image.facts.is_jpeg]
    if eight:
        found.append(
            Finding(
                "eight_bits",
                "note",
                f"{count(len(eight), 'image')} of 8 bits",
                "10 to 16 bits, as mammograms have; some archives (mini-MIAS) were published with 8.",
                "If the archive has deeper originals, convert those.",
            )
        )
    return found


def check_laterality(images: Sequence[AuditedImage]) -> list[Finding]:
    """The chest wall lies on the side that the laterality says, by the convention that the data set follows."""
    sides: dict[str, list[tuple[AuditedImage, bool]]] = defaultdict(list)
    for image in images:
        side = image.facts.tissue_side
        if image.record.laterality is not None and abs(side) >= LEAST_SIDE:
            as_seen = (side < 0) == (image.record.laterality == "L")
            sides[image.record.source or ""].append((image, as_seen))
    items: list[Item] = []
    found = []
    for source, members in sides.items():
        if len(members) < FEWEST_SIDES:
            continue
        straight = sum(as_seen for _, as_seen in members)
        majority = max(straight, len(members) - straight)
        if majority < LEAST_MAJORITY * len(members):
            found.append(_no_convention(source, straight, len(members)))
            continue
        usual = straight == majority
        way = f"left breasts have it on the {'left' if usual else 'right'}"
        for image, as_seen in members:
            if as_seen != usual and image.is_own:
                where = "left" if image.facts.tissue_side < 0 else "right"
                items.append(
                    Item(
                        f"{image.name}: laterality {image.record.laterality}, chest wall on the {where}; "
                        f"in {majority} of {len(members)} images {way}",
                        (image,),
                    )
                )
    if items:
        found.append(
            Finding(
                "wrong_laterality",
                "warning",
                f"{count(len(items), 'image')} whose tissue lies on the other side than the laterality says",
                "One convention in all images of an archive; here it is the majority's.",
                "Look at these: a wrong L/R in the table, or a mirrored file? Breast scores join images by laterality.",
                tuple(items),
            )
        )
    return found


def _no_convention(source: str, straight: int, total: int) -> Finding:
    return Finding(
        "no_side_convention",
        "note",
        f"laterality and tissue follow no rule{f' in {source}' if source else ''}: "
        f"left is left in {straight} of {total} images",
        f"At least {100 * LEAST_MAJORITY:.0f} % of the images follow one convention.",
        "Were images mirrored at random, or to one side? Then no flip of an image tells its side.",
    )
