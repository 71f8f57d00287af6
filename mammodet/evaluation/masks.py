"""How well outlines agree: Dice, IoU and Hausdorff distance, where the ground truth is a drawn contour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from mammodet.evaluation.flat import FlatDetections, FlatLesions, Ints
from mammodet.evaluation.matching import Floats, Matches
from mammodet.evaluation.results import ImageAgreement, PairAgreement, figure_names
from mammodet.geometry import rle_area, rle_box
from mammodet.records import Dataset, ImagePrediction, Rle
from mammodet.run_lengths import mask_patch

PAIR_FIGURES, IMAGE_FIGURES = figure_names(PairAgreement), figure_names(ImageAgreement)


@dataclass(frozen=True, slots=True)
class MaskAgreement:
    """Agreement of outlines, one row per found lesion with a contour and one per image whose lesions all have one."""

    lesions: Ints  #: int (n,), positions of the lesions; NaN rows are left out
    #: float (n, 4), PAIR_FIGURES; NaN for `hd95_mm` without spacing, and for both distances of an empty mask.
    pairs: Floats
    n_without_contour: int  #: found lesions whose ground truth is a circle or a box
    images: Ints  #: int (m,), positions of the images
    per_image: Floats  #: float (m, 2), IMAGE_FIGURES of the union of all masks from `score_threshold` on
    score_threshold: float  #: that


def mask_agreement(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    found: FlatDetections,
    lesions: FlatLesions,
    matches: Matches,
    *,
    score_threshold: float = 0.5,
) -> MaskAgreement:
    """Compare the mask of each detection that finds a lesion with its contour, one pair at a time.

    Args:
        found: with masks.
        matches: of the chosen rule, at any score.
        score_threshold: from which score a detection belongs to the mask of its image.
    """
    if found.rles is None:
        raise ValueError("mask agreement: the predictions hold no masks")
    hits = np.flatnonzero(matches.lesion >= 0)
    rows, places, skipped = [], [], 0
    for hit in hits:
        lesion = lesions.lesions[matches.lesion[hit]]
        if lesion.rle is None or lesion.geometry != "contour":
            skipped += 1
            continue
        spacing = dataset.images[found.images[hit]].spacing_mm_rc
        rows.append(_pair_figures(found.rles[hit], lesion.rle, spacing))
        places.append(matches.lesion[hit])
    images, unions = [], []
    for position, (record, prediction) in enumerate(zip(dataset.images, predictions, strict=True)):
        targets = [lesion.rle for lesion in record.lesions if lesion.rle is not None and lesion.geometry == "contour"]
        clean = not record.unlocalized and not any(lesion.ignore for lesion in record.lesions)
        if not targets or not clean or len(targets) < len(record.lesions):
            continue
        detections = prediction.detections
        kept = [
            rle for rle, score in zip(detections.rles or (), detections.scores, strict=True) if score >= score_threshold
        ]
        images.append(position)
        unions.append(_overlap_figures(kept, targets))
    return MaskAgreement(
        np.array(places, dtype=np.int64),
        np.array(rows, dtype=np.float64).reshape(-1, len(PAIR_FIGURES)),
        skipped,
        np.array(images, dtype=np.int64),
        np.array(unions, dtype=np.float64).reshape(-1, len(IMAGE_FIGURES)),
        score_threshold,
    )


def _overlap_figures(first: Sequence[Rle], second: Sequence[Rle]) -> tuple[float, float]:
    """Dice and IoU of the unions of two lists of masks; NaN where both are empty."""
    one, two = (coco_mask.merge(list(masks)) if masks else None for masks in (first, second))
    areas = sum(int(coco_mask.area(mask)) for mask in (one, two) if mask is not None)
    if not areas:
        return float("nan"), float("nan")
    shared = 0 if one is None or two is None else int(coco_mask.area(coco_mask.merge([one, two], intersect=True)))
    return 2 * shared / areas, shared / (areas - shared)


def _pair_figures(first: Rle, second: Rle, spacing_mm_rc: tuple[float, float] | None) -> tuple[float, ...]:
    dice, iou = _overlap_figures([first], [second])
    x1, y1, x2, y2 = np.array([rle_box(rle) for rle in (first, second) if rle_area(rle)]).T
    box = (int(x1.min()), int(y1.min()), int(x2.max()), int(y2.max()))
    one, two = mask_patch(first, box), mask_patch(second, box)
    pixels = hausdorff95(one, two)
    if spacing_mm_rc is None:
        return dice, iou, pixels, float("nan")
    rows, columns = spacing_mm_rc
    return dice, iou, pixels, pixels * rows if rows == columns else hausdorff95(one, two, spacing_mm_rc)


def hausdorff95(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing_rc: tuple[float, float] = (1.0, 1.0)
) -> float:
    """The larger of the two directed 95th percentiles of distance between borders (Maier-Hein et al., 2024).

    A border is the pixels of a mask that touch its outside by a side; distances are between pixel centres.

    Args:
        first, second: bool (h, w), of one frame.
        spacing_rc: of rows and columns; the result is in its unit.
    Returns:
        NaN where a mask is empty.
    """
    if not first.any() or not second.any():
        return float("nan")
    one, two = (np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing_rc) for mask in (first, second))
    forth, back = cKDTree(two).query(one)[0], cKDTree(one).query(two)[0]
    return float(max(np.percentile(forth, 95), np.percentile(back, 95)))


class MeanFigures:
    """Weighted means of columns over cases, NaN left out.

    Args:
        values: float (n, columns).
        clusters: int (n,), the patient of each row.
    """

    def __init__(self, values: Floats, clusters: Ints) -> None:
        self._known = ~np.isnan(values)
        self._values, self._clusters = np.where(self._known, values, 0.0), clusters

    def row(self, weights: Floats) -> Floats:
        """Every mean for one set of weights (clusters,); NaN where there is nothing."""
        weight = weights[self._clusters][:, None]
        total = (weight * self._known).sum(axis=0)
        summed = (weight * self._values).sum(axis=0)
        return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
