"""What file names and tables say of the images of a COCO file: names, rows, labels, and the presets of CBIS-DDSM."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from small_coco import JOIN, PATTERN, cases, command_line, entry, mark, one_image, run, write_image, write_json

from mammodet.converters.base import SplitOptions
from mammodet.converters.coco import PRESETS, CocoOptions, convert
from mammodet.converters.coco.join import JoinRule
from mammodet.data.coco import read_coco
from mammodet.errors import InputError

# names


def test_names_that_do_not_match_are_all_told(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(n, name) for n, name in enumerate(["1_L_CC.png", "a.png", "b.png"])])
    with pytest.raises(InputError) as caught:
        run(source)
    assert "a.png: its name does not match" in str(caught.value)
    assert "b.png: its name does not match" in str(caught.value)
    summary, records, _ = run(source, "--unmatched", "skip")
    assert set(records) == {"1_L_CC"}
    assert summary.counts["images"] == {"listed": 3, "converted": 1, "quarantined": 2}


@pytest.mark.parametrize(("word", "side"), [("L", "L"), ("left", "L"), ("Right", "R"), ("r", "R")])
def test_sides_are_read_in_any_spelling(tmp_path, word, side):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(1, f"1_{word}.png")], [mark(1, 1)])
    _, records, _ = run(source, "--pattern", "(?P<patient>1)_(?P<laterality>.+)")
    assert records[f"1_{word}"].laterality == side
    with pytest.raises(InputError, match="laterality '1'; expected L, R"):
        run(source, "--pattern", "(?P<laterality>(?P<patient>1))")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "(?P<patient>"), "is no regular expression"),
        (("--pattern", "(?P<case>.*)"), "has no group .*its groups are case"),
        (("--pattern", PATTERN, "--table", "t.csv"), "Say it by --on"),
        (("--pattern", PATTERN, "--on", "a={patient}"), "name it by --table"),
        (("--pattern", PATTERN, "--table", "t.csv", "--on", "a={nobody}"), "'nobody' is not one of"),
        (("--pattern", PATTERN, "--table", "t.csv", "--on", "a={patient"), "cannot be filled"),
        (("--pattern", PATTERN, "--table", "t.csv", "--on", "a={patient:05d}"), "cannot be filled"),
        (("--pattern", PATTERN, "--table", "t.csv", "--on", "a={patient.__class__}"), "is not one of"),
        (("--pattern", PATTERN, "--table", "t.csv", "--on", "a"), "expected NAME=VALUE"),
        (("--pattern", PATTERN, "--table", "no.csv", "--on", "a={patient}"), "no such file or folder"),
        (
            ("--pattern", PATTERN, "--table", "t", "--on", "a={stem}", "--image-key", "age=a"),
            "expected one of patient_id",
        ),
        (("--pattern", PATTERN, "--table", "t", "--on", "a={stem}", "--image-key", "view=a"), "choose one"),
        (("--pattern", PATTERN, "--pathology", "B9=fine"), "expected one of benign"),
        (("--pattern", PATTERN, "--category", "=x"), "expected OLD=NEW"),
        (("--pattern", PATTERN, "--jobs", "0"), "expected a whole number of 1 or more"),
        (("--pattern", PATTERN, "--val-fraction", "1"), "--val-fraction 1"),
        (("--preset", "cbis_ddsm_mass"), "needs the archive's tables"),
    ],
)
def test_options_that_cannot_be_met_are_refused(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run(one_image(tmp_path, mark(1, 1)), *arguments)


def test_without_a_pattern_the_json_says_whose_image_it_is(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(1, "a.png", patient_id=12, laterality="left", view="mlo")], [mark(1, 1)])
    convert(source, tmp_path / "out", CocoOptions(progress=False))
    record = read_coco(tmp_path / "out/all.json").images[0]
    assert (record.patient_id, record.laterality, record.view) == ("12", "L", "MLO")
    write_json(source / "train/a.json", [entry(1, "a.png")], [mark(1, 1)])
    with pytest.raises(InputError, match="its patient is not known"):
        convert(source, tmp_path / "out", CocoOptions(progress=False))


# tables


def test_rows_are_joined_by_rule(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    table = cases(tmp_path / "t/cases.csv", "P_1,LEFT,CC,MALIGNANT,4,3", "P_1,LEFT,MLO,BENIGN,2,3")
    summary, records, _ = run(source, "--table", table, *JOIN, "--set", "abnormality=mass", "--patient", "P_{patient}")
    record = records["1_LEFT_CC"]
    assert record.patient_id == "P_1"
    assert record.density == "3"
    assert record.labels == {"tumor": 1, "malignant": 1}
    assert record.lesions[0].attributes == {
        "pathology": "malignant",
        "pathology_csv": "MALIGNANT",
        "subtlety": 4,
        "abnormality": "mass",
    }
    assert summary.counts["rows"] == {"meant": 2, "joined": 1, "of no image": 1, "images without": 0}
    assert any("1 rows of the tables belong to no image: cases.csv line 3" in line for line in summary.warnings)


@pytest.mark.parametrize(
    ("separator", "end", "encoding", "header"),
    [
        (",", "\r\n", "utf-8-sig", "patient_id,left or right breast,image view,pathology,subtlety,breast density"),
        (";", "\n", "utf-8", "Patient ID;Left_or_Right_Breast;image  view;PATHOLOGY;subtlety;Breast Density"),
        ("\t", "\r\n", "utf-16", "patient_id\tleft or right breast\timage view\tpathology\tsubtlety\tbreast_density"),
    ],
)
def test_tables_are_read_however_they_were_saved(tmp_path, separator, end, encoding, header):
    source = one_image(tmp_path, mark(1, 1))
    row = separator.join(
        ["P_1", "left ", " CC", '"Benign\n"', "NA", "2", ""]
    )  # a newline in a cell, an empty cell more
    (tmp_path / "t.csv").write_bytes((header + end + row + end + end).encode(encoding))
    record = run(source, "--table", tmp_path / "t.csv", *JOIN)[1]["1_LEFT_CC"]
    assert record.density == "2"
    assert record.labels["malignant"] == 0
    assert record.lesions[0].attributes == {"pathology": "benign", "pathology_csv": "Benign"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "patient,pathology\nP_1,x\n",
            "column.* 'patient id', 'left or right breast', 'image view' missing; it has 'pa",
        ),
        ("", "has no row"),
        (
            "patient_id,left or right breast,image view,pathology\nP_1,LEFT,CC,BENIGN",
            "'subtlety', 'breast density' miss",
        ),
        ("patient_id,Patient id,b\n1,2,3", "'patient id' occur twice"),
        ("patient_id,left or right breast,image view\nP_1,LEFT\n", "line 2: 2 cells, the header has 3"),
        ('patient_id,left or right breast,image view\nP_1,LEFT,"CC', "cannot be read"),
    ],
)
def test_table_that_does_not_fit_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        run(one_image(tmp_path, mark(1, 1)), "--table", tmp_path / "t.csv", *JOIN)


def test_tables_of_a_folder_are_those_with_the_columns(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    cases(tmp_path / "t/a.csv", "P_1,LEFT,CC,BENIGN,4,3")
    cases(tmp_path / "t/copy/a.csv", "P_1,LEFT,CC,BENIGN,4,3")
    (tmp_path / "t/other.csv").write_text("name,age\nx,3\n")
    summary, records, _ = run(source, "--table", tmp_path / "t", *JOIN)
    assert records["1_LEFT_CC"].labels == {"tumor": 1, "malignant": 0}  # one row: the copy did not count
    assert any("left aside: other.csv" in line for line in summary.warnings)


def test_images_without_a_row_are_refused_skipped_or_kept(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(n, f"{n}_LEFT_CC.png") for n in (1, 2, 3)], [mark(n, n) for n in (1, 2)])
    join = ("--table", cases(tmp_path / "t.csv", "P_1,LEFT,CC,BENIGN,4,3"), *JOIN)
    with pytest.raises(InputError) as caught:
        run(source, *join)
    for name in ("2_LEFT_CC.png", "3_LEFT_CC.png"):
        assert f"{name}: has no row in the tables (patient_id=P_{name[0]}, left" in str(caught.value)
    summary, records, _ = run(source, *join, "--unmatched", "skip")
    assert set(records) == {"1_LEFT_CC"}
    assert [item.what for item in summary.quarantine] == ["image", "annotation", "image"]
    summary, records, _ = run(source, *join, "--unmatched", "keep")
    assert records["2_LEFT_CC"].labels == {"tumor": 1, "malignant": None}
    assert records["3_LEFT_CC"].labels == {"tumor": None, "malignant": None}
    assert records["2_LEFT_CC"].lesions[0].attributes == {}
    assert "has no row" in records["2_LEFT_CC"].notes[0]
    assert summary.counts["rows"]["images without"] == 2


def test_several_rows_give_boxes_what_they_agree_on(tmp_path):
    source = one_image(tmp_path, mark(1, 1), mark(2, 1, [1, 1, 3, 3]))
    table = cases(tmp_path / "t.csv", "P_1,LEFT,CC,MALIGNANT,4,2", "P_1,LEFT,CC,BENIGN,4,3")
    record = run(source, "--table", table, *JOIN)[1]["1_LEFT_CC"]
    assert [lesion.attributes for lesion in record.lesions] == [{"subtlety": 4}, {"subtlety": 4}]
    assert record.labels == {"tumor": 1, "malignant": 1}
    assert record.density == "3"
    assert record.notes == (
        "density differs between its 2 rows: 2, 3; the highest is kept",
        "pathology differs between its 2 rows: BENIGN, MALIGNANT",
    )


@pytest.mark.parametrize(
    ("words", "arguments", "malignant", "pathology"),
    [
        (("BENIGN", "BENIGN_WITHOUT_CALLBACK"), (), 0, "benign"),
        (("BENIGN", "BENIGN_WITHOUT_CALLBACK"), ("--without-callback", "unknown"), None, None),
        (("BENIGN", "BENIGN_WITHOUT_CALLBACK"), ("--without-callback", "malignant"), 1, None),
        (("BENIGN", ""), (), None, None),
        (("MALIGNANT", ""), (), 1, None),
        (("B", "B"), ("--pathology", "B=benign"), 0, "benign"),
    ],
)
def test_image_is_as_bad_as_its_worst_row(tmp_path, words, arguments, malignant, pathology):
    source = one_image(tmp_path, mark(1, 1), mark(2, 1, [1, 1, 3, 3]))
    table = cases(tmp_path / "t.csv", *(f"P_1,LEFT,CC,{word},4,2" for word in words))
    record = run(source, "--table", table, *JOIN, *arguments)[1]["1_LEFT_CC"]
    assert record.label("malignant") == malignant
    assert record.lesions[0].attributes.get("pathology") == pathology


def test_images_that_share_rows_are_told(tmp_path):
    source = tmp_path / "in"
    names = ["1_LEFT_CC.rf.a.png", "1_LEFT_CC.rf.b.png", "2_LEFT_CC.png"]
    write_json(
        source / "train/a.json", [entry(n, name) for n, name in enumerate(names)], [mark(n, n) for n in range(3)]
    )
    table = cases(tmp_path / "t.csv", "P_1,LEFT,CC,BENIGN,4,2", "P_2,LEFT,CC,BENIGN,4,2")
    pattern = r"(?P<patient>\d)_(?P<laterality>LEFT)_(?P<view>CC)"
    summary, records, _ = run(source, "--pattern", pattern, "--table", table, *JOIN)
    assert [record.label("malignant") for record in records.values()] == [0, 0, 0]
    assert summary.counts["rows"] == {"meant": 2, "joined": 2, "of no image": 0, "images without": 0}
    assert any(line.startswith("2 images share their rows") for line in summary.warnings)


def test_pathology_that_nobody_explained_is_refused(tmp_path):
    table = cases(tmp_path / "t.csv", "P_1,LEFT,CC,B,4,2", "P_2,LEFT,CC,BENIGN,4,2")
    with pytest.raises(InputError, match=r"'B' \(1 rows\)"):
        run(one_image(tmp_path, mark(1, 1)), "--table", table, *JOIN)


def test_number_of_boxes_that_is_not_that_of_rows_is_told(tmp_path):
    source = tmp_path / "in"
    images = [entry(n, f"{n}_LEFT_CC.png") for n in (1, 2, 3)]
    marks = [mark(1, 1), mark(2, 1, [1, 1, 3, 3]), mark(3, 2)]
    write_json(source / "train/a.json", images, marks)
    lines = [f"P_{n},LEFT,CC,BENIGN,4,2" for n in (1, 2, 2, 3)]
    summary, records, _ = run(source, "--table", cases(tmp_path / "t.csv", *lines), *JOIN)
    # More boxes than rows: every lesion has a place. Fewer: one has none.
    assert {name: (r.unlocalized, r.label("tumor")) for name, r in records.items()} == {
        "1_LEFT_CC": (False, 1),
        "2_LEFT_CC": (True, 1),
        "3_LEFT_CC": (True, 1),
    }
    assert summary.checks["boxes and rows differ"] == 3
    assert any("1_LEFT_CC.png (2 boxes, 1 rows), 2_LEFT_CC.png (1 boxes, 2 rows)" in line for line in summary.warnings)
    summary, records, _ = run(source, "--table", cases(tmp_path / "t.csv", *lines), *JOIN, "--rows", "images")
    # No row says how many lesions there are; the last image has no box, and may have a lesion.
    assert [records[f"{n}_LEFT_CC"].unlocalized for n in (1, 2, 3)] == [False, False, True]
    assert records["3_LEFT_CC"].label("tumor") is None
    assert summary.checks["boxes and rows differ"] == 0


def test_image_without_boxes_is_normal_only_where_something_says_so(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(n, f"{n}_LEFT_CC.png") for n in (1, 2)], [mark(1, 1)])
    summary, records, _ = run(source)
    assert records["2_LEFT_CC"].labels == {"tumor": None, "malignant": None}
    assert records["2_LEFT_CC"].unlocalized  # teaches no background
    assert any("1 images have neither boxes nor rows" in line for line in summary.warnings)
    assert run(source, "--without-boxes", "normal")[1]["2_LEFT_CC"].labels == {"tumor": 0, "malignant": 0}
    table = cases(tmp_path / "t.csv", "P_1,LEFT,CC,MALIGNANT,4,2", "P_2,LEFT,CC,NORMAL,NA,2")
    records = run(source, "--table", table, *JOIN)[1]
    assert records["2_LEFT_CC"].labels == {"tumor": 0, "malignant": 0}
    assert not records["2_LEFT_CC"].unlocalized


def test_malignant_row_without_a_box_makes_a_positive_image_without_a_place(tmp_path):
    source = one_image(tmp_path)
    table = cases(tmp_path / "t.csv", "P_1,LEFT,CC,MALIGNANT,4,2")
    record = run(source, "--table", table, *JOIN, "--rows", "images")[1]["1_LEFT_CC"]
    assert record.labels == {"tumor": 1, "malignant": 1}
    assert record.unlocalized


def test_table_can_hold_the_patients(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(1, "x.png"), entry(2, "y.png")], [mark(1, 1), mark(2, 2)])
    table = tmp_path / "t.csv"
    table.write_text("file,woman,eye\nx.png,7,L\nY.PNG,7,R\n")
    keys = ("--image-key", "patient_id=woman", "--image-key", "laterality=eye")
    options = CocoOptions.of(command_line("--table", table, "--on", "file={file_name}", *keys))
    convert(source, tmp_path / "out", options)
    assert [(r.patient_id, r.laterality) for r in read_coco(tmp_path / "out/all.json").images] == [
        ("7", "L"),
        ("7", "R"),
    ]
    table.write_text("file,woman,eye\nx.png,7,L\nx.png,8,L\ny.png,7,R\n")
    with pytest.raises(InputError, match=r"x.png: its 2 rows give different patient_id: 7, 8"):
        convert(source, tmp_path / "out", options)


# CBIS-DDSM


def cbis(folder: Path, kind: str, subset: str, *rows: str) -> Path:
    """A table of CBIS-DDSM: rows are `patient,side,view,assessment,pathology,density`."""
    mass = kind == "mass"
    columns = ["patient_id", "breast_density" if mass else "breast density", "left or right breast", "image view"]
    columns += ["abnormality id", "abnormality type", *(["mass shape", "mass margins"] if mass else ["calc type"])]
    columns += [*([] if mass else ["calc distribution"]), "assessment", "pathology", "subtlety", "image file path"]
    path = folder / f"{kind}_case_description_{subset}_set.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number, row in enumerate(rows):
            patient, side, view, assessment, pathology, density = row.split(",")
            words = ["OVAL", "N/A"] if mass else ["PUNCTATE", "NA"]
            name = "mass" if mass else "calcification"
            side_name = {"train": "Training", "test": "Test"}[subset]
            where = f"{kind.title()}-{side_name}_{patient}_{side}_{view}/1/000000.dcm\n"
            writer.writerow([patient, density, side, view, number, name, *words, assessment, pathology, 4, where])
    return path


def test_preset_joins_cbis_ddsm(tmp_path):
    source = tmp_path / "in"
    square = [{**entry(n, name), "height": 32, "width": 32} for n, name in enumerate(["00001_LEFT_CC.jpg"])]
    write_json(
        source / "train/_annotations.coco.json", square, [mark(0, 0, category_id=0)], [{"id": 0, "name": "Mass"}]
    )
    test = [
        {**square[0], "file_name": name, "id": n} for n, name in enumerate(["00002_RIGHT_MLO.jpg", "00003_LEFT_CC.jpg"])
    ]
    marks = [mark(0, 0, category_id=0), mark(1, 0, [1, 1, 9, 9], 0), mark(2, 1, category_id=0)]
    write_json(source / "test/_annotations.coco.json", test, marks, [{"id": 0, "name": "Mass"}])
    for path in source.rglob("*.jpg"):
        write_image(path, (32, 32))
    tables = tmp_path / "tables"
    cbis(tables, "mass", "train", "P_00001,LEFT,CC,4,BENIGN_WITHOUT_CALLBACK,0")
    rows = [f"P_00002,RIGHT,MLO,{a},{word},3" for a, word in ((0, "BENIGN"), (5, "MALIGNANT"))]
    cbis(tables, "mass", "test", *rows, "P_00003,LEFT,CC,2,BENIGN,1")
    cbis(tables, "calc", "train", "P_00003,LEFT,CC,5,MALIGNANT,1", "P_00009,LEFT,CC,5,MALIGNANT,1")
    summary, records, dataset = run(source, "--preset", "cbis_ddsm_mass", "--tables", tables)
    assert dataset.categories == ("mass",)
    first, second, third = (records[name] for name in ("00001_LEFT_CC", "00002_RIGHT_MLO", "00003_LEFT_CC"))
    assert (first.patient_id, first.laterality, first.view, first.source) == ("P_00001", "L", "CC", "CBIS-DDSM")
    assert (first.density, first.birads, first.labels) == (None, "4", {"tumor": 1, "malignant": 0})
    assert first.notes == (
        "density 0 in the table: not known",
        "stretched to 32x32: lengths and shapes are not those of the film",
    )
    assert first.lesions[0].attributes == {
        "abnormality": "mass",
        "pathology": "benign",
        "pathology_csv": "BENIGN_WITHOUT_CALLBACK",
        "subtlety": 4,
        "assessment": 4,
        "shape": "OVAL",
    }
    assert (second.density, second.birads, second.label("malignant")) == ("3", "5", 1)
    assert second.lesions[1].attributes == {"abnormality": "mass", "subtlety": 4, "shape": "OVAL"}
    # Its calcification is malignant, and not converted: the image is not benign.
    assert third.label("malignant") is None
    assert "also holds, not converted: calcification (1 malignant)" in third.notes
    assert any("1 patients stand on the other side" in x and x.endswith("P_00003") for x in summary.warnings)
    assert summary.checks["as the official split"] == {"images": 3, "elsewhere": 0}


def test_preset_tells_images_that_lie_on_the_other_side(tmp_path):
    source = tmp_path / "in"
    write_json(source / "train/a.json", [entry(0, "00001_LEFT_CC.jpg")], [mark(0, 0)])
    table = cbis(tmp_path, "calc", "test", "P_00001,LEFT,CC,5,MALIGNANT,2")
    summary, records, _ = run(source, "--preset", "cbis_ddsm_calc", "--tables", table)
    assert records["00001_LEFT_CC"].lesions[0].attributes["calc_type"] == "PUNCTATE"
    assert summary.checks["as the official split"] == {"images": 0, "elsewhere": 1}
    with pytest.raises(InputError, match=r"no row with 'abnormality type' = 'mass'"):
        run(source, "--preset", "cbis_ddsm_mass", "--tables", table)


@pytest.mark.skipif(
    not (os.environ.get("MAMMODET_CBIS800") and os.environ.get("MAMMODET_CBIS")),
    reason="MAMMODET_CBIS800 and MAMMODET_CBIS name the 800-pixel images and the tables",
)
def test_cbis_ddsm_mass_800_is_joined_whole(tmp_path):
    source, folder = Path(os.environ["MAMMODET_CBIS800"]), Path(os.environ["MAMMODET_CBIS"])
    _, rule = PRESETS["cbis_ddsm_mass"]
    options = CocoOptions(
        join=JoinRule(**{**{name: getattr(rule, name) for name in JoinRule.__slots__}, "tables": (folder,)}),
        images="link",
        preset="cbis_ddsm_mass",
        splits=SplitOptions(val_fraction=0.16),
        progress=False,
    )
    summary = convert(source, tmp_path, options)
    assert summary.quarantine == []
    assert summary.checks["boxes and rows differ"] == 0
    assert summary.checks["as the official split"] == {"images": 1592, "elsewhere": 0}

    # An independent count, straight from the tables
    words: dict[str, list[str]] = {}
    patients: dict[str, set[str]] = {"train": set(), "test": set()}
    for subset, found in patients.items():
        with open(folder / f"mass_case_description_{subset}_set.csv", newline="") as file:
            for row in csv.DictReader(file):
                name = f"{row['patient_id'][2:]}_{row['left or right breast']}_{row['image view']}"
                words.setdefault(name, []).append(row["pathology"])
                found.add(row["patient_id"])
    assert [len(found) for found in patients.values()] == [691, 201]
    records = {Path(record.file_name).stem: record for record in read_coco(tmp_path / "all.json").images}
    assert set(records) == set(words)
    assert len(records) == 1592
    assert sum(len(record.lesions) for record in records.values()) == 1696
    for name, record in records.items():
        assert (record.split == "test") == (record.patient_id in patients["test"])
        assert len(record.lesions) == len(words[name])
        assert (record.label("malignant") == 1) == ("MALIGNANT" in words[name])
        told = {lesion.attributes.get("pathology_csv") for lesion in record.lesions}
        assert told == (set(words[name]) if len(set(words[name])) == 1 else {None})
