"""The calibration file: how scores become probabilities and labels, what it was fitted on, and its use (JSON).

A calibration belongs to one checkpoint, one aggregation rule and one way of joining images (docs/calibration.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mammodet
from mammodet.data.json_values import Checker, is_finite, short
from mammodet.errors import InputError, raise_faults
from mammodet.evaluation.calibration import METHODS, OperatingPoint, Scaling, parse_goal
from mammodet.evaluation.cases import LEVELS, OVER_IMAGES
from mammodet.files import canonical_hash, read_json, write_json
from mammodet.records import LABELS

FORMAT = "mammodet-calibration/1"
_HASH = re.compile(r"[0-9a-f]{64}")
_PLACES = {"image": "images", "breast": "breasts", "patient": "patients"}  # of a level in a predictions file


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a calibration was fitted on.

    Attributes:
        checkpoint_sha256: of the model; None where the predictions do not name one.
        predictions_sha256: of the predictions file.
        data_hash, split_hash, subset: of the ground truth; the last two None where it does not say.
        patients: of the ground truth.
        over_images: how images were joined to breasts and patients, `max` or `mean`.
        rule: the aggregation rule of the scores; None where the predictions do not say.
        fitted_on_test: whether the refusal to fit on a test set was overridden.
    """

    checkpoint_sha256: str | None
    predictions_sha256: str
    data_hash: str
    split_hash: str | None
    subset: str | None
    patients: tuple[str, ...]
    over_images: str
    rule: str | None
    fitted_on_test: bool = False
    version: str = mammodet.__version__


