"""Outlines of findings by shapely: from points to a valid shape, cut at the image's border, to boxes and masks.

Shapes are in the pixel frame of `mammodet.records`. A pixel belongs to a mask where its centre lies in the shape or on
its border.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from mammodet.geometry import patch_to_rle
from mammodet.records import BoxXYXY, Rle
from mammodet.trace import Trace


def polygon(points_xy: Sequence[Sequence[float]]) -> BaseGeometry:
    """The area inside an outline; one that crosses itself becomes the parts that it encloses.

    Raises:
        ValueError: fewer than three points, a number that is not finite, or no area.
    """
    if len(points_xy) < 3:
        raise ValueError(f"has {len(points_xy)} points; an outline has at least 3")
    if not np.isfinite(points_xy).all():
        raise ValueError("has a point that is no number")
    return _areas(shapely.make_valid(shapely.Polygon(points_xy)))


def circle(centre_xy: Sequence[float], radius: float) -> BaseGeometry:
    """A disc, as a polygon of 128 corners.

    Raises:
        ValueError: no radius.
    """
    if not radius > 0:
        raise ValueError(f"has the radius {radius:g}")
    return shapely.Point(centre_xy).buffer(radius, quad_segs=32)


def box(x1: float, y1: float, x2: float, y2: float) -> BaseGeometry:
    """A rectangle.

    Raises:
        ValueError: it is empty or inside out.
    """
    if not (x2 > x1 and y2 > y1 and np.isfinite([x1, y1, x2, y2]).all()):
        raise ValueError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is empty or inside out")
    return shapely.box(x1, y1, x2, y2)


def clip(shape: BaseGeometry, size_hw: tuple[int, int]) -> tuple[BaseGeometry, bool]:
    """The part of a shape on an image of (height, width), and whether something was cut off.

    Raises:
        ValueError: nothing of it is on the image.
    """
    height, width = size_hw
    x1, y1, x2, y2 = shape.bounds
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return shape, False
    inside = shapely.intersection(shape, shapely.box(0, 0, width, height))
    if inside.area <= 0:
        raise ValueError(f"spans x {x1:g} to {x2:g}, y {y1:g} to {y2:g}; the image is {width} wide, {height} high")
    return _areas(inside), True


def forward(shape: BaseGeometry, trace: Trace) -> BaseGeometry:
    """A shape in native pixels in those of the traced image."""
    scale, shift = trace.affine()
    return shapely.transform(shape, lambda points: points * scale + shift) if trace.steps else shape


def to_box(shape: BaseGeometry) -> BoxXYXY:
    """The tight box of a shape."""
    x1, y1, x2, y2 = (float(side) for side in shape.bounds)
    return x1, y1, x2, y2


def to_rle(shape: BaseGeometry, size_hw: tuple[int, int]) -> Rle:
    """The mask of a shape that lies on an image of (height, width): at least one pixel."""
    height, width = size_hw
    x1, y1, x2, y2 = shape.bounds
    left, top = min(int(x1), width - 1), min(int(y1), height - 1)
    right, bottom = max(min(int(np.ceil(x2)), width), left + 1), max(min(int(np.ceil(y2)), height), top + 1)
    columns, rows = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    shapely.prepare(shape)
    patch = shapely.intersects_xy(shape, columns, rows)
    if not patch.any():  # smaller than a pixel, between the centres
        point = shape.representative_point()
        patch[min(int(point.y), height - 1) - top, min(int(point.x), width - 1) - left] = True
    return patch_to_rle(patch, (left, top), size_hw)


def _areas(shape: BaseGeometry) -> BaseGeometry:
    """A shape without its points and lines."""
    parts = [part for part in shapely.get_parts(shape) if part.area > 0]
    if not parts:
        raise ValueError("encloses no area")
    return shapely.union_all([piece for part in parts for piece in shapely.get_parts(part)])
