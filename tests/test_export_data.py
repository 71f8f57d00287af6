"""Data sets and predictions for other tools, and the way back: equal boxes, masks within a pixel."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

import mammodet
from mammodet.commands.export_data import main
from mammodet.converters.options import add_arguments
from mammodet.converters.table import TableOptions
from mammodet.converters.table import convert as convert_table
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.dataset_files import write_splits
from mammodet.data.images import read_image, write_png
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.data.splits import make_splits
from mammodet.errors import InputError
from mammodet.export.data_sets import LEFT_OUT
from mammodet.geometry import mask_to_rle, rle_box, rle_to_mask
from mammodet.imports import ImportOptions
from mammodet.imports.run import import_predictions
from mammodet.outlines import mend, one_outline, polygon, to_rle
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion

SIZE = (64, 96)  # height, width
BOX = (10.25, 20.5, 30.0, 41.125)
PATTERN = r"(?P<patient>P\d+)_(?P<laterality>[LR])_(?P<view>CC|MLO)"


def blob() -> np.ndarray:
    """Two regions, as of a mask whose annotator lifted the pen."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    cv2.ellipse(mask, (60, 30), (17, 11), 30, 0, 360, 1, -1)
    cv2.circle(mask, (85, 55), 5, 1, -1)
    return mask.astype(bool)


def outlined(category: str = "mass") -> Lesion:
    rle = mask_to_rle(blob())
    return Lesion(category, rle_box(rle), rle, "contour", {"pathology": "malignant"})


def boxed(category: str = "mass", **more: Any) -> Lesion:
    return Lesion(category, BOX, None, "box", **more)


