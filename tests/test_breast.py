"""The breast on synthetic films with everything that lies beside it."""

from __future__ import annotations

import numpy as np
import pytest

from mammodet.data.breast import Breast, find_breast

SIZE = 400


def film(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy dark film with half an ellipse on its left edge; and where that is, bool."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[0.5:size, 0.5:size]
    breast = ((rows - size / 2) / (0.4 * size)) ** 2 + (columns / (0.5 * size)) ** 2 <= 1
    pixels = 8 + 4 * rng.random((size, size)) + breast * (90 + 60 * rng.random((size, size)))
    return pixels.astype(np.uint8), breast


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def check(breast: Breast, truth: np.ndarray) -> None:
    assert breast.size_hw == truth.shape
    assert iou(breast.mask_at(truth.shape), truth) > 0.93
    x1, y1, x2, y2 = breast.box_xyxy
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    slack = 0.04 * max(truth.shape)
    expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert breast.box_xyxy == pytest.approx(expected, abs=slack)
    assert truth[int(y1) : int(y2), int(x1) : int(x2)].sum() > 0.995 * truth.sum()


def test_breast_on_a_plain_film():
    check(find_breast(film()[0]), film()[1])


def test_breast_at_sixteen_bits_is_the_same_as_at_eight():
    pixels, truth = film()
    check(find_breast(pixels.astype(np.uint16) * 257), truth)
    assert find_breast(pixels.astype(np.uint16) * 257).box_xyxy == find_breast(pixels).box_xyxy
    check(find_breast(pixels.astype(np.uint16) * 3), truth)  # a dark 16-bit file


def test_breast_on_the_right():
    pixels, truth = film()
    check(find_breast(np.ascontiguousarray(pixels[:, ::-1])), truth[:, ::-1])


def test_bright_label_is_left_out():
    pixels, truth = film()
    pixels[30:90, 330:380] = 250
    pixels[45:75, 345:352] = 10  # a letter
    check(find_breast(pixels), truth)


def test_white_strip_at_the_edge_is_left_out():
    for strip in (np.s_[:, -12:], np.s_[:10, :], np.s_[-10:, 150:]):
        pixels, truth = film()
        pixels[strip] = 255
        free = truth.copy()
        free[strip] = False
        breast = find_breast(pixels)
        assert iou(breast.mask_at(truth.shape), free) > 0.9


def test_white_band_larger_than_the_breast_is_left_out():
    pixels, truth = film()
    pixels[:, 230:] = 255
    check(find_breast(pixels), truth)


def test_uneven_thin_strip_is_not_taken_for_a_small_breast():
    rng = np.random.default_rng(1)
    rows, columns = np.ogrid[0.5:SIZE, 0.5:SIZE]
    truth = ((rows - 200) / 50) ** 2 + (columns / 60) ** 2 <= 1
    pixels = (8 + 4 * rng.random((SIZE, SIZE)) + truth * (90 + 60 * rng.random((SIZE, SIZE)))).astype(np.uint8)
    pixels[:, 376:] = rng.integers(100, 200, (SIZE, 24))  # 9600 pixels; the breast has 4700
    check(find_breast(pixels), truth)


def test_faint_skin_line_belongs_to_the_breast():
    pixels, _ = film()
    rows, columns = np.ogrid[0.5:SIZE, 0.5:SIZE]
    truth = ((rows - 200) / 180) ** 2 + (columns / 220) ** 2 <= 1
    pixels[truth & (pixels < 20)] = 40
    check(find_breast(pixels), truth)


def test_black_padding_beside_the_film_is_left_out():
    pixels, truth = film()
    pixels[:, 300:] = 0
    check(find_breast(pixels), truth)


def test_dark_hole_in_the_breast_is_filled():
    pixels, truth = film()
    pixels[180:200, 60:80] = 5
    assert find_breast(pixels).mask_at(truth.shape)[182:198, 62:78].all()


def test_margin_is_a_part_of_the_longer_side():
    pixels = np.zeros((256, 256), np.uint8)
    pixels[60:160, 100:150] = np.random.default_rng(0).integers(100, 200, (100, 50))
    tight, wide = find_breast(pixels, margin=0).box_xyxy, find_breast(pixels, margin=0.1).box_xyxy
    assert tight == pytest.approx((100, 60, 150, 160), abs=2)
    assert np.array(wide) - tight == pytest.approx([-10, -10, 10, 10], abs=1)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("size_hw", [(1, 1), (8, 8), (300, 200)])
def test_constant_image_is_taken_whole(value, size_hw):
    breast = find_breast(np.full(size_hw, value, np.uint8))
    assert breast.box_xyxy == (0, 0, size_hw[1], size_hw[0])
    assert breast.mask_at(size_hw).all()


def test_dark_film_with_a_few_bright_pixels_is_taken_whole():
    pixels = np.zeros((300, 200), np.uint8)
    pixels[10, 10] = pixels[200, 100] = 255
    assert find_breast(pixels).box_xyxy == (0, 0, 200, 300)


@pytest.mark.parametrize("size_hw", [(1, 2), (2, 1), (3, 5), (8, 8), (1, 4000), (4000, 1), (7, 5000), (5000, 40)])
def test_odd_sizes_give_a_box_of_whole_pixels_inside_the_image(size_hw):
    rng = np.random.default_rng(0)
    for _ in range(5):
        pixels = rng.integers(0, 256, size_hw, dtype=np.uint8)
        pixels[:, : size_hw[1] // 2] //= 8
        breast = find_breast(pixels)
        x1, y1, x2, y2 = breast.box_xyxy
        assert 0 <= x1 < x2 <= size_hw[1]
        assert 0 <= y1 < y2 <= size_hw[0]
        assert all(side == int(side) for side in breast.box_xyxy)
        assert breast.mask_at(size_hw).shape == size_hw
