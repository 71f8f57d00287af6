"""Reasons not to score: each found, each named with its ids, each overridden and stamped on request only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_cases import dataset, image, lesion, prediction

from mammodet.data.coco import data_hash
from mammodet.data.predictions import Predictions, Repairs
from mammodet.errors import InputError
from mammodet.evaluation.admission import REFUSALS, admit
from mammodet.evaluation.calibration_file import Provenance

A = (10, 10, 30, 30)
#: Of a model whose record of patients and images is complete.
KNOWN = {"patients": ["q"], "unknown_patients": 0, "unknown_start": None}


def truth(subset="test", split_hash="s1"):
    data = dataset(
        image(1, lesion(A), patient_id="p1"), image(2, patient_id="p2", laterality="L"), image(3, patient_id="p2")
    )
    return replace(data, info={"split": {"name": "holdout", "subset": subset, "hash": split_hash}})


def said(model, images=None):
    images = [prediction(number, (A, 0.9)) for number in (1, 2, 3)] if images is None else images
    return Predictions(tuple(images), ("mass",), model)


def check(data, predictions, **more):
    return admit(data, predictions, truth="test.json", source="a.json", **more)


def refusal(data, predictions, **more):
    with pytest.raises(InputError) as error:
        check(data, predictions, **more)
    return str(error.value)


def test_predictions_without_a_fault_are_admitted():
    data = truth()
    model = {**KNOWN, "data_hash": "other", "split_hash": "s1", "predicted_data_hash": data_hash(data)}
    admitted = check(data, said(model))
    assert (admitted.overrides, admitted.patients_seen) == ((), 0)
    assert [one.image_id for one in admitted.predictions] == [1, 2, 3]
    assert admitted.predictions[1].laterality == "L"


def test_nothing_is_known_of_a_model_that_names_no_patients():
    assert check(truth(), said({})).patients_seen is None


def test_patients_of_an_archive_with_the_same_women_under_other_ids_are_not_called_unseen():
    data = replace(truth(), info={"archive": "DDSM"})
    files = [{"file": "train.json", "subset": "train", "archive": name} for name in ("CBIS-DDSM", "INbreast")]
    admitted = check(data, said({**KNOWN, "files": files}))
    assert admitted.patients_seen is None
    (reason,) = admitted.unchecked
    assert "CBIS-DDSM" in reason
    assert check(data, said({**KNOWN, "files": files[1:]})).patients_seen == 0
    assert check(replace(data, info={"archive": "CBIS-DDSM"}), said({**KNOWN, "files": files})).patients_seen == 0


UNSAFE = {"patients": ["q"], "config": {"data": {"unsafe_split": "rotated_copies"}}}
CASES = {
    "unsafe_split": (truth(), said(UNSAFE), {}, ["trained on an unsafe split (rotated_copies): copies of test images"]),
    "leakage": (truth(), said({"patients": ["p2", "q"]}), {}, ["patient p2"]),
    "truth": (truth(), said({"patients": ["q"], "predicted_data_hash": "f" * 64}), {}, ["ffffffffffff"]),
    "missing": (truth(), said({"patients": ["q"]}, [prediction(1)]), {}, ["'images/im2.png' (id 2)", "(id 3)"]),
    "extra": (
        truth(),
        said({"patients": ["q"]}, [prediction(number) for number in (1, 2, 3, 7)]),
        {},
        ["images/im7.png"],
    ),
    "duplicates": (
        truth(),
        said({"patients": ["q"]}),
        {"repairs": Repairs(duplicates=["image_id 2 stands 2 times"])},
        ["2 times"],
    ),
    "scores": (truth(), said({"patients": ["q"]}), {"repairs": Repairs(scores=["image 'x': score is 7"])}, ["is 7"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_reason_is_told_with_ids_and_overridden_on_request(kind):
    data, predictions, more, words = CASES[kind]
    message = refusal(data, predictions, **more)
    assert message.startswith("a.json is not scored on test.json:")
    assert f"--allow {kind}: {REFUSALS[kind]}" in message
    assert message.count("--allow") == 1
    for word in words:
        assert word in message
    assert refusal(data, predictions, **more, allow=[other for other in REFUSALS if other != kind]) == message
    admitted = check(data, predictions, **more, allow=[kind])
    [override] = admitted.overrides
    assert override.startswith(REFUSALS[kind])
    assert words[0] in override
    assert [one.image_id for one in admitted.predictions] == [1, 2, 3]


def test_all_reasons_are_told_at_once():
    message = refusal(truth(), said({"patients": ["p1"]}, [prediction(1), prediction(2), prediction(9)]))
    for kind in ("leakage", "missing", "extra"):
        assert f"--allow {kind}" in message


def test_long_lists_are_counted():
    message = refusal(truth(), said({"patients": ["q"]}, [prediction(n) for n in (1, 2, 3, *range(10, 60))]))
    assert "Predictions for images that the ground truth lacks (50):" in message
    assert "... and 25 more" in message


def test_an_image_without_prediction_counts_as_silent_when_allowed():
    blank = check(
        truth(), said({"patients": ["q"]}, [prediction(1, (A, 0.9), masks=True)]), allow=["missing"]
    ).predictions[1]
    assert len(blank.detections) == 0
    assert blank.detections.rles == []
    assert blank.scores == {}
    assert blank.patient_id == "p2"


@pytest.mark.parametrize("subset", ["train", "val"])
def test_the_training_part_of_the_same_split_is_leakage_without_any_patient_id(subset):
    assert f"it is the {subset} part of the split" in refusal(truth(subset), said({"split_hash": "s1"}))


def test_the_training_file_itself_is_leakage():
    data = truth()
    assert "its data hash is that of the training file" in refusal(data, said({"data_hash": data_hash(data)}))


def test_another_division_is_refused_where_patients_are_not_named():
    message = refusal(truth(), said({"split_hash": "s2"}))
    assert "another division of the data (split hash s2, here s1)" in message
    assert "--train-json" in message
    assert check(truth(), said({"split_hash": "s2", **KNOWN})).patients_seen == 0
    other = dataset(image(9, patient_id="q"))
    assert check(truth(), said({"split_hash": "s2", "unknown_patients": 0}), train=other).patients_seen == 0


def test_a_training_file_is_searched_for_patients_and_for_images_without_any():
    train = dataset(image(1, patient_id="p2"), image(2))
    message = refusal(
        replace(truth(), images=(*truth().images, image(4))),
        said({}, [prediction(n) for n in (1, 2, 3, 4)]),
        train=train,
    )
    assert "patient p2 (of --train-json)" in message
    bare = dataset(image(1), image(2))
    assert "image 'images/im2.png' (of --train-json)" in refusal(
        bare, said({}, [prediction(1), prediction(2)]), train=train
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unknown_patients": 3}, "3 images of its training or validation do not say whose they are"),
        ({"unknown_patients": None}, "a version that did not record images of unknown patients"),
        ({"unknown_start": "bare.pth"}, "it started from weights whose patients are not known (bare.pth)"),
        ({"patients": []}, "the predictions do not say on which patients the model was trained"),
    ],
)
def test_a_model_that_may_have_seen_others_leaves_leakage_unchecked(change, words):
    admitted = check(truth(), said({**KNOWN, **change}))
    assert admitted.patients_seen is None
    [reason] = admitted.unchecked
    assert words in reason
    of_folds = [fold(0, ["q"], 1, 2), {**fold(1, ["q"], 3), **change}]
    assert check(truth(), said({"folds": of_folds})).patients_seen is None


def test_patients_that_were_seen_are_counted_where_others_could_not_be_checked():
    admitted = check(truth(), said({"patients": ["p1"], "unknown_patients": 3}), allow=["leakage"])
    assert (admitted.patients_seen, len(admitted.unchecked)) == (1, 1)


def test_images_that_were_seen_are_leakage_whatever_their_patients_are_called():
    message = refusal(truth(), said({**KNOWN, "images_seen": ["images/im2.png", "images/im8.png"]}))
    assert "in training or validation (1):\n  - image 'images/im2.png' (this name and size" in message
    folds = [fold(0, ["q"], 1, 2, images_seen=["images/im3.png"]), fold(1, ["q"], 3)]
    assert check(truth(), said({"folds": folds})).patients_seen == 0  # another fold predicted it
    folds[1]["images_seen"] = ["images/im3.png"]
    assert "image 'images/im3.png'" in refusal(truth(), said({"folds": folds}))


def test_a_training_file_is_searched_for_images_of_other_patients():
    train = dataset(image(2, patient_id="another name"))
    assert "image 'images/im2.png' (of --train-json)" in refusal(truth(), said(KNOWN), train=train)


def test_images_without_patients_leave_leakage_unchecked():
    data = replace(truth(), images=(*truth().images, image(4)))
    predictions = said(KNOWN, [prediction(n) for n in (1, 2, 3, 4)])
    assert check(data, predictions).unchecked == ("1 images of the ground truth do not say whose they are",)
    assert check(data, predictions, train=dataset(image(9, patient_id="r"))).patients_seen is None


@pytest.mark.parametrize(("here", "there"), [(None, "p"), ("p", None), (None, None)])
def test_one_image_file_on_both_sides_is_leakage_where_a_patient_is_not_named(here, there):
    data, train = dataset(image(1, patient_id=here)), dataset(image(1, patient_id=there))
    assert "image 'images/im1.png' (of --train-json)" in refusal(data, said({}, [prediction(1)]), train=train)


def provenance(**more):
    return Provenance(
        **{
            "checkpoint_sha256": "c" * 64, "predictions_sha256": "d" * 64, "data_hash": "e" * 64, "split_hash": None,
            "subset": "val", "patients": ("v1",), "over_images": "max", "rule": None, **more,
        }
    )  # fmt: skip


def test_patients_of_the_calibration_are_leakage_too():
    model = {"patients": ["p1"], "checkpoint_sha256": "c" * 64}
    message = refusal(truth(), said(model), calibration=provenance(patients=("p1", "p2", "v1")))
    assert "  - patient p1\n  - patient p2 (of the calibration)\n" in message


def test_a_calibration_whose_patients_are_hashed_under_another_key_leaves_leakage_unchecked():
    model = {**KNOWN, "checkpoint_sha256": "c" * 64}
    admitted = check(truth(), said(model), calibration=provenance(patients=(f"hmac-01234567-{'0' * 32}",)))
    assert admitted.patients_seen is None
    assert "patient ids of the calibration are hashed under a key" in admitted.unchecked[0]
    assert check(truth(), said(model), calibration=provenance()).unchecked == ()


def test_a_calibration_of_another_model_is_refused():
    model = {"patients": ["q"], "checkpoint_sha256": "b" * 64}
    message = refusal(truth(), said(model), calibration=provenance())
    assert f"fitted for the checkpoint {'c' * 64}, this one is {'b' * 64}" in message
    assert "--allow calibration" in message
    admitted = check(truth(), said(model), calibration=provenance(), allow=["calibration"])
    assert admitted.overrides[0].startswith(REFUSALS["calibration"])
    assert check(truth(), said({"patients": ["q"]}), calibration=provenance(checkpoint_sha256=None)).overrides == ()
    assert "this one is not known" in refusal(truth(), said({"patients": ["q"]}), calibration=provenance())


def test_other_categories_cannot_be_overridden():
    predictions = replace(said({}), categories=("calc",))
    assert "its categories are ['calc']" in refusal(truth(), predictions, allow=list(REFUSALS))


def test_unknown_overrides_are_refused():
    assert "expected some of leakage" in refusal(truth(), said({}), allow=["everything"])


@pytest.mark.parametrize("where", ["truth", "train"])
def test_a_file_of_an_unsafe_split_is_refused(where):
    unsafe = replace(truth(), info={"split": {"name": "unsafe rotated copies", "subset": "test", "hash": "s1"}})
    other = dataset(image(9, patient_id="q"))
    train = replace(other, info=unsafe.info) if where == "train" else None
    data, predictions = unsafe if where == "truth" else truth(), said({"patients": ["q"]})
    message = refusal(data, predictions, train=train)
    assert "is a part of an unsafe split (unsafe rotated copies)" in message
    assert message.count("--allow") == 1
    admitted = check(data, predictions, train=train, allow=["unsafe_split"])
    assert "unsafe split (unsafe rotated copies)" in admitted.not_a_result
    assert admitted.overrides[0].startswith("NOT A RESULT")


@pytest.mark.parametrize("config", [{}, {"data": {}}, {"data": {"unsafe_split": None}}, None, "text"])
def test_a_safe_split_speaks_against_nothing(config):
    assert check(truth(), said({"patients": ["q"], "config": config})).not_a_result is None


def fold(number, patients, *images, **more):
    names = [f"images/im{n}.png" for n in images]
    return {"fold": number, "patients": patients, "unknown_patients": 0, "images": names, **more}


def test_out_of_fold_predictions_are_held_against_the_fold_that_made_them():
    # patient p1 (image 1) trained fold 1, p2 (images 2 and 3) trained fold 0: neither saw what it predicted
    admitted = check(truth(), said({"folds": [fold(0, ["p2", "q"], 1), fold(1, ["p1", "q"], 2, 3)]}))
    assert (admitted.overrides, admitted.patients_seen) == ((), 0)


def test_a_patient_of_the_fold_that_predicted_them_is_leakage():
    predictions = said({"folds": [fold(0, ["p2"], 1, 3), fold(1, ["p1"], 2)]})
    message = refusal(truth(), predictions)
    assert "in training or validation (1):\n  - patient p2 (of the fold that predicted an image of theirs)\n" in message
    assert check(truth(), predictions, allow=["leakage"]).patients_seen == 1


def test_leakage_of_a_fold_is_found_where_names_meet_without_folders():
    images = [replace(prediction(n), file_name=f"im{n}.jpg") for n in (1, 2, 3)]
    folds = [{"fold": 0, "patients": ["p1"], "images": ["im1.jpg"]}, fold(1, ["q"])]
    folds[1]["images"] = ["im2.jpg", "im3.jpg"]
    assert "patient p1 (of the fold" in refusal(truth(), said({"folds": folds}, images))


def test_the_training_file_of_a_fold_is_leakage():
    data = truth()
    folds = [fold(0, ["q"], 1, 2), fold(1, ["q"], 3, data_hash=data_hash(data))]
    assert "that of the training file of fold 1" in refusal(data, said({"folds": folds}))


def test_a_fold_that_names_no_patients_leaves_leakage_unchecked():
    assert check(truth(), said({"folds": [fold(0, ["q"], 1, 2), fold(1, [], 3)]})).patients_seen is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"folds": [fold(0, ["q"], 1, 2), fold(1, ["q"], 2, 3)]}, "image 'images/im2.png' was predicted by 2 folds"),
        ({"folds": [fold(0, ["q"], 1, 2)]}, "image 'images/im3.png' was predicted by no folds; expected one"),
        ({"folds": [fold(0, ["q"], 1, 2), fold(0, ["q"], 3)]}, "fold 0 stands 2 times"),
        ({"folds": [fold(0, ["q"], 1, 2, 3)], "patients": ["q"]}, "'patients' stands beside 'folds'"),
        ({"folds": {"0": []}}, "'folds' of its model cannot be read"),
        ({"folds": [fold(0, None, 1, 2, 3)]}, "'folds' of its model cannot be read"),
    ],
)
def test_folds_that_contradict_themselves_cannot_be_overridden(model, words):
    assert words in refusal(truth(), said(model), allow=list(REFUSALS))
