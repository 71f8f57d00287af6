"""Outlines of the original archive: Radiology_hand_drawn_segmentations_v2.csv, by the VGG Image Annotator (VIA).

One row per region: `#filename`, `file_size`, `file_attributes`, `region_count`, `region_id`, `region_shape_attributes`
and `region_attributes`; the shape is JSON, in pixels of the image file. Regions are polygons, ellipses, circles, and a
few polylines and points. Some file names have a blank before `.jpg`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.cdd_cesm.archive import ImageName, names_in, parse_name
from mammodet.converters.mask_files import Outline
from mammodet.converters.sheet import read_sheet
from mammodet.converters.via import read_shape
from mammodet.data.json_values import short
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
    """Read the CSV. Raises InputError: it cannot be read as a table, or columns are missing."""
    columns, lines = read_sheet(path)
    header = [cell.lstrip("#").strip().lower() for cell in columns]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: column {' and '.join(missing)} missing; found {', '.join(header)}. Expected the archive's "
            "Radiology_hand_drawn_segmentations_v2.csv"
        )
    file_at, shape_at = (header.index(name) for name in _COLUMNS)
    regions = Regions()
    for line in lines:
        place, cells = f"{path.name} line {line.number}", line.cells
        if line.fault:
            regions.faulty.update(names_in(path, line))
            regions.quarantine.append(Quarantined(Reason.BAD_ROW, "region", place, line.fault))
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
            numbers, geometry = read_shape(shape)
        except (ValueError, RecursionError) as error:
            regions.faulty.add(name)
            regions.quarantine.append(Quarantined(Reason.NO_PLACE, "region", f"{name} ({place})", str(error)))
            continue
        regions.by_image.setdefault(name, []).append(
            Region(tuple(zip(numbers[::2], numbers[1::2], strict=True)), geometry, place)
        )
    return regions


def draw(region: Region, size_hw: tuple[int, int]) -> Outline:
    """The pixels of a region.

    Raises ValueError: it leaves the image by more than a slip of the hand, or covers no pixel.
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
