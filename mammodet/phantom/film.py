"""What film and scanner add to a breast: fog, grain, padding, labels, strips, tape, scratches."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.phantom.breast import Breast, Image, Mask, smooth_noise


def finish_film(
    rng: np.random.Generator, breast: Breast, image: Image, *, labels: bool, scan_edges: bool
) -> NDArray[np.uint8]:
    """The exposed film (`expose_film`) as a scanner of 8 bit stores it: uint8 (size, size), 0 beyond the film."""
    film = expose_film(rng, breast, image, labels=labels, scan_edges=scan_edges)
    first, stop = breast.film_columns
    pixels = np.zeros(film.shape, np.uint8)
    pixels[:, first:stop] = np.clip(film[:, first:stop] * 255, 1, 255)
    return pixels


def expose_film(rng: np.random.Generator, breast: Breast, image: Image, *, labels: bool, scan_edges: bool) -> Image:
    """Expose the film: base fog, soft shoulder, grain, and the marks that it carries.

    Args:
        image: float32 (size, size), the breast with its lesions.
        labels: put a side label and a film number beside the breast.
        scan_edges: add bright strips, a grey band or tape at the film's edges.
    Returns:
        float32 (size, size), about 0 to 1; it means nothing beyond the film.
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
    return film[:, ::-1] if mirrored else film


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
