"""What every tool does around its main function: plain messages for a user's mistakes, and an exit status."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from mammodet.errors import InputError, printable


def run(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a tool and exit: 0 done, 1 something in the data is wrong, 2 wrong input, 130 interrupted.

    Errors that a user can act on are printed without a traceback; anything else is a defect of ours and keeps its own.
    """
    sys.stdout, sys.stderr = _Printed(sys.stdout), _Printed(sys.stderr)
    try:
        sys.exit(main(None))
    except InputError as error:
        # A data loader's worker wraps the message in its traceback.
        _stop(str(error).split("InputError: ")[-1], 2)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _stop(f"the disk is full: {error}; nothing half-written was kept", 2)
        if error.filename is not None:
            hint = "; expected a folder" if isinstance(error, FileExistsError | NotADirectoryError) else ""
            _stop(f"{error.filename}: {error.strerror}{hint}", 2)
        raise


class _Printed:
    """A stream that prints names out of files as they are, but for what would steer the terminal (`\\x1b[31m`)."""

    #: Of progress bars: back to the line's begin, lines up or down.
    _ALLOWED = re.compile(r"(\x1b\[A)+|\r*")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        start = self._ALLOWED.match(text)
        end = start.end() if start else 0
        shown = text[:end] + printable(text[end:].replace("\r\n", "\n"))
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _stop(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
