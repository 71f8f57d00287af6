"""What is no mammogram is read, and said to be doubtful."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_dicom import image, save

from mammodet.data.doubts import read_with_doubts
from mammodet.data.images import read_image, write_png

SIZE = 256


def film() -> np.ndarray:
    """A half disc of noisy tissue at the left, on black."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = ((rows - SIZE / 2) / 110) ** 2 + (columns / 150) ** 2 < 1
    tissue = np.random.default_rng(0).normal(140, 20, (SIZE, SIZE))
    return np.where(inside, tissue, 3).clip(0, 255).astype(np.uint8)


def red() -> np.ndarray:
    colours = np.zeros((SIZE, SIZE, 3), np.uint8)
    colours[..., 0], colours[..., 1] = film(), 30
    return colours


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (film(), []),
        (film().astype(np.uint16) * 257, []),
        (np.repeat(film()[..., None], 3, axis=2), []),
        (film()[:, ::-1], []),
        (255 - film(), ["its background is brighter than the breast: is it inverted?"]),
        (np.zeros((SIZE, SIZE), np.uint8), ["no breast was found on it"]),
        (np.full((SIZE, SIZE), 200, np.uint8), ["no breast was found on it"]),
        (film()[100:103, 20:23], ["is 3x3 pixels small"]),
        (red(), ["is a colour picture"]),
    ],
)
def test_doubts_of_pictures(tmp_path: Path, pixels: np.ndarray, expected: list[str]) -> None:
    write_png(tmp_path / "x.png", pixels)
    found, doubts = read_with_doubts(tmp_path / "x.png")
    assert np.array_equal(found, read_image(tmp_path / "x.png"))
    assert doubts == expected


def test_slight_colours_of_a_jpeg_are_no_doubt(tmp_path):
    colours = np.repeat(film()[..., None], 3, axis=2)
    colours[..., 2] = np.minimum(colours[..., 2] + 9, 255)
    cv2.imwrite(str(tmp_path / "x.jpg"), colours)
    assert read_with_doubts(tmp_path / "x.jpg")[1] == []


def test_pixels_for_processing_are_doubtful(tmp_path):
    stored = film().astype(np.uint16) * 16
    path = save(tmp_path / "x.dcm", image(stored, 12, PresentationIntentType="FOR PROCESSING"))
    assert read_with_doubts(path)[1] == ["its pixels are for processing, not for presentation"]
    assert read_with_doubts(save(tmp_path / "x.dcm", image(stored, 12)))[1] == []
