"""Decoding on a GPU: what is sent there, what comes back, and a clear word where it is not done."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)
from small_dicom import compressed, image, j2k_lossless, jpeg_baseline, jpeg_lossless, save

from mammodet.data.dicom import gpu, read_dicom, read_stored
from mammodet.data.dicom.gpu import FrameDecoder, GpuUnavailableError, NvImageCodec, choose_decoder, open_gpu, probe
from mammodet.data.dicom.reader import decode_many
from mammodet.errors import InputError
from mammodet.phantom.rsna import DEVICES, dicom_bytes

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (40, 33), dtype=np.uint8)  # JPEG 2000 is not written smaller
TWELVE = RNG.integers(0, 4096, (33, 40), dtype=np.uint16)
SIXTEEN = RNG.integers(0, 65536, (36, 35), dtype=np.uint16)
BY_BITS: dict[int, NDArray[Any]] = {8: EIGHT, 12: TWELVE, 16: SIXTEEN}
#: Where the bytes of a codestream's size segment stand (ITU-T T.800 A.5.1).
LEFT, PRECISION = 19, 42
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


class FakeCodec:
    """Answers streams with what it was told, None where nothing; keeps what it was asked, less the padding."""

    def __init__(self, answers: dict[bytes, NDArray[Any]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[list[bytes]] = []

    def decode(self, streams: Sequence[bytes]) -> list[NDArray[Any] | None]:
        self.asked.append([stream.rstrip(b"\0") for stream in streams])
        return [self.answers.get(stream) for stream in self.asked[-1]]


def j2k_file(path: Path, pixels: NDArray[Any], bits: int, frame: bytes | None = None, **elements: Any) -> Path:
    frame = j2k_lossless(pixels, bits) if frame is None else frame
    return save(path, compressed(image(pixels, bits, **elements), frame), JPEG2000Lossless)


def by_frame(*images: tuple[NDArray[Any], int]) -> dict[bytes, NDArray[Any]]:
    return {j2k_lossless(pixels, bits): pixels for pixels, bits in images}


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(gpu, "_chosen", {})
    monkeypatch.delenv(gpu.ENVIRONMENT, raising=False)


@pytest.fixture
def decoded_on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the CPU's codec decodes from now on."""
    names: list[str] = []
    original = gpu.decode
    monkeypatch.setattr(gpu, "decode", lambda frame: names.append(frame.path.name) or original(frame))
    return names


# The choice


def test_choice_is_cpu_unless_argument_or_environment_say_otherwise(monkeypatch):
    codec = FakeCodec()
    monkeypatch.setattr(gpu, "open_gpu", lambda: codec)
    assert choose_decoder().name == "cpu"
    monkeypatch.setenv(gpu.ENVIRONMENT, "auto")
    assert choose_decoder().name == "gpu"
    assert choose_decoder("cpu").name == "cpu"
    assert choose_decoder() is choose_decoder("auto")
    mine = FrameDecoder(codec)
    assert choose_decoder(mine) is mine


def test_choice_of_an_unknown_name_is_refused_with_its_origin(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"^decoder 'cuda': expected one of cpu, gpu, auto$"):
        read_dicom(tmp_path / "not looked for.dcm", decoder="cuda")
    monkeypatch.setenv(gpu.ENVIRONMENT, "GPU0")
    with pytest.raises(InputError, match=r"^MAMMODET_DICOM_DECODER 'GPU0': expected one of cpu, gpu, auto$"):
        read_stored(tmp_path / "not looked for.dcm")


def test_missing_library_is_told_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    with pytest.raises(InputError) as caught:
        choose_decoder("gpu")
    assert "decoder 'gpu': nvImageCodec is not installed" in str(caught.value)
    assert 'pip install -e ".[gpu]"' in str(caught.value)
    assert "choose 'cpu', or 'auto'" in str(caught.value)


def test_extra_that_the_message_names_is_in_the_setup():
    setup = (Path(__file__).parents[1] / "setup.cfg").read_text()
    extra = setup.split("\ngpu =\n")[1].split("=\n")[0]
    assert "nvidia-nvimgcodec-cu12[nvjpeg,nvjpeg2k]" in extra


