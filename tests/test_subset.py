"""Parts of a converted data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.subset import Filter, write_subset
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord

SPLIT = {"name": "holdout", "subset": "train", "seed": 0, "hash": "h"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = (
        ImageRecord(1, "images/1.png", (8, 8), "p", "L", "CC", "A", labels={"malignant": 1}, source="one"),
        ImageRecord(2, "images/2.png", (8, 8), "p", "L", "MLO", "B", labels={"malignant": 0}, source="one"),
        ImageRecord(3, "images/3.png", (8, 8), "q", "R", "CC", None, labels={"malignant": None}, source="two"),
    )
    for name in ("all", "train", "fold0_val"):
        write_coco(Dataset(("lesion",), images, {"split": SPLIT}), tmp_path / f"{name}.json")
    write_coco(Dataset(("lesion",), images[1:2], {"split": SPLIT}), tmp_path / "val.json")
    return tmp_path


def ids(path: Path) -> list[int]:
    return [record.image_id for record in read_coco(path).images]


def test_subset_keeps_the_view_in_every_file_and_its_split(folder):
    parts = write_subset(folder, "cc", Filter({"view": ["CC"]}))
    assert ids(folder / "cc_train.json") == ids(folder / "cc_fold0_val.json") == [1, 3]
    assert read_coco(folder / "cc_train.json").info["split"] == SPLIT
    assert {(part.name, part.kept, part.of) for part in parts} == {
        ("cc_all.json", 2, 3), ("cc_train.json", 2, 3), ("cc_val.json", 0, 1), ("cc_fold0_val.json", 2, 3),
    }  # fmt: skip
    assert not (folder / "cc_val.json").exists()


def test_subset_joins_conditions(folder):
    write_subset(folder, "few", Filter({"view": ["CC"]}, known=["malignant"], sources=["one"]))
    assert ids(folder / "few_all.json") == [1]
    write_subset(folder, "dense", Filter(known=["density+malignant"]))
    assert ids(folder / "dense_all.json") == [1, 2]


def test_subset_of_an_earlier_call_does_not_outlive_a_later_one(folder):
    write_subset(folder, "part", Filter({"view": ["MLO"]}))
    assert (folder / "part_val.json").exists()
    write_subset(folder, "part", Filter({"view": ["CC"]}))
    assert not (folder / "part_val.json").exists()


def test_subset_names_all_values_that_no_image_has(folder):
    with pytest.raises(InputError) as error:
        write_subset(folder, "none", Filter({"view": ["XX"], "laterality": ["L", "B"]}, ["birads"], ["three"]))
    for text in (
        "view ['XX']: no image has it; found: CC, MLO",
        "laterality ['B']: no image has it; found: L, R",
        "source ['three']: no image is from it; found: one, two",
        "birads: is known of no image",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b", "train", "fold0", "a b", "../x"])
def test_subset_refuses_names_that_would_overwrite_or_leave_the_folder(folder, name):
    with pytest.raises(InputError, match="expected a word"):
        write_subset(folder, name, Filter({"view": ["CC"]}))


def test_subset_refuses_an_empty_filter_and_a_folder_without_data(folder, tmp_path):
    with pytest.raises(InputError, match="nothing to choose by"):
        Filter()
    with pytest.raises(InputError, match=r"expected a folder of mammodet convert"):
        write_subset(tmp_path / "nowhere", "cc", Filter({"view": ["CC"]}))
