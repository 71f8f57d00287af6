"""What the pixels of one image say: gathered once, so that every check can be a small function of plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.audit.copies import Print, take_print
from mammodet.data.breast import find_breast
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.files import file_hash
from mammodet.geometry import Mask, lesion_rle, rle_to_mask, surround_contrast
from mammodet.records import ImageRecord, Lesion

#: Where a lesion would lie if coordinates were counted from another corner.
Place = Literal["here", "flipped_y", "flipped_x", "turned"]
PLACES: tuple[Place, ...] = ("here", "flipped_y", "flipped_x", "turned")


@dataclass(frozen=True, slots=True)
class LesionFacts:
    """Of one lesion at its own place and at the mirrored ones."""

    on_breast: Mapping[Place, float]  #: place to the share of its mask (or box) that lies on the breast, in [0, 1]
    contrast: Mapping[Place, float]  #: place to how much brighter it is than the ring around it, in grey levels


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Of one image file."""

    fault: str | None = None  #: why there are no pixels, as a message; None where there are
    is_missing: bool = False  #: the fault is that there is no such file
    sha256: str | None = None  #: of the file's bytes
    size_hw: tuple[int, int] | None = None  #: (height, width) of the pixels
    bits: int = 0  #: 8 or 16
    levels: int = 0  #: distinct grey values
    flat_share: float = 0.0  #: share of the pixels that have the commonest value
    is_jpeg: bool = False  #: the file is a JPEG, whatever its name says
    mean: float = 0.0  #: grey value over the image, on the scale [0, 1] of its depth; `breast_mean` over the breast
    breast_mean: float = 0.0
    tissue_side: float = 0.0  #: from -1 (the chest wall is on the left) to 1 (right); near 0 it is not clear
    print: Print | None = None  #: to know the image again; None for a flat one
    lesions: tuple[LesionFacts, ...] = ()  #: in the record's order; empty where the size is not the record's

    @property
    def is_flat(self) -> bool:
        """Whether there is nothing on the image: all but a thousandth of its pixels have one value."""
        return self.fault is None and (self.levels < 2 or self.flat_share > 0.999)


def measure_image(path: Path, record: ImageRecord, *, with_lesions: bool = True) -> ImageFacts:
    """Read an image and measure it, and its lesions if wanted; `fault` says what cannot be read; nothing is raised."""
    try:
        pixels = read_image(path)
        content = file_hash(path)
        with open(path, "rb") as file:
            is_jpeg = file.read(2) == b"\xff\xd8"
    except (InputError, OSError) as error:
        return ImageFacts(fault=str(error), is_missing=not path.exists())
    size_hw = (int(pixels.shape[0]), int(pixels.shape[1]))
    depth = 256 if pixels.dtype == np.uint8 else 65536
    # Not np.unique, which sorts: the histogram gives the levels, the commonest one and the mean in one pass.
    histogram = cv2.calcHist([pixels], [0], None, [depth], [0, depth]).ravel().astype(np.float64)
    total = max(histogram.sum(), 1.0)
    levels, flat_share = int(np.count_nonzero(histogram)), float(histogram.max() / total)
    mean = float(histogram @ np.arange(depth) / total / (depth - 1))
    facts = ImageFacts(
        sha256=content,
        size_hw=size_hw,
        bits=8 if depth == 256 else 16,
        levels=levels,
        flat_share=flat_share,
        is_jpeg=is_jpeg,
        mean=mean,
    )
    if facts.is_flat:
        return facts
    breast = find_breast(pixels)
    measured: tuple[LesionFacts, ...] = ()
    if with_lesions and record.lesions and size_hw == tuple(record.size_hw):
        on_breast = breast.mask_at(record.size_hw)
        measured = tuple(_measure_lesion(pixels, on_breast, lesion) for lesion in record.lesions)
    small = cv2.resize(pixels, breast.mask.shape[::-1], interpolation=cv2.INTER_AREA)
    return replace(
        facts,
        breast_mean=float(small[breast.mask].mean()) / (depth - 1),
        tissue_side=find_tissue_side(breast.mask),
        print=take_print(pixels, breast.mask),
        lesions=measured,
    )


def find_tissue_side(breast: Mask) -> float:
    """On which side of a breast mask (h, w) the chest wall lies, from -1 (left) to 1 (right).

    The breast is widest, from top to bottom, at the chest wall and comes to a point at the nipple: the columns'
    centre of mass lies off the middle of the mask's box, towards the chest wall, wherever on the film the breast is.
    """
    heights = breast.sum(axis=0).astype(np.float64)
    columns = np.flatnonzero(heights)
    if len(columns) < 2:
        return 0.0
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2
    centre = float(heights @ np.arange(len(heights)) / heights.sum())
    # A triangle's centre of mass lies a third of the half width off the middle.
    return float(np.clip(3 * (centre - middle) / half, -1, 1))


def _measure_lesion(pixels: NDArray[Any], on_breast: Mask, lesion: Lesion) -> LesionFacts:
    height, width = on_breast.shape
    (x1, y1, x2, y2), patch = _patch_of(lesion, (height, width))
    shares: dict[Place, float] = {}
    contrasts: dict[Place, float] = {}
    radius = float(np.sqrt(patch.sum() / np.pi))
    for place in PLACES:
        mirror_x, mirror_y = place in ("flipped_x", "turned"), place in ("flipped_y", "turned")
        left, top = (width - x2 if mirror_x else x1), (height - y2 if mirror_y else y1)
        turned = patch[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
        shares[place] = float(on_breast[top : top + y2 - y1, left : left + x2 - x1][turned].mean())
        centre_xy = (left + (x2 - x1) / 2, top + (y2 - y1) / 2)
        contrasts[place] = surround_contrast(pixels, centre_xy, radius)
    return LesionFacts(shares, contrasts)


def _patch_of(lesion: Lesion, size_hw: tuple[int, int]) -> tuple[tuple[int, int, int, int], Mask]:
    """The lesion's pixels and their whole-pixel box: of its mask, or of its box where there is none."""
    mask = rle_to_mask(lesion_rle(lesion, size_hw))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return box, mask[box[1] : box[3], box[0] : box[2]]
