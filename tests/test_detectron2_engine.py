"""Training, resuming, predicting and evaluating with detectron2's networks, through the tools."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL_DETECTRON2
from small_training import SHORT, assert_resumes_exactly
from test_engine import config_for

from mammodet.commands import convert, evaluate, predict, visualize
from mammodet.commands import train as train_net
from mammodet.config import Config, load_config
from mammodet.data.coco import read_coco
from mammodet.data.predictions import read_predictions
from mammodet.engine.checked_run import prepare
from mammodet.engine.checkpoint import KEY, load_model
from mammodet.engine.run_folder import BEST
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.phantom.cbis_ddsm import write_cbis_archive

pytestmark = pytest.mark.detectron2
ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs" / "detectron2"

#: What makes each config of configs/detectron2 small enough: a thin network without weights.
THIN = (
    "[MODEL.RESNETS.RES2_OUT_CHANNELS, 64, MODEL.RESNETS.WIDTH_PER_GROUP, 32, MODEL.RESNETS.NORM, GN, "
    "MODEL.FPN.NORM, GN, MODEL.FPN.OUT_CHANNELS, 32, MODEL.ROI_MASK_HEAD.CONV_DIM, 32, MODEL.BACKBONE.FREEZE_AT, 0"
)


def small(root: Path, output: Path, *overrides: str) -> Config:
    return load_config(None, (*SMALL_DETECTRON2, f"data.root={root}", f"output_dir={output}", *SHORT, *overrides))


@pytest.fixture(scope="module")
def trained(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished two-epoch run."""
    output = tmp_path_factory.mktemp("run ö") / "out"
    train(prepare(small(phantom_root, output)))
    return output


