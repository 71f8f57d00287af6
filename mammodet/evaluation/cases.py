"""Images joined to the cases that are scored: images, breasts or patients."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammodet.data.packed_predictions import PackedPredictions
from mammodet.evaluation.results import LEVELS
from mammodet.records import Dataset, ImagePrediction, ImageRecord

#: What joins images to a case of each level; None of an image that does not say.
KEYS: dict[str, Callable[[ImageRecord], tuple[str, ...] | None]] = {
    "image": lambda record: (str(record.image_id),),
    "breast": lambda record: (
        (record.patient_id, record.laterality) if record.patient_id and record.laterality else None
    ),
    "patient": lambda record: (record.patient_id,) if record.patient_id else None,
}
OVER_IMAGES = ("max", "mean")


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases with a known label and a score."""

    images: NDArray[np.int64]  #: int (n,), position of each case's first image in the data set
    labels: NDArray[np.int64]  #: int (n,), 0 or 1
    scores: NDArray[np.float64]  #: float (n,) in [0, 1]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[np.bool_]) -> "Cases":
        """Some of the cases (n,)."""
        return Cases(self.images[chosen], self.labels[chosen], self.scores[chosen])


def cases(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    level: str,
    label: str,
    over_images: str = "max",
    rule: str | None = None,
) -> Cases:
    """The cases of a level that have both a known label and a score, in the order of their first images.

    A breast or patient is positive if one of its images is, and unknown if none is positive and one is unknown. Its
    score is the `max` or `mean` over those of its images that have one.

    Args:
        predictions: one per image of the data set, in its order.
        level: `image`, `breast` or `patient`; images that do not say which breast or patient they show are left out.
        rule: an aggregation rule of `scores_by_rule`; None for the score by the model's own rule.
    Raises:
        ValueError: another level, or another way of joining images.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
    if over_images not in OVER_IMAGES:
        raise ValueError(f"over_images {over_images!r}: expected max or mean")
    truths = np.array(
        [-1 if (one := record.label(label)) is None else one for record in dataset.images], dtype=np.int64
    )
    values = PackedPredictions.of(predictions).column(label, rule)
    if level == "image":
        known = np.flatnonzero((truths >= 0) & ~np.isnan(values))
        return Cases(known, truths[known], values[known])
    members: dict[tuple[str, ...], list[int]] = {}
    for position, record in enumerate(dataset.images):
        key = KEYS[level](record)
        if key is not None:
            members.setdefault(key, []).append(position)
    images, labels, scores = list[int](), list[int](), list[float]()
    for positions in members.values():
        own = truths[positions].tolist()
        truth = 1 if 1 in own else None if -1 in own else 0  # -1 where it is not known
        there = [value for value in values[positions].tolist() if not math.isnan(value)]
        if truth is None or not there:
            continue
        images.append(positions[0])
        labels.append(truth)
        scores.append(max(there) if over_images == "max" else sum(there) / len(there))
    return Cases(np.array(images, dtype=np.int64), np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64))
