"""A new archive on the converters' skeleton: PGM or PNG images, and their boxes in a CSV (for test_skeleton.py).

`boxes.csv` has a row for each box, `file,patient,side,view,x,y,width,height,malignant`; without x, the image is normal.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Made, Resumable, refused
from mammodet.data.breast import find_breast
from mammodet.data.images import read_image, write_png
from mammodet.errors import InputError
from mammodet.geometry import clip_boxes
from mammodet.records import ImageRecord, Lesion


class BoxOptions(Options):
    """What is converted, and how."""

    category: Literal["mass", "lesion"] = flag("mass", "of every box")
    least: int = flag(2, "smaller boxes are left out", metavar="PX", ge=1)
    views: tuple[str, ...] = flag((), "views that are converted", words="all")


@dataclass(frozen=True, slots=True)
class Image:
    """An image and its rows of the table."""

    number: int
    path: Path
    rows: tuple[dict[str, str], ...]


class BoxArchive(Resumable[BoxOptions, Image]):
    """Boxes in a CSV."""

    NAME = "boxes"
    options_type = BoxOptions

    def find(self) -> None:
        self.categories = (self.options.category,)
        table = self.source / "boxes.csv"
        if not table.is_file():
            raise InputError(f"{self.source}: no boxes.csv; expected the unpacked archive")
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        views = self.options.views
        self.table = [row for row in rows if not views or row["view"] in views]

    def rows(self) -> list[Image]:
        by_file: dict[str, list[dict[str, str]]] = {}
        for row in self.table:
            by_file.setdefault(row["file"], []).append(row)
        images = []
        for number, (name, rows) in enumerate(sorted(by_file.items()), start=1):
            if (self.source / name).is_file():
                images.append(Image(number, self.source / name, tuple(rows)))
            else:
                self.quarantine.append(Quarantined(Reason.NO_FILE, "image", name, "has rows but no file"))
        return images

    def key(self, row: Image) -> str:
        return row.path.name

    def fingerprint(self, row: Image) -> Any:
        return [row.path, row.rows]

    def settings(self) -> Any:
        return self.options.model_dump(exclude={"splits", "jobs"})

    @staticmethod
    def convert_one(row: Image, how: tuple[Path, BoxOptions]) -> Made:
        output, options = how
        try:
            pixels = read_image(row.path)
        except InputError as error:
            return refused("image", row.path.name, error, row.path)
        height, width = pixels.shape
        lesions, lost = [], []
        for each in row.rows:
            if not each["x"]:
                continue
            x, y, w, h = (float(each[key]) for key in ("x", "y", "width", "height"))
            x1, y1, x2, y2 = clip_boxes([(x, y, x + w, y + h)], (height, width))[0].tolist()
            if min(x2 - x1, y2 - y1) < options.least:
                name = f"{row.path.name} ({x:g}, {y:g})"
                lost.append(Quarantined(Reason.OUTSIDE, "box", name, f"has less than {options.least} px on the image"))
                continue
            pathology = "malignant" if each["malignant"] == "1" else "benign"
            lesions.append(Lesion(options.category, (x1, y1, x2, y2), None, "box", {"pathology": pathology}))
        write_png(output / "images" / f"{row.path.stem}.png", pixels)
        first = row.rows[0]
        record = ImageRecord(
            image_id=row.number,
            file_name=f"images/{row.path.stem}.png",
            size_hw=(height, width),
            patient_id=f"boxes_{first['patient']}",
            laterality=first["side"],
            view=first["view"],
            labels={
                "tumor": int(bool(lesions or lost)),
                "malignant": int(any(each["malignant"] == "1" for each in row.rows)),
            },
            source="boxes",
            breast_box_xyxy=find_breast(pixels).box_xyxy,
            unlocalized=bool(lost),
            lesions=tuple(lesions),
        )
        return Made(record, tuple(lost))

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[Image, Made]]) -> None:
        self.summary.counts["images"] = len(records)
        self.summary.counts["boxes"] = sum(len(record.lesions) for record in records)
