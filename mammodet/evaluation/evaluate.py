"""All figures of a data set and of one or more models' predictions, with the protocol that they were made by."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from typing import Any

import numpy as np

from mammodet.data.packed_predictions import PackedPredictions
from mammodet.evaluation.bootstrap import Bootstrap, compare, patient_clusters
from mammodet.evaluation.calibration_file import Calibration
from mammodet.evaluation.classes import class_results
from mammodet.evaluation.flat import FlatLesions, Ints, flat_lesions
from mammodet.evaluation.froc import denominator_images
from mammodet.evaluation.levels import label_results
from mammodet.evaluation.localization import LesionOutcome, Localization, classifier_strata
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import NO_BOXES, Comparison, Kind, Metrics, ModelFacts, ModelResult, Protocol
from mammodet.records import Dataset, ImagePrediction
from mammodet.version import VERSION


@dataclass(frozen=True, slots=True)
class Entry:
    """What one model said of the images of a data set."""

    name: str  #: that tables and figures give it
    predictions: Sequence[ImagePrediction]  #: one per image of the data set, in its order
    facts: ModelFacts = field(default_factory=ModelFacts)  #: to stamp on its part of the result
    notes: Sequence[str] = ()  #: what a reader must know of it
    calibration: Calibration | None = None  #: probabilities and thresholds that were fitted on other patients
    kind: Kind = "detector"  #: `detector`, or `classifier`: one that gives no boxes, and has no figures of places
    #: why its figures are no result; None where they are one.
    not_a_result: str | None = None

    @property
    def detects(self) -> bool:
        """Whether it is a detector's."""
        return self.kind == "detector"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results, and what became of each lesion, by model; of a classifier nothing."""

    metrics: Metrics
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
        facts: fields of the protocol that say which file this is.
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
    bootstrap = Bootstrap(n_clusters, options.resamples, options.seed, progress=progress)
    models, outcomes = [], {}
    for entry in entries:
        try:
            model, outcomes[entry.name] = _evaluate_one(dataset, entry, clusters, options, bootstrap)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from None
        models.append(model)
    with_boxes = any(entry.detects for entry in entries)
    lesions = flat_lesions(dataset)
    common = [note for note in models[0].notes if len(models) > 1 and all(note in one.notes for one in models)]
    alone = [[note for note in model.notes if note not in common] for model in models]
    metrics = Metrics(
        protocol=Protocol(
            **(facts or {}),
            **_protocol(dataset, options, lesions, with_boxes=with_boxes),
            overrides=list(overrides),
            versions=_versions(),
        ),
        notes=[*_notes(dataset, lesions, options, with_boxes=with_boxes), *common],
        models=[model.model_copy(update={"notes": notes}) for model, notes in zip(models, alone, strict=True)],
        comparisons=[_compare(one, two) for one, two in combinations(models, 2)],
    )
    return Evaluation(metrics, outcomes)


def _evaluate_one(
    dataset: Dataset, entry: Entry, clusters: Ints, options: Options, bootstrap: Bootstrap
) -> tuple[ModelResult, Sequence[LesionOutcome]]:
    outcomes: Sequence[LesionOutcome] = []
    predictions = PackedPredictions.of(entry.predictions)
    if not entry.detects:
        places: dict[str, Any] = {"strata": classifier_strata(dataset, predictions, clusters, bootstrap)}
        notes = [NO_BOXES]
    else:
        found = Localization(dataset, predictions, clusters, options)
        places, notes, outcomes = found.results(bootstrap), found.notes(), found.outcomes()
    classes, of_classes = class_results(dataset, predictions, clusters, bootstrap)
    places |= label_results(dataset, predictions, clusters, options, bootstrap, entry.calibration)
    model = ModelResult(
        name=entry.name,
        kind=entry.kind,
        not_a_result=entry.not_a_result,
        protocol=entry.facts,
        notes=[*entry.notes, *notes, *of_classes],
        **places,
        classes=classes,
    )
    return model, outcomes


def _compare(first: ModelResult, second: ModelResult) -> Comparison:
    theirs = {one.name: one for one in second.figures() if one.paired}
    pairs = [(one, theirs[one.name]) for one in first.figures() if one.paired and one.name in theirs]
    found = [compare(one, two) for one, two in pairs]
    return Comparison(first=first.name, second=second.name, differences=[one for one in found if one is not None])


def _protocol(dataset: Dataset, options: Options, lesions: FlatLesions, *, with_boxes: bool) -> dict[str, Any]:
    rule = {"match": options.match, "denominator": options.denominator, "duplicates": options.duplicates}
    return {
        **(rule if with_boxes else {}),
        "over_images": options.over_images,
        "n_images": len(dataset.images),
        "n_normal_images": int(denominator_images(dataset, "normal images").sum()),
        "n_positive_images": int(denominator_images(dataset, "positive images").sum()),
        "n_images_without_boxes": sum(record.unlocalized for record in dataset.images),
        "n_patients": len(dataset.patients),
        "n_images_without_patient": dataset.without_patient,
        "n_lesions": int((~lesions.ignored).sum()),
        "n_ignored_regions": int(lesions.ignored.sum()),
        "resamples": options.resamples,
        "seed": options.seed,
    }


def _versions() -> dict[str, str]:
    return {
        "mammodet": VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pycocotools": version("pycocotools"),
    }


def _notes(dataset: Dataset, lesions: FlatLesions, options: Options, *, with_boxes: bool) -> list[str]:
    notes = []
    if unknown := sum(record.unlocalized and not record.has_truth for record in dataset.images):
        notes.append(
            f"{unknown} of {len(dataset.images)} images have neither lesions nor labels, and nothing says that they "
            "are normal: they take no part in any figure of lesions or labels."
        )
    unlocalized = sum(record.unlocalized and record.has_truth for record in dataset.images)
    if unlocalized and with_boxes:
        notes.append(
            f"{unlocalized} images hold a lesion without a place: they count in the image, breast and patient figures "
            "and take no part in AP and FROC."
        )
    if with_boxes and lesions.ignored.all():
        notes.append("No lesion with a place: AP and FROC cannot be computed.")
    elif with_boxes and not denominator_images(dataset, options.denominator).any():
        notes.append(f"There are no {options.denominator}: FROC cannot be computed by this denominator.")
    if bare := dataset.without_patient:
        notes.append(
            f"{bare} images do not say whose they are: in the intervals each stands for a patient of its own, and they "
            "have no breast or patient figures."
        )
    return notes
