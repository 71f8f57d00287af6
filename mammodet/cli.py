"""What every command does around its main function: messages for a user's mistakes, and an exit status."""

import argparse
import difflib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from mammodet.errors import InputError, printable

_terminated = threading.Event()


def run(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a command and exit: 0 done, 1 the data have faults, 2 wrong input, 130 interrupted, 143 terminated.

    Errors that a user can act on are printed without a traceback; others are our defects and keep it. SIGTERM ends a
    command as Ctrl-C does: its processes are stopped, and it says how to go on.
    """
    sys.stdout, sys.stderr = _Printed(sys.stdout), _Printed(sys.stderr)
    signal.signal(signal.SIGTERM, _Terminator(os.getpid()))
    try:
        _run(main)
    except SystemExit:
        raise
    except BaseException:
        if not _terminated.is_set():
            raise
        _stop("", 143)


class Parser(argparse.ArgumentParser):
    """A command line that keeps the lines of examples and names the nearest flag for an unknown one.

    Args:
        raises: raise InputError instead of exiting.
    """

    def __init__(self, *arguments: Any, raises: bool = False, **options: Any) -> None:
        self._raises = raises
        usual = {"formatter_class": _Help, "allow_abbrev": not raises}
        super().__init__(*arguments, **{**usual, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; `error` looks at what was given."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Report the fault and the nearest flags, and exit with 2."""
        known = list(_flags(self))
        hints = []
        for name in (each.partition("=")[0] for each in getattr(self, "_given", ())):
            short = self.allow_abbrev and any(flag.startswith(name) for flag in known)
            if name.startswith("--") and name not in known and not short:
                hints += [f"{name}: did you mean {near}?" for near in difflib.get_close_matches(name, known, n=1)]
                hints += [f"{name}: a setting has no dashes: {name[2:]}=VALUE"] if "." in name else []
        whole = "\n".join([message, *hints])
        if self._raises:
            raise InputError(whole)
        super().error(whole)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines, and values are named by their type."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        named: dict[Any, str] = {Path: "PATH", int: "N", float: "X"}
        return named.get(action.type) or super()._get_default_metavar_for_optional(action)


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _flags(each)


class _Terminator:
    """Raises KeyboardInterrupt in the process of this number, and ends copies of it, which fork from it, at once."""

    def __init__(self, process: int) -> None:
        self.process = process

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            os._exit(143)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it again, to the group
        if sys.platform != "win32":  # torch's handler would raise where a worker has ended, too
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _terminated.set()
        raise KeyboardInterrupt


def _run(main: Callable[[list[str] | None], int]) -> NoReturn:
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
    if _terminated.is_set():  # whatever that led to, as the end of a worker by the same signal
        message, status = "ended by SIGTERM", 143
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
