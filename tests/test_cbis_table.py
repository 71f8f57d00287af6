"""The tables of CBIS-DDSM: every form in which they occur, and every way in which they are broken."""

import os
import random
from pathlib import Path

import pytest

from mammodet.converters.cbis_ddsm.table import read_tables
from mammodet.errors import InputError

MASS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
CALC = (
    "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,"
    "calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
# As in the archive: the last path of every mass row ends with a newline, inside quotes.
MASS_ROW = (
    "P_00001,3,LEFT,CC,2,mass,IRREGULAR,SPICULATED,4,MALIGNANT,4,Mass-Training_P_00001_LEFT_CC/1.2/1.3/000000.dcm,"
    'Mass-Training_P_00001_LEFT_CC_2/1.4/1.5/000000.dcm,"Mass-Training_P_00001_LEFT_CC_2/1.4/1.5/000001.dcm\n"\n'
)
CALC_ROW = (
    "P_00005,0,RIGHT,MLO,1,calcification,AMORPHOUS,N/A,0,BENIGN_WITHOUT_CALLBACK,3,"
    "Calc-Test_P_00005_RIGHT_MLO/1.2/1.3/000000.dcm,"
    '"Calc-Test_P_00005_RIGHT_MLO_1/1.4/1.5/000001.dcm\n",Calc-Test_P_00005_RIGHT_MLO_1/1.4/1.5/000000.dcm\n'
)


def write(folder: Path, text: str, name: str = "mass_case_description_train_set.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode(encoding))
    return folder


def test_mass_row_is_read_with_its_newline_path(tmp_path):
    (row,) = read_tables([write(tmp_path, MASS + MASS_ROW)]).rows
    assert (row.abnormality, row.subset, row.patient, row.laterality, row.view) == (
        "mass",
        "train",
        "P_00001",
        "L",
        "CC",
    )
    assert (row.number, row.pathology, row.density) == (2, "MALIGNANT", "3")
    assert row.attributes == {"shape": "IRREGULAR", "margins": "SPICULATED", "assessment": 4, "subtlety": 4}
    assert row.mask_path == "Mass-Training_P_00001_LEFT_CC_2/1.4/1.5/000001.dcm"
    assert row.image_case == "Mass-Training_P_00001_LEFT_CC"
    assert row.name == "Mass-Training_P_00001_LEFT_CC_2"


def test_calcification_row_with_density_and_assessment_zero(tmp_path):
    (row,) = read_tables([write(tmp_path, CALC + CALC_ROW, "calc_case_description_test_set.csv")]).rows
    assert (row.abnormality, row.subset, row.laterality, row.view) == ("calc", "test", "R", "MLO")
    assert row.density is None  # 0 is no density
    # Assessment 0 is BI-RADS 0, an incomplete examination; N/A is left out.
    assert row.attributes == {"calc_type": "AMORPHOUS", "assessment": 0, "subtlety": 3}
    assert row.pathology == "BENIGN_WITHOUT_CALLBACK"
    assert row.crop_path == "Calc-Test_P_00005_RIGHT_MLO_1/1.4/1.5/000001.dcm"


@pytest.mark.parametrize("word", ["NA", "N/A", "n/a", ""])
def test_words_for_nothing_are_left_out(tmp_path, word):
    text = MASS + MASS_ROW.replace("IRREGULAR", word)
    (row,) = read_tables([write(tmp_path, text)]).rows
    assert "shape" not in row.attributes


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("breast_density", "Breast Density").replace("patient_id", "Patient ID"),
        lambda text: text.rstrip("\n"),
        lambda text: text + ",,,,,,,,,,,,,\n\n",
        lambda text: text.replace(",3,LEFT,CC,2,", ",3.0,LEFT,CC,2.0,"),
    ],
    ids=["byte order mark", "CRLF", "semicolons", "other header", "no last line end", "blank rows", "floats"],
)
def test_copies_saved_by_other_programs_are_the_same(tmp_path, change):
    plain = read_tables([write(tmp_path / "plain", MASS + MASS_ROW)])
    changed = read_tables([write(tmp_path / "changed", change(MASS + MASS_ROW))])
    assert changed.rows == plain.rows
    assert changed.quarantine == ()


