"""detectron2's configs: read, changed, stored in checkpoints, and refused where they cannot work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL_DETECTRON2

from mammodet.config import Detectron2Config, load_config
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError
from mammodet.modeling.build import build_model
from mammodet.modeling.detectron2_backend.config import fit, instantiate, resolve

BACKEND = "model.detector.backend=detectron2"
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
LAZY = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
SIZES = [[8], [16], [32], [64], [128]]
needs_detectron2 = pytest.mark.detectron2


def message(settings: Detectron2Config) -> str:
    with pytest.raises(InputError) as caught:
        resolve(settings)
    return str(caught.value)


def test_missing_detectron2_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_detectron2.cache_clear()
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(InputError) as caught:
        build_model(load_config(None, SMALL_DETECTRON2), 1)
    text = str(caught.value)
    assert text.startswith("detectron2 is not installed.")
    assert '\n  pip install "mammodet[detectron2]"\n  pip install --no-build-isolation' in text
    assert "torch/torchvision 2.11/0.26, 2.15/0.29" in text
    assert "model.detector.backend=torchvision" in text


@needs_detectron2
def test_detectron2_of_another_torch_is_told_apart_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    require_detectron2.cache_clear()
    monkeypatch.setitem(sys.modules, "detectron2._C", None)
    with pytest.raises(InputError, match=r"(?s)detectron2 cannot be loaded \(.*_C.*built again whenever torch changes"):
        require_detectron2()


def test_backend_without_a_config_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"backend=detectron2 needs model\.detectron2\.config: a name of its model zoo"
    ):
        load_config(None, [BACKEND])


def test_settings_of_the_other_backend_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, [BACKEND, f"model.detectron2.config={MASK_RCNN}", "model.detector.fpn_channels=64",
                           "model.detector.backbone.norm=BN"])  # fmt: skip
    text = str(caught.value)
    assert "model.detector.backbone.norm=BN: has no effect with backend=detectron2" in text
    assert "model.detector.fpn_channels=64: has no effect" in text
    assert "set MODEL.FPN.OUT_CHANNELS in model.detectron2.opts" in text


def test_detectron2_settings_without_the_backend_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.detectron2 is set, but model\.detector\.backend is torchvision"):
        load_config(None, [f"model.detectron2.config={MASK_RCNN}"])


@needs_detectron2
def test_unknown_name_comes_with_near_ones() -> None:
    text = message(Detectron2Config(config="COCO-Detection/mask_rcnn_R_50_FPN_3x.yaml"))
    assert "neither a file nor a name of detectron2's model zoo" in text
    assert f"near: {MASK_RCNN}" in text


@needs_detectron2
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("COCO-Detection/fcos_R_50_FPN_1x.py", "FCOS: expected GeneralizedRCNN or RetinaNet"),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", "META_ARCHITECTURE ProposalNetwork: expected GeneralizedRCNN"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", "no precomputed proposals"),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", "keypoints are not supported"),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py", "keypoints: not supported"),
        ("Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml", "MODEL.ROI_MASK_HEAD.NORM SyncBN: cannot be shared"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", "META_ARCHITECTURE PanopticFPN"),
    ],
)
def test_networks_that_do_not_fit_are_refused(name: str, fault: str) -> None:
    assert fault in message(Detectron2Config(config=name))


@needs_detectron2
def test_faulty_options_of_a_yaml_are_told_all_at_once() -> None:
    opts = ["MODEL.FPN.OUT_CHANELS", 64, "SOLVER.BASE_LR=0.1", "MODEL.ROI_HEADS.NUM_CLASSES", 3,
            "MODEL.FPN.OUT_CHANNELS=wide", "MODEL.WEIGHTS", "a.pkl"]  # fmt: skip
    text = message(Detectron2Config(config=MASK_RCNN, opts=opts))
    assert text.startswith("model.detectron2.opts: 5 faults")
    assert "SOLVER.BASE_LR: only keys of MODEL have an effect" in text
    assert "MODEL.ROI_HEADS.NUM_CLASSES: the data set decides it" in text
    assert "MODEL.WEIGHTS: set model.weights" in text
    assert "MODEL.FPN.OUT_CHANELS=64: Non-existent key" in text
    assert "MODEL.FPN.OUT_CHANNELS='wide': Type mismatch" in text


@needs_detectron2
def test_faulty_options_of_a_lazy_config_are_told_all_at_once() -> None:
    opts = ["model.backbone.out_chanels=64", "train.max_iter=5", "model.roi_heads.num_classes=3",
            "model.roi_heads.box_predictor.test_score_thresh=0.2"]  # fmt: skip
    text = message(Detectron2Config(config=LAZY, opts=opts))
    assert text.startswith("model.detectron2.opts: 4 faults")
    assert "model.backbone.out_chanels: no such key" in text
    assert "train.max_iter: only keys of model have an effect" in text
    assert "model.roi_heads.num_classes: the data set decides it" in text
    assert "test_score_thresh: set model.detector.score_threshold" in text


@needs_detectron2
@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (["MODEL.FPN.OUT_CHANNELS"], "MODEL.FPN.OUT_CHANNELS has no value; expected KEY, VALUE or KEY=VALUE"),
        ([3, 4], "3 where a key was expected"),
        (["MODEL.PIXEL_MEAN=[1"], "MODEL.PIXEL_MEAN=[1: its value cannot be read"),
        (["MODEL.PIXEL_MEAN=!!python/name:os.system"], "its value cannot be read"),
        (["MODEL.PIXEL_MEAN=2026-13-01"], "its value cannot be read"),
        (["MODEL.FPN.OUT_CHANNELS.X", 1], "MODEL.FPN.OUT_CHANNELS.X=1: "),
        (["MODEL.FPN", {"OUT_CHANNELS": 16}], "MODEL.FPN: a whole section; give its keys one by one"),
        (["MODEL.FPN", "none"], "a whole section; give its keys one by one"),
        (["MODEL.ANCHOR_GENERATOR", {"SIZES": [[1]]}], "MODEL.ANCHOR_GENERATOR: a whole section"),
        (["MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"], "rotated boxes are refused"),
        (["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"], "rotated boxes are refused"),
    ],
)
def test_options_that_are_no_options_are_refused(opts: list[Any], fault: str) -> None:
    assert fault in message(Detectron2Config(config=MASK_RCNN, opts=opts))


@needs_detectron2
@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (["model.proposal_generator.anchor_generator=null"], "set model.detector.anchors"),
        (["model.proposal_generator.head.num_anchors=7"], "set model.detector.anchors"),
        (["model.roi_heads=null"], "model.roi_heads: missing"),
        (["model.roi_heads.mask_head=null"], "set model.roi_heads.mask_in_features=null"),
        (["model.roi_heads.box_pooler.pooler_type=ROIAlignRotated"], "rotated boxes: not supported"),
        (["model.backbone", {"a": 1}], "a whole section; give its keys one by one"),
    ],
)
def test_options_of_a_lazy_config_that_cannot_work_are_refused(opts: list[Any], fault: str) -> None:
    assert fault in message(Detectron2Config(config=LAZY, opts=opts))


@needs_detectron2
def test_lazy_config_without_levels_for_masks_has_none() -> None:
    settings = resolve(Detectron2Config(config=LAZY, opts=["model.roi_heads.mask_in_features=null"]))
    assert settings.masks is False


@needs_detectron2
def test_option_replaces_what_a_checkpoint_could_not_carry() -> None:
    name = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"
    text = message(Detectron2Config(config=name))
    assert "model.roi_heads.box_head.conv_norm: <function <lambda>" in text
    assert "or set model.roi_heads.box_head.conv_norm in model.detectron2.opts" in text
    assert "model.roi_heads.mask_head.conv_norm" in text  # all at once
    places = ["model.roi_heads.box_head.conv_norm", "model.roi_heads.mask_head.conv_norm"]
    settings = resolve(Detectron2Config(config=name, opts=[f"{place}=GN" for place in places]))
    assert settings.resolved["model"]["roi_heads"]["box_head"]["conv_norm"] == "GN"


@needs_detectron2
@pytest.mark.parametrize(
    "values",
    [
        {}, {"MODEL": {}}, {"MODEL": 3}, {"model": 3}, {"model": {}},
        {"model": {"_target_": "detectron2.modeling.meta_arch.retinanet.RetinaNet"}},
    ],
)  # fmt: skip
def test_damaged_network_of_a_checkpoint_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"model\.detectron2\.resolved"):
        fit(values, num_categories=1, in_channels=1, anchor_sizes=SIZES, anchor_ratios=[1])


@needs_detectron2
@pytest.mark.parametrize(
    ("key", "value"),
    [("PIXEL_MEAN", []), ("PIXEL_MEAN", ["a", "b", "c"]), ("ANCHOR_GENERATOR", {"SIZES": [[0.0]] * 5, "NAME": "D"})],
)
def test_odd_values_of_a_network_are_refused(key: str, value: Any) -> None:
    values = resolve(Detectron2Config(config=MASK_RCNN)).resolved
    values["MODEL"][key] = value
    with pytest.raises(InputError, match="does not describe a network as detectron2's configs do"):
        fit(values, num_categories=1, in_channels=1, anchor_sizes=SIZES, anchor_ratios=[1])


@needs_detectron2
def test_stored_network_stands_for_a_config_that_is_gone_and_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = f"_BASE_: {zoo_file(MASK_RCNN)}\nMODEL: {{FPN: {{OUT_CHANNELS: 32}}}}\n"
    path.write_text(text)
    settings = resolve(Detectron2Config(config=str(path)))
    assert resolve(settings) == settings
    path.write_text(text.replace("32", "64"))
    changed = message(settings)
    assert "MODEL.FPN.OUT_CHANNELS 32 -> 64" in changed
    assert "Set model.detectron2.resolved=null to take the config" in changed
    path.unlink()
    assert resolve(settings) == settings


def zoo_file(name: str) -> str:
    from detectron2 import model_zoo

    return model_zoo.get_config_file(name)


@needs_detectron2
def test_options_work_as_pairs_and_as_assignments() -> None:
    pairs = resolve(
        Detectron2Config(config=MASK_RCNN, opts=["MODEL.FPN.OUT_CHANNELS", 64, "MODEL.RPN.NMS_THRESH", 0.6])
    )
    texts = resolve(Detectron2Config(config=MASK_RCNN, opts=["MODEL.FPN.OUT_CHANNELS=64", "MODEL.RPN.NMS_THRESH=0.6"]))
    assert pairs.resolved == texts.resolved
    assert pairs.resolved["MODEL"]["FPN"]["OUT_CHANNELS"] == 64
    assert pairs.resolved["MODEL"]["RPN"]["NMS_THRESH"] == 0.6


@needs_detectron2
@pytest.mark.parametrize(
    ("name", "masks"),
    [
        (MASK_RCNN, True),
        (LAZY, True),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", False),
        ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", False),
        ("COCO-Detection/retinanet_R_50_FPN_1x.py", False),
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", True),
    ],
)
def test_masks_are_known_before_the_network_is_built(name: str, masks: bool) -> None:
    assert resolve(Detectron2Config(config=name)).masks is masks


@needs_detectron2
@pytest.mark.parametrize(
    "stem", ["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "COCO-Detection/retinanet_R_50_FPN_1x"]
)
def test_lazy_config_and_yaml_of_one_network_are_the_same_network(stem: str) -> None:
    networks = []
    for suffix in (".yaml", ".py"):
        resolved = resolve(Detectron2Config(config=stem + suffix)).resolved
        values = fit(resolved, num_categories=3, in_channels=3, anchor_sizes=SIZES, anchor_ratios=[1, 2])
        networks.append(instantiate(values))
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    networks[1].load_state_dict(networks[0].state_dict())
    image = {"image": torch.rand(3, 64, 64) * 255}
    with torch.no_grad():
        one, other = (network.eval()([image])[0]["instances"] for network in networks)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)


@needs_detectron2
def test_own_yaml_over_a_base_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "configs ä"
    folder.mkdir()
    (folder / "base.yaml").write_text("MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\n  MASK_ON: true\n"
                                      "  BACKBONE: {NAME: build_resnet_fpn_backbone}\n"
                                      "  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}\n"
                                      "  FPN: {IN_FEATURES: [res2, res3, res4, res5]}\n")  # fmt: skip
    (folder / "mine.yaml").write_text("_BASE_: base.yaml\nMODEL:\n  FPN: {OUT_CHANNELS: 64}\n  WEIGHTS: a.pkl\n")
    settings = resolve(Detectron2Config(config=str(folder / "mine.yaml")))
    assert settings.masks
    assert settings.resolved["MODEL"]["FPN"]["OUT_CHANNELS"] == 64
    assert settings.resolved["MODEL"]["BACKBONE"]["NAME"] == "build_resnet_fpn_backbone"


@needs_detectron2
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("MODEL:\n  FPNN: {OUT_CHANNELS: 64}\n", "FPNN"),
        ("MODEL: [1, 2\n", "cannot be read"),
        ("MODEL:\n  MASK_ON: !!python/object/apply:eval ['1 == 1']\n", "holds Python code, which is not run"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml"),
    ],
)
def test_faulty_yaml_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert fault in message(Detectron2Config(config=str(tmp_path / "mine.yaml")))


@needs_detectron2
def test_other_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    assert "expected a .yaml or a LazyConfig .py" in message(Detectron2Config(config=str(tmp_path / "mine.json")))


def lazy_file(folder: Path, addition: str) -> str:
    """A LazyConfig of the zoo's Mask R-CNN, with more lines."""
    path = folder / "mine.py"
    path.write_text(
        "from detectron2 import model_zoo\n"
        f"model = model_zoo.get_config({LAZY!r}).model\n"
        f"{addition}\n"
    )  # fmt: skip
    return str(path)


