"""Schematic lesions, and how hard they are to find."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mammodet.phantom.breast import Breast, Image, Mask, add_centred, smooth_noise

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
    """How hard the lesions are to find."""

    classes: Mapping[str, float]  #: abnormality to its share among findings
    contrast: tuple[float, float]  #: brightness that a clear lesion adds at its brightest, lowest and highest
    subtle_fraction: float  #: share of lesions that add only `SUBTLE`
    clutter: float  #: strength of parenchyma, strands and decoys, 1 as in a real breast
    smallest: float  #: least radius, as a fraction of the side


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
        {"CIRC": 0.5, "SPIC": 0.2, "MISC": 0.3}, contrast=(0.28, 0.45), subtle_fraction=0.0, clutter=0.4, smallest=0.045
    ),
}


@dataclass(frozen=True, slots=True)
class Patch:
    """A lesion on its own: what it adds to the image, and where it is."""

    added: Image  #: float32 (n, n), n odd, the lesion's centre in the middle pixel
    mask: Mask  #: bool (n, n), the lesion's pixels, all within its radius of the middle


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


def choose_place(
    rng: np.random.Generator, kind: str, free: NDArray[np.bool_], gland: Image, smallest: float
) -> tuple[int, int, int]:
    """Row, column and radius of a circle that lies in `free`; half of them where the parenchyma is."""
    size = free.shape[0]
    step = max(1, size // 128)
    small = np.pad(free[step // 2 :: step, step // 2 :: step], 1).astype(np.uint8)
    room = (cv2.distanceTransform(small, cv2.DIST_L2, 5)[1:-1, 1:-1] - 1.0) * step
    low, high = (max(fraction, smallest) * size for fraction in RADII[kind])
    radius = max(3, round(float(np.exp(rng.uniform(np.log(low), np.log(high))))))
    radius = max(3, min(radius, int(0.9 * room.max())))
    weights = (room >= min(1.1 * radius, room.max())).astype(np.float64)
    if rng.random() < 0.5:
        weights *= 0.02 + gland[step // 2 :: step, step // 2 :: step]
    cell = rng.choice(weights.size, p=weights.ravel() / weights.sum())
    row, column = (step // 2 + step * k for k in divmod(int(cell), weights.shape[1]))
    return row, column, radius


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