def test_tables_are_found_two_folders_down_and_copies_are_read_once(tmp_path):
    write(tmp_path / "a" / "csv", MASS + MASS_ROW)
    write(tmp_path, MASS + MASS_ROW)
    write(tmp_path, "file_path,image_path,PatientID\nx,y,z\n", "dicom_info.csv")
    tables = read_tables([tmp_path])
    assert len(tables.rows) == 1
    assert tables.files == (tmp_path / "mass_case_description_train_set.csv",)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("P_00001,3", "X1,3", "patient id 'X1', expected P_ and a number"),
        (",LEFT,CC,2", ",BOTH,CC,2", "left or right breast 'BOTH', expected LEFT or RIGHT"),
        (",LEFT,CC,2", ",LEFT,AT,2", "image view 'AT', expected CC or MLO"),
        (",CC,2,mass", ",CC,two,mass", "abnormality id 'two', expected a number"),
        (",mass,", ",cyst,", "abnormality type 'cyst', expected mass or calcification"),
        ("MALIGNANT", "MALIGN", "pathology 'MALIGN', expected BENIGN or BENIGN_WITHOUT_CALLBACK or MALIGNANT"),
        ("P_00001,3,", "P_00001,7,", "breast density '7', expected 0 to 4"),
        (",4,MALIGNANT", ",x,MALIGNANT", "assessment 'x', expected 0 to 6"),
        ("P_00001,3,", "P_00001,", "13 cells, the header has 14"),
    ],
)
def test_bad_row_is_quarantined_with_its_line_and_the_rest_is_read(tmp_path, old, new, reason):
    text = MASS + CALC_ROW.replace("calcification", "mass") + MASS_ROW.replace(old, new)
    tables = read_tables([write(tmp_path, text)])
    assert len(tables.rows) == 1
    (item,) = tables.quarantine
    # The calcification row before it takes lines 2 and 3.
    assert (item.what, item.name) == ("row", "mass_case_description_train_set.csv line 4")
    assert item.reason == reason


def test_image_of_a_bad_row_is_known_to_be_incomplete(tmp_path):
    text = MASS + MASS_ROW + MASS_ROW.replace(",CC,2", ",CC,3").replace("MALIGNANT", "?")
    tables = read_tables([write(tmp_path, text)])
    assert tables.incomplete == {("P_00001", "L", "CC")}


def test_second_row_of_one_name_is_quarantined(tmp_path):
    tables = read_tables([write(tmp_path, MASS + MASS_ROW + MASS_ROW.replace("IRREGULAR", "OVAL"))])
    assert [row.attributes["shape"] for row in tables.rows] == ["IRREGULAR"]
    assert tables.quarantine[0].reason == (
        "Mass-Training_P_00001_LEFT_CC_2 occurs in mass_case_description_train_set.csv line 2 already"
    )


def test_missing_columns_are_named(tmp_path):
    text = (MASS + MASS_ROW).replace("pathology", "diagnosis")
    with pytest.raises(InputError, match=r"column 'pathology' missing; found 'abnormality id', .*'diagnosis'"):
        read_tables([write(tmp_path, text)])


def test_named_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"columns 'patient id', .* missing; found 'a', 'b'"):
        read_tables([path])


def test_folder_without_tables_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"no table; expected mass_case_description_train_set.csv.*--tables"):
        read_tables([tmp_path])
    with pytest.raises(InputError, match="no such file or folder"):
        read_tables([tmp_path / "missing"])


def test_table_cut_short_inside_a_cell_is_refused(tmp_path):
    text = MASS + MASS_ROW + MASS_ROW.replace(",CC,2", ",CC,3")[:-3]
    with pytest.raises(InputError, match=r"line 4 cannot be read .* damaged or cut short"):
        read_tables([write(tmp_path, text)])


