"""Uploads: images that are answered, studies that are kept, what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_cases import prediction
from small_view import LESION, PNG, STUDY, Model, client

from mammodet.api import Result, Results
from mammodet.data.predictions import Predictions
from mammodet.errors import InputError
from mammodet.serving.uploads import PredictionQueue, Uploads


def test_too_large_bodies_are_refused(study, store, monkeypatch):
    large = json.dumps({"version": 0, "comment": "x" * 2**18})
    assert client(study, store).put(f"{STUDY}/images/0/verdict", content=large).status_code == 413
    monkeypatch.setattr("mammodet.serving.app.MOST_UPLOAD_BYTES", 1000)
    queue = PredictionQueue(Model)
    pages = client(study, store, queue)
    assert pages.post("/v1/predict", content=b"\x89PNG\r\n\x1a\n" + b"0" * 1000).status_code == 413
    assert pages.post("/v1/predict", files={"file": b"0" * 1001}).status_code == 413
    assert queue._count == 0


def test_predict_answers_an_upload_and_keeps_nothing(study, store):
    model = Model()
    pages = client(study, store, PredictionQueue(lambda: model))
    for answer in (
        pages.post("/v1/predict", content=PNG),
        pages.post("/v1/predict", files={"file": ("../../evil.png", PNG)}),
        pages.post("/v1/predict", content=bytes(128) + b"DICM"),
    ):
        assert answer.status_code == 200
        assert answer.json()["detections"][0]["bbox"] == [10, 10, 20, 20]
        assert answer.json()["scores"] == {"tumor": 0.9}
        assert "file_name" not in answer.json()
    assert [path.name for path in model.seen] == ["upload.png", "evil.png", "upload.dcm"]
    assert not any(path.parent.exists() for path in model.seen)


def test_predict_refuses_other_files_and_hides_its_paths(study, store):
    pages = client(study, store)
    assert pages.post("/v1/predict", content=b"GIF89a").status_code == 415
    assert pages.post("/v1/predict", content=b"").status_code == 415
    assert pages.post("/v1/predict", files={"a": PNG, "b": PNG}).status_code in (400, 422)
    damaged = pages.post("/v1/predict", content=PNG + b"bad")
    assert damaged.status_code == 422
    assert damaged.json()["error"] == "upload.png: is damaged"


def test_predict_looks_at_one_image_at_a_time_and_sends_others_away(study, store):
    model = Model()
    queue = PredictionQueue(lambda: model, most=2)
    codes = []
    with model.held(), client(study, store, queue) as pages:

        def post():
            codes.append(pages.post("/v1/predict", content=PNG).status_code)

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        while queue._count < 2:
            time.sleep(0.01)
        assert pages.post("/v1/predict", content=PNG).status_code == 503
        model.go.set()
        for thread in threads:
            thread.join()
    assert model.most == 1
    assert codes == [200, 200]


def test_predict_that_takes_too_long_is_answered_and_holds_its_place(study, store, monkeypatch):
    model, codes = Model(), []
    limits: dict[float, asyncio.Timeout] = {}
    monkeypatch.setattr("asyncio.timeout", lambda seconds: limits.setdefault(seconds, asyncio.Timeout(None)))
    queue = PredictionQueue(lambda: model, seconds=7.0, most=1)
    with model.held(), client(study, store, queue) as pages:
        waits = threading.Thread(target=lambda: codes.append(pages.post("/v1/predict", content=PNG).status_code))
        waits.start()
        while not model.running:
            time.sleep(0.01)
        pages.portal.call(limits.pop(7.0).reschedule, 0)  # the 7 seconds are over
        waits.join()
        assert pages.post("/v1/predict", content=PNG).status_code == 503  # the first one is still predicted
    queue._worker.shutdown()  # as at the end of the server, which is over before its last prediction
    assert codes == [504]
    assert not any(path.parent.exists() for path in model.seen)


class _Whole(Model):
    """As a loaded model, for uploads: finds the same in each image."""

    calibration = None

    def predict(self, images: Any, *, root: Path, progress: Any) -> Results:
        found = []
        for done, record in enumerate(images.images, 1):
            found.append(replace(prediction(record.image_id, (LESION, 0.9)), file_name=record.file_name))
            progress(done)
        file = Predictions(tuple(found), ("mass",), {"checkpoint": "starter"})
        return Results([Result(each, root / each.file_name, ("mass",)) for each in found], file, ())


def png(value=1000):
    return cv2.imencode(".png", np.full((100, 100), value, np.uint16))[1].tobytes()


def zipped(**members) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return content.getvalue()


def upload(pages, *files):
    answer = pages.post("/api/studies", files=[("file", file) for file in files])
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()] if answer.text else []


def test_upload_becomes_a_study_that_is_kept_with_its_verdicts(study, store, tmp_path):
    with client(study, store, PredictionQueue(_Whole)) as pages:
        status, lines = upload(pages, ("../../a<b>.png", png()), ("a_b_.png", png(2000)), ("notes.txt", b"hello"))
        assert (status, lines[:-1]) == (200, [{"done": 0, "of": 2}, {"done": 1, "of": 2}, {"done": 2, "of": 2}])
        assert lines[-1]["study"] == 1
        assert "notes.txt" in lines[-1]["skipped"][0]
        shown = pages.get("/api/studies/1").json()
        assert [image["name"] for image in shown["images"]] == ["a_b.png", "a_b_2.png"]
        assert shown["model"] == "starter"
        pixels = pages.get("/api/studies/1/images/1/pixels").content
        assert set(np.frombuffer(pixels, "<u2").tolist()) == {2000}
        sent = {"version": 0, "comment": "mine"}
        assert pages.get("/api/studies").json()["kept_in"] == str((tmp_path / "preds" / "uploads").resolve())
        assert pages.put("/api/studies/1/images/0/verdict", json=sent).status_code == 200
        assert upload(pages, ("b.zip", zipped(**{"x/c.png": png()})))[1][-1] == {"study": 2, "skipped": []}
    again = Uploads(tmp_path / "preds" / "uploads", [])
    again.reopen()
    assert [[record.file_name for record in one.study.images] for one in again.shown] == [
        ["a_b.png", "a_b_2.png"],
        ["x/c.png"],
    ]
    assert again.shown[0].store.of(0).comment == "mine"
    assert sorted(path.name for path in (tmp_path / "preds" / "uploads" / "001").iterdir()) == [
        *("images", "predictions.json", "verdicts.json")
    ]


def test_upload_after_a_deleted_one_has_a_number_of_its_own(study, store, tmp_path):
    folder = tmp_path / "preds" / "uploads"
    with client(study, store, PredictionQueue(_Whole)) as pages:
        for value in (1000, 2000):  # of one name: the second must not be shown with the pixels of the first
            number = upload(pages, ("a.png", png(value)))[1][-1]["study"]
            pixels = pages.get(f"/api/studies/{number}/images/0/pixels").content
            assert set(np.frombuffer(pixels, "<u2").tolist()) == {value}
            shutil.rmtree(next(folder.iterdir()))
        upload(pages, ("a.png", png()))
    assert [path.name for path in folder.iterdir()] == ["003"]
    (folder / "003" / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"uploads/003: .*delete its folder"):
        Uploads(folder, []).reopen()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bomb.zip", lambda: zipped(**{"a.png": bytes(2**20)}), "bomb"),
        ("escape.zip", lambda: zipped(**{"../../evil.png": png()}), "leaves the folder"),
        ("nested.zip", lambda: zipped(**{"a.zip": zipped(**{"a.png": png()})}), "zip file in a folder"),
        ("truth.zip", lambda: zipped(**{"test.json": "{}"}), "no image"),
        ("cut.zip", lambda: zipped(**{"a.png": png()})[:60], "damaged"),
        ("cut.png", lambda: png()[:20], "cut.png"),
        ("many.zip", lambda: zipped(**{f"{number}.png": png() for number in range(3)}), "3 images"),
    ],
)
def test_hostile_uploads_are_refused_and_leave_nothing(study, store, tmp_path, monkeypatch, name, content, words):
    monkeypatch.setattr("mammodet.serving.uploads.MOST_IMAGES", 2)
    monkeypatch.setattr("mammodet.data.inputs._SLACK_BYTES", 2**16)
    with client(study, store, PredictionQueue(_Whole)) as pages:
        status, lines = upload(pages, (name, content()))
        assert status == 200
        assert words in lines[-1]["error"]
        assert tempfile.gettempdir() not in lines[-1]["error"]
        assert pages.get("/api/studies").json()["studies"] == 1
    assert not (tmp_path / "preds" / "uploads").exists()
    assert not any(path.name == "evil.png" for path in tmp_path.rglob("*"))


def test_uploads_of_another_kind_and_too_many_or_too_large_are_refused(study, store, monkeypatch):
    pages = client(study, store, queue := PredictionQueue(_Whole))
    assert upload(pages, ("a.json", b"{}"))[0] == 415
    assert pages.post("/api/studies", files=[("file", ("a.png", PNG))] * 501).status_code == 400
    monkeypatch.setattr("mammodet.serving.app.MOST_UPLOAD_BYTES", 1000)
    assert upload(pages, ("a.png", PNG + bytes(1000)))[0] == 413
    assert queue._count == 0


def test_openapi_describes_what_predict_answers(study, store):
    pages = client(study, store)
    api = pages.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    operation = api["paths"]["/v1/predict"]["post"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ImageAnswer"
    }
    answer = pages.post("/v1/predict", content=PNG).json()
    assert set(schemas["ImageAnswer"]["required"]) <= set(answer) <= set(schemas["ImageAnswer"]["properties"])
    assert set(answer["detections"][0]) <= set(schemas["Detection"]["properties"])
    text = pages.get("/docs").text
    assert all(f'id="{name}"' in text for name in schemas)
    assert "<script" not in text
    assert "http://" not in text
