"""The data set file: there and back, read by pycocotools, and every kind of damage told in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools.coco import COCO
from small_dataset import disc_rle, fault_of, full_dataset, plain, read, tiny

from mammodet.data.coco import data_hash, from_json, read_coco, to_json, write_coco
from mammodet.errors import InputError
from mammodet.geometry import circle_mask, rle_area, rle_to_mask
from mammodet.records import Dataset, ImageRecord, Lesion


def test_dataset_comes_back_with_every_field(tmp_path):
    dataset = full_dataset()
    write_coco(dataset, tmp_path / "all.json")
    back = read_coco(tmp_path / "all.json")
    assert back.categories == dataset.categories
    assert back.images == dataset.images
    assert back.info == {"format": "mammodet-coco/1", **dataset.info}
    assert data_hash(back) == data_hash(dataset)


def test_data_hash_survives_writing_for_any_box(tmp_path):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 1000, (200, 2, 2)), axis=1).reshape(-1, 4)
    lesions = tuple(Lesion("mass", tuple(float(side) for side in box), None, "box") for box in corners)
    dataset = Dataset(("mass",), (ImageRecord(1, "a.png", (1000, 1000), spacing_mm_rc=(1, 1), lesions=lesions),))
    write_coco(dataset, tmp_path / "all.json")
    back = read_coco(tmp_path / "all.json")
    assert data_hash(back) == data_hash(dataset)
    boxes = [lesion.box_xyxy for lesion in back.images[0].lesions]
    assert np.array(boxes) == pytest.approx(corners, abs=1e-5)


def test_data_hash_sees_lesions_but_not_provenance():
    dataset = full_dataset()
    renamed = Dataset(dataset.categories, dataset.images, {"archive": "y"})
    assert data_hash(renamed) == data_hash(dataset)
    assert data_hash(Dataset(dataset.categories, dataset.images[1:])) != data_hash(dataset)


def test_file_is_valid_for_pycocotools(tmp_path):
    dataset = full_dataset()
    write_coco(dataset, tmp_path / "all.json")
    coco = COCO(str(tmp_path / "all.json"))
    assert sorted(coco.getImgIds()) == [3, 7]
    assert [item["name"] for item in coco.loadCats([1, 2])] == ["mass", "calcification"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[7]))
    assert [item["id"] for item in annotations] == [1, 2, 3]
    assert annotations[0]["bbox"] == [5, 5, 10, 10]
    disc = circle_mask((10, 10), 5, (40, 30))
    assert np.array_equal(coco.annToMask(annotations[0]), disc)
    assert annotations[0]["area"] == disc.sum()
    assert [item["iscrowd"] for item in annotations] == [0, 1, 0]
    assert annotations[1]["area"] == 9.5 * 7.75
    assert coco.getAnnIds(imgIds=[3]) == []


def test_file_without_annotations_keeps_its_images(tmp_path):
    dataset = Dataset(("lesion",), (ImageRecord(1, "a.png", (4, 5)),))
    write_coco(dataset, tmp_path / "all.json")
    assert read_coco(tmp_path / "all.json").images == dataset.images
    value = tiny()
    del value["annotations"]
    assert [image.lesions for image in read(tmp_path, value).images] == [(), ()]


def test_plain_coco_is_read_with_defaults(tmp_path):
    dataset = read(tmp_path, plain())
    first, second = dataset.images
    (lesion,) = first.lesions
    assert (lesion.category, lesion.box_xyxy, lesion.geometry, lesion.ignore) == (
        "mass",
        (5, 5, 15, 15),
        "contour",
        False,
    )
    assert (first.labels, first.split, first.unlocalized, first.has_complete_boxes) == ({}, None, False, True)
    assert (second.lesions, second.labels, second.unlocalized, dataset.info["unknown"]) == ((), {}, True, 1)


def test_image_without_annotations_is_background_only_where_the_file_says_so(tmp_path):
    value = plain()
    value["images"][1]["labels"] = {"tumor": 0}
    dataset = read(tmp_path, value)
    assert (dataset.images[1].unlocalized, "unknown" in dataset.info) == (False, False)
    assert not read(tmp_path, tiny()).images[1].unlocalized  # our converters write what is not known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [15, 25, 10, 10]}, "contradicts its outline"),
        ({"attributes": {"rotation": 30.0}}, "its box is turned (rotation)"),
        ({"bbox": [0.2, 0.1, 0.3, 0.2], "segmentation": None}, "lies within one pixel"),
        ({"iscrowd": 1}, "all 1 annotations are marked iscrowd"),
    ],
)
def test_what_other_tools_leave_open_is_refused(tmp_path, change, message):
    value = plain()
    value["annotations"][0] |= change
    assert message in fault_of(tmp_path, value)
    if "iscrowd" not in change:
        assert read(tmp_path, value, skip_invalid=True).images[0].unlocalized


def test_annotation_without_segmentation_is_a_box(tmp_path):
    for empty in (None, [], {}):
        value = tiny()
        value["annotations"][0]["segmentation"] = empty
        (lesion,) = read(tmp_path, value).images[0].lesions
        assert (lesion.rle, lesion.geometry) == (None, "box")


def test_polygon_becomes_run_lengths(tmp_path):
    value = tiny()
    value["annotations"][0]["segmentation"] = [[5, 5, 15, 5, 15, 15, 5, 15]]
    (lesion,) = read(tmp_path, value).images[0].lesions
    rows, columns = np.nonzero(rle_to_mask(lesion.rle))
    assert rle_area(lesion.rle) == 100
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 5, 14)


def test_two_polygons_are_one_mask(tmp_path):
    value = tiny()
    value["annotations"][0]["segmentation"] = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]]
    (lesion,) = read(tmp_path, value).images[0].lesions
    assert rle_area(lesion.rle) == 32


def test_plain_run_lengths_are_read_column_by_column(tmp_path):
    value = tiny()
    # 5 empty columns of 40; then row 2 and 3 of the sixth
    value["annotations"][0]["segmentation"] = {"size": [40, 30], "counts": [202, 2, 996]}
    (lesion,) = read(tmp_path, value).images[0].lesions
    assert np.argwhere(rle_to_mask(lesion.rle)).tolist() == [[2, 5], [3, 5]]


def test_ignore_and_iscrowd_both_mean_ignore(tmp_path):
    for key, mark in (("ignore", 1), ("iscrowd", 1), ("ignore", True)):
        value = tiny()
        value["annotations"][0][key] = mark
        image = read(tmp_path, value).images[0]
        assert image.lesions[0].ignore
        assert not image.has_complete_boxes


def test_box_over_the_border_by_a_few_pixels_is_cut_and_listed(tmp_path):
    value = tiny()
    value["annotations"][0]["bbox"] = [20, 30, 10.0005, 10]
    dataset = read(tmp_path, value)
    assert dataset.images[0].lesions[0].box_xyxy == pytest.approx((20, 30, 30.0005, 40))
    assert "clipped" not in dataset.info
    value["annotations"][0]["bbox"] = [-2, 30, 12, 13]
    dataset = read(tmp_path, value)
    assert dataset.images[0].lesions[0].box_xyxy == (0, 30, 10, 40)
    assert ["annotation 11" in line for line in dataset.info["clipped"]] == [True]
    value["annotations"][0]["bbox"] = [20, 30, 13.1, 10]
    assert "leaves the image (width 30)" in fault_of(tmp_path, value)
    value["annotations"][0]["bbox"] = [30, 30, 2, 10]
    assert "has nothing inside the image" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("bbox", [25, 5, 10, 10], "bbox [25.0, 5.0, 10.0, 10.0] (xywh px) leaves the image (width 30)"),
        ("bbox", [5, 35, 10, 10], "leaves the image (height 40)"),
        ("bbox", [-4, 5, 10, 10], "leaves the image (negative corner)"),
        ("bbox", [5, 5, 0, 10], "is empty; expected a positive width and height"),
        ("bbox", [5, 5, -3, 10], "is empty"),
        ("bbox", [5, 5, 10], "'bbox' is [5, 5, 10]; expected 4 finite numbers"),
        ("bbox", [True, 5, 10, 10], "expected 4 finite numbers"),
        ("bbox", ["5", 5, 10, 10], "expected 4 finite numbers"),
        ("bbox", [10**400, 5, 10, 10], "expected 4 finite numbers"),
        ("bbox", "5 5 10 10", "'bbox' is '5 5 10 10'; expected list"),
        ("bbox", None, "'bbox' is missing"),
        ("image_id", 99, "image_id 99 is not among the (valid) images"),
        ("image_id", "1", "'image_id' is '1'; expected int"),
        ("image_id", True, "'image_id' is True; expected int"),
        ("image_id", 1.0, "'image_id' is 1.0; expected int"),
        ("category_id", 2, "category_id 2; expected one of [1]"),
        ("category_id", 0, "category_id 0; expected one of [1]"),
        ("id", None, "'id' is missing"),
        ("id", "x", "'id' is 'x'; expected int"),
        ("geometry", "guess", "geometry 'guess'; expected one of contour, circle, box"),
        ("geometry", 3, "'geometry' is 3; expected str"),
        ("attributes", ["x"], "'attributes' is ['x']; expected dict"),
        ("ignore", "no", "'ignore' is 'no'; expected 0, 1, false or true"),
        ("iscrowd", 2, "'iscrowd' is 2; expected 0, 1"),
        ("segmentation", "abc", "segmentation cannot be read (is 'abc'"),
        ("segmentation", 5, "segmentation cannot be read (is 5"),
        ("segmentation", 0, "segmentation cannot be read (is 0"),
        ("segmentation", {"counts": "abc"}, "size is None, the image is [40, 30]"),
        (
            "segmentation",
            {"size": [30, 40], "counts": [1200]},
            "size is [30, 40], the image is [40, 30] (height, width)",
        ),
        ("segmentation", {"size": [40, 30]}, "counts is None"),
        ("segmentation", {"size": [40, 30], "counts": 7}, "counts is 7"),
        ("segmentation", {"size": [40, 30], "counts": []}, "run lengths cover 0 pixels, the image has 1200"),
        ("segmentation", {"size": [40, 30], "counts": [100, 1000]}, "cover 1100 pixels, the image has 1200"),
        ("segmentation", {"size": [40, 30], "counts": [1300, -100]}, "whole numbers from 0"),
        ("segmentation", {"size": [40, 30], "counts": [0.5, 1199.5]}, "whole numbers from 0"),
        ("segmentation", {"size": [40, 30], "counts": ["1200"]}, "whole numbers from 0"),
        ("segmentation", {"size": [40, 30], "counts": [1200]}, "it holds no pixel"),
        ("segmentation", {"size": [40, 30], "counts": ""}, "cover 0 pixels"),
        ("segmentation", {"size": [40, 30], "counts": "ä"}, "ascii"),
        ("segmentation", {"size": [40, 30], "counts": "0 0"}, "run lengths hold the character ' '"),
        ("segmentation", {"size": [40, 30], "counts": "oooo"}, "cut short"),
        ("segmentation", {"size": [40, 30], "counts": "o" * 100_000}, "more than 32 bits"),
        ("segmentation", {"size": [40, 30], "counts": "O"}, "negative run"),
        ("segmentation", [[1, 2, 3, 4]], "at least three x, y pairs"),
        ("segmentation", [[1, 2, 3, 4, 5, 6, 7]], "at least three x, y pairs"),
        ("segmentation", [[[1, 2], [3, 4], [5, 6]]], "at least three x, y pairs"),
        ("segmentation", [[1, 2, 3, 4, 5, None]], "something else than finite numbers"),
        ("segmentation", [["1", "2", "3", "4", "5", "nan"]], "something else than finite numbers"),
        ("segmentation", [[0, 0, 1e9, 0, 1e9, 1e9]], "a polygon leaves the image"),
        ("segmentation", [[0, 0, 5, -1e9, 5, 5]], "a polygon leaves the image"),
        ("segmentation", [5], "at least three"),
    ],
)
def test_bad_annotation_is_named_with_its_value(tmp_path, key, content, message):
    value = tiny()
    value["annotations"][0][key] = content
    if content is None:
        del value["annotations"][0][key]
    text = fault_of(tmp_path, value)
    assert "1 fault" in text
    assert message in text
    assert "annotation 11" in text or key == "id"
    if key not in ("image_id",):
        assert "image 'a.png' (id 1)" in text or "annotation" in text


def test_annotation_fault_names_image_annotation_and_advice(tmp_path):
    value = tiny()
    value["annotations"][0]["bbox"] = [25, 5, 10, 10]
    assert fault_of(tmp_path, value).split("\n")[1:] == [
        "  - image 'a.png' (id 1), annotation 11: bbox [25.0, 5.0, 10.0, 10.0] (xywh px) leaves the image (width 30)",
        "Re-run the converter, or mend the file.",
    ]


def test_truncated_run_lengths_are_refused_before_the_decoder_sees_them(tmp_path):
    counts = disc_rle((10, 10), 5)["counts"]
    for length in range(1, len(counts)):
        value = tiny()
        value["annotations"][0]["segmentation"]["counts"] = counts[:length]
        assert "segmentation cannot be read (" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("id", None, "'id' is missing"),
        ("id", "1", "'id' is '1'; expected int"),
        ("id", True, "'id' is True; expected int"),
        ("file_name", None, "'file_name' is missing"),
        ("file_name", 5, "'file_name' is 5; expected str"),
        ("file_name", "", "file_name '' names no file"),
        ("file_name", ".", "file_name '.' names no file"),
        ("file_name", "./", "names no file"),
        ("file_name", "/etc/passwd", "file_name '/etc/passwd' leaves the data root"),
        ("file_name", "../a.png", "leaves the data root"),
        ("file_name", "images/../../a.png", "leaves the data root"),
        ("file_name", "..\\a.png", "leaves the data root"),
        ("file_name", "images\\..\\..\\a.png", "leaves the data root"),
        ("file_name", "\\\\server\\share\\a.png", "leaves the data root"),
        ("file_name", "C:\\a.png", "leaves the data root"),
        ("file_name", "a.png\0.txt", "leaves the data root"),
        ("height", 0, "'height' is 0; expected 1 to 100000 px"),
        ("height", 10**30, "expected 1 to 100000 px"),
        ("width", 40.0, "'width' is 40.0; expected int"),
        ("width", None, "'width' is missing"),
        ("laterality", "left", "'laterality' is 'left'; expected 'L', 'R' or null"),
        ("split", "training", "'split' is 'training'; expected 'train', 'val', 'test' or null"),
        ("labels", {"tumor": 2}, "label 'tumor' is 2; expected 0, 1 or null"),
        ("labels", {"tumor": True}, "label 'tumor' is True"),
        ("labels", {"tumor": 1.0}, "label 'tumor' is 1.0"),
        ("labels", [1], "'labels' is [1]; expected dict"),
        ("spacing_mm_rc", [0.2, 0], "'spacing_mm_rc' is [0.2, 0.0]; expected two positive numbers (mm)"),
        ("spacing_mm_rc", [0.2], "expected 2 finite numbers"),
        ("breast_bbox", [0, 0, 31, 40], "breast_bbox [0.0, 0.0, 31.0, 40.0] (xywh px) leaves the image (width 30)"),
        ("patient_id", 17, "'patient_id' is 17; expected str"),
        ("unlocalized", "yes", "'unlocalized' is 'yes'; expected 0, 1, false or true"),
        ("notes", "text", "'notes' is 'text'; expected list"),
        ("trace", {}, "'trace' cannot be read ('native_size_hw')"),
        ("trace", {"native_size_hw": [80, 60], "steps": []}, "'trace' ends at (80, 60) (height, width)"),
        ("trace", {"native_size_hw": [40.0, 30.0], "steps": []}, "'trace' cannot be read"),
        ("trace", {"native_size_hw": [80, 60], "steps": [["crop", 50, 0, 30, 40]]}, "leaves the image 80x60"),
    ],
)
def test_bad_image_is_named_with_its_value(tmp_path, key, content, message):
    value = tiny()
    value["annotations"] = []
    value["images"][0][key] = content
    if content is None:
        del value["images"][0][key]
    text = fault_of(tmp_path, value)
    assert "1 fault" in text
    assert message in text
    assert "image " in text


def test_bad_size_does_not_upset_the_checks_that_need_it(tmp_path):
    value = to_json(full_dataset())
    value["images"][0]["width"] = 10**400
    text = fault_of(tmp_path, value)
    assert "'width' is 1000" in text
    assert "'trace'" not in text


def test_image_of_too_many_pixels_is_refused(tmp_path):
    value = tiny()
    value["annotations"] = []
    value["images"][0] |= {"height": 50_000, "width": 50_000}
    assert "expected at most 1073741824 pixels" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "'categories' is empty"),
        ([{"id": 0, "name": "Mass"}], "category ids are [0]; expected 1 to 1, no gaps (0: background)"),
        ([{"id": 1, "name": "a"}, {"id": 3, "name": "b"}], "category ids are [1, 3]; expected 1 to 2"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "occurs more than once"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "occurs more than once"),
        ([{"id": True, "name": "a"}], "'id' is True; expected int"),
        ([{"id": 1}], "'name' is missing"),
        (["mass"], "category at position 0: is 'mass'; expected an object"),
    ],
)
def test_bad_categories_are_refused_even_when_skipping(tmp_path, categories, message):
    value = tiny() | {"categories": categories}
    assert message in fault_of(tmp_path, value)
    with pytest.raises(InputError):
        read(tmp_path, value, skip_invalid=True)


def test_categories_may_stand_in_any_order(tmp_path):
    value = tiny()
    value["categories"] = [{"id": 2, "name": "calcification"}, {"id": 1, "name": "mass"}]
    dataset = read(tmp_path, value)
    assert dataset.categories == ("mass", "calcification")
    assert dataset.images[0].lesions[0].category == "mass"


def test_doubled_ids_and_names_are_told(tmp_path):
    value = tiny()
    value["images"] += [value["images"][1] | {"file_name": "c.png"}, value["images"][1] | {"id": 4}]
    value["annotations"] *= 2
    lines = fault_of(tmp_path, value).split("\n")
    assert lines[1:4] == [
        "  - image 'c.png' (id 2): its id occurs more than once",
        "  - image 'b.png' (id 4): its file_name occurs more than once",
        "  - annotation 11: its id occurs more than once",
    ]


def test_all_faults_are_told_at_once(tmp_path):
    value = tiny()
    value["images"][1] |= {"height": 0, "laterality": "X", "file_name": "../b.png"}
    value["annotations"][0] |= {"bbox": [5, 5, 100, 100], "category_id": 9}
    value["annotations"].append({"id": 12, "image_id": 55, "category_id": 1, "bbox": [1, 1, 2, 2]})
    text = fault_of(tmp_path, value)
    assert "6 faults" in text
    for part in (
        "'height' is 0",
        "'laterality' is 'X'",
        "'../b.png' leaves",
        "category_id 9",
        "width 30",
        "image_id 55",
    ):
        assert part in text


def test_long_values_are_cut_in_messages(tmp_path):
    value = tiny()
    value["images"][0]["file_name"] = "../" + "x" * 100_000
    value["annotations"] = []
    assert len(fault_of(tmp_path, value)) < 1000


def test_skip_invalid_drops_and_lists_what_is_faulty(tmp_path):
    value = tiny()
    value["images"].append({"id": 3, "file_name": "../c.png", "height": 4, "width": 4})
    value["images"].append({"id": 4, "file_name": "a.png", "height": 40, "width": 30})
    value["annotations"].append(value["annotations"][0] | {"id": 12, "bbox": [0, 0, 99, 1]})
    value["annotations"].append(value["annotations"][0] | {"id": 13, "image_id": 3})
    dataset = read(tmp_path, value, skip_invalid=True)
    assert [(image.image_id, len(image.lesions)) for image in dataset.images] == [(1, 1), (2, 0)]
    assert len(dataset.info["dropped"]) == 4
    assert "annotation 12" in dataset.info["dropped"][2]


def test_outline_that_cannot_be_read_costs_the_outline_alone(tmp_path):
    value = tiny()
    value["annotations"][0]["segmentation"] = [[5, 5, 15, 15]]
    assert "segmentation cannot be read" in fault_of(tmp_path, value)
    dataset = read(tmp_path, value, skip_invalid=True)
    (lesion,) = dataset.images[0].lesions
    assert (lesion.box_xyxy, lesion.rle, lesion.geometry) == ((5, 5, 15, 15), None, "box")
    assert not dataset.images[0].unlocalized
    assert len(dataset.info["dropped"]) == 1


@pytest.mark.parametrize(("image_id", "known"), [(9, None), (None, None), (3, 0)])
def test_no_image_is_normal_while_an_annotation_has_none(tmp_path, image_id, known):
    value = tiny()
    value["images"][0]["labels"] = {"tumor": 1, "malignant": 0}
    value["images"][1]["labels"] = {"tumor": 0, "malignant": 0}
    value["images"].append({"id": 3, "file_name": "../c.png", "height": 4, "width": 4})
    value["annotations"].append(value["annotations"][0] | {"id": 12, "image_id": image_id})
    first, second = read(tmp_path, value, skip_invalid=True).images
    assert first.labels == {"tumor": 1, "malignant": known}
    assert second.labels == {"tumor": known, "malignant": known}


def test_image_that_loses_an_annotation_is_no_longer_complete(tmp_path):
    value = tiny()
    value["annotations"][0]["bbox"] = [0, 0, 99, 1]
    first, second = read(tmp_path, value, skip_invalid=True).images
    assert first.unlocalized
    assert not first.has_complete_boxes
    assert second.has_complete_boxes


@pytest.mark.parametrize("split", ["test", [1], 5, {"hash": 5}, {"subset": ["test"]}])
def test_a_split_that_is_no_object_of_texts_is_refused(split):
    value = {"info": {"split": split}, "images": [], "categories": [{"id": 1, "name": "mass"}], "annotations": []}
    with pytest.raises(InputError, match=r"x\.json: info\.split is"):
        from_json(value, where="x.json")


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**70])
def test_an_image_id_beyond_two_to_the_53_is_refused(number):
    images = [{"id": number, "file_name": "a.png", "height": 9, "width": 9}]
    value = {"images": images, "categories": [{"id": 1, "name": "mass"}], "annotations": []}
    with pytest.raises(InputError, match="expected at most 2\\^53"):
        from_json(value, where="x.json")
