"""Exported models answer as torch does, without torch, and what cannot be exported is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL

import mammodet
from mammodet import config as settings
from mammodet.commands.export import main as export
from mammodet.config import load_config
from mammodet.data.coco import read_coco
from mammodet.data.predictions import read_predictions
from mammodet.engine.checkpoint import save_torch
from mammodet.engine.ensemble import Ensemble
from mammodet.engine.facts import RunFacts
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError
from mammodet.export.int8 import PARTS
from mammodet.modeling.build import build_model
from mammodet.modeling.weight_files import KEY
from mammodet.records import ImagePrediction

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parent.parent
CLASSIFIER = (
    "model.kind=classifier",
    "data.image.max_size=64",
    "data.image.aspect=stretch",
    "model.classifier.cnn.blocks=[[4], [8]]",
    "model.classifier.cnn.dense=[16]",
    "model.classifier.network=cnn",
    "train.monitor=val/auc_tumor",
)
MODELS = {
    "mask_rcnn": (*SMALL, "model.detector.score_threshold=0", "model.aggregation.rule=noisy_or"),
    "faster_rcnn": (
        *SMALL,
        "model.detector.arch=faster_rcnn",
        "model.detector.backbone.norm=FrozenBN",
        "model.weights=unused.pth",
        "model.detector.finest_level=3",
        "model.detector.anchors.sizes=[[8, 12], 18, [], []]",
        "model.detector.score_threshold=0.01",
        "model.detector.soft_nms_sigma=0.5",
        "model.image_head.enabled=false",
        "model.aggregation.rule=max",
        "model.test_time.flip=true",
    ),
    "cascade_rcnn": (*SMALL, "model.detector.cascade_ious=[0.6, 0.7]", "model.aggregation.rule=max"),
    "classifier": CLASSIFIER,
    "breasts": (*CLASSIFIER, "model.classifier.views=attention"),
}


def write_checkpoint(path: Path, *overrides: str, categories: tuple[str, ...] = ("mass", "calcification")) -> Path:
    """A model with random weights, as a training writes it."""
    torch.manual_seed(0)
    config = load_config(None, ["data.image.max_size=96", *overrides])
    state = build_model(config, len(categories), load_weights=False).state_dict()
    facts = RunFacts(config.to_dict(), categories, "data", "split", patients=("P1", "P2"))
    save_torch({"state_dict": {f"model.{name}": value for name, value in state.items()}, KEY: facts.to_json()}, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints, each with the exported model beside it."""
    folder = tmp_path_factory.mktemp("models é")
    paths = {name: write_checkpoint(folder / f"{name}.ckpt", *values) for name, values in MODELS.items()}
    for path in paths.values():
        assert export([str(path), "--output", str(path.with_suffix(".onnx"))]) == 0
    return paths


def assert_alike(found: list[ImagePrediction], expected: list[ImagePrediction]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        ours, theirs = one.detections.in_order(), other.detections.in_order()
        assert one.scores == pytest.approx(other.scores, abs=1e-3)
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-3)
        assert ours.boxes_xyxy == pytest.approx(theirs.boxes_xyxy, abs=0.1)
        assert ours.category_ids.tolist() == theirs.category_ids.tolist()
        assert (ours.rles is None) == (theirs.rles is None)


