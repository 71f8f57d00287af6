"""Where they lie on an image: around lesions, on lesion-free tissue, on false positives.

A patch is a square of whole pixels of the image file ("native" here) and lies inside the image; on an image that is
smaller it shrinks to the shorter side. Everything random is a hash of (seed, file name, what is drawn), so that neither
the order of images nor the number of jobs changes anything.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from mammodet.data.breast import Breast
from mammodet.evaluation.matching import match_quality
from mammodet.geometry import Boxes, Mask, as_boxes, box_iou, clip_boxes
from mammodet.patches import PatchOptions
from mammodet.records import BoxXYXY, ImagePrediction, ImageRecord

LEAST_SIDE = 16  # native pixels: a smaller square holds too little of the image to be worth enlarging
MOST_SHIFT = 0.25  # of the side
LEAST_TISSUE = 0.6  # of a negative patch
LESION_MARGIN = 0.1  # of a lesion's longest side, since outlines are drawn by hand
HIT_RULES = ("center", "iou@0.1")  # a detection that meets a lesion by either is no false positive
_SAME_PLACE = 0.5  # IoU of two patches of false positives that would show the same
_SIZE_DRAWS = 10


Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Patch:
    """A place on an image."""

    kind: str  #: `lesion`, `normal` or `hard` (a false positive)
    number: int  #: from 1, unique for the kind on the image
    corner_xy: tuple[int, int]  #: column and row of its top-left pixel
    side: int  #: in native pixels
    lesion: int | None = None  #: position of its lesion in the record; None for negatives
    score: float | None = None  #: of the false positive; None for others

    @property
    def box_xyxy(self) -> BoxXYXY:
        """In native pixels."""
        x, y = self.corner_xy
        return float(x), float(y), float(x + self.side), float(y + self.side)


def draw(count: int, *key: object) -> int:
    """A number from 0 to count - 1, the same for the same key on every machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def wanted_side(box_xyxy: Sequence[float], options: PatchOptions) -> int:
    """Side in native pixels of a patch around a box, before it is made to fit the image."""
    if options.fixed:
        return options.fixed_side
    x1, y1, x2, y2 = box_xyxy
    longest = max(x2 - x1, y2 - y1)
    return max(round(options.context * longest), math.ceil(longest), LEAST_SIDE)


def lesion_sides(records: Sequence[ImageRecord], options: PatchOptions) -> dict[str | None, list[int]]:
    """Sides of patches around lesions, in order, by source; under None those of all sources.

    Negatives take their sides from here, since otherwise a patch's blur would tell its class. Lesions of the test set
    do not count where there are others.
    """
    learnt = [record for record in records if record.split != "test" and _lesions(record)]
    sides: dict[str | None, list[int]] = {None: []}
    for record in learnt or records:
        found = [wanted_side(record.lesions[position].box_xyxy, options) for position in _lesions(record)]
        sides[None] += found
        if record.source is not None:
            sides.setdefault(record.source, []).extend(found)
    return {source: sorted(values) for source, values in sides.items() if values}


def _lesions(record: ImageRecord) -> list[int]:
    """Positions of the lesions that patches are made of."""
    return [position for position, lesion in enumerate(record.lesions) if not lesion.ignore]


def lesion_patches(record: ImageRecord, options: PatchOptions) -> list[Patch]:
    """`per_lesion` patches of each lesion: the first centred, the others shifted at random.

    A shift keeps the lesion inside as far as it fits and is at most a quarter of the side. A patch that would lie where
    an earlier one of the same lesion does is left out, so that there may be fewer.
    """
    patches = []
    for position in _lesions(record):
        box = record.lesions[position].box_xyxy
        side = min(wanted_side(box, options), *record.size_hw)
        ranges = [_corner_range(box[axis], box[axis + 2], side, record.size_hw[1 - axis]) for axis in (0, 1)]
        used = set()
        for copy in range(options.per_lesion):
            corner = tuple(
                centred
                if not copy
                else first + draw(last - first + 1, options.seed, record.file_name, position, copy, axis)
                for axis, (first, centred, last) in enumerate(ranges)
            )
            if corner not in used:
                used.add(corner)
                number = position * options.per_lesion + copy + 1
                patches.append(Patch("lesion", number, (corner[0], corner[1]), side, lesion=position))
    return patches


