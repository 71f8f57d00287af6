"""A calibration from predictions to labels: what is fitted and refused, the tool, and prediction with it."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_calibration import (
    CHECKPOINT,
    OTHER,
    PROVENANCE,
    for_checkpoint,
    model_facts,
    small_validation,
    write_checkpoint,
)

from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.data.sources import SourceFile
from mammodet.engine.facts import RunFacts
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import label_predictions, read_calibration, write_calibration
from mammodet.evaluation.fit_calibration import fit_calibration, provenance_of
from mammodet.files import file_hash

ROOT = Path(__file__).parent.parent


def written(tmp_path: Path, *, subset: str = "val", name: str = "val.json", model: Any = None) -> tuple[Path, Path]:
    """A ground-truth and a predictions file."""
    truth, predictions = small_validation()
    truth = replace(truth, info={"split": {**truth.info["split"], "subset": subset}})
    write_coco(truth, tmp_path / name)
    facts = {"checkpoint_sha256": CHECKPOINT, "patients": [], **(model or {})}
    write_predictions(Predictions(tuple(predictions), truth.categories, facts), tmp_path / "predictions.json")
    return tmp_path / name, tmp_path / "predictions.json"


def calibrate(*arguments: object) -> int:
    return int(runpy.run_path(str(ROOT / "tools" / "calibrate.py"))["main"]([str(argument) for argument in arguments]))


def call(tmp_path: Path, *more: object, **how: Any) -> Path:
    """Run the tool on small files; the path of what it wrote."""
    truth, predictions = written(tmp_path, **how)
    output = tmp_path / "out" / "calibration.json"
    assert calibrate("--ground-truth", truth, "--predictions", predictions, "--output", output, *more) == 0
    return output


def test_fit_covers_levels_and_labels_and_says_what_it_refused():
    truth, predictions = small_validation()
    found = fit_calibration(truth, predictions, PROVENANCE, goals=("sensitivity@0.9", "youden"))
    assert [(fit.level, fit.label, fit.n_positive, fit.n_negative) for fit in found.fits] == [
        ("image", "tumor", 10, 50),
        ("breast", "tumor", 10, 50),
        ("patient", "tumor", 10, 20),
    ]
    assert {(one.level, one.label) for one in found.refused} == {
        (level, "malignant") for level in ("image", "breast", "patient")
    }
    assert "0 positive and 60 negative cases" in found.refused[0].reason
    fit = found.fits[0]
    assert [point.goal for point in fit.points] == ["sensitivity@0.9", "youden"]
    assert fit.points[0].tp >= 9
    assert fit.after["brier"] < fit.before["brier"]


def test_method_none_keeps_scores_and_refuses_the_same():
    truth, predictions = small_validation()
    found = fit_calibration(truth, predictions, PROVENANCE, method="none", levels=("image",))
    assert [(fit.label, fit.scaling, fit.after) for fit in found.fits] == [("tumor", None, {})]
    assert len(found.refused) == 1


def test_nothing_to_fit_is_refused_with_every_reason():
    truth, predictions = small_validation(patients=6)
    with pytest.raises(InputError, match="nothing can be calibrated: 6 faults") as caught:
        fit_calibration(truth, predictions, PROVENANCE)
    assert "patient, tumor: 2 positive and 4 negative cases" in str(caught.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"goals": ()}, "at least one"),
        ({"goals": ("f@1", "f@1.0")}, "none twice"),
        ({"goals": ("best",)}, "goal 'best'"),
        ({"method": "isotonic"}, "expected one of platt"),
        ({"levels": ("film",)}, "some of image"),
    ],
)
def test_fit_refuses_what_it_does_not_know(how, message):
    truth, predictions = small_validation()
    with pytest.raises(InputError, match=message):
        fit_calibration(truth, predictions, PROVENANCE, **how)


def test_provenance_holds_what_was_fitted_on():
    truth, _ = small_validation(patients=2)
    found = provenance_of(truth, of_model(model_facts()), "c" * 64, ground_truth=Path("val.json"))
    assert found == replace(
        PROVENANCE, data_hash=data_hash(truth), patients=("p00", "p01"), version=found.version, fitted_on_test=False
    )
    mean = model_facts(over_images="mean")
    assert provenance_of(truth, of_model(mean), "c" * 64, ground_truth=Path("val.json")).over_images == "mean"
    assert (
        provenance_of(truth, of_model(mean), "c" * 64, ground_truth=Path("val.json"), over_images="max").over_images
        == "max"
    )
    assert provenance_of(truth, of_model({}), "c" * 64, ground_truth=Path("val.json")).over_images == "max"


def of_model(model: dict[str, Any]) -> Predictions:
    return Predictions((), ("mass",), model)


# the tool


def test_tool_writes_a_calibration_and_prints_what_it_is_worth(tmp_path, capsys):
    path = call(tmp_path, "--goal", "sensitivity@0.9", "f@2", "--levels", "image", "patient")
    found = read_calibration(path)
    assert found.goals == ("sensitivity@0.9", "f@2")
    assert found.provenance.predictions_sha256 == file_hash(tmp_path / "predictions.json")
    assert found.provenance.subset == "val"
    assert [(fit.level, fit.label) for fit in found.fits] == [("image", "tumor"), ("patient", "tumor")]
    printed, told = capsys.readouterr()
    point = found.fits[0].points[0]
    assert f"* sensitivity@0.9: score >= {point.threshold:.4f}" in printed
    assert f"sensitivity {point.tp}/10 = {point.tp / 10:.3f}, specificity {point.tn}/50" in printed
    assert " -> " in printed
    assert "on new patients expect worse" in printed
    assert "not calibrated: image, malignant: 0 positive and 60 negative cases" in told


def test_tool_says_that_a_goal_is_out_of_reach(tmp_path, capsys):
    path = call(tmp_path, "--goal", "threshold@1", "--levels", "image")
    assert "no score reaches this probability" in read_calibration(path).fits[0].not_reached["threshold@1"]
    assert "* threshold@1: no score reaches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "reason"), [({"subset": "test"}, "its info says so"), ({"name": "mias_test.json"}, "its name says so")]
)
def test_tool_refuses_a_test_set_unless_told(tmp_path, how, reason, capsys):
    with pytest.raises(InputError, match=reason):
        call(tmp_path, **how)
    assert not (tmp_path / "out").exists()
    path = call(tmp_path, "--allow-test", **how)
    assert read_calibration(path).provenance.fitted_on_test
    assert "are on the TEST set" in capsys.readouterr().out


def test_name_that_only_contains_test_is_no_test_set(tmp_path):
    assert not read_calibration(call(tmp_path, name="latest.json")).provenance.fitted_on_test


def test_images_of_the_subset_test_make_a_test_set():
    truth, _ = small_validation(patients=2)
    mixed = replace(truth, images=(replace(truth.images[0], split="test"), *truth.images[1:]))
    with pytest.raises(InputError, match="1 of its 4 images are of the subset test"):
        provenance_of(mixed, of_model(model_facts()), "c" * 64, ground_truth=Path("all.json"))


def test_tool_refuses_what_the_model_was_trained_on(tmp_path):
    with pytest.raises(InputError, match="is what the model was trained on"):
        call(tmp_path, subset="train")
    truth, _ = small_validation()
    with pytest.raises(InputError, match="is what the model was trained on"):
        call(tmp_path, model={"data_hash": data_hash(truth)})


def test_tool_refuses_patients_and_images_of_the_training(tmp_path):
    files = [{"file": "data/fold0_train.json", "data_hash": "1" * 64}]
    files = [{**files[0], "subset": "train"}, {"file": "data/fold0_val.json", "subset": "val", "data_hash": "2" * 64}]
    with pytest.raises(InputError, match=r"\(1: patient p03\), and is not the file that it was chosen by") as caught:
        call(tmp_path, model={"patients": ["p03", "q"], "files": files})
    assert "Predict its validation file (data/fold0_val.json), or patients that it has not seen" in str(caught.value)
    with pytest.raises(InputError, match=r"\(1: image 'images/im2.png' \("):
        call(tmp_path, model={"patients": ["q"], "files": files, "images_seen": ["images/im2.png"]})
    assert not (tmp_path / "out").exists()


def test_tool_takes_the_file_that_the_model_was_chosen_by(tmp_path, capsys):
    truth, _ = small_validation()
    files = [{"file": "data/fold0_val.json", "subset": "val", "data_hash": data_hash(truth)}]
    call(
        tmp_path, model={"patients": ["p03"], "unknown_patients": 0, "files": files, "images_seen": ["images/im2.png"]}
    )
    assert "could not be checked" not in capsys.readouterr().err


def run_of(val_hash: str, *patients: str) -> RunFacts:
    """Facts of a run that was trained on these patients, and chosen by a file of this hash."""
    files = (SourceFile("t.json", "train", data_hash="t" + val_hash), SourceFile("v.json", "val", data_hash=val_hash))
    return RunFacts({}, ("mass",), "t" + val_hash, None, patients, files, unknown_patients=0)


@pytest.mark.parametrize(
    ("val_patients", "is_refused"),
    [(None, True), (("p03", "p04"), True), (("p05",), False)],
    ids=["ensemble", "weights of a run that learnt them", "weights of a run that did not"],
)
def test_file_that_one_training_was_chosen_by_may_be_what_another_one_learnt(tmp_path, val_patients, is_refused):
    own = data_hash(small_validation()[0])
    facts = run_of(own, "p03").with_earlier(run_of("2", "p03", "q"), val_patients)
    assert [file.chose_it for file in facts.files] == [False, not is_refused, False, False]
    model = {"patients": list(facts.patients), "unknown_patients": 0, "files": [file.to_json() for file in facts.files]}
    if not is_refused:
        call(tmp_path, model=model)
        return
    with pytest.raises(InputError, match="patient p03"):
        call(tmp_path, model=model)


def test_file_that_both_trainings_were_chosen_by_stays_one():
    facts = run_of("2", "p03").with_earlier(run_of("2", "p03"))
    assert [(file.subset, file.chose_it) for file in facts.files] == [("train", False), ("val", True)]


def test_tool_takes_patients_that_another_fold_learnt(tmp_path):
    names = [f"images/im{number}.png" for number in range(1, 61)]
    fold = {"fold": 0, "patients": ["q"], "images": names[:30]}
    other = {"fold": 1, "patients": ["p00"], "images": names[30:]}
    call(tmp_path, model={"folds": [fold, other]})
    with pytest.raises(InputError, match="1: patient p00"):
        call(tmp_path, model={"folds": [{**fold, "patients": ["p00"]}, other]})


def test_tool_says_that_patients_could_not_be_checked(tmp_path, capsys):
    call(tmp_path, model={"patients": ["q"], "unknown_patients": 4})
    assert "could not be checked: 4 images of its training or validation do not say" in capsys.readouterr().err


def test_tool_refuses_predictions_that_do_not_match(tmp_path):
    truth, predictions = written(tmp_path)
    value = json.loads(predictions.read_text())
    value["images"][0]["file_name"] = "images/other.png"
    predictions.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"images/im1\.png' \(id 1\): has no prediction"):
        calibrate("--ground-truth", truth, "--predictions", predictions, "--output", tmp_path / "c.json")


def test_tool_refuses_a_checkpoint_hash_that_is_none(tmp_path):
    with pytest.raises(InputError, match="checkpoint_sha256 is 'latest'; expected 64 hex digits"):
        call(tmp_path, model={"checkpoint_sha256": "latest"})


# at prediction


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as it was drawn, with a rule that needs no fit."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


def predict(*arguments: object) -> int:
    return int(runpy.run_path(str(ROOT / "tools" / "predict.py"))["main"]([str(argument) for argument in arguments]))


def test_predict_labels_images_breasts_and_patients(checkpoint, phantom_root, tmp_path, capsys):
    inputs = ("--checkpoint", checkpoint, "--input", phantom_root / "test.json", "--num-workers", 0, "--device", "cpu")
    assert predict(*inputs, "--output", tmp_path / "bare") == 0
    bare = json.loads((tmp_path / "bare" / "predictions.json").read_text())
    scores = sorted(item["scores"]["tumor"] for item in bare["images"])
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    write_calibration(for_checkpoint(checkpoint, middle), tmp_path / "c.json")
    capsys.readouterr()
    assert predict(*inputs, "--output", tmp_path / "out", "--calibration", tmp_path / "c.json") == 0
    value = json.loads((tmp_path / "out" / "predictions.json").read_text())
    for key in ("images", "breasts", "patients"):
        assert value[key]
        for one in value[key]:
            assert one["labels"]["tumor"]["label"] == int(one["scores"]["tumor"] >= middle)
    labels = [item["labels"]["tumor"]["label"] for item in value["images"]]
    assert sum(labels) == len(labels) // 2
    assert [item["scores"] for item in value["images"]] == [item["scores"] for item in bare["images"]]
    printed = capsys.readouterr().out
    shown = value["images"][0]["labels"]["tumor"]
    assert f"{value['images'][0]['file_name']}  tumor probability {shown['probability']:.3f}: " in printed
    assert f"tumor (>= {shown['threshold']:.3g}, sensitivity@0.9 on validation)" in printed
    assert f"no tumor reported (< {shown['threshold']:.3g}, sensitivity@0.9 on validation)" in printed
    assert f"images: {sum(labels)} of {len(labels)} tumor" in printed
    assert f"patients: {sum(one['labels']['tumor']['label'] for one in value['patients'])} of " in printed
    assert len(read_predictions(tmp_path / "out" / "predictions.json").images) == len(labels)


def test_predict_refuses_a_calibration_of_another_checkpoint(checkpoint, phantom_root, tmp_path, capsys):
    other = for_checkpoint(checkpoint, 0.5)
    other = replace(other, provenance=replace(other.provenance, checkpoint_sha256=OTHER, fitted_on_test=True))
    write_calibration(other, tmp_path / "c.json")
    inputs = ("--checkpoint", checkpoint, "--input", phantom_root / "test.json", "--num-workers", 0, "--device", "cpu")
    inputs = (*inputs, "--output", tmp_path / "out", "--calibration", tmp_path / "c.json")
    with pytest.raises(InputError) as caught:
        predict(*inputs)
    assert OTHER in str(caught.value)
    assert file_hash(checkpoint) in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert predict(*inputs, "--allow-other-checkpoint") == 0
    made_by = read_predictions(tmp_path / "out" / "predictions.json").model["calibration"]
    assert (made_by["other_checkpoint"], made_by["fitted_on_test"]) == (True, True)
    printed = capsys.readouterr().out
    assert "fitted for another checkpoint" in printed
    assert "sensitivity@0.9 on TEST" in printed


def test_interrupted_labelling_leaves_no_file_without_labels(checkpoint, phantom_root, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    truth = read_coco(phantom_root / "test.json")
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    calibration = for_checkpoint(checkpoint, 0.5)
    monkeypatch.setattr("mammodet.engine.predict.label_predictions", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, truth, phantom_root, tmp_path, calibration=calibration)
    monkeypatch.setattr("mammodet.engine.predict.label_predictions", label_predictions)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "predictions.partial.jsonl"}
    path, _ = predict_to_folder(predictor, truth, phantom_root, tmp_path, calibration=calibration)
    assert all("labels" in item for item in json.loads(path.read_text())["images"])
