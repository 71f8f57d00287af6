"""Draws schematic mammograms: a breast on a film, lesions in it, and the marks that films carry.

Images under work are float32 (size, size) in [0, 1]; shapes are given as fractions of `size`, so that a
phantom looks alike at every size. Pixels are addressed by (row, column) of whole pixels, rows from the top.
Nothing here knows of files. Random parameters come from the generator that a caller passes, and from nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

DENSITIES = ("F", "G", "D")
CLASSES = ("CIRC", "SPIC", "MISC", "CALC", "ARCH", "ASYM")

# Smallest and largest radius of the enclosing circle, as a fraction of the image's side.
RADII = {
    "CIRC": (0.024, 0.080),
    "SPIC": (0.045, 0.120),
    "MISC": (0.032, 0.090),
    "CALC": (0.018, 0.050),
    "ARCH": (0.050, 0.110),
    "ASYM": (0.050, 0.100),
}
# Brightness that a clear and a subtle lesion add at their brightest.
CLEAR, SUBTLE = (0.15, 0.30), (0.06, 0.09)
SUBTLE_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard the lesions are to find.

    Attributes:
        classes: abnormality to its share among findings.
        contrast: brightness that a clear lesion adds at its brightest, lowest and highest.
        subtle_fraction: share of lesions that add only `SUBTLE`.
        clutter: strength of parenchyma, strands and decoys, 1 as in a real breast.
        smallest: least radius, as a fraction of the side.
    """

    classes: Mapping[str, float]
    contrast: tuple[float, float]
    subtle_fraction: float
    clutter: float
    smallest: float


DIFFICULTIES = {
    "realistic": Difficulty(
        {"CIRC": 0.28, "SPIC": 0.20, "MISC": 0.17, "CALC": 0.15, "ARCH": 0.10, "ASYM": 0.10},
        contrast=CLEAR,
        subtle_fraction=SUBTLE_FRACTION,
        clutter=1.0,
        smallest=0.0,
    ),
    # Masses only, plain to see: what a small network can learn in minutes without a GPU.
    "easy": Difficulty(
        {"CIRC": 0.5, "SPIC": 0.2, "MISC": 0.3},
        contrast=(0.28, 0.45),
        subtle_fraction=0.0,
        clutter=0.4,
        smallest=0.045,
    ),
}

FAT_LEVEL = {"F": 0.54, "G": 0.44, "D": 0.33}
GLAND_GAIN = {"F": 0.12, "G": 0.22, "D": 0.34}
GLAND_COVER = {"F": -0.30, "G": 0.0, "D": 0.25}


@dataclass(frozen=True, slots=True)
class BreastShape:
    """The outline that the two breasts of one woman share; lengths are fractions of the image's side.

    Attributes:
        reach: from the chest wall to the nipple.
        nipple_row: height of the nipple, from the top.
        above, below: how far the breast goes up and down from the nipple's row.
        axilla: width of the tissue at the top edge.
        fold: width of the tissue under the breast, at the bottom edge.
        muscle_width, muscle_height: sides of the pectoral triangle along the top and the chest wall.
        roll_off: depth over which the tissue thins towards the skin.
        margin: film beyond the nipple.
    """

    reach: float
    nipple_row: float
    above: float
    below: float
    axilla: float
    fold: float
    muscle_width: float
    muscle_height: float
    roll_off: float
    margin: float


