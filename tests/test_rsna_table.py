"""The table of the RSNA archive: what a row means, and what becomes of rows and files that are wrong."""

import os
import random
from pathlib import Path

import pytest

from mammodet.converters.rsna.table import ImageRow, find_table, read_table
from mammodet.errors import InputError
from mammodet.phantom.rsna import COLUMNS, TEST_COLUMNS

FACTS = {
    "site_id": "2",
    "patient_id": "7",
    "image_id": "70",
    "laterality": "L",
    "view": "CC",
    "age": "61.0",
    "cancer": "0",
    "biopsy": "0",
    "invasive": "0",
    "BIRADS": "1.0",
    "implant": "0",
    "density": "B",
    "machine_id": "29",
    "difficult_negative_case": "False",
}


def line(**changes: str) -> str:
    return ",".join((FACTS | changes)[column] for column in COLUMNS)


def text(*lines: str) -> str:
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def write(folder: Path, content: str | bytes, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(table) -> list[tuple[str, str]]:
    return [(item.name, item.reason) for item in table.quarantine]


def test_row_says_what_stands_there(tmp_path):
    row = line(cancer="1", biopsy="1", invasive="1", BIRADS="0.0", laterality="R", view="LMO", density="D")
    table = read_table(write(tmp_path, text(row)))
    assert table.labelled
    assert table.rows == (
        ImageRow(
            line=2,
            patient=7,
            image=70,
            laterality="R",
            view="LMO",
            cancer=1,
            birads="0",
            density="D",
            age=61.0,
            implant=0,
            biopsy=1,
            invasive=1,
            difficult_negative=0,
            site=2,
            machine=29,
        ),
    )


def test_blanks_are_not_known(tmp_path):
    names = ("site_id", "view", "age", "biopsy", "invasive", "BIRADS", "implant", "density", "machine_id")
    blank = dict.fromkeys((*names, "difficult_negative_case"), "")
    table = read_table(write(tmp_path, text(line(**blank))))
    assert table.rows == (ImageRow(line=2, patient=7, image=70, laterality="L", cancer=0),)
    assert table.quarantine == ()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + text(line()),
        text(line()).replace("\n", "\r\n"),
        text(line()).replace(",", ";"),
        text(line()).replace(",", "\t"),
        text(line()).rstrip("\n"),
        text(line(), "", ",,,,,,,,,,,,,", "  "),
        text(line()).replace(",", " , "),
        text(line()).replace("BIRADS", "birads").replace("site_id", "Site_ID"),
        text(line(patient_id="7.0", image_id="70.0", site_id="2.0", cancer="0.0", laterality="l", view="cc")),
        text(line()).replace("\n", ",4\n").replace("_case,4", "_case,fold"),
        '"' + '","'.join(COLUMNS) + '"\n' + line() + "\n",
    ],
    ids=["mark", "CRLF", "semicolons", "tabs", "no end", "blank rows", "spaces", "case", "floats", "column", "quotes"],
)
def test_other_spellings_of_a_table_say_the_same(tmp_path, content):
    expected = read_table(write(tmp_path, text(line()))).rows
    table = read_table(write(tmp_path, content))
    assert (table.rows, table.quarantine) == (expected, ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patient_id": ""}, "patient_id '', expected a whole number"),
        ({"patient_id": "-7"}, "patient_id '-7', expected a whole number"),
        ({"image_id": ""}, "image_id '', expected a whole number"),
        ({"image_id": "1.46E+09"}, "a spreadsheet rounded it"),
        ({"image_id": "9999999999999999"}, "image_id '9999999999999999', expected a whole number"),  # beyond 2^53
        ({"laterality": "B"}, "laterality 'B', expected L or R"),
        ({"laterality": ""}, "laterality '', expected L or R"),
        ({"view": "C-C"}, "view 'C-C', expected"),
        ({"cancer": "2"}, "cancer '2', expected 0 or 1"),
        ({"cancer": ""}, "cancer '', expected 0 or 1"),
        ({"density": "E"}, "density 'E', expected A or B or C or D"),
        ({"BIRADS": "7"}, "BIRADS '7', expected"),
        ({"age": "1960"}, "age '1960', expected years, 0 to 130"),
        ({"age": "nan"}, "age 'nan', expected years, 0 to 130"),
        ({"implant": "yes"}, "implant 'yes', expected 0 or 1"),
        ({"difficult_negative_case": "2"}, "difficult_negative_case '2', expected 0 or 1"),
        ({"site_id": "one"}, "site_id 'one', expected a whole number"),
        ({"invasive": "1"}, "invasive '1' contradicts cancer '0'"),
        ({"cancer": "1", "difficult_negative_case": "True"}, "difficult_negative_case 'True' contradicts cancer '1'"),
    ],
)
def test_bad_row_is_quarantined_with_its_line_and_reason(tmp_path, changes, reason):
    bad = line(**{"patient_id": "8", "image_id": "80"} | changes)
    table = read_table(write(tmp_path, text(line(), bad, line(image_id="71"))))
    assert [row.image for row in table.rows] == [70, 71]
    ((name, told),) = reasons(table)
    assert name == "train.csv line 3"
    assert reason in told


