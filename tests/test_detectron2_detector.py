"""detectron2's networks behind the detector contract, against their own forward."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL_DETECTRON2
from small_training import assert_overfits_four_images, pasted
from torch import Tensor

from mammodet.config import load_config
from mammodet.errors import InputError
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN

pytestmark = pytest.mark.detectron2
CONFIGS = Path(__file__).parent.parent / "configs" / "detectron2"

#: R50 networks with few channels: options that make them small, on those of SMALL_DETECTRON2's kind.
LIGHT = (
    "MODEL.RESNETS.RES2_OUT_CHANNELS, 64, MODEL.RESNETS.WIDTH_PER_GROUP, 32, MODEL.RESNETS.NORM, GN, "
    "MODEL.BACKBONE.FREEZE_AT, 0, MODEL.FPN.NORM, GN, MODEL.FPN.OUT_CHANNELS, 32"
)
HEADS = f"{LIGHT}, MODEL.ROI_BOX_HEAD.FC_DIM, 32, MODEL.RPN.POST_NMS_TOPK_TEST, 40"
POINTS = (
    "MODEL.ROI_MASK_HEAD.NAME, PointRendMaskHead, MODEL.ROI_MASK_HEAD.POOLER_TYPE, '', "
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON, true, MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES, true, "
    "MODEL.ROI_MASK_HEAD.CONV_DIM, 32, MODEL.ROI_MASK_HEAD.FC_DIM, 32, MODEL.POINT_HEAD.FC_DIM, 32"
)
NETWORKS = {
    "mask_rcnn": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", HEADS),
    "faster_rcnn": ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", HEADS),
    "cascade": ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", HEADS),
    "pointrend": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", f"{HEADS}, {POINTS}"),
    "retinanet": ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", LIGHT),
}
BOXES_ONLY = ("faster_rcnn", "retinanet")


def build(*overrides: str, categories: int = 2) -> MammoRCNN:
    torch.manual_seed(0)
    model = build_model(load_config(None, (*SMALL_DETECTRON2, *overrides)), categories)
    assert isinstance(model, MammoRCNN)
    return model


def network(name: str, *overrides: str) -> MammoRCNN:
    config, opts = NETWORKS[name]
    options = (
        f"model.detectron2.config={config}",
        f"model.detectron2.opts=[{opts}]",
        "model.detector.max_detections=9",
    )
    return build(*options, "model.detector.score_threshold=0.001", *overrides)


def two_images(channels: int = 1, *, masks: bool = True) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """An image with a lesion of the second category, and one without."""
    torch.manual_seed(1)
    images = [torch.rand(channels, 96, 64), torch.rand(channels, 80, 96)]
    disc = torch.zeros(1, 96, 64, dtype=torch.uint8)
    disc[:, 20:44, 10:40] = 1
    nothing = torch.zeros(0, 80, 96, dtype=torch.uint8)
    targets = [
        {"boxes": torch.tensor([[10.0, 20.0, 40.0, 44.0]]), "labels": torch.tensor([2]), "masks": disc},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": nothing},
    ]
    if not masks:
        for target in targets:
            del target["masks"]
    return images, targets


def their_inputs(images: list[Tensor], targets: list[dict[str, Tensor]] | None) -> list[dict[str, Any]]:
    """What a detectron2 script would pass: images from 0 to 255, classes from 0."""
    from detectron2.structures import BitMasks, Boxes, Instances

    inputs: list[dict[str, Any]] = [{"image": image * 255} for image in images]
    for entry, target in zip(inputs, targets or [], strict=False):
        truth = Instances(tuple(entry["image"].shape[-2:]))
        truth.gt_boxes = Boxes(target["boxes"].clone())
        truth.gt_classes = target["labels"] - 1
        if "masks" in target:
            truth.gt_masks = BitMasks(target["masks"].bool())
        entry["instances"] = truth
    return inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_are_those_of_detectron2s_own_forward(name: str) -> None:
    from detectron2.utils.events import EventStorage

    detector = network(name).detector.train()
    images, targets = two_images(masks=name not in BOXES_ONLY)
    theirs = copy.deepcopy(detector.model)
    with EventStorage():
        torch.manual_seed(7)
        expected = theirs(their_inputs(images, targets))
    torch.manual_seed(7)
    found = detector(images, targets).losses
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    for one, other in zip(detector.model.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_detections_are_those_of_detectron2s_own_forward(name: str) -> None:
    detector = network(name).detector.eval()
    images, _ = two_images()
    with torch.no_grad():
        expected = detector.model(their_inputs(images, None))
        output = detector(images)
    assert sum(len(each["instances"]) for each in expected) >= 9
    for found, each, image in zip(output.detections, expected, images, strict=True):
        theirs = each["instances"]
        assert torch.equal(found["boxes"], theirs.pred_boxes.tensor)
        assert torch.equal(found["scores"], theirs.scores)
        assert torch.equal(found["labels"], theirs.pred_classes + 1)
        assert (found["scores"].diff() <= 0).all()
        if name in BOXES_ONLY:
            assert "masks" not in found
            continue
        size_hw = (int(image.shape[-2]), int(image.shape[-1]))
        assert torch.equal(pasted(found["masks"], found["boxes"], size_hw) >= 0.5, theirs.pred_masks)
        assert 0 < float(found["masks"].min() + found["masks"].max()) <= 2


@pytest.mark.parametrize("name", NETWORKS)
def test_contract_holds_for_every_network(name: str) -> None:
    model = network(name).train()
    images, targets = two_images(masks=name not in BOXES_ONLY)
    assert model.with_masks is (name not in BOXES_ONLY)
    output = model.detector(images, targets)
    assert output.sizes_hw == [(96, 64), (80, 96)]
    for features, stride in zip(output.features, model.detector.feature_strides, strict=True):
        assert features.shape[:2] == (2, 32)
        assert features.shape[2] == -(-output.padded_hw[0] // stride)
    losses = model(images, targets, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).losses
    assert torch.isfinite(torch.stack(list(losses.values()))).all()
    torch.stack(list(losses.values())).sum().backward()
    without = [key for key, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert without == []


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_without_lesions_teach_every_network(name: str) -> None:
    detector = network(name).detector.train()
    images, targets = two_images(masks=name not in BOXES_ONLY)
    torch.manual_seed(3)
    alone = detector([images[1]], [targets[1]]).losses
    assert all(torch.isfinite(value) for value in alone.values())
    assert max(float(value.detach()) for value in alone.values()) > 0
    torch.stack(list(alone.values())).sum().backward()
    assert all(each.grad is not None for each in detector.parameters() if each.requires_grad)


def test_deformable_convolutions_are_refused_on_the_cpu() -> None:
    detector = build(
        f"model.detectron2.opts=[{HEADS}, MODEL.RESNETS.DEFORM_ON_PER_STAGE, [false, true, true, true]]",
        "model.detectron2.config=COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    ).detector.train()
    images, targets = two_images(masks=False)
    with pytest.raises(InputError, match="deformable convolutions learn on a GPU only"):
        detector(images, targets)


def test_images_that_teach_no_boxes_are_left_out_of_the_losses() -> None:
    detector = network("mask_rcnn").detector.train()
    images, targets = two_images()
    padded = torch.zeros(1, 96, 96)
    padded[:, :80] = images[1]
    sizes = [images[0], images[1]]
    torch.manual_seed(5)
    both = detector(sizes, targets, [True, False]).losses
    torch.manual_seed(5)
    one = detector(
        [images[0], images[1]], [targets[0], {**targets[1], "boxes": torch.full((0, 4), 1.0)}], [True, False]
    )
    for name, value in one.losses.items():
        assert torch.equal(both[name], value)
    torch.manual_seed(5)
    everything = detector(sizes, targets).losses
    assert everything["loss_rpn_cls"] != both["loss_rpn_cls"]


def test_a_batch_that_teaches_no_boxes_gives_a_zero_that_reaches_every_parameter() -> None:
    detector = network("retinanet").detector.train()
    images, targets = two_images(masks=False)
    losses = detector(images, targets, [False, False]).losses
    assert [float(value) for value in losses.values()] == [0.0]
    losses["loss_none"].backward()
    assert all(each.grad is not None for each in detector.parameters() if each.requires_grad)


def test_training_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="needed in training"):
        build().detector.train()([torch.rand(1, 64, 64)])


def test_classes_channels_anchors_and_limits_follow_our_config() -> None:
    overrides = (
        "data.image.channels=[full, tissue]",
        "model.detector.anchors.sizes=[10, 20, 30, 40, 50]",
        "model.detector.anchors.ratios=[1.0]",
        "model.detector.score_threshold=0.3",
        "model.detector.nms_threshold=0.4",
        "model.detector.max_detections=7",
    )
    model = build(*overrides, categories=3).detector.model
    assert model.backbone.bottom_up.stem.conv1.in_channels == 2
    # The zoo's mean over blue, green and red, for each channel: (103.53 + 116.28 + 123.675) / 3.
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor([114.495, 114.495]))
    cells = [cell.tolist() for cell in model.proposal_generator.anchor_generator.cell_anchors]
    assert cells == [[[-side / 2, -side / 2, side / 2, side / 2]] for side in (10, 20, 30, 40, 50)]
    predictor = model.roi_heads.box_predictor
    assert predictor.cls_score.out_features == 4
    assert (predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image) == (0.3, 0.4, 7)


def test_retinanet_keeps_its_three_anchors_per_octave() -> None:
    model = network("retinanet", "model.detector.anchors.sizes=[10, 20, 40, 80, 160]").detector.model
    cells = next(iter(model.anchor_generator.cell_anchors))
    widths = cells[:, 2] - cells[:, 0]
    areas = [round(float(width) ** 2 / 100, 3) for width in widths[1::3]]  # of the square ones
    assert areas == [1.0, round(2 ** (2 / 3), 3), round(2 ** (4 / 3), 3)]
    assert (model.test_score_thresh, model.max_detections_per_image) == (0.001, 9)


def test_retinanet_keeps_its_running_normaliser_in_its_state() -> None:
    detector = network("retinanet").detector.train()
    images, targets = two_images(masks=False)
    detector(images, targets)
    other = network("retinanet").detector
    other.load_state_dict(detector.state_dict())
    assert float(other.model.loss_normalizer) == float(detector.model.loss_normalizer) != 100.0


def test_image_head_sees_the_same_strides_on_every_pyramid() -> None:
    assert network("mask_rcnn").image_head.levels == [1, 2, 3]
    assert network("retinanet").image_head.levels == [0, 1, 2]


def test_network_without_a_pyramid_works_without_the_image_head_only() -> None:
    c4 = ("model.detectron2.config=COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", f"model.detectron2.opts=[{LIGHT}]")
    with pytest.raises(InputError, match="strides 16; expected 8, 16 and 32"):
        build(*c4)
    model = build(*c4, "model.image_head.enabled=false", "model.aggregation.rule=max").train()
    images, targets = two_images(masks=False)
    assert torch.isfinite(torch.stack(list(model(images, targets).losses.values()))).all()


def test_three_channels_keep_a_colour_networks_first_convolution() -> None:
    regnet = (
        "model.detectron2.config=COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py",
        "model.detectron2.opts=[]",
    )
    weights = []
    for channels in ("[full, tissue, clahe]", "[tissue]"):
        torch.manual_seed(0)
        config = load_config(None, (*SMALL_DETECTRON2, *regnet, f"data.image.channels={channels}"))
        model = build_model(config, 1, load_weights=False).detector.model
        weights.append(model.backbone.bottom_up.stem.conv.weight)
    assert weights[0].shape[1] == 3
    torch.testing.assert_close(weights[1], weights[0].sum(dim=1, keepdim=True))


def test_two_configs_in_one_process_do_not_touch_each_other() -> None:
    from detectron2.config import get_cfg
    from detectron2.utils.events import EventStorage, get_event_storage

    before = get_cfg().dump()
    images, targets = two_images()
    first = network("mask_rcnn").detector.eval()
    with torch.no_grad():
        alone = first(images).detections[0]
    second = network("retinanet", "model.detector.anchors.sizes=[4, 8, 16, 32, 64]", "model.detector.max_detections=3")
    second.detector.train()(images, [{key: each[key] for key in ("boxes", "labels")} for each in targets])
    with torch.no_grad():
        again = first(images).detections[0]
    for key, value in alone.items():
        assert torch.equal(again[key], value)
    assert get_cfg().dump() == before
    with pytest.raises(AssertionError):
        get_event_storage()  # none is left open
    with EventStorage(start_iter=11) as outer:
        first.train()(images, targets)
        assert get_event_storage() is outer
        assert outer.latest() == {}  # a user's own storage gets nothing of ours


def test_networks_run_in_bfloat16() -> None:
    model = build().train()
    images, targets = two_images()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).losses
        found = model.eval()(images).detections
    assert torch.isfinite(torch.stack([value.float() for value in losses.values()])).all()
    assert all(each["masks"].dtype == torch.float32 and each["boxes"].dtype == torch.float32 for each in found)


def test_overfits_four_images() -> None:
    assert_overfits_four_images(build("model.image_head.dropout=0", categories=1))
