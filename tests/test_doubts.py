"""What is no mammogram is refused, unless somebody vouches for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_dicom import image, save

from mammodet.data.doubts import Stored, doubts_of, read_stored
from mammodet.data.images import Pixels, read_image, write_png
from mammodet.errors import InputError
from mammodet.records import ImageRecord

SIZE = 256
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)


def ellipse(row: float, column: float, height: float, width: float) -> np.ndarray:
    """1 at the centre, falling to 0 at the border."""
    return np.clip(1 - ((ROWS - row) / height) ** 2 - ((COLUMNS - column) / width) ** 2, 0, 1)


def film() -> Pixels:
    """A breast at the left, on black: tissue fades towards the skin."""
    breast = ellipse(SIZE / 2, 0, 110, 150)
    cloudy = cv2.resize(np.random.default_rng(0).random((12, 12)).astype(np.float32), (SIZE, SIZE))
    return np.where(breast > 0, 60 + 110 * breast**0.5 + 60 * cloudy * breast, 3).clip(0, 255).astype(np.uint8)


def framed() -> Pixels:
    return cv2.copyMakeBorder(film(), 20, 20, 30, 10, cv2.BORDER_CONSTANT, value=(255,))


def labelled() -> Pixels:
    return cv2.putText(film(), "R CC", (190, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,))


def page() -> Pixels:
    paper = np.full((SIZE, SIZE), 255, np.uint8)
    for row in range(20, SIZE, 18):
        cv2.putText(paper, "no mammogram at all, but a page", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0,))
    return paper


def chest() -> Pixels:
    """Two dark lungs in a bright trunk that fills the picture's width."""
    lungs = np.maximum(ellipse(120, 75, 95, 45), ellipse(120, 180, 95, 45))
    spine = np.exp(-(((COLUMNS - 128) / 12) ** 2))
    return (40 + 130 * (lungs == 0) + 50 * spine - 30 * lungs).clip(0, 255).astype(np.uint8)


def noise() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)


def judged(pixels: Pixels, stored: Stored | None = None, *, force: bool = False, **known: object) -> list[str]:
    record = ImageRecord(1, "x.png", (pixels.shape[0], pixels.shape[1]), **known)  # type: ignore[arg-type]
    return doubts_of(pixels, stored or Stored(), record, force=force)


@pytest.mark.parametrize(
    "pixels",
    [film(), film().astype(np.uint16) * 257, film()[:, ::-1], film()[::2, ::2], framed(), labelled(), film() // 2 + 60],
    ids=["as it is", "16 bits", "flipped", "small", "white frame", "label", "grey background"],
)
def test_mammograms_are_taken(pixels: Pixels) -> None:
    assert judged(pixels) == []


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (255 - film(), "inverted"),
        (np.zeros((SIZE, SIZE), np.uint8), "empty"),
        (np.full((SIZE, SIZE), 200, np.uint8), "empty"),
        (film()[100:103, 20:23], "3x3 pixels"),
        (page(), "no mammogram"),
        (chest(), "no mammogram"),
        (noise(), "no mammogram"),
    ],
    ids=["inverted", "black", "grey", "tiny", "page", "chest", "noise"],
)
def test_other_pictures_are_refused_unless_forced(pixels: Pixels, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^x\.png: .*{reason}.*--force"):
        judged(pixels)
    (warning,) = judged(pixels, force=True)
    assert reason in warning


def test_a_data_set_with_answers_and_a_header_of_mammography_vouch_for_an_image() -> None:
    (warning,) = judged(noise(), labels={"tumor": 1})
    assert "no mammogram" in warning
    assert judged(noise(), Stored(mammography=True)) == []
    with pytest.raises(InputError, match="empty"):
        judged(np.zeros((SIZE, SIZE), np.uint8), Stored(mammography=True))


def test_colours_are_refused_and_slight_ones_of_a_jpeg_are_not(tmp_path: Path) -> None:
    colours = np.repeat(film()[..., None], 3, axis=2)
    write_png(tmp_path / "grey.png", colours)
    cv2.imwrite(str(tmp_path / "slight.jpg"), np.minimum(colours + np.array([0, 0, 9]), 255).astype(np.uint8))
    colours[..., 1] = 30
    write_png(tmp_path / "red.png", colours)
    for name in ("grey.png", "slight.jpg"):
        assert not read_stored(tmp_path / name)[1].coloured
    pixels, stored = read_stored(tmp_path / "red.png")
    assert np.array_equal(pixels, read_image(tmp_path / "red.png"))
    with pytest.raises(InputError, match="colour"):
        judged(pixels, stored)


def test_a_dicom_header_says_what_its_pixels_are(tmp_path: Path) -> None:
    pixels = film().astype(np.uint16) * 16
    kept = read_stored(save(tmp_path / "x.dcm", image(pixels, 12, Modality="MG")))[1]
    assert (kept.mammography, kept.origin, kept.warnings) == (True, "digital", [])
    path = save(tmp_path / "raw.dcm", image(pixels, 12, PresentationIntentType="FOR PROCESSING"))
    found, stored = read_stored(path)
    assert judged(found, stored) == ["its pixels are for processing, not for presentation"]
    found, stored = read_stored(save(tmp_path / "i.dcm", image(4095 - pixels, 12, Modality="MG")))
    with pytest.raises(InputError, match="inverted"):
        judged(found, stored)
