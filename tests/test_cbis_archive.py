"""Finding the files of CBIS-DDSM in each layout; the files here are empty, since only names count."""

import os
from pathlib import Path

import numpy as np
import pytest
from small_dicom import image, save

from mammodet.converters.cbis_ddsm.archive import find_archive
from mammodet.errors import InputError

CASE = "Mass-Training_P_00001_LEFT_CC"
UID = "1.3.6.1.4.1.9590.100.1.2.{}"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path, case: str, *table_paths: str) -> list[tuple[str, str | None]]:
    files = find_archive(root).files(case, table_paths)
    return [(file.path.relative_to(root).as_posix(), file.claim) for file in files]


def test_original_layout_at_any_depth(tmp_path):
    image = f"down load ü/CBIS-DDSM/{CASE}/{UID.format(1)}/{UID.format(2)}/000000.dcm"
    mask = f"down load ü/CBIS-DDSM/{CASE}_1/{UID.format(3)}/{UID.format(4)}/000001.dcm"
    touch(tmp_path, image, mask, "LICENSE", "x.xlsx", f"down load ü/CBIS-DDSM/{CASE}_1/.DS_Store")
    assert found(tmp_path, CASE) == [(image, None)]
    assert found(tmp_path, f"{CASE}_1") == [(mask, None)]
    assert found(tmp_path, f"{CASE}_10") == []
    assert find_archive(tmp_path).layouts == {"tcia": 2}


def test_dated_layout_says_what_a_series_is(tmp_path):
    folder = f"CBIS-DDSM/{CASE}_1/07-20-2016-DDSM-NA-94942"
    crop = f"{folder}/1.000000-cropped images-1/1-1.dcm"
    mask = f"{folder}/1.000000-ROI mask images-18515/1-1.dcm"
    full = f"CBIS-DDSM/{CASE}/07-20-2016-DDSM-NA-30288/1.000000-full mammogram images-24515/1-1.dcm"
    touch(tmp_path, crop, mask, full)
    assert found(tmp_path, f"{CASE}_1") == [(mask, "mask"), (crop, "crop")]
    assert found(tmp_path, CASE) == [(full, "image")]
    assert find_archive(tmp_path).layout_text() == "TCIA, newer (dated folders, 1-1.dcm): 3 files"


def test_jpeg_edition_joins_by_patient_and_by_series(tmp_path):
    series = [UID.format(number) for number in range(3)]
    touch(tmp_path, *(f"jpeg/{uid}/1-1.jpg" for uid in series), f"jpeg/{series[1]}/2-2.jpg")
    rows = [
        "image_path,PatientID,SeriesDescription",
        f"CBIS-DDSM/jpeg/{series[0]}/1-1.jpg,{CASE},full mammogram images",
        f"CBIS-DDSM/jpeg/{series[1]}/1-1.jpg,{CASE}_1,cropped images",
        f"CBIS-DDSM/jpeg/{series[1]}/2-2.jpg,{CASE}_1,",
        f"../../etc/{series[1]}/2-2.jpg,{CASE}_1,",
        "1-1.jpg,Mass-Training_P_00001_LEFT_CC,",
    ]
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "dicom_info.csv").write_text("\n".join(rows))
    assert found(tmp_path, CASE) == [(f"jpeg/{series[0]}/1-1.jpg", "image")]
    assert found(tmp_path, f"{CASE}_1") == [(f"jpeg/{series[1]}/1-1.jpg", "crop"), (f"jpeg/{series[1]}/2-2.jpg", None)]
    # A file that dicom_info.csv does not know is found by the series that the tables name.
    assert found(
        tmp_path, "Mass-Test_P_00002_LEFT_CC", f"Mass-Test_P_00002_LEFT_CC/{UID.format(9)}/{series[2]}/0.dcm"
    ) == [(f"jpeg/{series[2]}/1-1.jpg", None)]


def test_jpeg_edition_with_a_wrong_table_is_refused(tmp_path):
    touch(tmp_path, f"jpeg/{UID.format(1)}/1-1.jpg")
    (tmp_path / "dicom_info.csv").write_text("image_path,Patient\n")
    with pytest.raises(InputError, match=r"dicom_info\.csv: column PatientID, SeriesDescription missing"):
        find_archive(tmp_path)


@pytest.mark.parametrize(
    ("name", "case", "claim"),
    [
        (f"full/{CASE}.png", CASE, None),
        (f"{CASE}_FULL.png", CASE, "image"),
        (f"{CASE}_1_MASK.png", f"{CASE}_1", "mask"),
        (f"{CASE}_12_mask_1.tif", f"{CASE}_12", "mask"),
        (f"{CASE}_1-crop.jpg", f"{CASE}_1", "crop"),
        (f"{CASE}_1.dcm", f"{CASE}_1", None),
    ],
)
def test_files_named_by_case(tmp_path, name, case, claim):
    touch(tmp_path, name)
    assert found(tmp_path, case) == [(name, claim)]


def test_layouts_may_be_mixed(tmp_path):
    touch(tmp_path, f"{CASE}.png", f"{CASE}_1/{UID.format(3)}/{UID.format(4)}/000001.dcm")
    assert find_archive(tmp_path).layouts == {"flat_png": 1, "tcia": 1}


def test_folder_without_images_says_what_is_expected(tmp_path):
    touch(tmp_path, "IMG_1.png", "notes.txt")
    with pytest.raises(
        InputError, match=r"no images of CBIS-DDSM; expected folders .*; images that are there: IMG_1\.png"
    ):
        find_archive(tmp_path)


def test_link_back_up_does_not_go_round_for_ever(tmp_path):
    touch(tmp_path, f"a/{CASE}/x.dcm")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(find_archive(tmp_path).files(CASE)) == 1


def test_what_is_no_file_is_passed_over(tmp_path):
    touch(tmp_path, f"{CASE}/x.dcm")
    os.mkfifo(tmp_path / CASE / "pipe.dcm")
    (tmp_path / CASE / "gone.dcm").symlink_to(tmp_path / "nowhere.dcm")
    assert found(tmp_path, CASE) == [(f"{CASE}/x.dcm", None)]


def test_files_named_by_uid_are_told_by_their_headers(tmp_path):
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    flat, uuid, study = (
        f"dicom/{UID.format(5)}.dcm",
        "0a1b2c3d/9f8e7d6c-1111-2222-3333-444455556666.dcm",
        f"{UID.format(7)}/1.dcm",  # a folder that is named by the study
    )
    for name, case in ((flat, CASE), (uuid, f"{CASE}_1"), (study, f"{CASE}_2"), ("other.dcm", "somebody else")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, image(pixels, PatientID=case, SeriesInstanceUID=UID.format(9), SeriesDescription="cropped images"))
    assert found(tmp_path, CASE) == [(flat, None)]
    assert found(tmp_path, f"{CASE}_1") == [(uuid, None)]
    assert found(tmp_path, f"{CASE}_2") == [(study, None)]
    assert find_archive(tmp_path).layout_text() == "DICOM files told by their headers: 3 files"
