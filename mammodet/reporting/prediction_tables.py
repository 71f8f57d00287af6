"""What was predicted, as tables that a spreadsheet opens: images.csv, findings.csv, breasts.csv, patients.csv.

A label names its rule in the same row: the operating point, the threshold and what the score was joined from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np

from mammodet.data.inputs import Inputs
from mammodet.data.predictions import Predictions
from mammodet.data.study import Exam, Spacing
from mammodet.evaluation.calibration_file import Calibration, aggregation_of
from mammodet.files import csv_lines, write_lines
from mammodet.geometry import rle_box, rle_to_mask
from mammodet.records import BoxXYXY, Detections, ImagePrediction, Rle
from mammodet.targets import REPORTED_WORDS

#: Where the score of an image comes from, by aggregation rule.
SOURCES = {
    "head": "by the network for the whole image",
    "max": "the strongest detection",
    "noisy_or": "any of the detections (noisy or)",
    "top_k_mean": "the mean of the strongest detections",
    "learned": "network and detections together",
}
_ANSWER = ("label", "probability", "score", "threshold", "operating_point", "rule")


def findings_of(detections: Detections, score_threshold: float) -> Detections:
    """The detections that are reported as findings: those at or above the threshold, the strongest first."""
    ordered = detections.in_order()
    rows = np.flatnonzero(ordered.scores >= score_threshold)
    rles = [ordered.rles[int(row)] for row in rows] if ordered.rles is not None else None
    return Detections(ordered.boxes_xyxy[rows], ordered.scores[rows], ordered.category_ids[rows], rles)


def size_mm(box_xyxy: BoxXYXY, rle: Rle | None, mm_rc: tuple[float, float]) -> tuple[float, float]:
    """Largest diameter and the width across it in mm: of the mask's hull, or of the box where there is no mask.

    The outline runs along the borders of pixels: one pixel of 0.1 mm has a diameter of 0.14 mm.
    """
    if rle is None or rle_box(rle)[2:] == (0.0, 0.0):
        x1, y1, x2, y2 = box_xyxy
        sides = ((y2 - y1) * mm_rc[0], (x2 - x1) * mm_rc[1])
        return max(sides), min(sides)
    left, top, right, bottom = (round(side) for side in rle_box(rle))
    rows, columns = np.nonzero(rle_to_mask(rle)[top:bottom, left:right])
    corners = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    hull = cv2.convexHull((corners * mm_rc[::-1]).astype(np.float32))[:, 0].astype(np.float64)
    between = hull[:, None] - hull[None]
    lengths = np.hypot(between[..., 0], between[..., 1])
    along = between[np.unravel_index(lengths.argmax(), lengths.shape)]
    across = hull @ np.array([-along[1], along[0]]) / lengths.max()
    return float(lengths.max()), float(np.ptp(across))


def spacings_of(inputs: Inputs) -> dict[str, Spacing | None]:
    """By file name: of a DICOM file by its header (`mammodet.data.dicom.study_file`), else what the data set states."""
    stated = {
        record.file_name: Spacing(record.spacing_mm_rc, "data set") if record.spacing_mm_rc else None
        for record in inputs.dataset.images
    }
    return stated | {name: file.spacing for name, file in inputs.files.items()}


def write_tables(
    predictions: Predictions,
    inputs: Inputs,
    output: Path,
    *,
    score_threshold: float,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write the four tables into a folder, each whole or not at all.

    Args:
        inputs: what was given, with what was skipped and left out.
        score_threshold: of findings.
    """
    questions = sorted({name for image in predictions.images for name in image.scores}, reverse=True)  # tumor first
    answer = _Answers(calibration, predictions.model, questions)
    spacings = spacings_of(inputs)
    tables = {  # row by row, for archives
        "images.csv": _image_rows(predictions, inputs, spacings, answer, score_threshold),
        "findings.csv": _finding_rows(predictions, spacings, score_threshold),
        "breasts.csv": _breast_rows(predictions, inputs, answer),
        "patients.csv": _patient_rows(predictions, inputs, answer),
    }
    for name, rows in tables.items():
        write_lines(output / name, csv_lines(rows))
    return [output / name for name in tables]


_IMAGES: list[Any] = [
    "file_name",
    "status",
    "reason",
    "patient_id",
    "exam",
    "laterality",
    "view",
    "findings",
    "spacing",
]
_FINDINGS: list[Any] = [
    *("file_name", "finding", "category", "score", "x", "y", "width", "height"),
    *("long_mm", "short_mm", "area_mm2", "spacing"),
]


def _image_rows(
    predictions: Predictions,
    inputs: Inputs,
    spacings: Mapping[str, Spacing | None],
    answer: _Answers,
    score_threshold: float,
) -> Iterator[list[Any]]:
    exam_of = {name: exam for exam in inputs.exams for name in exam.files}
    head = _IMAGES + answer.header()
    yield head
    for image in predictions.images:
        exam, spacing = exam_of.get(image.file_name), spacings[image.file_name]
        row = [image.file_name, "predicted", "; ".join(image.warnings), image.patient_id, exam.name if exam else None]
        row += [image.laterality, image.view]
        count = len(findings_of(image.detections, score_threshold))
        yield [*row, count, spacing.basis if spacing else None, *answer.row("image", image.scores)]
    for status, items in (("skipped", inputs.skipped), ("left out", inputs.left_out)):
        for item in items:
            yield [item.file_name, status, item.reason] + [None] * (len(head) - 3)


