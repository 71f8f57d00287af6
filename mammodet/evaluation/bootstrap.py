"""Intervals by resampling patients, and the paired comparison of models (Efron & Tibshirani, 1993).

Images of one woman are alike, so that it is women, not images or lesions, who are drawn with replacement. A resample is
a weight per patient; every figure is a function of those weights, and with all weights one it is the figure itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from mammodet.evaluation.flat import Ints
from mammodet.evaluation.results import Difference, Figure, Named
from mammodet.records import Dataset

Floats = NDArray[np.float64]
LEVEL = 0.95
_ROUNDING = 1e-9  # of sums in another order
_LEAST_DEFINED = 0.95  # share of the resamples in which a figure must be defined to have an interval


class Measure(Protocol):
    """Figures that can be computed for any weights of the patients."""

    def row(self, weights: Floats) -> Floats:
        """All figures for weights (clusters,), always in one order; NaN where a figure is not defined."""
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


def resample_weights(clusters: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient is drawn in each resample: `resamples` times (clusters,), summing to `clusters`.

    Drawn again for each measure, since all of them together fill the memory where there are many patients.
    """
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(clusters, size=clusters), minlength=clusters).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Resamples of the patients, the same for every measure of every model; none for figures without intervals."""

    clusters: int
    resamples: int
    seed: int
    progress: bool = False

    def figures(self, measure: Measure, what: str = "resamples") -> list[Figure]:
        """Every figure of a measure, in its order, with the interval; `what` names it while it is at work."""
        whole = measure.row(np.ones(self.clusters))
        count = self.resamples if self.clusters else 0
        samples = np.full((count, len(whole)), np.nan)
        rows = resample_weights(self.clusters, count, self.seed)
        shown = tqdm(rows, desc=what, unit="", total=count, disable=not self.progress, leave=False, delay=0.5)
        for number, weights in enumerate(shown):
            samples[number] = measure.row(weights)
        return [estimate(value, samples[:, column]) for column, value in enumerate(whole)]


def estimate(value: float, samples: ArrayLike) -> Figure:
    """A figure (NaN where it is not defined) with its value in each resample, and the interval of these.

    There is no interval where it has no width: where nothing was missed, no resample misses anything, and that is no
    proof that nothing ever will be.
    """
    given = np.asarray(samples, dtype=np.float64)
    if np.isnan(value):
        return Figure(value=None)
    spread = percentile_interval(given)
    figure = Figure(value=float(value), ci95=spread if spread and spread[1] - spread[0] > _ROUNDING else None)
    figure._samples = given
    return figure


def percentile_interval(samples: Floats) -> tuple[float, float] | None:
    """2.5 % and 97.5 % quantile; None where more than one in twenty is NaN: what is left is no fair sample."""
    known = samples[~np.isnan(samples)]
    if len(known) < _LEAST_DEFINED * len(samples) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(first: Named, second: Named) -> Difference | None:
    """The paired difference of a figure of two models; None where it is not defined for one of them.

    The p value is 2 min(P(d <= 0), P(d >= 0)) over the resamples, each with one added, so that it is never 0: its least
    is 2 / (resamples + 1).
    """
    one, two = first.figure.value, second.figure.value
    if one is None or two is None:
        return None
    samples = second.figure.samples - first.figure.samples
    interval, p = percentile_interval(samples), None
    if interval is not None:
        known = samples[~np.isnan(samples)]
        tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        p = min(1.0, 2 * (tail + 1) / (len(known) + 1))
    return Difference(
        figure=first.name,
        first=one,
        second=two,
        difference=Figure(value=two - one, ci95=interval),
        p=p,
        place=first.place,
    )
