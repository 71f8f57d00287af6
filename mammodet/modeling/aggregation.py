"""From detections and image head to one score per image, breast and patient."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodet.config import AggregationConfig
from mammodet.errors import InputError
from mammodet.records import ImagePrediction

DETECTION_RULES = ("max", "noisy_or", "top_k_mean")
Scores = NDArray[np.float32]
_EPSILON = 1e-4
_LEAST = 0.01  # weight of a stack's standardised input: never 0, so that equal scores stay rare


def max_score(scores: Scores) -> float:
    """The strongest detection of (N,) in [0, 1], 0 where N is 0."""
    return float(scores.max(initial=0))


def noisy_or(scores: Scores) -> float:
    """Probability that at least one detection of (N,) is a lesion, if they were independent; 0 where N is 0."""
    return float(1 - np.prod(1 - scores))


def top_k_mean(scores: Scores, k: int) -> float:
    """Mean of the k strongest detections of (N,), missing ones counted as 0."""
    return float(np.sort(scores)[::-1][:k].sum() / k)


@dataclass(frozen=True, slots=True)
class LogisticStack:
    """A logistic regression on the logits of head and detection scores, one per question."""

    features: tuple[str, ...]  #: names of its inputs, in order
    #: centre, scale: of each input, from the fit.
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: Mapping[str, tuple[tuple[float, ...], float]]  #: question to (weights, bias)
    fitted_on: Mapping[str, tuple[int, int]]  #: how many images of each class it saw, for the record

    def __post_init__(self) -> None:
        rows = [self.centre, self.scale, *(each for each, _ in self.weights.values())]
        numbers = [number for row in rows for number in row] + [bias for _, bias in self.weights.values()]
        if any(len(row) != len(self.features) for row in rows) or 0.0 in self.scale or not np.isfinite(numbers).all():
            raise ValueError(f"the aggregation needs {len(self.features)} finite numbers in centre, scale and weights")

    def score(self, target: str, inputs: Mapping[str, float]) -> float:
        """Probability in [0, 1]."""
        weights, bias = self.weights[target]
        values = [
            weight * (_logit(inputs[name]) - centre) / scale
            for weight, name, centre, scale in zip(weights, self.features, self.centre, self.scale, strict=True)
        ]
        return 1 / (1 + math.exp(-max(min(sum(values) + bias, 500.0), -500.0)))


def fit_stack(
    inputs: Sequence[Mapping[str, float]], labels: Mapping[str, Sequence[int | None]]
) -> LogisticStack | None:
    """Fit a stack on validation images.

    Every weight is positive (Breiman, Stacked Regressions, Machine Learning 1996): each input is a probability of the
    same thing, and on a few dozen images chance alone would turn some of them round. The weights are drawn towards the
    plain mean of the logits, which is what remains where the images tell nothing.

    Args:
        inputs: per image, name to score in [0, 1]; the same names for all.
        labels: question to one label per image, None for unknown.
    Returns:
        None where no question has images of both classes.
    """
    features = tuple(sorted(inputs[0])) if inputs else ()
    table = np.array([[_logit(row[name]) for name in features] for row in inputs]).reshape(len(inputs), len(features))
    centre = table.mean(axis=0) if len(inputs) else np.zeros(len(features))
    scale = np.maximum(table.std(axis=0), 1e-3) if len(inputs) else np.ones(len(features))
    weights: dict[str, tuple[tuple[float, ...], float]] = {}
    counts: dict[str, tuple[int, int]] = {}
    for target, values in labels.items():
        known = np.array([value is not None for value in values], dtype=bool)
        truth = np.array([value for value in values if value is not None], dtype=float)
        if len(set(truth.tolist())) < 2:
            continue
        weights[target] = _fit_positive((table[known] - centre) / scale, truth)
        counts[target] = (int((truth == 0).sum()), int((truth == 1).sum()))
    if not weights:
        return None
    return LogisticStack(features, tuple(centre.tolist()), tuple(scale.tolist()), weights, counts)


def _fit_positive(table: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[tuple[float, ...], float]:
    """Weights of at least `_LEAST` and the intercept that minimise log loss + |w - 1/k|^2 / 2.

    Args:
        table: standardised inputs (n, k).
        truth: 0 or 1, (n,).
    """
    # here, since importing SciPy takes a while, and a fitted model has no need of it
    from scipy.optimize import minimize
    from scipy.special import expit

    count = table.shape[1]
    prior = 1 / count

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = values[:-1], values[-1]
        answers = table @ weights + bias
        value = np.logaddexp(0, answers).sum() - truth @ answers + 0.5 * np.sum((weights - prior) ** 2)
        slope = expit(answers) - truth
        return float(value), np.append(table.T @ slope + weights - prior, slope.sum())

    start = np.append(np.full(count, prior), 0.0)
    bounds = [(_LEAST, None)] * count + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return tuple(float(value) for value in found.x[:-1]), float(found.x[-1])


def stack_inputs(by_rule: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a stack reads of an image's scores by rule: every head score, and the detections' tumor scores."""
    inputs = {f"head_{target}": score for target, score in by_rule.get("head", {}).items()}
    inputs.update({rule: by_rule[rule]["tumor"] for rule in DETECTION_RULES if "tumor" in by_rule.get(rule, {})})
    return inputs