@dataclass(frozen=True, slots=True)
class Breast:
    """A drawn breast, before lesions and film marks.

    Attributes:
        image: float32 (size, size) in [0, 1]; 0 beyond the film.
        tissue: bool (size, size), breast and muscle.
        muscle: bool (size, size), the pectoral triangle.
        gland: float32 (size, size) in [0, 1], how much parenchyma there is.
        film_columns: first column of the film and the one after its last.
        laterality: `R` with the chest wall on the right side of the film, `L` with it on the left.
    """

    image: Image
    tissue: Mask
    muscle: Mask
    gland: Image
    film_columns: tuple[int, int]
    laterality: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A lesion on its own: what it adds to the image, and where it is.

    Attributes:
        added: float32 (n, n), n odd, the lesion's centre in the middle pixel.
        mask: bool (n, n), the lesion's pixels, all within its radius of the middle.
    """

    added: Image
    mask: Mask


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Image:
    """Noise float32 (size, size) of deviation about 1 whose spots are about `size / cells` pixels wide."""
    cells = min(cells, size)
    return _upsample(rng.standard_normal((cells, cells), dtype=np.float32), size)


def layered_noise(rng: np.random.Generator, size: int, cells: tuple[int, ...], gain: float) -> Image:
    """Sum of `smooth_noise` over scales, each `gain` times the one before it; float32 (size, size)."""
    total = np.zeros((size, size), np.float32)
    for level, count in enumerate(cells):
        total += np.float32(gain**level) * smooth_noise(rng, size, count)
    return total


def _upsample(small: Image, size: int) -> Image:
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def draw_shape(rng: np.random.Generator) -> BreastShape:
    """A plausible outline for a mediolateral oblique view."""
    reach = rng.uniform(0.30, 0.50)
    axilla = rng.uniform(0.24, 0.34)
    return BreastShape(
        reach=reach,
        nipple_row=rng.uniform(0.52, 0.66),
        above=rng.uniform(0.50, 0.62),
        below=rng.uniform(0.30, 0.42),
        axilla=axilla,
        fold=rng.uniform(0.0, 0.03),
        muscle_width=axilla * rng.uniform(0.60, 0.90),
        muscle_height=rng.uniform(0.32, 0.60),
        roll_off=rng.uniform(0.11, 0.18),
        margin=rng.uniform(0.06, 0.14),
    )


def draw_breast(
    rng: np.random.Generator,
    size: int,
    laterality: str,
    density: str,
    shape: BreastShape | None = None,
    clutter: float = 1.0,
) -> Breast:
    """Breast with skin line, pectoral muscle, parenchyma and things that only look like lesions.

    Args:
        size: side of the square image in pixels.
        laterality: `L` or `R`.
        density: `F` fatty, `G` fatty-glandular or `D` dense-glandular: how much parenchyma, and how bright.
        shape: the outline; drawn from `rng` where None.
        clutter: strength of everything that a lesion can hide in or be taken for.
    """
    shape = shape or draw_shape(rng)
    film_width = round(size * min(shape.reach + shape.margin, 0.68))
    first = (size - film_width) // 2
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    rows = (centres[:, None] / np.float32(size)).astype(np.float32)
    depth = ((centres[None, :] - first) / np.float32(size)).astype(np.float32)  # from the chest wall

    inside = depth < _reach_per_row(rng, shape, rows)
    on_film = (depth >= 0) & (depth < film_width / size)
    from_skin = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3) / np.float32(size)
    thinning = 1 - np.minimum(from_skin / np.float32(shape.roll_off), 1)
    thickness = (1 - thinning**2) ** np.float32(0.65)

    gland = _draw_gland(rng, size, density, shape, rows, depth) * np.clip(from_skin / 0.03 - 0.4, 0, 1)
    strands = np.float32(clutter) * _draw_strands(rng, size, shape, rows, depth)
    image = np.float32(FAT_LEVEL[density]) * thickness * (1 + 0.05 * smooth_noise(rng, size, 6))
    image += thickness * strands * (0.07 + 0.06 * gland)
    grainy = layered_noise(rng, size, (24, 48, 96, 192), 0.7)
    image += np.float32(clutter * GLAND_GAIN[density]) * gland * (1 + 0.11 * grainy)
    image += 0.012 * grainy * thickness

    bow = rng.uniform(0.75, 1.15)
    muscle_reach = shape.muscle_width * np.clip(1 - rows / shape.muscle_height, 0, 1) ** bow
    muscle_amount = expit((muscle_reach - depth) / np.float32(0.006)) * np.minimum(from_skin / 0.03, 1)
    muscle_amount *= rows < shape.muscle_height
    muscle_level = rng.uniform(0.66, 0.78) + 0.02 * layered_noise(rng, size, (3, 12, 48), 0.7)
    image += np.float32(0.9) * muscle_amount * np.maximum(muscle_level - image, 0)
    for added in (_draw_decoys(rng, size, shape, first), _draw_vessels(rng, size, shape, first)):
        image += np.float32(clutter) * added * thickness

    image *= inside
    image += 0.05 * np.exp(-((from_skin / 0.004) ** 2)) * inside  # the skin itself
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.0012 * size)
    tissue, muscle = inside & on_film, (muscle_amount > 0.5) & on_film
    image = np.where(on_film, np.clip(image, 0, 1), 0).astype(np.float32)
    gland = np.clip(gland, 0, 1).astype(np.float32)
    columns = (first, first + film_width)
    if laterality == "R":
        image, gland = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(gland[:, ::-1])
        tissue, muscle = np.ascontiguousarray(tissue[:, ::-1]), np.ascontiguousarray(muscle[:, ::-1])
        columns = (size - columns[1], size - columns[0])
    return Breast(image, tissue, muscle, gland, columns, laterality)


def _reach_per_row(rng: np.random.Generator, shape: BreastShape, rows: Image) -> Image:
    """How far the tissue goes from the chest wall, as fractions of the side; float32 (size, 1)."""
    offset = rows - shape.nipple_row
    upper = np.clip(1 - (offset / shape.above) ** 2, 0, 1) ** 1.15
    lower = np.clip(1 - (offset / shape.below) ** 2, 0, 1) ** 0.55
    bulge = shape.reach * np.where(offset < 0, upper, lower)
    tail = shape.axilla * np.clip(1 - rows / (shape.nipple_row + 0.30), 0, 1) ** 0.6
    reach = (bulge**4 + tail**4 + np.float32(shape.fold * np.clip(rows, 0, 1)) ** 4) ** 0.25
    if rng.random() < 0.5:
        reach += 0.014 * np.exp(-((offset / 0.016) ** 2))  # the nipple
    waves = rng.uniform(0, 2 * np.pi, 3)
    reach += sum(0.003 * np.sin(2 * np.pi * (2 + k) * rows + wave) for k, wave in enumerate(waves))
    return np.asarray(reach, dtype=np.float32)


def _draw_gland(
    rng: np.random.Generator, size: int, density: str, shape: BreastShape, rows: Image, depth: Image
) -> Image:
    """How much parenchyma there is, float32 (size, size) in [0, 1]: a ragged cone behind the nipple."""
    centre = (shape.nipple_row + rng.uniform(-0.07, 0.01), shape.reach * rng.uniform(0.50, 0.64))
    spread = np.float32(rng.uniform(0.16, 0.22)), np.float32(shape.reach * rng.uniform(0.38, 0.48))
    slope = rng.uniform(-0.3, 0.3)
    distance = ((rows - centre[0] + slope * (depth - centre[1])) / spread[0]) ** 2
    distance = distance + ((depth - centre[1]) / spread[1]) ** 2
    raggedness = layered_noise(rng, size, (6, 12, 24, 48, 96), 0.65)
    field = 1 - distance + np.float32(GLAND_COVER[density]) + 0.34 * raggedness
    return np.asarray(expit(field * np.float32(4.5)), dtype=np.float32)


def _draw_strands(rng: np.random.Generator, size: int, shape: BreastShape, rows: Image, depth: Image) -> Image:
    """Fibrous strands that run together at the nipple, float32 (size, size) in about [0, 1]."""
    across = np.broadcast_to(np.float32(shape.reach * 1.02) - depth, (size, size)).astype(np.float32)
    down = np.broadcast_to(rows - np.float32(shape.nipple_row), (size, size)).astype(np.float32)
    distance, angle = cv2.cartToPolar(across, down)
    angle = np.mod(angle + np.float32(np.pi), np.float32(2 * np.pi)) + 0.11 * layered_noise(rng, size, (5, 12), 0.5)
    strands = np.zeros((size, size), np.float32)
    for spokes, rings, weight in ((70, 9, 1.0), (150, 16, 0.7)):
        noise = rng.standard_normal((rings, spokes), dtype=np.float32)
        fine = cv2.resize(noise, (spokes * 6, rings * 6), interpolation=cv2.INTER_CUBIC)
        map_x = (angle * np.float32(spokes * 6 / (2 * np.pi))).astype(np.float32)
        map_y = distance * np.float32(rings * 6 / 0.9)
        wave = cv2.remap(fine, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        strands += np.float32(weight) * np.exp(-((wave / np.float32(0.22)) ** 2))
    patches = np.clip(0.55 + 0.45 * smooth_noise(rng, size, 10), 0, 1.5)
    return np.asarray(strands * patches, dtype=np.float32)


def _draw_decoys(rng: np.random.Generator, size: int, shape: BreastShape, first: int) -> Image:
    """Soft nodules of parenchyma and lymph nodes: bright, and no lesions; float32 (size, size)."""
    added = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        row = shape.nipple_row + rng.uniform(-0.28, 0.20)
        place = _pixel(row, rng.uniform(0.1, 0.85) * shape.reach, size, first)
        axes = rng.uniform(0.012, 0.050, 2) * size
        _add_blob(added, place, axes, rng.uniform(0, np.pi), rng.uniform(0.05, 0.11))
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            row = rng.uniform(0.05, 0.30)
            place = _pixel(row, shape.axilla * rng.uniform(0.3, 0.8), size, first)
            axes = rng.uniform(0.007, 0.014, 2) * size
            _add_blob(added, place, axes, rng.uniform(0, np.pi), rng.uniform(0.10, 0.18))
    return added


def _add_blob(image: Image, place_rc: tuple[int, int], axes: NDArray[np.float64], turn: float, level: float) -> None:
    """Add a soft ellipse to `image`, in place; it is cut off at 2.5 axes and at the image's edge."""
    half = int(np.ceil(2.5 * axes.max()))
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    blob = level * np.exp(-(((along / axes[0]) ** 2 + (across / axes[1]) ** 2) ** 1.5) / 2)
    add_centred(image, blob.astype(np.float32), place_rc)


