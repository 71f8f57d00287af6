"""Files that are whole or not there, and JSON that says what is wrong with it."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest

from mammodet.converters.sheet import read_bytes
from mammodet.errors import InputError, raise_faults
from mammodet.files import (
    atomic_path,
    canonical_hash,
    check_is_file,
    csv_text,
    file_hash,
    file_stamp,
    load_yaml,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from mammodet.imports.entry import read_results
from mammodet.imports.table import _text


def test_write_text_makes_folders_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a b" / "ü" / "note.txt"
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert [item.name for item in path.parent.iterdir()] == ["note.txt"]


def test_atomic_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "plot.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert not (tmp_path / "plot.png").exists()
    assert (tmp_path / "plot.png").read_bytes() == b"new"


def fail_while_writing(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "data.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        fail_while_writing(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_leaves_nothing_when_the_first_write_fails(tmp_path):
    with pytest.raises(RuntimeError):
        fail_while_writing(tmp_path / "data.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_written_files_have_the_permissions_of_ordinary_ones(tmp_path):
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "theirs").write_bytes(b"")
    ours, theirs = ((tmp_path / name).stat().st_mode for name in ("ours", "theirs"))
    assert stat.S_IMODE(ours) == stat.S_IMODE(theirs)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_write_json_refuses_what_json_has_not_and_keeps_the_old_file(tmp_path, number):
    path = tmp_path / "data.json"
    write_json(path, [1])
    with pytest.raises(ValueError):
        write_json(path, {"score": number})
    assert read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back(tmp_path):
    value = {"name": "mdb001 ä €", "numbers": [0, -1, 2.5, 1e-9], "nothing": None, "yes": True, "empty": {}}
    write_json(tmp_path / "data.json", value)
    assert read_json(tmp_path / "data.json") == value


def test_read_json_takes_a_byte_order_mark(tmp_path):
    (tmp_path / "data.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "data.json") == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON, or was cut short"),
        (b'{"images": [1, 2', r"not valid JSON, or was cut short: .* at line 1, column 17"),
        (b'{"a": NaN}', "holds NaN, which is not JSON"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[1e999]", "holds 1e999"),
        (b"[" + b"9" * 5000 + b"]", "a number that is too large"),
        (b'"\xff"', "not UTF-8 text .* at byte 1"),
        (b"\xff\xfe[\x001\x00]\x00", "not UTF-8 text"),
        (b"[" * 200_000, "nested too deep"),
        (b'["\\ud800"]', "half a character"),
    ],
)
def test_read_json_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_read_json_takes_a_whole_pair_of_surrogates(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps("😀"))
    assert r"\ud83d\ude00" in (tmp_path / "data.json").read_text()
    assert read_json(tmp_path / "data.json") == "😀"


def test_read_json_names_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        read_json(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="is a folder; expected a JSON file"):
        read_json(tmp_path)


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("link")
    for path, message in (
        (tmp_path / "pipe", "pipe: is a pipe; expected an image; save its content as a file first"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "no such image"),
        (tmp_path / "link", "cannot be read"),
        (tmp_path / ("a" * 300), "cannot be read"),
        (tmp_path / "a\0", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            check_is_file(path, "an image")
    for read in (read_results, load_yaml, _text, read_bytes):
        with pytest.raises(InputError, match="pipe: is a pipe"):
            read(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "good").symlink_to("file")
    check_is_file(tmp_path / "good")


def test_stamp_tells_a_file_that_was_replaced_by_one_of_its_size_and_time(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"old")
    before, stamp = path.stat(), file_stamp(path)
    assert file_stamp(path) == stamp
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))
    (tmp_path / "b").write_bytes(b"new")
    os.utime(tmp_path / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert file_stamp(path) != stamp
    assert file_stamp(tmp_path / "none") is None


def test_canonical_hash_depends_on_values_not_on_key_order():
    assert canonical_hash({"a": 1, "b": [2]}) == canonical_hash({"b": [2], "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 2})
    # printf '%s' '{"a":1}' | sha256sum
    assert canonical_hash({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_raise_faults_counts_what_it_does_not_print():
    raise_faults([], where="x")
    with pytest.raises(InputError) as caught:
        raise_faults([f"fault {k}" for k in range(30)], where="x.json", advice="Mend it.")
    lines = str(caught.value).split("\n")
    assert lines[0] == "x.json: 30 faults"
    assert lines[1] == "  - fault 0"
    assert lines[26:] == ["  ... and 5 more", "Mend it."]


def test_csv_cells_are_no_formulas_and_numbers_stay():
    rows = [
        ["=1+1", "+a", "-b", "@SUM(1)", "\tx", "\rx", "a=b", ""],
        ["-1.5", "+3e-7", "-inf", -1.5, 0, None, True, "'x"],
    ]
    text = csv_text([*rows, ["=a,b", 'say "=x"', "- 1"]])
    assert text.split("\n")[0] == "'=1+1,'+a,'-b,'@SUM(1),'\tx,\"'\rx\",a=b,"
    assert text.split("\n")[1] == "-1.5,+3e-7,-inf,-1.5,0,,True,'x"
    assert text.split("\n")[2] == '"\'=a,b","say ""=x""",\'- 1'


def test_leftovers_are_those_of_our_own_temporary_names(tmp_path):
    left = []
    for name in ("data.json", "deep/mdb001.png", "deep/no_suffix", "deep/two.dots.ckpt"):
        with atomic_path(tmp_path / name) as temporary:
            left.append(temporary)
    for path in left:  # as a kill would leave them
        path.touch()
    others = [
        tmp_path / name for name in (".data.json", ".data.tmp.json", "data.abcdefgh.tmp.json", "deep/.x.ABCDEFGH.tmp")
    ]
    for path in others:
        path.touch()
    assert remove_leftovers(tmp_path, names=("other.json", "mdb001.png")) == 0
    assert remove_leftovers(tmp_path, names=("data.json",)) == 1
    assert remove_leftovers(tmp_path) == 3
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    assert remove_leftovers(tmp_path / "nowhere") == 0
