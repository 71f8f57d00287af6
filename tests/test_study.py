"""What predict is given: files, folders, globs, DICOMDIR, zip files; and which images of a study are taken."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mammodet.data import inputs
from mammodet.data.dicom.study_file import read_study_file
from mammodet.data.images import write_png
from mammodet.data.inputs import Inputs, gather, unpacked
from mammodet.data.study import Spacing
from mammodet.errors import InputError

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TOMO = "1.2.840.10008.5.1.4.1.1.13.1.3"


def film(path: Path, side: str | None = "L", view: str | None = "CC", **elements: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    number = sum(path.name.encode())
    known = {"StudyInstanceUID": "1.2.8", "SOPInstanceUID": f"1.2.8.{number}", "Modality": "MG", "PatientID": "P1"}
    values = {**known, "ImageLaterality": side, "ViewPosition": view, **elements}
    return small_dicom.save(path, small_dicom.image(PIXELS, 12, **values))


def view_codes(view: str, *modifiers: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = view, "SCT"
    item.ViewModifierCodeSequence = []
    for code in modifiers:
        modifier = Dataset()
        modifier.CodeValue, modifier.CodingSchemeDesignator = code, "SCT"
        item.ViewModifierCodeSequence.append(modifier)
    return Sequence([item])


def look(*given: Path | str, tmp: Path, pattern: str | None = None) -> Inputs:
    return gather(given, ["mass"], unpack_to=tmp / "unpacked", pattern=pattern)


def names(found: Inputs) -> list[str]:
    return [record.file_name for record in found.dataset.images]


def reasons(found: Inputs) -> dict[str, str]:
    return {item.file_name: item.reason for item in found.left_out}


def test_of_a_view_the_best_kind_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    film(tmp_path / "raw", SOPClassUID=PROCESSING)
    film(tmp_path / "shown")
    film(tmp_path / "synthetic", ImageType=["DERIVED", "PRIMARY", "", "GENERATED_2D"])
    film(tmp_path / "raw_mlo", view="MLO", SOPClassUID=PROCESSING)
    film(tmp_path / "capture", None, None, SOPClassUID=CAPTURE)
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["raw_mlo", "shown"]
    assert reasons(found) == {
        "raw": "is for processing; of the same view shown is for presentation",
        "synthetic": "is synthetic; of the same view shown is for presentation",
        "capture": "is a secondary capture; its study holds mammograms, for instance raw",
    }
    assert [record.image_id for record in found.dataset.images] == [1, 2]
    assert found.exams[0].missing == ("R CC", "R MLO")


def test_scanned_films_are_secondary_captures_and_taken_when_there_is_nothing_else(tmp_path: Path) -> None:
    film(tmp_path / "a", SOPClassUID=CAPTURE)
    film(tmp_path / "b", view="MLO", SOPClassUID=CAPTURE)
    assert names(look(tmp_path, tmp=tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPClassUID": TOMO, "NumberOfFrames": 45}, "has 45 frames: tomosynthesis"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]}, "is a tomosynthesis slice"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "is a tomosynthesis slice"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, "is a tomosynthesis projection"),
        ({"Modality": "US"}, "is of modality US, not mammography"),
        ({"ViewPosition": None, "ViewCodeSequence": view_codes("127457009")}, "shows a specimen, not a breast"),
    ],
)
def test_what_is_no_projection_image_is_left_out(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    film(tmp_path / "other", **elements)
    film(tmp_path / "shown")
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["shown"]
    assert reasons(found) == {"other": reason}
    with pytest.raises(InputError, match=f"other: {reason}"):
        look(tmp_path / "other", tmp=tmp_path)


def test_reports_are_left_out_and_damaged_files_skipped(tmp_path: Path) -> None:
    film(tmp_path / "shown")
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.3", "SR"
    small_dicom.save(tmp_path / "report", report)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "shown").read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("=1+1")
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["shown"]
    assert reasons(found) == {
        "report": "is no image (Comprehensive SR Storage)",
        "notes.txt": "is no image by its name (.txt) and content",
    }
    assert [item.file_name for item in found.skipped] == ["cut.dcm"]


def test_pictures_that_mammodet_has_drawn_are_left_out(tmp_path: Path) -> None:
    film(tmp_path / "shown")
    (tmp_path / "preds" / "overlays" / "thumbnails").mkdir(parents=True)
    for name in ("a.png", "index.html", "thumbnails/a.png.jpg"):
        (tmp_path / "preds" / "overlays" / name).touch()
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["shown"]
    assert reasons(found) == {"preds/overlays": "holds pictures that mammodet has drawn"}


def test_a_view_with_the_implant_displaced_is_not_counted_twice(tmp_path: Path) -> None:
    film(tmp_path / "with")
    film(tmp_path / "displaced", view=None, ViewCodeSequence=view_codes("399162004", "399209000"))
    film(tmp_path / "spot", view=None, ViewCodeSequence=view_codes("399162004", "399055006"))
    film(tmp_path / "other_side", side="R")
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["displaced", "other_side", "spot"]
    assert reasons(found) == {"with": "shows the implant; of the same view displaced has it displaced"}
    assert found.exams[0].special == ("L CC spot compression: spot",)


def test_repeated_views_stay_and_are_reported(tmp_path: Path) -> None:
    film(tmp_path / "a")
    film(tmp_path / "b")
    film(tmp_path / "xccl", view="XCCL")
    film(tmp_path / "later", StudyInstanceUID="1.2.9")
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["a", "b", "later", "xccl"]
    assert reasons(found) == {}
    first, second = found.exams
    assert (first.repeated, first.special) == (("L CC",), ("L XCCL: xccl",))
    assert (second.name, second.files, second.repeated) == ("1.2.9", ("later",), ())


def test_an_image_in_a_zip_file_and_a_folder_is_counted_once(tmp_path: Path) -> None:
    film(tmp_path / "films" / "a")
    film(tmp_path / "films" / "b", view="MLO")
    film(tmp_path / "films" / "raw", view="MLO", SOPInstanceUID="1.2.8.7", SOPClassUID=PROCESSING)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in ("a", "raw"):
            archive.write(tmp_path / "films" / name, f"copied_{name}")
    found = look(tmp_path / "films", tmp_path / "study.zip", tmp=tmp_path)
    assert names(found) == ["films/a", "films/b"]
    assert reasons(found) == {
        "films/raw": "is for processing; of the same view films/b is for presentation",
        "unpacked/001_study/copied_a": "is a copy of films/a",
        "unpacked/001_study/copied_raw": "is a copy of films/raw",
    }
    assert (found.skipped, found.exams[0].repeated) == ((), ())


def test_two_versions_of_one_image_are_counted_once_and_the_second_is_a_fault(tmp_path: Path) -> None:
    film(tmp_path / "a", SOPInstanceUID="1.2.8.7")
    film(tmp_path / "b", "R", SOPInstanceUID="1.2.8.7")
    found = look(tmp_path, tmp=tmp_path)
    assert names(found) == ["a"]
    (second,) = found.skipped
    assert (second.file_name, found.left_out) == ("b", ())
    assert "has the SOP Instance UID of a and other content" in second.reason


@pytest.mark.parametrize(
    ("said", "side", "view"),
    [("R CC", "R", "CC"), ("LMLO", "L", "MLO"), ("MAMMO LEFT MLO", "L", "MLO"), ("ROUTINE", None, None)],
)
def test_side_and_view_come_from_the_description_as_the_last_resort(
    tmp_path: Path, said: str, side: str | None, view: str | None
) -> None:
    file = read_study_file(film(tmp_path / "a", None, None, SeriesDescription=said))
    assert (file.laterality, file.view) == (side, view)
    file = read_study_file(film(tmp_path / "b", "R", "ML", SeriesDescription=said))
    assert (file.laterality, file.view) == ("R", "ML")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        (
            {"ImagerPixelSpacing": [0.07, 0.07], "EstimatedRadiographicMagnificationFactor": 1.4},
            Spacing((0.05, 0.05), "Imager Pixel Spacing / magnification 1.4"),
        ),
        (
            {"ImagerPixelSpacing": [0.07, 0.07], "PixelSpacing": [0.07, 0.07]},
            Spacing((0.07, 0.07), "Imager Pixel Spacing, magnification not stated: sizes are upper bounds"),
        ),
        (
            {"ImagerPixelSpacing": [0.07, 0.07], "PixelSpacing": [0.065, 0.065]},
            Spacing((0.065, 0.065), "Pixel Spacing, which differs from that at the detector"),
        ),
        (
            {
                "PixelSpacing": [0.07, 0.08],
                "PixelSpacingCalibrationType": "GEOMETRY",
                "EstimatedRadiographicMagnificationFactor": 1.4,
            },
            Spacing((0.07, 0.08), "Pixel Spacing, corrected for magnification"),
        ),
        ({"ImagerPixelSpacing": [70.0, 70.0]}, None),
        ({"ImagerPixelSpacing": [0.0, 0.0]}, None),
        ({"PixelSpacing": [9.0, 9.0], "Rows": 64, "Columns": 1}, None),
    ],
)
def test_spacing_is_that_in_the_breast_or_none(
    tmp_path: Path, elements: dict[str, Any], expected: Spacing | None
) -> None:
    found = read_study_file(film(tmp_path / "a", **elements)).spacing
    assert (found is None) == (expected is None)
    if found and expected:
        assert (found.mm_rc, found.basis) == (pytest.approx(expected.mm_rc), expected.basis)


def test_dicomdir_lists_the_files_also_in_lower_case(tmp_path: Path) -> None:
    film(tmp_path / "disc" / "IMG" / "A")
    film(tmp_path / "disc" / "img" / "b", view="MLO")
    film(tmp_path / "disc" / "IMG" / "UNLISTED", side="R")
    directory = Dataset()
    directory.SOPInstanceUID, directory.DirectoryRecordSequence = "1.2.3", []
    for name in (["IMG", "A"], ["IMG", "B"], ["IMG", "GONE"], ["..", "OUT.DCM"]):
        item = Dataset()
        item.ReferencedFileID = name
        directory.DirectoryRecordSequence.append(item)
    path = small_dicom.save(tmp_path / "disc" / "DICOMDIR", directory)
    found = look(path, tmp=tmp_path)
    assert names(found) == ["IMG/A", "img/b"]
    skipped = {item.file_name: item.reason for item in found.skipped}
    assert skipped["IMG/GONE"] == "is listed in DICOMDIR, and not there"
    assert "leaves its folder" in skipped["DICOMDIR"]


def test_zip_file_is_unpacked_inside_its_folder_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "study.zip"
    film(tmp_path / "a")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "a", "deep/a")
        archive.write(tmp_path / "a", "../outside")
        archive.writestr(zipfile.ZipInfo("/root"), "")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("deep", "the name of a folder")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.write(tmp_path / "a", "deep/a")
    with unpacked(tmp_path / "out") as folder:
        found = gather([path], ["mass"], unpack_to=folder)
        assert names(found) == ["deep/a"]
        assert (found.root / "deep/a").read_bytes() == (tmp_path / "a").read_bytes()
        assert found.root.is_relative_to(folder)
    assert {item.file_name: item.reason for item in found.skipped} == {
        "study.zip: ../outside": "its name leaves the folder",
        "study.zip: /root": "its name leaves the folder",
        "study.zip: link": "is a link",
        "study.zip: deep": "is there twice",
        "study.zip: deep/a": "is there twice",
    }
    assert not folder.exists()
    assert not (tmp_path / "outside").exists()


def test_second_prediction_leaves_the_unpacked_files_of_the_first(tmp_path: Path) -> None:
    with unpacked(tmp_path / "out") as folder:
        (folder / "000_study").mkdir()
        (folder / "000_study" / "a").touch()
        with pytest.raises(InputError, match="another prediction"), unpacked(tmp_path / "out"):
            pass
        assert (folder / "000_study" / "a").exists()
    assert not (tmp_path / "out").exists()


def test_what_a_killed_prediction_left_is_unpacked_anew(tmp_path: Path) -> None:
    film(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(tmp_path / "a", "deep/a")
    left = tmp_path / "out" / ".unpacked" / "000_study" / "deep" / "a"
    left.parent.mkdir(parents=True)
    left.write_bytes((tmp_path / "a").read_bytes()[:200])
    with unpacked(tmp_path / "out") as folder:
        found = gather([tmp_path / "study.zip"], ["mass"], unpack_to=folder)
        assert (names(found), found.skipped) == (["deep/a"], ())
        assert left.read_bytes() == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_file_is_skipped_and_the_others_are_read(tmp_path: Path, method: int) -> None:
    film(tmp_path / "a")
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(tmp_path / "a", "damaged")
        archive.write(tmp_path / "a", "whole")
        size = archive.infolist()[0].compress_size
    content = bytearray(path.read_bytes())
    start = 30 + len("damaged") + (9 if method == zipfile.ZIP_LZMA else 0)
    content[start : start + size - 9] = b"\xff" * (size - 9)
    path.write_bytes(content)
    found = look(path, tmp=tmp_path)
    assert names(found) == ["whole"]
    (skipped,) = found.skipped
    assert skipped.file_name == "study.zip: damaged"
    assert "cannot be unpacked" in skipped.reason


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_SLACK_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    with pytest.raises(InputError, match="states 1000000 bytes"):
        look(tmp_path / "bomb.zip", tmp=tmp_path)
    assert not list((tmp_path / "unpacked").rglob("*.png"))
    (tmp_path / "no.zip").write_bytes(b"PK no")
    with pytest.raises(InputError, match=r"no\.zip: is no zip file, or damaged"):
        look(tmp_path / "no.zip", tmp=tmp_path)


def test_several_inputs_and_globs_are_one_data_set_without_doubles(tmp_path: Path) -> None:
    for name in ("one/a.png", "one/b.png", "two/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_png(tmp_path / name, np.zeros((8, 8), np.uint8))
    found = look(str(tmp_path / "one" / "*.png"), tmp_path / "two", tmp_path / "one" / "a.png", tmp=tmp_path)
    assert names(found) == ["one/a.png", "one/b.png", "two/c.png"]
    with pytest.raises(InputError, match="no file has such a name"):
        look(str(tmp_path / "*.jpg"), tmp=tmp_path)


def test_pattern_finds_in_names_what_no_header_says(tmp_path: Path) -> None:
    for name in ("p7_left_cc_visit1.png", "p7_R_MLO_visit1.png", "other.png"):
        write_png(tmp_path / name, np.zeros((8, 8), np.uint8))
    film(tmp_path / "p8_R_MLO_visit1.dcm")
    pattern = r"(?P<patient>p\d+)_(?P<laterality>[lr])\w*?_(?P<view>cc|mlo)_(?P<study>visit\d)"
    found = look(tmp_path, tmp=tmp_path, pattern=pattern)
    facts = {record.file_name: (record.patient_id, record.laterality, record.view) for record in found.dataset.images}
    assert facts == {
        "other.png": (None, None, None),
        "p7_R_MLO_visit1.png": ("p7", "R", "MLO"),
        "p7_left_cc_visit1.png": ("p7", "L", "CC"),
        "p8_R_MLO_visit1.dcm": ("P1", "L", "CC"),  # the header is believed
    }
    assert {exam.name: exam.missing for exam in found.exams} == {
        "visit1": ("L MLO", "R CC"),
        "1.2.8": ("L MLO", "R CC", "R MLO"),
    }
    for wrong, message in (("(", "no regular expression"), ("a", "the groups none"), ("(?P<side>a)", r"\['side'\]")):
        with pytest.raises(InputError, match=message):
            look(tmp_path, tmp=tmp_path, pattern=wrong)
    with pytest.raises(InputError, match="is found in no file name"):
        look(tmp_path, tmp=tmp_path, pattern="(?P<patient>nowhere)")
