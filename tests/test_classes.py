"""Figures of questions with several classes: equal to scikit-learn's, by hand at the edges, and in metrics.json."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from sklearn import metrics as sk
from small_cases import dataset, image, lesion, prediction
from small_metrics import flat

from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.classes import CLASS_FIGURES, FIGURES, ClassFigures, class_results, scale_ranks
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import NO_BOXES, metrics_from_json
from mammodet.reporting.report_tables import to_screen

A = (10, 10, 30, 30)


def row_of(truth, probabilities, *, weights=None, clusters=None, ranks=None):
    """Every figure by name."""
    clusters = np.arange(len(truth)) if clusters is None else np.asarray(clusters)
    figures = ClassFigures(truth, probabilities, clusters, ranks=ranks)
    size = int(clusters.max(initial=-1)) + 1
    values = figures.row(np.ones(size) if weights is None else np.asarray(weights, dtype=np.float64))
    each = [f"class {number}/{name}" for number in range(figures.n_classes) for name in CLASS_FIGURES]
    return dict(zip((*FIGURES, *each), values.tolist(), strict=True))


def one_hot(*positions, classes=3):
    return np.eye(classes)[list(positions)]


def by_scikit_learn(truth, probabilities, weight, n_classes):
    """The same figures, of classes that all have cases."""
    called, labels = probabilities.argmax(axis=1), list(range(n_classes))
    known = probabilities.shape[1]
    more = {"sample_weight": weight, "labels": labels, "zero_division": 0}
    kappa = {"labels": labels, "sample_weight": weight}
    areas = [sk.roc_auc_score(truth == c, probabilities[:, c], sample_weight=weight) for c in range(known)]
    areas += [np.nan] * (n_classes - known)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, called, **more)
    precision[[not weight[called == c].sum() for c in labels]] = np.nan
    expected = {
        "accuracy": sk.accuracy_score(truth, called, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called, sample_weight=weight),
        "kappa": sk.cohen_kappa_score(truth, called, **kappa),
        "quadratic_kappa": sk.cohen_kappa_score(truth, called, weights="quadratic", **kappa),
        "macro_precision": sk.precision_score(truth, called, average="macro", **more),
        "macro_f1": sk.f1_score(truth, called, average="macro", **more),
        "macro_roc_auc": np.nanmean(areas),
        "log_loss": np.nan,
    }
    if known == n_classes:
        expected["log_loss"] = sk.log_loss(truth, probabilities, sample_weight=weight, labels=labels)
    each = np.stack([precision, recall, f1, areas], axis=1)
    expected |= {f"class {c}/{name}": each[c, i] for c in labels for i, name in enumerate(CLASS_FIGURES)}
    return expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("unknown", [0, 2])
def test_figures_equal_scikit_learn_under_random_weights_of_patients(seed, unknown):
    rng = np.random.default_rng(seed)
    known, n = int(rng.integers(2, 6)), 80
    truth = rng.permutation(np.arange(n) % (known + unknown))
    probabilities = rng.dirichlet(np.ones(known), n)
    if seed % 2:  # equal probabilities
        probabilities = (probabilities * 4 + 1).round()
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    clusters = rng.integers(30, size=n)
    weights = rng.integers(0, 4, size=30)
    found = row_of(truth, probabilities, weights=weights, clusters=clusters, ranks=range(known + unknown))
    weight = weights[clusters]
    some = weight > 0
    assert set(truth[some]) == set(range(known + unknown))
    expected = by_scikit_learn(truth[some], probabilities[some], weight[some].astype(float), known + unknown)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_weights_are_repeated_patients():
    rng = np.random.default_rng(3)
    truth, probabilities = rng.integers(0, 3, 30), rng.dirichlet(np.ones(3), 30)
    weights = rng.integers(0, 3, 30)
    repeated = np.repeat(np.arange(30), weights)
    assert row_of(truth, probabilities, weights=weights, ranks=(0, 1, 2)) == pytest.approx(
        row_of(truth[repeated], probabilities[repeated], ranks=(0, 1, 2)), nan_ok=True
    )


def test_a_class_that_is_never_predicted_has_no_precision_and_counts_as_zero_in_the_mean():
    found = row_of([0, 0, 1, 2], one_hot(0, 0, 1, 0))
    assert np.isnan(found["class 2/precision"])
    assert (found["class 2/recall"], found["class 2/f1"]) == (0, 0)
    assert found["macro_precision"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 + 0) / 3)
    # agreement 3/4; by chance 1/2 * 3/4 + 1/4 * 1/4 + 0 = 7/16
    assert found["kappa"] == pytest.approx((3 / 4 - 7 / 16) / (9 / 16))


def test_a_class_without_cases_has_neither_recall_nor_f1_nor_auc_and_no_part_in_the_means():
    found = row_of([0, 0, 1], one_hot(0, 2, 1))
    assert found["class 2/precision"] == 0
    assert np.isnan([found[f"class 2/{name}"] for name in ("recall", "f1", "roc_auc")]).all()
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["macro_precision"] == 1
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_roc_auc"] == pytest.approx((0.75 + 1) / 2)


def test_a_true_class_that_the_model_does_not_know_is_an_error():
    found = row_of([0, 1, 2], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["class 2/recall"] == found["class 2/f1"] == 0
    assert np.isnan([found["class 2/precision"], found["class 2/roc_auc"], found["log_loss"]]).all()
    # the unknown one stands among the others of class 0 (0.9 against 0.2 and 0.7) and of class 1
    assert found["class 0/roc_auc"] == found["class 1/roc_auc"] == 1
    figures = ClassFigures([0, 1, 2], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], [0, 1, 2])
    assert figures.confusion().tolist() == [[1, 0], [0, 1], [1, 0]]
    assert figures.confusion(np.array([1.0, 2.0, 3.0])).tolist() == [[1, 0], [0, 2], [3, 0]]


def test_of_equal_probabilities_the_first_class_is_predicted():
    found = row_of([0, 1], [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert found["accuracy"] == 1
    assert row_of([1, 2], [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])["accuracy"] == 0


def test_equal_probabilities_count_half_in_the_auc():
    # class 0: 0.5 against 0.5 (half) and 0.2 (right); 0.3 against 0.5 (wrong) and 0.2 (right): 2.5 of 4
    found = row_of([0, 0, 1, 1], [[0.5, 0.5], [0.3, 0.7], [0.5, 0.5], [0.2, 0.8]])
    assert found["class 0/roc_auc"] == pytest.approx(2.5 / 4)


def test_steps_weigh_by_their_square_in_quadratic_kappa():
    # one mistake of two steps: (4/4) against chance, rows (2, 1, 1)/4 and columns (1, 1, 2)/4:
    # (2*(1*0 + 1*1 + 2*4) + 1*(1 + 0 + 2) + 1*(4 + 1 + 0)) / 16 = 26/16
    found = row_of([0, 0, 1, 2], one_hot(0, 2, 1, 2), ranks=(0, 1, 2))
    assert found["quadratic_kappa"] == pytest.approx(1 - (4 / 4) / (26 / 16))
    assert np.isnan(row_of([0, 0, 1, 2], one_hot(0, 2, 1, 2))["quadratic_kappa"])


def test_one_class_alone_has_no_kappa_and_no_auc():
    found = row_of([1, 1], one_hot(1, 1))
    assert (found["accuracy"], found["macro_f1"], found["log_loss"]) == (1, 1, 0)
    assert np.isnan([found["kappa"], found["macro_roc_auc"]]).all()


def test_no_weight_defines_nothing():
    assert np.isnan(list(row_of([0, 1, 2], one_hot(0, 1, 2), weights=[0, 0, 0]).values())).all()


def test_a_probability_of_zero_for_the_true_class_is_finite():
    assert row_of([0], one_hot(1))["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))


def test_a_large_set_is_resampled_in_seconds():
    rng = np.random.default_rng(0)
    figures = ClassFigures(
        rng.integers(0, 8, 10_000), rng.dirichlet(np.ones(8), 10_000), rng.integers(0, 2500, 10_000), ranks=range(8)
    )
    weights = rng.integers(0, 3, 2500).astype(np.float64)
    start = time.process_time()
    for _ in range(20):
        figures.row(weights)
    assert (time.process_time() - start) / 20 < 0.02  # about 1 ms on one core


def classified(number, *, scores=None, **classes):
    """`classes`: question to class to probability; `_` in a question's name stands for `+`."""
    return prediction(
        number, scores=scores, class_scores={name.replace("_", "+"): one for name, one in classes.items()}
    )


