"""Labels: how well scores tell positive images, breasts and patients from negative ones."""

from collections.abc import Sequence
from dataclasses import replace

from mammodet.data.packed_predictions import PackedPredictions
from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.calibration import count_at
from mammodet.evaluation.calibration_file import Calibration
from mammodet.evaluation.cases import Cases, cases
from mammodet.evaluation.flat import Ints
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import (
    LEVELS,
    Calibrated,
    LabelResult,
    Level,
    OperatingPoint,
    Probabilities,
    figure_names,
    fill,
)
from mammodet.evaluation.roc import ThresholdFigures, measure_scores, reliability, score_figures
from mammodet.records import LABELS, Dataset, ImagePrediction

PROBABILITY_FIGURES = figure_names(Probabilities)


def label_results(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    clusters: Ints,
    options: Options,
    bootstrap: Bootstrap,
    calibration: Calibration | None = None,
) -> dict[str, dict[str, LabelResult]]:
    """Figures at every level of every label that has cases.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
        calibration: fitted on other patients; None for raw scores alone.
    """
    predictions = PackedPredictions.of(predictions)
    found: dict[str, dict[str, LabelResult]] = {level: {} for level in LEVELS}
    for level in LEVELS:
        for label in LABELS:
            chosen = cases(dataset, predictions, level, label, options.over_images)
            if not len(chosen):
                continue
            by_rule = {
                rule: measure_scores(one, clusters, bootstrap)
                for rule in predictions.rules
                if len(one := cases(dataset, predictions, level, label, options.over_images, rule))
            }
            measure = score_figures(chosen, clusters)
            roc, pr = measure.curves()
            found[level][label] = fill(
                LabelResult,
                bootstrap.figures(measure, f"{level}, {label}"),
                n_positive=int(chosen.labels.sum()),
                n_negative=int((chosen.labels == 0).sum()),
                roc=roc,
                pr=pr,
                reliability=reliability(chosen.labels, chosen.scores),
                by_rule=by_rule,
                operating_points=_operating_points(level, label, chosen, clusters, bootstrap, calibration),
                calibrated=_calibrated(level, label, chosen, clusters, bootstrap, calibration),
            )
    return found


def _operating_points(
    level: Level, label: str, chosen: Cases, clusters: Ints, bootstrap: Bootstrap, calibration: Calibration | None
) -> list[OperatingPoint]:
    found = []
    for point in calibration.points(level, label) if calibration else ():
        counts = count_at(chosen.labels == 1, chosen.scores, point["threshold"])
        figures = bootstrap.figures(ThresholdFigures(chosen, point["threshold"], clusters))
        found.append(fill(OperatingPoint, figures, **point, **counts))
    return found


def _calibrated(
    level: Level, label: str, chosen: Cases, clusters: Ints, bootstrap: Bootstrap, calibration: Calibration | None
) -> Calibrated | None:
    scores = calibration.probabilities(level, label, chosen.scores) if calibration else None
    if scores is None:
        return None
    scaled = replace(chosen, scores=scores)
    figures = measure_scores(scaled, clusters, bootstrap)
    return Calibrated(
        **{name: getattr(figures, name) for name in PROBABILITY_FIGURES},
        reliability=reliability(scaled.labels, scaled.scores),
    )
