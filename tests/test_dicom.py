"""DICOM files: every compression, every window, and a clear word for what is no mammogram."""

from __future__ import annotations

import os
import sys
import tracemalloc
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)
from small_dicom import compressed, image, j2k_lossless, jpeg_baseline, jpeg_lossless, save

from mammodet.data.dicom import read_dicom, read_header, read_stored
from mammodet.errors import InputError

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (33, 40), dtype=np.uint16)  # JPEG 2000 is not written smaller
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
CROPS = next(
    (
        Path(folder)
        for folder in (
            os.environ.get("MAMMODET_CBIS", ""),
            Path(__file__).resolve().parents[2] / "shared" / "data" / "cbis_ddsm",
        )
        if folder and (Path(folder) / "dicom_crops").is_dir()
    ),
    None,
)
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
#: pydicom's files that must be read, not refused: each encoding with one grey frame.
READABLE = {
    "CT_small.dcm",  # explicit, signed
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_padded.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPEG2000.dcm",  # lossy
    "693_J2KI.dcm",  # 14 bits
    "J2K_pixelrep_mismatch.dcm",  # signed header, unsigned stream
    "JPGExtended.dcm",  # 12-bit DCT
    "image_dfl.dcm",  # deflated
    "examples_overlay.dcm",
}


def shown(path: Path, **options: object) -> list[int]:
    return read_dicom(path, **options)[0].ravel().tolist()


def ramp_shown(tmp_path: Path, at: list[int], *, window: int | None = 0, **elements: object) -> list[int]:
    """What the stored 12-bit values `at` become."""
    pixels, _ = read_dicom(save(tmp_path / "ramp.dcm", image(RAMP, 12, **elements)), window=window)
    assert pixels.dtype == np.uint16
    return pixels.ravel()[at].tolist()