def test_all_faults_of_a_row_are_told_at_once(tmp_path):
    table = read_table(write(tmp_path, text(line(), line(image_id="71", cancer="x", density="E", age="-1"))))
    ((_, told),) = reasons(table)
    assert told.count(", expected") == 3


def test_row_with_another_number_of_cells_is_quarantined(tmp_path):
    table = read_table(write(tmp_path, text(line(), "2,7,71,L")))
    assert reasons(table) == [("train.csv line 3", "4 cells, the header has 14")]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    # A cell with a line end makes one row of two lines.
    table = read_table(write(tmp_path, text(line(machine_id='"29\n"'), "", line(image_id="71", cancer="x"))))
    assert [row.line for row in table.rows] == [2]
    assert [name for name, _ in reasons(table)] == ["train.csv line 5"]


def test_image_that_is_there_twice_and_says_the_same_is_kept_once(tmp_path):
    table = read_table(write(tmp_path, text(line(), line())))
    assert [row.line for row in table.rows] == [2]
    assert reasons(table) == [("train.csv line 3", "image_id 70 is also in line 2, as here")]


def test_image_that_is_there_twice_with_other_facts_is_not_kept(tmp_path):
    table = read_table(write(tmp_path, text(line(), line(patient_id="8"), line(image_id="71"))))
    assert [row.image for row in table.rows] == [71]
    assert [name for name, _ in reasons(table)] == ["train.csv line 2", "train.csv line 3"]
    assert all("with other facts" in told for _, told in reasons(table))


def test_breast_with_two_labels_is_quarantined_and_the_other_breast_is_kept(tmp_path):
    lines = line(), line(image_id="71", cancer="1"), line(image_id="72", laterality="R")
    table = read_table(write(tmp_path, text(*lines)))
    assert [row.image for row in table.rows] == [72]
    assert [told for _, told in reasons(table)] == ["the rows of breast 7 L say both cancer 0 and cancer 1"] * 2


def test_label_of_a_bad_row_contradicts_its_breast_too(tmp_path):
    lines = line(), line(image_id="71", cancer="1", density="E"), line(patient_id="8", image_id="80")
    table = read_table(write(tmp_path, text(*lines)))
    assert [row.image for row in table.rows] == [80]


def test_test_table_has_no_labels(tmp_path):
    content = ",".join((*TEST_COLUMNS, "prediction_id")) + "\n2,7,70,L,CC,61.0,1,29,7_L\n"
    table = read_table(write(tmp_path, content, "test.csv"))
    assert not table.labelled
    assert table.rows == (
        ImageRow(line=2, patient=7, image=70, laterality="L", view="CC", age=61.0, implant=1, site=2, machine=29),
    )