def test_auto_without_a_gpu_says_once_that_it_is_the_cpu(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12)
    for _ in range(3):
        assert np.array_equal(read_stored(path, decoder="auto"), TWELVE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "decoded on the CPU: nvImageCodec is not installed" in caplog.text


def test_library_without_a_device_is_told(monkeypatch):
    def no_driver(**options: object) -> None:
        raise RuntimeError("CUDA Runtime failure: '#35'\nat device_utils.h")

    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", fake_library(Decoder=no_driver))
    with pytest.raises(InputError, match=r"no CUDA device or driver .*RuntimeError: CUDA Runtime failure: '#35'"):
        choose_decoder("gpu")


def test_library_that_decodes_nothing_is_no_gpu(monkeypatch, caplog):
    blind = SimpleNamespace(decode=lambda streams, params: [None] * len(streams))
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", fake_library(Decoder=lambda **options: blind))
    with pytest.raises(InputError, match="decodes no JPEG 2000 here; is nvJPEG2000 installed"):
        choose_decoder("gpu")
    assert choose_decoder("auto").name == "cpu"
    assert "is nvJPEG2000 installed" in caplog.text


def test_gpu_refuses_and_auto_leaves_to_the_cpu_what_the_gpu_does_not_decode(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "open_gpu", FakeCodec)
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12)
    with pytest.raises(InputError, match="is not decoded on the GPU"):
        read_stored(path, decoder="gpu")
    assert np.array_equal(read_stored(path, decoder="auto"), TWELVE)


def test_forked_process_makes_a_decoder_of_its_own(monkeypatch):
    """What it inherits of CUDA does not work in it."""
    monkeypatch.setattr(gpu, "open_gpu", FakeCodec)
    first = choose_decoder("auto")
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert choose_decoder("auto") is not first


def fake_library(**parts: Any) -> SimpleNamespace:
    kinds = SimpleNamespace(CPU_ONLY="CPU_ONLY", GPU_ONLY="GPU_ONLY", HYBRID_CPU_GPU="HYBRID_CPU_GPU")
    return SimpleNamespace(
        **{
            "BackendKind": kinds,
            "Backend": lambda kind: kind,
            "ColorSpec": SimpleNamespace(UNCHANGED="UNCHANGED"),
            "DecodeParams": lambda **options: options,
            "CodeStream": lambda stream: stream,
            **parts,
        }
    )


def test_library_is_asked_for_the_gpu_alone_and_for_values_as_they_are():
    asked: dict[str, Any] = {}

    def decoder(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(decode=lambda streams, params: asked.update(params) or [None] * len(streams))

    assert NvImageCodec(fake_library(Decoder=decoder)).decode([b"1", b"2"]) == [None, None]
    assert asked["backends"] == ["GPU_ONLY", "HYBRID_CPU_GPU"]  # never the library's own CPU codecs
    assert (asked["color_spec"], asked["allow_any_depth"]) == ("UNCHANGED", True)


def test_probe_refuses_a_codec_that_decodes_nothing_or_otherwise():
    class Codec(FakeCodec):
        def __init__(self, change: Callable[[Any], Any]) -> None:
            super().__init__()
            self.change = change

        def decode(self, streams: Sequence[bytes]) -> list[NDArray[Any] | None]:
            from openjpeg.utils import decode

            return [self.change(decode(stream)) for stream in streams]

    def broken(pixels: Any) -> Any:
        raise MemoryError("out of memory")

    probe(Codec(lambda pixels: pixels))
    with pytest.raises(GpuUnavailableError, match="decodes no JPEG 2000 here; is nvJPEG2000 installed"):
        probe(Codec(lambda pixels: None))
    with pytest.raises(GpuUnavailableError, match="a test image of 12 bits to other pixels"):
        # Twelve bits stretched to sixteen, as some decoders do; eight and sixteen bits are right.
        probe(Codec(lambda pixels: pixels * 16 if pixels.max() < 4096 and pixels.dtype == np.uint16 else pixels))
    with pytest.raises(GpuUnavailableError, match="MemoryError: out of memory"):
        probe(Codec(broken))


# What is sent, and what comes back


def test_codec_gets_the_bare_codestream_of_fragments_and_of_jp2(tmp_path):
    stream = j2k_lossless(TWELVE, 12)
    jp2 = encode_array(TWELVE, bits_stored=12, photometric_interpretation=2, codec_format=1)
    assert jp2[4:8] == b"jP  "
    bare = jp2[jp2.index(b"\xff\x4f\xff\x51") :]
    codec = FakeCodec({stream: TWELVE, bare: TWELVE})
    decoder = FrameDecoder(codec, strict=True)
    parts = save(tmp_path / "parts.dcm", compressed(image(TWELVE, 12), stream, fragments=3), JPEG2000Lossless)
    for path in (parts, j2k_file(tmp_path / "jp2.dcm", TWELVE, 12, jp2)):
        assert np.array_equal(read_stored(path, decoder=decoder), TWELVE)
    assert codec.asked == [[stream], [bare]]


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_gpu_pixels_go_through_sign_window_and_inversion_as_the_cpus(tmp_path, bits):
    pixels = BY_BITS[bits]
    decoder = FrameDecoder(FakeCodec(by_frame((pixels, bits))), strict=True)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2 ** (bits - 1), "WindowWidth": 100}
    path = j2k_file(tmp_path / "x.dcm", pixels, bits, **elements)
    for window in (None, 0):
        ours, header = read_dicom(path, window=window, decoder=decoder)
        expected, expected_header = read_dicom(path, window=window)
        assert (ours.dtype, header) == (expected.dtype, expected_header)
        assert np.array_equal(ours, expected)
    assert decoder.counts == {"gpu": 2}


