"""ROC and precision-recall figures: scikit-learn's, and those that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from small_metrics import flat

from mammodet.evaluation.calibration import count_at
from mammodet.evaluation.cases import Cases
from mammodet.evaluation.roc import FIGURES, ScoreFigures, ThresholdFigures, reliability, scores_of


def curves_of(labels, scores):
    return ScoreFigures(labels, scores, np.zeros(len(labels), dtype=int)).curves()


@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < (0.5, 0.1, 0.9, 0.3)[seed]
    scores = (rng.integers(0, levels, 200) / levels + 0.2 * labels) / 1.2
    found = flat(scores_of(labels.astype(int), scores))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    roc, pr = curves_of(labels, scores)
    np.testing.assert_allclose(roc.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(roc.tpr, tpr, atol=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(pr.precision, precision[-2::-1], atol=1e-12)
    np.testing.assert_allclose(pr.recall, recall[-2::-1], atol=1e-12)
    assert found["sensitivity_at_90_specificity"] == pytest.approx(tpr[fpr <= 0.1 + 1e-9].max())


@pytest.mark.parametrize("seed", range(6))
def test_partial_auc_brier_log_loss_and_f1_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(150) < (0.5, 0.1, 0.9)[seed % 3]).astype(int)
    scores = (rng.integers(0, (7, 100_000)[seed % 2] + 1, 150) / (7, 100_000)[seed % 2]) ** 2
    found = flat(scores_of(labels, scores))
    assert found["partial_auc"] == pytest.approx(roc_auc_score(labels, scores, max_fpr=0.2), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, scores), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores), rel=1e-9)
    assert found["f1_at_half"] == pytest.approx(f1_score(labels, scores >= 0.5), abs=1e-12)
    assert found["accuracy_at_half"] == pytest.approx(accuracy_score(labels, scores >= 0.5), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert found["specificity_at_90_sensitivity"] == pytest.approx(1 - fpr[tpr >= 0.9 - 1e-9].min())


def test_pf1_and_ece_by_hand():
    found = flat(scores_of([1, 0, 1], [0.9, 0.3, 0.6]))
    # Of 1.8 counted positives 1.5 are true: precision 1.5 / 1.8, recall 1.5 / 2, F1 = 2 * 1.5 / (2 + 1.8).
    assert found["pf1"] == pytest.approx(3 / 3.8)
    # Bins 0.9, 0.3, 0.6 hold one case each: gaps 0.1, 0.3, 0.4, each a third.
    assert found["ece"] == pytest.approx(0.8 / 3)
    # In one bin gaps of either sign meet: (1 - 0.75) + (0 - 0.71).
    assert flat(scores_of([1, 0], [0.75, 0.71]))["ece"] == pytest.approx(0.46 / 2)


def test_reliability_counts_bins_by_hand():
    found = flat(reliability([1, 0, 1, 1], [0.0, 0.05, 0.1, 1.0]))
    assert found["count"] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found["mean_score"][:3] == [0.025, 0.1, None]
    assert found["share_positive"] == [0.5, 1.0, *[None] * 7, 1.0]
    assert found["edges"][0] == 0
    assert found["edges"][-1] == 1


@pytest.mark.parametrize("seed", range(8))
def test_weighted_figures_equal_those_of_repeated_cases(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 12, 60)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 8
    weights = rng.integers(0, 4, 12)
    repeated = np.repeat(np.arange(60), weights[clusters])
    expected = flat(scores_of(labels[repeated], scores[repeated]))
    row = ScoreFigures(labels, scores, clusters).row(weights.astype(float))
    assert row == pytest.approx([expected[name] for name in FIGURES], abs=1e-12)


def test_weighted_figures_of_one_class_are_not_defined():
    measure = ScoreFigures([1, 0], [0.8, 0.1], [0, 1])
    row = dict(zip(FIGURES, measure.row(np.array([2.0, 0.0])), strict=True))
    assert np.isnan(row["roc_auc"])
    assert np.isnan(row["partial_auc"])
    assert row["brier"] == pytest.approx(0.04)
    assert np.isnan(measure.row(np.zeros(2))).all()


def test_label_figures_by_hand():
    chosen = Cases(np.arange(5), np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.2, 0.5, 0.4, 0.1]))
    measure = ThresholdFigures(chosen, 0.4, np.arange(5))
    assert count_at(chosen.labels == 1, chosen.scores, 0.4) == {"tp": 1, "fp": 2, "tn": 1, "fn": 1}
    assert measure.row(np.ones(5)) == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2, 2 / 5, 2 / 5, 5 / 11])
    # Without the third case, and the first twice: tp 2, fp 1, tn 1, fn 1.
    assert measure.row(np.array([2.0, 1, 0, 1, 1])) == pytest.approx(
        [2 / 3, 1 / 2, 2 / 3, 1 / 2, 3 / 5, 4 / 6, 10 / 15]
    )


def test_roc_auc_counts_ties_half():
    # Pairs of a positive and a negative: 0.8 > 0.5, 0.8 > 0.2, 0.5 = 0.5, 0.5 > 0.2: (3 + 1/2) / 4.
    found = flat(scores_of([1, 0, 1, 0], [0.8, 0.5, 0.5, 0.2]))
    assert found["roc_auc"] == 0.875
    roc, _ = curves_of([1, 0, 1, 0], [0.8, 0.5, 0.5, 0.2])
    assert (roc.fpr, roc.tpr) == ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    # Steps in recall: 1/2 at precision 1, then 1/2 at precision 2/3.
    assert found["pr_auc"] == pytest.approx(5 / 6)


def test_roc_auc_of_one_score_for_all_is_one_half():
    found = flat(scores_of([1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]))
    assert (found["roc_auc"], found["pr_auc"], found["sensitivity_at_90_specificity"]) == (0.5, 0.25, 0.0)


def test_sensitivity_at_90_specificity_allows_one_false_positive_of_ten():
    labels, scores = [1, 0, 1, *[0] * 9], [0.9, 0.8, 0.7, *[0.1] * 9]
    assert flat(scores_of(labels, scores))["sensitivity_at_90_specificity"] == 1.0
    assert flat(scores_of(labels[:-1], scores[:-1]))["sensitivity_at_90_specificity"] == 0.5


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_figures_of_one_class_are_none(labels):
    found = flat(scores_of(labels, [0.5] * len(labels)))
    assert curves_of(labels, [0.5] * len(labels)) == (None, None)
    assert found["roc_auc"] is found["pr_auc"] is found["sensitivity_at_90_specificity"] is None


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 1], [0.5]), ([[0, 1]], [[0.1, 0.2]]), (1, 0.5), ([0, 1], [[0.1], [0.2]])]
)
def test_figures_refuse_wrong_shapes(labels, scores):
    with pytest.raises(ValueError, match="expected one shape"):
        scores_of(labels, scores)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 2], [0.1, 0.2]),
        ([0, None], [0.1, 0.2]),
        ([0, float("nan")], [0.1, 0.2]),
        ([0, 1], [0.1, float("nan")]),
        ([0, 1], [0.1, 1.1]),
    ],
)
def test_figures_refuse_unknown_labels_and_scores(labels, scores):
    with pytest.raises(ValueError, match="expected labels 0 or 1, and scores in"):
        scores_of(labels, scores)


def test_long_curves_are_thinned_with_both_ends():
    scores = np.arange(4000) / 4000
    roc, pr = curves_of(np.arange(4000) % 3 == 0, scores)
    assert len(roc.fpr) == len(roc.tpr) == len(pr.recall) == len(pr.precision) == 1000
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
