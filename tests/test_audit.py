"""The audit of a data set: a clean one gives nothing, each planted fault is found by name, and only it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mammodet.audit.run import audit_file
from mammodet.converters import mias
from mammodet.converters.base import SplitOptions
from mammodet.data.coco import read_coco, to_json, write_coco
from mammodet.data.images import read_image, write_png
from mammodet.errors import InputError
from mammodet.phantom.mias import write_mias_archive
from mammodet.records import Dataset, ImageRecord

ROOT = Path(__file__).parent.parent
SIZE = 192


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """40 synthetic films of 16 bits, split by patient, with folds; nothing is wrong with them."""
    folder = tmp_path_factory.mktemp("audit ü")
    write_mias_archive(folder / "archive", patients=20, size=SIZE, quirks=(), difficulty="easy", progress=False)
    options = mias.MiasOptions(splits=SplitOptions(0.2, 0.2, folds=2), progress=False)
    mias.convert(folder / "archive", folder / "data", options)
    rng = np.random.default_rng(0)
    for path in (folder / "data" / "images").iterdir():
        pixels = read_image(path).astype(np.uint16)
        write_png(path, pixels * 200 + rng.integers(0, 200, pixels.shape, dtype=np.uint16))
    return folder / "data"


class Planted:
    """A copy of the clean set, to plant faults in: `train`, `val`, `test` are JSON values."""

    def __init__(self, clean, folder):
        self.folder = folder / "data"
        shutil.copytree(clean, self.folder)
        self.json = {name: json.loads((self.folder / f"{name}.json").read_text()) for name in ("train", "val", "test")}
        train = self.json["train"]
        with_lesion = {annotation["image_id"] for annotation in train["annotations"]}
        self.normal = [image for image in train["images"] if image["id"] not in with_lesion]
        self.abnormal = [image for image in train["images"] if image["id"] in with_lesion]
        self.annotations = train["annotations"]

    def path(self, image):
        return self.folder / image["file_name"]

    def annotation(self, image):
        return next(item for item in self.annotations if item["image_id"] == image["id"])

    def audit(self, name="train", **options):
        for part, value in self.json.items():
            (self.folder / f"{part}.json").write_text(json.dumps(value))
        return audit_file(self.folder / f"{name}.json", progress=False, **options)

    def found(self, name="train", **options):
        """(check, severity) of each finding."""
        return [(finding.check, finding.severity) for finding in self.audit(name, **options).findings]


@pytest.fixture
def planted(clean, tmp_path):
    return Planted(clean, tmp_path)


@pytest.mark.parametrize("name", ["train", "all", "fold0_train", "fold1_val", "test"])
def test_clean_set_gives_nothing(clean, name):
    audit = audit_file(clean / f"{name}.json", progress=False)
    assert audit.findings == ()
    assert audit.is_clean
    assert audit.verdict() == f"{name}.json: clean"


def test_eight_bit_originals_are_noted_and_no_more(phantom_root):
    audit = audit_file(phantom_root / "train.json", progress=False)
    assert [(finding.check, finding.severity) for finding in audit.findings] == [("eight_bits", "note")]
    assert audit.is_clean


def test_leaked_patient_is_found(planted):
    planted.json["val"]["images"][0]["patient_id"] = planted.normal[0]["patient_id"]
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("patient_leakage", "error")
    assert planted.normal[0]["patient_id"] in finding.items[0].text
    assert "train" in finding.items[0].text
    assert "val" in finding.items[0].text


def test_leak_between_the_other_subsets_is_found_too(planted):
    planted.json["val"]["images"][0]["patient_id"] = planted.json["test"]["images"][0]["patient_id"]
    assert planted.found() == [("patient_leakage", "error")]


def test_leak_inside_a_file_that_holds_all_subsets_is_found(planted):
    planted.json["all"] = to_json(read_coco(planted.folder / "all.json"))
    parts = {image["split"]: image for image in planted.json["all"]["images"]}
    parts["test"]["patient_id"] = parts["train"]["patient_id"]
    assert planted.found("all") == [("patient_leakage", "error")]


def test_fold_is_compared_with_its_own_other_half_and_the_test_set(planted):
    value = to_json(read_coco(planted.folder / "fold0_val.json"))
    train = to_json(read_coco(planted.folder / "fold0_train.json"))
    value["images"][0]["patient_id"] = train["images"][0]["patient_id"]
    planted.json["fold0_val"] = value
    assert planted.found("fold0_train") == [("patient_leakage", "error")]
    assert planted.found("fold1_train") == []


def test_siblings_can_be_left_out_and_others_be_named(planted):
    planted.json["val"]["images"][0]["patient_id"] = planted.normal[0]["patient_id"]
    assert planted.found(siblings=False) == []
    assert planted.found(siblings=False, others=[planted.folder / "val.json"]) == [("patient_leakage", "error")]


def re_encoded(pixels):
    eight = (pixels >> 8).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_UNCHANGED)


def resized(pixels):
    return cv2.resize(pixels, (pixels.shape[1] * 3 // 4, pixels.shape[0] * 2 // 3), interpolation=cv2.INTER_AREA)


def contrast_changed(pixels):
    return (65535 * (pixels / 65535) ** 0.7).astype(np.uint16)


def mirrored(pixels):
    return np.ascontiguousarray(re_encoded(pixels)[:, ::-1])


@pytest.mark.parametrize("change", [np.copy, re_encoded, resized, contrast_changed, mirrored])
@pytest.mark.parametrize("position", [0, 5])
def test_copy_in_another_subset_is_found(planted, change, position):
    original, copy = planted.json["train"]["images"][position], planted.json["val"]["images"][1]
    pixels = change(read_image(planted.path(original)))
    write_png(planted.path(copy), pixels)
    copy["height"], copy["width"], copy["breast_bbox"] = *pixels.shape, None
    planted.json["val"]["annotations"] = []
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("copies_across_subsets", "error")
    [item] = finding.items
    assert [image.record.file_name for image in item.images] == [original["file_name"], copy["file_name"]]
    assert ("mirrored" in item.text) == (change is mirrored)
    assert ("byte for byte" in item.text) == (change is np.copy)


def test_film_of_another_archive_is_known_again_under_its_other_patient_id(planted):
    original = planted.normal[0]
    pixels = resized(re_encoded(read_image(planted.path(original))))
    record = ImageRecord(1, "images/A_1.png", pixels.shape, "A_1", labels={"tumor": 1}, unlocalized=True)
    other = planted.folder.parent / "ddsm"
    write_png(other / record.file_name, pixels)
    write_coco(Dataset(("mass",), (record,), {"archive": "DDSM"}), other / "train.json")
    audit = planted.audit(siblings=False, others=[other / "train.json"])
    [item] = next(finding.items for finding in audit.findings if finding.check == "copies_across_subsets")
    assert [image.record.patient_id for image in item.images] == [original["patient_id"], "A_1"]


def test_copies_inside_a_file_are_told_by_patient(planted):
    first, other = planted.normal[0], planted.normal[-1]
    assert first["patient_id"] != other["patient_id"]
    pixels = read_image(planted.path(first))
    other["laterality"] = first["laterality"]
    write_png(planted.path(other), contrast_changed(pixels))
    assert planted.found() == [("copies_under_two_patients", "warning")]
    other["patient_id"] = first["patient_id"]
    assert planted.found() == [("copies_of_one_patient", "note")]


def test_missing_image_is_found(planted):
    planted.path(planted.normal[0]).unlink()
    assert planted.found() == [("missing_image", "error")]


def test_truncated_image_is_found(planted):
    path = planted.path(planted.normal[0])
    path.write_bytes(path.read_bytes()[:2000])
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("unreadable_image", "error")
    assert "cut short" in finding.items[0].text


def test_constant_image_is_found(planted):
    write_png(planted.path(planted.normal[0]), np.full((SIZE, SIZE), 77, np.uint16))
    assert planted.found() == [("constant_image", "error")]


def test_wrong_size_is_found(planted):
    pixels = read_image(planted.path(planted.abnormal[0]))
    write_png(planted.path(planted.abnormal[0]), cv2.resize(pixels, (SIZE, SIZE // 2)))
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("wrong_size", "error")
    assert f"{SIZE // 2}x{SIZE} px (height x width), the JSON says {SIZE}x{SIZE}" in finding.items[0].text


def flip(annotation, axis):
    mask = np.flip(coco_mask.decode(annotation["segmentation"]), axis)
    rle = coco_mask.encode(np.asfortranarray(mask))
    annotation["segmentation"] = {"size": [SIZE, SIZE], "counts": rle["counts"].decode()}
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x, SIZE - y - height, width, height] if axis == 0 else [SIZE - x - width, y, width, height]


@pytest.mark.parametrize(("axes", "check"), [((0,), "y_origin"), ((1,), "x_origin"), ((0, 1), "xy_origin")])
def test_coordinates_from_a_wrong_corner_are_found(planted, axes, check):
    for annotation in planted.annotations:
        for axis in axes:
            flip(annotation, axis)
    assert planted.found() == [(check, "error")]


def test_one_lesion_upside_down_is_no_wrong_origin(planted):
    flip(planted.annotations[0], 0)
    assert "y_origin" not in [check for check, _ in planted.found()]


def place(annotation, x, y, side=20):
    annotation["bbox"] = [x, y, side, side]
    annotation["geometry"] = "box"
    annotation.pop("segmentation")


def test_lesion_off_the_breast_is_found(planted):
    image = planted.abnormal[0]
    corner = SIZE - 22 if read_image(planted.path(image))[-20:, -20:].mean() < 5000 else 2
    place(planted.annotation(image), corner, SIZE - 22)
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("lesion_off_breast", "error")
    assert ": 0 % of it on the breast" in finding.items[0].text


def test_box_beside_its_mask_is_found(planted):
    annotation = planted.annotation(planted.abnormal[0])
    annotation["bbox"][0] += 3
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("mask_against_box", "error")
    assert "3.0 px off" in finding.items[0].text
    annotation["bbox"][0] -= 2
    assert planted.found() == []


def test_wrong_laterality_is_found(planted):
    image = planted.normal[0]
    image["laterality"] = "L" if image["laterality"] == "R" else "R"
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("wrong_laterality", "warning")
    assert finding.items[0].images[0].record.image_id == image["id"]


def test_mirrored_convention_is_a_convention(planted):
    for value in planted.json.values():
        for image in value["images"]:
            image["laterality"] = "L" if image["laterality"] == "R" else "R"
    assert planted.found() == []


def test_laterality_without_a_convention_is_noted(planted):
    for value in planted.json.values():
        for image in value["images"]:
            image["laterality"] = "L"
    assert planted.found() == [("no_side_convention", "note")]


@pytest.mark.parametrize(
    ("labels", "more", "words"),
    [
        ({"tumor": 0, "malignant": 0}, {}, "tumor=0 with 1 lesion"),
        ({"tumor": 1, "malignant": 0}, {"pathology": "MALIGNANT"}, "malignant=0 with a malignant lesion"),
        ({"tumor": 1, "malignant": 1}, {"pathology": "BENIGN_WITHOUT_CALLBACK"}, "every lesion is benign"),
    ],
)
def test_labels_against_lesions_are_found(planted, labels, more, words):
    image = next(image for image in planted.abnormal if not image["labels"]["malignant"])
    if "pathology" not in more:
        more = {"pathology": "benign"}
    image["labels"] = labels
    for annotation in planted.annotations:
        if annotation["image_id"] == image["id"]:
            annotation["attributes"].update(more)
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("label_conflict", "error")
    assert words in finding.items[0].text


def test_labels_against_each_other_are_found(planted):
    planted.normal[0]["unlocalized"] = True
    planted.normal[1]["labels"] = {"tumor": 0, "malignant": 1}
    [finding] = planted.audit().findings
    assert finding.check == "label_conflict"
    assert ["unlocalized" in item.text for item in finding.items] == [True, False]


def test_unknown_labels_contradict_nothing(planted):
    planted.abnormal[0]["labels"] = {"tumor": None, "malignant": None}
    assert planted.found() == []


def test_positive_image_without_a_lesion_is_found(planted):
    planted.normal[0]["labels"] = {"tumor": 1, "malignant": 0}
    assert planted.found() == [("positive_without_lesion", "warning")]
    planted.normal[0]["unlocalized"] = True
    assert planted.found() == []


def test_depth_loss_is_found(planted):
    path = planted.path(planted.normal[0])
    write_png(path, (read_image(path) >> 8) * np.uint16(257))
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("depth_loss", "warning")


def test_jpeg_is_found_also_under_another_name(planted):
    path = planted.path(planted.normal[0])
    content = cv2.imencode(".jpg", (read_image(path) >> 8).astype(np.uint8))[1]
    path.write_bytes(content.tobytes())
    assert planted.found() == [("lossy_image", "warning")]


def test_lesion_that_stands_twice_is_found(planted):
    planted.annotations.append({**planted.annotations[0], "id": 9999})
    assert planted.found() == [("duplicate_lesion", "warning")]


@pytest.mark.parametrize(("side", "check"), [(3.9, "tiny_lesion"), (140, "huge_lesion")])
def test_lesion_of_impossible_size_is_found(planted, side, check):
    annotation = planted.annotation(planted.abnormal[0])
    x, y, width, height = annotation["bbox"]
    where = (x + width / 2, y + height / 2) if side < 4 else (26, 26)
    place(annotation, *where, side)
    assert (check, "warning") in planted.found()


def test_faulty_record_is_found_and_is_the_only_finding(planted):
    annotation = planted.annotation(planted.abnormal[0])
    annotation["bbox"] = [SIZE - 10, 10, 20, 20]
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("faulty_record", "error")
    assert "leaves the image" in finding.items[0].text
    annotation["bbox"] = [10, 10, 0, 20]
    assert planted.found() == [("faulty_record", "error")]


def test_subset_of_one_kind_is_found(planted):
    planted.json["val"]["annotations"] = []
    for image in planted.json["val"]["images"]:
        image["labels"], image["unlocalized"] = {"tumor": 0, "malignant": 0}, False
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("one_sided_subset", "warning")
    assert [item.text.split(" is ")[1] for item in finding.items] == [
        "tumor-positive (tumor=1)",
        "malignant-positive (malignant=1)",
    ]


def test_archive_of_one_kind_is_a_note(planted):
    for part in planted.json.values():
        part["annotations"] = []
        for image in part["images"]:
            image["labels"], image["unlocalized"] = {"tumor": 0, "malignant": None}, False
    [finding] = planted.audit().findings
    assert (finding.check, finding.severity) == ("one_sided_archive", "note")
    assert finding.items[0].text.startswith("train, val, test: none of ")


def test_images_without_a_patient_are_told(planted):
    planted.normal[0]["patient_id"] = None
    assert planted.found() == [("no_patient_id", "warning")]


def test_wrong_counts_are_found(planted):
    audit = planted.audit(expect="mias")
    [finding] = audit.findings
    assert (finding.check, finding.severity) == ("known_totals", "error")
    images, lesions = len(planted.json["train"]["images"]), len(planted.annotations)
    assert f"lesions {lesions - 123:+d}" in finding.title
    assert f"images {images - 322:+d}" in finding.title


def test_counts_of_a_training_set_include_its_validation_set(planted):
    [finding] = planted.audit(expect="cbis_ddsm-mass-train").findings
    both = sum(len(planted.json[name]["images"]) for name in ("train", "val"))
    assert f"images: {both} in train.json + val.json, 1231 in" in " ".join(item.text for item in finding.items)


def test_several_faults_are_all_found_the_gravest_first(planted):
    planted.normal[0]["patient_id"] = None
    planted.path(planted.normal[1]).unlink()
    planted.annotation(planted.abnormal[0])["bbox"][1] -= 4
    assert planted.found() == [("missing_image", "error"), ("mask_against_box", "error"), ("no_patient_id", "warning")]


def test_audit_does_not_depend_on_the_number_of_jobs(planted):
    write_png(planted.path(planted.json["val"]["images"][0]), re_encoded(read_image(planted.path(planted.normal[0]))))
    planted.path(planted.normal[1]).unlink()
    assert planted.audit(jobs=1).to_json() == planted.audit(jobs=3).to_json()


def test_what_could_not_be_checked_is_said(planted):
    planted.json["train"]["annotations"] = planted.annotations = []
    for image in planted.abnormal:
        image["unlocalized"] = True
    checks = {check.what: check.to_text() for check in planted.audit(siblings=False).checks}
    assert checks["No patient in two subsets"] == "not checked: there is one subset only; name others by --with"
    assert checks["Lesions lie on the breast"] == "not checked: there are no lesions"
    assert checks["Coordinates count from the right corner"] == "not checked: 0 lesions"
    assert checks["Every image file is there, can be read, and shows something"] == "nothing found"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expect": "cbis_ddsm-mas-train"}, "Did you mean cbis_ddsm-mass-train"),
        ({"jobs": 0}, "--jobs 0"),
        ({"others": [Path("nowhere.json")]}, "no such file"),
    ],
)
def test_wrong_input_is_refused(clean, options, message):
    with pytest.raises(InputError, match=message):
        audit_file(clean / "train.json", progress=False, **options)


def test_file_is_not_compared_with_itself(clean):
    with pytest.raises(InputError, match="is the audited file itself"):
        audit_file(clean / "train.json", others=[clean / "." / "train.json"], progress=False)


def test_quarantine_list_that_is_none_is_refused(planted):
    (planted.folder / "quarantine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="expected what, name, reason"):
        planted.audit(expect="mias")


def tool_main():
    spec = importlib.util.spec_from_file_location("audit_tool", ROOT / "tools" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_tool_exits_by_what_it_found(planted, tmp_path, capsys):
    main, output = tool_main(), tmp_path / "out"
    planted.audit()  # writes the files
    assert main([str(planted.folder / "train.json"), "--output", str(output)]) == 0
    assert "train.json: clean" in capsys.readouterr().out
    planted.normal[0]["patient_id"] = None  # a warning
    planted.audit()
    assert main([str(planted.folder / "train.json"), "--output", str(output), "--jobs", "1"]) == 0
    planted.path(planted.normal[0]).unlink()
    assert main([str(planted.folder / "train.json"), "--output", str(output)]) == 1
    value = json.loads((output / "audit.json").read_text())
    assert value["counts"] == {"error": 1, "warning": 1, "note": 0}
    assert not value["clean"]
    [error, _] = value["findings"]
    assert error["items"][0]["images"][0]["file_name"] == planted.normal[0]["file_name"]
    assert (output / "index.html").stat().st_size < 5_000_000
    with pytest.raises(InputError, match="is a file; expected a folder"):
        main([str(planted.folder / "train.json"), "--output", str(output / "audit.json")])