def metrics_of(data, predictions, *, kind="classifier", resamples=0):
    metrics = evaluate(data, [Entry("ours", predictions, kind=kind)], Options(resamples=resamples)).metrics
    return metrics, flat(metrics.models[0])


def four_images(answers, **more):
    data = dataset(*(image(n, density=d, patient_id=f"p{n}") for n, d in enumerate("ABBC", start=1)), **more)
    return data, [classified(n, density=one) for n, one in enumerate(answers, start=1)]


def test_section_holds_counts_by_hand():
    # given in another order than that of the scale, which the section follows
    answers = [{"C": 0.0, "A": 0.6, "B": 0.4}, {"C": 0.1, "A": 0.1, "B": 0.8}, {"C": 0.2, "A": 0.7, "B": 0.1}]
    data, predictions = four_images([*answers, {"C": 0.4, "A": 0.2, "B": 0.4}])
    metrics, model = metrics_of(data, predictions, resamples=100)
    found = model["classes"]["density"]
    assert found["classes"] == found["true_classes"] == ["A", "B", "C"]
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]  # the tie of B and C is B
    assert (found["n"], found["n_without_truth"], found["n_without_answer"]) == (4, 0, 0)
    assert found["accuracy"] == 0.5
    low, high = metrics.models[0].classes["density"].accuracy.ci95
    assert low < 0.5 < high
    # squared steps: observed 1 + 1; by chance rows 1, 2, 1 and columns 2, 2, 0: (0+2+0 + 4+0+0 + 8+2+0)/4 = 4
    assert found["quadratic_kappa"] == pytest.approx(1 - 2 / 4)
    assert [(one["name"], one["support"], one["predicted"]) for one in found["per_class"]] == [
        ("A", 1, 2), ("B", 2, 2), ("C", 1, 0)
    ]  # fmt: skip
    assert [one["precision"] for one in found["per_class"]] == [0.5, 0.5, None]
    assert metrics_from_json(json.loads(json.dumps(metrics.to_json(), allow_nan=False)), "x") == metrics
    assert re.search(r"density: balanced accuracy +0.500", to_screen(metrics))


