"""What lies in a folder and below it: links are followed, each folder once, and hidden ones are passed over."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mammodet.errors import InputError

_SYSTEM_FOLDERS = ("lost+found", "system volume information", "$recycle.bin", ".trashes")


def walk_files(source: Path, leave_out: Callable[[str], bool] = lambda name: False) -> Iterator[tuple[Path, list[str]]]:
    """Folders of an archive and the names of their files, in order; links are followed, each folder once.

    Hidden files and folders are passed over, and what the system keeps on a disk.

    Args:
        leave_out: names of folders that are passed over, too.
    Raises:
        InputError: a folder cannot be opened.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be opened ({error.strerror})")

    seen: set[str] = set()
    for folder, folders, names in os.walk(source, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        shown = [name for name in folders if name[0] != "." and name.lower() not in _SYSTEM_FOLDERS]
        folders[:] = sorted(name for name in shown if not leave_out(name))
        yield Path(folder), sorted(name for name in names if name[0] != ".")


def files_below(folder: Path, suffix: str) -> list[Path]:
    """The files of this suffix in a folder and those below it, as `walk_files` finds them."""
    found = (place / name for place, names in walk_files(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() == suffix and path.is_file())
