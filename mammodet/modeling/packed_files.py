"""Safetensors files: plain weights, and our packed models, whose header also holds facts, calibration and card.

A packed model is one file that holds all that prediction needs, and nothing that runs (docs/starter.md).
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mammodet.errors import InputError, raise_faults
from mammodet.files import atomic_path, parse_json

FORMAT = "mammodet-model/1"
_ANY_VERSION = "mammodet-model/"
#: Largest header, as safetensors' own limit, and largest part after decompression.
_MOST_HEADER, _MOST_PART = 100_000_000, 64 * 2**20
#: Half precision keeps 11 bits: rounding moves a number by 2^-11 of its size, if it neither over- nor underflows.
HALF_ROUNDING = 2.0**-11


@dataclass(frozen=True, slots=True)
class Parts:
    """What a packed model holds beside its weights, as JSON values."""

    facts: dict[str, Any]  #: as `mammodet.engine.checkpoint.RunFacts.to_json`
    calibration: dict[str, Any] | None = None  #: as `mammodet.evaluation.calibration_file.to_json`, or None
    card: dict[str, Any] | None = None  #: as `mammodet.models.card.ModelCard`, or None


def is_safetensors(start: bytes) -> bool:
    """Whether a file's first 9 bytes or more are those of safetensors: the header's length, then the header."""
    return len(start) > 8 and start[4:8] == b"\0\0\0\0" and start[8:9] == b"{"


def read_parts(path: Path) -> Parts | None:
    """What the header of a packed model says; None for a file of plain weights. No weights are read.

    Raises InputError: damaged, of another version, or with parts that are not known or cannot be read.
    """
    try:
        with _open(path) as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, error) from None
    if not metadata.get("format", "").startswith(_ANY_VERSION):
        return None
    if metadata["format"] != FORMAT:
        raise InputError(f"{path}: format is {metadata['format']!r:.60}; this version of mammodet reads {FORMAT!r}")
    known = ("format", *Parts.__dataclass_fields__)
    faults = [
        f"unknown part {name!r:.60}; expected {', '.join(known)}" for name in sorted(metadata) if name not in known
    ]
    if "facts" not in metadata:
        faults.append("'facts' are missing")
    raise_faults(faults, where=f"{path}: header", advice="Pack the model again (mammodet pack).")
    return Parts(**{name: _decode(metadata[name], f"{path}: {name}") for name in known[1:] if name in metadata})


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors by name, on the CPU; half precision becomes float32. Raises InputError: damaged."""
    try:
        with _open(path) as file:
            return {name: _full(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, AttributeError, KeyError) as error:  # the last two: types unknown to torch
        raise _damaged(path, error) from None


def write_packed(path: Path, state: Mapping[str, Tensor], parts: Parts, max_bytes: int | None = None) -> int:
    """Write a packed model, whole or not at all, and give its size in bytes.

    Raises InputError: larger than `max_bytes`.
    """
    metadata = {"format": FORMAT}
    for name in Parts.__dataclass_fields__:
        value = getattr(parts, name)
        if value is not None:
            # The card stays legible to every program that shows a header; facts and calibration list patients.
            metadata[name] = _text(value) if name == "card" else _encode(value)
    # Copies: safetensors takes no tensors that share memory, or that lie in strides.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
        size = temporary.stat().st_size
        if max_bytes is not None and size > max_bytes:
            raise InputError(f"{path}: would have {size} bytes, more than --max-bytes {max_bytes}; nothing was written")
    return size


def to_half(tensor: Tensor) -> Tensor:
    """In half precision where that moves no value by more than `HALF_ROUNDING` of the largest: kernels and matrices.

    Vectors (biases, norms and their statistics) stay as they are: they take no room, and a small variance divides.
    """
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.ndim < 2:
        return tensor
    half = tensor.half()
    largest = tensor.abs().max() if tensor.numel() else tensor.sum()
    kept = (half.to(tensor.dtype) - tensor).abs() <= HALF_ROUNDING * largest
    return half if bool(kept.all()) else tensor


def _open(path: Path) -> Any:
    """As safetensors opens it, once its header is known to lie inside the file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(size - 8, _MOST_HEADER):
        raise InputError(
            f"{path}: is cut short or damaged: its header names {header} bytes, the file has {size} (at most "
            f"{_MOST_HEADER} are read). Fetch it again"
        )
    return safe_open(path, framework="pt", device="cpu")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as safetensors; it is cut short or damaged ({error}). Fetch it again")


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(value: Mapping[str, Any]) -> str:
    return base64.b64encode(zlib.compress(_text(value).encode(), 9)).decode("ascii")


def _decode(text: str, where: str) -> dict[str, Any]:
    """A part of the header: JSON, plain or packed by `_encode`; it never unpacks to more than `_MOST_PART` bytes."""
    if not text.startswith("{"):
        unpack = zlib.decompressobj()
        try:
            content = unpack.decompress(base64.b64decode(text, validate=True), _MOST_PART)
            text = content.decode()
        except (binascii.Error, zlib.error, ValueError) as error:
            raise InputError(f"{where} are damaged ({error}); pack the model again") from None
        if not unpack.eof:
            raise InputError(f"{where} are cut short, or unpack to more than {_MOST_PART} bytes; pack the model again")
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise InputError(f"{where}: holds a {type(value).__name__}; expected an object")
    return value
