"""torchvision's and detectron2's layouts of the same network: names by hand, and answers by both libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_weights import fill, old_names, resnet_state, torchvision_state
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d

from mammodet.config import BackboneConfig
from mammodet.errors import InputError
from mammodet.modeling.backbones import build_backbone, has_stride_in_1x1
from mammodet.modeling.layouts import (
    describe,
    from_caffe2,
    match_ends,
    modern_names,
    to_detectron2,
    to_torchvision,
    with_eps,
)
from mammodet.modeling.pixel_norms import (
    DETECTRON2_MSRA,
    OURS,
    TORCHVISION,
    TORCHVISION_BGR,
    PixelNorm,
    grey,
    with_pixels,
)

SAME = {"source": TORCHVISION, "target": TORCHVISION}
SCORES, BOXES = "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.weight"
MASKS_HERE, MASKS_THERE = "roi_heads.mask_predictor.mask_fcn_logits.weight", "roi_heads.mask_head.predictor.weight"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("backbone.body.conv1.weight", "backbone.bottom_up.stem.conv1.weight"),
        ("backbone.body.bn1.running_var", "backbone.bottom_up.stem.conv1.norm.running_var"),
        ("backbone.body.layer3.5.conv2.weight", "backbone.bottom_up.res4.5.conv2.weight"),
        ("backbone.body.layer1.0.bn3.bias", "backbone.bottom_up.res2.0.conv3.norm.bias"),
        ("backbone.body.layer4.0.downsample.0.weight", "backbone.bottom_up.res5.0.shortcut.weight"),
        ("backbone.body.layer4.0.downsample.1.running_mean", "backbone.bottom_up.res5.0.shortcut.norm.running_mean"),
        ("backbone.fpn.inner_blocks.0.0.weight", "backbone.fpn_lateral2.weight"),
        ("backbone.fpn.layer_blocks.3.0.bias", "backbone.fpn_output5.bias"),
        ("rpn.head.conv.0.0.weight", "proposal_generator.rpn_head.conv.weight"),
        ("rpn.head.cls_logits.bias", "proposal_generator.rpn_head.objectness_logits.bias"),
        ("rpn.head.bbox_pred.weight", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("roi_heads.box_head.fc7.weight", "roi_heads.box_head.fc2.weight"),
        ("roi_heads.mask_head.0.0.weight", "roi_heads.mask_head.mask_fcn1.weight"),
        ("roi_heads.mask_predictor.conv5_mask.bias", "roi_heads.mask_head.deconv.bias"),
    ],
)
def test_layouts_name_the_same_tensor(here: str, there: str) -> None:
    state = torchvision_state()
    converted = to_detectron2(state, **SAME)
    assert torch.equal(converted[there], state[here])
    assert torch.equal(to_torchvision(converted, **SAME)[here], state[here])


def test_background_is_torchvisions_first_class_and_detectron2s_last() -> None:
    state = torchvision_state(categories=2)
    state[SCORES] = torch.tensor([[0.0], [1.0], [2.0]])
    state[BOXES] = torch.arange(12.0)[:, None]
    state[MASKS_HERE] = torch.tensor([5.0, 6.0, 7.0]).reshape(3, 1, 1, 1)
    there = to_detectron2(state, **SAME)
    assert there[SCORES].flatten().tolist() == [1, 2, 0]
    assert there[BOXES].flatten().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert there[MASKS_THERE].flatten().tolist() == [6, 7]
    back = to_torchvision(there, **SAME)
    assert back[SCORES].flatten().tolist() == [0, 1, 2]
    assert back[BOXES].flatten().tolist() == [0, 0, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11]
    assert back[MASKS_HERE].flatten().tolist() == [0, 6, 7]


@pytest.mark.parametrize("masks", [True, False])
def test_round_trip_gives_the_same_bits_where_nothing_is_scaled(masks: bool) -> None:
    state = torchvision_state(masks=masks)
    there = to_detectron2(state, source=TORCHVISION, target=TORCHVISION_BGR)
    back = to_torchvision(there, source=TORCHVISION_BGR, target=TORCHVISION)
    assert set(back) == set(state)
    for name, tensor in state.items():
        if name.startswith("roi_heads.box_predictor.bbox_pred"):
            assert torch.equal(back[name][4:], tensor[4:])
        elif name.startswith("roi_heads.mask_predictor.mask_fcn_logits"):
            assert torch.equal(back[name][1:], tensor[1:])
        else:
            assert torch.equal(back[name], tensor), name
    again = to_detectron2(back, source=TORCHVISION, target=TORCHVISION_BGR)
    assert all(torch.equal(again[name], there[name]) for name in there)
    conv = "backbone.body.conv1.weight"
    assert torch.equal(there["backbone.bottom_up.stem.conv1.weight"], state[conv].flip(1))


def test_group_norms_travel_with_the_pyramids_own() -> None:
    config = BackboneConfig(name="resnet50", norm="GN")
    with torch.device("meta"):
        backbone = build_backbone(config, in_channels=1, fpn_channels=32, load_pretrained=False)
    heads = {name: tensor for name, tensor in torchvision_state().items() if not name.startswith("backbone.")}
    state = fill({f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}) | heads
    there = to_detectron2(state, source=OURS, target=OURS)
    assert torch.equal(there["backbone.fpn_lateral2.norm.weight"], state["backbone.fpn.inner_blocks.0.1.weight"])
    assert "backbone.fpn_lateral2.bias" not in there
    assert not any("running" in name for name in there)
    back = to_torchvision(there, source=OURS, target=OURS)
    assert set(back) == set(state)
    model = describe(state)
    assert (model.depth, model.norm, model.fpn_norm, model.channels, model.categories) == (50, "GN", "GN", 1, 3)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_a_resnet_alone_has_names_that_a_models_end_in(name: str) -> None:
    state = resnet_state(name)
    there = to_detectron2(state, **SAME)
    assert {"stem.conv1.weight", "res2.0.conv1.weight", "res3.0.shortcut.norm.weight"} <= set(there)
    back = to_torchvision(there, **SAME)
    assert set(back) == set(state) - {"fc.weight", "fc.bias"}
    assert all(torch.equal(back[key], state[key]) for key in back)
    assert describe(back).depth == int(name.removeprefix("resnet"))
    assert describe(back).categories is None


def test_old_names_of_torchvision_are_known() -> None:
    state = torchvision_state()
    old = old_names(state)
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.0.weight", "roi_heads.mask_head.mask_fcn4.bias"} <= set(
        old
    )
    modern = modern_names(old)
    assert set(modern) == set(state)
    assert all(torch.equal(modern[name], state[name]) for name in state)
    there = to_detectron2(old, **SAME)
    assert torch.equal(there["roi_heads.mask_head.mask_fcn4.bias"], state["roi_heads.mask_head.3.0.bias"])


def test_all_that_is_unknown_and_missing_is_told_at_once() -> None:
    state = torchvision_state()
    del state["rpn.head.cls_logits.bias"], state["backbone.body.layer2.3.bn2.weight"]
    state["roi_heads.keypoint_head.0.weight"] = torch.zeros(2, 3)
    with pytest.raises(InputError) as error:
        to_detectron2(state, **SAME)
    for text in (
        "3 faults",
        "roi_heads.keypoint_head.0.weight (2, 3): not known",
        "rpn.head.cls_logits.bias: missing",
        "backbone.body.layer2.3.bn2.weight: missing",
        "What can be converted: Mask R-CNN and Faster R-CNN",
    ):
        assert text in str(error.value)


def test_faults_of_a_detectron2_file_are_told_in_its_own_names() -> None:
    state = to_detectron2(torchvision_state(), **SAME)
    del state["backbone.fpn_output4.bias"], state["backbone.bottom_up.res2.1.conv1.norm.running_var"]
    state["roi_heads.box_predictor.bbox_pred.weight"] = torch.zeros(4, 8)
    state["roi_heads.box_head.conv1.weight"] = torch.zeros(8, 8, 3, 3)
    with pytest.raises(InputError) as error:
        to_torchvision(state, **SAME)
    for text in (
        "4 faults",
        "roi_heads.box_head.conv1.weight (8, 8, 3, 3): not known",
        "backbone.fpn_output4.bias: missing",
        "backbone.bottom_up.res2.1.conv1.norm.running_var: missing",
        "bbox_pred.weight: 4 rows; expected 12, since there are scores of 3 categories and the background; one for all "
        "categories (class-agnostic) exists in detectron2 only",
    ):
        assert text in str(error.value)


def test_weights_without_a_resnet_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"backbone\.body\.conv1\.weight|conv1\.weight: missing, so there is no ResNet"
    ):
        to_detectron2({"rpn.head.cls_logits.bias": torch.zeros(3)}, **SAME)


def test_detectron2s_old_buffers_are_left_out() -> None:
    there = to_detectron2(torchvision_state(), **SAME)
    older = {
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "pixel_mean": torch.zeros(3, 1, 1),
    }
    assert set(to_torchvision(there | older, **SAME)) == set(to_torchvision(there, **SAME))


def test_match_ends_takes_the_longest_end() -> None:
    state = {name: torch.tensor(float(number)) for number, name in enumerate(["conv1.w", "stem.conv1.w", "head.w"])}
    matched = match_ends(state, ["backbone.stem.conv1.w", "backbone.res2.conv1.w", "other.v"])
    assert {name: int(number) for name, number in matched.items()} == {
        "backbone.stem.conv1.w": 1,
        "backbone.res2.conv1.w": 0,
        "head.w": 2,
    }


def answer(conv: Tensor, norm: Tensor, pixels: Tensor, seen: PixelNorm) -> Tensor:
    """Of a first convolution and the mean behind it, for pixels (B, C, H, W) in the order of the network's channels."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in seen.mean_std(conv.shape[1]))
    return nn.functional.conv2d((pixels - mean) / std, conv) - norm.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("source", [TORCHVISION, TORCHVISION_BGR, DETECTRON2_MSRA, OURS], ids=lambda norm: norm.name)
