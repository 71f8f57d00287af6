"""Loops over files with a progress bar, or lines where there is no terminal: in threads, in processes, on a cluster."""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool as BrokenPool
from contextlib import contextmanager
from multiprocessing import parent_process
from threading import Thread
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool
from tqdm import tqdm

from mammodet.errors import InputError

T = TypeVar("T")

OUT_OF_MEMORY = "a worker process was ended from outside, as a rule for lack of memory"
BACKENDS = ("loky", "dask", "ray")
FIRST_WAIT, WAIT = 15.0, 60.0  # seconds between lines of progress


def has_terminal() -> bool:
    """Whether a person watches: a bar can be drawn. In a log file, lines serve."""
    return sys.stdout.isatty() and sys.stderr.isatty()


class LineClock:
    """When a line of progress is due: at once, after 15 seconds, then every minute."""

    def __init__(self) -> None:
        self._next, self._wait = -math.inf, FIRST_WAIT

    def due(self) -> bool:
        """Whether to say something now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next, self._wait = now + self._wait, WAIT
        return True


def reported(items: Iterable[T], total: int, *, name: str, say: Callable[[str], None]) -> Iterator[T]:
    """The items, with a bar on a terminal, and lines of how far the work is, which `say` takes."""
    began, clock = time.monotonic(), LineClock()
    for number, item in enumerate(tqdm(items, total=total, desc=name, unit="image", disable=not has_terminal()), 1):
        yield item
        if clock.due() or number == total:
            rate = number / max(time.monotonic() - began, 1e-6)
            left = tqdm.format_interval((total - number) / rate)
            say(f"{name} {number}/{total}   {rate:.3g} images/s   {left} left")


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


def in_processes(
    work: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    name: str,
    progress: bool,
    done: int = 0,
    option: str = "--jobs",
) -> Iterator[T]:
    """Results of `work(*task)` as they are finished, in any order, from `jobs` processes, with a progress bar.

    Processes, for work that decodes by Python; the function, its arguments and its results are pickled. Inside
    `on_backend` the processes are those of a cluster. With one job the work is done here.

    Args:
        done: tasks that an earlier run has finished, for the bar.
        option: what sets `jobs`, for the message where memory runs out.
    """
    if not tasks:
        return
    pool = Parallel(n_jobs=min(jobs, len(tasks)), return_as="generator_unordered", batch_size=1)
    results: Any = None
    try:
        results = pool(delayed(work)(*task) for task in tasks)
        bar = tqdm(
            results, total=done + len(tasks), initial=done, desc=name, unit="image", disable=None if progress else True
        )
        yield from bar
    except (BrokenProcessPool, BrokenPipeError) as error:
        raise InputError(f"{name}: {OUT_OF_MEMORY}; lower {option} ({type(error).__name__})") from None
    finally:
        if results is not None:
            results.close()


def read_ahead(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, jobs: int) -> Iterator[T]:
    """Results of `work(*task)` in the order of the tasks, a few made in advance by `jobs` processes.

    With no job, or one task, the work is done here: a process costs more than it saves.
    """
    jobs = min(jobs, len(tasks) - 1)
    if jobs < 1:
        yield from (work(*task) for task in tasks)
        return
    use_one_thread()
    with ProcessPoolExecutor(jobs, initializer=_start_worker) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, *task))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenPool as error:
            raise InputError(f"{OUT_OF_MEMORY}; lower --num-workers ({type(error).__name__})") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def use_one_thread() -> None:
    """One thread for OpenCV, here and in workers, where threads of one a core would hinder each other.

    It must be called before workers are forked: a worker would wait for ever for threads of ours that it does not have.
    """
    import cv2

    cv2.setNumThreads(1)


def _start_worker() -> None:
    """One thread for OpenCV, and an end with the parent."""
    use_one_thread()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # returns where the parent was killed, too: the pool's queue would be waited for for ever
        os._exit(1)


@contextmanager
def on_backend(backend: str | None, address: str | None = None) -> Iterator[None]:
    """Let `in_processes` run on one of joblib's backends: `loky` (this machine), `dask` or `ray` (a cluster).

    Args:
        backend: None for this machine.
        address: of a Dask scheduler (`tcp://host:8786`) or a Ray head; None starts, or finds, a local one.
    Raises:
        InputError: the backend's package is missing, or nobody answers at the address.
    """
    if backend in (None, "loky"):
        if address:
            raise InputError(f"--scheduler {address}: needs --backend dask or ray")
        yield
    elif backend == "dask":
        try:
            from distributed import Client
        except ImportError:
            raise InputError('--backend dask: needs the package; pip install "mammodet[dask]"') from None
        try:
            client = Client(address, timeout=10) if address else Client(processes=True, dashboard_address=None)
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from None
        with client, parallel_config("dask"):
            yield
    elif backend == "ray":
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError:
            raise InputError("--backend ray: needs the package; pip install ray") from None
        try:
            ray.init(address=address, ignore_reinit_error=True)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"--scheduler {address}: no Ray cluster answers there ({error})") from None
        register_ray()
        with parallel_config("ray"):
            yield
    else:
        raise InputError(f"--backend {backend}: expected one of {', '.join(BACKENDS)}")