def test_images_without_truth_or_answer_are_left_out_and_counted():
    data = dataset(image(1, density="A"), image(2), image(3, density="B"), image(4))
    both = {"A": 1.0, "B": 0.0}
    predictions = [classified(1, density=both), classified(2, density=both), prediction(3), prediction(4)]
    _, model = metrics_of(data, predictions)
    found = model["classes"]["density"]
    assert (found["n"], found["n_without_truth"], found["n_without_answer"]) == (1, 1, 2)
    assert "density: 1 images do not say their class and are left out." in model["notes"]
    assert "density: 2 images have no answer and are left out." in model["notes"]


def test_a_question_without_any_truth_has_no_section():
    _, model = metrics_of(dataset(image(1)), [classified(1, birads={"1": 0.5, "2": 0.5})])
    assert model["classes"] == {}
    assert any("birads: no image has both" in note for note in model["notes"])


def test_classes_that_the_model_does_not_know_have_a_row_and_a_note():
    data, predictions = four_images([{"A": 0.9, "B": 0.1}] * 4)
    metrics, model = metrics_of(data, predictions)
    found = model["classes"]["density"]
    assert (found["classes"], found["true_classes"]) == (["A", "B"], ["A", "B", "C"])
    assert found["confusion"] == [[1, 0], [2, 0], [1, 0]]
    assert (found["accuracy"], found["log_loss"]) == (0.25, None)
    assert found["quadratic_kappa"] == 0  # a constant answer
    assert found["per_class"][2]["predicted"] is None
    assert any(note.endswith("counts as an error: C (1).") for note in model["notes"])
    assert "counts as an error: C (1)" in to_screen(metrics)


