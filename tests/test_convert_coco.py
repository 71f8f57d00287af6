"""COCO files that others made: what is found, quarantined and refused, how it is divided, that nothing is lost."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_coco import HEIGHT, MASS, WIDTH, entry, mark, one_image, reasons, run, write_image, write_json

from mammodet.converters.coco.source import subset_of
from mammodet.data.coco import read_coco
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.geometry import rle_area, rle_box

ROOT = Path(__file__).parent.parent


# what is found


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        ("train/_annotations.coco.json", "train"),
        ("valid/x.json", "val"),
        ("instances_val2017.json", "val"),
        ("train/test.json", "test"),  # the nearer word
        ("Testing/deep/x.json", "test"),
        ("train_test.json", None),
        ("contest/retrained.json", None),  # words, not letters
        ("x.json", None),
    ],
)
def test_subset_is_told_by_the_path(path, subset):
    assert subset_of(Path(path)) == subset


def test_every_coco_file_is_found_and_other_json_is_not(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    write_json(source / "deep/er/test/b.json", [entry(7, "2_RIGHT_MLO.png")], [mark(1, 7)])
    (source / "package.json").write_text('{"name": "x", "images": 3}')
    (source / "._a.json").write_bytes(b"\x00\x05\x16\x07 Mac")
    (source / "predictions.json").write_text('{"format": "mammodet-predictions/1", "images": [], "categories": []}')
    summary, records, _ = run(source)
    assert summary.counts["files"] == "deep/er/test/b.json (test), train/a.json (train)"
    assert {name: (r.split, r.patient_id, r.laterality, r.view) for name, r in records.items()} == {
        "1_LEFT_CC": ("train", "1", "L", "CC"),
        "2_RIGHT_MLO": ("test", "2", "R", "MLO"),
    }
    assert sorted(r.image_id for r in records.values()) == [1, 2]
    assert (tmp_path / "out/images/1_LEFT_CC.png").read_bytes() == (source / "train/1_LEFT_CC.png").read_bytes()
    lesion = records["1_LEFT_CC"].lesions[0]
    assert (lesion.category, lesion.box_xyxy, lesion.geometry, lesion.rle) == ("mass", (10, 5, 18, 11), "box", None)
    assert records["1_LEFT_CC"].breast_box_xyxy is not None
    assert records["1_LEFT_CC"].spacing_mm_rc is None


def test_pictures_stored_turned_are_read_upright_with_their_boxes(tmp_path):
    """Three quarters of a turn: the upright picture is 40 high and 60 wide, and its boxes are those of the JSON."""
    source = one_image(tmp_path, mark(1, 1, [10, 5, 20, 8]))
    path = source / "train/1_LEFT_CC.png"
    upright = read_image(path)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(upright, -1)).save(path, exif=exif)
    summary, records, _ = run(source)
    (record,) = records.values()
    assert record.size_hw == upright.shape
    assert np.array_equal(read_image(tmp_path / "out" / record.file_name), upright)
    assert record.lesions[0].box_xyxy == (10, 5, 30, 13)
    assert summary.counts["images turned upright"] == 1
    assert any("taken to lie on the upright picture" in warning for warning in summary.warnings)


def test_boxes_on_a_picture_as_it_is_stored_are_quarantined_naming_exif(tmp_path):
    source = one_image(tmp_path, mark(1, 1, [10, 5, 20, 8]))
    path = source / "train/1_LEFT_CC.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(read_image(path)).save(path, exif=exif)
    with pytest.raises(
        InputError, match=r"Exif orientation 6 turns it, and the boxes seem to lie on the picture as stored"
    ):
        run(source)


def test_annotations_are_named_with_their_subset(tmp_path):
    source = tmp_path / "in"
    write_json(source / "a.json", [entry(1, "1_L_CC.png")], [mark(1, 1)])
    write_json(source / "b.json", [entry(1, "2_L_CC.png")], [mark(1, 1)])
    write_json(source / "c.json", [entry(1, "3_L_CC.png")], [mark(1, 1)])
    _, records, _ = run(source, "--annotations", "train=a.json", f"test={source / 'b.json'}")
    assert {name: record.split for name, record in records.items()} == {"1_L_CC": "train", "2_L_CC": "test"}
    with pytest.raises(InputError, match="no such file"):
        run(source, "--annotations", "train=nowhere.json")
    with pytest.raises(InputError, match="SUBSET=FILE"):
        run(source, "--annotations", "training=a.json")


@pytest.mark.parametrize("place", ["train", "train/images", "train/other", "", "images", "train2017"])
def test_images_are_found_beside_the_json_and_in_folders(tmp_path, place):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(1, "1_L_CC.png")], [mark(1, 1)], with_files=False)
    write_image(source / place / "1_L_CC.png")
    assert set(run(source)[1]) == {"1_L_CC"}


def test_two_files_of_one_name_are_a_fault(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    write_image(source / "train/images/1_LEFT_CC.png")
    with pytest.raises(InputError, match=r"2 files of this name: 1_LEFT_CC.png, images/1_LEFT_CC.png"):
        run(source)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"images": [entry(1, "a.png"), entry(1, "b.png")], "annotations": [], "categories": MASS}, "also that of 'a"),
        (
            {"images": [entry(1, "a.png"), entry(2, "a.png")], "annotations": [], "categories": MASS},
            "also that of id 1",
        ),
        ({"images": [], "annotations": {}, "categories": MASS}, "'annotations' is {}"),
        ({"images": [{"id": 1}], "annotations": [], "categories": MASS}, "an id and a file_name"),
        ({"images": [], "annotations": []}, "'categories' is missing"),
        ({"images": [], "annotations": [], "categories": [*MASS, *MASS]}, "occurs more than once"),
        ({"images": [], "annotations": [], "categories": []}, "no category is left of an empty list"),
        ({"images": [], "annotations": [], "categories": MASS}, "no image listed"),
    ],
)
def test_what_makes_it_no_coco_file_is_refused(tmp_path, value, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as caught:
        run(tmp_path / "in")
    assert message in str(caught.value)


def test_all_faults_of_all_files_are_told_at_once(tmp_path):
    source = tmp_path / "in"
    write_json(source / "a.json", [entry(1, "a.png"), entry(1, "b.png"), entry(True, "c.png")])
    (source / "cut.json").write_text('{"images": [')
    with pytest.raises(InputError) as caught:
        run(source)
    assert "3 faults" in str(caught.value)
    assert "cut short" in str(caught.value)


def test_empty_folder_and_missing_folder_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        run(tmp_path / "in")
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "nowhere")


def test_output_that_leads_into_the_archive_is_refused(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(source / "train")
    before = (source / "train/1_LEFT_CC.png").read_bytes()
    with pytest.raises(InputError, match="leads into the archive"):
        run(source)
    assert (source / "train/1_LEFT_CC.png").read_bytes() == before


def test_files_that_two_json_files_list_are_refused(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    write_json(source / "train/b.json", [entry(1, "1_LEFT_CC.png")])
    with pytest.raises(InputError, match=r"is the same file as train/a.json has"):
        run(source)


# categories


def test_categories_are_renumbered_merged_renamed_and_dropped(tmp_path):
    roboflow = [
        {"id": 0, "name": "lesions", "supercategory": "none"},
        {"id": 3, "name": "Mass", "supercategory": "lesions"},
        {"id": 7, "name": "Tumour", "supercategory": "lesions"},
        {"id": 9, "name": "Skin", "supercategory": "lesions"},
        {"id": 11, "name": "Calc", "supercategory": "lesions"},
    ]
    boxes = [mark(n, 1, [n, n, 5, 5], category) for n, category in enumerate((3, 7, 9, 11))]
    source = one_image(tmp_path, *boxes, categories=roboflow)
    chosen = ("--category", "tumour=mass", "--category", "Skin=")
    summary, records, dataset = run(source, *chosen)
    assert dataset.categories == ("mass", "calc")
    assert summary.counts["unused categories"] == "lesions"
    assert [(x.category, x.ignore, x.attributes) for x in records["1_LEFT_CC"].lesions] == [
        ("mass", False, {}),
        ("mass", False, {"category_original": "Tumour"}),
        ("mass", True, {"category_original": "Skin"}),
        ("calc", False, {}),
    ]
    assert summary.counts["annotations"] == {"listed": 4, "converted": 4, "quarantined": 0}
    assert summary.counts["ignored regions"] == 1


def test_category_that_is_not_there_is_refused(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    with pytest.raises(InputError, match="no such category; there are 'Mass'"):
        run(source, "--category", "Calc=calc")
    with pytest.raises(InputError, match="no category is left"):
        run(source, "--category", "Mass=")


def test_image_with_dropped_findings_alone_has_unknown_labels(tmp_path):
    two = [*MASS, {"id": 2, "name": "Skin"}]
    source = one_image(tmp_path, mark(1, 1, category_id=2), categories=two)
    write_json(source / "test/b.json", [entry(1, "2_L_CC.png")], [mark(1, 1)], two)
    _, records, _ = run(source, "--category", "skin=", "--without-boxes", "normal")
    assert records["1_LEFT_CC"].labels == {"tumor": None, "malignant": None}
    assert records["2_L_CC"].labels == {"tumor": 1, "malignant": None}


def test_benign_and_malignant_categories_are_pathologies(tmp_path):
    kinds = [{"id": 1, "name": "Benign"}, {"id": 2, "name": "Malignant"}]
    source = tmp_path / "in"
    images = [entry(1, "1_L_CC.png"), entry(2, "2_L_CC.png")]
    marks = [mark(1, 1), mark(2, 2, category_id=1), mark(3, 2, [1, 1, 4, 4], 2)]
    write_json(source / "train/a.json", images, marks, kinds)
    _, records, _ = run(source)
    assert [records[name].label("malignant") for name in ("1_L_CC", "2_L_CC")] == [0, 1]
    assert [lesion.attributes["pathology"] for lesion in records["2_L_CC"].lesions] == ["benign", "malignant"]


# annotations


def test_box_that_passes_the_border_by_a_pixel_is_cut(tmp_path):
    source = one_image(tmp_path, mark(1, 1, [-0.6, 0, 10, HEIGHT + 1]), mark(2, 1, [0, 0, WIDTH, HEIGHT]))
    summary, records, _ = run(source)
    assert [lesion.box_xyxy for lesion in records["1_LEFT_CC"].lesions] == [(0, 0, 9.4, 40), (0, 0, 30, 40)]
    assert summary.counts["boxes cut to the image"] == 1
    assert not records["1_LEFT_CC"].unlocalized


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (mark(2, 1, [25, 5, 8.1, 6]), "leaves the image by 3.1 px"),
        (mark(2, 1, [-4, 5, 6, 6]), "leaves the image by 4 px (it is 40x30, height x width); --clip-boxes 4"),
        (mark(2, 1, [0.1, 0.2, 0.5, 0.5]), "seem to be fractions"),
        (mark(2, 1, [5, 5, 0, 6]), "is empty"),
        (mark(2, 1, [5, 5, 6, -1]), "is empty"),
        (mark(2, 1, [WIDTH, 5, 1, 6]), "nothing inside"),
        (mark(2, 1, [5, 5, 6]), "expected 4 finite numbers"),
        (mark(2, 1, "5 5 6 6"), "expected list"),
        (mark(2, 1, None), "'bbox' is missing"),
        (mark(2, 1, category_id=5), "category_id 5; expected one of [1]"),
        (mark(2, 1, category_id=[1]), "category_id [1]"),
        (mark(2, 1, None, segmentation=[[1, 2, 3]]), "three x, y pairs"),
        (mark(2, 1, segmentation=[[10, 5, 20, 5, 20, 25, 10, 25]]), "contradicts its outline, around which the box is"),
        (mark(2, 1, [10, 5, 18, 11], segmentation=[[10, 5, 18, 5, 18, 11]]), "around which the box is [11.0, 5.0, 7.0"),
        (mark(2, 1, [10, 5, 18, 11], area=48), "has the area 48 only if it is x1, y1, x2, y2"),
        (mark(2, 1, attributes={"rotation": "turned"}), "attributes.rotation is 'turned'; expected degrees"),
        (mark(2, 1, rotation=30), "the point it is turned around"),
        (mark(2, 1, iscrowd="yes"), "'iscrowd' is 'yes'"),
    ],
)
def test_faulty_annotation_is_quarantined_and_its_image_unlocalized(tmp_path, bad, reason):
    summary, records, _ = run(one_image(tmp_path, mark(1, 1), bad))
    assert [item.what for item in summary.quarantine] == ["annotation"]
    assert summary.quarantine[0].name == "1_LEFT_CC.png, annotation 2"
    assert reason in summary.quarantine[0].reason
    assert records["1_LEFT_CC"].unlocalized
    assert len(records["1_LEFT_CC"].lesions) == 1
    assert records["1_LEFT_CC"].labels["tumor"] == 1
    assert summary.counts["annotations"] == {"listed": 2, "converted": 1, "quarantined": 1}


def test_copy_of_an_annotation_is_quarantined_and_leaves_its_image_whole(tmp_path):
    summary, records, _ = run(one_image(tmp_path, mark(1, 1), mark(2, 1), mark(1, 1, [1, 1, 3, 3])))
    assert reasons(summary) == [("annotation", "1_LEFT_CC.png, annotation 2", "is the same as annotation 1")]
    assert not records["1_LEFT_CC"].unlocalized
    assert len(records["1_LEFT_CC"].lesions) == 2
    assert any("1 annotations have the id of another" in line for line in summary.warnings)


def test_annotations_of_no_image_and_that_are_none_are_quarantined(tmp_path):
    summary, _, _ = run(one_image(tmp_path, mark(1, 1), mark(2, 99), "x"))
    assert reasons(summary) == [
        ("annotation", "annotation 2", "its image_id 99 is not among the images"),
        ("annotation", "annotation at position 2", "is 'x'; expected an object"),
    ]


def test_masks_make_contours_and_boxes_that_are_missing(tmp_path):
    square = [5.0, 5.0, 9.0, 5.0, 9.0, 9.0, 5.0, 9.0]
    triangle = [2, 2, 12, 2, 2, 12]
    runs = {"size": [HEIGHT, WIDTH], "counts": [2 * HEIGHT + 3, 4, HEIGHT * WIDTH - 2 * HEIGHT - 7]}
    source = one_image(
        tmp_path,
        mark(1, 1, [5, 5, 4, 4], segmentation=[square]),  # a box, drawn as its four corners
        mark(2, 1, [2, 2, 10, 10], segmentation=[triangle]),
        mark(3, 1, None, segmentation=runs, iscrowd=1, attributes={"reader": "A"}),
    )
    summary, records, _ = run(source)
    box, contour, crowd = records["1_LEFT_CC"].lesions
    assert (box.geometry, box.has_outline, rle_box(box.rle)) == ("box", False, box.box_xyxy)
    assert contour.geometry == "contour"
    # Column 2 counted from 0, rows 3 to 6
    assert (crowd.box_xyxy, rle_area(crowd.rle), crowd.ignore) == ((2, 3, 3, 7), 4, True)
    assert crowd.attributes == {"reader": "A"}
    assert summary.counts["rectangles taken as boxes"] == summary.counts["boxes made from masks"] == 1


# images


def test_unusable_images_are_quarantined_with_everything_on_them(tmp_path):
    source = tmp_path / "in"
    names = ["1_L_CC.png", "2_L_CC.jpg", "3_L_CC.png", "4_L_CC.png", "5_L_CC.gif", "../6_L_CC.png", "7_L_CC.png"]
    images = [entry(number, name) for number, name in enumerate(names)]
    write_json(source / "train/a.json", images, [mark(n, n) for n in range(7)], with_files=False)
    write_image(source / "train/1_L_CC.png")
    content = write_image(source / "train/2_L_CC.jpg").read_bytes()
    (source / "train/2_L_CC.jpg").write_bytes(content[: len(content) // 2])
    write_image(source / "train/3_L_CC.png", (80, 60))
    (source / "train/5_L_CC.gif").write_bytes(b"GIF89a")
    del images[6]["width"]
    write_json(source / "train/a.json", images, [mark(n, n) for n in range(7)], with_files=False)
    write_image(source / "train/7_L_CC.png")
    summary, records, _ = run(source)
    assert set(records) == {"1_L_CC"}
    assert summary.counts["images"] == {"listed": 7, "converted": 1, "quarantined": 6}
    assert summary.counts["annotations"] == {"listed": 7, "converted": 1, "quarantined": 6}
    told = {item.name: item.reason for item in summary.quarantine if item.what == "image"}
    assert "cut short" in told["2_L_CC.jpg"]
    assert "the JSON says 40x30, the file is 80x60 (height x width)" in told["3_L_CC.png"]
    assert "no such image file" in told["4_L_CC.png"]
    assert "cannot read '.gif'" in told["5_L_CC.gif"]
    assert "leaves the data root" in told["../6_L_CC.png"]
    assert "'width' is None" in told["7_L_CC.png"]
    with open(tmp_path / "out/quarantine.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["1_L_CC.png"]


def test_nothing_that_can_be_converted_is_refused(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    (source / "train/1_LEFT_CC.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no image could be converted .*the file is empty"):
        run(source)
    assert not (tmp_path / "out/all.json").exists()


def test_equal_names_in_two_files_get_their_subsets_folder(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(1, "p1_1_L_CC.png"), entry(2, "x_1_L_CC.png")], [mark(1, 1)])
    write_json(source / "train/more/a.json", [entry(1, "P1_1_L_CC.png")])  # equal where a disk knows no case
    write_json(source / "test/b.json", [entry(1, "p1_1_L_CC.png")])
    _, _, dataset = run(source, "--pattern", r"(?P<patient>.)1_L|(?P<x>x)", "--split", "holdout", "--unmatched", "skip")
    assert [record.file_name for record in dataset.images] == [
        "images/test/p1_1_L_CC.png",
        "images/train/p1_1_L_CC.png",
        "images/train_2/P1_1_L_CC.png",
    ]
    copied = (tmp_path / "out/images/test/p1_1_L_CC.png").read_bytes()
    assert copied == (source / "test/p1_1_L_CC.png").read_bytes()


def test_links_point_to_the_archive_and_copies_replace_them(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    target = tmp_path / "out/images/1_LEFT_CC.png"
    run(source, "--images", "link")
    assert target.resolve() == (source / "train/1_LEFT_CC.png").resolve()
    run(source, "--images", "link")
    run(source)
    assert not target.is_symlink()
    assert (source / "train/1_LEFT_CC.png").is_file()
    assert [path.name for path in target.parent.iterdir()] == ["1_LEFT_CC.png"]


def test_links_that_a_system_refuses_are_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    source = one_image(tmp_path, mark(1, 1))
    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(InputError, match=r"no symbolic link can be made here .*--images copy"):
        run(source, "--images", "link")
    assert list((tmp_path / "out/images").iterdir()) == []


def test_paths_with_spaces_and_umlauts_work(tmp_path):
    source = tmp_path / "meine Bilder ä"
    write_json(source / "train/größe 1.json", [entry("bild eins", "Maß 1_left_cc.png")], [mark(1, "bild eins")])
    pattern = "(?P<patient>Maß 1)_(?P<laterality>[a-z]+)_(?P<view>.+)"
    _, records, _ = run(source, "--pattern", pattern, output=tmp_path / "aus gabe ü")
    record = records["Maß 1_left_cc"]
    assert (record.patient_id, record.laterality, record.view) == ("Maß 1", "L", "CC")


def test_names_meet_however_a_disk_writes_their_umlauts(tmp_path):
    source = tmp_path / "in"
    composed, decomposed = "1_L_\u00e4.png", "1_L_a\u0308.png"
    write_json(source / "train/a.json", [entry(1, composed)], [mark(1, 1)], with_files=False)
    write_image(source / "train/images" / decomposed)
    _, _, dataset = run(source)
    assert dataset.images[0].file_name == f"images/{composed}"


def test_killed_in_the_middle_leaves_nothing_half_written(tmp_path):
    source = tmp_path / "in"
    images = [entry(number, f"{number}_L_CC.png") for number in range(60)]
    write_json(source / "train/a.json", images, [mark(n, n) for n in range(60)])
    code = """
