"""ROC and precision-recall figures of one score per case."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOST_POINTS = 1000  # of a curve in metrics.json


def classification_figures(labels: ArrayLike, scores: ArrayLike) -> dict[str, Any]:
    """ROC AUC, PR AUC (average precision) and their curves.

    Equal scores count half in the ROC AUC (the Mann-Whitney statistic) and stand together in both curves.

    Args:
        labels: 0 or 1, (n,).
        scores: (n,), higher means more likely 1.
    Returns:
        `roc_auc`, `pr_auc` (None with one class only), `sensitivity_at_90_specificity`, `n_positive`, `n_negative`,
        `roc` {fpr, tpr}, `pr` {recall, precision}.
    Raises:
        ValueError: other shapes, other labels, or scores that are not finite.
    """
    given, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if given.shape != values.shape or given.ndim != 1:
        raise ValueError(f"labels and scores: expected one shape (n,), got {given.shape} and {values.shape}")
    truth = given == 1
    if not (truth | (given == 0)).all() or not np.isfinite(values).all():
        raise ValueError("labels and scores: expected labels 0 or 1, and finite scores")
    positive, negative = int(truth.sum()), int((~truth).sum())
    figures: dict[str, Any] = {"n_positive": positive, "n_negative": negative}
    if not positive or not negative:
        return {**figures, "roc_auc": None, "pr_auc": None, "sensitivity_at_90_specificity": None}
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    true, false = np.cumsum(truth)[ends], np.cumsum(~truth)[ends]
    tpr, fpr = np.append(0, true / positive), np.append(0, false / negative)
    precision, recall = true / (true + false), true / positive
    # By hand: NumPy 1 calls it trapz, NumPy 2 trapezoid.
    figures["roc_auc"] = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    figures["pr_auc"] = float(np.sum(np.diff(np.append(0, recall)) * precision))
    figures["sensitivity_at_90_specificity"] = float(tpr[fpr <= 0.1 + 1e-12].max())
    figures["roc"] = {"fpr": _thin(fpr), "tpr": _thin(tpr)}
    figures["pr"] = {"recall": _thin(recall), "precision": _thin(precision)}
    return figures


def _thin(values: NDArray[np.float64]) -> list[float]:
    if len(values) > _MOST_POINTS:
        values = values[np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))]
    return [float(value) for value in values]
