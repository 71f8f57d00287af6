"""What a reader says of findings, kept beside the predictions at once, and the data set that follows from it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.files import write_json
from mammodet.geometry import clip_boxes
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.serving.study import Study

VERDICTS = "verdicts.json"


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mark(_Checked):
    """A verdict on one finding, or a box that a reader drew."""

    verdict: Literal["accepted", "rejected", "redrawn", "added"]
    #: position of the finding, the strongest being 0; None for `added`.
    detection: Annotated[int, Field(ge=0)] | None = None
    #: of `redrawn` and `added`, in pixels of the image file.
    box_xyxy: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Mark":
        if (self.detection is None) != (self.verdict == "added"):
            raise ValueError("expected 'detection' for every verdict but 'added'")
        if (self.box_xyxy is None) == (self.verdict in ("redrawn", "added")):
            raise ValueError("expected 'box_xyxy' for 'redrawn' and 'added' alone")
        return self


class ImageVerdict(_Checked):
    """All verdicts on one image."""

    version: Annotated[int, Field(ge=0)] = 0  #: counts the times it was saved: who saves names the version they saw
    marks: Annotated[tuple[Mark, ...], Field(max_length=200)] = ()
    comment: Annotated[str, Field(max_length=4000)] = ""
    done: bool = False  #: whether the reader has looked at the whole image
    #: score from which findings were shown when it was marked as done: these all have a verdict.
    shown_from: Annotated[float, Field(ge=0, le=1)] = 0.0


class _File(_Checked):
    format: Literal["mammodet-verdicts/1"] = "mammodet-verdicts/1"
    belongs_to: str
    images: dict[str, ImageVerdict] = {}


class ConflictError(Exception):
    """Another window has saved in between; `stored` is what it saved."""

    def __init__(self, stored: ImageVerdict) -> None:
        super().__init__("another window has saved this image in between")
        self.stored = stored


class VerdictStore:
    """The verdicts of a study in one file, written whole at each change.

    Raises InputError: the file is damaged, or belongs to other predictions.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.path, self._study, self._lock = folder / VERDICTS, study, threading.Lock()
        self._file = _File(belongs_to=study.key)
        if self.path.exists():
            try:
                self._file = _File.model_validate_json(self.path.read_bytes())
            except ValidationError as error:
                raise_faults(faults_of(error), where=str(self.path), advice="Mend the file, or move it away.")
            if self._file.belongs_to != study.key:
                raise InputError(
                    f"{self.path}: holds verdicts on other predictions or images than these; move it away, or "
                    "show the ones it belongs to"
                )

    def of(self, number: int) -> ImageVerdict:
        """What was said of an image."""
        return self._file.images.get(self._study.images[number].file_name, ImageVerdict())

    def save(self, number: int, verdict: ImageVerdict) -> ImageVerdict:
        """Store what a window that saw `verdict.version` says.

        Returns:
            what was stored, with its new version and boxes cut to the image.
        Raises:
            ConflictError: another version is stored.
            InputError: a mark of a finding that is not there or is marked twice, an empty box, or `done` while a
                finding that was shown has no verdict.
        """
        record, count = self._study.images[number], len(self._study.findings(number))
        marked = [mark.detection for mark in verdict.marks if mark.detection is not None]
        faults = [f"there is no finding {each}; there are {count}" for each in marked if each >= count]
        faults += [f"finding {each} has two verdicts" for each in set(marked) if marked.count(each) > 1]
        marks = []
        for mark in verdict.marks:
            if mark.box_xyxy is not None:
                x1, y1, x2, y2 = clip_boxes([mark.box_xyxy], record.size_hw)[0].tolist()
                if x2 - x1 < 1 or y2 - y1 < 1:
                    faults.append(f"the box {list(mark.box_xyxy)} has no pixel inside the image")
                mark = mark.model_copy(update={"box_xyxy": (x1, y1, x2, y2)})
            marks.append(mark)
        faults += self._undecided(number, verdict)
        raise_faults(faults, where=record.file_name)
        with self._lock:
            stored = self.of(number)
            if stored.version != verdict.version:
                raise ConflictError(stored)
            new = verdict.model_copy(update={"version": stored.version + 1, "marks": tuple(marks)})
            file = self._file.model_copy(update={"images": self._file.images | {record.file_name: new}})
            write_json(self.path, file.model_dump(mode="json"), indent=1)
            self._file = file
        return new

    def corrected(self) -> Dataset:
        """The images that a reader has done, with the lesions that stand after the verdicts.

        Lesions of the data set stay, unless a finding on them was redrawn; accepting one on them adds none. Other
        accepted findings bring their masks, drawn boxes are boxes. A finding below `shown_from` without a verdict is no
        lesion: `done` says that the whole image was read.

        Raises InputError: no image is done, or a finding that was shown on one has no verdict.
        """
        done = [number for number in range(len(self._study.images)) if self.of(number).done]
        if not done:
            raise InputError(f"{self.path}: no image is marked as done (key v); only those are exported")
        faults = [
            f"{self._study.images[number].file_name}: {fault}"
            for number in done
            for fault in self._undecided(number, self.of(number))
        ]
        raise_faults(faults, where=str(self.path), advice="Mark these images as done again on the page.")
        images = tuple(self._corrected(number) for number in done)
        categories = dict.fromkeys((*self._study.inputs.dataset.categories, *self._study.categories))
        return Dataset(tuple(categories), images, {"description": "findings corrected by a reader"})

    def _undecided(self, number: int, verdict: ImageVerdict) -> list[str]:
        """Why an image cannot be done: it would be taken to hold no lesion where a finding was left open."""
        marked = {mark.detection for mark in verdict.marks}
        scores = self._study.findings(number).scores
        left = [each for each, score in enumerate(scores) if score >= verdict.shown_from and each not in marked]
        if not verdict.done or not left:
            return []
        listed = ", ".join(f"{each + 1} ({scores[each]:.2f})" for each in left[:10])
        return [f"is done, but {len(left)} findings from score {verdict.shown_from:g} on have no verdict: {listed}"]

    def _corrected(self, number: int) -> ImageRecord:
        record, found = self._study.images[number], self._study.findings(number)
        matches = self._study.matches(number)
        on_lesion, second = (matches.found, matches.second) if matches is not None else ({}, frozenset[int]())
        lesions: dict[int, Lesion] = dict(enumerate(record.lesions))
        for mark in self.of(number).marks:
            same = on_lesion.get(mark.detection) if mark.detection is not None else None
            if mark.verdict == "rejected" or (
                mark.verdict == "accepted" and (same is not None or mark.detection in second)
            ):
                continue
            category, rle, box = self._study.categories[0], None, mark.box_xyxy
            if mark.detection is not None:
                category = self._study.categories[int(found.category_ids[mark.detection]) - 1]
            if mark.verdict == "accepted" and mark.detection is not None:
                x1, y1, x2, y2 = clip_boxes(found.boxes_xyxy[[mark.detection]], record.size_hw)[0].tolist()
                box, rle = (x1, y1, x2, y2), found.rles[mark.detection] if found.rles is not None else None
            if box is None:
                raise ValueError(f"{mark}: has no box")
            lesion = Lesion(category, box, rle, "contour" if rle else "box", {"reader": mark.verdict})
            lesions[len(lesions) if same is None else same] = lesion
        tumor = int(any(not lesion.ignore for lesion in lesions.values()) or record.unlocalized)
        known = record.label("malignant") if record.has_truth else None
        return replace(record, lesions=tuple(lesions.values()), labels={"tumor": tumor, "malignant": known})