import os, pathlib, sys
from mammodet.converters.coco import CocoOptions, convert
from mammodet.converters.coco.join import JoinRule
rename, calls = os.replace, []
def rename_and_die(*paths):
    calls.append(paths)
    if len(calls) > 20:
        os.kill(os.getpid(), 9)  # the temporary file is there, its name not yet
    rename(*paths)
os.replace = rename_and_die
options = CocoOptions(join=JoinRule(pattern=r"(?P<patient>\\d+)_"), progress=False)
convert(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), options)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, source, tmp_path / "out"], check=False, env=environment)
    assert done.returncode == -9
    assert not list((tmp_path / "out").glob("*.json"))
    written = [path for path in (tmp_path / "out/images").iterdir() if not path.name.startswith(".")]
    assert len(written) >= 19  # a second thread may have been before its own rename
    assert all(path.read_bytes() == (source / "train" / path.name).read_bytes() for path in written)
    assert len(run(source)[1]) == 60


# splits


def two_subsets(tmp_path: Path, *pairs: tuple[str, int]) -> Path:
    """COCO files with one image of each (subset, patient)."""
    for number, (subset, patient) in enumerate(pairs):
        folder = tmp_path / "in" / subset
        name = f"{patient}_L_{'CC' if subset == 'train' else 'MLO'}.png"
        write_json(folder / f"{number}.json", [entry(1, name)], [mark(1, 1)])
    return tmp_path / "in"


