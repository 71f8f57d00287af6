"""Lesions and detections of a whole data set as flat arrays, so that matching and counting need no loop over images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammodet.data.packed_predictions import PackedPredictions
from mammodet.geometry import Boxes, as_boxes, lesion_rle
from mammodet.records import Dataset, ImagePrediction, Lesion, Masks, Rle

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FlatLesions:
    """Lesions with a place, image after image, in each image's own order."""

    images: Ints  #: int (n,), position of the image in the data set
    boxes_xyxy: Boxes  #: float (n, 4)
    categories: Ints  #: int (n,), 1-based
    ignored: Bools  #: bool (n,), regions that count neither way
    lesions: tuple[Lesion, ...]  #: the records themselves

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Ints) -> "FlatLesions":
        """Some of them, in their order."""
        lesions = tuple(self.lesions[row] for row in rows)
        return FlatLesions(self.images[rows], self.boxes_xyxy[rows], self.categories[rows], self.ignored[rows], lesions)


@dataclass(frozen=True, slots=True)
class FlatDetections:
    """Detections on images whose lesions all have a place, image after image, in each as `Detections.in_order`."""

    images: Ints  #: int (n,), position of the image in the data set
    boxes_xyxy: Boxes  #: float (n, 4)
    scores: NDArray[np.float64]  #: float (n,)
    categories: Ints  #: int (n,), 1-based
    rles: Masks | None  #: n masks; None for a model without masks

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Ints) -> "FlatDetections":
        """Some of them, in their order."""
        rles = self.rles.at(rows) if self.rles is not None else None
        return FlatDetections(self.images[rows], self.boxes_xyxy[rows], self.scores[rows], self.categories[rows], rles)


def flat_lesions(dataset: Dataset) -> FlatLesions:
    """The lesions of all images but those on which a lesion is known to be without a place."""
    rows = [
        (position, lesion)
        for position, record in enumerate(dataset.images)
        if not record.unlocalized
        for lesion in record.lesions
    ]
    lesions = tuple(lesion for _, lesion in rows)
    numbers = {name: dataset.category_id(name) for name in dataset.categories}
    return FlatLesions(
        np.array([position for position, _ in rows], dtype=np.int64),
        as_boxes([lesion.box_xyxy for lesion in lesions]),
        np.array([numbers[lesion.category] for lesion in lesions], dtype=np.int64),
        np.array([lesion.ignore for lesion in lesions], dtype=bool),
        lesions,
    )


def flat_detections(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> FlatDetections:
    """The detections on all images but those on which a lesion is known to be without a place.

    Args:
        predictions: one per image of the data set, in its order.
    Raises:
        ValueError: masks of some images alone, or another number of predictions.
    """
    if len(predictions) != len(dataset.images):
        raise ValueError(f"{len(predictions)} predictions for {len(dataset.images)} images: expected one each")
    localized = np.flatnonzero([not record.unlocalized for record in dataset.images])
    images, found = PackedPredictions.of(predictions).detections(localized)
    rles = Masks.of(found.rles) if found.rles is not None else None
    return FlatDetections(images, found.boxes_xyxy, found.scores, found.category_ids, rles)


def lesion_rles(dataset: Dataset, lesions: FlatLesions) -> tuple[Rle, ...]:
    """A mask for each lesion: its own, or its box where it has none."""
    return tuple(
        lesion_rle(lesion, dataset.images[position].size_hw)
        for position, lesion in zip(lesions.images, lesions.lesions, strict=True)
    )
