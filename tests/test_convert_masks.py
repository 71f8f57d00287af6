"""Images and masks in folders: which mask is whose, what a lesion is, sizes, thresholds, labels."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from mammodet.converters.masks import MasksOptions, convert
from mammodet.converters.masks.pairs import pair, read_template
from mammodet.converters.options import add_arguments
from mammodet.data.coco import read_coco
from mammodet.data.images import write_jpeg, write_png
from mammodet.errors import InputError
from mammodet.geometry import rle_area

PATTERN = r"(?P<patient>P\d+)_(?P<laterality>[LR])_(?P<view>CC|MLO)"
SIZE = (64, 48)


def noise(path: Path, size_hw: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(sum(path.name.encode())).integers(0, 256, size_hw, np.uint8))
    return path


def mask(path: Path, *boxes: tuple[int, int, int, int], size_hw: tuple[int, int] = SIZE, values=(255,)) -> Path:
    """Set in each (top, left, height, width), with the value in turn."""
    pixels = np.zeros(size_hw, np.uint8)
    for number, (top, left, height, width) in enumerate(boxes):
        pixels[top : top + height, left : left + width] = values[number % len(values)]
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_jpeg if path.suffix == ".jpg" else write_png)(path, pixels)
    return path


def run(source: Path, *arguments: str):
    parser = argparse.ArgumentParser()
    add_arguments(parser, MasksOptions)
    common = ["--val-fraction", "0", "--jobs", "1", "--pattern", PATTERN]
    summary = convert(source, source.parent / "out", MasksOptions.of(parser.parse_args([*common, *arguments])))
    return summary, {Path(record.file_name).stem: record for record in read_coco(source.parent / "out/all.json").images}


def boxes(record) -> list[tuple[float, ...]]:
    return sorted(lesion.box_xyxy for lesion in record.lesions)


def test_each_mask_file_is_a_lesion_and_an_image_without_one_is_unknown(tmp_path):
    source = tmp_path / "in"
    for name in ("P1_L_CC", "P1_R_CC", "P2_L_MLO"):
        noise(source / f"images/{name}.png")
    mask(source / "masks/P1_L_CC_1.png", (10, 5, 8, 6))
    mask(source / "masks/P1_L_CC_2.png", (30, 20, 4, 4))
    mask(source / "masks/P1_R_CC.png")  # nothing is set
    summary, records = run(source)
    assert boxes(records["P1_L_CC"]) == [(5, 10, 11, 18), (20, 30, 24, 34)]
    lesion = records["P1_L_CC"].lesions[0]
    assert (lesion.category, lesion.geometry, rle_area(lesion.rle)) == ("lesion", "contour", 48)
    assert (records["P1_L_CC"].patient_id, records["P1_L_CC"].laterality, records["P1_L_CC"].view) == ("P1", "L", "CC")
    assert {name: record.labels["tumor"] for name, record in records.items()} == {
        "P1_L_CC": 1,
        "P1_R_CC": None,
        "P2_L_MLO": None,
    }
    assert summary.counts["mask files"] == {"read": 3, "empty": 1}
    _, records = run(source, "--without-masks", "normal")
    assert records["P1_R_CC"].labels == records["P2_L_MLO"].labels == {"tumor": 0, "malignant": 0}


def test_mask_belongs_to_the_whole_name_never_to_a_part_of_a_number(tmp_path):
    for name in ("1", "10", "1_b"):
        noise(tmp_path / f"images/{name}.png")
    for name in ("1", "10_x", "1_b_2", "100"):
        mask(tmp_path / f"masks/{name}.png", (1, 1, 2, 2))
    images = ["images/1.png", "images/10.png", "images/1_b.png"]
    paired = pair(tmp_path, images, [read_template("masks/{stem}*.png")])
    assert paired.masks == {
        "images/1.png": [("lesion", "masks/1.png")],
        "images/10.png": [("lesion", "masks/10_x.png")],
        "images/1_b.png": [("lesion", "masks/1_b_2.png")],
    }
    assert paired.orphans == ["masks/100.png"]


def test_masks_beside_their_images_are_no_images(tmp_path):
    source = tmp_path / "in"
    noise(source / "benign/P1_L_CC.png")
    mask(source / "benign/P1_L_CC_mask.png", (10, 5, 8, 6))
    _, records = run(source, "--images", "*/*.png", "--masks", "{folder}/{stem}_mask*.png")
    assert list(records) == ["P1_L_CC"]
    with pytest.raises(InputError, match=r"P1_L_CC_mask.png is an image by --images, and a mask of benign/P1_L_CC.png"):
        run(source, "--images", "*/*.png", "--masks", "{folder}/{stem}*.png")


def test_equal_names_in_two_folders_need_the_folder(tmp_path):
    source = tmp_path / "in"
    for subset in ("train", "test"):
        noise(source / f"{subset}/images/P{len(subset)}_L_CC.png")
        noise(source / f"{subset}/images/P9_{subset[0].upper() if subset == 'x' else 'R'}_CC.png")
        mask(source / f"{subset}/masks/P{len(subset)}_L_CC.png", (10, 5, 8, 6))
    mask(source / "test/masks/P9_R_CC.png", (1, 1, 5, 5))
    with pytest.raises(InputError, match=r"could be a mask of test/images/P9_R_CC.png and of train/images/P9_R_CC.png"):
        run(source, "--images", "*/images/*.png", "--masks", "*/masks/{stem}.png")
    summary, records = run(
        source, "--images", "*/images/*.png", "--masks", "{parent}/masks/{stem}.png", "--resolve-leaks", "test"
    )
    assert boxes(records["P5_L_CC"]) == [(5, 10, 11, 18)]
    assert summary.counts["images as given"] == {"test": 2, "train": 2}


def test_mask_of_several_regions_is_a_question(tmp_path):
    source = tmp_path / "in"
    noise(source / "images/P1_L_CC.png")
    mask(source / "masks/P1_L_CC.png", (10, 5, 8, 6), (30, 20, 4, 4))
    with pytest.raises(InputError, match=r"1 of 1 masks.*--instances component.*--instances file"):
        run(source)
    assert boxes(run(source, "--instances", "component")[1]["P1_L_CC"]) == [(5, 10, 11, 18), (20, 30, 24, 34)]
    assert boxes(run(source, "--instances", "file")[1]["P1_L_CC"]) == [(5, 10, 24, 34)]
    summary, records = run(source, "--instances", "component", "--least-pixels", "17")
    assert boxes(records["P1_L_CC"]) == [(5, 10, 11, 18)]
    assert summary.counts["mask files"]["specks dropped"] == 1


def test_grey_values_are_lesions_or_categories(tmp_path):
    source = tmp_path / "in"
    noise(source / "images/P1_L_CC.png")
    mask(source / "masks/P1_L_CC.png", (10, 5, 8, 6), (30, 20, 4, 4), (50, 2, 5, 3), values=(1, 2, 255))
    with pytest.raises(InputError, match="grey picture of 4 values"):
        run(source)
    _, records = run(source, "--instances", "value")
    assert boxes(records["P1_L_CC"]) == [(2, 50, 5, 55), (5, 10, 11, 18), (20, 30, 24, 34)]
    with pytest.raises(InputError, match=r"values \[255\], which no --value"):
        run(source, "--instances", "value", "--value", "1=mass", "--value", "2=calcification")
    values = ("--value", "1=mass", "--value", "2=calcification", "--value", "255=")
    _, records = run(source, "--instances", "value", *values)
    found = {lesion.category: lesion.box_xyxy for lesion in records["P1_L_CC"].lesions if not lesion.ignore}
    assert found == {"mass": (5, 10, 11, 18), "calcification": (20, 30, 24, 34)}
    assert [lesion.box_xyxy for lesion in records["P1_L_CC"].lesions if lesion.ignore] == [(2, 50, 5, 55)]


def test_jpeg_ramps_are_cut_at_the_middle_and_its_specks_dropped(tmp_path):
    source = tmp_path / "in"
    noise(source / "images/P1_L_CC.png")
    mask(source / "masks/P1_L_CC.jpg", (10, 5, 17, 13), (50, 40, 2, 2))
    summary, records = run(source)
    (box,) = boxes(records["P1_L_CC"])
    assert np.abs(np.subtract(box, (5, 10, 18, 27))).max() <= 1
    assert summary.counts["mask files"]["specks dropped"] == 1
    with pytest.raises(InputError, match="JPEG, whose values are not exact"):
        run(source, "--instances", "value")


def test_threshold_says_what_of_a_grey_mask_is_set(tmp_path):
    source = tmp_path / "in"
    noise(source / "images/P1_L_CC.png")
    mask(source / "masks/P1_L_CC.png", (10, 5, 8, 6), (11, 6, 6, 4), values=(90, 180))
    assert boxes(run(source, "--threshold", "100")[1]["P1_L_CC"]) == [(6, 11, 10, 17)]
    assert boxes(run(source, "--threshold", "90")[1]["P1_L_CC"]) == [(5, 10, 11, 18)]


def test_mask_of_another_size_is_rescaled_where_its_shape_agrees_else_its_lesion_has_no_place(tmp_path):
    source = tmp_path / "in"
    for name in ("P1_L_CC", "P2_L_CC", "P3_L_CC"):
        noise(source / f"images/{name}.png")
    mask(source / "masks/P1_L_CC.png", (10, 4, 8, 6), size_hw=(32, 24))
    mask(source / "masks/P2_L_CC.png", (10, 4, 8, 6), size_hw=(60, 48))
    mask(source / "masks/P3_L_CC.png", (0, 0, 63, 48))
    summary, records = run(source)
    assert boxes(records["P1_L_CC"]) == [(8, 20, 20, 36)]
    assert records["P1_L_CC"].lesions[0].attributes["rescaled_from"] == "32x24"
    for name, reason in (("P2_L_CC", "60x48 pixels, the image 64x48"), ("P3_L_CC", "covers 98 % of the image")):
        assert records[name].unlocalized
        assert records[name].labels["tumor"] == 1
        assert any(reason in item.reason for item in summary.quarantine)


def test_mask_of_no_image_leaves_no_image_normal(tmp_path):
    source = tmp_path / "in"
    for name in ("P1_L_CC", "P2_L_CC"):
        noise(source / f"images/{name}.png")
    for name in ("P1_L_CC", "P7_L_CC"):
        mask(source / f"masks/{name}.png", (10, 5, 8, 6))
    summary, records = run(source, "--without-masks", "normal")
    assert records["P2_L_CC"].labels["tumor"] is None
    assert [(item.name, item.what) for item in summary.quarantine] == [("masks/P7_L_CC.png", "annotation")]


def test_table_says_patient_pathology_and_what_is_normal(tmp_path):
    source = tmp_path / "in"
    for name in ("a", "b", "c"):
        noise(source / f"images/{name}.png")
    mask(source / "masks/a.png", (10, 5, 8, 6))
    (tmp_path / "t.csv").write_text(
        "file;who;breast;view;pathology\na.png;7;LEFT;CC;malignant\nb.png;8;RIGHT;MLO;normal\nc.png;8;LEFT;CC;benign\n"
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser, MasksOptions)
    keys = ("patient_id=who", "laterality=breast", "view=view")
    arguments = ["--table", str(tmp_path / "t.csv"), "--on", "file={stem}.png", "--attribute", "pathology=pathology"]
    arguments += [text for key in keys for text in ("--image-key", key)]
    options = MasksOptions.of(parser.parse_args([*arguments, "--jobs", "1", "--val-fraction", "0"]))
    convert(source, tmp_path / "out", options)
    records = {Path(record.file_name).stem: record for record in read_coco(tmp_path / "out/all.json").images}
    assert (records["a"].patient_id, records["a"].laterality, records["a"].view) == ("7", "L", "CC")
    assert records["a"].lesions[0].attributes["pathology"] == "malignant"
    assert {name: (record.labels["tumor"], record.labels["malignant"]) for name, record in records.items()} == {
        "a": (1, 1),
        "b": (0, 0),
        "c": (1, 0),
    }
    assert records["c"].unlocalized  # a row for a lesion, and no mask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--masks", "masks/*.png"), "neither {stem} nor {name}"),
        (("--masks", "masks/{id}.png"), "{id} is not one of"),
        (("--masks", "../masks/{stem}.png"), "leaves the data root"),
        (("--images", "/x/*.png"), "leaves the data root"),
        (("--images", "*.tif"), "no image"),
        (("--masks", "other/{stem}.png"), "no image has a mask"),
        (("--value", "1=mass"), "needs --instances value"),
        (("--instances", "value", "--value", "x=mass"), "expected a grey value"),
    ],
)
def test_options_that_cannot_be_met_are_refused(tmp_path, arguments, message):
    noise(tmp_path / "in/images/P1_L_CC.png")
    mask(tmp_path / "in/masks/P1_L_CC.png", (10, 5, 8, 6))
    with pytest.raises(InputError, match=message):
        run(tmp_path / "in", *arguments)


def test_mask_of_an_unknown_kind_makes_no_image_normal(tmp_path):
    source = tmp_path / "in"
    for name in ("P1_L_CC", "P2_L_CC"):
        noise(source / f"images/{name}.png")
    mask(source / "masks/P1_L_CC.png", (10, 5, 8, 6))
    (source / "masks/P2_L_CC.npy").write_bytes(b"\x93NUMPY")
    summary, records = run(source, "--without-masks", "normal")
    assert records["P2_L_CC"].labels["tumor"] is None
    assert [item.name for item in summary.quarantine] == ["masks/P2_L_CC.npy"]