def test_images_of_one_question_must_have_the_same_classes():
    data = dataset(image(1, density="A"), image(2, density="B"))
    predictions = [classified(1, density={"A": 0.5, "B": 0.5}), classified(2, density={"A": 0.5, "C": 0.5})]
    with pytest.raises(ValueError, match=r"ours: class scores of density: image 'images/im2.png' has .*'A', 'C'"):
        metrics_of(data, predictions)


@pytest.mark.parametrize(
    ("question", "classes", "ranks"),
    [
        ("density", ("D", "A", "C"), [3, 0, 2]), ("density", ("D", "F", "G"), [2, 0, 1]), ("density", ("A", "2"), None),
        ("birads", ("2", "4B", "5"), [1, 5, 7]), ("birads", ("0", "1", "2"), None), ("class", ("A", "B"), None),
        ("density+malignant", ("A benign", "B benign"), None),
    ],
)  # fmt: skip
def test_only_classes_on_one_scale_have_an_order(question, classes, ranks):
    assert scale_ranks(question, classes) == ranks


def test_classes_without_an_order_have_no_quadratic_kappa():
    data = dataset(image(1, class_name="x"), image(2, class_name="a"))
    answer = {"x": 0.5, "a": 0.5}
    _, model = metrics_of(data, [prediction(n, class_scores={"class": answer}) for n in (1, 2)])
    found = model["classes"]["class"]
    assert found["classes"] == ["a", "x"]  # by name, whatever the file's order
    assert found["confusion"] == [[1, 0], [1, 0]]
    assert (found["ordered"], found["quadratic_kappa"], found["kappa"]) == (False, None, 0)


def test_a_joined_question_is_answered_by_the_record():
    data = dataset(image(1, density="B", labels={"malignant": 1}), image(2, density="B", labels={"malignant": 0}))
    answers = [{"B malignant": 0.7, "B benign": 0.3}, {"B malignant": 0.7, "B benign": 0.3}]
    _, model = metrics_of(data, [classified(n, density_malignant=one) for n, one in enumerate(answers, start=1)])
    assert model["classes"]["density+malignant"]["confusion"] == [[0, 1], [0, 1]]


def test_two_models_are_compared_on_their_classes():
    right, wrong = {"A": 1.0, "B": 0.0, "C": 0.0}, {"A": 0.0, "B": 0.0, "C": 1.0}
    data, predictions = four_images([right] * 4)
    entries = [Entry("a", predictions, kind="classifier"), Entry("b", four_images([right, wrong, wrong, wrong])[1])]
    metrics = evaluate(data, entries, Options(resamples=100)).metrics
    found = {one.figure: one.difference.value for one in metrics.comparisons[0].differences}
    assert found["density: accuracy"] == pytest.approx(0.5 - 0.25)
    assert len(found) == len(FIGURES)
    assert all(name.startswith("density: ") for name in found)
    assert re.search(r"density: accuracy +0.250 +0.500 +\+0.250", to_screen(metrics))


