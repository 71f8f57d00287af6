"""The reading page's server: what is served, linked and refused."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import small_dicom
from small_view import HOST, HOSTILE, STUDY, TOKEN, TestClient, client

from mammodet.data.inputs import gather
from mammodet.reporting.case_links import case_fragment
from mammodet.serving.study import Study, at_most
from mammodet.serving.verdicts import VerdictStore

PATHS = (
    *("/", "/viewer.js", "/viewer.css", "/report", "/openapi.json", "/docs", "/none", "/api/studies", STUDY),
    *(f"{STUDY}/{rest}" for rest in ("exams/0", "images/0/pixels", "export")),
)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_token_host_and_origin(study, store, path):
    assert client(study, store, Authorization="").get(path).status_code == 401
    assert client(study, store, Authorization="Bearer wrong").get(path).status_code == 401
    assert client(study, store).get(path, headers={"Host": "evil.example:8000"}).status_code == 403
    for origin in ("http://evil.example", "http://[", "null"):
        assert client(study, store).get(path, headers={"Origin": origin}).status_code == 403
    assert client(study, store).get(path, headers={"Origin": f"http://{HOST}"}).status_code != 403
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


def test_first_view_of_an_image_is_smaller(study, store):
    answer = client(study, store).get(f"{STUDY}/images/0/pixels?most=50")
    assert answer.headers["x-image"] == "50,50,16"
    assert np.frombuffer(answer.content, "<u2")[0] == 1051  # mean of 1000, 1001, 1100, 1101, rounded
    assert client(study, store).get(f"{STUDY}/images/0/pixels?most=500").headers["x-image"] == "100,100,16"
    for most in ("-1", "00", "x"):
        assert client(study, store).get(f"{STUDY}/images/0/pixels?most={most}").status_code == 422
    assert at_most(np.zeros((3000, 1), np.uint8), 100).shape == (100, 1)


def test_images_with_a_lesion_without_a_place_are_not_judged(study, store):
    assert [one["judged"] for one in client(study, store).get(STUDY).json()["images"]] == [True, True]
    dataset = study.inputs.dataset
    unlocalized = replace(dataset, images=(replace(dataset.images[0], unlocalized=True), dataset.images[1]))
    shown = replace(study, inputs=replace(study.inputs, dataset=unlocalized))
    first, _ = client(shown, store).get(STUDY).json()["images"]
    assert (first["judged"], {one["kind"] for one in first["findings"]}) == (False, {None})


def test_fault_of_the_server_is_answered_as_json(study, store, monkeypatch):
    monkeypatch.setattr(VerdictStore, "save", lambda *_: open("/nowhere/x"))  # noqa: SIM115
    app = client(study, store).app
    pages = TestClient(
        app, f"http://{HOST}", raise_server_exceptions=False, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    answer = pages.put(f"{STUDY}/images/0/verdict", json={"version": 0})
    assert (answer.status_code, list(answer.json())) == (500, ["error"])


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


def test_report_of_an_evaluation_leads_to_its_cases(study, store, tmp_path):
    report = tmp_path / "report.html"
    fragment = case_fragment(image='a&b "c".png', threshold=0.3)
    report.write_text(f'<a href="#cases" data-cases="{fragment}">x</a><script>alert(1)</script>', encoding="utf-8")
    answer = client(study, store, report=report).get("/report")
    link = f"/?token={TOKEN}#image=a%26b%20%22c%22.png&threshold=0.3"
    assert f'<a href="{link}">' in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_operating_points_of_a_calibration_reach_the_page(study, store):
    points = ({"label": "malignant", "goal": "sensitivity@0.9", "threshold": 0.25},)
    value = client(replace(study, points=points), store).get(STUDY).json()
    assert value["points"] == list(points)
