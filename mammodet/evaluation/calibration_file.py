"""The calibration file: how scores become probabilities and labels, what it was fitted on, and its use (JSON).

A calibration belongs to one checkpoint, one aggregation rule and one way of joining images (docs/calibration.md).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.evaluation.calibration import METHODS, Count, OperatingPoint, Scaling, parse_goal
from mammodet.evaluation.cases import OVER_IMAGES
from mammodet.evaluation.results import LEVELS
from mammodet.files import canonical_hash, dig, read_json, write_json
from mammodet.json_lists import read_members, write_members
from mammodet.records import LABELS
from mammodet.version import VERSION

FORMAT = "mammodet-calibration/1"
_PLACES = {"image": "images", "breast": "breasts", "patient": "patients"}  # of a level in a predictions file


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _one_of(choices: Sequence[str]) -> Any:
    return Field(pattern=f"^({'|'.join(choices)})$")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a calibration was fitted on."""

    checkpoint_sha256: Hash | None  #: of the model; None where the predictions do not name one
    predictions_sha256: Hash  #: of the predictions file
    #: data_hash, split_hash, subset: of the ground truth; the last two None where it does not say.
    data_hash: Hash
    split_hash: str | None
    subset: str | None
    patients: tuple[str, ...]  #: of the ground truth
    #: how images were joined to breasts and patients, `max` or `mean`.
    over_images: Annotated[str, _one_of(OVER_IMAGES)]
    rule: str | None  #: the aggregation rule of the scores; None where the predictions do not say
    fitted_on_test: bool = False  #: whether the refusal to fit on a test set was overridden
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Fit:
    """The scaling and the thresholds of one label at one level."""

    level: Annotated[str, _one_of(LEVELS)]
    label: Annotated[str, _one_of(LABELS)]
    n_positive: Count
    n_negative: Count
    scaling: Scaling | None  #: None for the method `none`
    points: tuple[OperatingPoint, ...]  #: one per goal that was reached
    not_reached: Mapping[str, str] = field(default_factory=dict)  #: the other goals, with the reason
    #: before, after: Brier score, log loss and ECE on the cases of the fit; `after` is empty without a scaling.
    before: Mapping[str, FiniteFloat] = field(default_factory=dict)
    after: Mapping[str, FiniteFloat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for point in self.points:
            if (point.tp + point.fn, point.fp + point.tn) != (self.n_positive, self.n_negative):
                raise ValueError(
                    f"{self.level}, {self.label}: the point {point.goal} counts {point.tp + point.fn} positive and "
                    f"{point.fp + point.tn} negative cases; the fit had {self.n_positive} and {self.n_negative}"
                )


@dataclass(frozen=True, slots=True)
class Refused:
    """What could not be fitted, and why."""

    level: str
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration file."""

    method: Annotated[str, _one_of(METHODS)]  #: `platt`, `temperature` or `none`
    goals: tuple[Annotated[str, AfterValidator(lambda goal: parse_goal(goal) and goal)], ...]  #: the first labels
    provenance: Annotated[Provenance, Field(alias="fitted_on")]
    fits: tuple[Fit, ...]
    refused: tuple[Refused, ...] = ()

    def __post_init__(self) -> None:
        if not self.goals or len(set(self.goals)) < len(self.goals):
            raise ValueError(f"'goals' are {list(self.goals)}; expected at least one, none twice")
        if not self.fits:
            raise ValueError("'fits' are empty; expected at least one")
        for (level, label), count in Counter((fit.level, fit.label) for fit in self.fits).items():
            if count > 1:
                raise ValueError(f"'fits' hold {level}, {label} {count} times; expected once")
        for fit in self.fits:
            where = f"{fit.level}, {fit.label}"
            if (fit.scaling is None) != (self.method == "none"):
                has = "no 'scaling'" if self.method == "none" else "a 'scaling' with 'a' and 'b'"
                raise ValueError(f"{where}: 'scaling' is {fit.scaling}; method {self.method!r} has {has}")
            told = [*(point.goal for point in fit.points), *fit.not_reached]
            if sorted(told) != sorted(self.goals):
                raise ValueError(
                    f"{where}: 'points' and 'not_reached' are for {', '.join(told) or 'no goal'}; expected each of "
                    f"{', '.join(self.goals)} once"
                )
        in_order = [sorted(fit.points, key=lambda point: self.goals.index(point.goal)) for fit in self.fits]
        object.__setattr__(
            self, "fits", tuple(replace(fit, points=tuple(one)) for fit, one in zip(self.fits, in_order, strict=True))
        )

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
            **_FITTED_ON.dump_python(self.provenance, mode="json"),
            "other_checkpoint": made_for is None or made_for not in checkpoints_of(model),
        }


_READER, _FITTED_ON = TypeAdapter(Calibration), TypeAdapter(Provenance)


def _scaled(scaling: Scaling | None, score: float, otherwise: float | None = None) -> float | None:
    return float(scaling.apply([score])[0]) if scaling is not None else otherwise


def checkpoints_of(model: Mapping[str, Any]) -> tuple[str | None, ...]:
    """SHA-256 of the checkpoint in `model` of a predictions file, and of those that a packed model was made from."""
    return (model.get("checkpoint_sha256"), *(model.get("packed_from") or ()))


def aggregation_of(model: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The rule, and the way of joining images, of `model` in a predictions file; None where it does not say."""
    rule, over_images = (dig(model, "config", "model", "aggregation", key) for key in ("rule", "over_images"))
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


def label_predictions(path: Path, calibration: Calibration) -> None:
    """Add `labels` beside the scores of each image, breast and patient of a predictions file, which stay as they are.

    `model.calibration` says where the labels come from. The file is replaced whole or not at all.
    """
    value = read_members(path, _PLACES.values())

    def items(level: str, key: str) -> Iterator[dict[str, Any]]:
        return ({**item, "labels": calibration.labels(level, item["scores"])} for item in value.get(key, ()))

    model = value.get("model") or {}
    labelled = {key: items(level, key) for level, key in _PLACES.items()}
    write_members(path, {**value, "model": {**model, "calibration": calibration.describe(model)}, **labelled})


def to_json(calibration: Calibration) -> dict[str, Any]:
    """The JSON value of a calibration; each point with what it is worth on the cases of the fit."""
    value: dict[str, Any] = {"format": FORMAT, **_READER.dump_python(calibration, mode="json", by_alias=True)}
    for fit, item in zip(calibration.fits, value["fits"], strict=True):
        item["points"] = [
            {
                "goal": point.goal,
                "threshold": point.threshold,
                "threshold_probability": _scaled(fit.scaling, point.threshold),
                **point.figures(),
                "note": point.note,
            }
            for point in fit.points
        ]
    return value


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration, whole or not at all."""
    write_json(path, to_json(calibration), indent=1)


def read_calibration(path: Path) -> Calibration:
    """Read and check a calibration file. Raises InputError: with every fault in the file."""
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
        raise InputError(f"{where}: format is {found!r:.60}; expected {FORMAT!r} (mammodet calibrate writes one)")
    try:
        # as JSON, since there a list is a tuple and nothing else is converted
        return _READER.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise_faults(faults_of(error), where=where, advice="Run mammodet calibrate again.")
        raise
