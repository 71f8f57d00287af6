"""All figures of a data set and of one or more models' predictions, with the protocol that they were made by."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from typing import Any

import numpy as np

import mammodet
from mammodet.evaluation.bootstrap import Estimates, bootstrap, compare, patient_clusters
from mammodet.evaluation.cases import LEVELS
from mammodet.evaluation.classes import FIGURES as CLASSES_FIGURES
from mammodet.evaluation.classes import ClassQuestions
from mammodet.evaluation.froc import FPPI_POINTS, denominator_images
from mammodet.evaluation.levels import Calibrator, LevelFigures
from mammodet.evaluation.localization import LesionOutcome, Localization
from mammodet.evaluation.no_boxes import NoBoxes
from mammodet.evaluation.options import Options
from mammodet.evaluation.roc import FIGURES
from mammodet.records import LABELS, Dataset, ImagePrediction

FORMAT = "mammodet-metrics/2"
KINDS = ("detector", "classifier")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one model said of the images of a data set.

    Attributes:
        name: by which it stands in tables and figures.
        predictions: one per image of the data set, in its order.
        facts: to stamp on its part of the result.
        notes: what a reader must know of it.
        calibration: probabilities and thresholds that were fitted on other patients.
        kind: `detector`, or `classifier`: one that gives no boxes, and has no figures of places.
        not_a_result: why its figures must not be told as a result; None where nothing speaks against that.
    """

    name: str
    predictions: Sequence[ImagePrediction]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    calibration: Calibrator | None = None
    kind: str = "detector"
    not_a_result: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind {self.kind!r}: expected {' or '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result: metrics.json as plain values, and what became of each lesion, per model."""

    metrics: dict[str, Any]
    outcomes: Mapping[str, Sequence[LesionOutcome]]


def evaluate(
    dataset: Dataset,
    entries: Sequence[Entry],
    options: Options | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    progress: bool = False,
) -> Evaluation:
    """Every figure of every model, with intervals, and the paired difference of every two models.

    Args:
        facts: to stamp on the result.
        overrides: which refusals were overridden, in words; stamped on the result.
    Raises:
        ValueError: no model, two of one name, predictions of other images or in another order, masks asked for where
            there are none, detections of a classifier, other classes of one question on two images.
    """
    options = options or Options()
    names = [entry.name for entry in entries]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"models {names}: expected at least one, each with a name of its own")
    ids = [record.image_id for record in dataset.images]
    for entry in entries:
        if [prediction.image_id for prediction in entry.predictions] != ids:
            raise ValueError(
                f"{entry.name}: {len(entry.predictions)} predictions for {len(ids)} images: expected one each, in the "
                "same order"
            )
    clusters, n_clusters = patient_clusters(dataset)
    places: dict[str, Localization | NoBoxes] = {}
    classes: dict[str, ClassQuestions] = {}
    for entry in entries:
        try:
            if entry.kind == "classifier":
                places[entry.name] = NoBoxes(dataset, entry.predictions, clusters)
            else:
                places[entry.name] = Localization(dataset, entry.predictions, clusters, options)
            classes[entry.name] = ClassQuestions(dataset, entry.predictions, clusters)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from None
    levels = {
        entry.name: LevelFigures(dataset, entry.predictions, clusters, options, entry.calibration) for entry in entries
    }
    estimates = bootstrap(
        {name: [*places[name].measures, *levels[name].measures, *classes[name].measures] for name in names},
        n_clusters,
        resamples=options.resamples,
        seed=options.seed,
        progress=progress,
    )
    first = places[names[0]]
    with_boxes = any(entry.kind == "detector" for entry in entries)
    notes = {entry.name: [*entry.notes, *places[entry.name].notes(), *classes[entry.name].notes()] for entry in entries}
    common = [note for note in notes[names[0]] if len(names) > 1 and all(note in one for one in notes.values())]
    metrics = {
        "format": FORMAT,
        "protocol": {
            **(facts or {}),
            **_protocol(dataset, options, first, with_boxes=with_boxes),
            "overrides": list(overrides),
            "versions": _versions(),
        },
        "notes": [*_notes(dataset, first, options, with_boxes=with_boxes), *common],
        "models": [
            {
                "name": entry.name,
                "kind": entry.kind,
                **({"not_a_result": entry.not_a_result} if entry.not_a_result else {}),
                "protocol": dict(entry.facts),
                "notes": [note for note in notes[entry.name] if note not in common],
                **places[entry.name].to_json(estimates[entry.name]),
                **levels[entry.name].to_json(estimates[entry.name]),
                **classes[entry.name].to_json(estimates[entry.name]),
            }
            for entry in entries
        ],
        "comparisons": [
            {"first": one, "second": two, "figures": _differences(estimates[one], estimates[two], options)}
            for one, two in combinations(names, 2)
        ],
    }
    return Evaluation(metrics, {name: places[name].outcomes() for name in names})


def _protocol(dataset: Dataset, options: Options, found: Localization | NoBoxes, *, with_boxes: bool) -> dict[str, Any]:
    patients = {record.patient_id for record in dataset.images if record.patient_id}
    rule = {"match": options.match, "denominator": options.denominator, "duplicates": options.duplicates}
    return {
        **(rule if with_boxes else {}),
        "over_images": options.over_images,
        "n_images": len(dataset.images),
        "n_normal_images": int(denominator_images(dataset, "normal images").sum()),
        "n_positive_images": int(denominator_images(dataset, "positive images").sum()),
        "n_images_without_boxes": sum(record.unlocalized for record in dataset.images),
        "n_patients": len(patients),
        "n_images_without_patient": sum(not record.patient_id for record in dataset.images),
        "n_lesions": found.n_lesions,
        "n_ignored_regions": found.n_ignored,
        "resamples": options.resamples,
        "seed": options.seed,
        "interval": "95 % percentile bootstrap over patients",
    }


def _versions() -> dict[str, str]:
    return {
        "mammodet": mammodet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pycocotools": version("pycocotools"),
    }


def _notes(dataset: Dataset, found: Localization | NoBoxes, options: Options, *, with_boxes: bool) -> list[str]:
    notes = []
    unlocalized = sum(record.unlocalized for record in dataset.images)
    if unlocalized and with_boxes:
        notes.append(
            f"{unlocalized} images hold a lesion without a place: they count in the image, breast and patient figures "
            "and take no part in AP and FROC."
        )
    if with_boxes and not found.n_lesions:
        notes.append("No lesion with a place: AP and FROC cannot be computed.")
    elif with_boxes and not denominator_images(dataset, options.denominator).any():
        notes.append(f"There are no {options.denominator}: FROC cannot be computed by this denominator.")
    bare = sum(not record.patient_id for record in dataset.images)
    if bare:
        notes.append(
            f"{bare} images do not say whose they are: in the intervals each stands for a patient of its own, and they "
            "have no breast or patient figures."
        )
    return notes


def _differences(first: Estimates, second: Estimates, options: Options) -> dict[str, Any]:
    """Of the figures that people compare; FROC by the chosen rule and denominator."""
    curve = f"froc/{options.match}/{options.denominator}"
    names = {name: name for name in first.columns if name.startswith("detection/")}
    names |= {f"froc/sensitivity@{point:g}": f"{curve}/sensitivity@{point:g}" for point in FPPI_POINTS}
    names["froc/cpm"] = f"{curve}/cpm"
    for level in LEVELS:
        for label in LABELS:
            names |= {f"{level}/{label}/{figure}": f"{level}/{label}/{figure}" for figure in FIGURES}
    asked = [name for name in first.columns if name.startswith("classes/") and "/class " not in name]
    names |= {name: name for name in asked if name.rpartition("/")[2] in CLASSES_FIGURES}
    # Of images: the lesions that two models find are not the same, so that Dice of found lesions is not paired.
    names["masks/dice of images"] = "masks/images/dice"
    found = {}
    for shown, name in names.items():
        difference = compare(first, second, name)
        if difference is not None:
            found[shown] = {
                "first": difference.first,
                "second": difference.second,
                "difference": difference.difference,
                "ci95": list(difference.ci95) if difference.ci95 else None,
                "p": difference.p,
            }
    return found
