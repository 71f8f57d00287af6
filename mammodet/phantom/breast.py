"""A schematic breast on film, without lesions.

Images under work are float32 (size, size) in [0, 1]; shapes are given as fractions of `size`, so that a phantom looks
alike at every size. Pixels are addressed by (row, column) of whole pixels, rows from the top. Nothing here knows of
files. Random parameters come from the generator that a caller passes, and from nothing else.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

DENSITIES = ("F", "G", "D")
FAT_LEVEL = {"F": 0.54, "G": 0.44, "D": 0.33}
GLAND_GAIN = {"F": 0.12, "G": 0.22, "D": 0.34}
GLAND_COVER = {"F": -0.30, "G": 0.0, "D": 0.25}


@dataclass(frozen=True, slots=True)
class BreastShape:
    """The outline that the two breasts of one woman share; lengths are fractions of the image's side."""

    reach: float  #: from the chest wall to the nipple
    nipple_row: float  #: height of the nipple, from the top
    #: above, below: how far the breast goes up and down from the nipple's row.
    above: float
    below: float
    axilla: float  #: width of the tissue at the top edge
    fold: float  #: width of the tissue under the breast, at the bottom edge
    #: muscle_width, muscle_height: sides of the pectoral triangle along the top and the chest wall.
    muscle_width: float
    muscle_height: float
    roll_off: float  #: depth over which the tissue thins towards the skin
    margin: float  #: film beyond the nipple

    def from_above(self) -> "BreastShape":
        """Without muscle and axilla, the nipple about half-way, as on a craniocaudal view."""
        return replace(
            self, nipple_row=0.5, above=0.44, below=0.42, axilla=0.0, fold=0.0, muscle_width=0.0, muscle_height=1e-6
        )


@dataclass(frozen=True, slots=True)
class Breast:
    """A drawn breast, before lesions and film marks."""

    image: Image  #: float32 (size, size) in [0, 1]; 0 beyond the film
    tissue: Mask  #: bool (size, size), breast and muscle
    muscle: Mask  #: bool (size, size), the pectoral triangle
    gland: Image  #: float32 (size, size) in [0, 1], how much parenchyma there is
    film_columns: tuple[int, int]  #: first column of the film and the one after its last
    laterality: str  #: `R` with the chest wall on the right side of the film, `L` with it on the left


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Image:
    """Noise float32 (size, size) of deviation about 1 whose spots are about `size / cells` pixels wide."""
    cells = min(cells, size)
    small = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def layered_noise(rng: np.random.Generator, size: int, cells: tuple[int, ...], gain: float) -> Image:
    """Sum of `smooth_noise` over scales, each `gain` times the one before it; float32 (size, size)."""
    total = np.zeros((size, size), np.float32)
    for level, count in enumerate(cells):
        total += np.float32(gain**level) * smooth_noise(rng, size, count)
    return total


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
