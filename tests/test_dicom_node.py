"""Studies come in by C-STORE, objects go back; tested with pynetdicom's own SCU and SCP on the loopback address."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import small_dicom
from small_calibration import write_checkpoint

from mammodet.commands import serve
from mammodet.data.inputs import Skipped
from mammodet.errors import InputError

pytest.importorskip("pynetdicom", reason="the DICOM node was not tested: mammodet[network] is not installed")
pytest.importorskip("highdicom", reason="the DICOM node was not tested: mammodet[network] is not installed")
from pynetdicom import AE, evt

from mammodet.serving import dicom_node
from mammodet.serving.dicom_node import DicomNode, Peer, Tls
from mammodet.serving.studies import Limits, Studies

REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
FAST = Limits(instance_bytes=2**20, instances=3, complete_s=0.0)


def film(path: Path, number: int, study: str = "1.2.8", **elements: Any) -> Path:
    """A phantom of 96 x 64 pixels that passes for a mammogram."""
    pixels = np.zeros((96, 64), np.uint16)
    pixels[10:80, 30:] = 2000
    pixels[20:31, 40:50] = 3500
    values = {
        **{"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.{number}"},
        **{
            "Modality": "MG",
            "ImageLaterality": "L",
            "ViewPosition": "CC",
            "PatientName": "Doe^Jane",
            "PatientID": "P1",
        },
        **elements,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return small_dicom.save(path, small_dicom.image(pixels, 12, **values))


def send(port: int, *paths: Path, title: str = "SCANNER", called: str = "MAMMODET", **options: Any) -> list[int | None]:
    """Statuses of C-STORE; None without an answer."""
    ae = AE(title)
    ae.add_requested_context(small_dicom.MAMMOGRAM)
    association = ae.associate("127.0.0.1", port, ae_title=called, **options)
    if not association.is_established:
        raise ConnectionRefusedError
    try:
        return [association.send_c_store(path).get("Status") for path in paths]
    finally:
        association.release()


@pytest.fixture
def pacs() -> Iterator[tuple[Peer, list[pydicom.Dataset]]]:
    """A node that takes reports, and what it got."""
    got: list[pydicom.Dataset] = []

    def take(event: evt.Event) -> int:
        got.append(event.dataset)
        return 0

    ae = AE("PACS")
    ae.add_supported_context(REPORT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    yield Peer("PACS", "127.0.0.1", server.socket.getsockname()[1]), got
    ae.shutdown()


def report(images: Path, results: Path) -> tuple[Sequence[Skipped], Sequence[Path]]:
    """Instead of a prediction: a file whose UID counts the images."""
    path = results / "dicom" / "sr.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(next(iter(sorted(images.iterdir()))), stop_before_pixels=True)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = REPORT
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{len(list(images.iterdir()))}"
    dataset.save_as(path)
    return [], [path]


def node(folder: Path, peer: Peer, answer: Any = report, limits: Limits = FAST, **options: Any) -> DicomNode:
    chosen = {"title": "MAMMODET", "callers": ["SCANNER"], **options}
    return DicomNode(Studies(folder, limits), answer, peer, **chosen)


def finish(running: DicomNode) -> None:
    while running.work():
        pass


def quarantined(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["reason"] for path in sorted((folder / "quarantine").glob("*.json"))]


def test_study_is_answered_once_and_its_images_are_removed(tmp_path: Path, pacs: Any) -> None:
    peer, got = pacs
    films = [film(tmp_path / f"{number}.dcm", number) for number in (1, 2)]
    with node(tmp_path / "node", peer) as running:
        assert send(running.port, *films) == [0, 0]
        finish(running)
        assert [item.SOPInstanceUID for item in got] == ["2.25.2"]
        assert not (tmp_path / "node" / "studies" / "1.2.8").exists()
        late = film(tmp_path / "3.dcm", 3)
        assert send(running.port, *films, late) == [0, 0, 0xA700]  # the answer does not know of the third
        finish(running)
    with node(tmp_path / "node", peer) as running:
        assert send(running.port, films[0]) == [0]
        finish(running)
    assert len(got) == 1


def test_study_that_grows_during_prediction_is_predicted_again(tmp_path: Path, pacs: Any) -> None:
    peer, got = pacs
    films = [film(tmp_path / f"{number}.dcm", number) for number in (1, 2)]

    def slow(images: Path, results: Path) -> Any:
        made = report(images, results)
        if len(list(images.iterdir())) == 1:
            assert send(running.port, films[1]) == [0]
        return made

    with node(tmp_path / "node", peer, slow) as running:
        send(running.port, films[0])
        finish(running)
    assert [item.SOPInstanceUID for item in got] == ["2.25.2"]


def test_other_titles_are_refused(tmp_path: Path, pacs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = film(tmp_path / "1.dcm", 1)
    with node(tmp_path / "node", pacs[0]) as running:
        for names in ({"title": "STRANGER"}, {"called": "OTHER"}):
            with pytest.raises(ConnectionRefusedError):
                send(running.port, path, **names)
        assert not running.studies.waiting
    printed = capsys.readouterr().out
    assert "'STRANGER' at 127.0.0.1" in printed
    assert "'OTHER'" in printed


def test_damaged_instances_are_quarantined_and_the_rest_is_answered(tmp_path: Path, pacs: Any) -> None:
    peer, got = pacs
    good, bare = film(tmp_path / "1.dcm", 1), film(tmp_path / "2.dcm", 2, Rows=None)
    nowhere = film(tmp_path / "3.dcm", 3, StudyInstanceUID=None)

    def some_skipped(images: Path, results: Path) -> Any:
        return [Skipped("1.2.8.1.1.dcm", "is no mammogram")], report(images, results)[1]

    with node(tmp_path / "node", peer, some_skipped) as running:
        assert send(running.port, bare, good, nowhere, bare) == [0xC000, 0, 0xC000, 0xC000]
        finish(running)
    assert [item.SOPInstanceUID for item in got] == ["2.25.1"]
    reasons = " ".join(quarantined(tmp_path / "node"))
    assert len(quarantined(tmp_path / "node")) == 3
    assert all(part in reasons for part in ("StudyInstanceUID", "is no mammogram", "Rows"))
    assert not list((tmp_path / "node" / "arriving").iterdir())


def test_own_results_are_no_input(tmp_path: Path, pacs: Any) -> None:
    own = film(tmp_path / "1.dcm", 1, Manufacturer="mammodet developers", ManufacturerModelName="mammodet")
    with node(tmp_path / "node", pacs[0]) as running:
        assert send(running.port, own) == [0]
        assert not running.studies.waiting
        ae = AE("SCANNER")
        ae.add_requested_context(REPORT)
        association = ae.associate("127.0.0.1", running.port, ae_title="MAMMODET")
        assert not association.is_established  # reports are not negotiated at all
    assert not list((tmp_path / "node" / "studies").iterdir())


def test_limits_hold_for_instances_and_their_size(tmp_path: Path, pacs: Any) -> None:
    films = [film(tmp_path / f"{number}.dcm", number) for number in range(1, 5)]
    huge = film(tmp_path / "huge.dcm", 9, study="1.2.9", PixelData=bytes(2**22))
    with node(tmp_path / "node", pacs[0]) as running:
        assert send(running.port, *films) == [0, 0, 0, 0xA700]
        assert send(running.port, huge) == [None]  # the connection is closed
        assert running.studies.waiting == 1
        assert send(running.port, films[0]) == [0]


def test_study_without_an_answer_is_refused_and_waits_anew_for_more(tmp_path: Path, pacs: Any) -> None:
    peer, got = pacs

    def two(images: Path, results: Path) -> Any:
        if len(list(images.iterdir())) == 1:
            raise InputError("one is too few")
        return report(images, results)

    with node(tmp_path / "node", peer, two) as running:
        send(running.port, film(tmp_path / "1.dcm", 1))
        finish(running)
        journal = json.loads((tmp_path / "node/studies/1.2.8/journal.json").read_text())
        assert journal["refused"] == "one is too few"
        assert not running.studies.waiting
        send(running.port, film(tmp_path / "2.dcm", 2))
        finish(running)
    assert [item.SOPInstanceUID for item in got] == ["2.25.2"]


def test_objects_wait_until_their_node_takes_them(
    tmp_path: Path, pacs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, got = pacs
    monkeypatch.setattr(dicom_node, "RETRY_S", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = Peer("PACS", "127.0.0.1", closed.getsockname()[1])
        with node(tmp_path / "node", away) as running:
            send(running.port, film(tmp_path / "1.dcm", 1))
            assert [running.work() for _ in range(3)] == [True] * 3  # one prediction, two vain tries
    assert "sr.dcm was not sent" in capsys.readouterr().out

    def never(images: Path, results: Path) -> Any:
        raise AssertionError("was predicted before")

    with node(tmp_path / "node", peer, never) as running:
        finish(running)
    assert [item.SOPInstanceUID for item in got] == ["2.25.1"]


def test_tls_asks_both_sides_for_a_certificate_of_the_authority(tmp_path: Path, pacs: Any) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("TLS of the DICOM node was not tested: there is no openssl to make certificates")
    ours, others = (certificates(tmp_path / name) for name in ("ours", "others"))
    path = film(tmp_path / "1.dcm", 1)
    with node(tmp_path / "node", pacs[0], tls=Tls.of(*ours)) as running:
        with socket.create_connection(("127.0.0.1", running.port)):  # is silent, and keeps nobody out
            assert send(running.port, path, tls_args=(Tls.of(*ours).client, "127.0.0.1")) == [0]
        for refused in ({}, {"tls_args": (Tls.of(*others).client, "127.0.0.1")}):
            with pytest.raises(ConnectionRefusedError):
                send(running.port, path, **refused)
    with pytest.raises(InputError, match=r"node\.pem"):
        Tls.of(ours[0], others[1], ours[2])


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Certificate of 127.0.0.1, its key, and the authority."""
    folder.mkdir()
    commands = (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "req -x509 -newkey rsa:2048 -nodes -keyout node.key -out node.pem -days 2 -subj /CN=node "
        "-addext subjectAltName=IP:127.0.0.1 -CA ca.pem -CAkey ca.key",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder / "node.pem", folder / "node.key", folder / "ca.pem"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"--send-to": "PACS"}, "TITLE@HOST:PORT"),
        ({"--address": "localhost"}, "IP address"),
        ({"--most-mb": "0"}, "--most-mb"),
        ({"--title": "LONGER_THAN_SIXTEEN"}, "AE title"),
        ({"--tls": "a b c"}, "cannot be used"),
        ({"--dicom": "seg"}, "no masks"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], part: str
) -> None:
    monkeypatch.setattr(DicomNode, "run", lambda _: pytest.fail("it serves"))
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", "model.detector.arch=faster_rcnn")
    given = {
        **{"--dicom": "", "--accept": "PACS", "--send-to": "PACS@127.0.0.1:104", "--output": str(tmp_path / "node")},
        **{"--port": "0", "--checkpoint": str(checkpoint)},
        **options,
    }
    with pytest.raises(InputError, match=part):
        serve.main([word for name, value in given.items() for word in (name, *value.split())])