def test_mutated_tables_raise_nothing_but_input_errors(tmp_path):
    """1000 damaged tables: each is read, quarantined in part, or refused."""
    random_state = random.Random(0)
    good = (MASS + MASS_ROW * 3 + CALC_ROW).encode()
    refused = quarantined = 0
    for number in range(1000):
        content = bytearray(good)
        for _ in range(random_state.randint(1, 6)):
            at = random_state.randrange(len(content))
            action = random_state.randrange(4)
            if action == 0:
                content[at] = random_state.randrange(256)
            elif action == 1:
                del content[at : at + random_state.randint(1, 40)]
            elif action == 2:
                content[at:at] = random_state.choice([b'"', b"\0", b"\n", b",", b";", b"\xff\xfe", b"\r", b"9" * 400])
            else:
                content[at:at] = content[max(at - 60, 0) : at]
        path = tmp_path / f"{number % 7}.csv"
        path.write_bytes(bytes(content))
        try:
            quarantined += bool(read_tables([path]).quarantine)
        except InputError:
            refused += 1
    assert refused > 50
    assert quarantined > 50


def official_tables() -> Path | None:
    """The folder of the real tables, where there is one."""
    named = os.environ.get("MAMMODET_CBIS")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "cbis_ddsm"
    return Path(named) if named else beside if beside.is_dir() else None


@pytest.mark.skipif(official_tables() is None, reason="MAMMODET_CBIS names no folder with the tables of CBIS-DDSM")
def test_real_tables_have_their_known_totals():
    tables = read_tables([official_tables()])
    assert tables.quarantine == ()
    found = {
        (kind, subset): (
            len(rows := [row for row in tables.rows if (row.abnormality, row.subset) == (kind, subset)]),
            len({row.patient for row in rows}),
            len({row.image_key for row in rows}),
        )
        for kind in ("mass", "calc")
        for subset in ("train", "test")
    }
    assert found == {
        ("mass", "train"): (1318, 691, 1231),
        ("mass", "test"): (378, 201, 361),
        ("calc", "train"): (1546, 602, 1227),
        ("calc", "test"): (326, 151, 284),
    }
    assert len({row.image_key for row in tables.rows}) == 3032
    assert sum(row.pathology == "BENIGN_WITHOUT_CALLBACK" for row in tables.rows) == 682


def test_row_saved_twice_is_one_row(tmp_path):
    write(tmp_path, MASS + MASS_ROW)
    write(tmp_path, (MASS + MASS_ROW).replace("\n", "\r\n"), "copy.csv")
    tables = read_tables([tmp_path])
    assert (len(tables.rows), tables.quarantine, tables.incomplete) == (1, (), frozenset())


def test_rows_that_contradict_each_other_leave_their_image_incomplete(tmp_path):
    tables = read_tables([write(tmp_path, MASS + MASS_ROW.replace("MALIGNANT", "BENIGN") + MASS_ROW)])
    assert len(tables.quarantine) == 1
    assert tables.incomplete == {("P_00001", "L", "CC")}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_tables_of_spreadsheets_are_read(tmp_path, encoding):
    assert len(read_tables([write(tmp_path, MASS + MASS_ROW, encoding=encoding)]).rows) == 1


def test_form_feed_in_a_cell_ends_no_row(tmp_path):
    (row,) = read_tables([write(tmp_path, MASS + MASS_ROW.replace("IRREGULAR", "IRREG\fULAR"))]).rows
    assert row.attributes["shape"] == "IRREG\fULAR"


@pytest.mark.parametrize(("text", "message"), [("", "has no row"), (MASS, "has a header and not one row")])
def test_official_table_without_rows_is_refused_beside_a_good_one(tmp_path, text, message):
    write(tmp_path, CALC + CALC_ROW, "calc_case_description_test_set.csv")
    with pytest.raises(InputError, match=message):
        read_tables([write(tmp_path, text)])


def test_unrelated_files_that_are_no_tables_do_not_stop_the_conversion(tmp_path):
    write(tmp_path, MASS + MASS_ROW)
    (tmp_path / "one_line.csv").write_text("a" * 200_000)
    (tmp_path / "huge.csv").touch()
    os.truncate(tmp_path / "huge.csv", 2**28 + 1)
    assert len(read_tables([tmp_path]).rows) == 1
