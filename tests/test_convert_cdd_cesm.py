"""The CDD-CESM converter: masks and their components by hand, the archive's CSV and table, and each quirk."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.commands.convert import main
from mammodet.converters.base import SplitOptions
from mammodet.converters.cdd_cesm import CesmOptions, convert
from mammodet.converters.cdd_cesm.archive import ImageName, parse_name
from mammodet.converters.cdd_cesm.regions import draw, read_regions
from mammodet.converters.cdd_cesm.shape import MassRule, kind_of, measure, rule_from, skin_depth
from mammodet.converters.cdd_cesm.table import read_table
from mammodet.converters.mask_files import components
from mammodet.converters.sheet import read_sheet
from mammodet.data.breast import Breast
from mammodet.data.coco import read_coco
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.geometry import rle_area, rle_to_mask

HIGH, WIDE = 128, 96
NO_SPLIT = SplitOptions(0, 0, 0)
NAME = "P1_L_DM_CC"
COLUMNS = ["Image_name", "Patient_ID", "Side", "Type", "Breast density (ACR)", "BIRADS", "Findings", "View", "Tags"]
COLUMNS += ["Pathology Classification/ Follow up"]


def breast_mask(size_hw=(HIGH, WIDE)) -> np.ndarray:
    """Half an ellipse on the left."""
    rows, columns = np.ogrid[0.5 : size_hw[0], 0.5 : size_hw[1]]
    return ((rows - size_hw[0] / 2) / (0.45 * size_hw[0])) ** 2 + (columns / (0.8 * size_hw[1])) ** 2 <= 1


def film(size_hw=(HIGH, WIDE)) -> np.ndarray:
    noise = np.random.default_rng(0).random(size_hw)
    return (6 + 3 * noise + breast_mask(size_hw) * (80 + 60 * noise)).astype(np.uint8)


def disc(centre_xy, radius, size_hw=(HIGH, WIDE)) -> np.ndarray:
    return cv2.circle(np.zeros(size_hw, np.uint8), centre_xy, radius, 255, -1)


def band() -> np.ndarray:
    """Thickened skin: the outer 4 px of the breast."""
    inside = cv2.erode(np.pad(breast_mask().astype(np.uint8), 9, mode="edge"), np.ones((9, 9)))[9:-9, 9:-9]
    return ((breast_mask() & (inside == 0)) * 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def archive(folder: Path, masks: dict[str, np.ndarray | None], size_hw=(HIGH, WIDE)) -> Path:
    """images/ and masks/ with a film for every name; None: no mask."""
    source = folder / "cesm"
    for name, mask in masks.items():
        write(source / "images" / f"{name}.jpg", film(size_hw))
        if mask is not None:
            write(source / "masks" / f"{name}.jpg", mask)
    return source


def run(source: Path, output: Path, **options):
    summary = convert(source, output, CesmOptions(splits=NO_SPLIT, jobs=1, progress=False, **options))
    records = {Path(item.file_name).stem: item for item in read_coco(output / "all.json").images}
    return records, summary


def row(name: str, pathology: str, density="C", birads="4", findings="", tags="") -> dict[str, str]:
    patient, side, kind, view = name.split("_")
    values = [
        name,
        patient[1:],
        side,
        "DM" if kind == "DM" else "CESM",
        density,
        birads,
        findings,
        view,
        tags,
        pathology,
    ]
    return dict(zip(COLUMNS, values, strict=True))


def write_table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_regions(path: Path, *regions: tuple[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
        writer.writerow(names.split(","))
        for name, shape in regions:
            text = shape if isinstance(shape, str) else json.dumps(shape)
            writer.writerow([name, "1000", "{}", "1", "0", text, "{}"])
    return path


def reasons(summary) -> list[tuple[str, str]]:
    return [(item.what, item.name) for item in summary.quarantine]


# Names


@pytest.mark.parametrize("text", ["P105_L_DM_MLO.jpg", "P105_L_DM_MLO .jpg", " p105_l_dm_mlo ", "P105_L_DM_MLO.JPG"])
def test_name_gives_patient_side_kind_and_view(text):
    assert parse_name(text) == ImageName(105, "L", "DM", "MLO")


@pytest.mark.parametrize("text", ["", "P105_X_DM_MLO", "P105_L_DM_MLO_mask", "P_L_DM_CC", "mdb001"])
def test_other_names_are_refused(text):
    assert parse_name(text) is None


# Shapes


def kind(mask: np.ndarray, rule: MassRule | None = None) -> str:
    whole = Breast((0, 0, WIDE, HIGH), breast_mask(), (HIGH, WIDE))
    (outline,), _ = components(mask > 127, 1)
    return kind_of(measure(outline, whole, skin_depth(whole)), rule or MassRule())


def test_rectangle_measures_by_hand():
    # 9 x 18 px: its hull and smallest rectangle are itself; its middle is 5 px from the nearest pixel outside.
    whole = Breast((0, 0, 100, 100), np.ones((100, 100), bool), (100, 100))
    mask = np.zeros((100, 100), bool)
    mask[20:29, 30:48] = True
    (outline,), dropped = components(mask, 20)
    shape = measure(outline, whole, skin_depth(whole))
    assert (dropped, outline.corner_xy, outline.patch.shape) == (0, (30, 20), (9, 18))
    assert (shape.solidity, shape.aspect) == (1, 2)
    assert shape.area == pytest.approx(162 / 10000)
    assert shape.roundness == pytest.approx(np.pi * 25 / 162, rel=0.01)


def test_kinds_of_outlines():
    ragged = np.zeros((HIGH, WIDE), np.uint8)
    ragged[60:64, 10:60] = ragged[40:90, 33:37] = 255  # a cross fills little of its hull
    long = np.zeros((HIGH, WIDE), np.uint8)
    long[60:74, 10:40] = 255
    assert kind(disc((35, 64), 10)) == "mass"
    assert kind(band()) == "band"
    assert kind(disc((35, 64), 1)) == "small"
    assert kind(ragged) == "spread"
    assert kind(long) == "spread"
    assert kind(long, MassRule(max_aspect=3.5)) == "mass"
    assert kind(cv2.resize(disc((48, 64), 46), (WIDE, HIGH))) == "spread"  # more of the breast than a mass covers


def test_large_outlines_have_to_be_rounder():
    square = np.zeros((HIGH, WIDE), np.uint8)
    square[50:78, 10:38] = 255  # 784 px of 4343 of the breast; an inscribed disc covers 0.79 to 0.85 of it
    assert kind(square) == "mass"
    assert kind(square, MassRule(large_roundness=0.9)) == "spread"
    assert kind(square, MassRule(large_roundness=0.9, large_area=0.2)) == "mass"


def test_components_touch_at_corners_and_specks_are_counted():
    mask = np.zeros((20, 20), bool)
    mask[0:3, 0:3] = mask[3:6, 3:6] = True  # one region of 18 px
    mask[10, 10] = mask[15, 15] = True
    outlines, dropped = components(mask, 18)
    assert [int(item.patch.sum()) for item in outlines] == [18]
    assert dropped == 2


def test_rule_takes_numbers_and_names_all_faults():
    assert rule_from(["min_solidity=0.8", "min_pixels=5"]) == MassRule(min_solidity=0.8, min_pixels=5)
    with pytest.raises(InputError) as error:
        rule_from(["solid=1", "max_aspect=nan", "min_pixels=1.5"])
    text = str(error.value)
    assert "3 faults" in text
    assert "solid: Unexpected keyword argument" in text
    assert "Its names are min_pixels, min_solidity" in text
    assert "min_pixels is '1.5'; expected a whole number" in text
    assert "max_aspect is 'nan'" in text
    with pytest.raises(InputError, match="expected them to rise"):
        rule_from(["max_area=0.01"])


# Masks


def test_compact_component_is_a_mass_and_the_band_is_ignored(tmp_path):
    mass = disc((35, 64), 8)
    records, summary = run(archive(tmp_path, {NAME: np.maximum(mass, band())}), tmp_path / "out")
    record = records[NAME]
    assert (record.patient_id, record.laterality, record.view, record.size_hw) == ("cesm_P1", "L", "CC", (HIGH, WIDE))
    assert record.labels == {"tumor": 1, "malignant": None}
    by_shape = {lesion.attributes["shape"]: lesion for lesion in record.lesions}
    assert {name: lesion.ignore for name, lesion in by_shape.items()} == {"mass": False, "band": True}
    lesion = by_shape["mass"]
    assert (lesion.category, lesion.geometry) == ("mass", "contour")
    # JPEG moves the edge by a pixel at most.
    assert np.abs(np.subtract(lesion.box_xyxy, (27, 56, 44, 73))).max() <= 1
    assert abs(rle_area(lesion.rle) - int((mass > 127).sum())) <= 12
    assert summary.counts["by shape"] == {"mass": 1, "spread": 0, "band": 1, "small": 0}
    assert (summary.counts["ignored regions"], summary.counts["of these complete"]) == (1, 0)
    assert np.array_equal(
        read_image(tmp_path / "out" / record.file_name), read_image(tmp_path / f"cesm/images/{NAME}.jpg")
    )


def test_bands_can_be_left_out(tmp_path):
    source = archive(tmp_path, {NAME: np.maximum(disc((35, 64), 8), band()), "P2_R_DM_MLO": band()})
    records, _ = run(source, tmp_path / "out", background=("band",))
    assert [lesion.attributes["shape"] for lesion in records[NAME].lesions] == ["mass"]
    assert records[NAME].has_complete_boxes
    # Nothing is left of it to ignore, and it is positive: no place to learn background.
    assert (records["P2_R_DM_MLO"].labels["tumor"], records["P2_R_DM_MLO"].unlocalized) == (1, True)


def test_all_findings_are_lesions_when_asked_for(tmp_path):
    source = archive(tmp_path, {NAME: np.maximum(disc((35, 64), 8), band())})
    records, _ = run(source, tmp_path / "out", all_findings="lesion")
    assert [(lesion.category, lesion.ignore) for lesion in records[NAME].lesions] == [("lesion", False)] * 2
    with pytest.raises(InputError, match="give one of them"):
        run(source, tmp_path / "out", all_findings="mass", background=("band",))


def test_lesion_at_the_border_keeps_its_place(tmp_path):
    records, _ = run(archive(tmp_path, {NAME: disc((0, 64), 8)}), tmp_path / "out")
    (lesion,) = records[NAME].lesions
    assert lesion.box_xyxy[0] == 0
    assert rle_to_mask(lesion.rle)[64, 0]


def test_images_without_findings_are_not_known_and_teach_no_background(tmp_path):
    speck = np.zeros((HIGH, WIDE), np.uint8)
    speck[60:63, 30:33] = 255
    masks = {NAME: disc((35, 64), 8), "P2_L_DM_CC": None, "P3_L_DM_CC": np.zeros((HIGH, WIDE), np.uint8)}
    records, summary = run(archive(tmp_path, {**masks, "P4_L_DM_CC": speck}), tmp_path / "out")
    for name in ("P2_L_DM_CC", "P3_L_DM_CC", "P4_L_DM_CC"):
        assert records[name].labels == {"tumor": None, "malignant": None}
        assert not records[name].has_complete_boxes
    assert summary.counts["specks dropped"] == 1
    assert any("no --table" in text for text in summary.warnings)


def test_malignancy_is_known_by_the_users_word(tmp_path):
    source = archive(tmp_path, {NAME: disc((35, 64), 8), "P2_L_DM_CC": None})
    records, _ = run(source, tmp_path / "out", malignant_without_table=True)
    assert records[NAME].labels == {"tumor": 1, "malignant": 1}
    assert records["P2_L_DM_CC"].labels == {"tumor": None, "malignant": None}


def test_faulty_files_are_quarantined_and_leave_labels_unknown(tmp_path):
    small = disc((30, 30), 8, (64, 64))
    masks = {NAME: disc((35, 64), 8), "P2_L_DM_CC": small, "P3_L_DM_CC": film(), "P4_L_DM_CC": disc((35, 64), 8)}
    source = archive(tmp_path, masks)
    image = source / "images/P4_L_DM_CC.jpg"
    image.write_bytes(image.read_bytes()[:600])
    write(source / "masks/P9_L_DM_CC.jpg", small)
    write(source / "images/scan.jpg", film())
    write(source / "again/P1_L_DM_CC.png", film())
    records, summary = run(source, tmp_path / "out")
    assert sorted(records) == [NAME, "P2_L_DM_CC", "P3_L_DM_CC"]
    for name in ("P2_L_DM_CC", "P3_L_DM_CC"):
        assert (records[name].labels["tumor"], records[name].unlocalized, records[name].lesions) == (None, True, ())
    assert sorted(reasons(summary)) == [
        ("image", "P4_L_DM_CC"),
        ("image", "images/P1_L_DM_CC.jpg"),
        ("image", "images/scan.jpg"),
        ("mask", "P2_L_DM_CC"),
        ("mask", "P3_L_DM_CC"),
        ("mask", "P9_L_DM_CC"),
    ]
    texts = " ".join(item.reason for item in summary.quarantine)
    assert "the mask is 64x64, the image 128x96 (height x width)" in texts
    assert "neither black nor white" in texts


def test_stretched_copies_are_named(tmp_path):
    source = archive(tmp_path, {NAME: disc((35, 64), 8, (128, 128))}, (128, 128))
    records, summary = run(source, tmp_path / "out")
    assert records[NAME].notes == ("stretched to 128x128: lengths and shapes are not those of the film",)
    assert any("aspect is lost" in text for text in summary.warnings)


def test_subtracted_images_are_left_out_unless_asked_for(tmp_path):
    source = archive(tmp_path, {NAME: disc((35, 64), 8), "P1_L_CM_CC": disc((35, 64), 8)})
    records, summary = run(source, tmp_path / "out")
    assert (sorted(records), summary.counts["left out (--kind)"], summary.quarantine) == ([NAME], 1, [])
    records, _ = run(source, tmp_path / "both", kind="both")
    assert {name: record.source for name, record in records.items()} == {
        NAME: "CDD-CESM",
        "P1_L_CM_CC": "CDD-CESM subtracted",
    }
    (source / "images/P1_L_CM_CC.jpg").unlink()
    with pytest.raises(InputError, match="of kind CM, but 1 of the other kind"):
        run(source, tmp_path / "none", kind="CM")


def test_patients_never_part(tmp_path):
    names = [f"P{number}_{side}_DM_{view}" for number in range(10) for side in "LR" for view in ("CC", "MLO")]
    source = archive(tmp_path, dict.fromkeys(names, disc((35, 64), 8)))
    options = CesmOptions(splits=SplitOptions(0.2, 0.2, 3), progress=False)
    convert(source, tmp_path / "out", options)
    parts = {
        name: {item.patient_id for item in read_coco(tmp_path / f"out/{name}.json").images}
        for name in ("train", "val", "test")
    }
    assert {name: len(part) for name, part in parts.items()} == {"train": 6, "val": 2, "test": 2}
    assert len(set.union(*parts.values())) == 10


# The table


def test_table_gives_labels_density_and_birads(tmp_path):
    source = archive(
        tmp_path,
        {
            NAME: disc((35, 64), 8),
            "P2_L_DM_CC": None,
            "P3_L_DM_CC": disc((35, 64), 8),
            "P4_L_DM_CC": None,
            "P5_L_DM_CC": None,
        },
    )
    table = write_table(
        tmp_path / "table.csv",
        row(NAME + " ", "Malignant", density="d", birads="2$5$4", findings="mass$ skin", tags="mass"),
        row("P2_L_DM_CC", "Normal", density="_", birads="1"),
        row("P3_L_DM_CC", "Benign"),
        row("P4_L_DM_CC", "Malignant"),
        row("P7_L_DM_CC", "Normal"),
    )
    records, summary = run(source, tmp_path / "out", table=table)
    found = {
        name: (record.labels["tumor"], record.labels["malignant"], record.unlocalized)
        for name, record in records.items()
    }
    assert found == {
        NAME: (1, 1, False),
        "P2_L_DM_CC": (0, 0, False),
        "P3_L_DM_CC": (1, 0, False),
        "P4_L_DM_CC": (1, 1, True),
        "P5_L_DM_CC": (None, None, True),
    }
    first = records[NAME]
    assert (first.density, first.birads, first.class_name) == ("D", "5", "malignant")
    assert first.notes == ("findings: mass$ skin", "tags: mass")
    assert [lesion.attributes["pathology"] for lesion in first.lesions] == ["malignant"]
    assert (records["P2_L_DM_CC"].density, records["P2_L_DM_CC"].has_complete_boxes) == (None, True)
    assert any("1 of 5 images have no pathology in the table" in text for text in summary.warnings)


def test_pathology_of_several_outlines_is_known_only_if_benign(tmp_path):
    two = np.maximum(disc((30, 40), 8), disc((35, 80), 8))
    table = write_table(tmp_path / "table.csv", row(NAME, "Malignant"), row("P2_L_DM_CC", "Benign"))
    records, _ = run(archive(tmp_path, {NAME: two, "P2_L_DM_CC": two}), tmp_path / "out", table=table)
    assert ["pathology" in lesion.attributes for lesion in records[NAME].lesions] == [False, False]
    assert [lesion.attributes["pathology"] for lesion in records["P2_L_DM_CC"].lesions] == ["benign"] * 2


def test_outline_on_a_normal_image_makes_it_unknown(tmp_path):
    table = write_table(tmp_path / "table.csv", row(NAME, "Normal"))
    records, summary = run(archive(tmp_path, {NAME: disc((35, 64), 8)}), tmp_path / "out", table=table)
    assert records[NAME].labels == {"tumor": None, "malignant": None}
    assert [lesion.ignore for lesion in records[NAME].lesions] == [True]
    assert reasons(summary) == [("label", NAME)]


def test_rows_of_one_image_count_as_the_worst(tmp_path):
    path = write_table(
        tmp_path / "table.csv",
        row(NAME, "Benign", birads="2", findings="cyst"),
        row(NAME, "Malignant", birads="5", findings="mass"),
        row("P2_L_DM_CC", "?"),
        row("P2_L_DM_CC", "Normal"),
        {**row("P3_L_DM_CC", "Normal"), "Image_name": "scan 3"},
        row("P4_L_CM_CC", "Benign", density="_"),
        row("P4_L_DM_CC", "Benign", density="B"),
    )
    table = read_table(path)
    first = table.images[ImageName(1, "L", "DM", "CC")]
    assert (first.pathology, first.birads, first.findings) == ("malignant", "5", "cyst$mass")
    assert table.images[ImageName(2, "L", "DM", "CC")].pathology is None
    assert table.densities[(4, "L")] == "B"
    assert reasons(table) == [("row", "table.csv line 4"), ("row", "table.csv line 6")]


def test_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("image,label\nP1_L_DM_CC,Normal\n")
    with pytest.raises(InputError, match="column Image_name and Pathology Classification missing; found image, label"):
        read_table(path)
    with pytest.raises(InputError, match="leave it out"):
        run(tmp_path, tmp_path / "out", table=path, malignant_without_table=True)


def write_xlsx(path: Path, rows: str, shared: str = "") -> Path:
    main_name = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    sheets = '<sheet name="first" r:id="r1"/><sheet name="all" r:id="r2"/>'
    parts = {
        "xl/workbook.xml": f'<workbook {main_name} xmlns:r="{office}"><sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" '
        f'Target="worksheets/a.xml"/><Relationship Id="r2" Target="/xl/worksheets/b.xml"/></Relationships>',
        "xl/sharedStrings.xml": f"<sst {main_name}>{shared}</sst>",
        "xl/worksheets/a.xml": f"<worksheet {main_name}><sheetData/></worksheet>",
        "xl/worksheets/b.xml": f"<worksheet {main_name}><sheetData>{rows}</sheetData></worksheet>",
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return path


def test_xlsx_sheet_all_is_read_with_its_empty_cells(tmp_path):
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="C1" t="s"><v>1</v></c></row><row r="2"/>'
        '<row r="4"><c r="A4" t="inlineStr"><is><t> x </t></is></c><c r="AA4"><v>4</v></c></row>'
    )
    shared = "<si><t>Image_name</t></si><si><r><t>Patho</t></r><r><t>logy</t></r></si>"
    path = write_xlsx(tmp_path / "table.xlsx", rows, shared)
    columns, (line,) = read_sheet(path)
    assert columns == ["Image_name", "", "Pathology"]
    assert line == (4, ["x", *[""] * 25, "4"], "27 cells, the header has 3")


def test_damaged_xlsx_is_named_with_the_way_out(tmp_path):
    path = write_xlsx(tmp_path / "table.xlsx", '<row r="1"><c r="A1" t="s"><v>7</v></c></row>')
    with pytest.raises(InputError, match="save its sheet 'all' as CSV"):
        read_sheet(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="save its sheet 'all' as CSV"):
        read_sheet(path)


# The archive's own outlines


def test_regions_become_outlines_of_their_own(tmp_path):
    source = archive(tmp_path, {NAME: None, "P2_L_DM_CC": None})
    write_regions(
        source / "Radiology_hand_drawn_segmentations_v2.csv",
        (f"{NAME} .jpg", {"name": "polygon", "all_points_x": [20, 40, 40, 20], "all_points_y": [50, 50, 70, 70]}),
        (f"{NAME}.jpg", {"name": "circle", "cx": 30, "cy": 60, "r": 8}),  # overlaps the first
        ("P2_L_DM_CC.jpg", {}),
        ("P1_L_CM_CC.jpg", {"name": "circle", "cx": 30, "cy": 60, "r": 8}),
        ("P8_L_DM_CC.jpg", {"name": "circle", "cx": 30, "cy": 60, "r": 8}),
    )
    records, summary = run(source, tmp_path / "out")
    square, circle = records[NAME].lesions
    assert (square.box_xyxy, square.geometry, rle_area(square.rle)) == ((20, 50, 40, 70), "contour", 400)
    assert (circle.box_xyxy, circle.geometry) == ((22, 52, 38, 68), "circle")
    assert rle_area(circle.rle) == pytest.approx(np.pi * 64, rel=0.05)
    assert records["P2_L_DM_CC"].labels["tumor"] is None
    assert reasons(summary) == [("region", "P8_L_DM_CC")]


def test_shapes_cover_the_right_pixels(tmp_path):
    turned = {"name": "ellipse", "cx": 40, "cy": 60, "rx": 20, "ry": 5, "theta": np.pi / 2}
    path = write_regions(
        tmp_path / "regions.csv",
        (f"{NAME}.jpg", {"name": "ellipse", "cx": 40, "cy": 60, "rx": 20, "ry": 5}),
        (f"{NAME}.jpg", turned),
        (f"{NAME}.jpg", {"name": "rect", "x": 10, "y": 20, "width": 5, "height": 7}),
        (
            f"{NAME}.jpg",
            {"name": "polyline", "all_points_x": [94, 99, 94], "all_points_y": [0, 0, 10]},
        ),  # past the border
    )
    drawn = [draw(region, (HIGH, WIDE)) for region in read_regions(path).by_image[ImageName(1, "L", "DM", "CC")]]
    assert [(item.corner_xy, item.patch.shape) for item in drawn[:3]] == [
        ((20, 55), (10, 40)),
        ((35, 40), (40, 10)),
        ((10, 20), (7, 5)),
    ]
    assert drawn[3].corner_xy[0] + drawn[3].patch.shape[1] == WIDE


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"name": "point", "cx": 5, "cy": 5}, "has no extent"),
        ({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}, "at least 3 points"),
        ({"name": "polygon", "all_points_x": [1, 2, "3"], "all_points_y": [1, 2, 3]}, "without lists of numbers"),
        ({"name": "circle", "cx": 5, "cy": 5, "r": 0}, "expected a number over 0"),
        ({"name": "circle", "cx": 500, "cy": 5, "r": 9}, "spans x 491 to 509, y -4 to 14; the image is 96 wide"),
        ({"name": "circle", "cx": -3, "cy": 5, "r": 1}, "covers no pixel"),
        ("{cut", "Expecting property name"),
        ("[1]", "expected an object"),
    ],
)
def test_region_that_cannot_be_used_leaves_the_image_without_a_place(tmp_path, shape, reason):
    source = archive(tmp_path, {NAME: None, "P2_L_DM_CC": None})
    csv_path = write_regions(tmp_path / "regions.csv", (f"{NAME}.jpg", shape))
    records, summary = run(source, tmp_path / "out", segmentations=csv_path)
    assert (records[NAME].unlocalized, records[NAME].lesions) == (True, ())
    assert reason in summary.quarantine[0].reason


def test_regions_do_not_fit_stretched_copies(tmp_path):
    source = archive(tmp_path, {NAME: None}, (128, 128))
    path = write_regions(tmp_path / "regions.csv", (f"{NAME}.jpg", {"name": "circle", "cx": 30, "cy": 60, "r": 8}))
    with pytest.raises(InputError, match="all images are 128x128: a stretched copy"):
        run(source, tmp_path / "out", segmentations=path)


def test_other_csv_and_two_csvs_are_refused(tmp_path):
    source = archive(tmp_path, {NAME: None})
    table = write_table(tmp_path / "table.csv", row(NAME, "Normal"))
    with pytest.raises(InputError, match="column filename and region_shape_attributes missing"):
        run(source, tmp_path / "out", segmentations=table)
    for name in ("Radiology_hand_drawn_segmentations.csv", "Radiology_hand_drawn_segmentations_v2.csv"):
        write_regions(source / name)
    with pytest.raises(InputError, match="name one by --segmentations"):
        run(source, tmp_path / "out")


# The tool


def test_tool_converts_through_links(tmp_path, capsys):
    source = archive(tmp_path, {NAME: disc((35, 64), 8), "P2_R_DM_MLO": band()})
    linked = tmp_path / "linked"
    linked.mkdir()
    os.symlink(source / "images", linked / "images")
    os.symlink(source / "masks", linked / "masks")
    arguments = ["--source", str(linked), "--output", str(tmp_path / "out"), "--mass-rule", "min_solidity=0.8"]
    assert main(["cdd_cesm", *arguments, "--test-fraction", "0", "--val-fraction", "0.5"]) == 0
    assert "by shape               mass 1, spread 0, band 1, small 0" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["archive"], summary["counts"]["patients"]) == ("CDD-CESM", 2)


def test_folder_without_the_archive_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"no images like P105_L_DM_MLO.jpg; expected the archive's folders. Found: an"
    ):
        run(tmp_path / "empty", tmp_path / "out")


@pytest.mark.skipif("MAMMODET_CESM" not in os.environ, reason="MAMMODET_CESM names no copy with masks")
def test_real_copy_has_the_known_counts(tmp_path):
    records, summary = run(Path(os.environ["MAMMODET_CESM"]), tmp_path / "out")
    assert (len(records), summary.counts["patients"], summary.quarantine) == (210, 119, [])
    assert (summary.counts["outlines"], summary.counts["specks dropped"]) == (526, 39)
    assert (summary.counts["lesions"], summary.counts["images with lesions"]) == (183, 115)
