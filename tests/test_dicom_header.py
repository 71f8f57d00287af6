"""What a DICOM header says of its image, and what is refused, with its message."""

from __future__ import annotations

import logging
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from small_dicom import MAMMOGRAM, compressed, image, j2k_lossless, jpeg_baseline, jpeg_lossless, save

from mammodet.data.dicom import DicomHeader, read_dicom, read_header, read_stored
from mammodet.data.dicom.file import quiet
from mammodet.errors import InputError

# Of pydicom, which is told to write nonsense.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")

EIGHT = np.arange(64, dtype=np.uint8).reshape(8, 8)
TWELVE = (np.arange(1280, dtype=np.uint16) * 3).reshape(32, 40)  # JPEG 2000 is not written smaller
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def header(tmp_path: Path, **elements: object) -> DicomHeader:
    return read_header(save(tmp_path / "x.dcm", image(EIGHT, **elements)))


def code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    return item


def frame_anatomy(side: str) -> Dataset:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    group.FrameAnatomySequence = [anatomy]
    return group


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ImageLaterality": "L"}, "L"),
        ({"Laterality": "R"}, "R"),
        ({"FrameLaterality": "L"}, "L"),
        ({"SharedFunctionalGroupsSequence": [frame_anatomy("R")]}, "R"),
        ({"ImageLaterality": "L", "Laterality": "R"}, "L"),
        ({"ImageLaterality": "", "Laterality": "R "}, "R"),
        ({"ImageLaterality": "L", "SharedFunctionalGroupsSequence": [frame_anatomy("R")]}, None),
        ({"Laterality": "L", "SharedFunctionalGroupsSequence": [frame_anatomy("R")]}, "L"),
        ({"ImageLaterality": "B"}, None),
        ({"PatientOrientation": ["L", "F"]}, None),
        ({}, None),
    ],
)
def test_laterality_by_its_tags_in_order(tmp_path, elements, expected):
    assert header(tmp_path, **elements).laterality == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ViewPosition": "MLO"}, "MLO"),
        ({"ViewPosition": "R-CC"}, "CC"),
        ({"ViewPosition": "LMLO"}, "MLO"),
        ({"ViewPosition": "LMO"}, "LMO"),
        ({"ViewPosition": "xccl"}, "XCCL"),
        ({"ViewPosition": "AT"}, "AT"),
        ({"ViewPosition": "OBLIQUE 7"}, "OBLIQUE 7"),
        ({"ViewPosition": "CC", "ViewCodeSequence": [code("R-10226")]}, "CC"),
        ({"ViewCodeSequence": [code("R-10226")]}, "MLO"),
        ({"ViewCodeSequence": [code("399162004")]}, "CC"),
        ({"ViewCodeSequence": [code("R-10224")]}, "ML"),
        ({"ViewCodeSequence": [code("7")], "PatientOrientation": "MLO"}, "MLO"),
        ({"PatientOrientation": ["A", "R"], "SeriesDescription": "R CC"}, "CC"),
        ({"SeriesDescription": "LMLO"}, "MLO"),
        ({"ProtocolName": "MAMMO, RIGHT ML"}, "ML"),
        ({"AcquisitionDeviceProcessingDescription": "L XCCL"}, "XCCL"),
        ({"SeriesDescription": "CC and MLO"}, None),
        ({"SeriesDescription": "look at 20 ml"}, None),
        ({"SeriesDescription": "cropped images"}, None),
        ({}, None),
    ],
)
def test_view_by_its_tags_in_order(tmp_path, elements, expected):
    assert header(tmp_path, **elements).view == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ImagerPixelSpacing": [0.07, 0.08], "PixelSpacing": [1, 2]}, (0.07, 0.08)),
        ({"PixelSpacing": [1, 2]}, (1, 2)),
        ({"NominalScannedPixelSpacing": [0.05, 0.05]}, (0.05, 0.05)),
        ({"SOPClassUID": CAPTURE, "PixelSpacing": [1, 2], "NominalScannedPixelSpacing": [0.05, 0.06]}, (0.05, 0.06)),
        ({"ImagerPixelSpacing": [0, 0], "PixelSpacing": [1, 2]}, (1, 2)),
        ({"ImagerPixelSpacing": [-1, 1]}, None),
        ({"ImagerPixelSpacing": [0.07]}, None),
        ({"ImagerPixelSpacing": [1, 1, 1]}, None),
        ({}, None),
    ],
)
def test_spacing_is_stated_or_none(tmp_path, elements, expected):
    assert header(tmp_path, **elements).spacing_mm_rc == expected


