"""FROC: equal to a slow count that starts anew at every threshold, and right where it can be worked out by hand."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from small_cases import box_mask, dataset, image, lesion, prediction, random_case

from mammodet.errors import InputError
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.flat import flat_detections, flat_lesions
from mammodet.evaluation.froc import DENOMINATORS, FPPI_POINTS, CurveMaker, FrocFigures, denominator_images, froc
from mammodet.evaluation.matching import assign, hulls, make_pairs, match_all
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import FrocCurve
from mammodet.records import Detections

BOX_RULES = ("iou@0.1", "iou@0.2", "iou@0.35", "iou@0.5", "center")

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)


def fits(box, target, rule):
    """How well a box fits a target; None where it is no match. Plain numbers, no arrays."""
    if rule == "center":
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not (target[0] <= x <= target[2] and target[1] <= y <= target[3]):
            return None
        distance = math.hypot(x - (target[0] + target[2]) / 2, y - (target[1] + target[3]) / 2)
        return -distance / math.sqrt((target[2] - target[0]) * (target[3] - target[1]))
    if rule.startswith("mask"):  # the masks of these cases fill their boxes, rounded to whole pixels
        box, target = [round(value) for value in box], [round(value) for value in target]
    width = max(min(box[2], target[2]) - max(box[0], target[0]), 0)
    height = max(min(box[3], target[3]) - max(box[1], target[1]), 0)
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, target)) - width * height
    return width * height / area if width * height / area >= float(rule.partition("@")[2]) else None


def slow_froc(data, predictions, rule, denominator="all images", count_seconds=True):
    """(threshold, false positives per image, sensitivity) for every score that occurs, everything recounted."""
    scored = [(r, p.detections) for r, p in zip(data.images, predictions, strict=True) if not r.unlocalized]
    lesions = sum(not one.ignore for record, _ in scored for one in record.lesions)
    counted = {
        "all images": lambda record: True,
        "normal images": lambda record: not record.lesions and record.labels.get("tumor") != 1,
        "positive images": lambda record: any(not one.ignore for one in record.lesions),
    }[denominator]
    points = []
    for threshold in sorted({float(s) for _, found in scored for s in found.scores}, reverse=True):
        true = false = 0
        for record, found in scored:
            taken = set()
            kept = [k for k in range(len(found)) if found.scores[k] >= threshold]
            for k in sorted(kept, key=lambda k, found=found: -found.scores[k]):
                box = found.boxes_xyxy[k].tolist()
                possible = {
                    position: fits(box, one.box_xyxy, rule)
                    for position, one in enumerate(record.lesions)
                    if not one.ignore and fits(box, one.box_xyxy, rule) is not None
                }
                free = {position: fit for position, fit in possible.items() if position not in taken}
                regions = [one.box_xyxy for one in record.lesions if one.ignore]
                if free:
                    taken.add(max(free, key=lambda position, free=free: free[position]))
                    true += 1
                elif possible and not count_seconds:
                    continue
                elif all(fits(box, region, r) is None for region in regions for r in (rule, "center")):
                    false += counted(record)
        points.append((threshold, false / sum(counted(record) for record, _ in scored), true / lesions))
    return points


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("rule", [*BOX_RULES, "mask_iou@0.2", "mask_iou@0.5"])
@pytest.mark.parametrize(("seed", "decimals"), [(0, 1), (1, 1), (2, 3)])
def test_froc_equals_a_slow_recount(rule, seed, decimals, denominator):
    data, predictions = random_case(seed, images=15, decimals=decimals, whole_pixels=rule.startswith("mask"))
    data = replace(
        data, images=tuple(replace(one, labels={"tumor": int(one.image_id % 7 == 0)}) for one in data.images)
    )
    count_seconds = seed != 1
    curve = froc(data, predictions, rule, denominator=denominator, count_seconds=count_seconds)
    expected = slow_froc(data, predictions, rule, denominator, count_seconds)
    assert (curve.thresholds[0], curve.fppi[0], curve.sensitivity[0]) == (np.inf, 0.0, 0.0)
    # A threshold at which only detections that count neither way come in has no point of its own.
    assert set(curve.thresholds[1:]) <= {threshold for threshold, _, _ in expected}
    assert len(expected) > 5
    for threshold, fppi, sensitivity in expected:
        last = np.flatnonzero(curve.thresholds >= threshold)[-1]
        assert (curve.fppi[last], curve.sensitivity[last]) == pytest.approx((fppi, sensitivity), abs=1e-12)
    for point in (0.0, 0.07, 0.125, 0.3, 1.0, 4.0):
        best = max([sensitivity for _, fppi, sensitivity in expected if fppi <= point + 1e-12], default=0.0)
        assert curve.at(point) == pytest.approx(best)


def as_float(value):
    return math.nan if value is None else value


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("seed", range(6))
def test_weighted_froc_equals_the_curve_of_repeated_images(seed, denominator):
    data, predictions = random_case(seed, images=14, decimals=1, whole_pixels=False)
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 6, len(data.images))
    weights = rng.integers(0, 3, 6)
    found, lesions = flat_detections(data, predictions), flat_lesions(data)
    maker = CurveMaker(found, lesions, match_all(found, lesions, "iou@0.2"), clusters)
    measure = FrocFigures([maker.curve(maker.false_positives(denominator_images(data, denominator)), grid=(0.05, 8.0))])
    *points, cpm, low, high = measure.row(weights.astype(float))
    copies = [position for position in range(len(data.images)) for _ in range(weights[clusters[position]])]
    again = dataset(*(replace(data.images[p], image_id=n, file_name=f"{n}.png") for n, p in enumerate(copies)))
    expected = froc(again, [predictions[p] for p in copies], "iou@0.2", denominator=denominator)
    for point, found_there in zip((*FPPI_POINTS, 0.05, 8.0), (*points, low, high), strict=True):
        assert found_there == pytest.approx(as_float(expected.at(point)), abs=1e-12, nan_ok=True)
    assert cpm == pytest.approx(as_float(expected.cpm), abs=1e-12, nan_ok=True)


def test_second_detections_can_count_neither_way():
    data = dataset(image(1, lesion(A)))
    predictions = [prediction(1, (A, 0.9), ((11, 11, 30, 30), 0.8), (FAR, 0.7))]
    assert froc(data, predictions, count_seconds=False).fppi.tolist() == [0.0, 0.0, 1.0]


def test_denominators_count_false_positives_on_their_images_alone():
    data = dataset(
        image(1, lesion(A)), image(2), image(3, labels={"tumor": 1}), image(4, lesion(A, ignore=True)), image(5)
    )
    predictions = [prediction(number, (FAR, 0.9 - number / 10)) for number in range(1, 6)]
    found = {name: froc(data, predictions, denominator=name) for name in DENOMINATORS}
    assert [found[name].images for name in DENOMINATORS] == [5, 2, 1]
    assert [float(found[name].fppi[-1]) for name in DENOMINATORS] == [1.0, 1.0, 1.0]
    assert found["normal images"].thresholds.tolist() == pytest.approx([np.inf, 0.7, 0.4])
    assert found["positive images"].thresholds.tolist() == pytest.approx([np.inf, 0.8])


def test_without_normal_images_their_curve_knows_nothing():
    curve = froc(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9))], denominator="normal images")
    assert (curve.images, curve.at(1.0), curve.cpm) == (0, None, None)


def test_mask_rule_looks_at_the_masks_and_not_at_the_boxes():
    upper, lower = box_mask((10, 10, 30, 20)), box_mask((10, 20, 30, 30))
    target = replace(lesion(A), rle=upper)
    one = prediction(1, (A, 0.9), masks=True)
    crossed = replace(one, detections=replace(one.detections, rles=[lower]))
    assert froc(dataset(image(1, target)), [crossed], "iou@0.5").at(0.0) == 1.0
    assert froc(dataset(image(1, target)), [crossed], "mask_iou@0.1").at(0.0) == 0.0


def test_froc_counts_a_second_detection_of_one_lesion_as_false():
    curve = froc(dataset(image(1, lesion(A))), [prediction(1, (A, 0.9), ((11, 11, 30, 30), 0.8))])
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8]
    assert curve.sensitivity.tolist() == [0.0, 1.0, 1.0]
    assert curve.fppi.tolist() == [0.0, 0.0, 1.0]


def test_froc_gives_the_lesion_to_the_stronger_detection_in_any_order():
    curve = froc(dataset(image(1, lesion(A))), [prediction(1, ((12, 12, 30, 30), 0.3), (A, 0.9))])
    assert curve.sensitivity.tolist() == [0.0, 1.0, 1.0]
    assert curve.fppi.tolist() == [0.0, 0.0, 1.0]


def test_froc_lets_one_detection_find_only_one_of_two_overlapping_lesions():
    data = dataset(image(1, lesion((10, 10, 30, 30)), lesion((14, 10, 34, 30))))
    curve = froc(data, [prediction(1, ((12, 10, 32, 30), 0.9))])
    assert curve.sensitivity.tolist() == [0.0, 0.5]
    assert curve.fppi.tolist() == [0.0, 0.0]


def test_froc_lets_a_second_detection_find_the_other_overlapping_lesion():
    data = dataset(image(1, lesion((10, 10, 30, 30)), lesion((14, 10, 34, 30))))
    curve = froc(data, [prediction(1, ((10, 10, 30, 30), 0.9), ((11, 10, 31, 30), 0.8))])
    assert curve.sensitivity.tolist() == [0.0, 0.5, 1.0]
    assert curve.fppi.tolist() == [0.0, 0.0, 0.0]


def test_froc_moves_once_for_equal_scores():
    data = dataset(image(1, lesion(A)), image(2))
    curve = froc(data, [prediction(1, (A, 0.5)), prediction(2, (FAR, 0.5))])
    assert curve.thresholds.tolist() == [np.inf, 0.5]
    assert curve.fppi.tolist() == [0.0, 0.5]
    assert curve.sensitivity.tolist() == [0.0, 1.0]
    assert curve.at(0.25) == 0.0
    assert curve.at(0.5) == 1.0


def test_froc_passes_over_detections_on_ignored_regions():
    data = dataset(image(1, lesion(A), lesion(B, ignore=True)))
    curve = froc(data, [prediction(1, (A, 0.9), (B, 0.8), ((51, 51, 80, 80), 0.7))])
    assert curve.lesions == 1
    assert curve.thresholds.tolist() == [np.inf, 0.9]
    assert curve.fppi.tolist() == [0.0, 0.0]


def test_froc_passes_over_a_small_detection_inside_a_large_ignored_region():
    data = dataset(image(1, lesion(A), lesion((40, 0, 100, 100), ignore=True)))
    curve = froc(data, [prediction(1, (A, 0.9), ((60, 60, 66, 66), 0.8))], "iou@0.5")
    assert curve.fppi.tolist() == [0.0, 0.0]


def test_froc_prefers_a_lesion_to_an_ignored_region_in_the_same_place():
    data = dataset(image(1, lesion(A), lesion(A, ignore=True)))
    assert froc(data, [prediction(1, (A, 0.9))]).sensitivity.tolist() == [0.0, 1.0]


def test_froc_leaves_unlocalized_images_out_of_both_denominators():
    data = dataset(image(1, lesion(A)), image(2), image(3, lesion(B), unlocalized=True))
    curve = froc(data, [prediction(1, (A, 0.5)), prediction(2, (FAR, 0.9)), prediction(3, (FAR, 0.95), (B, 0.9))])
    assert (curve.images, curve.lesions) == (2, 1)
    assert curve.fppi.tolist() == [0.0, 0.5, 0.5]
    assert curve.sensitivity.tolist() == [0.0, 0.0, 1.0]


def test_froc_without_lesions_knows_no_sensitivity():
    curve = froc(dataset(image(1), image(2)), [prediction(1, (A, 0.5)), prediction(2)])
    assert curve.at(1.0) is None
    assert curve.cpm is None
    assert curve.corners().fppi == [0.0, 0.5]


def test_froc_without_detections_finds_nothing():
    curve = froc(dataset(image(1, lesion(A))), [prediction(1)])
    assert curve.at(4.0) == 0.0
    assert curve.cpm == 0.0
    assert curve.corners() == FrocCurve(fppi=[0.0], sensitivity=[0.0], threshold=[None])


def test_froc_without_images_is_empty():
    curve = froc(dataset(), [])
    assert (curve.images, curve.lesions, curve.at(1.0)) == (0, 0, None)


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ((18, 18, 22, 22), 1.0),  # tiny, in the middle: its IoU of 0.04 is no match elsewhere
        ((0, 10, 61, 30), 0.0),  # its centre at x = 30.5 is outside
        ((0, 10, 60, 30), 1.0),  # its centre at x = 30 is on the border
    ],
)
def test_froc_centre_rule_asks_for_the_centre_alone(box, found):
    assert froc(dataset(image(1, lesion(A))), [prediction(1, (box, 0.9))], "center").at(0.0) == found


def test_froc_centre_rule_takes_the_lesion_with_the_nearer_centre():
    data = dataset(image(1, lesion((0, 0, 60, 60)), lesion((30, 30, 50, 50))))
    # Centre (38, 38): 8 px off the first lesion's, 2 px off the second's. The weaker one is left with the first.
    curve = froc(data, [prediction(1, ((36, 36, 40, 40), 0.9), ((2, 2, 6, 6), 0.8))], "center")
    assert curve.sensitivity.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("rule", "found"), [("iou@0.1", 1.0), ("iou@0.2", 1.0), ("iou@0.5", 0.0)])
def test_froc_match_rules_differ_in_the_overlap_they_ask_for(rule, found):
    # 20 x 20 and 20 x 10 inside it, moved by 2 rows out: 160 common of 440 pixels, IoU 0.36.
    assert froc(dataset(image(1, lesion(A))), [prediction(1, ((10, 22, 30, 32), 0.9))], rule).at(0.0) == found


def test_froc_takes_an_overlap_exactly_at_the_limit():
    data = dataset(image(1, lesion((10, 10, 30, 30))))
    assert froc(data, [prediction(1, ((10, 10, 30, 20), 0.9))], "iou@0.5").at(0.0) == 1.0


def test_froc_at_stands_on_the_last_point_that_keeps_to_the_limit():
    data = dataset(image(1, lesion(A), lesion(B)), image(2))
    curve = froc(data, [prediction(1, (A, 0.9), (FAR, 0.8), (B, 0.7)), prediction(2)])
    assert curve.fppi.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert [curve.at(point) for point in (0.0, 0.49, 0.5, 3.0)] == [0.5, 0.5, 1.0, 1.0]


def test_cpm_averages_six_points():
    data = dataset(image(1, lesion(A), lesion(B)), image(2))
    curve = froc(data, [prediction(1, (A, 0.9), (FAR, 0.8), (B, 0.7)), prediction(2)])
    assert [curve.at(point) for point in FPPI_POINTS] == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert curve.cpm == pytest.approx(5 / 6)
    assert curve.corners().threshold == [None, 0.9, 0.8, 0.7]
    assert (curve.images, curve.lesions, curve.match) == (2, 2, "iou@0.2")


def test_froc_ignores_categories():
    data = dataset(image(1, lesion(A, "calc")), categories=("mass", "calc"))
    assert froc(data, [prediction(1, (A, 0.9, 1))]).at(0.0) == 1.0


@pytest.mark.parametrize("rule", ["iou@0", "iou@1.1", "iou", "mask@0.2", "centre", "iou@x", ""])
def test_froc_refuses_an_unknown_rule(rule):
    with pytest.raises(ValueError, match=r"expected center, iou@T or mask_iou@T"):
        froc(dataset(image(1)), [prediction(1)], rule)


def test_froc_refuses_another_number_of_predictions():
    with pytest.raises(ValueError):
        froc(dataset(image(1), image(2)), [prediction(1)])


# Detections of one score: none comes first.


def all_in_one_order(data, predictions, order):
    """The figures of files that hold the detections of each image in another order."""
    shuffled = [
        replace(
            one,
            detections=Detections(
                one.detections.boxes_xyxy[order(len(one.detections))],
                one.detections.scores[order(len(one.detections))],
                one.detections.category_ids[order(len(one.detections))],
                [one.detections.rles[row] for row in order(len(one.detections))] if one.detections.rles else None,
            ),
        )
        for one in predictions
    ]
    return json.dumps(evaluate(data, [Entry("one", shuffled)], Options(resamples=100)).metrics.to_json())


@pytest.mark.parametrize("seed", range(4))
def test_no_figure_depends_on_the_order_of_equal_scores(seed):
    data, predictions = random_case(seed, categories=("mass", "calc"), images=10, decimals=0)
    orders = (np.arange, lambda count: np.arange(count)[::-1], lambda count: np.roll(np.arange(count), 1))
    found = {all_in_one_order(data, predictions, order) for order in orders}
    assert len(found) == 1


def test_detections_of_one_score_find_as_many_lesions_as_they_can():
    # One fits both lesions (0.82 and 0.56), the other the upper one alone (0.39): both are found in either order.
    data = dataset(image(1, lesion((10, 10, 40, 40)), lesion((10, 20, 40, 55))))
    both, upper = (10, 12, 40, 44), (10, 4, 40, 24)
    for found in [((both, 0.5), (upper, 0.5)), ((upper, 0.5), (both, 0.5))]:
        assert froc(data, [prediction(1, *found)]).cpm == 1.0
    weaker = froc(data, [prediction(1, (both, 0.5), (upper, 0.4))])  # the stronger one takes what fits it best
    assert weaker.sensitivity.tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("seed", range(30))
def test_the_matching_of_one_score_is_the_largest_and_of_those_the_best(seed):
    rng = np.random.default_rng(seed)
    found, lesions = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    quality = np.where(rng.random((found, lesions)) < 0.5, rng.integers(1, 9, (found, lesions)) / 8, 0.0)
    here = np.zeros(found, dtype=np.int64)
    whole = np.tile([0.0, 0.0, 1.0, 1.0], (max(found, lesions), 1))
    pairs = make_pairs(here, np.zeros(lesions, dtype=np.int64), whole[:found], whole[:lesions])
    taken = assign(pairs, here, np.full(found, 0.5), quality.ravel(), lesions)
    used = taken[taken >= 0]
    assert len(set(used.tolist())) == len(used)
    summed = sum(quality[row, lesion] for row, lesion in enumerate(taken) if lesion >= 0)
    wider = np.hstack([quality, np.zeros((found, found))])  # a place of its own for one that finds none
    options = [wider[np.arange(found), places] for places in itertools.permutations(range(lesions + found), found)]
    most = max(np.count_nonzero(values) for values in options)
    best = max(values.sum() for values in options if np.count_nonzero(values) == most)
    assert (len(used), summed) == (most, pytest.approx(best))


def test_pairs_that_touch_are_found_block_by_block(monkeypatch):
    data, predictions = random_case(5, images=30)
    found, lesions = flat_detections(data, predictions), flat_lesions(data)
    whole = make_pairs(found.images, lesions.images, found.boxes_xyxy, lesions.boxes_xyxy)
    monkeypatch.setattr("mammodet.evaluation.matching._BLOCK", 5)
    parts = make_pairs(found.images, lesions.images, found.boxes_xyxy, lesions.boxes_xyxy)
    for name in ("found", "lesion", "start", "count"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    monkeypatch.setattr("mammodet.evaluation.matching._MOST_PAIRS", 5)
    with pytest.raises(InputError, match="more than 5 pairs of a detection and a lesion"):
        make_pairs(found.images, lesions.images, found.boxes_xyxy, lesions.boxes_xyxy)


def test_boxes_are_widened_to_their_masks_block_by_block(monkeypatch):
    boxes = np.array([[10.0, 10, 20, 20], [30, 10, 40, 20], [50, 10, 60, 20]])
    masks = [box_mask((8, 12, 18, 30)), box_mask((32, 12, 38, 18)), box_mask((50, 5, 65, 20))]
    monkeypatch.setattr("mammodet.evaluation.matching._BLOCK_MASKS", 2)
    assert hulls(boxes, masks).tolist() == [[8, 10, 20, 30], [30, 10, 40, 20], [50, 5, 65, 20]]