RECORDS = {
    "train": (
        ("P1_L_CC", (outlined(), boxed("calcification")), {"tumor": 1, "malignant": 1}, {}),
        ("P2_R_CC", (), {"tumor": 0, "malignant": 0}, {}),
        ("P3_L_CC", (), {"tumor": None, "malignant": None}, {}),
        ("P4_L_CC", (boxed(),), {"tumor": 1, "malignant": 0}, {"unlocalized": True}),
        ("P5_L_CC", (boxed(ignore=True),), {"tumor": None, "malignant": None}, {}),
        ("P6_L_CC", (outlined("calcification"), boxed(ignore=True)), {"tumor": 1, "malignant": 0}, {}),
    ),
    "val": (("P7_L_MLO", (boxed(),), {"tumor": 1, "malignant": 0}, {}),),
    "test": (("P8_R_MLO", (outlined(),), {"tumor": 1, "malignant": 1}, {}),),
}
SURE = {"train": ["P1_L_CC", "P2_R_CC"], "val": ["P7_L_MLO"], "test": ["P8_R_MLO"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A converted folder with every kind of knowledge about an image; its images have 16 bits."""
    folder, number = tmp_path / "data", 0
    for subset, items in RECORDS.items():
        records = []
        for name, lesions, labels, more in items:
            number += 1
            file_name, (patient, side, view) = f"images/{name}.png", name.split("_")
            pixels = np.random.default_rng(number).integers(500, 4000, SIZE, np.uint16)
            write_png(folder / file_name, pixels)
            record = ImageRecord(number, file_name, SIZE, patient, side, view, labels=labels, split=subset, **more)
            records.append(replace(record, lesions=lesions))
        info = {"archive": "some", "split": {"name": "holdout", "subset": subset, "hash": "h"}}
        write_coco(Dataset(("mass", "calcification"), tuple(records), info), folder / f"{subset}.json")
    return folder


def export(data: Path, form: str, *more: str) -> Path:
    output = data.parent / form
    assert main(["--data", str(data), "--format", form, "--output", str(output), *more]) == 0
    return output


def boxes(lesions: Any) -> list[Any]:
    return sorted((lesion.category, *np.round(lesion.box_xyxy, 3)) for lesion in lesions if not lesion.ignore)


def is_near(mask: np.ndarray, other: np.ndarray) -> bool:
    """Whether the border of each lies within a pixel of the other's."""
    grown, shrunk = (change(mask.astype(np.uint8), np.ones((3, 3))) > 0 for change in (cv2.dilate, cv2.erode))
    return bool((other <= grown).all() and (shrunk <= other).all())


def read_back(source: Path, *arguments: str) -> dict[str, ImageRecord]:
    """Records by stem, as `convert table` reads them."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, TableOptions)
    common = ["--val-fraction", "0", "--jobs", "1", "--pattern", PATTERN, *arguments]
    convert_table(source, source.parent / "back", TableOptions.of(parser.parse_args(common)))
    return {Path(record.file_name).stem: record for record in read_coco(source.parent / "back/all.json").images}


# Outlines


@pytest.mark.parametrize("tolerance", [0.0, 0.25, 0.5])
def test_one_outline_has_the_box_of_its_mask_and_its_pixels_within_one(tolerance):
    rng = np.random.default_rng(7)
    for _ in range(10):
        noise = cv2.GaussianBlur(rng.normal(size=SIZE).astype(np.float32), (0, 0), 4)
        mask = np.zeros(SIZE, dtype=np.uint8)  # without holes, which an outline cannot have
        outer, _ = cv2.findContours((noise > 0.08).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outer, -1, 1, -1)
        points = np.reshape(one_outline(mask_to_rle(mask), tolerance), (-1, 2))
        assert (*points.min(axis=0), *points.max(axis=0)) == rle_box(mask_to_rle(mask))
        assert is_near(mask, rle_to_mask(to_rle(polygon(points), SIZE)))


def test_one_outline_of_two_regions_falls_apart_into_them_again():
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:5, 2:5] = mask[10:14, 9:15] = mask[6:8, 17:18] = True
    points = one_outline(mask_to_rle(mask))
    assert len(mend(points, (20, 20))) == 3
    assert (rle_to_mask(to_rle(polygon(np.reshape(points, (-1, 2))), (20, 20))) == mask).all()


# Data sets


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "rfdetr"])
def test_no_image_of_unknown_state_is_exported(data, form, capsys):
    output = export(data, form)
    images = {path.stem for path in output.rglob("*.png")}
    assert images & {"P3_L_CC", "P4_L_CC", "P5_L_CC"} == set()
    assert {"P1_L_CC", "P2_R_CC", "P7_L_MLO", "P8_R_MLO"} <= images
    said, rows = capsys.readouterr().out, (output / LEFT_OUT).read_text().splitlines()
    assert "left out of train: 2 images: not known to be normal" in said
    assert "left out of train: 1 images: a lesion without a place" in said
    assert {"train,images/P3_L_CC.png,not known to be normal", "train,images/P4_L_CC.png,a lesion without a place"} <= {
        *rows
    }
    # what can hold a region to ignore keeps the image that has one beside a lesion
    holds = form in ("coco", "voc")
    assert ("P6_L_CC" in images) == holds
    assert ("1 images: regions to ignore" in said) != holds


def test_8bit_is_the_same_data_set_with_all_that_is_not_known(data, capsys):
    splits = make_splits(
        {f"P{number}": "" for number in range(1, 9)}, test_fraction=0.2, val_fraction=0.2, folds=2, seed=0
    )
    write_splits(data, splits)
    output = export(data, "8bit")
    for subset in RECORDS:
        before, after = read_coco(data / f"{subset}.json"), read_coco(output / f"{subset}.json")
        assert [replace(record, file_name="") for record in after.images] == [
            replace(record, file_name="") for record in before.images
        ]
        assert after.info == {**before.info, "window": "tissue"}
        for record in after.images:
            assert read_image(output / record.file_name).dtype == np.uint8
    assert (output / "splits.json").read_text() == (data / "splits.json").read_text()
    assert "left out" not in capsys.readouterr().out


def test_deep_images_are_windowed_and_those_of_8_bits_stay(data):
    flat = np.random.default_rng(0).integers(0, 9, SIZE, np.uint8)
    write_png(data / "images/P2_R_CC.png", flat)
    tissue, full = export(data, "8bit"), data.parent / "full"
    main(["--data", str(data), "--format", "8bit", "--output", str(full), "--window", "full"])
    deep = read_image(data / "images/P1_L_CC.png")
    assert (read_image(full / "images/P1_L_CC.png") == np.rint(deep / 65535 * 255)).all()  # 2 to 16: nearly black
    seen = read_image(tissue / "images/P1_L_CC.png")
    assert (seen.min(), seen.max()) == (0, 255)
    for output in (tissue, full):
        assert (read_image(output / "images/P2_R_CC.png") == flat).all()


def test_coco_is_read_by_pycocotools_with_masks_and_regions(data):
    output = export(data, "coco")
    coco = COCO(output / "train.json")
    names = {coco.imgs[number]["file_name"]: number for number in coco.imgs}
    (mass,) = coco.loadAnns(coco.getAnnIds(names["images/P1_L_CC.png"], [1]))
    assert (coco.annToMask(mass).astype(bool) == blob()).all()
    assert [item["iscrowd"] for item in coco.loadAnns(coco.getAnnIds(names["images/P6_L_CC.png"]))] == [0, 1]
    other = COCO(output / "annotations/instances_train.json")
    assert other.anns == coco.anns
    assert {f"images/{image['file_name']}" for image in other.imgs.values()} == set(names)


def test_voc_comes_back_with_equal_boxes(data, capsys):
    output = export(data, "voc")
    assert (output / "ImageSets/Main/train.txt").read_text() == "P1_L_CC\nP2_R_CC\nP6_L_CC\n"
    assert (output / "labelmap.txt").read_text() == "mass:::\ncalcification:::\n"
    root = ElementTree.parse(output / "Annotations/P6_L_CC.xml").getroot()
    assert [item.findtext("difficult") for item in root.iter("object")] == ["0", "1"]
    assert "masks of 3 lesions" in capsys.readouterr().out
    for path in output.glob("*.json"):
        path.unlink()
    found = read_back(output, "--without-boxes", "normal")
    assert boxes(found["P1_L_CC"].lesions) == boxes(RECORDS["train"][0][1])
    assert found["P2_R_CC"].label("tumor") == 0


def test_rfdetr_has_a_folder_for_each_subset_and_a_mask_for_every_lesion(data, capsys):
    output = export(data, "rfdetr")
    for folder, subset in (("train", "train"), ("valid", "val"), ("test", "test")):
        value = json.loads((output / folder / "_annotations.coco.json").read_text())
        assert [Path(image["file_name"]).stem for image in value["images"]] == SURE[subset]
        assert all((output / folder / image["file_name"]).is_file() for image in value["images"])
        assert all("segmentation" in item for item in value["annotations"])
        assert all(item["supercategory"] != "none" for item in value["categories"])  # such are no classes there
    assert "2 lesions have a box alone" in capsys.readouterr().out


def read_yolo(root: Path) -> dict[str, dict[str, list[tuple[int, np.ndarray]]]]:
    """Subset, stem, and class and corners (n, 2) in shares, as the documentation of Ultralytics says.

    `data.yaml` names folders from its own; the label of images/SUBSET/X.png is labels/SUBSET/X.txt, a line a lesion:
    class, then x centre, y centre, width, height, or three or more corners; a file has lines of one kind.
    """
    config, found = yaml.safe_load((root / "data.yaml").read_text()), {}
    for subset in ("train", "val", "test"):
        for path in sorted((root / config[subset]).glob("*.png")):
            rows = [line.split() for line in (root / "labels" / subset / f"{path.stem}.txt").read_text().splitlines()]
            assert len({len(row) == 5 for row in rows}) <= 1
            lesions = []
            for number, *texts in rows:
                values = np.array(texts, dtype=float)
                assert int(number) in config["names"]
                assert values.min() >= 0
                assert values.max() <= 1
                x, y, w, h = values if len(values) == 4 else (0.0, 0.0, 0.0, 0.0)
                box = np.array([(x - w / 2, y - h / 2), (x + w / 2, y + h / 2)])
                lesions.append((int(number), box if len(values) == 4 else values.reshape(-1, 2)))
            found.setdefault(subset, {})[path.stem] = lesions
    return found


@pytest.mark.parametrize("options", [(), ("--boxes-only",)])
def test_yolo_has_equal_boxes_and_masks_within_a_pixel(data, options):
    output = export(data, "yolo", *options)
    found = read_yolo(output)
    assert {subset: [*images] for subset, images in found.items()} == SURE
    assert found["train"]["P2_R_CC"] == []
    (mass, corners), (calcification, others) = found["train"]["P1_L_CC"]
    assert (mass, calcification) == (0, 1)
    points, others = corners * SIZE[::-1], others * SIZE[::-1]
    assert np.allclose([*points.min(axis=0), *points.max(axis=0)], outlined().box_xyxy, atol=1e-5)
    assert np.allclose([*others.min(axis=0), *others.max(axis=0)], BOX, atol=1e-5)
    if not options:
        assert is_near(blob(), rle_to_mask(to_rle(polygon(points), SIZE)))


def test_yolo_comes_back_by_convert_table(data):
    output = export(data, "yolo")
    for path in output.glob("*.json"):
        path.unlink()
    found = read_back(output)
    lesion = next(lesion for lesion in found["P1_L_CC"].lesions if lesion.category == "mass")
    assert lesion.box_xyxy == pytest.approx(outlined().box_xyxy, abs=1e-4)
    assert is_near(blob(), rle_to_mask(lesion.rle))
    assert found["P7_L_MLO"].split == "val"


def test_ultralytics_reads_the_yolo_export(data, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    utils = pytest.importorskip("ultralytics.data.utils", reason="ultralytics (AGPL) is not installed")
    output = export(data, "yolo")
    config = utils.check_det_dataset(str(output / "data.yaml"), autodownload=False)
    assert config["names"] == {0: "mass", 1: "calcification"}
    (image,) = Path(config["train"]).glob("P1*.png")
    label = output / "labels/train" / f"{image.stem}.txt"
    _, lines, size_hw, segments, *_ = utils.verify_image_label((str(image), str(label), "", False, 2, 0, 0, False))
    assert size_hw == SIZE
    centres, sides = lines[:, 1:3] * SIZE[::-1], lines[:, 3:] * SIZE[::-1]
    assert np.allclose(np.hstack([centres - sides / 2, centres + sides / 2]), [outlined().box_xyxy, BOX], atol=1e-4)
    assert is_near(blob(), rle_to_mask(to_rle(polygon(segments[0] * SIZE[::-1]), SIZE)))


def test_detections_on_an_export_are_scored_by_its_own_files(data):
    """A tool names an image by its stem; what it finds is imported against the export's test.json."""
    output = export(data, "yolo")
    (found,) = read_yolo(output)["test"]["P8_R_MLO"]
    line = " ".join(map(str, [found[0], *found[1].ravel(), 0.9]))
    (data.parent / "labels").mkdir()
    (data.parent / "labels/P8_R_MLO.txt").write_text(line)
    options = ImportOptions(category_map=("0=mass", "1=calcification"), train_json=(output / "train.json",))
    predictions, _ = import_predictions("yolo", data.parent / "labels", output / "test.json", options)
    (image,) = predictions.images
    assert image.detections.boxes_xyxy[0] == pytest.approx(outlined().box_xyxy, abs=1e-4)
    assert predictions.model["patients"] == ["P1", "P2"]


def test_names_that_meet_in_one_folder_keep_theirs_apart(data):
    value = json.loads((data / "train.json").read_text())
    for folder, image in zip(("a", "b"), value["images"][:2], strict=True):
        write_png(data / f"images/{folder}/1.png", read_image(data / image["file_name"]))
        image["file_name"] = f"images/{folder}/1.png"
    (data / "train.json").write_text(json.dumps(value))
    assert [*read_yolo(export(data, "yolo"))["train"]] == ["images_a_1", "images_b_1"]


def test_fold_takes_its_training_and_validation_images(data):
    for path in (data / "train.json", data / "val.json"):
        path.rename(path.with_name(f"cc_fold1_{path.name}"))
    (data / "test.json").rename(data / "cc_test.json")
    output = export(data, "coco", "--name", "cc", "--fold", "1")
    assert {path.name for path in output.glob("*.json")} == {"train.json", "val.json", "test.json"}


def test_faulty_images_refuse_the_export_all_at_once_and_leave_nothing(data, tmp_path):
    (data / "images/P1_L_CC.png").write_bytes(b"no image")
    write_png(data / "images/P7_L_MLO.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"2 faults[\s\S]*P1_L_CC[\s\S]*P7_L_MLO.*\(3, 4\)"):
        export(data, "coco")
    assert not (tmp_path / "coco").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "yolo"], "--data: is missing"),
        (["--format", "cvat"], "--predictions: is missing"),
        (["--format", "voc", "--data", "d", "--tolerance", "0.5", "--boxes-only"], "--boxes-only, --tolerance"),
        (["--format", "yolo", "--data", "d", "--score-threshold", "0.5"], "--score-threshold: is not for"),
        (["--format", "yolo", "--data", "d", "--tolerance", "0.6"], "0 to 0.5"),
        (["--format", "yolo", "--data", "d"], "no train.json, val.json, test.json"),
        (["--format", "cvat", "--predictions", "p"], "ends in .xml"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        main([*arguments, "--output", "out"])


def test_export_into_a_folder_that_holds_something_is_refused(data):
    with pytest.raises(InputError, match="exists"):
        export(data, "coco") and export(data, "coco")


# Predictions


@pytest.fixture
def preds(data: Path) -> Path:
    """Detections with masks on two images, one of them without any from 0.3 on."""
    rle, empty = mask_to_rle(blob()), mask_to_rle(np.zeros(SIZE))
    found = Detections(
        np.array([rle_box(rle), BOX, BOX]), np.array([0.9, 0.6, 0.1]), np.array([1, 2, 1]), [rle, empty, empty]
    )
    weak = Detections(np.array([BOX]), np.array([0.2]), np.array([1]), [empty])
    images = (
        ImagePrediction(8, "images/P8_R_MLO.png", SIZE, {"tumor": 0.9}, found),
        ImagePrediction(7, "images/P7_L_MLO.png", SIZE, {"tumor": 0.2}, weak),
    )
    path = data.parent / "predictions.json"
    write_predictions(Predictions(images, ("mass", "calcification")), path)
    return path


def export_preds(preds: Path, form: str, name: str, *more: str) -> Path:
    output = preds.parent / name
    output.parent.mkdir(exist_ok=True)
    assert main(["--predictions", str(preds), "--format", form, "--output", str(output), *more]) == 0
    return output


def test_coco_results_come_back_as_the_same_detections(data, preds):
    output = export_preds(preds, "coco-results", "results.json")
    truth = read_coco(data / "test.json")
    both = replace(truth, images=(*truth.images, *read_coco(data / "val.json").images))
    write_coco(both, data / "both.json")
    predictions, _ = import_predictions("coco", output, data / "both.json")
    for image, other in zip(read_predictions(preds).images, predictions.images, strict=True):
        assert image.file_name == other.file_name
        assert image.detections.boxes_xyxy.tolist() == other.detections.boxes_xyxy.tolist()
        assert image.detections.scores.tolist() == other.detections.scores.tolist()
        assert image.detections.rles == other.detections.rles
    coco = COCO(data / "both.json")
    assert len(coco.loadRes(json.loads(output.read_text())).anns) == 4


def copy_images(data: Path, folder: Path) -> None:
    for name in ("P8_R_MLO", "P7_L_MLO"):
        write_png(folder / f"images/{name}.png", read_image(data / f"images/{name}.png"))


@pytest.mark.parametrize("options", [(), ("--boxes-only",)])
def test_cvat_pre_annotations_come_back(data, preds, options):
    output = export_preds(preds, "cvat", "in/annotations.xml", *options)
    root = ElementTree.parse(output).getroot()
    listed = [(image.get("id"), image.get("name"), len(image)) for image in root.iter("image")]
    assert listed == [("0", "images/P7_L_MLO.png", 0), ("1", "images/P8_R_MLO.png", 2)]  # in the order of their names
    assert [item.text for item in root.findall("image//attribute")] == ["0.9000", "0.6000"]
    # Datumaro knows the labels and attributes that `meta` names, and no others
    assert [item.findtext("name") for item in root.iter("label")] == ["mass", "calcification"]
    assert {item.findtext("name") for item in root.findall("meta//attribute")} == {"score"}
    copy_images(data, output.parent)
    found = read_back(output.parent)["P8_R_MLO"].lesions
    assert boxes(found) == boxes([outlined(), boxed("calcification")])
    masked = next(lesion for lesion in found if lesion.category == "mass")
    assert masked.has_outline != bool(options)
    if not options:
        assert is_near(blob(), rle_to_mask(masked.rle))


@pytest.mark.parametrize("options", [(), ("--boxes-only",)])
def test_corrections_of_label_studio_come_back(data, preds, options):
    output = export_preds(preds, "label-studio", "in/tasks.json", *options)
    tasks = json.loads(output.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=images/P8_R_MLO.png", "/data/local-files/?d=images/P7_L_MLO.png",
    ]  # fmt: skip
    interface = ElementTree.parse(output.with_suffix(".interface.xml")).getroot()
    controls = {item.get("name"): [label.get("value") for label in item] for item in interface if len(item)}
    for number, task in enumerate(tasks):  # as the tool exports what a reader has accepted, or moved
        (prediction,) = task.pop("predictions")
        for result in prediction["result"]:
            assert result["value"][result["type"]][0] in controls[result["from_name"]]
            assert interface.find(f"Image[@name='{result['to_name']}']") is not None
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"], "was_cancelled": False}]}
    moved = tasks[0]["annotations"][0]["result"][1]["value"]
    moved["x"] += 100 * 3 / SIZE[1]
    output.write_text(json.dumps(tasks))
    copy_images(data, output.parent)
    found = read_back(output.parent)["P8_R_MLO"].lesions
    x1, y1, x2, y2 = BOX
    corrected = replace(boxed("calcification"), box_xyxy=(x1 + 3, y1, x2 + 3, y2))
    assert boxes(found) == boxes([outlined(), corrected])
    masked = next(lesion for lesion in found if lesion.category == "mass")
    if not options:
        assert is_near(blob(), rle_to_mask(masked.rle))


# FiftyOne


class Kept(dict):
    """Stands for FiftyOne's samples and labels, which are made of named values, and read and set by key."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)


class KeptDataset(list):
    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name

    add_samples = list.extend


def test_fiftyone_samples_hold_what_is_known(data, preds, monkeypatch):
    stub = ModuleType("fiftyone")
    stub.Sample = stub.Detection = stub.Detections = Kept  # type: ignore[attr-defined]
    stub.Dataset = KeptDataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", stub)
    made = mammodet.to_fiftyone(data / "train.json", name="films")
    assert made.name == "films"
    assert [sample["tags"] for sample in made] == [
        ["train"], ["train"], *[["train", "incomplete"]] * 4,
    ]  # fmt: skip
    first, _, unknown, *_ = made
    assert Path(first["filepath"]) == data / "images/P1_L_CC.png"
    assert (first["patient_id"], first["view"], first["malignant"]) == ("P1", "CC", 1)
    assert "malignant" not in unknown
    mass, calcification = first["ground_truth"]["detections"]
    x, y, w, h = np.multiply(mass["bounding_box"], [96, 64, 96, 64])
    assert (x, y, x + w, y + h) == pytest.approx(outlined().box_xyxy)
    left, top, right, bottom = (int(side) for side in outlined().box_xyxy)
    assert (mass["mask"] == blob()[top:bottom, left:right]).all()
    assert (mass["label"], mass["pathology"], "mask" in calcification) == ("mass", "malignant", False)
    (test,) = mammodet.to_fiftyone(data / "test.json", preds_of(preds, "images/P8_R_MLO.png"))
    assert [item["confidence"] for item in test["predictions"]["detections"]] == [0.9, 0.6, 0.1]
    assert test["tumor_score"] == 0.9


def preds_of(preds: Path, name: str) -> Path:
    file = read_predictions(preds)
    images = tuple(image for image in file.images if image.file_name == name)
    write_predictions(replace(file, images=images), preds.with_name("one.json"))
    return preds.with_name("one.json")


def test_fiftyone_says_how_it_is_installed(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(InputError, match="pip install fiftyone"):
        mammodet.to_fiftyone(data / "train.json")
