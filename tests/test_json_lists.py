"""Large JSON files item by item: the same values, faults and bytes as of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mammodet import json_lists
from mammodet.data.coco import read_coco
from mammodet.errors import InputError
from mammodet.files import canonical_hash, read_json
from mammodet.json_lists import JsonList, members_hash, read_members, write_members

VALUE = {
    "info": {"a": [1, {"b": None}], "é": "\U0001f600 \\ud"},
    "images": [1, 1.5e10, -0.25, {"name": 'x"]},{'}, [], "ü", True],
    "empty": [],
    "images too": [[1]],
}
PAIR = r'{"images": ["\ud83d\ude00"]}'


def whole(path: Path, *long: str) -> Any:
    found = read_members(path, long)
    return {key: list(member) if isinstance(member, JsonList) else member for key, member in found.items()}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_of_any_size_give_the_same_value(
    tmp_path: Path, monkeypatch: Any, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    for ascii_only in (True, False):
        path.write_text("\ufeff" + json.dumps(VALUE, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        found = read_members(path, ("images", "empty"))
        assert (len(found["images"]), len(found["empty"]), found["images too"]) == (7, 0, [[1]])
        assert whole(path, "images", "empty") == VALUE
        assert list(found["images"]) == list(found["images"]) == VALUE["images"]
    path.write_text(PAIR.replace("}", ', "next": 1.5e+10}'))
    assert whole(path, "images") == {"images": ["\U0001f600"], "next": 1.5e10}


@pytest.mark.parametrize("chunk", [1, 5, 2**20])
def test_a_file_that_was_cut_anywhere_is_refused_as_a_whole_one(tmp_path: Path, monkeypatch: Any, chunk: int) -> None:
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    text = '{"info": {"a": -1.5e3},\n "images": [{"b": "ü"},\n null, 12]}'
    texts = [text[:end] for end in range(len(text))]
    texts += [text + "}", text.replace("12", "1 2"), text.replace("null", "NaN"), text.replace("12", "1e999")]
    texts += [text.replace('"info"', "info"), text.replace("ü", r"\ud800"), text.replace("12", "[" * 5000), "[1]]"]
    for number, wrong in enumerate(texts):
        path = tmp_path / f"{number}.json"
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError) as expected:
            read_json(path)
        with pytest.raises(InputError) as found:
            read_members(path, ("images",))
        # the two may name another missing character, at the same place
        assert str(found.value).split(" at line")[-1] == str(expected.value).split(" at line")[-1], wrong


def test_iterators_are_written_and_hashed_as_lists(tmp_path: Path) -> None:
    lazy = {key: iter(member) if isinstance(member, list) else member for key, member in VALUE.items()}
    write_members(tmp_path / "a.json", lazy)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == json.dumps(VALUE, ensure_ascii=False) + "\n"
    lazy = {key: iter(member) if isinstance(member, list) else member for key, member in VALUE.items()}
    assert members_hash(lazy) == canonical_hash(VALUE)


def test_millions_of_empty_lists_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mammodet.files._MOST_LISTS", 1000)
    monkeypatch.setattr("mammodet.data.coco._MOST_FAULTS", 100)
    monkeypatch.setattr(json_lists, "_CHUNK", 64)
    empty = "[" + ", ".join(["[]"] * 2000) + "]"
    path = tmp_path / "a.json"
    for text in (empty, f'{{"info": {empty}}}'):
        path.write_text(text)
        with pytest.raises(InputError, match="more than 1000 lists and objects"):
            read_members(path, ("images",))
    categories = '"categories": [{"id": 1, "name": "mass"}]'
    for text in (f'{{{categories}, "images": {empty}}}', f'{{{categories}, "images": [], "annotations": {empty}}}'):
        path.write_text(text)
        with pytest.raises(InputError, match="101 faults"):
            read_coco(path, skip_invalid=True)
