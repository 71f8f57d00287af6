"""Average precision: the same as pycocotools on plain files, and right where that can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_cases import dataset, image, lesion, prediction, random_case
from small_metrics import flat

from mammodet.data.coco import to_json, write_coco
from mammodet.data.predictions import Predictions, prediction_to_json, write_predictions
from mammodet.evaluation.average_precision import AveragePrecision
from mammodet.evaluation.average_precision import average_precision as precision_of
from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.flat import flat_detections, flat_lesions
from mammodet.evaluation.sizes import MILLIMETRES, PIXELS, size_bins

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)
PERFECT = {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}


def average_precision(data, predictions, kind):
    """Figures by name, `AP50/CATEGORY` where there are several."""
    found = flat(precision_of(data, predictions, kind))
    return {**{f"AP50/{name}": value for name, value in found.pop("AP50_by_category").items()}, **found}


def by_size(data, predictions, kind):
    """The same, with `AP/SIZE` and `AP50/SIZE`."""
    found, lesions = flat_detections(data, predictions), flat_lesions(data)
    clusters = np.zeros(len(data.images), dtype=np.int64)
    measure = AveragePrecision(data, found, lesions, clusters, (kind,), size_bins(data, found, lesions))
    kinds, sizes = measure.results(Bootstrap(1, 0, 0))
    of_sizes = {
        f"{name}/{size}": one.value for size, row in sizes for name, one in zip(("AP", "AP50"), row, strict=True)
    }
    return {**flat(kinds[kind]), **of_sizes}


def plain_pycocotools(folder, data, predictions, kind):
    """AP, AP50, AP75 of two files on disk, as pycocotools' own demo computes them."""
    write_coco(data, folder / "truth.json")
    write_predictions(Predictions(tuple(predictions), data.categories), folder / "predictions.json")
    truth = COCO(str(folder / "truth.json"))
    results = [
        {**detection, "image_id": item["image_id"]}
        for item in json.loads((folder / "predictions.json").read_text())["images"]
        for detection in item["detections"]
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.params.imgIds = [number for number, item in truth.imgs.items() if not item["unlocalized"]]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize(("seed", "categories"), [(0, ("mass",)), (1, ("mass",)), (2, ("mass", "calc", "arch"))])
def test_average_precision_equals_plain_pycocotools(tmp_path, kind, seed, categories):
    data, predictions = random_case(seed, categories=categories, images=20)
    assert any(record.unlocalized for record in data.images)
    assert any(one.ignore for record in data.images for one in record.lesions)
    expected = plain_pycocotools(tmp_path, data, predictions, kind)
    found = average_precision(data, predictions, kind)
    assert 0.05 < found["AP"] < 0.95
    assert [found["AP"], found["AP50"], found["AP75"]] == [float(value) for value in expected.stats[:3]]
    for position, name in enumerate(categories if len(categories) > 1 else ()):
        expected.params.catIds = [position + 1]
        expected.evaluate()
        expected.accumulate()
        expected.summarize()
        assert found[f"AP50/{name}"] == pytest.approx(float(expected.stats[1]), abs=1e-12)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_of_perfect_detections_is_one(kind):
    data = dataset(image(1, lesion(A), lesion(B)), image(2))
    found = average_precision(data, [prediction(1, (A, 0.9), (B, 0.8), masks=True), prediction(2)], kind)
    assert found == pytest.approx(PERFECT)


def test_average_precision_of_half_the_lesions_is_51_of_101_recall_points():
    data = dataset(image(1, lesion(A), lesion(B)))
    assert average_precision(data, [prediction(1, (A, 0.9))], "bbox")["AP50"] == pytest.approx(51 / 101)


def test_average_precision_of_a_stronger_false_positive_is_one_half():
    data = dataset(image(1, lesion(A)))
    assert average_precision(data, [prediction(1, (FAR, 0.9), (A, 0.5))], "bbox")["AP50"] == pytest.approx(0.5)


def test_average_precision_without_lesions_is_none():
    data = dataset(image(1), image(2, lesion(A, ignore=True)), image(3, lesion(B), unlocalized=True))
    predictions = [prediction(1, (A, 0.9)), prediction(2, (A, 0.9)), prediction(3, (B, 0.9))]
    assert average_precision(data, predictions, "bbox") == {"AP": None, "AP50": None, "AP75": None}


def test_average_precision_without_detections_is_zero_and_none_for_absent_categories():
    data = dataset(image(1, lesion(A, "mass")), categories=("mass", "calc"))
    expected = {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "AP50/mass": 0.0, "AP50/calc": None}
    assert average_precision(data, [prediction(1)], "bbox") == expected
    only_on_calc = average_precision(data, [prediction(1, (A, 0.9, 2))], "bbox")
    assert only_on_calc == expected


def test_average_precision_passes_over_ignored_regions():
    data = dataset(image(1, lesion(A), lesion(B, ignore=True)))
    untouched = average_precision(data, [prediction(1, (A, 0.5))], "bbox")
    touched = average_precision(data, [prediction(1, (A, 0.5), (B, 0.9), ((55, 55, 70, 70), 0.8))], "bbox")
    assert untouched == touched == pytest.approx(PERFECT)


def test_average_precision_leaves_unlocalized_images_out():
    data = dataset(image(1, lesion(A)), image(2, lesion(B), unlocalized=True))
    predictions = [prediction(1, (A, 0.5)), prediction(2, (FAR, 0.9), (A, 0.8))]
    assert average_precision(data, predictions, "bbox")["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("ignore", [False, True])
def test_mask_average_precision_takes_the_box_of_a_lesion_without_mask(ignore):
    data = dataset(image(1, lesion(A), lesion(B, geometry="box", with_mask=False, ignore=ignore)))
    found = average_precision(data, [prediction(1, (A, 0.9), (B, 0.8), masks=True)], "segm")
    assert found == pytest.approx(PERFECT)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((99.8, 99.8, 100.0, 100.0), (99, 99, 100, 100)),
        ((0.0, 0.0, 0.3, 0.3), (0, 0, 1, 1)),
        ((40.4, 0.0, 40.6, 100.0), (40, 0, 41, 100)),
        ((0.0, 40.6, 100.0, 40.8), (0, 40, 100, 41)),
    ],
)
def test_mask_average_precision_gives_a_box_thinner_than_a_pixel_one_pixel(box, pixels):
    data = dataset(image(1, lesion(A), lesion(box, geometry="box", with_mask=False)))
    found = average_precision(data, [prediction(1, (A, 0.9), (pixels, 0.8), masks=True)], "segm")
    assert found == pytest.approx(PERFECT)


