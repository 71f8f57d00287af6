"""Where a phantom CBIS-DDSM archive puts a picture, in each layout in which the real one is passed on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from mammodet.files import write_bytes

LAYOUTS = ("tcia", "tcia_dated", "kaggle_jpeg", "flat_png")
DESCRIPTIONS = {"image": "full mammogram images", "crop": "cropped images", "mask": "ROI mask images"}
_DICOM_INFO_COLUMNS = (
    "file_path image_path AccessionNumber BitsAllocated BitsStored BodyPartExamined Columns ContentDate "
    "ContentTime ConversionType HighBit InstanceNumber LargestImagePixelValue Laterality Modality "
    "PatientBirthDate PatientID PatientName PatientOrientation PatientSex PhotometricInterpretation "
    "PixelRepresentation ReferringPhysicianName Rows SOPClassUID SOPInstanceUID SamplesPerPixel "
    "SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName SeriesDescription "
    "SeriesInstanceUID SeriesNumber SmallestImagePixelValue SpecificCharacterSet StudyDate StudyID "
    "StudyInstanceUID StudyTime"
)
DICOM_INFO = _DICOM_INFO_COLUMNS.split()


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to write.

    Attributes:
        role: `image`, `crop` or `mask`; case: its folder, which is also its PatientID.
        table_path: path in the original layout: case/study/series/000000.dcm.
        pixels: uint16 (height, width), or uint8 for masks.
        lone: whether it is alone in its series.
    """

    role: str
    case: str
    table_path: str
    pixels: NDArray[Any]
    lone: bool = True

    @property
    def side_view(self) -> tuple[str, str]:
        """`L` or `R`, and the view."""
        parts = self.case.split("_")
        return parts[3][0], parts[4]


def write_picture(output: Path, layout: str, picture: Picture, *, part: float = 1.0) -> dict[str, str] | None:
    """Write one file; its row of dicom_info.csv in the JPEG edition.

    Args:
        part: how much of the file is written, for files cut short.
    """
    place = PurePosixPath(picture.table_path)
    _, study, series, _ = place.parts
    row = None
    if layout == "tcia":
        path, content = f"CBIS-DDSM/{picture.table_path}", dicom_bytes(picture)
    elif layout == "tcia_dated":
        folder = f"1.000000-{DESCRIPTIONS[picture.role if picture.lone else 'mask']}-{_number(series)}"
        file_name = f"1-{int(place.stem) + 1}.dcm"
        path = f"CBIS-DDSM/{picture.case}/07-20-2016-DDSM-NA-{_number(study)}/{folder}/{file_name}"
        content = dicom_bytes(picture)
    elif layout == "kaggle_jpeg":
        pixels = (picture.pixels >> 8).astype(np.uint8) if picture.pixels.dtype == np.uint16 else picture.pixels
        path = f"jpeg/{series}/{int(place.stem) + 1}-{_number(picture.table_path) % 900 + 100}.jpg"
        content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        row = _dicom_info(picture, path)
    else:
        suffix = {"image": "", "crop": "_CROP", "mask": "_MASK"}[picture.role]
        path, content = f"png/{picture.case}{suffix}.png", cv2.imencode(".png", picture.pixels)[1].tobytes()
    write_bytes(output / path, content[: int(len(content) * part)])
    return row


def _number(text: str) -> int:
    """Five digits that stand for a UID in the newer layout."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 90000 + 10000


def dicom_bytes(picture: Picture) -> bytes:
    """A secondary capture with the tags of the archive's files: no spacing, the case for a PatientID."""
    _, study, series, _ = PurePosixPath(picture.table_path).parts
    laterality, view = picture.side_view
    bits = 8 * picture.pixels.itemsize
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    # As long as a UID may be, and one of its own for each file.
    meta.MediaStorageSOPInstanceUID = UID(f"{series[:50]}.{_number(picture.table_path)}")
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    for name, value in (
        ("SpecificCharacterSet", "ISO_IR 100"),
        ("SOPClassUID", SecondaryCaptureImageStorage),
        ("SOPInstanceUID", meta.MediaStorageSOPInstanceUID),
        ("StudyDate", "20160720"),
        ("Modality", "MG"),
        ("ConversionType", "WSD"),
        ("SeriesDescription", DESCRIPTIONS[picture.role]),
        ("PatientName", picture.case),
        ("PatientID", picture.case),
        ("BodyPartExamined", "BREAST"),
        ("StudyInstanceUID", study),
        ("SeriesInstanceUID", series),
        ("StudyID", "DDSM"),
        ("SeriesNumber", "1"),
        ("InstanceNumber", "1"),
        ("PatientOrientation", view),
        ("Laterality", laterality),
        ("SamplesPerPixel", 1),
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("Rows", picture.pixels.shape[0]),
        ("Columns", picture.pixels.shape[1]),
        ("BitsAllocated", bits),
        ("BitsStored", bits),
        ("HighBit", bits - 1),
        ("PixelRepresentation", 0),
    ):
        setattr(data, name, value)
    data.PixelData = picture.pixels.tobytes() + b"\0" * (picture.pixels.nbytes % 2)
    buffer = io.BytesIO()
    data.save_as(buffer)
    return buffer.getvalue()


def _dicom_info(picture: Picture, path: str) -> dict[str, str]:
    _, study, series, _ = PurePosixPath(picture.table_path).parts
    laterality, view = picture.side_view
    bits = str(8 * picture.pixels.itemsize)
    known = {
        "file_path": f"CBIS-DDSM/dicom/{series}/{Path(path).stem}.dcm",
        "image_path": f"CBIS-DDSM/{path}",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "BodyPartExamined": "BREAST",
        "Columns": str(picture.pixels.shape[1]),
        "Laterality": laterality,
        "Modality": "MG",
        "PatientID": picture.case,
        "PatientName": picture.case,
        "PatientOrientation": view,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": "0",
        "Rows": str(picture.pixels.shape[0]),
        # Some rows of the real table have none.
        "SeriesDescription": "" if _number(path) % 5 == 0 else DESCRIPTIONS[picture.role],
        "SeriesInstanceUID": series,
        "StudyID": "DDSM",
        "StudyInstanceUID": study,
    }
    return {column: known.get(column, "") for column in DICOM_INFO}


def dicom_info_text(rows: Sequence[Mapping[str, str]]) -> str:
    """The text of dicom_info.csv."""
    lines = [",".join(DICOM_INFO), *(",".join(row[column] for column in DICOM_INFO) for row in rows)]
    return "\n".join(lines) + "\n"
