"""Shared by the tests of detectron2's catalogs and mapper: a small data set with one of everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mammodet.data.coco import write_coco
from mammodet.data.images import write_png
from mammodet.geometry import mask_to_rle, patch_to_rle
from mammodet.records import Dataset, ImageRecord, Lesion

HEIGHT, WIDTH = 12, 20
CATEGORIES = ("mass", "calcification")


def box_rle(x1: int, y1: int, x2: int, y2: int, size_hw=(HEIGHT, WIDTH)):
    return patch_to_rle(np.ones((y2 - y1, x2 - x1), bool), (x1, y1), size_hw)


def lesion(box, category="mass", *, mask=True, size_hw=(HEIGHT, WIDTH), **more) -> Lesion:
    rle = box_rle(*box, size_hw=size_hw) if mask else None
    geometry = "contour" if mask else "box"
    return Lesion(category, tuple(map(float, box)), rle, more.pop("geometry", geometry), **more)


def small_dataset() -> Dataset:
    """Six images, ids not rising: two lesions, a box without a mask, nothing, a region to ignore, no place, 16 bit."""
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[2:4, 4:8], corner[4:6, 4:6] = True, True  # an L: 8 + 4 pixels
    ell = Lesion("mass", (4.0, 2.0, 8.0, 6.0), mask_to_rle(corner), "contour", {"pathology": "malignant"})
    two = (ell, lesion((10, 6, 14, 8), "calcification"))
    size = (HEIGHT, WIDTH)
    return Dataset(
        CATEGORIES,
        (
            ImageRecord(9, "a.png", size, "P1", "L", "CC", "B", labels={"tumor": 1, "malignant": 1}, lesions=two),
            ImageRecord(2, "b.png", size, "P1", "R", "MLO", lesions=(lesion((3, 3, 9, 9), mask=False),)),
            ImageRecord(3, "c.png", size, "P2", labels={"tumor": 0, "malignant": None}),
            ImageRecord(4, "d.png", size, "P3", lesions=(lesion((0, 0, 6, 4)), lesion((8, 2, 16, 10), ignore=True))),
            ImageRecord(5, "e.png", size, "P4", unlocalized=True, labels={"tumor": 1}),
            ImageRecord(6, "deep/f.png", size, "P5", lesions=(lesion((0, 0, 2, 2)),)),
        ),
        {"split": {"name": "holdout", "subset": "train", "hash": "abc"}},
    )


def write_small(folder: Path, name: str = "train.json") -> Path:
    """The data set with its images: 8-bit noise, the last one a 16-bit ramp from 0 in steps of 100."""
    noise = np.random.default_rng(0)
    dataset = small_dataset()
    for record in dataset.images[:-1]:
        write_png(folder / record.file_name, noise.integers(0, 256, record.size_hw, np.uint8))
    ramp = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100
    write_png(folder / "deep" / "f.png", ramp)
    write_coco(dataset, folder / name)
    return folder / name