def _corner_range(low: float, high: float, side: int, extent: int) -> tuple[int, int, int]:
    """First, centred and last corner along one axis of a patch around [low, high] in an image of this extent."""
    centred = min(max(math.floor((low + high - side) / 2 + 0.5), 0), extent - side)
    reach = int(MOST_SHIFT * side)
    # Swapped where the lesion is longer than the patch: then it is the patch that stays inside the lesion.
    first, last = sorted((math.ceil(high - side), math.floor(low)))
    first, last = max(first, centred - reach, 0), min(last, centred + reach, extent - side)
    return (first, centred, last) if first <= last else (centred, centred, centred)


def why_no_negatives(record: ImageRecord, options: PatchOptions) -> str | None:
    """Why an image gives no negatives, None where it does: what its marks leave free must be known to be free."""
    if not record.has_complete_boxes:
        return "left out: a lesion has no place, or is to be ignored"
    if not record.lesions and record.label("tumor") != 0:
        return "left out: no lesion, but not known to be normal"
    if options.negatives_from == "normal" and record.label("tumor") != 0:
        return "left out: not normal"
    return None


def tissue_patches(
    record: ImageRecord, breast: Breast, sides: Mapping[str | None, Sequence[int]], options: PatchOptions
) -> list[Patch]:
    """Up to `negatives` patches of lesion-free tissue, drawn from all places that there are.

    The centre lies on the breast and in no earlier one of them, at least 60 % of the patch is tissue, and it meets no
    lesion, nor a margin around it.

    Args:
        sides: of `lesion_sides`; not used for patches of one size.
    """
    patches: list[Patch] = []
    pool = [options.fixed_side] if options.fixed else sides.get(record.source, sides[None])
    grown = _grown_boxes(record)
    for number in range(1, options.negatives + 1):
        key = (options.seed, record.file_name, "normal", number)
        for attempt in range(1 if len(pool) == 1 else _SIZE_DRAWS):
            side = min(pool[draw(len(pool), *key, "side", attempt)], *record.size_hw)
            corners = _tissue_corners(breast, side)
            corners = corners[_is_free(corners, side, grown)]
            for earlier in patches:
                low, high = np.array(earlier.corner_xy), np.array(earlier.corner_xy) + earlier.side
                centres = corners + side / 2
                corners = corners[((centres < low) | (centres > high)).any(axis=1)]
            if len(corners):
                x, y = (int(value) for value in corners[draw(len(corners), *key, "place")])
                patches.append(Patch("normal", number, (x, y), side))
                break
    return patches


def _grown_boxes(record: ImageRecord) -> Boxes:
    """Boxes (n, 4) of all lesions, ignored ones too, with a margin."""
    boxes = as_boxes([lesion.box_xyxy for lesion in record.lesions])
    margin = np.ceil(LESION_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0))[:, None]
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def _is_free(corners: Ints, side: int, boxes: Boxes) -> NDArray[np.bool_]:
    """Which squares at corners (n, 2) meet none of the boxes (m, 4): bool (n,)."""
    low, high = corners[:, None, :], corners[:, None, :] + side
    meets = np.all((low < boxes[None, :, 2:]) & (high > boxes[None, :, :2]), axis=2)
    return np.asarray(~np.any(meets, axis=1))