def _draw_vessels(rng: np.random.Generator, size: int, shape: BreastShape, first: int) -> Image:
    """A few faint winding vessels, float32 (size, size)."""
    added = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        t = np.linspace(0, 1, 12)
        row = rng.uniform(0.15, 0.55) + t * rng.uniform(0.05, 0.35) + 0.015 * np.sin(t * rng.uniform(5, 12))
        winding = 0.05 * np.sin(t * rng.uniform(5, 14) + rng.uniform(0, 6))
        column = shape.reach * (rng.uniform(0.1, 0.5) + t * rng.uniform(0.1, 0.5) + winding)
        points = np.stack([first + column * size, row * size], axis=1).round().astype(np.int32)
        level = float(rng.uniform(0.03, 0.07))
        cv2.polylines(added, [points], False, level, max(1, round(0.003 * size)), cv2.LINE_8)
    return np.asarray(cv2.GaussianBlur(added, (0, 0), 0.0016 * size), dtype=np.float32)


def _pixel(row: float, depth: float, size: int, first: int) -> tuple[int, int]:
    return round(row * size), first + round(depth * size)


def add_centred(image: NDArray[np.generic], patch: NDArray[np.generic], place_rc: tuple[int, int]) -> None:
    """Add an odd-sided patch to an image, in place, its middle pixel at (row, column); cut off at the edges.

    A bool image takes the union.
    """
    half = patch.shape[0] // 2
    top, left = place_rc[0] - half, place_rc[1] - half
    rows = slice(max(top, 0), min(top + patch.shape[0], image.shape[0]))
    columns = slice(max(left, 0), min(left + patch.shape[1], image.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        image[rows, columns] += patch[  # type: ignore[misc]
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]


def draw_mass(rng: np.random.Generator, kind: str, radius: int, contrast: float) -> Patch:
    """A lesion of one of MIAS's classes.

    Args:
        kind: CIRC a well-defined ellipse; SPIC a core with spicules; MISC an ill-defined blob; CALC a cluster
            of bright dots; ARCH radiating lines without a centre; ASYM a faint broad area.
        radius: of the circle that encloses it, in pixels, at least 2.
        contrast: what it adds at its brightest, of a full range of 1.
    """
    if kind not in CLASSES:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(CLASSES)}")
    v, u = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32) / np.float32(radius)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    disc = distance <= 1
    if kind == "CIRC":
        edge = max(0.05, 0.5 / radius)
        level, mask = _solid(rng, distance, angle, wobble=0.03, aspect=rng.uniform(0.72, 1.0), edge=edge)
    elif kind == "MISC":
        level, mask = _solid(rng, distance, angle, wobble=0.13, aspect=rng.uniform(0.7, 1.0), edge=0.20)
    elif kind == "ASYM":
        level, mask = _solid(rng, distance, angle, wobble=0.12, aspect=rng.uniform(0.7, 1.0), edge=0.17)
        level = 0.55 * level
    elif kind == "CALC":
        level, mask = _dots(rng, radius, count=int(rng.integers(6, 22)))
        level = (0.15 / contrast + 1.3) * level  # dots are bright or unseen
    elif kind == "ARCH":
        lines = _spicules(rng, radius, count=int(rng.integers(9, 16)), start=0.12)
        level = 0.7 * lines - 0.2 * np.exp(-((distance / 0.3) ** 2)) + 0.15 * np.clip(1 - distance, 0, 1)
        mask = distance <= 0.9
    else:
        inner = np.float32(rng.uniform(0.42, 0.58))
        aspect = rng.uniform(0.8, 1.0)
        level, mask = _solid(rng, distance / inner, angle, wobble=0.14, aspect=aspect, edge=0.10)
        lines = _spicules(rng, radius, count=int(rng.integers(14, 28)), start=0.5 * float(inner))
        level, mask = np.maximum(level, 0.8 * lines), mask | (lines > 0.25)
    if kind not in ("CALC", "ARCH"):
        level = level * (1 + 0.10 * smooth_noise(rng, 2 * radius + 1, 7))
    # Fade the last of a soft edge out, so that nothing is left beyond the circle.
    level = level * np.clip((1 - distance) * radius + 0.5, 0, 1)
    return Patch((contrast * level).astype(np.float32), mask & disc)


