"""How large lesions are: in millimetres where the spacing of pixels is known, else in pixels."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mammodet.evaluation.flat import Bools, FlatDetections, FlatLesions, Ints
from mammodet.evaluation.matching import Floats
from mammodet.geometry import Boxes, rle_area, xyxy_to_xywh
from mammodet.records import Dataset

#: Largest extent; the borders of T1b, T1c, T2 and T3 in the TNM classification of breast cancer (AJCC, 8th edition).
MILLIMETRES = {
    "up to 10 mm": (0.0, 10.0),
    "10 to 20 mm": (10.0, 20.0),
    "20 to 50 mm": (20.0, 50.0),
    "over 50 mm": (50.0, 1e10),
}
#: COCO's own.
PIXELS = {"small (area up to 32² px)": (0.0, 32.0**2), "medium (32² to 96² px)": (32.0**2, 96.0**2),
          "large (over 96² px)": (96.0**2, 1e10)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SizeBins:
    """Bins, and the size of every lesion and detection in their unit."""

    #: labels, ranges: of the bins; both ends belong to a bin, as in COCO.
    labels: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    by_area: bool  #: pixels of area; else the longer side of the box in mm
    #: of_lesions, of_detections: float (n,), NaN where the spacing is not known.
    of_lesions: Floats
    of_detections: Floats

    def bin_of_lesions(self) -> list[str]:
        """The bin of each lesion, the lower one on a border; `not known` without a size."""
        tops = np.array([high for _, high in self.ranges])
        places = np.searchsorted(tops, self.of_lesions, side="left")
        return [
            "not known" if np.isnan(size) else self.labels[min(int(place), len(self.labels) - 1)]
            for size, place in zip(self.of_lesions, places, strict=True)
        ]

    def counts(self, chosen: Bools) -> Counter[str]:
        """How many of some lesions (n,) each bin holds."""
        return Counter(label for label, wanted in zip(self.bin_of_lesions(), chosen, strict=True) if wanted)


def box_sides_xywh(boxes_xyxy: Boxes) -> Boxes:
    """(x, y, width, height) (n, 4), as they stood in a JSON file: without the last digits that x + w - x adds."""
    return np.round(xyxy_to_xywh(boxes_xyxy), 6)


def size_bins(dataset: Dataset, found: FlatDetections, lesions: FlatLesions) -> SizeBins:
    """Millimetres if any image with a lesion knows its spacing, else COCO's areas in pixels."""
    spacing = np.array(
        [record.spacing_mm_rc or (np.nan, np.nan) for record in dataset.images], dtype=np.float64
    ).reshape(-1, 2)
    in_mm = bool(np.isfinite(spacing[lesions.images]).any())
    if in_mm:
        bins = MILLIMETRES
        of_lesions = _extent_mm(lesions.boxes_xyxy, spacing, lesions.images)
        of_detections = _extent_mm(found.boxes_xyxy, spacing, found.images)
    else:
        bins = PIXELS
        sides = box_sides_xywh(lesions.boxes_xyxy)
        of_lesions = np.array(
            [
                float(rle_area(lesion.rle)) if lesion.rle else side[2] * side[3]
                for lesion, side in zip(lesions.lesions, sides, strict=True)
            ],
            dtype=np.float64,
        )
        sides = box_sides_xywh(found.boxes_xyxy)
        of_detections = sides[:, 2] * sides[:, 3]
    return SizeBins(tuple(bins), tuple(bins.values()), not in_mm, of_lesions, of_detections)


def _extent_mm(boxes_xyxy: Boxes, spacing_mm_rc: Floats, images: Ints) -> Floats:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.max(sides * spacing_mm_rc[images][:, ::-1], axis=1, initial=-np.inf) if len(sides) else np.zeros(0)
