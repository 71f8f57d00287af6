"""Studies from a DICOMweb server and objects back to it; the server here answers as PS3.18 says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pydicom
import pytest
from small_calibration import write_checkpoint
from test_dicom_node import REPORT, film

from mammodet.commands import predict, serve
from mammodet.errors import InputError

pytest.importorskip("dicomweb_client", reason="DICOMweb was not tested: mammodet[network] is not installed")


class Service(ThreadingHTTPServer):
    """Serves files, keeps what is stored, and confirms it unless `refuses`."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.stored, self.refuses = files, list[pydicom.Dataset](), False
        self.url = f"http://127.0.0.1:{self.server_port}/dicom-web"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: Any) -> None:
        """Nothing: tests are quiet."""

    def do_GET(self) -> None:
        if not self.path.startswith("/dicom-web/"):
            self._answer(b"<html>", "text/html")
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        files = [path for path in self.server.files if f"/studies/{_study(path)}/" in self.path]
        if name == "instances":
            rows = [pydicom.dcmread(path, stop_before_pixels=True).to_json_dict() for path in files]
            self._answer(json.dumps(rows).encode(), "application/dicom+json", 200 if rows else 204)
            return
        (content,) = [path.read_bytes() for path in files if f"{_study(path)}.1.{path.stem}" == name]
        part = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--edge--"
        self._answer(part, 'multipart/related; type="application/dicom"; boundary="edge"')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        edge = b"--" + self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
        parts = [part.partition(b"\r\n\r\n")[2] for part in body.split(edge)[1:-1]]
        new = [pydicom.dcmread(BytesIO(part)) for part in parts]
        answer = pydicom.Dataset()
        answer.ReferencedSOPSequence = []
        for item in [] if self.server.refuses else new:
            answer.ReferencedSOPSequence.append(pydicom.Dataset())
            answer.ReferencedSOPSequence[-1].ReferencedSOPInstanceUID = item.SOPInstanceUID
        self.server.stored += new
        self._answer(answer.to_json().encode(), "application/dicom+json", 202 if self.server.refuses else 200)

    def _answer(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _study(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two mammograms, a capture of mammodet and a report in one study, a report alone in another."""
    own = {"Manufacturer": "mammodet developers", "ManufacturerModelName": "mammodet"}
    report = {"SOPClassUID": REPORT, "Modality": "SR"}
    files = [
        film(tmp_path / "pacs/1.dcm", 1),
        film(tmp_path / "pacs/2.dcm", 2, ViewPosition="MLO"),
        film(tmp_path / "pacs/3.dcm", 3, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", **own),
        film(tmp_path / "pacs/4.dcm", 4, **report),
        film(tmp_path / "pacs/5.dcm", 5, "1.2.9", **report),
    ]
    running = Service(files)
    thread = Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_study_is_fetched_predicted_and_its_report_stored(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.ckpt")
    arguments = ["--from-dicomweb", service.url, "--study", "1.2.8", "--output", str(tmp_path / "out")]
    arguments += ["--checkpoint", str(checkpoint), "--device", "cpu", "--dicom", "sr", "--stow"]
    assert predict.main(arguments) == 0
    assert "stored 1 objects" in capsys.readouterr().out
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["1.2.8.1.1.dcm", "1.2.8.1.2.dcm"]
    (stored,) = service.stored
    assert (stored.SOPClassUID, stored.StudyInstanceUID, stored.PatientName) == (REPORT, "1.2.8", "Doe^Jane")
    service.refuses = True
    with pytest.raises(InputError, match="did not confirm 1 of 1"):
        predict.main(arguments)


def test_what_is_not_there_is_said(service: Service, tmp_path: Path) -> None:
    from mammodet.serving.dicomweb import Server

    for study, part in (("1.2.9", "no images .Comprehensive SR"), ("1.2.7", "was not found"), ("study", "no Study")):
        with pytest.raises(InputError, match=part):
            Server(service.url).fetch([study], tmp_path / "images")
    for url, part in (
        ("ftp://pacs", "expected http"),
        ("http://me:secret@pacs/", "netrc"),
        ("http://127.0.0.1:1/dicom-web", "refused"),
        (service.url.replace("dicom-web", "else"), "no DICOMweb answer"),
    ):
        with pytest.raises(InputError, match=part) as refused:
            Server(url).fetch(["1.2.7"], tmp_path / "images")
        assert "secret" not in str(refused.value)


def test_more_than_is_allowed_is_refused(service: Service, tmp_path: Path) -> None:
    from mammodet.serving.dicomweb import Server
    from mammodet.serving.studies import Limits

    service.files.append(film(tmp_path / "pacs/9.dcm", 9, "1.2.6", PixelData=bytes(2**22)))
    for study, limits, part in (
        ("1.2.8", Limits(instances=2), "3 images.*--most-instances"),
        ("1.2.6", Limits(instance_bytes=2**20), "more than 1048576 bytes.*--most-mb"),
        ("1.2.6", Limits(instance_bytes=2**62), "disk is full"),
    ):
        with pytest.raises(InputError, match=part):
            Server(service.url, limits).fetch([study], tmp_path)
    assert Server(service.url, Limits(instance_bytes=2**23)).fetch(["1.2.6"], tmp_path) == [tmp_path / "1.2.6"]


@pytest.mark.parametrize("options", [["--study", "1.2"], ["--from-dicomweb", "http://pacs/"], ["--stow"]])
def test_options_that_need_others_are_refused(tmp_path: Path, options: list[str]) -> None:
    given = options if "--from-dicomweb" in options else ["--input", str(tmp_path), *options]
    with pytest.raises(SystemExit):
        predict.main([*given, "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("library", "module", "main", "line"),
    [
        ("pynetdicom", "dicom_node", serve.main, "--dicom --accept A --send-to A@localhost:104"),
        ("dicomweb_client", "dicomweb", predict.main, "--from-dicomweb http://pacs --study 1.2"),
    ],
)
def test_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, module: str, main: Any, line: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"mammodet.serving.{module}", raising=False)
    with pytest.raises(InputError, match=rf"{library}.*mammodet\[network\]"):
        main([*line.split(), "--output", str(tmp_path / "out")])
