"""metrics.json: levels joined by hand, notes, and what may not be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from small_cases import dataset, image, lesion, prediction, random_case
from small_metrics import flat

from mammodet.evaluation.average_precision import average_precision
from mammodet.evaluation.cases import cases
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.froc import DENOMINATORS, FPPI_POINTS, froc
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import ModelFacts, metrics_from_json
from mammodet.evaluation.roc import scores_of
from mammodet.evaluation.validation import detector_figures
from mammodet.reporting.report_tables import to_screen

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)


def metrics_of(data, predictions, **options):
    """metrics.json of one model, without intervals unless asked for, and the model's part of it."""
    options = Options(**{"resamples": 0, **options})
    metrics = flat(evaluate(data, [Entry("ours", predictions)], options).metrics)
    return metrics, metrics["models"][0]


def level_figures(data, predictions, level, label, how="max"):
    chosen = cases(data, predictions, level, label, how)
    if not len(chosen):
        return None
    counts = {"n_positive": int(chosen.labels.sum()), "n_negative": int((chosen.labels == 0).sum())}
    return {**counts, **flat(scores_of(chosen.labels, chosen.scores))}


#: patient, side, tumor label, score
WOMEN = (
    ("p1", "L", 1, 0.2),
    ("p1", "L", 0, 0.6),
    ("p1", "R", 0, 0.1),
    ("p2", "L", None, 0.9),
    ("p2", "R", 0, 0.3),
    ("p3", "L", 0, 0.5),
    ("p3", "L", None, 0.4),
    ("p3", "R", 0, 0.5),
    ("p4", "L", 0, 0.6),
    ("p5", None, 1, 0.0),
    (None, "L", 1, 0.0),
)


def women():
    records = [
        image(number, patient_id=patient, laterality=side, labels={"tumor": label})
        for number, (patient, side, label, _) in enumerate(WOMEN, start=1)
    ]
    predictions = [prediction(number, scores={"tumor": score}) for number, (*_, score) in enumerate(WOMEN, start=1)]
    return dataset(*records), predictions


@pytest.mark.parametrize(
    ("level", "how", "positive", "negative", "auc"),
    [
        # 0.2, 0, 0 against 0.6, 0.1, 0.3, 0.5, 0.5, 0.6: one pair of 18 is right.
        ("image", "max", 3, 6, 1 / 18),
        # p1 L is 0.6 against p1 R 0.1, p2 R 0.3, p3 R 0.5, p4 L 0.6; p2 L and p3 L are not known.
        ("breast", "max", 1, 4, 3.5 / 4),
        # p1 L is (0.2 + 0.6) / 2 = 0.4.
        ("breast", "mean", 1, 4, 2 / 4),
        # p1 0.6 and p5 0.0 against p4 0.6; p2 and p3 are not known.
        ("patient", "max", 2, 1, 0.5 / 2),
        # p1 is 0.9 / 3 = 0.3.
        ("patient", "mean", 2, 1, 0.0),
    ],
)
def test_level_figures_join_images_as_by_hand(level, how, positive, negative, auc):
    data, predictions = women()
    found = level_figures(data, predictions, level, "tumor", how)
    assert (found["n_positive"], found["n_negative"]) == (positive, negative)
    assert found["roc_auc"] == pytest.approx(auc)
    _, model = metrics_of(data, predictions, over_images=how)
    assert model[level]["tumor"]["roc_auc"] == pytest.approx(auc)


def test_level_figures_are_none_without_scores_or_known_labels():
    data = dataset(image(1, labels={"tumor": 1, "malignant": None}), image(2, labels={"tumor": 0}))
    scores = {"malignant": 0.5}
    predictions = [prediction(1, scores=scores), prediction(2, scores=scores)]
    assert level_figures(data, predictions, "image", "tumor") is None
    assert level_figures(data, predictions, "image", "malignant") is None
    _, model = metrics_of(data, predictions)
    assert model["image"] == model["breast"] == model["patient"] == {}


def test_level_figures_take_the_label_of_an_image_that_has_no_score():
    data = dataset(
        image(1, patient_id="p", laterality="L", labels={"tumor": 1}),
        image(2, patient_id="p", laterality="L", labels={"tumor": 0}),
        image(3, patient_id="q", laterality="L", labels={"tumor": 0}),
    )
    predictions = [prediction(1), prediction(2, scores={"tumor": 0.7}), prediction(3, scores={"tumor": 0.2})]
    found = level_figures(data, predictions, "breast", "tumor")
    assert (found["n_positive"], found["n_negative"], found["roc_auc"]) == (1, 1, 1.0)
    assert level_figures(data, predictions, "image", "tumor")["n_positive"] == 0


