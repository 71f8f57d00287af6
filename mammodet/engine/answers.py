"""What both kinds of models answer about an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mammodet.records import ImagePrediction, ImageRecord


def answer_about(record: ImageRecord, **answers: Any) -> ImagePrediction:
    """A prediction of the image of a record; `answers` are the prediction's own fields."""
    return ImagePrediction(
        image_id=record.image_id,
        file_name=record.file_name,
        size_hw=record.size_hw,
        patient_id=record.patient_id,
        laterality=record.laterality,
        view=record.view,
        **answers,
    )


def to_float32(score: float) -> float:
    """The shortest number that reads back as the same float32: what the network knows, and no more digits in files.

    A fixed number of decimals would turn the small scores of a rare class into ties.
    """
    return float(str(np.float32(score)))


def shortened(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores by `to_float32`."""
    return {name: to_float32(value) for name, value in scores.items()}
