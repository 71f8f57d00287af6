"""Shared by the evaluation's tests: images of 100 x 100 px with few lesions, and what a model could say of them."""

from __future__ import annotations

import numpy as np

from mammodet.geometry import mask_to_rle
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion

SIZE_HW = (100, 100)


def box_mask(box, size_hw=SIZE_HW):
    """The run lengths of a box of whole pixels."""
    x1, y1, x2, y2 = (round(value) for value in box)
    mask = np.zeros(size_hw, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask_to_rle(mask)


def lesion(box, category="mass", *, ignore=False, geometry="contour", with_mask=True):
    box = tuple(float(value) for value in box)
    return Lesion(category, box, box_mask(box) if with_mask else None, geometry, ignore=ignore)


def image(number, *lesions, **more):
    return ImageRecord(number, f"images/im{number}.png", SIZE_HW, lesions=lesions, **more)


def prediction(number, *found, scores=None, masks=False, **more):
    """`found`: (box, score) or (box, score, category id), in any order."""
    boxes = [item[0] for item in found]
    detections = Detections(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([item[1] for item in found], dtype=np.float64),
        np.array([item[2] if len(item) > 2 else 1 for item in found], dtype=np.int64),
        [box_mask(box) for box in boxes] if masks else None,
    )
    return ImagePrediction(number, f"images/im{number}.png", SIZE_HW, scores or {}, detections, **more)


def dataset(*images, categories=("mass",)):
    return Dataset(categories, images)


def random_case(seed, *, categories=("mass",), images=12, decimals=2, whole_pixels=True):
    """Lesions with ignored ones and unlocalized images among them, and detections near them and elsewhere."""
    rng = np.random.default_rng(seed)

    def random_box():
        corner, sides = rng.uniform(0, 60, 2), rng.uniform(8, 38, 2)
        box = np.concatenate([corner, corner + sides])
        return box.round() if whole_pixels else box

    records, predictions = [], []
    for number in range(1, images + 1):
        lesions, found = [], []
        for _ in range(rng.integers(0, 4)):
            kind = int(rng.integers(len(categories)))
            lesions.append(lesion(random_box(), categories[kind], ignore=bool(rng.random() < 0.25)))
            for _ in range(rng.integers(0, 3)):
                moved = np.array(lesions[-1].box_xyxy) + rng.normal(0, 2.5, 4)
                moved = np.clip(moved.round() if whole_pixels else moved, 0, 100)
                found.append((moved, round(float(rng.random()), decimals), kind + 1))
        for _ in range(rng.integers(0, 3)):
            found.append((random_box(), round(float(rng.random()), decimals), int(rng.integers(len(categories))) + 1))
        records.append(image(number, *lesions, unlocalized=bool(rng.random() < 0.15)))
        predictions.append(prediction(number, *found, masks=whole_pixels))
    return dataset(*records, categories=categories), predictions
