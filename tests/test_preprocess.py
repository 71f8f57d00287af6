"""From a file's pixels to the network's input."""

from __future__ import annotations

import numpy as np
import pytest

from mammodet.config import ImageConfig
from mammodet.data.breast import find_breast
from mammodet.data.preprocess import chest_wall_on_right, plan_trace, prepare_image
from mammodet.trace import Step, Trace


def config(**options) -> ImageConfig:
    return ImageConfig(**{"max_size": 64, "crop": "none", "channels": ["full"]} | options)


def gradient(size_hw: tuple[int, int], dtype: type = np.uint8) -> np.ndarray:
    height, width = size_hw
    return np.linspace(0, np.iinfo(dtype).max, height * width).reshape(size_hw).astype(dtype)


def film() -> np.ndarray:
    """300x200, the breast on the right edge."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[0.5:300, 0.5:200]
    breast = ((rows - 150) / 110) ** 2 + ((columns - 200) / 120) ** 2 <= 1
    return (6 + 3 * rng.random((300, 200)) + breast * (80 + 60 * rng.random((300, 200)))).astype(np.uint8)


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [((128, 96), (64, 48)), ((96, 128), (48, 64)), ((16, 32), (32, 64)), ((64, 10), (64, 10)), ((4000, 3), (64, 1))],
)
def test_longest_side_becomes_max_size_and_the_aspect_stays(size_hw, expected):
    image, trace = prepare_image(gradient(size_hw), config())
    assert image.shape == (1, *expected)
    assert trace.output_size_hw == expected
    assert image.dtype == np.float32
    assert image.flags["C_CONTIGUOUS"]
    assert trace.native_size_hw == size_hw


def test_image_of_the_right_size_is_not_resized():
    image, trace = prepare_image(gradient((64, 48)), config())
    assert trace.steps == ()
    assert np.array_equal(image[0], gradient((64, 48)).astype(np.float32) / np.float32(255))


def test_crop_takes_the_given_box_and_whole_pixels():
    pixels = gradient((100, 80))
    image, trace = prepare_image(pixels, config(crop="breast", max_size=50), (10.4, 20, 39.5, 70))
    assert trace.steps == (Step("crop", (10, 20, 30, 50)),)
    assert np.array_equal(image[0], pixels[20:70, 10:40].astype(np.float32) / np.float32(255))


def test_crop_box_is_cut_to_the_image():
    trace = plan_trace(gradient((100, 80)), config(crop="breast"), (-5, -5, 40, 200))
    assert trace.steps[0] == Step("crop", (0, 0, 40, 100))


def test_crop_of_the_whole_image_is_no_step():
    assert plan_trace(gradient((64, 64)), config(crop="breast"), (0, 0, 64, 64)).steps == ()


def test_saved_breast_box_gives_what_finding_it_gives():
    pixels = film()
    box = find_breast(pixels).box_xyxy
    found, found_trace = prepare_image(pixels, config(crop="breast", channels=["tissue"]))
    saved, saved_trace = prepare_image(pixels, config(crop="breast", channels=["tissue"]), box)
    assert found_trace == saved_trace
    assert found_trace.steps[0].name == "crop"
    assert np.array_equal(found, saved)


def test_crop_none_never_crops():
    assert plan_trace(film(), config(), (10, 10, 50, 50)).steps == (Step("resize", (64, 43)),)


def test_orient_left_flips_a_right_chest_wall_only():
    pixels = film()
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    for crop in ("none", "breast"):
        right, right_trace = prepare_image(pixels, config(crop=crop, orient="left"))
        left, left_trace = prepare_image(mirrored, config(crop=crop, orient="left"))
        assert [step.name for step in right_trace.steps if step.name == "flip"] == ["flip"]
        assert all(step.name != "flip" for step in left_trace.steps)
        assert left.shape == right.shape
        assert np.abs(left - right).max() < 1e-6
    assert all(step.name != "flip" for step in plan_trace(pixels, config(), None).steps)


def test_chest_wall_is_looked_for_in_the_crop():
    pixels = np.zeros((40, 100), np.uint8)
    pixels[:, 0:5] = 255  # bright, but outside the crop
    pixels[:, 60:80] = 100
    assert not chest_wall_on_right(pixels, Trace((40, 100)))
    assert chest_wall_on_right(pixels, Trace((40, 100)).then("crop", 20, 0, 60, 40))


def test_channels_stand_in_their_order():
    pixels = film()
    image, _ = prepare_image(pixels, config(channels=["full", "tissue", "clahe", "full"]))
    assert image.shape == (4, 64, 43)
    assert np.array_equal(image[0], image[3])
    for index, name in enumerate(["full", "tissue", "clahe"]):
        assert np.array_equal(image[index], prepare_image(pixels, config(channels=[name]))[0][0])
    assert not np.array_equal(image[0], image[1])
    assert image.min() >= 0
    assert image.max() <= 1


def test_tissue_stretches_the_breasts_range():
    pixels = np.zeros((100, 100), np.uint8)
    pixels[:, 50:] = np.linspace(100, 150, 50).astype(np.uint8)
    image, _ = prepare_image(pixels, config(max_size=100, channels=["tissue"]))
    assert image[0, :, :50].max() == 0
    assert image[0, :, 99].min() == 1
    assert image[0, 0, 74] == pytest.approx(0.49, abs=0.03)


def test_tissue_does_not_depend_on_the_depth():
    eight = film()
    options = config(channels=["tissue"])
    first, second = prepare_image(eight, options)[0], prepare_image(eight.astype(np.uint16) * 257, options)[0]
    assert first == pytest.approx(second, abs=1e-5)


def test_sixteen_bits_are_not_lost():
    # 64 neighbouring levels of 65536: at 8 bits they would be one or two.
    pixels = (30_000 + np.arange(64, dtype=np.uint16))[None].repeat(64, axis=0)
    for name in ("full", "tissue", "clahe"):
        image, _ = prepare_image(pixels, config(channels=[name]))
        assert len(np.unique(image)) > 30, name
    image, _ = prepare_image(pixels, config(max_size=32))
    assert image[0, 0, 0] * 65535 == pytest.approx(30_000.5, abs=0.01)  # the mean of two neighbours is no integer


def test_clahe_raises_local_contrast_at_both_depths():
    rng = np.random.default_rng(0)
    texture = (1000 + 50 * rng.standard_normal((128, 128))).round()
    texture[:, 64:] += 8000
    for pixels in (texture.astype(np.uint16), (texture / 40).astype(np.uint8)):
        image, _ = prepare_image(pixels, config(max_size=128, channels=["full", "clahe"]))
        before, after = (channel[:, 80:].std() / channel.max() for channel in image)
        assert after > 1.8 * before


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("size_hw", [(1, 1), (8, 8), (1, 300), (300, 2)])
def test_constant_and_tiny_images_pass_every_channel(value, size_hw):
    channels = ["full", "tissue", "clahe", "gaussian", "mean", "laplacian"]
    options = config(crop="breast", orient="left", channels=channels)
    image, trace = prepare_image(np.full(size_hw, value, np.uint8), options)
    assert image.shape == (6, *trace.output_size_hw)
    assert np.isfinite(image).all()
    assert image[0] == pytest.approx(np.float32(value / 255))
    assert image.min() >= 0
    assert image.max() <= 1


def test_stretch_makes_a_square_and_its_trace_leads_back():
    image, trace = prepare_image(gradient((40, 100)), config(max_size=64, aspect="stretch", crop="none"))
    assert image.shape == (1, 64, 64)
    assert trace.boxes_forward([(25.0, 10.0, 50.0, 40.0)]).tolist() == [[16.0, 16.0, 32.0, 64.0]]
    assert trace.boxes_backward([(16.0, 16.0, 32.0, 64.0)]).tolist() == [[25.0, 10.0, 50.0, 40.0]]


def test_mean_kernel_averages_five_by_five_pixels():
    pixels = (np.arange(64 * 64).reshape(64, 64) % 251).astype(np.uint8)
    options = {"max_size": 64, "crop": "none"}
    tissue = prepare_image(pixels, config(channels=["tissue"], **options))[0][0]
    mean = prepare_image(pixels, config(channels=["mean"], **options))[0][0]
    assert mean[20, 30] == pytest.approx(tissue[18:23, 28:33].mean(), abs=1e-6)


def test_gaussian_kernel_weighs_by_distance():
    tissue = np.zeros((64, 64), np.uint8)
    tissue[:, ::2] = 200
    tissue[32, 32], tissue[32, 31] = 200, 200
    options = {"max_size": 64, "crop": "none"}
    before = prepare_image(tissue, config(channels=["tissue"], **options))[0][0]
    after = prepare_image(tissue, config(channels=["gaussian"], **options))[0][0]
    weights = np.array([1, 4, 6, 4, 1]) / 16  # OpenCV's Gaussian of 5 pixels
    assert after[20, 20] == pytest.approx(weights @ before[18:23, 18:23] @ weights, abs=1e-4)


def test_laplacian_kernel_answers_at_edges_only():
    pixels = np.full((64, 64), 60, np.uint8)
    pixels[:, 32:] = 200
    edges = prepare_image(pixels, config(max_size=64, crop="none", channels=["laplacian"]))[0][0]
    assert edges[:, 30:34].max() == 1
    assert edges[:, :28].max() == edges[:, 36:].max() == 0
