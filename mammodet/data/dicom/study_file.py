"""What a DICOM file says of the exam it belongs to, also of objects that are no mammograms.

Tomosynthesis, reports, presentation states and other modalities are no projection images (PS3.4 B.5). The spacing in
the breast comes from Pixel Spacing, Imager Pixel Spacing and the magnification (PS3.3 10.7.1, C.8.11.7).
"""

import re
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from mammodet.data.dicom import tags
from mammodet.data.dicom.file import open_dicom
from mammodet.data.dicom.groups import merge_groups
from mammodet.data.study import Spacing, StudyFile

#: PS3.16 CID 4015, SCT code and the SNOMED-RT code it replaced.
_MODIFIERS = {
    **dict.fromkeys(("399209000", "R-102D5"), "implant displaced"),
    **dict.fromkeys(("399163009", "R-102D6"), "magnification"),
    **dict.fromkeys(("399055006", "R-102D7"), "spot compression"),
    **dict.fromkeys(("399161006", "R-102D2"), "cleavage"),
    **dict.fromkeys(("399011000", "R-102D1"), "axillary tail"),
    **dict.fromkeys(("399197002", "R-102D3"), "rolled lateral"),
    **dict.fromkeys(("399226006", "R-102D4"), "rolled medial"),
    **dict.fromkeys(("414493004", "R-102CA"), "rolled inferior"),
    **dict.fromkeys(("415670009", "R-102C9"), "rolled superior"),
    **dict.fromkeys(("399110001", "R-102C2"), "tangential"),
    **dict.fromkeys(("442581004", "R-40AB3"), "nipple in profile"),
    **dict.fromkeys(("441752004", "P2-00161"), "anterior compression"),
    **dict.fromkeys(("442593008", "R-40ABE"), "infra-mammary fold"),
    **dict.fromkeys(("442580003", "R-40AB2"), "axillary tissue"),
}
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
_TOMOSYNTHESIS_PROJECTIONS = ("1.2.840.10008.5.1.4.1.1.13.1.4", "1.2.840.10008.5.1.4.1.1.13.1.5")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MAMMOGRAPHY = ("MG", "CR", "DX", "RG", "OT")  # modalities that a mammogram or its scan may state
_LONGEST_MM = 500.0  # the largest films and detectors are 240 x 300 mm
_CALIBRATED = {"GEOMETRY": "Pixel Spacing, corrected for magnification", "FIDUCIAL": "Pixel Spacing, by a fiducial"}
_TAGS = [
    tag_for_keyword(keyword) or 0
    for keyword in (
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "ImageType", "PresentationIntentType"),
        *("PatientID", "ImageLaterality", "Laterality", "FrameLaterality", "ViewPosition", "ViewCodeSequence"),
        *("PatientOrientation", "SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"),
        *("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "ConversionType"),
        *("ImagerPixelSpacing", "PixelSpacing", "PixelSpacingCalibrationType", "NominalScannedPixelSpacing"),
        *("EstimatedRadiographicMagnificationFactor", "FrameType"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    )
]


def read_study_file(path: Path) -> StudyFile:
    """What a file's header says, also of objects that are no mammograms.

    Raises InputError: it is no DICOM file, or damaged.
    """
    with open_dicom(path, _TAGS) as file:
        merge_groups(path, file.dataset)
        dataset, has_pixels = file.dataset, file.pixels is not None or file.ends_inside
        description = tags.text(dataset, "SeriesDescription") or ""
        image_type = {part.strip().upper() for part in (tags.text(dataset, "ImageType") or "").split("\\")}
        return StudyFile(
            path,
            tags.text(dataset, "StudyInstanceUID"),
            tags.text(dataset, "SOPInstanceUID"),
            tags.text(dataset, "PatientID"),
            tags.laterality(dataset) or _side_of_text(description),
            tags.view(dataset),
            _modifiers(dataset),
            _kind(dataset, image_type),
            _unfit(dataset, image_type, description, has_pixels),
            spacing_in_breast(dataset),
        )


def _side_of_text(said: str) -> str | None:
    """The one side that a series' description names: `R CC`, `LMLO`, `MAMMO LEFT`."""
    found = re.findall(r"(?<![A-Z])(L|R)(?:EFT|IGHT)?(?=(?:CC|MLO|LMO|ML|LM|XCCL|XCCM)?(?![A-Z]))", said.upper())
    return found[0] if len(set(found)) == 1 else None


def _modifiers(dataset: Dataset) -> tuple[str, ...]:
    codes = [
        tags.text(item, "CodeValue")
        for view in tags.items(dataset, "ViewCodeSequence")
        for item in tags.items(view, "ViewModifierCodeSequence")
    ]
    return tuple(sorted({_MODIFIERS.get(code, f"modifier {code}") for code in codes if code}))


def _kind(dataset: Dataset, image_type: set[str]) -> str:
    if (tags.text(dataset, "SOPClassUID") or "").startswith(_CAPTURE):
        return "secondary capture"
    if tags.is_for_processing(dataset):
        return "for processing"
    return "synthetic" if image_type & {"GENERATED_2D", "TOMO_2D"} else "for presentation"


def _unfit(dataset: Dataset, image_type: set[str], description: str, has_pixels: bool) -> str | None:
    kind = tags.value(dataset, "SOPClassUID")
    name = getattr(kind, "name", None) or "an object without a SOP class"
    if kind is not None and not has_pixels and "Rows" not in dataset:
        return f"is no image ({name})"
    frames = tags.text(dataset, "NumberOfFrames") or "1"
    if kind in _TOMOSYNTHESIS_PROJECTIONS or "TOMO_PROJ" in image_type:
        return "is a tomosynthesis projection"
    modality = (tags.text(dataset, "Modality") or "MG").upper()
    sliced = image_type & {"TOMO", "TOMOSYNTHESIS", "TOMO_RECON"} and not image_type & {"GENERATED_2D", "TOMO_2D"}
    if sliced or (modality == "MG" and "CT Image" in name):
        return "is a tomosynthesis slice"
    if frames != "1":
        return f"has {frames[:20]} frames: {'tomosynthesis' if kind == _TOMOSYNTHESIS else name}"
    if modality not in _MAMMOGRAPHY:
        return f"is of modality {modality[:16]}, not mammography"
    if (tags.text(dataset, "SamplesPerPixel") or "1") != "1" and str(kind).startswith(_CAPTURE):
        return "is a secondary capture in colour"
    return "shows a specimen, not a breast" if tags.view(dataset) == "SPECIMEN" else None


def spacing_in_breast(dataset: Dataset) -> Spacing | None:
    """Spacing at the depth of the breast, None where nothing real is stated.

    Pixel Spacing counts where it is calibrated, or differs from Imager Pixel Spacing, which means the same (PS3.3
    10.7.1.3). Imager Pixel Spacing is divided by the magnification; without one it is larger than in the breast, and
    `basis` says so. Worked example: 0.07 mm at the detector, magnification 1.05: 0.0667 mm. Scanned film states the
    spacing of the film, at the detector's place. Spacing that makes the image longer than 500 mm is a placeholder.
    """
    pixel, imager, scanned = (
        _two(dataset, keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    )
    calibration = (tags.text(dataset, "PixelSpacingCalibrationType") or "").upper()
    magnification = tags.factor(dataset, "EstimatedRadiographicMagnificationFactor")
    found: Spacing | None = None
    if pixel and calibration in _CALIBRATED:
        found = Spacing(pixel, _CALIBRATED[calibration])
    elif pixel and imager and pixel != imager:
        found = Spacing(pixel, "Pixel Spacing, which differs from that at the detector")
    elif (at_film := imager or scanned or pixel) is not None:
        tag = "Imager Pixel Spacing" if imager else "Nominal Scanned Pixel Spacing" if scanned else "Pixel Spacing"
        if magnification is not None and 1 <= magnification < 5:
            rows, columns = (side / magnification for side in at_film)
            found = Spacing((rows, columns), f"{tag} / magnification {magnification:g}")
        else:
            found = Spacing(at_film, f"{tag}, magnification not stated: sizes are upper bounds")
    sides = [tags.numbers(dataset, keyword) for keyword in ("Rows", "Columns")]
    if found and all(sides) and max(side[0] * mm for side, mm in zip(sides, found.mm_rc, strict=True)) > _LONGEST_MM:
        return None
    return found


def _two(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    found = tags.numbers(dataset, keyword)
    return (found[0], found[1]) if len(found) == 2 and all(0 < side < 10 for side in found) else None