def image_scores(
    detection_scores: ArrayLike,
    head: Mapping[str, float],
    config: AggregationConfig,
    stack: LogisticStack | None = None,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Scores of one image.

    Detections speak of `tumor` only: under `max`, `noisy_or` and `top_k_mean` every other question takes the head's
    answer. A question that the stack could not be fitted for does so too, and `tumor` then takes `max`.

    Args:
        detection_scores: (N,) in [0, 1].
        head: question to probability; empty without a head.
    Returns:
        scores by the chosen rule, and by every rule.
    """
    scores = np.asarray(detection_scores, dtype=np.float32)
    by_rule: dict[str, dict[str, float]] = {
        "max": {"tumor": max_score(scores)},
        "noisy_or": {"tumor": noisy_or(scores)},
        "top_k_mean": {"tumor": top_k_mean(scores, config.top_k)},
    }
    if head:
        by_rule["head"] = dict(head)
    if stack is not None:
        inputs = stack_inputs(by_rule)
        by_rule["learned"] = {target: stack.score(target, inputs) for target in stack.weights}
    chosen = {**head, **by_rule["max"], **by_rule.get(config.rule, {})}
    return chosen, by_rule


def combine(predictions: Iterable[ImagePrediction], level: str, how: str) -> dict[tuple[str, ...], dict[str, float]]:
    """Join image scores to breasts or patients.

    Args:
        level: `breast` (patient and side) or `patient`; images without those are left out.
        how: `max` or `mean`.
    Returns:
        (patient, side) or (patient,) to scores.
    """
    if level not in ("breast", "patient"):
        raise InputError(f"level {level!r}: expected breast or patient")
    if how not in ("max", "mean"):
        raise InputError(f"how {how!r}: expected max or mean")
    groups: dict[tuple[str, ...], list[Mapping[str, float]]] = defaultdict(list)
    for prediction in predictions:
        if prediction.patient_id is None or (level == "breast" and prediction.laterality is None):
            continue
        key: tuple[str, ...] = (
            (prediction.patient_id, str(prediction.laterality)) if level == "breast" else (prediction.patient_id,)
        )
        groups[key].append(prediction.scores)
    joined: dict[tuple[str, ...], dict[str, float]] = {}
    for key, members in groups.items():
        names = sorted({name for scores in members for name in scores})
        values = {name: [scores[name] for scores in members if name in scores] for name in names}
        joined[key] = {
            name: max(scores) if how == "max" else sum(scores) / len(scores) for name, scores in values.items()
        }
    return joined


def joined_scores(
    images: Sequence[ImagePrediction], how: str
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """The `breasts` and the `patients` of a predictions file."""
    breasts = tuple(
        {"patient_id": patient, "laterality": side, "scores": scores}
        for (patient, side), scores in combine(images, "breast", how).items()
    )
    patients = tuple(
        {"patient_id": patient, "scores": scores} for (patient,), scores in combine(images, "patient", how).items()
    )
    return breasts, patients


def _logit(score: float) -> float:
    clipped = min(max(score, _EPSILON), 1 - _EPSILON)
    return math.log(clipped / (1 - clipped))
