"""Checks of image files: there, whole, of the size that the JSON says, of full depth, and on the side it says."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mammodet.audit.findings import AuditedImage, Finding, Found, Item, count, grouped, own

LEAST_SIDE = 0.15  # of 322 mini-MIAS films the side is wrong on two, both below it
LEAST_MAJORITY = 0.8
FEWEST_SIDES = 5


def _of(image: AuditedImage, check: str, text: str) -> tuple[str, Item]:
    return check, Item(f"{image.name}: {text}", (image,))


@grouped()
def check_files(images: Sequence[AuditedImage]) -> Found:
    """Every image file is there, can be read to its end, and shows something."""
    for image in own(images):
        facts = image.facts
        if facts.is_missing:
            yield _of(image, "missing_image", f"no such file: {image.path}")
        elif facts.fault is not None:
            yield _of(image, "unreadable_image", facts.fault)
        elif facts.is_flat:
            yield _of(image, "constant_image", f"{100 * facts.flat_share:.2f} % of its pixels have one value")


@grouped()
def check_size(images: Sequence[AuditedImage]) -> Found:
    """Every file has the size that the JSON says: else every box on it is misplaced."""
    for image in own(images):
        found, said = image.facts.size_hw, tuple(image.record.size_hw)
        if found is not None and found != said:
            text = f"the file has {found[0]}x{found[1]} px (height x width), the JSON says {said[0]}x{said[1]}"
            yield _of(image, "wrong_size", text)


@grouped()
def _lost_depth(images: Sequence[AuditedImage]) -> Found:
    for image in own(images):
        facts = image.facts
        if facts.bits == 16 and not facts.is_flat and facts.levels <= 256:
            yield _of(image, "depth_loss", f"a 16-bit file with {facts.levels} distinct grey values")
        if facts.is_jpeg:
            yield _of(image, "lossy_image", "a JPEG")


def check_depth(images: Sequence[AuditedImage]) -> list[Finding]:
    """Grey values were not thrown away on the way."""
    # Of files that are found fault with already there is nothing to add.
    eight = sum(image.facts.bits == 8 and not image.facts.is_jpeg for image in own(images))
    noted = [Finding.of("eight_bits", images=count(eight, "image"))] if eight else []
    return _lost_depth(images) + noted


def _sides(images: Sequence[AuditedImage]) -> Iterator[tuple[str, list[tuple[AuditedImage, bool]], int]]:
    """Of each source with enough of them: its images, whether a left breast is seen on the left, and on how many."""
    sides: dict[str, list[tuple[AuditedImage, bool]]] = defaultdict(list)
    for image in images:
        side = image.facts.tissue_side
        if image.record.laterality is not None and abs(side) >= LEAST_SIDE:
            sides[image.record.source or ""].append((image, (side < 0) == (image.record.laterality == "L")))
    for source, members in sides.items():
        if len(members) >= FEWEST_SIDES:
            yield source, members, sum(straight for _, straight in members)


@grouped()
def _wrong_sides(images: Sequence[AuditedImage]) -> Found:
    for _, members, straight in _sides(images):
        majority = max(straight, len(members) - straight)
        if majority < LEAST_MAJORITY * len(members):
            continue
        usual = straight == majority
        way = f"in {majority} of {len(members)} images left breasts have it on the {'left' if usual else 'right'}"
        for image, as_seen in members:
            if as_seen != usual and image.is_own:
                where = "left" if image.facts.tissue_side < 0 else "right"
                text = f"laterality {image.record.laterality}, chest wall on the {where}; {way}"
                yield _of(image, "wrong_laterality", text)


def check_laterality(images: Sequence[AuditedImage]) -> list[Finding]:
    """The chest wall lies on the side that the laterality says, by the convention that the data set follows."""
    without = [
        Finding.of(
            "no_side_convention",
            where=f" in {source}" if source else "",
            straight=straight,
            number=len(members),
            least=LEAST_MAJORITY,
        )
        for source, members, straight in _sides(images)
        if max(straight, len(members) - straight) < LEAST_MAJORITY * len(members)
    ]
    return without + _wrong_sides(images)