def test_a_classifier_has_no_figures_of_places():
    data = dataset(
        image(1, lesion(A), labels={"tumor": 1}, view="CC"), image(2, labels={"tumor": 0}, view="CC"),
        image(3, lesion(A), labels={"tumor": 1}, view="MLO", unlocalized=True), image(4, view="MLO"),
    )  # fmt: skip
    predictions = [prediction(n, scores={"tumor": score}) for n, score in enumerate((0.9, 0.1, 0.6, 0.2), start=1)]
    result = evaluate(data, [Entry("ours", predictions, kind="classifier")], Options(resamples=0))
    model = flat(result.metrics.models[0])
    assert (model["kind"], model["detection"], model["froc"], model["masks"]) == ("classifier", None, None, None)
    assert model["image"]["tumor"]["roc_auc"] == 1
    assert [(one["value"], one["roc_auc"]) for one in model["strata"]] == [("CC", 1.0), ("MLO", None)]
    assert model["notes"] == [NO_BOXES]
    assert not [note for note in result.metrics.notes if "AP" in note]
    facts = result.metrics.protocol
    assert (facts.match, facts.denominator, facts.duplicates) == (None, None, None)
    assert result.outcomes == {"ours": []}
    table = to_screen(result.metrics)
    assert "4 images, 0 patients\n" in table
    for word in ("lesions", "AP50", "CPM"):
        assert word not in table.replace(NO_BOXES, "")


def test_a_detector_beside_a_classifier_keeps_its_figures():
    data = dataset(image(1, lesion(A), labels={"tumor": 1}), image(2, labels={"tumor": 0}))
    scores = [{"tumor": 0.9}, {"tumor": 0.2}]
    bare = [prediction(n, scores=one) for n, one in enumerate(scores, start=1)]
    boxes = [prediction(1, (A, 0.9), scores=scores[0]), prediction(2, scores=scores[1])]
    entries = [Entry("c", bare, kind="classifier"), Entry("d", boxes)]
    metrics = evaluate(data, entries, Options(resamples=0)).metrics
    first, second = flat(metrics.models)
    assert first["froc"] is None
    assert [second["froc"]["cpm"], second["detection"]["bbox"]["AP50"]] == pytest.approx([1, 1])
    assert metrics.protocol.match == "iou@0.2"
    found = {one.figure: one.difference.value for one in metrics.comparisons[0].differences}
    assert found["image, tumor: ROC AUC"] == 0
    assert all(name.startswith("image, tumor: ") for name in found)
    assert to_screen(metrics).count("CPM") == 1


def test_a_classifier_with_boxes_is_refused():
    data = dataset(image(1, lesion(A)))
    with pytest.raises(ValueError, match=r"said to be a classifier, and yet 1 images have detections.*im1.png"):
        metrics_of(data, [prediction(1, (A, 0.9))])


def test_figures_that_are_no_result_say_so_on_every_line():
    data, predictions = four_images([{"A": 0.2, "B": 0.5, "C": 0.3}] * 4)
    entries = [Entry("a", predictions, kind="classifier", not_a_result="why"), Entry("b", predictions)]
    metrics = evaluate(data, entries, Options(resamples=0)).metrics
    assert [model.not_a_result for model in metrics.models] == ["why", None]
    lines = to_screen(metrics).splitlines()
    start, other, pair = (lines.index(name) for name in ("a", "b", "b against a: NOT A RESULT   NOT A RESULT"))
    assert all(line.endswith("NOT A RESULT") for line in lines[start + 1 : other] if "note:" not in line)
    assert not any("NOT A RESULT" in line for line in lines[other:pair])
    assert all("NOT A RESULT" in line for line in lines[pair:] if line.startswith("  density"))


def test_questions_of_a_detector_are_measured_too():
    data, predictions = four_images([{"A": 0.2, "B": 0.5, "C": 0.3}] * 4)
    _, model = metrics_of(data, predictions, kind="detector")
    assert model["classes"]["density"]["accuracy"] == 0.5
    assert class_results(data, [prediction(n) for n in range(1, 5)], np.arange(4), Bootstrap(4, 0, 0)) == ({}, [])
