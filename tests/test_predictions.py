"""The predictions file: there and back, every fault with its place, and InputError for whatever else it holds."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
from small_cases import box_mask, dataset, image, lesion, prediction

from mammodet.data.coco import from_json
from mammodet.data.predictions import (
    FORMAT,
    Predictions,
    Repairs,
    match_to_dataset,
    prediction_from_json,
    prediction_to_json,
    read_predictions,
    write_predictions,
)
from mammodet.errors import InputError
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.options import Options
from mammodet.geometry import rle_to_mask
from mammodet.records import Detections, ImagePrediction

A, B = (10, 10, 30, 30), (50, 50, 80, 80)


def good_value():
    """A file with two images, as plain values."""
    return {
        "format": FORMAT,
        "model": {"checkpoint_sha256": "abc", "patients": ["p1", "p2"]},
        "categories": [{"id": 1, "name": "mass"}, {"id": 2, "name": "calc"}],
        "images": [
            {
                "image_id": 1,
                "file_name": "images/im1.png",
                "height": 100,
                "width": 100,
                "patient_id": "p9",
                "laterality": "L",
                "view": "MLO",
                "scores": {"tumor": 0.9},
                "scores_by_rule": {"max": {"tumor": 0.8}},
                "detections": [
                    {"bbox": [10, 10, 20, 20], "score": 0.8, "category_id": 1, "segmentation": dict(box_mask(A))},
                    {"bbox": [50, 50, 30, 30], "score": 0.3, "category_id": 2, "segmentation": dict(box_mask(B))},
                ],
            },
            {
                "image_id": 2,
                "file_name": "images/im2.png",
                "height": 100,
                "width": 100,
                "scores": {"tumor": 0.1},
                "detections": [],
            },
        ],
        "breasts": [{"patient_id": "p9", "laterality": "L", "scores": {"tumor": 0.9}}],
        "patients": [{"patient_id": "p9", "scores": {"tumor": 0.9}}],
    }


def read_value(folder, value):
    path = folder / "predictions.json"
    path.write_text(json.dumps(value))
    return read_predictions(path)


def fault_of(folder, value):
    with pytest.raises(InputError) as error:
        read_value(folder, value)
    return str(error.value)


def test_predictions_round_trip(tmp_path):
    images = (
        prediction(
            7,
            ((10.25, 10.5, 30.75, 99.99), 0.75),
            ((0, 0, 5, 5), 0.5, 2),
            scores={"tumor": 0.75, "malignant": 0.125},
            scores_by_rule={"max": {"tumor": 0.75}, "head": {"tumor": 0.5, "malignant": 0.125}},
            patient_id="p1",
            laterality="R",
            view="CC",
            masks=True,
        ),
        prediction(3, (A, 0.25)),
        prediction(5, masks=True),
    )
    breasts = ({"patient_id": "p1", "laterality": "R", "scores": {"tumor": 0.75}},)
    patients = ({"patient_id": "p1", "scores": {"tumor": 0.75}},)
    model = {"checkpoint_sha256": "abc", "config": {"seed": 1}, "patients": ["q"]}
    write_predictions(Predictions(images, ("mass", "calc"), model, breasts, patients), tmp_path / "sub" / "p.json")
    found = read_predictions(tmp_path / "sub" / "p.json")
    assert (found.categories, found.model, found.breasts, found.patients) == (
        ("mass", "calc"),
        model,
        breasts,
        patients,
    )
    for back, one in zip(found.images, images, strict=True):
        np.testing.assert_allclose(back.detections.boxes_xyxy, one.detections.boxes_xyxy, atol=0.01)
        assert back.detections.scores.tolist() == one.detections.scores.tolist()
        assert back.detections.category_ids.tolist() == one.detections.category_ids.tolist()
        assert back.detections.rles == one.detections.rles
        for name in (
            "image_id",
            "file_name",
            "size_hw",
            "scores",
            "scores_by_rule",
            "patient_id",
            "laterality",
            "view",
        ):
            assert getattr(back, name) == getattr(one, name)
    write_predictions(found, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "sub" / "p.json").read_bytes()


def test_detections_are_read_strongest_first_with_their_masks(tmp_path):
    value = good_value()
    value["images"][0]["detections"].reverse()
    found = read_value(tmp_path, value).images[0].detections
    assert found.scores.tolist() == [0.8, 0.3]
    assert found.category_ids.tolist() == [1, 2]
    assert found.boxes_xyxy.tolist() == [[10, 10, 30, 30], [50, 50, 80, 80]]
    assert found.rles == [box_mask(A), box_mask(B)]


def test_all_faults_are_told_at_once(tmp_path):
    value = good_value()
    value["images"] += [copy.deepcopy(value["images"][1]), {"file_name": "c.png"}, 5]
    value["images"][0]["scores"]["tumor"] = 1.5
    value["breasts"] = "none"
    message = fault_of(tmp_path, value)
    assert "10 faults" in message
    assert str(tmp_path / "predictions.json") in message
    assert "image 'images/im1.png': scores.tumor is 1.5; expected at most 1" in message
    assert "image_id 2 stands 2 times" in message
    assert "file_name 'images/im2.png' stands 2 times" in message
    assert "image 'c.png': detections is missing" in message
    assert "image 4: the whole is 5; expected an object" in message
    assert "breasts is 'none'; expected a list" in message


@pytest.mark.parametrize("key", ["checkpoint_sha256", "data_hash", "split_hash", "predicted_data_hash"])
def test_hashes_that_are_no_text_are_refused(tmp_path, key):
    value = good_value()
    value["model"] = {**(value.get("model") or {}), key: [1]}
    assert f"model.{key} is [1]; expected text" in fault_of(tmp_path, value)


def test_scores_and_second_entries_can_be_mended_on_request(tmp_path):
    value = good_value()
    value["images"].append(copy.deepcopy(value["images"][1]))
    value["images"][2]["detections"] = []
    value["images"][0]["scores"]["tumor"] = 1.5
    value["images"][0]["detections"][0]["score"] = -2
    (tmp_path / "predictions.json").write_text(json.dumps(value))
    repairs = Repairs()
    found = read_predictions(tmp_path / "predictions.json", repairs)
    assert repairs.scores == [
        "image 'images/im1.png': scores.tumor is 1.5",
        "image 'images/im1.png': detections.0.score is -2",
    ]
    assert repairs.duplicates == [
        "image_id 2 stands 2 times; expected once",
        "file_name 'images/im2.png' stands 2 times; expected once",
    ]
    assert [one.image_id for one in found.images] == [1, 2]
    assert found.images[0].scores["tumor"] == 1.0
    assert found.images[0].detections.scores.min() == 0.0


@pytest.mark.parametrize("score", [-0.1, 1.0001, True, "0.5", None, [0.5], 10**400])
def test_scores_outside_of_zero_to_one_are_refused(tmp_path, score):
    value = good_value()
    value["images"][0]["detections"][0]["score"] = score
    value["images"][1]["scores"]["tumor"] = score
    message = fault_of(tmp_path, value)
    assert "image 'images/im1.png': detections.0.score is" in message
    assert "image 'images/im2.png': scores.tumor is" in message


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_scores_that_are_not_finite_are_refused(tmp_path, text):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(good_value()).replace('"score": 0.8', f'"score": {text}'))
    with pytest.raises(InputError, match="expected"):
        read_predictions(path)


@pytest.mark.parametrize("key", ["image_id", "file_name", "height", "width", "scores", "detections"])
def test_missing_keys_of_an_image_are_named(tmp_path, key):
    value = good_value()
    del value["images"][0][key]
    assert f"{key} is missing" in fault_of(tmp_path, value)


@pytest.mark.parametrize("key", ["bbox", "score", "category_id", "segmentation"])
def test_missing_keys_of_a_detection_are_named(tmp_path, key):
    value = good_value()
    del value["images"][0]["detections"][1][key]
    assert f"{key} is missing" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("key", "wrong", "words"),
    [
        ("image_id", "1", "image_id is '1'; expected a whole number"),
        ("image_id", True, "image_id is True"),
        ("image_id", 1.5, "image_id is 1.5"),
        ("height", 0, "height is 0; expected at least 1"),
        ("width", 10**30, "width is 1000"),
        ("file_name", None, "file_name is None; expected text"),
        ("file_name", "../../etc/passwd", "leaves the data root"),
        ("file_name", "/etc/passwd", "leaves the data root"),
        ("patient_id", ["p"], "patient_id is ['p']; expected text"),
        ("laterality", "left", "laterality is 'left'; expected 'L' or 'R'"),
        ("view", 3, "view is 3; expected text"),
        ("scores", [0.5], "scores is [0.5]; expected an object"),
        ("scores_by_rule", {"max": 0.5}, "scores_by_rule.max is 0.5; expected an object"),
        ("scores_by_rule", None, "scores_by_rule is None; expected an object"),
        ("scores_by_rule", {"max": {"tumor": 2}}, "scores_by_rule.max.tumor is 2"),
        ("detections", None, "detections is None; expected a list"),
        ("detections", {}, "detections is {}; expected a list"),
        ("detections", ["bbox"], "detections.0 is 'bbox'; expected an object"),
    ],
)
def test_wrong_values_of_an_image_are_refused(tmp_path, key, wrong, words):
    value = good_value()
    value["images"][0][key] = wrong
    assert words in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    "box", [[10, 10, 20], [10, 10, 20, 20, 5], [10, 10, -1, 5], ["1", 2, 3, 4], [1, 2, 3, None], [], {}, 5, [1e300] * 4]
)
def test_boxes_that_are_none_are_refused(tmp_path, box):
    value = good_value()
    value["images"][0]["detections"][1]["bbox"] = box
    assert "image 'images/im1.png': detections.1.bbox" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("category", "words"),
    [(0, "category_id is 0"), (True, "is True"), (3, "[3]; expected 1 to 2"), (10**30, "is 1000")],
)
def test_categories_that_do_not_exist_are_refused(tmp_path, category, words):
    value = good_value()
    value["images"][0]["detections"][1]["category_id"] = category
    assert words in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [50, 200]}, "expected run lengths of size [100, 100]"),
        ({"size": 100}, "size is 100; expected a list"),
        ({"counts": "0"}, "run lengths cover 0 pixels, the image has 10000"),
        ({"counts": ""}, "cover 0 pixels"),
        ({"counts": "o"}, "cut short"),
        ({"counts": "ä"}, "ascii"),
        ({"counts": "  "}, "hold the character ' '"),
        ({"counts": [5000, 5000]}, "counts is [5000, 5000]; expected text"),
        ({"counts": None}, "counts is None; expected text"),
    ],
)
def test_masks_that_do_not_fit_the_image_are_refused(tmp_path, change, words):
    value = good_value()
    value["images"][0]["detections"][0]["segmentation"].update(change)
    message = fault_of(tmp_path, value)
    assert "image 'images/im1.png'" in message
    assert words in message


@pytest.mark.parametrize(
    "items",
    [
        5,
        "mass",
        {"id": 1},
        ["mass"],
        [None],
        [{"id": 1}],
        [{"name": "a"}],
        [{"id": 0, "name": "a"}],
        [{"id": 1, "name": 5}],
        [{"id": [1], "name": "a"}],
        [{"id": "1", "name": "a"}, {"id": 2, "name": "b"}],
        [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
    ],
)
def test_category_lists_that_cannot_be_numbered_are_refused(tmp_path, items):
    value = good_value()
    value["categories"] = items
    assert "  - categories" in fault_of(tmp_path, value)


@pytest.mark.parametrize("model", ["abc", [1], {"patients": "p1"}, {"patients": [1, 2]}, {"patients": 5}])
def test_model_whose_patients_cannot_be_read_is_refused(tmp_path, model):
    value = good_value()
    value["model"] = model
    assert "  - model" in fault_of(tmp_path, value)


@pytest.mark.parametrize("wrong", ["mammodet-predictions/2", None, 1, []])
def test_wrong_format_is_refused(tmp_path, wrong):
    value = good_value()
    value["format"] = wrong
    assert "expected 'mammodet-predictions/1'" in fault_of(tmp_path, value)


@pytest.mark.parametrize("value", [5, None, "a", {}, {"images": {}}, {"format": FORMAT, "images": None}])
def test_other_json_is_refused(tmp_path, value):
    assert "mammodet predict writes one" in fault_of(tmp_path, value)


def test_files_of_another_kind_are_named(tmp_path):
    assert "mammodet import makes predictions of it" in fault_of(tmp_path, [])
    assert "--ground-truth and --predictions exchanged?" in fault_of(tmp_path, {"images": [], "annotations": []})
    with pytest.raises(InputError, match="holds predictions, no data set"):
        from_json(good_value(), where="predictions.json")


@pytest.mark.parametrize("text", ["", "{", '{"format": "mammodet', "\ufeff{}"])
def test_cut_short_file_is_refused(tmp_path, text):
    (tmp_path / "predictions.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"predictions\.json"):
        read_predictions(tmp_path / "predictions.json")


def test_file_without_the_optional_parts_is_read(tmp_path):
    found = read_value(tmp_path, {"format": FORMAT, "images": good_value()["images"][1:]})
    assert (found.categories, found.model, found.breasts, found.patients) == ((), {}, (), ())
    assert (found.images[0].patient_id, found.images[0].scores_by_rule) == (None, {})


def test_prediction_entry_names_its_place():
    entry = prediction_to_json(prediction(1))
    del entry["image_id"]
    with pytest.raises(ValueError, match="line 7: image_id is missing"):
        prediction_from_json(entry, "line 7")


# Whatever a file holds: an InputError, or figures.

HOSTILE = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1.5, 1e308, 10**400, 2**63),
    *("", "a", "L", "\x00", "\ud800", "0" * 50, "oooooo", "~" * 9, "images/im1.png"),
    *([], [[]], [None], [1, 2, 3, 4], [[1, 2, 3, 4]], [10**400] * 4, ["p1", 5]),
    *({}, {"a": 1}, {"id": 1, "name": "mass"}, {"size": [100, 100], "counts": "`lk2"}, {"tumor": 0.5}),
)


def places(value):
    """Every (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        yield value, key
        yield from places(member)


def mutate(value, rng):
    for _ in range(rng.choice([1, 1, 2, 4])):
        found = list(places(value))
        if not found:
            return
        container, key = rng.choice(found)
        kind = rng.random()
        if kind < 0.2:
            del container[key]
        elif kind < 0.35:
            container[key] = copy.deepcopy(rng.choice(found)[0])
        elif kind < 0.45 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif kind < 0.6 and isinstance(container[key], str) and container[key]:
            at = rng.randrange(len(container[key]))
            container[key] = container[key][:at] + chr(rng.randrange(32, 128)) + container[key][at + 1 :]
        else:
            container[key] = copy.deepcopy(rng.choice(HOSTILE))


def test_mutated_files_give_only_input_errors(tmp_path):
    rng = random.Random(0)
    data = dataset(image(1, lesion(A), labels={"tumor": 1}), image(2, labels={"tumor": 0}), categories=("mass", "calc"))
    outcomes = {"refused": 0, "scored": 0}
    for _ in range(1500):
        value = good_value()
        mutate(value, rng)
        try:
            predictions = read_value(tmp_path, value)
            entry = Entry("mutated", match_to_dataset(predictions.images, data))
            json.dumps(evaluate(data, [entry], Options(resamples=0)).metrics.to_json(), allow_nan=False)
            outcomes["scored"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_mutated_run_lengths_are_refused_or_decode_to_the_image():
    rng = random.Random(1)
    item = good_value()["images"][0]
    start = item["detections"][0]["segmentation"]["counts"]
    refused = 0
    for _ in range(2000):
        characters = list(start)
        for _ in range(rng.choice([1, 2, 3])):
            at = rng.randrange(len(characters))
            characters[at : at + rng.choice([0, 1, 1, 2])] = [chr(rng.randrange(46, 114))] * rng.choice([0, 1, 1, 2])
            characters = characters or ["0"]
        item["detections"][0]["segmentation"]["counts"] = "".join(characters)
        try:
            found = prediction_from_json(item, "entry")
        except ValueError:
            refused += 1
            continue
        assert rle_to_mask(found.detections.rles[0]).shape == (100, 100)
    assert 1000 < refused < 2000


# Predictions meet the images of a data set.


def named(number, file_name, size_hw=(100, 100), **more):
    return ImagePrediction(number, file_name, size_hw, {}, Detections.empty(with_masks=False), **more)


def test_predictions_meet_by_name_and_take_what_the_data_set_knows():
    data = dataset(image(1, patient_id="p", laterality="L", view="CC"), image(2))
    predictions = [
        named(50, "images/im2.png", patient_id="wrong", laterality="R", view="MLO"),
        named(2, "images/im1.png"),
    ]
    first, second = match_to_dataset(predictions, data)
    assert (first.image_id, first.file_name) == (1, "images/im1.png")
    assert (first.patient_id, first.laterality, first.view) == ("p", "L", "CC")
    assert (second.image_id, second.patient_id, second.laterality, second.view) == (2, None, None, None)


def test_predictions_meet_by_stem_where_it_is_unique():
    found = match_to_dataset([named(9, "elsewhere/im1.tif")], dataset(image(1)))
    assert [(one.image_id, one.file_name) for one in found] == [(1, "images/im1.png")]


def test_predictions_with_one_stem_are_ambiguous():
    with pytest.raises(
        InputError, match="has no prediction of this path, and 2 predictions and 1 images share its name"
    ):
        match_to_dataset([named(1, "a/im1.png"), named(2, "b/im1.png")], dataset(image(1)))


def test_predictions_with_one_stem_still_meet_by_path():
    data = dataset(image(1))
    found = match_to_dataset([named(1, "a/im1.png"), named(2, "images/im1.png")], data, ignore_extra=True)
    assert [one.image_id for one in found] == [1]


@pytest.mark.parametrize(
    ("name", "words"),
    [("im.png", "1 predictions and 2 images share its name"), ("a/im.png", "'b/im.png' .*: has no prediction\n")],
)
def test_one_prediction_never_serves_two_images(name, words):
    first, second = replace(image(1), file_name="a/im.png"), replace(image(2), file_name="b/im.png")
    with pytest.raises(InputError, match=words):
        match_to_dataset([named(1, name)], dataset(first, second))


def test_missing_extra_and_wrongly_sized_predictions_are_told_at_once():
    data = dataset(image(1), image(2))
    with pytest.raises(InputError) as error:
        match_to_dataset([named(1, "images/im1.png", (100, 99)), named(3, "images/im3.png")], data)
    message = str(error.value)
    assert "3 faults" in message
    assert "image 'images/im1.png': predicted at (100, 99), the data set says (100, 100)" in message
    assert "image 'images/im2.png' (id 2): has no prediction" in message
    assert "prediction for 'images/im3.png': no such image" in message


def test_extra_predictions_are_passed_over_on_request():
    predictions = [named(1, "images/im1.png"), named(3, "images/im3.png")]
    assert [one.image_id for one in match_to_dataset(predictions, dataset(image(1)), ignore_extra=True)] == [1]
    with pytest.raises(InputError, match="1 fault"):
        match_to_dataset(predictions, dataset(image(1)))