def draw_widespread_calcifications(rng: np.random.Generator, breast: Breast, contrast: float) -> tuple[Image, Mask]:
    """Dots all over the breast: what they add, float32 (size, size), and their pixels, bool (size, size)."""
    size = breast.image.shape[0]
    room = np.flatnonzero(cv2.erode((breast.tissue & ~breast.muscle).astype(np.uint8), _disc(0.04 * size)))
    added, mask = np.zeros((size, size), np.float32), np.zeros((size, size), np.bool_)
    for place in rng.choice(room, size=int(rng.integers(10, 18))):
        cluster = draw_mass(rng, "CALC", max(3, round(0.03 * size)), contrast)
        add_centred(added, cluster.added, divmod(int(place), size))
        add_centred(mask, cluster.mask, divmod(int(place), size))
    return added, mask & breast.tissue


def _solid(
    rng: np.random.Generator, distance: Image, angle: Image, *, wobble: float, aspect: float, edge: float
) -> tuple[Image, Mask]:
    """A filled blob with a soft edge that stays within distance 1: its level in [0, 1] and its pixels."""
    turn = rng.uniform(0, np.pi)
    outline = aspect / np.sqrt(np.sin(angle - turn) ** 2 + (aspect * np.cos(angle - turn)) ** 2)
    for k in range(2, 7):
        outline = outline + wobble / k * 2 * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 6.28))
    distance = distance * (1 + wobble * smooth_noise(rng, distance.shape[0], 5))
    outline = np.maximum(outline * (1 - 1.5 * edge) / outline.max(), 0.3)
    dome = 0.75 + 0.25 * np.sqrt(np.clip(1 - (distance / outline) ** 2, 0, 1))
    level = expit((outline - distance) / (0.4 * edge)) * dome
    return level.astype(np.float32), distance <= outline + 0.4 * edge