def start(folder: Path, checkpoint: Path, peer: Peer, *options: str) -> tuple[subprocess.Popen[str], int]:
    """`mammodet serve` in a process of its own, and its port."""
    command = [sys.executable, "-m", "mammodet", "serve", "--dicom", "sr", "--accept", "SCANNER", "ORTHANC"]
    command += ["--send-to", f"{peer.title}@{peer.host}:{peer.port}", "--output", str(folder), "--port", "0"]
    command += ["--checkpoint", str(checkpoint), "--device", "cpu", "--score-threshold", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if " listens on " in line:
            return process, int(line.split(";")[0].rpartition(":")[2])
    raise AssertionError("".join(printed))


def wait_for(done: Callable[[], Any]) -> Any:
    while not (found := done()):
        time.sleep(0.2)
    return found


def test_killed_node_answers_after_a_restart_and_ends_by_sigterm(tmp_path: Path, pacs: Any) -> None:
    peer, got = pacs
    checkpoint = write_checkpoint(tmp_path / "best.ckpt")
    films = [film(tmp_path / "1.dcm", 1), film(tmp_path / "2.dcm", 2, ViewPosition="MLO")]
    process, port = start(tmp_path / "node", checkpoint, peer, "--complete-after", "3600")
    try:
        assert send(port, *films) == [0, 0]
    finally:
        process.kill()
        process.communicate()
    assert not got
    process, _ = start(tmp_path / "node", checkpoint, peer, "--complete-after", "0.1")
    try:
        wait_for(lambda: got or process.poll() is not None)
    finally:
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
    assert process.returncode == 143, printed
    assert [(item.Modality, item.StudyInstanceUID, item.PatientName) for item in got] == [("SR", "1.2.8", "Doe^Jane")]
    evidence = got[0].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == ["1.2.8.1.1", "1.2.8.1.2"]
    assert "Doe" not in printed
    assert "P1" not in printed
    assert all(os.stat(path).st_mode & 0o077 == 0 for path in (tmp_path / "node").glob("*/"))
