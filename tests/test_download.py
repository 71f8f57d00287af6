"""Downloads through a stub of idc-index: sizes first, then the files, and on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mammodet.commands.download import main
from mammodet.errors import InputError

#: PatientID, SeriesInstanceUID, millions of bytes.
SERIES = [
    ("Mass-Training_P_00001_LEFT_CC", "1.2.1", 0.002),
    ("Mass-Training_P_00001_LEFT_CC_1", "1.2.2", 0.003),
    ("Calc-Test_P_00038_LEFT_MLO", "1.2.3", 0.004),
]


class Client:
    """What is used of idc-index: an index, and a download that may be cut short."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.stops_after = 99

    def get_idc_version(self) -> str:
        return "v25"

    def sql_query(self, query: str) -> Any:
        rows = []
        if "collection_id = 'cbis_ddsm'" in query:
            names = ("PatientID", "SeriesInstanceUID", "series_size_MB", "license_short_name", "source_DOI")
            rows = [dict(zip(names, (*each, "CC BY 3.0", "10.7937/some"), strict=True)) for each in SERIES]
        return SimpleNamespace(to_dict=lambda orient: rows)

    def download_from_selection(self, *, downloadDir, seriesInstanceUID, use_s5cmd_sync, dirTemplate) -> None:  # noqa: N803
        self.asked.append(seriesInstanceUID)
        for patient, series, size in SERIES:
            if series in seriesInstanceUID[: self.stops_after]:
                folder = dirTemplate.replace("%PatientID", patient).replace("%SeriesInstanceUID", series)
                path = Path(downloadDir, folder, "0a1b.dcm")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(round(size * 10**6)))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client, module = Client(), ModuleType("idc_index")
    module.IDCClient = SimpleNamespace(client=lambda: client)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "idc_index", module)
    return client


def test_download_shows_sizes_and_licence_and_brings_all(client, tmp_path, capsys):
    assert main(["cbis-ddsm", "--output", str(tmp_path / "in"), "--yes"]) == 0
    assert client.asked == [["1.2.3", "1.2.1", "1.2.2"]]  # by patient
    said = capsys.readouterr().out
    assert "3 series" in said
    assert "CC BY 3.0, doi:10.7937/some" in said
    assert f"mammodet convert cbis_ddsm --source {tmp_path / 'in'}" in said


def test_download_of_one_abnormality_leaves_the_other(client, tmp_path):
    assert main(["cbis-ddsm", "--output", str(tmp_path), "--abnormality", "calc", "--yes"]) == 0
    assert client.asked == [["1.2.3"]]


def test_stopped_download_fails_and_goes_on_with_what_is_missing_or_cut_short(client, tmp_path, capsys):
    client.stops_after = 2
    assert main(["cbis-ddsm", "--output", str(tmp_path), "--yes"]) == 1
    assert "Mass-Training_P_00001_LEFT_CC_1/1.2.2" in capsys.readouterr().out
    (tmp_path / "Calc-Test_P_00038_LEFT_MLO/1.2.3/0a1b.dcm").write_bytes(bytes(100))
    assert main(["cbis-ddsm", "--output", str(tmp_path), "--yes"]) == 0
    assert client.asked[1:] == [["1.2.3", "1.2.2"]]
    assert main(["cbis-ddsm", "--output", str(tmp_path)]) == 0  # all is there: nothing to ask
    assert len(client.asked) == 2


@pytest.mark.parametrize(("answer", "asked"), [("y", 1), ("", 0)])
def test_download_asks_on_a_terminal_and_refuses_elsewhere(client, tmp_path, monkeypatch, answer, asked):
    with pytest.raises(InputError, match="--yes"):
        main(["cbis-ddsm", "--output", str(tmp_path)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert main(["cbis-ddsm", "--output", str(tmp_path)]) == 0
    assert len(client.asked) == asked


def test_download_into_too_little_space_is_refused(client, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(InputError, match=r"1\.0 GB are free"):
        main(["cbis-ddsm", "--output", str(tmp_path / "new/folder"), "--yes"])
    assert client.asked == []


def test_download_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index", None)
    with pytest.raises(InputError, match="pip install idc-index"):
        main(["cbis-ddsm", "--output", str(tmp_path)])
