"""Detector contract, backbones, norms, image head, weights."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from small_training import assert_overfits_four_images
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import FrozenBatchNorm2d

import mammodet
from mammodet.config import BackboneConfig, load_config
from mammodet.errors import InputError
from mammodet.modeling.backbones import adapt_first_conv, build_backbone
from mammodet.modeling.build import build_model
from mammodet.modeling.contract import DetectorOutput
from mammodet.modeling.image_head import ImageHead, image_loss, valid_places
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.norms import group_norm
from mammodet.modeling.roi_heads import IgnoringRPN, RegionHeads, masks_on_boxes
from mammodet.modeling.weight_files import read_torch, state_of
from mammodet.modeling.weights import load_matching
from mammodet.modeling.winograd import WinogradConv2d, use_winograd


def small_model(*overrides: str, categories: int = 1) -> MammoRCNN:
    torch.manual_seed(0)
    return build_model(load_config(None, (*SMALL, *overrides)), categories)


def two_images() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    torch.manual_seed(1)
    images = [torch.rand(1, 96, 64), torch.rand(1, 80, 96)]
    first = torch.zeros(1, 96, 64, dtype=torch.uint8)
    first[:, 20:44, 10:40] = 1
    targets = [
        {"boxes": torch.tensor([[10.0, 20.0, 40.0, 44.0]]), "labels": torch.tensor([1]), "masks": first},
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, 80, 96, dtype=torch.uint8),
        },
    ]
    return images, targets


@pytest.mark.parametrize("arch", ["mask_rcnn", "faster_rcnn"])
def test_torchvision_adapter_losses_are_bit_identical_to_the_library(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # but for where masks are looked at, which lies half a pixel off there
    monkeypatch.setattr("torchvision.models.detection.roi_heads.project_masks_on_boxes", masks_on_boxes)
    detector = small_model(f"model.detector.arch={arch}").detector.train()
    images, targets = two_images()
    torch.manual_seed(7)
    found = detector(images, [dict(target) for target in targets]).losses
    assert (type(detector.model.rpn), type(detector.model.roi_heads)) == (IgnoringRPN, RegionHeads)
    detector.model.rpn.__class__, detector.model.roi_heads.__class__ = RegionProposalNetwork, RoIHeads
    torch.manual_seed(7)
    expected = detector.model(images, [dict(target) for target in targets])
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("arch", ["mask_rcnn", "faster_rcnn"])
def test_torchvision_adapter_detections_are_bit_identical_to_the_library(arch: str) -> None:
    detector = small_model(f"model.detector.arch={arch}", "model.detector.score_threshold=0.0").detector.eval()
    images, _ = two_images()
    with torch.no_grad():
        expected, found = detector.model(images), detector(images).detections
    assert sum(len(item["scores"]) for item in expected) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this torch has no NNPACK")
def test_winograd_answers_where_nothing_learns_as_torch_does() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 2, 3, stride=2)]
    model, images = nn.Sequential(*layers), torch.rand(2, 8, 17, 20)
    expected = model(images)
    use_winograd(model)
    assert torch.equal(model(images), expected)
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        found, strided = model(images), model[2](torch.rand(1, 4, 9, 9))
        assert model(torch.rand(0, 8, 17, 20)).shape == (0, 2, 8, 9)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images).dtype == torch.bfloat16
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert strided.shape == (1, 2, 4, 4)


def test_every_convolution_of_a_detector_can_be_winograds() -> None:
    config = load_config(None, (*SMALL, "model.detector.backbone.norm=FrozenBN", "model.weights=none.pth"))
    parts = list(build_model(config, 1, load_weights=False).modules())
    assert all(isinstance(part, WinogradConv2d) for part in parts if isinstance(part, nn.Conv2d))


def test_heads_look_at_fewer_proposals_in_prediction_alone() -> None:
    rpn = small_model("model.detector.rpn_top_n_predict=3").detector.model.rpn
    assert (rpn.train().post_nms_top_n(), rpn.eval().post_nms_top_n()) == (30, 3)


def test_prediction_does_without_torchs_compiler_and_leaves_it_whole() -> None:
    code = """
import sys, numpy, mammodet
mammodet.load("starter").predict(numpy.zeros((64, 48), numpy.uint8), force=True)
assert "torchvision.ops" in sys.modules and "torch._dynamo" not in sys.modules
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
from mammodet.modeling.without_dynamo import _Later
name = "torch._dynamo.utils"
sys.modules[name] = later = _Later(name)
import torch._dynamo
assert torch._dynamo.utils is sys.modules[name] is not later
assert asked("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_detector_never_resizes_its_input() -> None:
    detector = small_model().detector.eval()
    with torch.no_grad():
        output = detector([torch.rand(1, 70, 90)])
    assert output.sizes_hw == [(70, 90)]
    assert output.padded_hw == (96, 96)
    assert [tuple(level.shape[-2:]) for level in output.features] == [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2)]