def _spicules(rng: np.random.Generator, radius: int, *, count: int, start: float) -> Image:
    """Tapering lines from `start` (of the radius) outwards; float32 (2 radius + 1,) * 2 in [0, 1]."""
    scale = max(1, round(48 / radius))  # small ones are drawn large, so that lines stay thin
    half = radius * scale + scale // 2
    canvas = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.3, 0.3, count)
    for angle in angles:
        t = np.linspace(start, rng.uniform(0.55, 0.98), 4)
        bend = angle + rng.uniform(-0.5, 0.5) * (t - start)
        faint = rng.uniform(0.4, 1.0)
        points = np.stack([half + half * t * np.cos(bend), half + half * t * np.sin(bend)], axis=1).round()
        for k, (width, level) in enumerate(((0.05, 0.9), (0.035, 0.65), (0.02, 0.45))):
            ends = [(int(x), int(y)) for x, y in points[k : k + 2]]
            cv2.line(canvas, ends[0], ends[1], faint * level, max(1, round(width * half)), cv2.LINE_8)
    soft = cv2.GaussianBlur(canvas, (0, 0), max(0.6, 0.018 * half))
    side = 2 * radius + 1
    return np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _dots(rng: np.random.Generator, radius: int, *, count: int) -> tuple[Image, Mask]:
    """Dots over a disc: their level in [0, 1] and the hull around them, both (2 radius + 1,) * 2."""
    side = 2 * radius + 1
    level = np.zeros((side, side), np.float32)
    away, angle = 0.85 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    columns, rows = radius * (1 + away * np.cos(angle)), radius * (1 + away * np.sin(angle))
    widths = np.maximum(rng.uniform(0.03, 0.08, count) * radius, 0.6)
    line = np.arange(side, dtype=np.float32)
    for row, column, width in zip(rows, columns, widths, strict=True):
        dot = np.exp(-((line[:, None] - row) ** 2 + (line[None, :] - column) ** 2) / (2 * width**2))
        np.maximum(level, dot * rng.uniform(0.6, 1.0), out=level)
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).round().astype(np.int32))
    filled = cv2.fillConvexPoly(np.zeros((side, side), np.uint8), hull, 1)
    return level, cv2.dilate(filled, _disc(1)).astype(bool)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def finish_film(
    rng: np.random.Generator, breast: Breast, image: Image, *, labels: bool, scan_edges: bool
) -> NDArray[np.uint8]:
    """Expose the film: base fog, soft shoulder, grain, and the marks that it carries.

    Args:
        image: float32 (size, size), the breast with its lesions.
        labels: put a side label and a film number beside the breast.
        scan_edges: add bright strips, a grey band or tape at the film's edges.
    Returns:
        uint8 (size, size); exactly 0 beyond the film.
    """
    size = image.shape[0]
    first, stop = breast.film_columns
    fog = rng.uniform(0.008, 0.025)
    film = np.maximum(image, 0) + fog + 0.25 * fog * smooth_noise(rng, size, 8)
    film = np.where(film > 0.7, 0.7 + 0.22 * np.tanh((film - 0.7) / 0.22), film).astype(np.float32)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    film += grain * (0.003 + 0.008 * np.sqrt(np.clip(film, 0, 1)))
    # Marks are drawn as if the chest wall were on the left, then turned back with the film.
    mirrored = breast.laterality == "R"
    if mirrored:
        film, first, stop = np.ascontiguousarray(film[:, ::-1]), size - stop, size - first
    tissue = breast.tissue[:, ::-1] if mirrored else breast.tissue
    if labels:
        _add_label(rng, film, tissue, stop, breast.laterality)
    if scan_edges:
        _add_edges(rng, film, tissue, first, stop)
    if mirrored:
        film, first, stop = film[:, ::-1], size - stop, size - first
    pixels = np.zeros((size, size), np.uint8)
    pixels[:, first:stop] = np.clip(film[:, first:stop] * 255, 1, 255)
    return pixels


