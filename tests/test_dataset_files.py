"""The data sets of a folder that have no file: they hold what converters used to write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import mammodet
from mammodet.config import make_config
from mammodet.converters.base import SplitOptions, Summary, split_records, write_outputs
from mammodet.data.coco import data_hash, from_json, read_coco, to_json, write_coco
from mammodet.data.dataset_files import dataset_names, files_of, fold_numbers, has_dataset, read_splits, stored_files
from mammodet.data.splits import Splits
from mammodet.data.subset import Filter, write_subset
from mammodet.engine.folds import read_folds
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord, Lesion


def image(number: int) -> ImageRecord:
    """Image 1 and 2 are of patient P1, 3 and 4 of P2, ...; every third has two lesions, the others none."""
    boxes = [(1.0, 2.0, 5.0, 7.0), (3.0, 3.0, 9.0, 9.0)] if number % 3 == 0 else []
    lesions = tuple(Lesion("mass", box, None, "box", {"pathology": "benign"}) for box in boxes)
    return ImageRecord(
        number,
        f"images/{number:02d}.png",
        (16, 16),
        patient_id=f"P{(number + 1) // 2}",
        view="CC" if number % 2 else "MLO",
        labels={"tumor": int(bool(lesions)), "malignant": 0},
        lesions=lesions,
    )


IMAGES = [image(number) for number in range(1, 41)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits = split_records(IMAGES, SplitOptions(0.2, 0.2, folds=3))
    write_outputs(tmp_path, ("mass",), list(reversed(IMAGES)), splits, Summary("test", "here", str(tmp_path)))
    return tmp_path


def as_before(splits: Splits) -> dict[str, Dataset]:
    """File name to data set, as converters wrote them when they wrote every fold."""

    def dataset(images, name: str, subset: str) -> Dataset:
        split = {"name": name, "subset": subset, "seed": splits.seed, "hash": splits.hash}
        return Dataset(("mass",), tuple(images), {"archive": "test", "version": mammodet.__version__, "split": split})

    def subset_of(record: ImageRecord, fold: int | None = None) -> str:
        return splits.subset(str(record.patient_id), fold)

    files = {"all.json": dataset([replace(each, split=subset_of(each)) for each in IMAGES], "holdout", "all")}
    for fold in range(3):
        for subset in ("train", "val"):
            part = [replace(each, split=subset) for each in IMAGES if subset_of(each, fold) == subset]
            files[f"fold{fold}_{subset}.json"] = dataset(part, f"fold{fold}", subset)
    inside = [replace(each, split="val") for each in IMAGES if str(each.patient_id) in splits.folds]
    return {**files, "folds.json": dataset(inside, "folds", "val")}


def test_a_converted_folder_holds_one_file_per_subset(folder):
    names = ["splits.json", "summary.json", "test.json", "train.json", "val.json"]
    assert sorted(path.name for path in folder.glob("*.json")) == names
    assert [path.name for path in stored_files(folder)] == ["train.json", "val.json", "test.json"]
    assert sum(len(read_coco(path).images) for path in stored_files(folder)) == 40


def test_made_sets_are_what_converters_used_to_write(folder):
    splits = read_splits(folder)
    before = as_before(splits)
    assert len(splits.folds) == 16  # of 20 patients, 4 are in the test set
    for name, dataset in before.items():
        made = read_coco(folder / name)
        assert to_json(made) == to_json(dataset), name  # image ids, annotation ids, patients, labels, info
        assert data_hash(made) == data_hash(dataset)
    assert set(dataset_names(folder)) == {"train.json", "val.json", "test.json", *before}


def test_folds_part_patients_and_meet_each_image_once(folder):
    test = {record.patient_id for record in read_coco(folder / "test.json").images}
    seen = []
    for fold in fold_numbers(folder):
        sides = [read_coco(folder / f"fold{fold}_{subset}.json").images for subset in ("train", "val")]
        train, val = ({record.patient_id for record in side} for side in sides)
        assert not train & val
        assert not test & (train | val)
        seen += [record.image_id for record in sides[1]]
    assert sorted(seen) == [record.image_id for record in read_coco(folder / "folds.json").images]


def test_a_subset_is_divided_as_its_data_set_is(folder):
    write_subset(folder, "cc", Filter({"view": ["CC"]}))
    for name in ("all", "folds", "fold2_train", "fold0_val"):
        whole, part = read_coco(folder / f"{name}.json"), read_coco(folder / f"cc_{name}.json")
        assert part.images == tuple(record for record in whole.images if record.view == "CC")
        assert part.info["split"] == whole.info["split"]


def test_a_file_of_an_older_folder_is_read_as_it_is(folder):
    fold = read_coco(folder / "fold0_val.json")
    write_coco(replace(fold, images=fold.images[:1]), folder / "fold0_val.json")
    assert read_coco(folder / "fold0_val.json").images == fold.images[:1]
    assert files_of(folder / "fold0_val.json") == (folder / "fold0_val.json",)
    assert len(files_of(folder / "fold0_train.json")) == 3


def test_an_older_folder_gives_the_same_folds(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for name, dataset in as_before(read_splits(folder)).items():
        write_coco(dataset, old / name)
    for record in IMAGES:
        for root in (folder, old):
            (root / record.file_name).parent.mkdir(exist_ok=True)
            (root / record.file_name).touch()
    made, stored = (
        read_folds(make_config({"data": {"root": str(root), "box_masks": "box"}}, where="test"))[0]
        for root in (folder, old)
    )
    for fold, other in zip(made, stored, strict=True):
        assert to_json(fold.train) == to_json(other.train)
        assert to_json(fold.held_out) == to_json(other.held_out)
    assert to_json(read_coco(old / "folds.json")) == to_json(read_coco(folder / "folds.json"))
    (old / "folds.json").unlink()  # of folds alone, without splits.json
    assert [r.image_id for r in read_coco(old / "folds.json").images] == [
        r.image_id for r in read_coco(folder / "folds.json").images
    ]


@pytest.mark.parametrize("name", ["fold3_val.json", "folds.json", "cc_all.json"])
def test_a_fold_that_does_not_exist_names_what_does(folder, name):
    if name == "folds.json":
        value = json.loads((folder / "splits.json").read_text())
        (folder / "splits.json").write_text(json.dumps({**value, "folds": {}}))
    assert not has_dataset(folder / name)
    with pytest.raises(InputError, match=rf"{name}: no such file; found train\.json, val\.json, test\.json.*--folds"):
        read_coco(folder / name)


def test_files_of_two_conversions_are_refused(folder):
    value = json.loads((folder / "val.json").read_text())
    value["info"]["split"]["hash"] = "0" * 64
    (folder / "val.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="of different splits: 000000000000"):
        read_coco(folder / "all.json")


def test_patients_that_splits_do_not_name_and_numbers_that_occur_twice_are_refused(folder):
    value = json.loads((folder / "val.json").read_text())
    value["images"][0]["patient_id"] = "P99"
    value["images"][1]["id"] = read_coco(folder / "test.json").images[0].image_id
    value["annotations"] = []
    (folder / "val.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as error:
        read_coco(folder / "fold0_train.json")
    assert "patients P99" in str(error.value)
    assert "same image_id" in str(error.value)


def test_splits_that_no_converter_writes_are_refused(folder):
    (folder / "splits.json").write_text('{"holdout": {"P1": 3}, "folds": {"P1": "a"}, "seed": 0}')
    with pytest.raises(InputError) as error:
        read_coco(folder / "all.json")
    assert "holdout.P1" in str(error.value)
    assert "folds.P1" in str(error.value)


def test_faults_of_a_part_are_named_in_its_file_and_skipped_on_demand(folder):
    value = json.loads((folder / "val.json").read_text())
    value["images"][0]["width"] = -1
    (folder / "val.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"val\.json.*\n.*'width' is -1"):
        read_coco(folder / "all.json")
    dataset = read_coco(folder / "all.json", skip_invalid=True)
    assert len(dataset.images) == 39
    assert any("'width' is -1" in line for line in dataset.info["dropped"])
    assert from_json(to_json(dataset), where="again").images == dataset.images
