"""mammodet convert-weights, and model.weights=FILE for files of either library."""

from __future__ import annotations

import os
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from small_weights import old_names, resnet_state
from small_weights import torchvision_state as make_state
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from mammodet.commands.convert_weights import main
from mammodet.config import load_config
from mammodet.data.sources import SourceFile
from mammodet.engine.checkpoint import RunFacts
from mammodet.engine.train import _with_earlier_patients
from mammodet.errors import InputError
from mammodet.modeling import weights as weights_module
from mammodet.modeling.build import build_model
from mammodet.modeling.layouts import to_detectron2
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.pixel_norms import DETECTRON2_MSRA, OURS, TORCHVISION, TORCHVISION_BGR, grey, with_pixels
from mammodet.modeling.weight_files import HEADER, read_weights
from mammodet.modeling.weights import coco_state, detectron2_state, pixels_of, stride_of, torchvision_state

CONV, NORM = "backbone.body.conv1.weight", "backbone.body.bn1.running_mean"
STEM, STEM_NORM = "backbone.bottom_up.stem.conv1.weight", "backbone.bottom_up.stem.conv1.norm.running_mean"
CELLS = "proposal_generator.anchor_generator.cell_anchors.0"
#: A ResNet-50 small everywhere but in its body.
R50 = (*SMALL, "model.detector.backbone.name=resnet50", "model.detector.backbone.norm=FrozenBN")


def zoo_file(path: Path, **more: Any) -> Path:
    """As in detectron2's zoo, with the buffers of its old files."""
    state = to_detectron2(make_state(), source=TORCHVISION, target=DETECTRON2_MSRA)
    arrays = {name: tensor.numpy() for name, tensor in state.items()} | {CELLS: np.zeros((3, 4), np.float32)}
    path.write_bytes(pickle.dumps({"model": arrays | more, "__author__": "Detectron2 Model Zoo"}, protocol=2))
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


