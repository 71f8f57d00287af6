"""What flows through the toolkit: lesions, images, data sets, detections.

Pixel frame (everywhere): x to the right, y down, the origin at the top-left corner of the top-left pixel, so the
centre of the top-left pixel is (0.5, 0.5) and an image of width w spans x in [0, w]. Boxes are floats `xyxy` in
that frame; sizes are `(height, width)`. Records check themselves when they are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

Geometry = Literal["contour", "circle", "box"]
GEOMETRIES: tuple[Geometry, ...] = ("contour", "circle", "box")
LATERALITIES = ("L", "R")
LABELS = ("tumor", "malignant")
SUBSETS = ("train", "val", "test")


def fold_file(fold: int, subset: str) -> str:
    """Name of the file of a fold's training or validation set."""
    return f"fold{fold}_{subset}.json"


BoxXYXY = tuple[float, float, float, float]


class Rle(TypedDict):
    """A binary mask as COCO's compressed run lengths (column-major); `size` is [height, width]."""

    size: list[int]
    counts: str


class Picked(Sequence[Any]):
    """Some items of another sequence, by rows int (n,)."""

    __slots__ = ("items", "rows")

    def __init__(self, items: Sequence[Any], rows: Sequence[int] | NDArray[np.intp]) -> None:
        self.items, self.rows = items, np.asarray(rows, dtype=np.intp)
        if isinstance(items, Picked):
            self.items, self.rows = items.items, items.rows[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.items[self.rows[place]]


class Masks(Sequence[Rle]):
    """Masks in little memory: each is made a dictionary when it is asked for.

    Args:
        counts: run lengths.
        sizes: (height, width) of each; one tuple may be of many.
    """

    __slots__ = ("counts", "sizes")

    def __init__(self, counts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
        self.counts, self.sizes = counts, sizes

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, row: Any) -> Any:
        return Rle(size=list(self.sizes[row]), counts=self.counts[row])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def at(self, rows: Sequence[int] | NDArray[np.intp]) -> Masks:
        """Some of them, in the order of `rows`."""
        return Masks(Picked(self.counts, rows), Picked(self.sizes, rows))

    @staticmethod
    def joined(parts: Iterable[Masks]) -> Masks:
        """Those of several, one after another."""
        parts = list(parts)
        return Masks([each for one in parts for each in one.counts], [each for one in parts for each in one.sizes])

    @staticmethod
    def of(rles: Iterable[Rle]) -> Masks:
        """The same masks, whatever holds them."""
        if isinstance(rles, Masks):
            return rles
        rles = list(rles)
        return Masks([rle["counts"] for rle in rles], [(rle["size"][0], rle["size"][1]) for rle in rles])


@dataclass(frozen=True, slots=True)
class Lesion:
    """One abnormality with a place on one image.

    Attributes:
        category: name of its category, one of the data set's.
        box_xyxy: tight box in pixels of the image file.
        rle: its mask; None where only a box is known.
        geometry: how far the mask can be trusted: a drawn `contour`, a `circle` that encloses it, or a `box`.
        attributes: what the archive says of it (abnormality, pathology, subtlety, ...).
        ignore: a finding that counts neither as a target nor as background.
    """

    category: str
    box_xyxy: BoxXYXY
    rle: Rle | None
    geometry: Geometry
    attributes: Mapping[str, Any] = field(default_factory=dict)
    ignore: bool = False

    @property
    def malignant(self) -> int | None:
        """1 or 0 by its pathology, None where that is not known."""
        return {"benign": 0, "malignant": 1}.get(str(self.attributes.get("pathology")))

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise ValueError(f"geometry {self.geometry!r}: expected one of {', '.join(GEOMETRIES)}")
        x1, y1, x2, y2 = self.box_xyxy
        if not (np.isfinite(self.box_xyxy).all() and x2 > x1 and y2 > y1):
            raise ValueError(f"box_xyxy {self.box_xyxy}: expected x2 > x1 and y2 > y1, all finite")

    @property
    def has_outline(self) -> bool:
        """Whether more than a box is known; the mask of a `box` is the rectangle that an annotation tool wrote."""
        return self.rle is not None and self.geometry != "box"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file with everything known about it.

    Attributes:
        image_id: number, unique in the data set.
        file_name: path relative to the data root, with `/`.
        size_hw: (height, width) in pixels of the file.
        patient_id: groups images for splits and for patient scores; None where nothing is known.
        laterality: `L` or `R`; view: `CC`, `MLO`, ...; density: `A` to `D` or the archive's own letter.
        labels: `tumor`, `malignant` to 0, 1 or None (not known).
        class_name: the archive's own class of the image, for instance the name of its folder.
        split: `train`, `val`, `test` or None.
        spacing_mm_rc: (row, column) distance of pixel centres in mm.
        breast_box_xyxy: where the breast lies, so that a loader need not look for it again.
        trace: how the file came from the archive's own pixels (`Trace.to_json`); None for identity.
        unlocalized: a lesion is known but has no place: a positive image, never one to learn or score boxes on.
    """

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    patient_id: str | None = None
    laterality: str | None = None
    view: str | None = None
    density: str | None = None
    birads: str | None = None
    labels: Mapping[str, int | None] = field(default_factory=dict)
    class_name: str | None = None
    source: str | None = None
    split: str | None = None
    spacing_mm_rc: tuple[float, float] | None = None
    breast_box_xyxy: BoxXYXY | None = None
    trace: Mapping[str, Any] | None = None
    unlocalized: bool = False
    notes: tuple[str, ...] = ()
    lesions: tuple[Lesion, ...] = ()

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if height < 1 or width < 1:
            raise ValueError(f"size_hw {self.size_hw}: expected two positive numbers")
        if self.laterality not in (None, *LATERALITIES):
            raise ValueError(f"laterality {self.laterality!r}: expected L, R or None")
        for name, value in self.labels.items():
            if value not in (0, 1, None):
                raise ValueError(f"label {name}={value!r}: expected 0, 1 or None")

    @property
    def has_complete_boxes(self) -> bool:
        """Whether every lesion on the image has a usable place."""
        return not self.unlocalized and not any(lesion.ignore for lesion in self.lesions)

    @property
    def has_truth(self) -> bool:
        """Whether anything is known of what the image shows; of a bare image nothing is."""
        return bool(self.lesions) or any(value is not None for value in self.labels.values())

    @property
    def has_answers(self) -> bool:
        """Whether anything is known that a model could be scored on: of lesions and labels, or a class."""
        return self.has_truth or any(value is not None for value in (self.density, self.birads, self.class_name))

    def label(self, name: str) -> int | None:
        """The label `name`, None where it is not known."""
        return self.labels.get(name)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images of one JSON file.

    Attributes:
        categories: names; the COCO id of a category is its position + 1.
        images: in the file's order.
        info: provenance; `info["split"]` holds the name, the hash and the seed of the split.
    """

    categories: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def patients(self) -> set[str]:
        """Ids of the patients of its images, where they are known."""
        return {record.patient_id for record in self.images if record.patient_id}

    @property
    def without_patient(self) -> int:
        """How many images do not say whose they are."""
        return sum(not record.patient_id for record in self.images)

    def category_id(self, name: str) -> int:
        """COCO id (1-based) of a category."""
        return self.categories.index(name) + 1


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found on one image.

    Attributes:
        boxes_xyxy: float (n, 4) in pixels of the image file.
        scores: float (n,) in [0, 1], falling.
        category_ids: int (n,), 1-based as in COCO.
        rles: n masks, or None for a detector without masks.
    """

    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]
    category_ids: NDArray[np.int64]
    rles: Sequence[Rle] | None = None

    def __post_init__(self) -> None:
        if self.boxes_xyxy.ndim != 2 or self.boxes_xyxy.shape[1] != 4:
            raise ValueError(f"boxes_xyxy: expected shape (n, 4), got {self.boxes_xyxy.shape}")
        count = len(self.boxes_xyxy)
        for name in ("scores", "category_ids"):
            shape = getattr(self, name).shape
            if shape != (count,):
                raise ValueError(f"{name}: expected shape ({count},), got {shape}")
        if self.rles is not None and len(self.rles) != count:
            raise ValueError(f"rles: expected {count}, got {len(self.rles)}")

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def in_order(self) -> Detections:
        """The strongest first; of equal scores, the box further left, then further up: no file's order ever counts."""
        if (self.scores[1:] < self.scores[:-1]).all():
            return self
        masks = Masks.of(self.rles).counts if self.rles is not None else [""] * len(self)
        keys = list(
            zip((-self.scores).tolist(), self.boxes_xyxy.tolist(), self.category_ids.tolist(), masks, strict=True)
        )
        rows = sorted(range(len(self)), key=keys.__getitem__)
        return self if rows == list(range(len(self))) else self.at(rows)

    def at(self, rows: Sequence[int] | NDArray[np.intp]) -> Detections:
        """Some of them, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.intp)
        rles = Masks.of(self.rles).at(rows) if self.rles is not None else None
        return Detections(self.boxes_xyxy[rows], self.scores[rows], self.category_ids[rows], rles)

    @staticmethod
    def joined(parts: Sequence[Detections], *, with_masks: bool) -> Detections:
        """Those of several answers one after another; with masks, each of them must have some."""
        parts = [Detections.empty(with_masks=with_masks), *parts]
        return Detections(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.category_ids for part in parts]),
            Masks.joined([Masks.of(part.rles or ()) for part in parts]) if with_masks else None,
        )

    @staticmethod
    def empty(*, with_masks: bool) -> Detections:
        """No detections."""
        return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64), [] if with_masks else None)


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """Scores and detections of one image.

    Attributes:
        scores: `tumor`, `malignant` to [0, 1], by the model's aggregation rule.
        scores_by_rule: the same for every rule that was computed, for comparison.
        class_scores: question with several classes (`mammodet.targets`) to class to probability; they add up to 1.
        warnings: why the image may be no mammogram that a model can judge.
    """

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    scores: Mapping[str, float]
    detections: Detections
    scores_by_rule: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    patient_id: str | None = None
    laterality: str | None = None
    view: str | None = None
    class_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: ImageRecord, scores: Mapping[str, float], detections: Detections, **answers: Any) -> Self:
        """Answers for an image of a data set."""
        same = ("image_id", "file_name", "size_hw", "patient_id", "laterality", "view")
        return cls(scores=scores, detections=detections, **{name: getattr(record, name) for name in same}, **answers)

    def __post_init__(self) -> None:
        for name, value in self.scores.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"image {self.file_name!r}: score {name}={value}: expected a number in [0, 1]")
        for name, classes in self.class_scores.items():
            total = sum(classes.values())
            if abs(total - 1) > 1e-3:
                raise ValueError(f"image {self.file_name!r}: class scores of {name} add up to {total:.6g}; expected 1")