def test_frame_of_each_kind_is_decoded_by_both_until_one_agrees(tmp_path, decoded_on_cpu):
    other = TWELVE[::-1].copy()
    wrong = TWELVE + 1
    wrong[TWELVE == 4095] = 0
    codec = FakeCodec({**by_frame((other, 12), (EIGHT, 8)), j2k_lossless(TWELVE, 12): wrong})
    decoder = FrameDecoder(codec)
    files = {"wrong": (TWELVE, 12), "a": (other, 12), "b": (other, 12), "eight": (EIGHT, 8), "eight2": (EIGHT, 8)}
    for name, (pixels, bits) in files.items():
        path = j2k_file(tmp_path / name, pixels, bits)
        assert np.array_equal(read_stored(path, decoder=decoder), pixels), name
    assert decoded_on_cpu == ["wrong", "a", "eight"]  # of "wrong", the CPU's are taken; "a" proves 12 bits
    reason = "cpu: the GPU's pixels of JPEG 2000 Image Compression (Lossless Only) at 12 bits differ from the CPU's"
    assert decoder.counts == {"gpu": 4, reason: 1}


def test_difference_is_told_in_grey_levels_and_refused_by_a_strict_decoder(tmp_path):
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12)
    wrong = TWELVE.copy()
    wrong[3, 4] = 4095 if TWELVE[3, 4] < 2000 else 0
    levels = abs(int(wrong[3, 4]) - int(TWELVE[3, 4]))
    decoder = FrameDecoder(FakeCodec({j2k_lossless(TWELVE, 12): wrong}), strict=True)
    with pytest.raises(
        InputError, match=rf"x\.dcm: .* differ from the CPU's by up to {levels} grey levels, expected 0"
    ):
        read_stored(path, decoder=decoder)


@pytest.mark.parametrize(("levels", "where"), [(1, "gpu"), (2, "cpu")])
def test_lossy_pixels_may_differ_by_one_grey_level(tmp_path, levels, where):
    smooth = np.add.outer(np.arange(40), np.arange(36)).astype(np.uint16) * 50
    stream = encode_array(smooth, bits_stored=12, photometric_interpretation=2, compression_ratios=[4.0])
    path = save(tmp_path / "x.dcm", compressed(image(smooth, 12), stream), JPEG2000)
    cpu = read_stored(path)
    assert not np.array_equal(cpu, smooth)  # lossy indeed
    ours = cpu.copy()
    ours[5, 5] += levels
    decoder = FrameDecoder(FakeCodec({stream: ours}))
    assert np.array_equal(read_stored(path, decoder=decoder), ours if where == "gpu" else cpu)
    assert [key.split(":")[0] for key in decoder.counts] == [where]


