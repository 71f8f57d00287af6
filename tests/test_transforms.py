"""The transforms that torchvision lacks: what each does to a small image, its boxes and its masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision import tv_tensors

from mammodet.config import AugmentConfig, load_config
from mammodet.data import transforms
from mammodet.data.augment import augment, build_augment
from mammodet.data.transforms import Blur, Cutout, Elastic, Tone
from mammodet.errors import InputError

OFF = {
    "horizontal_flip": 0, "vertical_flip": 0, "rotate_degrees": 0, "translate": 0, "zoom": 0,
    "brightness": 0, "contrast": 0, "noise": 0,
}  # fmt: skip
EVERYTHING = {
    "scale": [0.7, 1.4], "sizes": [48, 96], "elastic": 0.03, "window": 0.1, "tone_curve": 0.5, "gamma": 0.5,
    "blur": 1.0, "cutout": 3, "random_crop": 0.1,
}  # fmt: skip


def chain(**options):
    return build_augment(AugmentConfig(**OFF | options))


def ellipse(channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image of 80 x 60 px that shows a bright ellipse, its box, and its mask."""
    rows, columns = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    mask = ((columns - 30) / 12) ** 2 + ((rows - 44) / 8) ** 2 <= 1
    image = 0.2 + 0.6 * mask.float().expand(channels, 80, 60)
    return image, torch.tensor([[18.0, 36.0, 42.0, 52.0]]), mask[None].to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("with_masks", [True, False])
def test_everything_at_once_is_a_function_of_the_seed_and_stays_in_range(channels, with_masks):
    image, boxes, masks = ellipse(channels)
    before = image.clone()
    everything = build_augment(AugmentConfig(**EVERYTHING))
    state = torch.get_rng_state()
    seen = set()
    for seed in range(6):
        first, again = (augment(everything, image, boxes, masks if with_masks else None, seed) for _ in range(2))
        assert all(one is two is None or torch.equal(one, two) for one, two in zip(first, again, strict=True))
        new_image, new_boxes, new_masks, keep = first
        assert (new_image.shape[0], new_image.dtype, type(new_image)) == (channels, torch.float32, torch.Tensor)
        assert 0 <= new_image.min() <= new_image.max() <= 1
        assert max(new_image.shape[1:]) in (48, 96)
        assert len(new_boxes) == len(keep)
        assert new_masks is None or new_masks.shape == (len(keep), *new_image.shape[1:])
        seen.add(float(new_image.sum()))
    assert len(seen) == 6
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, []),
        ({"scale": [0.7, 1.4]}, ["Scale"]),
        ({"elastic": 0.03}, ["Elastic"]),
        ({"sizes": [48]}, ["RandomSize"]),
        ({"blur": 1.0}, ["Blur"]),
        ({"window": 0.1}, ["Tone"]),
        ({"tone_curve": 0.5}, ["Tone"]),
        ({"gamma": 0.5}, ["Tone"]),
        ({"cutout": 1}, ["Cutout"]),
    ],
)
def test_nothing_is_added_to_what_was_drawn_before_unless_asked_for(options, steps):
    # Steps draw from one stream, one after the other: with the same steps, the same seeds draw the same images.
    names = [type(step).__name__ for step in build_augment(AugmentConfig(**options)).transforms]
    assert [name for name in names if name not in steps] == ["RandomHorizontalFlip", "Affine", "Intensity"]
    assert [name for name in names if name in steps] == steps


# scale, sizes


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_is_about_the_middle_and_keeps_small_lesions(factor, with_masks):
    # A square of 8 px whose corner is the image's middle: it grows or shrinks away from there.
    image, masks = torch.zeros((1, 80, 60)), torch.zeros((1, 80, 60), dtype=torch.uint8)
    image[0, 40:48, 30:38] = masks[0, 40:48, 30:38] = 1
    boxes = torch.tensor([[30.0, 40.0, 38.0, 48.0]])
    found = augment(chain(scale=[factor, factor]), image, boxes, masks if with_masks else None, 0)
    new_image, new_boxes, new_masks, keep = found
    assert new_image.shape == (1, 80, 60)
    assert keep.tolist() == [0]  # a quarter of its area is all of it, not a part that stayed visible
    assert new_boxes.tolist() == [[30, 40, 30 + 8 * factor, 40 + 8 * factor]]
    assert new_image.sum() == pytest.approx(64 * factor**2, rel=0.15)
    if with_masks:
        assert int(new_masks.sum()) == 64 * factor**2


