"""Read mammograms from DICOM files: grey, one frame, of any usual compression.

| step | where it is written down |
|---|---|
| open, parse, refuse what is no DICOM image (`file`) | PS3.5, PS3.10 |
| decode, after checking the codestream against the header (`codec`, `j2k`) | PS3.5 annex A |
| stored values to the modality's values, then to a window's output (`window`) | PS3.3 C.11.1, C.11.2 |
| MONOCHROME1 inverted, after the window: tissue is bright | PS3.3 C.7.6.3.1.2 |

What enhanced and tomosynthesis files say in functional groups (PS3.3 C.7.6.16) is read of those with one frame. Padded
pixels (C.7.5.1.1.2) are 0 after the window, as background is.

Not read: files of several frames, colour, floating point. Presentation LUT Shape is not looked at: it repeats the
photometric interpretation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from mammodet.data.dicom import tags
from mammodet.data.dicom.codec import StoredFormat, decode, decode_reduced, pixel_element, read_frame
from mammodet.data.dicom.file import DicomFile, open_dicom
from mammodet.data.dicom.groups import merge_groups
from mammodet.data.dicom.window import Window, value_table, windows
from mammodet.data.headers import MOST_PIXELS
from mammodet.errors import InputError

_TEXTS = {
    "patient_id": "PatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "instance_uid": "SOPInstanceUID",
    "series_description": "SeriesDescription",
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "presentation_intent": "PresentationIntentType",
}
_TAGS = [
    tag_for_keyword(keyword) or 0
    for keyword in (
        *("SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth"),
        *("VOILUTFunction", "WindowCenterWidthExplanation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
        *("ConversionType", "ImageLaterality", "Laterality", "FrameLaterality"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("ViewPosition", "ViewCodeSequence", "PatientOrientation", "ProtocolName"),
        *("AcquisitionDeviceProcessingDescription", "ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"),
        *("EstimatedRadiographicMagnificationFactor", "BurnedInAnnotation"),
        *_TEXTS.values(),
    )
]
Pixels = NDArray[Any]  # uint8 or uint16
_PIXELS_AT_ONCE = 2**20  # NumPy makes 8-byte indices of what is looked up


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What a file says of its image."""

    size_hw: tuple[int, int]  #: (height, width) in pixels
    bits_stored: int  #: bits of a pixel that count
    photometric: str  #: `MONOCHROME1` (the lowest value is white) or `MONOCHROME2`, as the file has it
    transfer_syntax: str  #: UID; that of the plain encoding where the file names none
    #: `L`, `R` or None: Image Laterality, then Laterality, then Frame Laterality. Not Patient Orientation, not View
    #: Code.
    laterality: str | None = None
    #: `CC`, `MLO`, ...: View Position; View Code Sequence (PS3.16 CID 4014); Patient Orientation where it literally is
    #: a view (CBIS-DDSM); Series Description, Protocol Name or Acquisition Device Processing Description where it
    #: names one.
    view: str | None = None
    #: (row, column) distance of pixel centres in mm: Imager Pixel Spacing (at the detector, so larger than in the
    #: breast by `magnification`), Pixel Spacing, Nominal Scanned Pixel Spacing; for film the other way round.
    spacing_mm_rc: tuple[float, float] | None = None
    #: `digital` (a detector's or a plate's), `film` (scanned film, or a secondary capture), or None.
    origin: str | None = None
    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    series_description: str | None = None
    modality: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    presentation_intent: str | None = None
    magnification: float | None = None  #: Estimated Radiographic Magnification Factor
    #: what the file proposes to view it by, in the order in which `read_dicom` counts them.
    windows: tuple[Window, ...] = ()
    signed: bool = False  #: whether stored values are
    for_processing: bool = False  #: whether the pixels are meant for a maker's software, and look like no mammogram
    #: whether the file says that its pixels hold text that may name the patient (PS3.3 C.7.6.1).
    burned_in: bool = False


