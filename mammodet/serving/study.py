"""What the reading page shows: images by exam, with truth, findings and how they match, as JSON for its script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mammodet.data.coco import data_hash
from mammodet.data.images import Pixels, is_dicom, read_image
from mammodet.data.inputs import Inputs, read_record
from mammodet.data.predictions import Predictions, match_to_dataset
from mammodet.data.study import exams_of
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import Calibration
from mammodet.files import canonical_hash
from mammodet.geometry import rle_box
from mammodet.records import LABELS, Detections, ImagePrediction, ImageRecord, Rle
from mammodet.reporting.overlay import truth_words
from mammodet.reporting.prediction_tables import spacings_of
from mammodet.reporting.ranking import DEFAULT_RULE, Matches, describe, match_detections
from mammodet.run_lengths import mask_patch

NO_FINDINGS = Detections.empty(with_masks=False)
MOST_KEPT, MOST_KEPT_PIXELS = 8, 2**25  # decoded images in memory: two exams, at most 512 MB


@dataclass(frozen=True)
class Study:
    """Images to show, in the order of `inputs.dataset`; the page knows images and exams by their positions alone."""

    title: str
    inputs: Inputs
    #: of each image, detections the strongest first; None where there is none.
    predictions: tuple[ImagePrediction | None, ...]
    categories: tuple[str, ...]
    #: `label`, `goal` and `threshold` (of the image's score) of each operating point.
    points: tuple[Mapping[str, Any], ...] = ()
    model: str = ""  #: name of the file that made the predictions
    #: rule, count_seconds: when a finding finds a lesion, and whether a second one on it is false, as in
    #: `mammodet.reporting.ranking`.
    rule: str = DEFAULT_RULE
    count_seconds: bool = True

    @staticmethod
    def of(
        title: str, inputs: Inputs, predictions: Predictions | None = None, calibration: Calibration | None = None
    ) -> "Study":
        """Images and what was predicted of them; images may lack a prediction.

        Raises InputError: predictions of other images, or none that belongs to these.
        """
        records, by_id = inputs.dataset.images, {}
        made = predictions.model if predictions is not None else {}
        if predictions is not None:
            found = match_to_dataset(
                predictions.images, inputs.dataset, ignore_extra=True, ignore_missing=True, where=title
            )
            if not found:
                raise InputError(f"{title}: none of the {len(records)} images has a prediction in the file given")
            by_id = {each.image_id: replace(each, detections=each.detections.in_order()) for each in found}
        return Study(
            title,
            inputs,
            tuple(by_id.get(record.image_id) for record in records),
            predictions.categories if predictions is not None else inputs.dataset.categories,
            tuple({"label": label, **point} for label in LABELS for point in calibration.points("image", label))
            if calibration is not None
            else (),
            Path(str(made.get("checkpoint") or made.get("imported_from") or "")).name,
        )

    @cached_property
    def images(self) -> tuple[ImageRecord, ...]:
        """The images' records."""
        return self.inputs.dataset.images

    @cached_property
    def key(self) -> str:
        """Hash of the truth and of all findings: verdicts belong to these, not to those of a later prediction."""
        found = [
            [] if each is None else [each.detections.boxes_xyxy.tolist(), each.detections.scores.tolist()]
            for each in self.predictions
        ]
        return canonical_hash([data_hash(self.inputs.dataset), found])

    @cached_property
    def exams(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and images (positions) of each exam; an image without study and patient is an exam of its own."""
        position = {record.file_name: number for number, record in enumerate(self.images)}
        exams = [
            (exam.patient_id or exam.name, tuple(position[name] for name in exam.files)) for exam in self.inputs.exams
        ]
        used = {number for _, numbers in exams for number in numbers}
        exams += [(record.file_name, (number,)) for number, record in enumerate(self.images) if number not in used]
        return tuple(exams)

    def findings(self, number: int) -> Detections:
        """The detections of an image, the strongest first."""
        prediction = self.predictions[number]
        return prediction.detections if prediction is not None else NO_FINDINGS

    def matches(self, number: int) -> Matches | None:
        """Which finding finds which lesion, as positions; None where that cannot be judged."""
        record, prediction = self.images[number], self.predictions[number]
        if prediction is None or record.unlocalized or not record.has_truth:
            return None
        return match_detections(record, prediction, self.rule, count_seconds=self.count_seconds)

    def path(self, number: int) -> Path:
        """The image's file."""
        return self.inputs.root / self.images[number].file_name

    def pixels(self, number: int, window: int | None = 0) -> Pixels:
        """Pixels as `read_image` gives them, or of DICOM files with another of their windows; None: with none."""
        height, width = self.images[number].size_hw
        read = _pixels if height * width <= MOST_KEPT_PIXELS else _pixels.__wrapped__
        return read(self.path(number), window)

    def at_most(self, number: int, side: int, window: int | None = 0) -> Pixels:
        """Pixels, fewer if the longer side has more than so many; of DICOM files only what that takes is decoded."""
        path = self.path(number)
        if is_dicom(path) and side < max(self.images[number].size_hw):
            from mammodet.data.dicom import read_reduced

            if (reduced := read_reduced(path, side, window=window)) is not None:
                return at_most(reduced, side)
        return at_most(self.pixels(number, window), side)

    def overview(self) -> dict[str, Any]:
        """Everything but outlines and windows, which `details` reads when an exam is opened."""
        return {
            "title": self.title,
            "model": self.model,
            "rule": self.rule,
            "categories": list(self.categories),
            "points": list(self.points),
            "exams": [{"name": name, "images": list(numbers)} for name, numbers in self.exams],
            "images": [self._image(number) for number in range(len(self.images))],
        }

    @cached_property
    def _spacings(self) -> Mapping[str, Any]:
        return spacings_of(self.inputs)

    def _image(self, number: int) -> dict[str, Any]:
        record, prediction = self.images[number], self.predictions[number]
        found, spacing = self.findings(number), self._spacings[record.file_name]
        kinds: dict[int, str] = {}
        matched: dict[int, int] = {}
        if (matches := self.matches(number)) is not None:
            matched = matches.found
            kinds = dict.fromkeys(range(len(found)), "not counted") | dict.fromkeys(matches.false, "false")
            kinds |= dict.fromkeys(matches.second, "second") | dict.fromkeys(matched, "found")
        return {
            "name": record.file_name,
            "patient": record.patient_id,
            "laterality": record.laterality,
            "view": record.view,
            "density": record.density,
            "height": record.size_hw[0],
            "width": record.size_hw[1],
            "spacing": {"mm": list(spacing.mm_rc), "basis": spacing.basis} if spacing else None,
            "labels": {name: value for name, value in record.labels.items() if value is not None},
            "judged": matches is not None,
            "facts": truth_words(record),
            "scores": dict(prediction.scores) if prediction is not None else None,
            "warnings": list(prediction.warnings) if prediction is not None else [],
            "truth": [
                {"box": list(lesion.box_xyxy), "text": describe(lesion), "ignore": lesion.ignore}
                for lesion in record.lesions
            ],
            "findings": [
                {
                    "box": [round(float(side), 2) for side in found.boxes_xyxy[index]],
                    "score": float(found.scores[index]),
                    "category": self.categories[int(found.category_ids[index]) - 1],
                    "kind": kinds.get(index),
                    "lesion": matched.get(index),
                }
                for index in range(len(found))
            ],
        }

    def details(self, exam: int) -> dict[int, dict[str, Any]]:
        """Outlines and windows of the images of an exam, by image."""
        return {number: self._details(number) for number in self.exams[exam][1]}

    def _details(self, number: int) -> dict[str, Any]:
        presets: list[str] = []
        if is_dicom(self.path(number)):
            from mammodet.data.dicom import read_header

            windows = read_header(self.path(number)).windows
            presets = [window.explanation or f"window {place + 1}" for place, window in enumerate(windows)]
        lesions = self.images[number].lesions
        rles = self.findings(number).rles
        return {
            "presets": presets,
            "truth": [outline(lesion.rle if lesion.has_outline else None) for lesion in lesions],
            "findings": [outline(rle) for rle in rles] if rles is not None else [],
        }


def bare_inputs(predictions: Predictions, root: Path) -> Inputs:
    """The images of a predictions file below a folder, with what DICOM headers say of exam and spacing.

    Raises InputError: an image is not there, or is another one.
    """
    dataset, files, faults = predictions.dataset(), {}, []
    for record in dataset.images:
        path = root / record.file_name
        if not path.is_file():
            faults.append(record.file_name)
        elif is_dicom(path) and (file := read_record(path, record.file_name, record)[1]) is not None:
            files[record.file_name] = file
    if faults:
        raise InputError(
            f"{root}: {len(faults)} of {len(dataset.images)} predicted images are not there, for instance "
            f"{faults[0]!r}; name the folder that was predicted with --images"
        )
    return Inputs(dataset, root, files=files, exams=tuple(exams_of(dataset.images, files, {})))


def predicted_only(inputs: Inputs, predictions: Predictions) -> Inputs:
    """The images that have a prediction: others could not be read."""
    kept = {image.file_name for image in predictions.images}
    records = tuple(record for record in inputs.dataset.images if record.file_name in kept)
    exams = (replace(exam, files=tuple(name for name in exam.files if name in kept)) for exam in inputs.exams)
    dataset = replace(inputs.dataset, images=records)
    return replace(inputs, dataset=dataset, exams=tuple(exam for exam in exams if exam.files))


@lru_cache(maxsize=MOST_KEPT)
def _pixels(path: Path, window: int | None) -> Pixels:
    if window == 0 or not is_dicom(path):
        return read_image(path)
    from mammodet.data.dicom import read_dicom

    return read_dicom(path, window=window)[0]


def at_most(pixels: Pixels, side: int) -> Pixels:
    """Pixels, smaller if the longer side has more than so many."""
    scale = side / max(pixels.shape)
    width, height = (max(round(length * scale), 1) for length in pixels.shape[::-1])
    return pixels if scale >= 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def outline(rle: Rle | None) -> list[list[float]]:
    """The rims of a mask, each as x1, y1, x2, y2, ... through the centres of its outermost pixels."""
    if rle is None or rle_box(rle)[2] <= rle_box(rle)[0]:
        return []
    x1, y1, x2, y2 = (round(side) for side in rle_box(rle))
    patch = mask_patch(rle, (x1, y1, x2, y2)).astype(np.uint8)
    rims: Sequence[Any] = cv2.findContours(patch, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [(rim.reshape(-1, 2) + np.array([x1 + 0.5, y1 + 0.5])).ravel().tolist() for rim in rims]