def test_average_precision_of_each_category_is_at_iou_one_half():
    # 20 x 20 and its upper 20 x 10.4: IoU 0.52, a match at 0.5 and at none of the nine higher thresholds.
    data = dataset(image(1, lesion(A, "mass"), lesion(B, "calc")), categories=("mass", "calc", "arch"))
    found = average_precision(data, [prediction(1, ((10, 10, 30, 20.4), 0.9, 1))], "bbox")
    expected = {"AP": 0.05, "AP50": 0.5, "AP75": 0.0, "AP50/mass": 1.0, "AP50/calc": 0.0, "AP50/arch": None}
    assert found == pytest.approx(expected)


def test_average_precision_does_not_depend_on_the_order_of_detections():
    data = dataset(image(1, lesion(A)))
    assert average_precision(data, [prediction(1, (A, 0.5), (FAR, 0.9))], "bbox")["AP50"] == pytest.approx(0.5)


# Sizes, weights, and a long run of odd cases against pycocotools.


def with_spacing(data, spacing):
    return replace(data, images=tuple(replace(record, spacing_mm_rc=spacing) for record in data.images))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(12))
def test_average_precision_equals_pycocotools_on_odd_cases(tmp_path, kind, seed):
    """Many ties, shuffled image ids, crowds of detections, images without any, and COCO's areas."""
    data, predictions = random_case(
        seed, categories=("mass", "calc")[: 1 + seed % 2], images=25, decimals=1 + seed % 3 // 2
    )
    order = np.random.default_rng(seed).permutation(len(data.images))
    data = replace(
        data, images=tuple(replace(one, image_id=int(number)) for one, number in zip(data.images, order, strict=True))
    )
    predictions = [replace(one, image_id=int(number)) for one, number in zip(predictions, order, strict=True)]
    expected = plain_pycocotools(tmp_path, data, predictions, kind)
    found = by_size(data, predictions, kind)
    names = ["AP", "AP50", "AP75", *(f"AP/{label}" for label in PIXELS)]
    official = [None if value < 0 else float(value) for value in expected.stats[:6]]
    assert [found[name] for name in names] == official


