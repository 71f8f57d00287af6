"""A study's way through a real Orthanc, by TLS, too: forwarded to the node, the report back; then by DICOMweb."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_calibration import write_checkpoint
from test_dicom_node import certificates, film, start, wait_for

from mammodet.commands import predict
from mammodet.serving.dicom_node import Peer

PLUGINS = list(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so"))
TLS = ("DicomTlsCertificate", "DicomTlsPrivateKey", "DicomTlsTrustedCertificates")
LUA = re.search(r"```lua\n(.*?)```", (Path(__file__).parent.parent / "docs" / "pacs.md").read_text(), re.S)[1]


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Orthanc:
    """A running Orthanc, and its REST interface; with certificate, key and authority it speaks DICOM by TLS alone."""

    def __init__(self, folder: Path, node_port: int, http_port: int, dicom_port: int, *tls: Path) -> None:
        self.url = f"http://127.0.0.1:{http_port}"
        (folder / "mammodet.lua").write_text(LUA)
        config = {
            **{"Name": "test", "StorageDirectory": "storage", "IndexDirectory": "storage", "StableAge": 1},
            **{"HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False},
            "AuthenticationEnabled": False,
            "DicomModalities": {
                "mammodet": {"AET": "MAMMODET", "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": bool(tls)}
            },
            **{"DicomTlsEnabled": bool(tls), "DicomTlsRemoteCertificateRequired": True},
            **dict(zip(TLS, map(str, tls), strict=False)),
            **{"LuaScripts": ["mammodet.lua"], "Plugins": [str(path) for path in PLUGINS]},
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        log = (folder / "orthanc.log").open("w")
        self.process = subprocess.Popen(["Orthanc", "orthanc.json"], cwd=folder, stdout=log, stderr=log)
        wait_for(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.ask("/system"))
        except urllib.error.URLError:
            return False

    def ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.url + path, body) as answer:
            return json.load(answer)

    def find(self, modality: str) -> list[str]:
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        return self.ask("/tools/find", json.dumps(query).encode())


@pytest.fixture
def orthanc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Orthanc, Path]]:
    if shutil.which("Orthanc") is None:
        pytest.skip("the round trip with a PACS was NOT TESTED: no Orthanc was found (apt-get install orthanc)")
    tls = certificates(tmp_path / "tls") if getattr(request, "param", None) == "tls" else ()
    http_port, dicom_port = free_ports(2)
    checkpoint = write_checkpoint(tmp_path / "best.ckpt")
    peer = Peer("ORTHANC", "127.0.0.1", dicom_port)
    options = ["--tls", *map(str, tls)] if tls else []
    process, port = start(tmp_path / "node", checkpoint, peer, "--complete-after", "1", *options)
    running = None
    try:
        running = Orthanc(tmp_path, port, http_port, dicom_port, *tls)
        yield running, checkpoint
    finally:
        process.send_signal(signal.SIGTERM)
        print(process.communicate()[0])
        if running is not None:
            running.process.terminate()
            running.process.wait()


def test_study_goes_through_orthanc_and_its_report_is_found_there(
    orthanc: tuple[Orthanc, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pacs, checkpoint = orthanc
    films = [film(tmp_path / f"{number}.dcm", number, ViewPosition=view) for number, view in ((1, "CC"), (2, "MLO"))]
    (study,) = {pacs.ask("/instances", path.read_bytes())["ParentStudy"] for path in films}
    (report,) = wait_for(lambda: pacs.find("SR"))
    tags = pacs.ask(f"/instances/{report}/simplified-tags")
    assert (tags["StudyInstanceUID"], tags["PatientName"]) == ("1.2.8", "Doe^Jane")
    references = tags["CurrentRequestedProcedureEvidenceSequence"][0]["ReferencedSeriesSequence"][0]
    assert [item["ReferencedSOPInstanceUID"] for item in references["ReferencedSOPSequence"]] == [
        "1.2.8.1.1",
        "1.2.8.1.2",
    ]
    wait_for(lambda: (tmp_path / "node" / "answered" / "1.2.8.json").exists())
    again = {"Resources": [study], "Permissive": True}  # its report, too
    pacs.ask("/modalities/mammodet/store", json.dumps(again).encode())
    assert not list((tmp_path / "node" / "studies").iterdir())

    if not PLUGINS:
        pytest.skip("DICOMweb with a PACS was NOT TESTED: Orthanc lacks its plugin (apt-get install orthanc-dicomweb)")
    arguments = ["--from-dicomweb", f"{pacs.url}/dicom-web", "--study", "1.2.8", "--output", tmp_path / "out"]
    arguments += ["--checkpoint", checkpoint, "--device", "cpu", "--dicom", "sc", "gsps", "--stow"]
    assert predict.main([str(argument) for argument in arguments]) == 0
    assert "stored 4 objects" in capsys.readouterr().out
    assert len(pacs.find("PR")) == 2
    assert len(pacs.find("SR")) == 1
    assert [len(pacs.find(modality)) for modality in ("MG", "OT")] == [2, 2]
    assert not list((tmp_path / "out" / ".unpacked").glob("*/"))
    del arguments[-4:]  # captures, which came back, are no input
    assert predict.main([str(argument) for argument in arguments]) == 0
    names = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [image["file_name"] for image in names] == ["1.2.8.1.1.dcm", "1.2.8.1.2.dcm"]


@pytest.mark.parametrize("orthanc", ["tls"], indirect=True)
def test_study_goes_through_orthanc_by_tls(orthanc: tuple[Orthanc, Path], tmp_path: Path) -> None:
    pacs, _ = orthanc
    pacs.ask("/instances", film(tmp_path / "1.dcm", 1).read_bytes())
    (report,) = wait_for(lambda: pacs.find("SR"))
    assert pacs.ask(f"/instances/{report}/simplified-tags")["StudyInstanceUID"] == "1.2.8"
