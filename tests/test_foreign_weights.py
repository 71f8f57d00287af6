"""model.weights=FILE for files of torchvision, detectron2 and Caffe2."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from small_weights import old_names
from small_weights import torchvision_state as make_state
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from mammodet.config import BackboneConfig, load_config
from mammodet.data.sources import SourceFile
from mammodet.engine.checkpoint import RunFacts
from mammodet.engine.train import _with_earlier_patients
from mammodet.errors import InputError
from mammodet.modeling import weights as weights_module
from mammodet.modeling.backbones import build_backbone, has_stride_in_1x1
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.weight_files import read_weights
from mammodet.modeling.weights import (
    coco_state,
    detectron2_state,
    from_caffe2,
    match_ends,
    modern_names,
    stride_of,
    torchvision_state,
    without_eps,
)

STEM = "backbone.bottom_up.stem.conv1.weight"
#: A ResNet-50 small everywhere but in its body.
R50 = (*SMALL, "model.detector.backbone.name=resnet50", "model.detector.backbone.norm=FrozenBN")


def detectron2_weights() -> dict[str, Tensor]:
    """A few tensors under detectron2's names."""
    generator = torch.Generator().manual_seed(0)
    names = (STEM, "backbone.bottom_up.res2.0.conv3.weight", "roi_heads.box_predictor.cls_score.weight")
    return {name: torch.randn(2, 3, 1, 1, generator=generator) for name in names}


def zoo_file(path: Path) -> Path:
    """As in detectron2's zoo."""
    arrays = {name: tensor.numpy() for name, tensor in detectron2_weights().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}, protocol=2))
    return path


def torch_file(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    torch.save({"model": state, **more}, path)
    return path


def small_r50(*overrides: str) -> MammoRCNN:
    torch.manual_seed(0)
    return build_model(load_config(None, (*R50, *overrides)), 1)


def small_file(path: Path, model: nn.Module, **more: Any) -> Path:
    """The detector of a small model, in torchvision's names, stirred."""
    state = {name: tensor + 0.01 for name, tensor in model.detector.model.state_dict().items()}
    return torch_file(path, state, **more)


def test_file_of_the_other_library_is_refused_with_its_backend(tmp_path: Path) -> None:
    path = zoo_file(tmp_path / "model final.pkl")
    with pytest.raises(InputError, match=r"is in detectron2's layout, .* Choose model\.detector\.backend=detectron2"):
        small_r50(f"model.weights='{path}'")
    caffe2 = torch_file(tmp_path / "R-50.pth", {"conv1_w": torch.ones(2, 3, 7, 7), "res_conv1_bn_s": torch.ones(2)})
    with pytest.raises(InputError, match="is in caffe2's layout"):
        torchvision_state(caffe2, stride_in_1x1=False)
    path = torch_file(tmp_path / "a.pth", make_state())
    with pytest.raises(InputError, match=r"is in torchvision's layout, .* model\.detector\.backend=torchvision"):
        detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)


