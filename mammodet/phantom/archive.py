"""What all phantom archives share: the folder that they lie in, and how their images are drawn."""

import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed
from tqdm import tqdm

from mammodet.errors import InputError
from mammodet.files import write_text
from mammodet.synthetic import LICENCE_MARK, is_synthetic

T = TypeVar("T")


def make_room(output: Path, own: Sequence[str], database: str) -> None:
    """Make room for an archive, and write its licence: only an older one, of files named as its `own`, is removed.

    Raises:
        InputError: a file, or a folder that holds something else.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a folder")
    if output.is_dir() and any(output.iterdir()):
        if not is_synthetic([output]):
            raise InputError(f"{output}: is not empty and holds no phantom archive; choose a new folder")
        patterns = ("Licence.txt", *own)
        other = sorted(path.name for path in output.iterdir() if not any(fnmatch(path.name, one) for one in patterns))
        if other:
            raise InputError(f"{output}: holds {', '.join(other[:5])}, not of this archive; choose another folder")
        for path in list(output.iterdir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_text(
        output / "Licence.txt",
        f"""{LICENCE_MARK}

These images were computed by mammodet/phantom.py. They show no patient, were made from no patient's image,
and are good for testing software only. They may be used, changed and passed on freely. The layout follows
that of {database}, which has a licence of its own.
""",
    )


def draw_all(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, jobs: int, progress: bool) -> list[T]:
    """Results of `work(*task)` in the order of the tasks, from `jobs` processes."""
    results = Parallel(n_jobs=jobs, return_as="generator")(delayed(work)(*task) for task in tasks)
    return list(tqdm(results, total=len(tasks), desc="phantoms", unit="image", disable=None if progress else True))
