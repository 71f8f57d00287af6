"""The reading page in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from contextlib import contextmanager
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
LESION, ELSEWHERE, BELOW = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 50.0, 50.0), (40.0, 70.0, 50.0, 80.0)
WAIT_MS = 600_000
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
    """Two exams: a right breast in two views, a found lesion and false findings in one; a left one without any."""
    names = {"patient_id": HOSTILE, "view": "CC"}
    records = (
        image(1, lesion(LESION), **names, laterality="R", labels={"tumor": 1}, density="C"),
        image(2, patient_id="other \u202e9.0", view="CC", laterality="L", labels={"tumor": 0}, density="B"),
        image(3, **{**names, "view": "MLO"}, laterality="R", labels={"tumor": 0}, density="C"),
    )
    for record in records:
        write_png(tmp_path / record.file_name, np.arange(10000, dtype=np.uint16).reshape(100, 100) + 1000)
    write_coco(Dataset(("mass",), records), tmp_path / "test.json")
    found = (
        prediction(1, (LESION, 0.9), (ELSEWHERE, 0.4), (BELOW, 0.35), scores={"tumor": 0.9}, masks=True),
        prediction(2, scores={"tumor": 0.1}, masks=True),
        prediction(3, (ELSEWHERE, 0.2), scores={"tumor": 0.2}, masks=True),
    )
    inputs = gather([tmp_path / "test.json"], (), unpack_to=tmp_path / "unused")
    return Study.of(HOSTILE, inputs, Predictions(found, ("mass",)))


@pytest.fixture
def address(study, tmp_path):
    """Of a running server."""
    with serving(tmp_path, study) as address:
        yield address


@contextmanager
def serving(folder, *studies):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that the browser, which may be faster, waits
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        uploads = Uploads(folder / "uploads", [Shown(study, VerdictStore(study, folder)) for study in studies])
        app = make_app(uploads, PredictionQueue(_Model), "secret", frozenset({host}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{host}/?token=secret"
        finally:
            server.should_exit = True
            thread.join()


def wait_for(page, code):
    """Until it is true; Playwright's own way needs eval, which the page's policy forbids."""
    wait_until(page, lambda: page.evaluate(code))


def wait_until(page, holds):
    until = time.monotonic() + WAIT_MS / 1000
    while not holds():
        assert time.monotonic() < until
        page.wait_for_timeout(50)


def saved(page):
    wait_for(page, "document.querySelector('#status').textContent === 'saved'")


def verdicts(folder):
    return json.loads((folder / "verdicts.json").read_text())["images"]


def opened(page, address, count=2):
    page.goto(address)
    wait_for(page, f"document.querySelectorAll('canvas').length === {count}")
    wait_for(page, "document.querySelector('#window').textContent.startsWith('black')")


def test_verdict_window_and_threshold_in_a_browser(page, address, tmp_path):
    opened(page, address)
    shown = page.inner_text("#window")
    page.keyboard.press("w")
    wait_for(page, f"document.querySelector('#window').textContent !== {json.dumps(shown)}")
    assert page.locator("#findings button").count() == 3
    for _ in range(10):
        page.keyboard.press("]")
    assert page.locator("#findings button").count() == 1  # from 0.5 on
    page.keyboard.press("v")
    assert "no verdict" in page.inner_text("#status")
    assert not page.is_checked("#done")
    page.keyboard.press("a")
    saved(page)
    page.keyboard.press("v")
    wait_until(page, lambda: verdicts(tmp_path)["images/im1.png"]["done"])
    page.reload()
    wait_for(page, "document.querySelector('#findings')?.textContent.includes('accepted')")
    assert page.is_checked("#done")
    kept = verdicts(tmp_path)["images/im1.png"]
    assert (kept["done"], kept["shown_from"]) == (True, 0.5)
    assert page.title() != "broken"
    assert page.locator("img").count() == 0


def test_address_filters_and_opens_an_image(page, address):
    opened(page, f"{address}#density=B&threshold=0.2", 1)
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


def test_box_belongs_to_the_finding_and_image_on_which_it_was_begun(page, address, tmp_path):
    opened(page, address)
    for key in (".", "d", ".", "Enter"):  # the second finding is redrawn, though the first one is chosen meanwhile
        page.keyboard.press(key)
    saved(page)
    for key in ("d", "Tab", "Enter", "f"):  # dropped with its image; Enter shows one image alone, f all
        page.keyboard.press(key)
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('#findings').textContent === 'added by hand'")
    saved(page)
    first, second = (verdicts(tmp_path)[f"images/im{number}.png"]["marks"] for number in (1, 3))
    assert [(mark["verdict"], mark["detection"]) for mark in first] == [("redrawn", 1)]
    assert [mark["verdict"] for mark in second] == ["added"]


def test_threshold_does_not_choose_another_finding(page, address, tmp_path):
    opened(page, address)
    for key in "..x]]]]]]]]]][[[[[[[[[[a":  # at 0.5 the one at 0.4 goes; that at 0.35 has a verdict, and stays
        page.keyboard.press(key)
    accepted = [{"verdict": "accepted", "detection": 2, "box_xyxy": None}]
    wait_until(page, lambda: verdicts(tmp_path)["images/im1.png"]["marks"] == accepted)


def test_message_about_another_window_stays_and_its_verdicts_are_kept(page, address, tmp_path):
    opened(page, address)
    held: list[Any] = []
    page.route("**/verdict", lambda route: route.continue_() if held else held.append(route))
    page.keyboard.press("m")
    page.keyboard.type("typed")
    page.keyboard.press("Escape")
    for key in "axu":
        page.keyboard.press(key)
    wait_until(page, lambda: len(held) == 1)
    (route,) = held
    other = {"version": 0, "comment": "of another window"}
    assert page.request.put(f"{route.request.url}?token=secret", data=other).ok
    route.continue_()
    wait_for(page, "document.querySelector('#status').textContent.startsWith('Another window')")
    assert page.inner_text("#status").endswith("Your comment was: typed")
    assert page.input_value("#comment") == "of another window"
    page.keyboard.press("a")
    saved(page)
    kept = verdicts(tmp_path)["images/im1.png"]
    assert (kept["version"], kept["comment"], kept["marks"][0]["verdict"]) == (2, "of another window", "accepted")


def test_slider_leaves_letters_to_the_page_and_arrows_move_the_ruler(page, address):
    opened(page, address)
    page.focus("#threshold")
    page.keyboard.press("j")
    wait_for(page, "document.querySelector('#image-name').textContent === 'images/im2.png'")
    wait_for(page, "!document.querySelector('#status').textContent")
    page.locator("canvas").focus()
    white = """(() => {
        const canvas = document.querySelector("canvas"), at = [canvas.width / 2 + 10, canvas.height / 2];
        return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].every((value) => value === 255);
    })()"""
    assert not page.evaluate(white)
    page.keyboard.press("r")
    for _ in range(5):  # 6 pixels of the screen each
        page.keyboard.press("ArrowRight")
    wait_for(page, white)


def test_threshold_of_the_address_precedes_that_of_an_operating_point(page, study, tmp_path):
    points = ({"label": "tumor", "goal": "sensitivity@0.9", "threshold": 0.6},)
    with serving(tmp_path, replace(study, points=points)) as address:
        opened(page, address)
        assert page.inner_text("#threshold-value") == "0.60"
        opened(page, f"{address}&again#image=images%2Fim1.png&threshold=0.2")
        assert page.inner_text("#threshold-value") == "0.20"


def test_letters_typed_while_images_are_read_are_no_keys(page, address, tmp_path):
    held: list[Any] = []
    page.route("**/pixels?**", lambda route: held.append(route) if held is not None else route.continue_())
    page.goto(address)
    wait_until(page, lambda: len(held) == 1)
    page.focus("#search")
    pixels, held = held, None
    pixels[0].continue_()
    wait_for(page, "!document.querySelector('#status').textContent")
    page.keyboard.type("ax")
    assert page.input_value("#search") == "ax"
    assert not (tmp_path / "verdicts.json").exists()


def test_images_of_one_name_are_told_apart_by_their_studies(page, study, tmp_path):
    with serving(tmp_path, study, replace(study, title="second \u00e4", predictions=(None, None, None))) as address:
        opened(page, f"{address}#image=images%2Fim2.png&study=second%20%C3%A4", 1)
        for _ in range(2):  # reloading shows the same
            assert page.inner_text("#title") == "second \u00e4"
            assert page.inner_text("#image-name") == "images/im2.png"
            page.reload()
            wait_for(page, "document.querySelector('#image-name')?.textContent")
        opened(page, f"{address}&again#image=images%2Fim2.png&study=third")
        wait_for(page, "document.querySelector('#status').textContent === 'no image is named images/im2.png in third'")
        answer = {"study": 1, "words": "images: tumor", "rows": [{"name": "x", "images": [1]}], "threshold": None}
        page.route("**/api/cases?**", lambda route: route.fulfill(json=answer))
        opened(page, f"{address}&cases#cases=scores", 1)
        assert (page.inner_text("#title"), page.inner_text("#image-name")) == ("second \u00e4", "images/im2.png")
        page.click("#all")
        assert page.inner_text("#count") == "4 of 4 exams"
        assert "cases" not in page.evaluate("location.hash")


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
    answer = {"study": 0, "words": "breasts: tumor, FN", "rows": [{"name": HOSTILE, "images": [1]}], "threshold": 0.95}
    page.route("**/api/cases?**", lambda route: route.fulfill(json=answer))
    for _ in range(2):  # reloading shows the same list
        opened(page, f"{address}#cases=scores&call=fn", 1)
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
