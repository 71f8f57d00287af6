"""Loops over files in threads, with a progress bar, that end cleanly when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def in_parallel(
    work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, jobs: int, name: str, progress: bool
) -> Iterator[T]:
    """Results of `work(*task)` in the order of the tasks, `jobs` at a time, with a progress bar.

    Threads, since reading, scaling and writing images leave Python's lock.
    """
    # Not joblib's threads: they are killed where they stand when an error ends the program, inside OpenCV too.
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        results = pool.map(lambda task: work(*task), tasks)
        yield from tqdm(results, total=len(tasks), desc=name, unit="image", disable=None if progress else True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
