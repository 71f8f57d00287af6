"""Our data sets in detectron2's catalogs: the same boxes, masks and classes, in the frame of the stored file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_detectron2 import CATEGORIES, small_dataset, write_small

from mammodet.converters import cbis_ddsm
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.detectron2_catalog import prepare_cfg, register, register_all
from mammodet.data.images import read_image
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError
from mammodet.geometry import rle_to_mask
from mammodet.phantom.cbis_ddsm import write_cbis_archive
from mammodet.records import Dataset

ROOT = Path(__file__).parent.parent
needs_detectron2 = pytest.mark.detectron2
ELL = [[0] * 20] * 2 + [[0] * 4 + [1] * 4 + [0] * 12] * 2 + [[0] * 4 + [1] * 2 + [0] * 14] * 2 + [[0] * 20] * 6


@pytest.fixture
def catalogs():
    """detectron2's catalogs, left as they were found."""
    require_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    known, told = set(DatasetCatalog), set(MetadataCatalog)
    yield DatasetCatalog, MetadataCatalog
    for name in set(DatasetCatalog) - known:
        DatasetCatalog.remove(name)
    for name in set(MetadataCatalog) - told:
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def cbis_root(tmp_path_factory):
    """A converted archive of 16-bit images with drawn outlines."""
    folder = tmp_path_factory.mktemp("cbis ö")
    write_cbis_archive(folder / "archive", patients=8, size=128, quirks=(), progress=False)
    cbis_ddsm.convert(folder / "archive", folder / "data", cbis_ddsm.CbisOptions(jobs=1, progress=False))
    return folder / "data"


WITHOUT_DETECTRON2 = """
import importlib, sys
sys.modules["detectron2"] = None  # as if it were not there
from mammodet.data.detectron2_catalog import prepare_cfg, register, register_all
from mammodet.errors import InputError
for call in (
    lambda: register("x", sys.argv[1]),
    lambda: register_all(sys.argv[1], "x"),
    lambda: prepare_cfg(None, "x"),
    lambda: importlib.import_module("mammodet.data.detectron2_mapper"),
):
    try:
        call()
    except InputError as error:
        print(str(error).partition(";")[0])
"""