@pytest.mark.parametrize("name", MODELS)
def test_exported_model_answers_as_torch(name: str, models: dict[str, Path], phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    theirs = Predictor.from_checkpoint(models[name], "cpu")
    ours = Ensemble.from_checkpoints([models[name].with_suffix(".onnx")])
    expected = list(theirs.predict(dataset, phantom_root))
    assert_alike(list(ours.predict(dataset, phantom_root, batch_size=2)), expected)
    found = [len(each.detections) for each in expected if isinstance(each, ImagePrediction)]
    assert (max(found) > 0) == ("rcnn" in name)
    made_by = ours.describe()
    assert made_by["patients"] == ["P1", "P2"]
    assert made_by["packed_from"] == [theirs.describe()["checkpoint_sha256"]]
    assert made_by["engine"] == "onnx"


def test_images_of_many_sizes_have_their_masks(models: dict[str, Path]) -> None:
    noise = np.random.default_rng(0)
    images = [
        (noise.random((height, width)) * 255).astype(np.uint8) for height, width in ((96, 96), (50, 96), (96, 33))
    ]
    theirs, ours = (
        mammodet.load(path).predict(images, force=True)
        for path in (models["mask_rcnn"], models["mask_rcnn"].with_suffix(".onnx"))
    )
    assert_alike([each.prediction for each in ours], [each.prediction for each in theirs])
    for one, other in zip(ours, theirs, strict=True):
        assert one.masks is not None
        assert other.masks is not None
        assert (one.masks != other.masks).mean() < 0.001


def mammodet_in_process(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mammodet", *map(str, arguments)], cwd=ROOT, check=True)


def test_openvino_answers_as_torch(models: dict[str, Path], phantom_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    dataset = read_coco(phantom_root / "test.json")
    expected = list(Predictor.from_checkpoint(models["faster_rcnn"], "cpu").predict(dataset, phantom_root))
    # In processes of its own: twice a process that had run a thousand tests died soon after OpenVINO was used in it.
    mammodet_in_process("export", models["faster_rcnn"], "--format", "openvino", "--output", tmp_path / "m.xml")
    for number, path in enumerate((tmp_path / "m.xml", models["faster_rcnn"].with_suffix(".onnx"))):
        output = tmp_path / str(number)
        asked = ("--input", phantom_root / "test.json", "--output", output, "--num-workers", 0)
        mammodet_in_process("predict", "--checkpoint", path, "--engine", "openvino", *asked)
        written = read_predictions(output / "predictions.json")
        assert written.model["engine"] == "openvino"
        assert_alike(list(written.images), expected)


def test_bf16_changes_scores_a_little(models: dict[str, Path], phantom_root: Path, tmp_path: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    answers = []
    for bf16 in (False, True):
        predictor = Ensemble.from_checkpoints([models["mask_rcnn"]], "cpu", settings.TestTimeConfig(bf16=bf16))
        answers.append([each.scores["tumor"] for each in predictor.predict(dataset, phantom_root)])
        assert predictor.describe()["config"]["model"]["test_time"]["bf16"] == bf16
    assert answers[0] != answers[1]
    assert answers[1] == pytest.approx(answers[0], abs=0.02)
    exported = models["mask_rcnn"].with_suffix(".onnx")
    with pytest.raises(InputError, match=r"--bf16: ONNX Runtime computes .*mask_rcnn\.onnx in float32"):
        mammodet.load(exported, bf16=True)
    pytest.importorskip("openvino")
    asked = ["--input", phantom_root / "test.json", "--num-workers", "0", "--checkpoint", exported]
    command = [sys.executable, "-m", "mammodet", "predict", *asked, "--engine", "openvino", "--bf16"]
    done = subprocess.run([*command, "--output", tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        assert "this processor has no units for bfloat16" in done.stderr
        return
    written = read_predictions(tmp_path / "predictions.json")
    assert written.model["config"]["model"]["test_time"]["bf16"] is True
    found = [each.scores["tumor"] for each in written.images]
    assert found != answers[0]
    assert found == pytest.approx(answers[0], abs=0.02)


def test_int8_keeps_the_heads_and_is_refused_where_ap50_falls(
    models: dict[str, Path], phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "m.ckpt", *MODELS["faster_rcnn"], categories=("lesion",))
    output = tmp_path / "m.onnx"
    int8 = ["--output", str(output), "--int8", str(phantom_root)]
    with pytest.raises(
        InputError, match=r"categories are \['lesion'\], those of the model \['mass', 'calcification'\]"
    ):
        export([str(models["faster_rcnn"]), *int8])
    with pytest.raises(
        InputError, match=r"has no train\.json, val\.json; expected a folder that mammodet convert wrote"
    ):
        export([str(checkpoint), "--output", str(output), "--int8", str(tmp_path)])
    with pytest.raises(InputError, match="classifier has no AP50"):
        export([str(models["classifier"]), *int8])
    with pytest.raises(InputError, match=r"falls from 0\.000 to 0\.000; .* more than 0 before"):
        export([str(checkpoint), *int8])  # random weights find nothing
    values = iter((0.5, 0.48, 0.5, 0.495))
    monkeypatch.setattr("mammodet.export.int8._ap50", lambda *_: next(values))
    with pytest.raises(InputError, match=r"falls from 0\.500 to 0\.480; expected at least 0\.490.*--force"):
        export([str(checkpoint), *int8])
    assert not output.exists()
    assert export([str(checkpoint), *int8]) == 0
    graph = onnx.load(str(output)).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    eight = [node.name for node in convs if maker.get(node.input[1]) == "DequantizeLinear"]
    assert len(eight) == len([node for node in convs if node.name.startswith(PARTS)]) - 1 > 20
    assert all(name.startswith(PARTS) for name in eight)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    zero_points = [constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(zero_points) > 20
    assert not any(point.any() for point in zero_points)  # OpenVINO would compute these convolutions in float32
    dataset = read_coco(phantom_root / "val.json")
    assert len(list(mammodet.load(output).predict(phantom_root / "val.json"))) == len(dataset.images)


def test_prediction_imports_no_torch(models: dict[str, Path], phantom_root: Path, tmp_path: Path) -> None:
    code = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "timm", "safetensors"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Block())
import mammodet
from mammodet.commands import main

assert mammodet.load(sys.argv[1]).predict(sys.argv[2] + "/images")[0].masks is not None
arguments = ["--checkpoint", sys.argv[1], "--engine", "onnx", "--input", sys.argv[2] + "/test.json"]
sys.exit(main(["predict", *arguments, "--output", sys.argv[3], "--num-workers", "1"]))
"""
    names = [str(models["mask_rcnn"].with_suffix(".onnx")), str(phantom_root), str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, check=True)
    written = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert written["model"]["engine"] == "onnx"
    assert len(written["images"]) == len(read_coco(phantom_root / "test.json").images)


def test_what_cannot_be_exported_is_refused(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = str(models["classifier"])
    with pytest.raises(InputError, match="ensemble cannot be exported"):
        export([one, one, "--output", str(tmp_path / "m.onnx")])
    with pytest.raises(InputError, match=r"expected a name that ends in \.onnx"):
        export([one, "--output", str(tmp_path / "m.pt")])
    loaded = Predictor.from_checkpoint(models["mask_rcnn"], "cpu")
    loaded.model.detector = torch.nn.Identity()
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *_: loaded)
    with pytest.raises(InputError, match="network of detectron2 cannot be exported"):
        export(["theirs.ckpt", "--output", str(tmp_path / "m.onnx")])
    assert not list(tmp_path.iterdir())


def test_a_graph_that_answers_otherwise_is_not_written(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mammodet.export.onnx_export.OnnxRuntime.__call__", lambda *_: {"logits": np.ones((1, 2))})
    with pytest.raises(InputError, match="answers otherwise than torch: logits differ"):
        export([str(models["classifier"]), "--output", str(tmp_path / "m.onnx")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "engine", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), None, "cannot be read by onnx; it is damaged"),
        (lambda path: bare(path), None, "was not written by mammodet export"),
        (lambda path: None, "torch", "--engine torch takes a checkpoint"),
        (lambda path: path.rename(path.with_suffix(".ckpt")), "onnx", r"--engine onnx takes \.onnx.*mammodet export"),
    ],
)
def test_other_files_are_refused(models, tmp_path, change, engine, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(models["classifier"].with_suffix(".onnx").read_bytes())
    change(path)
    with pytest.raises(InputError, match=message):
        Ensemble.from_checkpoints([next(tmp_path.iterdir())], engine=engine)


def bare(path: Path) -> None:
    """Take an ONNX file's metadata away."""
    content = onnx.load(str(path))
    del content.metadata_props[:]
    onnx.save(content, str(path))


def test_models_without_torch_answer_together(models: dict[str, Path], phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    dataset = replace(dataset, images=dataset.images[:1])
    paths = [models["mask_rcnn"], models["mask_rcnn"].with_suffix(".onnx")]
    (together,) = Ensemble.from_checkpoints(paths, "cpu").predict(dataset, phantom_root)
    (alone,) = Predictor.from_checkpoint(paths[0], "cpu").predict(dataset, phantom_root)
    assert isinstance(together, ImagePrediction)
    assert isinstance(alone, ImagePrediction)
    assert together.scores == pytest.approx(alone.scores, abs=1e-3)
