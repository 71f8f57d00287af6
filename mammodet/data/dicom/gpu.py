"""Decode JPEG 2000 and lossless JPEG on an NVIDIA GPU by nvImageCodec, with the same pixels as on the CPU.

Both paths share everything but the codec: the file is parsed and its codestream checked against the header before, the
pixels are checked and windowed after. Frames that the GPU codec does not decode go to the CPU: counted, and said in the
log; or refused where `gpu` was asked for. Of each kind (transfer syntax and precision) frames are decoded by both until
one comes out the same: bit for bit where the syntax is lossless, within one grey level where it is not. One that does
not is taken from the CPU.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
)

from mammodet.data.dicom.codec import Frame, check_pixels, decode
from mammodet.errors import InputError

DECODERS = ("cpu", "gpu", "auto")
#: Which decoder is taken where the caller names none.
ENVIRONMENT = "MAMMODET_DICOM_DECODER"
#: Pixels that are decoded at once: their 16-bit values take half a gigabyte of the GPU's memory.
MOST_PIXELS_AT_ONCE = 2**28
INSTALL = 'pip install -e ".[gpu]" (nvidia-nvimgcodec-cu12 with nvJPEG and nvJPEG2000)'

_LOSSLESS = (JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGLossless, JPEGLosslessSV1)
_JPEG_LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
_log = logging.getLogger(__name__)


class GpuUnavailableError(Exception):
    """Why nothing can be decoded on a GPU here."""


class BatchCodec(Protocol):
    """What decodes codestreams of one grey channel.

    `decode` gives for each stream its values, uint8 up to 8 bits and uint16 above, (height, width), or None where it
    cannot decode it. It may raise anything; then none of the streams was decoded.
    """

    def decode(self, streams: Sequence[bytes]) -> list[NDArray[Any] | None]: ...


class NvImageCodec:
    """NVIDIA's nvImageCodec on the current CUDA device.

    Args:
        library: the module `nvidia.nvimgcodec`.
        on_cpu: decode by the library's own CPU codecs instead, which needs no GPU: to test the calls made here.
    """

    def __init__(self, library: Any, *, on_cpu: bool = False) -> None:
        self._library = library
        if on_cpu:
            kinds, device = [library.BackendKind.CPU_ONLY], library.NVIMGCODEC_DEVICE_CPU_ONLY
        else:
            # Not CPU_ONLY: the library would fall to its own CPU codecs without a word.
            kinds, device = [library.BackendKind.GPU_ONLY, library.BackendKind.HYBRID_CPU_GPU], -1
        self._decoder = library.Decoder(device_id=device, backends=[library.Backend(kind) for kind in kinds])
        # Values as they are: by default they are scaled to 8 bits and made RGB.
        self._params = library.DecodeParams(
            apply_exif_orientation=False, color_spec=library.ColorSpec.UNCHANGED, allow_any_depth=True
        )

    def decode(self, streams: Sequence[bytes]) -> list[NDArray[Any] | None]:
        """Values of each stream in main memory, (height, width), or None where the library cannot decode it."""
        # Parsed when they are decoded: one that is no image gives None, and costs the others nothing.
        images = self._decoder.decode([self._library.CodeStream(stream) for stream in streams], params=self._params)
        return [_to_array(image) for image in images]


def _to_array(image: Any) -> NDArray[Any] | None:
    host = image.cpu() if image is not None else None
    if host is None:
        return None
    values = np.array(host)  # a copy: the view would keep the library's buffer
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


class FrameDecoder:
    """Decodes frames, on the GPU where it has one and can, else on the CPU. Threads may share it.

    Args:
        codec: decodes on the GPU; None decodes everything on the CPU.
        strict: refuse compressed frames that the GPU does not decode, instead of leaving them to the CPU.
    Attributes:
        counts: frames by what became of them: `gpu`; `cpu`, where nothing else was asked for or the pixels are not
            compressed; `cpu: REASON`, where the GPU was asked for and did not decode them.
    """

    def __init__(self, codec: BatchCodec | None = None, *, strict: bool = False) -> None:
        self._codec = codec
        self._strict = strict
        self._lock = threading.Lock()
        self._gpu_lock = threading.Lock()  # one batch at a time, so that memory is bounded
        self._proved: set[tuple[UID, int]] = set()  # kinds of which the GPU has decoded a frame as the CPU does
        self.counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """`gpu` or `cpu`."""
        return "cpu" if self._codec is None else "gpu"

    def summary(self) -> str:
        """How many frames were decoded where, and why not on the GPU."""
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())) or "no frames"

    def decode(self, frame: Frame) -> NDArray[Any]:
        """Stored values of one frame, as `codec.decode` gives them.

        Raises:
            InputError: as there; and, of a strict decoder, the GPU did not decode the frame.
        """
        return self.finish(frame, self.on_gpu([frame])[0])

    def on_gpu(self, frames: Sequence[Frame]) -> list[NDArray[Any] | str]:
        """What the GPU makes of frames: values (height, width), or why there are none ("": nothing to be done there).

        Each is to be given to `finish`, in any thread.
        """
        if self._codec is None:
            return [""] * len(frames)
        found: list[NDArray[Any] | str] = [obstacle(frame) for frame in frames]
        able = [number for number, frame in enumerate(frames) if frame.syntax.is_encapsulated and not found[number]]
        for part in _parts(able, frames):
            for number, result in zip(
                part, self._decode_part(self._codec, [frames[number] for number in part]), strict=True
            ):
                found[number] = result
        return found

    def finish(self, frame: Frame, found: NDArray[Any] | str) -> NDArray[Any]:
        """Checked stored values of a frame from what `on_gpu` found; decoded on the CPU where that is nothing.

        Raises:
            InputError: as `decode`.
        """
        if isinstance(found, str):
            return self._on_cpu(frame, found)
        kind = frame.syntax, frame.precision or 0
        if kind not in self._proved:
            expected, most = decode(frame), 0 if frame.syntax in _LOSSLESS else 1
            difference = int(np.abs(expected.astype(np.int32) - found.astype(np.int32)).max())
            if difference > most:
                reason = f"the GPU's pixels of {frame.syntax.name} at {frame.precision} bits differ from the CPU's"
                return self._on_cpu(frame, reason, f" by up to {difference} grey levels, expected {most}", expected)
            self._proved.add(kind)
        pixels = check_pixels(frame, found)
        self._count("gpu")
        return pixels

    def _decode_part(self, codec: BatchCodec, frames: Sequence[Frame]) -> list[NDArray[Any] | str]:
        try:
            with self._gpu_lock:
                decoded = codec.decode([frame.value for frame in frames])
        except Exception as error:  # the driver's: out of memory, a lost device, ...
            return [f"the GPU codec failed ({_reason(error)})"] * len(frames)
        return [_fitting(frame, pixels) for frame, pixels in zip(frames, decoded, strict=True)]

    def _on_cpu(self, frame: Frame, reason: str, detail: str = "", pixels: NDArray[Any] | None = None) -> NDArray[Any]:
        """The CPU's pixels of a frame, of which a `reason` is told and counted; `detail` is told only."""
        if reason and self._strict:
            raise InputError(
                f"{frame.path}: is not decoded on the GPU: {reason}{detail}. Choose the decoder 'auto', which leaves "
                "such files to the CPU, or 'cpu'."
            )
        pixels = decode(frame) if pixels is None else pixels
        if self._count(f"cpu: {reason}" if reason else "cpu") == 1 and reason:
            _log.warning(
                "%s: decoded on the CPU: %s%s; further files like it are counted only", frame.path, reason, detail
            )
        return pixels

    def _count(self, what: str) -> int:
        with self._lock:
            self.counts[what] += 1
            return self.counts[what]