def test_boxes_keep_float_precision_under_autocast() -> None:
    """Anchors and decoded boxes in bfloat16 would be off by up to 2 px beyond 256 px."""
    detector = small_model().detector.eval()
    model = detector.model
    batch, _ = model.transform([torch.rand(1, 64, 512)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.backbone(batch.tensors)
        assert features["0"].dtype == torch.bfloat16
        anchors = model.rpn.anchor_generator(batch, list(features.values()))[0]
        proposals, _ = model.rpn(batch, features, None)
    centres = anchors[: 3 * 16 * 128].reshape(16, 128, 3, 4)[0, :, 1, [0, 2]].mean(dim=1)
    assert centres.tolist() == [4.0 * column for column in range(128)]
    assert proposals[0].dtype == torch.float32
    codes = torch.zeros(1, 4, dtype=torch.bfloat16)
    assert model.rpn.box_coder.decode_single(codes, torch.tensor([[301.0, 5.0, 333.0, 37.0]])).tolist() == [
        [301.0, 5.0, 333.0, 37.0]
    ]


def test_images_that_teach_no_boxes_are_left_out_of_the_box_losses() -> None:
    detector = small_model().detector.train()
    images, targets = two_images()
    # Both batches are padded to one size, and GroupNorm sees each image alone: only the first may count.
    images[1] = torch.nn.functional.pad(images[1], (0, 0, 0, 16))[:, :, :64]
    targets[1]["masks"] = torch.zeros(0, 96, 64, dtype=torch.uint8)
    torch.manual_seed(3)
    alone = detector(images[:1], [dict(targets[0])]).losses
    torch.manual_seed(3)
    masked = detector(images, [dict(target) for target in targets], use_boxes=[True, False]).losses
    for name, value in alone.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-4, atol=1e-6)


def test_a_batch_without_any_boxes_to_learn_gives_a_zero_that_reaches_every_parameter() -> None:
    model = small_model().train()
    images, targets = two_images()
    output = model(images, targets, torch.tensor([[1.0, 0.0], [0.0, float("nan")]]), [False, False])
    assert float(output.losses["loss_none"].detach()) == 0.0
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


#: What makes a tensor from nothing.
MAKERS = {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.tensor, torch.zeros}


class DeviceIsNamed(TorchFunctionMode):
    """Fails where this project's code makes a tensor without saying on which device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        code = sys._getframe(1)
        ours = code.f_code.co_filename.startswith(f"{Path(mammodet.__file__).parent}{os.sep}")
        assert not (ours and func in MAKERS and "device" not in (kwargs or {})), code
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_tensors_are_made_on_the_device_of_the_model(box_loss: str) -> None:
    """What a GPU would refuse."""
    model = small_model(f"model.detector.box_loss={box_loss}", "model.detector.soft_nms_sigma=0.5").train()
    images, targets = two_images()
    for target in targets:
        target["ignored"] = torch.tensor([[40.0, 40.0, 60.0, 60.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, float("nan")]])
    with DeviceIsNamed():
        losses = model(images, targets, labels, [True, True]).losses
        torch.stack(list(losses.values())).sum().backward()
        with torch.no_grad():
            output = model.eval()(images)
    assert all(torch.isfinite(value) for value in losses.values())
    assert len(output.detections) == 2


def test_masks_start_undecided() -> None:
    """Else the first mask loss drowns the others."""
    images, targets = two_images()
    assert float(small_model().detector.train()(images, targets).losses["loss_mask"].detach()) == pytest.approx(
        math.log(2), abs=0.02
    )


def test_detector_in_training_refuses_missing_targets() -> None:
    with pytest.raises(ValueError, match="needed in training"):
        small_model().detector.train()([torch.rand(1, 64, 64)])


def test_overfits_four_images() -> None:
    assert_overfits_four_images(small_model("model.image_head.dropout=0"))


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "timm/resnet18", "timm/efficientnet_lite0", "timm/convnext_atto"]
)
@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_backbone_gives_five_levels(name: str, norm: str) -> None:
    config = BackboneConfig(name=name, norm=norm)
    backbone = build_backbone(config, in_channels=2, fpn_channels=16, load_pretrained=False).eval()
    levels = backbone(torch.rand(1, 2, 64, 96))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (16, 16, 24),
        (16, 8, 12),
        (16, 4, 6),
        (16, 2, 3),
        (16, 1, 2),
    ]
    has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert has_batch_norm == (norm == "BN" and name != "timm/convnext_atto")


def test_backbone_that_timm_does_not_know_is_refused_with_near_names() -> None:
    with pytest.raises(InputError, match=r"timm knows no such model.*resnet"):
        build_backbone(BackboneConfig(name="timm/resnet19"), in_channels=1, fpn_channels=16, load_pretrained=False)


def test_backbone_frozen_batch_norm_keeps_no_learning_statistics() -> None:
    config = BackboneConfig(name="timm/resnet18", norm="FrozenBN")
    backbone = build_backbone(config, in_channels=3, fpn_channels=16, load_pretrained=False)
    kinds = [type(module) for module in backbone.body.modules()]
    assert any(issubclass(kind, FrozenBatchNorm2d | FrozenBatchNormAct2d) for kind in kinds)
    assert nn.BatchNorm2d not in kinds


def test_backbone_trainable_layers_freezes_the_first_stages() -> None:
    config = BackboneConfig(name="resnet18", norm="BN", trainable_layers=2)
    backbone = build_backbone(config, in_channels=3, fpn_channels=16, load_pretrained=False)
    learning = {
        name.split(".")[1] for name, item in backbone.named_parameters() if item.requires_grad and "body" in name
    }
    assert learning == {"layer3", "layer4"}


def test_first_convolution_answers_a_grey_image_as_before() -> None:
    conv = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)
    grey = torch.rand(1, 1, 32, 32)
    expected = conv(grey.repeat(1, 3, 1, 1))
    for channels in (1, 2, 5):
        torch.testing.assert_close(adapt_first_conv(conv, channels)(grey.repeat(1, channels, 1, 1)), expected)


def test_group_norm_divides_any_number_of_channels() -> None:
    assert [group_norm(channels).num_groups for channels in (64, 32, 24, 7, 1)] == [32, 32, 8, 1, 1]


def output_of(features: list[Tensor], sizes_hw: list[tuple[int, int]], padded_hw: tuple[int, int]) -> DetectorOutput:
    return DetectorOutput(features, sizes_hw, padded_hw, {}, [])


def test_image_head_does_not_see_the_padding() -> None:
    torch.manual_seed(0)
    head = ImageHead(8, (4, 8, 16, 32, 64), 16, 2, 0.0).eval()
    head.project[1] = nn.Identity()  # GroupNorm's mean runs over all cells
    levels = [torch.rand(1, 8, size, size) for size in (16, 8, 4, 2, 1)]
    plain = head(output_of(levels, [(64, 32)], (64, 64)))
    changed = [level.clone() for level in levels]
    for level in changed:
        level[:, :, :, (level.shape[-1] + 1) // 2 :] = 100.0
    torch.testing.assert_close(head(output_of(changed, [(64, 32)], (64, 64))), plain)
    assert not torch.allclose(head(output_of(changed, [(64, 64)], (64, 64))), plain)


def test_valid_places_by_hand() -> None:
    valid = valid_places(output_of([], [(64, 33), (1, 64)], (64, 64)), torch.Size((4, 4)), torch.device("cpu"))
    assert valid[0].tolist() == [[True, True, True, False]] * 4
    assert valid[1].tolist() == [[True] * 4, [False] * 4, [False] * 4, [False] * 4]


def test_image_loss_counts_known_labels_only() -> None:
    logits = torch.tensor([[0.0, 5.0], [0.0, -5.0]], requires_grad=True)
    nan = float("nan")
    assert image_loss(logits, torch.tensor([[1.0, nan], [0.0, nan]])).item() == pytest.approx(0.693147, abs=1e-5)
    nothing = image_loss(logits, torch.full((2, 2), nan))
    nothing.backward()
    assert nothing.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_load_matching_takes_what_fits_and_names_the_rest() -> None:
    source, target = small_model(categories=1), small_model(categories=3)
    state = {**source.state_dict(), "other.weight": torch.zeros(1)}
    report = load_matching(target, state)
    assert any("box_predictor.cls_score.weight (2, 32) for (4, 32)" in text for text in report.mismatched)
    assert report.unexpected == ("other.weight",)
    assert report.missing == ()
    name = "detector.model.backbone.body.layer1.0.conv1.weight"
    assert name in report.loaded
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_weights_from_a_torchvision_checkpoint_start_the_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = small_model()
    state = {name: tensor + 1 for name, tensor in source.detector.model.state_dict().items()}
    path = tmp_path / "weights ä.pth"
    torch.save({"model": state}, path)
    model = small_model(f"model.weights={path}")
    for name, tensor in model.detector.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert "took" in capsys.readouterr().out


def test_weights_that_do_not_fit_at_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"encoder.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="none of its 1 tensors fits"):
        small_model(f"model.weights={path}")


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Path("x")}, path)
    with pytest.raises(InputError, match="more than weights"):
        read_torch(path)


def test_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match="cut short"):
        read_torch(path)
    with pytest.raises(InputError, match="no such checkpoint"):
        read_torch(tmp_path / "none.pth")
    with pytest.raises(InputError, match="holds no weights"):
        state_of({"epoch": 3}, path)


def test_hub_that_cannot_be_reached_names_the_two_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    for weights in ("imagenet", "coco"):
        with pytest.raises(InputError, match=r"(?s)could not be downloaded.*path.*model.weights=none"):
            build_model(load_config(None, [f"model.weights={weights}", "model.detector.backbone.norm=FrozenBN"]), 1)


def test_build_model_refuses_anchors_that_are_still_auto() -> None:
    with pytest.raises(InputError, match="must be fitted"):
        small_model("model.detector.anchors.sizes=auto")
