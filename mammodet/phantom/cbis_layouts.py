"""Where a phantom CBIS-DDSM archive puts a picture, in each layout in which the real one is passed on."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from mammodet.files import write_bytes
from mammodet.phantom.cbis_plan import uid

DESCRIPTIONS = {"image": "full mammogram images", "crop": "cropped images", "mask": "ROI mask images"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to write."""

    role: str  #: `image`, `crop` or `mask`
    case: str  #: its folder, which is also its PatientID
    table_path: str  #: path in the original layout: case/study/series/000000.dcm
    pixels: NDArray[Any]  #: uint16 (height, width), or uint8 for masks
    lone: bool = True  #: whether it is alone in its series


def write_picture(output: Path, layout: str, picture: Picture, *, part: float = 1.0) -> dict[str, str] | None:
    """Write one file, or the given part of it; its row of dicom_info.csv in the JPEG edition."""
    place = PurePosixPath(picture.table_path)
    _, study, series, _ = place.parts
    row = None
    if layout == "tcia":
        path, content = f"CBIS-DDSM/{picture.table_path}", dicom_bytes(picture)
    elif layout == "tcia_dated":  # the numbers are the last five digits of the UIDs
        folder = f"1.000000-{DESCRIPTIONS[picture.role if picture.lone else 'mask']}-{series[-5:]}"
        file_name = f"1-{int(place.stem) + 1}.dcm"
        path = f"CBIS-DDSM/{picture.case}/07-20-2016-DDSM-NA-{study[-5:]}/{folder}/{file_name}"
        content = dicom_bytes(picture)
    elif layout == "kaggle_jpeg":
        pixels = (picture.pixels >> 8).astype(np.uint8) if picture.pixels.dtype == np.uint16 else picture.pixels
        path = f"jpeg/{series}/{int(place.stem) + 1}-{_number(picture.table_path)}.jpg"
        content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        row = _dicom_info(picture, path)
    else:
        suffix = {"image": "", "crop": "_CROP", "mask": "_MASK"}[picture.role]
        path, content = f"png/{picture.case}{suffix}.png", cv2.imencode(".png", picture.pixels)[1].tobytes()
    write_bytes(output / path, content[: int(len(content) * part)])
    return row


def _number(text: str) -> int:
    """Three digits for the file names of the JPEG edition, which follow no rule."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 900 + 100


def _tags(picture: Picture) -> dict[str, Any]:
    """What the archive's files say of themselves, by DICOM keyword: no spacing, the case for a PatientID."""
    place = PurePosixPath(picture.table_path)
    *_, side, view = picture.case.split("_")[:5]
    bits = 8 * picture.pixels.itemsize
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": str(SecondaryCaptureImageStorage),
        "SOPInstanceUID": uid(picture.table_path, picture.role),
        "StudyDate": "20160720",
        "ContentDate": "20160426",
        "StudyTime": "214825",
        "ContentTime": "115752.462000",
        "AccessionNumber": "",
        "Modality": "MG",
        "ConversionType": "WSD",
        "ReferringPhysicianName": "",
        "SeriesDescription": DESCRIPTIONS[picture.role],
        "PatientName": picture.case,
        "PatientID": picture.case,
        "PatientBirthDate": "",
        "PatientSex": "",
        "BodyPartExamined": "BREAST",
        "SecondaryCaptureDeviceManufacturer": "MathWorks",
        "SecondaryCaptureDeviceManufacturerModelName": "MATLAB",
        "StudyInstanceUID": place.parts[1],
        "SeriesInstanceUID": place.parts[2],
        "StudyID": "DDSM",
        "SeriesNumber": "1",
        "InstanceNumber": str(int(place.stem) + 1),
        "PatientOrientation": view,
        "Laterality": side[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": picture.pixels.shape[0],
        "Columns": picture.pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "SmallestImagePixelValue": int(picture.pixels.min()),
        "LargestImagePixelValue": int(picture.pixels.max()),
    }


def dicom_bytes(picture: Picture) -> bytes:
    """A secondary capture with the tags of the archive's files."""
    tags = _tags(picture)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID(tags["SOPInstanceUID"])
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    for name, value in tags.items():
        setattr(data, name, value)
    # The real files have the collection's name here: a phantom that leaves its folder still says what it is.
    data.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", "SYNTHETIC")
    data.PixelData = picture.pixels.tobytes() + b"\0" * (picture.pixels.nbytes % 2)
    buffer = io.BytesIO()
    data.save_as(buffer)
    return buffer.getvalue()


def _dicom_info(picture: Picture, path: str) -> dict[str, str]:
    row = {
        "file_path": f"CBIS-DDSM/dicom/{Path(path).parent.name}/{Path(path).stem}.dcm",
        "image_path": f"CBIS-DDSM/{path}",
        **{name: str(value) for name, value in sorted(_tags(picture).items())},
    }
    if _number(path) % 5 == 0:  # some rows of the real table have none
        row["SeriesDescription"] = ""
    return row