def read_header(path: Path) -> DicomHeader:
    """What a file says of its image, without reading a pixel.

    Raises InputError: the file is missing, empty, not DICOM, cut short before its pixels, or no single grey image.
    """
    with _open(path) as (file, stored):
        return _header(file, stored)


def read_stored(path: Path) -> NDArray[Any]:
    """Stored values as they are, for masks: no table, no window, no inversion.

    Returns:
        uint8, int8, uint16 or int16 (height, width).
    Raises:
        InputError: as `read_header`; and the pixel data are cut short, damaged, contradict the header, or are
            compressed in a way that is not read here.
    """
    with _open(path) as (file, stored):
        frame = read_frame(file, stored)
    return decode(frame)


def read_dicom(path: Path, *, window: int | None = 0) -> tuple[Pixels, DicomHeader]:
    """Pixels in which tissue is bright, on the full scale of their depth, and what the file says of them.

    Stored values go through the modality's table or rescaling, then through a window, and are inverted for MONOCHROME1.
    Then 0 and 65535 stand for the ends of the window's output range or, without a window, for the ends of what the
    stored bits can hold, after the modality step. Worked example, without a window: of 12 unsigned bits 0 becomes 0,
    1 becomes 16 (65535 / 4095 = 16.004) and 4095 becomes 65535; of 16 unsigned bits every value stays; of 16 signed
    bits -32768 becomes 0 and 32767 becomes 65535. With the LINEAR window of centre 1000 and width 101, 960
    becomes ((960 - 999.5) / 100 + 0.5) * 65535 = 6881.2, so 6881.

    Args:
        window: which of `DicomHeader.windows`: tables first, then centres and widths. 0 is also taken where there is
            none, and then means none; None means none at all.
    Returns:
        (height, width) pixels: uint8 where at most 8 bits are stored and neither a window nor a modality step was
        applied (an inversion costs no depth), else uint16; and the header.
    Raises:
        InputError: as `read_stored`; and there is no such window, or it, a table or the rescaling is nonsense.
    """
    with _open(path) as (file, stored):
        header = _header(file, stored)
        # First the table: a fault in it costs no reading.
        table = value_table(file.path, file.dataset, stored, window)
        frame = read_frame(file, stored)
    return _look_up(table, decode(frame), stored.lowest), header


def read_reduced(path: Path, side: int, *, window: int | None = 0) -> Pixels | None:
    """As the pixels of `read_dicom`, but fewer, for a first look; None where `decode_reduced` has none."""
    with _open(path) as (file, stored):
        table = value_table(file.path, file.dataset, stored, window)
        frame = read_frame(file, stored)
    pixels = decode_reduced(frame, side)
    return None if pixels is None else _look_up(table, pixels, stored.lowest)


