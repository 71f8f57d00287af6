"""Checks entries of any format against the ground truth, and makes image predictions of them."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mammodet.data.json_values import Checker, check_polygon, is_finite, read_segmentation, short
from mammodet.errors import raise_faults
from mammodet.geometry import rle_box
from mammodet.imports import ImportOptions
from mammodet.imports.entry import FAULTY, NO_PIXEL, Entry, Format, Place
from mammodet.imports.match import LEFT_OUT, Categories, ImageIndex, UnknownImageError
from mammodet.modeling.aggregation import max_score, noisy_or
from mammodet.records import BoxXYXY, Dataset, Detections, ImagePrediction, ImageRecord, Rle

CLIP_PX = 1.0  # what a box may pass the border by, through rounding or counting pixels from 1
_ROUNDING_PX = 1e-3
_RULES = {"max": max_score, "noisy_or": noisy_or}


class Found(NamedTuple):
    """One detection, in pixels of the image file; `place` is where it is in the source."""

    box_xyxy: BoxXYXY
    score: float
    category_id: int
    rle: Rle | None
    place: Place


@dataclass
class ImportSummary:
    """What came in and what was left out."""

    images: int = 0
    images_with_detections: int = 0
    detections: int = 0
    masks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        """A few lines for the terminal."""
        masks = ", with masks" if self.masks else ""
        lines = [
            f"{self.images} images, {self.images_with_detections} with detections; {self.detections} detections{masks}"
        ]
        lines += [f"{name}: {count}" for name, count in sorted(self.counts.items()) if count]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


class Collector:
    """Takes entries of a ground truth's images one by one, notes every fault, and hands out predictions in the end."""

    def __init__(self, dataset: Dataset, options: ImportOptions, form: Format) -> None:
        self.dataset, self.options, self.form = dataset, options, form
        self.faults: list[str] = []
        self.summary = ImportSummary(images=len(dataset.images))
        self._index = ImageIndex(dataset)
        self._categories = Categories(dataset.categories, options.categories, by_id=form.by_id)
        self._found: dict[int, list[Found]] = {record.image_id: [] for record in dataset.images}
        self._image_scores: dict[int, dict[str, tuple[float, Place]]] = {
            record.image_id: {} for record in dataset.images
        }
        self._claims: dict[int, int | str] = {}
        self._unknown: dict[str, tuple[Place, int]] = {}
        self._passed_over: set[int | str] = set()
        self._largest = -math.inf

    def take(self, entry: Entry) -> None:
        """Take what an entry says, or note what is wrong with it."""
        record = None
        if entry.image is not FAULTY:
            record = self._image(entry)
            if record is None:
                return
        for text in entry.faults:
            self._fault(entry.place, text, record)
        if record is None:
            return
        for label, (name, value) in entry.image_scores.items():
            self._take_image_score(entry, record, label, name, value)
        if entry.class_id is None and entry.class_name is None:  # no detection, or a fault of the whole entry
            return
        category = None if entry.class_id is FAULTY else self._category(entry)
        score = None if entry.score is FAULTY else self._score(entry, record)
        if category == LEFT_OUT:
            self.summary.counts["detections of classes that --category-map leaves out"] += 1
            return
        box, mask = self._in_pixels(entry, record)
        rle = self._read_mask(mask, entry, record)
        if entry.box is None and rle is not None:
            box = rle_box(rle)
        box = None if box is None else self._fit(box, entry, record)
        if self.options.boxes_only:
            mask = rle = None
        if box is not None and score is not None and category is not None and (mask is None or rle is not None):
            self._found[record.image_id].append(Found(box, score, category, rle, entry.place))

    def _where(self, place: Place) -> str:
        return place if isinstance(place, str) else f"{self.form.unit} {place}"

    def _fault(self, place: Place, text: str, record: ImageRecord | None = None) -> None:
        image = f" (image {record.file_name!r})" if record is not None else ""
        self.faults.append(f"{self._where(place)}{image}: {text}")

    def _image(self, entry: Entry) -> ImageRecord | None:
        """The image that an entry means; None where there is none, and it is noted."""
        key = entry.image
        if key in self._passed_over:
            return None
        try:
            record = self._index.find(key, entry.number_is)
            first = self._claims.setdefault(record.image_id, key)
            if first != key:
                # Two images of the source would be poured into one.
                raise ValueError(f"{short(first)} and {short(key)} both mean image {record.file_name!r}; rename one")
        except UnknownImageError as error:
            self._pass_over(entry)
            if self.options.ignore_unknown_images:
                self.summary.counts["entries of unknown images, left out"] += 1
            else:
                self._note_unknown(f"{error} (--ignore-unknown-images leaves it out)", entry.place)
            return None
        except ValueError as error:
            self._pass_over(entry)
            self._note_unknown(str(error), entry.place)
            return None
        if entry.file_name is not None and not self._index.means(entry.file_name, record):
            self._fault(
                entry.place,
                f"image_id {short(key)} is {record.file_name!r} in the ground truth, but the entry's file_name is "
                f"{short(entry.file_name)}; the ids are of another data set",
            )
            return None
        return record

    def _pass_over(self, entry: Entry) -> None:
        if entry.opens:
            self._passed_over.add(entry.image)

    def _category(self, entry: Entry) -> int | None:
        try:
            return self._categories.find(entry.class_id, entry.class_name)
        except ValueError as error:
            self._note_unknown(str(error), entry.place)
            return None

    def _note_unknown(self, reason: str, place: Place) -> None:
        first, count = self._unknown.get(reason, (place, 0))
        self._unknown[reason] = first, count + 1

    def _score(self, entry: Entry, record: ImageRecord) -> float | None:
        if entry.score is None and self.options.default_score is not None:
            self.summary.counts["detections without a score, given --default-score"] += 1
            return self.options.default_score
        if entry.score is None:
            text = f"{entry.score_name} is missing; --default-score 1 would give one to all without"
            self._fault(entry.place, text, record)
            return None
        return self._scaled(entry.score, entry, record, entry.score_name)

    def _scaled(self, value: Any, entry: Entry, record: ImageRecord, name: str) -> float | None:
        """A score on the scale from 0 to 1; None where it is wrong, and it is noted."""
        if not is_finite(value):
            self._fault(entry.place, f"{name} is {short(value)}; expected a number", record)
            return None
        score = float(value)
        if self.options.score_scale == "percent":
            score /= 100
        elif self.options.score_scale == "sigmoid":
            return 1 / (1 + math.exp(-score)) if score >= 0 else (exp := math.exp(score)) / (1 + exp)
        if 0 <= score <= 1:
            return score
        expected = "in [0, 1]" if self.options.score_scale == "none" else "from 0 to 100"
        advice = "--score-scale percent is for 0 to 100, sigmoid for logits"
        self._fault(entry.place, f"{name} is {short(value)}; expected a number {expected} ({advice})", record)
        return None

    def _take_image_score(self, entry: Entry, record: ImageRecord, label: str, name: str, value: Any) -> None:
        """Note a score of an image, which all of its entries must agree on."""
        score = None if value is FAULTY else self._scaled(value, entry, record, name)
        if score is None:
            return
        before, first = self._image_scores[record.image_id].setdefault(label, (score, entry.place))
        if before != score:
            text = f"{name} is {value:g}, but on {self._where(first)} of the same image it is another"
            self._fault(entry.place, text, record)

    def _in_pixels(self, entry: Entry, record: ImageRecord) -> tuple[BoxXYXY | None, Any]:
        """Corners and mask of an entry in pixels of the image file; no corners where they are faulty or missing."""
        height, width = record.size_hw
        scale_x, scale_y = (float(width), float(height)) if entry.shares else (1.0, 1.0)
        if entry.size_wh is not None:
            scale_x, scale_y = width / entry.size_wh[0], height / entry.size_wh[1]
        mask = entry.mask
        if entry.shares and isinstance(mask, list):
            mask = [[value * (scale_y if at % 2 else scale_x) for at, value in enumerate(one)] for one in mask]
        if entry.box is None or entry.box is FAULTY:
            return None, mask
        a, b, c, d = (float(value) * scale for value, scale in zip(entry.box, (scale_x, scale_y) * 2, strict=True))
        kinds = {"xyxy": (a, b, c, d), "xywh": (a, b, a + c, b + d)}
        return kinds.get(entry.box_kind, (a - c / 2, b - d / 2, a + c / 2, b + d / 2)), mask

    def _fit(self, box: BoxXYXY, entry: Entry, record: ImageRecord) -> BoxXYXY | None:
        """The box, cut to the image; None where it is faulty. A box inside the image keeps every digit."""
        x1, y1, x2, y2 = box
        height, width = record.size_hw
        self._largest = max(self._largest, x2, y2)
        shown = f"{self.form.box} {short(entry.given)} ({self.form.frame})"
        over = max(-x1, -y1, x2 - width, y2 - height)
        fault = None
        if not (x2 > x1 and y2 > y1):
            fault = "is empty; expected a positive width and height"
        elif over <= 0:
            return box
        elif over > CLIP_PX + _ROUNDING_PX and not self.options.clip_boxes:
            fault = f"leaves the image by {over:g} px (it is {height}x{width}, height x width); --clip-boxes cuts it"
        else:
            x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            if not (x2 > x1 and y2 > y1):
                fault = f"has nothing inside the image ({height}x{width}, height x width)"
        if fault is not None:
            self._fault(entry.place, f"{shown} {fault}", record)
            return None
        self.summary.counts["boxes cut to the image"] += over > _ROUNDING_PX
        return x1, y1, x2, y2

    def _read_mask(self, mask: Any, entry: Entry, record: ImageRecord) -> Rle | None:
        """Run lengths of a mask; None where there is none, or it cannot be read, which is noted."""
        if mask is None or mask is FAULTY or (self.options.boxes_only and entry.box is not None):
            return None
        checker = Checker()
        rle = None if mask is NO_PIXEL else read_segmentation(mask, *record.size_hw, "", checker)
        if rle is None and (mask is NO_PIXEL or _is_empty_mask(mask, record.size_hw)):
            # Detectors write such masks for weak detections; the box still counts.
            self.summary.counts["masks without a pixel"] += 1
            return _empty_rle(record.size_hw)
        for text in checker.faults:
            self._fault(entry.place, text.removeprefix(": "), record)
        return rle

    def finish(self, source: Path) -> tuple[ImagePrediction, ...]:
        """Predictions of every image of the ground truth, in its order.

        Raises InputError: with every fault that was noted.
        """
        if not self.faults:
            self._check_image_scores()
        for reason, (place, count) in self._unknown.items():
            self._fault(place, reason + (f"; {count} times in all" if count > 1 else ""))
        self._check_masks()
        if 0 < self._largest <= 1:
            self.faults.append(
                f"no box reaches beyond {self._largest:g} px: these are shares of the width and height, not pixels; "
                + self.form.normalized_hint
            )
        for record in self.dataset.images:
            self._check_copies(record)
        counted = "Entries are counted from 0" if self.form.unit == "entry" else "Lines are counted from 1"
        advice = f"{counted}. Nothing was written: mend or export it again, or choose the option that a fault names."
        raise_faults(self.faults, where=str(source), advice=advice)
        with_masks = any(found.rle is not None for members in self._found.values() for found in members)
        return tuple(self._prediction(record, with_masks) for record in self.dataset.images)

    def _check_image_scores(self) -> None:
        columns = self.options.score_columns
        for record in self.dataset.images:
            missing = [column for label, column in columns.items() if label not in self._image_scores[record.image_id]]
            if missing:
                self.faults.append(
                    f"image {record.file_name!r} has no value in {', '.join(map(repr, missing))}; expected one for "
                    "every image of the ground truth (a row without a box is allowed)"
                )

    def _check_masks(self) -> None:
        members = [found for members in self._found.values() for found in members]
        without = [found for found in members if found.rle is None]
        if 0 < len(without) < len(members):
            self._fault(
                without[0].place,
                f"has no segmentation, as {len(without)} of {len(members)} detections; expected one for all or for "
                "none (--boxes-only leaves them out)",
            )

    def _check_copies(self, record: ImageRecord) -> None:
        first: dict[tuple[Any, ...], Place] = {}
        for found in self._found[record.image_id]:
            key = (found.box_xyxy, found.score, found.category_id, found.rle["counts"] if found.rle else None)
            before = first.setdefault(key, found.place)
            if before != found.place:
                text = f"is the same detection as {self._where(before)}; leave one of them out"
                self._fault(found.place, text, record)

    def _prediction(self, record: ImageRecord, with_masks: bool) -> ImagePrediction:
        members = sorted(self._found.pop(record.image_id), key=lambda found: -found.score)
        if self.options.keep_top is not None:
            self.summary.counts["detections below --keep-top"] += len(members[self.options.keep_top :])
            members = members[: self.options.keep_top]
        scores = {label: score for label, (score, _) in self._image_scores[record.image_id].items()}
        if self.options.rule != "none":
            scores["tumor"] = _RULES[self.options.rule](np.array([found.score for found in members]))
        self.summary.detections += len(members)
        self.summary.masks += len(members) if with_masks else 0
        self.summary.images_with_detections += bool(members)
        rles = [found.rle for found in members if found.rle is not None]
        return ImagePrediction.of(
            record,
            scores,
            Detections(
                np.array([found.box_xyxy for found in members], dtype=np.float64).reshape(-1, 4),
                np.array([found.score for found in members], dtype=np.float64),
                np.array([found.category_id for found in members], dtype=np.int64),
                rles if with_masks or not members else None,
            ),
        )


def _empty_rle(size_hw: tuple[int, int]) -> Rle:
    counts = coco_mask.frPyObjects({"size": [*size_hw], "counts": [size_hw[0] * size_hw[1]]}, *size_hw)["counts"]
    return Rle(size=[*size_hw], counts=counts.decode("ascii"))


def _is_empty_mask(value: Any, size_hw: tuple[int, int]) -> bool:
    """Whether a mask that is refused is well-formed, and only has no pixel."""
    pixels = size_hw[0] * size_hw[1]
    if isinstance(value, list):
        try:
            for polygon in value:
                check_polygon(polygon, *size_hw)
        except ValueError:
            return False
        return bool(value)
    if not isinstance(value, dict) or value.get("size") != [*size_hw]:
        return False
    return value.get("counts") in ([pixels], [pixels, 0], _empty_rle(size_hw)["counts"])
