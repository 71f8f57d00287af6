"""ROC, precision-recall and probability figures of one score per case, for any weights of the patients."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.cases import Cases
from mammodet.evaluation.flat import Ints
from mammodet.evaluation.results import PrecisionRecall, Reliability, Roc, Scores, figure_names, fill

Floats = NDArray[np.float64]
FIGURES = figure_names(Scores)
BINS = 10  # of the expected calibration error
_MOST_FPR = 0.2
_MOST_POINTS = 1000  # of a curve in metrics.json
_SLACK = 1e-12


class ScoreFigures:
    """The figures of `Scores`, of cases with a label and a score in [0, 1].

    - `roc_auc`: equal scores count half (the Mann-Whitney statistic).
    - `pr_auc`: average precision, without interpolation.
    - `partial_auc`: up to a false positive rate of 0.2, standardised so that chance is 0.5 (McClish, 1989).
    - `sensitivity_at_90_specificity`, `specificity_at_90_sensitivity`: the best that a threshold reaches.
    - `pf1`: probabilistic F1, the score standing for a count of positives (Yacouby & Axman, 2020).
    - `f1_at_half`, `accuracy_at_half`: F1 and share of right answers, score >= 0.5 being called positive. Where one
      class is rare, calling every case the other one has a high accuracy.
    - `brier`, `log_loss`; `ece`: expected calibration error over ten bins of equal width (Naeini et al., 2015).

    Args:
        labels: 0 or 1, (n,).
        scores: (n,) in [0, 1].
        clusters: int (n,), the patient of each case.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, clusters: ArrayLike) -> None:
        truth, values = np.asarray(labels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
        order = np.argsort(-values, kind="stable")
        self._clusters: Ints = np.asarray(clusters, dtype=np.int64)[order]
        self._truth, self._scores = truth[order].astype(np.float64), values[order]
        # Cases of one score stand or fall together.
        self._ends = np.flatnonzero(np.append(self._scores[1:] != self._scores[:-1], True))[: len(values)]
        self._bins = np.clip((self._scores * BINS).astype(np.int64), 0, BINS - 1)
        safe = np.clip(self._scores, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
        self._surprise = -np.where(self._truth == 1, np.log(safe), np.log1p(-safe))
        self._squares = (self._scores - self._truth) ** 2
        self._above_half = int(np.searchsorted(-self._scores, -0.5, side="right"))

    def row(self, weights: Floats) -> Floats:
        """Every figure for one set of weights (clusters,); NaN where it is not defined."""
        weight = weights[self._clusters]
        total = float(weight.sum())
        if not total:
            return np.full(len(FIGURES), np.nan)
        true_each, all_each = np.cumsum(weight * self._truth), np.cumsum(weight)
        positive = float(true_each[-1])
        negative = total - positive
        values = dict.fromkeys(FIGURES, np.nan)
        last = self._above_half - 1  # of those that are called positive
        hit, called_positive = (float(true_each[last]), float(all_each[last])) if last >= 0 else (0.0, 0.0)
        true = true_each[self._ends]
        false = all_each[self._ends] - true
        if positive and negative:
            tpr, fpr = np.append(0.0, true / positive), np.append(0.0, false / negative)
            values["roc_auc"] = _area(fpr, tpr)
            values["partial_auc"] = _partial(fpr, tpr)
            values["sensitivity_at_90_specificity"] = float(tpr[fpr <= 0.1 + _SLACK].max())
            values["specificity_at_90_sensitivity"] = float(1 - fpr[tpr >= 0.9 - _SLACK].min())
            called = true + false
            precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
            values["pr_auc"] = float(np.sum(np.diff(np.append(0.0, true / positive)) * precision))
        if positive:
            soft_true, soft_all = (
                float((weight * self._truth * self._scores).sum()),
                float((weight * self._scores).sum()),
            )
            values["pf1"] = 2 * soft_true / (positive + soft_all)
            values["f1_at_half"] = 2 * hit / (positive + called_positive)
        values["accuracy_at_half"] = (total - positive - called_positive + 2 * hit) / total
        values["brier"] = float((weight * self._squares).sum()) / total
        values["log_loss"] = float((weight * self._surprise).sum()) / total
        gaps = np.bincount(self._bins, weight * (self._truth - self._scores), minlength=BINS)
        values["ece"] = float(np.abs(gaps).sum()) / total
        return np.array([values[name] for name in FIGURES])

    def curves(self) -> tuple[Roc, PrecisionRecall] | tuple[None, None]:
        """ROC and precision over recall; none with one class only."""
        true, every = np.cumsum(self._truth)[self._ends], (self._ends + 1).astype(np.float64)
        positive = float(self._truth.sum())
        negative = len(self._truth) - positive
        if not positive or not negative:
            return None, None
        tpr, fpr = np.append(0.0, true / positive), np.append(0.0, (every - true) / negative)
        return Roc(fpr=_thin(fpr), tpr=_thin(tpr)), PrecisionRecall(
            recall=_thin(true / positive), precision=_thin(true / every)
        )


def score_figures(chosen: Cases, clusters: Ints) -> ScoreFigures:
    """Of joined cases; `clusters` (images,) is the patient of each image."""
    return ScoreFigures(chosen.labels, chosen.scores, clusters[chosen.images])


def measure_scores(chosen: Cases, clusters: Ints, bootstrap: Bootstrap) -> Scores:
    """Figures of joined cases with their intervals; `clusters` (images,) is the patient of each image."""
    return fill(Scores, bootstrap.figures(score_figures(chosen, clusters)))


def scores_of(labels: ArrayLike, scores: ArrayLike) -> Scores:
    """Figures without intervals.

    Args:
        labels: 0 or 1, (n,).
        scores: (n,) in [0, 1], higher means more likely 1.
    Raises:
        ValueError: other shapes, other labels, or scores outside [0, 1].
    """
    given, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if given.shape != values.shape or given.ndim != 1:
        raise ValueError(f"labels and scores: expected one shape (n,), got {given.shape} and {values.shape}")
    if not np.isin(given, (0, 1)).all() or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("labels and scores: expected labels 0 or 1, and scores in [0, 1]")
    measure = ScoreFigures(given, values, np.zeros(len(values), dtype=np.int64))
    return fill(Scores, Bootstrap(1, 0, 0).figures(measure))


def reliability(labels: ArrayLike, scores: ArrayLike, bins: int = BINS) -> Reliability:
    """How often cases of each score are positive, over bins of equal width."""
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    places = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    summed, positive = np.bincount(places, values, minlength=bins), np.bincount(places, truth, minlength=bins)
    return Reliability(
        edges=[number / bins for number in range(bins + 1)],
        count=count.tolist(),
        mean_score=[float(total / n) if n else None for total, n in zip(summed, count, strict=True)],
        share_positive=[float(total / n) if n else None for total, n in zip(positive, count, strict=True)],
    )


class ThresholdFigures:
    """The figures of `AtThreshold`, of cases that are called positive from a threshold on."""

    def __init__(self, chosen: Cases, threshold: float, clusters: Ints) -> None:
        self._clusters = clusters[chosen.images]
        self._truth, self._called = chosen.labels == 1, chosen.scores >= threshold

    def row(self, weights: Floats) -> Floats:
        """Every figure for one set of weights (clusters,); NaN where it is not defined."""
        kinds = self._truth * 2 + self._called
        tn, fp, fn, tp = np.bincount(kinds, weights[self._clusters], minlength=4)
        return np.array(
            [
                _share(tp, tp + fn),
                _share(tn, tn + fp),
                _share(tp, tp + fp),
                _share(tn, tn + fn),
                _share(tp + tn, tp + tn + fp + fn),
                _share(2 * tp, 2 * tp + fp + fn),
                _share(5 * tp, 5 * tp + fp + 4 * fn),
            ]
        )


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _area(x: Floats, y: Floats) -> float:
    # By hand: NumPy 1 calls it trapz, NumPy 2 trapezoid.
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _partial(fpr: Floats, tpr: Floats) -> float:
    stop = int(np.searchsorted(fpr, _MOST_FPR, side="right"))
    end = float(np.interp(_MOST_FPR, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1]))
    area = _area(np.append(fpr[:stop], _MOST_FPR), np.append(tpr[:stop], end))
    least = _MOST_FPR**2 / 2
    return 0.5 * (1 + (area - least) / (_MOST_FPR - least))


def _thin(values: NDArray[np.float64]) -> list[float]:
    if len(values) > _MOST_POINTS:
        values = values[np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))]
    return [float(value) for value in values]
