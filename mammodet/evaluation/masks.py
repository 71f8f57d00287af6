"""How well outlines agree: Dice, IoU and Hausdorff distance, where the ground truth is a drawn contour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from mammodet.evaluation.flat import FlatDetections, FlatLesions, Ints
from mammodet.evaluation.matching import Floats, Matches
from mammodet.geometry import rle_area, rle_box
from mammodet.records import Dataset, ImagePrediction, Rle
from mammodet.run_lengths import mask_patch

PAIR_FIGURES = ("dice", "iou", "hd95_px", "hd95_mm")
IMAGE_FIGURES = ("dice", "iou")


@dataclass(frozen=True, slots=True)
class MaskAgreement:
    """Agreement of outlines, one row per found lesion with a contour and one per image whose lesions all have one.

    Attributes:
        lesions: int (n,), positions of the lesions; NaN rows are left out.
        pairs: float (n, 4), PAIR_FIGURES; NaN for `hd95_mm` without spacing, and for both distances of an empty mask.
        n_without_contour: found lesions whose ground truth is a circle or a box.
        images: int (m,), positions of the images.
        per_image: float (m, 2), IMAGE_FIGURES of the union of all masks from `score_threshold` on.
        score_threshold: that.
    """

    lesions: Ints
    pairs: Floats
    n_without_contour: int
    images: Ints
    per_image: Floats
    score_threshold: float


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
        unions.append(_overlap_figures(*_patches(kept, targets)))
    return MaskAgreement(
        np.array(places, dtype=np.int64),
        np.array(rows, dtype=np.float64).reshape(-1, len(PAIR_FIGURES)),
        skipped,
        np.array(images, dtype=np.int64),
        np.array(unions, dtype=np.float64).reshape(-1, len(IMAGE_FIGURES)),
        score_threshold,
    )


def _patches(first: Sequence[Rle], second: Sequence[Rle]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The unions of two lists of masks, in the box that holds both."""
    boxes = np.array([rle_box(rle) for rle in (*first, *second) if rle_area(rle)]).reshape(-1, 4)
    if not len(boxes):
        return np.zeros((0, 0), dtype=bool), np.zeros((0, 0), dtype=bool)
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    unions = []
    for masks in (first, second):
        union = np.zeros((box[3] - box[1], box[2] - box[0]), dtype=bool)
        for rle in masks:
            union |= mask_patch(rle, box)
        unions.append(union)
    return unions[0], unions[1]


def _overlap_figures(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """Dice and IoU of two masks of one shape; NaN where both are empty."""
    both, areas = int((first & second).sum()), int(first.sum()) + int(second.sum())
    if not areas:
        return float("nan"), float("nan")
    return 2 * both / areas, both / (areas - both)


def _pair_figures(first: Rle, second: Rle, spacing_mm_rc: tuple[float, float] | None) -> tuple[float, ...]:
    one, two = _patches([first], [second])
    dice, iou = _overlap_figures(one, two)
    pixels = hausdorff95(one, two)
    return dice, iou, pixels, hausdorff95(one, two, spacing_mm_rc) if spacing_mm_rc else float("nan")


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
    one, two = _border(first), _border(second)
    forth = distance_transform_edt(~two, sampling=spacing_rc)[one]
    back = distance_transform_edt(~one, sampling=spacing_rc)[two]
    return float(max(np.percentile(forth, 95), np.percentile(back, 95)))


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(mask & ~binary_erosion(mask), dtype=bool)


class MeanFigures:
    """Weighted means of columns over cases, NaN left out.

    Args:
        name: before `/FIGURE`.
        figures: of the columns.
        values: float (n, figures).
        clusters: int (n,), the patient of each row.
    """

    def __init__(self, name: str, figures: Sequence[str], values: Floats, clusters: Ints) -> None:
        self.names = tuple(f"{name}/{figure}" for figure in figures)
        self._known = ~np.isnan(values)
        self._values, self._clusters = np.where(self._known, values, 0.0), clusters

    def row(self, weights: Floats) -> Floats:
        """Every mean for one set of weights (clusters,); NaN where there is nothing."""
        weight = weights[self._clusters][:, None]
        total = (weight * self._known).sum(axis=0)
        summed = (weight * self._values).sum(axis=0)
        return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
