"""How a tool ends, and what it prints: on SIGTERM with its processes; nothing that steers the terminal."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from mammodet.cli import run
from mammodet.errors import InputError

#: Ways to be at work in other processes: each prints a process number from there, and would take a minute.
WORKING = {
    "processes": """
from mammodet.parallel import in_processes
def main(_):
    list(in_processes(slow, [(1,), (2,)], jobs=2, name="slow", progress=False))
""",
    "threads": """
from mammodet.parallel import in_parallel
def main(_):
    list(in_parallel(slow, [(n,) for n in range(999)], jobs=2, name="slow", progress=False))
""",
    "loader": """
from torch.utils.data import DataLoader
class Slow(list):
    def __getitem__(self, index):
        slow(index)
def main(_):
    list(DataLoader(Slow([1, 2]), num_workers=2, collate_fn=list))
""",
}

SCRIPT = """
import os, sys, time
from mammodet.cli import run
def slow(number):
    print(f"at work {{os.getpid()}}\\n", end="", flush=True)  # in one piece, whoever else prints
    time.sleep({seconds})
{main}
run(main)
"""


@pytest.mark.parametrize("way", list(WORKING))
@pytest.mark.parametrize("group", [False, True])
def test_sigterm_ends_a_tool_and_its_processes(way: str, group: bool, tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    seconds = 0.1 if way == "threads" else 60  # a thread is waited for
    script.write_text(SCRIPT.format(main=WORKING[way], seconds=seconds), encoding="utf-8")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, script], stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    worker = int(first.split()[-1])
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=50)  # a worker that lived on would hold the pipe open
    # joblib's tracker may warn after it of a semaphore that its worker had just removed
    assert (process.returncode, "error: ended by SIGTERM" in err.splitlines()) == (143, True), out + err
    assert "Traceback" not in err
    deadline = time.monotonic() + 50
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


def printed(main, monkeypatch, encoding="utf-8"):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit) as status:
        run(main)
    for stream in streams:
        stream.flush()
    return status.value.code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


def test_control_characters_are_printed_as_text(monkeypatch):
    def main(_):
        print("name \x1b[31mred\x1b[0m \u202eabc ä\ttab\rback")
        raise InputError("file \x1b]0;title\x07 and \udcff")

    assert printed(main, monkeypatch) == (
        2,
        "name \\x1b[31mred\\x1b[0m \\u202eabc ä\ttab\\rback\n",
        "error: file \\x1b]0;title\\x07 and \\udcff\n",
    )


def test_letters_that_a_terminal_lacks_are_printed_as_text(monkeypatch):
    def main(_):
        print("ä 漢")
        return 0

    assert printed(main, monkeypatch, "latin-1") == (0, "ä \\u6f22\n", "")


def test_bars_of_progress_move_as_before(monkeypatch):
    def main(_):
        for _ in tqdm(range(2), ncols=60, desc="outer"):
            list(tqdm(range(2), ncols=60, position=1, leave=False))
        return 0

    status, _, told = printed(main, monkeypatch)
    assert status == 0
    assert "\router: 100%" in told
    assert "\\" not in told
