"""Read weight files of ours, torchvision, timm, detectron2 and Caffe2, without running code from them."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mammodet.errors import InputError
from mammodet.files import check_is_file
from mammodet.modeling.packed_files import is_safetensors, read_parts, read_state
from mammodet.modeling.weight_bombs import check_archive, check_stream, check_tensor

Layout = Literal["mammodet", "torchvision", "detectron2", "caffe2", "unknown"]
#: Where a file of `mammodet convert-weights`, which version 0.1 had, says what it holds.
HEADER = "mammodet_weights"
#: Where a checkpoint of ours says where it comes from.
KEY = "mammodet"
#: What it says there of what a model saw (`mammodet.engine.checkpoint.RunFacts`).
SEEN: dict[str, type] = {"patients": list, "files": list, "unknown_patients": int, "unknown_start": str}

#: First bytes of torch's file formats: a zip archive, and a pickled number before 2020.
_ZIP, _OLD_TORCH = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE = b"\x80"

#: Names that stand in one layout alone, in the order in which they are looked for.
_LAYOUTS: tuple[tuple[Layout, str], ...] = (
    ("mammodet", r"(detector|network|image_head)\."),
    ("caffe2", r"(conv1|fpn_inner_.+|conv_rpn_fpn2|bbox_pred)_[wb]|res(_conv1|\d_\d+_branch\w+)(_bn)?_(w|b|s|rm|riv)"),
    ("detectron2", r"(.*\.)?(bottom_up|proposal_generator|fpn_(lateral|output)\d|stem|res[2-5]\.\d+)\..+"),
    ("torchvision", r"(.*\.)?(layer[1-4]\.\d+\.\w+|rpn\.head|fpn\.(inner|layer)_blocks)\..+"),
)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
        state: tensors by name, on the CPU; a leading `model.` (Lightning's) is taken off.
        layout: whose names they are; `mammodet` is a checkpoint of ours, with a detector of either library inside.
        facts: what the file says of itself, where it does: `stride_in_1x1` and `pixels` (with a `std` of each colour),
            `author`, `matching_heuristics` (detectron2: names may be ends of a model's names), and of a checkpoint of
            ours its `config` and what it has seen: `patients`, `files`, `unknown_patients` and `unknown_start`.
    """

    state: dict[str, Tensor]
    layout: Layout
    facts: dict[str, Any]


def read_weights(path: Path) -> WeightFile:
    """Read `.pth`, `.pt`, `.ckpt`, `.pyth` (pycls), `.safetensors` and `.pkl` (detectron2's zoo, Caffe2, Detectron).

    Raises:
        InputError: missing, damaged, without weights, or holding what would run code.
    """
    content = read_torch(path)
    state = state_of(content, path)
    facts = _facts(content)
    layout = layout_of(state)
    if layout == "caffe2":
        facts.setdefault("author", "Caffe2")
        facts["matching_heuristics"] = True
    return WeightFile(state, layout, facts)


def layout_of(names: Mapping[str, Tensor]) -> Layout:
    """Whose names these are."""
    for layout, pattern in _LAYOUTS:
        if any(re.match(pattern, name) for name in names):
            return layout
    return "unknown"


def _facts(content: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not isinstance(content, dict):
        return facts
    if "__author__" in content:
        facts["author"] = str(content["__author__"])
    if "matching_heuristics" in content:
        facts["matching_heuristics"] = bool(content["matching_heuristics"])
    header, run = content.get(HEADER), content.get(KEY)
    if isinstance(header, dict):
        facts |= {key: header[key] for key in ("stride_in_1x1", "pixels") if header.get(key) is not None}
    for key, kind in (("config", dict), *SEEN.items()):
        if isinstance(run, dict) and isinstance(run.get(key), kind):
            facts[key] = run[key]
    return facts


def read_torch(path: Path) -> Any:
    """Load a torch file, a pickle of arrays or a safetensors file, told by its content, without running code from it.

    A packed model gives what a checkpoint does: its weights under `state_dict`, its facts under `KEY`.

    Raises:
        InputError: missing, cut short, or holding more than tensors and plain values.
    """
    check_is_file(path, "a checkpoint")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_OLD_TORCH))
        if is_safetensors(start):
            parts, state = read_parts(path), read_state(path)
            return state if parts is None else {"state_dict": state, KEY: parts.facts}
        check_archive(path)
        if _is_plain_pickle(path, start):
            return _read_pickle(path)
        # torchvision's own training script keeps its command line beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception:  # torch raises half a dozen kinds for a damaged file, and advises to load it unsafely
        raise InputError(
            f"{path}: cannot be read as a checkpoint; it is cut short, damaged, or holds more than weights"
        ) from None