def test_resumed_run_equals_an_uninterrupted_one(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("train.epochs=3", "train.ema_decay=0.9", "data.epoch_size=8", "data.negative_fraction=0.5")
    assert_resumes_exactly(prepare(small(phantom_root, tmp_path / "whole", *options)), tmp_path, monkeypatch)


def test_resumed_retinanet_equals_an_uninterrupted_one(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are divided by a running mean, which the checkpoint must hold."""
    options = (
        "model.detectron2.config=COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        f"model.detectron2.opts={THIN}]",
        "train.epochs=3",
        "train.ema_decay=0.9",
        "data.epoch_size=8",
    )
    assert_resumes_exactly(prepare(small(phantom_root, tmp_path / "whole", *options)), tmp_path, monkeypatch)


def test_resume_with_another_network_is_refused(trained: Path, phantom_root: Path) -> None:
    opts = next(each for each in SMALL_DETECTRON2 if "opts" in each).replace("FC_DIM, 32", "FC_DIM, 64")
    with pytest.raises(InputError, match=r"model\.detectron2"):
        train(prepare(small(phantom_root, trained, opts)), resume=True)


def test_checkpoint_carries_its_network(trained: Path, phantom_root: Path) -> None:
    with open(trained / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["train/loss"]) > 0 for row in rows)
    _, config, facts = load_model(trained / BEST)
    assert config.model.detectron2.resolved["MODEL"]["FPN"]["OUT_CHANNELS"] == 32
    assert config.model.with_masks
    assert load_config(trained / "config.yaml").to_dict() == facts.config


def test_checkpoint_that_points_to_a_lazy_config_is_refused_and_does_not_run_it(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / BEST, weights_only=True)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nmodel = {{}}\n")
    content[KEY]["config"]["model"]["detectron2"].update(config=str(tmp_path / "code.py"), opts=[], resolved=None)
    torch.save(content, tmp_path / "pointing.ckpt")
    with pytest.raises(InputError, match="does not hold its network"):
        load_model(tmp_path / "pointing.ckpt")
    assert not (tmp_path / "ran").exists()


def test_thresholds_of_a_config_replace_those_of_the_checkpoint(trained: Path, phantom_root: Path) -> None:
    wanted = small(phantom_root, trained, "model.detector.score_threshold=0.7", "model.aggregation.rule=max")
    model, config, _ = load_model(trained / BEST, wanted)
    assert config.model.aggregation.rule == "max"
    assert model.detector.model.roi_heads.box_predictor.test_score_thresh == 0.7


def test_checkpoint_of_the_other_backend_is_refused(trained: Path, phantom_root: Path) -> None:
    with pytest.raises(InputError, match=r"model\.detector\.backend 'detectron2' -> 'torchvision'"):
        load_model(trained / BEST, config_for(phantom_root, trained))


def test_tools_predict_evaluate_and_draw(trained: Path, phantom_root: Path, tmp_path: Path) -> None:
    truth = phantom_root / "test.json"
    checkpoint = str(trained / BEST)
    assert predict.main(["--checkpoint", checkpoint, "--input", str(truth), "--output", str(tmp_path / "p")]) == 0
    predictions = tmp_path / "p" / "predictions.json"
    found = read_predictions(predictions, read_coco(truth)).images
    assert len(found) == len(read_coco(truth).images)
    assert all(each.detections.rles is not None for each in found)
    arguments = ["--ground-truth", str(truth), "--predictions", str(predictions)]
    assert evaluate.main([*arguments, "--output", str(tmp_path / "e"), "--resamples", "100"]) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "segm" in json.dumps(metrics)
    name = "detectron2, COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml, changed by model.detectron2.opts, 64 px"
    assert metrics["models"][0]["protocol"]["architecture"] == name
    assert visualize.main([*arguments, "--output", str(tmp_path / "v")]) == 0
    assert (tmp_path / "v" / "index.html").is_file()


def test_masks_are_refused_where_lesions_have_boxes_only(phantom_root: Path, tmp_path: Path) -> None:
    content = json.loads((phantom_root / "train.json").read_text())
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
        annotation["geometry"] = "box"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    config = small(phantom_root, tmp_path / "o", f"data.train={tmp_path / 'boxes.json'}")
    with pytest.raises(InputError, match=r"outlines, but \d+ of \d+ training lesions have no mask; choose one without"):
        prepare(config)


@pytest.fixture(scope="module")
def contours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted CBIS-DDSM phantom: contours, 16-bit files."""
    root = tmp_path_factory.mktemp("cbis ß")
    write_cbis_archive(root / "archive", patients=12, size=96, abnormality="mass", quirks=(), progress=False)
    arguments = ["--source", str(root / "archive"), "--output", str(root / "data"), "--abnormality", "mass"]
    splits = ["--split", "holdout", "--test-fraction", "0.3", "--val-fraction", "0.3"]
    assert convert.main(["cbis_ddsm", *arguments, *splits]) == 0
    return root / "data"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_config_trains_and_evaluates(name: str, contours: Path, tmp_path: Path) -> None:
    own = load_config(CONFIGS / f"{name}.yaml").model.detectron2.opts if name == "pointrend" else []
    more = "".join(f", {item!r}" for item in own)
    arguments = ["--config-file", str(CONFIGS / f"{name}.yaml"), f"data.root={contours}", f"output_dir={tmp_path}"]
    options = [*SHORT, "train.epochs=1", "model.weights=none", "model.image_head.targets=[malignant]",
               "model.aggregation.rule=max", "data.negative_fraction=null", "train.monitor=val/auc_malignant",
               "data.epoch_size=8", "train.validate_every=1"]  # fmt: skip
    if name != "phantom":
        options.append(f"model.detectron2.opts={THIN}{more}]")
    assert train_net.main([*arguments, *options]) == 0
    assert train_net.main([*arguments, *options, "--eval-only", f"model.weights={tmp_path / BEST}"]) == 0
    (folder,) = tmp_path.glob("eval_*")
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_train_together(phantom_root: Path, tmp_path: Path) -> None:
    config = small(phantom_root, tmp_path / "out", "train.epochs=1", "data.batch_size=2", "train.devices=2")
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "mammodet", "train", "--config-file", str(tmp_path / "config.yaml")]
    done = subprocess.run([*command, "--num-gpus", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / BEST).is_file()
