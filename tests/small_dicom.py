"""Small DICOM files for tests: written by pydicom, compressed by OpenCV, pydicom and an encoder of our own."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"  # Digital Mammography X-Ray Image Storage - For Presentation


def image(pixels: NDArray[Any], bits: int | None = None, **elements: Any) -> Dataset:
    """A data set of a mammogram; `elements` by keyword replace or add, None leaves one out."""
    dataset = Dataset()
    bits = bits or pixels.itemsize * 8
    values: dict[str, Any] = {
        "SOPClassUID": MAMMOGRAM,
        "SOPInstanceUID": "1.2.3",
        "PatientID": "P1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": pixels.itemsize * 8,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
        **elements,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def save(path: Path, dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, *, header: bool = True) -> Path:
    """Write a data set as it is, whatever it says; without preamble and file meta information where told so."""
    if header:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = MAMMOGRAM
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return path


def compressed(dataset: Dataset, frame: bytes, fragments: int = 1) -> Dataset:
    """The data set with a ready-made frame for pixels."""
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def jpeg_baseline(pixels: NDArray[Any]) -> bytes:
    """An 8-bit grey JPEG of full quality."""
    good, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert good
    return content.tobytes()


def jpeg_lossless(pixels: NDArray[Any], bits: int, *, predictor: int = 1, pvrg: bool = False) -> bytes:
    """A lossless JPEG (ITU-T T.81 annex H, process 14) of any prediction: 1 is the left, 2 the upper neighbour.

    Args:
        pvrg: as Stanford's coder writes it, which predicts the first row from one of the middle value, too.
    """
    values = pixels.astype(np.int64)
    if pvrg:
        values = np.vstack([np.full_like(values[:1], 1 << bits - 1), values])
    predicted = np.empty_like(values)
    left, up, corner = values[1:, :-1], values[:-1, 1:], values[:-1, :-1]
    predicted[1:, 1:] = [
        left,
        up,
        corner,
        left + up - corner,
        left + (up - corner >> 1),
        up + (left - corner >> 1),
        left + up >> 1,
    ][predictor - 1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 1:] = values[0, :-1]
    predicted[0, 0] = 1 << bits - 1
    differences = (values - predicted + 32768) % 65536 - 32768  # modulo 2**16, H.1.2.1
    differences = differences[-len(pixels) :]
    text = []
    for difference in differences.ravel().tolist():
        category = 16 if difference == -32768 else abs(difference).bit_length()
        text.append(f"{category:05b}")  # every category's code has five bits
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            text.append(f"{extra:0{category}b}")
    stream = "".join(text)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    return (
        b"\xff\xd8"
        + _segment(0xC3, struct.pack(">BHHB3B", bits, *pixels.shape, 1, 1, 0x11, 0))
        + _segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17)))
        + _segment(0xDA, bytes([1, 1, 0, predictor, 0, 0]))
        + scan
        + b"\xff\xd9"
    )


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def j2k_lossless(pixels: NDArray[Any], bits: int) -> bytes:
    """A lossless JPEG 2000 stream; the encoder takes no image below 32 pixels a side."""
    dataset = image(pixels, bits)
    dataset.compress(JPEG2000Lossless, pixels, encoding_plugin="pylibjpeg")
    return next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
