"""The report as one HTML file."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
from small_metrics import HOSTILE, bare_model, figure, metrics_of, metrics_value, small_metrics

from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_box
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion
from mammodet.reporting.html import headline_label, write_report

SIZE = (100, 80)
TARGET = (20.0, 20.0, 40.0, 40.0)
VOID = {"meta", "img", "input", "br", "link", "hr"}


def square(x1, y1, x2, y2, **more):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    rle = mask_to_rle(mask)
    return Lesion("mass", rle_box(rle), rle, "contour", **more)


def record(image_id, *lesions, name="", tumor=None, size_hw=SIZE, **more):
    tumor = int(bool(lesions)) if tumor is None else tumor
    return ImageRecord(image_id, name or f"{image_id}.png", size_hw, labels={"tumor": tumor}, lesions=lesions, **more)


def prediction(image_id, *found, tumor=0.5, size_hw=SIZE):
    """`found` are (box_xyxy, score) with falling scores."""
    boxes = np.array([box for box, _ in found], dtype=float).reshape(-1, 4)
    scores = np.array([score for _, score in found], dtype=float)
    detections = Detections(boxes, scores, np.ones(len(found), dtype=np.int64))
    return ImagePrediction(image_id, f"{image_id}.png", size_hw, {"tumor": tumor}, detections)


def small_dataset():
    hostile = square(20, 20, 40, 40, attributes={"abnormality": HOSTILE})
    images = (
        record(1, hostile, name=f"{HOSTILE}.png", patient_id=HOSTILE),
        record(2, name="Größe_中文.png"),
        record(3, name="c/d.png", tumor=1, unlocalized=True),
        record(4, square(20, 20, 40, 40), name="e.png"),
    )
    return Dataset(("mass",), images)


def small_predictions():
    """A missed lesion beside a false positive; clean; a wrong label; clean."""
    return [
        prediction(1, ((50, 50, 60, 60), 0.9)),
        prediction(2, tumor=0.1),
        prediction(3, tumor=0.2),
        prediction(4, (TARGET, 0.9), tumor=0.9),
    ]


def read_grey(item):
    return np.full(item.size_hw, 60, dtype=np.uint8)


def report(folder, **changes):
    """The page, written with what a test does not change left empty."""
    values = {"title": "t", "dataset": small_dataset(), "metrics": small_metrics(), "image_reader": read_grey}
    values = {"predictions": [small_predictions()], **values, **changes}
    write_report(folder / "r.html", **values)
    return (folder / "r.html").read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Text of a page, its tags, and whether every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def words_of(page):
    return Checker(page).text


def test_report_is_one_escaped_file_without_outside_links(tmp_path):
    history = tmp_path / "metrics.csv"
    history.write_text("epoch,step,train/loss\n0,9,1.5\n")
    metrics = metrics_value(HOSTILE)
    metrics["notes"] = [f"masks are circles {HOSTILE}"]
    metrics["protocol"].update(ground_truth=HOSTILE, overrides=[HOSTILE], versions={HOSTILE: HOSTILE})
    metrics["models"][0]["strata"][0].update(variable=HOSTILE, value=HOSTILE)
    metrics["models"][0]["image"] = {HOSTILE: metrics["models"][0]["image"]["tumor"]}
    page = report(
        tmp_path,
        title=f"T {HOSTILE} \u202e9.0",
        metrics=metrics_of(metrics),
        history_csv=history,
        command=f"tool --x '{HOSTILE}'",
    )
    tags = Checker(page).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert "\ufffd9.0</h1>" in page
    assert "\u202e" not in page
    assert "Größe_中文.png" in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert list(tmp_path.glob(".*")) == []


def test_report_shows_the_figures_with_their_intervals(tmp_path):
    text = words_of(report(tmp_path))
    for words in (
        "lesion sensitivity at 1 FPPI 0.625 0.41 to 0.80",
        "box AP50 0.710 0.61 to 0.79",
        "image ROC AUC, tumor 0.900 0.71 to 0.98 3 positive, 4 negative",
        "match iou@0.2; denominator all images; second detections false positive",
        "mass only 0.250 0.10 to 0.40",
        "iou@0.2 (this report) all images 4",
        "center all images 4 0.250 0.10 to 0.40 0.625 0.41 to 0.80 \u2013 0.777",
        "under 10 mm 12 0.200 0.345 0.20 to 0.50",
        "A 9 3 20 0.750 0.610",
        "image noisy_or 0.860",
        "image sensitivity@0.9 0.310 1.000 \u2013 \u2013 \u2013 \u2013 \u2013 \u2013 3 1 3 0",
        "image calibrated 0.100 0.300 0.020",
        "found lesion \u2013 30 3 0.812 0.70 to 0.90 3.46",
        "mammodet 9.8.7",
        "FPPI:",
    ):
        assert words in text


def test_report_of_two_models_shows_them_side_by_side(tmp_path):
    page = report(tmp_path, predictions=[small_predictions()] * 2, metrics=small_metrics("first", "second"))
    text = words_of(page)
    for words in (
        "CPM first 0.438 0.30 to 0.60 mean of 0.125 to 4 FPPI second 0.688",
        "all lesions first 0.250",
        "all lesions second 0.250",
        "second against first",
        "box AP50 0.710 0.740 +0.030 \u22120.02 to 0.08 0.210",
        "CPM 0.438 0.688 +0.250 0.04 to 0.35 < 0.001",
        "Pictures: first",
        "Pictures: second",
    ):
        assert words in text
    assert page.count("data:image/jpeg;base64,") == 4 + 4


def test_report_of_one_model_does_not_repeat_its_name(tmp_path):
    text = words_of(report(tmp_path))
    assert "model lesions" not in text
    assert "all lesions 0.250" in text
    assert "Pictures: first" not in text


def test_report_tells_overrides_and_leakage_loudly(tmp_path):
    assert 'class="alarm"' not in report(tmp_path)
    metrics = metrics_value()
    metrics["protocol"]["overrides"] = ["--allow-leakage"]
    metrics["models"][0]["protocol"]["patients_seen_in_training"] = 2
    page = report(tmp_path, metrics=metrics_of(metrics))
    alarm = page[page.index('<div class="alarm" role="alert">') :].split("</div>")[0]
    assert "Override: --allow-leakage" in alarm
    assert "first: 2 of these patients were in training" in alarm
    assert page.index('class="alarm"') < page.index('class="stamp panel"')
    metrics["models"][0]["not_a_result"] = "trained on copies"
    assert "first (NOT A RESULT) finds" in words_of(report(tmp_path, metrics=metrics_of(metrics)))


def test_report_gallery_follows_the_match_rule_of_the_metrics(tmp_path):
    dataset = Dataset(("mass",), (record(1, square(20, 20, 40, 40), spacing_mm_rc=(0.5, 0.1)),))
    inside = [[prediction(1, ((28, 28, 32, 32), 0.8), tumor=0.9)]]  # IoU 16/400, its centre in the lesion
    metrics = metrics_value()
    text = words_of(report(tmp_path, dataset=dataset, predictions=inside))
    assert "1 of 1 images with a missed lesion (1 of 1 lesions)" in text
    assert "2.0 x 10.0 mm nothing there" in text
    metrics["protocol"]["match"] = "center"
    text = words_of(report(tmp_path, dataset=dataset, predictions=inside, metrics=metrics_of(metrics)))
    assert "No lesion was missed at this score." in text
    assert "1 of 1 images on which every lesion was found" in text
    assert "under the rule center." in text


def test_report_gallery_follows_how_the_metrics_count_second_detections(tmp_path):
    dataset = Dataset(("mass",), (record(1, square(20, 20, 40, 40)),))
    found = [[prediction(1, (TARGET, 0.9), ((21, 21, 41, 41), 0.8), tumor=0.9)]]
    metrics = metrics_value()
    page = report(tmp_path, dataset=dataset, predictions=found)
    assert "second detection of a found lesion, with score 0.80" in page
    assert "1 of 1 images whose only fault of boxes is a second detection" in words_of(page)
    assert "No image has a false positive alone" in page
    metrics["protocol"]["duplicates"] = "ignored"
    page = report(tmp_path, dataset=dataset, predictions=found, metrics=metrics_of(metrics))
    assert "second detection of a found lesion, with" not in page


def test_report_lists_every_missed_lesion_beyond_the_pictures(tmp_path):
    images = tuple(record(i, square(20, 20, 40, 40)) for i in range(9))
    found = [prediction(i, (TARGET, 0.2), tumor=0.9) for i in range(9)]
    page = report(tmp_path, dataset=Dataset(("mass",), images), predictions=[found], gallery_size=4)
    assert page.count("data:image/jpeg;base64,") == 4
    assert "4 of 9 images with a missed lesion (9 of 9 lesions)" in words_of(page)
    assert words_of(page).count("20 x 20 px 0.200") == 9


def test_report_reads_the_images_of_the_gallery_only(tmp_path):
    images = tuple(record(i) for i in range(40))
    found = [prediction(i, tumor=0.9 if i % 2 else 0.1) for i in range(40)]
    read = []

    def reader(item):
        read.append(item.image_id)
        return read_grey(item)

    dataset = Dataset(("mass",), images)
    report(tmp_path, dataset=dataset, predictions=[found], image_reader=reader, gallery_size=8)
    assert len(read) == 8
    assert sum(i % 2 == 0 for i in read) == 2


def test_report_of_a_model_of_which_nothing_was_measured_explains_itself(tmp_path):
    metrics = metrics_of({**metrics_value(), "models": [bare_model()]})
    empty = Dataset(("mass",), ())
    text = words_of(report(tmp_path, dataset=empty, predictions=[[]], metrics=metrics))
    for words in (
        "no curve",
        "No operating points",
        "No label was scored",
        "No figures by stratum",
        "agreement of masks was not measured",
        "No training log was given",
        "no predictions to compare",
        "command was not recorded",
        "Not a medical device",
    ):
        assert words in text
    page = report(tmp_path, dataset=empty, predictions=[[]], history_csv=tmp_path / "missing.csv")
    assert "could not be read" in page


def test_report_answers_first_and_ends_with_protocol_and_hashes(tmp_path):
    page = report(tmp_path, command="again")
    places = ("17 images of 12 patients", "lesion sensitivity at 1 FPPI", "FROC curves", "<h2>Strata", "<h2>Pictures")
    found = [page.index(words) for words in (*places, "<h2>Protocol", "ab" * 32, "<code>again", "<h2>Words")]
    assert found == sorted(found)


def test_report_links_images_and_figures_to_their_cases_and_explains_words_on_hover(tmp_path):
    metrics = metrics_value()
    metrics["models"][0]["strata"][0].update(variable="density", value="C")
    page = report(tmp_path, metrics=metrics_of(metrics))
    links = [attributes for tag, attributes in Checker(page).tags if tag == "a"]
    assert all(link["href"] == "#cases" for link in links)
    wanted = {link["data-cases"] for link in links}
    assert {
        "image=e.png&threshold=0.30",
        "cases=pictures&of=missed&threshold=0.3",
        "cases=images&variable=density&value=C",
        "cases=lesions&variable=density&value=C&fppi=1",
        "cases=lesions&category=mass&fppi=0.125",
        "cases=scores&level=breast&label=tumor&call=fp&threshold=0.31",
    } <= wanted
    hostile = "image=%3Cscript%3Ealert%281%29%3C%2Fscript%3E.png&threshold=0.30"
    assert hostile in wanted
    assert f"<pre><code>mammodet view {tmp_path}</code></pre>" in page
    titles = {attributes["title"].split(":")[0] for tag, attributes in Checker(page).tags if tag == "abbr"}
    assert {"CPM", "ROC AUC"} <= titles
    assert "finds" in words_of(page).split("lesion sensitivity")[0]


def test_report_survives_an_image_that_cannot_be_read(tmp_path):
    def reader(item):
        raise InputError(f"{item.file_name}: no such file")

    page = report(tmp_path, image_reader=reader)
    assert "e.png: no such file" in page


def test_report_of_noise_in_two_models_stays_below_6_megabytes(tmp_path):
    size = (900, 700)
    noise = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    images = tuple(record(i, size_hw=size) for i in range(16))
    found = [prediction(i, tumor=0.9, size_hw=size) for i in range(16)]
    report(
        tmp_path,
        dataset=Dataset(("mass",), images),
        predictions=[found, found],
        metrics=small_metrics("a", "b"),
        image_reader=lambda item: noise,
    )
    assert (tmp_path / "r.html").stat().st_size < 6_000_000


def test_headline_takes_a_label_that_can_be_scored():
    def model(**aucs):
        value = metrics_value()
        label = value["models"][0]["image"]["tumor"]
        value["models"][0]["image"] = {name: {**label, "roc_auc": figure(auc)} for name, auc in aucs.items()}
        return metrics_of(value).models[0]

    assert headline_label([model(tumor=None, malignant=0.7)]) == "malignant"
    assert headline_label([model(malignant=0.7, tumor=0.6)]) == "tumor"
    assert headline_label([model(tumor=None)]) == "tumor"
    assert headline_label([model()]) == "tumor"
