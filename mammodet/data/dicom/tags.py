"""Read single values of a DICOM header, however they are written: text, numbers, side, view, spacing.

Optional values that are missing, empty or nonsense are None here. Values that decide what a pixel means are not read
by these functions but by those that refuse nonsense.
"""

import math
import re
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from mammodet.data.dicom.file import quiet

#: PS3.16 CID 4014 "View for Mammography": the ACR's short name, its SCT code and the SNOMED-RT code that this replaced.
_VIEW_CODES = {
    "ML": ("399260004", "R-10224"),
    "MLO": ("399368009", "R-10226"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "CC": ("399162004", "R-10242"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "SPECIMEN": ("127457009", "G-8310"),
}
VIEW_OF_CODE = {code: name for name, codes in _VIEW_CODES.items() for code in codes}
#: CID 4014 and the views that CID 4015 counts as modifiers but vendors write as views.
VIEWS = (*_VIEW_CODES, "AT", "CV", "RL", "RM", "TAN")
# Of free text only what means nothing else: "at" and "iso" are words, "ml" is a volume unless a side stands before it.
_FREE_TEXT_VIEWS = ("CC", "MLO", "LMO", "XCCL", "XCCM", "SIO")
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}

_PROCESSING_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # digital X-ray, for processing
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # digital mammography, for processing
}
_DIGITAL_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.2",  # digital mammography, for presentation
    *_PROCESSING_CLASSES,
}
_CAPTURE_CLASSES = {"1.2.840.10008.5.1.4.1.1.7"} | {f"1.2.840.10008.5.1.4.1.1.7.{kind}" for kind in range(1, 5)}
# Conversion Types (C.8.6.1) of a capture that tell nothing of film: digital interface, video, drawing, synthetic.
_NOT_FILM = {"DI", "DV", "DRW", "SYN"}


def raw_bytes(dataset: Dataset, keyword: str) -> bytes | None:
    """Bytes of an element as the file holds them, None where it is missing or its kind has none."""
    element = dataset.get_item(keyword, keep_deferred=True) if keyword in dataset else None
    value = element.value if isinstance(element, RawDataElement) else None
    return value if isinstance(value, bytes) else None


def value(dataset: Dataset, keyword: str) -> Any:
    """Converted value; None where it is missing, empty, or cannot be converted."""
    if keyword not in dataset:
        return None
    try:
        with quiet:
            found = dataset[keyword].value
    except Exception:  # pydicom's converters raise whatever hostile bytes lead them to
        return None
    return None if found is None or (hasattr(found, "__len__") and len(found) == 0) else found


def shown(dataset: Dataset, keyword: str) -> str:
    """A value for an error message, short and printable, even where it cannot be converted."""
    raw = raw_bytes(dataset, keyword)
    found = value(dataset, keyword)
    if found is None:
        found = raw if raw else "nothing"
    text = found.decode("latin-1") if isinstance(found, bytes) else str(found)
    text = clean(text) or "nothing"
    return text if len(text) <= 60 else text[:57] + "..."


def clean(text: str) -> str | None:
    """Text without the padding, NULs, control characters and half characters of files; None where nothing is left."""
    return "".join(letter if letter.isprintable() else " " for letter in text.replace("\0", "")).strip() or None


def text(dataset: Dataset, keyword: str) -> str | None:
    """Text of an element; several values are joined by a backslash, as the file has them."""
    found = value(dataset, keyword)
    if found is None:
        # A patient id must not vanish for a broken character set: patients are kept apart by it.
        found = raw_bytes(dataset, keyword)
    if found is None or isinstance(found, Dataset):
        return None
    if isinstance(found, bytes):
        return clean(found.decode("latin-1"))
    if isinstance(found, (list, tuple, MultiValue)):
        return clean("\\".join(str(part) for part in found))
    return clean(str(found))


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Every number of an element; one that cannot be read is NaN; none where the element is missing or empty."""
    found = value(dataset, keyword)
    if found is None:
        return [math.nan] if raw_bytes(dataset, keyword) else []
    parts = found if isinstance(found, (list, tuple, MultiValue)) else [found]
    return [_number(part) for part in parts]


def _number(part: Any) -> float:
    try:
        return float(part)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence, none where it is missing or is no sequence."""
    found = value(dataset, keyword)
    if found is None or isinstance(found, (str, bytes)):
        return []
    try:
        return [item for item in found if isinstance(item, Dataset)]
    except TypeError:
        return []