def obstacle(frame: Frame) -> str:
    """Why a frame is nothing for the GPU codec, by what it is; "" where it may be tried, and of plain pixels."""
    if not frame.syntax.is_encapsulated:
        return ""
    jpeg2000, precision = frame.syntax in JPEG2000TransferSyntaxes, frame.precision or 0
    if not jpeg2000 and frame.syntax not in _JPEG_LOSSLESS:
        return f"{frame.syntax.name} is not decoded there"
    # What pydicom makes of a sign that header and stream disagree about is the CPU's business.
    if frame.stored.signed or (jpeg2000 and frame.value[42] & 128):
        return "signed values"
    if not 8 <= precision <= 16:
        return f"values of {precision} bits"
    if jpeg2000 and any(frame.value[16:24]):  # XOsiz, YOsiz: ITU-T T.800 A.5.1
        return "an image that begins off the origin of its grid"
    # pylibjpeg sizes what it decodes of JPEG by the header's bits, and pydicom cuts off what is above those stored.
    if not jpeg2000 and ((precision > 8) != (frame.stored.bits_allocated > 8) or precision > frame.stored.bits_stored):
        return (
            f"{precision} bits of JPEG in {frame.stored.bits_stored} stored and {frame.stored.bits_allocated} allocated"
        )
    return ""


def _fitting(frame: Frame, pixels: NDArray[Any] | None) -> NDArray[Any] | str:
    """The GPU's pixels where they are of the form that the CPU's have."""
    if pixels is None:
        return "the GPU codec does not decode the stream (nvJPEG and nvJPEG2000 write why to the standard error)"
    kind = np.uint8 if (frame.precision or 0) <= 8 else np.uint16
    if pixels.shape != frame.stored.size_hw or pixels.dtype != kind:
        height, width = frame.stored.size_hw
        shape = " x ".join(str(side) for side in pixels.shape)
        return f"the GPU codec gives {shape} {pixels.dtype}; expected {height} x {width} {np.dtype(kind)}"
    return pixels


