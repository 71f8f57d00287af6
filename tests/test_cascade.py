"""Box heads in a row, each on the boxes of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SMALL
from torch import Tensor

from mammodet.config import load_config
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.roi_heads import RegionHeads, with_later_heads

CASCADE = "model.detector.cascade_ious=[0.6, 0.7]"


def small(*overrides: str, categories: int = 1) -> MammoRCNN:
    torch.manual_seed(0)
    model = build_model(load_config(None, [*SMALL, *overrides]), categories)
    assert isinstance(model, MammoRCNN)
    return model


def heads_of(model: MammoRCNN) -> RegionHeads:
    heads = model.detector.model.roi_heads
    assert isinstance(heads, RegionHeads)
    return heads


def answer_always(head: torch.nn.Module, logits: list[float], deltas: list[float]) -> None:
    """Let a head answer the same whatever it sees."""
    with torch.no_grad():
        for layer, values in ((head.box_predictor.cls_score, logits), (head.box_predictor.bbox_pred, deltas)):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(values))


def test_scores_are_the_mean_of_all_heads_and_boxes_the_last_ones() -> None:
    heads = heads_of(small("model.detector.arch=faster_rcnn", "model.detector.cascade_ious=[0.6]", categories=2)).eval()
    # Offsets of x and y are in tenths of the box's width and height. The first head holds the box for category 2 and
    # moves it right by its width, the second for category 1, and moves it up by its height.
    answer_always(heads, [0, 0, 1], [0, 0, 0, 0, 5, 5, 0, 0, 10, 0, 0, 0])
    answer_always(heads.later[0], [0, 2, 0], [0, 0, 0, 0, 0, -10, 0, 0, 7, 7, 0, 0])
    features = {str(level): torch.rand(1, heads.later[0].box_head.fc6.in_features // 49, 16, 16) for level in range(4)}
    with torch.no_grad():
        (found,), losses = heads(features, [torch.tensor([[10.0, 30.0, 20.0, 40.0]])], [(64, 64)])
    assert losses == {}
    means = (torch.tensor([0.0, 0, 1]).softmax(0) + torch.tensor([0.0, 2, 0]).softmax(0)) / 2
    scores = {int(label): float(score) for label, score in zip(found["labels"], found["scores"], strict=True)}
    assert scores == pytest.approx({1: float(means[1]), 2: float(means[2])})
    box = found["boxes"][found["labels"] == 1][0]
    assert box.tolist() == pytest.approx([20, 20, 30, 30])


def test_boxes_of_later_heads_are_lesions_from_their_own_overlap_on() -> None:
    heads = heads_of(small())
    lesion = {"boxes": torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]]), "labels": torch.tensor([1, 2])}
    boxes = torch.tensor([[40.0, 40, 50, 46.5], [0, 0, 10, 5.5], [20, 20, 20, 20]])  # overlaps 0.65, 0.55, 0
    matched, labels, offsets = heads._match([boxes, boxes], [lesion, {"boxes": torch.zeros(0, 4)}], 0.6)
    assert matched[0].tolist()[:2] == [1, 0]
    assert [each.tolist() for each in labels] == [[2, 0, 0], [0, 0, 0]]
    back = heads.box_coder.decode(offsets[0][:2], [boxes[:2]])[:, 0]
    assert back.tolist() == [pytest.approx([40, 40, 50, 50]), pytest.approx([0, 0, 10, 10])]


@pytest.mark.parametrize("arch", ["mask_rcnn", "faster_rcnn"])
@pytest.mark.parametrize("loss", ["smooth_l1", "giou"])
def test_every_head_learns(arch: str, loss: str) -> None:
    image, mask = torch.rand(1, 96, 64), torch.zeros(1, 96, 64, dtype=torch.uint8)
    mask[:, 20:44, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 20.0, 40.0, 44.0]]), "labels": torch.tensor([1]), "masks": mask}
    nothing = {name: value[:0] for name, value in target.items()}
    model = small(CASCADE, f"model.detector.arch={arch}", f"model.detector.box_loss={loss}").train()
    losses = model([image, image], [target, nothing]).losses
    names = {f"{name}{number}" for name in ("loss_classifier", "loss_box_reg") for number in ("", "_2", "_3")}
    assert names <= losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in heads_of(model).later.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_later_heads_start_as_the_first(tmp_path: Path) -> None:
    plain = small()
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "plain.pth")
    heads = heads_of(small(CASCADE, f"model.weights={tmp_path / 'plain.pth'}"))
    first = heads_of(plain).box_head.state_dict() | heads_of(plain).box_predictor.state_dict()
    for head in heads.later:
        found = head.box_head.state_dict() | head.box_predictor.state_dict()
        assert all(torch.equal(found[name], value) for name, value in first.items())


def test_a_cascade_keeps_the_heads_it_has() -> None:
    own: dict[str, Tensor] = {"roi_heads.box_head.w": torch.ones(1), "roi_heads.later.0.box_head.w": torch.zeros(1)}
    assert {name: float(value) for name, value in with_later_heads(own, 2).items()} == {
        "roi_heads.box_head.w": 1,
        "roi_heads.later.0.box_head.w": 0,
        "roi_heads.later.1.box_head.w": 1,
    }
