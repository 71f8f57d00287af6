"""The part of the metrics that is about labels: images, breasts and patients, tumor or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mammodet.evaluation.bootstrap import Estimates, Measure
from mammodet.evaluation.cases import LEVELS, Cases, cases
from mammodet.evaluation.flat import Ints
from mammodet.evaluation.options import Options
from mammodet.evaluation.roc import FIGURES, LabelFigures, ScoreFigures, reliability, score_figures
from mammodet.records import LABELS, Dataset, ImagePrediction

PROBABILITY_FIGURES = ("brier", "log_loss", "ece")


class Calibrator(Protocol):
    """Scalings and thresholds that were fitted on other patients."""

    def points(self, level: str, label: str) -> Sequence[Mapping[str, Any]]:
        """`goal` and `threshold` of each operating point, in raw scores; none where none was chosen."""
        ...

    def probabilities(self, level: str, label: str, scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Scores (n,) as probabilities (n,); None where no scaling was fitted."""
        ...


class LevelFigures:
    """Figures of one model at every level, for every label and aggregation rule.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
        calibration: fitted on other patients; None for raw scores alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        predictions: Sequence[ImagePrediction],
        clusters: Ints,
        options: Options,
        calibration: Calibrator | None = None,
    ) -> None:
        self._calibration = calibration
        self._cases: dict[tuple[str, str], Cases] = {}
        self._scores: dict[tuple[str, str], ScoreFigures] = {}
        self._rules: dict[tuple[str, str], list[str]] = {}
        self._labels: dict[tuple[str, str], list[tuple[dict[str, Any], LabelFigures]]] = {}
        self._calibrated: dict[tuple[str, str], tuple[Cases, ScoreFigures]] = {}
        self.measures: list[Measure] = []
        rules = sorted({rule for prediction in predictions for rule in prediction.scores_by_rule})
        for level in LEVELS:
            for label in LABELS:
                chosen = cases(dataset, predictions, level, label, options.over_images)
                if not len(chosen):
                    continue
                key = (level, label)
                self._cases[key] = chosen
                self._scores[key] = score_figures(f"{level}/{label}", chosen, clusters)
                self.measures.append(self._scores[key])
                self._rules[key] = []
                for rule in rules:
                    other = cases(dataset, predictions, level, label, options.over_images, rule)
                    if len(other):
                        self._rules[key].append(rule)
                        self.measures.append(score_figures(f"{level}/{label}/{rule}", other, clusters))
                self._add_calibration(key, chosen, clusters)

    def _add_calibration(self, key: tuple[str, str], chosen: Cases, clusters: Ints) -> None:
        if self._calibration is None:
            return
        name = "/".join(key)
        self._labels[key] = []
        for number, point in enumerate(self._calibration.points(*key)):
            goal, threshold = str(point["goal"]), float(point["threshold"])
            measure = LabelFigures(f"{name}/at {number}", chosen, threshold, clusters)
            self._labels[key].append(({"goal": goal, "threshold": threshold}, measure))
            self.measures.append(measure)
        scores = self._calibration.probabilities(*key, chosen.scores)
        if scores is not None:
            scaled = chosen.with_scores(scores)
            self._calibrated[key] = (scaled, score_figures(f"{name}/calibrated", scaled, clusters))
            self.measures.append(self._calibrated[key][1])

    def to_json(self, estimates: Estimates) -> dict[str, Any]:
        """`image`, `breast`, `patient`, each by label."""
        sections: dict[str, Any] = {level: {} for level in LEVELS}
        for (level, label), chosen in self._cases.items():
            name = f"{level}/{label}"
            section: dict[str, Any] = {
                "n_positive": int(chosen.labels.sum()),
                "n_negative": int((chosen.labels == 0).sum()),
                **_figures(estimates, name, FIGURES),
                **self._scores[level, label].curves(),
                "reliability": reliability(chosen.labels, chosen.scores),
            }
            if self._rules[level, label]:
                section["by_rule"] = {
                    rule: _figures(estimates, f"{name}/{rule}", FIGURES) for rule in self._rules[level, label]
                }
            if self._labels.get((level, label)):
                section["operating_points"] = [
                    {
                        **point,
                        **_figures(estimates, f"{name}/at {number}", LabelFigures.FIGURES),
                        **measure.counts(),
                    }
                    for number, (point, measure) in enumerate(self._labels[level, label])
                ]
            if (level, label) in self._calibrated:
                scaled, _ = self._calibrated[level, label]
                section["calibrated"] = {
                    **_figures(estimates, f"{name}/calibrated", PROBABILITY_FIGURES),
                    "reliability": reliability(scaled.labels, scaled.scores),
                }
            sections[level][label] = section
        return sections


def _figures(estimates: Estimates, name: str, figures: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for figure in figures:
        row[figure] = estimates.value(f"{name}/{figure}")
        row[f"{figure}_ci95"] = estimates.interval(f"{name}/{figure}")
    return row
