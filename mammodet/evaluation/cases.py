"""Images joined to the cases that are scored: images, breasts or patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Cases with a known label and a score.

    Attributes:
        keys: what they are: (image id,), (patient, side) or (patient,).
        patients: of each; None where it is not known.
        images: int (n,), position of each case's first image in the data set.
        labels: int (n,), 0 or 1.
        scores: float (n,) in [0, 1].
    """

    keys: tuple[tuple[str, ...], ...]
    patients: tuple[str | None, ...]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, chosen: NDArray[np.bool_]) -> Cases:
        """Some of the cases (n,)."""
        rows = np.flatnonzero(chosen)
        return Cases(
            tuple(self.keys[row] for row in rows),
            tuple(self.patients[row] for row in rows),
            self.images[rows],
            self.labels[rows],
            self.scores[rows],
        )


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
        rule: an aggregation rule of `scores_by_rule`; None for the score by the rule that the model was told to use.
    Raises:
        ValueError: another level, or another way of joining images.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
    if over_images not in OVER_IMAGES:
        raise ValueError(f"over_images {over_images!r}: expected max or mean")
    members: dict[tuple[str, ...], list[int]] = {}
    for position, record in enumerate(dataset.images):
        key = KEYS[level](record)
        if key is not None:
            members.setdefault(key, []).append(position)
    keys, images, labels, scores = [], [], [], []
    for key, positions in members.items():
        truth = _join_labels([dataset.images[position].label(label) for position in positions])
        values = [_scores(predictions[position], rule).get(label) for position in positions]
        known = [value for value in values if value is not None]
        if truth is None or not known:
            continue
        keys.append(key)
        images.append(positions[0])
        labels.append(truth)
        scores.append(max(known) if over_images == "max" else sum(known) / len(known))
    return Cases(
        tuple(keys),
        tuple(dataset.images[position].patient_id for position in images),
        np.array(images, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        np.array(scores, dtype=np.float64),
    )


def _scores(prediction: ImagePrediction, rule: str | None) -> dict[str, float]:
    return dict(prediction.scores if rule is None else prediction.scores_by_rule.get(rule, {}))


def _join_labels(labels: Sequence[int | None]) -> int | None:
    if 1 in labels:
        return 1
    return None if None in labels else 0
