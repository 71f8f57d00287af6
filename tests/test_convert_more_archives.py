"""CMMD, DMID, EMBED and KAU-BCMD from phantoms with the quirks of the real archives; answers by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_archives import HIGH, WIDE, breast, lost, run, write_cmmd, write_dmid, write_embed, write_xlsx

from mammodet.converters import cmmd, dmid, embed, kau_bcmd
from mammodet.data.coco import read_coco
from mammodet.geometry import rle_to_mask

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
