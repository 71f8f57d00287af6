"""A small archive of synthetic mammograms, in the layout of mini-MIAS, quirks included.

`mdb001.pgm ...` are binary 8-bit PGM; `Info.txt` has one line per lesion, with y counted from the bottom
(row = size - 1 - y); odd numbers are right breasts, even ones left, two to a patient. Nothing in it comes
from a real patient. An image depends on the seed, its number and the options, not on how many are made, so
that a small archive is the beginning of a larger one.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.files import write_bytes
from mammodet.geometry import circle_mask
from mammodet.phantom import FILE_QUIRKS, LESION_QUIRKS, MiasPhantom
from mammodet.phantom.archive import draw_all, make_room
from mammodet.phantom.breast import Breast, add_centred, draw_breast, draw_shape
from mammodet.phantom.film import finish_film
from mammodet.phantom.lesions import DIFFICULTIES, SUBTLE, choose_place, draw_mass, draw_widespread_calcifications

BLOCK = 24  # images that are planned together, so that the fractions hold in small archives, too
MALIGNANT_FRACTION = {"CIRC": 0.2, "SPIC": 0.75, "MISC": 0.5, "CALC": 0.5, "ARCH": 0.5, "ASYM": 0.5}
DENSITY_WEIGHTS = {"F": 0.33, "G": 0.32, "D": 0.35}


@dataclass(frozen=True, slots=True)
class PhantomSummary:
    """What an archive holds: the answers that a converter of it must find."""

    images: int  #: PGM files, whole or cut short
    patients: int  #: women, two images each
    classes: dict[str, int]  #: abnormality to its lines in Info.txt; `NORM` counts normal images
    severities: dict[str, int]  #: `B`, `M` to lines
    circles: int  #: lines with x, y and radius, those on background included
    abnormal_images: tuple[str, ...]  #: ids with at least one abnormal line, rising
    #: quirk to the ids of the images that show it, rising; every requested quirk is a key.
    quirks: dict[str, tuple[str, ...]]

    def to_text(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.images} images of {self.patients} patients"]
        lines.append(f"  abnormal images {len(self.abnormal_images)}, circles {self.circles}")
        lines.append("  lines " + ", ".join(f"{name} {count}" for name, count in self.classes.items()))
        for name, ids in self.quirks.items():
            shown = " ".join(ids[:6]) + (" ..." if len(ids) > 6 else "") or "no room in so few images"
            lines.append(f"  {name}: {'Info.txt' if name == 'crlf' else shown}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What is to be drawn on one image: `findings` are (class, severity), one per line of Info.txt."""

    number: int
    density: str
    findings: tuple[tuple[str, str], ...]
    quirks: frozenset[str]
    difficulty: str = "realistic"

    @property
    def image_id(self) -> str:
        """`mdb001` for number 1."""
        return f"mdb{self.number:03d}"

    @property
    def laterality(self) -> str:
        """Odd numbers are right breasts, even ones left."""
        return "R" if self.number % 2 else "L"


@dataclass(frozen=True, slots=True)
class Phantom:
    """A drawn image."""

    pixels: NDArray[np.uint8]  #: uint8 (size, size)
    lines: tuple[str, ...]  #: its lines of Info.txt, without line ends
    #: a bool (size, size) mask per finding, also for those that have no circle or a wrong one.
    truth: tuple[NDArray[np.bool_], ...]


def write_mias_archive(output: Path, *, progress: bool = True, **options: Any) -> PhantomSummary:
    """Write a synthetic archive into a new or empty folder, or in place of an older one; `options` of `MiasPhantom`.

    Raises InputError: an option is out of range, or the folder holds something else.
    """
    chosen = MiasPhantom(**options)
    make_room(output, ("Info.txt", "mdb[0-9][0-9][0-9].pgm"), "the mini-MIAS database of mammograms")
    plans = [
        plan_image(
            number,
            seed=chosen.seed,
            quirks=chosen.placed,
            abnormal_fraction=chosen.abnormal_fraction,
            difficulty=chosen.difficulty,
        )
        for number in range(1, 2 * chosen.patients + 1)
    ]
    tasks = [(output, plan, chosen.seed, chosen.size) for plan in plans]
    lines_per_image = draw_all(_write_image, tasks, jobs=chosen.jobs, progress=progress)
    body = "".join(f"{line}\n" for lines in lines_per_image for line in lines)
    text = f"{_prose(chosen.size)}{body}\n{'=' * 65}\n"
    text = text.replace("\n", "\r\n") if "crlf" in chosen.placed else text
    write_bytes(output / "Info.txt", text.encode("ascii"))
    return _summarise(plans, lines_per_image, chosen.placed)


