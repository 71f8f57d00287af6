"""Letters beside the breast are found by their form."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mammodet.data.burned_in import has_letters


def film(text: str, x: int, y: int, grey: int = 200) -> np.ndarray:
    """A breast at the left of a film of 512 x 400 pixels, and a text that begins at its foot."""
    pixels = np.full((512, 400), 8, np.uint8)
    cv2.ellipse(pixels, (0, 256), (170, 210), 0, 0, 360, 120, -1)
    return cv2.putText(pixels, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, grey, 1, cv2.LINE_AA)


@pytest.mark.parametrize(
    ("text", "x", "y", "found"),
    [
        ("", 0, 0, False),
        ("DOE JANE", 300, 30, True),
        ("P 123456", 300, 490, True),
        ("RMLO", 330, 30, False),  # names nobody
        ("DOE JANE", 20, 256, False),  # on the breast things that look like letters are tissue
    ],
)
def test_rows_of_letters_beside_the_breast_are_found(text: str, x: int, y: int, found: bool) -> None:
    assert has_letters(film(text, x, y)) is found
    assert has_letters(film(text, x, y).astype(np.uint16) * 200) is found


def test_dark_letters_on_a_label_are_found_and_noise_is_not() -> None:
    label = film("", 0, 0)
    label[10:50, 280:395] = 230
    cv2.putText(label, "DOE JANE", (290, 35), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    assert has_letters(label)
    noise = np.random.default_rng(0).integers(0, 255, (512, 400)).astype(np.uint8)
    assert not has_letters(noise)
