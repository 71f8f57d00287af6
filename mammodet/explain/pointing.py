"""Whether a heat map lies where the lesions are: a picture that is only pretty misleads. Knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mammodet.geometry import Mask, box_pixels, rle_to_mask
from mammodet.records import ImageRecord, Lesion


@dataclass(frozen=True, slots=True)
class Place:
    """Where the heat lies on one image."""

    lesions: int  #: how many lesions have a place and count
    share_in_boxes: float | None  #: part of the heat inside their boxes; None without lesions or without heat
    share_by_chance: float | None  #: the same, were the heat spread evenly over the breast; None without lesions
    #: the maximum, the middle of its pixel; None where there is none: no heat, or the same everywhere.
    peak_xy: tuple[float, float] | None
    #: the pointing game (Zhang et al., ECCV 2016), without tolerance: whether the maximum lies in a lesion's mask, or
    #: in its box where that is all that is known. A map without a maximum misses. None without lesions.
    peak_in_lesion: bool | None

    def to_text(self) -> str:
        """One line for people."""
        if not self.lesions:
            return "no lesion with a place"
        if self.share_in_boxes is None:
            return "no heat at all: nothing in this layer speaks for the answer"
        chance = "" if self.share_by_chance is None else f" (by chance {_percent(self.share_by_chance)})"
        where = "inside" if self.peak_in_lesion else "outside"
        return f"heat in lesion boxes {_percent(self.share_in_boxes)}{chance}, maximum {where} of them"


def place_of(heat: np.ndarray, record: ImageRecord, breast: Mask) -> Place:
    """Compare a heat map with the lesions that count.

    Args:
        heat: float (height, width) in native pixels, 0 and more.
        breast: bool (height, width).
    """
    lesions = [lesion for lesion in record.lesions if not lesion.ignore]
    most, total = float(heat.max(initial=0)), float(heat.sum(dtype=np.float64))
    peak = None
    if most > 0 and float(heat.min()) < most * (1 - 1e-6):
        # Beyond the outermost cells a map is level: of a level maximum, the pixel nearest to its middle.
        places = np.argwhere(heat >= most * (1 - 1e-6))
        row, column = places[np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
        peak = float(column) + 0.5, float(row) + 0.5
    if not lesions:
        return Place(0, None, None, peak, None)
    boxes = np.zeros(heat.shape, dtype=bool)
    for lesion in lesions:
        left, top, right, bottom = box_pixels(lesion.box_xyxy, record.size_hw)
        boxes[top:bottom, left:right] = True
    tissue = int(np.count_nonzero(breast))
    return Place(
        lesions=len(lesions),
        share_in_boxes=float(heat[boxes].sum(dtype=np.float64)) / total if total > 0 else None,
        share_by_chance=int(np.count_nonzero(breast & boxes)) / tissue if tissue else None,
        peak_xy=peak,
        peak_in_lesion=peak is not None and any(_holds(lesion, peak) for lesion in lesions),
    )


def _holds(lesion: Lesion, point_xy: tuple[float, float]) -> bool:
    x, y = point_xy
    if lesion.rle is not None and lesion.geometry != "box":
        return bool(rle_to_mask(lesion.rle)[int(y), int(x)])
    x1, y1, x2, y2 = lesion.box_xyxy
    return x1 <= x <= x2 and y1 <= y <= y2


def summary(places: Sequence[Place]) -> str:
    """What holds of all images of one layer, in a few lines."""
    shown = [place for place in places if place.lesions]
    if not shown:
        return "no image has a lesion with a place: where the heat lies could not be checked"
    hits = sum(bool(place.peak_in_lesion) for place in shown)
    cold = sum(place.share_in_boxes is None for place in shown)
    shares = [place.share_in_boxes or 0.0 for place in shown]
    chances = [place.share_by_chance for place in shown if place.share_by_chance is not None]
    by_chance = f"; {_percent(float(np.mean(chances)))} if it were spread over the breast" if chances else ""
    lines = [
        f"{len(shown)} of {len(places)} images have lesions with a place",
        f"heat inside lesion boxes: {_percent(float(np.mean(shares)))}{by_chance}",
        f"maximum inside a lesion (pointing game): {hits} of {len(shown)}",
    ]
    if cold:
        lines.append(f"no heat at all on {cold} of them: counted as 0 % and as missed")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
