"""Small films and lesions to cut patches of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import write_png
from mammodet.geometry import mask_to_rle
from mammodet.patches import PatchOptions
from mammodet.patches.write import make_patches
from mammodet.records import Dataset, ImageRecord, Lesion

SIZE_HW = (48, 64)
SPLIT = {"name": "holdout", "subset": "all", "seed": 0, "hash": "ab" * 32}


def film(size_hw=SIZE_HW, tissue_width=None) -> np.ndarray:
    """16 bits, no two pixels of a row or column alike; tissue on the left, as a rule two thirds of the width."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    tissue = columns < (2 * size_hw[1] // 3 if tissue_width is None else tissue_width)
    return np.where(tissue, 20000 + 37 * rows + 91 * columns, 500 + rows + 3 * columns).astype(np.uint16)


def box_lesion(box, *, size_hw=SIZE_HW, category="mass", masked=True, ignore=False, **attributes) -> Lesion:
    mask = np.zeros(size_hw, dtype=bool)
    x1, y1, x2, y2 = (round(value) for value in box)
    mask[y1:y2, x1:x2] = True
    box = tuple(float(value) for value in box)
    rle = mask_to_rle(mask) if masked else None
    return Lesion(category, box, rle, "contour" if masked else "box", attributes, ignore)


def image(number=1, *lesions, **more) -> ImageRecord:
    labels = {"tumor": int(bool(lesions)), "malignant": 0}
    known = {"file_name": f"images/im{number}.png", "size_hw": SIZE_HW, "labels": labels, "patient_id": f"p{number}"}
    return ImageRecord(number, **{**known, **more}, lesions=lesions)


def write_data(root: Path, *records: ImageRecord, name="all.json", split=SPLIT, categories=("mass",)) -> Path:
    for record in records:
        if not (root / record.file_name).exists():
            write_png(root / record.file_name, film(record.size_hw))
    write_coco(Dataset(categories, records, {"archive": "test", "split": split}), root / name)
    return root


def cut(tmp_path: Path, *records: ImageRecord, categories=("mass",), **options):
    """Summary and records by stem, of an all.json of these images."""
    write_data(tmp_path / "in", *records, categories=categories)
    summary = make_patches(tmp_path / "in", tmp_path / "out", PatchOptions(**options), progress=False)
    made = read_coco(tmp_path / "out/all.json").images
    return summary, {Path(record.file_name).stem: record for record in made}


ONE = {"per_lesion": 1, "negatives": 0}
FIXED = {"fixed": True, **ONE}