def _tissue_corners(breast: Breast, side: int) -> Ints:
    """Corners (n, 2), (x, y), row after row, of squares inside the image that lie on the breast."""
    height, width = breast.size_hw
    cell_xy = np.array([width / breast.mask.shape[1], height / breast.mask.shape[0]])
    rows, columns = np.nonzero(breast.mask)
    centres = (np.stack([columns, rows], axis=1) + 0.5) * cell_xy
    corners = np.clip(np.floor(centres - side / 2 + 0.5).astype(np.int64), 0, [width - side, height - side])
    flat = np.unique(corners[:, 1] * width + corners[:, 0])
    corners = np.stack([flat % width, flat // width], axis=1)
    column, row = np.floor((corners + side / 2) / cell_xy).astype(np.int64).T
    corners = corners[breast.mask[row, column]]
    return corners[_tissue_share(breast.mask, corners / cell_xy, side / cell_xy) >= LEAST_TISSUE]


def _tissue_share(mask: Mask, corners: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share (n,) of tissue in rectangles of sides (x, y) at corners (n, 2), in the mask's own pixels."""
    area = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    area[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)

    def below(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        # Between whole pixels the area is bilinear, since a pixel is all tissue or none.
        return np.asarray(map_coordinates(area, [y, x], order=1, mode="nearest"))

    (x1, y1), (x2, y2) = corners.T, (corners + sides).T
    inside = below(x2, y2) - below(x1, y2) - below(x2, y1) + below(x1, y1)
    return np.asarray(inside / sides.prod() + 1e-9)  # so that exactly 60 % does not fall to rounding


def hard_patches(record: ImageRecord, prediction: ImagePrediction, options: PatchOptions) -> tuple[list[Patch], int]:
    """Up to `hard_per_image` patches of false positives, the highest scores first, and how many found no room.

    A patch is centred where that meets no lesion (nor a margin around it), else shifted as little as possible with the
    detection still inside; where that is impossible it is left out. So are places that a stronger one shows.
    """
    found = prediction.detections
    boxes = clip_boxes(found.boxes_xyxy, record.size_hw)
    lesions = as_boxes([lesion.box_xyxy for lesion in record.lesions])
    is_hit = np.zeros(len(boxes), dtype=bool)
    for rule in HIT_RULES:
        is_hit |= (match_quality(found.boxes_xyxy, lesions, rule) > 0).any(axis=1)
    is_box = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    grown = _grown_boxes(record)
    patches: list[Patch] = []
    without_room = 0
    for row in np.flatnonzero(~is_hit & is_box & (found.scores >= options.hard_score)):
        if len(patches) == options.hard_per_image:
            break
        side = min(wanted_side(boxes[row], options), *record.size_hw)
        corner = _nearest_free_corner(boxes[row], side, grown, record.size_hw)
        if corner is None:
            without_room += 1
            continue
        patch = Patch("hard", len(patches) + 1, corner, side, score=float(found.scores[row]))
        if not patches or box_iou([patch.box_xyxy], [other.box_xyxy for other in patches]).max() <= _SAME_PLACE:
            patches.append(patch)
    return patches, without_room


def _nearest_free_corner(
    box: NDArray[np.float64], side: int, lesions: Boxes, size_hw: tuple[int, int]
) -> tuple[int, int] | None:
    """Corner of the patch around a box that meets no lesion, nearest to the centred one; None if there is none."""
    ranges = [_corner_range(float(box[axis]), float(box[axis + 2]), side, size_hw[1 - axis]) for axis in (0, 1)]
    # The nearest free place is centred along an axis, or touches a lesion.
    places = []
    for axis, (first, centred, last) in enumerate(ranges):
        touching = [*np.floor(lesions[:, axis] - side), *np.ceil(lesions[:, axis + 2])]
        places.append([centred, *(int(value) for value in touching if first <= value <= last)])
    corners = np.array([(x, y) for y in places[1] for x in places[0]], dtype=np.int64)
    corners = corners[_is_free(corners, side, lesions)]
    if not len(corners):
        return None
    distance = np.hypot(*(corners - [ranges[0][1], ranges[1][1]]).T)
    x, y = corners[int(np.argmin(distance))]
    return int(x), int(y)
