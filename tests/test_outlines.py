"""Outlines by shapely: turned boxes, ellipses, crossings, borders by hand; to run lengths and back within a pixel."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from mammodet.data.json_values import Checker, read_segmentation
from mammodet.geometry import circle_mask, mask_to_rle, rle_area, rle_to_mask
from mammodet.outlines import ellipse, mend, rle_polygons, turned_box


def area(polygons) -> float:
    return sum(shapely.Polygon(np.reshape(polygon, (-1, 2))).area for polygon in polygons)


def test_box_is_turned_clockwise_around_its_middle_or_corner():
    assert turned_box([10, 20, 6, 2], 90) == pytest.approx((12, 18, 14, 24))
    assert turned_box([10, 20, 6, 2], 90, around_corner=True) == pytest.approx((8, 20, 10, 26))
    assert turned_box([10, 20, 6, 2], 0) == (10, 20, 16, 22)


def test_ellipse_has_its_radii_and_turns_around_its_centre():
    corners = np.reshape(ellipse((30, 20), (10, 4), 90), (-1, 2))
    assert corners.min(axis=0).tolist() == pytest.approx([26, 10])
    assert corners.max(axis=0).tolist() == pytest.approx([34, 30])


def test_outline_that_crosses_itself_keeps_both_loops():
    bow = [0, 0, 10, 10, 10, 0, 0, 10]  # two triangles of 25
    assert len(mend(bow, (20, 20))) == 2
    assert area(mend(bow, (20, 20))) == pytest.approx(50)
    angles = np.radians(-90 + 144 * np.arange(5))
    star = np.stack([50 + 40 * np.cos(angles), 50 + 40 * np.sin(angles)], axis=1)
    (whole,) = mend(star.ravel().tolist(), (100, 100))  # its middle, around which it winds twice, is inside
    assert shapely.Polygon(np.reshape(whole, (-1, 2))).contains(shapely.Point(50, 50))
    rle = read_segmentation([star.ravel().tolist()], 100, 100, "", Checker())
    assert rle_area(rle) == pytest.approx(1796, rel=0.05)


def test_outline_over_the_border_is_cut_and_a_sound_one_is_left_alone():
    assert area(mend([-5, 2, 5, 2, 5, 8, -5, 8], (20, 20))) == 30
    assert mend([1, 1, 5, 1, 5, 5], (20, 20)) == [[1, 1, 5, 1, 5, 5]]
    assert mend([1, 1, 5, 5, 9, 9], (20, 20)) == [[1, 1, 5, 5, 9, 9]]  # a line


def test_outline_of_a_mask_and_back_is_the_mask_within_a_pixel():
    mask = circle_mask((32, 30), 17, (64, 70)) | circle_mask((60, 55), 5, (64, 70))
    rle = mask_to_rle(mask)
    exact = rle_polygons(rle)
    assert [polygon.area for polygon in exact] == sorted((polygon.area for polygon in exact), reverse=True)
    assert sum(polygon.area for polygon in exact) == mask.sum()
    for tolerance in (0, 0.75):
        numbers = [shapely.get_coordinates(polygon).ravel().tolist() for polygon in rle_polygons(rle, tolerance)]
        back = read_segmentation(numbers, 64, 70, "", Checker())
        again = rle_to_mask(back)
        assert (mask & again).sum() > 0.9 * (mask | again).sum()
        around = shapely.union_all(exact)
        drawn = shapely.union_all(rle_polygons(back))
        assert drawn.difference(around.buffer(1)).is_empty
        assert around.difference(drawn.buffer(1)).is_empty
