"""Outlines as polygons, by shapely: turned boxes, ellipses, those that cross themselves or the border, and of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely import affinity

from mammodet.geometry import rle_box, rle_to_mask
from mammodet.records import BoxXYXY, Rle

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
    whole = drawn if drawn.is_valid else shapely.make_valid(drawn, method="structure", keep_collapsed=False)
    parts = shapely.get_parts(shapely.intersection(whole, frame))
    return [_numbers(part) for part in parts if part.geom_type == "Polygon" and part.area > 0] or [list(polygon)]


def rle_polygons(rle: Rle, tolerance_px: float = 0.0) -> list[shapely.Polygon]:
    """The regions of a mask as polygons along the borders of its pixels, their holes filled, the largest first.

    Args:
        tolerance_px: no point of a border lies further than this from its polygon (Douglas and Peucker's rule).
    """
    left, top, right, bottom = (round(side) for side in rle_box(rle))
    patch = np.pad(rle_to_mask(rle)[top:bottom, left:right], ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(patch, axis=1) == 1)
    _, ends = np.nonzero(np.diff(patch, axis=1) == -1)
    parts = shapely.get_parts(shapely.union_all(shapely.box(left + starts, top + rows, left + ends, top + rows + 1)))
    filled = shapely.polygons(shapely.get_exterior_ring(parts))
    simple = shapely.simplify(filled, tolerance_px, preserve_topology=True)
    return [simple[index] for index in np.argsort(-shapely.area(simple), kind="stable")]
