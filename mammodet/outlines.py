"""Outlines as polygons, by shapely: turned boxes, ellipses, those that cross themselves or the border, and of masks.

Shapes are in the pixel frame of `mammodet.records`.
"""

from collections.abc import Sequence

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from mammodet.geometry import patch_to_rle, rle_box, rle_to_mask
from mammodet.records import BoxXYXY, Rle
from mammodet.trace import Trace

_QUARTER = 18  # corners in a quarter of an ellipse


def turned_box(box_xywh: Sequence[float], degrees: float, *, around_corner: bool = False) -> BoxXYXY:
    """The upright box around one that is turned clockwise, as seen, around its middle or its first corner."""
    x, y, w, h = box_xywh
    turned = affinity.rotate(shapely.box(x, y, x + w, y + h), degrees, origin=(x, y) if around_corner else "center")
    x1, y1, x2, y2 = turned.bounds
    return x1, y1, x2, y2


def ellipse(centre_xy: tuple[float, float], radii_xy: tuple[float, float], degrees: float = 0.0) -> list[float]:
    """x, y, x, y, ... of an ellipse turned clockwise, as seen, around its centre."""
    circle = shapely.Point(0, 0).buffer(1, quad_segs=_QUARTER)
    turned = affinity.rotate(affinity.scale(circle, *radii_xy, origin=(0, 0)), degrees, origin=(0, 0))
    return _numbers(affinity.translate(turned, *centre_xy))


def _numbers(polygon: shapely.Polygon) -> list[float]:
    corners = shapely.get_coordinates(polygon.exterior)[:-1]
    return [float(number) for number in corners.ravel()]


def mend(polygon: Sequence[float], size_hw: tuple[int, int]) -> list[list[float]]:
    """The parts of an outline inside its image, none of which crosses itself.

    Where an outline crosses itself, both of its loops are inside, as the hand that drew them meant; an outline without
    area, as of a line, is left as it is.

    Args:
        polygon: x, y, x, y, ...
        size_hw: (height, width) of the image.
    """
    drawn = shapely.Polygon(np.reshape(polygon, (-1, 2)))
    frame = shapely.box(0, 0, size_hw[1], size_hw[0])
    if drawn.is_valid and frame.covers(drawn):
        return [list(polygon)]
    parts = shapely.get_parts(shapely.intersection(_valid(drawn), frame))
    return [_numbers(part) for part in parts if part.geom_type == "Polygon" and part.area > 0] or [list(polygon)]


def rle_polygons(rle: Rle, tolerance_px: float = 0.0) -> list[shapely.Polygon]:
    """The regions of a mask as polygons along the borders of its pixels, their holes filled, the largest first.

    Args:
        tolerance_px: of Douglas and Peucker's rule. A border lies nowhere further from its polygon than this, and twice
            this where the polygon begins, since GEOS removes that corner last.
    """
    left, top, right, bottom = (round(side) for side in rle_box(rle))
    patch = np.pad(rle_to_mask(rle)[top:bottom, left:right], ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(patch, axis=1) == 1)
    _, ends = np.nonzero(np.diff(patch, axis=1) == -1)
    parts = shapely.get_parts(shapely.union_all(shapely.box(left + starts, top + rows, left + ends, top + rows + 1)))
    filled = shapely.polygons(shapely.get_exterior_ring(parts))
    simple = shapely.simplify(filled, tolerance_px, preserve_topology=True)
    return [simple[index] for index in np.argsort(-shapely.area(simple), kind="stable")]


def one_outline(rle: Rle, tolerance_px: float = 0.0) -> list[float]:
    """x, y, x, y, ... of a mask as a single outline, for formats that know no other; its holes are filled.

    Several regions are joined by lines without area, there and back between their nearest corners.

    Args:
        tolerance_px: as of `rle_polygons`. Up to 0.5 the outline has the mask's box: its corners are whole numbers.
    Raises:
        ValueError: the mask is empty.
    """
    first, *others = (shapely.get_coordinates(part.exterior)[:-1] for part in rle_polygons(rle, tolerance_px))
    points = first
    for part in others:
        near = np.argmin(np.hypot(*(points[:, None] - part[None]).transpose(2, 0, 1)))
        at, start = divmod(int(near), len(part))
        points = np.concatenate([points[: at + 1], np.roll(part, -start, axis=0), part[start][None], points[at:]])
    return [float(number) for number in points.ravel()]


def _valid(drawn: shapely.Polygon) -> BaseGeometry:
    """An outline that crosses itself as all that its loops enclose."""
    return drawn if drawn.is_valid else shapely.make_valid(drawn, method="structure", keep_collapsed=False)


def polygon(points_xy: Sequence[Sequence[float]]) -> BaseGeometry:
    """The area inside an outline; one that crosses itself becomes the parts that it encloses.

    Raises ValueError: fewer than three points, a number that is not finite, or no area.
    """
    if len(points_xy) < 3:
        raise ValueError(f"has {len(points_xy)} points; an outline has at least 3")
    if not np.isfinite(points_xy).all():
        raise ValueError("has a point that is no number")
    return _areas(_valid(shapely.Polygon(points_xy)))


def circle(centre_xy: Sequence[float], radius: float) -> BaseGeometry:
    """A disc, as a polygon of 128 corners. Raises ValueError: no radius."""
    if not radius > 0:
        raise ValueError(f"has the radius {radius:g}")
    return shapely.Point(centre_xy).buffer(radius, quad_segs=32)


def box(x1: float, y1: float, x2: float, y2: float) -> BaseGeometry:
    """A rectangle. Raises ValueError: it is empty or inside out."""
    if not (x2 > x1 and y2 > y1 and np.isfinite([x1, y1, x2, y2]).all()):
        raise ValueError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is empty or inside out")
    return shapely.box(x1, y1, x2, y2)


def clip(shape: BaseGeometry, size_hw: tuple[int, int]) -> tuple[BaseGeometry, bool]:
    """The part of a shape on an image of (height, width), and whether something was cut off.

    Raises ValueError: nothing of it is on the image.
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
    """The mask of a shape on an image of (height, width): pixels whose centres it holds or touches, at least one."""
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