def test_values_beyond_the_stored_bits_are_refused_from_the_gpu_too(tmp_path):
    codec = FakeCodec(by_frame((TWELVE, 12)))
    decoder = FrameDecoder(codec, strict=True)
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12)
    read_stored(path, decoder=decoder)
    wild = TWELVE.copy()
    wild[0, :2] = 0, 5000
    codec.answers = {j2k_lossless(TWELVE, 12): wild}
    with pytest.raises(InputError, match=r"pixel values reach from 0 to 5000; 12 bits stored \(unsigned\) hold 0 to"):
        read_stored(path, decoder=decoder)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_lossless_jpeg_is_sent(tmp_path, syntax):
    stream = jpeg_lossless(TWELVE, 12)
    codec = FakeCodec({stream: TWELVE})
    decoder = FrameDecoder(codec, strict=True)
    path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), stream), syntax)
    assert np.array_equal(read_stored(path, decoder=decoder), TWELVE)
    assert decoder.counts == {"gpu": 1}


def test_plain_pixels_need_no_gpu_and_are_never_refused(tmp_path, caplog):
    codec = FakeCodec()
    decoder = FrameDecoder(codec, strict=True)
    path = save(tmp_path / "x.dcm", image(TWELVE, 12), ExplicitVRLittleEndian)
    assert np.array_equal(read_stored(path, decoder=decoder), TWELVE)
    assert (codec.asked, decoder.counts, caplog.text) == ([], {"cpu": 1}, "")


# What the GPU does not do


def signed_stream() -> bytes:
    stream = bytearray(j2k_lossless(TWELVE, 12))
    stream[PRECISION] |= 128
    return bytes(stream)


def moved_stream() -> bytes:
    """The same image five columns off the origin of its grid; what is right of it moves with it."""
    stream = bytearray(j2k_lossless(TWELVE, 12))
    for at in (11, LEFT, 27):  # the low bytes of Xsiz, XOsiz and XTsiz
        stream[at] += 5
    return bytes(stream)


NOT_SENT: dict[str, tuple[UID, NDArray[Any], int, bytes, str]] = {
    "signed": (JPEG2000Lossless, TWELVE.astype(np.int16) - 2048, 12, b"", "signed values"),
    "signed header": (JPEG2000Lossless, TWELVE.astype(np.int16), 12, j2k_lossless(TWELVE, 12), "signed values"),
    "signed stream": (JPEG2000Lossless, TWELVE, 12, signed_stream(), "signed values"),
    "five bits": (JPEG2000Lossless, EIGHT >> 3, 5, b"", "values of 5 bits"),
    "baseline": (JPEGBaseline8Bit, EIGHT, 8, jpeg_baseline(EIGHT), "JPEG Baseline (Process 1) is not decoded there"),
    "more bits": (JPEGLossless, TWELVE >> 2, 10, jpeg_lossless(TWELVE >> 2, 12), "12 bits of JPEG in 10 stored and 16"),
}


@pytest.mark.parametrize("name", NOT_SENT)
def test_frames_that_the_gpu_cannot_do_go_to_the_cpu_or_are_refused(tmp_path, caplog, name):
    syntax, pixels, bits, frame, reason = NOT_SENT[name]
    dataset = compressed(image(pixels, bits), frame or j2k_lossless(pixels, bits))
    paths = [save(tmp_path / f"{number}.dcm", dataset, syntax) for number in range(3)]
    codec = FakeCodec()
    decoder = FrameDecoder(codec)
    for path in paths:
        assert np.array_equal(read_stored(path, decoder=decoder), read_stored(path))
    (counted,) = decoder.counts
    assert counted.startswith(f"cpu: {reason}")
    assert decoder.counts[counted] == 3
    assert len(caplog.records) == 1  # said of the first, counted of the others
    assert "0.dcm: decoded on the CPU: " in caplog.text
    assert reason in caplog.text
    with pytest.raises(InputError) as caught:
        read_stored(paths[0], decoder=FrameDecoder(codec, strict=True))
    assert f"0.dcm: is not decoded on the GPU: {reason}" in str(caught.value)
    assert "Choose the decoder 'auto'" in str(caught.value)
    assert codec.asked == []