@dataclass(frozen=True, slots=True)
class Fit:
    """The scaling and the thresholds of one label at one level.

    Attributes:
        scaling: None for the method `none`.
        before, after: Brier score, log loss and ECE on the cases of the fit; `after` is empty without a scaling.
        points: one per goal that was reached.
        not_reached: the other goals, with the reason.
    """

    level: str
    label: str
    n_positive: int
    n_negative: int
    scaling: Scaling | None
    points: tuple[OperatingPoint, ...]
    not_reached: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration file.

    Attributes:
        method: `platt`, `temperature` or `none`.
        goals: names; the first one labels.
        refused: (level, label, reason) of what could not be fitted.
    """

    method: str
    goals: tuple[str, ...]
    provenance: Provenance
    fits: tuple[Fit, ...]
    refused: tuple[tuple[str, str, str], ...] = ()

    def fit(self, level: str, label: str) -> Fit | None:
        """The fit of a label at a level; None where there is none."""
        return next((fit for fit in self.fits if (fit.level, fit.label) == (level, label)), None)

    def points(self, level: str, label: str) -> list[dict[str, Any]]:
        """`goal` and `threshold` (of the raw score) of each operating point, the one that labels first."""
        fit = self.fit(level, label)
        return [{"goal": point.goal, "threshold": point.threshold} for point in fit.points] if fit else []

    def probabilities(self, level: str, label: str, scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Scores (n,) as probabilities (n,); None where no scaling was fitted."""
        fit = self.fit(level, label)
        return fit.scaling.apply(scores) if fit and fit.scaling else None

    def labels(self, level: str, scores: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """What the first goal makes of the scores of an image, a breast or a patient.

        Returns:
            per label that was fitted: `label` (1, 0, or None where the goal was not reached), `probability` (None
            without a scaling), `threshold` (of the probability, or of the score without a scaling), `score_threshold`
            (of the score: what decides) and `goal`.
        """
        found = {}
        for name, score in scores.items():
            fit = self.fit(level, name)
            if fit is None:
                continue
            point = next((point for point in fit.points if point.goal == self.goals[0]), None)
            found[name] = {
                "label": None if point is None else int(score >= point.threshold),
                "probability": _scaled(fit.scaling, score),
                "threshold": None if point is None else _scaled(fit.scaling, point.threshold, point.threshold),
                "score_threshold": None if point is None else point.threshold,
                "goal": self.goals[0],
            }
        return found

    def describe(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """What goes into a predictions file about it; `other_checkpoint` where another model made the predictions.

        Args:
            model: `model` of the predictions file.
        """
        made_for = self.provenance.checkpoint_sha256
        return {
            "sha256": canonical_hash(to_json(self)),
            "method": self.method,
            "goal": self.goals[0],
            **_plain(self.provenance),
            "other_checkpoint": made_for is None or made_for not in checkpoints_of(model),
        }


def _scaled(scaling: Scaling | None, score: float, otherwise: float | None = None) -> float | None:
    return float(scaling.apply([score])[0]) if scaling is not None else otherwise


def _plain(provenance: Provenance) -> dict[str, Any]:
    return {**asdict(provenance), "patients": list(provenance.patients)}


def is_hash(value: Any) -> bool:
    """Whether a value is a SHA-256 as 64 hex digits."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def checkpoints_of(model: Mapping[str, Any]) -> tuple[str | None, ...]:
    """SHA-256 of the checkpoint in `model` of a predictions file, and of those that a packed model was made from."""
    return (model.get("checkpoint_sha256"), *(model.get("packed_from") or ()))


def aggregation_of(model: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The rule, and the way of joining images, of `model` in a predictions file; None where it does not say."""
    found: Any = model
    for key in ("config", "model", "aggregation"):
        found = found.get(key) if isinstance(found, Mapping) else None
    found = found if isinstance(found, Mapping) else {}
    rule, over_images = found.get("rule"), found.get("over_images")
    return rule if isinstance(rule, str) else None, over_images if over_images in OVER_IMAGES else None


def check_belongs(calibration: Calibration, model: Mapping[str, Any], where: str, *, allow_other: bool = False) -> None:
    """Refuse a calibration that was made for another model, or for scores that were made in another way.

    Args:
        model: `model` of a predictions file.
        allow_other: pass over another checkpoint.
    Raises:
        InputError: with both hashes, or both ways.
    """
    made_for, own = calibration.provenance.checkpoint_sha256, model.get("checkpoint_sha256")
    if (made_for is None or made_for not in checkpoints_of(model)) and not allow_other:
        raise InputError(
            f"{where}: was fitted for the checkpoint {made_for or 'unknown (its predictions named none)'}, this one is "
            f"{own or 'unknown'} (SHA-256). Predict the validation set with this one and run mammodet calibrate, or "
            "--allow-other-checkpoint: the predictions say so."
        )
    rule, over_images = aggregation_of(model)
    wanted = calibration.provenance
    if None not in (rule, wanted.rule) and rule != wanted.rule:
        raise InputError(
            f"{where}: was fitted to scores by the rule {wanted.rule!r}, this model aggregates by {rule!r}: these are "
            "other numbers. Predict the validation set with this checkpoint and run mammodet calibrate."
        )
    joined = any(fit.level != "image" for fit in calibration.fits)
    if joined and over_images is not None and over_images != wanted.over_images:
        raise InputError(
            f"{where}: joined the images of a breast by {wanted.over_images!r}, this model joins them by "
            f"{over_images!r}. Run mammodet calibrate with --over-images {over_images}."
        )


def add_labels(calibration: Calibration, value: Mapping[str, Any]) -> dict[str, Any]:
    """A predictions file's value with `labels` beside the scores of each image, breast and patient.

    Scores stay as they are. `model.calibration` says where the labels come from.
    """
    labelled = {
        key: [{**item, "labels": calibration.labels(level, item["scores"])} for item in value.get(key, ())]
        for level, key in _PLACES.items()
    }
    model = value.get("model") or {}
    return {**value, "model": {**model, "calibration": calibration.describe(model)}, **labelled}


def label_predictions(path: Path, calibration: Calibration) -> None:
    """Add labels to a predictions file (`add_labels`); it is replaced whole or not at all."""
    write_json(path, add_labels(calibration, read_json(path)))


def to_json(calibration: Calibration) -> dict[str, Any]:
    """The JSON value of a calibration."""
    return {
        "format": FORMAT,
        "method": calibration.method,
        "goals": list(calibration.goals),
        "fitted_on": _plain(calibration.provenance),
        "fits": [_fit_to_json(fit) for fit in calibration.fits],
        "refused": [{"level": level, "label": label, "reason": reason} for level, label, reason in calibration.refused],
    }


def _fit_to_json(fit: Fit) -> dict[str, Any]:
    return {
        "level": fit.level,
        "label": fit.label,
        "n_positive": fit.n_positive,
        "n_negative": fit.n_negative,
        "scaling": asdict(fit.scaling) if fit.scaling else None,
        "points": [
            {
                "goal": point.goal,
                "threshold": point.threshold,
                "threshold_probability": _scaled(fit.scaling, point.threshold),
                **point.figures(),
                "note": point.note,
            }
            for point in fit.points
        ],
        "not_reached": dict(fit.not_reached),
        "before": dict(fit.before),
        "after": dict(fit.after),
    }


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration, whole or not at all."""
    write_json(path, to_json(calibration), indent=1)


def read_calibration(path: Path) -> Calibration:
    """Read and check a calibration file.

    Raises:
        InputError: with every fault in the file.
    """
    return from_json(read_json(path), str(path))


def from_json(value: Any, where: str) -> Calibration:
    """The inverse of `to_json`.

    Args:
        where: the file, for messages.
    Raises:
        InputError: with every fault.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else value
        raise InputError(f"{where}: format is {short(found)}; expected {FORMAT!r} (mammodet calibrate writes one)")
    checker = Checker()
    method = _choice(checker, value, "method", METHODS, "file")
    goals = _goals(checker, value)
    provenance = _read_provenance(checker, value)
    fits = []
    for position, item in enumerate(_objects(checker, value, "fits", "file")):
        fit = _read_fit(checker, item, position, method, goals)
        fits += [fit] if fit else []
    for (level, label), count in Counter((fit.level, fit.label) for fit in fits).items():
        if count > 1:
            checker.faults.append(f"'fits' hold {level}, {label} {count} times; expected once")
    refused = [
        tuple(str(checker.take(item, key, str, "refused", True)) for key in ("level", "label", "reason"))
        for item in _objects(checker, value, "refused", "file")
    ]
    if value.get("fits") == []:
        checker.faults.append("'fits' are empty; expected at least one")
    raise_faults(checker.faults, where=where, advice="Run mammodet calibrate again.")
    if provenance is None:  # each of its faults was told above
        raise InputError(f"{where}: 'fitted_on' cannot be read")
    return Calibration(str(method), goals, provenance, tuple(fits), tuple((one[0], one[1], one[2]) for one in refused))


def _choice(checker: Checker, item: Mapping[str, Any], key: str, choices: Sequence[str], where: str) -> str | None:
    value = checker.take(item, key, str, where, True)
    if value is None or value in choices:
        return value
    checker.faults.append(f"{where}: '{key}' is {short(value)}; expected one of {', '.join(choices)}")
    return None


def _objects(checker: Checker, item: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = checker.take(item, key, list, where, True) or []
    if all(isinstance(member, dict) for member in found):
        return list(found)
    checker.faults.append(f"{where}: '{key}' is {short(found)}; expected a list of objects")
    return []


def _goals(checker: Checker, value: Mapping[str, Any]) -> tuple[str, ...]:
    found = checker.take(value, "goals", list, "file", True)
    if found is None:
        return ()
    for goal in found:
        try:
            parse_goal(goal if isinstance(goal, str) else repr(goal))
        except InputError as error:
            checker.faults.append(f"file: {error}")
    goals = tuple(map(str, found))
    if not goals or len(set(goals)) != len(goals):
        checker.faults.append(f"file: 'goals' are {short(found)}; expected at least one, none twice")
    return goals


def _read_provenance(checker: Checker, value: Mapping[str, Any]) -> Provenance | None:
    item = checker.take(value, "fitted_on", dict, "file", True)
    if item is None:
        return None
    before = len(checker.faults)
    where = "fitted_on"
    for key in ("checkpoint_sha256", "predictions_sha256", "data_hash"):
        text = checker.take(item, key, str, where, need=key != "checkpoint_sha256")
        if text is not None and not is_hash(text):
            checker.faults.append(f"{where}: '{key}' is {short(text)}; expected 64 hex digits")
    _choice(checker, item, "over_images", OVER_IMAGES, where)
    for key in ("split_hash", "subset", "rule"):
        checker.take(item, key, str, where, False)
    checker.take(item, "fitted_on_test", bool, where, True)
    checker.take(item, "version", str, where, True)
    patients = checker.take(item, "patients", list, where, True)
    if patients is not None and not all(isinstance(patient, str) for patient in patients):
        checker.faults.append(f"{where}: 'patients' are {short(patients)}; expected a list of texts")
    if len(checker.faults) > before:
        return None
    known = {key: item.get(key) for key in Provenance.__dataclass_fields__}
    return Provenance(**{**known, "patients": tuple(item["patients"])})


def _read_fit(
    checker: Checker, item: Mapping[str, Any], position: int, method: str | None, goals: Sequence[str]
) -> Fit | None:
    before = len(checker.faults)
    where = f"fit {position} ({short(item.get('level'))}, {short(item.get('label'))})"
    level = _choice(checker, item, "level", tuple(LEVELS), where)
    label = _choice(checker, item, "label", LABELS, where)
    counts = [_count(checker, item, key, where) for key in ("n_positive", "n_negative")]
    scaling = _read_scaling(checker, item, where, method)
    points = [_read_point(checker, point, where, goals) for point in _objects(checker, item, "points", where)]
    for point in points:
        if point and None not in counts and [point.tp + point.fn, point.fp + point.tn] != counts:
            checker.faults.append(
                f"{where}: the point {point.goal} counts {point.tp + point.fn} positive and {point.fp + point.tn} "
                f"negative cases; the fit had {counts[0]} and {counts[1]}"
            )
    not_reached = checker.take(item, "not_reached", dict, where, True)
    reached = [point.goal for point in points if point]
    if not_reached is not None and all(points) and sorted([*reached, *not_reached]) != sorted(goals):
        checker.faults.append(
            f"{where}: 'points' and 'not_reached' are for {', '.join([*reached, *not_reached]) or 'no goal'}; expected "
            f"each of {', '.join(goals)} once"
        )
    figures = [checker.take(item, key, dict, where, True) for key in ("before", "after")]
    for found in (one for one in figures if one):
        if not all(is_finite(number) for number in found.values()):
            checker.faults.append(f"{where}: {short(found)}: expected finite numbers")
    if len(checker.faults) > before:
        return None
    kept = tuple(point for point in points if point)
    order = sorted(kept, key=lambda point: goals.index(point.goal))
    return Fit(
        str(level), str(label), item["n_positive"], item["n_negative"], scaling, tuple(order), not_reached, *figures
    )


def _count(checker: Checker, item: Mapping[str, Any], key: str, where: str) -> int | None:
    number = checker.take(item, key, int, where, True)
    if number is not None and number < 0:
        checker.faults.append(f"{where}: '{key}' is {number}; expected a whole number from 0")
    return number if number is not None and number >= 0 else None


def _read_scaling(checker: Checker, item: Mapping[str, Any], where: str, method: str | None) -> Scaling | None:
    found = item.get("scaling")
    if (found is None) != (method == "none") and method is not None:
        checker.faults.append(f"{where}: 'scaling' is {short(found)}; method {method!r} has {_WITH[method == 'none']}")
        return None
    if found is None:
        return None
    if not isinstance(found, dict) or not (is_finite(found.get("a")) and is_finite(found.get("b")) and found["a"] > 0):
        checker.faults.append(f"{where}: 'scaling' is {short(found)}; expected finite numbers 'a' (above 0) and 'b'")
        return None
    return Scaling(float(found["a"]), float(found["b"]))


_WITH = {True: "none: null", False: "one: an object with 'a' and 'b'"}


def _read_point(checker: Checker, item: Mapping[str, Any], where: str, goals: Sequence[str]) -> OperatingPoint | None:
    before = len(checker.faults)
    goal = _choice(checker, item, "goal", goals, where)
    where = f"{where}, point {goal}"
    threshold = checker.take(item, "threshold", (int, float), where, True)
    if threshold is not None and not 0 <= threshold <= 1:
        checker.faults.append(f"{where}: 'threshold' is {threshold}; expected a number from 0 to 1")
    counts = [_count(checker, item, key, where) for key in ("tp", "fp", "tn", "fn")]
    if len(checker.faults) > before or goal is None:
        return None
    tp, fp, tn, fn = (int(count or 0) for count in counts)
    return OperatingPoint(goal, float(threshold), tp, fp, tn, fn)