def test_file_of_torchvision_has_its_stride(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pth", make_state())
    assert torchvision_state(path, stride_in_1x1=False)
    assert torchvision_state(path, stride_in_1x1=None)
    with pytest.raises(InputError, match=r"stride in the 3x3 convolution, and this model has it in the 1x1"):
        torchvision_state(path, stride_in_1x1=True)


def test_resnet_alone_starts_the_body_of_a_detector(tmp_path: Path, capsys: Any) -> None:
    import torchvision

    state = torchvision.models.resnet18(weights=None).state_dict()
    path = torch_file(tmp_path / "resnet18.pth", state)
    model = build_model(load_config(None, (*SMALL, "model.detector.backbone.norm=BN", f"model.weights={path}")), 1)
    body = model.detector.model.backbone.body
    assert torch.equal(body["layer4"][1].conv2.weight, state["layer4.1.conv2.weight"])
    torch.testing.assert_close(body["conv1"].weight, state["conv1.weight"].sum(dim=1, keepdim=True))


def test_coco_weights_answer_as_in_torchvision_itself(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """torchvision's COCO_V1 has names of before 2022, and norms that add nothing to variances which may be tiny."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection._utils import overwrite_eps

    torch.manual_seed(0)
    reference = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    norms = [part for part in reference.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_var.copy_(10.0 ** (-7 * torch.rand(norm.running_var.shape)))
        norm.weight.data.copy_(norm.running_var.sqrt() * (0.2 + 0.5 * torch.rand(norm.weight.shape)))
    state = reference.state_dict()
    weights = {name: tensor for name, tensor in old_names(state).items() if not name.endswith("num_batches_tracked")}
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: weights)
    model = build_model(load_config(None, ("model.weights=coco", "model.detector.backbone.norm=FrozenBN")), 90).eval()
    printed = capsys.readouterr().out
    assert "missing: image_head" in printed or "missing" not in printed
    assert "unexpected" not in printed

    frozen = small_frozen(reference.backbone)
    overwrite_eps(frozen, 0.0)
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected, found = frozen(image.repeat(1, 3, 1, 1)), model.detector.model.backbone(image)
    for level in expected:
        scale = float(expected[level].abs().max())
        torch.testing.assert_close(found[level], expected[level], rtol=1e-3, atol=1e-3 * scale)
    # With 1e-5 in the norms the answer would be another.
    overwrite_eps(frozen, 1e-5)
    with torch.no_grad():
        other = frozen(image.repeat(1, 3, 1, 1))["0"]
    assert (other - expected["0"]).abs().max() > 0.05 * expected["0"].abs().max()


def small_frozen(backbone: nn.Module) -> nn.Module:
    """A backbone whose batch norms are frozen, as torchvision builds it for weights."""
    from mammodet.modeling.folding import replace_batch_norm

    replace_batch_norm(backbone, "FrozenBN")
    return backbone.eval()


def test_coco_weights_have_the_names_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: old_names(state))
    assert set(coco_state()) == set(state)
    assert torch.equal(coco_state()["rpn.head.conv.0.0.weight"], state["rpn.head.conv.0.0.weight"])


def test_file_of_coco_v1_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state()
    path = torch_file(tmp_path / "renamed.pth", state)
    variance = "backbone.body.bn1.running_var"
    assert torch.equal(torchvision_state(path, stride_in_1x1=False)[variance], state[variance])
    monkeypatch.setattr(weights_module, "file_hash", lambda _: "bf2d0c1e" + 56 * "0")
    torch.testing.assert_close(
        torchvision_state(path, stride_in_1x1=False)[variance].double(),
        state[variance].double() - 1e-5,
        rtol=0,
        atol=1e-7,
    )


@pytest.mark.parametrize("weights", ["coco", "imagenet"])
def test_weights_of_the_hub_are_refused_with_the_stride_in_1x1(weights: str) -> None:
    with pytest.raises(InputError, match="stride_in_1x1=false"):
        small_r50(f"model.weights={weights}", "model.detector.backbone.stride_in_1x1=true")


def test_old_names_of_torchvision_are_known() -> None:
    state = make_state()
    old = old_names(state)
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.0.weight", "roi_heads.mask_head.mask_fcn4.bias"} <= set(
        old
    )
    modern = modern_names(old)
    assert set(modern) == set(state)
    assert all(torch.equal(modern[name], state[name]) for name in state)


def test_norms_that_add_nothing_answer_the_same_with_1e_5() -> None:
    """Variances above 1e-5 give it away; below, the weight takes the rest."""
    norm = FrozenBatchNorm2d(4, eps=0.0)
    norm.running_var.copy_(torch.tensor([1.0, 2e-5, 5e-6, 1e-7]))
    norm.running_mean.copy_(torch.tensor([0.0, 0.1, 0.2, 0.3]))
    norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    state = {f"bn.{name}": tensor for name, tensor in norm.state_dict().items()}
    changed = without_eps(state)
    assert changed["bn.running_var"].tolist() == pytest.approx([1.0 - 1e-5, 1e-5, 0.0, 0.0], rel=1e-6)
    assert changed["bn.weight"].tolist() == pytest.approx([1.0, 2.0, 3.0 * 2**0.5, 4.0 * 10])
    usual = FrozenBatchNorm2d(4)
    usual.load_state_dict({name.removeprefix("bn."): tensor for name, tensor in changed.items()})
    images = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(usual(images), norm(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_backbone_with_stride_in_1x1_strides_there(name: str) -> None:
    config = BackboneConfig(name=name, norm="GN", stride_in_1x1=True)
    body = build_backbone(config, in_channels=1, fpn_channels=16, load_pretrained=False).body
    strides = [[body[f"layer{stage}"][0].conv1.stride, body[f"layer{stage}"][0].conv2.stride] for stage in (1, 2, 3, 4)]
    assert strides == [[(1, 1), (1, 1)], *[[(2, 2), (1, 1)]] * 3]
    assert body["layer2"][1].conv1.stride == (1, 1)
    assert has_stride_in_1x1(body) is True
    usual = build_backbone(BackboneConfig(name=name), in_channels=1, fpn_channels=16, load_pretrained=False)
    assert has_stride_in_1x1(usual) is False


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "timm/resnet50"])
def test_stride_in_1x1_is_refused_where_no_block_has_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"stride_in_1x1=true: {name} has no 1x1 convolution"):
        BackboneConfig(name=name, stride_in_1x1=True)
    assert has_stride_in_1x1(nn.Conv2d(1, 1, 1)) is None


def test_stride_in_1x1_does_not_go_with_imagenet_weights() -> None:
    config = BackboneConfig(norm="FrozenBN", stride_in_1x1=True)
    with pytest.raises(InputError, match="ImageNet weights have their stride in the 3x3"):
        build_backbone(config, in_channels=1, fpn_channels=16, load_pretrained=True)


def test_detectron2_state_takes_its_own_files_as_they_are(tmp_path: Path) -> None:
    path = zoo_file(tmp_path / "a.pkl")
    for stride in (True, False):
        found = detectron2_state(path, stride_in_1x1=stride, pixel_std=1.0)
        assert torch.equal(found[STEM], read_weights(path).state[STEM])


def test_detectron2_state_takes_our_checkpoints_with_their_image_head(tmp_path: Path) -> None:
    own = {f"model.detector.model.{name}": tensor for name, tensor in detectron2_weights().items()}
    own["model.image_head.score.weight"] = torch.ones(2)
    settings = {"MODEL": {"RESNETS": {"STRIDE_IN_1X1": True}, "PIXEL_STD": [2.0]}}
    model = {"kind": "detector", "detector": {"backend": "detectron2"}, "detectron2": {"resolved": settings}}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": own, "mammodet": {"config": {"model": model}}}, path)
    assert stride_of(read_weights(path)) is True
    found = detectron2_state(path, stride_in_1x1=True, pixel_std=2.0)
    assert torch.equal(found["image_head.score.weight"], torch.ones(2))
    assert torch.equal(found[f"detector.model.{STEM}"], detectron2_weights()[STEM])
    with pytest.raises(
        InputError, match=r"in the 3x3; .* Set MODEL\.RESNETS\.STRIDE_IN_1X1 True in model\.detectron2\.opts"
    ):
        detectron2_state(path, stride_in_1x1=False, pixel_std=2.0)
    with pytest.raises(InputError, match=r"std 2, this one with 3\. Set MODEL\.PIXEL_STD \[2\.0\]"):
        detectron2_state(path, stride_in_1x1=True, pixel_std=3.0)
    with pytest.raises(InputError, match="is in detectron2's layout, and this model is torchvision's"):
        torchvision_state(path, stride_in_1x1=False)


def test_a_training_does_not_forget_the_patients_that_its_weights_have_seen(tmp_path: Path) -> None:
    """Or it could be evaluated on patients of an earlier one."""
    own = {f"model.detector.model.{name}": tensor for name, tensor in make_state().items()}
    files = (SourceFile("a.json", archive="A", patient_prefix="a/"),)
    seen = RunFacts({}, ("lesion",), "then", None, ("P1", "P2"), files, unknown_patients=2)
    torch.save({"state_dict": own, "mammodet": seen.to_json()}, tmp_path / "best.ckpt")
    facts = RunFacts({}, ("lesion",), "data", None, ("P3",))
    known = _with_earlier_patients(facts, None, str(tmp_path / "best.ckpt"))
    assert (known.patients, known.files, known.unknown_patients) == (("P1", "P2", "P3"), files, 2)


def test_old_zoo_file_with_its_pixels_goes_as_it_is_into_any_network(tmp_path: Path) -> None:
    """C4's first convolution has another name than a pyramid's."""
    pixels = {"pixel_mean": np.ones((3, 1, 1), np.float32), "pixel_std": np.full((3, 1, 1), 2, np.float32)}
    arrays = {
        "backbone.res2.0.conv1.weight": np.ones(2, np.float32),
        "roi_heads.res5.0.conv1.weight": np.ones(1),
    } | pixels
    path = tmp_path / "c4.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}, protocol=2))
    assert set(detectron2_state(path, stride_in_1x1=True, pixel_std=1.0)) == set(arrays)


def test_detectron2_state_finds_a_backbones_names_in_the_network(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.ones((2, 3, 7, 7), np.float32), "res_conv1_bn_s": np.ones(2, np.float32)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    for prefix in ("backbone.bottom_up.", "backbone."):  # with a pyramid, and C4 without
        names = [f"{prefix}stem.conv1.weight", "backbone.fpn_lateral2.weight"]
        found = detectron2_state(tmp_path / "R-50.pkl", names, stride_in_1x1=True, pixel_std=1.0)
        assert found[names[0]].shape == (2, 3, 7, 7)
        assert "stem.conv1.weight" not in found


def test_caffe2_names_by_hand() -> None:
    names = ("conv1_w", "res_conv1_bn_s", "res_conv1_bn_b", "res2_0_branch1_w", "res5_2_branch2c_w", "fc1000_w")
    found = from_caffe2(dict.fromkeys(names, torch.ones(2)))
    assert set(found) == {
        "stem.conv1.weight", "stem.conv1.norm.weight", "stem.conv1.norm.bias", "stem.conv1.norm.running_mean",
        "stem.conv1.norm.running_var", "res2.0.shortcut.weight", "res5.2.conv3.weight", "fc1000_w",
    }  # fmt: skip
    # With the 1e-5 that are added, a variance of 1.
    assert (found["stem.conv1.norm.running_var"] + 1e-5).tolist() == [1, 1]
    assert found["stem.conv1.norm.running_mean"].tolist() == [0, 0]


def test_match_ends_takes_the_longest_end() -> None:
    state = {name: torch.tensor(float(number)) for number, name in enumerate(["conv1.w", "stem.conv1.w", "head.w"])}
    matched = match_ends(state, ["backbone.stem.conv1.w", "backbone.res2.conv1.w", "other.v"])
    assert {name: int(number) for name, number in matched.items()} == {
        "backbone.stem.conv1.w": 1,
        "backbone.res2.conv1.w": 0,
        "head.w": 2,
    }