def test_rle_goes_to_the_cpu(tmp_path):
    dataset = image(SIXTEEN)
    dataset.compress(RLELossless, SIXTEEN, encoding_plugin="pydicom")
    decoder = FrameDecoder(FakeCodec())
    assert np.array_equal(read_stored(save(tmp_path / "x.dcm", dataset, RLELossless), decoder=decoder), SIXTEEN)
    assert decoder.counts == {"cpu: RLE Lossless is not decoded there": 1}


def test_image_off_its_origin_is_left_to_the_cpu_which_does_not_read_it_either(tmp_path):
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12, moved_stream())
    codec = FakeCodec()
    for decoder in ("cpu", FrameDecoder(codec)):
        with pytest.raises(InputError, match="cannot be decoded as JPEG 2000"):
            read_stored(path, decoder=decoder)
    assert codec.asked == []
    with pytest.raises(InputError, match="not decoded on the GPU: an image that begins off the origin of its grid"):
        read_stored(path, decoder=FrameDecoder(codec, strict=True))


class FailingCodec(FakeCodec):
    """Runs out of memory."""

    def decode(self, streams: Sequence[bytes]) -> list[NDArray[Any] | None]:
        raise RuntimeError("CUDA error: out of memory\nmore")


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (FakeCodec(), "the GPU codec does not decode the stream"),
        (
            FakeCodec({j2k_lossless(TWELVE, 12): TWELVE[:5]}),
            "the GPU codec gives 5 x 40 uint16; expected 33 x 40 uint16",
        ),
        (
            FakeCodec({j2k_lossless(TWELVE, 12): (TWELVE >> 4).astype(np.uint8)}),
            "the GPU codec gives 33 x 40 uint8; expected 33 x 40 uint16",
        ),
        (FailingCodec(), "the GPU codec failed (RuntimeError: CUDA error: out of memory)"),
    ],
    ids=["none", "shape", "depth", "raises"],
)
def test_frames_that_the_codec_gives_back_go_to_the_cpu_or_are_refused(tmp_path, codec, reason):
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12)
    decoder = FrameDecoder(codec)
    assert np.array_equal(read_stored(path, decoder=decoder), TWELVE)
    (counted,) = decoder.counts
    assert counted.startswith(f"cpu: {reason}")
    assert decoder.summary().startswith(f"1 cpu: {reason}")
    with pytest.raises(InputError) as caught:
        read_stored(path, decoder=FrameDecoder(codec, strict=True))
    assert reason in str(caught.value)


def test_damaged_streams_are_refused_before_the_gpu_sees_them(tmp_path):
    codec = FakeCodec()
    path = j2k_file(tmp_path / "x.dcm", TWELVE, 12, j2k_lossless(TWELVE, 12)[:-40])
    with pytest.raises(InputError, match="is cut short"):
        read_stored(path, decoder=FrameDecoder(codec))
    assert codec.asked == []


# Many files


def archive(folder: Path, count: int) -> tuple[list[Path], dict[bytes, NDArray[Any]]]:
    """Files of 12 bits that differ, and what a codec must answer for each."""
    images = [np.roll(TWELVE, number, axis=0) for number in range(count)]
    paths = [j2k_file(folder / f"{number}.dcm", pixels, 12) for number, pixels in enumerate(images)]
    return paths, by_frame(*((pixels, 12) for pixels in images))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_many_are_decoded_in_their_order_as_one_by_one(tmp_path, on_gpu, threads):
    paths, answers = archive(tmp_path, 5)
    codec = FakeCodec(answers)
    decoder = FrameDecoder(codec, strict=True) if on_gpu else "cpu"
    found = list(decode_many(paths, batch=2, decoder=decoder, threads=threads, window=None))
    assert [path for path, _, _ in found] == paths
    for path, pixels, header in found:
        expected, expected_header = read_dicom(path, window=None)
        assert np.array_equal(pixels, expected)
        assert header == expected_header
    assert [len(batch) for batch in codec.asked] == ([2, 2, 1] if on_gpu else [])