def test_given_subsets_are_kept_and_val_is_taken_from_train(tmp_path):
    source = two_subsets(tmp_path, *(("train", n) for n in range(10)), ("test", 90), ("test", 91))
    _, records, _ = run(source, "--val-fraction", 0.25, "--folds", 2)
    # A quarter of 12 patients
    assert Counter(record.split for record in records.values()) == {"train": 7, "val": 3, "test": 2}
    assert {name for name, record in records.items() if record.split == "test"} == {"90_L_MLO", "91_L_MLO"}
    assert len(read_coco(tmp_path / "out/fold1_val.json").images) == 5
    splits = json.loads((tmp_path / "out/splits.json").read_text())
    assert splits["name"] == "official"
    valid = two_subsets(tmp_path / "b", ("train", 1), ("train", 2), ("valid", 3), ("test", 4))
    records = run(valid, "--val-fraction", 0.25)[1]
    assert {name for name, record in records.items() if record.split == "val"} == {"3_L_MLO"}


def test_patient_in_two_subsets_is_refused_or_moved(tmp_path):
    source = two_subsets(tmp_path, ("train", 1), ("train", 2), ("test", 1), ("test", 3))
    with pytest.raises(InputError, match=r"1 patients are in two subsets: 1 \(train and test\)"):
        run(source)
    for side in ("train", "test"):
        summary, records, _ = run(source, "--resolve-leaks", side)
        assert {records["1_L_CC"].split, records["1_L_MLO"].split} == {side}
        assert records["3_L_MLO"].split == "test"
        assert any(
            f"1 patients were in two subsets and were moved to one: 1 (to {side})" in x for x in summary.warnings
        )


def test_holdout_pools_and_never_parts_a_patient(tmp_path):
    source = two_subsets(tmp_path, *(("train", n) for n in range(10)), *(("test", n) for n in range(10)))
    _, records, _ = run(source, "--split", "holdout", "--test-fraction", 0.3)
    sides = {n: {records[f"{n}_L_CC"].split, records[f"{n}_L_MLO"].split} for n in range(10)}
    assert all(len(found) == 1 for found in sides.values())
    assert sum(found == {"test"} for found in sides.values()) == 3


def test_subset_that_nobody_told(tmp_path):
    source = two_subsets(tmp_path, ("train", 1), ("one", 2), ("one", 3))
    with pytest.raises(InputError, match=r"subset of one/1.json, one/2.json"):
        run(source, "--split", "given")
    summary, _, _ = run(source)
    assert any("not every file tells its subset (one/1.json, one/2.json)" in line for line in summary.warnings)
