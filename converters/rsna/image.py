"""One image of the RSNA archive: what its file says, its pixels, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
from mammodet.converters.base import ARCHIVE_LINK
from mammodet.converters.options import Flag
from mammodet.converters.rsna.table import ImageRow
from mammodet.converters.skeleton import Made, refused
from pydicom.uid import UID

from mammodet.data.breast import find_breast
from mammodet.data.dicom import DicomHeader, read_dicom, read_header
from mammodet.data.images import Pixels, is_dicom, read_image, read_size_hw, write_png
from mammodet.errors import InputError
from mammodet.geometry import clip_boxes
from mammodet.records import BoxXYXY, ImageRecord
from mammodet.trace import Trace

DEFAULT_MAX_SIZE = 2048
_PIXELS_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class PixelOptions:
    """What the pixels of an image become; nothing is enlarged."""

    file_format: Annotated[
        Literal["reference", "png16"],
        Flag(
            "'reference': no copies, the data set links to the archive's files; 'png16': decoded through the files' "
            "windows, tissue bright",
            name="format",
        ),
    ] = "reference"
    max_size: Annotated[
        int | None,
        Flag(
            "longest side of the images; larger ones are reduced; 0 keeps the archive's size",
            metavar="PX",
            default=f"{DEFAULT_MAX_SIZE}; with --format reference 0",
        ),
    ] = None
    crop: Annotated[bool, Flag("cut the images to the breast (with --format png16)")] = False

    def __post_init__(self) -> None:
        if self.max_size and self.max_size < 16:
            raise InputError(f"--max-size {self.max_size}: expected at least 16 px, or 0 for the archive's size")
        for name, given in (("--max-size", self.max_size), ("--crop", self.crop)):
            if given and self.file_format == "reference":
                raise InputError(f"{name}: --format reference refers to the archive's own files; use --format png16")

    @property
    def longest_side(self) -> int | None:
        """Of the images that are written; None keeps the archive's."""
        return (DEFAULT_MAX_SIZE if self.max_size is None else self.max_size) or None


def convert_image(row: ImageRow, path: Path, source: Path, output: Path, options: PixelOptions) -> Made:
    """Read a file, its header alone where nothing is written.

    The record has what the file says; `facts`: `said`, what the header claims (`patient`, `laterality`, `view`), and
    `kinds`, how the file is made, for counts (`transfer syntax`, `photometric`, `window`, `bits stored`).
    """
    try:
        if options.file_format == "reference":
            record, header = _refer(row, path, source)
        else:
            cv2.setNumThreads(1)  # the processes share the cores already
            record, header = _write(row, path, output, options)
    except InputError as error:
        name = path.relative_to(source).as_posix()
        return refused("image", row.name, str(error).replace(str(path), name), name)
    return Made(record, facts={"said": _said(header) if header else {}, "kinds": _kinds(path, header)})


def _refer(row: ImageRow, path: Path, source: Path) -> tuple[ImageRecord, DicomHeader | None]:
    file_name = f"{ARCHIVE_LINK}/{path.relative_to(source).as_posix()}"
    if not is_dicom(path):
        return ImageRecord(row.image, file_name, read_size_hw(path)), None
    header = read_header(path)
    _check_end(path, header)
    return ImageRecord(row.image, file_name, header.size_hw, spacing_mm_rc=header.spacing_mm_rc), header


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


def _write(row: ImageRow, path: Path, output: Path, options: PixelOptions) -> tuple[ImageRecord, DicomHeader | None]:
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
    record = ImageRecord(
        row.image,
        file_name,
        size_hw,
        spacing_mm_rc=(spacing[0] / float(scale_xy[1]), spacing[1] / float(scale_xy[0])) if spacing else None,
        breast_box_xyxy=(x1, y1, x2, y2),
        trace=trace.to_json() if trace.steps else None,
    )
    return record, header


def _plan(pixels: Pixels, box_xyxy: BoxXYXY, options: PixelOptions) -> Trace:
    """From the archive's pixels to those that are written."""
    height, width = pixels.shape
    trace = Trace((height, width))
    if options.crop:
        x1, y1, x2, y2 = (int(side) for side in box_xyxy)
        if (x2 - x1, y2 - y1) != (width, height):
            trace = trace.then("crop", x1, y1, x2 - x1, y2 - y1)
    height, width = trace.output_size_hw
    if options.longest_side and max(height, width) > options.longest_side:
        scale = options.longest_side / max(height, width)
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


def contradictions(row: ImageRow, said: Mapping[str, str]) -> dict[str, str]:
    """What the header says otherwise than the table, which is believed: `patient`, `laterality` or `view` to a line."""
    table = {"patient": str(row.patient), "laterality": row.laterality, "view": row.view}
    return {
        name: f"{row.name} ({word} in the header, {table[name]} in the table)"
        for name, word in said.items()
        # An id that is no number is a pseudonym of another scheme, and says nothing.
        if table[name] is not None and word != table[name] and (name != "patient" or word.isdecimal())
    }