def test_many_leave_out_what_is_refused_or_raise_it_at_its_turn(tmp_path):
    paths, answers = archive(tmp_path, 4)
    missing = tmp_path / "missing.dcm"
    signed = j2k_file(tmp_path / "signed.dcm", TWELVE.astype(np.int16) - 2048, 12)
    mixed = [paths[0], missing, paths[1], signed, *paths[2:]]
    decoder = FrameDecoder(FakeCodec(answers), strict=True)
    faults: list[tuple[Path, str]] = []
    found = decode_many(mixed, batch=4, decoder=decoder, refused=lambda path, error: faults.append((path, str(error))))
    assert [path for path, _, _ in found] == paths
    assert [path for path, _ in faults] == [missing, signed]
    assert "no such file" in faults[0][1]
    assert "signed values" in faults[1][1]
    images = decode_many(mixed, batch=4, decoder=decoder)
    assert next(images)[0] == paths[0]
    with pytest.raises(InputError, match=r"missing\.dcm: no such file"):
        next(images)


def test_many_read_no_further_ahead_than_two_batches(tmp_path):
    paths, answers = archive(tmp_path, 12)
    codec = FakeCodec(answers)
    taken = 0

    def counted() -> Iterator[Path]:
        nonlocal taken
        for path in paths:
            taken += 1
            yield path

    ahead, decoded = [], []
    for done, _ in enumerate(decode_many(counted(), batch=3, decoder=FrameDecoder(codec))):
        ahead.append(taken - done)
        decoded.append(3 * len(codec.asked) - done)
    assert taken == 12
    assert max(ahead) == 6  # the batch that is given out, and the one that is being read
    assert max(decoded) == 3  # images of one batch


def test_many_can_be_left_early_and_refuse_wrong_numbers_at_once(tmp_path):
    paths, answers = archive(tmp_path, 6)
    before = threading.active_count()
    images = decode_many(paths, batch=2, decoder=FrameDecoder(FakeCodec(answers)))
    next(images)
    images.close()
    assert threading.active_count() == before
    for options, message in (
        ({"batch": 0}, "batch 0: expected 1 or more"),
        ({"threads": -1}, "threads -1: expected 1 or more"),
        ({"decoder": "fast"}, "decoder 'fast': expected one of"),
    ):
        with pytest.raises(InputError, match=message):
            decode_many(paths, **options)
    assert list(decode_many([])) == []


def test_batches_are_cut_where_their_pixels_would_fill_the_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "MOST_PIXELS_AT_ONCE", 2 * TWELVE.size + 1)
    paths, answers = archive(tmp_path, 5)
    large = np.zeros((60, 60), np.uint16)  # 3600 pixels, more than is decoded at once: alone
    paths.insert(1, j2k_file(tmp_path / "large.dcm", large, 12))
    codec = FakeCodec({**answers, **by_frame((large, 12))})
    found = list(decode_many(paths, batch=6, decoder=FrameDecoder(codec, strict=True)))
    assert [len(batch) for batch in codec.asked] == [1, 1, 2, 2]
    assert [path for path, _, _ in found] == paths


# The library itself: its CPU codecs need no GPU and prove that it is called rightly


@pytest.fixture(scope="module")
def library_on_cpu() -> NvImageCodec:
    library = pytest.importorskip("nvidia.nvimgcodec", reason='needs nvImageCodec: pip install -e ".[gpu]"')
    return NvImageCodec(library, on_cpu=True)