def _look_up(table: NDArray[Any], pixels: NDArray[Any], lowest: int) -> Pixels:
    """`table[pixels - lowest]`, in strips."""
    if lowest == 0 and table.dtype == pixels.dtype and np.array_equal(table, np.arange(len(table))):
        return pixels
    shown = np.empty(pixels.shape, table.dtype)
    step = max(1, _PIXELS_AT_ONCE // pixels.shape[1])
    for top in range(0, len(pixels), step):
        shown[top : top + step] = table[pixels[top : top + step].astype(np.intp) - lowest]
    return shown


@contextmanager
def _open(path: Path) -> Iterator[tuple[DicomFile, StoredFormat]]:
    with open_dicom(path, _TAGS) as file:
        merge_groups(path, file.dataset)
        stored = _stored_format(file)
        pixel_element(file)
        yield file, stored


def _header(file: DicomFile, stored: StoredFormat) -> DicomHeader:
    dataset = file.dataset
    origin = tags.origin(dataset)
    return DicomHeader(
        size_hw=stored.size_hw,
        bits_stored=stored.bits_stored,
        photometric=stored.photometric,
        transfer_syntax=str(file.syntax),
        laterality=tags.laterality(dataset),
        view=tags.view(dataset),
        spacing_mm_rc=tags.spacing(dataset, origin),
        origin=origin,
        magnification=tags.factor(dataset, "EstimatedRadiographicMagnificationFactor"),
        windows=windows(dataset),
        signed=stored.signed,
        for_processing=tags.is_for_processing(dataset),
        burned_in=(tags.text(dataset, "BurnedInAnnotation") or "").upper() == "YES",
        **{name: tags.text(dataset, keyword) for name, keyword in _TEXTS.items()},
    )


def _stored_format(file: DicomFile) -> StoredFormat:
    """How the pixels are stored; refuses what is no single grey image, and what contradicts itself."""
    path, dataset = file.path, file.dataset
    if file.ends_inside:
        pixel_element(file)
    if file.pixels is None and "Rows" not in dataset:
        kind = tags.value(dataset, "SOPClassUID")
        raise InputError(
            f"{path}: is no image: {getattr(kind, 'name', None) or 'a file without a SOP class'} without pixel data; "
            "expected a mammogram"
        )
    frames = tags.text(dataset, "NumberOfFrames") or "1"
    if frames.strip("0 ") == "" or not frames.isdecimal():
        raise InputError(f"{path}: Number of Frames is {frames[:20]!r}; expected 1")
    if int(frames[:20]) != 1:
        raise InputError(
            f"{path}: has {frames[:20]} frames; tomosynthesis (DBT) and other multi-frame files are "
            "not read, only single images"
        )
    photometric = (tags.text(dataset, "PhotometricInterpretation") or "").upper()
    grey = photometric in ("MONOCHROME1", "MONOCHROME2")
    samples = _whole(path, dataset, "SamplesPerPixel", lack=1 if grey else None)
    if not grey or samples != 1:
        raise InputError(
            f"{path}: is {photometric[:40] or 'of no stated colour'} with {samples} samples per pixel; expected one "
            "grey channel, MONOCHROME1 or MONOCHROME2"
        )
    height, width = (_whole(path, dataset, side) for side in ("Rows", "Columns"))
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise InputError(f"{path}: states {height} rows x {width} columns; expected 1 to {MOST_PIXELS} pixels")
    allocated, kept = _bits(path, dataset)
    signed = _whole(path, dataset, "PixelRepresentation")
    if signed not in (0, 1):
        raise InputError(f"{path}: Pixel Representation is {signed}; expected 0 (unsigned) or 1 (signed)")
    return StoredFormat((height, width), allocated, kept, bool(signed), photometric)


def _bits(path: Path, dataset: Dataset) -> tuple[int, int]:
    allocated, stored = (_whole(path, dataset, name) for name in ("BitsAllocated", "BitsStored"))
    high = _whole(path, dataset, "HighBit", lack=stored - 1)
    if allocated not in (8, 16):
        raise InputError(f"{path}: allocates {allocated} bits per pixel; expected 8 or 16")
    if not 1 <= stored <= allocated or high != stored - 1:
        raise InputError(
            f"{path}: its bits contradict each other: {allocated} allocated, {stored} stored, highest bit {high}; "
            "expected no more stored than allocated, and the highest one below the number stored"
        )
    return allocated, stored


def _whole(path: Path, dataset: Dataset, keyword: str, lack: int | None = None) -> int:
    """A whole number that an image cannot do without, or `lack` where something else implies it."""
    found = tags.value(dataset, keyword)
    if isinstance(found, int):
        return int(found)
    if keyword not in dataset or (found is None and not tags.raw_bytes(dataset, keyword)):
        if lack is not None:
            return lack
        raise InputError(f"{path}: {keyword} is missing; the file is damaged, or no image")
    raise InputError(f"{path}: {keyword} is {tags.shown(dataset, keyword)!r}; expected one whole number")
