"""Boxes, circles and run lengths: small cases by hand, and the fast ways against the plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from mammodet.geometry import (
    as_boxes,
    box_area,
    box_iou,
    box_pixels,
    box_rle,
    circle_mask,
    clip_boxes,
    mask_to_rle,
    patch_to_rle,
    rle_area,
    rle_box,
    rle_to_mask,
    xywh_to_xyxy,
    xyxy_to_xywh,
)


def square(size_hw: tuple[int, int], x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros(size_hw, dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_as_boxes_makes_an_empty_list_zero_by_four():
    assert as_boxes([]).shape == (0, 4)
    assert as_boxes(np.zeros((0, 4))).dtype == np.float64


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]]])
def test_as_boxes_refuses_other_shapes(boxes):
    with pytest.raises(ValueError, match=r"expected shape \(n, 4\), got"):
        as_boxes(boxes)


def test_boxes_change_between_xywh_and_xyxy():
    assert xywh_to_xyxy([[3, 4, 10, 20], [0, 0, 1, 0.5]]).tolist() == [[3, 4, 13, 24], [0, 0, 1, 0.5]]
    assert xyxy_to_xywh([[3, 4, 13, 24]]).tolist() == [[3, 4, 10, 20]]
    assert xywh_to_xyxy([]).shape == xyxy_to_xywh([]).shape == (0, 4)


def test_box_area_of_an_inside_out_box_is_zero():
    assert box_area([[0, 0, 3, 4], [3, 4, 0, 0], [1, 1, 1, 9]]).tolist() == [12, 0, 0]


def test_box_iou_by_hand():
    first = [[0, 0, 10, 10], [20, 20, 20, 20]]
    second = [[5, 0, 15, 10], [0, 0, 10, 10], [2, 2, 4, 7], [10, 0, 20, 10], [20, 20, 20, 20]]
    expected = [[50 / 150, 1, 10 / 100, 0, 0], [0, 0, 0, 0, 0]]
    assert box_iou(first, second) == pytest.approx(np.array(expected))
    assert box_iou([], second).shape == (0, 5)
    assert box_iou(first, []).shape == (2, 0)


def test_clip_boxes_cuts_x_by_width_and_y_by_height():
    assert clip_boxes([[-5, -5, 50, 50]], (10, 20)).tolist() == [[0, 0, 20, 10]]


@pytest.mark.parametrize(
    ("centre_xy", "radius", "pixels"),
    [
        ((4.5, 4.5), 1, 5),  # on a pixel's centre: it and its four neighbours
        ((4.5, 4.5), 0, 1),
        ((4.0, 4.0), 1, 4),  # on a corner: the four pixels around it, 0.71 away
        ((4.0, 4.0), 1.6, 12),  # and the eight that are 1.58 away
        ((0.0, 0.0), 1, 1),  # on the image's corner: three quarters are cut off
        ((9.0, 8.0), 1, 1),
        ((0.0, 4.0), 1, 2),
        ((-5.0, 4.0), 1, 0),
        ((4.5, 4.5), 100, 72),
    ],
)
def test_circle_mask_counts_pixel_centres(centre_xy, radius, pixels):
    mask = circle_mask(centre_xy, radius, (8, 9))
    assert mask.shape == (8, 9)
    assert mask.sum() == pixels


def test_circle_mask_takes_x_as_column():
    assert np.argwhere(circle_mask((6.5, 2.5), 0.4, (8, 9))).tolist() == [[2, 6]]


def test_rle_of_a_square_keeps_its_area_and_box():
    rle = mask_to_rle(square((30, 40), 5, 7, 10))
    assert rle["size"] == [30, 40]
    assert isinstance(rle["counts"], str)
    assert rle_area(rle) == 100
    assert rle_box(rle) == (5, 7, 15, 17)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((5, 7), bool),
        np.ones((5, 7), bool),
        np.ones((1, 1), bool),
        square((5, 7), 0, 0, 1),
        square((5, 7), 6, 4, 1),
        square((5, 7), 2, 0, 5),
        np.arange(35).reshape(5, 7) % 2 == 0,
    ],
)
def test_rle_brings_a_mask_back(mask):
    rle = mask_to_rle(mask)
    assert np.array_equal(rle_to_mask(rle), mask)
    assert rle_area(rle) == mask.sum()


def test_mask_to_rle_refuses_three_dimensions():
    with pytest.raises(ValueError, match=r"expected shape \(height, width\), got \(1, 2, 3\)"):
        mask_to_rle(np.zeros((1, 2, 3), bool))


def test_rle_box_of_an_empty_mask_is_zero():
    assert rle_box(mask_to_rle(np.zeros((5, 7), bool))) == (0, 0, 0, 0)


def test_patch_to_rle_equals_the_rle_of_the_whole_mask():
    rng = np.random.default_rng(0)
    touched = set()
    for _ in range(400):
        height, width = (int(side) for side in rng.integers(1, 12, 2))
        h, w = int(rng.integers(0, height + 1)), int(rng.integers(0, width + 1))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        patch = rng.random((h, w)) < rng.choice([0.0, 0.3, 0.7, 1.0])
        whole = np.zeros((height, width), bool)
        whole[y : y + h, x : x + w] = patch
        assert patch_to_rle(patch, (x, y), (height, width)) == mask_to_rle(whole), (height, width, x, y, patch)
        touched |= {"top"} if y == 0 else {"bottom"} if y + h == height else set()
        touched |= {"left"} if x == 0 else {"right"} if x + w == width else set()
        touched |= {"empty"} if not patch.size else set()
    assert touched == {"top", "bottom", "left", "right", "empty"}


@pytest.mark.parametrize("corner_xy", [(-1, 0), (0, -1), (5, 0), (0, 3)])
def test_patch_to_rle_refuses_a_patch_that_leaves_the_image(corner_xy):
    with pytest.raises(ValueError, match=r"patch 3x3 at .* leaves the image 5x7"):
        patch_to_rle(np.ones((3, 3), bool), corner_xy, (5, 7))


# A box for a mask.


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1, 2, 4, 6), (1, 2, 4, 6)),
        ((0.6, 0.4, 5.4, 5.6), (1, 0, 5, 6)),  # centres from 1.5 to 4.5, and from 0.5 to 5.5
        ((0.5, 0.5, 2.5, 2.5), (0, 0, 2, 2)),  # a centre on the left border is inside, on the right one outside
        ((2.6, 2.6, 2.8, 2.8), (2, 2, 3, 3)),  # none: the pixel around its middle
        ((7.9, 5.8, 9.0, 9.0), (7, 5, 8, 6)),  # cut at the border
        ((-5, -5, 20, 20), (0, 0, 8, 6)),
    ],
)
def test_box_pixels_are_those_whose_centres_it_holds(box, pixels):
    assert box_pixels(box, (6, 8)) == pixels
    left, top, right, bottom = pixels
    expected = np.zeros((6, 8), dtype=bool)
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(rle_to_mask(box_rle(box, (6, 8))), expected)


def test_ellipse_in_a_box_by_hand():
    # Half axes 3 and 2 around (4, 3): of the top row (y = -1.5), x**2 <= 9 * (1 - 0.5625) = 3.94, so x of 0.5 and 1.5.
    expected = ["00000000", "00111100", "01111110", "01111110", "00111100", "00000000"]
    found = rle_to_mask(box_rle((1, 1, 7, 5), (6, 8), "ellipse"))
    assert ["".join(str(int(value)) for value in row) for row in found] == expected


def test_ellipse_has_the_area_of_an_ellipse_wherever_it_lies():
    for shift in (0.0, 0.25, 0.5, 0.9):
        rle = box_rle((10 + shift, 20 + shift, 70 + shift, 60 + shift), (100, 100), "ellipse")
        assert rle_area(rle) == pytest.approx(np.pi * 30 * 20, rel=0.01)
        assert rle_box(rle) == pytest.approx((10 + shift, 20 + shift, 70 + shift, 60 + shift), abs=1)


def test_ellipse_cut_by_the_border_keeps_its_shape():
    half = rle_to_mask(box_rle((-10, 0, 10, 20), (20, 20), "ellipse"))
    whole = rle_to_mask(box_rle((0, 0, 20, 20), (20, 20), "ellipse"))
    np.testing.assert_array_equal(half[:, :10], whole[:, 10:])


@pytest.mark.parametrize("box", [(3.0, 3.0, 3.2, 3.1), (3.6, 3.6, 4.4, 4.4), (7.99, 5.99, 8.0, 6.0)])
def test_ellipse_has_a_pixel_at_least(box):
    assert rle_area(box_rle(box, (6, 8), "ellipse")) == 1
