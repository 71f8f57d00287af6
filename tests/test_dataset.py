"""Samples, their targets after crop and resize, the order they are drawn in, and their augmentation."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from mammodet.audit.facts import _patch_of
from mammodet.config import AugmentConfig, ImageConfig
from mammodet.data.augment import MIN_VISIBLE, augment, build_augment
from mammodet.data.dataset import LesionDataset, collate, make_loader
from mammodet.data.images import write_png
from mammodet.data.mix import tight_boxes
from mammodet.data.prepared import MemoryCache
from mammodet.data.sampling import EpochSampler, SampleKey, is_negative, stable_seed, usable_indices
from mammodet.data.transforms import SteppedRotation
from mammodet.errors import InputError
from mammodet.evaluation.flat import flat_lesions, lesion_rles
from mammodet.geometry import box_rle, mask_to_rle, rle_to_mask
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.targets import Target

TARGETS = (Target("tumor"), Target("malignant"))
OFF = {
    "horizontal_flip": 0, "vertical_flip": 0, "rotate_degrees": 0, "translate": 0, "zoom": 0,
    "brightness": 0, "contrast": 0, "noise": 0,
}  # fmt: skip


def rectangle_rle(x1: int, y1: int, x2: int, y2: int, size_hw: tuple[int, int] = (80, 60)):
    mask = np.zeros(size_hw, bool)
    mask[y1:y2, x1:x2] = True
    return mask_to_rle(mask)


def lesion(x1: int, y1: int, x2: int, y2: int, category: str = "mass", **options) -> Lesion:
    return Lesion(category, (x1, y1, x2, y2), rectangle_rle(x1, y1, x2, y2), "contour", **options)


def record(number: int = 1, **options) -> ImageRecord:
    return ImageRecord(number, f"images/{number}.png", (80, 60), **options)


def lesion_dataset(
    folder: Path, *records: ImageRecord, with_masks: bool = True, augment=None, **image
) -> LesionDataset:
    for item in records:
        pixels = np.random.default_rng(item.image_id).integers(0, 256, item.size_hw, dtype=np.uint8)
        write_png(folder / item.file_name, pixels)
    options = {"max_size": 40, "crop": "breast", "channels": ["full"]} | image
    dataset = Dataset(("mass", "calcification"), records)
    return LesionDataset(dataset, folder, ImageConfig(**options), TARGETS, with_masks=with_masks, augment=augment)


# LesionDataset


@pytest.mark.parametrize("with_masks", [True, False])
def test_targets_after_crop_and_resize_by_hand(tmp_path, with_masks):
    # Crop to x 20..60, y 0..80, then halved: (x - 20) / 2, y / 2.
    item = record(
        breast_box_xyxy=(20, 0, 60, 80),
        lesions=(lesion(0, 0, 15, 15), lesion(30, 10, 40, 30, "calcification"), lesion(10, 40, 30, 60)),
    )
    sample = lesion_dataset(tmp_path, item, with_masks=with_masks)[0]
    assert sample.image.shape == (1, 40, 20)
    # The crop takes all of the first, and the left half of the third.
    assert sample.target["boxes"].tolist() == [[5, 5, 10, 15], [0, 20, 5, 30]]
    assert sample.target["boxes"].dtype == torch.float32
    assert sample.target["labels"].tolist() == [2, 1]
    assert sample.target["labels"].dtype == torch.int64
    assert sample.use_boxes
    assert ("masks" in sample.target) == with_masks
    if with_masks:
        masks = sample.target["masks"]
        assert (masks.shape, masks.dtype) == ((2, 40, 20), torch.uint8)
        assert masks.sum(dim=(1, 2)).tolist() == [5 * 10, 5 * 10]
        assert masks[0, 5:15, 5:10].all()


@pytest.mark.parametrize("with_masks", [True, False])
def test_image_without_lesions_has_empty_targets(tmp_path, with_masks):
    target = lesion_dataset(tmp_path, record(), with_masks=with_masks, crop="none")[0].target
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    if with_masks:
        assert target["masks"].shape == (0, 40, 30)


@pytest.mark.parametrize("with_rectangle", [False, True])
@pytest.mark.parametrize(("box_masks", "pixels"), [("box", 10 * 10), ("ellipse", 80)])
def test_lesion_with_a_box_only_teaches_its_shape(tmp_path, box_masks, pixels, with_rectangle):
    rle = rectangle_rle(10, 20, 30, 40) if with_rectangle else None
    item = record(lesions=(lesion(40, 60, 50, 70), Lesion("mass", (10, 20, 30, 40), rle, "box")))
    dataset = lesion_dataset(tmp_path, item, crop="none")
    dataset.box_masks = box_masks
    target = dataset[0].target
    assert target["boxes"].tolist() == [[20, 30, 25, 35], [5, 10, 15, 20]]
    assert target["masks"].sum(dim=(1, 2)).tolist() == [25, pixels]
    assert target["masks"][1, 10, 5] == (box_masks == "box")  # its corner


@pytest.mark.parametrize("with_rectangle", [False, True])
def test_lesion_with_a_box_only_has_one_mask_in_training_scoring_and_audit(tmp_path, with_rectangle):
    # The centres of pixels 5 to 8 lie inside: 4 x 4, not the 6 x 6 that the box touches.
    rle = rectangle_rle(4, 4, 10, 10) if with_rectangle else None
    boxed = Lesion("mass", (4.6, 4.6, 9.4, 9.4), rle, "box")
    dataset = lesion_dataset(tmp_path, record(lesions=(boxed,)), crop="none", max_size=80)
    dataset.box_masks = "box"
    taught = dataset[0].target["masks"][0].numpy().astype(bool)
    assert np.array_equal(taught, rle_to_mask(rectangle_rle(5, 5, 9, 9)))
    (scored,) = lesion_rles(dataset.dataset, flat_lesions(dataset.dataset))
    assert np.array_equal(rle_to_mask(scored), taught)
    bounds, patch = _patch_of(boxed, (80, 60))
    assert (bounds, patch.sum()) == ((5, 5, 9, 9), 16)


def test_lesion_with_a_box_only_has_no_mask_unless_asked_for(tmp_path):
    dataset = lesion_dataset(tmp_path, record(lesions=(Lesion("mass", (10, 20, 30, 40), None, "box"),)))
    with pytest.raises(InputError, match=r"images/1.png.*\(10, 20, 30, 40\).*data.box_masks=ellipse"):
        dataset[0]


@pytest.mark.parametrize("with_masks", [True, False])
def test_unlocalized_lesions_teach_no_boxes_and_regions_to_ignore_are_named(tmp_path, with_masks):
    items = (
        record(1, unlocalized=True, lesions=(lesion(10, 10, 30, 30),)),
        record(2, lesions=(lesion(30, 30, 50, 50, ignore=True), lesion(10, 10, 30, 30, "calcification"))),
        record(3, lesions=(lesion(10, 10, 30, 30), Lesion("mass", (0, 0, 60, 20), None, "box", ignore=True))),
    )
    dataset = lesion_dataset(tmp_path, *items, crop="none", with_masks=with_masks)
    assert [dataset[index].use_boxes for index in range(3)] == [False, True, True]
    target = dataset[1].target
    assert {name: target[name].tolist() for name in ("boxes", "labels", "ignored")} == {
        "boxes": [[5, 5, 15, 15]], "labels": [2], "ignored": [[15, 15, 25, 25]]
    }  # fmt: skip
    assert dataset[2].target["ignored"].tolist() == [[0, 0, 30, 10]]
    if with_masks:
        assert target["masks"].shape == (1, 40, 30)
        assert target["masks"][0, 5:15, 5:15].all()
    # They move with the image.
    dataset.chain = chain(horizontal_flip=1)
    assert dataset[1].target["ignored"].tolist() == [[5, 15, 15, 25]]


def test_unknown_labels_are_nan(tmp_path):
    items = (record(1, labels={"tumor": 1, "malignant": None}), record(2, labels={"malignant": 0}), record(3))
    dataset = lesion_dataset(tmp_path, *items, crop="none")
    found = torch.stack([dataset[index].labels for index in range(3)])
    assert found[0, 0] == 1
    assert found[1, 1] == 0
    assert found.isnan().tolist() == [[False, True], [True, False], [True, True]]


def test_file_of_another_size_than_its_record_is_refused(tmp_path):
    dataset = lesion_dataset(tmp_path, record())
    write_png(tmp_path / "images/1.png", np.zeros((60, 80), np.uint8))
    with pytest.raises(InputError, match=r"1\.png: the file is 60x80, its record says 80x60 \(height x width\)"):
        dataset[0]


def test_missing_file_is_named(tmp_path):
    dataset = lesion_dataset(tmp_path, record())
    (tmp_path / "images/1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: no such image"):
        dataset[0]


def test_batch_keeps_sizes_apart_and_stacks_labels(tmp_path):
    second = ImageRecord(2, "images/2.png", (40, 60), labels={"tumor": 0, "malignant": 0})
    dataset = lesion_dataset(tmp_path, record(1, lesions=(lesion(10, 10, 30, 30),)), second, crop="none")
    (batch,) = make_loader(dataset, batch_size=2, num_workers=0)
    assert [tuple(image.shape) for image in batch.images] == [(1, 40, 30), (1, 27, 40)]
    assert batch.labels.shape == (2, 2)
    assert len(batch) == 2
    assert [item.image_id for item in batch.records] == [1, 2]
    assert batch.to(torch.float64).images[0].dtype == torch.float64


def test_loader_without_a_sampler_ends_with_a_small_batch(tmp_path):
    dataset = lesion_dataset(tmp_path, record(1), record(2), record(3))
    ids = [[item.image_id for item in batch.records] for batch in make_loader(dataset, batch_size=2, num_workers=0)]
    assert ids == [[1, 2], [3]]


def test_usable_images_have_boxes_or_a_label():
    items = (
        record(1, lesions=(lesion(1, 1, 5, 5),)),
        record(2, unlocalized=True),
        record(3, unlocalized=True, labels={"tumor": 1}),
        record(4, unlocalized=True, labels={"tumor": None}),
    )
    assert usable_indices(Dataset(("mass",), items), TARGETS) == [0, 2]


def test_negative_is_only_what_is_known_to_be():
    assert is_negative(record(labels={"tumor": 0}))
    assert is_negative(record())
    assert not is_negative(record(labels={"tumor": 1}))
    assert not is_negative(record(unlocalized=True))
    assert not is_negative(record(lesions=(lesion(1, 1, 5, 5),)))


# EpochSampler


def pool(negatives: int, positives: int) -> Dataset:
    items = [record(number, labels={"tumor": 0}) for number in range(negatives)]
    items += [record(100 + number, labels={"tumor": 1}) for number in range(positives)]
    return Dataset(("mass",), tuple(items))


def sampler(dataset: Dataset, **options) -> EpochSampler:
    return EpochSampler(dataset, range(len(dataset.images)), **{"batch_size": 4, "seed": 0} | options)


def batches(keys: EpochSampler) -> list[list[SampleKey]]:
    drawn = list(keys)
    return [drawn[start : start + keys.batch_size] for start in range(0, len(drawn), keys.batch_size)]


def test_epoch_holds_every_image_once_and_fills_the_last_batch():
    keys = sampler(pool(5, 5))
    drawn = [key.position for key in keys]
    assert len(drawn) == len(keys) == 12
    assert sorted(drawn[:10]) == list(range(10))


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_every_batch_has_its_share_of_negatives(fraction, expected):
    dataset = pool(30, 3)
    for batch in batches(sampler(dataset, negative_fraction=fraction)):
        assert sum(key.position < 30 for key in batch) == expected


def test_odd_shares_are_met_over_the_epoch():
    drawn = [key.position for key in sampler(pool(30, 30), negative_fraction=0.3, epoch_size=100, batch_size=5)]
    assert sum(position < 30 for position in drawn) == 30


def test_small_pool_starts_anew_before_any_image_comes_a_third_time():
    keys = sampler(pool(20, 3), negative_fraction=0.5, epoch_size=12)
    positives = Counter(key.position for key in keys if key.position >= 20)
    assert sorted(positives.values()) == [2, 2, 2]


def test_order_is_a_function_of_seed_and_epoch():
    def drawn(seed: int, epoch: int) -> list[SampleKey]:
        keys = sampler(pool(20, 20), seed=seed, negative_fraction=0.5)
        keys.set_epoch(epoch)
        return list(keys)

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4)
    assert drawn(0, 3) != drawn(1, 3)
    again = sampler(pool(20, 20), negative_fraction=0.5)
    again.set_epoch(3)
    assert list(again) == list(again) == drawn(0, 3)


def test_augmentation_seeds_differ_between_positions_and_epochs():
    keys = sampler(pool(2, 2), epoch_size=40)
    first = [key.seed for key in keys]
    keys.set_epoch(1)
    assert len({*first, *(key.seed for key in keys)}) == 80


@pytest.mark.parametrize("fraction", [None, 0.5])
def test_two_ranks_together_draw_what_one_process_draws(fraction):
    options = {"negative_fraction": fraction, "epoch_size": 24}
    ranks = [batches(sampler(pool(9, 9), rank=rank, world_size=2, batch_size=2, **options)) for rank in range(2)]
    one = batches(sampler(pool(9, 9), batch_size=4, **options))
    assert [first + second for first, second in zip(*ranks, strict=True)] == one


def test_ranks_have_equally_many_batches():
    lengths = {len(list(sampler(pool(4, 3), rank=rank, world_size=3, batch_size=2))) for rank in range(3)}
    assert lengths == {4}


@pytest.mark.parametrize(("epoch_size", "count"), [(None, 12), (1, 4), (4, 4), (5, 8), (100, 100)])
def test_epoch_size_is_rounded_up_to_whole_batches(epoch_size, count):
    keys = sampler(pool(5, 5), epoch_size=epoch_size)
    assert len(keys) == len(list(keys)) == count


def test_sampler_draws_only_the_given_images():
    keys = EpochSampler(pool(5, 5), [1, 7], batch_size=2, seed=0, epoch_size=20)
    assert {key.position for key in keys} == {1, 7}


@pytest.mark.parametrize(
    ("counts", "fraction", "message"),
    [
        ((0, 0), None, "no image with a known label or complete boxes"),
        ((0, 3), 0.5, "negative_fraction=0.5: the training set has no image without lesions"),
        ((3, 0), 0.5, "negative_fraction=0.5: the training set has no image with lesions"),
        ((3, 0), 0.0, "no image with lesions"),
    ],
)
def test_impossible_compositions_are_refused(counts, fraction, message):
    with pytest.raises(InputError, match=message):
        sampler(pool(*counts), negative_fraction=fraction)


def test_stable_seed_is_pinned():
    # sha256("0/1/all")[:8] >> 1
    assert stable_seed(0, 1, "all") == 5971118839141522649
    assert stable_seed(0, 1) != stable_seed(1, 0)


# Augmentation


def image_with_box() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.linspace(0, 1, 40 * 30).reshape(1, 40, 30)
    masks = torch.zeros((1, 40, 30), dtype=torch.uint8)
    masks[0, 10:20, 5:9] = 1
    return image, torch.tensor([[5.0, 10.0, 9.0, 20.0]]), masks


def chain(**options):
    return build_augment(AugmentConfig(**OFF | options))


def test_nothing_to_change_is_no_chain():
    assert chain() is None
    assert build_augment(AugmentConfig(enabled=False)) is None


@pytest.mark.parametrize(
    ("option", "box", "dim"), [("horizontal_flip", [21, 10, 25, 20], -1), ("vertical_flip", [5, 20, 9, 30], -2)]
)
def test_flip_moves_image_box_and_mask_alike(option, box, dim):
    image, boxes, masks = image_with_box()
    new_image, new_boxes, new_masks, keep = augment(chain(**{option: 1.0}), image, boxes, masks, seed=0)
    assert torch.equal(new_image, image.flip(dim))
    assert torch.equal(new_masks, masks.flip(dim))
    assert new_boxes.tolist() == [box]
    assert keep.tolist() == [0]
    _, new_boxes, no_masks, _ = augment(chain(**{option: 1.0}), image, boxes, None, seed=0)
    assert new_boxes.tolist() == [box]
    assert no_masks is None


def test_augmentation_is_a_function_of_the_seed():
    image, boxes, masks = image_with_box()
    everything = build_augment(AugmentConfig())
    state = torch.get_rng_state()
    first, again, other = (augment(everything, image, boxes, masks, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's draws are not touched
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_boxes_are_tight_around_turned_masks():
    image, boxes, masks = image_with_box()
    for seed in range(20):
        _, new_boxes, new_masks, _ = augment(chain(rotate_degrees=30, zoom=0.2), image, boxes, masks, seed)
        rows, columns = torch.nonzero(new_masks[0], as_tuple=True)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert new_boxes[0].tolist() == [float(value) for value in expected]


@pytest.mark.parametrize("with_masks", [True, False])
def test_lesion_that_is_moved_out_is_dropped(with_masks):
    image, _, _ = image_with_box()
    masks = torch.zeros((2, 40, 30), dtype=torch.uint8)
    masks[0, :10, :6] = 1  # in the corner
    masks[1, 18:22, 13:17] = 1  # in the middle: a shift of at most 0.3 never loses it
    boxes = tight_boxes(masks)
    kept = Counter()
    for seed in range(60):
        found = augment(chain(translate=0.3), image, boxes, masks if with_masks else None, seed)
        _, new_boxes, new_masks, keep = found
        kept.update(keep.tolist())
        assert len(new_boxes) == len(keep)
        assert new_boxes.min() >= 0
        assert new_boxes[:, 2].max() <= 30
        if with_masks:
            visible = new_masks.flatten(1).sum(dim=1) / masks[keep].flatten(1).sum(dim=1)
            assert visible.min() >= MIN_VISIBLE
    assert kept[1] == 60
    assert 20 < kept[0] < 60


@pytest.mark.parametrize("with_masks", [True, False])
def test_image_without_lesions_can_be_augmented(with_masks):
    masks = torch.zeros((0, 40, 30), dtype=torch.uint8) if with_masks else None
    image = torch.rand(3, 40, 30)
    new_image, boxes, new_masks, keep = augment(build_augment(AugmentConfig()), image, torch.zeros((0, 4)), masks, 1)
    assert new_image.shape == (3, 40, 30)
    assert boxes.shape == (0, 4)
    assert keep.shape == (0,)
    assert (new_masks is None) != with_masks


def test_intensity_changes_the_image_only_and_stays_in_range():
    image, boxes, masks = image_with_box()
    for seed in range(10):
        changes = chain(brightness=1.0, contrast=1.0, noise=0.3)
        new_image, new_boxes, new_masks, _ = augment(changes, image, boxes, masks, seed)
        assert not torch.equal(new_image, image)
        assert new_image.min() >= 0
        assert new_image.max() <= 1
        assert torch.equal(new_boxes, boxes)
        assert torch.equal(new_masks, masks)
        assert type(new_image) is torch.Tensor


def test_tight_boxes_reach_the_far_edge_of_the_last_pixel():
    masks = torch.zeros((2, 8, 9), dtype=torch.uint8)
    masks[0, 2, 3] = 1
    masks[1] = 1
    assert tight_boxes(masks).tolist() == [[3, 2, 4, 3], [0, 0, 9, 8]]
    assert tight_boxes(masks[:0]).shape == (0, 4)


def test_sample_is_a_function_of_its_key(tmp_path):
    item = record(lesions=(lesion(20, 20, 40, 50),), labels={"tumor": 1, "malignant": 0})
    dataset = lesion_dataset(tmp_path, item, augment=AugmentConfig(), crop="none")
    first, again, other = (dataset[SampleKey(0, seed)] for seed in (5, 5, 6))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.target["masks"], again.target["masks"])
    assert not torch.equal(first.image, other.image)


def test_workers_draw_what_one_process_draws(tmp_path):
    items = [record(number, lesions=(lesion(20, 20, 40, 50),), labels={"tumor": 1}) for number in range(6)]
    dataset = lesion_dataset(tmp_path, *items, augment=AugmentConfig(), crop="none")
    found = []
    for workers in (0, 2):
        keys = EpochSampler(dataset.dataset, range(6), batch_size=3, seed=0)
        found.append(list(make_loader(dataset, batch_size=3, num_workers=workers, sampler=keys)))
    assert len(found[0]) == 2
    for one, two in zip(*found, strict=True):
        assert one.records == two.records
        assert all(torch.equal(a, b) for a, b in zip(one.images, two.images, strict=True))


def test_workers_start_after_threads_of_opencv_have_ended(tmp_path):
    """A forked worker that ends them waits for ever: they run in its parent alone."""
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)
    loader = make_loader(lesion_dataset(tmp_path, record(1), record(2)), batch_size=1, num_workers=1)
    assert cv2.getNumThreads() == 1
    assert len(list(loader)) == 2


def test_collate_keeps_nan_labels(tmp_path):
    dataset = lesion_dataset(tmp_path, record(1, labels={"tumor": 1}), record(2))
    labels = collate([dataset[0], dataset[1]]).labels
    assert labels[0, 0] == 1
    assert math.isnan(labels[1, 0])


def test_stepped_turns_are_multiples_of_the_step():
    drawn = SteppedRotation(10, 2)
    assert drawn.angles == [-10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10]
    assert SteppedRotation(180, 90).angles == [-90, 0, 90, 180]
    torch.manual_seed(0)
    assert {drawn.make_params([])["angle"] for _ in range(300)} == set(drawn.angles)


def test_stepped_turn_by_a_right_angle_moves_image_box_and_mask_alike():
    image, boxes, masks = torch.zeros((1, 40, 40)), torch.tensor([[5.0, 10.0, 9.0, 20.0]]), torch.zeros((1, 40, 40))
    image[0, 10:20, 5:9] = masks[0, 10:20, 5:9] = 1
    turns = chain(rotate_degrees=90, rotate_step=90)
    found = set()
    for seed in range(12):
        new_image, new_boxes, new_masks, _ = augment(turns, image, boxes, masks.to(torch.uint8), seed)
        found.add(tuple(new_boxes[0].tolist()))
        assert torch.equal(new_image[0] > 0.5, new_masks[0].bool())
        _, alone, _, _ = augment(turns, image, boxes, None, seed)
        assert torch.allclose(alone, new_boxes, atol=1e-3)
    assert found == {(5, 10, 9, 20), (10, 31, 20, 35), (20, 5, 30, 9)}


def test_turned_box_is_that_around_the_turned_ellipse():
    box = (100.0, 60.0, 200.0, 120.0)
    masks = torch.from_numpy(rle_to_mask(box_rle(box, (400, 500), "ellipse")))[None].to(torch.uint8)
    image, boxes = torch.zeros((1, 400, 500)), torch.tensor([box])
    grown = []
    for options in ({"rotate_degrees": 40, "translate": 0.1, "zoom": 0.2}, {"rotate_degrees": 30, "rotate_step": 7}):
        for seed in range(8):
            _, tight, _, _ = augment(chain(**options), image, boxes, masks, seed)
            _, alone, _, _ = augment(chain(**options), image, boxes, None, seed)
            assert torch.allclose(alone, tight, atol=1.6)
            grown.append(float((alone[0, 2:] - alone[0, :2]).prod()) / 6000)
    assert min(grown) < 0.8
    assert max(grown) > 1.2


def test_stretch_shrinks_one_side_within_its_ends():
    image, boxes, masks = torch.zeros((1, 80, 60)), torch.tensor([[10.0, 20.0, 40.0, 60.0]]), torch.zeros((1, 80, 60))
    masks[0, 20:60, 10:40] = 1
    aspects = []
    for seed in range(40):
        changed = augment(chain(stretch=[0.5, 1.25]), image, boxes, masks.to(torch.uint8), seed)
        height, width = changed[0].shape[-2:]
        assert (height == 80) != (width == 60) or (height, width) == (80, 60)
        expected = boxes * torch.tensor([width / 60, height / 80]).repeat(2)
        assert torch.allclose(changed[1], expected, atol=1.0)
        assert len(changed[3]) == 1  # smaller, not cut away
        aspects.append(width / height / 0.75)
    assert 0.49 < min(aspects) < 0.6
    assert 1.1 < max(aspects) < 1.27


def test_random_crop_keeps_the_size_and_moves_boxes_with_the_image():
    image, boxes, masks = torch.zeros((1, 60, 50)), torch.tensor([[20.0, 20.0, 30.0, 40.0]]), torch.zeros((1, 60, 50))
    image[0, 20:40, 20:30] = masks[0, 20:40, 20:30] = 1
    sizes = set()
    for seed in range(20):
        new_image, new_boxes, new_masks, _ = augment(chain(random_crop=0.3), image, boxes, masks.to(torch.uint8), seed)
        assert new_image.shape == (1, 60, 50)
        _, alone, _, _ = augment(chain(random_crop=0.3), image, boxes, None, seed)
        assert torch.allclose(alone, new_boxes, atol=1.01)
        width, height = (new_boxes[0, 2:] - new_boxes[0, :2]).tolist()
        assert 10 <= width <= 10 / 0.7 + 1.5
        assert 20 <= height <= 20 / 0.7 + 1.5
        sizes.add(width)
        assert float(new_image[0][new_masks[0].bool()].min()) >= 0.0
    assert len(sizes) > 2


def test_cache_gives_the_same_samples_and_reads_each_file_once(tmp_path, monkeypatch):
    item = record(1, lesions=(lesion(20, 20, 40, 50),), labels={"tumor": 1})
    plain = lesion_dataset(tmp_path, item, augment=AugmentConfig(), crop="none")
    cache = MemoryCache(tmp_path, plain.image)
    kept = LesionDataset(
        plain.dataset, tmp_path, plain.image, TARGETS, with_masks=True, augment=AugmentConfig(), prepared=cache
    )
    keys = [SampleKey(0, seed) for seed in (3, 4, 3)]
    expected = [plain[key].image for key in keys]
    found = [kept[keys[0]].image]
    monkeypatch.setattr("mammodet.data.prepared.read_image", None)
    found += [kept[key].image for key in keys[1:]]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_labels_hold_the_position_of_the_class(tmp_path):
    item = record(1, labels={"tumor": 1}, density="C")
    dataset = lesion_dataset(tmp_path, item)
    targets = (Target("tumor"), Target("density", ("A", "C")), Target("density", ("A", "B")))
    asked = LesionDataset(dataset.dataset, tmp_path, dataset.image, targets, with_masks=False)
    labels = asked[0].labels
    assert labels[:2].tolist() == [1, 1]
    assert math.isnan(labels[2])


def test_breasts_of_a_batch_are_numbered_as_they_come(tmp_path):
    items = [
        record(1, patient_id="p", laterality="L"),
        record(2, patient_id="p", laterality="R"),
        record(3, patient_id="p", laterality="L"),
        record(4),
    ]
    dataset = lesion_dataset(tmp_path, *items)
    assert collate([dataset[place] for place in range(4)]).breasts == [0, 1, 0, 2]


def test_worker_without_room_in_shared_memory_says_so(monkeypatch):
    import mammodet.data.dataset as module

    def full(_tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    tensor = torch.zeros(4)
    module.in_shared_memory([tensor])
    assert not tensor.is_shared()  # outside of a worker nothing is moved
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    module.in_shared_memory([tensor])
    assert tensor.is_shared()
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(InputError, match=r"what 2 workers read ahead(?s:.*)--shm-size=8g(?s:.*)data.num_workers=0"):
        module.in_shared_memory([tensor])
