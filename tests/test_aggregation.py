"""From detections and head to one score: each rule by hand, the learned one against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import TypeAdapter

from mammodet.config import AggregationConfig
from mammodet.errors import InputError
from mammodet.modeling.aggregation import (
    LogisticStack,
    combine,
    fit_stack,
    image_scores,
    max_score,
    noisy_or,
    stack_inputs,
    top_k_mean,
)
from mammodet.records import Detections, ImagePrediction


@pytest.mark.parametrize(
    ("scores", "strongest", "any_of_them", "mean_of_two"),
    [
        ([], 0.0, 0.0, 0.0),
        ([0.5], 0.5, 0.5, 0.25),  # the missing second one counts as 0
        ([0.5, 0.25], 0.5, 1 - 0.5 * 0.75, 0.375),
        ([0.25, 0.5, 0.125], 0.5, 1 - 0.75 * 0.5 * 0.875, 0.375),
        ([1.0, 0.5, 0.0], 1.0, 1.0, 0.75),
        ([0.0, 0.0], 0.0, 0.0, 0.0),
    ],
)
def test_detection_rules_give_the_scores_worked_out_by_hand(scores, strongest, any_of_them, mean_of_two):
    values = np.array(scores, dtype=np.float32)
    assert max_score(values) == strongest
    assert noisy_or(values) == pytest.approx(any_of_them)
    assert top_k_mean(values, 2) == pytest.approx(mean_of_two)


def test_top_k_mean_with_k_one_is_the_strongest():
    assert top_k_mean(np.array([0.25, 0.75], dtype=np.float32), 1) == 0.75


def test_noisy_or_of_many_certain_detections_stays_in_range():
    scores, _ = image_scores(np.full(500, 0.9999999), {}, AggregationConfig(rule="noisy_or"))
    assert scores == {"tumor": 1.0}


# The learned rule.


def cases(count=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    inputs = [
        {"head_tumor": float(rng.beta(2 + 2 * label, 3)), "max": float(rng.beta(1 + 3 * label, 2)), "noisy_or": 1.0}
        for label in labels
    ]
    return inputs, [int(label) for label in labels]


def logit(score):
    clipped = min(max(score, 1e-4), 1 - 1e-4)
    return math.log(clipped / (1 - clipped))


def objective(stack: LogisticStack, inputs, labels, weights, bias) -> float:
    """Log loss and the pull towards the mean of the logits, written out case by case."""
    total = 0.5 * sum((weight - 1 / len(weights)) ** 2 for weight in weights)
    for row, label in zip(inputs, labels, strict=True):
        values = [logit(row[name]) for name in stack.features]
        parts = zip(weights, values, stack.centre, stack.scale, strict=True)
        answer = sum(weight * (value - centre) / scale for weight, value, centre, scale in parts) + bias
        total += math.log1p(math.exp(-answer if label else answer))
    return total


def test_stack_is_the_optimum_of_its_objective():
    inputs, labels = cases()
    stack = fit_stack(inputs, {"tumor": labels})
    weights, bias = stack.weights["tumor"]
    best = objective(stack, inputs, labels, weights, bias)
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = np.maximum(np.array(weights) + 0.1 * rng.standard_normal(len(weights)), 0.01)
        assert objective(stack, inputs, labels, other, bias + 0.1 * rng.standard_normal()) >= best - 1e-9
    # The intercept is free, so the mean probability is the share of positives.
    found = [stack.score("tumor", row) for row in inputs]
    assert np.mean(found) == pytest.approx(np.mean(labels), abs=1e-4)
    assert stack.fitted_on == {"tumor": (labels.count(0), labels.count(1))}
    assert np.std(found) > 0.1


def test_stack_never_turns_a_score_round():
    """An input that is higher on negatives by chance keeps a small positive weight."""
    inputs = [{"head_tumor": 0.2 + 0.6 * label, "max": 0.8 - 0.6 * label} for label in (0, 1) * 10]
    stack = fit_stack(inputs, {"tumor": [0, 1] * 10})
    weights = dict(zip(stack.features, stack.weights["tumor"][0], strict=True))
    assert weights["max"] == pytest.approx(0.01)
    assert weights["head_tumor"] > 1
    rising = [stack.score("tumor", {"head_tumor": 0.5, "max": score}) for score in (0.1, 0.5, 0.9)]
    assert rising == sorted(rising)
    assert rising[0] < rising[-1]


def test_stack_leaves_unknown_labels_out_of_the_fit():
    inputs, labels = cases()
    labels[:20] = [None] * 20
    stack = fit_stack(inputs, {"tumor": labels})
    known = [stack.score("tumor", row) for row in inputs[20:]]
    assert np.mean(known) == pytest.approx(np.mean(labels[20:]), abs=1e-4)
    assert sum(stack.fitted_on["tumor"]) == 40


def test_stack_json_round_trip_keeps_every_bit():
    inputs, labels = cases()
    stack = fit_stack(inputs, {"tumor": labels, "malignant": labels[::-1]})
    adapter = TypeAdapter(LogisticStack)
    back = adapter.validate_json(adapter.dump_json(stack))
    assert back == stack
    assert [back.score("malignant", row) for row in inputs] == [stack.score("malignant", row) for row in inputs]


def test_stack_has_only_the_questions_with_both_classes():
    inputs, labels = cases()
    stack = fit_stack(inputs, {"tumor": labels, "malignant": [1] * 60, "dense": [None] * 60})
    assert set(stack.weights) == set(stack.fitted_on) == {"tumor"}


@pytest.mark.parametrize("labels", [{"tumor": [1, 1]}, {"tumor": [0, None]}, {"tumor": [None, None]}, {}])
def test_stack_of_one_class_is_none(labels):
    assert fit_stack([{"max": 0.2}, {"max": 0.8}], labels) is None


def test_stack_without_images_is_none():
    assert fit_stack([], {"tumor": []}) is None


def test_stack_score_by_hand_and_at_the_ends():
    stack = LogisticStack(("max",), (0.0,), (2.0,), {"tumor": ((4.0,), -1.0)}, {"tumor": (1, 1)})
    # logit(0.5) = 0, so the bias is left; logit(0.8) = ln 4, twice that minus 1.
    assert stack.score("tumor", {"max": 0.5}) == pytest.approx(1 / (1 + math.e))
    assert stack.score("tumor", {"max": 0.8}) == pytest.approx(16 / (16 + math.e))
    steep = LogisticStack(("max",), (0.0,), (1e-3,), {"tumor": ((9.0,), 0.0)}, {"tumor": (1, 1)})
    assert 0.0 <= steep.score("tumor", {"max": 0.0}) < 1e-100
    assert steep.score("tumor", {"max": 1.0}) == 1.0


def test_stack_inputs_are_head_scores_and_the_detections_tumor_scores():
    by_rule = {
        "head": {"tumor": 0.1, "malignant": 0.2},
        "max": {"tumor": 0.3},
        "top_k_mean": {"tumor": 0.4},
        "learned": {"tumor": 0.9},
    }
    expected = {"head_tumor": 0.1, "head_malignant": 0.2, "max": 0.3, "top_k_mean": 0.4}
    assert stack_inputs(by_rule) == expected
    assert stack_inputs({}) == {}


# One image.

HEAD = {"tumor": 0.125, "malignant": 0.0625}
SCORES = np.array([0.5, 0.25])


@pytest.mark.parametrize(
    ("rule", "tumor"), [("max", 0.5), ("noisy_or", 0.625), ("top_k_mean", 0.75 / 3), ("head", 0.125), ("learned", 0.5)]
)
def test_image_scores_take_other_questions_from_the_head(rule, tumor):
    chosen, by_rule = image_scores(SCORES, HEAD, AggregationConfig(rule=rule, top_k=3))
    assert chosen == {"tumor": pytest.approx(tumor), "malignant": 0.0625}
    assert by_rule == {"max": {"tumor": 0.5}, "noisy_or": {"tumor": 0.625}, "top_k_mean": {"tumor": 0.25}, "head": HEAD}


@pytest.mark.parametrize(("rule", "tumor"), [("max", 0.5), ("noisy_or", 0.625), ("top_k_mean", 0.375)])
def test_image_scores_without_head_speak_of_tumor_only(rule, tumor):
    chosen, by_rule = image_scores(SCORES, {}, AggregationConfig(rule=rule, top_k=2))
    assert chosen == {"tumor": pytest.approx(tumor)}
    assert set(by_rule) == {"max", "noisy_or", "top_k_mean"}


def test_image_scores_without_detections_are_zero_but_for_the_head():
    chosen, by_rule = image_scores(np.zeros(0), HEAD, AggregationConfig(rule="max"))
    assert chosen == {"tumor": 0.0, "malignant": 0.0625}
    assert [by_rule[rule] for rule in ("max", "noisy_or", "top_k_mean")] == [{"tumor": 0.0}] * 3


def test_image_scores_fall_back_where_the_stack_lacks_a_question():
    only_malignant = LogisticStack(("head_malignant",), (0.0,), (1.0,), {"malignant": ((0.0,), 0.0)}, {})
    chosen, by_rule = image_scores(SCORES, HEAD, AggregationConfig(rule="learned"), only_malignant)
    assert chosen == {"tumor": 0.5, "malignant": 0.5}
    assert by_rule["learned"] == {"malignant": 0.5}
    only_tumor = LogisticStack(("max",), (0.0,), (1.0,), {"tumor": ((1.0,), math.log(3))}, {})
    chosen, _ = image_scores(SCORES, HEAD, AggregationConfig(rule="learned"), only_tumor)
    assert chosen == {"tumor": pytest.approx(0.75), "malignant": 0.0625}


def test_image_scores_show_a_stack_that_was_not_chosen():
    stack = LogisticStack(("max",), (0.0,), (1.0,), {"tumor": ((0.0,), 0.0)}, {})
    chosen, by_rule = image_scores(np.array([0.25]), {}, AggregationConfig(rule="max"), stack)
    assert chosen == {"tumor": 0.25}
    assert by_rule["learned"] == {"tumor": 0.5}


# Breasts and patients.


def view(number, patient, side, **scores):
    found = Detections.empty(with_masks=False)
    return ImagePrediction(number, f"{number}.png", (9, 9), scores, found, patient_id=patient, laterality=side)


VIEWS = (
    view(1, "p", "L", tumor=0.2, malignant=0.1),
    view(2, "p", "L", tumor=0.6),
    view(3, "p", "R", tumor=0.1),
    view(4, "p", None, tumor=0.9),
    view(5, None, "L", tumor=1.0),
    view(6, "q", "R"),
)


def test_combine_joins_the_views_of_a_breast():
    strongest = {("p", "L"): {"tumor": 0.6, "malignant": 0.1}, ("p", "R"): {"tumor": 0.1}, ("q", "R"): {}}
    assert combine(VIEWS, "breast", "max") == strongest
    mean = combine(VIEWS, "breast", "mean")
    assert mean[("p", "L")] == pytest.approx({"tumor": 0.4, "malignant": 0.1})


def test_combine_joins_the_images_of_a_patient():
    assert combine(VIEWS, "patient", "max") == {("p",): {"tumor": 0.9, "malignant": 0.1}, ("q",): {}}
    mean = combine(VIEWS, "patient", "mean")
    assert mean[("p",)] == pytest.approx({"tumor": (0.2 + 0.6 + 0.1 + 0.9) / 4, "malignant": 0.1})


def test_combine_of_nothing_is_empty():
    assert combine([], "patient", "max") == {}


@pytest.mark.parametrize(("level", "how", "words"), [("image", "max", "'image'"), ("breast", "median", "'median'")])
def test_combine_refuses_other_levels_and_ways(level, how, words):
    with pytest.raises(InputError, match=f"{words}: expected"):
        combine(VIEWS, level, how)
