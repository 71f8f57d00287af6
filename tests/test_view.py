"""The reading page: what is served and refused, verdicts and the data set they make, the script, the single file."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_dicom
from small_cases import image, lesion, prediction

from mammodet.commands import main
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import write_png
from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.files import locked
from mammodet.records import Dataset

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from mammodet.serving.app import PredictionQueue, make_app
from mammodet.serving.page import STATIC, write_pages
from mammodet.serving.study import Study
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


def client(study, store, queue=None, **headers) -> TestClient:
    queue = queue or PredictionQueue(_Model)
    app = make_app(study, store, queue, TOKEN, frozenset({HOST}))
    given = {"Authorization": f"Bearer {TOKEN}", **headers}
    return TestClient(app, base_url=f"http://{HOST}", headers={name: value for name, value in given.items() if value})


PATHS = ("/", "/viewer.js", "/viewer.css", "/api/study", "/api/exams/0", "/api/images/0/pixels", "/api/export", "/none")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_token_host_and_origin(study, store, path):
    assert client(study, store, Authorization="").get(path).status_code == 401
    assert client(study, store, Authorization="Bearer wrong").get(path).status_code == 401
    assert client(study, store).get(path, headers={"Host": "evil.example:8000"}).status_code == 403
    assert client(study, store).get(path, headers={"Origin": "http://evil.example"}).status_code == 403
    refused = client(study, store, Authorization="").get(path)
    assert "default-src 'none'" in refused.headers["content-security-policy"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/api/images/0/verdict"), ("POST", "/v1/predict")])
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
    "path", ["/api/images/2/pixels", "/api/images/-1/pixels", "/api/exams/9", "/..%2f..%2fetc/passwd"]
)
def test_unknown_numbers_and_paths_are_not_found(study, store, path):
    assert client(study, store).get(path).status_code == 404


def test_study_says_what_was_found_missed_and_false(study, store):
    value = client(study, store).get("/api/study").json()
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
    assert value["verdicts"][0] == {"version": 0, "marks": [], "comment": "", "done": False}


def test_details_hold_the_outline_through_the_outermost_pixels(study, store):
    details = client(study, store).get("/api/exams/0").json()
    rim = np.array(details["0"]["findings"][0][0]).reshape(-1, 2)
    assert rim.min(0).tolist() == [10.5, 10.5]
    assert rim.max(0).tolist() == [29.5, 29.5]
    assert details["0"]["presets"] == []
    assert details["1"]["truth"] == []


def test_pixels_come_with_all_their_bits(study, store):
    answer = client(study, store).get("/api/images/0/pixels")
    assert answer.headers["x-image"] == "100,100,16"
    assert np.array_equal(np.frombuffer(answer.content, "<u2"), np.arange(1000, 11000))


def test_pixels_of_dicom_come_through_the_window_asked_for(tmp_path):
    windows = {"WindowCenter": [1000, 500], "WindowWidth": [101, 11], "WindowCenterWidthExplanation": ["soft", "hard"]}
    dataset = small_dicom.image(np.array([[960, 500], [0, 4095]], np.uint16), 12, **windows)
    path = small_dicom.save(tmp_path / "a.dcm", dataset)
    shown = Study.of("a", gather([path], ("mass",), unpack_to=tmp_path))
    store = VerdictStore(shown, tmp_path)
    pages = client(shown, store)
    assert pages.get("/api/exams/0").json()["0"]["presets"] == ["soft", "hard"]

    def values(window):
        return np.frombuffer(pages.get(f"/api/images/0/pixels?window={window}").content, "<u2").tolist()

    assert values(0) == [6881, 0, 0, 65535]  # ((960 - 999.5) / 100 + 0.5) * 65535
    assert values(1) == [65535, 36044, 0, 65535]  # ((500 - 499.5) / 10 + 0.5) * 65535, rounded
    assert values("none") == [15364, 8002, 0, 65535]  # 960 / 4095 * 65535 = 15363.5
    assert pages.get("/api/images/0/pixels?window=2").status_code == 422
    assert pages.get("/api/images/0/pixels?window=../x").status_code == 422


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
    app = make_app(study, store, PredictionQueue(_Model), TOKEN, frozenset({HOST}))
    sizes: list[int] = []

    async def one() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/images/0/pixels",
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
    sent = {"version": 0, "marks": [{"verdict": "accepted", "detection": 0}], "comment": HOSTILE, "done": True}
    answer = client(study, store).put("/api/images/0/verdict", json=sent)
    assert answer.status_code == 200
    assert answer.json()["version"] == 1
    again = client(study, VerdictStore(study, tmp_path / "preds")).get("/api/study").json()["verdicts"][0]
    assert again["comment"] == HOSTILE
    assert again["marks"][0]["verdict"] == "accepted"
    assert again["done"]


def test_second_window_does_not_overwrite_the_first(study, store):
    pages = client(study, store)
    assert pages.put("/api/images/0/verdict", json={"version": 0, "comment": "first"}).status_code == 200
    late = pages.put("/api/images/0/verdict", json={"version": 0, "comment": "second"})
    assert late.status_code == 409
    assert late.json()["stored"]["comment"] == "first"
    assert pages.put("/api/images/1/verdict", json={"version": 0, "comment": "another image"}).status_code == 200
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
    answer = client(study, store).put("/api/images/0/verdict", json={"version": 0, "marks": marks})
    assert answer.status_code == 422
    assert not store.path.exists()


def test_too_large_bodies_are_refused(study, store, monkeypatch):
    large = json.dumps({"version": 0, "comment": "x" * 2**18})
    assert client(study, store).put("/api/images/0/verdict", content=large).status_code == 413
    monkeypatch.setattr("mammodet.serving.app.MOST_UPLOAD_BYTES", 1000)
    queue = PredictionQueue(_Model)
    pages = client(study, store, queue)
    assert pages.post("/v1/predict", content=b"\x89PNG\r\n\x1a\n" + b"0" * 1000).status_code == 413
    assert pages.post("/v1/predict", files={"file": b"0" * 1001}).status_code == 413
    assert queue._count == 0


def test_verdicts_of_other_predictions_are_refused(study, store, tmp_path):
    store.save(0, ImageVerdict(done=True))
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
    store.save(
        1, ImageVerdict.model_validate({"version": 1, "marks": [{"verdict": "accepted", "detection": 0}], "done": True})
    )
    record = store.corrected().images[0]
    assert record.label("tumor") == 1
    assert record.lesions[0].box_xyxy == ELSEWHERE
    assert record.lesions[0].rle is not None
    store.save(1, ImageVerdict(version=2, done=True))
    assert store.corrected().images[0].label("tumor") == 0
    assert store.corrected().images[0].lesions == ()


def test_accepting_a_finding_on_a_known_lesion_keeps_the_lesion(study, store):
    store.save(0, ImageVerdict.model_validate({"marks": [{"verdict": "accepted", "detection": 0}], "done": True}))
    (record,) = store.corrected().images
    assert record.lesions == study.images[0].lesions


def test_export_without_a_done_image_is_refused(study, store):
    answer = client(study, store).get("/api/export")
    assert answer.status_code == 422
    assert "done" in answer.json()["error"]


def test_export_is_coco(study, store):
    store.save(0, ImageVerdict(done=True))
    value = client(study, store).get("/api/export").json()
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
    assert [path.name for path in model.seen] == ["upload.png", "upload.png", "upload.dcm"]
    assert not any(path.parent.exists() for path in model.seen)


def test_predict_refuses_other_files_and_hides_its_paths(study, store):
    pages = client(study, store)
    assert pages.post("/v1/predict", content=b"GIF89a").status_code == 415
    assert pages.post("/v1/predict", content=b"").status_code == 415
    assert pages.post("/v1/predict", files={"a": PNG, "b": PNG}).status_code in (400, 422)
    damaged = pages.post("/v1/predict", content=PNG + b"bad")
    assert damaged.status_code == 422
    assert damaged.json()["error"] == "upload: is damaged"


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
    value = client(replace(study, points=points), store).get("/api/study").json()
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
