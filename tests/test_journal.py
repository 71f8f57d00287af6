"""What a long conversion has finished survives a kill at any byte."""

import pytest

from mammodet.converters.journal import Journal, files_fingerprint


def write(path, options, *items):
    with Journal(path, options) as journal:
        for key, fingerprint, value in items:
            journal.put(key, fingerprint, value)


def test_results_come_back_where_options_and_inputs_are_the_same(tmp_path):
    path = tmp_path / "deep" / "j.jsonl"
    write(path, {"size": 1}, ("a", "f1", [1]), ("b", "f2", {"ü": None}))
    with Journal(path, {"size": 1}) as journal:
        assert journal.get("a", "f1") == [1]
        assert journal.get("b", "f2") == {"ü": None}
        assert journal.get("a", "other") is None
        assert journal.get("c", "f1") is None


def test_other_options_start_anew(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path, {"size": 1}, ("a", "f", 1))
    with Journal(path, {"size": 2}) as journal:
        assert journal.get("a", "f") is None
    with Journal(path, {"size": 1}) as journal:
        assert journal.get("a", "f") is None


def test_a_later_result_of_one_key_holds(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path, 0, ("a", "f", 1), ("a", "g", 2))
    with Journal(path, 0) as journal:
        assert journal.get("a", "f") is None
        assert journal.get("a", "g") == 2


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_journal_cut_anywhere_keeps_what_was_whole_and_goes_on(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    write(path, 0, ("a", "f", "first"), ("b", "f", "second"))
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    first = "first" if b'"first"]' in content[:-cut] else None
    with Journal(path, 0) as journal:
        assert journal.get("a", "f") == first
        assert journal.get("b", "f") == ("second" if cut == 1 else None)  # but for its line end, it is whole
        journal.put("c", "f", "third")
    with Journal(path, 0) as journal:
        assert journal.get("a", "f") == first
        assert journal.get("c", "f") == "third"


def test_fingerprint_tells_a_changed_and_a_missing_file(tmp_path):
    path = tmp_path / "x"
    missing = files_fingerprint([path])
    path.write_text("one")
    first = files_fingerprint([path])
    path.write_text("three")
    assert len({str(missing), str(first), str(files_fingerprint([path]))}) == 3


def test_lines_that_are_json_but_no_entry_are_forgotten(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path, 0, ("a", "f", 1))
    with open(path, "a") as file:
        file.write('null\n12\n[[1], "f", 2]\n')
    with Journal(path, 0) as journal:
        assert journal.get("a", "f") == 1
