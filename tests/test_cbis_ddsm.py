"""The CBIS-DDSM converter on phantom archives: each quirk of the real archive, in each layout, with a known answer."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_cbis import run, shows
from test_cbis_table import official_tables

from mammodet.converters import cbis_ddsm
from mammodet.converters.base import SplitOptions
from mammodet.converters.skeleton import JOURNAL
from mammodet.data.coco import read_coco
from mammodet.data.dicom import read_stored
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_area, rle_to_mask
from mammodet.phantom import CbisPhantom
from mammodet.phantom.cbis_ddsm import write_cbis_archive
from mammodet.records import ImageRecord, Lesion
from mammodet.trace import Trace

SIZE = 256
LAYOUTS = ("tcia", "tcia_dated", "kaggle_jpeg", "flat_png")
EVERY = tuple(CbisPhantom.QUIRKS)
TOOL = Path(__file__).resolve().parents[1] / "tools" / "convert.py"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """One archive of every layout, with every quirk: folder and truth."""
    root = tmp_path_factory.mktemp("cbis ü")
    return {
        layout: (
            root / layout,
            write_cbis_archive(root / layout, patients=20, layout=layout, size=SIZE, quirks=EVERY, progress=False),
        )
        for layout in LAYOUTS
    }


@pytest.fixture(scope="module")
def converted(archives, tmp_path_factory):
    """The archive in the original layout, converted: summary, records by name, truth."""
    source, truth = archives["tcia"]
    summary, records = run(source, tmp_path_factory.mktemp("out"))
    return summary, records, truth


def lesions_of(records: dict[str, ImageRecord]) -> dict[str, Lesion]:
    return {str(lesion.attributes["roi"]): lesion for record in records.values() for lesion in record.lesions}


LOST = (
    "mask_stretched_unclear",
    "missing_image",
    "missing_mask",
    "truncated_image",
    "truncated_mask",
    "empty_mask",
    "mask_not_binary",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_lesion_is_converted_to_the_pixel_or_quarantined(archives, tmp_path, layout):
    source, truth = archives[layout]
    summary, records = run(source, tmp_path / "out")
    lesions = lesions_of(records)
    quarantined = {item.name: item.reason for item in summary.quarantine if item.what == "lesion"}
    assert set(lesions) | set(quarantined) == set(truth.lesions)
    assert not set(lesions) & set(quarantined)
    assert {truth.lesions[name].image for name in quarantined} == {shows(truth, quirk) for quirk in LOST}
    rescaled = {shows(truth, "mask_rescaled")}
    for name, lesion in lesions.items():
        known = truth.lesions[name]
        if known.image in rescaled:  # 1.15 times there and back: the rim may move by half a pixel
            assert lesion.box_xyxy == pytest.approx(known.box_xyxy, abs=1)
            assert rle_area(lesion.rle) == pytest.approx(known.area_px, rel=0.15)
        else:
            assert lesion.box_xyxy == known.box_xyxy
            assert rle_area(lesion.rle) == known.area_px
            assert lesion.attributes["area_native_px"] == known.area_px
        assert lesion.geometry == "contour"
        assert lesion.attributes["pathology_csv"] == known.pathology


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("tcia", "TCIA, original (UID folders, 000000.dcm)"),
        ("tcia_dated", "TCIA, newer (dated folders, 1-1.dcm)"),
        ("kaggle_jpeg", "Kaggle JPEG edition (dicom_info.csv)"),
        ("flat_png", "image files named by case"),
    ],
)
def test_layout_is_recognised_and_named(archives, tmp_path, layout, text):
    summary, _ = run(archives[layout][0], tmp_path / "out", abnormality="mass")
    assert summary.counts["layout"].startswith(text)


def test_pixels_are_those_of_the_archive(archives, converted, tmp_path):
    source, _ = archives["tcia"]
    _, records, _ = converted
    name = "P_00001_LEFT_CC" if "P_00001_LEFT_CC" in records else "P_00001_RIGHT_CC"
    (file,) = source.glob(f"CBIS-DDSM/*_{name}/*/*/000000.dcm")
    stored = read_stored(file)
    assert stored.dtype == np.uint16
    _, records = run(source, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out" / records[name].file_name), stored)
    assert records[name].trace is None


@pytest.mark.parametrize(
    ("quirk", "reason"),
    [
        ("missing_image", "its image is missing: the archive has no file for"),
        ("truncated_image", "its image cannot be read: CBIS-DDSM/"),
        ("missing_mask", "no mask of the image's size"),
        ("truncated_mask", "is cut short"),
        ("empty_mask", "is empty"),
        ("mask_not_binary", "is a grey picture"),
        ("mask_stretched_unclear", "no uniform scale, and there is no crop to tell its place"),
    ],
)
def test_lost_lesion_says_why_and_leaves_its_image_unlocalized(converted, quirk, reason):
    summary, records, truth = converted
    image = shows(truth, quirk)
    (item,) = (item for item in summary.quarantine if item.what == "lesion" and image in item.name)
    assert reason in item.reason
    if quirk in ("missing_image", "truncated_image"):
        assert image not in records
        assert any(item.what == "image" and item.name == image for item in summary.quarantine)
    else:
        assert records[image].unlocalized
        assert records[image].labels["tumor"] == 1
        assert item.file
        assert any(note.startswith(f"lesion {item.name} quarantined") for note in records[image].notes)


def test_several_lesions_are_all_on_their_image(converted):
    _, records, truth = converted
    image = shows(truth, "several_lesions")
    assert len(records[image].lesions) == sum(lesion.image == image for lesion in truth.lesions.values()) >= 2


def test_two_parts_of_a_mask_are_one_lesion(converted):
    import cv2

    _, records, truth = converted
    (lesion,) = records[shows(truth, "several_components")].lesions
    count, _ = cv2.connectedComponents(rle_to_mask(lesion.rle).astype(np.uint8))
    assert count - 1 >= 2


def test_worst_lesion_makes_the_image_label(converted):
    _, records, truth = converted
    record = records[shows(truth, "mixed_pathology")]
    assert [lesion.attributes["pathology"] for lesion in record.lesions] == ["benign", "malignant"]
    assert record.labels == {"tumor": 1, "malignant": 1}
    benign = records[shows(truth, "without_callback")]
    assert benign.labels == {"tumor": 1, "malignant": 0}


def test_zero_density_is_none_and_zero_assessment_stays(converted):
    _, records, truth = converted
    record = records[shows(truth, "zero_scores")]
    assert record.density is None
    assert "density 0 in the table: not assessed" in record.notes
    assert record.birads == "0"
    assert record.lesions[0].attributes["assessment"] == 0


def test_shared_image_is_one_record_with_both_lesions(converted):
    summary, records, truth = converted
    record = records[shows(truth, "shared_image")]
    assert sorted(lesion.attributes["abnormality"] for lesion in record.lesions) == ["calcification", "mass"]
    assert {lesion.category for lesion in record.lesions} == {"calcification", "mass"}
    assert summary.checks["images in both sets"] == 2  # the leaking patient's is the other


def test_swapped_columns_are_counted(converted):
    summary, _, _ = converted
    assert summary.checks["crop and mask swapped in the table"] == 1
    assert summary.checks["masks rescaled"] == 1
    assert summary.checks["masks placed by their crop"] == 1


def test_phantom_patients_are_never_taken_for_real_ones(converted):
    summary, records, _ = converted
    assert summary.archive == "phantom"
    assert all(str(record.patient_id).startswith("phantom_P_") for record in records.values())
    assert {record.source for record in records.values()} == {"phantom"}


def test_image_numbers_do_not_depend_on_what_is_converted(archives, converted, tmp_path):
    _, records, _ = converted
    _, masses = run(archives["tcia"][0], tmp_path / "out", abnormality="mass")
    assert masses
    assert all(record.image_id == records[name].image_id for name, record in masses.items())


# Splits


def test_pooled_official_split_is_refused_with_the_patients(archives, tmp_path):
    source, truth = archives["tcia"]
    patient = "_".join(shows(truth, "leaking_patient").split("_")[:2])
    with pytest.raises(InputError, match=rf"puts 1 patients into training and test.*: {patient}\. .*--resolve-leaks"):
        run(source, tmp_path / "out", resolve_leaks=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["train", "test"])
def test_leaking_patients_are_moved_to_one_side(archives, tmp_path, side):
    source, truth = archives["tcia"]
    patient = "_".join(shows(truth, "leaking_patient").split("_")[:2])
    summary, records = run(source, tmp_path / "out", resolve_leaks=side, splits=SplitOptions(val_fraction=0))
    assert {record.split for record in records.values() if record.patient_id == f"phantom_{patient}"} == {side}
    assert any(patient in warning and f"moved to {side}" in warning for warning in summary.warnings)


def test_official_test_patients_are_the_test_set_whatever_the_fold(archives, tmp_path):
    source, _ = archives["tcia"]
    _, records = run(source, tmp_path / "out", abnormality="mass", splits=SplitOptions(folds=3))
    test = {record.patient_id for record in records.values() if record.split == "test"}
    assert test == {"phantom_P_00005", "phantom_P_00015"}
    for fold in range(3):
        for subset in ("train", "val"):
            dataset = read_coco(tmp_path / "out" / f"fold{fold}_{subset}.json")
            assert not test & {record.patient_id for record in dataset.images}
            assert dataset.info["split"]["name"] == f"fold{fold}"
    assert read_coco(tmp_path / "out" / "test.json").info["split"]["name"] == "official"


def test_holdout_divides_anew(archives, tmp_path):
    _, records = run(archives["tcia"][0], tmp_path / "out", split="holdout", resolve_leaks=None)
    sides: dict[str, set[str]] = {}
    for record in records.values():
        sides.setdefault(str(record.patient_id), set()).add(str(record.split))
    assert all(len(subsets) == 1 for subsets in sides.values())
    assert Counter(next(iter(subsets)) for subsets in sides.values())["test"] == 4  # 20 % of 20


# One abnormality, categories, pathology


def test_mass_set_marks_images_that_also_hold_a_calcification(archives, converted, tmp_path):
    source, truth = archives["tcia"]
    summary, records = run(source, tmp_path / "out", abnormality="mass")
    record = records[shows(truth, "shared_image")]
    (lesion,) = record.lesions
    assert lesion.category == "mass"
    (note,) = (note for note in record.notes if note.startswith("also holds"))
    assert note.startswith("also holds, not converted: 1 calcification (")
    assert summary.counts["also hold a calcification"] == 2
    assert read_coco(tmp_path / "out" / "all.json").categories == ("mass",)


def test_calcification_that_is_left_out_can_make_the_label_unknown(archives, tmp_path):
    source, truth = archives["tcia"]
    copy = tmp_path / "archive"
    shutil.copytree(source, copy)
    image = shows(truth, "shared_image")
    for kind, word in (("mass", "BENIGN"), ("calc", "MALIGNANT")):
        for path in copy.glob(f"{kind}_*.csv"):
            lines = path.read_text().split("\n")
            side, view = image.split("_")[2:]
            start = image[:7] + ","
            for number, line in enumerate(lines):
                if line.startswith(start) and f",{side},{view}," in line:
                    lines[number] = line.replace(",BENIGN,", f",{word},").replace(",MALIGNANT,", f",{word},")
            path.write_text("\n".join(lines))
    _, records = run(copy, tmp_path / "out", abnormality="mass")
    assert records[image].labels == {"tumor": 1, "malignant": None}


@pytest.mark.parametrize(
    ("scheme", "categories"),
    [("abnormality", ("mass", "calcification")), ("lesion", ("lesion",)), ("pathology", ("benign", "malignant"))],
)
def test_category_schemes(archives, tmp_path, scheme, categories):
    _, records = run(archives["flat_png"][0], tmp_path / "out", image={"categories": scheme})
    assert read_coco(tmp_path / "out" / "all.json").categories == categories
    for record in records.values():
        for lesion in record.lesions:
            facts = lesion.attributes
            expected = {"abnormality": facts["abnormality"], "lesion": "lesion", "pathology": facts["pathology"]}
            assert lesion.category == expected[scheme]


def test_without_callback_can_be_left_open(archives, tmp_path):
    source, truth = archives["flat_png"]
    options = {"without_callback": "unknown", "categories": "pathology"}
    _, records = run(source, tmp_path / "out", image=options)
    record = records[shows(truth, "without_callback")]
    assert record.labels == {"tumor": 1, "malignant": None}
    assert record.lesions[0].attributes["pathology"] is None
    assert record.lesions[0].ignore
    assert record.unlocalized  # a lesion of no known class: no boxes are learnt here


# Size and format


def test_reduced_masks_follow_their_image(archives, converted, tmp_path):
    source, truth = archives["tcia"]
    _, native, _ = converted
    _, records = run(source, tmp_path / "out", image={"max_size": 128})
    name = shows(truth, "several_components")
    record, (lesion,), (full,) = records[name], records[name].lesions, native[name].lesions
    trace = Trace.from_json(record.trace)
    assert record.size_hw == trace.output_size_hw
    assert record.size_hw[0] == 128
    expected = mask_to_rle(trace.mask_forward(rle_to_mask(full.rle)))
    assert lesion.rle == expected
    assert lesion.attributes["area_native_px"] == truth.lesions[str(lesion.attributes["roi"])].area_px
    assert read_image(tmp_path / "out" / record.file_name).shape == record.size_hw


def test_jpg_has_8_bits(archives, tmp_path):
    _, records = run(archives["tcia"][0], tmp_path / "out", image={"file_format": "jpg"})
    record = next(iter(records.values()))
    assert record.file_name.endswith(".jpg")
    assert read_image(tmp_path / "out" / record.file_name).dtype == np.uint8


@pytest.mark.parametrize("layout", ["tcia", "kaggle_jpeg"])
def test_reference_links_to_the_archive(archives, tmp_path, layout):
    source, truth = archives[layout]
    run(source, tmp_path / "out", image={"file_format": "reference", "max_size": None})
    dataset = read_coco(tmp_path / "out" / "all.json")
    assert not (tmp_path / "out" / "images").exists()
    for record in dataset.images:
        assert record.file_name.startswith("archive/")
        assert read_image(tmp_path / "out" / record.file_name).shape == record.size_hw
    assert sum(len(record.lesions) for record in dataset.images) == len(truth.lesions) - len(LOST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"abnormality": "both", "image": {"file_format": "tiff"}}, "--format tiff: expected one of png16, jpg"),
        (
            {"image": {"file_format": "reference", "max_size": 64}},
            "--max-size: --format reference refers to the archive's own files",
        ),
        ({"image": {"max_size": 3}}, "--max-size 3: expected at least 16 px"),
        ({"abnormality": "cyst"}, "--abnormality cyst: expected one of mass, calc, both"),
        (
            {"resolve_leaks": "val"},
            "--resolve-leaks val: expected one of t",
        ),  # in an order of choices that other imports decide
        ({"splits": SplitOptions(folds=1)}, "splits: --folds 1: expected 0"),
    ],
)
def test_options_that_cannot_be_met_are_refused(archives, tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        run(archives["flat_png"][0], tmp_path / "out", **options)
    assert str(caught.value).startswith(message)


# Parts of an archive, and broken ones


def test_part_of_the_archive_is_converted_and_the_rest_is_listed(archives, tmp_path):
    source, truth = archives["tcia"]
    copy = tmp_path / "part"
    shutil.copytree(source, copy)
    for folder in (copy / "CBIS-DDSM").glob("Calc-*"):
        shutil.rmtree(folder)
    summary, records = run(copy, tmp_path / "out")
    lesions = lesions_of(records)
    quarantined = [item.name for item in summary.quarantine if item.what == "lesion"]
    assert set(lesions) | set(quarantined) == set(truth.lesions)
    assert all(name.startswith("Mass") for name in lesions)
    assert any("images are not in this part;" in warning for warning in summary.warnings)


def test_image_of_both_sets_is_taken_from_the_set_that_is_there(archives, tmp_path):
    source, truth = archives["tcia"]
    copy = tmp_path / "part"
    shutil.copytree(source, copy)
    image = shows(truth, "shared_image")
    (folder,) = (copy / "CBIS-DDSM").glob(f"Mass-*_{image}")
    shutil.rmtree(folder)
    _, records = run(copy, tmp_path / "out")
    assert len(records[image].lesions) == 2


def test_image_that_differs_between_the_sets_loses_the_second_sets_lesion(archives, tmp_path):
    source, truth = archives["flat_png"]
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    image, other = shows(truth, "shared_image"), shows(truth, "odd_ids")
    (calc,) = copy.glob(f"png/Calc-*_{image}.png")
    (replacement,) = copy.glob(f"png/*_{other}.png")
    shutil.copy(replacement, calc)
    summary, records = run(copy, tmp_path / "out")
    (item,) = (item for item in summary.quarantine if item.name.startswith("Calc") and image in item.name)
    assert "is not that of Mass" in item.reason
    assert records[image].unlocalized


def test_bad_row_leaves_its_image_unlocalized(archives, tmp_path):
    source, truth = archives["flat_png"]
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    image = shows(truth, "several_lesions")
    for path in copy.glob("*.csv"):
        lines = path.read_text().split("\n")
        places = [k for k, line in enumerate(lines) if line.startswith(image[:7]) and "," + image[-2:] + ",2," in line]
        for place in places:
            lines[place] = lines[place].replace("BENIGN", "?").replace("MALIGNANT", "?")
        path.write_text("\n".join(lines))
    summary, records = run(copy, tmp_path / "out")
    assert any(item.what == "row" and "pathology '?'" in item.reason for item in summary.quarantine)
    assert records[image].unlocalized


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no table; expected mass_case_description_train_set.csv"),
        (lambda folder: folder.write_text("x"), "is a file; --source is a folder"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "source")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "source", tmp_path / "out")


def test_tables_without_images_and_images_without_tables_are_refused(archives, tmp_path):
    source, _ = archives["tcia"]
    shutil.copytree(source, tmp_path / "tables", ignore=shutil.ignore_patterns("CBIS-DDSM"))
    with pytest.raises(InputError, match="no images of CBIS-DDSM"):
        run(tmp_path / "tables", tmp_path / "out")
    with pytest.raises(InputError, match=r"no table.*--tables"):
        run(source / "CBIS-DDSM", tmp_path / "out")
    summary, records = run(source / "CBIS-DDSM", tmp_path / "out", tables=(tmp_path / "tables",))
    assert len(records) == summary.counts["images"] > 30


def test_tables_of_the_other_abnormality_only_are_told(archives, tmp_path):
    source, _ = archives["tcia"]
    shutil.copytree(source, tmp_path / "copy", ignore=shutil.ignore_patterns("calc_*.csv"))
    with pytest.raises(InputError, match="no row for --abnormality calc; are the other tables missing"):
        run(tmp_path / "copy", tmp_path / "out", abnormality="calc")
    summary, _ = run(tmp_path / "copy", tmp_path / "out", abnormality="mass")
    assert any("the calcification tables are not there" in warning for warning in summary.warnings)


# Files, resuming, processes


def content_of(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.suffix != ".jsonl" and path.name != "summary.json"
    }


def test_two_processes_and_a_cluster_write_what_one_process_writes(archives, tmp_path):
    source, _ = archives["tcia"]
    run(source, tmp_path / "one")
    expected = content_of(tmp_path / "one")
    assert len(expected) > 40
    options = cbis_ddsm.CbisOptions(resolve_leaks="test", jobs=2, progress=False)
    cbis_ddsm.convert(source, tmp_path / "processes", options)
    assert content_of(tmp_path / "processes") == expected
    pytest.importorskip("distributed")
    cbis_ddsm.convert(source, tmp_path / "dask", options.model_copy(update={"backend": "dask"}))
    assert content_of(tmp_path / "dask") == expected


def test_quarantine_file_names_id_file_and_reason(archives, tmp_path):
    summary, _ = run(archives["tcia"][0], tmp_path / "out")
    with open(tmp_path / "out" / "quarantine.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["what"], row["name"], row["file"], row["reason"]) for row in rows] == [
        (item.what, item.name, item.file, item.reason) for item in summary.quarantine
    ]
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert saved["counts"]["lesions"] == summary.counts["lesions"]


def test_second_run_converts_only_what_changed(archives, tmp_path):
    source, truth = archives["tcia"]
    copy, output = tmp_path / "archive", tmp_path / "out"
    shutil.copytree(source, copy)
    run(copy, output)
    images = {path: path.stat().st_mtime_ns for path in (output / "images").iterdir()}
    first = content_of(output)
    gone = sorted(images)[3]
    gone.unlink()
    (mask_file,) = (copy / "CBIS-DDSM").glob(f"Calc-*_{shows(truth, 'empty_mask')}_1/*/*/000000.dcm")
    os.utime(mask_file)
    run(copy, output, splits=SplitOptions(folds=2))
    redone = {path.stem for path in images if path.stat().st_mtime_ns != images[path]}
    # Files that were refused are tried again: a decoder or a permission may have been missing.
    refused = ("empty_mask", "mask_not_binary", "truncated_mask", "missing_mask", "mask_stretched_unclear")
    assert redone == {gone.stem, *(shows(truth, quirk) for quirk in refused)}
    again = content_of(output)
    assert max(json.loads(again["splits.json"])["folds"].values()) == 1
    assert all(again[name] == first[name] for name in first if name.startswith("images"))
    assert json.loads(again["test.json"])["annotations"] == json.loads(first["test.json"])["annotations"]


def test_killed_run_goes_on_where_it_was(archives, tmp_path):
    source, _ = archives["tcia"]
    output = tmp_path / "out ü"
    run(source, tmp_path / "whole")
    command = [sys.executable, str(TOOL), "cbis_ddsm", "--source", str(source), "--output", str(output)]
    command += ["--resolve-leaks", "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = output / JOURNAL
    while process.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = journal.read_bytes().count(b"\n") - 1
    assert finished >= 4
    images = {path: path.stat().st_mtime_ns for path in (output / "images").glob("*.png")}
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "wrote" in done.stdout
    assert content_of(output) == content_of(tmp_path / "whole")
    kept = sum(path.stat().st_mtime_ns == moment for path, moment in images.items())
    assert kept >= min(finished, len(images)) - 1


@pytest.mark.skipif(official_tables() is None, reason="MAMMODET_CBIS names no folder with the tables of CBIS-DDSM")
@pytest.mark.slow
def test_all_rows_of_the_real_tables_are_accounted_for(tmp_path):
    """A tiny phantom image for each of the 3568 real rows; totals as counted in the archive itself."""
    truth = write_cbis_archive(tmp_path / "archive", size=64, tables=official_tables(), jobs=2, progress=False)
    assert (len(truth.lesions), truth.images, truth.patients) == (3568, 3032, 1566)
    options = cbis_ddsm.CbisOptions(resolve_leaks="test", jobs=2, progress=False)
    summary = cbis_ddsm.convert(tmp_path / "archive", tmp_path / "out", options)
    assert summary.counts["lesions"] == {"converted": 3568, "quarantined": 0}
    assert summary.counts["official"] == {"calc test": 326, "calc train": 1546, "mass test": 378, "mass train": 1318}
    assert (summary.counts["images"], summary.counts["patients"]) == (3032, 1566)
    assert summary.checks["images in both sets"] == 71
    assert summary.counts["pathology"]["BENIGN_WITHOUT_CALLBACK"] == 682
    (moved,) = (warning for warning in summary.warnings if "moved to test" in warning)
    assert moved.startswith("31 patients")
    lesions = [lesion for record in read_coco(tmp_path / "out" / "all.json").images for lesion in record.lesions]
    for lesion in lesions:
        known = truth.lesions[str(lesion.attributes["roi"])]
        assert (lesion.box_xyxy, rle_area(lesion.rle)) == (known.box_xyxy, known.area_px)


def test_warning_counts_all_images_that_were_asked_for(archives, tmp_path):
    summary, _ = run(archives["tcia"][0], tmp_path / "out")
    assert any(text.startswith("1 of 40 images are not in this part") for text in summary.warnings)
