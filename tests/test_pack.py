"""Packed models answer as their checkpoints do, carry what those know, and start predictions without more files."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_calibration import OTHER, for_checkpoint, write_checkpoint
from small_metrics import metrics_value
from test_card import TEXT

import mammodet.models
from mammodet.config import load_config
from mammodet.data.coco import read_coco
from mammodet.data.sources import SourceFile
from mammodet.engine.checkpoint import RunFacts, load_model, read_facts, read_packed, save_torch
from mammodet.engine.pack import pack_model
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.train import _with_earlier_patients
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import write_calibration
from mammodet.files import file_hash
from mammodet.modeling.build import build_model
from mammodet.modeling.packed_files import Parts, read_state, write_packed
from mammodet.modeling.weight_files import KEY
from mammodet.models import starter_path, write_pin
from mammodet.reporting.evaluation_files import evaluate_files

ROOT = Path(__file__).parent.parent
PATIENTS = ("phantom_001", "seen_ä")


def tool(name: str, *arguments: object) -> int:
    return int(runpy.run_path(str(ROOT / "tools" / name))["main"]([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint ö") / "best.ckpt", patients=PATIENTS)


@pytest.fixture(scope="module")
def complete(checkpoint: Path) -> Path:
    """Packed with a calibration and a card, in two steps."""
    folder = checkpoint.parent
    packed = folder / "first.safetensors"
    pack_model(checkpoint, packed)
    write_calibration(for_checkpoint(checkpoint, 0.5), folder / "calibration.json")
    (folder / "card.yaml").write_text(yaml.safe_dump(TEXT), encoding="utf-8")
    figures = metrics_value()
    figures["models"][0]["protocol"]["checkpoint_sha256"] = file_hash(packed)
    (folder / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
    files = {name: folder / f"{name}.json" for name in ("calibration", "metrics")}
    pack_model(packed, folder / "complete.bin", card=folder / "card.yaml", name="Tiny", **files)
    return folder / "complete.bin"


def answers(path: Path, root: Path) -> list[Any]:
    return list(Predictor.from_checkpoint(path, "cpu").predict(read_coco(root / "test.json"), root))


def test_float_pack_answers_exactly_as_its_checkpoint(checkpoint, phantom_root, tmp_path):
    report = pack_model(checkpoint, tmp_path / "m.safetensors", half=False)
    assert (report.halved, report.kept) == (0, ())
    for found, expected in zip(
        *(answers(path, phantom_root) for path in (tmp_path / "m.safetensors", checkpoint)), strict=True
    ):
        assert found.scores == expected.scores
        assert np.array_equal(found.detections.boxes_xyxy, expected.detections.boxes_xyxy)
        assert np.array_equal(found.detections.scores, expected.detections.scores)
        assert found.detections.rles == expected.detections.rles
        assert len(found.detections)


def test_half_pack_is_half_as_large_and_answers_alike(checkpoint, phantom_root, tmp_path):
    whole = pack_model(checkpoint, tmp_path / "whole.safetensors", half=False)
    report = pack_model(checkpoint, tmp_path / "half.safetensors")
    assert report.halved > 20
    assert report.size < 0.55 * whole.size
    before, after = (read_state(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    for name, tensor in before.items():
        assert (after[name] - tensor).abs().max() <= 2**-11 * tensor.abs().max()
    for found, expected in zip(
        *(answers(path, phantom_root) for path in (tmp_path / "half.safetensors", checkpoint)), strict=True
    ):
        assert found.scores == pytest.approx(expected.scores, abs=2e-3)
        assert found.detections.scores == pytest.approx(expected.detections.scores, abs=5e-3)


def test_classifier_is_packed_too(phantom_root, tmp_path):
    overrides = ("model.kind=classifier", "model.classifier.network=cnn", "model.classifier.heads={tumor: {}}")
    config = load_config(None, (*overrides, "data.image.max_size=64", "data.image.aspect=stretch"))
    network = build_model(config, 1, load_weights=False)
    files = (SourceFile("/home/me/data/mias/val.json", "val"), SourceFile(None))
    facts = RunFacts(config.to_dict(), ("lesion",), "f" * 64, None, files=files)
    save_torch({"state_dict": network.state_dict(), KEY: facts.to_json()}, tmp_path / "c.ckpt")
    pack_model(tmp_path / "c.ckpt", tmp_path / "c.safetensors", half=False)
    packed = read_packed(tmp_path / "c.safetensors")
    assert packed is not None
    assert [each.file for each in packed.facts.files] == ["mias/val.json", None]
    found, expected = answers(tmp_path / "c.safetensors", phantom_root), answers(tmp_path / "c.ckpt", phantom_root)
    assert [one.scores for one in found] == [one.scores for one in expected]


def test_packed_model_says_what_its_checkpoint_says(checkpoint, complete):
    expected, found = (Predictor.from_checkpoint(path, "cpu").describe() for path in (checkpoint, complete))
    first = checkpoint.parent / "first.safetensors"
    assert found["packed_from"] == [file_hash(checkpoint), file_hash(first)]
    assert found["checkpoint_sha256"] == file_hash(complete)
    for key in ("kind", "data_hash", "split_hash", "patients", "version"):
        assert found[key] == expected[key]
    assert found["config"]["model"] == expected["config"]["model"]
    assert (expected["config"]["data"]["root"], found["config"]["data"]["root"]) == ("some/where", "where")
    assert found["config"]["output_dir"] == "where"


def test_evaluation_refuses_patients_of_a_packed_model(complete, phantom_root, tmp_path):
    truth = read_coco(phantom_root / "test.json")
    first = truth.images[0].patient_id
    predictor = Predictor.from_checkpoint(complete, "cpu")
    predictor.facts = replace(predictor.facts, patients=(first,))
    state = predictor.model.state_dict()
    write_packed(tmp_path / "seen.safetensors", state, Parts(predictor.facts.to_json()))
    predictions, _ = predict_to_folder(
        Predictor.from_checkpoint(tmp_path / "seen.safetensors", "cpu"), truth, phantom_root, tmp_path, progress=False
    )
    with pytest.raises(InputError, match=f"patient {first}"):
        evaluate_files(phantom_root / "test.json", [predictions], tmp_path / "eval", report=False, progress=False)


@pytest.mark.parametrize("named", [None, "starter"])
def test_training_from_a_packed_model_keeps_its_weights_and_patients(complete, checkpoint, capsys, monkeypatch, named):
    monkeypatch.setattr("mammodet.models.starter_path", lambda: complete)
    weights = named or str(complete)
    config = load_model(checkpoint)[1]
    started = config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})
    model = build_model(started, 1)
    printed = capsys.readouterr().out
    assert "missing" not in printed
    assert "mismatched" not in printed
    state = read_state(complete)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    facts = _with_earlier_patients(RunFacts({}, (), "", None, ("new",)), None, weights)
    assert facts.patients == ("new", *PATIENTS)


def test_calibration_of_another_model_is_not_packed(checkpoint, tmp_path):
    other = for_checkpoint(checkpoint, 0.5)
    write_calibration(
        replace(other, provenance=replace(other.provenance, checkpoint_sha256=OTHER)), tmp_path / "other.json"
    )
    with pytest.raises(InputError, match=OTHER):
        pack_model(checkpoint, tmp_path / "m.safetensors", calibration=tmp_path / "other.json")
    assert not (tmp_path / "m.safetensors").exists()


def test_figures_without_a_card_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="has no card; --name and --metrics go into one"):
        pack_model(checkpoint, tmp_path / "m.safetensors", name="Tiny")


def test_predict_labels_by_the_calibration_inside_unless_switched_off(complete, phantom_root, tmp_path, capsys):
    inputs = ("--input", phantom_root / "test.json", "--num-workers", 0, "--device", "cpu", "--checkpoint", complete)
    assert tool("predict.py", *inputs, "--output", tmp_path / "labelled") == 0
    printed = capsys.readouterr().out
    assert "sensitivity@0.9 on validation" in printed
    assert "starter" not in printed
    value = json.loads((tmp_path / "labelled" / "predictions.json").read_text())
    assert all(one["labels"]["tumor"]["score_threshold"] == 0.5 for one in value["images"])
    assert value["model"]["calibration"]["other_checkpoint"] is False
    assert tool("predict.py", *inputs, "--output", tmp_path / "bare", "--no-labels") == 0
    bare = json.loads((tmp_path / "bare" / "predictions.json").read_text())
    assert not any("labels" in one for one in bare["images"])
    with pytest.raises(SystemExit):
        tool("predict.py", *inputs, "--output", tmp_path / "x", "--no-labels", "--calibration", "c.json")


def test_tool_packs_pins_and_shows(checkpoint, tmp_path, capsys):
    output, folder = tmp_path / "m.safetensors", checkpoint.parent
    more = ("--card", folder / "card.yaml", "--calibration", folder / "calibration.json", "--pin", "--name", "Small")
    assert tool("pack_model.py", "--checkpoint", checkpoint, "--output", output, *more) == 0
    assert f"wrote {output}: {output.stat().st_size} bytes" in capsys.readouterr().out
    assert json.loads((tmp_path / "m.json").read_text())["sha256"] == file_hash(output)
    assert tool("pack_model.py", "--show", output) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Small\n")
    assert f"- packed from (SHA-256): {file_hash(checkpoint)}\n" in printed
    assert "- patients in training and validation: 2\n" in printed
    with pytest.raises(InputError, match="is no packed model"):
        tool("pack_model.py", "--show", checkpoint)
    with pytest.raises(SystemExit):
        tool("pack_model.py", "--checkpoint", checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["config"]["model"]["detector"].update(box_head_channels=2**14), "another architecture"),
        (
            lambda facts: facts["config"]["model"]["detector"].update(box_head_channels=2**50),
            "less than or equal to 16384",
        ),
        (lambda facts: facts["config"]["model"]["detector"].update(mask_head_layers=64), "another architecture"),
        (lambda facts: facts["config"]["model"].update(kind="oracle"), "model.kind"),
        (lambda facts: facts.update(config=[1]), "its facts are damaged"),
        (lambda facts: facts.update(patients="P_1"), r"facts are damaged \(patients "),
        (lambda facts: facts.update(packed_from=[1]), r"facts are damaged \(packed_from\.0 "),
        (lambda facts: facts.update(stack={"features": 1}), "its facts are damaged"),
        (lambda facts: facts.update(data_hash=[1]), r"facts are damaged \(data_hash "),
        (lambda facts: facts.update(images={"names": "abc"}), "its facts are damaged"),
        (lambda facts: facts.update(format="other"), "format is 'other'"),
    ],
)
def test_packed_file_with_wrong_facts_is_refused_before_it_is_built(checkpoint, change, message, tmp_path):
    facts = read_facts(checkpoint)[1].to_json()
    change(facts)
    write_packed(tmp_path / "m.safetensors", load_model(checkpoint)[0].state_dict(), Parts(facts))
    with pytest.raises(InputError, match=message):
        Predictor.from_checkpoint(tmp_path / "m.safetensors", "cpu")


def test_classifier_with_a_config_of_another_size_is_refused(tmp_path):
    overrides = ("model.kind=classifier", "model.classifier.network=cnn", "model.classifier.heads={tumor: {}}")
    facts = RunFacts(load_config(None, overrides).to_dict(), ("lesion",), "f" * 64, None).to_json()
    for width, message in ((2**14, "another architecture"), (2**62, "less than or equal to 16384")):
        facts["config"]["model"]["classifier"]["cnn"]["dense"] = [width]
        write_packed(tmp_path / "m.safetensors", {"network.blocks.0.weight": torch.zeros(1)}, Parts(facts))
        with pytest.raises(InputError, match=message):
            load_model(tmp_path / "m.safetensors")


def test_wrong_calibration_and_card_inside_are_refused(checkpoint, tmp_path):
    facts, state = read_facts(checkpoint)[1].to_json(), {"a": torch.zeros(1)}
    write_packed(tmp_path / "a", state, Parts(facts, calibration={"format": "none"}))
    with pytest.raises(InputError, match="a: calibration: format is 'none'"):
        read_packed(tmp_path / "a")
    write_packed(tmp_path / "b", state, Parts(facts, card={"title": "x"}))
    with pytest.raises(InputError, match="b: card: 4 faults"):
        read_packed(tmp_path / "b")


def test_starter_that_is_pinned_is_found_and_a_changed_one_refused(complete, tmp_path):
    path = tmp_path / "starter.safetensors"
    path.write_bytes(complete.read_bytes())
    with pytest.raises(InputError, match=r"holds no starter\.json: .* Give another model: --checkpoint FILE"):
        starter_path(tmp_path)
    assert write_pin(path) == tmp_path / "starter.json"
    assert starter_path(tmp_path) == path
    path.write_bytes(complete.read_bytes()[:-1])
    with pytest.raises(InputError, match="is cut short or was exchanged"):
        starter_path(tmp_path)


def test_starter_of_the_package_is_the_pinned_one_or_says_that_it_is_missing():
    if (ROOT / "mammodet" / "models" / "starter.safetensors").exists():
        packed = read_packed(starter_path())
        assert packed is not None
        assert packed.card is not None
        assert packed.card.froc is not None
        assert packed.calibration is not None
    else:
        with pytest.raises(
            InputError, match=r"comes without the starter model\. Give another model: --checkpoint FILE"
        ):
            starter_path()


@pytest.mark.parametrize("named", [(), ("--checkpoint", "starter")])
def test_predict_without_a_checkpoint_takes_the_starter_and_says_so(
    named, complete, phantom_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(mammodet.models, "starter_path", lambda: complete)
    inputs = ("--input", phantom_root / "test.json", "--num-workers", 0, "--device", "cpu", "--output", tmp_path)
    assert tool("predict.py", *named, *inputs) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "starter" in line]
    assert lines == [
        "starter model: Tiny: research only; finds masses, trained on digitised film; sensitivity 0.62 (0.41 to 0.80) "
        "at 1 false positive per image on test.json, 17 images of 12 patients (docs/starter.md)"
    ]


def test_prediction_imports_nothing_that_trains_or_draws(complete, phantom_root, tmp_path):
    code = (
        "import sys; from mammodet.commands import predict; predict.main(sys.argv[1:]); "
        "slow = ('lightning', 'tensorboard', 'torchmetrics', 'timm', 'matplotlib', 'skimage', 'scipy'); "
        "print('imported:', [name for name in slow if name in sys.modules])"
    )
    inputs = ["--checkpoint", str(complete), "--input", str(phantom_root / "test.json"), "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *inputs],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "imported: []"