def state_of(value: Any, path: Path) -> dict[str, Tensor]:
    """The weights inside a file: a plain state dict, or under `state_dict`, `model`, `model_state` or `blobs`.

    Arrays become tensors; Caffe2's momenta are left out.
    """
    if isinstance(value, dict):
        for key in ("state_dict", "model", "model_state", "blobs"):
            if isinstance(value.get(key), dict):
                value = value[key]
                break
    tensors: dict[str, Tensor] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, _PickledArray):
            item = item.value
        if isinstance(item, np.ndarray):
            # A copy: numpy gives what it unpickles read-only, and perhaps in another byte order.
            try:
                item = torch.from_numpy(np.array(item, dtype=item.dtype.newbyteorder("="), order="C"))
            except TypeError:
                raise InputError(
                    f"{path}: the array {key!r:.80} is of {item.dtype}, which torch does not know"
                ) from None
        if isinstance(item, Tensor) and not str(key).endswith("_momentum"):
            check_tensor(item, str(key), path)
            tensors[str(key).removeprefix("model.")] = item.detach()
    if not tensors:
        raise InputError(f"{path}: holds no weights")
    return tensors


def _is_plain_pickle(path: Path, start: bytes) -> bool:
    """By content; of the oldest pickles, which are text, by name."""
    if start.startswith((_ZIP, _OLD_TORCH)):
        return False
    return start.startswith(_PICKLE) or (path.suffix == ".pkl" and bool(start))


def _read_pickle(path: Path) -> Any:
    try:
        # Under Python 2 arrays were pickled as text, which latin1 gives back byte by byte.
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's and torch's, on their own old names
            return _ArrayUnpickler(file, encoding="latin1").load()
    except _ForbiddenError as error:
        raise InputError(
            f"{path}: is a pickle that names {error}, and reading it would run that code. Expected plain weights: "
            "arrays and tensors by name. If you trust its origin, save it as such where it was made"
        ) from None


class _ForbiddenError(Exception):
    """A pickle names a class or function that is not among those that rebuild arrays."""


class _ArrayUnpickler(pickle.Unpickler):
    """Plain values, numpy arrays and torch tensors; no other class or function is ever looked up.

    numpy itself is given no state out of a pickle: an array is made from its type, shape and bytes.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The few constructors of arrays and tensors, under their names of all years."""
        # Functions are made afresh, so that a pickle that changes one's attributes changes nothing here.
        makers: dict[tuple[str, str], Callable[[], Any]] = {
            ("numpy", "ndarray"): object,
            ("numpy", "dtype"): _make_dtype,
            ("numpy._core.multiarray", "_reconstruct"): _make_array,
            ("numpy._core.multiarray", "scalar"): _make_scalar,
            ("numpy._core.numeric", "_frombuffer"): _make_from_buffer,
            ("_codecs", "encode"): _make_encode,
            ("__builtin__", "bytes"): _make_no_bytes,
            ("collections", "OrderedDict"): lambda: OrderedDict,
            ("torch.storage", "_load_from_bytes"): _make_storage,
            ("torch._utils", "_rebuild_tensor_v2"): _make_tensor,
            ("torch._utils", "_rebuild_parameter"): _make_parameter,
        }
        make = makers.get((re.sub(r"^numpy\.core\b", "numpy._core", module), name))
        if make is None:
            raise _ForbiddenError(f"{module}.{name}")
        return make()


class _PickledType:
    """A numpy type of numbers: made by its name, then given its byte order."""

    def __init__(self, name: str) -> None:
        self.value = np.dtype(str(name))
        if self.value.kind not in "fiub" or self.value.subdtype is not None:
            raise ValueError(f"an array of {self.value}; expected numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


class _PickledArray:
    """An array: made empty, then given (version, shape, type, column-major, bytes)."""

    def __init__(self) -> None:
        self.value = np.empty(0, np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, column_major, content = state[-4:]
        self.value = _from_bytes(content, kind, shape, "F" if column_major else "C")


def _from_bytes(content: Any, kind: _PickledType, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, kind.value).reshape(shape, order=order)


def _make_dtype() -> Callable[..., _PickledType]:
    return lambda name, *_options: _PickledType(name)


def _make_array() -> Callable[..., _PickledArray]:
    return lambda *_usual: _PickledArray()


def _make_scalar() -> Callable[..., Any]:
    return lambda kind, content: _from_bytes(content, kind, (), "C")[()]


def _make_from_buffer() -> Callable[..., np.ndarray]:
    def from_buffer(content: Any, kind: _PickledType, shape: Any, order: str, axes: Any = None) -> np.ndarray:
        array = _from_bytes(content, kind, shape, "F" if order == "F" else "C")
        return array if axes is None else array.transpose(axes)

    return from_buffer


def _make_encode() -> Callable[..., bytes]:
    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes in {encoding}; expected latin1")
        return text.encode("latin1")

    return encode


def _make_no_bytes() -> Callable[[], bytes]:
    return lambda: b""  # of an empty array, in Python 2's protocols


def _make_storage() -> Callable[..., Any]:
    def storage(content: bytes) -> Any:
        check_stream(io.BytesIO(content), len(content), Path("a storage"))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    return storage


def _make_tensor() -> Callable[..., Tensor]:
    def tensor(storage: Any, offset: int, size: Any, stride: Any, *_rest: Any) -> Tensor:
        if not isinstance(storage, torch.storage.TypedStorage):
            raise ValueError(f"a tensor over {type(storage).__name__}; expected a storage")
        # torch refuses what lies outside of the storage, or enlarges it.
        return torch.empty(0, dtype=storage.dtype).set_(storage.untyped(), offset, size, stride)

    return tensor


def _make_parameter() -> Callable[..., Any]:
    return lambda data, *_rest: data
