"""Scores to probabilities, and probabilities to labels: scalings, how well they hold, and thresholds for a goal.

Fitted on validation cases; on the cases of the fit every figure here is better than on new patients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mammodet.errors import InputError

Floats = NDArray[np.float64]
Count = Annotated[int, Field(ge=0)]
METHODS = ("platt", "temperature", "none")
#: Scores are clipped to [EPSILON, 1 - EPSILON] before their logit: an image without detections scores exactly 0.
EPSILON = 1e-4
#: Of each class; on fewer, a fit tells of chance.
LEAST_CASES = 10
_GOALS = {  # kind to the check of its value, in words and as a function
    "sensitivity": ("a share above 0, at most 1", lambda value: 0 < value <= 1),
    "specificity": ("a share above 0, at most 1", lambda value: 0 < value <= 1),
    "f": ("a beta above 0, at most 100", lambda value: 0 < value <= 100),
    "threshold": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
}
GOAL_FORMS = "youden, sensitivity@0.9, specificity@0.9, f@1, f@2, threshold@0.5"
_SLACK = 1e-12
_MOST_STEPS = 200


class NotReachedError(InputError):
    """No threshold does what was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """p = sigmoid(a * logit(score) + b), rising with the score."""

    a: float  #: slope, above 0; of a temperature T it is 1 / T
    b: float  #: shift; 0 for a temperature

    def __post_init__(self) -> None:
        if not (np.isfinite([self.a, self.b]).all() and self.a > 0):
            raise ValueError(f"scaling a={self.a}, b={self.b}: expected finite numbers, a above 0")

    def apply(self, scores: ArrayLike) -> Floats:
        """Scores (n,) in [0, 1] as probabilities (n,)."""
        return expit(self.a * _logits(scores) + self.b)

    def invert(self, probability: float) -> float:
        """The score that has a probability; 0 or infinity where every score or none reaches it."""
        least, most = self.apply([0.0, 1.0])
        if probability <= least:
            return 0.0
        if probability > most:
            return float("inf")
        return float(expit((logit(probability) - self.b) / self.a))


def fit_platt(labels: ArrayLike, scores: ArrayLike) -> Scaling:
    """The slope and shift of greatest likelihood, with Platt's smoothed targets.

    The targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2) in place of 1 and 0 keep the slope finite where a threshold parts
    the classes. J. Platt, Probabilistic outputs for support vector machines, 1999; Newton's method with backtracking
    after Lin, Lin & Weng, A note on Platt's probabilistic outputs, Machine Learning 2007.

    Args:
        labels: 0 or 1, (n,).
        scores: (n,) in [0, 1].
    Raises:
        InputError: fewer than LEAST_CASES of a class, scores that are all equal or fall where labels rise; other
            shapes, labels or scores.
    """
    truth, values = _fit_cases(labels, scores)
    x = _logits(values)
    centre, spread = x.mean(), x.std()
    slope, shift = _most_likely(np.stack([(x - centre) / spread, np.ones_like(x)], axis=1), _smoothed(truth))
    return _rising(float(slope / spread), float(shift - slope * centre / spread))


def fit_temperature(labels: ArrayLike, scores: ArrayLike) -> Scaling:
    """The temperature of greatest likelihood: b = 0, a = 1 / T, with the targets of `fit_platt`.

    It makes scores more or less sure and moves no score across 0.5. Guo et al., On calibration of modern neural
    networks, ICML 2017. Arguments and errors as `fit_platt`.
    """
    truth, values = _fit_cases(labels, scores)
    (slope,) = _most_likely(_logits(values)[:, None], _smoothed(truth))
    return _rising(float(slope), 0.0)


# SciPy has both; importing it takes longer than all that is done with them where a model predicts.
def expit(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(x, dtype=np.float64)))


def logit(p: ArrayLike) -> Floats:
    """log(p / (1 - p)) of probabilities above 0 and below 1."""
    return np.log(p) - np.log1p(-np.asarray(p, dtype=np.float64))


def _logits(scores: ArrayLike) -> Floats:
    return logit(np.clip(np.asarray(scores, dtype=np.float64), EPSILON, 1 - EPSILON))