def test_zoo_file_becomes_torchvisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = zoo_file(tmp_path / "model final.pkl"), tmp_path / "new" / "r50.pth"
    assert main([str(path), str(output), "--to", "torchvision"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "Mask R-CNN R-50, 307 tensors, 3 categories",
        "assumed, since the file does not say: pixels as msra's (BGR, 0 to 255, mean [103.53, 116.28, 123.675], "
        "std [1.0, 1.0, 1.0])",
        "assumed, since the file does not say: the bottlenecks' stride in the 1x1 (--no-stride-in-1x1 if not)",
        "pixels: from msra to torchvision",
        f"model.weights={output} model.detector.backbone.name=resnet50 model.detector.backbone.norm=FrozenBN "
        "model.detector.backbone.stride_in_1x1=true",
        "torchvision's own models have the stride in the 3x3 convolution and would answer wrongly",
    ):
        assert text in printed
    found, expected = read_weights(output), make_state()
    assert found.layout == "torchvision"
    assert stride_of(found) is True
    assert pixels_of(found) == TORCHVISION
    assert set(found.state) == set(expected)
    torch.testing.assert_close(found.state[CONV], expected[CONV])
    assert torch.load(output, weights_only=True)[HEADER]["source"] == "model final.pkl"


def test_torchvision_file_becomes_a_zoo_file_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = make_state(masks=False)
    path = torch_file(tmp_path / "a.pth", old_names(expected))
    there, back = tmp_path / "b.pkl", tmp_path / "c.pth"
    assert main([str(path), str(there), "--to", "detectron2"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "Faster R-CNN R-50",
        "the bottlenecks' stride in the 3x3 (--stride-in-1x1 if not",
        f"MODEL.WEIGHTS {there}",
        "MODEL.RESNETS.DEPTH 50",
        "MODEL.RESNETS.STRIDE_IN_1X1 False",
        "MODEL.PIXEL_MEAN [103.53, 116.28, 123.675]",
        "MODEL.PIXEL_STD [1.0, 1.0, 1.0]",
        "INPUT.FORMAT BGR",
        "MODEL.ROI_HEADS.NUM_CLASSES 3",
        "MODEL.MASK_ON False",
    ):
        assert text in printed
    content = pickle.loads(there.read_bytes())
    assert set(content) == {"model", "__author__", "matching_heuristics", HEADER}
    assert all(isinstance(array, np.ndarray) for array in content["model"].values())
    # The header tells the way back: nothing is assumed, and the stride is known to be torchvision's.
    assert main([str(there), str(back), "--to", "torchvision"]) == 0
    assert "assumed" not in capsys.readouterr().out
    found = read_weights(back)
    assert stride_of(found) is False
    boxes = "roi_heads.box_predictor.bbox_pred."
    for name, tensor in expected.items():
        rows = slice(4 if name.startswith(boxes) else 0, None)
        torch.testing.assert_close(found.state[name][rows], tensor[rows], msg=name)


@pytest.mark.parametrize(("pixels", "norm"), [("torchvision", TORCHVISION), ("torchvision-bgr", TORCHVISION_BGR)])
def test_pixels_say_how_the_detectron2_side_sees_them(tmp_path: Path, pixels: str, norm: Any) -> None:
    path, there = torch_file(tmp_path / "a.pth", make_state()), tmp_path / "b.pth"
    main([str(path), str(there), "--to", "detectron2", "--pixels", pixels])
    expected = make_state()[CONV]
    assert torch.equal(read_weights(there).state[STEM], expected if norm.order == "RGB" else expected.flip(1))
    assert pixels_of(read_weights(there)) == norm
    # Without a header, the command line says it.
    plain = torch_file(tmp_path / "plain.pth", read_weights(there).state)
    main([str(plain), str(tmp_path / "c.pth"), "--to", "torchvision", "--pixels", pixels, "--no-stride-in-1x1"])
    found = read_weights(tmp_path / "c.pth")
    assert torch.equal(found.state[CONV], expected)
    assert stride_of(found) is False


def test_pixels_that_an_old_checkpoint_keeps_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean, std = ([[[value]] for value in values] for values in TORCHVISION_BGR.mean_std(3))
    path = zoo_file(tmp_path / "a.pkl", pixel_mean=np.array(mean, np.float32), pixel_std=np.array(std, np.float32))
    main([str(path), str(tmp_path / "b.pth"), "--to", "torchvision"])
    assert "assumed, since the file does not say: pixels" not in capsys.readouterr().out
    state = to_detectron2(make_state(), source=TORCHVISION, target=DETECTRON2_MSRA)
    assert torch.equal(read_weights(tmp_path / "b.pth").state[CONV], state[STEM].flip(1))


def test_resnet_alone_becomes_a_file_that_detectron2_matches_by_ends(tmp_path: Path, capsys: Any) -> None:
    path, there = torch_file(tmp_path / "resnet18.pth", resnet_state("resnet18")), tmp_path / "r18.pkl"
    main([str(path), str(there), "--to", "detectron2", "--pixels", "torchvision"])
    assert "ResNet R-18" in (printed := capsys.readouterr().out)
    assert "STRIDE_IN_1X1" not in printed  # basic blocks have none
    assert pickle.loads(there.read_bytes())["matching_heuristics"] is True
    main([str(there), str(tmp_path / "back.pth"), "--to", "torchvision"])
    back = read_weights(tmp_path / "back.pth").state
    assert all(torch.equal(back[name], tensor) for name, tensor in resnet_state("resnet18").items() if "fc" not in name)


def test_caffe2_backbone_becomes_torchvisions(tmp_path: Path) -> None:
    """Detectron's ImageNet files: scale and bias in place of batch statistics."""
    names = {
        "conv1_w": torch.ones(4, 3, 7, 7),
        "res_conv1_bn_s": torch.full((4,), 3.0),
        "res_conv1_bn_b": torch.ones(4),
    }
    for stage in (2, 3, 4, 5):
        for branch in ("1", "2a", "2b", "2c"):
            place = f"res{stage}_0_branch{branch}"
            names |= {
                f"{place}_w": torch.ones(4, 4, 1, 1),
                f"{place}_bn_s": torch.ones(4),
                f"{place}_bn_b": torch.ones(4),
            }
    blobs = {name: tensor.numpy() for name, tensor in names.items()} | {
        "conv1_w_momentum": np.zeros(1),
        "fc1000_w": np.ones(2),
    }
    path = tmp_path / "R-tiny.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    main([str(path), str(tmp_path / "a.pth"), "--to", "torchvision"])
    found = read_weights(tmp_path / "a.pth")
    assert stride_of(found) is True
    norm = FrozenBatchNorm2d(4)
    norm.load_state_dict(
        {name.removeprefix("bn1."): value for name, value in found.state.items() if name.startswith("bn1.")}
    )
    assert norm(torch.full((1, 4, 1, 1), 2.0)).flatten().tolist() == pytest.approx([7.0] * 4)


def test_tool_refuses_what_contradicts_the_file(tmp_path: Path) -> None:
    header = {"pixels": TORCHVISION_BGR.to_json(), "stride_in_1x1": False}
    state = to_detectron2(make_state(), source=TORCHVISION, target=TORCHVISION_BGR)
    path = torch_file(tmp_path / "a.pth", state, **{HEADER: header})
    command = [str(path), str(tmp_path / "b.pth"), "--to", "torchvision"]
    with pytest.raises(
        InputError, match=r"says of itself stride in the 1x1 convolution: false; the command line says true"
    ):
        main([*command, "--stride-in-1x1"])
    with pytest.raises(InputError, match=r"says of itself pixels: BGR.*57\.375.*; the command line says BGR.*1\.0"):
        main([*command, "--pixels", "msra"])
    assert main([*command, "--pixels", "torchvision-bgr", "--no-stride-in-1x1"]) == 0


def test_tool_refuses_outputs_that_are_there_or_of_another_kind(tmp_path: Path) -> None:
    path, there = zoo_file(tmp_path / "a.pkl"), tmp_path / "b.pth"
    there.write_text("mine")
    with pytest.raises(InputError, match=r"b\.pth: is there; choose another name, or give --overwrite"):
        main([str(path), str(there), "--to", "torchvision"])
    assert there.read_text() == "mine"
    with pytest.raises(InputError, match=r"is there; choose another name$"):
        main([str(path), str(path), "--to", "torchvision", "--overwrite"])
    with pytest.raises(InputError, match=r"expected a name that ends in \.pth or \.pkl"):
        main([str(path), str(tmp_path / "b.onnx"), "--to", "torchvision"])
    other = torch_file(tmp_path / "other.pth", {"encoder.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="neither torchvision's nor detectron2's nor Caffe2's names"):
        main([str(other), str(there), "--to", "torchvision", "--overwrite"])
    assert main([str(path), str(there), "--to", "torchvision", "--overwrite"]) == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.pkl", "b.pth", "other.pth"]


def test_tool_reads_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch '{tmp_path / 'was here'}'",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {STEM: Bomb()}}))
    with pytest.raises(InputError, match="would run that code"):
        main([str(path), str(tmp_path / "b.pth"), "--to", "torchvision"])
    assert not (tmp_path / "was here").exists()


# ---- model.weights=FILE of the torchvision backend ------------------------------------------------------------------


def test_detectron2_file_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = zoo_file(tmp_path / "model final.pkl")
    with pytest.raises(InputError, match="is in detectron2's layout, and this model is torchvision's") as error:
        small_r50(f"model.weights='{path}'")
    line = next(line for line in str(error.value).splitlines() if "mammodet convert-weights" in line)
    words = shlex.split(line)
    assert words[:2] == ["mammodet", "convert-weights"]
    assert main(words[2:]) == 0
    assert torchvision_state(tmp_path / "model final_torchvision.pth", stride_in_1x1=True)


def test_file_with_a_header_starts_a_model_of_its_stride_alone(tmp_path: Path, capsys: Any) -> None:
    source = small_r50(
        "model.weights=coco".replace(
            "coco", str(torch_file(tmp_path / "x.pth", {"rpn.head.cls_logits.bias": torch.zeros(3)}))
        )
    )
    header = {"stride_in_1x1": True, "pixels": OURS.to_json()}
    path = small_file(tmp_path / "a.pth", source, **{HEADER: header})
    with pytest.raises(
        InputError, match=r"stride in the 1x1 convolution, and this model has it in the 3x3.*stride_in_1x1=true"
    ):
        small_r50(f"model.weights={path}")
    model = small_r50(f"model.weights={path}", "model.detector.backbone.stride_in_1x1=true")
    assert "missing" not in capsys.readouterr().out.splitlines()[-1]
    expected = read_weights(path).state
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.detector.model.state_dict().items())


def test_file_without_a_header_has_torchvisions_stride(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pth", make_state())
    assert torchvision_state(path, stride_in_1x1=False)
    assert torchvision_state(path, stride_in_1x1=None)
    with pytest.raises(InputError, match=r"stride in the 3x3 convolution, and this model has it in the 1x1"):
        torchvision_state(path, stride_in_1x1=True)


def test_pickle_in_torchvisions_layout_starts_a_model(tmp_path: Path) -> None:
    path, there = zoo_file(tmp_path / "a.pkl"), tmp_path / "b.pkl"
    main([str(path), str(there), "--to", "torchvision", "--no-stride-in-1x1"])
    assert set(torchvision_state(there, stride_in_1x1=False)) == set(make_state())


def test_file_with_a_header_is_fitted_to_our_pixels(tmp_path: Path) -> None:
    """Ours sees all channels alike; torchvision's norm is another for each colour."""
    state = make_state()
    plain = torch_file(tmp_path / "a.pth", state)
    assert torch.equal(torchvision_state(plain, stride_in_1x1=False)[CONV], state[CONV])
    header = {"stride_in_1x1": False, "pixels": TORCHVISION.to_json()}
    found = torchvision_state(torch_file(tmp_path / "b.pth", state, **{HEADER: header}), stride_in_1x1=False)
    expected = with_pixels(state, TORCHVISION, OURS)
    assert torch.equal(found[CONV], expected[CONV])
    assert torch.equal(found[NORM], expected[NORM])
    assert found[CONV][0, 0, 0, 0].item() == pytest.approx(state[CONV][0, 0, 0, 0].item() * 57.63 / 58.395)


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
    found = detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)
    assert (found[STEM.replace("weight", "norm.running_var")] < state[variance]).all()


@pytest.mark.parametrize("weights", ["coco", "imagenet"])
def test_weights_of_the_hub_are_refused_with_the_stride_in_1x1(weights: str) -> None:
    with pytest.raises(InputError, match="stride_in_1x1=false"):
        small_r50(f"model.weights={weights}", "model.detector.backbone.stride_in_1x1=true")


# ---- what the detectron2 backend takes ------------------------------------------------------------------------------


def test_detectron2_state_takes_its_own_files_as_they_are(tmp_path: Path) -> None:
    path = zoo_file(tmp_path / "a.pkl")
    for stride in (True, False):
        found = detectron2_state(path, stride_in_1x1=stride, pixel_std=1.0)
        assert torch.equal(found[STEM], read_weights(path).state[STEM])
    header = {"stride_in_1x1": True, "pixels": DETECTRON2_MSRA.to_json()}
    path = torch_file(tmp_path / "b.pth", read_weights(path).state, **{HEADER: header})
    with pytest.raises(
        InputError, match=r"in the 3x3; .* Set MODEL\.RESNETS\.STRIDE_IN_1X1 True in model\.detectron2\.opts"
    ):
        detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)
    found = detectron2_state(path, stride_in_1x1=True, pixel_std=2.0)
    torch.testing.assert_close(found[STEM].flip(1), 2 * read_weights(path).state[STEM])


def test_detectron2_state_converts_torchvisions_files(tmp_path: Path) -> None:
    state = make_state()
    path = torch_file(tmp_path / "a.pth", state)
    with pytest.raises(InputError, match=r"Set MODEL\.RESNETS\.STRIDE_IN_1X1 False in model\.detectron2\.opts"):
        detectron2_state(path, stride_in_1x1=True, pixel_std=1.0)
    found = detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)
    expected = to_detectron2(state, source=TORCHVISION, target=grey(1.0))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found[STEM][1, 2, 3, 4].item() == pytest.approx(state[CONV][1, 2, 3, 4].item() / 57.375)


def test_detectron2_state_takes_our_checkpoints_with_their_image_head(tmp_path: Path) -> None:
    """Ours sees pixels by one std, 57.63; its head stands on any detector."""
    state = make_state()
    own = {f"model.detector.model.{name}": tensor for name, tensor in state.items()}
    own["model.image_head.score.weight"] = torch.ones(2)
    path = tmp_path / "best.ckpt"

    def save(stride: bool) -> None:
        model = {"kind": "detector", "detector": {"backend": "torchvision", "backbone": {"stride_in_1x1": stride}}}
        torch.save({"state_dict": own, "mammodet": {"config": {"model": model}}}, path)

    save(False)
    found = detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)
    assert torch.equal(found["image_head.score.weight"], torch.ones(2))
    torch.testing.assert_close(found[f"detector.model.{STEM}"], state[CONV] / 57.63)
    assert torch.equal(found[f"detector.model.{STEM_NORM}"], state[NORM])
    save(True)
    assert detectron2_state(path, stride_in_1x1=True, pixel_std=1.0)
    with pytest.raises(InputError, match="stride in the 1x1 convolution, and this model has it in the 3x3"):
        detectron2_state(path, stride_in_1x1=False, pixel_std=1.0)
    with pytest.raises(InputError, match="stride in the 1x1 convolution, and this model has it in the 3x3"):
        torchvision_state(path, stride_in_1x1=False)