@pytest.mark.parametrize("bits", range(8, 17))
def test_library_decodes_lossless_jpeg_2000_bit_for_bit(tmp_path, library_on_cpu, bits):
    pixels = RNG.integers(0, 2**bits, (70, 50)).astype(np.uint8 if bits == 8 else np.uint16)
    decoder = FrameDecoder(library_on_cpu, strict=True)
    path = j2k_file(tmp_path / "x.dcm", pixels, bits)
    assert np.array_equal(read_stored(path, decoder=decoder), pixels)
    assert read_stored(path, decoder=decoder).dtype == pixels.dtype
    assert decoder.counts == {"gpu": 2}


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_library_decodes_lossy_jpeg_2000_within_a_grey_level(tmp_path, library_on_cpu, bits):
    smooth = np.add.outer(np.arange(90), np.arange(80)) * (2**bits // 200)
    pixels = (smooth + RNG.integers(0, 2 ** (bits - 4), smooth.shape)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = encode_array(pixels, bits_stored=bits, photometric_interpretation=2, compression_ratios=[6.0])
    path = save(tmp_path / "x.dcm", compressed(image(pixels, bits), stream), JPEG2000)
    decoder = FrameDecoder(library_on_cpu, strict=True)
    ours, theirs = (read_stored(path, decoder=decoder).astype(int) for decoder in (decoder, "cpu"))
    assert np.abs(ours - theirs).max() <= 1


def test_library_passes_over_one_damaged_stream_of_a_batch(library_on_cpu):
    good, other = j2k_lossless(TWELVE, 12), j2k_lossless(EIGHT, 8)
    first, junk, second = library_on_cpu.decode([good, b"no image at all", other])
    assert junk is None
    assert np.array_equal(first, TWELVE)
    assert np.array_equal(second, EIGHT)
    assert library_on_cpu.decode([b"no image at all"]) == [None]
    assert library_on_cpu.decode([]) == []


def test_library_passes_the_probe(library_on_cpu):
    probe(library_on_cpu)


@pytest.mark.parametrize("machine", range(len(DEVICES)))
def test_library_reads_phantom_mammograms_as_the_cpu_does(tmp_path, library_on_cpu, machine):
    level = np.clip(np.add.outer(np.linspace(0, 0.7, 200), RNG.random(150) * 0.3), 0, 1).astype(np.float32)
    row = {"patient_id": "7", "image_id": "8", "laterality": "L", "view": "CC", "machine_id": str(machine)}
    (tmp_path / "x.dcm").write_bytes(dicom_bytes(level, row))
    decoder = FrameDecoder(library_on_cpu)
    ((_, ours, header),) = decode_many([tmp_path / "x.dcm"], decoder=decoder)
    expected, expected_header = read_dicom(tmp_path / "x.dcm", decoder="cpu")
    assert np.array_equal(ours, expected)
    assert header == expected_header
    if DEVICES[machine].syntax == JPEG2000Lossless:
        assert decoder.counts == {"gpu": 1}


@pytest.mark.parametrize("path", sorted(PYDICOM_FILES.glob("*.*")), ids=lambda path: path.name)
def test_library_reads_pydicom_files_as_the_cpu_does(library_on_cpu, path):
    def read(decoder: str | FrameDecoder) -> Any:
        try:
            return read_stored(path, decoder=decoder)
        except InputError as error:
            return str(error)

    ours, expected = read(FrameDecoder(library_on_cpu)), read("cpu")
    if isinstance(expected, str):
        assert ours == expected
    else:
        assert ours.dtype == expected.dtype
        assert np.abs(ours.astype(int) - expected.astype(int)).max() <= (1 if "JPEG2000" in path.name else 0)


@pytest.mark.gpu
def test_gpu_decodes_as_the_cpu_does(tmp_path, caplog):
    try:
        codec = open_gpu()
    except GpuUnavailableError as error:
        pytest.skip(str(error))
    paths = [j2k_file(tmp_path / f"{bits}.dcm", pixels, bits) for bits, pixels in BY_BITS.items()]
    large = RNG.integers(0, 4096, (600, 500), dtype=np.uint16)
    paths.append(j2k_file(tmp_path / "large.dcm", large, 12))
    stream = encode_array(large, bits_stored=12, photometric_interpretation=2, compression_ratios=[4.0])
    paths.append(save(tmp_path / "lossy.dcm", compressed(image(large, 12), stream), JPEG2000))
    decoder = FrameDecoder(codec, strict=True)
    with caplog.at_level(logging.WARNING):
        for path, pixels, _ in decode_many(paths * 3, batch=4, window=None, decoder=decoder):
            expected = read_dicom(path, window=None, decoder="cpu")[0]
            most = 17 if path.name == "lossy.dcm" else 0  # a grey level of 12 bits is 16 or 17 of 16 bits
            assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= most, path.name
    assert decoder.counts == {"gpu": 15}
    assert caplog.text == ""


@pytest.mark.gpu
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_gpu_decodes_lossless_jpeg_or_gives_it_back(tmp_path, syntax):
    try:
        codec = open_gpu()
    except GpuUnavailableError as error:
        pytest.skip(str(error))
    path = save(tmp_path / "x.dcm", compressed(image(TWELVE, 12), jpeg_lossless(TWELVE, 12)), syntax)
    assert np.array_equal(read_stored(path, decoder=FrameDecoder(codec)), TWELVE)
