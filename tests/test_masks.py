"""Agreement of outlines: worked by hand, and equal to a count of every pair of border pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from small_cases import box_mask, dataset, image, lesion, prediction
from small_metrics import flat

from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.masks import MeanFigures, hausdorff95
from mammodet.evaluation.options import Options
from mammodet.geometry import mask_to_rle, rle_to_mask
from mammodet.records import Rle
from mammodet.run_lengths import check_counts, decode_runs, mask_patch

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)


def section(data, predictions, **options):
    return flat(evaluate(data, [Entry("ours", predictions)], Options(resamples=0, **options)).metrics.models[0].masks)


def test_agreement_of_shifted_squares_by_hand():
    # 20 x 20 moved by 4 columns: 320 common of 480. Borders: columns are 4 apart, and rows where they overlap 0.
    found = section(
        dataset(image(1, lesion(A), spacing_mm_rc=(0.1, 0.5))), [prediction(1, ((14, 10, 34, 30), 0.9), masks=True)]
    )
    assert found["n_pairs"] == 1
    assert found["dice"] == pytest.approx(2 * 320 / 800)
    assert found["iou"] == pytest.approx(320 / 480)
    assert found["hd95_px"] == 4.0
    # Columns are 0.5 mm apart and rows 0.1 mm: no row border is nearer than the other's column, but at the ends.
    assert 0.2 < found["hd95_mm"] <= 2.0
    assert found["per_image"] == {
        "n_images": 1, "score_threshold": 0.5, "dice": pytest.approx(0.8), "iou": pytest.approx(2 / 3),
    }  # fmt: skip


def brute_force(first, second, spacing):
    def border(mask):
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner) * spacing

    distances = cdist(border(first), border(second))
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


@pytest.mark.parametrize("seed", range(8))
def test_hausdorff_distance_equals_all_pairs_of_border_pixels(seed):
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        y, x = np.ogrid[:40, :50]
        cy, cx, a, b = rng.uniform((12, 15, 4, 4), (28, 35, 12, 12))
        masks.append(((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1)
    spacing = tuple(rng.uniform(0.05, 0.3, 2))
    assert hausdorff95(*masks, spacing) == pytest.approx(brute_force(*masks, np.array(spacing)))
    assert hausdorff95(*masks) == pytest.approx(brute_force(*masks, np.ones(2)))


def test_hausdorff_distance_to_nothing_is_not_known():
    full, empty = np.ones((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)
    assert np.isnan(hausdorff95(full, empty))
    assert hausdorff95(full, full) == 0.0


def test_the_distance_of_equal_masks_cut_by_the_border_is_zero():
    data = dataset(image(1, lesion((0, 0, 100, 100))))
    assert section(data, [prediction(1, ((0, 0, 100, 100), 0.9), masks=True)])["hd95_px"] == 0.0


@pytest.mark.parametrize("geometry", ["circle", "box"])
def test_only_contours_are_compared(geometry):
    data = dataset(image(1, lesion(A, geometry=geometry), lesion(B, geometry="circle")))
    found = section(data, [prediction(1, (A, 0.9), (B, 0.8), masks=True)])
    assert (found["n_pairs"], found["n_without_contour"]) == (0, 2)
    assert "No outline could be compared" in found["note"]
    assert (found["dice"], found["per_image"]) == (None, None)


@pytest.mark.parametrize(("geometry", "with_mask"), [("circle", True), ("box", True), ("box", False)])
def test_contours_beside_circles_and_boxes_are_compared_alone(geometry, with_mask):
    data = dataset(image(1, lesion(A), lesion(B, geometry=geometry, with_mask=with_mask)))
    found = section(data, [prediction(1, (A, 0.9), (B, 0.8), masks=True)])
    assert (found["n_pairs"], found["n_without_contour"], found["dice"]) == (1, 1, 1.0)
    assert found["per_image"]["n_images"] == 0  # half of its truth is no contour


def test_a_lesion_that_is_not_found_lowers_the_image_and_not_the_pairs():
    data = dataset(image(1, lesion(A), lesion(B)), image(2, lesion(A)), image(3))
    predictions = [
        prediction(1, (A, 0.9), masks=True),
        prediction(2, masks=True),
        prediction(3, (FAR, 0.9), masks=True),
    ]
    found = section(data, predictions)
    assert (found["n_pairs"], found["dice"]) == (1, 1.0)
    # 400 of 400 + 900 pixels are found: 2 * 400 / (400 + 1300); nothing on the second; the third shows no lesion.
    assert found["per_image"]["n_images"] == 2
    assert found["per_image"]["dice"] == pytest.approx((800 / 1700 + 0) / 2)


def test_the_mask_of_an_image_holds_detections_from_a_score_on():
    data = dataset(image(1, lesion(A)))
    predictions = [prediction(1, (A, 0.4), masks=True)]
    assert section(data, predictions)["per_image"]["dice"] == 0.0
    assert section(data, predictions, mask_score=0.4)["per_image"]["dice"] == 1.0


def test_an_empty_predicted_mask_has_no_distance_and_dice_zero():
    one = prediction(1, (A, 0.9), masks=True)
    empty = replace(one, detections=replace(one.detections, rles=[mask_to_rle(np.zeros((100, 100), dtype=bool))]))
    found = section(dataset(image(1, lesion(A))), [empty])
    assert (found["dice"], found["hd95_px"], found["n_without_distance"]) == (0.0, None, 1)


def test_mean_figures_leave_out_what_is_not_known():
    measure = MeanFigures(np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 7.0]]), np.array([0, 1, 1]))
    assert measure.row(np.array([1.0, 1.0])) == pytest.approx([3.0, 7.0])
    assert measure.row(np.array([2.0, 1.0])) == pytest.approx([(2 + 3 + 5) / 4, 7.0])
    assert np.isnan(measure.row(np.array([1.0, 0.0]))).tolist() == [False, True]


# Run lengths without pixels.


@pytest.mark.parametrize("seed", range(30))
def test_patch_of_run_lengths_equals_that_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    mask = rng.random((height, width)) < rng.random()
    rle = mask_to_rle(mask)
    check_counts(rle["counts"].encode(), mask.size)
    assert decode_runs(rle["counts"].encode()).sum() == mask.size
    padded = np.pad(mask, 100)
    for _ in range(20):
        x1, y1 = (int(value) for value in rng.integers(-8, 40, 2))
        x2, y2 = x1 + int(rng.integers(0, 50)), y1 + int(rng.integers(0, 50))
        np.testing.assert_array_equal(
            mask_patch(rle, (x1, y1, x2, y2)), padded[y1 + 100 : y2 + 100, x1 + 100 : x2 + 100]
        )


def test_patch_beyond_the_image_is_empty():
    rle = box_mask((0, 0, 100, 100))
    assert not mask_patch(rle, (-20, -20, -10, -10)).any()
    assert mask_patch(rle, (95, 95, 105, 105)).sum() == 25
    assert mask_patch(rle, (5, 5, 5, 9)).shape == (4, 0)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (b"", "cover 0 pixels"),
        (b"\x20", "hold the character"),
        (b"P", "cut short"),
        (b"oooooooo0", "more than 32 bits"),
        (b"O", "negative run"),
    ],
)
def test_damaged_run_lengths_are_told(counts, words):
    with pytest.raises(ValueError, match=words):
        check_counts(counts, 100)


def test_run_lengths_equal_their_decoder():
    rle = Rle(size=[3, 4], counts=mask_to_rle(np.eye(3, 4, dtype=bool))["counts"])
    assert decode_runs(rle["counts"].encode()).tolist() == [0, 1, 3, 1, 3, 1, 3]
    assert rle_to_mask(rle).sum() == 3
