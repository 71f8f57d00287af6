"""Tables of boxes and files of labelling tools: the same image and the same lesion in each, and the quirks of each."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mammodet.converters.options import add_arguments
from mammodet.converters.table import TableOptions, convert
from mammodet.data.coco import read_coco
from mammodet.data.images import write_png
from mammodet.errors import InputError

PATTERN = r"(?P<patient>P\d+)_(?P<laterality>[LR])_(?P<view>CC|MLO)"
NAME = "P1_L_CC"
BOX = (5, 10, 15, 22)  # xyxy, on 64 x 48 (height, width)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(sum(path.name.encode())).integers(0, 256, (64, 48), np.uint8))
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def run(source: Path, *arguments: object, pattern: bool = True):
    parser = argparse.ArgumentParser()
    add_arguments(parser, TableOptions)
    common = ["--val-fraction", "0", "--jobs", "1", *(["--pattern", PATTERN] if pattern else [])]
    options = TableOptions.of(parser.parse_args([*common, *map(str, arguments)]))
    summary = convert(source, source.parent / "out", options)
    return summary, {Path(record.file_name).stem: record for record in read_coco(source.parent / "out/all.json").images}


def boxes(record) -> list[tuple[float, ...]]:
    return sorted(tuple(round(side, 3) for side in lesion.box_xyxy) for lesion in record.lesions)


@pytest.fixture
def source(tmp_path):
    for name in (NAME, "P2_R_MLO", "P3_R_CC"):
        picture(tmp_path / f"in/images/{name}.png")
    return tmp_path / "in"


# tables


@pytest.mark.parametrize(
    ("header", "row", "arguments"),
    [
        ("filename,xmin,ymin,xmax,ymax,class", "{n}.png,5,10,15,22,Mass", ()),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "{n}.png,48,64,Mass,5,10,15,22", ()),
        ("image;left;top;right;bottom;label", "{n}.png;5,0;10;15;22;Mass", ()),
        ("File Name\tX_Center\tY_Center\tW\tH\tClass", "{n}.png\t10\t16\t10\t12\tMass", ()),
        ("image_id,x,y,w,h,width,height,class", "{n},5,10,10,12,48,64,Mass", ("--xy", "corner")),
        ("image_id,x,y,w,h,class", "{n},10,16,10,12,Mass", ("--xy", "centre")),
        ("file,cx,cy,w,h,class", "images/{n}.png,0.208333333,0.25,0.208333333,0.1875,Mass", ("--boxes", "fractions")),
        ("scan,a,b,c,d,class", "{n}.png,5,10,10,12,Mass", ["file=scan", "x=a", "y=b", "w=c", "h=d"]),
    ],
)
def test_box_is_read_from_its_columns(source, header, row, arguments):
    text(source / "boxes.csv", header, row.format(n=NAME))
    if arguments and "=" in arguments[0]:
        arguments = [word for pair in arguments for word in ("--column", pair)]
    _, records = run(source, *arguments)
    assert boxes(records[NAME]) == [BOX]
    assert records[NAME].lesions[0].category == "mass"
    assert (records[NAME].patient_id, records[NAME].laterality, records[NAME].view) == ("P1", "L", "CC")


def test_corner_or_centre_is_seen_where_a_box_leaves_its_image_else_asked(source):
    text(source / "boxes.csv", "file,x,y,w,h", f"{NAME}.png,5,10,12,12")
    assert boxes(run(source)[1][NAME]) == [(5, 10, 17, 22)]  # around (5, 10) it would begin at x = -1
    text(source / "boxes.csv", "file,x,y,w,h", f"{NAME}.png,42,10,12,12")
    assert boxes(run(source)[1][NAME]) == [(36, 4, 48, 16)]
    text(source / "boxes.csv", "file,x,y,w,h", f"{NAME}.png,20,20,12,12")
    with pytest.raises(InputError, match=r"a box's corner or centre.*--xy corner"):
        run(source)


def test_shares_are_never_taken_for_pixels(source):
    text(source / "boxes.csv", "file,xmin,ymin,xmax,ymax", f"{NAME}.png,0.1,0.1,0.3,0.3")
    with pytest.raises(InputError, match="--boxes fractions"):
        run(source)


def test_rows_without_a_box_and_images_without_a_row(source):
    text(
        source / "boxes.csv",
        "file,xmin,ymin,xmax,ymax,class",
        f"{NAME}.png,5,10,15,22,Mass",
        f"{NAME}.png,20,30,52,40,Mass",  # 4 px over the border
        f"{NAME}.png,20,30,50,40,Mass",  # 2 px
        "P2_R_MLO.png,,,,,No Finding",
    )
    summary, records = run(source)
    assert boxes(records[NAME]) == [BOX, (20, 30, 48, 40)]
    assert summary.counts["boxes cut to the image"] == 1
    assert records[NAME].unlocalized
    assert any("leaves the image by 4 px" in item.reason for item in summary.quarantine)
    assert records["P2_R_MLO"].labels == {"tumor": 0, "malignant": 0}
    assert "P3_R_CC" not in records
    assert summary.counts["images not listed"] == 1
    _, records = run(source, "--images", "images/*.png")
    assert records["P3_R_CC"].labels["tumor"] is None
    _, records = run(source, "--images", "images/*.png", "--without-boxes", "normal")
    assert records["P3_R_CC"].labels["tumor"] == 0


def test_row_that_names_a_finding_without_a_box_makes_its_image_positive_and_unlocalized(source):
    text(source / "boxes.csv", "file,x1,y1,x2,y2,class", f"{NAME}.png,5,10,15,22,Mass", "P2_R_MLO.png,,,,,Mass")
    _, records = run(source)
    assert records["P2_R_MLO"].labels["tumor"] == 1
    assert records["P2_R_MLO"].unlocalized


def test_table_tells_patient_side_view_and_pathology(source):
    text(
        source / "boxes.csv",
        "file,patient_id,side,view,x1,y1,x2,y2,pathology",
        f"{NAME}.png,77,RIGHT,MLO,5,10,15,22,MALIGNANT",
        f"{NAME}.png,77,RIGHT,MLO,20,30,30,40,BENIGN",
    )
    _, records = run(source, pattern=False)
    record = records[NAME]
    assert (record.patient_id, record.laterality, record.view, record.labels["malignant"]) == ("77", "R", "MLO", 1)
    assert [lesion.attributes["pathology"] for lesion in record.lesions] == ["malignant", "benign"]
    text(source / "boxes.csv", "file,patient,x1,y1,x2,y2", f"{NAME}.png,77,5,10,15,22", f"{NAME}.png,78,5,10,9,22")
    with pytest.raises(InputError, match="two values of patient_id: 77 and 78"):
        run(source, pattern=False)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,x,y,w", "has none of them whole"),
        ("file,x1,y1,x2,y2,cx,cy,w,h", "has corners and centre"),
        ("scan,x1,y1,x2,y2", "no column names the image file"),
        ("file,x1,y1,x2,y2,class,label", "could be the category"),
    ],
)
def test_table_of_unclear_columns_is_refused(source, header, message):
    text(source / "boxes.csv", header, ",".join("1" for _ in header.split(",")))
    with pytest.raises(InputError, match=message):
        run(source)


def write_xlsx(path: Path, rows: list[list[object]]) -> Path:
    """A sheet with inline texts and numbers, without the empty cells at the end of its rows."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    lines = ""
    for row in rows:
        cells = [
            f"<c><v>{v}</v></c>" if isinstance(v, int) else f'<c t="inlineStr"><is><t>{v}</t></is></c>' for v in row
        ]
        lines += f"<row>{''.join(cells)}</row>"
    sheet, link = '<sheet name="a" r:id="r1"/>', '<Relationship Id="r1" Target="worksheets/a.xml"/>'
    parts = {
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets>{sheet}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">{link}</Relationships>',
        "xl/worksheets/a.xml": f"<worksheet {main}><sheetData>{lines}</sheetData></worksheet>",
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def test_boxes_and_cases_are_read_from_sheets(source, tmp_path):
    header = ["File", "xmin", "ymin", "xmax", "ymax", "class"]
    write_xlsx(source / "boxes.xlsx", [header, [f"{NAME}.png", 5, 10, 15, 22, "Mass"], ["P2_R_MLO.png"]])
    cases = write_xlsx(tmp_path / "cases.xlsx", [["Patient", "density", "x"], ["P1", "C"], ["P2", "D"]])
    _, records = run(source, "--table", cases, "--on", "patient={patient}", "--image-key", "density=density")
    assert boxes(records[NAME]) == [BOX]
    assert {name: record.density for name, record in records.items()} == {NAME: "C", "P2_R_MLO": "D"}


# labelling tools: the same box, and a triangle


TRIANGLE = [20.0, 30.0, 40.0, 30.0, 20.0, 50.0]
POINTS = [[20, 30], [40, 30], [20, 50]]


def voc(source: Path) -> None:
    inner = (
        "<object><name>Mass</name><bndbox><xmin>5</xmin><ymin>10</ymin><xmax>15</xmax><ymax>22</ymax></bndbox></object>"
    )
    size = "<size><width>48</width><height>64</height></size>"
    text(source / f"annotations/{NAME}.xml", f"<annotation><filename>{NAME}.png</filename>{size}{inner}</annotation>")


def labelme(source: Path) -> None:
    shapes = [
        {"label": "Mass", "shape_type": "rectangle", "points": [[15, 22], [5, 10]]},
        {"label": "Mass", "shape_type": "polygon", "points": POINTS},
        {"label": "Mass", "shape_type": "point", "points": [[1, 1]]},
    ]
    value = {"imagePath": f"..\\images\\{NAME}.png", "imageHeight": 64, "imageWidth": 48, "shapes": shapes}
    text(source / f"json/{NAME}.json", json.dumps(value))


def cvat(source: Path) -> None:
    inner = (
        '<box label="Mass" xtl="5" ytl="10" xbr="15" ybr="22"><attribute name="birads">4</attribute></box>'
        '<polygon label="Mass" points="20,30;40,30;20,50"/><points label="Mass" points="3,3"/>'
    )
    image = f'<image id="0" name="{NAME}.png" width="48" height="64">{inner}</image>'
    text(source / "annotations.xml", f"<annotations><version>1.1</version><meta/>{image}</annotations>")


def label_studio(source: Path) -> None:
    size = {"original_width": 48, "original_height": 64}
    box = {"x": 500 / 48, "y": 1000 / 64, "width": 1000 / 48, "height": 1200 / 64, "rectanglelabels": ["Mass"]}
    corners = [[100 * x / 48, 100 * y / 64] for x, y in POINTS]
    result = [
        {**size, "type": "rectanglelabels", "value": {**box, "rotation": 0}},
        {**size, "type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["Mass"]}},
        {**size, "type": "brushlabels", "value": {"format": "rle", "rle": [1, 2], "brushlabels": ["Mass"]}},
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    task = {"id": 1, "data": {"image": f"/data/local-files/?d=images/{NAME}.png"}, "annotations": [{"result": result}]}
    text(source / "export.json", json.dumps([task]))


def via(source: Path) -> None:
    shapes = [
        {"name": "rect", "x": 5, "y": 10, "width": 10, "height": 12},
        {"name": "polygon", "all_points_x": [20, 40, 20], "all_points_y": [30, 30, 50]},
        {"name": "point", "cx": 3, "cy": 3},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": "Mass"}} for shape in shapes]
    entry = {"filename": f"{NAME}.png", "size": 9, "regions": regions, "file_attributes": {}}
    text(source / "via.json", json.dumps({"_via_settings": {}, "_via_img_metadata": {f"{NAME}.png9": entry}}))


def via_csv(source: Path) -> None:
    shapes = [
        '{"name":"rect","x":5,"y":10,"width":10,"height":12}',
        '{"name":"polygon","all_points_x":[20,40,20],"all_points_y":[30,30,50]}',
        '{"name":"point","cx":3,"cy":3}',
    ]
    cells = [
        f'{NAME} .png,9,"{{}}",3,{n},"{s}","{{""kind"":""Mass""}}"'
        for n, s in enumerate(s.replace('"', '""') for s in shapes)
    ]
    header = "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    text(source / "via.csv", header, *cells, 'P2_R_MLO.png,9,"{}",0,0,"{}","{}"')


def yolo(source: Path) -> None:
    box = f"0 {10 / 48} {16 / 64} {10 / 48} {12 / 64}"
    triangle = "0 " + " ".join(f"{x / 48} {y / 64}" for x, y in POINTS)
    text(source / f"labels/{NAME}.txt", box, triangle)
    text(source / "labels/P2_R_MLO.txt")
    text(source / "data.yaml", "names: {0: Mass, 1: Calcification}")


@pytest.mark.parametrize("write", [voc, labelme, cvat, label_studio, via, via_csv, yolo])
def test_each_format_gives_the_same_box_outline_and_lost_lesion(source, write):
    write(source)
    summary, records = run(source)
    expected = [BOX] if write is voc else [BOX, (20, 30, 40, 50)]
    assert boxes(records[NAME]) == expected
    assert {lesion.category for lesion in records[NAME].lesions} == {"mass"}
    has_lost = write not in (voc, yolo)
    assert records[NAME].unlocalized is has_lost
    assert summary.by_kind() == ({"no_place": 1} if has_lost else {})
    outlines = [lesion for lesion in records[NAME].lesions if lesion.geometry == "contour"]
    assert len(outlines) == len(expected) - 1
    if write in (yolo, via_csv):
        assert records["P2_R_MLO"].labels["tumor"] is None  # an empty list alone says nothing


def test_attributes_and_turned_boxes_of_cvat_are_kept(source):
    cvat(source)
    path = source / "annotations.xml"
    assert run(source)[1][NAME].lesions[0].attributes["birads"] == "4"
    path.write_text(path.read_text().replace('xtl="5"', 'rotation="90" xtl="5"'))
    (lesion, _) = run(source)[1][NAME].lesions
    assert np.allclose(lesion.box_xyxy, (4, 11, 16, 21))  # 10 x 12 around (10, 16), turned
    assert lesion.attributes["turned_deg"] == 90


def test_turned_box_of_label_studio_is_turned_around_its_corner(source):
    label_studio(source)
    path = source / "export.json"
    path.write_text(path.read_text().replace('"rotation": 0', '"rotation": 90').replace('"x": 10.4', '"x": 60.4'))
    lesion = run(source)[1][NAME].lesions[0]
    assert np.allclose(lesion.box_xyxy, (17, 10, 29, 20), atol=0.1)  # from (29, 10): 12 to the left, 10 down


def test_label_studio_lists_finished_work_of_one_reader(source):
    label_studio(source)
    (task,) = json.loads((source / "export.json").read_text())
    skipped = {"id": 2, "data": {"image": "P2_R_MLO.png"}, "annotations": [{"was_cancelled": True, "result": []}]}
    waiting = {"id": 3, "data": {"image": "P3_R_CC.png"}, "annotations": []}
    text(source / "export.json", json.dumps([task, skipped, waiting]))
    assert list(run(source, "--without-boxes", "normal")[1]) == [NAME]
    task["annotations"] *= 2
    text(source / "export.json", json.dumps([task]))
    with pytest.raises(InputError, match="task 1 has the work of 2 readers"):
        run(source)


def test_results_of_label_studio_about_one_region_are_one_lesion(source):
    label_studio(source)
    (task,) = json.loads((source / "export.json").read_text())
    first = task["annotations"][0]["result"][0]
    place = {key: first["value"][key] for key in ("x", "y", "width", "height", "rotation")}
    shape, label = {"type": "rectangle", "value": place}, {"type": "labels", "value": {**place, "labels": ["Mass"]}}
    rating = {"type": "rating", "value": {**place, "rating": 4}}
    about = {"id": "r1", "original_width": 48, "original_height": 64}
    whole = {**about, "id": "r2", "type": "rating", "value": {"rating": 3}}
    task["annotations"][0]["result"] = [*({**about, **each} for each in (shape, label, rating)), whole]
    text(source / "export.json", json.dumps([task]))
    _, records = run(source)
    assert boxes(records[NAME]) == [pytest.approx(BOX, abs=0.1)]
    assert ([lesion.category for lesion in records[NAME].lesions], records[NAME].unlocalized) == (["mass"], False)
    task["annotations"][0]["result"][0]["image_rotation"] = 90
    text(source / "export.json", json.dumps([task]))
    _, records = run(source)
    assert (records[NAME].lesions, records[NAME].unlocalized) == ((), True)


@pytest.mark.parametrize(("word", "tumor"), [("normal", 0), ("poor quality", None)])
def test_tag_of_cvat_is_about_the_whole_image(source, word, tumor):
    tag = f'<image id="1" name="{NAME}.png" width="48" height="64"><tag label="{word}"/></image>'
    box = '<box label="m" xtl="5" ytl="9" xbr="9" ybr="12"/>'
    other = f'<image id="2" name="P2_R_MLO.png" width="48" height="64">{box}</image>'
    text(source / "a.xml", f"<annotations>{tag}{other}</annotations>")
    record = run(source)[1][NAME]
    assert (record.labels["tumor"], record.unlocalized, record.lesions) == (tumor, tumor is None, ())


def test_number_that_may_be_a_thousand_has_no_place(source):
    text(source / "t.csv", "file;x1;y1;x2;y2", f"{NAME}.png;1,005;10;1,015;22", f"{NAME}.png;5,5;10;15;22")
    assert boxes(run(source)[1][NAME]) == [(5.5, 10, 15, 22)]


def test_mark_without_a_label_is_a_lesion(source):
    labelme(source)
    path = source / f"json/{NAME}.json"
    path.write_text(path.read_text().replace('"Mass"', '""', 1))
    assert {lesion.category for lesion in run(source)[1][NAME].lesions} == {"lesion", "mass"}


def test_yolo_labels_in_subset_folders_meet_the_images_of_their_subset(tmp_path):
    source = tmp_path / "in"
    for subset, patient in (("train", 1), ("test", 2)):
        picture(source / f"images/{subset}/P{patient}_L_CC.png")
        text(source / f"labels/{subset}/P{patient}_L_CC.txt", f"{patient} 0.5 0.5 0.25 0.25")
    _, records = run(source, "--category", "class 2=mass")
    assert {name: (r.split, r.lesions[0].category) for name, r in records.items()} == {
        "P1_L_CC": ("train", "class 1"),
        "P2_L_CC": ("test", "mass"),
    }


def test_files_of_several_formats_are_a_question_and_a_table_beside_them_is_none(source):
    voc(source)
    text(source / "cases.csv", "patient,age", "P1,50")
    assert boxes(run(source)[1][NAME]) == [BOX]
    via(source)
    with pytest.raises(InputError, match=r"several formats: via \(1.*voc \(1.*--format"):
        run(source)
    assert boxes(run(source, "--format", "voc")[1][NAME]) == [BOX]


def test_xml_that_defines_entities_is_refused(source):
    bomb = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    text(source / "a.xml", bomb, "<annotation><filename>&b;</filename></annotation>")
    with pytest.raises(InputError, match="defines entities"):
        run(source)


def test_damaged_file_of_a_format_is_named(source):
    voc(source)
    text(source / "annotations/b.xml", "<annotation><filename>")
    with pytest.raises(InputError, match=r"b\.xml: is no XML"):
        run(source)
