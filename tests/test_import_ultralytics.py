"""Import of Ultralytics results: predictions.json, and summaries per image."""

from __future__ import annotations

import json

import pytest
from small_cases import box_mask
from test_import_coco import HEIGHT, WIDTH, entry, found, ground_truth, refusal, take, write

from mammodet.errors import InputError
from mammodet.imports import ImportOptions
from mammodet.imports.run import import_predictions

MAP = ("0=mass",)


def detection(box=(10, 20, 40, 60), confidence=0.5, name="Mass", number=0, **more):
    corners = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    return {"name": name, "class": number, "confidence": confidence, "box": corners, **more}


def outline(*points):
    return {"x": [point[0] for point in points], "y": [point[1] for point in points]}


SQUARE = outline((10, 20), (14, 20), (14, 25), (10, 25))


def test_image_ids_of_a_validation_are_stems_as_numbers_where_they_can_be(tmp_path):
    # The stem 0002 is written as 2, which is the id of another image here.
    names = ("images/0003.png", "images/0002.png", "images/a 1.png")
    items = [entry(2, category_id=0), entry("a 1", score=0.25, category_id=0)]
    predictions, _ = take(tmp_path, items, "ultralytics", names=names, category_map=MAP)
    assert [image.detections.scores.tolist() for image in predictions.images] == [[], [0.5], [0.25]]


def test_a_number_that_is_no_stem_is_not_taken_as_an_id(tmp_path):
    message = refusal(tmp_path, [entry(2, category_id=0)], "ultralytics", category_map=MAP)
    assert "entry 0: image_id 2, the number of a file name, is not in the ground truth" in message


def test_the_file_name_of_newer_versions_comes_first(tmp_path):
    names = ("images/0003.png", "images/0003 b.png")
    items = [entry(3, category_id=0, file_name="0003 b.png")]
    predictions, _ = take(tmp_path, items, "ultralytics", names=names, category_map=MAP)
    assert [len(image.detections) for image in predictions.images] == [0, 1]


def test_numbers_of_classes_are_never_guessed(tmp_path):
    # Versions differ in whether the classes of predictions.json count from 0 or from 1.
    message = refusal(tmp_path, [entry("im1", category_id=1)], "ultralytics")
    assert "class id 1 is not known; the ground truth has 1 'mass', 2 'calcification'" in message


def test_summaries_by_file_name_are_read(tmp_path):
    value = {"/data/images/im2.png": [detection(), detection((1, 2, 3, 4), 0.75, "calcification", 1)], "im1.png": []}
    predictions, summary = take(tmp_path, value, "ultralytics")
    assert found(predictions.images[1]) == ([[1, 2, 3, 4], [10, 20, 40, 60]], [0.75, 0.5], [2, 1])
    assert found(predictions.images[0]) == ([], [], [])
    assert summary.detections == 2


def test_the_text_of_to_json_is_read(tmp_path):
    predictions, _ = take(tmp_path, {"im1.png": json.dumps([detection()])}, "ultralytics")
    assert found(predictions.images[0])[0] == [[10, 20, 40, 60]]
    assert "'im1.png' (image 'images/im1.png'): its text is no JSON, or was cut short" in refusal(
        tmp_path, {"im1.png": '[{"name"'}, "ultralytics"
    )


