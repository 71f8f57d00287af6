"""Gathers detections of any format, checks them against the ground truth, and makes image predictions of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mammodet.data.checks import Checker, check_polygon, is_finite, read_segmentation, short
from mammodet.errors import raise_faults
from mammodet.files import read_json
from mammodet.imports.match import LEFT_OUT, Categories, ImageIndex, UnknownImageError
from mammodet.imports.options import ImportOptions
from mammodet.records import BoxXYXY, Dataset, Detections, ImagePrediction, ImageRecord, Rle

CLIP_PX = 1.0  # what a box may pass the border by, through rounding or counting pixels from 1
_ROUNDING_PX = 1e-3

Place = int | str  # number of an entry or a line, or the whole text of it


class Found(NamedTuple):
    """One detection, in pixels of the image file; `place` is where it stands in the source."""

    box_xyxy: BoxXYXY
    score: float
    category_id: int
    rle: Rle | None
    place: Place


@dataclass(frozen=True, slots=True)
class Wording:
    """How a format's messages read.

    Attributes:
        unit: what is counted: entry, line.
        box: name of a box, frame of its numbers.
        normalized_hint: what to do about boxes that are shares of the image's sides instead of pixels.
    """

    unit: str
    box: tuple[str, str]
    normalized_hint: str = "write them in pixels"


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
    """Takes detections one by one, notes every fault, and hands out predictions in the end.

    Args:
        dataset: the ground truth, whose images were predicted.
        by_id: whether class ids are those of the ground truth where `options.category_map` is empty.
    """

    def __init__(self, dataset: Dataset, options: ImportOptions, wording: Wording, *, by_id: bool = False) -> None:
        self.dataset, self.options, self.wording = dataset, options, wording
        self.faults: list[str] = []
        self.summary = ImportSummary(images=len(dataset.images))
        self._index = ImageIndex(dataset)
        self._categories = Categories(dataset.categories, options.category_map, by_id=by_id)
        self._found: dict[int, list[Found]] = {record.image_id: [] for record in dataset.images}
        self._image_scores: dict[int, dict[str, float]] = {record.image_id: {} for record in dataset.images}
        self._images: dict[tuple[str, int | str], ImageRecord | None] = {}
        self._claims: dict[int, int | str] = {}
        self._category_ids: dict[tuple[int | None, str | None], int | None] = {}
        self._unknown: dict[str, tuple[Place, int]] = {}
        self._largest = -math.inf

    def fault(self, place: Place, text: str, record: ImageRecord | None = None) -> None:
        """Note a fault at a place."""
        where = place if isinstance(place, str) else f"{self.wording.unit} {place}"
        image = f" (image {record.file_name!r})" if record is not None else ""
        self.faults.append(f"{where}{image}: {text}")

    def image(self, key: int | str, place: Place, *, number: str = "id") -> ImageRecord | None:
        """The image that an id or a name means; None where there is none, and it is noted.

        Args:
            number: what a whole number is: the image's `id` in the ground truth, or the `stem` of its file name.
        """
        known = (number, key)
        if known not in self._images or self._images[known] is None:
            self._images[known] = self._find_image(key, place, number)
        return self._images[known]

    def _find_image(self, key: int | str, place: Place, number: str) -> ImageRecord | None:
        try:
            if isinstance(key, str):
                record = self._index.by_name(key)
            elif number == "stem":
                record = self._index.by_stem_number(key)
            else:
                record = self._index.by_id(key)
            first = self._claims.setdefault(record.image_id, key)
            if first != key:
                # Two images of the source would be poured into one.
                raise ValueError(f"{short(first)} and {short(key)} both mean image {record.file_name!r}; rename one")
            return record
        except UnknownImageError as error:
            if self.options.ignore_unknown_images:
                self.summary.counts["entries of unknown images, left out"] += 1
            else:
                self._note_unknown(f"{error} (--ignore-unknown-images leaves it out)", place)
        except ValueError as error:
            self._note_unknown(str(error), place)
        return None

    def same_image(self, record: ImageRecord, name: str) -> bool:
        """Whether a file name means this image."""
        try:
            return self._index.by_name(name).image_id == record.image_id
        except ValueError:
            return False

    def category(self, number: int | None, name: str | None, place: Place) -> int | None:
        """Number of the category that a class id or name means; None where there is none, and it is noted."""
        known = (number, name)
        if self._category_ids.get(known) is None:
            try:
                self._category_ids[known] = self._categories.find(number, name)
            except ValueError as error:
                self._note_unknown(str(error), place)
                return None
        return self._category_ids[known]

    def _note_unknown(self, reason: str, place: Place) -> None:
        first, count = self._unknown.get(reason, (place, 0))
        self._unknown[reason] = first, count + 1

    def score(self, value: Any, place: Place, record: ImageRecord, what: str = "score") -> float | None:
        """A score on the scale from 0 to 1; None where it is wrong, and it is noted."""
        if value is None:
            if self.options.default_score is not None and what == "score":
                self.summary.counts["detections without a score, given --default-score"] += 1
                return self.options.default_score
            self.fault(place, f"{what} is missing; --default-score 1 would give one to all without", record)
            return None
        if not is_finite(value):
            self.fault(place, f"{what} is {short(value)}; expected a number", record)
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
        self.fault(place, f"{what} is {short(value)}; expected a number {expected} ({advice})", record)
        return None

    def add(
        self,
        record: ImageRecord,
        box_xyxy: BoxXYXY,
        score: float | None,
        category_id: int | None,
        place: Place,
        *,
        given: Any,
        mask: Any = None,
    ) -> None:
        """Take one detection, or note what is wrong with it.

        Args:
            box_xyxy: finite, in pixels of the image file.
            score, category_id: as `score` and `category` answered; None notes nothing more.
            given: the box as it stands in the source, for messages.
            mask: run lengths or polygons as in COCO, in pixels; None where there is none.
        """
        if category_id == LEFT_OUT:
            self.summary.counts["detections of classes that --category-map leaves out"] += 1
            return
        box = self._fit(box_xyxy, record, place, given)
        rle = None
        if mask is not None and not self.options.boxes_only:
            rle = self.read_mask(mask, record, place)
            if rle is None:
                return
        if box is not None and score is not None and category_id is not None:
            self._found[record.image_id].append(Found(box, score, category_id, rle, place))

    def _fit(self, box: BoxXYXY, record: ImageRecord, place: Place, given: Any) -> BoxXYXY | None:
        """The box, cut to the image; None where it is faulty. A box inside the image keeps every digit."""
        x1, y1, x2, y2 = box
        height, width = record.size_hw
        self._largest = max(self._largest, x2, y2)
        if not (x2 > x1 and y2 > y1):
            name, frame = self.wording.box
            self.fault(place, f"{name} {short(given)} ({frame}) is empty; expected a positive width and height", record)
            return None
        over = max(-x1, -y1, x2 - width, y2 - height)
        if over <= 0:
            return box
        name, frame = self.wording.box
        if over > CLIP_PX + _ROUNDING_PX and not self.options.clip_boxes:
            self.fault(
                place,
                f"{name} {short(given)} ({frame}) leaves the image by {over:g} px (it is {height}x{width}, height x "
                "width); --clip-boxes would cut it",
                record,
            )
            return None
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        if not (x2 > x1 and y2 > y1):
            self.fault(
                place,
                f"{name} {short(given)} ({frame}) has nothing inside the image ({height}x{width}, height x width)",
                record,
            )
            return None
        self.summary.counts["boxes cut to the image"] += over > _ROUNDING_PX
        return x1, y1, x2, y2

    def read_mask(self, value: Any, record: ImageRecord, place: Place) -> Rle | None:
        """Run lengths of a mask; None where it cannot be read, and it is noted."""
        height, width = record.size_hw
        checker = Checker()
        rle = read_segmentation(value, height, width, "", checker)
        if rle is None and _is_empty_mask(value, record.size_hw):
            # Detectors write such masks for weak detections; the box still counts.
            self.summary.counts["masks without a pixel"] += 1
            return _empty_rle(record.size_hw)
        for text in checker.faults:
            self.fault(place, text.removeprefix(": "), record)
        return rle

    def image_score(self, record: ImageRecord, label: str, score: float) -> float:
        """Note a score of the whole image; answers the one that was noted first."""
        return self._image_scores[record.image_id].setdefault(label, score)

    def finish(self, source: Path) -> tuple[ImagePrediction, ...]:
        """Predictions of every image of the ground truth, in its order.

        Raises:
            InputError: with every fault that was noted.
        """
        for reason, (place, count) in self._unknown.items():
            self.fault(place, reason + (f"; {count} times in all" if count > 1 else ""))
        self._check_masks()
        self._check_scale()
        for record in self.dataset.images:
            self._check_copies(record)
        counted = "Entries are counted from 0" if self.wording.unit == "entry" else "Lines are counted from 1"
        advice = f"{counted}. Nothing was written: mend or export it again, or choose the option that a fault names."
        raise_faults(self.faults, where=str(source), advice=advice)
        with_masks = any(found.rle is not None for members in self._found.values() for found in members)
        return tuple(self._prediction(record, with_masks) for record in self.dataset.images)

    def _check_masks(self) -> None:
        kinds: dict[bool, tuple[Place, int]] = {}
        for members in self._found.values():
            for found in members:
                first, count = kinds.get(found.rle is None, (found.place, 0))
                kinds[found.rle is None] = first, count + 1
        if len(kinds) == 2:
            (place, without), (_, with_masks) = kinds[True], kinds[False]
            self.fault(
                place,
                f"has no segmentation, as {without} of {without + with_masks} detections; expected one for all or for "
                "none (--boxes-only leaves them out)",
            )

    def _check_scale(self) -> None:
        if 0 < self._largest <= 1:
            self.faults.append(
                f"no box reaches beyond {self._largest:g} px: these are shares of the width and height, not pixels; "
                + self.wording.normalized_hint
            )

    def _check_copies(self, record: ImageRecord) -> None:
        first: dict[tuple[Any, ...], Place] = {}
        for found in self._found[record.image_id]:
            key = (found.box_xyxy, found.score, found.category_id, found.rle["counts"] if found.rle else None)
            if key in first:
                before = first[key] if isinstance(first[key], str) else f"{self.wording.unit} {first[key]}"
                self.fault(found.place, f"is the same detection as {before}; leave one of them out", record)
            else:
                first[key] = found.place

    def _prediction(self, record: ImageRecord, with_masks: bool) -> ImagePrediction:
        members = sorted(self._found.pop(record.image_id), key=lambda found: -found.score)
        if self.options.keep_top is not None:
            self.summary.counts["detections below --keep-top"] += len(members[self.options.keep_top :])
            members = members[: self.options.keep_top]
        scores = dict(self._image_scores[record.image_id])
        if self.options.image_score != "none":
            scores["tumor"] = _RULES[self.options.image_score]([found.score for found in members])
        self.summary.detections += len(members)
        self.summary.masks += len(members) if with_masks else 0
        self.summary.images_with_detections += bool(members)
        rles = [found.rle for found in members if found.rle is not None]
        return ImagePrediction(
            image_id=record.image_id,
            file_name=record.file_name,
            size_hw=record.size_hw,
            scores=scores,
            detections=Detections(
                np.array([found.box_xyxy for found in members], dtype=np.float64).reshape(-1, 4),
                np.array([found.score for found in members], dtype=np.float64),
                np.array([found.category_id for found in members], dtype=np.int64),
                rles if with_masks or not members else None,
            ),
            patient_id=record.patient_id,
            laterality=record.laterality,
            view=record.view,
        )

    def check_image_scores(self, columns: Mapping[str, str]) -> None:
        """Note the images that lack one of these scores; `columns`: label to the name of its column."""
        for record in self.dataset.images:
            missing = [column for label, column in columns.items() if label not in self._image_scores[record.image_id]]
            if missing:
                self.faults.append(
                    f"image {record.file_name!r} has no value in {', '.join(map(repr, missing))}; expected one for "
                    "every image of the ground truth (a row without a box is allowed)"
                )


def noisy_or(scores: Sequence[float]) -> float:
    """Probability that at least one detection is a lesion, if they were independent; 0 where there is none."""
    return 1 - math.prod(1 - score for score in scores)


_RULES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "max": lambda scores: max(scores, default=0.0),
    "noisy_or": noisy_or,
}


def read_results(path: Path) -> Any:
    """The JSON value of a results file; NaN and infinity stay in, so that each is told with its entry.

    Raises:
        InputError: the file is missing, is no UTF-8, or is cut short.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return read_json(path)  # which says in words what is wrong


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
