"""What every tool does around its main function: plain messages for a user's mistakes, and an exit status."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from mammodet.errors import InputError


def run(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a tool and exit: 0 done, 1 something in the data is wrong, 2 wrong input, 130 interrupted.

    Errors that a user can act on are printed without a traceback; anything else is a defect of ours and keeps its own.
    """
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


def _stop(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
