"""What every DICOM object that is written shares: the source image, UIDs, the algorithm, codes, and contours.

Coordinates of PS3.3 C.18.6 (SCOORD) and C.10.5 (graphic annotation, PIXEL) have their origin at the top-left corner of
the top-left pixel, column first: the pixel frame of `mammodet.records`, so that nothing is shifted by half a pixel.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import shapely
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from mammodet.data.dicom.file import quiet
from mammodet.data.dicom.tags import shown, text
from mammodet.data.study import Spacing
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.geometry import box_rle, rle_area
from mammodet.outlines import rle_polygons
from mammodet.records import Detections, ImagePrediction, Rle
from mammodet.version import VERSION

DEVELOPERS, SCHEME = "mammodet developers", "99MAMMODET"
TOLERANCE_PX = 0.5  # that a contour may differ from the border of its mask
_NAMED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_MAY_LACK = (  # type 2 of the patient and study modules, which highdicom copies
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_DATES: dict[str, tuple[Any, str]] = {
    "PatientBirthDate": (DA, "YYYYMMDD"),
    "StudyDate": (DA, "YYYYMMDD"),
    "StudyTime": (TM, "HHMMSS"),
}
_FINDINGS = {
    "mass": codes.SCT.Mass,
    "calcification": codes.cid6014.IndividualCalcification,
    "calcifications": codes.cid6014.CalcificationCluster,
    "architectural distortion": codes.cid6014.ArchitecturalDistortionOfBreast,
    "distortion": codes.cid6014.ArchitecturalDistortionOfBreast,
}
#: SOP classes of images that findings may be of: CR, DX, MG, and secondary captures, as scanned films are.
SOURCE_CLASSES = (
    *("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1"),
    *("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"),
    *("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"),
)
_MAKER = {"manufacturer": DEVELOPERS, "manufacturer_model_name": "mammodet"}
SIDES = {"L": codes.SCT.Left, "R": codes.SCT.Right}


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made the findings: the model, and what else decides what is written."""

    model: Mapping[str, Any]  #: of the predictions file
    score_threshold: float  #: of findings
    key: str  #: hash of all that decides the content but the image: other content gets other UIDs

    @staticmethod
    def of(model: Mapping[str, Any], score_threshold: float) -> "Maker":
        """Of a predictions file's `model`."""
        decides = [model.get(name) for name in ("checkpoint_sha256", "config", "ensemble")]
        calibration = (model.get("calibration") or {}).get("sha256")
        return Maker(model, score_threshold, canonical_hash([decides, calibration, score_threshold, VERSION]))

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the checkpoint."""
        return str(self.model.get("checkpoint_sha256") or "unknown")

    @property
    def parameters(self) -> dict[str, str]:
        """What identifies the algorithm beside its name and version."""
        return {"checkpoint_sha256": self.checkpoint, "score_threshold": f"{self.score_threshold:g}"}

    def uid(self, *parts: str) -> UID:
        """The same UID for the same parts (PS3.5 B.2), so that a second run replaces the objects of the first."""
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join((self.key, *parts))).int}")

    def series(self, study: str, kind: str, number: int) -> dict[str, Any]:
        """Arguments that highdicom takes for the series and the equipment of an object."""
        return {
            "series_instance_uid": self.uid(study, kind),
            "series_number": number,
            "series_description": f"mammodet {kind.upper()}, research only",
            **_MAKER,
            "software_versions": VERSION,
            "device_serial_number": self.checkpoint[:16],
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """One image with its findings."""

    source: Dataset  #: the DICOM file's data set without pixels
    path: Path
    image: ImagePrediction
    findings: Detections  #: the strongest first
    categories: tuple[str, ...]  #: name of each finding's category
    spacing: Spacing | None

    @property
    def uid(self) -> str:
        """SOP Instance UID of the source."""
        return str(self.source.SOPInstanceUID)

    @property
    def side(self) -> str:
        """L or R; empty where that is not known."""
        return self.image.laterality or ""

    @property
    def orientation(self) -> list[str]:
        """Patient Orientation of the source; empty where it states none, or something else (CBIS-DDSM: a view)."""
        stated = (text(self.source, "PatientOrientation") or "").split("\\")
        return stated if len(stated) == 2 and all(re.fullmatch("[APRLHF]{1,3}", part) for part in stated) else []

    def rle(self, index: int) -> Rle:
        """Mask of a finding, that of its box where the model gives none."""
        rle = self.findings.rles[index] if self.findings.rles is not None else None
        x1, y1, x2, y2 = self.findings.boxes_xyxy[index].tolist()
        return rle if rle is not None and rle_area(rle) else box_rle((x1, y1, x2, y2), self.image.size_hw)

    def rings(self, index: int) -> list[NDArray[np.float64]]:
        """Closed outlines (n, 2) of a finding as x, y, the largest part first; of a model without masks its box."""
        if self.findings.rles is None or not rle_area(self.findings.rles[index]):
            x1, y1, x2, y2 = self.findings.boxes_xyxy[index].tolist()
            return [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])]
        return contours(self.rle(index))

    def code(self, index: int) -> Code:
        """What a finding is, by the name of its category; `Lesion` where the name says no more."""
        return _FINDINGS.get(self.categories[index].lower(), codes.SCT.Lesion)

    def tracking(self, index: int, maker: Maker) -> tuple[str, UID]:
        """Tracking identifier and UID, the same in each object that shows the finding."""
        return f"{self.categories[index]} {index + 1}"[:64], maker.uid(self.uid, f"finding {index + 1}")


def is_ours(dataset: Dataset) -> bool:
    """Whether an object was written here: results are not looked at again."""
    return [text(dataset, name) for name in ("Manufacturer", "ManufacturerModelName")] == list(_MAKER.values())


def read_source(path: Path) -> Dataset:
    """A DICOM file's data set without its pixels, with empty values where patient and study lack them.

    Raises InputError: it cannot be read, or does not say which object of which study it is.
    """
    try:
        with quiet:
            source = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            bad = [name for name in _NAMED if not UID(str(source.get(name) or "")).is_valid]
            for name in _MAY_LACK:
                setattr(source, name, source.get(name) or "")
            if not source.get("PatientSex") or source.PatientSex not in ("M", "F", "O"):
                source.PatientSex = ""
    except Exception as error:  # the parser meets hostile bytes here
        raise InputError(f"{path}: its header cannot be read; the file is damaged") from error
    if bad:
        raise InputError(f"{path}: has no valid {', '.join(bad)}; DICOM output must refer to it")
    for name, (kind, form) in _DATES.items():
        try:
            kind(source.get(name))
        except ValueError:
            raise InputError(f"{path}: {name} is {shown(source, name)!r}; expected {form}") from None
    return source


def contours(rle: Rle, tolerance_px: float = TOLERANCE_PX) -> list[NDArray[np.float64]]:
    """Outer borders of a mask's parts as closed rings (n, 2) of x, y, the largest first.

    They run along the borders of the pixels, simplified by Douglas and Peucker's rule: no point of the border is
    further than the tolerance from the ring. Holes are not drawn. Worked example: a pixel at column 3, row 5 gives the
    square (3, 5), (4, 5), (4, 6), (3, 6).
    """
    return [shapely.get_coordinates(polygon) for polygon in rle_polygons(rle, tolerance_px)]


def lab(colour: Sequence[int]) -> Any:
    """A colour of the overlays as DICOM has colours."""
    from highdicom.color import CIELabColor

    return CIELabColor.from_rgb(*colour)
