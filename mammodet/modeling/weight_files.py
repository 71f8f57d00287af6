"""Read weight files of ours, torchvision, timm, detectron2 and Caffe2, without running code from them."""

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
from mammodet.files import check_is_file, dig
from mammodet.modeling.packed_files import is_safetensors, read_parts, read_state
from mammodet.modeling.weight_bombs import OLD_TORCH, ZIP, check_stream, check_tensor

Layout = Literal["mammodet", "torchvision", "detectron2", "caffe2", "unknown"]
#: Where a checkpoint of ours says where it comes from.
KEY = "mammodet"
#: Where files of `mammodet convert-weights`, which is gone, said how they had been changed.
_CONVERTED = "mammodet_weights"
#: Names that one layout alone has, in the order in which they are looked for.
_LAYOUTS: tuple[tuple[Layout, str], ...] = (
    ("mammodet", r"(detector|network|image_head)\."),
    ("caffe2", r"(conv1|fpn_inner_.+|conv_rpn_fpn2|bbox_pred)_[wb]|res(_conv1|\d_\d+_branch\w+)(_bn)?_(w|b|s|rm|riv)"),
    ("detectron2", r"(.*\.)?(bottom_up|proposal_generator|fpn_(lateral|output)\d|stem|res[2-5]\.\d+)\..+"),
    ("torchvision", r"(.*\.)?(layer[1-4]\.\d+\.\w+|rpn\.head|fpn\.(inner|layer)_blocks)\..+"),
)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """What a weight file holds."""

    state: dict[str, Tensor]  #: tensors by name, on the CPU; a leading `model.` (Lightning's) is taken off
    #: whose names they are; `mammodet` is a checkpoint of ours, with a detector of either library inside.
    layout: Layout
    config: dict[str, Any]  #: of a checkpoint of ours, else empty
    #: whether names may be ends of a model's names (`matching_heuristics` of detectron2, and all of Caffe2).
    are_ends: bool = False


def read_weights(path: Path) -> WeightFile:
    """Read `.pth`, `.pt`, `.ckpt`, `.pyth` (pycls), `.safetensors` and `.pkl` (detectron2's zoo, Caffe2, Detectron).

    Raises InputError: missing, damaged, without weights, or holding what would run code.
    """
    content = read_torch(path)
    state = state_of(content, path)
    layout = layout_of(state)
    said = content if isinstance(content, dict) else {}
    if _CONVERTED in said:
        raise InputError(f"{path}: was changed by mammodet convert-weights, which is gone; give its source")
    config = dig(said, KEY, "config")
    are_ends = layout == "caffe2" or bool(said.get("matching_heuristics"))
    return WeightFile(state, layout, config if isinstance(config, dict) else {}, are_ends)


def layout_of(names: Mapping[str, Tensor]) -> Layout:
    """Whose names these are."""
    for layout, pattern in _LAYOUTS:
        if any(re.match(pattern, name) for name in names):
            return layout
    return "unknown"


def read_torch(path: Path) -> Any:
    """Load a torch file, a pickle of arrays or a safetensors file, told by its content, without running code from it.

    A packed model gives what a checkpoint does: its weights under `state_dict`, its facts under `KEY`.

    Raises InputError: missing, cut short, or holding more than tensors and plain values.
    """
    check_is_file(path, "a checkpoint")
    try:
        with open(path, "rb") as file:
            start = file.read(len(OLD_TORCH))
            if is_safetensors(start):
                parts, state = read_parts(path), read_state(path)
                return state if parts is None else {"state_dict": state, KEY: parts.facts}
            check_stream(file, path.stat().st_size, path)
        # A pickle by its content; the oldest ones, which are text, by name.
        is_pickle = start.startswith(b"\x80") or (path.suffix == ".pkl" and start)
        if is_pickle and not start.startswith((ZIP, OLD_TORCH)):
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
        make = _MAKERS.get((re.sub(r"^numpy\.core\b", "numpy._core", module), name))
        if make is None:
            raise _ForbiddenError(f"{module}.{name}")
        return lambda *given: make(*given)  # made afresh: a pickle can change attributes of what it finds


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


def _from_buffer(content: Any, kind: _PickledType, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    array = _from_bytes(content, kind, shape, "F" if order == "F" else "C")
    return array if axes is None else array.transpose(axes)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding}; expected latin1")
    return text.encode("latin1")


def _storage(content: bytes) -> Any:
    check_stream(io.BytesIO(content), len(content), Path("a storage"))
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_rest: Any) -> Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError(f"a tensor over {type(storage).__name__}; expected a storage")
    # torch refuses what lies outside of the storage, or enlarges it.
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped(), offset, size, stride)


#: The few constructors of arrays and tensors, under their names of all years.
_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): object,  # named as the kind of what `_reconstruct` makes
    ("numpy", "dtype"): lambda name, *_options: _PickledType(name),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_usual: _PickledArray(),
    ("numpy._core.multiarray", "scalar"): lambda kind, content: _from_bytes(content, kind, (), "C")[()],
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # of an empty array, in Python 2's protocols
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_rest: data,
}