def test_a_folder_of_summaries_is_read(tmp_path):
    folder = tmp_path / "zusammen fassungen ä"
    write(folder / "im1.json", [detection()])
    write(folder / "im3.json", [])
    predictions, _ = import_predictions("ultralytics", folder, ground_truth(tmp_path), ImportOptions())
    assert [len(image.detections) for image in predictions.images] == [1, 0, 0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.json file"):
        import_predictions("ultralytics", tmp_path / "empty", ground_truth(tmp_path), ImportOptions())


def test_segments_become_masks_and_a_speck_an_empty_one(tmp_path):
    speck = outline((3, 3))
    value = {"im1": [detection((10, 20, 14, 25), 0.5, segments=SQUARE), detection((3, 3, 4, 4), 0.25, segments=speck)]}
    predictions, summary = take(tmp_path, value, "ultralytics")
    size_hw = (HEIGHT, WIDTH)
    assert list(predictions.images[0].detections.rles) == [
        box_mask((10, 20, 14, 25), size_hw),
        box_mask((0, 0, 0, 0), size_hw),
    ]
    assert summary.counts["masks without a pixel"] == 1


def test_an_outline_without_area_is_an_empty_mask(tmp_path):
    line = outline((3.1, 3.1), (3.2, 3.2), (3.1, 3.1))
    predictions, summary = take(tmp_path, {"im1": [detection(segments=line)]}, "ultralytics")
    assert list(predictions.images[0].detections.rles) == [box_mask((0, 0, 0, 0), (HEIGHT, WIDTH))]
    assert summary.counts["masks without a pixel"] == 1


def test_normalized_summaries_are_scaled_on_demand_and_else_refused(tmp_path):
    square = outline((0.05, 0.2), (0.07, 0.2), (0.07, 0.25), (0.05, 0.25))
    value = {"im1": [detection((0.05, 0.2, 0.07, 0.25), segments=square)]}
    predictions, _ = take(tmp_path, value, "ultralytics", coordinates="normalized")
    assert predictions.images[0].detections.boxes_xyxy[0].tolist() == pytest.approx([10, 20, 14, 25])
    assert list(predictions.images[0].detections.rles) == [box_mask((10, 20, 14, 25), (HEIGHT, WIDTH))]
    assert "not pixels; say --coordinates normalized" in refusal(
        tmp_path, {"im1": [detection((0, 0, 0.5, 0.5))]}, "ultralytics"
    )


def test_all_faults_of_summaries_are_told_at_once(tmp_path):
    turned = detection()
    turned["box"] |= {"x3": 1, "y3": 2, "x4": 3, "y4": 4}
    without = detection()
    del without["box"]
    value = {
        "im1": [
            17,
            detection(number="0"),
            detection(confidence="high"),
            turned,
            without,
            detection((10, 20, 10, 60)),
            detection(segments={"x": [1, 2], "y": [1]}),
            detection(segments={"x": [1, 2, "3"], "y": [1, 2, 3]}),
            detection(name="nodule"),
            {"confidence": 0.5, "box": {}},
        ],
        "im9": [detection()],
        "im2": 5,
    }
    message = refusal(tmp_path, value, "ultralytics")
    at = "(image 'images/im1.png'): "
    for line in (
        f"'im1' entry 0 {at}is 17; expected an object",
        f"'im1' entry 1 {at}class is '0', name 'Mass'; expected a number and a text",
        f"'im1' entry 2 {at}confidence is 'high'; expected a number",
        f"'im1' entry 3 {at}box is ",
        "a turned one; expected x1, y1, x2 and y2 alone",
        f"'im1' entry 4 {at}box is None; expected an object of x1, y1, x2 and y2",
        f"'im1' entry 5 {at}box [10, 20, 10, 60] (px) is empty",
        f"'im1' entry 6 {at}segments are ",
        "expected lists x and y of one length",
        f"'im1' entry 7 {at}segments are ",
        "'im1' entry 8: class 'nodule' is not known",
        f"'im1' entry 9 {at}has neither 'class' nor 'name'",
        "'im9': image 'im9' is not in the ground truth",
        "'im2' (image 'images/im2.png'): is 5; expected a list of detections",
    ):
        assert line in message, line


def test_summaries_that_name_no_image_are_refused_with_the_way_on(tmp_path):
    message = refusal(tmp_path, [[detection()], []], "ultralytics")
    assert "a summary alone does not say of which image it is" in message
    assert "json.dump({result.path: result.summary() for result in results}, file)" in message
