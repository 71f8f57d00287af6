"""metrics.json: levels joined by hand, notes, and what may not be imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from small_cases import dataset, image, lesion, prediction, random_case

from mammodet.evaluation.average_precision import average_precision
from mammodet.evaluation.evaluate import evaluate, level_figures, to_table, validation_figures
from mammodet.evaluation.froc import froc

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)

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
    assert evaluate(data, predictions, over_images=how)[level]["tumor"]["roc_auc"] == pytest.approx(auc)


def test_level_figures_are_none_without_scores_or_known_labels():
    data = dataset(image(1, labels={"tumor": 1, "malignant": None}), image(2, labels={"tumor": 0}))
    scores = {"malignant": 0.5}
    predictions = [prediction(1, scores=scores), prediction(2, scores=scores)]
    assert level_figures(data, predictions, "image", "tumor") is None
    assert level_figures(data, predictions, "image", "malignant") is None
    metrics = evaluate(data, predictions)
    assert metrics["image"] == metrics["breast"] == metrics["patient"] == {}


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
    found = level_figures(data, predictions, "image", "tumor")
    assert found["roc_auc"] == 0.5
    assert found["roc_auc_by_rule"] == {"head": 1.0, "max": 0.0}


def test_evaluate_holds_the_same_figures_as_its_parts():
    data, predictions = random_case(4, categories=("mass", "calc"))
    metrics = evaluate(data, predictions, match="center", protocol={"checkpoint_sha256": "abc"})
    assert metrics["detection"]["bbox"] == average_precision(data, predictions, "bbox")
    assert metrics["detection"]["segm"] == average_precision(data, predictions, "segm")
    assert metrics["froc"] == froc(data, predictions, "center").to_json()
    assert set(metrics["froc_other_rules"]) == {"iou@0.1", "iou@0.2", "iou@0.5"}
    assert metrics["froc_other_rules"]["iou@0.1"]["cpm"] == froc(data, predictions, "iou@0.1").to_json()["cpm"]
    assert metrics["protocol"]["checkpoint_sha256"] == "abc"
    assert metrics["protocol"]["match"] == "center"
    assert metrics["protocol"]["n_lesions"] == metrics["froc"]["n_lesions"]


def test_evaluate_counts_what_has_a_place():
    data = dataset(
        image(1, lesion(A), lesion(B, ignore=True), patient_id="p"),
        image(2, lesion(A), patient_id="p", unlocalized=True),
        image(3, patient_id="q"),
        image(4),
    )
    metrics = evaluate(data, [prediction(number) for number in range(1, 5)])
    facts = metrics["protocol"]
    assert (facts["n_images"], facts["n_patients"], facts["n_lesions"], facts["n_images_without_boxes"]) == (4, 2, 1, 1)
    assert any(note.startswith("1 images hold a lesion without a place") for note in metrics["notes"])


def test_evaluate_says_that_no_lesion_has_a_place():
    data = dataset(image(1, lesion(A), unlocalized=True), image(2, lesion(A, ignore=True)))
    metrics = evaluate(data, [prediction(1, (A, 0.9)), prediction(2)])
    assert metrics["detection"]["bbox"]["AP"] is None
    assert metrics["froc"]["cpm"] is None
    assert any("AP and FROC cannot be computed" in note for note in metrics["notes"])


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
    metrics = evaluate(dataset(image(1, *lesions)), [prediction(1, (A, 0.9), masks=True)])
    assert [words in note for note in metrics["notes"]] == [True]
    assert metrics["detection"]["segm"]["AP"] is not None


def test_evaluate_has_no_note_for_contours():
    metrics = evaluate(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9), masks=True)])
    assert metrics["notes"] == []


@pytest.mark.parametrize("masks", [True, False])
def test_evaluate_scores_masks_only_where_both_sides_have_them(masks):
    boxes = dataset(image(1, lesion(A, geometry="box", with_mask=False)))
    assert "segm" not in evaluate(boxes, [prediction(1, (A, 0.9), masks=masks)])["detection"]
    contours = evaluate(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9), masks=masks)])["detection"]
    assert ("segm" in contours) is masks


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
    metrics = evaluate(data, predictions)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    table = to_table(metrics)
    assert f"{len(data.images)} images" in table
    assert "nan" not in table


def test_evaluate_refuses_predictions_in_another_order():
    data = dataset(image(1), image(2))
    for predictions in ([prediction(2), prediction(1)], [prediction(1)], [prediction(1), prediction(3)]):
        with pytest.raises(ValueError, match="in the same order"):
            evaluate(data, predictions)


def test_evaluate_refuses_an_unknown_way_of_joining():
    with pytest.raises(ValueError, match="'median': expected max or mean"):
        evaluate(dataset(image(1)), [prediction(1)], over_images="median")


def test_validation_figures_are_flat_and_leave_out_what_is_not_known():
    data = dataset(image(1, lesion(A), labels={"tumor": 1}), image(2, labels={"tumor": 0, "malignant": 0}))
    rules = {"max": {"tumor": 0.9}}
    predictions = [
        prediction(1, (A, 0.9), masks=True, scores={"tumor": 0.9, "malignant": 0.5}, scores_by_rule=rules),
        prediction(2, masks=True, scores={"tumor": 0.1, "malignant": 0.5}, scores_by_rule={"max": {"tumor": 0.0}}),
    ]
    expected = {"bbox_AP50", "bbox_AP", "segm_AP50", "segm_AP", "froc_cpm", "auc_tumor", "auc_tumor_max"}
    assert validation_figures(data, predictions) == pytest.approx(dict.fromkeys(expected, 1.0))


def test_validation_figures_of_a_silent_mask_model_are_zero():
    data = dataset(image(1, lesion(A)))
    expected = dict.fromkeys(["bbox_AP50", "bbox_AP", "segm_AP50", "segm_AP", "froc_cpm"], 0.0)
    assert validation_figures(data, [prediction(1, masks=True)]) == expected
    assert validation_figures(dataset(image(1)), [prediction(1, masks=True)]) == {}


def test_validation_figures_bear_lesions_without_masks():
    data = dataset(image(1, lesion(A, geometry="box", with_mask=False)))
    assert validation_figures(data, [prediction(1, (A, 0.9), masks=True)])["segm_AP50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "modules",
    [
        "mammodet.evaluation.evaluate, mammodet.evaluation.froc, mammodet.evaluation.roc, mammodet.evaluation",
        "mammodet.pipeline",
    ],
)
def test_evaluation_and_pipeline_import_no_torch(modules):
    code = f"import sys, {modules}; print(sorted({{'torch', 'torchvision', 'lightning'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
