"""Archives that are damaged or contradict themselves: what is lost is listed, and never makes an image normal."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import test_convert_table as labelled
from small_archives import (
    HIGH,
    WIDE,
    lost,
    run,
    vindr_row,
    write_cmmd,
    write_dmid,
    write_embed,
    write_inbreast,
    write_vindr,
)
from test_cbis_table import MASS, MASS_ROW
from test_cbis_table import write as write_cbis
from test_convert_more_archives import disc
from test_mias import archive as mias_archive

from mammodet.converters import cmmd, coco, dmid, embed, inbreast, mias, vindr
from mammodet.converters.base import Reason, SplitOptions
from mammodet.converters.cbis_ddsm.table import read_tables
from mammodet.converters.cdd_cesm.archive import ImageName
from mammodet.converters.cdd_cesm.regions import read_regions
from mammodet.converters.cdd_cesm.table import read_table
from mammodet.converters.coco import CocoOptions
from mammodet.converters.coco.join import JoinRule
from mammodet.converters.findings import FindingOptions
from mammodet.converters.inbreast import read_findings
from mammodet.converters.mias import MiasOptions
from mammodet.converters.pixels import PixelOptions
from mammodet.converters.sheet import read_sheet
from mammodet.data.coco import read_coco
from mammodet.errors import InputError

FILE = {"anon_dicom_path": "/mnt/a.dcm", "empi_anon": 7, "acc_anon": "1100", "Rows": HIGH, "Columns": WIDE}
NEGATIVE = {"acc_anon": "1100", "side": "L", "asses": "N"}


def embedded(tmp_path: Path, *files: dict[str, Any]) -> tuple[Any, Any]:
    source = write_embed(tmp_path / "in", files, [NEGATIVE])
    return run(embed, source, tmp_path / "out", embed.EmbedOptions)


def cut_last_row(path: Path, cells: int) -> None:
    """Leave out cells at the end of the last row."""
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:-1], rows[-1].rsplit(",", cells)[0]]))


# Tables


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
        (b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00"),
    ],
    ids=["encrypted", "unknown compression"],
)
def test_xlsx_that_cannot_be_unpacked_is_refused(tmp_path, old, new):
    path = labelled.write_xlsx(tmp_path / "a.xlsx", [["a", "b"]])
    assert read_sheet(path)[0] == ["a", "b"]
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=r"a.xlsx: cannot be read as XLSX.*as CSV"):
        read_sheet(path)


@pytest.mark.parametrize(("row", "cells"), [("1,2", 2), ("1,2,3,4", 4), ("1,2,3,,", 3), ("1,2,", 3)])
def test_row_has_a_cell_for_each_column_or_a_fault(tmp_path, row, cells):
    path = tmp_path / "a.csv"
    path.write_text(f"a,b,c\n{row}\n")
    (line,) = read_sheet(path)[1]
    assert (line.number, len(line.cells), bool(line.fault)) == (2, cells, cells != 3)


def test_null_byte_is_damage(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3\0,4\n")
    with pytest.raises(InputError, match=r"line 3 cannot be read \(it holds a null byte\)"):
        list(read_sheet(tmp_path / "a.csv")[1])


def test_column_that_occurs_twice_is_refused(tmp_path):
    source = write_vindr(tmp_path / "in", [vindr_row("s1", "i1", "['No Finding']")])
    path = source / "breast-level_annotations.csv"
    header, row = path.read_text().splitlines()
    path.write_text(f"{header},Breast BIRADS\n{row},BI-RADS 5\n")
    with pytest.raises(InputError, match="breast_birads occurs more than once"):
        run(vindr, source, tmp_path / "out", vindr.VinDrOptions)
    with pytest.raises(InputError, match="'pathology' occurs more than once"):
        read_tables([write_cbis(tmp_path, MASS.replace("assessment", "pathology") + MASS_ROW)])


def test_embed_row_cut_short_makes_no_image_normal(tmp_path):
    _, records = embedded(tmp_path, FILE)
    assert records["a"].labels["tumor"] == 0
    cut_last_row(tmp_path / "in/tables/EMBED_OpenData_metadata.csv", 2)
    with pytest.raises(InputError, match="line 2"):
        run(embed, tmp_path / "in", tmp_path / "out", embed.EmbedOptions)
    # The finding that is cut short may be a suspicious one of the same exam.
    source = write_embed(tmp_path / "two", [FILE], [NEGATIVE, NEGATIVE | {"asses": "S", "path_severity": "4"}])
    table = source / "tables/EMBED_OpenData_clinical.csv"
    cut_last_row(table, 9)
    summary, records = run(embed, source, tmp_path / "out", embed.EmbedOptions)
    assert records["a"].labels == {"tumor": None, "malignant": None}
    assert lost(summary) == [("bad_row", "row", "EMBED_OpenData_clinical.csv line 3")]
    cut_last_row(table, 1)  # within the exam's number
    with pytest.raises(InputError, match=r"line 3.*acc_anon is lost"):
        run(embed, source, tmp_path / "out", embed.EmbedOptions)


def test_vindr_row_cut_short_makes_no_image_normal(tmp_path):
    rows = [vindr_row("s1", "i1", "['No Finding']"), vindr_row("s1", "i1", "['Mass']", (1, 2, 30, 40))]
    source = write_vindr(tmp_path / "in", rows)
    cut_last_row(source / "finding_annotations.csv", 3)
    summary, records = run(vindr, source, tmp_path / "out", vindr.VinDrOptions)
    assert (records["i1"].labels["tumor"], records["i1"].unlocalized) == (None, True)
    assert lost(summary) == [("bad_row", "row", "finding_annotations.csv line 3")]


def test_cmmd_row_with_a_cell_more_leaves_no_breast_benign(tmp_path):
    source = write_cmmd(tmp_path / "in", [("D1-0001", "L", "CC")], [("D1-0001", "L", "44", "mass", "Benign", "")])
    (source / "CMMD_clinicaldata_revision.xlsx").unlink()
    rows = ["ID1,LeftRight,Age,abnormality,classification", "D1-0001,L,44,mass,Benign"]
    (source / "CMMD_clinicaldata_revision.csv").write_text("\n".join([*rows, "D1-0001,L,44,mass, big,Malignant"]))
    summary, records = run(cmmd, source, tmp_path / "out")
    assert [tuple(record.labels.values()) for record in records.values()] == [(1, None)]
    assert lost(summary) == [("bad_row", "row", "CMMD_clinicaldata_revision.csv line 3")]


def test_cesm_rows_cut_short_leave_their_image_unknown(tmp_path):
    image = ImageName(1, "L", "DM", "CC")
    path = tmp_path / "table.csv"
    path.write_text("Image_name,Pathology Classification,Findings\nP1_L_DM_CC,Normal,_\nP1_L_DM_CC,Malig\n")
    assert read_table(path).images[image].pathology is None
    path.write_text("#filename,region_id,region_shape_attributes\nP1_L_DM_CC.jpg,0\n")
    assert read_regions(path).faulty == {image}
    path.write_text("#filename,region_id,region_shape_attributes\nP1_L_D\n")
    with pytest.raises(InputError, match="line 2"):
        read_regions(path)


def test_cbis_row_cut_short_leaves_the_images_of_its_patient_incomplete(tmp_path):
    table = MASS + MASS_ROW + "P_00001,3,LEFT\n"
    tables = read_tables([write_cbis(tmp_path, table)])
    assert (len(tables.rows), tables.incomplete) == (1, {("P_00001", "L", "CC")})
    with pytest.raises(InputError, match="whose lesion it is"):
        read_tables([write_cbis(tmp_path, MASS + MASS_ROW + "P_,3,LEFT\n")])


# Images that are described twice


def test_embed_rows_that_lead_to_one_file_are_quarantined(tmp_path):
    twice = {"anon_dicom_path": "/mnt/b.dcm", "acc_anon": 12}
    files = [FILE, twice | {"empi_anon": 8}, twice | {"empi_anon": 9}, FILE]
    summary, records = embedded(tmp_path, *files)
    assert list(records) == ["a"]
    assert lost(summary) == [("duplicate", "image", "a"), ("contradiction", "image", "b")]


def test_inbreast_images_of_one_number_are_quarantined(tmp_path):
    source = write_inbreast(tmp_path / "in", [("3", "p2", "R_CC", None, "2", "1"), ("4", "p1", "L_CC", None, "2", "1")])
    dicoms = source / "AllDICOMs"
    shutil.copy(next(dicoms.glob("3_*")), dicoms / "3_p9_MG_L_CC_ANON.dcm")
    pixels = PixelOptions(file_format="png16")
    summary, records = run(inbreast, source, tmp_path / "out", FindingOptions, pixels=pixels)
    assert [record.patient_id for record in records.values()] == ["inbreast_p1"]
    assert lost(summary) == [("contradiction", "image", "3")]


def test_image_without_a_patient_is_quarantined(tmp_path):
    summary, records = embedded(tmp_path, FILE, {"anon_dicom_path": "/mnt/b.dcm", "acc_anon": 12})
    assert (list(records), lost(summary)) == (["a"], [("bad_row", "image", "b")])


# Rows that contradict each other


def test_inbreast_rows_that_contradict_each_other_say_nothing(tmp_path):
    images = [("3", "p1", "L_CC", None, "2", "5"), ("3", "p1", "L_CC", None, "2", "1")]
    summary, records = run(inbreast, write_inbreast(tmp_path / "in", images), tmp_path / "out", FindingOptions)
    record = records["3_p1_MG_L_CC_ANON"]
    assert (record.birads, record.density, record.labels["tumor"]) == (None, "B", None)
    assert lost(summary) == [("contradiction", "row", "3")]


def test_vindr_rows_that_contradict_each_other_say_nothing(tmp_path):
    source = write_vindr(tmp_path / "in", [vindr_row("s1", "i1", "['No Finding']")])
    path = source / "breast-level_annotations.csv"
    header, row = path.read_text().splitlines()
    path.write_text("\n".join([header, row.replace("BI-RADS 1", "BI-RADS 5"), row]))
    summary, records = run(vindr, source, tmp_path / "out", vindr.VinDrOptions)
    assert (records["i1"].birads, records["i1"].labels["tumor"], records["i1"].density) == (None, None, "C")
    assert lost(summary) == [("contradiction", "row", "i1")]


def test_vindr_split_that_differs_between_tables_is_the_test_set(tmp_path):
    rows = [
        vindr_row("s1", "i1", "['No Finding']", split="testing"),
        vindr_row("s2", "i2", "['No Finding']"),
        vindr_row("s3", "i3", "['No Finding']", split="later"),
    ]
    source = write_vindr(tmp_path / "in", rows)
    path = source / "breast-level_annotations.csv"
    path.write_text("".join(line.replace("training", "test") for line in path.read_text().splitlines(keepends=True)))
    summary, records = run(vindr, source, tmp_path / "out", vindr.VinDrOptions)
    assert {name: record.split for name, record in records.items()} == {"i1": "test", "i2": "test"}
    assert lost(summary) == [("contradiction", "row", "i2"), ("bad_row", "image", "i3")]
    assert any("exam s2" in warning for warning in summary.warnings)


# Findings that cannot be read


@pytest.mark.parametrize("name", ["Calcification", "Mass", "xx"])
def test_inbreast_roi_without_a_point_is_listed(tmp_path, name):
    roi = {"NumberOfPoints": 0, "Point_px": [], "Name": name}
    (tmp_path / "a.xml").write_bytes(plistlib.dumps({"Images": [{"ROIs": [roi]}]}))
    found, ((place, _),) = read_findings(tmp_path / "a.xml")
    assert (found, place) == ([], f"ROI 1 {name!r}")


@pytest.mark.parametrize(
    "cells",
    [
        {"num_roi": 1, "ROI_coords": "((1e999, 10, 50, 40),)"},
        {"num_roi": "", "ROI_coords": "((1e999, 10, 50, 40),)"},
        {"num_roi": "", "ROI_coords": "see below"},
        {"num_roi": "many"},
    ],
)
def test_embed_box_that_cannot_be_read_leaves_no_image_normal(tmp_path, cells):
    summary, records = embedded(tmp_path, FILE | cells)
    assert (records["a"].labels["tumor"], records["a"].unlocalized) == (None, True)
    assert lost(summary) == [("no_place", "finding", "a")]


def test_embed_size_that_is_none_loses_its_boxes(tmp_path):
    cells = {"num_roi": 1, "ROI_coords": "((30, 10, 50, 40),)", "Rows": "1e999"}
    summary, records = embedded(tmp_path, FILE | cells)
    assert (records["a"].lesions, records["a"].unlocalized) == ((), True)
    assert lost(summary) == [("other_size", "finding", "a (ROI 1)")]


@pytest.mark.parametrize(
    ("lines", "origin", "listed"),
    [
        (["IMG001 G MISC M 20 20 9", "IMG001 G MISC M 60 100 9"], None, ["lesion"]),
        (["IMG001 G MISC M 20 20 9", "IMG001 G MISC M 60 100 9"], "top", ["lesion"]),
        (["IMG001 G MISC M 20 20 9", "IMG001 G MISC M 22 20 5"], "top", []),
        (["IMG001 G MISC M " + "1" * 400 + " 20 9"], None, []),
    ],
)
def test_dmid_lesion_that_its_mask_lacks_is_listed(tmp_path, lines, origin, listed):
    source = write_dmid(tmp_path / "in", lines, {"IMG001": disc(20, 20, 9)}, 1)
    summary, records = run(dmid, source, tmp_path / "out", dmid.DmidOptions, origin=origin)
    assert [what for _, what, _ in lost(summary)] == listed
    assert (len(records["IMG001"].lesions), records["IMG001"].unlocalized) == (1, bool(listed))


def broken_yolo(source: Path) -> None:
    labelled.yolo(source)
    labelled.text(source / "labels/P3_R_CC.txt", "0 0.5 0.5 0.1")


def broken_labelme(source: Path) -> None:
    labelled.labelme(source)
    labelled.text(source / "json/P3_R_CC.json", json.dumps({"imagePath": "P3_R_CC.png", "shapes": None}))


def broken_via(source: Path) -> None:
    labelled.via(source)
    labelled.text(source / "more.json", json.dumps({"P3_R_CC.png1": {"filename": "P3_R_CC.png"}}))


@pytest.mark.parametrize("write", [broken_yolo, broken_labelme, broken_via])
def test_image_of_a_damaged_annotation_file_is_not_normal(tmp_path, write):
    for name in (labelled.NAME, "P2_R_MLO", "P3_R_CC"):
        labelled.picture(tmp_path / f"in/images/{name}.png")
    write(tmp_path / "in")
    summary, records = labelled.run(tmp_path / "in", "--images", "images/*", "--without-boxes", "normal")
    assert records["P3_R_CC"].labels["tumor"] is None
    assert any(item.what == "annotation" and "is not as" in item.reason for item in summary.quarantine)


@pytest.mark.parametrize("write", [labelled.yolo, labelled.voc, labelled.labelme, labelled.via])
def test_image_with_a_lesion_is_listed_once(tmp_path, write):
    for name in (labelled.NAME, "P2_R_MLO", "P3_R_CC"):
        labelled.picture(tmp_path / f"in/images/{name}.png")
    write(tmp_path / "in")
    _, records = labelled.run(tmp_path / "in", "--images", "images/*", "--without-boxes", "normal")
    assert {name: record.labels["tumor"] for name, record in records.items()} == {
        labelled.NAME: 1,
        "P2_R_MLO": 0,
        "P3_R_CC": 0,
    }


def test_entry_that_is_left_out_leaves_the_image_of_another_one_unknown(tmp_path):
    labelled.picture(tmp_path / "in/images/P1_L_CC.png")
    labelled.voc(tmp_path / "in")
    labelled.text(tmp_path / "in/other/x.xml", "<annotation><filename>C:/elsewhere/P1_L_CC.png</filename></annotation>")
    (path,) = [path for path in (tmp_path / "in").rglob("*.xml") if path.name != "x.xml"]
    lesions = path.read_text()
    path.write_text("<annotation><filename>P1_L_CC.png</filename></annotation>")
    labelled.text(tmp_path / "in/other/x.xml", lesions.replace("P1_L_CC.png", "C:/elsewhere/P1_L_CC.png"))
    _, records = labelled.run(tmp_path / "in", "--without-boxes", "normal")
    assert [record.labels["tumor"] for record in records.values()] == [None]


def test_lesions_of_a_file_that_is_not_there_leave_unlisted_images_unknown(tmp_path):
    labelled.picture(tmp_path / f"in/images/{labelled.NAME}.png")
    labelled.picture(tmp_path / "in/images/P2_R_MLO.png")
    shapes = [{"label": "Mass", "points": labelled.POINTS}]
    for name, marks in (("P2_R_MLO", []), (f",{labelled.NAME}", shapes)):
        value = {"imagePath": f"{name}.png", "shapes": marks}
        labelled.text(tmp_path / f"in/{name}.json", json.dumps(value))
    _, records = labelled.run(tmp_path / "in", "--images", "images/*", "--without-boxes", "normal")
    assert records[labelled.NAME].labels["tumor"] is None


def test_yolo_names_that_are_no_yaml_are_refused(tmp_path):
    labelled.picture(tmp_path / f"in/images/{labelled.NAME}.png")
    labelled.yolo(tmp_path / "in")
    labelled.text(tmp_path / "in/data.yaml", "names: {0: Mass, 1: Calci")
    with pytest.raises(InputError, match=r"data.yaml: is not valid YAML"):
        labelled.run(tmp_path / "in")


@pytest.mark.parametrize("name", ["data.yaml", "classes.txt", "x.csv", "labels/P2_R_MLO.txt"])
def test_pipes_among_annotations_are_refused_unread(tmp_path, name):
    labelled.picture(tmp_path / f"in/images/{labelled.NAME}.png")
    labelled.yolo(tmp_path / "in")
    (tmp_path / "in" / name).unlink(missing_ok=True)
    if name == "classes.txt":
        (tmp_path / "in/data.yaml").unlink()
    os.mkfifo(tmp_path / "in" / name)
    with pytest.raises(InputError, match=f"{name}: is a pipe"):
        labelled.run(tmp_path / "in")


def test_image_of_an_unfinished_task_is_not_normal(tmp_path):
    for name in (labelled.NAME, "P2_R_MLO", "P3_R_CC"):
        labelled.picture(tmp_path / f"in/images/{name}.png")
    labelled.label_studio(tmp_path / "in")
    path = next((tmp_path / "in").glob("**/*.json"))
    skipped = {"id": 9, "data": {"image": "images/P3_R_CC.png"}, "annotations": [{"was_cancelled": True, "result": []}]}
    path.write_text(json.dumps([*json.loads(path.read_text()), skipped]))
    _, records = labelled.run(tmp_path / "in", "--images", "images/*", "--without-boxes", "normal")
    assert "P3_R_CC" not in records
    assert records["P2_R_MLO"].labels["tumor"] == 0


def test_coco_file_without_a_list_of_annotations_makes_nothing_normal(tmp_path):
    labelled.picture(tmp_path / "in/a.png")
    value = {
        "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 64}],
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "in/a.json").write_text(json.dumps(value))
    join = JoinRule(pattern="(?P<patient>.)")
    options = CocoOptions(without_boxes="normal", join=join, splits=SplitOptions(0, 0, 0), jobs=1, progress=False)
    with pytest.raises(InputError, match=r"a.json: has no list 'annotations'"):
        coco.ARCHIVE.convert(tmp_path / "in", tmp_path / "out", options)
    summary = coco.ARCHIVE.convert(
        tmp_path / "in", tmp_path / "out", options.model_copy(update={"without_boxes": "unknown"})
    )
    assert summary.counts["tumor"] == {"not known": 1}


def test_cmmd_image_of_two_patients_is_quarantined(tmp_path):
    rows = [(patient, "L", "44", "mass", "Benign", "") for patient in ("D1-0001", "D1-0002")]
    source = write_cmmd(tmp_path / "in", [(row[0], "L", "CC") for row in rows], rows)
    (source / "CMMD/D1-0001").rename(source / "CMMD/D2-0001")
    summary, records = run(cmmd, source, tmp_path / "out")
    assert [record.patient_id for record in records.values()] == ["cmmd_D1-0002"]
    assert [kind for kind, what, _ in lost(summary) if what == "image"] == ["contradiction"]


def test_films_of_one_number_are_quarantined(tmp_path):
    source = mias_archive(tmp_path / "in", "mdb001 G NORM", "mdb1 G CIRC B 60 60 9", "mdb003 G NORM")
    summary = mias.ARCHIVE.convert(
        source, tmp_path / "out", MiasOptions(table_size=128, splits=SplitOptions(0, 0, 0), progress=False)
    )
    assert [image.file_name for image in read_coco(tmp_path / "out/all.json").images] == ["images/mdb003.png"]
    assert [item.kind for item in summary.quarantine] == [Reason.DUPLICATE] * 2


def test_named_annotation_file_that_is_damaged_is_refused(tmp_path):
    labelled.picture(tmp_path / f"in/images/{labelled.NAME}.png")
    broken_yolo(tmp_path / "in")
    names = [f"labels/{name}.txt" for name in (labelled.NAME, "P3_R_CC")]
    with pytest.raises(InputError, match=r"P3_R_CC.txt: is not as yolo is written"):
        labelled.run(tmp_path / "in", "--annotations", *names)
