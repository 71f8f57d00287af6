"""What surrounds the pixels of a DICOM file: padding, functional groups, purpose, and data that are missing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from small_dicom import compressed, image, j2k_lossless, jpeg_baseline, jpeg_lossless, save

from mammodet.data.dicom import read_dicom, read_header, read_reduced, read_stored
from mammodet.data.jpeg import check_lossless, read_head, read_scans
from mammodet.errors import InputError

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (40, 48), dtype=np.uint16)
STEPS = np.array([[0, 1000, 2000, 4095]], np.uint16)
EXACT = {"WindowCenter": 2047.5, "WindowWidth": 4095, "VOILUTFunction": "LINEAR_EXACT"}  # the whole range


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_first_look_at_jpeg_2000_is_a_half_or_a_quarter_of_the_image(tmp_path, bits, kind):
    halves = np.full((64, 96), 2 ** (bits - 2), kind)
    halves[:, 48:] = 2**bits - 1
    path = save(tmp_path / "x.dcm", compressed(image(halves, bits), j2k_lossless(halves, bits)), JPEG2000Lossless)
    pixels = read_dicom(path)[0]
    for side, size_hw in ((48, (32, 48)), (30, (32, 48)), (24, (16, 24))):
        reduced = read_reduced(path, side)
        assert (reduced.shape, reduced.dtype) == (size_hw, pixels.dtype)
        assert (reduced[0, 0], reduced[-1, -1]) == (pixels[0, 0], pixels[-1, -1])
    assert read_reduced(path, 49) is None


def test_first_look_needs_a_whole_jpeg_2000_stream_of_unsigned_values(tmp_path):
    wide = np.tile(TWELVE, (2, 2))
    stream = j2k_lossless(wide, 12)
    assert read_reduced(save(tmp_path / "x.dcm", compressed(image(wide, 12), stream), JPEG2000Lossless), 48) is not None
    assert read_reduced(save(tmp_path / "x.dcm", image(wide, 12)), 48) is None
    signed = compressed(image(wide, 12, PixelRepresentation=1), stream)
    assert read_reduced(save(tmp_path / "x.dcm", signed, JPEG2000Lossless), 48) is None
    signed_stream = compressed(image(wide, 12), stream[:42] + bytes([stream[42] | 128]) + stream[43:])
    assert read_reduced(save(tmp_path / "x.dcm", signed_stream, JPEG2000Lossless), 48) is None


# Padding: 1000 / 4095 * 65535 = 16003.7, 2000 / 4095 * 65535 = 32007.3


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, [0, 16004, 32007, 65535]),
        ({"PixelPaddingValue": 4095}, [0, 16004, 32007, 0]),
        ({"PixelPaddingValue": 1000, "PixelPaddingRangeLimit": 2000}, [0, 0, 0, 65535]),
        ({"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 1500}, [0, 16004, 0, 0]),
        ({"PixelPaddingValue": 60000}, [0, 16004, 32007, 65535]),  # no pixel can have it
        ({"PixelPaddingRangeLimit": 2000}, [0, 16004, 32007, 65535]),  # of no value
        ({"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}, [0, 49531, 33528, 0]),
    ],
)
@pytest.mark.parametrize("window", [EXACT, {}])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding_is_background_after_the_window(tmp_path, elements, expected, window, syntax):
    stored = STEPS.byteswap() if syntax == ExplicitVRBigEndian else STEPS
    path = save(tmp_path / "x.dcm", image(stored, 12, **window, **elements), syntax)
    assert read_dicom(path)[0].tolist() == [expected]
    assert np.array_equal(read_stored(path), STEPS)


def test_padding_of_signed_pixels_is_signed_whatever_its_kind(tmp_path):
    dataset = image(np.array([[-2000, 0, 100]], np.int16))
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    shown = read_dicom(save(tmp_path / "x.dcm", dataset), window=None)[0]
    assert shown.tolist() == [[0, 32768, 32868]]


def test_padding_of_all_values_is_refused(tmp_path):
    path = save(tmp_path / "x.dcm", image(STEPS, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=4095))
    with pytest.raises(InputError, match="its padding covers all values from 0 to 4095"):
        read_dicom(path)


# Functional groups


def group(**macros: dict[str, Any]) -> Dataset:
    """An item of a functional groups sequence: macros by keyword, each of one item."""
    found = Dataset()
    for keyword, elements in macros.items():
        item = Dataset()
        for name, value in elements.items():
            setattr(item, name, value)
        setattr(found, keyword, [item])
    return found


FACTS = group(
    FrameAnatomySequence={"FrameLaterality": "R"},
    PixelMeasuresSequence={"PixelSpacing": [0.1, 0.2]},
    FrameVOILUTSequence={"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"},
    PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -100},
)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_facts_of_one_frame_are_read_from_its_functional_groups(tmp_path, syntax, place):
    groups = {"SharedFunctionalGroupsSequence": [Dataset()], "PerFrameFunctionalGroupsSequence": [Dataset()]}
    stored = np.array([[0, 50, 75, 100, 150]], np.uint16)
    dataset = image(stored, 12, NumberOfFrames=1, **groups | {place: [FACTS]})
    pixels, header = read_dicom(save(tmp_path / "x.dcm", dataset, syntax))
    assert pixels.tolist() == [[0, 0, 16384, 32768, 65535]]  # rescaled: -100, 0, 50, 100, 200
    assert (header.laterality, header.spacing_mm_rc) == ("R", (0.1, 0.2))


def test_functional_groups_that_contradict_the_file_are_refused(tmp_path):
    shared = {"SharedFunctionalGroupsSequence": [FACTS]}
    same = {"WindowCenter": 100, "WindowWidth": "200.0", "VOILUTFunction": "LINEAR_EXACT"}
    read_dicom(save(tmp_path / "x.dcm", image(STEPS, 12, **shared, **same)))
    path = save(tmp_path / "x.dcm", image(STEPS, 12, **shared, **{**same, "WindowWidth": 300}))
    with pytest.raises(InputError, match=r"says WindowWidth '300.0' and, in its functional groups, '200.0'"):
        read_dicom(path)
    path = save(tmp_path / "x.dcm", image(STEPS, 12, PerFrameFunctionalGroupsSequence=[FACTS, FACTS]))
    with pytest.raises(InputError, match="states one frame, and has functional groups of 2"):
        read_dicom(path)


# Purpose


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, False),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, True),
    ],
)
def test_header_tells_whether_pixels_are_for_processing(tmp_path, elements, expected):
    assert read_header(save(tmp_path / "x.dcm", image(STEPS, 12, **elements))).for_processing is expected


# Missing data


def streams() -> dict[str, tuple[Any, np.ndarray, int, bytes]]:
    """A whole stream of each compression: syntax, pixels, bits, stream."""
    rle = image(TWELVE, 12)
    rle.compress(RLELossless, TWELVE, encoding_plugin="pydicom")
    smooth = np.add.outer(np.arange(64) * 3, np.arange(48)).astype(np.uint8)
    return {
        "baseline": (JPEGBaseline8Bit, smooth, 8, jpeg_baseline(smooth)),
        "lossless": (JPEGLosslessSV1, TWELVE, 12, jpeg_lossless(TWELVE, 12)),
        "lossless8": (JPEGLossless, smooth, 8, jpeg_lossless(smooth, 8, predictor=7)),
        "jpeg2000": (JPEG2000Lossless, TWELVE, 12, j2k_lossless(TWELVE, 12)),
        "rle": (RLELossless, TWELVE, 12, next(generate_frames(rle.PixelData, number_of_frames=1))),
    }


@pytest.mark.parametrize("share", [0.4, 0.7, 0.97])
@pytest.mark.parametrize("name", list(streams()))
def test_streams_that_lack_data_but_not_their_end_are_refused(tmp_path, name, share):
    syntax, pixels, bits, stream = streams()[name]
    whole = read_stored(save(tmp_path / "x.dcm", compressed(image(pixels, bits), stream), syntax))
    assert np.abs(whole.astype(int) - pixels).max() <= (3 if name == "baseline" else 0)
    scan = stream.find(b"\xff\xda") + 10 if "less" in name or name == "baseline" else 200
    cut = bytearray(stream[: scan + int(share * (len(stream) - scan))].rstrip(b"\xff"))
    if name == "jpeg2000":
        at = cut.index(b"\xff\x90")
        struct.pack_into(">L", cut, at + 6, len(cut) - at)  # the tile-part is as long as what is left
    cut += b"" if name == "rle" else b"\xff\xd9"
    path = save(tmp_path / "x.dcm", compressed(image(pixels, bits), bytes(cut)), syntax)
    with pytest.raises(InputError, match=r"cut short|damaged"):
        read_stored(path)


def test_jpeg_ls_that_lacks_data_is_refused(tmp_path):
    jpeg_ls = pytest.importorskip("jpeg_ls")
    stream = bytes(jpeg_ls.encode_array(TWELVE))
    path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), stream), JPEGLSLossless)
    assert np.array_equal(read_stored(path), TWELVE)
    cut = stream[: len(stream) // 2].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(InputError, match="damaged"):
        read_stored(save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), cut), JPEGLSLossless))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_bits_of_lossless_jpeg_are_counted_to_the_byte(tmp_path: Path, predictor: int, bits: int) -> None:
    pixels = RNG.integers(0, 2**bits, (23, 17)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = jpeg_lossless(pixels, bits, predictor=predictor)
    path = save(tmp_path / "x.dcm", compressed(image(pixels, bits), stream), JPEGLossless)
    assert np.array_equal(read_stored(path), pixels)
    end = len(stream) - (4 if stream[-4:-2] == b"\xff\x00" else 3)
    cut = stream[:end] + b"\xff\xd9"
    with pytest.raises(ValueError, match="its scan does not hold all pixels"):
        check_lossless(cut, read_scans(cut, read_head(cut)), pixels)
