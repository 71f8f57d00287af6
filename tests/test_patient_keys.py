"""Patient ids that leave a hospital as hashes: leakage is found with the key, and never said to be absent without."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from small_calibration import for_checkpoint, model_facts, small_validation, write_checkpoint
from small_training import SHORT

from mammodet.commands.calibrate import main as calibrate
from mammodet.commands.predict import main as predict
from mammodet.config import load_config
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.patient_keys import PatientKey, known_patients, not_comparable
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.engine.checked_run import prepare
from mammodet.engine.checkpoint import finish_checkpoint, read_facts
from mammodet.engine.pack import pack_model, without_folders
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.run_folder import BEST, LAST
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import read_calibration, write_calibration
from mammodet.records import Dataset
from mammodet.reporting.evaluation_files import evaluate_files


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef" * 2 + "\n")
    return path


@pytest.fixture(scope="module")
def trained(phantom_root: Path, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector after an epoch, with hashed patients."""
    overrides = (*SMALL, *SHORT, f"data.root={phantom_root}", "train.epochs=1", "model.aggregation.rule=max")
    output = tmp_path_factory.mktemp("run")
    return train(prepare(load_config(None, (*overrides, f"output_dir={output}", f"data.patient_key={key_file}"))))


def test_hash_is_hmac_sha256_with_a_mark_of_its_key(key_file: Path, tmp_path: Path) -> None:
    """The digest is that of `printf P1 | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`."""
    key = PatientKey(key_file)
    assert key.hash("P1") == f"hmac-{key.mark}-d9f8f93f9de1ce3acd2c4c0311ac27d4"
    assert key.hash(key.hash("P1")) == key.hash("P1")
    assert key.hash("b/P1", ["", "b/"]) == "b/" + key.hash("P1")
    (tmp_path / "other").write_text("f" * 32)
    assert PatientKey(tmp_path / "other").mark != key.mark


def test_missing_and_short_keys_are_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret\n")
    for name, text in (("none", "no such key"), ("short", "has 6 bytes; expected a key of 32")):
        with pytest.raises(InputError, match=f"{text}.*token_hex"):
            PatientKey(tmp_path / name)


def test_known_patients_are_those_of_the_data_set_alone(key_file: Path) -> None:
    key = PatientKey(key_file)
    folds = [{"fold": 0, "patients": [key.hash("P1"), "a/" + key.hash("P2"), key.hash("P3")]}]
    found = known_patients({"folds": folds}, ["P1", "P2", None], key)["folds"][0]["patients"]
    assert found[:2] == ["P1", "a/P2"]
    assert found[2].startswith("(of another patient)")


@pytest.mark.parametrize(
    ("seen", "here", "comparable"),
    [
        (["P1"], ["P2"], True),
        (["hmac-01234567-" + "0" * 32], ["hmac-01234567-" + "1" * 32], True),
        (["hmac-01234567-" + "0" * 32], ["hmac-76543210-" + "0" * 32], False),
        (["hmac-01234567-" + "0" * 32], ["P1"], False),
        (["P1"], ["hmac-01234567-" + "0" * 32], False),
    ],
)
def test_ids_under_other_keys_cannot_be_compared(seen: list[str], here: list[str], comparable: bool) -> None:
    assert (not_comparable(seen, here) is None) == comparable


def test_no_id_is_in_checkpoints_and_predictions(trained: Path, phantom_root: Path, key_file: Path) -> None:
    dataset = read_coco(phantom_root / "train.json")
    ids = {str(record.patient_id) for record in dataset.images}
    for name in (BEST, LAST):
        facts = torch.load(trained.with_name(name), weights_only=True)["mammodet"]
        assert {PatientKey(key_file).hash(patient) for patient in ids} <= set(facts["patients"])
        assert not facts["images"]["names"]  # names of files often hold ids, and could be guessed from their hashes
        assert not any(re.search(rf"\b{patient}\b", json.dumps(facts)) for patient in ids)
    predictor = Predictor.from_checkpoint(trained, "cpu")
    key = PatientKey(key_file)
    path, _ = predict_to_folder(
        predictor, read_coco(phantom_root / "test.json"), phantom_root, trained.parent / "out", key=key
    )
    value = json.loads(path.read_text())
    assert all(each["patient_id"].startswith("hmac-") for each in (*value["images"], *value["patients"]))


