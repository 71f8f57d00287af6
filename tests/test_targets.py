from dataclasses import replace

import pytest

from mammodet.data.coco import data_hash, from_json, to_json
from mammodet.data.predictions import prediction_from_json, prediction_to_json
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord
from mammodet.targets import class_of, classes_of, collapses_of, is_binary, is_known, parts_of


def record(number: int = 1, **known: object) -> ImageRecord:
    return ImageRecord(number, f"{number}.png", (8, 8), **known)  # type: ignore[arg-type]


def test_labels_are_binary_and_fields_are_not():
    assert all(is_binary(name) for name in ("tumor", "implant"))
    assert not any(is_binary(name) for name in ("density", "class", "density+malignant"))


def test_class_of_joins_the_parts_and_is_unknown_where_one_is():
    one = record(density="B", labels={"malignant": 0, "implant": 1})
    assert class_of(one, "density") == "B"
    assert class_of(one, "density+malignant") == "B benign"
    assert class_of(one, "malignant+implant") == "benign implant"
    assert class_of(one, "density+tumor") is None
    assert class_of(record(density=""), "density") is None


def test_parts_of_a_class_lead_back_to_its_answers():
    assert parts_of("density+malignant", "B malignant") == ("B", "malignant")
    assert parts_of("tumor+density", "no tumor heterogeneously dense") == ("no tumor", "heterogeneously dense")
    assert parts_of("implant+view+laterality", "no implant CC L") == ("no implant", "CC", "L")
    assert parts_of("density+malignant", "B unknown") is None
    one = record(density="B", labels={"malignant": 0, "tumor": 1})
    for target in ("density+malignant", "malignant+density", "tumor+density+malignant"):
        expected = tuple({"density": "B", "malignant": "benign", "tumor": "tumor"}[part] for part in target.split("+"))
        assert parts_of(target, str(class_of(one, target))) == expected


def test_is_known_reads_labels_and_classes():
    assert is_known(record(labels={"tumor": 0}), "tumor")
    assert not is_known(record(labels={"tumor": None}), "tumor")
    assert not is_known(record(), "class")


def test_classes_of_are_sorted_and_leave_out_the_unknown():
    assert classes_of([record(class_name="b"), record(class_name="a"), record()], "class") == ("a", "b")


def test_collapses_are_found_where_each_class_has_one_value():
    images = [
        record(1, class_name="1B", labels={"malignant": 0, "tumor": 1}),
        record(2, class_name="1M", labels={"malignant": 1, "tumor": 1}),
        record(3, class_name="2M", labels={"malignant": 1, "tumor": 1}),
    ]
    # tumor is 1 on all of them: nothing to tell apart
    assert collapses_of(images, "class") == {"malignant": ("1M", "2M")}
    mixed = replace(images[2], class_name="1B")
    assert collapses_of([*images, mixed], "class") == {}
    unknown = record(4, class_name="1M", labels={"malignant": None})
    assert collapses_of([*images, unknown], "class") == {}


def test_class_name_travels_through_the_file_and_its_absence_leaves_the_hash():
    with_class = Dataset(("lesion",), (record(class_name="Density1Benign"),))
    assert from_json(to_json(with_class), where="here").images[0].class_name == "Density1Benign"
    assert "class_name" not in to_json(Dataset(("lesion",), (record(),)))["images"][0]
    assert data_hash(with_class) != data_hash(Dataset(("lesion",), (record(),)))


def test_class_scores_travel_through_the_predictions_file():
    found = Detections.empty(with_masks=False)
    one = ImagePrediction(1, "1.png", (8, 8), {"tumor": 0.5}, found, class_scores={"density": {"A": 0.25, "B": 0.75}})
    assert prediction_from_json(prediction_to_json(one), "here").class_scores == {"density": {"A": 0.25, "B": 0.75}}


def test_class_scores_that_do_not_add_up_are_refused():
    found = Detections.empty(with_masks=False)
    with pytest.raises(ValueError, match=r"class scores of density add up to 0\.5; expected 1"):
        ImagePrediction(1, "1.png", (8, 8), {}, found, class_scores={"density": {"A": 0.5}})
