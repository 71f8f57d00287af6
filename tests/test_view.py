"""The reading page: what is served and refused, verdicts and the data set they make, the script, the single file."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import small_dicom
from small_cases import image, lesion, prediction

from mammodet.api import Result, Results
from mammodet.commands import main
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import write_png
from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.files import locked
from mammodet.records import Dataset
from mammodet.reporting.case_links import case_fragment

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from mammodet.serving.app import make_app
from mammodet.serving.page import STATIC, write_pages
from mammodet.serving.study import Study
from mammodet.serving.uploads import PredictionQueue, Shown, Uploads
from mammodet.serving.verdicts import ConflictError, ImageVerdict, VerdictStore

TOKEN, HOST = "secret", "127.0.0.1:8000"
HOSTILE = "<script>alert(1)</script>"
LESION, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 50.0, 50.0)


@pytest.fixture
def study(tmp_path):
    """A right breast with a lesion that is found and a false finding, a left one with a false finding alone."""
    records = (
        image(
            1,
            lesion(LESION),
            patient_id=HOSTILE,
            laterality="R",
            view="CC",
            labels={"tumor": 1, "malignant": None},
            spacing_mm_rc=(0.1, 0.2),
        ),
        image(2, patient_id=HOSTILE, laterality="L", view="CC", labels={"tumor": 0, "malignant": 0}),
    )
    for record in records:
        write_png(tmp_path / record.file_name, np.arange(10000, dtype=np.uint16).reshape(100, 100) + 1000)
    write_coco(Dataset(("mass",), records), tmp_path / "test.json")
    found = (
        prediction(1, (ELSEWHERE, 0.4), (LESION, 0.9), scores={"tumor": 0.9}, masks=True),
        prediction(2, (ELSEWHERE, 0.6), scores={"tumor": 0.6}, masks=True),
    )
    file = Predictions(found, ("mass",), {"checkpoint": "secret/folder/best.ckpt"})
    write_predictions(file, tmp_path / "preds" / "predictions.json")
    inputs = gather([tmp_path / "test.json"], (), unpack_to=tmp_path / "unused")
    return Study.of("test.json", inputs, file)


@pytest.fixture
def store(study, tmp_path):
    return VerdictStore(study, tmp_path / "preds")


class _Model:
    """Says one thing of any file, once `go` is set."""

    categories = ("mass",)

    def __init__(self) -> None:
        self.seen, self.running, self.most = [], 0, 0
        self.lock, self.go = threading.Lock(), threading.Event()
        self.go.set()

    def predict(self, path: Path) -> Any:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(60)
        self.seen.append(path)
        if path.read_bytes().endswith(b"bad"):
            raise InputError(f"{path}: is damaged")
        with self.lock:
            self.running -= 1
        return [SimpleNamespace(prediction=prediction(1, (LESION, 0.9), scores={"tumor": 0.9}))]


def client(study, store, queue=None, report=None, **headers) -> TestClient:
    uploads = Uploads(store.path.parent / "uploads", [Shown(study, store)])
    app = make_app(uploads, queue or PredictionQueue(_Model), TOKEN, frozenset({HOST}), report)
    given = {"Authorization": f"Bearer {TOKEN}", **headers}
    return TestClient(app, base_url=f"http://{HOST}", headers={name: value for name, value in given.items() if value})


STUDY = "/api/studies/0"
PATHS = (
    *("/", "/viewer.js", "/viewer.css", "/report", "/openapi.json", "/docs", "/none", "/api/studies", STUDY),
    *(f"{STUDY}/{rest}" for rest in ("exams/0", "images/0/pixels", "export")),
)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_token_host_and_origin(study, store, path):
    assert client(study, store, Authorization="").get(path).status_code == 401
    assert client(study, store, Authorization="Bearer wrong").get(path).status_code == 401
    assert client(study, store).get(path, headers={"Host": "evil.example:8000"}).status_code == 403
    assert client(study, store).get(path, headers={"Origin": "http://evil.example"}).status_code == 403
    refused = client(study, store, Authorization="").get(path)
    assert "default-src 'none'" in refused.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", f"{STUDY}/images/0/verdict"), ("POST", "/v1/predict"), ("POST", "/api/studies")]
)
def test_writing_paths_need_the_token(study, store, method, path):
    assert client(study, store, Authorization="").request(method, path, content=b"{}").status_code == 401
    assert not store.path.exists()


def test_page_holds_no_inline_script_and_no_text_of_the_data(study, store):
    answer = client(study, store, Authorization="").get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert answer.text.count("<script") == 1
    assert "<style" not in answer.text
    assert "onclick" not in answer.text
    assert HOSTILE not in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        *(f"{STUDY}/{rest}" for rest in ("images/2/pixels", "images/-1/pixels", "exams/9")),
        *("/api/studies/1", "/api/studies/1/images/0/pixels", "/..%2f..%2fetc/passwd", "/report"),
    ],
)
def test_unknown_numbers_and_paths_are_not_found(study, store, path):
    assert client(study, store).get(path).status_code == 404


def test_study_says_what_was_found_missed_and_false(study, store):
    value = client(study, store).get(STUDY).json()
    first, second = value["images"]
    assert value["exams"] == [{"name": HOSTILE, "images": [0, 1]}]
    assert value["model"] == "best.ckpt"
    assert [(one["score"], one["kind"], one["lesion"]) for one in first["findings"]] == [
        (0.9, "found", 0),
        (0.4, "false", None),
    ]
    assert [one["kind"] for one in second["findings"]] == ["false"]
    assert first["spacing"]["mm"] == [0.1, 0.2]
    assert second["spacing"] is None
    assert value["verdicts"][0] == {"version": 0, "marks": [], "comment": "", "done": False, "shown_from": 0.0}


def test_details_hold_the_outline_through_the_outermost_pixels(study, store):
    details = client(study, store).get(f"{STUDY}/exams/0").json()
    rim = np.array(details["0"]["findings"][0][0]).reshape(-1, 2)
    assert rim.min(0).tolist() == [10.5, 10.5]
    assert rim.max(0).tolist() == [29.5, 29.5]
    assert details["0"]["presets"] == []
    assert details["1"]["truth"] == []


def test_pixels_come_with_all_their_bits(study, store):
    answer = client(study, store).get(f"{STUDY}/images/0/pixels")
    assert answer.headers["x-image"] == "100,100,16"
    assert np.array_equal(np.frombuffer(answer.content, "<u2"), np.arange(1000, 11000))


def test_pixels_of_dicom_come_through_the_window_asked_for(tmp_path):
    windows = {"WindowCenter": [1000, 500], "WindowWidth": [101, 11], "WindowCenterWidthExplanation": ["soft", "hard"]}
    dataset = small_dicom.image(np.array([[960, 500], [0, 4095]], np.uint16), 12, **windows)
    path = small_dicom.save(tmp_path / "a.dcm", dataset)
    shown = Study.of("a", gather([path], ("mass",), unpack_to=tmp_path))
    store = VerdictStore(shown, tmp_path)
    pages = client(shown, store)
    assert pages.get(f"{STUDY}/exams/0").json()["0"]["presets"] == ["soft", "hard"]

    def values(window):
        return np.frombuffer(pages.get(f"{STUDY}/images/0/pixels?window={window}").content, "<u2").tolist()

    assert values(0) == [6881, 0, 0, 65535]  # ((960 - 999.5) / 100 + 0.5) * 65535
    assert values(1) == [65535, 36044, 0, 65535]  # ((500 - 499.5) / 10 + 0.5) * 65535, rounded
    assert values("none") == [15364, 8002, 0, 65535]  # 960 / 4095 * 65535 = 15363.5
    assert pages.get(f"{STUDY}/images/0/pixels?window=2").status_code == 422
    assert pages.get(f"{STUDY}/images/0/pixels?window=../x").status_code == 422


def test_many_requests_read_few_images_at_a_time(study, store, monkeypatch):
    import anyio
    from starlette.requests import Request

    running, most, lock, read = 0, 0, threading.Lock(), Study.pixels

    def counted(self, number, window=0):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return read(self, number, window)

    monkeypatch.setattr(Study, "pixels", counted)
    app = client(study, store).app
    sizes: list[int] = []

    async def one() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"{STUDY}/images/0/pixels",
            "query_string": f"token={TOKEN}".encode(),
            "headers": [(b"host", HOST.encode())],
        }

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sizes.append(len(message.get("body", b"")))

        assert Request(scope).method == "GET"
        await app(scope, receive, send)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one)

    anyio.run(all_at_once)
    assert sizes.count(20000) == 200
    assert most <= 4


def test_verdict_is_kept_at_once_and_found_again(study, store, tmp_path):
    sent = {
        "version": 0,
        "marks": [{"verdict": "accepted", "detection": 0}],
        "comment": HOSTILE,
        "done": True,
        "shown_from": 0.5,
    }
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json=sent)
    assert answer.status_code == 200
    assert answer.json()["version"] == 1
    again = client(study, VerdictStore(study, tmp_path / "preds")).get(STUDY).json()["verdicts"][0]
    assert again["comment"] == HOSTILE
    assert again["marks"][0]["verdict"] == "accepted"
    assert again["done"]


def test_second_window_does_not_overwrite_the_first(study, store):
    pages = client(study, store)
    assert pages.put(f"{STUDY}/images/0/verdict", json={"version": 0, "comment": "first"}).status_code == 200
    late = pages.put(f"{STUDY}/images/0/verdict", json={"version": 0, "comment": "second"})
    assert late.status_code == 409
    assert late.json()["stored"]["comment"] == "first"
    assert pages.put(f"{STUDY}/images/1/verdict", json={"version": 0, "comment": "another image"}).status_code == 200
    assert store.of(0).comment == "first"


def test_parallel_saves_of_one_version_keep_exactly_one(store):
    outcomes = []

    def save(number):
        try:
            outcomes.append(store.save(0, ImageVerdict(comment=str(number))))
        except ConflictError:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in outcomes) == 1
    assert store.of(0).version == 1


@pytest.mark.parametrize(
    "marks",
    [
        [{"verdict": "accepted", "detection": 2}],
        [{"verdict": "accepted", "detection": -1}],
        [{"verdict": "accepted", "detection": 0}, {"verdict": "rejected", "detection": 0}],
        [{"verdict": "redrawn", "detection": 0}],
        [{"verdict": "added", "detection": 0, "box_xyxy": [1, 1, 5, 5]}],
        [{"verdict": "added", "box_xyxy": [200, 1, 300, 5]}],
        [{"verdict": "added", "box_xyxy": [1, 1, "1e999", 5]}],
        [{"verdict": "deleted", "detection": 0}],
        [{"verdict": "rejected", "detection": 0, "path": "/etc"}],
        [{"verdict": "rejected", "detection": 0}] * 201,
    ],
)
def test_marks_that_cannot_be_are_refused(study, store, marks):
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json={"version": 0, "marks": marks})
    assert answer.status_code == 422
    assert not store.path.exists()


def test_too_large_bodies_are_refused(study, store, monkeypatch):
    large = json.dumps({"version": 0, "comment": "x" * 2**18})
    assert client(study, store).put(f"{STUDY}/images/0/verdict", content=large).status_code == 413
    monkeypatch.setattr("mammodet.serving.app.MOST_UPLOAD_BYTES", 1000)
    queue = PredictionQueue(_Model)
    pages = client(study, store, queue)
    assert pages.post("/v1/predict", content=b"\x89PNG\r\n\x1a\n" + b"0" * 1000).status_code == 413
    assert pages.post("/v1/predict", files={"file": b"0" * 1001}).status_code == 413
    assert queue._count == 0


def test_verdicts_of_other_predictions_are_refused(study, store, tmp_path):
    store.save(0, ImageVerdict(comment="seen"))
    other = Study(study.title, study.inputs, (None, None), study.categories)
    with pytest.raises(InputError, match=r"verdicts\.json.*move it away"):
        VerdictStore(other, tmp_path / "preds")
    store.path.write_text("{}")
    with pytest.raises(InputError, match="belongs_to"):
        VerdictStore(study, tmp_path / "preds")


def test_corrected_data_set_follows_the_verdicts(study, store, tmp_path):
    marks = [
        {"verdict": "redrawn", "detection": 0, "box_xyxy": [8, 8, 32, 32]},
        {"verdict": "rejected", "detection": 1},
        {"verdict": "added", "box_xyxy": [60, 60, 120, 80]},
    ]
    store.save(0, ImageVerdict.model_validate({"marks": marks, "done": True}))
    store.save(1, ImageVerdict.model_validate({"marks": [{"verdict": "accepted", "detection": 0}]}))
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path / "test.json"), "--exportt", "x"])
    path = tmp_path / "corrected.json"
    assert (
        main(["view", str(tmp_path / "test.json"), "--predictions", str(tmp_path / "preds"), "--export", str(path)])
        == 0
    )
    record = read_coco(path).images[0]
    assert len(read_coco(path).images) == 1  # the second image is not done
    assert [each.box_xyxy for each in record.lesions] == [(8, 8, 32, 32), (60, 60, 100, 80)]
    assert [each.geometry for each in record.lesions] == ["box", "box"]

    store.save(0, ImageVerdict(version=1))
    accepted = {"version": 1, "marks": [{"verdict": "accepted", "detection": 0}], "done": True}
    store.save(1, ImageVerdict.model_validate(accepted))
    record = store.corrected().images[0]
    assert record.label("tumor") == 1
    assert record.lesions[0].box_xyxy == ELSEWHERE
    assert record.lesions[0].rle is not None
    store.save(1, ImageVerdict(version=2, done=True, shown_from=0.61))
    assert store.corrected().images[0].label("tumor") == 0
    assert store.corrected().images[0].lesions == ()


def test_accepting_a_finding_on_a_known_lesion_keeps_the_lesion(study, store):
    marks = [{"verdict": "accepted", "detection": 0}]
    store.save(0, ImageVerdict.model_validate({"marks": marks, "done": True, "shown_from": 0.5}))
    (record,) = store.corrected().images
    assert record.lesions == study.images[0].lesions


def test_image_is_not_done_while_a_finding_that_was_shown_has_no_verdict(study, store):
    marks = [{"verdict": "rejected", "detection": 0}]
    sent = {"version": 0, "marks": marks, "done": True, "shown_from": 0.4}
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json=sent)
    assert answer.status_code == 422
    assert "2 (0.40)" in answer.json()["error"]
    assert not store.path.exists()
    assert client(study, store).put(f"{STUDY}/images/0/verdict", json={**sent, "shown_from": 0.41}).status_code == 200


def test_export_refuses_images_that_an_older_version_marked_as_done(study, store, tmp_path):
    store.save(0, ImageVerdict(done=True, shown_from=1))
    value = json.loads(store.path.read_text())
    del value["images"]["images/im1.png"]["shown_from"]
    store.path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"images/im1\.png: is done, but 2 findings"):
        VerdictStore(study, tmp_path / "preds").corrected()


def test_export_without_a_done_image_is_refused(study, store):
    answer = client(study, store).get(f"{STUDY}/export")
    assert answer.status_code == 422
    assert "done" in answer.json()["error"]


def test_export_is_coco(study, store):
    store.save(0, ImageVerdict(done=True, shown_from=1))
    value = client(study, store).get(f"{STUDY}/export").json()
    assert value["annotations"][0]["bbox"] == [10, 10, 20, 20]
    assert len(value["images"]) == 1


PNG = b"\x89PNG\r\n\x1a\n"


def test_predict_answers_an_upload_and_keeps_nothing(study, store):
    model = _Model()
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
    model = _Model()
    queue = PredictionQueue(lambda: model, most=2)
    codes = []
    model.go.clear()
    with client(study, store, queue) as pages:

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


def test_predict_that_takes_too_long_is_answered_and_holds_its_place(study, store):
    model = _Model()
    model.go.clear()
    queue = PredictionQueue(lambda: model, seconds=0.1, most=1)
    with client(study, store, queue) as pages:
        assert pages.post("/v1/predict", content=PNG).status_code == 504
        assert pages.post("/v1/predict", content=PNG).status_code == 503  # the first one is still predicted
        model.go.set()


class _Whole(_Model):
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


def test_report_of_an_evaluation_leads_to_its_cases(study, store, tmp_path):
    report = tmp_path / "report.html"
    fragment = case_fragment(image='a&b "c".png', threshold=0.3)
    report.write_text(f'<a href="#cases" data-cases="{fragment}">x</a><script>alert(1)</script>', encoding="utf-8")
    answer = client(study, store, report=report).get("/report")
    link = f"/?token={TOKEN}#image=a%26b%20%22c%22.png&threshold=0.3"
    assert f'<a href="{link}">' in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_view_of_an_evaluation_shows_what_it_was_made_of(study, tmp_path, monkeypatch):
    made_of = [str(tmp_path / "test.json"), str(tmp_path / "preds" / "predictions.json")]
    options = [
        "--match",
        "center",
        "--second-detections",
        "ignored",
        "--resamples",
        "0",
        "--output",
        str(tmp_path / "eval"),
    ]
    main(["evaluate", "--ground-truth", made_of[0], "--predictions", made_of[1], "--no-report", *options])
    seen = []
    monkeypatch.setattr(
        "mammodet.serving.server.serve", lambda uploads, *_, **more: seen.append((uploads.shown, more)) or 0
    )
    main(["view", str(tmp_path / "eval"), "--no-browser"])
    ((shown,), more) = seen[0]
    assert (shown.study.rule, shown.study.count_seconds, more["report"]) == ("center", False, None)
    assert shown.store.path == tmp_path / "preds" / "verdicts.json"
    (tmp_path / "eval" / "report.html").write_text("made")
    main(["view", str(tmp_path / "eval")])
    assert seen[1][1]["report"] == tmp_path / "eval" / "report.html"
    with open(made_of[1], "a", encoding="utf-8") as file:
        file.write(" ")
    with pytest.raises(InputError, match=r"predictions\.json: is not what .*metrics\.json was made of"):
        main(["view", str(tmp_path / "eval")])
    Path(made_of[0]).unlink()
    with pytest.raises(InputError, match=r"was made of .*test\.json, which is not there"):
        main(["view", str(tmp_path / "eval")])


def test_view_without_images_waits_for_uploads(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("mammodet.serving.server.serve", lambda uploads, *_, **more: seen.append(uploads) or 0)
    main(["view", "--output", str(tmp_path / "out")])
    assert seen[0] == Uploads(tmp_path / "out" / "uploads", [])
    with pytest.raises(InputError, match="name what was read"):
        main(["view", "--export", str(tmp_path / "x.json")])


def test_page_in_one_file_needs_nothing_else_and_escapes_names(study, tmp_path):
    (path,) = write_pages(study, tmp_path / "pages")
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "\\u003cscript>alert(1)" in text
    assert "http://" not in text
    assert "https://" not in text
    assert " src=" not in text
    assert "default-src &#39;none&#39;" in text
    assert "unsafe" not in text
    assert text.count("data:image/jpeg;base64,") == 2


def test_viewer_shows_predictions_without_a_data_set(study, tmp_path, capsys):
    with pytest.raises(InputError, match=r"2 of 2 predicted images.*--images"):
        main(["view", str(tmp_path / "preds"), "--export", str(tmp_path / "x.json")])
    with pytest.raises(InputError, match="no image is marked as done"):
        main(["view", str(tmp_path / "preds"), "--images", str(tmp_path), "--export", str(tmp_path / "x.json")])


def test_script_functions():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    checks = Path(__file__).with_name("check_viewer.js")
    done = subprocess.run([node, str(checks), str(STATIC / "viewer.js")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_operating_points_of_a_calibration_reach_the_page(study, store):
    points = ({"label": "malignant", "goal": "sensitivity@0.9", "threshold": 0.25},)
    value = client(replace(study, points=points), store).get(STUDY).json()
    assert value["points"] == list(points)


def test_predict_refuses_a_page_where_patient_ids_are_hashed(tmp_path, capsys):
    arguments = ["predict", "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*arguments, "--page", "--patient-key", str(tmp_path / "key")])
    assert "--patient-key" in capsys.readouterr().err


def test_second_view_of_a_folder_is_refused(study, store, tmp_path):
    arguments = ["view", str(tmp_path / "test.json"), "--predictions", str(tmp_path / "preds")]
    with locked(tmp_path / "preds", "held"), pytest.raises(InputError, match="another mammodet view"):
        main([*arguments, "--export", str(tmp_path / "x.json")])
