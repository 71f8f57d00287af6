"""Lines of mini-MIAS's Info.txt in all their forms."""

from __future__ import annotations

import pytest

from mammodet.converters.mias.table import Finding, parse_info


@pytest.mark.parametrize(
    "line",
    [
        "mdb001 G CIRC B 535 425 197",
        "mdb001 G CIRC B 535 425 197   ",
        "   mdb001 G CIRC B 535 425 197",
        "mdb001\tG\tCIRC\tB\t535\t425\t197\t",
        "mdb001,G,CIRC,B,535,425,197",
        "mdb001; G; CIRC; B; 535; 425; 197;",
        "mdb001 , G ,CIRC  B 535, 425, 197",
        "MDB001 g circ b 535 425 197",
        "mdb001 G CIRC B 535.0 425.00 197.0",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_line_forms_mean_the_same(line, end):
    entries, broken = parse_info(line + end)
    assert broken == []
    assert list(entries) == ["mdb001"]
    assert entries["mdb001"].tissue == "G"
    assert entries["mdb001"].findings == (Finding("CIRC", "B", (535, 425, 197)),)


@pytest.mark.parametrize("line", ["mdb003 D NORM", "mdb003 D NORM ", "mdb003,d,norm,", "mdb003\tD\tNorm\t"])
def test_normal_line_has_no_finding(line):
    entries, broken = parse_info(line)
    assert (entries["mdb003"].findings, entries["mdb003"].tissue, broken) == ((), "D", [])


@pytest.mark.parametrize(
    "line",
    [
        "mdb216 D CALC M *NOTE 3*",
        "mdb216 D CALC M *NOTE 3* ",
        "mdb216 D CALC M *NOTE3*",
        "mdb216,D,CALC,M,*NOTE 3*",
        "mdb216 d calc m *note 3*",
        "mdb216 D CALC M * NOTE 3 *",
        "mdb216 D CALC M",
        "mdb216 D CALC M ,,,",
    ],
)
def test_line_without_a_place_is_a_finding_without_a_circle(line):
    entries, broken = parse_info(line)
    assert broken == []
    assert entries["mdb216"].findings == (Finding("CALC", "M", None),)


@pytest.mark.parametrize(
    "line",
    [
        "mdb005 F CIRC B 477",
        "mdb005 F CIRC B 477 133",
        "mdb005 F CIRC B 477 133 30 9",
        "mdb005 F CIRC B 477 -133 30",
        "mdb005 F CIRC B x y r",
        "mdb005 F CIRC",
        "mdb005 F TUMOUR B 1 2 3",
        "mdb005 X NORM",
        "mdb005 F",
        "mdb005",
        "mdb005 F NORM B 1 2 3",
        "mdb005 F CIRC B " + "9" * 400 + " 1 1",
        "mdb005 F CIRC B" + " " * 100_000 + "x",
    ],
)
def test_broken_line_is_named_and_its_film_has_no_entry(line):
    entries, broken = parse_info("mdb003 D NORM\n" + line, "Info.txt")
    assert list(entries) == ["mdb003"]
    assert [(item.what, item.name) for item in broken] == [("line", "Info.txt line 2")]
    assert broken[0].reason.startswith("cannot be read: 'mdb005")
    assert len(broken[0].reason) < 300


def test_one_broken_line_takes_the_films_other_lines_with_it():
    # The second lesion is there; without it, its place would be learnt as background.
    entries, broken = parse_info("mdb005 F CIRC B 477 133 30\nmdb005 F CIRC B 500 168\nmdb006 F NORM")
    assert list(entries) == ["mdb006"]
    assert len(broken) == 1


def test_headers_and_prose_are_passed_over():
    text = (
        "REFNUM,BG,CLASS,SEVERITY,X,Y,RADIUS\nThe films mdb001 to mdb322 ...\n\n1st column: mdb\n=====\nmdb001 G NORM\n"
    )
    entries, broken = parse_info(text)
    assert (list(entries), broken) == (["mdb001"], [])


def test_several_lines_make_several_findings_in_order():
    entries, broken = parse_info("mdb144 F MISC B 233 994 29\nmdb144 F MISC M 313 540 27\n")
    assert entries["mdb144"].findings == (Finding("MISC", "B", (233, 994, 29)), Finding("MISC", "M", (313, 540, 27)))
    assert broken == []


def test_doubled_and_contradicting_lines_are_told():
    entries, broken = parse_info(
        "mdb001 G CIRC B 535 425 197\nmdb001 G CIRC B 535 425 197\nmdb001 D CIRC B 1 2 3\nmdb001 G NORM\n"
        "mdb002 G NORM\nmdb002 G NORM\n"
    )
    assert len(entries["mdb001"].findings) == 2
    assert entries["mdb001"].tissue == "G"
    assert [item.reason.split("; ")[-1] for item in broken] == ["kept once", "kept the first", "kept the finding"]
    assert entries["mdb002"].findings == ()


@pytest.mark.parametrize(
    "line",
    [
        "mdb003,D,NORM,NaN,NaN,NaN,NaN",
        "mdb003,D,NORM,nan,,N/A,<NA>",
        "2,mdb003,D,NORM,,,,",
        '"mdb003","D","NORM","NA","None","null",""',
        "'mdb003.pgm' D NORM",
        "mdb003.PNG D NORM",
    ],
)
def test_tables_saved_by_programs_are_read(line):
    entries, broken = parse_info(
        f'REFNUM,BG,CLASS,SEVERITY,X,Y,RADIUS\n{line}\n0,"mdb004.pgm",G,CIRC,B,535.0,425.0,197.0'
    )
    assert broken == []
    assert entries["mdb003"].findings == ()
    assert entries["mdb004"].findings == (Finding("CIRC", "B", (535, 425, 197)),)


def test_cells_that_say_nothing_among_numbers_are_not_read():
    entries, broken = parse_info(
        "mdb001 G CIRC B 535 NaN 197\nmdb002 G CIRC B 535 425 NaN\nmdb003 G CALC B NaN NaN NaN"
    )
    assert [item.name for item in broken] == ["Info.txt line 1", "Info.txt line 2"]
    assert entries["mdb003"].findings == (Finding("CALC", "B", None),)
