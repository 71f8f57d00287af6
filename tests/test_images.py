"""Image files: depth kept exactly, damage told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mammodet.data.images import read_image, to_display, to_unit, write_png
from mammodet.errors import InputError

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (30, 40), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (30, 40), dtype=np.uint16)


def encode(path: Path, pixels: np.ndarray) -> Path:
    good, content = cv2.imencode(path.suffix, pixels)
    assert good
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif", ".tiff", ".bmp", ".PNG"])
def test_eight_bit_files_are_read_exactly(tmp_path, suffix):
    pixels = read_image(encode(tmp_path / f"x{suffix}", EIGHT))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, EIGHT)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_sixteen_bit_files_are_read_exactly(tmp_path, suffix):
    pixels = read_image(encode(tmp_path / f"x{suffix}", SIXTEEN))
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, SIXTEEN)


def test_jpeg_is_read_to_its_own_accuracy(tmp_path):
    smooth = np.add.outer(np.arange(30), 3 * np.arange(40)).astype(np.uint8)
    pixels = read_image(encode(tmp_path / "x.jpg", smooth))
    assert pixels.shape == (30, 40)
    assert np.abs(pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P5\n2 2\n255\n" + bytes([10, 10, 35, 32]), [[10, 10], [35, 32]]),  # pixels that look like white space
        (b"P5\n# scanned\n2 2\n# by hand\n255\n\x00\x01\x02\x03", [[0, 1], [2, 3]]),
        (b"P5 3 1 4095 \x00\x01\x00\x02\x0f\xff", [[16, 32, 65535]]),  # 12 bits, high byte first: 65535 / 4095 = 16.004
        (b"P5\n2 1\n15\n\x03\x0f", [[51, 255]]),
        (b"P2\n2 1\n255\n7 8\n", [[7, 8]]),
        (b"P5\n1 1\n255\n\x07trailing", [[7]]),
    ],
)
def test_pgm_variants_are_read(tmp_path, content, expected):
    (tmp_path / "x.pgm").write_bytes(content)
    assert read_image(tmp_path / "x.pgm").tolist() == expected


def test_colour_with_equal_channels_is_that_channel(tmp_path):
    for pixels in (EIGHT, SIXTEEN):
        path = encode(tmp_path / "x.png", np.repeat(pixels[..., None], 3, axis=2))
        assert np.array_equal(read_image(path), pixels)


def test_colour_becomes_its_luminance(tmp_path):
    blue_green_red = np.zeros((2, 3, 3), np.uint8)
    blue_green_red[:, 0], blue_green_red[:, 1], blue_green_red[:, 2] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    # ITU-R BT.601: 0.114 B + 0.587 G + 0.299 R
    assert read_image(encode(tmp_path / "x.png", blue_green_red))[0].tolist() == [23, 117, 60]


def test_alpha_is_dropped(tmp_path):
    alpha = np.zeros_like(EIGHT)
    path = encode(tmp_path / "x.png", np.stack([EIGHT, EIGHT, EIGHT, alpha], axis=2))
    assert np.array_equal(read_image(path), EIGHT)
    Image.fromarray(np.stack([EIGHT, alpha], axis=2), "LA").save(tmp_path / "y.png")
    assert np.array_equal(read_image(tmp_path / "y.png"), EIGHT)


def test_names_with_blanks_and_other_letters_are_read(tmp_path):
    path = tmp_path / "Patientin Ä 01" / "größe 乳.png"
    write_png(path, EIGHT)
    assert np.array_equal(read_image(path), EIGHT)


def test_suffix_may_lie_about_the_kind(tmp_path):
    encode(tmp_path / "x.png", EIGHT).rename(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), EIGHT)


@pytest.mark.parametrize("suffix", [".pgm", ".png", ".jpg", ".bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = encode(tmp_path / f"x{suffix}", EIGHT)
    content = path.read_bytes()
    for length in (1, 10, len(content) // 2, len(content) - 20, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"x\.\w+: "):
            read_image(path)


@pytest.mark.parametrize(("kind", "suffix"), [(".jpg", ".png"), (".png", ".jpg"), (".pgm", ".png")])
def test_truncated_files_are_refused_under_a_wrong_suffix(tmp_path, kind, suffix):
    content = encode(tmp_path / f"x{kind}", EIGHT).read_bytes()
    (tmp_path / f"y{suffix}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="is cut short"):
        read_image(tmp_path / f"y{suffix}")


def test_truncated_tiff_is_refused_or_has_all_its_pixels(tmp_path):
    path = encode(tmp_path / "x.tif", SIXTEEN)
    content, refused = path.read_bytes(), 0
    for length in range(1, len(content), 37):
        path.write_bytes(content[:length])
        try:
            assert np.array_equal(read_image(path), SIXTEEN)  # only the directory's last bytes are missing
        except InputError:
            refused += 1
    assert refused > 0.9 * len(content) / 37


def test_truncated_tiff_with_its_directory_in_front_is_refused(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(SIXTEEN).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError):
        read_image(path)


def test_truncated_pgm_says_how_much_is_missing(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5\n4 3\n255\n" + bytes(7))
    with pytest.raises(InputError, match=r"is cut short: 7 bytes of pixels, expected 12 \(4x3\)"):
        read_image(tmp_path / "x.pgm")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.png", b"", "the file is empty"),
        ("x.png", b"not an image at all", "cannot be decoded"),
        ("x.pgm", b"P5\nwide high\n255\n", "the PGM header is damaged"),
        ("x.pgm", b"P5\n" + b"9" * 5000 + b" 2\n255\n" + bytes(9), "the PGM header is damaged"),
        ("x.pgm", b"P5\n0 0\n255\n", "cannot be decoded"),
        ("x.dcm", b"DICM", "is not a DICOM file"),
        ("x.nii", b"abc", "cannot read '.nii' files; expected one of .png"),
        ("x", b"abc", "cannot read '' files"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / name)


def test_missing_files_folders_and_impossible_names_are_told(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("nowhere.png", "no such image"),
        ("folder.png", "is a folder"),
        ("a" * 300 + ".png", "cannot be read"),
        ("a\0.png", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(SIXTEEN.astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match="pixels are float32; expected 8- or 16-bit unsigned integers"):
        read_image(tmp_path / "x.tif")


def test_to_unit_puts_both_depths_on_one_scale():
    eight, sixteen = to_unit(np.array([[0, 51, 255]], np.uint8)), to_unit(np.array([[0, 13107, 65535]], np.uint16))
    assert eight.dtype == sixteen.dtype == np.float32
    assert eight.tolist() == sixteen.tolist() == [[0, pytest.approx(0.2), 1]]


def test_to_unit_keeps_all_sixteen_bits_apart():
    levels = np.arange(65536, dtype=np.uint16)
    assert len(np.unique(to_unit(levels))) == 65536


def test_to_display_leaves_eight_bits_alone_and_stretches_sixteen():
    assert np.array_equal(to_display(EIGHT), EIGHT)
    twelve = np.full((40, 40), 2048, np.uint16)
    twelve[:, 20:] = 4096
    shown = to_display(twelve)
    assert shown.dtype == np.uint8
    assert (shown[0, 0], shown[0, -1]) == (128, 255)
    assert to_display(np.zeros((9, 9), np.uint16)).max() == 0


def test_write_png_keeps_sixteen_bits_and_the_order_of_colours(tmp_path):
    write_png(tmp_path / "grey.png", SIXTEEN)
    assert np.array_equal(read_image(tmp_path / "grey.png"), SIXTEEN)
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    write_png(tmp_path / "red.png", red)
    assert Image.open(tmp_path / "red.png").convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grey.png", "red.png"]
