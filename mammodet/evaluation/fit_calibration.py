"""Fit a calibration to validation predictions, and refuse what must not be fitted on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodet.data.coco import data_hash
from mammodet.data.predictions import Predictions
from mammodet.data.sources import sources_of
from mammodet.errors import InputError, listed, raise_faults
from mammodet.evaluation.admission import seen_before
from mammodet.evaluation.calibration import FITS, METHODS, Goal, NotReachedError, choose_threshold, parse_goal
from mammodet.evaluation.calibration_file import Calibration, Fit, Provenance, Refused, aggregation_of
from mammodet.evaluation.cases import cases
from mammodet.evaluation.levels import PROBABILITY_FIGURES
from mammodet.evaluation.results import LEVELS
from mammodet.evaluation.roc import scores_of
from mammodet.records import LABELS, Dataset, ImagePrediction


def fit_calibration(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    provenance: Provenance,
    *,
    method: str = "platt",
    goals: Sequence[str] = ("youden",),
    levels: Sequence[str] = LEVELS,
) -> Calibration:
    """Fit a scaling and thresholds for every label at every level that has enough cases.

    Args:
        predictions: one per image of the data set, in its order.
        goals: names, the one that labels first.
    Raises:
        InputError: unknown method, level or goal, a goal that is named twice, or nothing that can be fitted.
    """
    wanted = [parse_goal(goal) for goal in goals]
    if not wanted or len(set(wanted)) != len(wanted):
        raise InputError(f"goals {list(goals)}: expected at least one, none twice")
    if method not in METHODS or not levels or set(levels) - set(LEVELS) or len(set(levels)) != len(levels):
        raise InputError(
            f"method {method!r}, levels {list(levels)}: expected one of {', '.join(METHODS)}, and some of "
            f"{', '.join(LEVELS)}, none twice"
        )
    fits, refused = [], []
    for level in levels:
        for label in LABELS:
            chosen = cases(dataset, predictions, level, label, provenance.over_images)
            try:
                if not len(chosen):
                    raise InputError("no case has both a known label and a score")
                fits.append(_fit(level, label, chosen.labels, chosen.scores, method, wanted))
            except InputError as error:
                refused.append(Refused(level, label, str(error)))
    if not fits:
        faults = [f"{one.level}, {one.label}: {one.reason}" for one in refused]
        raise_faults(faults, where="nothing can be calibrated", advice="Predict a validation set with more cases.")
    return Calibration(method, tuple(map(str, wanted)), provenance, tuple(fits), tuple(refused))


def _fit(
    level: str, label: str, labels: NDArray[np.int64], scores: NDArray[np.float64], method: str, goals: Sequence[Goal]
) -> Fit:
    # A threshold needs as many cases, and as good a score, as a scaling: without one a scaling is tried all the same.
    scaling = FITS[method if method in FITS else "platt"](labels, scores)
    kept = scaling if method in FITS else None
    points, not_reached = [], {}
    for goal in goals:
        try:
            points.append(choose_threshold(labels, scores, goal, kept))
        except NotReachedError as error:
            not_reached[str(goal)] = str(error)
    return Fit(
        level,
        label,
        n_positive=int(labels.sum()),
        n_negative=int((labels == 0).sum()),
        scaling=kept,
        points=tuple(points),
        not_reached=not_reached,
        before=_probability_figures(labels, scores),
        after=_probability_figures(labels, kept.apply(scores)) if kept else {},
    )


def _probability_figures(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> dict[str, float]:
    found = scores_of(labels, scores)
    return {name: getattr(found, name).value for name in PROBABILITY_FIGURES}


def provenance_of(
    dataset: Dataset,
    predictions: Predictions,
    predictions_sha256: str,
    *,
    ground_truth: Path,
    over_images: str | None = None,
    allow_test: bool = False,
) -> Provenance:
    """What a calibration is fitted on, unless it must not be.

    Args:
        ground_truth: the data set's file; one that is called test is taken for a test set.
        over_images: None for the model's own way, or `max` where the predictions do not say.
    Raises:
        InputError: a test set (unless `allow_test`), the set that the model was trained on, or patients or images that
            were in training, unless it is the very file that the model was chosen by.
    """
    model = predictions.model
    split = dataset.info.get("split")
    split = split if isinstance(split, dict) else {}
    reasons = _signs_of_test(dataset, split, ground_truth)
    if reasons and not allow_test:
        raise InputError(
            f"{ground_truth}: is a test set ({'; '.join(reasons)}). A threshold that was chosen on it makes its own "
            f"figures worthless. {_where_to_fit(model)}, or --allow-test: the file and everything made with it say so."
        )
    truth_hash = data_hash(dataset)
    files = sources_of(model)
    if split.get("subset") == "train" or truth_hash in {file.data_hash for file in files if file.subset == "train"}:
        raise InputError(
            f"{ground_truth}: is what the model was trained on. Its scores there are surer than on new patients. "
            f"{_where_to_fit(model)}."
        )
    if truth_hash not in {file.data_hash for file in files if file.chose_it}:
        found, _ = seen_before(dataset, predictions, "the predictions")
        if found:
            raise InputError(
                f"{ground_truth}: holds what was in the training or validation of this model ({len(found)}: "
                f"{listed(found, 5)}), and is not the file that it was chosen "
                f"by. Its scores there are surer than on new patients. {_where_to_fit(model)}."
            )
    checkpoint = model.get("checkpoint_sha256")
    if checkpoint is not None and not re.fullmatch("[0-9a-f]{64}", str(checkpoint)):
        raise InputError(f"predictions: checkpoint_sha256 is {checkpoint!r:.60}; expected 64 hex digits or null")
    rule, own = aggregation_of(model)
    return Provenance(
        checkpoint_sha256=checkpoint,
        predictions_sha256=predictions_sha256,
        data_hash=truth_hash,
        split_hash=_text(split.get("hash")),
        subset=_text(split.get("subset")),
        patients=tuple(sorted(dataset.patients)),
        over_images=over_images or own or "max",
        rule=rule,
        fitted_on_test=bool(reasons),
    )


def _where_to_fit(model: Mapping[str, Any]) -> str:
    files = [file.file for file in sources_of(model) if file.chose_it and file.file]
    names = dict.fromkeys(name if Path(name).exists() else "/".join(Path(name).parts[-2:]) for name in files)
    chosen_by = f"its validation file ({' or '.join(names)})" if names else "the file that it was chosen by"
    return f"Predict {chosen_by}, or patients that it has not seen, and fit on them"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _signs_of_test(dataset: Dataset, split: Mapping[str, Any], path: Path) -> list[str]:
    reasons = []
    if split.get("subset") == "test":
        reasons.append("its info says so")
    if re.search(r"(?<![a-z])test(?![a-z])", path.stem.lower()):
        reasons.append("its name says so")
    marked = sum(record.split == "test" for record in dataset.images)
    if marked:
        reasons.append(f"{marked} of its {len(dataset.images)} images are of the subset test")
    return reasons