def _fit_cases(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    truth, values = _cases(labels, scores)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if min(positive, negative) < LEAST_CASES:
        raise InputError(
            f"{positive} positive and {negative} negative cases; expected at least {LEAST_CASES} of each, since on "
            "fewer a fit tells of chance"
        )
    if np.ptp(_logits(values)) < 1e-9:
        raise InputError(f"all {len(values)} cases score {values[0]:.6g}: there is nothing to tell them apart by")
    return truth, values


def _rising(a: float, b: float) -> Scaling:
    if a <= 0:
        raise InputError(
            f"positive cases do not score higher than negative ones (slope {a:.3g}): such a score cannot become a "
            "probability; look at its ROC curve first"
        )
    return Scaling(a, b)


def _smoothed(truth: NDArray[np.bool_]) -> Floats:
    positive, negative = int(truth.sum()), int((~truth).sum())
    return np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))


def _most_likely(design: Floats, targets: Floats) -> Floats:
    """Weights (k,) that bring sigmoid(design (n, k) @ weights) closest to targets (n,) in (0, 1), by cross-entropy."""

    def loss(weights: Floats) -> float:
        answers = design @ weights
        return float(np.mean(np.logaddexp(0, answers) - targets * answers))

    weights = np.zeros(design.shape[1])
    value = loss(weights)
    for _ in range(_MOST_STEPS):
        answers = expit(design @ weights)
        gradient = design.T @ (answers - targets) / len(targets)
        if np.abs(gradient).max() < 1e-12:
            break
        curvature = (design * (answers * (1 - answers))[:, None]).T @ design / len(targets)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(weights)), gradient)
        size = 1.0
        while loss(weights - size * step) > value - 1e-4 * size * float(gradient @ step) and size > 1e-10:
            size /= 2
        if size <= 1e-10:  # nothing is left to gain in this precision
            break
        weights = weights - size * step
        value = loss(weights)
    return weights


@dataclass(frozen=True, slots=True)
class Goal:
    """What a threshold is chosen for: a kind, and its value (None for `youden`)."""

    kind: str
    value: float | None = None

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}@{self.value:.12g}"


def parse_goal(text: str) -> Goal:
    """A goal from its name. Raises InputError: another name, or a value out of its range."""
    kind, at, digits = text.partition("@")
    if kind == "youden" and not at:
        return Goal("youden")
    if kind not in _GOALS or not at:
        raise InputError(f"goal {text!r}: expected one like {GOAL_FORMS}")
    words, good = _GOALS[kind]
    try:
        value = float(digits)
    except ValueError:
        value = float("nan")
    if not good(value):
        raise InputError(f"goal {text!r}: {digits!r} is not {words}")
    return Goal(kind, value)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold, why it was chosen, and what came of it: a case is called positive where score >= threshold."""

    goal: str  #: name of the goal
    threshold: Annotated[float, Field(ge=0, le=1)]  #: in [0, 1], of the raw score
    #: tp, fp, tn, fn: cases.
    tp: Count
    fp: Count
    tn: Count
    fn: Count

    @property
    def beta(self) -> float:
        """Of `f_beta`: that of a goal f@BETA, else 1."""
        goal = parse_goal(self.goal)
        return goal.value if goal.kind == "f" and goal.value else 1.0

    def figures(self) -> dict[str, Any]:
        """`sensitivity`, `specificity`, `ppv`, `npv`, `accuracy`, `f_beta`, `beta` and the counts; None for 0 / 0."""
        tp, fp, tn, fn, beta, square = self.tp, self.fp, self.tn, self.fn, self.beta, self.beta**2

        def share(part: float, whole: float) -> float | None:
            return part / whole if whole else None

        return {
            "sensitivity": share(tp, tp + fn),
            "specificity": share(tn, tn + fp),
            "ppv": share(tp, tp + fp),
            "npv": share(tn, tn + fn),
            "accuracy": share(tp + tn, tp + fp + tn + fn),
            "f_beta": share((1 + square) * tp, (1 + square) * tp + square * fn + fp),
            "beta": beta,
            **{"tp": tp, "fp": fp, "tn": tn, "fn": fn},
        }

    @property
    def note(self) -> str | None:
        """What a reader must know of it."""
        if not self.tn + self.fn:
            return "calls every case positive"
        return None if self.tp + self.fp else "calls no case positive"


def choose_threshold(
    labels: ArrayLike, scores: ArrayLike, goal: Goal | str, scaling: Scaling | None = None
) -> OperatingPoint:
    """The threshold that serves a goal best.

    - `youden`: most sensitivity + specificity; `f@B`: most F-beta. Of equal ones the most sensitive.
    - `sensitivity@S`: reaches S, with the most specificity; of equal ones the most sensitive.
    - `specificity@S`: reaches S, with the most sensitivity; of equal ones the most specific.
    - `threshold@T`: T itself, of the probability where a scaling is given, else of the score.

    It stands midway between two neighbouring scores (or the lowest score and 0), so that a score that is stored with
    fewer digits does not change sides.

    Args:
        labels: 0 or 1, (n,), both present.
        scores: (n,) in [0, 1].
    Raises:
        NotReachedError: no threshold does it, but one that calls no case positive.
        InputError: one class only; other shapes, labels, scores or goals.
    """
    truth, values = _cases(labels, scores)
    if truth.all() or not truth.any():
        raise InputError(f"{int(truth.sum())} positive and {int((~truth).sum())} negative cases: thresholds need both")
    goal = parse_goal(goal) if isinstance(goal, str) else goal
    if goal.kind == "threshold" and goal.value is not None:
        threshold = scaling.invert(goal.value) if scaling is not None else goal.value
        if not threshold <= 1:
            most = float(scaling.apply([1.0])[0]) if scaling is not None else 1.0
            raise NotReachedError(f"{goal}: no score reaches this probability (a score of 1 has {most:.3f})")
    else:
        cuts, hits, alarms = _cut(truth, values)
        threshold = float(cuts[_best_cut(goal, hits, alarms)])
    return OperatingPoint(str(goal), threshold, **count_at(truth, values, threshold))


def _cut(truth: NDArray[np.bool_], values: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds, falling, one below each distinct score, and the true and false positives of each."""
    distinct, place = np.unique(values, return_inverse=True)
    hits = np.bincount(place[truth], minlength=len(distinct))[::-1].cumsum()
    alarms = np.bincount(place[~truth], minlength=len(distinct))[::-1].cumsum()
    below = np.append(0.0, distinct[:-1])
    middle = below + (distinct - below) / 2
    # Of scores that are neighbours among the floats, or a lowest score of 0, the middle is not above the lower one.
    return np.where(middle > below, middle, distinct)[::-1], hits, alarms


