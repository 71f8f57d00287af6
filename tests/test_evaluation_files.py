"""From two files to metrics, report and pictures; and what the two tools say to a user who errs."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_cases import box_mask

from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.evaluation.calibration import OperatingPoint, Scaling
from mammodet.evaluation.calibration_file import Calibration, Fit, Provenance, write_calibration
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import read_metrics
from mammodet.files import file_hash
from mammodet.records import Detections, ImagePrediction
from mammodet.reporting.evaluation_files import evaluate_files as evaluate_many
from mammodet.reporting.overlay_files import draw_files

ROOT = Path(__file__).parents[1]
MODEL = {
    "checkpoint_sha256": "abc",
    "patients": ["someone else"],
    "unknown_patients": 0,
    "data_hash": "d",
    "split_hash": "s",
}


QUICK = Options(resamples=0)


def evaluate_files(truth, predictions, output, **options):
    return evaluate_many(truth, [predictions], output, **{"options": QUICK, "progress": False, **options})


def invent(record):
    """Every lesion found a little beside its place, and one false positive of score 0.25."""
    boxes = [np.array(lesion.box_xyxy) for lesion in record.lesions] + [np.array([2.0, 2.0, 12.0, 12.0])]
    scores = [0.9] * len(record.lesions) + [0.25]
    found = Detections(np.array(boxes), np.array(scores), np.ones(len(scores), dtype=np.int64))
    tumor = {"tumor": max(scores)}
    return ImagePrediction(
        record.image_id, record.file_name, record.size_hw, tumor, found, {"max": tumor}, record.patient_id
    )


@pytest.fixture
def truth(phantom_root):
    return phantom_root / "val.json"


@pytest.fixture
def write(truth, tmp_path):
    """Writes predictions for the validation set and answers their path."""

    def write(*, model=MODEL, categories=None, change=lambda images: images):
        dataset = read_coco(truth)
        images = tuple(change([invent(record) for record in dataset.images]))
        path = tmp_path / "predictions.json"
        write_predictions(Predictions(images, categories or dataset.categories, model), path)
        return path

    return write


def test_evaluate_files_writes_metrics_and_report(truth, write, tmp_path, capsys):
    predictions = write()
    metrics = evaluate_files(truth, predictions, tmp_path / "eval", command="make <again>")
    assert read_metrics(tmp_path / "eval" / "metrics.json") == metrics
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == [
        "curves",
        "images.csv",
        "lesions.csv",
        "metrics.json",
        "model_card.md",
        "report.html",
    ]
    report = (tmp_path / "eval" / "report.html").read_text()
    assert "make &lt;again&gt;" in report
    assert f"{truth.parent.name}: val.json" in report
    dataset = read_coco(truth)
    facts, [model] = metrics.protocol, metrics.models
    assert facts.n_images == len(dataset.images) > 4
    assert facts.ground_truth_hash == data_hash(dataset)
    assert facts.split_hash == dataset.info["split"]["hash"]
    assert model.protocol.predictions_sha256 == file_hash(predictions)
    assert (model.protocol.checkpoint_sha256, model.protocol.trained_on_data_hash) == ("abc", "d")
    assert model.protocol.trained_on_split_hash == "s"
    assert model.protocol.patients_seen_in_training == 0
    assert not any("leakage" in note.lower() for note in [*metrics.notes, *model.notes])
    assert model.froc.points[0].sensitivity.value == 1.0
    assert model.detection.bbox.AP50.value == pytest.approx(1.0)
    assert "ROC AUC" in capsys.readouterr().out


def test_evaluate_files_without_report_writes_metrics_only(truth, write, tmp_path):
    evaluate_files(
        truth,
        write(),
        tmp_path / "eval",
        report=False,
        options=Options(match="center", over_images="mean", resamples=0),
    )
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["images.csv", "lesions.csv", "metrics.json"]
    facts = json.loads((tmp_path / "eval" / "metrics.json").read_text())["protocol"]
    assert (facts["match"], facts["over_images"]) == ("center", "mean")


def test_an_earlier_evaluation_does_not_stand_beside_a_new_one(truth, write, tmp_path):
    evaluate_files(truth, write(), tmp_path / "eval")
    (tmp_path / "eval" / "mine.txt").write_text("kept")
    evaluate_files(truth, write(), tmp_path / "eval", report=False)
    assert {path.name for path in (tmp_path / "eval").rglob("*")} == {
        "curves", "images.csv", "lesions.csv", "metrics.json", "mine.txt"
    }  # fmt: skip


def test_tables_agree_with_the_metrics(truth, write, tmp_path):
    metrics = evaluate_files(truth, write(), tmp_path / "eval", report=False)
    with open(tmp_path / "eval" / "lesions.csv", newline="", encoding="utf-8") as file:
        lesions = list(csv.DictReader(file))
    with open(tmp_path / "eval" / "images.csv", newline="", encoding="utf-8") as file:
        images = list(csv.DictReader(file))
    [model] = metrics.models
    assert len(lesions) == metrics.protocol.n_lesions
    assert len(images) == metrics.protocol.n_images
    found = [row for row in lesions if row["fppi"] and float(row["fppi"]) <= 1]
    assert len(found) / len(lesions) == model.froc.at(1.0).value
    assert sum(row["label tumor"] == "1" for row in images) == model.image["tumor"].n_positive
    assert {row["model"] for row in images} == {model.name}


def test_no_cell_of_a_table_is_a_formula(truth, write, tmp_path):
    evaluate_files(truth, write(), tmp_path / "eval", names=["=1+1"], report=True)
    tables = [tmp_path / "eval/images.csv", tmp_path / "eval/lesions.csv", *(tmp_path / "eval/curves").glob("*.csv")]
    assert len(tables) > 4
    for path in tables:
        with open(path, newline="", encoding="utf-8") as file:
            assert {row["model"] for row in csv.DictReader(file)} <= {"'=1+1"}


def test_several_models_are_named_by_what_tells_them_apart(truth, write, tmp_path):
    first = write()
    paths = []
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "predictions.json")
        paths[-1].write_bytes(first.read_bytes())
    options = {"options": QUICK, "progress": False}
    metrics = evaluate_many(truth, paths, tmp_path / "eval", **options)
    assert [model.name for model in metrics.models] == ["ours", "theirs"]
    assert {path.name for path in (tmp_path / "eval").glob("model_card*")} == {"model_card_1.md", "model_card_2.md"}
    assert {one.difference.value for one in metrics.comparisons[0].differences} == {0.0}
    for names in (["one"], ["one", "one"], ["one", " "]):
        with pytest.raises(InputError, match=r"--names .*: expected 2, one for each predictions file, no two alike"):
            evaluate_many(truth, paths, tmp_path / "eval", names=names, **options)
    with pytest.raises(InputError, match=r"--names .*no two alike"):
        evaluate_many(truth, [first, first], tmp_path / "eval", **options)


def test_a_calibration_is_measured_and_must_belong(truth, write, tmp_path):
    fit = Fit("image", "tumor", 5, 5, Scaling(2.0, 0.0), (OperatingPoint("youden", 0.5, 5, 0, 5, 0),))
    made_for = Provenance("abc" * 21 + "a", "c" * 64, "d" * 64, None, "val", ("v1",), "max", None)
    path = tmp_path / "calibration.json"
    write_calibration(Calibration("platt", ("youden",), made_for, (fit,)), path)
    predictions = write(model={**MODEL, "checkpoint_sha256": "abc" * 21 + "a"})
    metrics = evaluate_files(truth, predictions, tmp_path / "eval", calibrations=[path])
    [model] = metrics.models
    [point] = model.image["tumor"].operating_points
    assert (point.goal, point.threshold, point.fp, point.specificity.value) == ("youden", 0.5, 0, 1.0)
    hit, missed, negative = point.tp, point.fn, point.tn  # a lesion without a place is missed
    assert hit + missed == model.image["tumor"].n_positive
    assert point.sensitivity.value == hit / (hit + missed)
    # 0.9 is 9 to 1 and becomes 81 to 1, 0.25 is 1 to 3 and becomes 1 to 9
    expected = (hit / 82**2 + missed * 0.9**2 + negative * 0.1**2) / (hit + missed + negative)
    assert model.image["tumor"].calibrated.brier.value == pytest.approx(expected)
    assert model.protocol.calibration_sha256 == file_hash(path)
    assert "youden" in (tmp_path / "eval" / "report.html").read_text()
    with pytest.raises(InputError, match="belongs to another model"):
        evaluate_files(truth, write(), tmp_path / "eval", calibrations=[path])
    with pytest.raises(InputError, match="evaluate with --over-images max"):
        evaluate_files(
            truth, predictions, tmp_path / "e", calibrations=[path], options=Options(over_images="mean", resamples=0)
        )
    with pytest.raises(InputError, match="2 files for 1 of predictions"):
        evaluate_files(truth, predictions, tmp_path / "e", calibrations=[path, path])


def test_an_output_that_is_a_file_is_refused_before_the_work(truth, write, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="taken: is a file; name a folder"):
        evaluate_files(truth, write(), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_files_of_the_user_stay_where_an_evaluation_goes(truth, write, tmp_path):
    folder = tmp_path / "eval"
    (folder / "curves").mkdir(parents=True)
    mine = [folder / "curves" / "my_own.csv", folder / "curves" / "photo.png", folder / "model_card_for_paper.md"]
    for path in mine:
        path.write_text("mine")
    for _ in range(2):
        evaluate_files(truth, write(), folder)
    assert [path.read_text() for path in mine] == ["mine"] * 3


def test_an_output_that_would_replace_an_input_is_refused(truth, write, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(write().read_bytes())
    with pytest.raises(InputError, match=r"would replace .*metrics.json, which is read"):
        evaluate_files(truth, path, tmp_path)
    assert "mammodet-predictions" in path.read_text()


def test_a_pipe_is_refused(truth, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a pipe; expected a JSON file"):
        evaluate_files(truth, tmp_path / "pipe", tmp_path / "eval")


def test_refusals_of_all_models_are_told_at_once(truth, write, tmp_path):
    paths = []
    for name in ("one", "two"):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_bytes(write(change=lambda images: images[1:]).read_bytes())
    with pytest.raises(InputError) as error:
        evaluate_many(truth, paths, tmp_path / "eval", options=QUICK, progress=False)
    assert "one.json is not scored" in str(error.value)
    assert "two.json is not scored" in str(error.value)


def test_names_that_are_no_text_do_not_stop_an_evaluation(truth, write, tmp_path):
    metrics = evaluate_files(truth, write(), tmp_path / "eval", names=["m\udcfcnchen"])
    assert metrics.models[0].name == "m\\udcfcnchen"
    assert "udcfcnchen" in (tmp_path / "eval" / "report.html").read_text(encoding="utf-8")


def test_masks_of_some_images_alone_are_refused(truth, write, tmp_path):
    def some(images):
        first, *rest = images
        masks = [box_mask(box, first.size_hw) for box in first.detections.boxes_xyxy]
        return [replace(first, detections=replace(first.detections, rles=masks)), *rest]

    with pytest.raises(InputError, match="images have no masks, for instance those of"):
        evaluate_files(truth, write(change=some), tmp_path / "eval")


def test_report_is_titled_with_the_folder_of_a_bare_file_name(truth, write, tmp_path, monkeypatch):
    predictions = write()
    monkeypatch.chdir(truth.parent)
    evaluate_files(Path("val.json"), predictions, tmp_path / "eval")
    assert f"{truth.parent.name}: val.json" in (tmp_path / "eval" / "report.html").read_text()


def test_evaluate_files_refuses_patients_of_the_training(truth, write, tmp_path):
    patients = sorted({str(record.patient_id) for record in read_coco(truth).images})[:2]
    predictions = write(model={"patients": [*patients, "someone else"]})
    with pytest.raises(InputError) as error:
        evaluate_files(truth, predictions, tmp_path / "eval")
    assert f"  - patient {patients[0]}\n  - patient {patients[1]}\n" in str(error.value)
    assert "in training or validation (2):" in str(error.value)
    assert "--allow leakage" in str(error.value)
    assert not (tmp_path / "eval").exists()


def test_evaluate_files_stamps_leakage_that_is_allowed(truth, write, tmp_path):
    patient = read_coco(truth).images[0].patient_id
    metrics = evaluate_files(truth, write(model={"patients": [patient]}), tmp_path / "eval", allow=["leakage"])
    [model] = metrics.models
    assert model.notes[0].startswith("LEAKAGE: 1 of these patients")
    assert metrics.protocol.overrides == [f"patients or images of the training are scored (1: patient {patient})"]
    assert model.protocol.patients_seen_in_training == 1
    assert "LEAKAGE: 1 of these patients" in (tmp_path / "eval" / "report.html").read_text()
    assert "LEAKAGE" in (tmp_path / "eval" / "metrics.json").read_text()


@pytest.mark.parametrize("model", [{}, {"patients": []}, {"patients": None}])
def test_evaluate_files_says_that_leakage_could_not_be_checked(truth, write, tmp_path, model):
    metrics = evaluate_files(truth, write(model=model), tmp_path / "eval", report=False)
    [model] = metrics.models
    assert any("Leakage could not be checked" in note for note in model.notes)
    assert model.protocol.patients_seen_in_training is None


def test_evaluate_files_refuses_other_categories(truth, write, tmp_path):
    predictions = write(categories=("mass",))
    with pytest.raises(InputError, match=r"its categories are \['mass'\], those of .* are \['lesion'\]"):
        evaluate_files(truth, predictions, tmp_path / "eval")
    with pytest.raises(InputError, match="its categories are"):
        draw_files(truth, predictions, None, tmp_path / "overlays")


def test_evaluate_files_passes_over_extra_predictions_on_request_only(truth, write, tmp_path, phantom_root):
    others = [invent(record) for record in read_coco(phantom_root / "test.json").images]
    predictions = write(change=lambda images: images + others)
    with pytest.raises(InputError, match="Predictions for images that the ground truth lacks"):
        evaluate_files(truth, predictions, tmp_path / "eval", report=False)
    metrics = evaluate_files(truth, predictions, tmp_path / "eval", report=False, allow=["extra"])
    assert metrics.protocol.n_images == len(read_coco(truth).images)


def test_evaluate_files_names_an_image_without_prediction(truth, write, tmp_path):
    missing = read_coco(truth).images[0].file_name
    predictions = write(change=lambda images: images[1:])
    with pytest.raises(InputError, match=rf"Images without a prediction \(1\):\n  - image '{missing}'"):
        evaluate_files(truth, predictions, tmp_path / "eval")


def test_evaluate_files_works_where_the_images_are_gone(truth, write, tmp_path):
    write_coco(read_coco(truth), tmp_path / "elsewhere" / "val.json")
    evaluate_files(tmp_path / "elsewhere" / "val.json", write(), tmp_path / "eval")
    assert "no such image" in (tmp_path / "eval" / "report.html").read_text()


# Pictures.


def drawn(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["truth", "predictions", "both"])
def test_draw_files_draws_truth_predictions_or_both(mode, truth, write, tmp_path, phantom_root):
    written = draw_files(
        None if mode == "predictions" else truth,
        None if mode == "truth" else write(),
        phantom_root if mode == "predictions" else None,
        tmp_path / "overlays",
        limit=2,
        panel_height=120,
        progress=False,
    )
    stems = [record.file_name.rsplit(".", 1)[0].replace("/", "__") for record in read_coco(truth).images[:2]]
    assert [path.name for path in written] == [f"{stem}.jpg" for stem in stems]
    assert drawn(tmp_path / "overlays") == {f"{stem}.jpg" for stem in stems} | {"index.html", "thumbnails"}
    index = (tmp_path / "overlays" / "index.html").read_text()
    assert ("0.90" in index or "0.25" in index) is (mode != "truth")


def test_draw_files_passes_over_predictions_for_other_images(truth, write, tmp_path, phantom_root):
    others = [invent(record) for record in read_coco(phantom_root / "test.json").images]
    predictions = write(change=lambda images: images + others)
    assert len(draw_files(truth, predictions, None, tmp_path / "overlays", limit=1, progress=False)) == 1


def test_draw_files_asks_for_a_file(tmp_path):
    with pytest.raises(InputError, match="--ground-truth, --predictions: give at least one"):
        draw_files(None, None, tmp_path, tmp_path / "overlays")


def test_draw_files_asks_for_the_folder_of_predictions_alone(write, tmp_path):
    with pytest.raises(InputError, match="--images: without a ground truth, name the folder that was predicted"):
        draw_files(None, write(), None, tmp_path / "overlays")


def test_draw_files_refuses_a_folder_that_is_not_there(truth, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder; --images names"):
        draw_files(truth, None, tmp_path / "nowhere", tmp_path / "overlays")
    assert not (tmp_path / "overlays").exists()


def test_draw_files_never_reads_outside_of_the_folder(write, tmp_path):
    path = write()
    value = json.loads(path.read_text())
    value["images"][0]["file_name"] = "../secret.png"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="leaves the data root"):
        draw_files(None, path, tmp_path, tmp_path / "overlays")


# The tools.


def run_tool(name, *arguments, cwd=ROOT):
    command = [sys.executable, str(ROOT / "tools" / name), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("name", ["evaluate.py", "visualize.py"])
def test_tool_help_has_an_example(name):
    result = run_tool(name, "--help")
    assert result.returncode == 0
    assert "example" in result.stdout
    assert f"mammodet {name.removesuffix('.py')} --" in result.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("evaluate.py", ["--ground-truth", "none.json", "--predictions", "x.json"], "none.json: no such file"),
        (
            "evaluate.py",
            ["--ground-truth", "val.json", "--predictions", "val.json"],
            "val.json: is a data set, no predictions",
        ),
        ("evaluate.py", ["--ground-truth", "images", "--predictions", "val.json"], "is a folder; expected a JSON file"),
        (
            "evaluate.py",
            ["--ground-truth", "val.json", "--predictions", "val.json", "--history", "no.csv"],
            "--history no.csv: no such file",
        ),
        ("visualize.py", [], "--ground-truth, --predictions: give at least one of them"),
        ("visualize.py", ["--predictions", "val.json"], "val.json: is a data set, no predictions"),
        ("visualize.py", ["--ground-truth", "val.json", "--images", "nowhere"], "nowhere: no such folder"),
        ("visualize.py", ["--ground-truth", "val.json", "--score-threshold", "2"], "expected a number from 0 to 1"),
        ("visualize.py", ["--ground-truth", "val.json", "--limit", "-1"], "--limit -1: expected 1 or more"),
    ],
)
def test_tool_ends_with_one_message_for_wrong_input(name, arguments, words, phantom_root, tmp_path):
    result = run_tool(name, *arguments, "--output", tmp_path / "out", cwd=phantom_root)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_evaluate_tool_writes_a_command_that_can_be_pasted(truth, write, tmp_path):
    output = tmp_path / "an eval"
    result = run_tool("evaluate.py", "--ground-truth", truth, "--predictions", write(), "--output", output)
    assert result.returncode == 0, result.stderr
    assert "FROC" in result.stdout
    assert " " in str(truth)
    report = (output / "report.html").read_text()
    assert f"--ground-truth &#39;{truth}&#39;" in report


def test_visualize_tool_writes_pictures(truth, tmp_path):
    result = run_tool("visualize.py", "--ground-truth", truth, "--output", tmp_path / "out", "--limit", 1, "--png")
    assert result.returncode == 0, result.stderr
    assert "wrote 1 pictures" in result.stdout
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