def plan_image(
    number: int,
    *,
    seed: int,
    quirks: Collection[str] = MiasPhantom.USUAL,
    abnormal_fraction: float = 0.5,
    difficulty: str = "realistic",
) -> ImagePlan:
    """Decide what image `number` (from 1) shows.

    The first `BLOCK` images show each quirk of lesions once, on the first abnormal ones, and each file quirk
    once, on the first others; a later block shows each quirk of lesions with a chance of 1 in 4.
    """
    block, slot = divmod(number - 1, BLOCK)
    rng = np.random.default_rng([seed, block, 1])
    known = sorted(LESION_QUIRKS)
    placed = [known[k] for k in rng.permutation(len(known)) if block == 0 or rng.random() < 0.25]
    placed = [name for name in placed if name in quirks]
    order = rng.permutation(BLOCK)
    abnormal_count = max(round(abnormal_fraction * BLOCK), len(placed) if abnormal_fraction > 0 else 0)
    abnormal = sorted(order[:abnormal_count].tolist())
    per_slot: dict[int, set[str]] = {k: set() for k in range(BLOCK)}
    for name, place in zip(placed, abnormal, strict=False):
        per_slot[place].add(name)
    if block == 0:
        free = sorted(order[abnormal_count:].tolist()) + abnormal[len(placed) :]
        for name, place in zip((name for name in FILE_QUIRKS if name in quirks), free, strict=False):
            per_slot[place].add(name)
    for name, chance in (("labels", 0.6), ("scan_edges", 0.25)):
        shown = rng.random(BLOCK) < chance
        shown[rng.integers(2)] |= block == 0
        if name in quirks and shown[slot] and "missing_image" not in per_slot[slot]:
            per_slot[slot].add(name)
    patient_rng = np.random.default_rng([seed, (number + 1) // 2, 2])
    density = str(patient_rng.choice(list(DENSITY_WEIGHTS), p=list(DENSITY_WEIGHTS.values())))
    image_rng = np.random.default_rng([seed, number, 3])
    classes = DIFFICULTIES[difficulty].classes
    findings = _draw_findings(image_rng, per_slot[slot], classes) if slot in abnormal else ()
    return ImagePlan(number, density, findings, frozenset(per_slot[slot]), difficulty)


def _draw_findings(
    rng: np.random.Generator, quirks: set[str], classes: Mapping[str, float]
) -> tuple[tuple[str, str], ...]:
    if "note3" in quirks:
        return (("CALC", "M"),)
    if "no_coordinates" in quirks:
        return (("CIRC", "B"),)
    if "circle_on_background" in quirks:
        return (("CALC", "B"),)
    kinds = [str(k) for k in rng.choice(list(classes), size=3, p=list(classes.values()))]
    severities = ["M" if rng.random() < MALIGNANT_FRACTION[kind] else "B" for kind in kinds]
    if "benign_and_malignant" in quirks:
        return (kinds[0], "B"), (kinds[1], "M")
    if "several_lesions" in quirks:
        return ((kinds[0], severities[0]),) * int(rng.integers(2, 4))
    return ((kinds[0], severities[0]),)


def draw_phantom(plan: ImagePlan, *, seed: int, size: int) -> Phantom:
    """Draw a planned image; a function of its arguments alone."""
    patient_rng = np.random.default_rng([seed, (plan.number + 1) // 2, 4])
    rng = np.random.default_rng([seed, plan.number, 5])
    shape = draw_shape(patient_rng)
    level = DIFFICULTIES[plan.difficulty]
    breast = draw_breast(rng, size, plan.laterality, plan.density, shape, level.clutter)
    image = breast.image.copy()
    free = breast.tissue & ~breast.muscle
    places: list[tuple[int, int, int]] = []  # row, column, radius
    truth: list[NDArray[np.bool_]] = []
    for kind, _ in plan.findings:
        subtle = rng.random() < level.subtle_fraction and "no_coordinates" not in plan.quirks
        contrast = rng.uniform(*(SUBTLE if subtle else level.contrast))
        if "note3" in plan.quirks:
            added, mask = draw_widespread_calcifications(rng, breast, contrast)
            image += added
        else:
            row, column, radius = choose_place(rng, kind, free, breast.gland, level.smallest)
            patch = draw_mass(rng, kind, radius, contrast)
            add_centred(image, patch.added, (row, column))
            mask = np.zeros((size, size), np.bool_)
            add_centred(mask, patch.mask, (row, column))
            free &= ~circle_mask((column + 0.5, row + 0.5), 1.2 * radius, free.shape)
            places.append((row, column, radius))
        truth.append(mask)
    pixels = finish_film(rng, breast, image, labels="labels" in plan.quirks, scan_edges="scan_edges" in plan.quirks)
    if "circle_on_background" in plan.quirks:
        places = [_place_off_breast(rng, pixels, breast)]
    return Phantom(pixels, _info_lines(plan, places, size), tuple(truth))


def _place_off_breast(rng: np.random.Generator, pixels: NDArray[np.uint8], breast: Breast) -> tuple[int, int, int]:
    """A tiny circle on dark film or padding, whichever end y is counted from."""
    size = pixels.shape[0]
    radius = max(1, round(size * rng.uniform(0.003, 0.011)))
    occupied = ((pixels > 40) | breast.tissue).astype(np.uint8)
    occupied |= occupied[::-1]
    dark = cv2.distanceTransform(1 - occupied, cv2.DIST_L2, 3) > radius + 0.02 * size
    dark[:, : radius + 1] = dark[:, size - radius - 1 :] = False
    dark[: radius + 1] = dark[size - radius - 1 :] = False
    on_film = np.zeros_like(dark)
    on_film[:, slice(*breast.film_columns)] = True
    choices = np.flatnonzero(dark & on_film)
    choices = choices if len(choices) else np.flatnonzero(dark)
    row, column = divmod(int(rng.choice(choices)), size)
    return row, column, radius


def _info_lines(plan: ImagePlan, places: list[tuple[int, int, int]], size: int) -> tuple[str, ...]:
    start = f"{plan.image_id} {plan.density}"
    if "missing_line" in plan.quirks:
        return ()
    if not plan.findings:
        return (f"{start} NORM ",)
    if "note3" in plan.quirks:
        return tuple(f"{start} {kind} {severity} *NOTE 3* " for kind, severity in plan.findings)
    if "no_coordinates" in plan.quirks:
        return tuple(f"{start} {kind} {severity}" for kind, severity in plan.findings)
    return tuple(
        f"{start} {kind} {severity} {column} {size - 1 - row} {radius}"
        for (kind, severity), (row, column, radius) in zip(plan.findings, places, strict=True)
    )


def _write_image(output: Path, plan: ImagePlan, seed: int, size: int) -> tuple[str, ...]:
    """Draw and write one image; returns its lines of Info.txt."""
    phantom = draw_phantom(plan, seed=seed, size=size)
    if "missing_image" not in plan.quirks:
        content = f"P5\n{size} {size}\n255\n".encode() + phantom.pixels.tobytes()
        content = content[: len(content) * 3 // 5] if "truncated_image" in plan.quirks else content
        write_bytes(output / f"{plan.image_id}.pgm", content)
    return phantom.lines


def _summarise(
    plans: list[ImagePlan], lines_per_image: list[tuple[str, ...]], quirks: Collection[str]
) -> PhantomSummary:
    fields = [line.split() for lines in lines_per_image for line in lines]
    placed = {
        name: tuple(plan.image_id for plan in plans if name in plan.quirks)
        for name in MiasPhantom.QUIRKS
        if name in quirks
    }
    return PhantomSummary(
        images=sum("missing_image" not in plan.quirks for plan in plans),
        patients=len(plans) // 2,
        classes=dict(sorted(Counter(field[2] for field in fields).items())),
        severities=dict(sorted(Counter(field[3] for field in fields if len(field) > 3).items())),
        circles=sum(len(field) == 7 and field[4].isdigit() for field in fields),
        abnormal_images=tuple(dict.fromkeys(field[0] for field in fields if field[2] != "NORM")),
        quirks=placed,
    )


def _prose(size: int) -> str:
    """What stands above the lines, as in the original, which readers must pass over."""
    return f"""                  SYNTHETIC MAMMOGRAMS
            in the layout of the mini-MIAS database

Every image here was computed; none shows a patient. See Licence.txt.

INFORMATION:

1st column: number of the image; 2nd: F fatty, G fatty-glandular, D dense-glandular tissue; 3rd: class
                CALC - Calcification
                NORM - Normal
4th column: B benign, M malignant; 5th to 7th: x, y of the centre (origin bottom-left) and radius of a circle, in
pixels; left out where calcifications lie all over the breast (NOTE 3).

NOTES
=====
2) Every image is {size} pixels x {size} pixels. Odd numbers are right breasts, even ones left, two to a patient.

{"=" * 65}

"""
