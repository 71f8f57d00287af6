"""One image of the RSNA archive: what its file says, its pixels, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from mammodet.converters.base import ARCHIVE_LINK, Quarantined
from mammodet.converters.rsna.table import ImageRow
from pydicom.uid import UID

from mammodet.data.breast import find_breast
from mammodet.data.dicom import DicomHeader, read_dicom, read_header
from mammodet.data.images import Pixels, is_dicom, read_image, read_size_hw, write_png
from mammodet.errors import InputError
from mammodet.geometry import clip_boxes
from mammodet.records import BoxXYXY, ImageRecord
from mammodet.trace import Trace

#: Name of the link to the archive in a data set that refers to the archive's own files.
_PIXELS_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class PixelOptions:
    """What the pixels of an image become.

    Attributes:
        file_format: `reference` (no copy) or `png16` (through the file's window, tissue bright, lossless from there).
        max_size: longest side of the written image in pixels; None keeps the archive's size. Nothing is enlarged.
        crop: whether it is cut to the breast.
    """

    file_format: str = "reference"
    max_size: int | None = None
    crop: bool = False


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a file says of itself, and what was written of it; only what JSON can hold.

    Attributes:
        file_name, size_hw, spacing_mm_rc, breast_box_xyxy, trace: as in `ImageRecord`.
        said: what the header claims: `patient`, `laterality`, `view`; none of an image file.
        kinds: how the file is made, for counts: `transfer syntax`, `photometric`, `window`, `bits stored`.
    """

    file_name: str
    size_hw: tuple[int, int]
    spacing_mm_rc: tuple[float, float] | None
    breast_box_xyxy: BoxXYXY | None
    trace: Mapping[str, Any] | None
    said: Mapping[str, str]
    kinds: Mapping[str, str]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ImageFacts:
        """The inverse of `dataclasses.asdict` and JSON."""
        lists = {name: tuple(value[name]) if value[name] else None for name in ("spacing_mm_rc", "breast_box_xyxy")}
        return ImageFacts(**{**value, **lists, "size_hw": tuple(value["size_hw"])})


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What the rows mean.

    Attributes:
        negatives: whose `tumor` is 0: `all` without cancer, or of those only `birads1` (a negative reading).
        labelled: whether the table has labels at all.
        source_name, patient_prefix: what the records say of their origin.
    """

    negatives: str = "all"
    labelled: bool = True
    source_name: str = "RSNA"
    patient_prefix: str = "rsna_"


def convert_image(row: ImageRow, path: Path, source: Path, output: Path, options: PixelOptions) -> ImageFacts | str:
    """Read a file, its header alone where nothing is written; a file that cannot be used gives the reason."""
    try:
        if options.file_format == "reference":
            return _refer(path, source)
        cv2.setNumThreads(1)  # the processes share the cores already
        return _write(row, path, output, options)
    except InputError as error:
        return str(error)


def _refer(path: Path, source: Path) -> ImageFacts:
    file_name = f"{ARCHIVE_LINK}/{path.relative_to(source).as_posix()}"
    if not is_dicom(path):
        return ImageFacts(file_name, read_size_hw(path), None, None, None, {}, _kinds(path, None))
    header = read_header(path)
    _check_end(path, header)
    return ImageFacts(file_name, header.size_hw, header.spacing_mm_rc, None, None, _said(header), _kinds(path, header))


def _check_end(path: Path, header: DicomHeader) -> None:
    """Refuse a file that was cut short within its pixels, which else would end a training in its midst.

    Of compressed pixels the mark of their end (PS3.5 A.4) is looked for; nothing but padding may follow it.
    """
    syntax = UID(header.transfer_syntax)
    size = path.stat().st_size
    height, width = header.size_hw
    least = height * width * (2 if header.bits_stored > 8 else 1)
    if not (syntax.is_encapsulated or syntax.is_deflated) and size < least:
        raise InputError(f"{path}: is cut short: {size} bytes cannot hold {height} rows x {width} columns")
    if not syntax.is_encapsulated:
        return
    try:
        with open(path, "rb") as file:
            for most in (4096, 2**20):
                file.seek(max(size - most, 0))
                if _PIXELS_END in file.read(most):
                    return
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    raise InputError(f"{path}: is cut short: the compressed pixel data have no end")


def _write(row: ImageRow, path: Path, output: Path, options: PixelOptions) -> ImageFacts:
    header: DicomHeader | None = None
    if is_dicom(path):
        pixels, header = read_dicom(path)
    else:
        pixels = read_image(path)
    box = find_breast(pixels).box_xyxy
    trace = _plan(pixels, box, options)
    stored = trace.image_forward(pixels)
    file_name = f"images/{row.patient}/{row.image}.png"
    write_png(output / file_name, stored)
    size_hw = trace.output_size_hw
    scale_xy = trace.affine()[0]
    ((x1, y1, x2, y2),) = clip_boxes(trace.boxes_forward([box]), size_hw).tolist()
    spacing = header.spacing_mm_rc if header else None
    return ImageFacts(
        file_name=file_name,
        size_hw=size_hw,
        spacing_mm_rc=(spacing[0] / float(scale_xy[1]), spacing[1] / float(scale_xy[0])) if spacing else None,
        breast_box_xyxy=(x1, y1, x2, y2),
        trace=trace.to_json() if trace.steps else None,
        said=_said(header) if header else {},
        kinds=_kinds(path, header),
    )


def _plan(pixels: Pixels, box_xyxy: BoxXYXY, options: PixelOptions) -> Trace:
    """From the archive's pixels to those that are written."""
    height, width = pixels.shape
    trace = Trace((height, width))
    if options.crop:
        x1, y1, x2, y2 = (int(side) for side in box_xyxy)
        if (x2 - x1, y2 - y1) != (width, height):
            trace = trace.then("crop", x1, y1, x2 - x1, y2 - y1)
    height, width = trace.output_size_hw
    if options.max_size and max(height, width) > options.max_size:
        scale = options.max_size / max(height, width)
        trace = trace.then("resize", max(round(height * scale), 1), max(round(width * scale), 1))
    return trace


def _said(header: DicomHeader) -> dict[str, str]:
    said = {"patient": header.patient_id, "laterality": header.laterality, "view": header.view}
    return {name: value for name, value in said.items() if value}


def _kinds(path: Path, header: DicomHeader | None) -> dict[str, str]:
    if header is None:
        return {"transfer syntax": f"none ({path.suffix.lower()[1:]})", "photometric": "none (image file)"}
    functions = [window.function for window in header.windows]
    window = f"{functions[0]}{f' (first of {len(functions)})' if len(functions) > 1 else ''}" if functions else "none"
    return {
        "transfer syntax": UID(header.transfer_syntax).name,
        "photometric": header.photometric,
        "window": window,
        "bits stored": str(header.bits_stored),
    }


def contradictions(row: ImageRow, facts: ImageFacts) -> dict[str, str]:
    """What the header says otherwise than the table, which is believed: `patient`, `laterality` or `view` to a line."""
    table = {"patient": str(row.patient), "laterality": row.laterality, "view": row.view}
    return {
        name: f"{row.name} ({said} in the header, {table[name]} in the table)"
        for name, said in facts.said.items()
        # An id that is no number is a pseudonym of another scheme, and says nothing.
        if table[name] is not None and said != table[name] and (name != "patient" or said.isdecimal())
    }


def make_record(row: ImageRow, facts: ImageFacts, options: RecordOptions) -> ImageRecord:
    """The record of an image; one of a breast with cancer is `unlocalized`: where the cancer is, nobody says."""
    return ImageRecord(
        image_id=row.image,
        file_name=facts.file_name,
        size_hw=facts.size_hw,
        patient_id=f"{options.patient_prefix}{row.patient}",
        laterality=row.laterality,
        view=row.view,
        density=row.density,
        birads=row.birads,
        labels=_labels(row, options),
        source=options.source_name,
        spacing_mm_rc=facts.spacing_mm_rc,
        breast_box_xyxy=facts.breast_box_xyxy,
        trace=facts.trace,
        unlocalized=row.cancer == 1,
        notes=_notes(row, options),
    )


def _labels(row: ImageRow, options: RecordOptions) -> dict[str, int | None]:
    """`tumor`, `malignant`, and what else the archive says by 0 and 1; of a table without labels, that nothing is."""
    if not options.labelled:
        return {"tumor": None, "malignant": None}
    tumor = row.cancer
    if row.cancer == 0 and options.negatives == "birads1" and row.birads != "1":
        tumor = None  # a benign tumor may be there
    return {
        "tumor": tumor,
        "malignant": row.cancer,
        "biopsy": row.biopsy,
        "invasive": row.invasive,
        "implant": row.implant,
        "difficult_negative_case": row.difficult_negative,
    }


def _notes(row: ImageRow, options: RecordOptions) -> tuple[str, ...]:
    facts = {"age": row.age, "site": row.site, "machine": row.machine}
    if not options.labelled:
        facts["implant"] = row.implant
    return tuple(f"{name} {value:g}" for name, value in facts.items() if value is not None)


def quarantined(row: ImageRow, path: Path, source: Path, reason: str) -> Quarantined:
    """An image whose file cannot be used."""
    name = path.relative_to(source).as_posix()
    return Quarantined("image", row.name, reason.replace(str(path), name), name)
