"""Shared by the tests of our COCO files: a data set with every field, a tiny file, and what the reader says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mammodet.data.coco import read_coco
from mammodet.errors import InputError
from mammodet.geometry import circle_mask, mask_to_rle
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.trace import Trace


def disc_rle(centre_xy: tuple[float, float], radius: float, size_hw: tuple[int, int] = (40, 30)):
    return mask_to_rle(circle_mask(centre_xy, radius, size_hw))


def full_dataset() -> Dataset:
    """Every field set to something else than its default, at least once."""
    lesions = (
        Lesion(
            "mass", (5, 5, 15, 15), disc_rle((10, 10), 5), "circle", {"pathology": "benign", "circle_xyr": [10, 10, 5]}
        ),
        Lesion("calcification", (20.5, 0.25, 30, 8), None, "box", {}, ignore=True),
        Lesion("mass", (0, 30, 6, 40), disc_rle((0, 40), 6), "contour"),
    )
    trace = Trace((100, 60)).then("crop", 0, 0, 60, 80).then("flip").then("resize", 40, 30)
    first = ImageRecord(
        image_id=7,
        file_name="images/mdb 001 ä.png",
        size_hw=(40, 30),
        patient_id="P_1",
        laterality="L",
        view="MLO",
        density="G",
        birads="4a",
        labels={"tumor": 1, "malignant": None},
        source="mini-MIAS",
        split="train",
        spacing_mm_rc=(0.2, 0.25),
        breast_box_xyxy=(0, 2, 28, 40),
        trace=trace.to_json(),
        unlocalized=True,
        notes=("circle quarantined: lies on background",),
        lesions=lesions,
    )
    second = ImageRecord(3, "images/mdb002.png", (50, 60), labels={"tumor": 0, "malignant": 0})
    info = {"archive": "x", "split": {"name": "holdout", "hash": "abc", "seed": 0}}
    return Dataset(("mass", "calcification"), (first, second), info)


def tiny() -> dict[str, Any]:
    """A valid file: image 1 (40x30, height x width) with one annotation of box and run lengths; image 2 without."""
    rle = disc_rle((10, 10), 5)
    return {
        "info": {"format": "mammodet-coco/1"},
        "categories": [{"id": 1, "name": "mass"}],
        "images": [
            {"id": 1, "file_name": "a.png", "height": 40, "width": 30},
            {"id": 2, "file_name": "b.png", "height": 40, "width": 30},
        ],
        "annotations": [{"id": 11, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10], "segmentation": dict(rle)}],
    }


def plain() -> dict[str, Any]:
    """The same as another tool writes it."""
    return tiny() | {"info": {"description": "export"}}


def read(folder: Path, value: Any, **options: Any) -> Dataset:
    path = folder / "train.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return read_coco(path, **options)


def fault_of(folder: Path, value: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, value)
    assert str(caught.value).startswith(str(folder / "train.json"))
    return str(caught.value)