def _add_label(rng: np.random.Generator, film: Image, tissue: Mask, stop: int, laterality: str) -> None:
    """A mirrored side label near the film's outer top corner, in place; never over the breast."""
    size = film.shape[0]
    height, width = round(0.13 * size), round(0.085 * size)
    bright = rng.random() < 0.6
    paper, ink = (rng.uniform(0.88, 0.97), 0.05) if bright else (0.0, rng.uniform(0.2, 0.4))
    letters = np.zeros((height, width), np.uint8)
    view = str(rng.choice(["ML", "OBL", "MLO"]))
    for text, bottom in ((laterality, 0.45), (view, 0.85)):
        scale = size / 1024 * (1.2 if len(text) < 3 else 0.9)
        at = (round(0.12 * width), round(bottom * height))
        _write(letters, text, at, scale, 3 * size / 1024)
    tile = (paper + (ink - paper) * (letters / np.float32(255))).astype(np.float32)
    # The film hangs the wrong way round, so that letters read backwards; `L` is not turned again later.
    tile = tile if laterality == "R" else tile[:, ::-1]
    top = round(rng.uniform(-0.04, 0.03) * size)
    left = stop - round(rng.uniform(0.35, 1.3) * width)
    if not bright:
        top, left = abs(top), stop - round(1.1 * width)
    _paste(film, tissue, tile, top, left, stop, keep_background=not bright)
    number = np.zeros((round(0.05 * size), round(0.07 * size)), np.uint8)
    _write(number, str(rng.integers(1, 99)), (2, round(0.04 * size)), size / 1024, 2 * size / 1024)
    number = number if laterality == "R" else number[:, ::-1]
    number_tile = np.float32(0.22 / 255) * number
    _paste(film, tissue, number_tile, top + round(0.16 * size), left, stop, keep_background=True)


