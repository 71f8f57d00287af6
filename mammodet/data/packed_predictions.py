"""Predictions in little memory: columns, of which an image's record is made when it is asked for."""

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mammodet.json_lists import sharing
from mammodet.records import Detections, ImagePrediction, ImageRecord, Masks

Ints = NDArray[np.int64]
_CHUNK = 2**20
_shared = sharing()


class Texts(Sequence[str]):
    """Texts to which others can be added; all but the last mebibyte are in a temporary file."""

    def __init__(self) -> None:
        self._ends, self._tail, self._written = array("q", [0]), bytearray(), 0
        self._file: BinaryIO | None = None

    def append(self, text: str) -> None:
        """Add one."""
        self._tail += text.encode("utf-8", "surrogatepass")  # names may hold bytes that are no letters
        self._ends.append(self._written + len(self._tail))
        if len(self._tail) > _CHUNK:
            self._file = self._file or TemporaryFile()  # noqa: SIM115  # open as long as this
            self._file.write(self._tail)
            self._file.flush()
            self._tail, self._written = bytearray(), self._ends[-1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: Any) -> Any:
        start, end = self._ends[row], self._ends[row + 1]
        if self._file is not None and start < self._written:
            content = os.pread(self._file.fileno(), end - start, start)
        else:
            content = bytes(self._tail[start - self._written : end - self._written])
        return content.decode("utf-8", "surrogatepass")


class _Layout(NamedTuple):
    """Which scores an image has, in the order of their values."""

    scores: tuple[str, ...]
    by_rule: tuple[tuple[str, tuple[str, ...]], ...]
    by_class: tuple[tuple[str, tuple[str, ...]], ...]


class Columns:
    """What is stored: of images, of their scores, of their detections, each one after another."""

    def __init__(self) -> None:
        self.ids, self.names = array("q"), Texts()
        self.facts: tuple[list[Any], ...] = ([], [], [], [])  # size, patient, laterality, view
        self.layouts: dict[_Layout, int] = {}
        self.layout, self.values, self.value_start = array("i"), array("d"), array("q")
        self.warnings: dict[int, tuple[str, ...]] = {}
        self.start, self.boxes, self.scores, self.categories = array("q", [0]), array("d"), array("d"), array("q")
        self.masked, self.mask_start, self.counts = array("b"), array("q"), Texts()
        self.mask_sizes: list[tuple[int, int]] = []

    def append(self, prediction: ImagePrediction) -> None:
        """Add an image."""
        by_rule, by_class = prediction.scores_by_rule, prediction.class_scores
        layout = _Layout(
            tuple(prediction.scores),
            tuple((rule, tuple(scores)) for rule, scores in by_rule.items()),
            tuple((question, tuple(scores)) for question, scores in by_class.items()),
        )
        if prediction.warnings:
            self.warnings[len(self.ids)] = prediction.warnings
        self.ids.append(prediction.image_id)
        self.names.append(prediction.file_name)
        facts = (prediction.size_hw, prediction.patient_id, prediction.laterality, prediction.view)
        for column, fact in zip(self.facts, facts, strict=True):
            column.append(fact)
        self.layout.append(self.layouts.setdefault(layout, len(self.layouts)))
        self.value_start.append(len(self.values))
        for scores in (prediction.scores, *by_rule.values(), *by_class.values()):
            self.values.extend(scores.values())
        found = prediction.detections.in_order()
        self.start.append(self.start[-1] + len(found))
        self.boxes.extend(found.boxes_xyxy.ravel().tolist())
        self.scores.extend(found.scores.tolist())
        self.categories.extend(found.category_ids.tolist())
        self.masked.append(found.rles is not None)
        self.mask_start.append(len(self.counts))
        for mask in found.rles or ():
            self.counts.append(mask["counts"])
            self.mask_sizes.append(_shared(tuple(mask["size"])))

    @cached_property
    def kinds(self) -> list[_Layout]:
        """Layouts by their number, once all images are there."""
        return list(self.layouts)

    def masks(self, rows: Ints) -> Masks:
        """Some of the masks."""
        return Masks(self.counts, self.mask_sizes).at(rows)

    def take(self, row: int) -> ImagePrediction:
        """One image."""
        layout = self.kinds[self.layout[row]]
        first = self.value_start[row]
        count = sum(map(len, (layout.scores, *(names for part in layout[1:] for _, names in part))))
        values = iter(self.values[first : first + count])
        start, end = self.start[row], self.start[row + 1]
        mask = self.mask_start[row]
        size_hw, patient_id, laterality, view = (column[row] for column in self.facts)
        return ImagePrediction(
            self.ids[row],
            self.names[row],
            size_hw,
            dict(zip(layout.scores, values)),  # noqa: B905  # the values go on
            Detections(
                np.array(self.boxes[4 * start : 4 * end], dtype=np.float64).reshape(-1, 4),
                np.array(self.scores[start:end], dtype=np.float64),
                np.array(self.categories[start:end], dtype=np.int64),
                self.masks(np.arange(mask, mask + end - start)) if self.masked[row] else None,
            ),
            {rule: dict(zip(names, values)) for rule, names in layout.by_rule},  # noqa: B905
            patient_id,
            laterality,
            view,
            {question: dict(zip(names, values)) for question, names in layout.by_class},  # noqa: B905
            self.warnings.get(row, ()),
        )


