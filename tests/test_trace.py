"""Crop, flip and resize, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mammodet.geometry import circle_mask, rle_area, rle_to_mask
from mammodet.trace import Step, Trace


def random_trace(rng: np.random.Generator, size_hw: tuple[int, int], smallest: int = 20) -> Trace:
    trace = Trace(size_hw)
    for _ in range(int(rng.integers(1, 5))):
        height, width = trace.output_size_hw
        name = rng.choice(["crop", "flip", "resize"])
        if name == "crop":
            w, h = (
                int(rng.integers(min(smallest, width), width + 1)),
                int(rng.integers(min(smallest, height), height + 1)),
            )
            trace = trace.then("crop", int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)
        elif name == "flip":
            trace = trace.then("flip")
        else:
            trace = trace.then("resize", *rng.integers(smallest, 150, 2))
    return trace


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_trace_without_steps_is_the_identity():
    trace = Trace((20, 30))
    scale, shift = trace.affine()
    assert (scale.tolist(), shift.tolist(), trace.output_size_hw) == ([1, 1], [0, 0], (20, 30))


@pytest.mark.parametrize(
    ("steps", "scale", "shift", "size_hw"),
    [
        ([("crop", 3, 5, 10, 8)], [1, 1], [-3, -5], (8, 10)),
        ([("flip",)], [-1, 1], [30, 0], (20, 30)),
        ([("resize", 10, 90)], [3, 0.5], [0, 0], (10, 90)),
        # x: 3..13 -> 0..10 -> flipped: 10 - (x - 3) = 13 - x -> doubled
        ([("crop", 3, 5, 10, 8), ("flip",), ("resize", 16, 20)], [-2, 2], [26, -10], (16, 20)),
        ([("flip",), ("flip",)], [1, 1], [0, 0], (20, 30)),
        ([("resize", 40, 60), ("crop", 10, 20, 30, 10)], [2, 2], [-10, -20], (10, 30)),
    ],
)
def test_affine_of_steps_by_hand(steps, scale, shift, size_hw):
    trace = Trace((20, 30))
    for step in steps:
        trace = trace.then(*step)
    found_scale, found_shift = trace.affine()
    assert found_scale.tolist() == scale
    assert found_shift.tolist() == shift
    assert trace.output_size_hw == size_hw


def test_boxes_forward_of_a_flip_stay_in_order():
    assert Trace((20, 30)).then("flip").boxes_forward([[0, 2, 10, 4]]).tolist() == [[20, 2, 30, 4]]


def test_boxes_forward_are_not_cut_and_boxes_backward_are():
    trace = Trace((20, 30)).then("crop", 10, 0, 10, 20)
    assert trace.boxes_forward([[0, 0, 30, 20]]).tolist() == [[-10, 0, 20, 20]]
    assert trace.boxes_backward([[-100, -100, 100, 100]]).tolist() == [[0, 0, 30, 20]]
    assert trace.boxes_forward([]).shape == trace.boxes_backward([]).shape == (0, 4)


def test_boxes_come_back_through_random_chains():
    rng = np.random.default_rng(1)
    for _ in range(200):
        size_hw = (int(rng.integers(30, 200)), int(rng.integers(30, 200)))
        trace = random_trace(rng, size_hw)
        corners = rng.uniform(0, 1, (5, 2, 2)) * size_hw[::-1]
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        assert trace.boxes_backward(trace.boxes_forward(boxes)) == pytest.approx(boxes, abs=1e-6)


def test_image_forward_by_hand():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    trace = Trace((4, 6)).then("crop", 1, 2, 4, 2).then("flip")
    assert trace.image_forward(pixels).tolist() == [[16, 15, 14, 13], [22, 21, 20, 19]]
    halved = Trace((4, 6)).then("resize", 2, 3).image_forward(pixels.astype(np.float32))
    assert halved[0, 0] == pytest.approx((0 + 1 + 6 + 7) / 4)


def test_image_forward_refuses_another_size():
    with pytest.raises(ValueError, match=r"expected an array of \(4, 6\) \(height, width\), got \(6, 4\)"):
        Trace((4, 6)).image_forward(np.zeros((6, 4)))


def test_mask_forward_sets_pixels_that_are_half_covered():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[0, 1] = True  # 2 of the 4 pixels of the first, 1 of 4 of the last
    mask[3, 3] = True
    assert Trace((4, 4)).then("resize", 2, 2).mask_forward(mask).tolist() == [[True, False], [False, False]]


def test_discs_come_back_through_random_chains():
    rng = np.random.default_rng(2)
    checked = 0
    for _ in range(300):
        size_hw = (int(rng.integers(60, 200)), int(rng.integers(60, 200)))
        trace = random_trace(rng, size_hw, smallest=40)
        x1, y1, x2, y2 = trace.boxes_backward([[0, 0, *trace.output_size_hw[::-1]]])[0]
        radius = float(rng.uniform(8, 20))
        disc = circle_mask((rng.uniform(x1, x2), rng.uniform(y1, y2)), radius, size_hw)
        seen = disc.copy()  # what the crops leave of it
        seen[: round(y1)] = seen[round(y2) :] = seen[:, : round(x1)] = seen[:, round(x2) :] = False
        smallest_side = np.abs(trace.affine()[0]).min() * 2 * radius
        if seen.sum() < 150 or smallest_side < 12:
            continue
        checked += 1
        back = rle_to_mask(trace.mask_backward(trace.mask_forward(disc)))
        assert iou(back, seen) > 0.9, trace
    assert checked > 100


def test_full_mask_comes_back_as_exactly_the_crop():
    rng = np.random.default_rng(3)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(20, 200, 2))
        x, y = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
        w, h = int(rng.integers(4, width - x + 1)), int(rng.integers(4, height - y + 1))
        trace = Trace((height, width)).then("crop", x, y, w, h)
        trace = trace.then("flip") if rng.random() < 0.5 else trace
        trace = trace.then("resize", *rng.integers(3, 300, 2))
        expected = np.zeros((height, width), bool)
        expected[y : y + h, x : x + w] = True
        back = trace.mask_backward(np.ones(trace.output_size_hw, bool))
        assert np.array_equal(rle_to_mask(back), expected), trace
        assert trace.mask_forward(expected).all(), trace


def test_mask_backward_of_an_empty_mask_is_empty():
    rle = Trace((50, 60)).then("resize", 10, 12).mask_backward(np.zeros((10, 12), bool))
    assert rle["size"] == [50, 60]
    assert rle_area(rle) == 0


def test_mask_backward_of_one_pixel_grows_to_its_square():
    mask = np.zeros((10, 10), bool)
    mask[3, 4] = True
    back = rle_to_mask(Trace((40, 40)).then("resize", 10, 10).mask_backward(mask))
    rows, columns = np.nonzero(back)
    # The half level of the bilinear tent around the pixel's square (16..20, 12..16), rounded at its corners.
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (12, 16, 16, 20)


def test_mask_backward_of_a_pixel_between_native_centres_is_empty_not_an_error():
    for column in range(64):
        mask = np.zeros((64, 64), bool)
        mask[30, column] = True
        rle = Trace((4, 4)).then("resize", 64, 64).mask_backward(mask)
        assert rle_area(rle) == 0


def test_mask_backward_cuts_probabilities_at_the_threshold():
    trace = Trace((20, 20)).then("flip")
    mask = np.full((20, 20), 0.2, np.float32)
    mask[:, :5] = 0.8
    assert rle_area(trace.mask_backward(mask)) == 5 * 20
    assert rle_to_mask(trace.mask_backward(mask))[:, 15:].all()
    assert rle_area(trace.mask_backward(mask, threshold=0.1)) == 400


def test_probabilities_do_not_fade_at_the_border():
    trace = Trace((64, 64)).then("crop", 3, 0, 61, 50).then("resize", 25, 30)
    back = rle_to_mask(trace.mask_backward(np.full((25, 30), 0.55, np.float32)))
    assert back[:50, 3:].all()
    assert back.sum() == 61 * 50


def test_patch_backward_is_the_mask_around_which_nothing_is():
    trace = Trace((90, 70)).then("crop", 10, 20, 50, 60).then("flip").then("resize", 30, 25)
    patch = np.random.default_rng(0).random((12, 9)).astype(np.float32)
    for x, y in ((0, 0), (5, 7), (16, 18)):  # at one corner of the mask, inside, at the other corner
        mask = np.zeros((30, 25), dtype=np.float32)
        mask[y : y + 12, x : x + 9] = patch
        assert trace.patch_backward(patch, (x, y)) == trace.mask_backward(mask)


def test_mask_backward_refuses_another_size():
    with pytest.raises(ValueError, match="expected an array of"):
        Trace((20, 20)).then("resize", 10, 10).mask_backward(np.zeros((20, 20), bool))


def test_trace_comes_back_from_json():
    trace = Trace((20, 30)).then("crop", 3, 5, 10, 8).then("flip").then("resize", 16, 20)
    value = json.loads(json.dumps(trace.to_json()))
    assert value == {"native_size_hw": [20, 30], "steps": [["crop", 3, 5, 10, 8], ["flip"], ["resize", 16, 20]]}
    assert Trace.from_json(value) == trace


def test_then_turns_numpy_numbers_into_python_ones():
    trace = Trace((20, 30)).then("resize", *np.array([4, 5]))
    assert json.dumps(trace.to_json()["steps"]) == '[["resize", 4, 5]]'


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (("crop", -1, 0, 5, 5), "leaves the image 20x30"),
        (("crop", 0, 0, 31, 5), "leaves the image"),
        (("crop", 0, 0, 5, 21), "leaves the image"),
        (("crop", 0, 0, 0, 5), "leaves the image"),
        (("crop", 0, 0, 5), "crop .* expected 4 whole numbers"),
        (("crop", 0.5, 0, 5, 5), "expected 4 whole numbers"),
        (("resize", 0, 5), "expected two positive numbers"),
        (("resize", 5), "expected 2 whole numbers"),
        (("resize", True, 5), "expected 2 whole numbers"),
        (("flip", 1), "expected 0 whole numbers"),
        (("turn",), "unknown step 'turn': expected crop, flip or resize"),
        ((["crop"], 0, 0, 5, 5), "unknown step"),
    ],
)
def test_trace_refuses_bad_steps(step, message):
    with pytest.raises(ValueError, match=message):
        Trace((20, 30), (Step(step[0], tuple(step[1:])),))
    with pytest.raises(ValueError, match=message):
        Trace.from_json({"native_size_hw": [20, 30], "steps": [list(step)]})


@pytest.mark.parametrize("size_hw", [(0, 5), (5, -1), (2.5, 5), ("5", 5), (True, 5)])
def test_trace_refuses_a_bad_native_size(size_hw):
    with pytest.raises(ValueError, match="native_size_hw"):
        Trace(size_hw)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"native_size_hw": [1]},
        {"native_size_hw": 5},
        {"native_size_hw": [5, 5], "steps": [5]},
        {"native_size_hw": [5, 5], "steps": [[]]},
        {"native_size_hw": [5, 5], "steps": None},
    ],
)
def test_trace_from_broken_json_raises_what_it_promises(value):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Trace.from_json(value)


@pytest.mark.parametrize("steps", [
    (("resize", 20, 30),), (("resize", 100, 150),), (("crop", 10, 5, 40, 30), ("flip",), ("resize", 13, 21)),
    (("crop", 30, 20, 20, 20),), (("flip",), ("crop", 1, 2, 50, 30), ("resize", 77, 91)),
])  # fmt: skip
@pytest.mark.parametrize("corner_xy", [(0, 0), (20, 11), (48, 28)])
def test_patch_forward_is_mask_forward_of_the_whole(steps, corner_xy):
    trace = Trace((40, 60))
    for name, *values in steps:
        trace = trace.then(name, *values)
    rows, columns = np.ogrid[:12, :12]
    patch = (rows - 5.4) ** 2 + (columns - 5.2) ** 2 < 33
    whole = np.zeros((40, 60), dtype=bool)
    x, y = corner_xy
    whole[y : y + 12, x : x + 12] = patch
    assert np.array_equal(trace.patch_forward(patch, corner_xy), trace.mask_forward(whole))


def test_patch_forward_averages_areas_by_hand():
    """Two pixels of four make a half; one does not."""
    trace = Trace((4, 4)).then("resize", 2, 2)
    assert trace.patch_forward(np.array([[1, 1]]), (2, 1)).tolist() == [[False, True], [False, False]]
    assert not trace.patch_forward(np.array([[1]]), (2, 1)).any()
    assert not trace.patch_forward(np.zeros((0, 0)), (0, 0)).any()
