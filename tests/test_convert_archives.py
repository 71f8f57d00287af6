"""INbreast, VinDr-Mammo and CMMD from phantoms with the quirks of the real archives; answers by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from mammodet.converters import cmmd, ddsm, dmid, embed, inbreast, kau_bcmd, vindr
from mammodet.converters.base import SplitOptions
from mammodet.converters.ddsm import read_overlay
from mammodet.converters.findings import FindingOptions, ImageOptions
from mammodet.converters.inbreast import group, read_findings
from mammodet.converters.pixels import PixelOptions
from mammodet.converters.tables import birads_of, density_of, read_table
from small_archives import (
    HIGH,
    WIDE,
    abnormality,
    breast,
    roi,
    square,
    vindr_row,
    write_cmmd,
    write_csv,
    write_ddsm_case,
    write_dmid,
    write_embed,
    write_inbreast,
    write_vindr,
    write_xlsx,
)

from mammodet.commands.convert import main
from mammodet.data.coco import read_coco
from mammodet.errors import InputError
from mammodet.geometry import rle_area, rle_box, rle_to_mask
from mammodet.outlines import clip, polygon, to_rle
from mammodet.trace import Trace

NO_SPLIT = SplitOptions(0, 0, 0)


def run(archive: Any, source: Path, output: Path, options: Any = ImageOptions, **chosen: Any) -> tuple[Any, Any]:
    """Convert into `train.json`; the summary, and records by the stem of their files."""
    given = {"splits": NO_SPLIT, "jobs": 1, "progress": False} | chosen
    summary = archive.ARCHIVE.convert(source, output, options(**given))
    found = [
        record
        for name in ("train", "test")
        if (output / f"{name}.json").is_file()
        for record in read_coco(output / f"{name}.json").images
    ]
    return summary, {Path(record.file_name).stem: record for record in found}


def lost(summary: Any) -> list[tuple[str, str, str]]:
    return [(item.kind.value, item.what, item.name) for item in summary.quarantine]


# Shared parts


@pytest.mark.parametrize(
    ("text", "density", "birads"),
    [
        ("DENSITY C", "C", None),
        ("3", "C", "3"),
        ("1.0", "A", "1"),
        ("BI-RADS 4", None, "4"),
        ("4A", None, "4a"),
        ("bi-rads 0", None, "0"),
        ("d", "D", None),
        ("7", None, None),
        ("", None, None),
    ],
)
def test_words_of_archives_become_one_vocabulary(text, density, birads):
    assert (density_of(text), birads_of(text)) == (density, birads)


def test_table_is_read_by_columns_whatever_their_spelling(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffBi-Rads ;FILE name;x\r\n 4a; 12 ;\r\n;;\r\nNaN;13;1\r\n".encode())
    assert [(line.number, row) for line, row in read_table(path, ("File Name", "bi_rads"), ("age",))] == [
        (2, {"age": "", "File Name": "12", "bi_rads": "4a"}),
        (4, {"age": "", "File Name": "13", "bi_rads": ""}),
    ]
    with pytest.raises(InputError, match="column study_id missing"):
        list(read_table(path, ("study_id",)))


def test_outline_has_the_pixels_whose_centres_it_holds():
    rle = to_rle(polygon([(2, 3), (6, 3), (6, 5), (2, 5)]), (10, 12))
    assert (rle_box(rle), rle_area(rle)) == ((2, 3, 6, 5), 8)
    hole = shapely.Polygon([(0, 0), (8, 0), (8, 8), (0, 8)], [[(2, 2), (6, 2), (6, 6), (2, 6)]])
    assert rle_area(to_rle(hole, (10, 12))) == 64 - 16
    speck = to_rle(polygon([(4.6, 4.6), (4.8, 4.6), (4.8, 4.9)]), (10, 12))
    assert np.argwhere(rle_to_mask(speck)).tolist() == [[4, 4]]


def test_outline_that_crosses_itself_is_the_areas_that_it_encloses():
    bow = polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    assert bow.area == pytest.approx(8)
    inside, cut = clip(bow, (10, 2))
    assert (inside.area, cut) == (pytest.approx(4), True)
    with pytest.raises(ValueError, match="no area"):
        polygon([(0, 0), (1, 1), (2, 2)])
    with pytest.raises(ValueError, match="spans x 20 to 24"):
        clip(polygon([(20, 0), (24, 0), (24, 4)]), (10, 10))


# INbreast


IN = [
    (
        "20586908",
        "6c613a14b80a8591",
        "R_CC",
        [roi("Mass", *square(10, 30, 20)), roi("Calcification", (50, 60))],
        "3",
        "5",
    ),
    ("20586934", "6c613a14b80a8591", "R_MLO", roi("Espiculated Region", *square(20, 40, 10)), "3", "5"),
    ("22427682", "d571b5880ad2a016", "L_CC", None, "", "1"),
    ("22427705", "d571b5880ad2a016", "L_MLO", None, "2", "2"),
    ("24055355", "1e10aef17c9fe149", "L_MLO", [roi("Mass", (10, 20), (12, 22))], "1", "4b"),
    ("24055445", "1e10aef17c9fe149", "R_CC", [roi("Assymetry", *square(60, 30, 40))], "1", "6"),
]


def test_inbreast_says_patient_side_view_and_labels(tmp_path):
    summary, records = run(inbreast, write_inbreast(tmp_path / "in", IN), tmp_path / "out", FindingOptions)
    found = {
        name: (record.patient_id, record.laterality, record.view, record.density, record.birads, record.labels)
        for name, record in records.items()
    }
    assert {name: facts[:5] for name, facts in found.items()} == {
        "20586908_6c613a14b80a8591_MG_R_CC_ANON": ("inbreast_6c613a14b80a8591", "R", "CC", "C", "5"),
        "20586934_6c613a14b80a8591_MG_R_ML_ANON": ("inbreast_6c613a14b80a8591", "R", "MLO", "C", "5"),
        "22427682_d571b5880ad2a016_MG_L_CC_ANON": ("inbreast_d571b5880ad2a016", "L", "CC", None, "1"),
        "22427705_d571b5880ad2a016_MG_L_ML_ANON": ("inbreast_d571b5880ad2a016", "L", "MLO", "B", "2"),
        "24055355_1e10aef17c9fe149_MG_L_ML_ANON": ("inbreast_1e10aef17c9fe149", "L", "MLO", "A", "4b"),
        "24055445_1e10aef17c9fe149_MG_R_CC_ANON": ("inbreast_1e10aef17c9fe149", "R", "CC", "A", "6"),
    }
    assert [tuple(facts[5].values()) for _, facts in sorted(found.items())] == [
        (1, None),  # a mass
        (1, None),  # a spiculated region without a mass
        (0, 0),  # BI-RADS 1 and nothing outlined
        (None, None),  # a benign finding that nobody outlined
        (None, None),  # a mass of two points
        (None, 1),  # an asymmetry is no mass; BI-RADS 6 means a biopsy
    ]
    assert [record.unlocalized for _, record in sorted(records.items())] == [False, False, False, True, True, False]
    assert lost(summary) == [("no_place", "finding", "24055355 (ROI 1 'Mass')")]
    assert (summary.counts["patients"], summary.counts["cut at the border"]) == (3, 1)


def test_inbreast_outlines_become_masks_and_regions_to_ignore(tmp_path):
    _, records = run(inbreast, write_inbreast(tmp_path / "in", IN), tmp_path / "out", FindingOptions)
    mass, spot = records["20586908_6c613a14b80a8591_MG_R_CC_ANON"].lesions
    assert (mass.category, mass.box_xyxy, mass.geometry, mass.ignore) == ("mass", (10, 30, 30, 50), "contour", False)
    assert rle_area(mass.rle) == 400
    margin = 1 / 0.07
    assert (spot.ignore, spot.geometry) == (True, "box")
    assert spot.box_xyxy == pytest.approx((50 - margin, 60 - margin, 50 + margin, 60 + margin), abs=0.01)
    (region,) = records["20586934_6c613a14b80a8591_MG_R_ML_ANON"].lesions
    assert (region.attributes["name"], region.ignore) == ("Espiculated Region", False)
    (asymmetry,) = records["24055445_1e10aef17c9fe149_MG_R_CC_ANON"].lesions
    assert (asymmetry.box_xyxy, asymmetry.ignore) == ((60, 30, 80, 70), True)  # cut at the image's right border


def test_inbreast_calcifications_are_joined_by_their_distance():
    near = [shapely.Point(100 + 100 * number, 500) for number in range(5)]  # 7 mm apart
    far = [shapely.Point(3000, 3000)]
    cluster, alone = sorted(group([*near, *far], []), key=lambda finding: finding.kind)
    assert (cluster.kind, cluster.attributes["calcifications"]) == ("calcification", 5)
    assert np.allclose(cluster.points_xy, [(100 - 1 / 0.07, 500 - 1 / 0.07), (500 + 1 / 0.07, 500 + 1 / 0.07)])
    assert (alone.kind, alone.attributes["calcifications"]) == ("other", 1)
    outlined = cluster.__class__("calcification", "contour", square(0, 0, 4000), "ROI", {"name": "Cluster"})
    assert group([*near, *far], [outlined]) == []


@pytest.mark.parametrize(
    ("rois", "kinds"),
    [
        ([roi("Spiculated region", *square(5, 5, 60)), roi("Mass", *square(20, 20, 20))], ["mass"]),
        ([roi("Calcifications", *square(5, 5, 60)), roi("Calcification", (10, 10))], ["calcification"]),
        ([roi("Pectoral Muscle", *square(0, 0, 20))], []),
        ([roi(None, (3, 4)), roi("Point 3", (5, 4))], ["other"]),
        (
            [roi("Unnamed", *square(5, 5, 9)), roi("Distortion", *square(5, 5, 9))],
            ["other", "architectural_distortion"],
        ),
        ([], []),
    ],
)
def test_inbreast_names_of_rois(tmp_path, rois, kinds):
    write_inbreast(tmp_path, [("1", "a", "L_CC", rois, "1", "3")])
    findings, faults = read_findings(tmp_path / "AllXML" / "1.xml")
    assert ([finding.kind for finding in findings], faults) == (kinds, [])
    if len(rois) == 2 and rois[1].get("Name") == "Mass":
        assert findings[0].attributes == {"name": "Mass", "spiculated": True}


def test_inbreast_parts_that_cannot_be_used_are_listed(tmp_path):
    source = write_inbreast(tmp_path / "in", IN)
    (source / "AllXML" / "20586908.xml").write_text("<plist><dict>")
    (source / "AllXML" / "99999999.xml").write_text("<plist/>")
    next(source.glob("AllDICOMs/22427682*")).unlink()
    next(source.glob("AllDICOMs/22427705*")).rename(source / "AllDICOMs" / "mine.dcm")
    summary, records = run(inbreast, source, tmp_path / "out", FindingOptions, categories="lesion")
    assert sorted(lost(summary)) == [
        ("bad_name", "image", "mine"),
        ("no_file", "image", "22427682"),
        ("no_file", "image", "22427705"),
        ("no_file", "outlines", "99999999.xml"),
        ("no_place", "finding", "24055355 (ROI 1 'Mass')"),
        ("unreadable", "outlines", "20586908"),
    ]
    broken = records["20586908_6c613a14b80a8591_MG_R_CC_ANON"]
    assert (broken.labels["tumor"], broken.unlocalized, broken.lesions) == (None, True, ())
    (asymmetry,) = records["24055445_1e10aef17c9fe149_MG_R_CC_ANON"].lesions
    assert (asymmetry.category, asymmetry.ignore) == ("lesion", False)


def test_inbreast_table_of_old_excel_is_named(tmp_path):
    source = write_inbreast(tmp_path / "in", IN[:1])
    (source / "INbreast.csv").rename(source / "INbreast.xls")
    with pytest.raises(InputError, match=r"INbreast.xls: save its sheet as INbreast.csv"):
        run(inbreast, source, tmp_path / "out", FindingOptions)


def test_reduced_and_cropped_png_keep_lesions_in_place(tmp_path):
    source = write_inbreast(tmp_path / "in", IN)
    pixels = PixelOptions("png16", 60, True)
    _, records = run(inbreast, source, tmp_path / "out", FindingOptions, pixels=pixels)
    record = records["20586908"]
    trace = Trace.from_json(record.trace)
    assert max(record.size_hw) == 60
    assert {step.name for step in trace.steps} == {"crop", "resize"}
    (expected,) = trace.boxes_forward([(10, 30, 30, 50)]).tolist()
    assert record.lesions[0].box_xyxy == pytest.approx(expected, abs=0.5)


def test_stopped_conversion_goes_on_from_its_journal(tmp_path, monkeypatch):
    source, output = write_inbreast(tmp_path / "in", IN), tmp_path / "out"
    _, first = run(inbreast, source, output, FindingOptions)

    def never(*_: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr("mammodet.converters.findings.convert_row", never)
    assert run(inbreast, source, output, FindingOptions)[1] == first


# VinDr-Mammo


VINDR = [
    vindr_row("e1", "a", "['Mass', 'Nipple Retraction']", (10.5, 20, 30, 50.25), breast_birads="BI-RADS 4"),
    vindr_row("e1", "a", "['Suspicious Calcification']", (70, 100, 95, 130), breast_birads="BI-RADS 4"),
    vindr_row("e1", "b", "['No Finding']", breast_birads="BI-RADS 4", view_position="MLO"),
    vindr_row("e1", "c", "['No Finding']", breast_birads="BI-RADS 2", laterality="R"),
    vindr_row("e2", "d", "['Skin Thickening']", (10, 20, 30, 50), breast_birads="BI-RADS 3", split="test"),
    vindr_row("e2", "e", "['No Finding']", split="test", breast_density="DENSITY A"),
    vindr_row("e3", "f", "['Mass']", (30, 20, 10, 50), breast_birads="BI-RADS 5"),
    vindr_row("e4", "g", "['Mass']", (85, 20, 95, 50), breast_birads="BI-RADS 5"),
]


def test_vindr_rows_become_boxes_labels_and_the_official_split(tmp_path):
    summary, records = run(vindr, write_vindr(tmp_path / "in", VINDR), tmp_path / "out", vindr.VinDrOptions)
    mass, calcification = records["a"].lesions
    assert (mass.box_xyxy, mass.geometry, mass.rle, mass.ignore) == ((10.5, 20, 30, 50.25), "box", None, False)
    assert mass.attributes["categories"] == ["Mass", "Nipple Retraction"]
    assert mass.attributes["birads"] == "4"
    assert (calcification.box_xyxy, calcification.ignore) == ((70, 100, WIDE, HIGH), True)
    labels = {name: (record.label("tumor"), record.unlocalized) for name, record in records.items()}
    assert labels == {
        "a": (1, False),
        "b": (None, True),  # the breast has a finding, which is marked on another view only
        "c": (0, False),
        "d": (None, False),
        "e": (0, False),
        "f": (None, True),  # its box is inside out
        "g": (1, True),  # its box lies outside the image
    }
    assert {record.label("malignant") for record in records.values()} == {None}
    assert {name: record.split for name, record in records.items() if record.split == "test"} == {
        "d": "test",
        "e": "test",
    }
    assert (records["a"].patient_id, records["a"].density, records["a"].birads) == ("vindr_e1", "C", "4")
    assert lost(summary) == [("no_place", "finding", "f"), ("no_place", "finding", "g (85, 20, 95, 50)")]
    counts = summary.counts
    assert (counts["rows"], counts["boxes"], counts["boxes with several categories"]) == (8, 5, 1)
    assert counts["cut at the border"] == 1
    assert counts["categories"] == {
        "Mass": 3,
        "Nipple Retraction": 1,
        "Skin Thickening": 1,
        "Suspicious Calcification": 1,
    }


def test_vindr_boxes_do_not_fit_resized_copies(tmp_path):
    rows = [vindr_row("e1", "a", "['Mass']", (10, 20, 30, 50), height="3518", width="2800")]
    summary, records = run(vindr, write_vindr(tmp_path / "in", rows), tmp_path / "out", vindr.VinDrOptions)
    assert lost(summary) == [("other_size", "finding", "a (10, 20, 30, 50)")]
    assert (records["a"].lesions, records["a"].unlocalized, records["a"].label("tumor")) == ((), True, 1)


def test_vindr_findings_can_be_categories(tmp_path):
    source = write_vindr(tmp_path / "in", VINDR)
    _, records = run(vindr, source, tmp_path / "out", vindr.VinDrOptions, categories="finding")
    assert [lesion.category for lesion in records["a"].lesions] == ["mass", "calcification"]
    assert [lesion.ignore for lesion in records["d"].lesions] == [True]
    assert json.loads((tmp_path / "out/train.json").read_text())["categories"][2]["name"] == "architectural_distortion"


def test_vindr_header_that_contradicts_its_row_is_reported(tmp_path):
    rows = [vindr_row("e1", "a", "['No Finding']"), vindr_row("e1", "b", "['No Finding']")]
    source = write_vindr(tmp_path / "in", rows)
    for name in ("breast-level", "finding"):
        write_csv(source / f"{name}_annotations.csv", [row | {"laterality": "R"} for row in rows])
    summary, records = run(vindr, source, tmp_path / "out", vindr.VinDrOptions)
    assert {record.laterality for record in records.values()} == {"R"}
    assert any(warning.startswith("2 headers contradict the laterality") for warning in summary.warnings)


def test_vindr_counts_of_a_table_of_the_real_size(tmp_path):
    """5000 exams of four images; 1768 images with 2254 boxes, 174 of several categories."""
    rows = []
    for number in range(20000):
        exam = number // 4
        (tmp_path / "in" / f"{number}.dicom").parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dicom").touch()
        subset = "training" if exam < 4000 else "test"
        for _ in range(0 if number >= 1768 else 1 + (number < 486)):
            names = "['Mass', 'Skin Thickening']" if len(rows) < 174 else "['Mass']"
            rows.append(vindr_row(str(exam), str(number), names, (10, 20, 30, 40), split=subset))
        if number >= 1768:
            rows.append(vindr_row(str(exam), str(number), "['No Finding']", split=subset))
    write_csv(tmp_path / "in/finding_annotations.csv", rows)
    archive = vindr.VinDr(tmp_path / "in", tmp_path / "out", vindr.VinDrOptions())
    archive.find()
    assert archive.facts == {
        "rows": 20486,
        "boxes": 2254,
        "boxes with several categories": 174,
        "categories": {"Mass": 2254, "Skin Thickening": 174},
    }
    assert len(archive.images) == 20000
    assert sum(subset == "test" for subset in archive.given().values()) == 1000


# CMMD


def test_cmmd_labels_follow_the_rows_of_the_breast(tmp_path):
    images = [("D1-0001", "L", "CC"), ("D1-0001", "R", "MLO"), ("D2-0500", "R", "CC"), ("D2-0501", "L", "CC")]
    rows = [
        ("D1-0001", "L", "44", "calcification", "Benign", ""),
        ("D2-0500", "R", "51", "both", "Benign", ""),
        ("D2-0500", "R", "51", "mass", "Malignant", "Luminal A"),
        ("D2-0501", "L", "60", "mass", "?", ""),
        ("D2-0999", "L", "60", "mass", "Benign", ""),
    ]
    summary, _ = run(cmmd, write_cmmd(tmp_path / "in", images, rows), tmp_path / "out")
    found = read_coco(tmp_path / "out/train.json").images
    assert [(record.patient_id, record.laterality, record.view, *record.labels.values()) for record in found] == [
        ("cmmd_D1-0001", "L", "CC", 1, 0),
        ("cmmd_D1-0001", "R", "MLO", None, None),  # a breast that is not listed is not known
        ("cmmd_D2-0500", "R", "CC", 1, 1),
        ("cmmd_D2-0501", "L", "CC", None, None),
    ]
    assert all(record.unlocalized and not record.lesions for record in found)
    assert found[2].notes == ("age 51", "abnormality both, mass", "subtype Luminal A")
    assert [record.class_name for record in found] == ["benign", None, "malignant", None]
    assert sorted(lost(summary)) == [
        ("bad_row", "row", "CMMD_clinicaldata_revision.xlsx line 5"),
        ("no_file", "breast", "D2-0999 L"),
    ]
    assert (summary.counts["patients"], summary.counts["breasts without a row"]) == (3, 2)


@pytest.mark.parametrize(("side", "labels"), [("L", [(1, None), (1, 0)]), ("?", [(1, None), (1, None)])])
def test_cmmd_row_that_cannot_be_read_leaves_no_breast_benign(tmp_path, side, labels):
    rows = [("D1-0001", place, "44", "mass", "Benign", "") for place in "LR"]
    rows.append(("D1-0001", side, "44", "mass", "Malignnt" if side == "L" else "Malignant", ""))
    images = [("D1-0001", "L", "CC"), ("D1-0001", "R", "CC")]
    run(cmmd, write_cmmd(tmp_path / "in", images, rows), tmp_path / "out")
    found = read_coco(tmp_path / "out/train.json").images
    assert [tuple(record.labels.values()) for record in found] == labels
    assert [record.class_name for record in found] == [None if label is None else "benign" for _, label in labels]


# DMID


def disc(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[0.5:HIGH, 0.5:WIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


DMID = [
    "Reference  tissue  class",
    "IMG001  G  MISC  M  20  40  9",
    "IMG002\tF\tNORM",
    "IMG003  D  CALC  B  30  50  -",
    "IMG004  -  CIRC  B  25  30  6",
    "IMG004  -  CALC  M  25  80  6",
    "IMG005  G  NORM",
    "IMG006  G  CIRC  X  1 2 3",
    "IMG009  G  CIRC  B  1 2 3",
]
MASKS = {"IMG001": disc(20, 40, 9), "IMG004": disc(25, 30, 6) | disc(25, 80, 6), "IMG005": disc(30, 60, 8)}


def test_dmid_masks_lines_and_labels(tmp_path):
    source = write_dmid(tmp_path / "in", DMID, MASKS, images=7)
    summary, records = run(dmid, source, tmp_path / "out", dmid.DmidOptions)
    labels = {name: (*record.labels.values(), record.unlocalized) for name, record in records.items()}
    assert labels == {
        "IMG001": (1, 1, False),
        "IMG002": (0, 0, False),
        "IMG003": (None, 0, True),  # a calcification without a radius
        "IMG004": (1, 1, False),
        "IMG005": (None, None, True),  # normal, but its mask outlines something
        "IMG006": (None, None, True),  # its line cannot be read
    }
    (mass,) = records["IMG001"].lesions
    assert rle_to_mask(mass.rle).tolist() == MASKS["IMG001"].tolist()
    assert (mass.category, mass.geometry, mass.attributes["pathology"]) == ("mass", "contour", "malignant")
    assert [lesion.ignore for lesion in records["IMG004"].lesions] == [True, True]  # which is which, nothing says
    assert {name: record.density for name, record in records.items()} == dict(
        zip(records, ["G", "F", "D", None, "G", None], strict=True)
    )
    assert sorted(lost(summary)) == [
        ("bad_row", "line", "Info.txt line 8"),
        ("contradiction", "mask", "IMG005"),
        ("no_file", "image", "img009"),
        ("no_place", "circle", "IMG003 CALC (30.0, 50.0) radius None"),
        ("no_row", "image", "img007"),
    ]
    assert summary.checks["circles on masks"] == {"of": 3, "origin top": 3, "origin bottom": 0}


def test_dmid_origin_places_circles_and_tells_components_apart(tmp_path):
    lines = [*DMID[:6], "IMG005 G SPIC M 25 30 6.2"]
    masks = {"IMG004": MASKS["IMG004"]}
    source = write_dmid(tmp_path / "in", lines, masks, images=5)
    _, records = run(dmid, source, tmp_path / "top", dmid.DmidOptions, origin="top")
    assert [(lesion.ignore, lesion.attributes["pathology"]) for lesion in records["IMG004"].lesions] == [
        (False, "benign"),
        (True, "malignant"),
    ]
    (circle,) = records["IMG005"].lesions
    assert (circle.geometry, circle.box_xyxy) == ("circle", (19, 24, 32, 37))  # centre (25.5, 30.5), radius 6.2
    _, records = run(dmid, source, tmp_path / "bottom", dmid.DmidOptions, origin="bottom")
    assert records["IMG005"].lesions[0].box_xyxy == (19, 83, 32, 96)  # centre (25.5, 120 - 30.5)


# EMBED


def test_embed_boxes_and_labels_by_exam_and_side(tmp_path):
    files = [
        {
            "anon_dicom_path": "/mnt/NAS2/x/cohort_1/1/2/a.dcm",
            "empi_anon": 7,
            "acc_anon": "11.0",
            "num_roi": 1,
            "ROI_coords": "((30, 10, 50, 40),)",
        },
        {"anon_dicom_path": "/mnt/b.dcm", "empi_anon": 7, "acc_anon": 11, "ImageLateralityFinal": "R"},
        {
            "anon_dicom_path": "/mnt/c.dcm",
            "empi_anon": 8,
            "acc_anon": 12,
            "num_roi": 2,
            "ROI_coords": "[[100, 60, 140, 90]]",
        },
        {"anon_dicom_path": "/mnt/d.dcm", "empi_anon": 8, "acc_anon": 12, "FinalImageType": "C-View"},
        {"anon_dicom_path": "/mnt/e.dcm", "empi_anon": 8, "acc_anon": 12, "spot_mag": "1.0"},
        {"anon_dicom_path": "/mnt/f.dcm", "empi_anon": 9, "acc_anon": 13},
    ]
    findings = [
        {
            "acc_anon": 11,
            "side": "L",
            "asses": "S",
            "tissueden": "3.0",
            "massshape": "O",
            "path_severity": "0.0",
            "bside": "L",
        },
        {"acc_anon": 11, "side": "R", "asses": "N", "tissueden": "3.0"},
        {"acc_anon": 12, "side": "B", "asses": "A", "tissueden": "1", "massshape": "T", "calcfind": "A"},
        {"acc_anon": 12, "side": "R", "asses": "K", "path_severity": "1", "bside": "R"},
    ]
    summary, records = run(embed, write_embed(tmp_path / "in", files, findings), tmp_path / "out", embed.EmbedOptions)
    found = {
        name: (record.patient_id, record.birads, record.density, *record.labels.values(), record.unlocalized)
        for name, record in records.items()
    }
    assert found == {
        "a": ("embed_7", "4", "C", 1, 1, False),
        "b": ("embed_7", "1", "C", 0, None, False),
        "c": ("embed_8", "0", "A", None, None, True),  # one of its two boxes is missing
        "f": ("embed_9", None, None, None, None, True),  # an exam without findings' rows is not known
    }
    (mass,) = records["a"].lesions
    assert (mass.category, mass.box_xyxy, mass.ignore) == (
        "mass",
        (10, 30, 40, 50),
        False,
    )  # y1, x1, y2, x2 in the table
    (other,) = records["c"].lesions
    assert (other.box_xyxy, other.ignore, other.attributes["abnormality"]) == ((60, 100, 80, 120), True, "other")
    assert lost(summary) == [("no_place", "finding", "c")]
    counts = {"rows": 6, "of another type": 1, "spot compression, magnification": 1}
    assert summary.counts["rows of files"] == counts


# KAU-BCMD


def test_kau_bcmd_says_birads_by_folder_and_density_by_table(tmp_path):
    source = tmp_path / "in"
    for name in (
        "BIRAD1/b1/2018_BC001_CC_L.jpg",
        "Birad4/b4/2018_BC001_MLO_L .jpg",
        "Birad4/b4/2018_BC002_CC_R.jpg",
        "Birad5/Birad5/2018_BC002_CC_R.jpg",
        "Birad3/b3/scan7.jpg",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        grey = (breast() // 16).astype(np.uint8)
        (source / name).write_bytes(cv2.imencode(".jpg", grey)[1].tobytes())
    density = "Percentage of\n grandular tissue(density)"
    write_xlsx(source / "correctSheetlast.xlsx", [{"Image path": r"D:\x\2018_BC001_CC_L.jpg", density: "26%-50%"}])
    summary, records = run(kau_bcmd, source, tmp_path / "out")
    found = {
        name: (
            record.patient_id,
            record.laterality,
            record.view,
            record.birads,
            record.density,
            *record.labels.values(),
        )
        for name, record in records.items()
    }
    assert found == {
        "2018_BC001_CC_L": ("kau_2018_BC001", "L", "CC", "1", "B", 0, 0),
        "2018_BC001_MLO_L ": ("kau_2018_BC001", "L", "MLO", "4", None, None, None),
        "2018_BC002_CC_R": ("kau_2018_BC002", "R", "CC", "5", None, None, None),
    }
    assert sorted(lost(summary)) == [
        ("bad_name", "image", "Birad3/b3/scan7.jpg"),
        ("contradiction", "copy", "Birad4/b4/2018_BC002_CC_R.jpg"),
    ]


# DDSM


def test_ddsm_chain_codes_become_outlines(tmp_path):
    mass = abnormality(1, "MASS SHAPE IRREGULAR MARGINS SPICULATED", "MALIGNANT", 10, 30, 19)
    spots = abnormality(2, "CALCIFICATION TYPE PLEOMORPHIC DISTRIBUTION CLUSTERED", "BENIGN", 5, 70, 4)
    source = tmp_path / "in"
    overlays = {"LEFT_CC": "TOTAL_ABNORMALITIES 2\n" + mass + spots, "RIGHT_CC": "TOTAL_ABNORMALITIES 2\n" + mass}
    write_ddsm_case(source / "cancers/cancer_01/case1141", "A_1141_1", overlays, missing="RIGHT_MLO")
    write_ddsm_case(source / "normals/normal_01/case0002", "B_0002_1", {})
    (source / "normals" / "C_0003_1.LEFT_CC.LJPEG").write_bytes(b"x")
    summary, records = run(ddsm, source, tmp_path / "out", FindingOptions)
    found, ignored = records["A_1141_1.LEFT_CC"].lesions
    # 20 x 20 pixels with the outer ones, which the code walks on
    assert (found.box_xyxy, rle_area(found.rle), found.geometry) == ((10, 30, 30, 50), 400, "contour")
    assert (found.attributes["pathology"], found.ignore, ignored.ignore) == ("malignant", False, True)
    labels = {name: (*record.labels.values(), record.unlocalized) for name, record in records.items()}
    assert labels == {
        "A_1141_1.LEFT_CC": (1, 1, False),
        "A_1141_1.LEFT_MLO": (None, None, True),  # nothing is marked on a view of a case with cancer
        "A_1141_1.RIGHT_CC": (None, None, True),  # two abnormalities are announced, one is there
        "A_1141_1.RIGHT_MLO": (None, None, True),  # its overlay is missing
        **{f"B_0002_1.{place}": (0, 0, False) for place in ("LEFT_CC", "LEFT_MLO", "RIGHT_CC", "RIGHT_MLO")},
    }
    assert sorted(lost(summary)) == [
        ("no_file", "overlay", "A_1141_1.RIGHT_MLO"),
        ("unreadable", "image", "c_0003_1.left_cc.ljpeg"),
        ("unreadable", "overlay", "A_1141_1.RIGHT_CC"),
    ]
    record = records["B_0002_1.RIGHT_MLO"]
    assert (record.patient_id, record.laterality, record.view, record.density) == ("ddsm_B_0002_1", "R", "MLO", "C")
    assert record.notes == ("age 60", "digitizer LUMISYS LASER")


def test_ddsm_folder_above_the_source_makes_no_film_normal(tmp_path):
    source = tmp_path / "normal_controls" / "DDSM"
    write_ddsm_case(source / "cancers/cancer_01", "A_1141_1", {})
    _, records = run(ddsm, source, tmp_path / "out", FindingOptions)
    assert {*(tuple(record.labels.values()) for record in records.values())} == {(None, None)}


@pytest.mark.parametrize(
    ("old", "new"), [(" #\n\tCORE", "\n\tCORE"), ("10 30", f"10 {'3' * 400}"), (" 2 2 2", " 2 -1 2")]
)
def test_ddsm_damaged_boundary_is_refused(tmp_path, old, new):
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, "MASS SHAPE OVAL MARGINS N/A", "BENIGN", 10, 30, 4)
    write_ddsm_case(tmp_path / "in/c", "A_1141_1", {"LEFT_CC": text.replace(old, new, 1)})
    summary, records = run(ddsm, tmp_path / "in", tmp_path / "out", FindingOptions)
    assert lost(summary) == [("unreadable", "overlay", "A_1141_1.LEFT_CC")]
    assert (records["A_1141_1.LEFT_CC"].lesions, records["A_1141_1.LEFT_CC"].unlocalized) == ((), True)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("ARCHITECTURAL_DISTORTION", "architectural_distortion"),
        ("FOCAL_ASYMMETRIC_DENSITY", "asymmetry"),
        ("LYMPH_NODE", "other"),
        ("IRREGULAR-ARCHITECTURAL_DISTORTION", "mass"),
        ("N/A", "mass"),
    ],
)
def test_ddsm_shapes_say_what_is_no_mass(tmp_path, shape, kind):
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, f"MASS SHAPE {shape} MARGINS N/A", "UNPROVEN", 3, 4, 2)
    (tmp_path / "a.OVERLAY").write_text(text)
    ((finding,), (fact,)) = read_overlay(tmp_path / "a.OVERLAY")
    assert (finding.kind, fact["pathology"]) == (kind, None)


@pytest.mark.parametrize("archive", ["inbreast", "vindr", "cmmd", "dmid", "embed"])
def test_folder_without_the_archive_is_named(tmp_path, archive):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected the unpacked archive\. Found: an empty folder"):
        main([archive, "--source", str(tmp_path / "empty"), "--output", str(tmp_path / "out")])


def test_tool_converts_with_flags(tmp_path, capsys):
    source = write_vindr(tmp_path / "in", VINDR)
    flags = ["--categories", "lesion", "--format", "png16", "--max-size", "64", "--val-fraction", "0"]
    assert main(["vindr", "--source", str(source), "--output", str(tmp_path / "out"), *flags]) == 0
    assert "VinDr-Mammo" in capsys.readouterr().out
    assert (tmp_path / "out/images/a.png").is_file()