@pytest.mark.parametrize("with_masks", [True, False])
def test_lesion_that_scale_moves_out_is_dropped(with_masks):
    image, masks = torch.zeros((1, 80, 60)), torch.zeros((1, 80, 60), dtype=torch.uint8)
    masks[0, :16, :16] = 1
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    # Twice as large, its corner lies 40 px above and 30 px left of the image's: nothing of 32 x 32 px stays but 2 px.
    found = augment(chain(scale=[2.0, 2.0]), image, boxes, masks if with_masks else None, 0)
    assert found[3].tolist() == []


@pytest.mark.parametrize("with_masks", [True, False])
def test_sizes_change_the_longer_side_with_boxes_and_masks(with_masks):
    image, boxes, masks = ellipse()
    sizes = set()
    for seed in range(20):
        found = augment(chain(sizes=[40, 80, 160]), image, boxes, masks if with_masks else None, seed)
        new_image, new_boxes, new_masks, keep = found
        factor = new_image.shape[1] / 80
        assert new_image.shape[1:] == (80 * factor, 60 * factor)
        assert keep.tolist() == [0]
        assert torch.allclose(new_boxes, boxes * factor, atol=1.01)
        if with_masks:
            assert int(new_masks.sum()) == pytest.approx(int(masks.sum()) * factor**2, rel=0.05)
        sizes.add(new_image.shape[1])
    assert sizes == {40, 80, 160}


# elastic


def test_elastic_moves_image_mask_and_box_alike():
    image, boxes, masks = ellipse()
    moved = 0.0
    for seed in range(15):
        new_image, tight, new_masks, _ = augment(chain(elastic=0.04), image, boxes, masks, seed)
        inside = new_masks[0].bool()
        assert float(new_image[0][inside].mean()) > 0.75  # 0.8, but for the rim that is interpolated
        assert float(new_image[0][~inside].mean()) < 0.22
        _, alone, _, _ = augment(chain(elastic=0.04), image, boxes, None, seed)
        # The box of a warped box holds the warped ellipse inside it, and is little larger.
        assert bool((alone[0, :2] <= tight[0, :2] + 1).all())
        assert bool((alone[0, 2:] >= tight[0, 2:] - 1).all())
        assert float((alone - tight).abs().max()) < 5
        moved = max(moved, float((tight - boxes).abs().max()))
    assert 1 <= moved <= 0.04 * 60 * 1.5 + 1


def test_elastic_follows_a_box_by_hand():
    # Everything moves by 3 px to the right and 2 px up: the new pixel p shows what was at p + (-3, 2).
    shifts = np.full((80, 60, 2), (-3.0, 2.0), dtype=np.float32)
    image, boxes, _ = ellipse()
    warp = Elastic(0.04)
    box = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(80, 60))
    assert warp.transform(box, {"shifts": shifts}).tolist() == [[21, 34, 45, 50]]
    moved = warp.transform(tv_tensors.Image(image), {"shifts": shifts})
    assert torch.equal(moved[0, :78, 3:], image[0, 2:, :57])


def test_elastic_keeps_the_border():
    shifts = Elastic(0.04).make_params([tv_tensors.Image(torch.zeros((1, 80, 60)))])["shifts"]
    assert shifts.shape == (80, 60, 2)
    for border in (shifts[0], shifts[-1], shifts[:, 0], shifts[:, -1]):
        assert np.abs(border).max() < 1e-6
    assert np.abs(shifts).max() > 0.1


# grey values


def tone(grey: list[float], **params) -> list[float]:
    image = tv_tensors.Image(torch.tensor(grey)[None, None])
    given = {"low": 0.0, "high": 1.0, "curve": None, "power": 1.0} | params
    return Tone(0.2, 0.5, 0.5).transform(image, given)[0, 0].tolist()


def test_window_by_hand():
    assert tone([0.0, 0.1, 0.5, 0.9, 1.0], low=0.1, high=0.9) == pytest.approx([0, 0, 0.5, 1, 1])
    assert tone([0.0, 0.5, 1.0], low=-0.25, high=1.0) == pytest.approx([0.2, 0.6, 1.0])


def test_gamma_by_hand():
    assert tone([0.0, 0.25, 1.0], power=0.5) == pytest.approx([0, 0.5, 1])


def test_tone_curve_by_hand():
    found = tone([0.0, 0.25, 0.5, 0.75, 1.0], curve=(4.0, 0.5))
    low, high, quarter = (1 / (1 + math.exp(-4 * value)) for value in (-0.5, 0.5, -0.25))
    part = (quarter - low) / (high - low)
    assert found == pytest.approx([0, part, 0.5, 1 - part, 1], abs=1e-6)
    assert part < 0.25  # steeper in the middle


