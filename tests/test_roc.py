"""ROC and precision-recall figures: scikit-learn's, and those that can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from mammodet.evaluation.roc import classification_figures


@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_classification_figures_equal_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < (0.5, 0.1, 0.9, 0.3)[seed]
    scores = rng.integers(0, levels, 200) / levels + 0.2 * labels
    found = classification_figures(labels.astype(int), scores)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(found["roc"]["fpr"], fpr, atol=1e-12)
    np.testing.assert_allclose(found["roc"]["tpr"], tpr, atol=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(found["pr"]["precision"], precision[-2::-1], atol=1e-12)
    np.testing.assert_allclose(found["pr"]["recall"], recall[-2::-1], atol=1e-12)
    assert found["sensitivity_at_90_specificity"] == pytest.approx(tpr[fpr <= 0.1 + 1e-9].max())
    assert (found["n_positive"], found["n_negative"]) == (labels.sum(), 200 - labels.sum())


def test_roc_auc_counts_ties_half():
    # Pairs of a positive and a negative: 0.8 > 0.5, 0.8 > 0.2, 0.5 = 0.5, 0.5 > 0.2: (3 + 1/2) / 4.
    found = classification_figures([1, 0, 1, 0], [0.8, 0.5, 0.5, 0.2])
    assert found["roc_auc"] == 0.875
    assert found["roc"] == {"fpr": [0.0, 0.0, 0.5, 1.0], "tpr": [0.0, 0.5, 1.0, 1.0]}
    # Steps in recall: 1/2 at precision 1, then 1/2 at precision 2/3.
    assert found["pr_auc"] == pytest.approx(5 / 6)


def test_roc_auc_of_one_score_for_all_is_one_half():
    found = classification_figures([1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3])
    assert (found["roc_auc"], found["pr_auc"], found["sensitivity_at_90_specificity"]) == (0.5, 0.25, 0.0)


def test_sensitivity_at_90_specificity_allows_one_false_positive_of_ten():
    labels, scores = [1, 0, 1, *[0] * 9], [0.9, 0.8, 0.7, *[0.1] * 9]
    assert classification_figures(labels, scores)["sensitivity_at_90_specificity"] == 1.0
    assert classification_figures(labels[:-1], scores[:-1])["sensitivity_at_90_specificity"] == 0.5


@pytest.mark.parametrize(("labels", "counts"), [([1, 1], (2, 0)), ([0, 0], (0, 2)), ([], (0, 0))])
def test_classification_figures_of_one_class_are_none(labels, counts):
    found = classification_figures(labels, [0.5] * len(labels))
    assert (found["n_positive"], found["n_negative"]) == counts
    assert found["roc_auc"] is found["pr_auc"] is found["sensitivity_at_90_specificity"] is None


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 1], [0.5]), ([[0, 1]], [[0.1, 0.2]]), (1, 0.5), ([0, 1], [[0.1], [0.2]])]
)
def test_classification_figures_refuse_wrong_shapes(labels, scores):
    with pytest.raises(ValueError, match="expected one shape"):
        classification_figures(labels, scores)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([0, 2], [0.1, 0.2]), ([0, None], [0.1, 0.2]), ([0, float("nan")], [0.1, 0.2]), ([0, 1], [0.1, float("nan")])],
)
def test_classification_figures_refuse_unknown_labels_and_scores(labels, scores):
    with pytest.raises(ValueError, match="expected labels 0 or 1, and finite scores"):
        classification_figures(labels, scores)


def test_long_curves_are_thinned_with_both_ends():
    scores = np.arange(4000) / 4000
    found = classification_figures(np.arange(4000) % 3 == 0, scores)
    roc = found["roc"]
    assert len(roc["fpr"]) == len(roc["tpr"]) == len(found["pr"]["recall"]) == len(found["pr"]["precision"]) == 1000
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0.0, 0.0, 1.0, 1.0)
    json.dumps(found, allow_nan=False)
