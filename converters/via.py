"""Regions of the VGG Image Annotator (VIA): the shapes that its JSON and its CSV hold."""

import math
from collections.abc import Mapping
from typing import Any

from mammodet.data.json_values import is_finite, short
from mammodet.outlines import ellipse
from mammodet.records import Geometry


def read_shape(shape: Any) -> tuple[list[float], Geometry]:
    """x, y, x, y, ... of a region in pixels of the image, and how it was drawn.

    Raises ValueError: it is no shape, or one without an extent.
    """
    if not isinstance(shape, Mapping):
        raise ValueError(f"shape is {short(shape)}; expected an object")
    kind = shape.get("name")

    def number(key: str, least: float = -math.inf) -> float:
        value: Any = shape.get(key)
        if not is_finite(value) or value <= least:
            raise ValueError(f"{kind} with {key} {short(value)}; expected a number" + (" over 0" if least == 0 else ""))
        return float(value)

    if kind in ("polygon", "polyline"):
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not (isinstance(xs, list) and isinstance(ys, list) and all(map(is_finite, [*xs, *ys]))):
            raise ValueError(f"{kind} without lists of numbers all_points_x and all_points_y")
        if len(xs) != len(ys) or len(xs) < 3:
            raise ValueError(f"{kind} of {len(xs)} x and {len(ys)} y; expected at least 3 points")
        return [float(value) for point in zip(xs, ys, strict=True) for value in point], "contour"
    if kind in ("circle", "ellipse"):
        radii = (number("r", 0),) * 2 if kind == "circle" else (number("rx", 0), number("ry", 0))
        turn = math.degrees(number("theta")) if "theta" in shape else 0.0
        return ellipse((number("cx"), number("cy")), radii, turn), "circle"
    if kind == "rect":
        x, y, width, height = number("x"), number("y"), number("width", 0), number("height", 0)
        return [x, y, x + width, y, x + width, y + height, x, y + height], "box"
    raise ValueError(f"region is a {short(kind)}, which has no extent that could be read")