def test_checkpoint_of_our_detectron2_backend_is_refused_by_torchvisions(tmp_path: Path) -> None:
    state = to_detectron2(make_state(), source=TORCHVISION, target=grey(1.0))
    own = {f"model.detector.model.{name}": tensor for name, tensor in state.items()}
    settings = {"MODEL": {"RESNETS": {"STRIDE_IN_1X1": True}, "PIXEL_STD": [2.0]}}
    model = {"kind": "detector", "detector": {"backend": "detectron2"}, "detectron2": {"resolved": settings}}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": own, "mammodet": {"config": {"model": model}}}, path)
    assert stride_of(read_weights(path)) is True
    with pytest.raises(InputError, match=r"best_torchvision\.pth --to torchvision"):
        torchvision_state(path, stride_in_1x1=False)
    main([str(path), str(tmp_path / "a.pth"), "--to", "torchvision"])
    found = read_weights(tmp_path / "a.pth")
    assert stride_of(found) is True
    assert pixels_of(found) == OURS
    torch.testing.assert_close(found.state[CONV], state[STEM] * 57.63 / 2)
    # In detectron2's own names it goes on as it is, but for pixels of another std.
    again = detectron2_state(path, stride_in_1x1=True, pixel_std=4.0)
    torch.testing.assert_close(again[f"detector.model.{STEM}"], 2 * state[STEM])


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_converted_weights_do_not_forget_the_patients_they_have_seen(tmp_path: Path, suffix: str) -> None:
    """Or a training that starts from them could be evaluated on patients of an earlier one."""
    own = {f"model.detector.model.{name}": tensor for name, tensor in make_state().items()}
    path, there, back = tmp_path / "best.ckpt", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    files = (SourceFile("a.json", archive="A", patient_prefix="a/"),)
    seen = {"patients": ["P1", "P2"], "files": [file.to_json() for file in files], "unknown_patients": 2}
    torch.save({"state_dict": own, "mammodet": {"config": {}, **seen}}, path)
    main([str(path), str(there), "--to", "detectron2"])
    main([str(there), str(back), "--to", "torchvision"])
    facts = RunFacts({}, ("lesion",), "data", None, ("P3",))
    for start in (path, there, back):
        known = _with_earlier_patients(facts, None, str(start))
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
    path = torch_file(tmp_path / "resnet50.pth", resnet_state())
    names = [STEM, "backbone.bottom_up.res2.0.conv1.weight", "backbone.fpn_lateral2.weight"]
    found = detectron2_state(path, names, stride_in_1x1=False, pixel_std=57.63)
    assert set(names[:2]) <= set(found)
    assert "stem.conv1.weight" not in found
    arrays = {"conv1_w": np.ones((2, 3, 7, 7), np.float32), "res_conv1_bn_s": np.ones(2, np.float32)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    for prefix in ("backbone.bottom_up.", "backbone."):  # with a pyramid, and C4 without
        found = detectron2_state(
            tmp_path / "R-50.pkl", [f"{prefix}stem.conv1.weight"], stride_in_1x1=True, pixel_std=1.0
        )
        assert found[f"{prefix}stem.conv1.weight"].shape == (2, 3, 7, 7)


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_detectron2s_own_checkpointer_takes_what_the_tool_writes(tmp_path: Path, suffix: str) -> None:
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model as build

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "cpu", False, 3
    state = make_state(most=100000)
    path = torch_file(tmp_path / "a.pth", state)
    main([str(path), str(tmp_path / f"b{suffix}"), "--to", "detectron2"])
    model = build(cfg)
    left = DetectionCheckpointer(model)._load_model(
        DetectionCheckpointer(model)._load_file(str(tmp_path / f"b{suffix}"))
        if suffix == ".pkl"
        else torch.load(tmp_path / f"b{suffix}", weights_only=True)
    )
    assert (left.missing_keys, left.unexpected_keys, left.incorrect_shapes) == ([], [], [])
    fc = "roi_heads.box_head.fc1.weight"
    assert torch.equal(model.state_dict()[fc], state["roi_heads.box_head.fc6.weight"])
    main([str(torch_file(tmp_path / "r50.pth", resnet_state())), str(tmp_path / f"r{suffix}"), "--to", "detectron2"])
    assert read_weights(tmp_path / f"r{suffix}").facts["matching_heuristics"] is True


@pytest.mark.slow
@pytest.mark.detectron2
def test_both_backends_start_from_one_file_with_the_same_features(tmp_path: Path, capsys: Any) -> None:
    """A torchvision file of colour images, in networks of one grey channel."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict()
    state["backbone.body.bn1.running_mean"] += torch.rand(64)
    # By its header, our torchvision backend fits its pixels too.
    header = {"stride_in_1x1": False, "pixels": TORCHVISION.to_json()}
    plain, known = torch_file(tmp_path / "a.pth", state), torch_file(tmp_path / "b.pth", state, **{HEADER: header})
    overrides = ("model.detector.backbone.norm=FrozenBN", f"model.weights={known}")
    here = build_model(load_config(None, overrides), 3).eval()
    features = []
    image = torch.rand(1, 64, 96)
    for path in (plain, known):
        overrides = (
            "model.detector.backend=detectron2",
            "model.detectron2.config=COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
            "model.detectron2.opts=[MODEL.RESNETS.STRIDE_IN_1X1, false]",
            f"model.weights={path}",
        )
        there = build_model(load_config(None, overrides), 3).eval()
        assert "mismatched" not in capsys.readouterr().out
        with torch.no_grad():
            features.append(there.detector([image]).features)
    with torch.no_grad():
        expected = here.detector([image]).features
    for found in features:
        for level, level_there in zip(expected, found, strict=True):
            torch.testing.assert_close(level_there, level, rtol=1e-4, atol=1e-4 * float(level.abs().max()))
