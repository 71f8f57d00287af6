"""Scalings and thresholds: recovered, refused, worked out by hand, and equal to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import confusion_matrix, fbeta_score, roc_curve

from mammodet.errors import InputError
from mammodet.evaluation.calibration import (
    EPSILON,
    Goal,
    NotReachedError,
    OperatingPoint,
    Scaling,
    choose_threshold,
    fit_platt,
    fit_temperature,
    parse_goal,
)
from mammodet.evaluation.roc import scores_of

# By hand: positives score 0.9, 0.6, 0.6, 0.2; negatives 0.6, 0.4, 0.2, 0.1.
LABELS = [1, 1, 1, 1, 0, 0, 0, 0]
SCORES = [0.9, 0.6, 0.6, 0.2, 0.6, 0.4, 0.2, 0.1]


def random_cases(seed: int, n: int = 60, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes and scores with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1).round(decimals)


def simulated(a: float, b: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores = expit(rng.normal(-1, 1.5, n))
    return (rng.random(n) < expit(a * logit(scores) + b)).astype(int), scores


@pytest.mark.parametrize(("a", "b"), [(0.4, -1.0), (1.0, 0.0), (2.0, 1.5)])
def test_platt_recovers_what_the_cases_were_drawn_from(a, b):
    found = fit_platt(*simulated(a, b))
    assert found.a == pytest.approx(a, rel=0.06)
    assert found.b == pytest.approx(b, abs=0.08)


def test_temperature_recovers_what_the_cases_were_drawn_from():
    found = fit_temperature(*simulated(0.5, 0.0))
    assert found.a == pytest.approx(0.5, rel=0.05)
    assert found.b == 0


@pytest.mark.parametrize("seed", range(5))
def test_fits_equal_a_general_minimiser_on_smoothed_targets(seed):
    labels, scores = random_cases(seed)
    positive = labels.sum()
    targets = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))
    x = logit(np.clip(scores, EPSILON, 1 - EPSILON))

    def loss(weights: np.ndarray) -> float:
        chances = expit(weights[0] * x + (weights[1] if len(weights) > 1 else 0))
        return float(-np.sum(targets * np.log(chances) + (1 - targets) * np.log(1 - chances)))

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000}
    best = minimize(loss, [0.5, 0.0], method="Nelder-Mead", options=options).x
    found = fit_platt(labels, scores)
    assert [found.a, found.b] == pytest.approx(list(best), abs=1e-5)
    (slope,) = minimize(loss, [0.5], method="Nelder-Mead", options=options).x
    assert fit_temperature(labels, scores).a == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("fit", [fit_platt, fit_temperature])
def test_separable_cases_do_not_run_away(fit):
    labels, scores = [0] * 15 + [1] * 25, [0.4] * 15 + [0.6] * 25
    found = fit(labels, scores)
    low, high = found.apply([0.4, 0.6])
    if fit is fit_platt:  # by hand: two groups, two weights, so the targets themselves are met
        assert (low, high) == pytest.approx((1 / 17, 26 / 27))
    assert 0.03 < low < 0.1
    assert 0.9 < high < 0.97


@pytest.mark.parametrize("fit", [fit_platt, fit_temperature])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1] * 30, np.linspace(0, 1, 30), "30 positive and 0 negative cases; expected at least 10 of each"),
        ([1] * 9 + [0] * 30, np.linspace(1, 0, 39), "9 positive and 30 negative"),
        ([1] * 10 + [0] * 10, [0.3] * 20, "all 20 cases score 0.3"),
        ([1] * 10 + [0] * 10, [0.2] * 10 + [0.8] * 10, "positive cases do not score higher"),
        ([1, 0], [0.2, 1.2], r"scores in \[0, 1\]"),
        ([1, 0], [0.2, float("nan")], r"scores in \[0, 1\]"),
        ([2, 0], [0.2, 0.2], "labels 0 or 1"),
        ([1, 0], [0.2], r"got \(2,\) and \(1,\)"),
    ],
)
def test_fit_refuses_what_makes_no_sense(fit, labels, scores, message):
    with pytest.raises(InputError, match=message):
        fit(labels, scores)


def test_fit_on_ten_of_each_class_is_made():
    assert fit_platt([1] * 10 + [0] * 10, [0.8, 0.3] * 5 + [0.2, 0.4] * 5).a > 0


def test_scaling_by_hand_and_back():
    scaling = Scaling(2.0, 0.0)  # odds are squared: 0.8 is 4 to 1, so 16 to 1
    assert scaling.apply([0.5, 0.8, 0.2]) == pytest.approx([0.5, 16 / 17, 1 / 17])
    assert scaling.invert(16 / 17) == pytest.approx(0.8)
    assert np.isfinite(scaling.apply([0.0, 1.0])).all()
    flat = Scaling(0.1, 0.0)  # the clipped scores reach from 0.285 to 0.715
    assert flat.invert(0.1) == 0
    assert flat.invert(0.9) == float("inf")


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_scaling_that_does_not_rise_is_refused(a, b):
    with pytest.raises(ValueError, match="a above 0"):
        Scaling(a, b)


def test_well_calibrated_cases_have_a_small_error_and_overconfident_ones_a_large():
    labels, scores = simulated(1.0, 0.0)
    assert scores_of(labels, scores).ece.value < 0.015
    assert scores_of(labels, Scaling(4.0, 0.0).apply(scores)).ece.value > 0.05


@pytest.mark.parametrize(
    ("goal", "threshold", "counts"),
    [
        # Cuts (tp, fp): 0.75 (1, 0), 0.5 (3, 1), 0.3 (3, 2), 0.15 (4, 3), 0.05 (4, 4)
        ("youden", 0.5, (3, 1, 3, 1)),
        ("f@1", 0.5, (3, 1, 3, 1)),  # 6/8 against 8/11 at 0.15
        ("f@2", 0.15, (4, 3, 1, 0)),  # 20/23 against 15/20 at 0.5
        ("sensitivity@0.75", 0.5, (3, 1, 3, 1)),
        ("sensitivity@0.76", 0.15, (4, 3, 1, 0)),
        ("sensitivity@1", 0.15, (4, 3, 1, 0)),
        ("specificity@0.75", 0.5, (3, 1, 3, 1)),
        ("specificity@0.5", 0.5, (3, 1, 3, 1)),  # 0.3 finds no more positives
        ("specificity@0.76", 0.75, (1, 0, 4, 3)),
        ("specificity@1", 0.75, (1, 0, 4, 3)),
        ("threshold@0.6", 0.6, (3, 1, 3, 1)),
        ("threshold@1", 1.0, (0, 0, 4, 4)),
    ],
)
def test_choose_threshold_by_hand(goal, threshold, counts):
    point = choose_threshold(LABELS, SCORES, goal)
    assert point.threshold == pytest.approx(threshold)
    assert (point.tp, point.fp, point.tn, point.fn) == counts


def test_of_equal_thresholds_the_more_sensitive_is_chosen():
    # Sensitivity + specificity is 1.5 at 0.9 (1 of 2, 2 of 2) and at 0.7 (2 of 2, 1 of 2).
    assert choose_threshold([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], "youden").tp == 2
    # F1 is 2/3 at 0.9 (tp 1, fp 0, fn 1) and at 0.6 (tp 2, fp 2, fn 0).
    assert choose_threshold([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6], "f@1").tp == 2


def test_sensitivity_goal_takes_positives_that_cost_nothing():
    # 0.8 reaches one half; 0.7 is positive too and no negative lies between.
    point = choose_threshold([1, 1, 0, 1, 1], [0.8, 0.7, 0.3, 0.2, 0.1], "sensitivity@0.25")
    assert (point.tp, point.fp) == (2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_rank_goals_reach_the_best_point_of_scikit_learns_curve(seed):
    labels, scores = random_cases(seed)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    youden = choose_threshold(labels, scores, "youden").figures()
    assert youden["sensitivity"] + youden["specificity"] - 1 == pytest.approx((tpr - fpr).max())
    found = choose_threshold(labels, scores, "sensitivity@0.8").figures()
    assert found["sensitivity"] >= 0.8
    assert found["specificity"] == pytest.approx(1 - fpr[tpr >= 0.8].min())
    found = choose_threshold(labels, scores, "specificity@0.7").figures()
    assert found["specificity"] >= 0.7
    assert found["sensitivity"] == pytest.approx(tpr[fpr <= 0.3 + 1e-12].max())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_f_beta_equals_scikit_learn_and_is_the_best(seed, beta):
    labels, scores = random_cases(seed)
    every = [fbeta_score(labels, scores >= cut, beta=beta) for cut in np.unique(scores)]
    point = choose_threshold(labels, scores, Goal("f", beta))
    assert point.figures()["f_beta"] == pytest.approx(max(every))
    assert point.figures()["f_beta"] == pytest.approx(fbeta_score(labels, scores >= point.threshold, beta=beta))


@pytest.mark.parametrize("seed", range(5))
def test_figures_at_a_threshold_equal_scikit_learns_counts(seed):
    labels, scores = random_cases(seed)
    found = choose_threshold(labels, scores, "threshold@0.5").figures()
    tn, fp, fn, tp = confusion_matrix(labels, scores >= 0.5).ravel()
    assert [found[name] for name in ("tp", "fp", "tn", "fn")] == [tp, fp, tn, fn]
    assert found["ppv"] == pytest.approx(tp / (tp + fp))
    assert found["npv"] == pytest.approx(tn / (tn + fn))
    assert found["accuracy"] == pytest.approx((tp + tn) / len(labels))


def test_figures_that_are_not_defined_are_none():
    found = OperatingPoint("youden", 0.5, tp=0, fp=0, tn=2, fn=0).figures()
    assert [found[name] for name in ("sensitivity", "ppv", "f_beta")] == [None, None, None]
    assert [found[name] for name in ("specificity", "npv", "accuracy")] == [1, 1, 1]


def test_stored_scores_of_six_digits_do_not_change_sides():
    rng = np.random.default_rng(0)
    scores = rng.permutation(np.arange(200) * 5e-6 + 0.1 + 3e-7)
    labels = (scores + rng.normal(0, 3e-4, 200) > 0.1005).astype(int)
    point = choose_threshold(labels, scores, "youden")
    again = choose_threshold(labels, scores.round(6), f"threshold@{point.threshold!r}")
    assert again.figures() == point.figures()


@pytest.mark.parametrize("low", [0.3, float(np.nextafter(0.3, 1))])  # the middle rounds up for one, down for the other
def test_neighbouring_floats_are_parted_exactly(low):
    high = float(np.nextafter(low, 1))
    point = choose_threshold([0, 1], [low, high], "youden")
    assert (point.tp, point.fp) == (1, 0)


def test_threshold_below_a_lowest_score_of_zero_is_zero():
    point = choose_threshold([1, 0, 1], [0.0, 0.0, 0.9], "sensitivity@1")
    assert (point.threshold, point.note) == (0, "calls every case positive")


def test_threshold_goal_is_of_the_probability_where_there_is_one():
    point = choose_threshold(LABELS, SCORES, "threshold@0.5", Scaling(1.0, -1.0))
    assert point.threshold == pytest.approx(expit(1.0))  # 0.731: logit(score) - 1 = 0
    assert (point.tp, point.fp) == (1, 0)


@pytest.mark.parametrize(
    ("labels", "scores", "goal", "scaling", "message"),
    [
        ([1, 0, 0], [0.5, 0.5, 0.5], "youden", None, "no threshold does better than chance"),
        ([1, 1, 0], [0.2, 0.3, 0.9], "youden", None, "no threshold does better than chance"),
        ([1, 1, 0], [0.2, 0.3, 0.9], "specificity@0.9", None, "where no positive is found"),
        ([0, 0, 1], [0.9, 0.8, 0.1], "specificity@0.5", None, "where no positive is found"),
        ([1, 1, 0], [0.9, 0.3, 0.2], "threshold@0.9", Scaling(0.1, 0.0), r"a score of 1 has 0\.715"),
    ],
)
def test_goal_that_cannot_be_reached_is_said(labels, scores, goal, scaling, message):
    with pytest.raises(NotReachedError, match=message):
        choose_threshold(labels, scores, goal, scaling)


def test_threshold_of_one_class_is_refused():
    with pytest.raises(InputError, match="2 positive and 0 negative cases: thresholds need both"):
        choose_threshold([1, 1], [0.2, 0.3], "youden")


@pytest.mark.parametrize("text", ["youden", "sensitivity@0.9", "specificity@1", "f@0.5", "threshold@0"])
def test_goal_keeps_its_name(text):
    assert str(parse_goal(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensitivity", "expected one like youden, sensitivity@0.9"),
        ("youden@1", "expected one like"),
        ("accuracy@0.9", "expected one like"),
        ("sensitivity@90", "'90' is not a share above 0"),
        ("specificity@0", "'0' is not a share"),
        ("f@zero", "'zero' is not a beta"),
        ("f@nan", "'nan' is not a beta"),
        ("threshold@1.5", "'1.5' is not a number from 0 to 1"),
    ],
)
def test_goal_of_another_form_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_goal(text)


def test_operating_point_says_what_it_is_worth():
    point = OperatingPoint("f@2", 0.5, tp=8, fp=2, tn=18, fn=2)
    found = point.figures()
    assert (found["sensitivity"], found["specificity"], found["ppv"], found["npv"]) == (0.8, 0.9, 0.8, 0.9)
    assert found["accuracy"] == pytest.approx(26 / 30)
    assert found["f_beta"] == pytest.approx(0.8)
    assert (point.beta, point.note) == (2, None)
    assert OperatingPoint("threshold@1", 1.0, 0, 0, 5, 5).note == "calls no case positive"