@pytest.mark.parametrize("target", [TORCHVISION, TORCHVISION_BGR, DETECTRON2_MSRA, OURS], ids=lambda norm: norm.name)
def test_first_convolution_answers_the_same_pixels_alike(source: PixelNorm, target: PixelNorm) -> None:
    torch.manual_seed(0)
    state = {"conv1.weight": torch.randn(4, 3, 3, 3) / source.std[0], "bn1.running_mean": torch.randn(4)}
    rgb = 255 * torch.rand(1, 3, 6, 6)
    changed = with_pixels(state, source, target)
    found = [
        answer(weights["conv1.weight"], weights["bn1.running_mean"], rgb if norm.order == "RGB" else rgb.flip(1), norm)
        for weights, norm in ((state, source), (changed, target))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_first_convolution_of_grey_channels_knows_no_colour(channels: int) -> None:
    """The averages of ImageNet's means and stds are ours: nothing to scale, but for detectron2's std of 1."""
    weight = torch.randn(4, channels, 3, 3)
    state = {"conv1.weight": weight, "bn1.running_mean": torch.zeros(4)}
    for source, target in ((TORCHVISION, OURS), (OURS, TORCHVISION_BGR)):
        changed = with_pixels(state, source, target)
        assert torch.equal(changed["conv1.weight"], weight)
        assert torch.equal(changed["bn1.running_mean"], torch.zeros(4))
    torch.testing.assert_close(with_pixels(state, DETECTRON2_MSRA, OURS)["conv1.weight"], weight * 57.63)


def test_pixel_norms_are_what_the_libraries_use() -> None:
    assert TORCHVISION.mean == pytest.approx([255 * 0.485, 255 * 0.456, 255 * 0.406])
    assert TORCHVISION.std == pytest.approx([255 * 0.229, 255 * 0.224, 255 * 0.225])
    assert DETECTRON2_MSRA.mean_std(3) == ([103.53, 116.28, 123.675], [1, 1, 1])
    assert OURS.mean_std(2) == (pytest.approx([114.495] * 2), pytest.approx([57.63] * 2))
    assert DETECTRON2_MSRA.mean_std(1) == (pytest.approx([114.495]), [1])
    assert PixelNorm.from_json(TORCHVISION_BGR.to_json(), "x") == TORCHVISION_BGR
    assert grey(1.0).is_grey
    assert not DETECTRON2_MSRA.is_grey
    with pytest.raises(InputError, match="x: 'pixels' in its header is damaged"):
        PixelNorm.from_json({"name": "n", "order": "GBR", "mean": [1, 2, 3], "std": [1, 1, 1]}, "x")


def test_norms_that_add_nothing_answer_the_same_with_1e_5() -> None:
    """Variances above 1e-5 give it away; below, the weight takes the rest."""
    norm = FrozenBatchNorm2d(4, eps=0.0)
    norm.running_var.copy_(torch.tensor([1.0, 2e-5, 5e-6, 1e-7]))
    norm.running_mean.copy_(torch.tensor([0.0, 0.1, 0.2, 0.3]))
    norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    state = {f"bn.{name}": tensor for name, tensor in norm.state_dict().items()}
    changed = with_eps(state, 0.0)
    assert changed["bn.running_var"].tolist() == pytest.approx([1.0 - 1e-5, 1e-5, 0.0, 0.0], rel=1e-6)
    assert changed["bn.weight"].tolist() == pytest.approx([1.0, 2.0, 3.0 * 2**0.5, 4.0 * 10])
    usual = FrozenBatchNorm2d(4)
    usual.load_state_dict({name.removeprefix("bn."): tensor for name, tensor in changed.items()})
    images = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(usual(images), norm(images), rtol=1e-5, atol=1e-5)
    assert with_eps(state, 1e-5)["bn.running_var"] is state["bn.running_var"]


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


def test_caffe2_names_by_hand() -> None:
    names = ("conv1_w", "conv1_b", "res_conv1_bn_s", "res_conv1_bn_b", "res2_0_branch1_w", "res2_0_branch2a_w")
    found = from_caffe2(dict.fromkeys((*names, "fc1000_w", "pred_b"), torch.ones(2)))
    assert set(found) == {
        "stem.conv1.weight", "stem.conv1.norm.weight", "stem.conv1.norm.bias", "stem.conv1.norm.running_mean",
        "stem.conv1.norm.running_var", "res2.0.shortcut.weight", "res2.0.conv1.weight",
    }  # fmt: skip
    # With the 1e-5 that are added, a variance of 1.
    assert (found["stem.conv1.norm.running_var"] + 1e-5).tolist() == [1, 1]
    assert found["stem.conv1.norm.running_mean"].tolist() == [0, 0]


def caffe2_state() -> dict[str, Tensor]:
    """Detectron's Mask R-CNN R50-FPN: its names as in the files of its zoo."""
    ends = {"": ("w", "b"), "_bn": ("s", "b")}
    names = ["conv1_w", "res_conv1_bn_s", "res_conv1_bn_b"]
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(blocks):
            for branch in ("branch2a", "branch2b", "branch2c", *(["branch1"] if block == 0 else [])):
                place = f"res{stage}_{block}_{branch}"
                names += [f"{place}_w", f"{place}_bn_s", f"{place}_bn_b"]
        lateral = "" if stage == 5 else "_lateral"
        for place in (f"fpn_inner_res{stage}_{blocks - 1}_sum{lateral}", f"fpn_res{stage}_{blocks - 1}_sum"):
            names += [f"{place}_{end}" for end in ends[""]]
    heads = ["conv_rpn_fpn2", "rpn_cls_logits_fpn2", "rpn_bbox_pred_fpn2", "fc6", "fc7", "cls_score", "bbox_pred"]
    heads += [*(f"_[mask]_fcn{layer}" for layer in (1, 2, 3, 4)), "conv5_mask", "mask_fcn_logits"]
    names += [f"{place}_{end}" for place in heads for end in ends[""]]
    rows = {"cls_score": 3, "bbox_pred": 12, "mask_fcn_logits": 3}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(rows.get(name[:-2], 8), *([3, 2, 2] if name == "conv1_w" else [2]), generator=generator)
        for name in names
    }