@pytest.mark.parametrize(
    ("kind", "conversion", "expected"),
    [
        (MAMMOGRAM, None, "digital"),
        ("1.2.840.10008.5.1.4.1.1.1.2.1", None, "digital"),
        ("1.2.840.10008.5.1.4.1.1.1", None, "digital"),
        (CAPTURE, "WSD", "film"),
        (CAPTURE, "DF", "film"),
        (CAPTURE, None, "film"),
        (CAPTURE, "DI", None),
        ("1.2.840.10008.5.1.4.1.1.4", None, None),
        (None, None, None),
    ],
)
def test_origin_by_class_and_conversion(tmp_path, kind, conversion, expected):
    assert header(tmp_path, SOPClassUID=kind, ConversionType=conversion).origin == expected


def test_texts_are_cleaned_and_the_rest_is_kept(tmp_path):
    got = header(
        tmp_path,
        PatientID=" P 1\0 ",
        StudyInstanceUID="1.2.\0",
        Manufacturer="  ",
        ManufacturerModelName="A\\B",
        Modality="MG",
        SeriesInstanceUID="not a uid",
        PresentationIntentType="FOR PRESENTATION",
        EstimatedRadiographicMagnificationFactor="1.5",
        SpecificCharacterSet="ISO_IR 192",
        SeriesDescription="Brüste",
    )
    assert (got.patient_id, got.study_uid, got.manufacturer, got.model) == ("P 1", "1.2.", None, "A\\B")
    assert (got.modality, got.series_uid, got.instance_uid) == ("MG", "not a uid", "1.2.3")
    assert (got.presentation_intent, got.magnification, got.series_description) == ("FOR PRESENTATION", 1.5, "Brüste")
    assert (got.photometric, got.bits_stored, got.windows) == ("MONOCHROME2", 8, ())


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """The file with bytes replaced that pydicom would not write."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize("nonsense", [b"NaN\\NaN ", b"inf\\1   ", b"0,07\\0,7", b"\xff\xfe\x00\x01\x02\x03\x04\x05"])
def test_nonsense_in_optional_tags_is_none_and_quiet(tmp_path, nonsense, capfd):
    path = save(tmp_path / "x.dcm", image(EIGHT, ImagerPixelSpacing="0.12\\0.3", SpecificCharacterSet="ISO_IR 100"))
    patched(patched(path, b"0.12\\0.3", nonsense), b"ISO_IR 100", b"ISO_IR \xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, got = read_dicom(path)
    assert got.spacing_mm_rc is None
    assert got.patient_id == "P1"
    assert capfd.readouterr() == ("", "")


def test_libraries_log_nothing_of_a_damaged_stream(tmp_path, caplog):
    frame = jpeg_lossless(TWELVE, 12)
    path = save(
        tmp_path / "x.dcm", compressed(image(TWELVE, 12), frame[:90] + b"\xff\x00" * 900 + frame[-2:]), JPEGLosslessSV1
    )
    with pytest.raises(InputError, match="cannot be decoded as JPEG Lossless"):
        read_stored(path)
    assert caplog.records == []


def test_patient_id_survives_a_kind_that_does_not_exist(tmp_path):
    path = save(tmp_path / "x.dcm", image(EIGHT, PatientID="P00012"))
    patched(path, b"LO\x06\0P00012", b"Lo\x06\0P00012")
    assert read_header(path).patient_id == "P00012"


def test_empty_value_of_a_kind_that_does_not_exist_is_none(tmp_path):
    path = save(tmp_path / "x.dcm", image(EIGHT, Laterality=""))
    patched(path, b"\x20\0\x60\0CS\0\0", b"\x20\0\x60\0Cs\0\0")
    assert read_header(path).laterality is None


def test_lengths_beyond_the_file_reserve_no_memory(tmp_path):
    path = save(tmp_path / "x.dcm", image(EIGHT, PatientID="P00012"), ImplicitVRLittleEndian)
    patched(path, b"\x06\0\0\0P00012", b"\xf0\xff\xff\x7fP00012")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="is cut short: the file ends inside its header"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# Refusals


def test_files_that_are_no_dicom_are_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"patient,side\n" * 20)
    (tmp_path / "png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    (tmp_path / "preamble").write_bytes(bytes(128) + b"DICM")
    for name, message in (
        ("nowhere", "no such file"),
        ("folder", "is a folder; expected a DICOM file"),
        ("a\0", "cannot be read"),
        ("empty", "the file is empty"),
        ("text", r"is not a DICOM file: 'DICM' does not stand at byte 128.*begins with b'patient,"),
        ("png", "is not a DICOM file"),
        ("preamble", "is no image: a file without a SOP class without pixel data"),
    ):
        for read in (read_header, read_stored, read_dicom):
            with pytest.raises(InputError, match=message):
                read(tmp_path / name)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Rows": None, "PixelData": None}, "no image: Basic Text SR"),
        ({"PixelData": None}, "has no pixel data; it was cut short, or is a header alone"),
        ({"NumberOfFrames": 42}, r"has 42 frames; tomosynthesis \(DBT\)"),
        ({"NumberOfFrames": 0}, "Number of Frames is '0'; expected 1"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            "is RGB with 3 samples per pixel; expected one grey",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is PALETTE COLOR with 1 samples"),
        ({"SamplesPerPixel": 3}, "is MONOCHROME2 with 3 samples"),
        ({"PhotometricInterpretation": None}, "is of no stated colour"),
        ({"Rows": 0}, "states 0 rows x 8 columns; expected 1 to 67108864 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "states 65535 rows x 65535 columns"),
        ({"Rows": None}, "Rows is missing"),
        ({"Columns": [8, 8]}, r"Columns is '\[8, 8\]'; expected one whole number"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "allocates 32 bits per pixel; expected 8 or 16"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "allocates 1 bits"),
        ({"BitsStored": 12, "HighBit": 11}, "contradict each other: 8 allocated, 12 stored, highest bit 11"),
        ({"BitsStored": 6}, "contradict each other: 8 allocated, 6 stored, highest bit 7"),
        ({"BitsStored": 0, "HighBit": None}, "contradict each other: 8 allocated, 0 stored"),
        ({"PixelRepresentation": 2}, "Pixel Representation is 2"),
        ({"PixelRepresentation": None}, "PixelRepresentation is missing"),
    ],
)
def test_what_is_no_single_grey_image_is_refused_by_its_header(tmp_path, elements, message):
    path = save(tmp_path / "x.dcm", image(EIGHT, **elements))
    for read in (read_header, read_stored, read_dicom):
        with pytest.raises(InputError, match=message):
            read(path)


def test_tags_that_something_else_implies_may_be_missing(tmp_path):
    path = save(tmp_path / "x.dcm", image(EIGHT, SamplesPerPixel=None, HighBit=None, SOPClassUID=None, PatientID=None))
    assert np.array_equal(read_dicom(path)[0], EIGHT)


def test_float_pixels_are_refused(tmp_path):
    dataset = image(EIGHT, PixelData=None)
    dataset.FloatPixelData = bytes(256)
    with pytest.raises(InputError, match="holds floating-point pixel data"):
        read_stored(save(tmp_path / "x.dcm", dataset))


def test_pixels_of_two_frames_in_a_file_of_one_are_refused(tmp_path):
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)
    path = save(tmp_path / "a.dcm", image(pixels, PixelData=2 * pixels.tobytes()))
    with pytest.raises(InputError, match="holds 96 bytes of pixel data, those of 2 frames, and states one"):
        read_dicom(path)


def test_files_cut_short_are_refused_wherever_they_end(tmp_path):
    content = save(tmp_path / "whole.dcm", image(EIGHT, SeriesDescription="CC")).read_bytes()
    path = tmp_path / "x.dcm"
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"x\.dcm: "):
            read_stored(path)
    path.write_bytes(content[:-3])
    with pytest.raises(InputError, match=r"61 bytes of pixel data, expected 64 \(8 rows x 8 columns x 8 bits\)"):
        read_stored(path)
    path.write_bytes(content[: content.index(b"CC") + 1])
    with pytest.raises(InputError, match="is cut short: the file ends inside its header"):
        read_stored(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLosslessSV1, DeflatedExplicitVRLittleEndian])
def test_compressed_files_cut_short_are_refused_wherever_they_end(tmp_path, syntax):
    dataset = image(TWELVE, 12)
    if syntax == JPEGLosslessSV1:
        compressed(dataset, jpeg_lossless(TWELVE, 12))
    elif syntax.is_encapsulated:
        dataset.compress(syntax, TWELVE, encoding_plugin="pydicom" if syntax == RLELossless else "pylibjpeg")
    content = save(tmp_path / "whole.dcm", dataset, syntax).read_bytes()
    assert np.array_equal(read_stored(tmp_path / "whole.dcm"), TWELVE)
    path = tmp_path / "x.dcm"
    for length in range(200, len(content) - 1, 3):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"x\.dcm: "):
            read_stored(path)


def test_streams_cut_short_before_they_were_wrapped_are_refused(tmp_path):
    for syntax, frame in (
        (JPEG2000Lossless, j2k_lossless(TWELVE, 12)),
        (JPEGLosslessSV1, jpeg_lossless(TWELVE, 12)),
        (JPEGBaseline8Bit, jpeg_baseline(EIGHT)),
    ):
        pixels, bits = (EIGHT, 8) if syntax == JPEGBaseline8Bit else (TWELVE, 12)
        path = save(tmp_path / "x.dcm", compressed(image(pixels, bits), frame), syntax)
        assert read_stored(path).shape == pixels.shape
        for length in range(2, len(frame) - 1, 7):
            save(path, compressed(image(pixels, bits), frame[:length]), syntax)
            with pytest.raises(InputError, match=r"cut short|damaged"):
                read_stored(path)


def test_a_piece_missing_from_a_j2k_stream_is_noticed(tmp_path):
    j2k = j2k_lossless(TWELVE, 12)
    at = len(j2k) - 20
    path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), j2k[:at] + j2k[at + 4 :]), JPEG2000Lossless)
    with pytest.raises(InputError, match=r"cut short|a piece is missing"):
        read_stored(path)


@pytest.mark.parametrize(
    ("syntax", "frame", "message"),
    [
        (
            JPEGBaseline8Bit,
            jpeg_baseline(np.zeros((16, 8), np.uint8)),
            "it is 16 rows x 8 columns; the header says 8 x 8",
        ),
        (JPEGBaseline8Bit, jpeg_baseline(np.zeros((8, 8, 3), np.uint8)), "it has 3 components"),
        (JPEGBaseline8Bit, jpeg_lossless(EIGHT, 8), "frame type C3 is not JPEG Baseline"),
        (JPEGLosslessSV1, jpeg_lossless(TWELVE[:8, :8], 12), "its precision is 12 bits; 8 are allocated"),
        (JPEGBaseline8Bit, b"GIF89a" + bytes(60), "does not begin with a start-of-image marker"),
        (JPEG2000Lossless, b"GIF89a" + bytes(60), "does not begin with a codestream"),
        (RLELossless, bytes(60), "an RLE frame of 60 bytes, shorter than its 64-byte header"),
        (RLELossless, struct.pack("<16L", 2, 64, 65, *[0] * 13) + bytes(9), "has 2 segments; 8 bits need 1"),
        (RLELossless, struct.pack("<16L", 1, 99, *[0] * 14) + bytes(9), r"its segments begin at \[99\] of 74 bytes"),
        (RLELossless, struct.pack("<16L", 1, 64, *[0] * 14) + b"\0\1", "cannot be decoded as RLE Lossless"),
    ],
)
def test_streams_that_contradict_the_header_are_refused(tmp_path, syntax, frame, message):
    path = save(tmp_path / "x.dcm", compressed(image(EIGHT), frame), syntax)
    assert read_header(path).size_hw == (8, 8)
    with pytest.raises(InputError, match=message):
        read_stored(path)


def j2k_stream(side: int, tile: int = 2**15, style: tuple[int, ...] = (4, 4, 0, 1), layers: int = 1) -> bytes:
    """An empty JPEG 2000 stream of 6 resolutions: OpenJPEG takes it, and fills it with grey."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    return (
        b"\xff\x4f"
        + segment(0xFF51, struct.pack(">H8LH", 0, side, side, 0, 0, tile, tile, 0, 0, 1) + bytes([7, 1, 1]))
        + segment(0xFF52, struct.pack(">BBHBB", len(style) > 4, 0, layers, 0, 5) + bytes(style))
        + segment(0xFF5C, bytes([0x40, *[0x80] * 16]))
        + segment(0xFF90, struct.pack(">HLBB", 0, 0, 0, 1))
        + b"\xff\x93"
        + bytes(200)
        + b"\xff\xd9"
    )


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [
        (2048, {}, None),
        (2048, {"tile": 8}, "it is cut into 65536 tiles"),
        (2048, {"style": (0, 0, 0, 1)}, "its code blocks hold 16 pixels"),
        (2048, {"style": (4, 4, 0, 1, *[0x33] * 6)}, "it is cut into 87360 precincts"),
        (2048, {"style": (4, 4, 0, 1, *[0x55] * 6), "layers": 65535}, "precincts of 65535 layers each"),
        (8000, {}, r"cannot hold the 64000000 pixels that the header states"),
    ],
)
def test_j2k_bombs_are_refused_before_they_are_decoded(tmp_path, side, options, message):
    dataset = compressed(image(EIGHT, Rows=side, Columns=side), j2k_stream(side, **options))
    path = save(tmp_path / "x.dcm", dataset, JPEG2000Lossless)
    if message is None:
        assert read_stored(path).shape == (side, side)
    else:
        with pytest.raises(InputError, match=message):
            read_stored(path)