@needs_detectron2
def test_lazy_config_with_an_option_builds_without_its_file(tmp_path: Path) -> None:
    path = lazy_file(tmp_path, "model.roi_heads.batch_size_per_image = 77")
    settings = resolve(Detectron2Config(config=path, opts=["model.backbone.out_channels=64",
        "model.proposal_generator.head.in_channels=64", "model.roi_heads.box_head.input_shape.channels=64",
        "model.roi_heads.mask_head.input_shape.channels=64"]))  # fmt: skip
    Path(path).unlink()
    again = Detectron2Config.model_validate_json(settings.model_dump_json())
    values = fit(again.resolved, num_categories=1, in_channels=1, anchor_sizes=SIZES, anchor_ratios=[1])
    model = instantiate(values)
    assert model.roi_heads.batch_size_per_image == 77
    assert model.backbone.output_shape()["p2"].channels == 64
    assert model.roi_heads.box_predictor.cls_score.out_features == 2


@needs_detectron2
@pytest.mark.parametrize(
    ("addition", "fault"),
    [
        (
            "import os\nmodel.roi_heads.box_head = dict(_target_=os.system, command='true')",
            "posix.system is no network module",
        ),
        ("model.backbone.top_block = dict(_target_=lambda: None)", "has no name that a checkpoint could keep"),
        ("model.pixel_std = object()", "cannot be stored in a checkpoint"),
        ("del model", "a LazyConfig without `model`"),
        ("model.backbone = 1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_lazy_config_that_a_checkpoint_could_not_carry_is_refused(tmp_path: Path, addition: str, fault: str) -> None:
    assert fault in message(Detectron2Config(config=lazy_file(tmp_path, addition)))


@needs_detectron2
@pytest.mark.parametrize(
    "target",
    ["os.system", "detectron2.modeling.backbone.fpn.math.sqrt", "detectron2.modeling.meta_arch.rcnn.torch.load",
     "torch.nn.modules.module.os.system", "torch.nn.nothing", "torch.load", "torch.nn.utils.rnn.bind",
     "torch.nn.Module.register_forward_hook", "torch.nn.modules.module.register_module_forward_hook",
     "torch.nn.cpp.ModuleWrapper", "detectron2.modeling.mmdet_wrapper.MMDetBackbone", "", "torch.nn.Linear.", 3, None],
)  # fmt: skip
def test_checkpoint_that_names_other_code_is_refused_and_does_not_run_it(target: Any, tmp_path: Path) -> None:
    settings = resolve(Detectron2Config(config=LAZY))
    witness = tmp_path / "ran"
    settings.resolved["model"]["roi_heads"]["box_head"] = {"_target_": target, "command": f"touch {witness}"}
    values = fit(settings.resolved, num_categories=1, in_channels=1, anchor_sizes=SIZES, anchor_ratios=[1])
    with pytest.raises(InputError, match="is no network module of detectron2 or torch"):
        instantiate(values)
    assert not witness.exists()


def wrapped(value: Any, name: str) -> dict[str, Any]:
    """An attribute of a value, through a class of torch.nn that reads it."""
    wrapper = "torch.nn.cpp.OrderedDictWrapper"
    return {"_target_": f"{wrapper}.cpp_dict.fget", "self": {"_target_": wrapper, "cpp_module": value, "attr": name}}


def called(function: Any, value: Any) -> dict[str, Any]:
    """A call, through a function of torch.nn that calls another one."""
    return {"_target_": "torch.nn.utils.rnn.bind", "optional": value, "fn": function}


@needs_detectron2
def test_chain_of_torchs_own_functions_is_refused_and_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    names = wrapped({"_named_": "torch.nn.utils.rnn.bind"}, "__globals__")
    importer = called(wrapped(called(wrapped(names, "get"), "__builtins__"), "get"), "__import__")
    chain = called(wrapped(called(importer, "os"), "system"), f"touch {witness}")
    with pytest.raises(InputError, match="is no network module of detectron2 or torch"):
        instantiate({"model": chain})
    assert not witness.exists()


@needs_detectron2
def test_weights_none_with_frozen_layers_is_refused() -> None:
    config = load_config(None, [BACKEND, f"model.detectron2.config={MASK_RCNN}"])
    with pytest.raises(
        InputError, match=r"model\.weights=none, but the config freezes 53 batch norms and 11 other tensors"
    ):
        build_model(config, 1)


@needs_detectron2
def test_pyramid_of_another_depth_is_refused() -> None:
    opts = ["MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4"]]
    settings = resolve(Detectron2Config(config=MASK_RCNN, opts=opts))
    with pytest.raises(InputError, match="anchors on 3 feature levels; expected 5"):
        fit(settings.resolved, num_categories=1, in_channels=1, anchor_sizes=SIZES, anchor_ratios=[1])
