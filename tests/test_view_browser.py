"""The reading page in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_cases import image, lesion, prediction

from mammodet.api import Result, Results
from mammodet.data.coco import write_coco
from mammodet.data.images import write_png
from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions
from mammodet.records import Dataset

pytest.importorskip("playwright")
pytest.importorskip("uvicorn")
import uvicorn
from playwright.sync_api import sync_playwright

from mammodet.serving.app import make_app
from mammodet.serving.page import write_pages
from mammodet.serving.study import Study
from mammodet.serving.uploads import PredictionQueue, Shown, Uploads
from mammodet.serving.verdicts import VerdictStore

HOSTILE = "<img src=x onerror=document.title='broken'>"
LESION, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 50.0, 50.0)
WAIT_MS = 120_000
DROP = """(text) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([text], "a.png"));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
}"""

DROP_FOLDER = """(bytes) => {
    const content = (path) => new File([new Uint8Array(bytes)], path.split("/").pop());
    const file = (fullPath) => ({ isFile: true, fullPath, file: (done) => done(content(fullPath)) });
    const reader = (parts) => ({ readEntries: (done) => done(parts.shift() ?? []) });
    const folder = (parts) => ({ isDirectory: true, createReader: () => reader(parts) });
    const inner = folder([[file("/top/inner/L_CC.png"), file("/top/inner/.hidden")]]);
    const top = folder([[file("/top/R_CC.png")], [inner]]); // in two parts
    const dataTransfer = { files: [], items: [{ webkitGetAsEntry: () => top }] };
    document.dispatchEvent(Object.assign(new Event("drop", { cancelable: true }), { dataTransfer }));
}"""


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert faults == []


class _Model:
    """Finds the same in each image."""

    categories, calibration = ("mass",), None

    def predict(self, images: Any, *, root: Path, progress: Any) -> Results:
        found = [replace(prediction(each.image_id, (LESION, 0.9)), file_name=each.file_name) for each in images.images]
        progress(len(found))
        file = Predictions(tuple(found), ("mass",), {"checkpoint": "starter"})
        return Results([Result(each, root / each.file_name, ("mass",)) for each in found], file, ())


@pytest.fixture
def study(tmp_path):
    """Two exams: one of a right breast with a found lesion and a false finding, one of a left breast without any."""
    names = {"patient_id": HOSTILE, "view": "CC"}
    records = (
        image(1, lesion(LESION), **names, laterality="R", labels={"tumor": 1}, density="C"),
        image(2, patient_id="other \u202e9.0", view="CC", laterality="L", labels={"tumor": 0}, density="B"),
    )
    for record in records:
        write_png(tmp_path / record.file_name, np.arange(10000, dtype=np.uint16).reshape(100, 100) + 1000)
    write_coco(Dataset(("mass",), records), tmp_path / "test.json")
    found = (
        prediction(1, (LESION, 0.9), (ELSEWHERE, 0.4), scores={"tumor": 0.9}, masks=True),
        prediction(2, scores={"tumor": 0.1}, masks=True),
    )
    inputs = gather([tmp_path / "test.json"], (), unpack_to=tmp_path / "unused")
    return Study.of(HOSTILE, inputs, Predictions(found, ("mass",)))


@pytest.fixture
def address(study, tmp_path):
    """Of a running server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that the browser, which may be faster, waits
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        uploads = Uploads(tmp_path / "uploads", [Shown(study, VerdictStore(study, tmp_path))])
        app = make_app(uploads, PredictionQueue(_Model), "secret", frozenset({host}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://{host}/?token=secret"
        server.should_exit = True
        thread.join()


def wait_for(page, code):
    """Until it is true; Playwright's own way needs eval, which the page's policy forbids."""
    until = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(code):
        assert time.monotonic() < until, code
        page.wait_for_timeout(50)


def opened(page, address, count=1):
    page.goto(address)
    wait_for(page, f"document.querySelectorAll('canvas').length === {count}")
    wait_for(page, "document.querySelector('#window').textContent.startsWith('black')")


def test_verdict_window_and_threshold_in_a_browser(page, address, tmp_path):
    opened(page, address)
    shown = page.inner_text("#window")
    page.keyboard.press("w")
    wait_for(page, f"document.querySelector('#window').textContent !== {json.dumps(shown)}")
    assert page.locator("#findings button").count() == 2
    for _ in range(10):
        page.keyboard.press("]")
    assert page.locator("#findings button").count() == 1  # from 0.5 on
    page.keyboard.press("v")
    assert "no verdict" in page.inner_text("#status")
    assert not page.is_checked("#done")
    page.keyboard.press("a")
    wait_for(page, "document.querySelector('#status').textContent === 'saved'")
    page.keyboard.press("v")
    wait_for(page, "document.querySelector('#exams').textContent.includes('done')")
    page.reload()
    wait_for(page, "document.querySelector('#findings')?.textContent.includes('accepted')")
    assert page.is_checked("#done")
    saved = json.loads((tmp_path / "verdicts.json").read_text())["images"]["images/im1.png"]
    assert (saved["done"], saved["shown_from"]) == (True, 0.5)
    assert page.title() != "broken"
    assert page.locator("img").count() == 0


def test_address_filters_and_opens_an_image(page, address):
    opened(page, f"{address}#density=B&threshold=0.2")
    assert page.inner_text("#count") == "1 of 2 exams"
    assert page.inner_text("#image-name") == "images/im2.png"
    assert "other \ufffd9.0" in page.inner_text("#image-facts")
    assert "\u202e" not in page.inner_text("body")
    opened(page, f"{address}&again#image=images%2Fim1.png")
    assert page.inner_text("#image-name") == "images/im1.png"
    page.select_option("#filter", "false")
    assert page.inner_text("#count") == "1 of 2 exams"
    page.select_option("#filter", "missed")
    assert page.inner_text("#count") == "0 of 2 exams"


def test_heat_colours_the_pixels_of_findings(page, address):
    opened(page, address)
    coloured = """(() => {
        const canvas = document.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, n) => n % 4 === 0 && value !== data[n + 2]).length;
    })()"""
    for key in "bct":
        page.keyboard.press(key)
    wait_for(page, coloured + " === 0")
    page.keyboard.press("h")
    wait_for(page, coloured + " > 1000")


def test_files_become_an_exam(page, address):
    opened(page, address)
    content = cv2.imencode(".png", np.full((100, 100), 2000, np.uint16))[1].tobytes()
    page.set_input_files("#files", [{"name": f"{HOSTILE}.png", "mimeType": "image/png", "buffer": content}])
    wait_for(page, "document.querySelector('#count').textContent === '3 of 3 exams'")
    wait_for(page, "document.querySelector('#title').textContent === 'upload 001'")
    wait_for(page, "document.querySelectorAll('#findings button').length === 1")
    wait_for(page, "document.querySelector('#progress').hidden")
    page.evaluate(DROP, "hello")
    wait_for(page, "document.querySelector('#status').textContent.startsWith('NOT PREDICTED: expected a DICOM file')")
    assert page.title() != "broken"


def test_folders_are_dropped_and_chosen_with_all_that_is_in_them(page, address, tmp_path):
    opened(page, address)
    content = cv2.imencode(".png", np.full((100, 100), 2000, np.uint16))[1].tobytes()
    page.evaluate(DROP_FOLDER, list(content))
    wait_for(page, "document.querySelector('#count').textContent === '4 of 4 exams'")
    names = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "uploads/001/images").rglob("*.png")]
    assert {name.removeprefix("uploads/001/images/") for name in names} == {"R_CC.png", "inner/L_CC.png"}
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "chosen.png").write_bytes(content)
    wait_for(page, "document.querySelector('#progress').hidden")
    page.set_input_files("#folder", str(tmp_path / "films"))
    wait_for(page, "document.querySelector('#count').textContent === '5 of 5 exams'")


def test_cases_of_a_figure_are_the_rows_of_the_list(page, address):
    answer = {"words": "breasts: tumor, FN", "rows": [{"name": HOSTILE, "images": [1]}], "threshold": 0.95}
    page.route("**/api/cases?**", lambda route: route.fulfill(json=answer))
    for _ in range(2):  # reloading shows the same list
        opened(page, f"{address}#cases=scores&call=fn")
        assert page.inner_text("#count") == "1 of 1 breasts: tumor, FN"
        assert page.inner_text("#image-name") == "images/im2.png"
        assert page.inner_text("#threshold-value") == "0.95"
        page.reload()
    wait_for(page, "document.querySelector('#count').textContent.startsWith('1 of 1 breasts')")
    page.click("#all")
    assert page.inner_text("#count") == "2 of 2 exams"
    assert page.title() != "broken"


def test_page_in_one_file_opens_in_a_browser(page, study, tmp_path):
    (first, _) = write_pages(study, tmp_path / "pages")
    opened(page, first.as_uri())
    assert page.inner_text("#image-name") == "images/im1.png"
    assert page.locator("#files").count() == 0
    assert page.title() != "broken"
    assert page.locator("img").count() == 0
