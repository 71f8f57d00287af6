"""The RSNA converter on phantom archives, whose answers are known, and the phantom itself."""

import argparse
import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammodet.converters import rsna
from mammodet.converters.base import SplitOptions, Summary
from mammodet.converters.options import add_arguments
from mammodet.converters.rsna import PixelOptions, RsnaOptions, contradictions
from mammodet.data.coco import read_coco
from mammodet.data.images import read_image, write_png
from mammodet.errors import InputError
from mammodet.files import read_json
from mammodet.phantom import RsnaPhantom
from mammodet.phantom.rsna import DEVICES, write_rsna_archive
from mammodet.records import ImageRecord

SIZE = 128
WIDTH = 102  # 0.8 * 128, rounded
PNG = PixelOptions("png16")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """An archive without quirks, every device in it: its folder and truth."""
    folder = tmp_path_factory.mktemp("rsna ü") / "archive"
    return folder, write_rsna_archive(folder, patients=12, size=SIZE, progress=False)


@pytest.fixture(scope="module")
def quirky(tmp_path_factory):
    """An archive with every quirk: its folder and truth."""
    folder = tmp_path_factory.mktemp("rsna") / "archive"
    return folder, write_rsna_archive(folder, patients=12, size=SIZE, quirks=RsnaPhantom.QUIRKS, progress=False)


def run(source: Path, output: Path, **options) -> tuple[Summary, dict[int, ImageRecord]]:
    """Convert; the summary, and records by image id."""
    summary = rsna.convert(source, output, RsnaOptions(**{"jobs": 1, "progress": False} | options))
    return summary, {record.image_id: record for record in read_coco(output / "all.json").images}


