"""Import of COCO result lists, and what all formats share: images, classes, scores, masks, the model's facts."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from small_cases import box_mask

from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.predictions import read_predictions, write_predictions
from mammodet.errors import InputError
from mammodet.files import file_hash
from mammodet.imports import ImportOptions
from mammodet.imports.run import import_predictions
from mammodet.records import Dataset, ImageRecord, Lesion

HEIGHT, WIDTH = 100, 200
NAMES = ("images/im1.png", "images/im2.png", "images/im3.png")


def ground_truth(folder: Path, names=NAMES, categories=("mass", "calcification"), **more) -> Path:
    """Images of 100 x 200 (height x width) with ids from 1 and patients P1, P2, ...; the first has a mass."""
    lesion = Lesion("mass", (10.0, 20.0, 40.0, 60.0), None, "box")
    images = tuple(
        ImageRecord(
            number,
            name,
            (HEIGHT, WIDTH),
            patient_id=f"P{number}",
            laterality="L",
            view="CC",
            labels={"tumor": int(number == 1)},
            lesions=(lesion,) if number == 1 else (),
        )
        for number, name in enumerate(names, start=1)
    )
    write_coco(Dataset(categories, images, more), folder / "test.json")
    return folder / "test.json"


def write(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def entry(image_id=1, bbox=(10, 20, 30, 40), score=0.5, category_id=1, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox), "score": score, **more}


def take(folder: Path, value, source_format="coco", *, names=NAMES, categories=("mass", "calcification"), **options):
    """Predictions and summary of a results file with this content."""
    source = write(folder / "results.json", value)
    return import_predictions(source_format, source, ground_truth(folder, names, categories), ImportOptions(**options))


def refusal(folder: Path, value, source_format="coco", **options) -> str:
    with pytest.raises(InputError) as caught:
        take(folder, value, source_format, **options)
    return str(caught.value)


def found(prediction):
    """Boxes, scores and categories of an image, as lists."""
    detections = prediction.detections
    return detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.category_ids.tolist()


def test_coco_results_become_one_entry_per_image(tmp_path):
    predictions, summary = take(
        tmp_path, [entry(1, (10, 20, 30, 40), 0.25), entry(3, (0, 0, 200, 100), 0.5, 2), entry(1, (1, 2, 3, 4), 0.75)]
    )
    assert predictions.categories == ("mass", "calcification")
    assert [image.file_name for image in predictions.images] == list(NAMES)
    first, second, third = predictions.images
    assert found(first) == ([[1, 2, 4, 6], [10, 20, 40, 60]], [0.75, 0.25], [1, 1])  # strongest first
    assert found(second) == ([], [], [])
    assert found(third) == ([[0, 0, 200, 100]], [0.5], [2])
    assert (first.image_id, first.size_hw, first.patient_id, first.laterality, first.view) == (
        *(1, (100, 200), "P1", "L", "CC"),
    )
    assert (summary.images, summary.images_with_detections, summary.detections, summary.masks) == (3, 2, 3, 0)
    assert first.scores == {}
    assert first.detections.rles is None


def test_an_empty_list_says_that_nothing_was_found(tmp_path):
    predictions, summary = take(tmp_path, [])
    assert [len(image.detections) for image in predictions.images] == [0, 0, 0]
    assert summary.detections == 0


def test_boxes_and_scores_keep_every_digit(tmp_path):
    box, score = (10.015625, 20.001953125, 30.00390625, 40.000244140625), 0.123456789012345
    predictions, _ = take(tmp_path, [entry(1, box, score)])
    x, y, w, h = box  # binary fractions: their sums are exact
    assert found(predictions.images[0]) == ([[x, y, x + w, y + h]], [score], [1])


def test_the_file_says_the_same_when_it_is_read(tmp_path):
    predictions, _ = take(tmp_path, [entry(1, (10.123, 20.5, 30.877, 40.25), 0.123456789012345), entry(3)])
    write_predictions(predictions, tmp_path / "preds ü.json")
    read = read_predictions(tmp_path / "preds ü.json")
    assert read.model == predictions.model
    assert read.categories == predictions.categories
    assert [found(image) for image in read.images] == [found(image) for image in predictions.images]
    assert read.images[0].detections.scores.tolist() == [0.123456789012345]
    assert [image.patient_id for image in read.images] == ["P1", "P2", "P3"]


def test_our_own_detections_come_back_from_a_coco_list(tmp_path):
    boxes = [(10, 20, 40, 60), (0, 0, 7, 3), (100, 50, 200, 100)]
    ours = [
        {
            "image_id": 2,
            "category_id": 1 + number % 2,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": 0.9 - number / 10,
            "segmentation": dict(box_mask(box, (HEIGHT, WIDTH))),
        }
        for number, box in enumerate(boxes)
    ]
    predictions, summary = take(tmp_path, ours, "detectron2")
    detections = predictions.images[1].detections
    assert detections.boxes_xyxy.tolist() == [list(map(float, box)) for box in boxes]
    assert detections.scores.tolist() == [item["score"] for item in ours]
    assert detections.category_ids.tolist() == [1, 2, 1]
    assert list(detections.rles) == [item["segmentation"] for item in ours]
    assert summary.masks == 3


@pytest.mark.parametrize(
    "name", ["im2", "im2.png", "images/im2.png", "/home/me/images/im2.png", "C:\\data\\images\\im2.jpg", "./im2.dcm"]
)
def test_text_ids_are_file_names_or_stems(tmp_path, name):
    predictions, _ = take(tmp_path, [entry(name)])
    assert [len(image.detections) for image in predictions.images] == [0, 1, 0]


def test_stems_with_points_spaces_and_umlauts_are_met(tmp_path):
    names = ("images/im.1.png", "images/im.png", "bilder/Mädchen 1.png")
    apart = unicodedata.normalize("NFD", "Mädchen 1")
    assert apart != "Mädchen 1"
    predictions, _ = take(tmp_path, [entry("im.1"), entry(apart, score=0.25)], names=names)
    assert [len(image.detections) for image in predictions.images] == [1, 0, 1]


def test_folders_decide_between_images_of_one_name(tmp_path):
    names = ("a/left/1.png", "b/left/1.png")
    predictions, _ = take(tmp_path, [entry("/data/b/left/1.png")], names=names)
    assert [len(image.detections) for image in predictions.images] == [0, 1]
    message = refusal(tmp_path, [entry("left/1.png")], names=names)
    assert "entry 0: image 'left/1.png' could be any of 2 images ('a/left/1.png', 'b/left/1.png')" in message


def test_two_names_for_one_image_are_refused(tmp_path):
    message = refusal(tmp_path, [entry("train/im1.png"), entry("test/im1.png")])
    assert "entry 1: 'train/im1.png' and 'test/im1.png' both mean image 'images/im1.png'; rename one" in message


def test_an_id_that_contradicts_its_file_name_is_refused(tmp_path):
    message = refusal(tmp_path, [entry(1, file_name="im2.png")])
    assert (
        "entry 0: image_id 1 is 'images/im1.png' in the ground truth, but the entry's file_name is 'im2.png'" in message
    )
    predictions, _ = take(tmp_path, [entry(1, file_name="im1.png")])
    assert len(predictions.images[0].detections) == 1


def test_unknown_images_are_told_once_each_or_passed_over(tmp_path):
    items = [entry(9), entry(9, score=0.25), entry("im7"), entry(1)]
    message = refusal(tmp_path, items)
    assert "2 faults" in message
    assert "entry 0: image_id 9 is not in the ground truth, whose 3 ids lie between 1 and 3" in message
    assert "; 2 times in all" in message
    assert "entry 2: image 'im7' is not in the ground truth; its file names are such as 'images/im1.png'" in message
    assert "--ignore-unknown-images" in message
    predictions, summary = take(tmp_path, items, ignore_unknown_images=True)
    assert [len(image.detections) for image in predictions.images] == [1, 0, 0]
    assert summary.counts["entries of unknown images, left out"] == 3
    assert "entries of unknown images, left out: 3" in summary.to_text()


def test_all_faults_of_coco_entries_are_told_at_once(tmp_path):
    source = """[
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, -30, 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 0], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, NaN, 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, "30", 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [190, 20, 30, 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": "0.5"},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": NaN},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]},
        {"image_id": 1, "category_id": "1", "bbox": [10, 20, 30, 40], "score": 0.5},
        {"image_id": true, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30], "score": 0.5},
        {"image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], "score": 87.5},
        17,
        {"image_id": 1, "category_id": 1, "bbox": [300, 20, 1e999, 40], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 1%s}
    ]"""
    message = refusal(tmp_path, source % ("0" * 400))
    at = "(image 'images/im1.png'): "
    for line in (
        f"entry 0 {at}bbox [10, 20, -30, 40] (xywh px) is empty; expected a positive width and height",
        f"entry 1 {at}bbox [10, 20, 30, 0] (xywh px) is empty",
        f"entry 2 {at}bbox is [10, 20, nan, 40]; expected x, y, width and height in pixels",
        f"entry 3 {at}bbox is [10, 20, '30', 40]; expected",
        f"entry 4 {at}bbox [190, 20, 30, 40] (xywh px) leaves the image by 20 px (it is 100x200, height x width)",
        f"entry 5 {at}score is '0.5'; expected a number",
        f"entry 6 {at}score is nan; expected a number",
        f"entry 7 {at}score is missing; --default-score",
        f"entry 8 {at}category_id is '1'; expected a whole number",
        "entry 9: image_id is True; expected a whole number, or a file name",
        f"entry 10 {at}bbox is [10, 20, 30]; expected",
        f"entry 11 {at}score is 87.5; expected a number in [0, 1] (--score-scale percent is for 0 to 100",
        "entry 11: class id 7 is not known; the ground truth has 1 'mass', 2 'calcification'. Say --category-map '7=",
        "entry 12: is 17; expected an object",
        f"entry 13 {at}bbox is [300, 20, inf, 40]; expected",
        f"entry 14 {at}score is 100000",
    ):
        assert line in message
    assert message.startswith(f"{tmp_path / 'results.json'}: 16 faults\n")
    assert "\nEntries are counted from 0. Nothing was written" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"image_id": 1, "bbox": [1, 2', "is not valid JSON, or was cut short"),
        ({"annotations": [], "images": []}, "is an object with ['annotations', 'images']; expected a list"),
        ("3", "is 3; expected a list of detections"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_result_list_is_refused(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


def test_other_files_of_detectron2_are_refused_by_name(tmp_path):
    truth = ground_truth(tmp_path)
    with pytest.raises(InputError, match=r"is a folder; name the results file in it, .*coco_instances_results\.json"):
        import_predictions("detectron2", tmp_path, truth)
    with pytest.raises(InputError, match=r"a pickle can run code .* coco_instances_results\.json"):
        import_predictions("detectron2", tmp_path / "instances_predictions.pth", truth)
    with pytest.raises(InputError, match="no such file"):
        import_predictions("coco", tmp_path / "none.json", truth)


def test_a_box_over_the_border_by_a_pixel_is_cut_and_a_larger_one_on_demand(tmp_path):
    predictions, summary = take(tmp_path, [entry(1, (-0.5, -1, 30, 40)), entry(2, (190, 90, 11, 11))])
    assert found(predictions.images[0])[0] == [[0, 0, 29.5, 39]]
    assert found(predictions.images[1])[0] == [[190, 90, 200, 100]]
    assert summary.counts["boxes cut to the image"] == 2
    predictions, _ = take(tmp_path, [entry(1, (190, 90, 60, 60))], clip_boxes=True)
    assert found(predictions.images[0])[0] == [[190, 90, 200, 100]]
    message = refusal(tmp_path, [entry(1, (210, 90, 60, 60))], clip_boxes=True)
    assert "has nothing inside the image (100x200, height x width)" in message


def test_shares_in_place_of_pixels_are_refused(tmp_path):
    assert "no box reaches beyond 0.9 px: these are shares of the width and height" in refusal(
        tmp_path, [entry(1, (0.5, 0.5, 0.25, 0.4))]
    )


def test_copies_of_a_detection_are_refused_but_not_another_score(tmp_path):
    message = refusal(tmp_path, [entry(1), entry(2), entry(1)])
    assert "entry 2 (image 'images/im1.png'): is the same detection as entry 0; leave one of them out" in message
    assert "1 fault\n" in message
    predictions, _ = take(tmp_path, [entry(1), entry(1, score=0.25), entry(1, category_id=2)])
    assert len(predictions.images[0].detections) == 3


def test_masks_of_every_form_become_the_same_run_lengths(tmp_path):
    # Columns 10 to 13 of rows 20 to 24; a run goes down a column of 100 pixels.
    runs = [10 * 100 + 20, 5, 95, 5, 95, 5, 95, 5, 100 * 200 - 13 * 100 - 25]
    mask = dict(box_mask((10, 20, 14, 25), (HEIGHT, WIDTH)))
    outline = [[10, 20, 14, 20, 14, 25, 10, 25]]
    items = [
        entry(number, (10, 20, 4, 5), segmentation=value)
        for number, value in enumerate([mask, {"size": [100, 200], "counts": runs}, outline], start=1)
    ]
    predictions, _ = take(tmp_path, items)
    assert [image.detections.rles for image in predictions.images] == [[mask], [mask], [mask]]


def test_a_box_that_is_missing_is_that_of_the_mask(tmp_path):
    item = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": box_mask((10, 20, 14, 25), (HEIGHT, WIDTH))}
    predictions, _ = take(tmp_path, [item])
    assert found(predictions.images[0])[0] == [[10, 20, 14, 25]]


def test_faulty_masks_are_told(tmp_path):
    turned = dict(box_mask((10, 20, 14, 25), (WIDTH, HEIGHT)))
    cut = {"size": [HEIGHT, WIDTH], "counts": box_mask((10, 20, 14, 25), (HEIGHT, WIDTH))["counts"][:-1]}
    message = refusal(
        tmp_path,
        [
            entry(1, segmentation=turned),
            entry(1, segmentation=cut),
            entry(1, segmentation=[[1, 2, 3, 4]]),
            entry(1, segmentation={"size": [100, 200], "counts": [5, 5]}),
            entry(1, segmentation="mask.png"),
        ],
    )
    assert "entry 0 (image 'images/im1.png'): segmentation cannot be read (size is [200, 100], the image is" in message
    assert "entry 1 (image 'images/im1.png'): segmentation cannot be read (" in message
    assert "a polygon needs at least three x, y pairs" in message
    assert "run lengths cover 10 pixels, the image has 20000" in message
    assert "is 'mask.png'; expected run lengths or polygons" in message
    assert "5 faults" in message


def test_masks_without_a_pixel_are_kept_and_counted(tmp_path):
    empty = dict(box_mask((0, 0, 0, 0), (HEIGHT, WIDTH)))
    items = [
        entry(1, segmentation=empty),
        entry(2, segmentation={"size": [100, 200], "counts": [20000]}),
        entry(3, segmentation=dict(box_mask((10, 20, 14, 25), (HEIGHT, WIDTH)))),
    ]
    predictions, summary = take(tmp_path, items)
    assert predictions.images[0].detections.rles == predictions.images[1].detections.rles == [empty]
    assert summary.counts["masks without a pixel"] == 2


def test_masks_for_some_detections_are_refused_or_left_out(tmp_path):
    mask = dict(box_mask((10, 20, 14, 25), (HEIGHT, WIDTH)))
    items = [entry(1, segmentation=mask), entry(2), entry(3, segmentation=[])]
    assert "entry 1: has no segmentation, as 2 of 3 detections" in refusal(tmp_path, items)
    predictions, summary = take(tmp_path, items, boxes_only=True)
    assert all(image.detections.rles is None for image in predictions.images)
    assert summary.masks == 0


def test_an_image_without_detections_fits_a_file_with_masks(tmp_path):
    predictions, _ = take(tmp_path, [entry(1, segmentation=dict(box_mask((10, 20, 14, 25), (HEIGHT, WIDTH))))])
    assert [image.detections.rles is None for image in predictions.images] == [False, False, False]


def test_score_scales(tmp_path):
    items = [entry(1, score=75), entry(2, score=0)]
    predictions, _ = take(tmp_path, items, score_scale="percent")
    assert [image.detections.scores.tolist() for image in predictions.images] == [[0.75], [0.0], []]
    items = [entry(1, score=math.log(3)), entry(2, score=-math.log(3)), entry(3, score=-800)]
    predictions, _ = take(tmp_path, items, score_scale="sigmoid")
    scores = [image.detections.scores[0] for image in predictions.images]
    assert scores == pytest.approx([0.75, 0.25, 0])
    assert "score is 101; expected a number from 0 to 100" in refusal(
        tmp_path, [entry(score=101)], score_scale="percent"
    )


def test_scores_that_are_missing_are_filled_on_demand_alone(tmp_path):
    item = entry()
    del item["score"]
    predictions, summary = take(tmp_path, [item, entry(2, score=0.25)], default_score=1.0)
    assert [image.detections.scores.tolist() for image in predictions.images] == [[1.0], [0.25], []]
    assert summary.counts["detections without a score, given --default-score"] == 1


def test_image_scores_are_made_by_the_rule_that_was_asked_for(tmp_path):
    items = [entry(1, score=0.5), entry(1, (1, 2, 3, 4), score=0.2), entry(2, score=0.25)]
    predictions, _ = take(tmp_path, items, image_score=("max",))
    assert [image.scores for image in predictions.images] == [{"tumor": 0.5}, {"tumor": 0.25}, {"tumor": 0.0}]
    predictions, _ = take(tmp_path, items, image_score=("noisy_or",))
    assert [image.scores["tumor"] for image in predictions.images] == pytest.approx([0.6, 0.25, 0])  # 1 - 0.5 * 0.8
    assert predictions.model["options"]["image_score"] == "noisy_or"


def test_keep_top_keeps_the_strongest_of_each_image(tmp_path):
    items = [entry(1, (number, 0, 5, 5), score=score) for number, score in enumerate([0.25, 0.75, 0.5])] + [entry(2)]
    predictions, summary = take(tmp_path, items, keep_top=2)
    assert predictions.images[0].detections.scores.tolist() == [0.75, 0.5]
    assert len(predictions.images[1].detections) == 1
    assert summary.counts["detections below --keep-top"] == 1
    assert summary.detections == 3


def test_a_category_map_renames_merges_and_leaves_out(tmp_path):
    items = [entry(1, category_id=0), entry(2, category_id=5), entry(3, category_id=9)]
    pairs = ("0=calcification", "5=calcification", "9=")
    predictions, summary = take(tmp_path, items, category_map=pairs)
    assert [image.detections.category_ids.tolist() for image in predictions.images] == [[2], [2], []]
    assert summary.counts["detections of classes that --category-map leaves out"] == 1
    assert predictions.model["options"]["category_map"] == {"0": "calcification", "5": "calcification", "9": None}


def test_with_a_category_map_ids_are_never_taken_as_ours(tmp_path):
    # Classes that count from 0: an id 1 that happens to be one of ours must not pass for it.
    message = refusal(tmp_path, [entry(1, category_id=1)], category_map=("0=mass",))
    assert "entry 0: class id 1 is not known" in message


def test_a_category_map_to_an_unknown_name_is_refused(tmp_path):
    message = refusal(tmp_path, [], category_map=("0=Mass",))
    assert message == ("--category-map 0=Mass: the ground truth has no category 'Mass'; it has 'mass', 'calcification'")


def test_category_names_beside_the_ids_come_first(tmp_path):
    predictions, _ = take(tmp_path, [entry(1, category_id=0, category_name="Calcification")])
    assert predictions.images[0].detections.category_ids.tolist() == [2]


def test_the_model_says_where_it_came_from(tmp_path):
    train = ground_truth(tmp_path / "train", split={"hash": "abc"})
    (tmp_path / "other.pt").write_bytes(b"weights")
    predictions, summary = take(
        tmp_path, [entry()], name="theirs", train_json=(train,), checkpoint_file=tmp_path / "other.pt"
    )
    model = predictions.model
    assert model["source"] == "coco"
    assert model["name"] == "theirs"
    assert model["imported_from"] == str(tmp_path / "results.json")
    assert model["imported_sha256"] == file_hash(tmp_path / "results.json")
    assert model["patients"] == ["P1", "P2", "P3"]
    assert model["data_hash"] == data_hash(read_coco(train))
    assert model["split_hash"] == "abc"
    assert model["predicted_data_hash"] == data_hash(read_coco(tmp_path / "test.json"))
    assert model["checkpoint_sha256"] == file_hash(tmp_path / "other.pt")
    assert summary.warnings == []


def test_a_training_set_that_is_not_named_stays_unknown(tmp_path):
    predictions, summary = take(tmp_path, [entry()])
    model = predictions.model
    assert (model["patients"], model["data_hash"], model["split_hash"], model["checkpoint_sha256"]) == (None,) * 4
    assert model["name"] == "results"
    assert summary.warnings == ["--train-json was not given: evaluation cannot check leakage, and will say so"]


def test_patients_of_all_training_sets_are_kept_and_missing_ones_told(tmp_path):
    train = ground_truth(tmp_path / "train", names=("a.png",))
    bare = Dataset(("mass",), (ImageRecord(1, "b.png", (5, 5)), ImageRecord(2, "c.png", (5, 5), patient_id="Q")))
    write_coco(bare, tmp_path / "val.json")
    predictions, summary = take(tmp_path, [entry()], train_json=(train, tmp_path / "val.json"))
    assert predictions.model["patients"] == ["P1", "Q"]
    assert predictions.model["data_hash"] == data_hash(read_coco(train))
    assert summary.warnings == ["1 of 3 training images have no patient: they may leak unseen"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_top": 0}, "--keep-top 0: expected a whole number of 1 or more"),
        ({"default_score": 1.5}, "--default-score 1.5: expected a number from 0 to 1"),
        ({"score_scale": "log"}, "--score-scale log: expected one of none, percent, sigmoid"),
        ({"checkpoint_file": Path("none.pt")}, "--checkpoint-file none.pt: no such file"),
        ({"train_json": (Path("none.json"),)}, "none.json: no such file"),
    ],
)
def test_faulty_options_are_refused(tmp_path, options, words):
    assert words in refusal(tmp_path, [], **options)


def test_scores_fall_and_equal_ones_keep_their_order(tmp_path):
    items = [entry(1, (number, 0, 5, 5), score=0.5) for number in range(4)]
    predictions, _ = take(tmp_path, items)
    assert predictions.images[0].detections.boxes_xyxy[:, 0].tolist() == [0, 1, 2, 3]
    assert np.all(np.diff(predictions.images[0].detections.scores) <= 0)
