"""Intervals by resampling patients, and the paired comparison of models (Efron & Tibshirani, 1993).

Images of one woman are alike, so that it is women, not images or lesions, who are drawn with replacement. A resample is
a weight per patient; every figure is a function of those weights, and with all weights one it is the figure itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mammodet.evaluation.flat import Ints
from mammodet.records import Dataset

Floats = NDArray[np.float64]
LEVEL = 0.95
_ROUNDING = 1e-9  # of sums in another order
_LEAST_DEFINED = 0.95  # share of the resamples in which a figure must be defined to have an interval


class Measure(Protocol):
    """Figures that can be computed for any weights of the patients."""

    names: tuple[str, ...]

    def row(self, weights: Floats) -> Floats:
        """One value per name for weights (clusters,); NaN where a figure is not defined."""
        ...


def patient_clusters(dataset: Dataset) -> tuple[Ints, int]:
    """A number (images,) for the patient of each image, and how many there are.

    An image without a patient is a patient of its own.
    """
    numbers: dict[tuple[str, str | int], int] = {}
    found = []
    for record in dataset.images:
        key = ("patient", record.patient_id) if record.patient_id else ("image", record.image_id)
        found.append(numbers.setdefault(key, len(numbers)))
    return np.array(found, dtype=np.int64), len(numbers)


def resample_weights(clusters: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each patient is drawn in each resample: (resamples, clusters), rows summing to `clusters`."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, clusters), dtype=np.uint16)
    for row in weights:
        row += np.bincount(rng.integers(clusters, size=clusters), minlength=clusters).astype(np.uint16)
    return weights


@dataclass(frozen=True, slots=True)
class Estimates:
    """Figures with what they were in each resample.

    Attributes:
        values: name to figure; NaN where not defined.
        columns: name to its column in `samples`.
        samples: float (resamples, names).
    """

    values: Mapping[str, float]
    columns: Mapping[str, int]
    samples: Floats

    def value(self, name: str) -> float | None:
        """A figure; None where it is not known or not defined."""
        value = self.values.get(name, float("nan"))
        return None if np.isnan(value) else float(value)

    def spread(self, name: str) -> list[float] | None:
        """Its 2.5 % and 97.5 % quantile; None without resamples, or where too few of them define it."""
        if self.value(name) is None or not len(self.samples):
            return None
        return percentile_interval(self.samples[:, self.columns[name]])

    def interval(self, name: str) -> list[float] | None:
        """Its 95 % percentile interval: `spread`, but None where that has no width.

        Where nothing was missed, no resample misses anything: that is no proof that nothing ever will be.
        """
        found = self.spread(name)
        return found if found is not None and found[1] - found[0] > _ROUNDING else None


def percentile_interval(samples: Floats) -> list[float] | None:
    """2.5 % and 97.5 % quantile; None where more than one in twenty is NaN: what is left is no fair sample."""
    known = samples[~np.isnan(samples)]
    if len(known) < _LEAST_DEFINED * len(samples) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def bootstrap(
    measures: Mapping[str, Sequence[Measure]], clusters: int, *, resamples: int, seed: int, progress: bool = False
) -> dict[str, Estimates]:
    """Figures of each model, and the same in resamples of the patients, which all models share.

    Args:
        measures: by the name of the model.
        clusters: how many patients there are.
        resamples: 0 for the figures alone.
    """
    weights = resample_weights(clusters, resamples, seed) if clusters else np.zeros((0, 0), dtype=np.uint16)
    names = {model: [name for one in ones for name in one.names] for model, ones in measures.items()}
    for model, found in names.items():
        if len(set(found)) != len(found):
            raise ValueError(f"{model}: two figures of one name")
    samples = {model: np.full((len(weights), len(found)), np.nan) for model, found in names.items()}
    rows = tqdm(
        weights, desc="resamples", unit="", disable=not progress or not len(weights), leave=False, mininterval=0.5
    )
    for number, row in enumerate(rows):
        weight = row.astype(np.float64)
        for model, ones in measures.items():
            samples[model][number] = _values(ones, weight)
    whole = np.ones(clusters)
    return {
        model: Estimates(
            dict(zip(names[model], _values(ones, whole).tolist(), strict=True)),
            {name: column for column, name in enumerate(names[model])},
            samples[model],
        )
        for model, ones in measures.items()
    }


def _values(measures: Sequence[Measure], weights: Floats) -> Floats:
    return np.concatenate([measure.row(weights) for measure in measures]) if measures else np.zeros(0)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two models on the same patients.

    Attributes:
        first, second: the figure of each; difference: second - first.
        ci95: interval of the difference.
        p: two-sided: how often, in resamples, the difference would lie on the other side of 0.
    """

    first: float
    second: float
    difference: float
    ci95: tuple[float, float] | None
    p: float | None


def compare(first: Estimates, second: Estimates, name: str) -> Difference | None:
    """The paired difference of a figure; None where a model does not have it.

    The p value is 2 min(P(d <= 0), P(d >= 0)) over the resamples, each with one added, so that it is never 0: its least
    is 2 / (resamples + 1).
    """
    one, two = first.value(name), second.value(name)
    if one is None or two is None:
        return None
    if not len(first.samples):
        return Difference(one, two, two - one, None, None)
    samples = second.samples[:, second.columns[name]] - first.samples[:, first.columns[name]]
    interval = percentile_interval(samples)
    if interval is None:
        return Difference(one, two, two - one, None, None)
    known = samples[~np.isnan(samples)]
    tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    p = min(1.0, 2 * (tail + 1) / (len(known) + 1))
    return Difference(one, two, two - one, (interval[0], interval[1]), p)
