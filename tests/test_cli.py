"""What the tools print: messages without tracebacks, and nothing that steers the terminal."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from mammodet.cli import run
from mammodet.errors import InputError


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
