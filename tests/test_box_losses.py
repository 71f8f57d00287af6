"""The generalised IoU as box loss, regions to ignore, anchors that differ with the level, nested detections."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import SMALL

from mammodet.config import load_config
from mammodet.engine.answers import answers_to_predictions
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.roi_heads import GIOU_WEIGHT, RegionHeads, in_ignored
from mammodet.modeling.second_boxes import inside_others, softened
from mammodet.records import Detections, ImageRecord
from mammodet.trace import Trace


def small(*overrides: str) -> MammoRCNN:
    torch.manual_seed(0)
    model = build_model(load_config(None, [*SMALL, *overrides]), 1)
    assert isinstance(model, MammoRCNN)
    return model


def test_giou_loss_of_boxes_side_by_side_is_worked_out_by_hand() -> None:
    heads = small("model.detector.box_loss=giou").detector.model.roi_heads
    assert isinstance(heads, RegionHeads)
    proposals = [torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]), torch.tensor([[0.0, 0.0, 5.0, 5.0]])]
    labels = [torch.tensor([1, 0]), torch.tensor([0])]
    matched = [torch.tensor([0, 0]), torch.tensor([0])]
    targets = [{"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]])}, {"boxes": torch.zeros(0, 4)}]
    # No offsets: the box is the proposal. IoU 0; they fill their common box of 20 x 10: GIoU 0, loss 1, of 3 proposals.
    loss = heads._giou_loss(torch.zeros(3, 8), proposals, labels, matched, targets)
    assert float(loss) == pytest.approx(GIOU_WEIGHT / 3)
    targets[0]["boxes"] = proposals[0][:1]
    assert float(heads._giou_loss(torch.zeros(3, 8), proposals, labels, matched, targets)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("arch", ["mask_rcnn", "faster_rcnn"])
def test_giou_changes_the_box_loss_alone(arch: str) -> None:
    image = torch.rand(1, 96, 64)
    mask = torch.zeros(1, 96, 64, dtype=torch.uint8)
    mask[:, 20:44, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 20.0, 40.0, 44.0]]), "labels": torch.tensor([1]), "masks": mask}
    losses = []
    for kind in ("smooth_l1", "giou"):
        model = small(f"model.detector.arch={arch}", f"model.detector.box_loss={kind}").train()
        torch.manual_seed(1)
        losses.append(model([image, image], [target, {name: value[:0] for name, value in target.items()}]).losses)
    first, second = losses
    assert first.keys() == second.keys()
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"loss_box_reg"}
    second["loss_box_reg"].backward()


@pytest.mark.parametrize("sizes", ["[8, [12, 18], [], 27, []]", "[[], [], [16, 24, 32], [], []]"])
def test_levels_with_different_numbers_of_anchors_train_and_detect(sizes: str) -> None:
    model = small(
        "model.detector.arch=faster_rcnn", f"model.detector.anchors.sizes={sizes}", "model.detector.score_threshold=0"
    )
    target = {"boxes": torch.tensor([[10.0, 20.0, 40.0, 44.0]]), "labels": torch.tensor([1])}
    losses = model.train()([torch.rand(1, 96, 64)], [target]).losses
    assert all(torch.isfinite(value) for value in losses.values())
    with torch.no_grad():
        found = model.eval()([torch.rand(1, 96, 64)]).detections[0]
    assert len(found["boxes"])


def test_nested_detections_are_dropped_and_drop_no_other() -> None:
    boxes = np.array(
        [[0, 0, 20, 20], [5, 5, 10, 10], [18, 18, 28, 28], [5, 5, 10, 10], [0, 0, 21, 21], [60, 60, 70, 70]],
        dtype=float,
    )
    labels = np.array([1, 1, 1, 2, 1, 1])
    assert inside_others(boxes, labels, 0.8).tolist() == [False, True, False, False, True, False]
    # Were the dropped second box still counted, it would drop the third, which the first does not touch.
    chain = np.array([[0, 0, 10, 10], [0, 0, 16, 10], [12, 0, 16, 10]], dtype=float)
    assert inside_others(chain, np.ones(3, dtype=int), 0.9).tolist() == [False, True, False]
    assert inside_others(boxes[:0], labels[:0], 0.8).tolist() == []


def test_soft_suppression_by_hand() -> None:
    # The second shares half of its union with the first, and is lowered below the third, which it overlaps by as much.
    boxes = np.array([[0, 0, 30, 10], [10, 0, 40, 10], [20, 0, 50, 10], [10, 0, 40, 10]], dtype=float)
    labels, scores = np.array([1, 1, 1, 2]), np.array([0.9, 0.8, 0.7, 0.6])
    far, near = 0.2**2, 0.5**2  # the squared IoU of the first and the third, of neighbours
    third = 0.7 * math.exp(-far / 0.5)
    second = 0.8 * math.exp(-near / 0.5) * math.exp(-near / 0.5)
    assert softened(boxes, labels, scores, 0.5).tolist() == pytest.approx([0.9, second, third, 0.6])
    assert softened(boxes[:0], labels[:0], scores[:0], 0.5).tolist() == []


def answers(*overrides: str) -> Detections:
    """What becomes of three boxes: the second nearly inside of the first, the third beside them."""
    found = {
        "boxes": np.array([[0, 0, 30, 10], [5, 0, 29, 10], [20, 0, 50, 10]], dtype=np.float32),
        "labels": np.array([1, 1, 1]),
        "scores": np.array([0.9, 0.8, 0.7], dtype=np.float32),
    }
    record, trace = ImageRecord(1, "a.png", (64, 64)), Trace((64, 64))
    changed = load_config(None, [*SMALL, "model.detector.arch=faster_rcnn", *overrides])
    logits = np.zeros((1, len(changed.model.targets)), dtype=np.float32)
    return answers_to_predictions([found], logits, [record], [trace], changed)[0].detections


def test_second_boxes_are_dropped_or_lowered_in_predictions() -> None:
    assert answers().scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert answers("model.detector.containment_threshold=0.5").scores.tolist() == pytest.approx([0.9, 0.7])
    softer = answers("model.detector.soft_nms_sigma=0.5", "model.detector.score_threshold=0.5")
    assert softer.scores.tolist() == pytest.approx([0.9, 0.7 * math.exp(-(0.2**2) / 0.5)])
    assert softer.boxes_xyxy[:, 0].tolist() == [0, 20]


def test_boxes_in_regions_to_ignore() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [6.0, 0.0, 16.0, 10.0], [2.0, 2.0, 4.0, 4.0]])
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [90.0, 90.0, 99.0, 99.0]])
    assert in_ignored(boxes, regions).tolist() == [True, True, False, True]  # the second by half
    assert in_ignored(boxes, regions[:0]).tolist() == [False] * 4


@pytest.mark.parametrize("loss", ["smooth_l1", "giou"])
def test_what_lies_in_a_region_to_ignore_is_no_background(loss: str) -> None:
    model = small("model.detector.arch=faster_rcnn", f"model.detector.box_loss={loss}").detector.model.train()
    lesion = torch.tensor([[10.0, 20.0, 40.0, 44.0]])
    inside, outside = torch.tensor([[8.0, 50.0, 20.0, 60.0]]), torch.tensor([[50.0, 5.0, 60.0, 15.0]])
    boxes = torch.cat([inside, outside, lesion + 1])
    target = {"boxes": lesion, "labels": torch.tensor([1]), "ignored": torch.tensor([[0.0, 10.0, 45.0, 90.0]])}
    labels, _ = model.rpn.assign_targets_to_anchors([boxes], [target])
    assert labels[0].tolist() == [-1, 0, 1]
    assert torch.equal(model.roi_heads._to_learn(boxes, target), boxes[1:])
    everything = {
        **target,
        "ignored": torch.tensor([[0.0, 0.0, 99.0, 99.0]]),
        "boxes": lesion[:0],
        "labels": torch.tensor([]),
    }
    assert len(model.roi_heads._to_learn(boxes, everything)) == 0
    whole = small("model.detector.arch=mask_rcnn", f"model.detector.box_loss={loss}").train()
    masks = {"masks": torch.zeros(0, 96, 64, dtype=torch.uint8)}
    losses = whole([torch.rand(1, 96, 64)], [everything | masks]).losses
    assert losses["loss_none"] == 0
    assert all(torch.isfinite(value) for value in losses.values())