def _best_cut(goal: Goal, hits: NDArray[np.int64], alarms: NDArray[np.int64]) -> int:
    positive, negative = int(hits[-1]), int(alarms[-1])
    wanted = goal.value or 0.0
    if goal.kind == "youden":
        gain = hits * negative - alarms * positive  # whole numbers, so that equal ones are found equal
        if gain.max() <= 0:
            raise NotReachedError(f"{goal}: no threshold does better than chance")
        return int(np.flatnonzero(gain == gain.max())[-1])
    if goal.kind == "f":
        share = (1 + wanted**2) * hits / (wanted**2 * positive + hits + alarms)
        return int(np.flatnonzero(share >= share.max() - _SLACK)[-1])
    if goal.kind == "sensitivity":
        first = int(np.flatnonzero(hits / positive >= wanted - _SLACK)[0])
        return int(np.flatnonzero(alarms == alarms[first])[-1])
    good = np.flatnonzero((negative - alarms) / negative >= wanted - _SLACK)
    if not len(good) or not hits[good[-1]]:
        raise NotReachedError(f"{goal}: reached only where no positive is found, for the highest scores are negative")
    return int(np.flatnonzero(hits == hits[good[-1]])[0])


def count_at(truth: NDArray[np.bool_], scores: Floats, threshold: float) -> dict[str, int]:
    """`tp`, `fp`, `tn` and `fn` where score >= threshold is called positive."""
    called = scores >= threshold
    return {
        "tp": int((truth & called).sum()),
        "fp": int((~truth & called).sum()),
        "tn": int((~truth & ~called).sum()),
        "fn": int((truth & ~called).sum()),
    }


def _cases(labels: ArrayLike, scores: ArrayLike, least: int = 0) -> tuple[NDArray[np.bool_], Floats]:
    given, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if given.ndim != 1 or given.shape != values.shape or len(given) < least:
        raise InputError(f"labels, scores: expected one shape (n,), n >= {least}, got {given.shape} and {values.shape}")
    if not np.isin(given, (0, 1)).all() or not ((values >= 0) & (values <= 1)).all():
        raise InputError("labels and scores: expected labels 0 or 1, and scores in [0, 1]")
    return given == 1, values


FITS: Mapping[str, Callable[[ArrayLike, ArrayLike], Scaling]] = {"platt": fit_platt, "temperature": fit_temperature}