def _parts(numbers: Sequence[int], frames: Sequence[Frame]) -> list[list[int]]:
    """Frames by number, in parts of no more pixels than are decoded at once, unless a single one has more."""
    parts: list[list[int]] = []
    room = 0
    for number in numbers:
        pixels = frames[number].stored.pixel_count
        if not parts or pixels > room:
            parts.append([])
            room = MOST_PIXELS_AT_ONCE
        parts[-1].append(number)
        room -= pixels
    return parts


_chosen: dict[tuple[str, int], FrameDecoder] = {}
_choosing = threading.Lock()


def choose_decoder(name: str | FrameDecoder | None = None) -> FrameDecoder:
    """The decoder of that name, made once in each process.

    Args:
        name: `cpu`; `gpu`, which refuses what the GPU cannot do; `auto`: the GPU where nvImageCodec and a CUDA device
            are there, else the CPU, said once in the log. None takes the environment's MAMMODET_DICOM_DECODER, and
            `cpu` where that is not set. A decoder is given back as it is.
    Raises:
        InputError: there is no such name; or `gpu` was asked for and there is none.
    """
    if isinstance(name, FrameDecoder):
        return name
    origin = "decoder" if name is not None else ENVIRONMENT
    wanted = name if name is not None else os.environ.get(ENVIRONMENT, "").strip() or "cpu"
    if wanted not in DECODERS:
        raise InputError(f"{origin} {wanted!r}: expected one of {', '.join(DECODERS)}")
    # By process: what a forked process inherits of CUDA does not work in it.
    key = wanted, os.getpid()
    with _choosing:
        if key not in _chosen:
            _chosen[key] = _made(origin, wanted)
        return _chosen[key]


def _made(origin: str, wanted: str) -> FrameDecoder:
    if wanted == "cpu":
        return FrameDecoder()
    try:
        codec = open_gpu()
    except GpuUnavailableError as error:
        if wanted == "gpu":
            raise InputError(f"{origin} 'gpu': {error}. Or choose 'cpu', or 'auto'.") from None
        _log.warning("DICOM files are decoded on the CPU: %s", error)
        return FrameDecoder()
    _log.info("DICOM files are decoded on the GPU by nvImageCodec")
    return FrameDecoder(codec, strict=wanted == "gpu")


def open_gpu() -> BatchCodec:
    """nvImageCodec on the current CUDA device, after it has decoded test images as it should.

    Raises:
        GpuUnavailableError: the library, its JPEG 2000 part, the driver or a device is missing, or the test images come
            out wrong.
    """
    try:
        library = importlib.import_module("nvidia.nvimgcodec")
    except ImportError as error:
        raise GpuUnavailableError(f"nvImageCodec is not installed ({error}); {INSTALL}") from None
    try:
        codec = NvImageCodec(library)
    except Exception as error:
        raise GpuUnavailableError(
            f"nvImageCodec finds no CUDA device or driver that it can use ({_reason(error)})"
        ) from None
    probe(codec)
    return codec


def probe(codec: BatchCodec) -> None:
    """Let a codec decode small JPEG 2000 images of 8, 12 and 16 bits that are encoded here.

    Raises:
        GpuUnavailableError: it does not decode them, or not to the pixels that were encoded.
    """
    from openjpeg.utils import encode_array

    values = np.random.default_rng(0).integers(0, 2**16, (64, 48), dtype=np.uint16)
    images = [(values >> 8).astype(np.uint8), values >> 4, values]
    depths = (8, 12, 16)
    streams = [
        encode_array(image, bits_stored=bits, photometric_interpretation=2, use_mct=False)
        for image, bits in zip(images, depths, strict=True)
    ]
    try:
        decoded = codec.decode(streams)
    except Exception as error:
        raise GpuUnavailableError(f"nvImageCodec cannot decode on this machine's GPU ({_reason(error)})") from None
    for image, bits, found in zip(images, depths, decoded, strict=True):
        if found is None:
            raise GpuUnavailableError(f"nvImageCodec decodes no JPEG 2000 here; is nvJPEG2000 installed? {INSTALL}")
        if found.dtype != image.dtype or not np.array_equal(found, image):
            raise GpuUnavailableError(
                f"nvImageCodec decodes a test image of {bits} bits to other pixels than were encoded"
            )


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


__all__ = [
    "DECODERS",
    "ENVIRONMENT",
    "BatchCodec",
    "FrameDecoder",
    "GpuUnavailableError",
    "NvImageCodec",
    "choose_decoder",
    "obstacle",
    "open_gpu",
    "probe",
]