def table(descriptor: list[int], entries: bytes) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = descriptor
    item.LUTData = entries
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def words(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


# Files as they are


@pytest.mark.skipif(CROPS is None, reason="no CBIS-DDSM crops (set MAMMODET_CBIS)")
@pytest.mark.parametrize(
    ("name", "size_hw", "low", "view"),
    [
        ("00694_RIGHT_CC_1", (554, 563), 48060, "CC"),
        ("00694_RIGHT_MLO_1", (431, 428), 20039, "MLO"),
        ("00695_RIGHT_CC_1", (740, 620), 12273, "CC"),
    ],
)
def test_cbis_crops_are_read_bit_for_bit(name, size_hw, low, view):
    path = CROPS / "dicom_crops" / f"{name}.dcm"
    pixels, header = read_dicom(path)
    assert (pixels.shape, pixels.dtype, pixels.min(), pixels.max()) == (size_hw, np.uint16, low, 65535)
    assert np.array_equal(pixels, read_stored(path))
    assert (header.size_hw, header.laterality, header.view, header.origin) == (size_hw, "R", view, "film")
    assert header.patient_id == f"Mass-Training_P_{name}"
    assert header.series_description == "cropped images"
    assert header.spacing_mm_rc is None
    assert header == read_header(path)


@pytest.mark.parametrize("path", sorted(PYDICOM_FILES.glob("*.*")), ids=lambda path: path.name)
def test_pydicom_files_are_equal_to_pydicom_or_refused(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of the libraries may come through
        try:
            pixels = read_stored(path)
            read_dicom(path)
        except InputError as error:
            refusal = str(error)
        else:
            refusal = None
    if refusal is not None:
        assert refusal.startswith(f"{path}: ")
        needs_extra = path.name == "JPGExtended.dcm" and find_spec("libjpeg") is None
        assert needs_extra or path.name not in READABLE
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(pixels, pydicom.dcmread(path).pixel_array)
    assert pixels.dtype.isnative


def test_pydicom_files_hold_every_kind_that_must_be_read():
    assert {path.name for path in PYDICOM_FILES.iterdir()} >= READABLE


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_stored_values_survive_every_encoding(tmp_path, syntax, signed, bits):
    low = -(2 ** (bits - 1)) if signed else 0
    pixels = RNG.integers(low, low + 2**bits, (33, 35)).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    pixels[0, :2] = low, low + 2**bits - 1
    dataset = image(pixels, bits)
    if syntax.is_encapsulated:
        plugin = "pydicom" if syntax == RLELossless else "pylibjpeg"
        dataset.compress(syntax, pixels, encoding_plugin=plugin, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
    path = save(tmp_path / "x.dcm", dataset, syntax)
    assert np.array_equal(read_stored(path), pixels)
    assert read_header(path).transfer_syntax == syntax
    # The ends of the stored range are the ends of the scale.
    assert read_dicom(path)[0][0, :2].tolist() == ([0, 255] if bits == 8 else [0, 65535])


@pytest.mark.parametrize("shape", [(2, 4), (3, 3)])
def test_eight_bit_big_endian_words_are_swapped(tmp_path, shape):
    pixels = np.arange(9, dtype=np.uint8)[: shape[0] * shape[1]].reshape(shape)
    dataset = image(pixels)
    dataset.PixelData = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
    assert np.array_equal(read_stored(save(tmp_path / "x.dcm", dataset, ExplicitVRBigEndian)), pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(("predictor", "syntax"), [(1, JPEGLosslessSV1), (1, JPEGLossless), (2, JPEGLossless)])
@pytest.mark.parametrize("fragments", [1, 3])
def test_lossless_jpeg_is_exact(tmp_path, bits, predictor, syntax, fragments):
    pixels = RNG.integers(0, 2**bits, (13, 17)).astype(np.uint8 if bits == 8 else np.uint16)
    dataset = compressed(image(pixels, bits), jpeg_lossless(pixels, bits, predictor=predictor), fragments)
    assert np.array_equal(read_stored(save(tmp_path / "x.dcm", dataset, syntax)), pixels)


def test_baseline_jpeg_is_read_to_its_own_accuracy(tmp_path):
    smooth = np.add.outer(np.arange(30), 3 * np.arange(40)).astype(np.uint8)
    path = save(tmp_path / "x.dcm", compressed(image(smooth), jpeg_baseline(smooth)), JPEGBaseline8Bit)
    pixels, _ = read_dicom(path)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - smooth).max() <= 2


def test_jp2_files_inside_are_read(tmp_path):
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 " + b"\0\0\0\0jp2c"
    path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), boxes + j2k_lossless(TWELVE, 12)), JPEG2000Lossless)
    assert np.array_equal(read_stored(path), TWELVE)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_bare_data_sets_are_read(tmp_path, syntax):
    pixels = TWELVE.byteswap() if syntax == ExplicitVRBigEndian else TWELVE
    path = save(tmp_path / "x", image(pixels, 12), syntax, header=False)
    assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_stored(path), TWELVE)
    assert read_header(path).transfer_syntax == syntax


def test_overlay_bits_above_those_stored_are_cut_off(tmp_path):
    assert np.array_equal(read_stored(save(tmp_path / "x.dcm", image(TWELVE | 0xF000, 12))), TWELVE)


# Scale


@pytest.mark.parametrize(
    ("stored", "bits", "expected"),
    [
        (np.array([[0, 1, 4095]], np.uint16), 12, [0, 16, 65535]),  # 65535 / 4095 = 16.004
        (np.array([[0, 512, 1023]], np.uint16), 10, [0, 32800, 65535]),  # 512 * 65535 / 1023 = 32799.53
        (np.array([[0, 1, 65535]], np.uint16), 16, [0, 1, 65535]),
        (np.array([[-32768, 0, 32767]], np.int16), 16, [0, 32768, 65535]),
        (np.array([[-2048, 0, 2047]], np.int16), 12, [0, 32776, 65535]),  # 2048 * 65535 / 4095 = 32775.50
        (np.array([[0, 7, 255]], np.uint8), 8, [0, 7, 255]),
        (np.array([[0, 7, 255]], np.uint16), 8, [0, 7, 255]),
        (np.array([[-128, 0, 127]], np.int8), 8, [0, 128, 255]),
        (np.array([[0, 1, 63]], np.uint8), 6, [0, 4, 255]),  # 255 / 63 = 4.05
    ],
)
def test_stored_range_becomes_the_whole_scale(tmp_path, stored, bits, expected):
    path = save(tmp_path / "x.dcm", image(stored, bits))
    pixels, header = read_dicom(path, window=None)
    assert pixels.tolist() == [expected]
    assert pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert (header.bits_stored, header.signed) == (bits, stored.dtype.kind == "i")
    path = save(tmp_path / "y.dcm", image(stored, bits, PhotometricInterpretation="MONOCHROME1"))
    assert shown(path) == [pixels.max() - value for value in expected]