def table_rows(folder: Path, name: str = "train.csv") -> list[dict[str, str]]:
    with open(folder / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".csv", ".png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def expected_pixels(path: Path) -> np.ndarray:
    """The first window by the formulas of PS3.3 C.11.2.1, written down here once more; inverted after it."""
    data = pydicom.dcmread(path)
    values = data.pixel_array.astype(np.float64)
    if "WindowCenter" in data:
        center, width = (float(np.atleast_1d(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        function = data.get("VOILUTFunction", "LINEAR")
        if function == "SIGMOID":
            shown = 1 / (1 + np.exp(-4 * (values - center) / width))
        elif function == "LINEAR_EXACT":
            shown = np.clip((values - center) / width + 0.5, 0, 1)
        else:
            shown = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    else:
        shown = values / (2**data.BitsStored - 1)
    if data.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return shown * 65535


def test_every_image_becomes_a_record_with_what_its_row_says(clean, tmp_path):
    folder, truth = clean
    summary, records = run(folder, tmp_path / "out")
    rows = {int(row["image_id"]): row for row in table_rows(folder)}
    assert records.keys() == rows.keys()
    assert summary.quarantine == []
    for image, record in records.items():
        row = rows[image]
        patient, cancer = row["patient_id"], int(row["cancer"])
        assert record.patient_id == f"phantom_rsna_{patient}"
        assert record.source == "phantom"
        assert (record.laterality, record.view) == (row["laterality"], row["view"])
        assert record.density == (row["density"] or None)
        assert record.birads == (row["BIRADS"][:1] or None)
        assert record.labels == {
            "tumor": cancer,
            "malignant": cancer,
            "biopsy": int(row["biopsy"]),
            "invasive": int(row["invasive"]),
            "implant": int(row["implant"]),
            "difficult_negative_case": int(row["difficult_negative_case"] == "True"),
        }
        assert record.unlocalized == (cancer == 1)
        assert record.lesions == ()
        age = (f"age {float(row['age']):g}",) if row["age"] else ()
        assert record.notes == (*age, f"site {row['site_id']}", f"machine {row['machine_id']}")
        assert record.size_hw == (SIZE, WIDTH)
    assert len(records) == truth.images
    assert sum(record.unlocalized for record in records.values()) == truth.positives > 0


def test_reference_leads_to_the_archives_own_file_through_a_link(clean, tmp_path):
    folder, _ = clean
    _, records = run(folder, tmp_path / "out")
    record = records[7000100]
    assert record.file_name == "archive/train_images/70001/7000100.dcm"
    assert (tmp_path / "out" / "archive").is_symlink()
    assert not (tmp_path / "out" / "images").exists()
    assert record.trace is None
    # What a loader sees of it is what the other format writes.
    _, written = run(folder, tmp_path / "png", pixels=PNG)
    for image, other in written.items():
        shown = read_image(tmp_path / "out" / records[image].file_name)
        assert np.array_equal(shown, read_image(tmp_path / "png" / other.file_name))


@pytest.mark.parametrize("device", range(len(DEVICES)))
def test_png_is_the_first_window_with_tissue_bright(clean, tmp_path, device):
    folder, _ = clean
    _, records = run(folder, tmp_path, pixels=PNG, limit_patients=12)
    row = next(row for row in table_rows(folder) if int(row["machine_id"]) % len(DEVICES) == device)
    shown = read_image(tmp_path / records[int(row["image_id"])].file_name)
    expected = expected_pixels(folder / "train_images" / row["patient_id"] / f"{row['image_id']}.dcm")
    assert shown.dtype == np.uint16
    assert np.abs(shown - expected).max() <= 0.51
    # The chest wall is on the side that the breast's name says; there is tissue, beyond the nipple there is none.
    columns = shown.mean(axis=0)
    near, far = (columns[:10].mean(), columns[-10:].mean())
    assert (near > far) == (row["laterality"] == "L")


def test_counts_say_how_the_files_are_made(clean, tmp_path):
    folder, truth = clean
    summary, _ = run(folder, tmp_path)
    assert sorted(summary.counts["transfer syntax"].values()) == sorted(truth.syntaxes.values())
    assert "JPEG 2000 Image Compression (Lossless Only)" in summary.counts["transfer syntax"]
    assert summary.counts["photometric"] == truth.photometrics
    kinds = summary.counts["window"]
    assert sum(kinds.values()) == truth.images
    assert {name.split()[0] for name in kinds} == {"LINEAR", "LINEAR_EXACT", "SIGMOID", "none"}
    assert summary.counts["machine"] == Counter(row["machine_id"] for row in table_rows(folder))
    assert summary.counts["cancer"]["images"] == truth.positives
    assert summary.counts["cancer"]["patients"] == 3  # a quarter of 12


def test_crop_and_size_stand_in_the_trace_and_scale_the_spacing(clean, tmp_path):
    folder, _ = clean
    _, whole = run(folder, tmp_path / "whole", pixels=PNG)
    _, records = run(folder, tmp_path / "out", pixels=PixelOptions("png16", 64, True))
    cropped = 0
    for image, record in records.items():
        pixels = read_image(tmp_path / "out" / record.file_name)
        assert pixels.shape == record.size_hw
        assert max(record.size_hw) == 64
        native_hw, steps = record.trace["native_size_hw"], record.trace["steps"]
        assert native_hw == [SIZE, WIDTH]
        assert steps[-1] == ["resize", *record.size_hw]
        x, y, w, h = steps[0][1:] if steps[0][0] == "crop" else (0, 0, WIDTH, SIZE)
        cropped += (w, h) != (WIDTH, SIZE)
        # The crop is the box that was found on the whole image, and the breast fills it.
        x1, y1, x2, y2 = whole[image].breast_box_xyxy
        assert (x, y, x + w, y + h) == (x1, y1, x2, y2)
        assert record.breast_box_xyxy == pytest.approx((0, 0, record.size_hw[1], record.size_hw[0]))
        if record.spacing_mm_rc:
            native = whole[image].spacing_mm_rc[0]
            assert record.spacing_mm_rc == pytest.approx(
                (native * h / record.size_hw[0], native * w / record.size_hw[1])
            )
    assert cropped > 40
    assert any(record.spacing_mm_rc for record in records.values())
    assert any(record.spacing_mm_rc is None for record in records.values())


def test_quirks_are_quarantined_or_told(quirky, tmp_path):
    folder, truth = quirky
    summary, records = run(folder, tmp_path)
    name = {quirk: Path(file).stem for quirk, file in truth.quirks.items()}
    told = {item.name.split("_")[1]: item.reason for item in summary.quarantine}
    assert told.keys() == {name["missing_image"], name["truncated_image"], name["damaged_image"]}
    assert "but no file" in told[name["missing_image"]]
    assert "is cut short" in told[name["truncated_image"]]
    assert "is not a DICOM file" in told[name["damaged_image"]]
    assert len(records) == truth.images - 3
    assert int(name["missing_row"]) not in records
    warnings = "\n".join(summary.warnings)
    assert f"1 files have no usable row in train.csv: {name['missing_row']}.dcm" in warnings
    # The table was believed.
    row = next(row for row in table_rows(folder) if row["image_id"] == name["contradiction"])
    record = records[int(name["contradiction"])]
    assert (record.laterality, record.view) == (row["laterality"], row["view"])
    assert "1 headers contradict the table's laterality" in warnings
    assert "1 headers contradict the table's view" in warnings
    assert summary.checks["headers"]["patient contradicts"] == 0
    assert (tmp_path / "quarantine.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("device", range(len(DEVICES)))
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.9])
def test_file_that_is_cut_short_is_quarantined_in_both_formats(clean, tmp_path, device, part):
    folder, _ = clean
    rows = [row for row in table_rows(folder) if int(row["machine_id"]) % len(DEVICES) == device]
    source = tmp_path / "archive"
    shutil.copytree(folder / "train_images" / rows[0]["patient_id"], source / "train_images" / rows[0]["patient_id"])
    write_rows(source / "train.csv", [row for row in rows if row["patient_id"] == rows[0]["patient_id"]])
    path = source / "train_images" / rows[0]["patient_id"] / f"{rows[0]['image_id']}.dcm"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    for pixels in (PixelOptions(), PNG):
        one = {"val_fraction": 0.0, "test_fraction": 0.0}
        summary, records = run(source, tmp_path / pixels.file_format, pixels=pixels, splits=SplitOptions(**one))
        assert [item.name for item in summary.quarantine] == [f"{rows[0]['patient_id']}_{rows[0]['image_id']}"]
        assert len(records) >= 3


def test_negatives_are_all_without_cancer_or_those_with_birads_1(clean, tmp_path):
    folder, _ = clean
    rows = {int(row["image_id"]): row for row in table_rows(folder)}
    summary, records = run(folder, tmp_path / "a", negatives="birads1")
    for image, record in records.items():
        row = rows[image]
        expected = 1 if row["cancer"] == "1" else 0 if row["BIRADS"] == "1.0" else None
        assert record.labels["tumor"] == expected
        assert record.labels["malignant"] == int(row["cancer"])
    assert {record.labels["tumor"] for record in records.values()} == {0, 1, None}
    # Site 2 gives no BI-RADS: what has a label there has cancer.
    assert sum("site 2 has images with tumor 1 and none with tumor 0" in text for text in summary.warnings) == 1
    summary, _ = run(folder, tmp_path / "b")
    assert not any("none with tumor 0" in text for text in summary.warnings)


def test_views_beyond_the_standard_ones_are_left_out_and_counted(clean, tmp_path):
    folder, _ = clean
    others = [row for row in table_rows(folder) if row["view"] not in ("CC", "MLO")]
    summary, records = run(folder, tmp_path, views="standard")
    assert summary.counts["left out"]["other views"] == len(others) > 0
    assert {record.view for record in records.values()} == {"CC", "MLO"}


def test_limit_takes_whole_women_and_a_smaller_one_is_part_of_a_larger_one(clean, tmp_path):
    folder, truth = clean
    chosen = {}
    for number in (4, 6, 99):
        summary, records = run(folder, tmp_path / str(number), limit_patients=number)
        chosen[number] = {record.patient_id for record in records.values()}
        assert len(records) + summary.counts["left out"]["beyond --limit-patients"] == truth.images
    assert [len(women) for women in chosen.values()] == [4, 6, 12]
    assert chosen[4] < chosen[6]


def test_splits_part_women_and_give_each_part_its_share_of_cancers_at_each_site(tmp_path):
    folder = tmp_path / "archive"
    write_rsna_archive(folder, patients=60, size=64, positive_fraction=0.5, progress=False)
    splits = SplitOptions(test_fraction=0.5, val_fraction=0.0, folds=2)
    run(folder, tmp_path / "out", splits=splits)
    told = {}
    for part in ("train", "test"):
        images = read_coco(tmp_path / "out" / f"{part}.json").images
        women = {(image.patient_id, image.notes[-2]) for image in images}
        sick = {image.patient_id for image in images if image.labels["malignant"]}
        told[part] = Counter((site, patient in sick) for patient, site in women)
    assert sum(told["train"].values()) + sum(told["test"].values()) == 60
    assert len(told["train"]) == 4  # two sites, with cancer and without
    for kind in told["train"]:
        assert abs(told["train"][kind] - told["test"][kind]) <= 1
    inside = {image.patient_id for image in read_coco(tmp_path / "out" / "fold0_val.json").images}
    outside = {image.patient_id for image in read_coco(tmp_path / "out" / "test.json").images}
    assert not inside & outside


def test_test_table_goes_to_the_test_set_without_labels(clean, tmp_path):
    folder, truth = clean
    summary, records = run(folder, tmp_path / "out", table=folder / "test.csv")
    rows = table_rows(folder, "test.csv")
    assert records.keys() == {int(row["image_id"]) for row in rows}
    assert len(records) == 4
    assert {record.split for record in records.values()} == {"test"}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "splits.json",
        "summary.json",
        "test.json",
    ]
    for record in records.values():
        assert record.labels == {"tumor": None, "malignant": None}
        assert not record.has_truth
        assert any(note.startswith("implant ") for note in record.notes)
    # Files of the training part are none that lack a row.
    assert summary.counts["files"]["no row"] == 0
    assert "has no labels" in summary.warnings[-1]
    with pytest.raises(InputError, match=r"--folds 2: .*test\.csv has no labels"):
        run(folder, tmp_path / "folds", table=folder / "test.csv", splits=SplitOptions(folds=2))
    assert truth.images > 4


@pytest.mark.parametrize("place", ["{patient}/{image}.png", "{patient}_{image}.png", "deep/er/{patient}_{image}.PNG"])
def test_png_editions_are_told_by_their_names(clean, tmp_path, place):
    folder, _ = clean
    source = tmp_path / "png"
    rows = table_rows(folder)
    for number, row in enumerate(rows):
        path = source / "images" / place.format(patient=row["patient_id"], image=row["image_id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path.with_suffix(".png"), np.full((40, 30 + number), number, np.uint8))
        path.with_suffix(".png").rename(path)
    shutil.copy(folder / "train.csv", source)
    summary, records = run(source, tmp_path / "out")
    assert {record.size_hw for record in records.values()} == {(40, 30 + number) for number in range(len(rows))}
    assert {record.source for record in records.values()} == {"RSNA"}
    assert records[7000100].patient_id == "rsna_70001"
    assert summary.counts["transfer syntax"] == {"none (png)": len(rows)}
    assert any("are no DICOM files" in warning for warning in summary.warnings)
    _, written = run(source, tmp_path / "written", pixels=PNG)
    assert read_image(tmp_path / "written" / written[7000101].file_name)[0, 0] == 1


def test_of_two_files_of_an_image_the_dicom_file_is_taken(clean, tmp_path):
    folder, _ = clean
    source = tmp_path / "archive"
    shutil.copytree(folder, source)
    write_png(source / "a" / "70001_7000100.png", np.zeros((40, 30), np.uint8))
    summary, records = run(source, tmp_path / "out")
    assert records[7000100].file_name.endswith(".dcm")
    assert summary.counts["files"]["second ones"] == 1


def test_archive_is_found_one_folder_deeper_and_its_table_elsewhere(clean, tmp_path):
    folder, truth = clean
    outer = tmp_path / "outer"
    shutil.copytree(folder, outer / "rsna-breast-cancer-detection")
    _, records = run(outer, tmp_path / "a")
    assert len(records) == truth.images
    assert records[7000100].file_name == "archive/rsna-breast-cancer-detection/train_images/70001/7000100.dcm"
    assert records[7000100].source == "phantom"
    (outer / "rsna-breast-cancer-detection" / "train.csv").rename(tmp_path / "labels.csv")
    (outer / "rsna-breast-cancer-detection" / "test.csv").unlink()
    with pytest.raises(InputError, match="name it by --table"):
        run(outer, tmp_path / "b")
    _, records = run(outer, tmp_path / "b", table=tmp_path / "labels.csv")
    assert len(records) == truth.images


def test_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one(quirky, tmp_path, monkeypatch):
    folder, truth = quirky
    calls = Counter()
    real = rsna.convert_image

    def counted(*task):
        calls["all"] += 1
        if calls["all"] == calls["stop"]:
            raise KeyboardInterrupt
        return real(*task)

    monkeypatch.setattr(rsna, "convert_image", counted)
    run(folder, tmp_path / "whole", pixels=PNG)
    assert calls["all"] == truth.images - 1  # one has no file
    calls.clear()
    calls["stop"] = 20
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", pixels=PNG)
    assert not (tmp_path / "out" / "all.json").exists()
    half_written = tmp_path / "out" / "images" / "70001" / ".7000100.abc.tmp.png"
    half_written.write_bytes(b"half")
    calls.clear()
    run(folder, tmp_path / "out", pixels=PNG)
    # What was refused is tried again: at most the truncated and the damaged one more.
    assert truth.images - 1 - 19 <= calls["all"] <= truth.images - 1 - 19 + 2
    assert not half_written.exists()
    ours, theirs = files_of(tmp_path / "out"), files_of(tmp_path / "whole")
    for files, name in ((ours, "out"), (theirs, "whole")):
        files["summary.json"] = files["summary.json"].replace(str(tmp_path / name).encode(), b"")
    assert ours == theirs
    calls.clear()
    run(folder, tmp_path / "out", pixels=PNG, negatives="birads1", splits=SplitOptions(seed=3))
    assert calls["all"] == 2  # other labels and splits cost no image


def test_lost_png_is_written_again_and_old_tables_do_not_outlive_their_images(clean, tmp_path, monkeypatch):
    folder, _ = clean
    _, records = run(folder, tmp_path, pixels=PNG)
    before = files_of(tmp_path)
    (tmp_path / records[7000100].file_name).unlink()
    run(folder, tmp_path, pixels=PNG)
    assert files_of(tmp_path) == before

    def stopped(*task):
        raise KeyboardInterrupt

    monkeypatch.setattr(rsna, "convert_image", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, pixels=PixelOptions("png16", 64))
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("pixels", [PixelOptions(), PNG])
def test_two_jobs_give_what_one_gives(clean, tmp_path, pixels):
    folder, _ = clean
    for jobs in (1, 2):
        run(folder, tmp_path / str(jobs), pixels=pixels, jobs=jobs)
    one, two = (files_of(tmp_path / str(jobs)) for jobs in (1, 2))
    assert read_json(tmp_path / "1" / "summary.json")["checks"] == read_json(tmp_path / "2" / "summary.json")["checks"]
    del one["summary.json"], two["summary.json"]
    assert one == two


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"views": "some"}, "--views some: expected one of all, standard"),
        ({"negatives": "none"}, "--negatives none: expected one of all, birads1"),
        ({"pixels": {"file_format": "jpg"}}, "--format jpg: expected one of reference, png16"),
        ({"pixels": {"file_format": "png16", "max_size": 8}}, "--max-size 8: expected at least 16 px"),
        ({"pixels": {"max_size": 512}}, "--max-size: --format reference refers to the archive's own"),
        ({"pixels": {"crop": True}}, "--crop: --format reference"),
        ({"limit_patients": 0}, "--limit-patients 0: expected a whole number of 1 or more"),
        ({"jobs": 0}, "--jobs 0: expected a whole number of 1 or more"),
        ({"splits": SplitOptions(folds=1)}, "--folds 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        run(tmp_path / "missing", tmp_path / "out", **options)


def test_folder_without_images_or_with_those_of_another_archive_is_refused(clean, tmp_path):
    folder, _ = clean
    source = tmp_path / "archive"
    source.mkdir()
    shutil.copy(folder / "train.csv", source)
    with pytest.raises(InputError, match=r"expected train_images/PATIENT/IMAGE\.dcm"):
        run(source, tmp_path / "out")
    write_png(source / "mdb001.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"images that are there: mdb001\.png"):
        run(source, tmp_path / "out")
    write_png(source / "1_2.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="none of the 1 images there has a row"):
        run(source, tmp_path / "out")
    (source / "70001").mkdir()
    (source / "70001" / "7000100.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=r"no image could be converted .*the file is empty"):
        run(source, tmp_path / "out")


def test_contradiction_needs_a_header_and_a_row_that_both_say_something(clean, tmp_path):
    folder, _ = clean
    source = tmp_path / "archive"
    rows = table_rows(folder)
    chosen = [row for row in rows if row["patient_id"] == "70001"]  # a device that names side and view
    shutil.copytree(folder / "train_images" / "70001", source / "train_images" / "70001")
    write_rows(source / "train.csv", [row | {"view": ""} for row in chosen])
    one = SplitOptions(test_fraction=0.0, val_fraction=0.0)
    summary, _ = run(source, tmp_path / "out", splits=one)
    assert summary.checks["headers"] == {
        "laterality said by": 4,
        "view said by": 4,
        "patient said by": 4,
        "laterality contradicts": 0,
        "view contradicts": 0,
        "patient contradicts": 0,
    }
    path = source / "train_images" / "70001" / "7000100.dcm"
    for patient, count in (("70002", 1), ("anonymous", 0)):
        data = pydicom.dcmread(path)
        data.PatientID = patient
        data.save_as(path)
        summary, _ = run(source, tmp_path / "out", splits=one)
        assert summary.checks["headers"]["patient contradicts"] == count


def test_contradictions_are_told_by_name():
    from mammodet.converters.rsna.table import ImageRow

    row = ImageRow(line=2, patient=7, image=70, laterality="L", view="CC", cancer=0)
    assert contradictions(row, {"laterality": "R", "view": "CC", "patient": "7"}) == {
        "laterality": "7_70 (R in the header, L in the table)"
    }


def test_command_line_gives_the_options():
    parser = argparse.ArgumentParser()
    add_arguments(parser, RsnaOptions)
    common = ["--test-fraction", "0.1", "--val-fraction", "0.3", "--folds", "5", "--seed", "7", "--jobs", "3"]
    assert RsnaOptions.of(parser.parse_args(common)) == RsnaOptions(splits=SplitOptions(0.1, 0.3, 5, 7), jobs=3)
    line = ["--table", "t.csv", "--format", "png16", "--crop", "--views", "standard"]
    line += ["--negatives", "birads1", "--limit-patients", "9"]
    chosen = RsnaOptions.of(parser.parse_args(line))
    assert chosen.pixels == PixelOptions("png16", None, True)
    assert chosen.pixels.longest_side == 2048
    assert (chosen.table, chosen.views, chosen.negatives, chosen.limit_patients) == (
        Path("t.csv"),
        "standard",
        "birads1",
        9,
    )
    assert RsnaOptions.of(parser.parse_args(["--format", "png16", "--max-size", "0"])).pixels.longest_side is None
    with pytest.raises(InputError, match="--max-size: --format reference"):
        RsnaOptions.of(parser.parse_args(["--max-size", "512"]))


def test_phantom_replaces_its_own_kind_only(clean, tmp_path):
    folder = tmp_path / "archive"
    write_rsna_archive(folder, patients=3, size=64, progress=False)
    write_rsna_archive(folder, patients=1, size=64, progress=False)
    assert len(list(folder.glob("train_images/*"))) == 1
    (folder / "Info.txt").write_text("of mini-MIAS")
    with pytest.raises(InputError, match=r"holds Info\.txt, not of this archive"):
        write_rsna_archive(folder, patients=1, size=64, progress=False)
    (folder / "Licence.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no phantom archive"):
        write_rsna_archive(folder, patients=1, size=64, progress=False)


def test_phantom_draws_rows_of_a_table_women_whole(clean, tmp_path):
    folder, truth = clean
    write_rsna_archive(tmp_path / "all", table=folder / "train.csv", size=64, progress=False)
    assert sorted(map(tuple, map(dict.items, table_rows(tmp_path / "all")))) == sorted(
        map(tuple, map(dict.items, table_rows(folder)))
    )
    summary = write_rsna_archive(tmp_path / "some", table=folder / "train.csv", limit=9, size=64, progress=False)
    assert (summary.images, summary.patients) == (9, len({row["patient_id"] for row in table_rows(tmp_path / "some")}))
    assert summary.patients <= 3
    assert len(list((tmp_path / "some").glob("train_images/*/*.dcm"))) == 9
    (tmp_path / "bad.csv").write_text("patient_id,image_id\n1,2\n")
    with pytest.raises(InputError, match="column site_id, laterality"):
        write_rsna_archive(tmp_path / "none", table=tmp_path / "bad.csv")
    assert truth.images > 9


@pytest.mark.skipif("MAMMODET_RSNA" not in os.environ, reason="MAMMODET_RSNA names no folder with the real train.csv")
def test_rows_of_the_real_table_are_converted_with_their_labels(tmp_path):
    """Drawn images under real rows: what the data set counts is what the table counts, read by nothing of ours."""
    real = Path(os.environ["MAMMODET_RSNA"]) / "train.csv"
    write_rsna_archive(tmp_path / "archive", table=real, limit=400, size=64, progress=False)
    drawn = {int(path.stem) for path in (tmp_path / "archive").glob("train_images/*/*.dcm")}
    with open(real, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["image_id"]) in drawn]
    assert len(rows) == 400
    summary, records = run(tmp_path / "archive", tmp_path / "out", jobs=2)
    assert summary.quarantine == []
    assert len(records) == 400
    for label, column in (
        ("tumor", "cancer"),
        ("malignant", "cancer"),
        ("biopsy", "biopsy"),
        ("invasive", "invasive"),
        ("implant", "implant"),
    ):
        counted = Counter(record.labels[label] for record in records.values())
        assert counted == Counter(int(row[column]) for row in rows), label
    difficult = Counter(record.labels["difficult_negative_case"] for record in records.values())
    assert difficult == Counter(int(row["difficult_negative_case"] == "True") for row in rows)
    for key, column in (("density", "density"), ("view", "view"), ("laterality", "laterality")):
        counted = Counter(getattr(record, key) for record in records.values())
        assert counted == Counter(row[column] or None for row in rows), key
    assert Counter(record.birads for record in records.values()) == Counter(row["BIRADS"][:1] or None for row in rows)
    assert sum(record.unlocalized for record in records.values()) == sum(row["cancer"] == "1" for row in rows) > 0