def test_missing_detectron2_is_told_with_the_way_to_install_it(tmp_path):
    # In a process of its own, since a module that was imported once is there.
    command = [sys.executable, "-c", WITHOUT_DETECTRON2, str(write_small(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["detectron2 is not installed. It is not on the package index"] * 4


@needs_detectron2
def test_metadata_says_classes_files_and_split(tmp_path, catalogs):
    path = write_small(tmp_path)
    metadata = register("small", path)
    assert metadata is catalogs[1].get("small")
    assert metadata.as_dict() == {
        "name": "small",
        "thing_classes": ["mass", "calcification"],
        "thing_dataset_id_to_contiguous_id": {1: 0, 2: 1},
        "json_file": str(path),
        "image_root": str(tmp_path),
        "evaluator_type": "coco",
        "split": {"name": "holdout", "subset": "train", "hash": "abc"},
    }


@needs_detectron2
def test_dicts_hold_everything_of_the_records(tmp_path, catalogs):
    from detectron2.structures import BoxMode

    register("small", write_small(tmp_path))
    dicts = catalogs[0].get("small")
    assert [item["image_id"] for item in dicts] == [9, 2, 3, 4, 5, 6]
    first = dict(dicts[0])
    annotations = first.pop("annotations")
    assert first == {
        **{"file_name": str(tmp_path / "a.png"), "height": 12, "width": 20, "image_id": 9},
        **{"patient_id": "P1", "laterality": "L", "view": "CC", "density": "B", "birads": None, "class_name": None},
        **{"labels": {"tumor": 1, "malignant": 1}, "use_boxes": True},
    }
    assert rle_to_mask(annotations[0].pop("segmentation")).astype(int).tolist() == ELL
    assert annotations[0] == {
        **{"bbox": [4.0, 2.0, 8.0, 6.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0},
        **{"geometry": "contour", "attributes": {"pathology": "malignant"}},
    }
    assert (annotations[1]["bbox"], annotations[1]["category_id"]) == ([10.0, 6.0, 14.0, 8.0], 1)
    (box_only,) = dicts[1]["annotations"]
    assert (box_only["bbox"], box_only["geometry"], "segmentation" in box_only) == ([3, 3, 9, 9], "box", False)
    assert (dicts[2]["annotations"], dicts[2]["labels"]) == ([], {"tumor": 0, "malignant": None})
    assert [item["iscrowd"] for item in dicts[3]["annotations"]] == [0, 1]
    assert dicts[4]["annotations"] == []
    assert [item["use_boxes"] for item in dicts] == [True, True, True, False, False, True]
    assert dicts[5]["file_name"] == str(tmp_path / "deep" / "f.png")


@needs_detectron2
@pytest.mark.parametrize("archive", ["mias", "cbis_ddsm"])
def test_converted_archives_come_back_from_the_catalog(archive, phantom_root, cbis_root, catalogs):
    root, depth = (phantom_root, np.uint8) if archive == "mias" else (cbis_root, np.uint16)
    register("converted", root / "all.json")
    dataset, dicts = read_coco(root / "all.json"), catalogs[0].get("converted")
    names = catalogs[1].get("converted").thing_classes
    assert len(dicts) == len(dataset.images)
    lesions = 0
    for record, item in zip(dataset.images, dicts, strict=True):
        pixels = read_image(item["file_name"])
        assert (pixels.dtype, pixels.shape) == (depth, (item["height"], item["width"]))
        assert (item["image_id"], item["patient_id"], item["labels"]) == (
            *(record.image_id, record.patient_id, record.labels),
        )
        assert item["use_boxes"] == record.has_complete_boxes
        for lesion, annotation in zip(record.lesions, item["annotations"], strict=True):
            assert annotation["bbox"] == list(lesion.box_xyxy)
            assert names[annotation["category_id"]] == lesion.category
            assert np.array_equal(rle_to_mask(annotation["segmentation"]), rle_to_mask(lesion.rle))
            # Of a drawn outline the box is tight, so both lie in one frame.
            columns = np.flatnonzero(rle_to_mask(annotation["segmentation"]).any(axis=0))
            assert abs(columns[0] - annotation["bbox"][0]) <= 1
            assert abs(columns[-1] + 1 - annotation["bbox"][2]) <= 1
            lesions += 1
    assert lesions > 5


@needs_detectron2
def test_category_ids_with_gaps_are_refused_at_registration(tmp_path, catalogs):
    path = write_small(tmp_path)
    value = json.loads(path.read_text())
    value["categories"][1]["id"] = 7
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"category ids are \[1, 7\]; expected 1 to 2, no gaps"):
        register("small", path)
    assert "small" not in catalogs[0]


@needs_detectron2
def test_the_order_of_categories_in_the_file_does_not_count(tmp_path, catalogs):
    path = write_small(tmp_path)
    value = json.loads(path.read_text())
    value["categories"].reverse()
    path.write_text(json.dumps(value))
    assert register("small", path).thing_classes == ["mass", "calcification"]
    assert [item["category_id"] for item in catalogs[0].get("small")[0]["annotations"]] == [0, 1]


@needs_detectron2
def test_faults_are_told_all_at_once_when_detectron2_asks(tmp_path, catalogs, caplog):
    path = write_small(tmp_path)
    value = json.loads(path.read_text())
    value["annotations"][0]["bbox"] = [4, 2, 40, 4]
    value["annotations"][2]["category_id"] = 3
    path.write_text(json.dumps(value))
    register("small", path)
    with pytest.raises(InputError) as caught:
        catalogs[0].get("small")
    assert str(caught.value).splitlines()[:3] == [
        f"{path}: 2 faults",
        "  - image 'a.png' (id 9), annotation 1: bbox [4.0, 2.0, 40.0, 4.0] (xywh px) leaves the image (width 20)",
        "  - image 'b.png' (id 2), annotation 3: category_id 3; expected one of [1, 2]",
    ]
    register("lenient", path, skip_invalid=True)
    dicts = catalogs[0].get("lenient")
    # What lost a lesion must not teach that there is none.
    assert [(len(item["annotations"]), item["use_boxes"]) for item in dicts[:3]] == [(1, False), (0, False), (0, True)]
    assert "2 faults, whose records were dropped" in caplog.text


@needs_detectron2
def test_what_does_not_fit_detectron2_is_said_when_it_asks(tmp_path, catalogs, caplog):
    register("small", write_small(tmp_path))
    assert caplog.messages == []
    catalogs[0].get("small")
    assert [message.partition(": ")[2] for message in caplog.messages if "train.json" in message] == [
        "2 of 6 images show a lesion without a place or to be ignored: MammogramMapper leaves them out of training",
        "1 images show a lesion without a place: COCOEvaluator takes detections on them for false ones, "
        "mammodet evaluate does not",
        '1 of 6 lesions are boxes without masks: COCOEvaluator of a model with masks needs tasks=("bbox",)',
    ]


@needs_detectron2
def test_missing_files_and_folders_are_told_at_registration(tmp_path, catalogs):
    path = write_small(tmp_path)
    with pytest.raises(InputError, match=r"nowhere\.json: no such file$"):
        register("small", tmp_path / "nowhere.json")
    with pytest.raises(InputError, match=r"image_root .*/nothing: no such folder; file names in"):
        register("small", path, tmp_path / "nothing")
    with pytest.raises(InputError, match=r"^name '': expected a text, for instance 'mias_train'$"):
        register("", path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"list\.json: expected a COCO object with lists 'images', 'annotations' and"):
        register("small", tmp_path / "list.json")


@needs_detectron2
def test_a_name_means_one_file(tmp_path, catalogs):
    from detectron2.data import DatasetCatalog

    path = write_small(tmp_path / "one")
    other = write_small(tmp_path / "other", "val.json")
    first = register("small", path)
    assert register("small", str(path.parent / ".." / "one" / "train.json")) is first
    with pytest.raises(InputError) as caught:
        register("small", other)
    assert str(caught.value) == (
        f"'small' is registered already, for {path} (image_root {path.parent}); choose another name"
    )
    with pytest.raises(InputError, match=r"'small' is registered already, for "):
        register("small", path, skip_invalid=True)
    DatasetCatalog.register("theirs", list)
    with pytest.raises(InputError, match=r"^'theirs' is registered already, by other code than ours; choose a"):
        register("theirs", path)
    DatasetCatalog.remove("small")
    with pytest.raises(
        InputError, match=r"'small': MetadataCatalog has json_file '.*train\.json', the file gives '.*val"
    ):
        register("small", other)


@needs_detectron2
def test_a_file_whose_categories_changed_after_registration_is_refused(tmp_path, catalogs):
    path = write_small(tmp_path)
    register("small", path)
    dataset = small_dataset()
    write_coco(Dataset((*CATEGORIES, "asymmetry"), dataset.images), path)
    with pytest.raises(
        InputError, match="categories are mass, calcification, asymmetry; at registration they were mass,"
    ):
        catalogs[0].get("small")


@needs_detectron2
def test_every_file_of_a_converted_folder_gets_a_name(phantom_root, tmp_path, catalogs):
    found = register_all(phantom_root, "mias")
    assert list(found) == [
        *("mias_train", "mias_val", "mias_test", "mias_all", "mias_folds"),
        *("mias_fold0_train", "mias_fold1_train", "mias_fold0_val", "mias_fold1_val"),
    ]
    assert found["mias_train"].json_file.endswith("train.json")
    assert not hasattr(found["mias_fold1_val"], "json_file")  # it is no file
    assert found["mias_fold1_val"].split["name"] == "fold1"
    assert len(catalogs[0].get("mias_test")) == len(read_coco(phantom_root / "test.json").images)
    with pytest.raises(
        InputError, match=r": holds no train\.json, val\.json, \.\.\.; expected a folder that mammodet convert wrote"
    ):
        register_all(tmp_path, "x")


@needs_detectron2
def test_prepare_cfg_sets_what_our_data_needs_and_nothing_else(tmp_path, catalogs):
    from detectron2.config import get_cfg

    register("small_train", write_small(tmp_path))
    register("small_val", write_small(tmp_path, "val.json"))
    cfg, untouched = get_cfg(), get_cfg()
    prepare_cfg(cfg, "small_train", ["small_val"])
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("small_train",), ("small_val",))
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES) == (2, 2)
    assert (cfg.INPUT.MASK_FORMAT, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS) == ("bitmask", False)
    for node, keys in (
        ("DATASETS", ("TRAIN", "TEST")),
        ("INPUT", ("MASK_FORMAT",)),
        ("DATALOADER", ("FILTER_EMPTY_ANNOTATIONS",)),
    ):
        for key in keys:
            cfg[node][key] = untouched[node][key]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 80
    assert cfg == untouched
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [115.0], [58.0]
    prepare_cfg(cfg, "small_train")
    assert cfg.INPUT.FORMAT == "L"


@needs_detectron2
def test_prepare_cfg_refuses_what_cannot_work(tmp_path, catalogs):
    from detectron2.config import get_cfg

    path = write_small(tmp_path)
    register("small", path)
    dataset = small_dataset()
    write_coco(Dataset(("calcification", "mass"), dataset.images), tmp_path / "turned.json")
    register("turned", tmp_path / "turned.json")
    cfg = get_cfg()
    with pytest.raises(InputError, match=r"data sets 'smal': expected names that were registered \(small, turned\)"):
        prepare_cfg(cfg, "smal")
    with pytest.raises(InputError, match="data sets none: expected names that were registered"):
        prepare_cfg(cfg, ())
    with pytest.raises(InputError) as caught:
        prepare_cfg(cfg, "small", "turned")
    assert str(caught.value) == (
        "classes differ from those of small, ['mass', 'calcification']: turned: ['calcification', 'mass']"
    )
    cfg.freeze()
    with pytest.raises(InputError, match=r"^cfg is frozen: prepare it before cfg\.freeze\(\)$"):
        prepare_cfg(cfg, "small")


@needs_detectron2
def test_detectron2_keeps_images_without_lesions_only_as_prepared(tmp_path, catalogs):
    from detectron2.config import get_cfg
    from detectron2.data import get_detection_dataset_dicts

    register("small", write_small(tmp_path))
    cfg = get_cfg()
    assert len(get_detection_dataset_dicts("small", filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)) == 4
    prepare_cfg(cfg, "small")
    assert len(get_detection_dataset_dicts("small", filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)) == 6