def test_sizes_in_millimetres_equal_pycocotools_with_extents_for_areas(tmp_path):
    data, predictions = random_case(3, images=40)
    data = with_spacing(data, (0.8, 0.5))
    found = by_size(data, predictions, "bbox")
    truth = COCO()
    truth.dataset = to_json(data)

    def extent(box):
        return max(box[2] * 0.5, box[3] * 0.8)

    for one in truth.dataset["annotations"]:
        one["area"] = extent(one["bbox"])
    truth.createIndex()
    results = [
        {**detection, "image_id": one.image_id}
        for one in predictions
        for detection in prediction_to_json(one)["detections"]
    ]
    answers = truth.loadRes(results)
    for one in answers.dataset["annotations"]:
        one["area"] = extent(one["bbox"])
    evaluation = COCOeval(truth, answers, "bbox")
    evaluation.params.imgIds = [record.image_id for record in data.images if not record.unlocalized]
    evaluation.params.areaRng = [[0, 1e10], *map(list, MILLIMETRES.values())]
    evaluation.params.areaRngLbl = ["all", *MILLIMETRES]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]
    for position, label in enumerate(MILLIMETRES, start=1):
        values = precision[:, :, :, position, -1]
        known = values[values > -1]
        assert found[f"AP/{label}"] == (float(known.mean()) if known.size else None)
    assert found["AP/up to 10 mm"] is not None
    assert found["AP/10 to 20 mm"] is not None


def test_a_lesion_without_spacing_belongs_to_no_size_in_millimetres():
    data = dataset(image(1, lesion(A), spacing_mm_rc=(0.5, 0.5)), image(2, lesion((5, 5, 95, 95))))
    found = by_size(data, [prediction(1, (A, 0.9)), prediction(2)], "bbox")
    assert found["AP50/up to 10 mm"] == pytest.approx(1.0)
    assert found["AP50/20 to 50 mm"] is None


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_weighted_average_precision_equals_pycocotools_on_repeated_patients(tmp_path, kind, seed):
    data, predictions = random_case(seed, categories=("mass", "calc"), images=12, decimals=4)
    rng = np.random.default_rng(seed)
    clusters, weights = rng.integers(0, 6, len(data.images)), rng.integers(0, 3, 6)
    measure = AveragePrecision(data, flat_detections(data, predictions), flat_lesions(data), clusters, (kind,))
    row = measure.row(weights.astype(float))
    copies = [position for position in range(len(data.images)) for _ in range(weights[clusters[position]])]
    again = replace(
        data, images=tuple(replace(data.images[p], image_id=n, file_name=f"{n}.png") for n, p in enumerate(copies))
    )
    expected = plain_pycocotools(
        tmp_path, again, [replace(predictions[p], image_id=n, file_name=f"{n}.png") for n, p in enumerate(copies)], kind
    )
    assert row[:3] == pytest.approx([float(value) for value in expected.stats[:3]], abs=1e-12)


def test_more_than_a_hundred_detections_of_an_image_are_cut_as_in_pycocotools(tmp_path):
    rng = np.random.default_rng(0)
    boxes = [(x, y, x + 20, y + 20) for x, y in rng.integers(0, 79, (150, 2))]
    data = dataset(image(1, lesion(boxes[0]), lesion(boxes[120])))
    predictions = [prediction(1, *((box, 0.9 - n / 200) for n, box in enumerate(boxes)))]
    expected = plain_pycocotools(tmp_path, data, predictions, "bbox")
    assert average_precision(data, predictions, "bbox")["AP"] == float(expected.stats[0])
