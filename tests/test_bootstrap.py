"""Resampling of patients: weights, intervals that cover what they say, and paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from small_cases import dataset, image

from mammodet.evaluation.bootstrap import (
    Bootstrap,
    compare,
    estimate,
    patient_clusters,
    percentile_interval,
    resample_weights,
)
from mammodet.evaluation.flat import FlatDetections, FlatLesions
from mammodet.evaluation.froc import FPPI_POINTS, CurveMaker, FrocFigures, denominator_images
from mammodet.evaluation.matching import match_all
from mammodet.evaluation.results import Figure, Named
from mammodet.evaluation.roc import ScoreFigures
from mammodet.records import Lesion


class Mean:
    """The weighted mean of one number per patient."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=float)

    def row(self, weights):
        return np.array([(weights * self.values).sum() / weights.sum()])


def test_clusters_are_patients_and_lone_images():
    records = [image(number, patient_id=patient) for number, patient in enumerate(["p", None, "q", "p", None], start=1)]
    numbers, count = patient_clusters(dataset(*records))
    assert numbers.tolist() == [0, 1, 2, 0, 3]
    assert count == 4


def test_a_patient_named_like_an_image_id_is_another_cluster():
    numbers, count = patient_clusters(dataset(image(1), image(2, patient_id="1")))
    assert (numbers.tolist(), count) == ([0, 1], 2)


def test_resamples_draw_as_many_patients_as_there_are():
    weights = np.array(list(resample_weights(7, 400, seed=3)))
    assert weights.sum(axis=1).tolist() == [7] * 400
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.15)
    assert (weights == list(resample_weights(7, 400, seed=3))).all()
    assert (weights != list(resample_weights(7, 400, seed=4))).any()


def test_estimates_hold_the_figure_and_its_interval():
    [found] = Bootstrap(4, 500, seed=0).figures(Mean([0, 1, 2, 3]))
    assert found.value == 1.5
    low, high = found.ci95
    assert 0 < low < 1.5 < high < 3


def test_without_resamples_there_are_figures_and_no_intervals():
    assert Bootstrap(2, 0, seed=0).figures(Mean([0, 1])) == [Figure(value=0.5)]


def test_an_interval_needs_nineteen_in_twenty_resamples():
    samples = np.linspace(0, 1, 100)
    samples[:5] = np.nan
    assert percentile_interval(samples) == pytest.approx(np.quantile(samples[5:], [0.025, 0.975]))
    samples[5] = np.nan
    assert percentile_interval(samples) is None


def test_where_all_resamples_agree_there_is_no_interval():
    [found] = Bootstrap(3, 100, seed=0).figures(Mean([1, 1, 1]))
    assert found == Figure(value=1.0)
    assert percentile_interval(found.samples) == (1.0, 1.0)


def named(samples, value=0.0):
    return Named("x", estimate(value, samples))


def test_compare_counts_the_smaller_tail_twice():
    first = named(np.zeros(99))
    second = named(np.r_[np.full(4, -1.0), np.linspace(0.1, 1, 95)], value=0.6)
    found = compare(first, second)
    assert found.difference.value == 0.6
    assert found.p == pytest.approx(2 * (4 + 1) / 100)
    assert compare(first, first).p == 1.0
    assert compare(first, named(np.ones(99))).p == pytest.approx(2 / 100)


def test_compare_is_paired():
    # The models differ by exactly 0.1 on every patient: the interval of the difference has no width.
    values = np.random.default_rng(0).random(50)
    bootstrap = Bootstrap(50, 300, seed=0)
    first, second = (bootstrap.figures(Mean(shown))[0] for shown in (values, values + 0.1))
    assert compare(Named("x", first), Named("x", second)).difference.ci95 == pytest.approx((0.1, 0.1))
    low, high = first.ci95
    assert high - low > 0.1


def test_compare_needs_the_figure_on_both_sides():
    known, missing = named(np.zeros(10)), named(np.zeros(10), float("nan"))
    assert compare(known, missing) is compare(missing, known) is None


# Coverage: the interval of nominal 95 % holds the truth in 92 to 98 % of simulated studies. Images of one patient are
# alike, so that an interval over images would fail (which a test below shows).


def simulated_scores(rng, patients, images, share):
    """Binormal scores with a shift per patient: the AUC over all pairs of images is known."""
    labels = np.repeat(rng.random(patients) < share, images).astype(int)
    patient = np.repeat(np.arange(patients), images)
    raw = labels * 1.2 + rng.normal(0, 0.8, patients)[patient] + rng.normal(0, 0.6, patients * images)
    return labels, 1 / (1 + np.exp(-raw)), patient


def covered(measure, place, truth, clusters, seed):
    interval = Bootstrap(clusters, 200, seed).figures(measure)[place].ci95
    return interval is not None and interval[0] <= truth <= interval[1]


def test_interval_of_the_auc_covers_it():
    from scipy.stats import norm

    truth = norm.cdf(1.2 / np.sqrt(2 * (0.8**2 + 0.6**2)))
    rng = np.random.default_rng(0)
    studies = 400
    hits = images_only = 0
    for seed in range(studies):
        labels, scores, patient = simulated_scores(rng, 100, 4, 0.4)
        hits += covered(ScoreFigures(labels, scores, patient), 0, truth, 100, seed)
        lone = np.arange(400)
        images_only += covered(ScoreFigures(labels, scores, lone), 0, truth, 400, seed)
    assert 0.92 <= hits / studies <= 0.98
    assert images_only / studies < 0.85


def test_interval_of_the_sensitivity_at_one_false_positive_covers_it():
    """Every lesion gets one detection, every image false ones, all with scores of a known distribution."""
    rng = np.random.default_rng(1)
    # A lesion's score is u ** (1/2), a false one's u: at threshold t an image has 3 (1 - t) false positives, so that
    # one per image is t = 2/3, and the sensitivity there 1 - t^2.
    truth = 1 - (2 / 3) ** 2
    studies, patients, views = 400, 60, 2
    hits = 0
    for seed in range(studies):
        images = np.repeat(np.arange(patients * views), 3)
        box, far = [10.0, 10, 30, 30], [60.0, 60, 80, 80]
        lesion_images = np.arange(patients * views)
        lesions = FlatLesions(
            lesion_images,
            np.tile(box, (len(lesion_images), 1)),
            np.ones(len(lesion_images), dtype=int),
            np.zeros(len(lesion_images), dtype=bool),
            (Lesion("mass", tuple(box), None, "box"),) * len(lesion_images),
        )
        scores = np.r_[rng.random(len(lesion_images)) ** 0.5, rng.random(len(images))]
        place = np.r_[lesion_images, images]
        order = np.lexsort((-scores, place))
        boxes = np.r_[np.tile(box, (len(lesion_images), 1)), np.tile(far, (len(images), 1))]
        found = FlatDetections(place[order], boxes[order], scores[order], np.ones(len(order), dtype=int), None)
        clusters = np.arange(patients * views) // views
        maker = CurveMaker(found, lesions, match_all(found, lesions, "iou@0.5"), clusters)
        everywhere = np.ones(patients * views, dtype=bool)
        measure = FrocFigures([maker.curve(maker.false_positives(everywhere))])
        hits += covered(measure, FPPI_POINTS.index(1.0), truth, patients, seed)
    assert 0.92 <= hits / studies <= 0.98


def test_denominators_are_told_apart():
    data = dataset(image(1), image(2, labels={"tumor": 1}), image(3, unlocalized=True))
    assert [denominator_images(data, name).tolist() for name in ("all images", "normal images")] == [
        [True, True, False],
        [True, False, False],
    ]