def _write(canvas: NDArray[np.uint8], text: str, at_xy: tuple[int, int], scale: float, thickness: float) -> None:
    width = max(1, round(thickness))
    cv2.putText(canvas, text, at_xy, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, width, cv2.LINE_AA)


def _paste(film: Image, tissue: Mask, tile: Image, top: int, left: int, stop: int, *, keep_background: bool) -> None:
    """Lay a tile over the film, in place, where there is no breast; its dark pixels are clear if told so."""
    cut = max(-top, 0)
    tile = tile[cut:, : max(stop - left, 0)]
    window = (slice(top + cut, top + cut + tile.shape[0]), slice(left, left + tile.shape[1]))
    free = ~tissue[window]
    if keep_background:
        free &= tile > 0
    film[window] = np.where(free, tile, film[window])


def _add_edges(rng: np.random.Generator, film: Image, tissue: Mask, first: int, stop: int) -> None:
    """One or two of: bright outer strip, grey top band, tape at the bottom corner, a scratch; in place."""
    size = film.shape[0]
    background = ~tissue
    for kind in rng.choice(["strip", "band", "tape", "scratch"], size=int(rng.integers(1, 3)), replace=False):
        if kind == "strip":
            width = max(2, round(rng.uniform(0.006, 0.025) * size))
            strip = film[:, stop - width : stop]
            strip[background[:, stop - width : stop]] = 0.96
        elif kind == "band":
            height = max(2, round(rng.uniform(0.01, 0.06) * size))
            film[:height, first:stop] = 0.22 + 0.05 * rng.standard_normal((height, stop - first))
        elif kind == "tape":
            height, width = (round(side * size) for side in rng.uniform((0.03, 0.02), (0.10, 0.06)))
            film[size - height :, first : first + width] = rng.uniform(0.85, 0.95)
        else:
            column = stop - max(2, round(rng.uniform(0.02, 0.08) * size))
            film[:, column] = np.maximum(film[:, column], rng.uniform(0.3, 0.8))
