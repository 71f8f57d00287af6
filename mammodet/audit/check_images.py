"""Checks of image files: there, whole, of the size that the JSON says, of full depth, and on the side it says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from mammodet.audit.findings import AuditedImage, Finding, Item, count, own

LEAST_SIDE = 0.15  # of 322 mini-MIAS films the side is wrong on two, both below it
LEAST_MAJORITY = 0.8
FEWEST_SIDES = 5


def _each(images: Sequence[AuditedImage], text_of: Callable[[AuditedImage], str | None]) -> Iterator[Item]:
    """An item of each image of the audited file for which `text_of` gives a text."""
    for image in own(images):
        text = text_of(image)
        if text is not None:
            yield Item(f"{image.name}: {text}", (image,))


def check_missing(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every image file is there."""
    return Finding.of(
        _each(images, lambda image: f"no such file: {image.path}" if image.facts.is_missing else None),
        "missing_image",
        "error",
        "without a file",
        "Every file_name leads to a file, counted from the JSON's folder.",
        "Copy the missing images, or re-run the converter.",
    )


def check_unreadable(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every image file can be read to its end."""
    return Finding.of(
        _each(images, lambda image: None if image.facts.is_missing else image.facts.fault),
        "unreadable_image",
        "error",
        "that cannot be read",
        "Whole files of 8- or 16-bit grey pixels.",
        "Copy or download these files again, and re-run the converter.",
    )


def check_constant(images: Sequence[AuditedImage]) -> list[Finding]:
    """Something is to be seen on every image."""

    def text_of(image: AuditedImage) -> str | None:
        share = 100 * image.facts.flat_share
        return f"{share:.2f} % of its pixels have one value" if image.facts.is_flat else None

    return Finding.of(
        _each(images, text_of),
        "constant_image",
        "error",
        "with nothing on it",
        "More than one grey value on more than a thousandth of the pixels.",
        "Look at the original: a wrong window, a blank frame, a failed decoder? Convert again, or leave it out.",
        pictured=False,
    )


def check_size(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every file has the size that the JSON says: else every box on it is misplaced."""

    def text_of(image: AuditedImage) -> str | None:
        found, said = image.facts.size_hw, tuple(image.record.size_hw)
        if found is None or found == said:
            return None
        return f"the file has {found[0]}x{found[1]} px (height x width), the JSON says {said[0]}x{said[1]}"

    return Finding.of(
        _each(images, text_of),
        "wrong_size",
        "error",
        "whose file has another size than the JSON says",
        "Equal sizes: boxes and masks count in pixels of the file.",
        "Do not resize images after the conversion; re-run the converter on the copies that you want to use.",
    )


def check_depth(images: Sequence[AuditedImage]) -> list[Finding]:
    """Grey values were not thrown away on the way."""

    def shallow(image: AuditedImage) -> str | None:
        facts = image.facts
        if facts.bits != 16 or facts.is_flat or facts.levels > 256:
            return None
        return f"a 16-bit file with {facts.levels} distinct grey values"

    found = Finding.of(
        _each(images, shallow),
        "depth_loss",
        "warning",
        "of 16 bits with no more than 256 grey values",
        "Mammograms have 10 to 16 bits; a 16-bit file that holds 8 bits was windowed or converted on the way.",
        "Convert from the originals (DICOM or 16-bit PNG), without a detour over 8 bits.",
        pictured=False,
    ) + Finding.of(
        _each(images, lambda image: "a JPEG" if image.facts.is_jpeg else None),
        "lossy_image",
        "warning",
        "compressed with loss (JPEG)",
        "Lossless files: JPEG blurs calcifications and leaves blocks.",
        "Convert from the originals, if there are any; else say in the report that images are JPEGs.",
        pictured=False,
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
            found.append(
                Finding(
                    "no_side_convention",
                    "note",
                    f"laterality and tissue follow no rule{f' in {source}' if source else ''}: "
                    f"left is left in {straight} of {len(members)} images",
                    f"At least {100 * LEAST_MAJORITY:.0f} % of the images follow one convention.",
                    "Were images mirrored at random, or to one side? Then no flip of an image tells its side.",
                )
            )
            continue
        usual = straight == majority
        way = f"in {majority} of {len(members)} images left breasts have it on the {'left' if usual else 'right'}"
        for image, as_seen in members:
            if as_seen != usual and image.is_own:
                where = "left" if image.facts.tissue_side < 0 else "right"
                text = f"{image.name}: laterality {image.record.laterality}, chest wall on the {where}; {way}"
                items.append(Item(text, (image,)))
    return found + Finding.of(
        items,
        "wrong_laterality",
        "warning",
        "whose tissue lies on the other side than the laterality says",
        "One convention in all images of an archive; here it is the majority's.",
        "Look at these: a wrong L/R in the table, or a mirrored file? Breast scores join images by laterality.",
    )