def test_leakage_is_found_with_the_key_and_unchecked_without(
    trained: Path, phantom_root: Path, key_file: Path, tmp_path: Path
) -> None:
    predictor, train_set = Predictor.from_checkpoint(trained, "cpu"), read_coco(phantom_root / "train.json")
    test_set, first = read_coco(phantom_root / "test.json"), train_set.images[0]
    # A test image under the id of a patient of the training: only the id gives it away.
    other = test_set.images[0]
    leaking = type(other)(**{**{f: getattr(other, f) for f in other.__slots__}, "patient_id": first.patient_id})
    truth = phantom_root / "leaking_ids.json"
    write_coco(Dataset(test_set.categories, (leaking, *test_set.images[1:]), {}), truth)
    try:
        path, _ = predict_to_folder(predictor, read_coco(truth), phantom_root, tmp_path, key=PatientKey(key_file))
        with pytest.raises(InputError, match=f"patient {first.patient_id}"):
            evaluate_files(truth, [path], tmp_path / "eval", report=False, patient_key=key_file)
        metrics = evaluate_files(truth, [path], tmp_path / "eval", report=False)
        told = json.dumps(metrics.to_json())
        assert "could not be checked" in told
        assert "hashed under a key" in told
        clean, _ = predict_to_folder(predictor, test_set, phantom_root, tmp_path / "b", key=PatientKey(key_file))
        metrics = evaluate_files(
            phantom_root / "test.json", [clean], tmp_path / "eval", report=False, patient_key=key_file
        )
        assert "hashed under a key" not in json.dumps(metrics.to_json())
    finally:
        (phantom_root / "leaking_ids.json").unlink()


def test_calibration_names_hashes(key_file: Path, tmp_path: Path) -> None:
    truth, predictions = small_validation()
    key = PatientKey(key_file)
    write_coco(truth, tmp_path / "val.json")
    ids = sorted({str(each.patient_id) for each in truth.images})
    model = {**model_facts(), "patients": [key.hash(ids[0])], "unknown_patients": 0}
    write_predictions(Predictions(tuple(predictions), truth.categories, model), tmp_path / "p.json")
    arguments = ["--ground-truth", str(tmp_path / "val.json"), "--predictions", str(tmp_path / "p.json")]
    arguments += ["--goal", "youden", "--output", str(tmp_path / "c.json"), "--patient-key", str(key_file)]
    with pytest.raises(InputError, match=f"holds what was in the training .*patient {ids[0]}"):
        calibrate(arguments)
    write_predictions(
        Predictions(tuple(predictions), truth.categories, {**model, "patients": [key.hash("other")]}),
        tmp_path / "p.json",
    )
    calibrate(arguments)
    assert set(read_calibration(tmp_path / "c.json").provenance.patients) == {key.hash(each) for each in ids}


def test_plain_ids_of_a_calibration_are_not_packed_beside_hashed_ones(key_file: Path, tmp_path: Path) -> None:
    key = PatientKey(key_file)
    path = write_checkpoint(tmp_path / "best.ckpt", patients=[key.hash("p9")])
    plain = for_checkpoint(path, 0.5)
    write_calibration(plain, tmp_path / "plain.json")
    with pytest.raises(InputError, match=r"plain\.json: names patients by their ids"):
        pack_model(path, tmp_path / "m.safetensors", calibration=tmp_path / "plain.json")
    nobody = replace(plain, provenance=replace(plain.provenance, patients=()))  # of images without patient ids
    write_calibration(nobody, tmp_path / "nobody.json")
    assert pack_model(path, tmp_path / "n.safetensors", calibration=tmp_path / "nobody.json").size > 0
    patients = tuple(key.hash(each) for each in plain.provenance.patients)
    hashed = replace(plain, provenance=replace(plain.provenance, patients=patients))
    write_calibration(hashed, tmp_path / "hashed.json")
    assert pack_model(path, tmp_path / "m.safetensors", calibration=tmp_path / "hashed.json").size > 0


def test_packed_config_names_no_folder_of_the_key(key_file: Path, tmp_path: Path) -> None:
    config = load_config(None, (f"data.patient_key={key_file}", f"data.cache_dir={tmp_path}")).to_dict()
    packed = without_folders(config)["data"]
    assert (packed["patient_key"], packed["cache_dir"]) == ("key", tmp_path.name)


def test_prediction_with_a_key_hashes_the_patients_of_a_checkpoint_without(
    phantom_root: Path, key_file: Path, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", patients=["p9"])
    out = tmp_path / "out"
    arguments = ["--checkpoint", str(checkpoint), "--input", str(phantom_root / "test.json"), "--output", str(out)]
    predict([*arguments, "--patient-key", str(key_file), "--num-workers", "0"])
    key = PatientKey(key_file)
    assert json.loads((out / "predictions.json").read_text())["model"]["patients"] == [key.hash("p9")]
    for record in read_coco(phantom_root / "test.json").images:
        for table in ("images.csv", "breasts.csv", "patients.csv"):
            cells = {cell for row in csv.reader((out / table).open()) for cell in row}
            assert key.hash(str(record.patient_id)) in cells
            assert record.patient_id not in cells


def test_best_checkpoint_from_before_a_key_is_finished_with_hashes(
    trained: Path, key_file: Path, tmp_path: Path
) -> None:
    key, path = PatientKey(key_file), tmp_path / BEST
    content = torch.load(trained, weights_only=True)
    content["mammodet"] |= {"patients": ["p9"], "images": {**content["mammodet"]["images"], "names": "A" * 8}}
    torch.save(content, path)
    facts = read_facts(trained)[1]
    finish_checkpoint(path, None, facts, key)
    finished = read_facts(path)[1]
    assert set(finished.patients) == {key.hash("p9"), *facts.patients}
    assert not finished.images.names
