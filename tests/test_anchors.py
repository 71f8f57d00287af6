"""Anchors fit the lesions and the strides of the levels that carry them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mammodet.config import load_config
from mammodet.data.coco import read_coco
from mammodet.engine.anchors import anchor_recall, describe_anchors, fit_anchors, training_boxes
from mammodet.errors import InputError

STRIDES = (4, 8, 16, 32, 64)


def squares(*sides: float) -> np.ndarray:
    """Boxes whose centre lies on every grid up to stride 64."""
    return np.array([[128 - side / 2, 128 - side / 2, 128 + side / 2, 128 + side / 2] for side in sides])


def test_sides_lie_on_the_coarsest_level_that_is_fine_enough() -> None:
    levels = fit_anchors(squares(*[16.0] * 50, *[128.0] * 50), STRIDES, uniform=False)
    assert levels == [[16.0, 22.6], [32.0, 45.3], [64.0, 90.5], [128.0], []]


def test_small_sides_stay_on_the_finest_level() -> None:
    assert fit_anchors(squares(16.0, 16.0), (8, 16, 32, 64), uniform=False) == [[16.0], [], [], []]
    assert fit_anchors(squares(2.0, 3.0), STRIDES, uniform=False) == [[8.0], [], [], [], []]


def test_uniform_sides_follow_the_strides_as_detectron2_needs_it() -> None:
    levels = fit_anchors(squares(16.0, 16.0), STRIDES, uniform=True)
    assert [len(level) for level in levels] == [2] * 5
    assert [level[0] / stride for level, stride in zip(levels, STRIDES, strict=True)] == pytest.approx(
        [4.757] * 5, 0.01
    )


def test_recall_counts_boxes_that_an_anchor_meets_at_its_place() -> None:
    boxes = squares(32.0, 16.0)
    assert anchor_recall(boxes, [[32.0]], [1.0], [8], 0.99) == 0.5
    assert anchor_recall(boxes, [[32.0]], [1.0], [8], 0.25) == 1.0  # 16 x 16 of 32 x 32
    shifted = boxes[:1] + 4.0  # half a stride off: 28 x 28 shared of 2 x 32 x 32 - 784
    assert anchor_recall(shifted, [[32.0]], [1.0], [8], 784 / 1264 - 1e-9) == 1.0
    assert anchor_recall(shifted, [[32.0]], [1.0], [8], 784 / 1264 + 1e-9) == 0.0


def test_recall_agrees_with_anchors_that_are_laid_out() -> None:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    low = generator.uniform(20, 150, (200, 2))
    boxes = np.concatenate([low, low + generator.uniform(10, 90, (200, 2))], axis=1)
    sizes, ratios, strides = [[14.0, 20.0], [40.0], [80.0]], [0.5, 1.0, 2.0], [8, 16, 32]
    images = ImageList(torch.zeros(1, 1, 256, 256), [(256, 256)])
    maps = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in strides]
    anchors = AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * 3)(images, maps)[0]
    best = box_iou(torch.from_numpy(boxes), anchors.double()).amax(dim=1).numpy()
    for threshold in (0.3, 0.5, 0.7):
        expected = float((best >= threshold).mean())
        assert anchor_recall(boxes, sizes, ratios, strides, threshold) == pytest.approx(expected)


def test_description_names_levels_and_recall() -> None:
    text = describe_anchors(squares(32.0, 32.0), [[32.0], []], [1.0], [8, 16])
    assert text == (
        "anchors at stride 8: 32 px\n"
        "  training boxes met by an anchor: all 100% at IoU 0.5, 100% at 0.7; "
        "the largest quarter 100% at IoU 0.5, 100% at 0.7"
    )


def test_training_boxes_are_in_the_networks_pixels(phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "train.json")
    image = load_config(None, ["data.image.max_size=96"]).data.image
    small = training_boxes(dataset, phantom_root, image)
    large = training_boxes(dataset, phantom_root, image.model_copy(update={"max_size": 960}))
    assert large == pytest.approx(10 * small, rel=0.05)


def test_training_set_without_boxes_is_refused(phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "train.json")
    empty = type(dataset)(dataset.categories, tuple(item for item in dataset.images if not item.lesions))
    with pytest.raises(InputError, match="no boxes to fit"):
        training_boxes(empty, phantom_root, load_config(None).data.image)