def test_level_figures_show_the_auc_of_every_rule():
    data = dataset(image(1, labels={"tumor": 1}), image(2, labels={"tumor": 0}))
    by_rule = [
        {"max": {"tumor": 0.1}, "head": {"tumor": 0.9, "malignant": 0.5}},
        {"max": {"tumor": 0.8}, "head": {"tumor": 0.2, "malignant": 0.5}},
    ]
    predictions = [
        prediction(number, scores={"tumor": 0.5}, scores_by_rule=rules) for number, rules in enumerate(by_rule, start=1)
    ]
    _, model = metrics_of(data, predictions)
    found = model["image"]["tumor"]
    assert found["roc_auc"] == 0.5
    assert {rule: one["roc_auc"] for rule, one in found["by_rule"].items()} == {"head": 1.0, "max": 0.0}


@pytest.mark.parametrize("count_seconds", [True, False])
def test_evaluate_holds_the_same_figures_as_its_parts(count_seconds):
    data, predictions = random_case(4, categories=("mass", "calc"))
    metrics, model = metrics_of(data, predictions, match="center", count_seconds=count_seconds)
    for kind in ("bbox", "segm"):
        assert model["detection"][kind] == flat(average_precision(data, predictions, kind))
    facts = metrics["protocol"]
    assert (facts["match"], facts["denominator"]) == ("center", "all images")
    assert facts["duplicates"] == ("false positive" if count_seconds else "ignored")
    assert facts["n_lesions"] == model["froc"]["n_lesions"]
    curves = [model["froc"], *model["froc_others"]]
    rules = ["iou@0.1", "iou@0.2", "iou@0.5", "center", "mask_iou@0.5"]
    assert {(one["match"], one["denominator"]) for one in curves} == {(r, d) for r in rules for d in DENOMINATORS}
    for one in curves:
        expected = froc(data, predictions, one["match"], denominator=one["denominator"], count_seconds=count_seconds)
        assert one["cpm"] == pytest.approx(expected.cpm, abs=1e-12)
        assert [point["sensitivity"] for point in one["points"]] == pytest.approx(
            [expected.at(point) for point in FPPI_POINTS], abs=1e-12
        )
        assert one["n_images"] == expected.images


def test_evaluate_stamps_facts_and_overrides():
    data, predictions = random_case(4)
    entry = Entry("ours", predictions, ModelFacts(checkpoint_sha256="abc"), ["a note"])
    metrics = evaluate(data, [entry], Options(resamples=0), facts={"split_hash": "s"}, overrides=["leakage"]).metrics
    assert (metrics.protocol.split_hash, metrics.protocol.overrides) == ("s", ["leakage"])
    assert metrics.models[0].protocol == ModelFacts(checkpoint_sha256="abc")
    assert "a note" in metrics.models[0].notes
    assert "OVERRIDDEN: leakage" in to_screen(metrics)


def test_categories_are_scored_against_their_own_lesions():
    data = dataset(image(1, lesion(A, "mass"), lesion(B, "calc")), categories=("mass", "calc"))
    _, model = metrics_of(data, [prediction(1, (A, 0.9, 1), (B, 0.8, 1))])
    assert model["froc"]["points"][3]["sensitivity"] == 1.0
    assert model["froc_by_category"]["mass"]["cpm"] == 1.0
    assert model["froc_by_category"]["calc"]["cpm"] == 0.0


def test_outcomes_tell_what_became_of_each_lesion():
    data = dataset(image(1, lesion(A), lesion(B)), image(2, lesion(A, ignore=True)))
    predictions = [prediction(1, (FAR, 0.9), (A, 0.5), masks=True), prediction(2)]
    found, missed = evaluate(data, [Entry("ours", predictions)], Options(resamples=0)).outcomes["ours"]
    assert (found.image, found.position, found.score, found.threshold_fppi) == (0, 0, 0.5, 0.5)
    assert found.agreement["dice"] == 1.0
    assert (missed.position, missed.score, missed.threshold_fppi, missed.agreement) == (1, None, None, {})


def test_evaluate_counts_what_has_a_place():
    data = dataset(
        image(1, lesion(A), lesion(B, ignore=True), patient_id="p"),
        image(2, lesion(A), patient_id="p", unlocalized=True),
        image(3, patient_id="q"),
        image(4),
    )
    metrics, _ = metrics_of(data, [prediction(number) for number in range(1, 5)])
    facts = metrics["protocol"]
    assert (facts["n_images"], facts["n_patients"], facts["n_lesions"], facts["n_images_without_boxes"]) == (4, 2, 1, 1)
    assert any(note.startswith("1 images hold a lesion without a place") for note in metrics["notes"])


