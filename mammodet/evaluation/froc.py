"""Free-response ROC: how many lesions are found, at how many false positives per image (Bunch et al., SPIE 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.geometry import as_boxes, box_area, box_iou
from mammodet.records import Dataset, ImagePrediction

MatchRule = Literal["iou@0.1", "iou@0.2", "iou@0.5", "center"]
MATCH_RULES: tuple[MatchRule, ...] = ("iou@0.1", "iou@0.2", "iou@0.5", "center")
FPPI_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Froc:
    """A FROC curve.

    Attributes:
        match: the rule by which a detection hits a lesion.
        thresholds: float (n,) falling; the curve starts at infinity with nothing found.
        fppi: false positives per image at each, over all scored images.
        sensitivity: share of lesions found at each.
        lesions, images: how many were scored.
    """

    match: str
    thresholds: NDArray[np.float64]
    fppi: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    lesions: int
    images: int

    def at(self, fppi: float) -> float | None:
        """Sensitivity at the lowest threshold that keeps to `fppi` false positives per image; None without lesions."""
        if not self.lesions:
            return None
        return float(self.sensitivity[np.flatnonzero(self.fppi <= fppi + 1e-12)].max(initial=0.0))

    def to_json(self) -> dict[str, Any]:
        """As in metrics.json."""
        points = [{"fppi": point, "sensitivity": self.at(point)} for point in FPPI_POINTS]
        known = [float(point["sensitivity"]) for point in points if point["sensitivity"] is not None]
        return {
            "match": self.match,
            "denominator": "all images",
            "n_images": self.images,
            "n_lesions": self.lesions,
            "points": points,
            "cpm": sum(known) / len(known) if known else None,
            "curve": {
                "fppi": self.fppi.tolist(),
                "sensitivity": self.sensitivity.tolist(),
                "threshold": [None if np.isinf(value) else float(value) for value in self.thresholds],
            },
        }


def froc(dataset: Dataset, predictions: Sequence[ImagePrediction], match: MatchRule = "iou@0.2") -> Froc:
    """The FROC curve over all images on which every lesion has a place, whatever the category.

    The highest-scoring detection takes its best free lesion; each lesion is found once, a second detection on it is a
    false positive. A detection that takes no lesion and matches an ignored region, or has its centre in one, counts
    neither way.

    Args:
        predictions: one per image of the data set, in its order.
    """
    if match not in MATCH_RULES:
        raise ValueError(f"match {match!r}: expected one of {', '.join(MATCH_RULES)}")
    scores: list[float] = []
    hits: list[bool] = []
    lesions = images = 0
    for record, prediction in zip(dataset.images, predictions, strict=True):
        if record.unlocalized:
            continue
        images += 1
        wanted = as_boxes([lesion.box_xyxy for lesion in record.lesions if not lesion.ignore])
        ignored = as_boxes([lesion.box_xyxy for lesion in record.lesions if lesion.ignore])
        lesions += len(wanted)
        for score, hit in _match_image(prediction, wanted, ignored, match):
            scores.append(score)
            hits.append(hit)
    return _curve(np.array(scores), np.array(hits, dtype=bool), lesions, images, match)


def _match_image(
    prediction: ImagePrediction, wanted: NDArray[np.float64], ignored: NDArray[np.float64], match: MatchRule
) -> list[tuple[float, bool]]:
    found = prediction.detections
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes_xyxy[order]
    quality = match_quality(boxes, wanted, match)
    # A region can be much larger than any detection inside it, so that their IoU alone says nothing.
    on_ignored = np.any(
        (match_quality(boxes, ignored, match) > 0) | (match_quality(boxes, ignored, "center") > 0), axis=1
    )
    free = np.ones(len(wanted), dtype=bool)
    outcome: list[tuple[float, bool]] = []
    for row, score in enumerate(found.scores[order]):
        candidates = np.where(free, quality[row], 0.0)
        if candidates.size and candidates.max() > 0:
            free[int(candidates.argmax())] = False
            outcome.append((float(score), True))
        elif not on_ignored[row]:
            outcome.append((float(score), False))
    return outcome


def match_quality(boxes: NDArray[np.float64], lesions: NDArray[np.float64], match: MatchRule) -> NDArray[np.float64]:
    """How well each box (n, 4) fits each lesion's box (m, 4): (n, m), 0 where it is no match.

    Under `center` a match is a centre inside the lesion's box, and the nearer centre fits better.
    """
    if match == "center":
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (centres[:, None] >= lesions[None, :, :2]) & (centres[:, None] <= lesions[None, :, 2:])
        middles = (lesions[:, :2] + lesions[:, 2:]) / 2
        distance = np.linalg.norm(centres[:, None] - middles[None], axis=2)
        size = np.sqrt(np.maximum(box_area(lesions), 1e-9))[None]
        return np.where(inside.all(axis=2), 1 / (1 + distance / size), 0.0)
    overlap = box_iou(boxes, lesions)
    return np.where(overlap >= float(match.removeprefix("iou@")), overlap, 0.0)


def _curve(scores: NDArray[np.float64], hits: NDArray[np.bool_], lesions: int, images: int, match: str) -> Froc:
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    # Detections of one score stand or fall together: the curve has a point at the last of each run of equal scores.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if scores.size else np.zeros(0, dtype=int)
    found, false = np.cumsum(hits)[ends], np.cumsum(~hits)[ends]
    return Froc(
        match=match,
        thresholds=np.concatenate([[np.inf], scores[ends]]),
        fppi=np.concatenate([[0.0], false / max(images, 1)]),
        sensitivity=np.concatenate([[0.0], found / max(lesions, 1)]),
        lesions=lesions,
        images=images,
    )