def test_streams_of_two_frames_or_three_components_are_refused(tmp_path):
    jpeg, j2k = jpeg_lossless(TWELVE, 12), bytearray(j2k_lossless(TWELVE, 12))
    j2k[41] = 3  # Csiz, behind the eight sizes
    twice = jpeg[:2] + jpeg[2:15] + jpeg[2:]  # the frame header has 13 bytes
    for syntax, frame, message in (
        (JPEGLosslessSV1, twice, "it has 2 frame headers; expected one"),
        (JPEG2000Lossless, bytes(j2k), "it has 3 components; expected one grey channel"),
    ):
        path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), frame), syntax)
        with pytest.raises(InputError, match=message):
            read_stored(path)


def test_deflated_files_without_an_end_are_refused(tmp_path):
    path = save(tmp_path / "x.dcm", image(TWELVE, 12), DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(InputError, match="is cut short: the deflated data set has no end"):
        read_stored(path)


def test_rle_and_lossless_jpeg_too_short_for_their_pixels_are_refused(tmp_path):
    tall = {"Rows": 60000, "Columns": 1000}
    rle = struct.pack("<16L", 1, 64, *[0] * 14) + bytes(9)
    for syntax, frame in ((RLELossless, rle), (JPEGLosslessSV1, jpeg_lossless(EIGHT, 8))):
        path = save(tmp_path / "x.dcm", compressed(image(EIGHT, **tall), frame), syntax)
        with pytest.raises(InputError, match="cannot hold the 60000000 pixels"):
            read_stored(path)


def test_deflated_bombs_are_refused(tmp_path):
    meta = save(tmp_path / "x.dcm", image(EIGHT), DeflatedExplicitVRLittleEndian).read_bytes()
    start = meta.index(DeflatedExplicitVRLittleEndian.encode()) + 22
    engine = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(engine.compress(bytes(2**20)) for _ in range(130)) + engine.flush()
    (tmp_path / "x.dcm").write_bytes(meta[:start] + bomb)
    with pytest.raises(InputError, match="inflates to more than 134217728 bytes"):
        read_header(tmp_path / "x.dcm")


def test_transfer_syntaxes_that_are_not_read_are_named(tmp_path):
    frame = b"\0\0\1\xb3" + bytes(60)
    path = save(tmp_path / "x.dcm", compressed(image(EIGHT), frame), MPEG2MPML)
    with pytest.raises(InputError, match=r"MPEG2 Main Profile.*\(1\.2\.840\.10008\.1\.2\.4\.100\) is not read here"):
        read_stored(path)
    path = save(tmp_path / "x.dcm", image(EIGHT), ExplicitVRLittleEndian)
    patched(path, b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0")
    with pytest.raises(InputError, match=r"transfer syntax '1\.2\.840\.113619\.5\.2' is none of the standard's"):
        read_stored(path)


def test_mislabelled_transfer_syntaxes_are_told(tmp_path):
    path = save(tmp_path / "x.dcm", image(EIGHT), ExplicitVRLittleEndian)
    patched(path, b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    with pytest.raises(InputError, match=r"are not compressed .* although the transfer syntax is RLE Lossless"):
        read_stored(path)
    path = save(tmp_path / "x.dcm", compressed(image(EIGHT), bytes(80)), RLELossless)
    patched(path, b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")
    with pytest.raises(InputError, match=r"are compressed .* although the transfer syntax is Explicit VR Little"):
        read_stored(path)
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\x08\0\x16\0UI") :])
    with pytest.raises(InputError, match="are compressed; it has no transfer syntax"):
        read_stored(path)


def test_values_beyond_the_stored_bits_are_refused(tmp_path):
    dataset = image(TWELVE, 12)
    dataset.compress(JPEG2000Lossless, TWELVE, encoding_plugin="pylibjpeg")
    dataset.BitsStored, dataset.HighBit = 10, 9
    with pytest.raises(InputError, match=r"from 0 to 3837; 10 bits stored \(unsigned\) hold 0 to 1023"):
        read_stored(save(tmp_path / "x.dcm", dataset, JPEG2000Lossless))


def test_deep_nesting_ends_in_an_error_or_an_image(tmp_path):
    begin, item = b"\x40\0\x00\xa7SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    meta = save(tmp_path / "x.dcm", image(EIGHT)).read_bytes()
    start = meta.index(b"\x08\0\x16\0UI")
    (tmp_path / "x.dcm").write_bytes(meta[:start] + (begin + item) * 5000)
    with pytest.raises(InputError, match="the header cannot be parsed"):
        read_header(tmp_path / "x.dcm")


def test_libraries_are_heard_again_when_the_last_thread_has_read(tmp_path):
    """Silence is a switch of the whole process: threads that overlap must not leave it on."""
    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    first_is_in, second_is_out = threading.Event(), threading.Event()

    def long() -> None:
        with quiet:
            first_is_in.set()
            second_is_out.wait(10)

    thread = threading.Thread(target=long)
    thread.start()
    assert first_is_in.wait(10)
    with quiet:
        pass
    assert logging.getLogger("pydicom").level > logging.CRITICAL  # the other one still reads
    second_is_out.set()
    thread.join()
    assert (list(warnings.filters), logging.getLogger("pydicom").level) == (filters, level)
