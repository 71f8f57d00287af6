"""What archives share, INbreast and VinDr-Mammo from phantoms with the quirks of the real archives; answers by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import shapely
from small_archives import HIGH, WIDE, lost, roi, run, square, vindr_row, write_csv, write_inbreast, write_vindr

from mammodet.commands.convert import main
from mammodet.converters import inbreast, vindr
from mammodet.converters.findings import FindingOptions
from mammodet.converters.inbreast import group, read_findings
from mammodet.converters.pixels import PixelOptions
from mammodet.converters.tables import birads_of, density_of, read_table
from mammodet.errors import InputError
from mammodet.geometry import rle_area, rle_box, rle_to_mask
from mammodet.outlines import clip, polygon, to_rle
from mammodet.trace import Trace

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


def test_inbreast_counts_of_an_archive_of_the_real_size(tmp_path):
    """410 images of 115 patients, whom the second part of a file's name tells apart; one density is blank."""
    images = [
        (str(20586908 + number), f"{number % 115:016x}", "L_CC", None, "2" if number else "", "1")
        for number in range(410)
    ]
    summary, _ = run(inbreast, write_inbreast(tmp_path / "in", images), tmp_path / "out", FindingOptions)
    assert (summary.counts["images"], summary.counts["patients"]) == (410, 115)
    assert summary.counts["density"] == {"B": 409, "unknown": 1}


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
    (source / "INbreast.csv").unlink()
    (source / "INbreast.xls").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
    with pytest.raises(InputError, match=r"INbreast\.xls: is an old .* save it as CSV or XLSX"):
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