def _finding_rows(
    predictions: Predictions, spacings: Mapping[str, Spacing | None], score_threshold: float
) -> Iterator[list[Any]]:
    yield _FINDINGS
    for image in predictions.images:
        found = findings_of(image.detections, score_threshold)
        for index in range(len(found)):
            yield _finding(image, found, index, spacings[image.file_name], predictions.categories)


def _finding(
    image: ImagePrediction, found: Detections, index: int, spacing: Spacing | None, categories: Sequence[str]
) -> list[Any]:
    x1, y1, x2, y2 = (float(side) for side in found.boxes_xyxy[index])
    category = categories[int(found.category_ids[index]) - 1]
    row = [image.file_name, index + 1, category, float(found.scores[index])]
    row += [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)]
    if spacing is None:
        return [*row, None, None, None, "none: no real spacing is stated"]
    rle = found.rles[index] if found.rles is not None else None
    sides = size_mm((x1, y1, x2, y2), rle, spacing.mm_rc)
    area = None if rle is None else round(int(rle_to_mask(rle).sum()) * spacing.mm_rc[0] * spacing.mm_rc[1], 2)
    return [*row, *(round(side, 2) for side in sides), area, spacing.basis]


def _breast_rows(predictions: Predictions, inputs: Inputs, answer: _Answers) -> Iterator[list[Any]]:
    yield ["patient_id", "exam", "laterality", "images", *answer.header()]
    for exam, images in _exams(predictions, inputs):
        for side in ("L", "R"):
            found = [image for image in images if image.laterality == side]
            if found:
                yield [exam.patient_id, exam.name, side, len(found), *answer.joined("breast", found)]


def _patient_rows(predictions: Predictions, inputs: Inputs, answer: _Answers) -> Iterator[list[Any]]:
    yield ["patient_id", "exam", "images", "missing", "repeated", "special", *answer.header()]
    for exam, images in _exams(predictions, inputs):
        notes = ["; ".join(part) for part in (exam.missing, exam.repeated, exam.special)]
        yield [exam.patient_id, exam.name, len(images), *notes, *answer.joined("patient", images)]


def _exams(predictions: Predictions, inputs: Inputs) -> Iterator[tuple[Exam, list[ImagePrediction]]]:
    """Exams of known patients of which an image was predicted, with these."""
    places = {image.file_name: place for place, image in enumerate(predictions.images)}
    for exam in inputs.exams:
        images = [predictions.images[places[name]] for name in exam.files if name in places]
        if images and exam.patient_id is not None:
            yield exam, images


def join_images(images: Sequence[ImagePrediction], how: str) -> dict[str, float]:
    """Scores of a breast or a patient, of images of one exam: their `max` or `mean`."""
    values: dict[str, list[float]] = {}
    for image in images:
        for name, score in image.scores.items():
            values.setdefault(name, []).append(score)
    return {name: max(scores) if how == "max" else fmean(scores) for name, scores in values.items()}


def source_of(model: Mapping[str, Any], question: str) -> str:
    """The rule (of `SOURCES`) of an image's score: detections speak of `tumor` alone, the head of the rest.

    Args:
        model: of the predictions file.
    """
    rule = aggregation_of(model)[0] or "head"
    return rule if question == "tumor" or rule == "learned" else "head"


class _Answers:
    """Columns for what is asked: label, probability, score, and the rule behind the label."""

    def __init__(self, calibration: Calibration | None, model: Mapping[str, Any], questions: Sequence[str]) -> None:
        self.calibration, self.questions = calibration, questions
        self.model, self._how = model, aggregation_of(model)[1] or "max"

    def header(self) -> list[Any]:
        return [f"{question}_{part}" for question in self.questions for part in _ANSWER]

    def joined(self, level: str, images: Sequence[ImagePrediction]) -> list[Any]:
        return self.row(level, join_images(images, self._how), f"{self._how} of its images")

    def row(self, level: str, scores: Mapping[str, float], joined: str = "") -> list[Any]:
        labels = self.calibration.labels(level, scores) if self.calibration is not None else {}
        cells: list[Any] = []
        for question in self.questions:
            score, found = scores.get(question), labels.get(question)
            rule = source_of(self.model, question)
            source = f"score: {joined + ', each ' if joined else ''}{SOURCES.get(rule, rule)}"
            if score is None:
                cells += [None] * len(_ANSWER)
            elif found is None:
                why = "no calibration" if self.calibration is None else f"{level} scores were not calibrated"
                cells += [None, None, score, None, None, f"{source}; no label: {why}"]
            else:
                cells += self._labelled(question, score, found, source)
        return cells

    def _labelled(self, question: str, score: float, found: Mapping[str, Any], source: str) -> list[Any]:
        if found["label"] is None:
            rule = f"{source}; no label: {found['goal']} was not reached"
            return [None, found["probability"], score, None, found["goal"], rule]
        word = REPORTED_WORDS[question][found["label"]]
        threshold = found["score_threshold"]
        rule = f"{source}; {question} where the score is at least {threshold:.6g} ({found['goal']})"
        return [word, found["probability"], score, threshold, found["goal"], rule]
