"""Small phantoms of public archives, with the quirks of the real ones: breasts of 120 x 80 pixels, in DICOM files."""

from __future__ import annotations

import csv
import plistlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
from small_dicom import image, save

from mammodet.converters.base import SplitOptions
from mammodet.converters.findings import ImageOptions
from mammodet.data.coco import read_coco

HIGH, WIDE = 120, 80
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


def breast(seed: int = 0) -> np.ndarray:
    """Half an ellipse on the left, 16 bits."""
    noise = np.random.default_rng(seed).random((HIGH, WIDE))
    rows, columns = np.ogrid[0.5:HIGH, 0.5:WIDE]
    inside = ((rows - HIGH / 2) / (0.45 * HIGH)) ** 2 + (columns / (0.8 * WIDE)) ** 2 <= 1
    return (100 + 50 * noise + inside * (1500 + 900 * noise)).astype(np.uint16)


def write_dicom(path: Path, **elements: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(path, image(breast(), 12, **elements))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_xlsx(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A workbook of one sheet with inline texts; empty cells are left out, as Excel does."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    cells = "".join(
        f'<row r="{number}">'
        + "".join(
            f'<c r="{chr(65 + column)}{number}" t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
            for column, value in enumerate(line)
            if value != ""
        )
        + "</row>"
        for number, line in enumerate(lines, start=1)
    )
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relation = '<Relationship Id="r1" Type="t" Target="worksheets/sheet1.xml"/>'
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as package:
        sheets = '<sheets><sheet name="Sheet1" sheetId="1" r:id="r1"/></sheets>'
        package.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}">{sheets}</workbook>')
        package.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{relation}'
            "</Relationships>",
        )
        package.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )
    return path


# INbreast