def test_full_sixteen_bits_are_returned_bit_for_bit(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(read_dicom(save(tmp_path / "x.dcm", image(levels)))[0], levels)


# Windows: PS3.3 C.11.2.1.2 and C.11.2.1.3 by hand


def test_linear_window(tmp_path):
    got = ramp_shown(tmp_path, [0, 949, 950, 960, 999, 1000, 1049, 1050], WindowCenter=1000, WindowWidth=101)
    # ((x - 999.5) / 100 + 0.5) * 65535: 0.005, 0.105, 0.495, 0.505, 0.995
    assert got == [0, 0, 328, 6881, 32440, 33095, 65207, 65535]


def test_linear_window_of_width_one_is_a_threshold(tmp_path):
    assert ramp_shown(tmp_path, [999, 1000], WindowCenter=1000, WindowWidth=1) == [0, 65535]


def test_linear_exact_window(tmp_path):
    elements = {"WindowCenter": 1000, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    # ((x - 1000) / 100 + 0.5) * 65535: 0, 0.25, 0.5, 1
    assert ramp_shown(tmp_path, [0, 950, 975, 1000, 1050, 4095], **elements) == [0, 0, 16384, 32768, 65535, 65535]


def test_linear_exact_window_narrower_than_a_step_is_a_threshold(tmp_path):
    elements = {"WindowCenter": 1000.5, "WindowWidth": 1e-9, "VOILUTFunction": "LINEAR_EXACT"}
    assert ramp_shown(tmp_path, [1000, 1001], **elements) == [0, 65535]


def test_sigmoid_window(tmp_path):
    elements = {"WindowCenter": 1000, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}
    # 65535 / (1 + exp(-4 (x - 1000) / 100)): 1 / (1 + e) = 0.268941, 1 / (1 + 1 / e) = 0.731059
    assert ramp_shown(tmp_path, [0, 975, 1000, 1025, 4095], **elements) == [0, 17625, 32768, 47910, 65535]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(tmp_path, function):
    dataset = image(RAMP, 12, WindowCenter=1700, WindowWidth=900, VOILUTFunction=function)
    theirs = pydicom.pixels.apply_windowing(RAMP, dataset) / 4095 * 65535
    ours = read_dicom(save(tmp_path / "x.dcm", dataset))[0]
    assert np.abs(ours - theirs).max() <= 0.5 + 1e-6


def test_inversion_comes_after_the_window(tmp_path):
    elements = {"WindowCenter": 1000, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    got = ramp_shown(tmp_path, [950, 975, 1050], PhotometricInterpretation="MONOCHROME1", **elements)
    assert got == [65535, 49151, 0]  # 0.75 * 65535 = 49151.25


def test_window_applies_to_rescaled_values(tmp_path):
    elements = {"RescaleSlope": 2, "RescaleIntercept": -100, "VOILUTFunction": "LINEAR_EXACT"}
    got = ramp_shown(tmp_path, [0, 50, 75, 100, 150], WindowCenter=100, WindowWidth=200, **elements)
    assert got == [0, 0, 16384, 32768, 65535]  # rescaled: -100, 0, 50, 100, 200


def test_rescaling_alone_spans_the_scale_and_a_negative_slope_inverts(tmp_path):
    assert ramp_shown(tmp_path, [0, 1, 4095], RescaleSlope=2.5, RescaleIntercept=-1000) == [0, 16, 65535]
    assert ramp_shown(tmp_path, [0, 1, 4095], RescaleSlope=-1, RescaleIntercept=4095) == [65535, 65519, 0]
    elements = {"RescaleSlope": -1, "RescaleIntercept": 4095, "VOILUTFunction": "LINEAR_EXACT"}
    assert ramp_shown(tmp_path, [0, 4095], WindowCenter=2047.5, WindowWidth=4095, **elements) == [65535, 0]


def test_identity_rescaling_of_eight_bits_keeps_them(tmp_path):
    pixels = np.array([[3, 200]], np.uint8)
    for elements, expected in (
        ({"RescaleSlope": "1", "RescaleIntercept": "0.0"}, pixels),
        ({"RescaleSlope": "2", "RescaleIntercept": "0"}, pixels * np.uint16(257)),
    ):
        got = read_dicom(save(tmp_path / "x.dcm", image(pixels, **elements)))[0]
        assert (got.dtype, got.tolist()) == (expected.dtype, expected.tolist())


def test_modality_table(tmp_path):
    elements = {"ModalityLUTSequence": [table([3, 5, 8], words(0, 128, 255))]}
    # Below the first entry the first, above the last the last; 128 / 255 * 65535 = 32896
    assert ramp_shown(tmp_path, [0, 5, 6, 7, 4095], **elements) == [0, 0, 32896, 65535, 65535]
    elements = {"ModalityLUTSequence": [table([3, 5, 8], bytes([0, 128, 255, 0]))]}  # packed to bytes, and padded
    assert ramp_shown(tmp_path, [0, 5, 6, 7, 4095], **elements) == [0, 0, 32896, 65535, 65535]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_voi_table(tmp_path, syntax):
    dataset = image(RAMP, 12, VOILUTSequence=[table([4, 10, 12], words(0, 100, 4095, 50))])
    pixels = read_dicom(save(tmp_path / "x.dcm", dataset, syntax))[0].ravel()
    # 100 / 4095 * 65535 = 1600.37, 50 / 4095 * 65535 = 800.18
    assert pixels[[0, 10, 11, 12, 13, 4095]].tolist() == [0, 0, 1600, 65535, 800, 800]


def test_voi_table_may_begin_below_zero(tmp_path):
    stored = np.array([[-9, -2, -1, 0, 1]], np.int16)
    dataset = image(stored, VOILUTSequence=[table([3, 65534, 8], words(10, 20, 30))])
    assert shown(save(tmp_path / "x.dcm", dataset)) == [10 * 257, 10 * 257, 20 * 257, 30 * 257, 30 * 257]
    dataset = image(np.array([[65533, 65535]], np.uint16), VOILUTSequence=[table([3, 65534, 8], words(10, 20, 30))])
    assert shown(save(tmp_path / "x.dcm", dataset)) == [10 * 257, 20 * 257]


def test_big_endian_voi_table(tmp_path):
    dataset = image(np.array([[0, 1]], np.uint16).byteswap(), 12)
    dataset.VOILUTSequence = [table([2, 0, 12], np.array([5, 4095], ">u2").tobytes())]
    assert shown(save(tmp_path / "x.dcm", dataset, ExplicitVRBigEndian)) == [80, 65535]  # 5 * 16.004


def test_table_of_65536_entries_is_written_as_zero(tmp_path):
    dataset = image(np.array([[0, 1, 65535]], np.uint16))
    dataset.VOILUTSequence = [table([0, 0, 16], np.arange(65536, dtype="<u2")[::-1].tobytes())]
    assert shown(save(tmp_path / "x.dcm", dataset)) == [65535, 65534, 0]


def test_several_windows_are_counted_tables_first(tmp_path):
    first = table([2, 1000, 8], words(0, 255))
    first.LUTExplanation = "SHARP"
    elements = {
        "VOILUTSequence": [first],
        "WindowCenter": ["1000", "2000"],
        "WindowWidth": ["1", "1"],
        "WindowCenterWidthExplanation": ["NORMAL", "HARDER"],
    }
    at = [999, 1000, 1001, 1999, 2000]
    assert ramp_shown(tmp_path, at, window=0, **elements) == [0, 0, 65535, 65535, 65535]
    assert ramp_shown(tmp_path, at, window=1, **elements) == [0, 65535, 65535, 65535, 65535]
    assert ramp_shown(tmp_path, at, window=2, **elements) == [0, 0, 0, 0, 65535]
    assert ramp_shown(tmp_path, [0, 4095], window=None, **elements) == [0, 65535]
    proposed = read_header(tmp_path / "ramp.dcm").windows
    assert [(one.function, one.center, one.width, one.explanation) for one in proposed] == [
        ("LUT", None, None, "SHARP"),
        ("LINEAR", 1000, 1, "NORMAL"),
        ("LINEAR", 2000, 1, "HARDER"),
    ]
    for number in (3, -1):
        with pytest.raises(InputError, match=f"has no window {number}; it has 3, counted from 0"):
            ramp_shown(tmp_path, [0], window=number, **elements)
    with pytest.raises(InputError, match="has no window 1; it has 0"):
        ramp_shown(tmp_path, [0], window=1)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"WindowCenter": 9, "WindowWidth": 0}, "window 0 of 1 has center 9.0 and width 0.0; .* at least 1 for LINEAR"),
        ({"WindowCenter": 9, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"}, "a width above 0 for SIGMOID"),
        ({"WindowCenter": 9, "WindowWidth": None}, "has center 9.0 and width nan"),
        ({"WindowCenter": [9, 8], "WindowWidth": 0.5}, "window 0 of 2 has center 9.0 and width 0.5"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOI LUT Function is 'CUBIC'"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "Rescale Slope 0 and Intercept 1 leave no values to show"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": 1}, r"Rescale Slope 1e\+308 and Intercept 1 leave no values"),
        ({"RescaleSlope": [1, 2], "RescaleIntercept": 1}, "Rescale Slope is .*; expected one number"),
        ({"VOILUTSequence": [Dataset()]}, "the descriptor of VOI LUT 0 is missing or damaged"),
        ({"VOILUTSequence": [table([9, 0, 12], words(1))]}, "VOI LUT 0 holds 2 bytes; its 9 entries need 18"),
        ({"VOILUTSequence": [table([1, 0, 12], words(4096))]}, "the entry 4096, although it states 12 bits"),
        ({"VOILUTSequence": [table([1, 0, 32], words(1))]}, "states 32 bits per entry; expected 8 to 16"),
        ({"VOILUTSequence": [table([1, 0], words(1))]}, "the descriptor of VOI LUT 0 is missing or damaged"),
        ({"ModalityLUTSequence": [table([0, 0, 16], words(1))]}, "Modality LUT holds 2 bytes; its 65536 entries need"),
    ],
)
def test_nonsense_windows_are_refused_when_they_are_used(tmp_path, elements, message):
    with pytest.raises(InputError, match=message):
        ramp_shown(tmp_path, [0], **elements)
    assert read_header(tmp_path / "ramp.dcm").size_hw == (64, 64)
    if "WindowCenter" in elements or "VOILUTSequence" in elements:
        assert ramp_shown(tmp_path, [4095], window=None, **elements) == [65535]


# Cost


def test_header_of_a_large_file_costs_nothing_and_pixels_little(tmp_path):
    dataset = image(np.zeros((1, 1), np.uint16), Rows=5000, Columns=4000, PixelData=b"")
    dataset.WindowCenter, dataset.WindowWidth, dataset.BitsStored, dataset.HighBit = 2000, 4000, 12, 11
    path = save(tmp_path / "x.dcm", dataset)
    content = path.read_bytes()
    path.write_bytes(content[:-4] + (40_000_000).to_bytes(4, "little"))
    os.truncate(path, len(content) + 40_000_000)  # a hole
    tracemalloc.start()
    try:
        assert read_header(path).size_hw == (5000, 4000)
        assert tracemalloc.get_traced_memory()[1] < 2e6
        pixels, _ = read_dicom(path)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
    assert pixels.shape == (5000, 4000)


def test_module_needs_no_torch():
    code = "import sys, mammodet.data.dicom; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