def laterality(dataset: Dataset) -> str | None:
    """`L` or `R` by Image Laterality, Laterality, or Frame Laterality; None where they say neither.

    Image and Frame Laterality are of this image; where they contradict each other, neither counts. Patient Orientation
    is not asked: it tells where the rows and columns point, not which breast it is.
    """
    image, series, frame = (
        _SIDES.get((text(dataset, keyword) or "").upper())
        for keyword in ("ImageLaterality", "Laterality", "FrameLaterality")
    )
    return None if {image, frame} == {"L", "R"} else image or series or frame


def view(dataset: Dataset) -> str | None:
    """The view's short name.

    In this order: View Position (one that is not known here is given as it stands); View Code Sequence (CID 4014);
    Patient Orientation where it literally is a view, as in CBIS-DDSM; then Series Description, Protocol Name and
    Acquisition Device Processing Description where the text names one view ("R CC", "LMLO", "MAMMO RIGHT MLO").
    """
    position = text(dataset, "ViewPosition")
    if position:
        return _view_of_word(position) or position.upper()
    for item in items(dataset, "ViewCodeSequence"):
        code = text(item, "CodeValue")
        if code in VIEW_OF_CODE:
            return VIEW_OF_CODE[code]
    orientation = text(dataset, "PatientOrientation")
    if orientation and orientation.upper() in ("CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "SIO", "ISO", "AT"):
        return orientation.upper()
    for keyword in ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"):
        found = _view_of_text(text(dataset, keyword) or "")
        if found:
            return found
    return None


def _view_of_word(word: str) -> str | None:
    """View of one word, with or without a side before it: `MLO`, `R-MLO`, `LCC`."""
    letters = re.sub(r"[^A-Z]", "", word.upper())
    for candidate in (letters, re.sub(r"^(LEFT|RIGHT|L|R)", "", letters)):
        if candidate in VIEWS:
            return candidate
    return None


def _view_of_text(said: str) -> str | None:
    words = re.findall(r"[A-Z]+", said.upper())
    found = set()
    for before, word in zip([None, *words], words, strict=False):
        bare = word[1:] if word[:1] in ("L", "R") and word not in VIEWS else word
        sided = before in _SIDES or bare != word
        if bare in _FREE_TEXT_VIEWS or (sided and bare in ("ML", "LM")):
            found.add(bare)
    return found.pop() if len(found) == 1 else None


def origin(dataset: Dataset) -> str | None:
    """`digital` for detectors and plates, `film` for scanned film and other secondary captures, None where unsaid."""
    kind = text(dataset, "SOPClassUID")
    conversion = (text(dataset, "ConversionType") or "").upper()
    if kind in _DIGITAL_CLASSES:
        return "film" if conversion == "DF" else "digital"
    if kind in _CAPTURE_CLASSES:
        return None if conversion in _NOT_FILM else "film"
    return "film" if conversion == "DF" else None


def is_for_processing(dataset: Dataset) -> bool:
    """By Presentation Intent Type or the SOP Class: pixels before the maker's software has made a picture of them."""
    intent = (text(dataset, "PresentationIntentType") or "").upper()
    return intent == "FOR PROCESSING" or text(dataset, "SOPClassUID") in _PROCESSING_CLASSES


def spacing(dataset: Dataset, made: str | None) -> tuple[float, float] | None:
    """Distance (row, column) of pixel centres in mm, as the file states it; None where it states none or nonsense.

    Of film, Nominal Scanned Pixel Spacing comes first; else Imager Pixel Spacing, which is measured at the detector:
    the breast lies nearer to the tube, so that things are smaller in it by the magnification factor.
    """
    order = ["ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"]
    for keyword in reversed(order) if made == "film" else order:
        found = numbers(dataset, keyword)
        if len(found) == 2 and all(math.isfinite(side) and side > 0 for side in found):
            return found[0], found[1]
    return None


def factor(dataset: Dataset, keyword: str) -> float | None:
    """One positive number, or None."""
    found = numbers(dataset, keyword)
    return found[0] if len(found) == 1 and math.isfinite(found[0]) and found[0] > 0 else None