def test_evaluate_says_that_no_lesion_has_a_place():
    data = dataset(image(1, lesion(A), unlocalized=True), image(2, lesion(A, ignore=True)))
    metrics, model = metrics_of(data, [prediction(1, (A, 0.9)), prediction(2)])
    assert model["detection"]["bbox"]["AP"] is None
    assert model["froc"]["cpm"] is None
    assert any("AP and FROC cannot be computed" in note for note in metrics["notes"])


def test_evaluate_says_that_the_denominator_has_no_images():
    data = dataset(image(1, lesion(A), patient_id="p"))
    metrics, model = metrics_of(data, [prediction(1, (A, 0.9))], denominator="normal images")
    assert metrics["notes"] == ["There are no normal images: FROC cannot be computed by this denominator."]
    assert model["froc"]["cpm"] is None
    assert model["detection"]["bbox"]["AP50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lesions", "words"),
    [
        ([lesion(A, geometry="circle")], "masks are circles: mask AP"),
        ([lesion(A, geometry="circle"), lesion(B)], "masks are circles and contours: mask AP"),
        ([lesion(A, geometry="box", with_mask=False), lesion(B)], "masks are boxes and contours: mask AP"),
        ([lesion(A, with_mask=False), lesion(B)], "masks are boxes and contours: mask AP"),
    ],
)
def test_evaluate_notes_masks_that_are_no_contours(lesions, words):
    _, model = metrics_of(dataset(image(1, *lesions, patient_id="p")), [prediction(1, (A, 0.9), masks=True)])
    assert [words in note for note in model["notes"]] == [True]
    assert model["detection"]["segm"]["AP"] is not None


def test_evaluate_notes_detections_that_lie_nowhere():
    data = dataset(image(1, lesion(A), patient_id="p"))
    found = [(A, 0.9), ((10, 10, 10, 30), 0.8), ((200, 0, 220, 9), 0.7), ((90, 90, 120, 120), 0.6)]
    _, model = metrics_of(data, [prediction(1, *found)])
    assert model["notes"] == ["2 detections are empty or lie outside of their image: they count like any other."]
    assert model["froc"]["curve"]["fppi"][-1] == 3


def test_evaluate_has_no_note_for_contours():
    metrics, model = metrics_of(dataset(image(1, lesion(A), patient_id="p")), [prediction(1, (A, 0.9), masks=True)])
    assert metrics["notes"] == model["notes"] == []


@pytest.mark.parametrize("masks", [True, False])
def test_evaluate_scores_masks_only_where_both_sides_have_them(masks):
    boxes = dataset(image(1, lesion(A, geometry="box", with_mask=False)))
    _, model = metrics_of(boxes, [prediction(1, (A, 0.9), masks=masks)])
    assert model["detection"]["segm"] is None
    assert model["masks"] is None
    _, model = metrics_of(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9), masks=masks)])
    assert (model["detection"]["segm"] is not None) is masks
    assert (model["masks"] is not None) is masks


@pytest.mark.parametrize(
    ("data", "predictions"),
    [
        (dataset(), []),
        (dataset(image(1)), [prediction(1)]),
        (dataset(image(1, lesion(A))), [prediction(1)]),
        (dataset(image(1)), [prediction(1, (A, 0.4), masks=True)]),
        (dataset(image(1, labels={"tumor": 1})), [prediction(1, (A, 0.4), scores={"tumor": 0.1})]),
        random_case(5),
        women(),
    ],
)
def test_metrics_are_finite_json_and_make_a_table(data, predictions):
    metrics = evaluate(data, [Entry("ours", predictions)], Options(resamples=100)).metrics
    assert metrics_from_json(json.loads(json.dumps(metrics.to_json(), allow_nan=False)), "x") == metrics
    table = to_screen(metrics)
    assert f"{len(data.images)} images" in table
    assert "nan" not in table


def test_evaluate_refuses_predictions_in_another_order():
    data = dataset(image(1), image(2))
    for predictions in ([prediction(2), prediction(1)], [prediction(1)], [prediction(1), prediction(3)]):
        with pytest.raises(ValueError, match="in the same order"):
            evaluate(data, [Entry("ours", predictions)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"over_images": "median"}, "'median': expected max or mean"),
        ({"match": "iou@2"}, "expected center, iou@T or mask_iou@T"),
        ({"denominator": "films"}, "expected one of all images, normal images, positive images"),
        ({"resamples": 10}, "expected 0 for no intervals, or at least 100"),
        ({"resamples": 10**9}, "at most 100000"),
        ({"seed": -1}, "expected 0 or more"),
        ({"resamples": -1}, "expected 0 for no intervals, or at least 100"),
        ({"mask_score": 1.5}, "expected a number from 0 to 1"),
    ],
)
def test_options_refuse_what_they_do_not_know(options, words):
    with pytest.raises(ValueError, match=words):
        Options(**options)


