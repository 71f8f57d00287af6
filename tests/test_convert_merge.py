"""Converted data sets joined into one folder; answers by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_archives import breast

from mammodet.commands.convert import main
from mammodet.commands.export_data import main as export
from mammodet.converters import merge
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.dataset_files import read_splits
from mammodet.data.images import read_image, write_png
from mammodet.data.sources import seen_patients
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord, Lesion

SIZE = (120, 80)
Row = tuple[int, str, str, str]  # seed of the pixels, file name, patient, category of its lesion or ""


def film(seed: int) -> np.ndarray:
    """Tissue of a texture of its own."""
    grey = np.random.default_rng(seed).random((30, 20))
    return (breast().astype(float) * (0.5 + np.kron(grey, np.ones((4, 4))))).astype(np.uint16)


def write_set(folder: Path, archive: str, subsets: dict[str, list[Row]], category: str = "mass") -> None:
    """A converted folder."""
    number = 0
    for subset, rows in subsets.items():
        records = []
        for seed, name, patient, kind in rows:
            number += 1
            write_png(folder / "images" / name, film(seed))
            lesions = (Lesion(kind, (10.5, 20.0, 30.0, 41.0), None, "box"),) if kind else ()
            labels = {"tumor": int(bool(kind)), "malignant": None}
            record = ImageRecord(number, f"images/{name}", SIZE, patient, "L", "CC", labels=labels, split=subset)
            records.append(replace(record, source=archive, lesions=lesions))
        names = tuple(dict.fromkeys([category, *(row[3] for rows in subsets.values() for row in rows if row[3])]))
        info = {"archive": archive, "split": {"name": "official", "subset": subset, "hash": archive}}
        write_coco(Dataset(names, tuple(records), info), folder / f"{subset}.json")


def run(source: Path, output: Path, **chosen: Any) -> tuple[Any, dict[str, ImageRecord]]:
    summary = merge.Merge.convert(source, output, merge.MergeOptions(jobs=1, progress=False, **chosen))
    return summary, {
        record.file_name: record
        for name in ("train", "val", "test")
        if (output / f"{name}.json").is_file()
        for record in read_coco(output / f"{name}.json").images
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two archives; `b` has copies of two films of `a`: one of a woman who is in training there and in test here."""
    one: dict[str, list[Row]] = {
        "train": [(1, "1.png", "a_1", "lesion"), (2, "2.png", "a_1", ""), (3, "3.png", "a_2", "")],
        "val": [(4, "4.png", "a_3", "lesion")],
    }
    other: dict[str, list[Row]] = {
        "train": [(5, "1.png", "b_1", "mass"), (4, "4.png", "b_4", "")],
        "test": [(2, "x.png", "b_2", "mass"), (7, "y.png", "b_2", "calcification")],
    }
    write_set(tmp_path / "sets/a", "A", one, "lesion")
    write_set(tmp_path / "sets/b", "B", other)
    write_png(tmp_path / "sets/b/images/x.png", (film(2) // 2 + 300).astype(np.uint16))  # another window
    return tmp_path / "sets"


MAP = {"category": ("a/lesion=mass", "b/calcification=")}


def test_merge_keeps_splits_and_knows_films_and_patients_of_two_sets(source, tmp_path):
    summary, records = run(source, tmp_path / "out", **MAP)
    found = {
        name: (record.image_id, record.patient_id, record.split, record.source) for name, record in records.items()
    }
    assert found == {
        "images/a/1.png": (1, "a_1", "test", "A"),  # of the woman whose other film is in B's test set
        "images/a/2.png": (2, "a_1", "test", "A"),
        "images/a/3.png": (3, "a_2", "train", "A"),
        "images/a/4.png": (4, "a_3", "val", "A"),
        "images/b/1.png": (5, "b_1", "train", "B"),
        "images/b/y.png": (6, "a_1", "test", "B"),
    }
    assert [(item.kind.value, item.name) for item in summary.quarantine] == [
        ("duplicate", "b/images/4.png"),
        ("duplicate", "b/images/x.png"),
    ]
    assert (summary.counts["films of two sets"], summary.counts["patients of two sets"]) == (2, 2)
    assert ["a_1, a_3" in text for text in summary.warnings if "two sides" in text] == [True]
    assert np.array_equal(read_image(tmp_path / "out/images/b/y.png"), film(7))
    splits = read_splits(tmp_path / "out")
    assert splits is not None
    assert dict(splits.holdout) == {"a_1": "test", "a_2": "train", "a_3": "val", "b_1": "train"}


def test_merge_maps_categories_of_each_set(source, tmp_path):
    _, records = run(source, tmp_path / "out", **MAP)
    lesions = {name: [(each.category, each.ignore) for each in one.lesions] for name, one in records.items()}
    assert lesions["images/a/1.png"] == lesions["images/b/1.png"] == [("mass", False)]
    assert lesions["images/b/y.png"] == [("mass", True)]
    assert (records["images/b/y.png"].label("tumor"), records["images/a/2.png"].label("tumor")) == (None, 0)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({}, "categories differ: a has lesion; b has mass, calcification"),
        ({"sets": ("a",)}, "1 converted folders; expected two or more"),
        ({"sets": ("a", "c")}, "c: no train.json"),
        ({"category": ("c/lesion=mass",)}, "--category c: is not among the sets, a, b"),
        ({"category": ("a/cyst=mass",)}, r"categories \['cyst'\]: not among its own"),
        ({"prefix": ("c",)}, "--prefix c: is not among the sets"),
    ],
)
def test_merge_refuses_what_does_not_fit(source, tmp_path, chosen, reason):
    with pytest.raises(InputError, match=reason):
        run(source, tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()


def test_merge_asks_whether_equal_ids_are_one_woman(tmp_path):
    write_set(tmp_path / "sets/a", "A", {"train": [(1, "1.png", "P1", "mass"), (2, "2.png", "P2", "")]})
    write_set(tmp_path / "sets/b", "B", {"train": [(3, "1.png", "P1", "mass")]})
    with pytest.raises(InputError, match=r"1 patient ids of a \(A\) are those of b \(B\): P1;.* --prefix b"):
        run(tmp_path / "sets", tmp_path / "out")
    _, records = run(tmp_path / "sets", tmp_path / "out", prefix=("b",))
    assert [record.patient_id for record in records.values()] == ["P1", "P2", "b/P1"]


def test_merge_refuses_archives_of_the_same_women(tmp_path):
    write_set(tmp_path / "sets/a", "CBIS-DDSM", {"train": [(1, "1.png", "P1", "mass")]})
    write_set(tmp_path / "sets/b", "DDSM", {"train": [(2, "1.png", "ddsm_1", "mass")]})
    with pytest.raises(InputError, match="show the same women"):
        run(tmp_path / "sets", tmp_path / "out")


def test_merge_leaves_films_without_content_apart_and_lists_missing_ones(source, tmp_path):
    for name in ("a/images/1.png", "b/images/1.png"):
        write_png(source / name, np.zeros(SIZE, np.uint16))
    (source / "a/images/3.png").unlink()
    summary, records = run(source, tmp_path / "out", **MAP)
    assert {"images/a/1.png", "images/b/1.png"} <= set(records)
    assert ("no_file", "images/a/3.png") in [(item.kind.value, item.name) for item in summary.quarantine]


def test_merge_of_copies_is_whole_without_its_sets(source, tmp_path):
    run(source, tmp_path / "links", **MAP)
    run(source, tmp_path / "copies", images="copy", **MAP)
    for name in ("train.json", "test.json", "splits.json"):
        assert (tmp_path / "links" / name).read_bytes() == (tmp_path / "copies" / name).read_bytes()
    assert (tmp_path / "links/images/b/1.png").is_symlink()
    assert not (tmp_path / "copies/images/b/1.png").is_symlink()


def test_patients_of_a_merged_training_are_known_in_the_archive_itself(source, tmp_path):
    run(source, tmp_path / "out", **MAP)
    joined = read_coco(tmp_path / "out/train.json")
    model = {"patients": ["a_2", "b_1"], "files": [{"file": "x", "subset": "train", "archive": joined.info["archive"]}]}
    assert joined.info["archive"] == "A + B"
    assert seen_patients(model, read_coco(source / "b/train.json")) == {"a_2", "b_1"}


@pytest.mark.parametrize("form", ["coco", "yolo", "voc", "rfdetr", "8bit"])
def test_merged_set_is_exported_with_names_of_its_own(source, tmp_path, form):
    """Both sets have a 1.png."""
    out = tmp_path / "joined"
    flags = ["--category", "a/lesion=mass", "--category", "b/calcification=", "--folds", "2"]
    assert main(["merge", "--source", str(source), "--sets", "a", "b", "--output", str(out), *flags]) == 0
    assert export(["--data", str(out), "--format", form, "--output", str(tmp_path / "out")]) == 0
    images = read_coco(tmp_path / "out/train.json").images
    assert [Path(record.file_name).stem for record in images] == ["3", "images_b_1"]
    assert np.array_equal([record.lesions[0].box_xyxy for record in images[1:]], [(10.5, 20, 30, 41)])
    assert all(read_image(tmp_path / "out" / record.file_name).shape == SIZE for record in images)
    assert [each["name"] for each in json.loads((tmp_path / "out/train.json").read_text())["categories"]] == ["mass"]
