"""Predictions in columns say what they said before they were packed."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from small_cases import dataset, image

from mammodet.data.packed_predictions import PackedPredictions, Texts
from mammodet.records import Detections, ImagePrediction, Masks, Rle


def found(scores, rles=None):
    boxes = np.arange(4.0 * len(scores)).reshape(-1, 4)
    return Detections(boxes, np.array(scores, dtype=float), np.arange(1, len(scores) + 1), rles)


MASK, OTHER = Rle(size=[8, 8], counts="01"), Rle(size=[8, 8], counts="0123")
WHOLE = ImagePrediction(
    7,
    "a.png",
    (8, 8),
    {"tumor": 0.5, "malignant": 0.25},
    found([0.75, 0.5], [OTHER, MASK]),
    {"max": {"tumor": 1.0}, "noisy_or": {}},
    "p1",
    "L",
    "CC",
    {"density": {"A": 0.5, "B": 0.5}},
    ("dark",),
)
BARE = ImagePrediction(3, "b.png", (8, 6), {"malignant": 0.125}, found([]))


def facts(prediction):
    """Every field, arrays as lists."""
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    one = values.pop("detections")
    rles = None if one.rles is None else list(one.rles)
    return values, one.boxes_xyxy.tolist(), one.scores.tolist(), one.category_ids.tolist(), rles


def test_packed_predictions_are_those_that_were_packed():
    packed = PackedPredictions.of([WHOLE, BARE, WHOLE])
    assert [facts(one) for one in packed] == [facts(one) for one in (WHOLE, BARE, WHOLE)]
    assert facts(packed[-2]) == facts(BARE)
    with pytest.raises(IndexError):
        packed[3]


def test_scores_of_all_images_are_columns():
    packed = PackedPredictions.of([WHOLE, BARE])
    assert packed.rules == ["max", "noisy_or"]
    columns = {("malignant", None): [0.25, 0.125], ("tumor", None): [0.5, -1], ("tumor", "max"): [1, -1]}
    for (label, rule), values in columns.items():
        assert np.nan_to_num(packed.column(label, rule), nan=-1).tolist() == values
    assert np.isnan(packed.column("tumor", "noisy_or")).all()


def test_selected_predictions_are_of_the_images_that_they_are_selected_for():
    records = dataset(image(1), image(2), image(3)).images
    packed = PackedPredictions.of([BARE, WHOLE]).select(np.array([1, -1, 0]), records)
    assert [one.image_id for one in packed] == [1, 2, 3]
    assert [one.scores for one in packed] == [WHOLE.scores, {}, BARE.scores]
    assert packed[1].detections.rles == []
    images, joined = packed.detections(np.array([0, 1, 2]))
    assert (images.tolist(), joined.scores.tolist(), list(joined.rles or ())) == ([0, 0], [0.75, 0.5], [OTHER, MASK])
    again = packed.select(np.array([2, 1]), records[:2])
    assert [one.scores for one in again] == [BARE.scores, {}]
    assert np.nan_to_num(again.column("malignant"), nan=-1).tolist() == [0.125, -1]


def test_detections_of_all_images_are_those_of_one_after_another():
    packed = PackedPredictions.of([WHOLE, BARE, WHOLE])
    for order, images in (([0, 1, 2], [0, 0, 2, 2]), ([2, 1, 0], [2, 2, 0, 0]), ([2], [2, 2])):
        of, joined = packed.detections(np.array(order))
        each = [packed[row].detections for row in order]
        assert of.tolist() == images
        for name in ("boxes_xyxy", "scores", "category_ids"):
            assert getattr(joined, name).tolist() == [value for one in each for value in getattr(one, name).tolist()]
        assert list(joined.rles or ()) == [mask for one in each for mask in one.rles or ()]


def test_texts_are_read_back_from_memory_and_from_the_file():
    texts, given = Texts(), [letter * 400_000 for letter in "abcdefgh"] + ["", "l\udcfft"]
    for text in given:
        texts.append(text)
    assert list(texts) == given
    assert Masks(texts, [(8, 8)] * len(given)).at([8, 0, 9, 7]).at([1, 2])[0]["counts"] == given[0]
