"""Outlines of the original archive: Radiology_hand_drawn_segmentations_v2.csv, by the VGG Image Annotator (VIA).

One row per region: `#filename`, `file_size`, `file_attributes`, `region_count`, `region_id`, `region_shape_attributes`
and `region_attributes`; the shape is JSON, in pixels of the image file. Regions are polygons, ellipses, circles, and a
few polylines and points. Some file names have a blank before `.jpg`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.cdd_cesm.archive import ImageName, parse_name
from mammodet.converters.mask_files import Outline
from mammodet.converters.sheet import read_rows
from pycocotools import mask as coco_mask

from mammodet.data.json_values import is_finite, short
from mammodet.errors import InputError
from mammodet.geometry import rle_box, rle_to_mask
from mammodet.records import Geometry

_COLUMNS = ("filename", "region_shape_attributes")
_OUTSIDE = 0.05  # share of the image's side by which a hand may slip over the border


@dataclass(frozen=True, slots=True)
class Region:
    """A drawn region: corners (n, 2) in pixels x, y of the image file, and the row it comes from."""

    corners_xy: tuple[tuple[float, float], ...]
    geometry: Geometry
    place: str


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions of each image; `faulty`: images with a region that cannot be used, which is in `quarantine`."""

    by_image: dict[ImageName, list[Region]] = field(default_factory=dict)
    faulty: set[ImageName] = field(default_factory=set)
    quarantine: list[Quarantined] = field(default_factory=list)


def read_regions(path: Path) -> Regions:
    """Read the CSV.

    Raises:
        InputError: it cannot be read as a table, or columns are missing.
    """
    rows = read_rows(path)
    header = [cell.lstrip("#").strip().lower() for cell in rows[0][1]]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: column {' and '.join(missing)} missing; found {', '.join(header)}. Expected the archive's "
            "Radiology_hand_drawn_segmentations_v2.csv"
        )
    file_at, shape_at = (header.index(name) for name in _COLUMNS)
    regions = Regions()
    for line, cells in rows[1:]:
        place = f"{path.name} line {line}"
        if len(cells) != len(header):
            reason = f"{len(cells)} cells, the header has {len(header)}"
            regions.quarantine.append(Quarantined(Reason.BAD_ROW, "region", place, reason))
            continue
        name = parse_name(cells[file_at])
        if name is None:
            reason = f"file name {short(cells[file_at])} is not like P105_L_DM_MLO.jpg"
            regions.quarantine.append(Quarantined(Reason.BAD_ROW, "region", place, reason))
            continue
        try:
            shape = json.loads(cells[shape_at] or "{}")
            if shape == {}:  # VIA's row of an image without regions
                continue
            corners, geometry = _corners(shape)
        except (ValueError, RecursionError) as error:
            regions.faulty.add(name)
            regions.quarantine.append(Quarantined(Reason.NO_PLACE, "region", f"{name} ({place})", str(error)))
            continue
        regions.by_image.setdefault(name, []).append(Region(corners, geometry, place))
    return regions


def _corners(shape: Any) -> tuple[tuple[tuple[float, float], ...], Geometry]:
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
        return tuple((float(x), float(y)) for x, y in zip(xs, ys, strict=True)), "contour"
    if kind in ("circle", "ellipse"):
        radii = (number("r", 0),) * 2 if kind == "circle" else (number("rx", 0), number("ry", 0))
        centre = number("cx"), number("cy")
        turn = number("theta") if "theta" in shape else 0.0
        angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        along, across = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
        xs = centre[0] + along * math.cos(turn) - across * math.sin(turn)
        ys = centre[1] + along * math.sin(turn) + across * math.cos(turn)
        return tuple(zip(xs.tolist(), ys.tolist(), strict=True)), "circle"
    if kind == "rect":
        x, y, width, height = number("x"), number("y"), number("width", 0), number("height", 0)
        return ((x, y), (x + width, y), (x + width, y + height), (x, y + height)), "box"
    raise ValueError(f"region is a {short(kind)}, which has no extent that could be read")


def draw(region: Region, size_hw: tuple[int, int]) -> Outline:
    """The pixels of a region.

    Raises:
        ValueError: it leaves the image by more than a slip of the hand, or covers no pixel.
    """
    height, width = size_hw
    corners = np.array(region.corners_xy)
    slip = np.array([width, height]) * _OUTSIDE
    if (corners < -slip).any() or (corners > np.array([width, height]) + slip).any():
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        raise ValueError(f"spans x {x1:g} to {x2:g}, y {y1:g} to {y2:g}; the image is {width} wide, {height} high")
    corners = np.clip(corners, 0, [width, height])
    rle = coco_mask.merge(coco_mask.frPyObjects([corners.ravel().tolist()], height, width))
    if not coco_mask.area(rle):
        raise ValueError("covers no pixel")
    x1, y1, x2, y2 = (int(side) for side in rle_box(rle))
    return Outline(rle_to_mask(rle)[y1:y2, x1:x2], (x1, y1))
