"""What a long conversion has finished, so that it can go on after a kill.

One JSON line per finished item, flushed as it is written; a line cut short by a kill is forgotten.
"""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mammodet.files import file_stamp


class Journal:
    """Results by key in a file, which is started anew where it was written with other `options` (JSON values)."""

    def __init__(self, path: Path, options: Any) -> None:
        self._path = path
        self._header = json.dumps({"journal": 1, "options": options}, sort_keys=True)
        self._entries: dict[str, tuple[str, Any]] = {}
        self._file: Any = None

    def __enter__(self) -> Self:
        lines = self._path.read_bytes().split(b"\n") if self._path.is_file() else []
        whole = bool(lines) and lines[0].decode("utf-8", "replace") == self._header
        if whole:
            for line in lines[1:]:
                try:
                    key, fingerprint, value = json.loads(line)
                    self._entries[key] = (fingerprint, value)
                except (ValueError, TypeError):  # cut short by a kill
                    continue
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a" if whole else "w", encoding="utf-8")
        if not whole:
            self._file.write(self._header + "\n")
        elif lines[-1]:
            self._file.write("\n")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            print(f"\nstopped; the same command goes on from {self._path}", file=sys.stderr)

    def get(self, key: str, fingerprint: str) -> Any:
        """The result of `key` where its inputs are unchanged, else None."""
        entry = self._entries.get(key)
        return entry[1] if entry and entry[0] == fingerprint else None

    def put(self, key: str, fingerprint: str, value: Any) -> None:
        """Keep a result; it is on its way to the disk when this returns."""
        self._file.write(json.dumps([key, fingerprint, value], ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()


def files_fingerprint(paths: list[Path]) -> list[list[Any]]:
    """Each file with what tells a changed one."""
    return [[str(path), file_stamp(path)] for path in paths]
