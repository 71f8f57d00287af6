"""Which images a model has seen, so that one of them is recognised whatever its patient is called.

Of each image two short hashes are kept, 16 characters in all (50 000 images: 0.8 MB), and neither name nor pixels: of
the file's name in its data set with the image's size, and of its content. Content is the file's length and 64 KB from
its middle: of pixels that is as good as all, and a training set is looked through in the time that it takes to open its
files. The same pixels in another format are found by name alone; mammodet audit compares pixels.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from mammodet.records import Dataset, ImageRecord

_BYTES = 6  # of a hash: 8 characters; two of 10^5 images agree by chance once in 50 000 data sets
_SLICE = 65536  # bytes of a file


def _read_hashes(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    joined = base64.b64decode(text, validate=True)
    if len(joined) % _BYTES:
        raise ValueError("the hashes of images are cut short")
    return frozenset(joined[at : at + _BYTES] for at in range(0, len(joined), _BYTES))


#: In JSON one text.
Hashes = Annotated[
    frozenset[bytes],
    BeforeValidator(_read_hashes),
    PlainSerializer(lambda hashes: base64.b64encode(b"".join(sorted(hashes))).decode("ascii")),
]


@dataclass(frozen=True, slots=True)
class SeenImages:
    """Hashes of images."""

    names: Hashes = frozenset()  #: of name and size
    contents: Hashes = frozenset()  #: of the files' bytes

    @staticmethod
    def of(records: Iterable[ImageRecord], root: Path) -> "SeenImages":
        """The images of data sets; of a missing file the name alone."""
        records = list(records)
        contents = (_content(root / record.file_name) for record in records)
        return SeenImages(frozenset(map(_name, records)), frozenset(each for each in contents if each is not None))

    def joined(self, other: "SeenImages") -> "SeenImages":
        """The images of both."""
        return SeenImages(self.names | other.names, self.contents | other.contents)

    def found_in(self, dataset: Dataset, root: Path) -> list[str]:
        """File names of those images of a data set that were seen, by name and size or by content."""
        if not self.names and not self.contents:
            return []
        return [
            record.file_name
            for record in dataset.images
            if _name(record) in self.names or _content(root / record.file_name) in self.contents
        ]


def _name(record: ImageRecord) -> bytes:
    height, width = record.size_hw
    return _hash(f"{record.file_name} {height} {width}".encode())


def _content(path: Path) -> bytes | None:
    return _hash(sample(path)) if path.is_file() else None


def sample(path: Path) -> bytes:
    """A file's length and 64 KB from its middle, which differ between files of different pixels."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(size - _SLICE, 0) // 2)
        return size.to_bytes(8, "little") + file.read(_SLICE)


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_BYTES]
