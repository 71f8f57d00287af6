"""The pixels of an archive's image: its own file referred to, or a PNG with the traced crop and size."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydicom.uid import UID

from mammodet.converters.base import ARCHIVE_LINK
from mammodet.converters.options import flag
from mammodet.data.breast import find_breast
from mammodet.data.dicom import DicomHeader, read_dicom, read_header
from mammodet.data.images import Pixels, is_dicom, read_image, read_size_hw, write_png
from mammodet.errors import InputError
from mammodet.geometry import clip_boxes
from mammodet.records import BoxXYXY, ImageRecord
from mammodet.trace import Trace

DEFAULT_MAX_SIZE = 2048
_PIXELS_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pydantic_dataclass(frozen=True)
class SizeOptions:
    """How large images are; nothing is enlarged."""

    file_format: str = "png16"
    max_size: int | None = flag(
        None,
        "longest side of the images; larger ones are reduced; 0 keeps the archive's size",
        metavar="PX",
        words=f"{DEFAULT_MAX_SIZE}; with --format reference 0",
    )

    def __post_init__(self) -> None:
        if self.max_size and self.max_size < 16:
            raise InputError(f"--max-size {self.max_size}: expected at least 16 px, or 0 for the archive's size")
        if self.max_size and self.file_format == "reference":
            raise InputError("--max-size: --format reference refers to the archive's own files; use --format png16")

    @property
    def longest_side(self) -> int | None:
        """Of the images that are written; None keeps the archive's."""
        usual = 0 if self.file_format == "reference" else DEFAULT_MAX_SIZE
        return (usual if self.max_size is None else self.max_size) or None


@pydantic_dataclass(frozen=True)
class PixelOptions(SizeOptions):
    """What the pixels of an image become."""

    file_format: Literal["reference", "png16"] = flag(
        "reference",
        "'reference': no copies, the data set links to the archive's files; 'png16': decoded through the files' "
        "windows, tissue bright",
        name="format",
    )
    crop: bool = flag(False, "cut the images to the breast (with --format png16)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop and self.file_format == "reference":
            raise InputError("--crop: --format reference refers to the archive's own files; use --format png16")


@dataclass(frozen=True, slots=True)
class Taken:
    """An image file as the data set has it."""

    record: ImageRecord  #: what its file says: name, size, spacing, breast box
    header: DicomHeader | None  #: None where it is no DICOM file
    trace: Trace  #: from the archive's pixels to those of `record`


def take_image(
    path: Path,
    source: Path,
    output: Path,
    options: PixelOptions,
    *,
    number: int,
    name: str,
    read: Callable[[], Pixels] | None = None,
) -> Taken:
    """Refer to a file, of which the header alone is read, or write it as a PNG.

    Args:
        number: the record's image id.
        name: of the PNG in `images`, without suffix.
        read: reads a file that `read_image` does not; it cannot be referred to.
    Raises:
        InputError: the file cannot be read.
    """
    if options.file_format == "reference":
        file_name = f"{ARCHIVE_LINK}/{path.relative_to(source).as_posix()}"
        if not is_dicom(path):
            size_hw = read_size_hw(path)
            return Taken(ImageRecord(number, file_name, size_hw), None, Trace(size_hw))
        header = read_header(path)
        _check_end(path, header)
        record = ImageRecord(number, file_name, header.size_hw, spacing_mm_rc=header.spacing_mm_rc)
        return Taken(record, header, Trace(header.size_hw))
    cv2.setNumThreads(1)  # the processes share the cores already
    return _write(path, output / "images", options, number, name, read)


def _check_end(path: Path, header: DicomHeader) -> None:
    """Refuse a file that was cut short within its pixels, which would otherwise stop a training halfway.

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


def _write(
    path: Path, images: Path, options: PixelOptions, number: int, name: str, read: Callable[[], Pixels] | None
) -> Taken:
    header: DicomHeader | None = None
    if read is not None:
        pixels = read()
    elif is_dicom(path):
        pixels, header = read_dicom(path)
    else:
        pixels = read_image(path)
    box = find_breast(pixels).box_xyxy
    trace = _plan(pixels, box, options)
    write_png(images / f"{name}.png", trace.image_forward(pixels))
    scale_xy = trace.affine()[0]
    ((x1, y1, x2, y2),) = clip_boxes(trace.boxes_forward([box]), trace.output_size_hw).tolist()
    spacing = header.spacing_mm_rc if header else None
    record = ImageRecord(
        number,
        f"images/{name}.png",
        trace.output_size_hw,
        spacing_mm_rc=(spacing[0] / float(scale_xy[1]), spacing[1] / float(scale_xy[0])) if spacing else None,
        breast_box_xyxy=(x1, y1, x2, y2),
        trace=trace.to_json() if trace.steps else None,
    )
    return Taken(record, header, trace)


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


def said(header: DicomHeader | None) -> dict[str, str]:
    """What a header claims: `patient`, `laterality`, `view`."""
    if header is None:
        return {}
    said = {"patient": header.patient_id, "laterality": header.laterality, "view": header.view}
    return {name: value for name, value in said.items() if value}


def kinds(path: Path, header: DicomHeader | None) -> dict[str, str]:
    """How a file is made, for counts: `transfer syntax`, `photometric`, `window`, `bits stored`."""
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
