"""Loops in threads, processes and on a local cluster."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.errors import InputError
from mammodet.parallel import in_parallel, in_processes, on_backend, read_ahead


def square(number: int) -> tuple[int, int]:
    time.sleep(0.01)
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 3:
        raise InputError("number 3 is bad")
    return number


TASKS = [(number,) for number in range(12)]
SQUARES = [number * number for number in range(12)]


def note(folder: Path, number: int) -> tuple[int, int]:
    (folder / str(number)).touch()
    return number, os.getpid()


@pytest.mark.parametrize("jobs", [0, 2])
def test_reading_ahead_keeps_the_order_and_is_few_tasks_ahead(jobs: int, tmp_path: Path) -> None:
    results = read_ahead(note, [(tmp_path, number) for number in range(40)], jobs=jobs)
    first, process = next(results)
    assert first == 0
    assert (process == os.getpid()) == (jobs == 0)
    assert len(list(tmp_path.iterdir())) <= 2 * jobs + 1
    assert [number for number, _ in results] == list(range(1, 40))


def test_reading_ahead_says_when_a_process_was_ended() -> None:
    with pytest.raises(InputError, match=r"ended from outside.*lower --num-workers"):
        list(read_ahead(os._exit, [(9,), (9,)], jobs=1))


def test_threads_keep_the_order():
    assert [value for value, _ in in_parallel(square, TASKS, jobs=3, name="x", progress=False)] == SQUARES


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_do_every_task_once(jobs):
    results = list(in_processes(square, TASKS, jobs=jobs, name="x", progress=False))
    assert sorted(value for value, _ in results) == SQUARES
    assert (os.getpid() in {pid for _, pid in results}) is (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_task_comes_out(jobs):
    with pytest.raises(InputError, match="number 3 is bad"):
        list(in_processes(fail, TASKS, jobs=jobs, name="x", progress=False))


def test_no_task_is_no_work():
    assert list(in_processes(square, [], jobs=2, name="x", progress=False)) == []


def test_local_dask_cluster_does_the_work():
    pytest.importorskip("distributed")
    with on_backend("dask"):
        results = list(in_processes(square, TASKS, jobs=2, name="x", progress=False))
    assert sorted(value for value, _ in results) == SQUARES
    assert os.getpid() not in {pid for _, pid in results}


def test_cluster_that_does_not_answer_is_named():
    pytest.importorskip("distributed")
    expected = pytest.raises(InputError, match=r"--scheduler tcp://127\.0\.0\.1:9: no Dask scheduler answers")
    with expected, on_backend("dask", "tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    ("backend", "address", "message"),
    [
        ("spark", None, "--backend spark: expected one of loky, dask, ray"),
        (None, "tcp://host:1", "--scheduler tcp://host:1: needs --backend dask or ray"),
    ],
)
def test_wrong_backends_are_refused(backend, address, message):
    with pytest.raises(InputError) as caught, on_backend(backend, address):
        pass
    assert str(caught.value) == message


def die(number: int) -> int:
    os._exit(1)


def test_worker_that_dies_is_told_in_words():
    with pytest.raises(InputError, match="a worker process was ended from outside"):
        list(in_processes(die, TASKS, jobs=2, name="x", progress=False))


def test_no_more_processes_than_tasks(monkeypatch):
    asked = []

    class Pool:
        def __init__(self, n_jobs, **_):
            asked.append(n_jobs)

        def __call__(self, calls):
            return (function(*args, **options) for function, args, options in calls)

    monkeypatch.setattr("mammodet.parallel.Parallel", Pool)
    assert len(list(in_processes(square, TASKS, jobs=1000, name="x", progress=False))) == 12
    assert asked == [12]


def test_threads_of_opencv_end_before_workers_are_forked() -> None:
    """A forked worker that ends them waits for ever: they run in its parent alone."""
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)
    results = read_ahead(square, TASKS, jobs=2)
    assert next(results)[0] == 0
    assert cv2.getNumThreads() == 1
    assert [number for number, _ in results] == SQUARES[1:]