class PackedPredictions(Sequence[ImagePrediction]):
    """Predictions in columns.

    Args:
        columns: that hold them.
        rows: int (n,), which of those, -1 for an image on which nothing was found; None: all.
        records: the images (n,) that they belong to, which say what else is known; None: the predictions do.
    """

    def __init__(
        self, columns: Columns, rows: Ints | None = None, records: Sequence[ImageRecord] | None = None
    ) -> None:
        self._columns, self._records = columns, records
        self._rows = np.arange(len(columns.ids)) if rows is None else rows
        known = self._rows[self._rows >= 0]
        self._with_masks = bool(np.asarray(columns.masked)[known].any())

    @staticmethod
    def of(predictions: Iterable[ImagePrediction]) -> "PackedPredictions":
        """The same predictions."""
        if isinstance(predictions, PackedPredictions):
            return predictions
        columns = Columns()
        for prediction in predictions:
            columns.append(prediction)
        return PackedPredictions(columns)

    def select(self, rows: Ints, records: Sequence[ImageRecord]) -> "PackedPredictions":
        """Some of them, as those of other images; arguments as of the class."""
        return PackedPredictions(self._columns, np.append(self._rows, -1)[rows], records)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        row = int(self._rows[place])
        if self._records is None:
            return self._columns.take(row)
        record = self._records[place]
        if row < 0:
            return ImagePrediction.of(record, {}, Detections.empty(with_masks=self._with_masks))
        same = ("image_id", "file_name", "patient_id", "laterality", "view")
        return replace(self._columns.take(row), **{name: getattr(record, name) for name in same})

    @property
    def names(self) -> list[str]:
        """File names, as the predictions have them."""
        return [self._columns.names[row] for row in self._rows]

    @property
    def rules(self) -> list[str]:
        """Rules by which any image has scores."""
        used = np.unique(np.asarray(self._columns.layout)[self._rows[self._rows >= 0]])
        return sorted({rule for number in used for rule, _ in self._columns.kinds[number].by_rule})

    def column(self, label: str, rule: str | None = None) -> NDArray[np.float64]:
        """Scores (n,), by one of the `rules` or by the model's own; NaN where an image has none."""
        columns, found = self._columns, np.full(len(self), np.nan)
        layout = np.asarray(columns.layout)[self._rows]
        for number, kind in enumerate(columns.kinds):
            parts = [(None, kind.scores), *kind.by_rule]
            places = [(name, one) for name, labels in parts for one in labels]
            if (rule, label) in places:
                chosen = (layout == number) & (self._rows >= 0)
                first = np.asarray(columns.value_start)[self._rows[chosen]]
                found[chosen] = np.asarray(columns.values)[first + places.index((rule, label))]
        return found

    def detections(self, images: Ints) -> tuple[Ints, Detections]:
        """Those of some images (n,) one after another, each with the position of its image; as `Detections.in_order`.

        Raises ValueError: masks of some images alone.
        """
        columns, rows = self._columns, self._rows[images]
        start, masked = np.asarray(columns.start), np.asarray(columns.masked)
        count = np.where(rows < 0, 0, start[rows + 1] - start[rows])
        found = count > 0
        bare = images[found & (masked[rows] == 0)]
        if len(bare) and len(bare) < found.sum():
            raise ValueError(
                f"the detections of {len(bare)} of {found.sum()} images have no masks, for instance those of "
                f"{self[bare[0]].file_name!r}; expected masks of all or of none"
            )
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        places = np.repeat(start[rows], count) + within
        masks = None
        if not len(bare) if found.any() else self._with_masks:
            masks = columns.masks(np.repeat(np.asarray(columns.mask_start)[rows], count) + within)
        if np.array_equal(places, np.arange(len(columns.scores))):
            places = slice(None)  # all of them, without a copy
        boxes = np.asarray(columns.boxes).reshape(-1, 4)[places]
        scores, categories = np.asarray(columns.scores)[places], np.asarray(columns.categories)[places]
        return np.repeat(images, count), Detections(boxes, scores, categories, masks)
