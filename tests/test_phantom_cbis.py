"""Phantom CBIS-DDSM archives: the form of every file, and that each quirk shows what its name says.

What a converter makes of them is tested in test_cbis_ddsm.py.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammodet import phantom
from mammodet.errors import InputError
from mammodet.phantom.cbis_layouts import DICOM_INFO
from tools import make_phantoms


def write(folder: Path, **options) -> phantom.CbisPhantomSummary:
    return phantom.write_cbis_archive(folder, **({"patients": 8, "size": 128, "progress": False} | options))


def rows(folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(folder.rglob("*_case_description_*_set.csv")):
        with open(path, newline="") as file:
            found += list(csv.DictReader(file))
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, write(folder, quirks=())


def test_tables_have_the_archives_columns_and_broken_paths(plain):
    folder, summary = plain
    mass = (folder / "mass_case_description_train_set.csv").read_text()
    assert mass.startswith(
        "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
        "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
        "P_00001,"
    )
    calc = (folder / "calc_case_description_train_set.csv").read_text()
    assert "patient_id,breast density,left" in calc
    # The newline stands in the mask's path in the mass sets, in the crop's in the calcification sets.
    mass_row, calc_row = (next(csv.DictReader(io.StringIO(text))) for text in (mass, calc))
    assert mass_row["ROI mask file path"].endswith("/000001.dcm\n")
    assert calc_row["cropped image file path"].endswith("/000001.dcm\n")
    assert calc_row["ROI mask file path"].endswith("/000000.dcm")
    assert sum(summary.rows.values()) == len(summary.lesions) == len(rows(folder)) == 16


def test_dicom_files_lie_where_the_tables_say_and_carry_the_archives_tags(plain):
    folder, summary = plain
    for row in rows(folder):
        image, crop, mask = (
            pydicom.dcmread(folder / "CBIS-DDSM" / row[f"{name} file path"].strip())
            for name in ("image", "cropped image", "ROI mask")
        )
        case = row["image file path"].split("/")[0]
        assert (image.PatientID, crop.PatientID, mask.PatientID) == (case, f"{case}_1", f"{case}_1")
        assert (image.PatientOrientation, image.Laterality) == (
            row["image view"],
            row["left or right breast"][0],
        )
        assert image.SeriesDescription == "full mammogram images"
        assert "PixelSpacing" not in image
        assert "ImagerPixelSpacing" not in image
        assert image.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
        assert (image.BitsStored, mask.BitsStored) == (16, 8)
        known = summary.lesions[f"{case}_1"]
        pixels, values = image.pixel_array, mask.pixel_array
        assert values.shape == pixels.shape
        assert set(np.unique(values)) == {0, 255}
        assert (values > 0).sum() == known.area_px
        x1, y1, x2, y2 = (int(side) for side in known.box_xyxy)
        assert np.array_equal(crop.pixel_array, pixels[y1:y2, x1:x2])


def test_films_have_16_bits_of_depth_and_stand_upright(plain):
    folder, _ = plain
    for path in sorted(folder.glob("CBIS-DDSM/*_CC/*/*/000000.dcm"))[:3]:
        pixels = pydicom.dcmread(path).pixel_array
        assert pixels.shape[0] == 128 > pixels.shape[1]
        assert len(np.unique(pixels)) > 2000


def test_lesions_stand_out_from_their_surround(tmp_path):
    summary = write(tmp_path, abnormality="mass", difficulty="easy", quirks=(), size=256)
    brighter = 0
    for name, known in summary.lesions.items():
        case = name.rsplit("_", 1)[0]
        (path,) = tmp_path.glob(f"CBIS-DDSM/{case}/*/*/000000.dcm")
        (mask_path,) = tmp_path.glob(f"CBIS-DDSM/{name}/*/*/000001.dcm")
        pixels, mask = pydicom.dcmread(path).pixel_array, pydicom.dcmread(mask_path).pixel_array > 0
        x1, y1, x2, y2 = (int(side) for side in known.box_xyxy)
        around = np.zeros_like(mask)
        around[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4] = True
        brighter += pixels[mask].mean() > pixels[around & ~mask].mean()
    assert brighter >= len(summary.lesions) - 1


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_dated_layout(tmp_path):
    write(tmp_path, layout="tcia_dated", patients=1, abnormality="mass", quirks=())
    names = [name for name in tree(tmp_path) if name.startswith("CBIS-DDSM")]
    assert len(names) == 6  # two views: image, crop and mask
    for name in names:
        _, case, study, series, file_name = name.split("/")
        assert study.startswith("07-20-2016-DDSM-NA-")
        full = case.endswith(("CC", "MLO"))
        assert series.startswith("1.000000-full mammogram images-" if full else "1.000000-ROI mask images-")
        assert file_name in (("1-1.dcm",) if full else ("1-1.dcm", "1-2.dcm"))


def test_jpeg_edition(tmp_path):
    summary = write(tmp_path, layout="kaggle_jpeg", quirks=())
    with open(tmp_path / "csv" / "dicom_info.csv", newline="") as file:
        info = list(csv.DictReader(file))
    assert list(info[0]) == DICOM_INFO
    assert len(DICOM_INFO) == 38
    assert len(info) == 3 * len(summary.lesions)
    for row in info:
        assert (tmp_path / row["image_path"].removeprefix("CBIS-DDSM/")).is_file()
        assert row["image_path"].split("/")[2] == row["SeriesInstanceUID"]
    assert {row["SeriesDescription"] for row in info} == {
        "",
        "full mammogram images",
        "cropped images",
        "ROI mask images",
    }


def test_flat_layout(tmp_path):
    write(tmp_path, layout="flat_png", patients=1, abnormality="calc", quirks=())
    side = rows(tmp_path)[0]["left or right breast"]
    cases = [f"Calc-Training_P_00001_{side}_{view}" for view in ("CC", "MLO")]
    assert [name for name in tree(tmp_path) if name.startswith("png")] == sorted(
        f"png/{case}{suffix}.png" for case in cases for suffix in ("", "_1_CROP", "_1_MASK")
    )


def shown(folder: Path, summary: phantom.CbisPhantomSummary, quirk: str) -> list[dict[str, str]]:
    """The rows of the image that shows a quirk."""
    (name,) = summary.quirks[quirk]
    return [row for row in rows(folder) if row["image file path"].split("_", 1)[1].startswith(f"{name}/")]


@pytest.fixture(scope="module")
def quirky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quirky")
    return folder, write(folder, patients=20, quirks=list(phantom.CBIS_QUIRK_HELP))


def test_every_quirk_has_an_image_of_its_own(quirky):
    _, summary = quirky
    images = [name for quirk, names in summary.quirks.items() for name in names if quirk != "stray_files"]
    assert len(images) == len(set(images)) == len(phantom.CBIS_QUIRK_HELP) - 1


def read(folder: Path, path: str) -> np.ndarray:
    return pydicom.dcmread(folder / "CBIS-DDSM" / path.strip()).pixel_array


def test_quirks_of_the_tables(quirky):
    folder, summary = quirky
    (row,) = shown(folder, summary, "swapped_columns")
    image, wrong = read(folder, row["image file path"]), read(folder, row["cropped image file path"])
    assert wrong.shape == image.shape
    (row,) = shown(folder, summary, "split_series")
    crop, mask = (row[f"{name} file path"].strip().split("/") for name in ("cropped image", "ROI mask"))
    assert crop[-1] == mask[-1] == "000000.dcm"
    assert crop[2] != mask[2]
    assert len(shown(folder, summary, "several_lesions")) >= 2
    assert int(shown(folder, summary, "odd_ids")[0]["abnormality id"]) > 1
    assert [row["pathology"] for row in shown(folder, summary, "mixed_pathology")] == ["BENIGN", "MALIGNANT"]
    (row,) = shown(folder, summary, "zero_scores")
    assert (row.get("breast_density") or row.get("breast density"), row["assessment"]) == ("0", "0")
    assert shown(folder, summary, "without_callback")[0]["pathology"] == "BENIGN_WITHOUT_CALLBACK"


@pytest.mark.parametrize("quirk", ["shared_image", "leaking_patient"])
def test_one_image_in_two_sets(quirky, quirk):
    folder, summary = quirky
    calc, mass = shown(folder, summary, quirk)
    assert (calc["abnormality type"], mass["abnormality type"]) == ("calcification", "mass")
    assert np.array_equal(*(read(folder, row["image file path"]) for row in (calc, mass)))
    cases = {row["image file path"].split("_")[0].split("-")[1] for row in (calc, mass)}
    assert len(cases) == (2 if quirk == "leaking_patient" else 1)


def test_quirks_of_the_files(quirky):
    folder, summary = quirky

    def pictures(quirk: str) -> tuple[np.ndarray, np.ndarray]:
        (row,) = shown(folder, summary, quirk)
        return read(folder, row["image file path"]), read(folder, row["ROI mask file path"])

    image, mask = pictures("mask_rescaled")
    assert mask.shape == tuple(round(1.15 * side) for side in image.shape)
    for quirk in ("mask_stretched", "mask_stretched_unclear"):
        image, mask = pictures(quirk)
        assert mask.shape[0] < image.shape[0]
        assert mask.shape[1] > image.shape[1]
    assert not pictures("empty_mask")[1].any()
    assert len(np.unique(pictures("mask_not_binary")[1])) > 2
    for quirk, column in (
        ("missing_image", "image file path"),
        ("missing_mask", "ROI mask file path"),
        ("missing_crop", "cropped image file path"),
        ("mask_stretched_unclear", "cropped image file path"),
    ):
        (row,) = shown(folder, summary, quirk)
        assert not (folder / "CBIS-DDSM" / row[column].strip()).exists()
    for quirk, column in (("truncated_image", "image file path"), ("truncated_mask", "ROI mask file path")):
        (row,) = shown(folder, summary, quirk)
        with pytest.raises((ValueError, AttributeError, EOFError)):
            _ = read(folder, row[column])
    assert (folder / ".DS_Store").is_file()


def test_archive_depends_on_the_seed_and_not_on_the_processes(tmp_path):
    for name, options in (("a", {}), ("b", {"jobs": 2}), ("c", {"seed": 1})):
        write(tmp_path / name, patients=3, **options)
    contents = [{name: (tmp_path / folder / name).read_bytes() for name in tree(tmp_path / folder)} for folder in "abc"]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_older_phantoms_are_replaced_and_nothing_else(tmp_path):
    write(tmp_path, patients=3)
    write(tmp_path, patients=2, layout="flat_png")
    assert not (tmp_path / "CBIS-DDSM").exists()
    assert len(rows(tmp_path)) == len(list((tmp_path / "png").glob("*_MASK.png")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no phantom archive"):
        write(tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients 0: expected 1 to 9999"),
        ({"layout": "zip"}, "layout 'zip': expected one of tcia, tcia_dated, kaggle_jpeg, flat_png"),
        ({"size": 10}, "size 10: expected 64 to 6000 pixels"),
        ({"quirks": ["odd_id"]}, "quirks odd_id: expected some of swapped_columns"),
        ({"tables": Path("/nowhere")}, "/nowhere: no tables; expected mass_case"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        write(tmp_path / "new", **options)
    assert str(caught.value).startswith(message)


def test_tool_writes_either_archive_and_refuses_options_of_the_other(tmp_path, capsys):
    arguments = ["--archive", "cbis_ddsm", "--output", str(tmp_path), "--patients", "2", "--size", "128"]
    assert make_phantoms.main([*arguments, "--layout", "flat_png", "--quirks"]) == 0
    assert "4 images of 2 patients, 4 lesions (flat_png)" in capsys.readouterr().out
    with pytest.raises(InputError, match="--write-truth: not for --archive cbis_ddsm"):
        make_phantoms.main([*arguments, "--write-truth"])
    with pytest.raises(InputError, match="--layout, --tables: not for --archive mias"):
        make_phantoms.main(["--output", str(tmp_path), "--layout", "tcia", "--tables", "x"])
