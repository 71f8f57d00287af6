"""Phantom CBIS-DDSM archives: the form of every file, and that each quirk shows what its name says.

What a converter makes of them is tested in test_cbis_ddsm.py.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammodet.commands import phantoms as make_phantoms
from mammodet.errors import InputError
from mammodet.phantom import CbisPhantom
from mammodet.phantom.cbis_ddsm import CbisPhantomSummary, write_cbis_archive
from mammodet.phantom.cbis_plan import COLUMNS, plan_films
from mammodet.phantom.mias import write_mias_archive


def write(folder: Path, **options) -> CbisPhantomSummary:
    return write_cbis_archive(folder, **({"patients": 8, "size": 128, "progress": False} | options))


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
    # The newline is in the mask's path in the mass sets, in the crop's in the calcification sets.
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
        assert (image.PatientOrientation, image.Laterality) == (row["image view"], row["left or right breast"][0])
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


# Keywords of the real files, read from a crop of Mass-Training_P_00694_RIGHT_CC_1.
KEYWORDS = """
SpecificCharacterSet SOPClassUID SOPInstanceUID StudyDate ContentDate StudyTime ContentTime AccessionNumber
Modality ConversionType ReferringPhysicianName SeriesDescription PatientName PatientID PatientBirthDate PatientSex
BodyPartExamined SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName StudyInstanceUID
SeriesInstanceUID StudyID SeriesNumber InstanceNumber PatientOrientation Laterality SamplesPerPixel
PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SmallestImagePixelValue
LargestImagePixelValue PixelData
"""


def test_dicom_files_have_the_real_ones_tags_and_say_that_they_are_synthetic(plain):
    files = sorted(plain[0].rglob("*.dcm"))
    headers = [pydicom.dcmread(path) for path in files]
    for header in headers:
        assert [element.keyword for element in header if not element.tag.is_private] == KEYWORDS.split()
        assert (
            header.private_block(0x0013, "CTP")[0x10].value.strip() == b"SYNTHETIC"
        )  # implicit VR tells no type of private tags
        assert header.LargestImagePixelValue == header.pixel_array.max()
        assert all(len(header[name].value) <= 64 for name in ("SOPInstanceUID", "SeriesInstanceUID"))
    assert len({header.SOPInstanceUID for header in headers}) == len(files)
    assert {header.Modality for header in headers} == {"MG"}


def test_view_from_above_shows_no_axilla(plain):
    for path in sorted(plain[0].glob("CBIS-DDSM/*_CC/*/*/000000.dcm")):
        pixels = pydicom.dcmread(path).pixel_array
        left = "_LEFT_" in path.parts[-4]
        # The chest wall is on the left of a left breast; at the top corner beside it there is film only.
        corner, middle = (rows[:, :8] if left else rows[:, -8:] for rows in (pixels[:3], pixels[60:68]))
        assert np.median(corner) < 0.3 * np.median(middle)


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
        # TCIA's folders end in the last five digits of the study's and the series' UID.
        header = pydicom.dcmread(tmp_path / name, stop_before_pixels=True)
        assert study[-5:] == header.StudyInstanceUID[-5:]
        assert series[-5:] == header.SeriesInstanceUID[-5:]
        assert file_name == f"1-{header.InstanceNumber}.dcm"


def test_jpeg_edition(tmp_path):
    summary = write(tmp_path, layout="kaggle_jpeg", quirks=())
    with open(tmp_path / "csv" / "dicom_info.csv", newline="") as file:
        info = list(csv.DictReader(file))
    columns = list(info[0])
    assert (columns[:3], columns[-1]) == (["file_path", "image_path", "AccessionNumber"], "StudyTime")
    assert columns[2:] == sorted(columns[2:])
    assert len(columns) == 38
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


def shown(folder: Path, summary: CbisPhantomSummary, quirk: str) -> list[dict[str, str]]:
    """The rows of the image that shows a quirk."""
    (name,) = summary.quirks[quirk]
    return [row for row in rows(folder) if row["image file path"].split("_", 1)[1].startswith(f"{name}/")]


@pytest.fixture(scope="module")
def quirky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quirky")
    return folder, write(folder, patients=20, quirks=list(CbisPhantom.QUIRKS))


def test_every_quirk_has_an_image_of_its_own(quirky):
    _, summary = quirky
    images = [name for quirk, names in summary.quirks.items() for name in names if quirk != "stray_files"]
    assert len(images) == len(set(images)) == len(CbisPhantom.QUIRKS) - 1


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
    assert crop[1] != mask[1]  # all 104 such rows of the real tables differ in the study, too
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
    assert "CBIS-DDSM" in (tmp_path / "Licence.txt").read_text()
    before = tree(tmp_path)
    with pytest.raises(InputError, match="no tables"):  # wrong tables cost no older archive
        write(tmp_path, tables=Path("/nowhere"))
    assert tree(tmp_path) == before
    write(tmp_path, quirks=["stray_files"])
    write(tmp_path, quirks=[])
    assert not (tmp_path / ".DS_Store").exists()
    write_mias_archive(tmp_path / "mias", patients=1, size=128, progress=False)
    with pytest.raises(InputError, match=r"holds Info\.txt, mdb001\.pgm, mdb002\.pgm, not of this archive"):
        write(tmp_path / "mias")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no phantom archive"):
        write(tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "--patients 0: expected a whole number from 1 to 9999"),
        ({"layout": "zip"}, "--layout zip: expected one of tcia, tcia_dated, kaggle_jpeg, flat_png"),
        ({"size": 10}, "--size 10: expected a whole number from 64 to 6000"),
        ({"quirks": ["odd_id"]}, "--quirks odd_id: expected some of swapped_columns"),
        ({"tables": Path("/nowhere")}, "/nowhere: no tables; expected mass_case"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        write(tmp_path / "new", **options)
    assert str(caught.value).startswith(message)


ROW = "P_00001,2,LEFT,CC,1,mass,OVAL,N/A,3,BENIGN,3,c/1.2/1.3/000000.dcm,c_1/1.2/1.4/000000.dcm,c_1/1.2/1.4/000001.dcm"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("c/1.2/1.3", "../../.."), "line 2: image file path '../../../000000.dcm'; expected case/study"),
        (ROW.replace("c/1.2/1.3/", ""), "line 2: image file path '000000.dcm'; expected case/study/series/000000.dcm"),
        (ROW.replace("c/1.2/1.3/000000", "c/1.2/1.3/1-1"), "image file path 'c/1.2/1.3/1-1.dcm'; expected"),
        (ROW.replace(",1,mass", ",x,mass"), "line 2: invalid literal for int() with base 10: 'x'"),
        (ROW.replace("LEFT", "L"), "patient, side and view ['P_00001', '2', 'L', 'CC']; expected P_00001, LEFT"),
    ],
)
def test_tables_of_another_form_are_refused_before_anything_is_written(tmp_path, row, message):
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "mass_case_description_train_set.csv").write_text(f"{COLUMNS['mass']}\n{row}\n")
    with pytest.raises(InputError) as caught:
        write(tmp_path / "new", tables=tables)
    assert message in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_table_with_other_columns_is_refused(tmp_path):
    (tmp_path / "mass_case_description_train_set.csv").write_text("patient_id,side\nP_00001,LEFT\n")
    with pytest.raises(
        InputError, match=r"columns \['patient_id', 'side'\]; expected \['patient_id', 'breast_density'"
    ):
        write(tmp_path / "new", tables=tmp_path)


def test_given_tables_are_copied_byte_for_byte_and_drawn_row_by_row(tmp_path):
    first = write(tmp_path / "first", quirks=["several_lesions", "split_series", "odd_ids"])
    again = write(tmp_path / "again", size=64, tables=tmp_path / "first")
    assert again.lesions.keys() == first.lesions.keys()
    for path in sorted((tmp_path / "first").glob("*.csv")):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert tree(tmp_path / "again") == tree(tmp_path / "first")


def test_several_lesions_are_two_to_seven():
    counts = {max(len(film.lesions) for film in plan_films(2, "mass", seed, ["several_lesions"])) for seed in range(60)}
    assert counts == {2, 3, 4, 5, 6, 7}


def test_tool_writes_either_archive_and_refuses_options_of_the_other(tmp_path, capsys):
    arguments = ["--archive", "cbis_ddsm", "--output", str(tmp_path), "--patients", "2", "--size", "128"]
    assert make_phantoms.main([*arguments, "--layout", "flat_png", "--quirks"]) == 0
    assert "4 images of 2 patients, 4 lesions (flat_png)" in capsys.readouterr().out
    with pytest.raises(InputError, match="--abnormal-fraction: not for --archive cbis_ddsm"):
        make_phantoms.main([*arguments, "--abnormal-fraction", "0.3"])
    with pytest.raises(InputError, match="--layout, --tables: not for --archive mias"):
        make_phantoms.main(["--output", str(tmp_path), "--layout", "tcia", "--tables", "x"])
