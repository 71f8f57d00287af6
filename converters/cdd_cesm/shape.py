"""Which outlines can be masses, by their shape: the archive outlines all findings alike and does not name them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mammodet.converters.mask_files import Outline
from mammodet.data.breast import Breast
from mammodet.errors import InputError, faults_of, raise_faults

Kind = Literal["mass", "band", "small", "spread"]
_Number = Annotated[FiniteFloat, Field(ge=0)]


@pydantic_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class MassRule:
    """What an outline has to fulfil to count as a mass; docs/cdd_cesm.md has the evidence."""

    min_pixels: NonNegativeInt = 20  #: smaller components of a mask are noise of the JPEG's edges, and dropped
    min_solidity: _Number = 0.72  #: least share of the convex hull that the outline fills
    max_aspect: _Number = 2.0  #: most that the smallest rectangle around it is longer than wide
    min_roundness: _Number = 0.34  #: least share of it that its largest inscribed disc covers
    #: min_area, max_area: shares of the breast.
    min_area: _Number = 0.0025
    max_area: _Number = 0.25
    #: large_area, large_roundness: what covers more than `large_area` of the breast has to be that round.
    large_area: _Number = 0.10
    large_roundness: _Number = 0.50

    def __post_init__(self) -> None:
        if not self.min_area <= self.large_area <= self.max_area:
            raise InputError(
                f"--mass-rule: min_area {self.min_area}, large_area {self.large_area}, max_area {self.max_area}: "
                "expected them to rise"
            )


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

    Raises InputError: unknown names, or values that are no numbers from 0.
    """
    values: dict[str, Any] = {name: number for name, _, number in (text.partition("=") for text in texts)}
    try:
        return MassRule(**values)
    except ValidationError as error:
        names = ", ".join(field.name for field in fields(MassRule))
        raise_faults(faults_of(error), where="--mass-rule", advice=f"Its names are {names}; its numbers count from 0.")
        raise


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