def test_a_caffe2_detector_becomes_a_whole_torchvision_detector() -> None:
    state = caffe2_state()
    converted = to_torchvision(state, source=DETECTRON2_MSRA, target=DETECTRON2_MSRA)
    assert set(converted) == set(torchvision_state(categories=2))
    assert torch.equal(converted[SCORES], state["cls_score_w"])
    assert torch.equal(converted[BOXES][4:], state["bbox_pred_w"][4:])


@pytest.mark.detectron2
def test_caffe2_names_are_those_that_detectron2_gives() -> None:
    from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

    state = caffe2_state()
    expected, _ = convert_c2_detectron_names(dict(state))
    found = from_caffe2(state)
    for end, tensor in expected.items():
        names = [name for name in found if f".{name}".endswith(f".{end}")]
        assert len(names) == 1, end
        assert torch.equal(found[names[0]], tensor), end
    statistics = {name for name in found if name.endswith(("running_mean", "running_var"))}
    assert len(found) - len(statistics) == len(expected)


# ---- the proof: both libraries answer alike ---------------------------------------------------------------------

CATEGORIES, SIZE_HW = 3, (128, 160)


def stir(model: nn.Module) -> nn.Module:
    """Random values everywhere, norms included, that neither die out nor explode on their way through."""
    generator = torch.Generator().manual_seed(5)

    def draw(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            last = name.rpartition(".")[2]
            if last == "num_batches_tracked":
                continue
            if last == "running_var":
                tensor.copy_(draw(tensor).abs() + 0.5)
            elif last == "running_mean" or (tensor.ndim == 1 and last == "bias"):
                tensor.copy_(0.1 * draw(tensor))
            elif tensor.ndim == 1:
                tensor.copy_(0.5 + 0.2 * draw(tensor))
            else:
                tensor.copy_(draw(tensor) * (2.0 / tensor[0].numel()) ** 0.5)
        for name, tensor in model.state_dict().items():  # scores far apart, boxes near their anchors
            if name.endswith(("cls_logits.weight", "objectness_logits.weight")):
                tensor.mul_(3.0)
            if name.endswith(("bbox_pred.weight", "anchor_deltas.weight")):
                tensor.mul_(0.2)
    return model.eval()


def torchvision_model(stride_in_1x1: bool, seen: PixelNorm) -> MaskRCNN:
    config = BackboneConfig(name="resnet50", norm="FrozenBN", stride_in_1x1=stride_in_1x1)
    backbone = build_backbone(config, in_channels=3, fpn_channels=256, load_pretrained=False)
    return MaskRCNN(
        backbone,
        num_classes=CATEGORIES + 1,
        min_size=min(SIZE_HW),
        max_size=max(SIZE_HW),
        image_mean=[value / 255 for value in seen.mean],
        image_std=[value / 255 for value in seen.std],
        # One ratio and even sizes: torchvision rounds its anchors, detectron2 does not.
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,), (128,), (256,)), ((1.0,),) * 5),
    ).eval()