def roi(name: str | None, *points: tuple[float, float]) -> dict[str, Any]:
    """An ROI as OsiriX writes it."""
    content = {"NumberOfPoints": len(points), "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points], "Type": 11}
    return content | ({"Name": name} if name is not None else {})


def square(x: float, y: float, side: float) -> tuple[tuple[float, float], ...]:
    return (x, y), (x + side, y), (x + side, y + side), (x, y + side)


def write_inbreast(folder: Path, images: Sequence[tuple[str, str, str, Any, str, str]]) -> Path:
    """An archive of (number, patient, `L_CC`, ROIs as they are written or None, ACR, BI-RADS)."""
    rows = []
    for number, patient, place, rois, density, birads in images:
        side, view = place.split("_")
        spelled = {"MLO": "ML"}.get(view, view)
        write_dicom(folder / "AllDICOMs" / f"{number}_{patient}_MG_{side}_{spelled}_ANON.dcm", PatientID="removed")
        if rois is not None:
            path = folder / "AllXML" / f"{number}.xml"
            path.parent.mkdir(exist_ok=True)
            number_of = len(rois) if isinstance(rois, list) else 1
            path.write_bytes(plistlib.dumps({"Images": [{"ImageIndex": 0, "NumberOfROIs": number_of, "ROIs": rois}]}))
        rows.append(
            {
                "Patient ID": "removed",
                "Patient age": "removed",
                "Laterality": side,
                "View": view,
                "Acquisition date": "201001",
                "File Name": number,
                "ACR": density,
                "Bi-Rads": birads,
            }
        )
    write_csv(folder / "INbreast.csv", rows, ";")
    return folder


# VinDr-Mammo


def vindr_row(study: str, image_id: str, names: str, box: tuple[Any, ...] = ("",) * 4, **cells: str) -> dict[str, Any]:
    return {
        "study_id": study,
        "series_id": "s",
        "image_id": image_id,
        "laterality": "L",
        "view_position": "CC",
        "height": HIGH,
        "width": WIDE,
        "breast_birads": "BI-RADS 1",
        "breast_density": "DENSITY C",
        "finding_categories": names,
        "finding_birads": "BI-RADS 4" if box[0] != "" else "",
        **dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        "split": "training",
    } | cells


def write_vindr(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    write_csv(folder / "finding_annotations.csv", rows)
    own = ("finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax")
    breasts = {row["image_id"]: {key: value for key, value in row.items() if key not in own} for row in rows}
    write_csv(folder / "breast-level_annotations.csv", list(breasts.values()))
    for row in rows:
        path = folder / "images" / row["study_id"] / f"{row['image_id']}.dicom"
        write_dicom(path, ImageLaterality=row["laterality"], ViewPosition=row["view_position"])
    return folder


# CMMD


def write_cmmd(folder: Path, images: Sequence[tuple[str, str, str]], rows: Sequence[tuple[str, ...]]) -> Path:
    """Images of (patient, side, view); rows of (ID1, LeftRight, Age, abnormality, classification, subtype)."""
    counts: dict[str, int] = {}
    for patient, side, view in images:
        counts[patient] = counts.get(patient, 0) + 1
        path = folder / "CMMD" / patient / "07-18-2010-NA-NA-79377" / "1.000000-NA-70244" / f"1-{counts[patient]}.dcm"
        write_dicom(path, PatientID=patient, ImageLaterality=side, ViewPosition=view)
    names = ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype")
    table = [dict(zip(names, (*row[:3], "2", *row[3:]), strict=True)) for row in rows]
    write_xlsx(folder / "CMMD_clinicaldata_revision.xlsx", table)
    return folder


# DMID


def write_dmid(folder: Path, lines: Sequence[str], masks: Mapping[str, np.ndarray], images: int) -> Path:
    """Images IMG001 ... as RGBA TIFFs in a folder in a folder; masks as RGBA, too."""
    (folder / "DMID").mkdir(parents=True)
    (folder / "DMID" / "Info.txt").write_text("\r\n".join(lines), encoding="utf-8")
    grey = (breast() // 16).astype(np.uint8)
    for name, pixels, place in [
        *((f"IMG{number:03d}", grey, "TIFF Images") for number in range(1, images + 1)),
        *((name, mask.astype(np.uint8) * 255, "ROI Masks") for name, mask in masks.items()),
    ]:
        path = folder / "DMID" / place / place / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        alpha = np.full_like(pixels, 255)
        path.write_bytes(cv2.imencode(".tif", np.dstack([pixels, pixels, pixels, alpha]))[1].tobytes())
    return folder


# EMBED


def write_embed(folder: Path, files: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> Path:
    """Rows of files and findings, what they do not say being that of a 2D image, or nothing."""
    usual = {
        **dict.fromkeys(("", "empi_anon", "acc_anon", "png_filename"), ""),
        "FinalImageType": "2D",
        "ImageLateralityFinal": "L",
        "ViewPosition": "CC",
        "spot_mag": "",
        "num_roi": 0,
        "ROI_coords": "()",
        "anon_dicom_path": "",
    }
    nothing = dict.fromkeys(("empi_anon", "acc_anon", "side", "asses", "tissueden", "massshape", "massmargin"), "")
    nothing |= dict.fromkeys(("massdens", "calcfind", "calcdistri", "path_severity", "bside"), "")
    write_csv(folder / "tables" / "EMBED_OpenData_metadata.csv", [usual | file for file in files])
    write_csv(folder / "tables" / "EMBED_OpenData_clinical.csv", [nothing | finding for finding in findings])
    for file in files:
        if file["anon_dicom_path"]:
            write_dicom(folder / "images" / "cohort_1" / Path(file["anon_dicom_path"]).name)
    return folder


# DDSM


def write_ddsm_case(
    folder: Path,
    case: str,
    overlays: Mapping[str, str],
    missing: str = "",
    *,
    packed: Mapping[str, bytes] | None = None,
    digitizer: str = "LUMISYS LASER",
    bits: int = 12,
) -> Path:
    """A case with its `.ics` file and overlays (`LEFT_CC` to text); one that is `missing` has no file.

    Args:
        packed: LJPEG streams; else the case has four PNGs.
    """
    folder.mkdir(parents=True)
    places = ("LEFT_CC", "LEFT_MLO", "RIGHT_CC", "RIGHT_MLO")
    lines = [
        f"{place} LINES {HIGH} PIXELS_PER_LINE {WIDE} BITS_PER_PIXEL {bits} RESOLUTION 50 "
        f"{'OVERLAY' if place in overlays or place == missing else 'NON_OVERLAY'}"
        for place in places
    ]
    head = f"ics_version 1.0\nfilename {case}\nPATIENT_AGE 60\nDENSITY 3\nDIGITIZER {digitizer}\nSEQUENCE\n"
    (folder / f"{case.replace('_', '-')}.ics").write_text(head + "\n".join(lines) + "\n")
    png = cv2.imencode(".png", breast() * 16)[1].tobytes()
    for place, content in (packed or dict.fromkeys(places, png)).items():
        (folder / f"{case}.{place}.{'LJPEG' if packed else 'png'}").write_bytes(content)
    for place, text in overlays.items():
        (folder / f"{case}.{place}.OVERLAY").write_text(text)
    return folder


def abnormality(number: int, lesion: str, pathology: str, x: int, y: int, side: int) -> str:
    """An entry of an overlay: a square whose outer pixels are walked clockwise from the top left."""
    steps = " ".join("2" * side + "4" * side + "6" * side + "0" * side)
    return (
        f"ABNORMALITY {number}\nLESION_TYPE {lesion}\nASSESSMENT 4\nSUBTLETY 5\nPATHOLOGY {pathology}\n"
        f"TOTAL_OUTLINES 2\nBOUNDARY\n{x} {y} {steps} #\n\tCORE\n{x + 1} {y + 1} 2 4 6 0 #\n"
    )
