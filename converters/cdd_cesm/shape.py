"""Which outlines can be masses, by their shape: the archive outlines all findings alike and does not name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
from mammodet.converters.mask_files import Outline
from numpy.typing import NDArray

from mammodet.data.breast import Breast
from mammodet.errors import InputError, raise_faults

Kind = Literal["mass", "band", "small", "spread"]


@dataclass(frozen=True, slots=True)
class MassRule:
    """What an outline has to fulfil to count as a mass; docs/cdd_cesm.md has the evidence.

    Attributes:
        min_pixels: smaller components of a mask are noise of the JPEG's edges, and dropped.
        min_solidity: least share of the convex hull that the outline fills.
        max_aspect: most that the smallest rectangle around it is longer than wide.
        min_roundness: least share of it that its largest inscribed disc covers.
        min_area, max_area: shares of the breast.
        large_area, large_roundness: what covers more than `large_area` of the breast has to be that round.
    """

    min_pixels: int = 20
    min_solidity: float = 0.72
    max_aspect: float = 2.0
    min_roundness: float = 0.34
    min_area: float = 0.0025
    max_area: float = 0.25
    large_area: float = 0.10
    large_roundness: float = 0.50


#: A band: its inscribed disc covers less than this share of it, and half of it lies within `_SKIN` (a share of the
#: image's longer side) of the skin line.
_BAND_ROUNDNESS = 0.15
_SKIN = 0.04


@dataclass(frozen=True, slots=True)
class Shape:
    """Measures of an outline, as in `MassRule`; `depth`: median distance from the skin by the image's longer side."""

    solidity: float
    aspect: float
    roundness: float
    area: float
    depth: float


def rule_from(texts: Sequence[str]) -> MassRule:
    """The rule with some numbers changed by `NAME=NUMBER`.

    Raises:
        InputError: unknown names, or values that are no numbers from 0.
    """
    kinds = {field.name: int if field.type == "int" else float for field in fields(MassRule)}
    values: dict[str, float] = {}
    faults: list[str] = []
    for text in texts:
        name, _, number = text.partition("=")
        if name not in kinds:
            faults.append(f"{text!r}: unknown name {name!r}; expected one of {', '.join(kinds)}")
            continue
        try:
            values[name] = kinds[name](number)
            good = 0 <= values[name] < float("inf")
        except ValueError:
            good = False
        if not good:
            expected = "a whole number" if kinds[name] is int else "a number"
            faults.append(f"{text!r}: expected {expected} from 0")
    raise_faults(faults, where="--mass-rule")
    rule = MassRule(**values)  # type: ignore[arg-type]
    if not rule.min_area <= rule.large_area <= rule.max_area:
        raise InputError(
            f"--mass-rule: min_area {rule.min_area}, large_area {rule.large_area}, max_area {rule.max_area}: "
            "expected them to rise"
        )
    return rule


def skin_depth(breast: Breast) -> NDArray[np.float32]:
    """Distance from the skin line in pixels of `breast.mask`; the image's border is none, the breast goes on there."""
    padded = cv2.copyMakeBorder(breast.mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.minimum(depth, np.float32(max(depth.shape)))  # without any background it is boundless


def measure(outline: Outline, breast: Breast, depth: NDArray[np.float32]) -> Shape:
    """Measures of an outline on the image that `breast` was found on; `depth` as `skin_depth` gives it."""
    patch = np.ascontiguousarray(outline.patch, dtype=np.uint8)
    area = int(patch.sum())
    points = cv2.findNonZero(patch)
    hull = np.zeros_like(patch)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    # The rectangle goes through the centres of the outer pixels.
    sides = [side + 1 for side in cv2.minAreaRect(points)[1]]
    padded = cv2.copyMakeBorder(patch, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    radius = float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max())
    height, width = breast.size_hw
    rows, columns = np.nonzero(outline.patch)
    rows = ((rows + outline.corner_xy[1] + 0.5) * depth.shape[0] / height).astype(int)
    columns = ((columns + outline.corner_xy[0] + 0.5) * depth.shape[1] / width).astype(int)
    return Shape(
        solidity=area / int(hull.sum()),
        aspect=max(sides) / min(sides),
        roundness=min(np.pi * radius**2 / area, 1.0),
        area=area / max(float(breast.mask.mean()) * height * width, 1.0),
        depth=float(np.median(depth[rows, columns])) / max(depth.shape),
    )


def kind_of(shape: Shape, rule: MassRule) -> Kind:
    """`mass`; or why it is none: a `band` along the skin, too `small`, or too `spread` (large, long or ragged)."""
    roundness = rule.large_roundness if shape.area > rule.large_area else rule.min_roundness
    if shape.roundness < _BAND_ROUNDNESS and shape.depth < _SKIN:
        return "band"
    if shape.area < rule.min_area:
        return "small"
    compact = (
        shape.solidity >= rule.min_solidity
        and shape.aspect <= rule.max_aspect
        and shape.roundness >= roundness
        and shape.area <= rule.max_area
    )
    return "mass" if compact else "spread"
