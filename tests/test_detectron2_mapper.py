"""Mammograms for detectron2's loaders: values of 16 bit, boxes and masks under its augmentations, resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_detectron2 import lesion, small_dataset, write_small
from small_dicom import image as dicom_image
from small_dicom import save as save_dicom

from mammodet.config import ImageConfig
from mammodet.data.detectron2_catalog import dataset_dicts
from mammodet.data.images import read_image, write_png
from mammodet.data.preprocess import prepare_image
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord

pytestmark = pytest.mark.detectron2
FULL = ImageConfig(channels=["full"])


@pytest.fixture(scope="module")
def mapper_of():
    """Makes a mapper of explicit arguments, by default one that changes nothing."""
    require_detectron2()
    from mammodet.data.detectron2_mapper import MammogramMapper

    def make(is_train=True, augmentations=(), **more):
        return MammogramMapper(is_train, augmentations=augmentations, **{"image": FULL, **more})

    return make


@pytest.fixture
def transforms():
    from detectron2.data import transforms

    return transforms


def one_image(folder, pixels, *lesions, name="x.png", **more):
    """The dict of one image with these pixels."""
    if name.endswith(".png"):
        write_png(folder / name, pixels)
    record = ImageRecord(1, name, pixels.shape, lesions=lesions, **more)
    return dataset_dicts(Dataset(("mass", "calcification"), (record,)), folder)[0]


def boxes_of(sample):
    return sample["instances"].gt_boxes.tensor.tolist()


def masks_of(sample):
    return sample["instances"].gt_masks.tensor.int().tolist()


def test_sixteen_bit_values_keep_their_levels(tmp_path, mapper_of):
    from detectron2.data import detection_utils

    # 0, 1, ... 1999 of 65535, in 8 bit all of them 0 to 7.
    ramp = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    found = mapper_of()(one_image(tmp_path, ramp))["image"]
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (3, 40, 50))
    assert len(found[0].unique()) == 2000
    assert found[0, 39, 49] == pytest.approx(1999 * 255 / 65535, abs=1e-5)
    theirs = detection_utils.read_image(str(tmp_path / "x.png"), "BGR")
    assert len(np.unique(theirs)) == 256
    assert (theirs.reshape(2000, 3)[255:] == 255).all()  # a white area


def test_values_of_both_depths_lie_on_one_scale(tmp_path, mapper_of):
    eight = mapper_of()(one_image(tmp_path, np.array([[0, 51, 255]] * 2, np.uint8)))["image"]
    deep = mapper_of()(one_image(tmp_path, np.array([[0, 13107, 65535]] * 2, np.uint16)))["image"]
    for found in (eight, deep):
        assert found.shape == (3, 2, 3)
        assert torch.allclose(found, torch.tensor([0.0, 51, 255]).expand(3, 2, 3))


def test_windows_are_those_of_our_own_preparation_of_the_whole_file(tmp_path, mapper_of):
    pixels = np.random.default_rng(0).integers(100, 9000, (60, 80)).astype(np.uint16)
    item = one_image(tmp_path, pixels)
    names = ["tissue", "clahe", "laplacian"]
    found = mapper_of(image=ImageConfig(channels=names))(item)["image"]
    config = ImageConfig(channels=names, crop="none", max_size=80)
    # a filter's last digits depend on where OpenCV finds the pixels in memory
    np.testing.assert_allclose(found.numpy(), prepare_image(pixels, config)[0] * np.float32(255), rtol=1e-4)
    plain = mapper_of(image=None)(item)["image"]
    assert all(torch.equal(plain[channel], found[0]) for channel in range(3))  # tissue where nothing is said


def test_channels_are_as_many_as_the_model_wants(tmp_path, mapper_of):
    item = one_image(tmp_path, np.full((6, 8), 51, np.uint8))
    assert mapper_of(num_channels=1)(item)["image"].shape == (1, 6, 8)
    assert mapper_of(num_channels=4)(item)["image"].shape == (4, 6, 8)
    two = ImageConfig(channels=["full", "mean"])
    assert mapper_of(num_channels=2, image=two)(item)["image"].shape == (2, 6, 8)
    with pytest.raises(InputError) as caught:
        mapper_of(num_channels=3, image=two)
    assert str(caught.value) == (
        "image.channels are 2 (full, mean), the model takes 3 (the length of MODEL.PIXEL_MEAN); expected 1 or 3"
    )


def test_dicom_files_are_read(tmp_path, mapper_of):
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
    save_dicom(tmp_path / "x.dcm", dicom_image(pixels, 12, WindowCenter=2048, WindowWidth=4096))
    item = one_image(tmp_path, pixels, name="x.dcm")
    own = read_image(tmp_path / "x.dcm").astype(np.float64)
    assert np.allclose(mapper_of()(item)["image"][1].numpy(), own / 65535 * 255, atol=1e-4)
    assert len(np.unique(own)) > 40


def test_boxes_and_masks_follow_a_resize_and_a_flip(tmp_path, mapper_of, transforms):
    item = dataset_dicts(small_dataset(), tmp_path)[0]
    write_small(tmp_path)
    changed = mapper_of(
        use_instance_mask=True, augmentations=[transforms.Resize((6, 10)), transforms.RandomFlip(prob=1.0)]
    )(item)
    # 12 x 20 px to 6 x 10: the L at x 4 to 8 and y 2 to 6 comes to x 2 to 4 and y 1 to 3, mirrored x 6 to 8.
    assert boxes_of(changed) == [[6, 1, 8, 3], [3, 3, 5, 4]]
    ell = np.zeros((6, 10), int)
    ell[1, 6:8], ell[2, 7] = 1, 1
    second = np.zeros((6, 10), int)
    second[3, 3:5] = 1
    assert masks_of(changed) == [ell.tolist(), second.tolist()]
    assert changed["instances"].gt_classes.tolist() == [0, 1]
    assert (changed["image"].shape, changed["height"], changed["width"]) == ((3, 6, 10), 12, 20)
    assert (changed["patient_id"], changed["labels"]) == ("P1", {"tumor": 1, "malignant": 1})
    assert item["annotations"][0]["bbox"] == [4.0, 2.0, 8.0, 6.0]  # the catalog's dict stays what it was
    plain = mapper_of()(item)
    flipped = mapper_of(augmentations=[transforms.RandomFlip(prob=1.0)])(item)
    assert torch.equal(flipped["image"], plain["image"].flip(2))
    assert not plain["instances"].has("gt_masks")


def test_floats_are_resized_as_detectron2_resizes_eight_bit(tmp_path, mapper_of, transforms):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    for size_hw in ((30, 40), (61, 47), (200, 300)):
        step = transforms.ResizeTransform(120, 160, *size_hw)
        found = mapper_of(augmentations=[step])(one_image(tmp_path, pixels))["image"]
        theirs = step.apply_image(np.repeat(pixels[..., None], 3, axis=2))
        # PIL rounds 8-bit values after each of its two passes.
        assert np.abs(found.numpy().transpose(1, 2, 0) - theirs).max() <= 1.01
    small = transforms.ResizeTransform(120, 160, 30, 40)
    aliased = small.apply_image(pixels.astype(np.float32)) - small.apply_image(pixels)
    assert np.abs(aliased).max() > 50  # what detectron2 itself makes of floats


def test_channels_of_their_own_are_resized_each(tmp_path, mapper_of, transforms):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    item, names = one_image(tmp_path, pixels), ["full", "mean", "laplacian"]
    step = transforms.ResizeTransform(40, 60, 20, 30)
    together = mapper_of(image=ImageConfig(channels=names), augmentations=[step])(item)["image"]
    for number, name in enumerate(names):
        alone = mapper_of(image=ImageConfig(channels=[name]), num_channels=1, augmentations=[step])(item)["image"]
        torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=0)


def test_other_augmentations_of_detectron2_work_on_floats(tmp_path, mapper_of, transforms):
    steps = [
        transforms.RandomRotation([90, 90], expand=True),
        transforms.RandomBrightness(0.5, 0.5),
        transforms.FixedSizeCrop((16, 12), pad=True),  # a list of two transforms
    ]
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 12)
    for channels in (1, 3):
        found = mapper_of(num_channels=channels, augmentations=steps)(one_image(tmp_path, pixels))["image"]
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (channels, 16, 12))
        # A quarter turn against the clock: the last column becomes the first row, here at half its brightness.
        assert found[0, 0, :8].tolist() == pytest.approx((pixels[:, 11] / 2).tolist(), abs=0.01)


def test_a_box_without_a_mask_is_filled_in_for_masks(tmp_path, mapper_of):
    pixels = np.zeros((6, 8), np.uint8)
    bare = lesion((1, 2, 4, 5), mask=False)
    item = one_image(tmp_path, pixels, lesion((5, 0, 7, 2), size_hw=(6, 8)), bare)
    assert not mapper_of()(item)["instances"].has("gt_masks")
    filled = np.zeros((6, 8), int)
    filled[2:5, 1:4] = 1
    assert masks_of(mapper_of(use_instance_mask=True)(item))[1] == filled.tolist()
    # The pixels whose centres a broken box holds: column 2, rows 2 and 3.
    broken = lesion((1.9, 2.5, 3.1, 4.0), mask=False)
    broken_mask = masks_of(mapper_of(use_instance_mask=True)(one_image(tmp_path, pixels, broken)))[0]
    filled[:] = 0
    filled[2:4, 2:3] = 1
    assert broken_mask == filled.tolist()


def test_images_without_lesions_stay_and_incomplete_ones_go(tmp_path, mapper_of):
    write_small(tmp_path)
    items = dataset_dicts(small_dataset(), tmp_path)
    train, test = mapper_of(use_instance_mask=True), mapper_of(is_train=False, use_instance_mask=True)
    normal = train(items[2])
    assert (len(normal["instances"]), normal["instances"].image_size) == (0, (12, 20))
    # A region to ignore, and a lesion without a place: neither may be learnt as background.
    assert [train(item) is None for item in items] == [False, False, False, True, True, False]
    for item in items:
        sample = test(item)
        assert not {"annotations", "instances"} & set(sample)
        assert (sample["image"].shape, sample["height"], sample["image_id"]) == ((3, 12, 20), 12, item["image_id"])


def test_crowds_of_other_data_sets_are_no_targets(tmp_path, mapper_of):
    item = one_image(tmp_path, np.zeros((6, 8), np.uint8), lesion((1, 2, 4, 5), mask=False))
    item["annotations"].append({**item["annotations"][0], "iscrowd": 1, "bbox": [0, 0, 2, 2]})
    assert boxes_of(mapper_of()(item)) == [[1, 2, 4, 5]]


def test_a_crop_cuts_boxes_drops_what_is_outside_and_takes_images_without_lesions(tmp_path, mapper_of, transforms):
    write_small(tmp_path)
    items = dataset_dicts(small_dataset(), tmp_path)
    crop = transforms.CropTransform(5, 0, 7, 5)  # x 5 to 12, y 0 to 5
    mapper = mapper_of(use_instance_mask=True, recompute_boxes=True, augmentations=[crop])
    # Of the L stay x 5 to 8 of rows 2 and 3, and x 5 of row 4; the other lesion begins at row 6.
    assert boxes_of(mapper(items[0])) == [[0, 2, 3, 5]]
    assert len(mapper(items[2])["instances"]) == 0


def test_a_cfg_says_the_arguments(tmp_path, mapper_of):
    from detectron2.config import get_cfg

    from mammodet.data.detectron2_mapper import MammogramMapper

    write_small(tmp_path)
    item = dataset_dicts(small_dataset(), tmp_path)[0]
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.RANDOM_FLIP = (24,), 6, "none"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0, 1.0]
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.MASK_ON = "bitmask", True
    train, test = MammogramMapper(cfg), MammogramMapper(cfg, False, image=FULL)
    assert train(item)["image"].shape == (2, 24, 40)
    assert boxes_of(train(item)) == [[8, 4, 16, 12], [20, 12, 28, 16]]
    assert train(item)["instances"].has("gt_masks")
    assert test(item)["image"].shape == (2, 6, 10)
    assert (train.image.channels, test.image.channels) == (["tissue"], ["full"])
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, [1.0, 1.0]
    assert MammogramMapper(cfg, is_train=True).recompute_boxes
    for key, value, message in (
        ("KEYPOINT_ON", True, "MODEL.KEYPOINT_ON is True; mammograms have no keypoints: set it to False"),
        ("PIXEL_MEAN", [], r"image\.channels are 2 \(full, mean\), the model takes 0"),
    ):
        wrong = cfg.clone()
        wrong.MODEL[key] = value
        with pytest.raises(InputError, match=message):
            MammogramMapper(wrong, True, image=ImageConfig(channels=["full", "mean"]))
    cfg.INPUT.MASK_FORMAT = "polygon"
    with pytest.raises(InputError) as caught:
        MammogramMapper(cfg, True)
    assert str(caught.value) == (
        "INPUT.MASK_FORMAT is 'polygon'; masks of mammograms are run lengths: set it to 'bitmask' (prepare_cfg does)"
    )


def test_proposals_follow_the_image(tmp_path, mapper_of, transforms):
    from detectron2.structures import BoxMode

    item = {
        **one_image(tmp_path, np.zeros((6, 8), np.uint8)),
        "proposal_boxes": np.array([[2.0, 2, 6, 4], [0, 0, 4, 4], [1, 1, 2, 2]]),
        "proposal_objectness_logits": np.array([3.0, 2, 1]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }
    halved = transforms.ResizeTransform(6, 8, 3, 4)
    found = mapper_of(augmentations=[halved], precomputed_proposal_topk=2)(item)["proposals"]
    assert found.proposal_boxes.tensor.tolist() == [[1, 1, 3, 2], [0, 0, 2, 2]]


def test_detectron2_can_draw_images_of_one_channel_as_grey(tmp_path, mapper_of):
    from detectron2.data.detection_utils import convert_image_to_rgb

    image = mapper_of(num_channels=1)(one_image(tmp_path, np.full((6, 8), 51, np.uint8)))["image"].permute(1, 2, 0)
    assert convert_image_to_rgb(image, "L").tolist() == [[[51] * 3] * 8] * 6
    with pytest.raises(IndexError):
        convert_image_to_rgb(image, "BGR")  # why prepare_cfg sets INPUT.FORMAT


def test_geometry_of_an_image_config_is_refused(mapper_of):
    assert mapper_of(image=ImageConfig(crop="none", aspect="keep", channels=["full"])).num_channels == 3
    with pytest.raises(InputError) as caught:
        mapper_of(image=ImageConfig(crop="breast", max_size=800))
    assert str(caught.value) == (
        "image: max_size=800, crop=breast has no effect here: detectron2's augmentations resize and flip (cfg.INPUT). "
        "Leave it out; channels alone count"
    )
    with pytest.raises(InputError, match=r"^recompute_boxes=True needs use_instance_mask=True$"):
        mapper_of(recompute_boxes=True)


def test_files_that_are_missing_or_of_another_size_are_told(tmp_path, mapper_of):
    item = one_image(tmp_path, np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match=r"x\.png: the file is 6x8, its record says 8x6 \(height x width\); re-run"):
        mapper_of()({**item, "height": 8, "width": 6})
    (tmp_path / "x.png").unlink()
    with pytest.raises(InputError, match=r"x\.png: no such image"):
        mapper_of()(item)


def test_the_loader_draws_another_image_for_one_that_is_left_out(tmp_path, mapper_of):
    from detectron2.data import build_detection_train_loader

    write_small(tmp_path)
    items = dataset_dicts(small_dataset(), tmp_path)[2:5]
    loader = build_detection_train_loader(
        items, mapper=mapper_of(), total_batch_size=2, aspect_ratio_grouping=False, num_workers=1
    )
    batches = iter(loader)
    drawn = {sample["image_id"] for _ in range(4) for sample in next(batches)}
    assert drawn == {3}  # the ids 4 and 5 are a region to ignore, and a lesion without a place
