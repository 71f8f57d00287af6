"""What a weight file could do to memory and time, found before it is read: by its directory, pickle and strides."""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from mammodet.errors import InputError

#: First bytes of torch's file formats: a zip archive, and a pickled number before 2020.
ZIP = b"PK\x03\x04"
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Steps of a pickle that are followed, and values that it may put into its table: a checkpoint has some 10^5.
_MOST_STEPS, _MOST_PICKLE = 10**7, 2**28
#: Types of numbers that weights have.
_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
)


def check_stream(file: IO[bytes], size: int, path: Path) -> None:
    """Refuse a torch file or a pickle that would unpack to more than it holds.

    Args:
        file: a file, or a part of one.
        size: in bytes.
        path: for messages.
    Raises:
        InputError: compressed entries (torch writes none), entries that lie upon each other, or a pickle whose table
            is larger than the file.
    """
    file.seek(0)
    start = file.read(len(OLD_TORCH))
    file.seek(0)
    if not start.startswith(ZIP):
        # before 2020, torch wrote three pickles before the one of the weights, and one after it
        for _ in range(5 if start.startswith(OLD_TORCH) else 1):
            _check_pickle(path, file, size)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            packed = [
                entry.filename for entry in entries if entry.compress_type or entry.compress_size != entry.file_size
            ]
            if packed or sum(entry.file_size for entry in entries) > size:
                raise InputError(
                    f"{path}: is a compressed archive, or its entries lie upon each other (for instance "
                    f"{(packed or [entries[0].filename])[0]!r:.60}); torch writes neither. Save the weights anew"
                )
            for entry in entries:
                if entry.filename.endswith(("/data.pkl", "/constants.pkl")):
                    if entry.file_size > _MOST_PICKLE:
                        raise InputError(f"{path}: its directory of weights has {entry.file_size} bytes; it is damaged")
                    _check_pickle(path, io.BytesIO(archive.read(entry)), entry.file_size)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint; it is cut short or damaged ({error})") from None


def _check_pickle(path: Path, file: IO[bytes], size: int) -> None:
    try:
        for number, (step, value, position) in enumerate(pickletools.genops(cast(IO[bytes], _Bounded(file, size)))):
            if number > _MOST_STEPS:
                raise InputError(f"{path}: its pickle has more than {_MOST_STEPS} steps; expected weights by name")
            if "PUT" in step.name and isinstance(value, int) and value > size:
                raise InputError(
                    f"{path}: its pickle would fill a table of {value} places (at byte {position}); it is damaged"
                )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a checkpoint; it is cut short or damaged ({error})") from None


class _Bounded(io.RawIOBase):
    """A file of which no more is asked for than it has: a pickle names lengths that are then taken from memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int = -1) -> bytes:
        if count > self._size:
            raise ValueError(f"a length of {count} bytes in a file of {self._size}")
        return self._file.read(count)

    def readline(self, count: int | None = -1) -> bytes:
        return self._file.readline(-1 if count is None else count)

    def tell(self) -> int:
        return self._file.tell()


def check_tensor(tensor: Tensor, name: str, path: Path) -> None:
    """Refuse what is no plain array of numbers, or names more numbers than the file holds.

    Raises InputError: with its name, and what it is.
    """
    kind = None
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = f"{tensor.layout} on {tensor.device.type}{', quantized' if tensor.is_quantized else ''}"
    elif tensor.dtype not in _DTYPES:
        kind = str(tensor.dtype)
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        kind = f"{tensor.numel()} numbers over {tensor.untyped_storage().nbytes()} bytes"
    if kind is not None:
        raise InputError(f"{path}: the tensor {name!r:.80} is no plain array of numbers ({kind}); save it as one")
