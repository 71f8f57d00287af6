"""Large JSON files with little memory: long lists are decoded, written and hashed item by item."""

import hashlib
import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO

from mammodet.files import (
    atomic_path,
    check_is_file,
    check_letters,
    check_nesting,
    json_decoder,
    json_faults,
    read_json,
)

_CHUNK = 2**20
_TAIL = 16  # what may follow a number that is cut by the end of a chunk, as in 1.5e+10
_SPACE = re.compile(r"[ \t\n\r]*")


def sharing() -> Callable[[Any], Any]:
    """A function that answers one object for all that are equal: images share sizes, views, patients."""
    return lru_cache(maxsize=2**16)(lambda value: value)


class JsonList:
    """A list inside a JSON file, decoded anew each time that it is gone through.

    Args:
        path: the file, which must not change.
        start: byte at which the list begins.
        count: of its items.
    """

    def __init__(self, path: Path, start: int, count: int) -> None:
        self._path, self._start, self._count = path, start, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        with open(self._path, "rb") as file, json_faults(str(self._path)):
            file.seek(self._start)
            yield from _Text(file, str(self._path)).items()


def read_members(path: Path, long: Collection[str]) -> Any:
    """Read JSON; of an object, the lists that are members of these names as `JsonList`.

    Raises InputError: as `read_json`.
    """
    path = Path(path)
    check_is_file(path, "a JSON file")
    try:
        with open(path, "rb") as file, json_faults(str(path)):
            file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)  # Windows editors put a byte order mark
            text = _Text(file, str(path))
            if text.peek() == "{":
                return text.members(path, long)
    except (OSError, UnicodeDecodeError):
        pass
    return read_json(path)  # which also says what is wrong


class _Text:
    """JSON text of an open file, from its place on, of which little is held at a time."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        self._decode, self._json = getincrementaldecoder("utf-8")().decode, json_decoder(where)
        self._text, self._at, self._ended = "", 0, False
        self._bytes, self._lines, self._column = file.tell(), 0, 0  # before `_text`

    def members(self, path: Path, long: Collection[str]) -> dict[str, Any]:
        """An object, to which nothing may be added."""
        found: dict[str, Any] = {}
        for _ in self._parts("{", "}"):
            if self.peek() != '"':
                raise self._fault("Expecting property name enclosed in double quotes")
            name = self.value()
            self._take(":")
            if self.peek() == "[" and name in long:
                start = self._bytes + len(self._text[: self._at].encode())
                found[name] = JsonList(path, start, sum(1 for _ in self.items()))
            else:
                found[name] = self.value()
        if self.peek():
            raise self._fault("Extra data")
        return found

    def items(self) -> Iterator[Any]:
        """The items of a list."""
        for _ in self._parts("[", "]"):
            yield self.value()

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                if self._ended:
                    raise self._fault(error.msg, error.pos) from None
            else:
                if self._ended or len(self._text) - end > _TAIL:
                    check_letters(value, self._text[self._at : end])
                    self._at = end
                    return value
            self._more()
            check_nesting(self._text, self._where)

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _parts(self, first: str, last: str) -> Iterator[None]:
        """Stops before each part between brackets that is divided by commas."""
        self._take(first)
        if self.peek() == last:
            return self._take(last)
        while True:
            yield
            if self.peek() == last:
                return self._take(last)
            self._take(",")

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise self._fault(f"Expecting {mark!r}{' delimiter' if mark in ',:' else ''}")
        self._at += 1

    def _fault(self, said: str, at: int | None = None) -> JSONDecodeError:
        """With the line and column of the file."""
        fault = JSONDecodeError(said, self._text, self._at if at is None else at)
        fault.colno += self._column if fault.lineno == 1 else 0
        fault.lineno += self._lines
        return fault

    def _more(self) -> None:
        """Read on, by so much that a long value is tried but a few times."""
        done, rest = self._text[: self._at], self._text[self._at :]
        self._bytes += len(done.encode())
        self._lines += done.count("\n")
        self._column = len(done) - done.rfind("\n") - 1 + (0 if "\n" in done else self._column)
        content = self._file.read(max(_CHUNK, len(rest)))
        self._text, self._at, self._ended = rest + self._decode(content, not content), 0, not content


def write_members(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as `write_json` does; of iterators among its members one item at a time."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(_pieces(value))
        file.write("\n")


def members_hash(value: Mapping[str, Any]) -> str:
    """`canonical_hash` of an object, with iterators for lists."""
    found = hashlib.sha256()
    for piece in _pieces({key: value[key] for key in sorted(value)}, canonical=True):
        found.update(piece.encode())
    return found.hexdigest()


def _pieces(value: Mapping[str, Any], *, canonical: bool = False) -> Iterator[str]:
    comma, colon = (",", ":") if canonical else (", ", ": ")
    encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, sort_keys=canonical, separators=(comma, colon)
    ).encode
    yield "{"
    for number, (key, member) in enumerate(value.items()):
        yield f"{comma if number else ''}{encode(key)}{colon}"
        if isinstance(member, Iterator):
            yield "["
            for position, item in enumerate(member):
                yield f"{comma if position else ''}{encode(item)}"
            yield "]"
        else:
            yield encode(member)
    yield "}"
