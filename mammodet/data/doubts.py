"""What speaks against an image being a mammogram that a model can judge: a model scores whatever it is shown."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodet.data.domain import Domain
from mammodet.data.guard import DOUBTED, LEAST, REFUSED, mammogram_probability, measure
from mammodet.data.images import Pixels, is_dicom, read_pixels, to_grey
from mammodet.errors import InputError
from mammodet.records import ImageRecord

_COLOURED = 0.02  # share of pixels whose channels differ by an eighth of the scale


@dataclass(frozen=True, slots=True)
class Stored:
    """What an image's file says, beside its pixels."""

    #: why its scores may mean little, or its pixels name the patient.
    warnings: list[str] = field(default_factory=list)
    coloured: bool = False  #: whether it is a colour picture
    mammography: bool = False  #: whether a DICOM header says that it is a mammogram
    origin: str | None = None  #: `digital`, `film`, or None where that is not known


def read_stored(path: Path) -> tuple[Pixels, Stored]:
    """An image as `read_image` gives it, and what its file says. Raises InputError: as `read_image`."""
    if is_dicom(path):
        from mammodet.data.dicom import read_dicom  # here, since importing pydicom takes longer than reading a PNG

        pixels, header = read_dicom(path)
        warnings = ["its pixels are for processing, not for presentation"] if header.for_processing else []
        if header.burned_in:
            warnings.append("its pixels hold text that may name the patient (Burned In Annotation)")
        return pixels, Stored(warnings, mammography=header.modality == "MG", origin=header.origin)
    stored = read_pixels(path)
    return to_grey(stored), Stored(coloured=_is_coloured(stored))


def _is_coloured(stored: Pixels) -> bool:
    if stored.ndim == 2 or stored.shape[2] < 3:
        return False
    spread = np.ptp(stored[..., :3], axis=2)
    return bool(np.mean(spread > np.iinfo(stored.dtype).max / 8) > _COLOURED)


def doubts_of(
    pixels: Pixels, stored: Stored, record: ImageRecord, domain: Domain | None = None, *, force: bool = False
) -> list[str]:
    """Why the scores of grey pixels (H, W) may mean little.

    Args:
        record: of the image; a data set that answers for it vouches for its being a mammogram.
        domain: of the model's training images; None of older checkpoints. A model that was trained on what is refused
            here, as on patches, refuses nothing.
        force: warn of what is no mammogram, instead of refusing it.
    Raises:
        InputError: it is no mammogram with tissue bright.
    """
    height, width = pixels.shape
    warnings, reason, measured = list(stored.warnings), None, None
    if max(height, width) < LEAST:
        reason = f"is {height}x{width} pixels small"
    elif np.ptp(pixels) == 0:
        reason = "is empty: all pixels are equal"
    else:
        measured = measure(pixels)
        reason = "is a colour picture" if stored.coloured else None
        reason = reason or _no_mammogram(pixels, measured, stored, warnings)
    if reason is not None:
        if not (force or record.has_answers or (domain is not None and domain.is_other)):
            raise InputError(
                f"{record.file_name}: {reason}. It is refused (docs/images.md); predict it all the same with --force, "
                "in Python force=True"
            )
        warnings.append(reason)
    if domain is not None and measured is not None:
        warnings += domain.doubts(measured, record.spacing_mm_rc, stored.origin)
    return warnings


def _no_mammogram(pixels: Pixels, measured: NDArray[np.float64], stored: Stored, warnings: list[str]) -> str | None:
    """Why an image is refused; what is doubted alone is added to the warnings."""
    probability = mammogram_probability(measured)
    if probability >= DOUBTED:
        return None
    if mammogram_probability(measure(np.bitwise_not(pixels))) > 0.5:
        return "its background is brighter than the breast: is it inverted? Invert it"
    if stored.mammography:
        return None
    reason = f"looks like no mammogram (probability {probability:.2g})"
    if probability < REFUSED:
        return reason
    warnings.append(reason)
    return None
