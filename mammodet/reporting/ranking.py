"""How wrong a prediction is for one image, so that the worst are looked at first.

This ranks pictures; it is not a metric. `mammodet.evaluation` measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mammodet.geometry import as_boxes, box_iou
from mammodet.records import ImagePrediction, ImageRecord, Lesion

MATCH_IOU = 0.2
Kind = Literal["missed lesion", "false positive", "image label", "clean", "not judged"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the prediction of one image.

    Attributes:
        error: the largest of the three errors, in [0, 1].
        kind: which one that is; `clean` where nothing is wrong at the threshold.
        reason: one sentence for a person.
        judged_boxes: whether lesions and false positives were compared at all.
    """

    error: float
    kind: Kind
    reason: str
    judged_boxes: bool

    @property
    def is_clean(self) -> bool:
        """No lesion missed, no false positive at the threshold, the image label on the right side of 0.5."""
        return self.kind == "clean"


def match_lesions(record: ImageRecord, prediction: ImagePrediction) -> dict[int, int]:
    """Detection to lesion, as positions: the highest score first, one to one.

    A detection finds a lesion where their boxes overlap with IoU >= 0.2 or the detection's centre lies in the
    lesion's box; among several, the one with the largest IoU. Categories are not compared.
    """
    boxes = prediction.detections.boxes_xyxy
    targets = as_boxes([lesion.box_xyxy for lesion in record.lesions])
    overlaps = box_iou(boxes, targets)
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    inside = np.all((centres >= targets[None, :, :2]) & (centres < targets[None, :, 2:]), axis=2)
    found: dict[int, int] = {}
    for index in np.argsort(-prediction.detections.scores, kind="stable"):
        free = [
            lesion
            for lesion in range(len(targets))
            if lesion not in found.values() and (overlaps[index, lesion] >= MATCH_IOU or inside[index, lesion])
        ]
        if free:
            found[int(index)] = max(free, key=lambda lesion: overlaps[index, lesion])
    return found


def judge(
    record: ImageRecord, prediction: ImagePrediction, *, score_threshold: float = 0.3, label: str = "tumor"
) -> Verdict:
    """Compare a prediction with the ground truth of its image.

    The error is the largest of

    - a missed lesion: 1 - the score of the detection matched to it (`match_lesions`), 1 without any, for
      every lesion whose match is below `score_threshold`;
    - a false positive: the score of the strongest detection that is matched to no lesion; a second detection
      of one lesion is one too;
    - the image label: |label - score|.

    Where not every lesion has a usable place (`has_complete_boxes` is false), only the image label is judged.

    Args:
        record: ground truth.
        prediction: of the same image.
        score_threshold: from which score a detection counts as made.
        label: name of the image label.
    """
    if not record.has_truth:
        return Verdict(0.0, "not judged", "no ground truth to compare with", False)
    faults: list[tuple[float, Kind, str, bool]] = []  # error, kind, words, wrong at the threshold
    if record.has_complete_boxes:
        faults += _box_faults(record, prediction, score_threshold)
    truth, score = record.label(label), prediction.scores.get(label)
    if truth is not None and score is not None:
        words = f"image label: {label} is {truth}, predicted {score:.2f}"
        faults.append((abs(truth - score), "image label", words, (score >= 0.5) != bool(truth)))
    if not faults and not record.has_complete_boxes:
        return Verdict(0.0, "not judged", "nothing on it that can be compared", False)
    error = max((fault[0] for fault in faults), default=0.0)
    wrong = sorted((fault for fault in faults if fault[3]), key=lambda fault: -fault[0])
    if not wrong:
        return Verdict(error, "clean", _praise(record), record.has_complete_boxes)
    reason = "; ".join(fault[2] for fault in wrong[:3])
    if len(wrong) > 3:
        reason += f"; and {len(wrong) - 3} more"
    if not record.has_complete_boxes:
        reason += " (boxes not judged: not every lesion has a place)"
    return Verdict(error, wrong[0][1], reason, record.has_complete_boxes)


def image_error(
    record: ImageRecord, prediction: ImagePrediction, *, score_threshold: float = 0.3, label: str = "tumor"
) -> tuple[float, str]:
    """Error in [0, 1] for ranking, and why, in words: see `judge`."""
    verdict = judge(record, prediction, score_threshold=score_threshold, label=label)
    return verdict.error, verdict.reason


def _box_faults(
    record: ImageRecord, prediction: ImagePrediction, score_threshold: float
) -> list[tuple[float, Kind, str, bool]]:
    faults: list[tuple[float, Kind, str, bool]] = []
    scores = prediction.detections.scores
    found = match_lesions(record, prediction)
    best = {lesion: float(scores[index]) for index, lesion in found.items()}
    for position, lesion in enumerate(record.lesions):
        score = best.get(position)
        if score is not None and score >= score_threshold:
            continue
        seen = "nothing found there" if score is None else f"best matching score {score:.2f}"
        words = f"missed lesion ({_describe(lesion)}): {seen}"
        faults.append((1 - (score or 0.0), "missed lesion", words, True))
    loose = [index for index in range(len(scores)) if index not in found]
    if loose:
        strongest = max(loose, key=lambda index: float(scores[index]))
        score = float(scores[strongest])
        words = f"false positive with score {score:.2f}"
        if _centre_in_lesion(record, prediction, strongest):
            words = f"second detection of one lesion, with score {score:.2f}"
        faults.append((score, "false positive", words, score >= score_threshold))
    return faults


def _centre_in_lesion(record: ImageRecord, prediction: ImagePrediction, index: int) -> bool:
    x1, y1, x2, y2 = prediction.detections.boxes_xyxy[index]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    boxes = [lesion.box_xyxy for lesion in record.lesions]
    return any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)


def _describe(lesion: Lesion) -> str:
    values = [lesion.attributes.get(name) for name in ("abnormality", "pathology")]
    return ", ".join(str(value)[:60] for value in values if value not in (None, "")) or lesion.category


def _praise(record: ImageRecord) -> str:
    if not record.has_complete_boxes:
        return "the image label is right (boxes not judged: not every lesion has a place)"
    count = len(record.lesions)
    if not count:
        return "no lesion, and none reported"
    found = "the lesion was found" if count == 1 else f"all {count} lesions were found"
    return f"{found}, and nothing else"