def detectron2_model(stride_in_1x1: bool, seen: PixelNorm) -> Any:
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CATEGORIES
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = seen.mean_std(3)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    for head in (cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD):
        head.POOLER_TYPE, head.POOLER_SAMPLING_RATIO = "ROIAlign", 2
    return build_model(cfg).eval()


def close(found: Tensor, expected: Tensor, what: str) -> None:
    """To 1e-4 of the tensor's own scale, from which its values must differ by far more."""
    assert found.shape == expected.shape, what
    assert expected.std() > 0.01 * expected.abs().max(), f"{what}: says nothing"
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()), msg=lambda text: f"{what}: {text}"
    )


def picture() -> Tensor:
    """Patches of all colours, some smooth and some rough, (3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(2, 3, 8, 10, generator=generator)
    colour, roughness = nn.functional.interpolate(coarse, SIZE_HW)
    return (colour + roughness**2 * torch.randn(3, *SIZE_HW, generator=generator)).clamp(0, 1)


@torch.no_grad()
def assert_both_answer_alike(here: MaskRCNN, there: Any, order: str) -> None:
    from detectron2.structures import Boxes

    rgb = 255 * picture()
    batch, _ = here.transform([rgb / 255])
    assert batch.image_sizes == [SIZE_HW]
    inputs = [{"image": rgb.flip(0) if order == "BGR" else rgb, "height": SIZE_HW[0], "width": SIZE_HW[1]}]
    batch_there = there.preprocess_image(inputs)

    levels, levels_there = here.backbone(batch.tensors), there.backbone(batch_there.tensor)
    assert len(levels) == len(levels_there) == 5
    for (name, level), level_there in zip(levels.items(), levels_there.values(), strict=True):
        close(level_there, level, f"level {name}")

    logits, deltas = here.rpn.head(list(levels.values()))
    logits_there, deltas_there = there.proposal_generator.rpn_head(list(levels_there.values()))
    for index in range(5):
        close(logits_there[index], logits[index], f"rpn logits {index}")
        close(deltas_there[index], deltas[index], f"rpn deltas {index}")

    boxes = torch.tensor([[10.0, 12, 50, 70], [0, 0, 160, 128], [100, 60, 130, 75], [30, 30, 46, 46.5]])
    heads, heads_there = here.roi_heads, there.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(levels, [boxes], [SIZE_HW]))
    scores, offsets = heads.box_predictor(pooled)
    used = [levels_there[name] for name in heads_there.in_features]
    pooled_there = heads_there.box_head(heads_there.box_pooler(used, [Boxes(boxes)]))
    scores_there, offsets_there = heads_there.box_predictor(pooled_there)
    close(torch.roll(scores_there, 1, dims=1), scores, "box logits")
    close(offsets_there, offsets[:, 4:], "box deltas")

    masks = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(levels, [boxes], [SIZE_HW])))
    masks_there = heads_there.mask_head.layers(heads_there.mask_pooler(used, [Boxes(boxes)]))
    close(masks_there, masks[:, 1:], "mask logits")

    proposals, _ = here.rpn(batch, levels)
    found = heads(levels, proposals, batch.image_sizes)[0][0]
    found_there = there.inference(inputs, do_postprocess=False)[0]
    assert len(found["scores"]) == len(found_there) == 100
    # Scores that differ in their last digit may change places, and the last ones may fall out of the hundred.
    near = torch.cdist(
        facts(found["boxes"], found["labels"]), facts(found_there.pred_boxes.tensor, found_there.pred_classes + 1)
    )
    place = near.argmin(dim=1)[:90]
    assert len(place.unique()) == 90
    assert torch.equal(found_there.pred_classes[place] + 1, found["labels"][:90])
    close(found_there.scores[place], found["scores"][:90], "scores")
    close(found_there.pred_boxes.tensor[place], found["boxes"][:90], "boxes")
    close(found_there.pred_masks[place], found["masks"][:90], "masks")


def facts(boxes: Tensor, labels: Tensor) -> Tensor:
    """What tells one detection from another, (n, 5)."""
    return torch.cat([boxes, 1000.0 * labels[:, None]], dim=1)


WAYS = [(False, DETECTRON2_MSRA), (True, DETECTRON2_MSRA), (False, TORCHVISION_BGR), (True, TORCHVISION)]


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.parametrize(("stride_in_1x1", "seen"), WAYS, ids=lambda value: getattr(value, "name", str(value)))
def test_detectron2_answers_as_torchvision_with_converted_weights(stride_in_1x1: bool, seen: PixelNorm) -> None:
    here, there = stir(torchvision_model(stride_in_1x1, TORCHVISION)), detectron2_model(stride_in_1x1, seen)
    there.load_state_dict(to_detectron2(here.state_dict(), source=TORCHVISION, target=seen))
    assert_both_answer_alike(here, there, seen.order)


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.parametrize(("stride_in_1x1", "seen"), WAYS, ids=lambda value: getattr(value, "name", str(value)))
def test_torchvision_answers_as_detectron2_with_converted_weights(stride_in_1x1: bool, seen: PixelNorm) -> None:
    there = stir(detectron2_model(stride_in_1x1, seen))
    stem = there.backbone.bottom_up.stem.conv1
    stem.weight.data /= seen.std[0] if max(seen.std) > 1 else 57.0  # in the scale of its pixels
    here = torchvision_model(stride_in_1x1, TORCHVISION)
    here.load_state_dict(to_torchvision(there.state_dict(), source=seen, target=TORCHVISION))
    assert_both_answer_alike(here, there, seen.order)


@pytest.mark.detectron2
def test_strides_in_other_places_give_other_features() -> None:
    """What the refusal of such files is for."""
    here, there = stir(torchvision_model(False, TORCHVISION)), detectron2_model(True, TORCHVISION)
    there.load_state_dict(to_detectron2(here.state_dict(), source=TORCHVISION, target=TORCHVISION))
    image = picture()[None]
    with torch.no_grad():
        level, level_there = here.backbone(image)["2"], there.backbone(image)["p4"]
    assert (level - level_there).abs().mean() > 0.02 * level.abs().mean()