def test_tone_draws_inside_its_limits():
    torch.manual_seed(0)
    drawn = [Tone(0.1, 0.5, 1.0).make_params([]) for _ in range(400)]
    for name, low, high in (("low", -0.1, 0.1), ("high", 0.9, 1.1), ("power", 0.5, 2.0)):
        values = [params[name] for params in drawn]
        assert low <= min(values) < low + 0.02 * high
        assert high - 0.02 * high < max(values) <= high
    assert 150 < sum(params["curve"] is not None for params in drawn) < 250


def test_blur_spreads_a_point_and_leaves_half_of_the_images_sharp():
    image = torch.zeros((2, 21, 21))
    image[:, 10, 10] = 1
    found = Blur(2.0).transform(tv_tensors.Image(image), {"sigma": 1.0})
    assert torch.allclose(found.sum(dim=(1, 2)), torch.ones(2), atol=1e-4)
    assert float(found[0, 10, 10]) == pytest.approx(1 / (2 * math.pi), rel=0.02)
    assert torch.allclose(found[0], found[1])
    torch.manual_seed(0)
    sigmas = [Blur(2.0).make_params([])["sigma"] for _ in range(400)]
    assert max(sigmas) <= 2
    assert 150 < sum(sigma == 0 for sigma in sigmas) < 250


@pytest.mark.parametrize("option", ["window", "tone_curve", "gamma", "blur", "cutout"])
def test_grey_values_alone_change(option):
    image, boxes, masks = ellipse()
    image = image + 0.1 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    found = [augment(chain(**{option: EVERYTHING[option]}), image, boxes, masks, seed) for seed in range(8)]
    assert any(not torch.equal(one[0], image) for one in found)
    for _, new_boxes, new_masks, _ in found:
        assert torch.equal(new_boxes, boxes)
        assert torch.equal(new_masks, masks)


# cutout


def test_cutout_fills_rectangles_by_hand():
    image = torch.arange(16.0).reshape(1, 4, 4) / 16
    params = {"rectangles": [(slice(0, 2), slice(1, 3))], "fill": 0.0}
    found = Cutout(1, 0.5).transform(tv_tensors.Image(image), params)
    assert found[0, :2, 1:3].tolist() == [[0, 0], [0, 0]]
    assert torch.equal(found[0, 2:], image[0, 2:])
    found = Cutout(1, 0.5).transform(tv_tensors.Image(image), params | {"fill": None})
    assert found[0, :2, 1:3].tolist() == [[7.5 / 16] * 2] * 2


@pytest.mark.parametrize("with_masks", [True, False])
def test_cutout_covers_less_than_half_of_any_lesion(with_masks, monkeypatch):
    masks = torch.zeros((2, 80, 60), dtype=torch.uint8)
    masks[0, 36:52, 18:42] = 1
    masks[1, 4:10, 50:55] = 1
    boxes = torch.tensor([[18.0, 36.0, 42.0, 52.0], [50.0, 4.0, 55.0, 10.0]])
    image = torch.ones((1, 80, 60))
    monkeypatch.setattr(transforms, "FILLS", (0.0,))
    covers, blank = set(), []
    for seed in range(40):
        found = augment(chain(cutout=8, cutout_size=0.5), image, boxes, masks if with_masks else None, seed)
        blank.append(float((found[0] == 0).float().mean()))
        assert found[3].tolist() == [0, 1]
        shares = [float((found[0][0][mask.bool()] == 0).float().mean()) for mask in masks]
        assert max(shares) < 0.5
        covers |= {share > 0 for share in shares}
    assert covers == {True, False}  # lesions are covered in part, too
    assert max(blank) > 0.4


# config


@pytest.mark.parametrize(
    "options",
    [
        {"scale": [1.4, 0.7]}, {"scale": [0.0, 1.0]}, {"scale": [1.0]}, {"sizes": [16]}, {"elastic": 0.1},
        {"window": 0.5}, {"cutout_size": 0}, {"mixup": 1.5},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        AugmentConfig(**options)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.augment.sizes=[32, 96]"], r"sizes=\[32, 96\].*max_size=64; leave larger sizes out"),
        (["data.augment.copy_paste=0.5", "model.classifier.views=mean"], "copy_paste and mixup change single images"),
        (["data.augment.mixup=0.5", "model.classifier.views=mean"], "views=mean answers for whole breasts"),
    ],
)
def test_settings_that_do_not_suit_a_classifier_are_refused(overrides, message):
    common = ["model.kind=classifier", "data.image.max_size=64"]
    with pytest.raises(InputError, match=message):
        load_config(None, [*common, *overrides])
    load_config(None, [*common, *overrides, "data.augment.enabled=false"])