def test_a_rule_has_one_name():
    assert Options(match="iou@0.20").match == "iou@0.2"
    assert Options(match="mask_iou@.50").match == "mask_iou@0.5"


def test_evaluate_refuses_models_of_one_name_and_none():
    data = dataset(image(1))
    with pytest.raises(ValueError, match="each with a name of its own"):
        evaluate(data, [Entry("a", [prediction(1)]), Entry("a", [prediction(1)])])
    with pytest.raises(ValueError, match="expected at least one"):
        evaluate(data, [])


def test_evaluate_refuses_a_mask_rule_without_masks():
    with pytest.raises(ValueError, match="the predictions hold no masks"):
        metrics_of(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9))], match="mask_iou@0.5")


def test_notes_that_all_models_share_are_told_once():
    data = dataset(image(1, lesion(A, geometry="circle"), patient_id="p"))
    entries = [Entry(name, [prediction(1, (A, 0.9), masks=True)], notes=[name]) for name in "ab"]
    metrics = evaluate(data, entries, Options(resamples=0)).metrics
    assert [len(model.notes) for model in metrics.models] == [1, 1]
    assert len(metrics.notes) == 1
    assert "circles" in metrics.notes[0]


def test_comparison_is_the_paired_difference():
    data, predictions = random_case(6, images=30)
    worse = [
        replace(one, detections=replace(one.detections, scores=one.detections.scores[::-1])) for one in predictions
    ]
    entries = [Entry("first", predictions), Entry("second", worse)]
    metrics = evaluate(data, entries, Options(resamples=200)).metrics
    [comparison] = metrics.comparisons
    first, second = (model.froc.cpm.value for model in metrics.models)
    [cpm] = [one for one in comparison.differences if one.figure == "CPM"]
    assert (comparison.first, comparison.second) == ("first", "second")
    assert (cpm.first, cpm.second, cpm.difference.value) == (first, second, pytest.approx(second - first))
    assert cpm.difference.ci95[0] <= cpm.difference.value <= cpm.difference.ci95[1]
    assert 0 < cpm.p <= 1
    again = evaluate(data, entries, Options(resamples=200)).metrics
    assert again == metrics
    assert evaluate(data, entries, Options(resamples=200, seed=1)).metrics.comparisons != metrics.comparisons


def test_detector_figures_are_flat_and_leave_out_what_is_not_known():
    data = dataset(image(1, lesion(A), labels={"tumor": 1}), image(2, labels={"tumor": 0, "malignant": 0}))
    rules = {"max": {"tumor": 0.9}}
    predictions = [
        prediction(1, (A, 0.9), masks=True, scores={"tumor": 0.9, "malignant": 0.5}, scores_by_rule=rules),
        prediction(2, masks=True, scores={"tumor": 0.1, "malignant": 0.5}, scores_by_rule={"max": {"tumor": 0.0}}),
    ]
    expected = {"bbox_AP50", "bbox_AP", "segm_AP50", "segm_AP", "froc_cpm", "auc_tumor", "auc_tumor_max"}
    assert detector_figures(data, predictions) == pytest.approx(dict.fromkeys(expected, 1.0))


def test_detector_figures_of_a_silent_mask_model_are_zero():
    data = dataset(image(1, lesion(A)))
    expected = dict.fromkeys(["bbox_AP50", "bbox_AP", "segm_AP50", "segm_AP", "froc_cpm"], 0.0)
    assert detector_figures(data, [prediction(1, masks=True)]) == expected
    assert detector_figures(dataset(image(1)), [prediction(1, masks=True)]) == {}


def test_detector_figures_bear_lesions_without_masks():
    data = dataset(image(1, lesion(A, geometry="box", with_mask=False)))
    assert detector_figures(data, [prediction(1, (A, 0.9), masks=True)])["segm_AP50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "modules",
    [
        "mammodet.evaluation.evaluate, mammodet.evaluation.froc, mammodet.evaluation.roc, mammodet.evaluation",
        "mammodet.evaluation.entries, mammodet.reporting.evaluation_files, mammodet.reporting.overlay_files",
    ],
)
def test_evaluation_and_pipeline_import_no_torch(modules):
    slow = "{'torch', 'torchvision', 'lightning', 'matplotlib'}"
    code = f"import sys, {modules}; print(sorted({slow} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