@pytest.mark.parametrize(
    ("name", "lost", "told"),
    [
        ("train.csv", ("laterality",), "column laterality missing"),
        ("train.csv", ("view", "age"), "columns view, age missing"),
        # Neither is a test table: one is called train, the other has some of the labels.
        ("train.csv", tuple(set(COLUMNS) - set(TEST_COLUMNS)), "cancer, biopsy, invasive, BIRADS, density"),
        ("labels.csv", ("cancer",), "column cancer missing"),
        ("test.csv", ("image_id", "cancer"), "columns image_id, cancer missing"),
    ],
)
def test_missing_columns_are_all_named_with_what_was_found(tmp_path, name, lost, told):
    kept = [column for column in COLUMNS if column not in lost]
    path = write(tmp_path, ",".join(kept) + "\n" + ",".join(FACTS[column] for column in kept) + "\n", name)
    with pytest.raises(InputError, match="found site_id, patient_id") as refused:
        read_table(path)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "has no row"),
        ("\n\n", "has no row"),
        (text(), "has a header and not one row"),
        (text(line(cancer="x")), "none of its 1 rows can be used"),
        (text(line()).replace(",age,", ",view,"), "age missing"),
        (text(line()).replace("case\n", "case,age\n"), "column age stands there more than once"),
        (text(line(), '2,7,71,"L'), "line 3 cannot be read"),
        (b"\xff\xfe\0\1", "missing; found"),
        (b"\xff\xfe\0", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "missing; found"),
    ],
)
def test_table_that_is_wrong_as_a_whole_is_refused(tmp_path, content, told):
    with pytest.raises(InputError, match=told):
        read_table(write(tmp_path, content))


def test_missing_table_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv: no such table"):
        read_table(tmp_path / "train.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)


def test_table_is_found_in_the_source_or_one_folder_below(tmp_path):
    with pytest.raises(InputError, match="an empty folder"):
        find_table(tmp_path)
    (tmp_path / "rsna").mkdir()
    inner_test = write(tmp_path / "rsna", text(line()), "test.csv")
    assert find_table(tmp_path) == inner_test
    inner = write(tmp_path / "rsna", text(line()))
    assert find_table(tmp_path) == inner
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy", text(line()))
    with pytest.raises(InputError, match=r"2 tables train.csv \(copy/train.csv, rsna/train.csv\)"):
        find_table(tmp_path)


def test_damaged_tables_are_read_or_refused_and_never_anything_else(tmp_path):
    """A thousand damaged copies: a table is read, with bad rows quarantined, or refused as an `InputError`."""
    rng = random.Random(0)
    good = text(*(line(patient_id=str(7 + number // 2), image_id=str(70 + number)) for number in range(30)))
    outcomes = {"read": 0, "quarantined": 0, "refused": 0}
    for _ in range(1000):
        content = bytearray(good.encode())
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(content))
            what = rng.randrange(4)
            if what == 0:
                content[at] = rng.choice(b"0123456789LRABCD\0\xff")
            elif what == 1:
                del content[at : at + rng.randint(1, 12)]
            elif what == 2:
                content[at:at] = rng.choice([b",", b"\n", b'"', b"\0", b"\r", b"1", b"\xc3", b";", b"-", b"e9"])
            else:
                content[at:at] = content[max(at - 9, 0) : at]
        try:
            table = read_table(write(tmp_path, bytes(content)))
            outcomes["quarantined" if table.quarantine else "read"] += 1
            assert len({row.image for row in table.rows}) == len(table.rows)
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.skipif("MAMMODET_RSNA" not in os.environ, reason="MAMMODET_RSNA names no folder with the real train.csv")
def test_real_table_has_its_known_totals():
    table = read_table(find_table(Path(os.environ["MAMMODET_RSNA"])))
    rows = table.rows
    positive = [row for row in rows if row.cancer == 1]
    assert table.quarantine == ()
    assert (len(rows), len({row.patient for row in rows})) == (54706, 11913)
    assert (len(positive), len({row.breast for row in positive}), len({row.patient for row in positive})) == (
        1158,
        492,
        486,
    )
    assert sum(row.view not in ("CC", "MLO") for row in rows) == 38
    assert sum(row.birads is None for row in rows) == 28420
    assert sum(row.density is None for row in rows) == 25236
    assert {row.birads for row in rows} == {"0", "1", "2", None}
    assert len({row.site for row in rows}) == 2
    assert len({row.machine for row in rows}) == 10
