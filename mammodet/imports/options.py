"""Options of an import: as dataclasses that check themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodet.errors import InputError
from mammodet.records import LABELS

SCORE_SCALES = ("none", "percent", "sigmoid")
IMAGE_SCORE_RULES = ("none", "max", "noisy_or")
COORDINATES = ("pixels", "normalized")
BOX_KINDS = {"xyxy": ("x1", "y1", "x2", "y2"), "xywh": ("x", "y", "w", "h"), "cxcywh": ("cx", "cy", "w", "h")}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Which column of a table holds what.

    Attributes:
        image: column of the image.
        box_kind: key of `BOX_KINDS`: corners, top-left corner and size, or centre and size.
        box: its four columns; empty for a table of image scores alone.
        score, category: their columns; None where there is none.
        size: columns of the width and height at which the boxes were predicted; None: those of the ground truth.
        image_scores: (label, column) of scores of the whole image.
        match: whether the image column holds a `name` or the `id` of the ground truth.
    """

    image: str
    box_kind: str = "xyxy"
    box: tuple[str, ...] = ()
    score: str | None = None
    category: str | None = None
    size: tuple[str, str] | None = None
    image_scores: tuple[tuple[str, str], ...] = ()
    match: str = "name"

    def __post_init__(self) -> None:
        _check_choice("--match", self.match, ("name", "id"))
        _check_choice("box_kind", self.box_kind, tuple(BOX_KINDS))
        if len(self.box) not in (0, 4):
            raise InputError(f"box columns {self.box}: expected four, as {', '.join(BOX_KINDS[self.box_kind])}")
        if not self.box and not self.image_scores:
            raise InputError(
                "no column is chosen: name those of a box (--x1-column ... --y2-column, --x-column ... --h-column, or "
                "--cx-column ... --h-column), or those of image scores (--image-score tumor=COLUMN)"
            )
        for label, _ in self.image_scores:
            _check_choice("--image-score LABEL=COLUMN, its label", label, LABELS)

    def columns(self) -> tuple[str, ...]:
        """Every column that is read, by the name that the user gave."""
        more = [self.score, self.category, *(self.size or ()), *(column for _, column in self.image_scores)]
        return tuple(dict.fromkeys([self.image, *self.box, *(name for name in more if name is not None)]))


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How detections of another program are read.

    Attributes:
        name: of the model, for reports; None: the source's name.
        category_map: (their id or name, our name); ours empty to leave such detections out.
        score_scale: `none` (scores are in [0, 1]), `percent`, or `sigmoid` (scores are logits).
        default_score: of detections that come without one; None refuses them.
        image_score: rule that makes the image score `tumor` of the detections.
        coordinates: `pixels`, or `normalized` by width and height; for tables and Ultralytics summaries.
        train_jsons: data sets that the model was trained and chosen on, the training set first.
        checkpoint_file: of the model, of which the SHA-256 is kept.
        ignore_unknown_images: pass over detections on images that the ground truth lacks.
        boxes_only: leave masks out.
        clip_boxes: cut boxes to the image however far they leave it.
        keep_top: only so many detections of an image, the strongest.
        table: columns, for the format `csv`.
    """

    name: str | None = None
    category_map: tuple[tuple[str, str], ...] = ()
    score_scale: str = "none"
    default_score: float | None = None
    image_score: str = "none"
    coordinates: str = "pixels"
    train_jsons: tuple[Path, ...] = ()
    checkpoint_file: Path | None = None
    ignore_unknown_images: bool = False
    boxes_only: bool = False
    clip_boxes: bool = False
    keep_top: int | None = None
    table: TableOptions | None = None

    def __post_init__(self) -> None:
        _check_choice("--score-scale", self.score_scale, SCORE_SCALES)
        _check_choice("--image-score", self.image_score, IMAGE_SCORE_RULES)
        _check_choice("--coordinates", self.coordinates, COORDINATES)
        if self.default_score is not None and not 0 <= self.default_score <= 1:
            raise InputError(f"--default-score {self.default_score}: expected a number from 0 to 1")
        if self.keep_top is not None and self.keep_top < 1:
            raise InputError(f"--keep-top {self.keep_top}: expected 1 or more")
        if self.table is not None:
            labels = [label for label, _ in self.table.image_scores]
            if len(set(labels)) < len(labels) or (self.image_score != "none" and "tumor" in labels):
                raise InputError("--image-score: a score is told twice; choose a rule or one column for each")
            if self.table.size is not None and self.coordinates == "normalized":
                raise InputError("--width-column, --height-column: normalized coordinates need none; leave them out")

    def to_json(self) -> dict[str, Any]:
        """What was chosen, for the predictions file."""
        chosen: dict[str, Any] = {
            "category_map": {theirs: ours or None for theirs, ours in self.category_map},
            "score_scale": self.score_scale,
            "default_score": self.default_score,
            "image_score": self.image_score,
            "coordinates": self.coordinates,
            "ignore_unknown_images": self.ignore_unknown_images,
            "boxes_only": self.boxes_only,
            "clip_boxes": self.clip_boxes,
            "keep_top": self.keep_top,
            "train_json": [str(path) for path in self.train_jsons],
        }
        if self.table is not None:
            table = self.table
            chosen["columns"] = {
                "image": table.image,
                "match": table.match,
                **dict(zip(BOX_KINDS[table.box_kind], table.box, strict=False)),
                "score": table.score,
                "category": table.category,
                "size": list(table.size) if table.size else None,
                "image_scores": dict(table.image_scores),
            }
        return chosen


def read_pairs(option: str, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`THEIRS=OURS` texts, each of which may hold several with white space between; OURS may be empty.

    Raises:
        InputError: a text without `=`, or the same left side twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        # A name may hold spaces ("0=breast mass"): white space parts pairs only where every part is one.
        parts = text.split() if text.strip() and all("=" in part for part in text.split()) else [text]
        for part in parts:
            left, sign, right = part.rpartition("=")
            if not sign or not left.strip():
                raise InputError(f"{option} {text!r}: expected THEIRS=OURS, for instance 0=mass")
            if left.strip() in pairs:
                raise InputError(f"{option} {text!r}: {left.strip()!r} is said twice")
            pairs[left.strip()] = right.strip()
    return tuple(pairs.items())


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{option} {value!r}: expected {', '.join(choices)}")
