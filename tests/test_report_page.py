"""The report as one HTML file."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
from small_metrics import HOSTILE, small_metrics, without

from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_box
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion
from mammodet.reporting import report_tables as tables
from mammodet.reporting.html import headline_label, write_report
from mammodet.reporting.report_values import models_of

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
    values = {"title": "t", "dataset": small_dataset(), "models": [], "metrics": {}, "image_reader": read_grey}
    write_report(folder / "r.html", **{**values, **changes})
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
    metrics = small_metrics(HOSTILE)
    metrics["notes"] = [f"masks are circles {HOSTILE}"]
    metrics["protocol"].update(ground_truth=HOSTILE, overrides=[HOSTILE], versions={HOSTILE: HOSTILE})
    metrics["models"][0]["strata"][0].update(variable=HOSTILE, value=HOSTILE)
    metrics["models"][0]["image"] = {HOSTILE: metrics["models"][0]["image"]["tumor"]}
    page = report(
        tmp_path,
        title=f"T {HOSTILE}",
        models=[(HOSTILE, small_predictions())],
        metrics=metrics,
        history_csv=history,
        command=f"tool --x '{HOSTILE}'",
    )
    tags = Checker(page).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert "Größe_中文.png" in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert list(tmp_path.glob(".*")) == []


def test_report_shows_the_figures_with_their_intervals(tmp_path):
    text = words_of(report(tmp_path, models=[("first", small_predictions())], metrics=small_metrics()))
    for words in (
        "lesion sensitivity at 1 FPPI 0.625 0.41 to 0.80",
        "box AP50 0.710 0.61 to 0.79",
        "image ROC AUC, tumor 0.900 0.71 to 0.98 3 positive, 4 negative",
        "match iou@0.2; denominator all images; second detections false positive",
        "mass only 0.250 0.10 to 0.40",
        "iou@0.2 (this report) all images 4",
        "center all images 4 0.250 0.10 to 0.40 0.625 0.41 to 0.80 \u2013 0.777",
        "under 10 mm 12 0.345 0.20 to 0.50",
        "A 9 20 0.750 0.610",
        "image noisy_or 0.860",
        "image sensitivity@0.9 0.310 1.000 3 0",
        "image calibrated 0.100 0.020 0.300",
        "found lesion \u2013 30 3 0.812 0.70 to 0.90 3.46",
        "mammodet 9.8.7",
        "FPPI:",
    ):
        assert words in text


def test_report_of_two_models_shows_them_side_by_side(tmp_path):
    models = [("first", small_predictions()), ("second", [prediction(2, (TARGET, 0.8))])]
    page = report(tmp_path, models=models, metrics=small_metrics("first", "second"))
    text = words_of(page)
    for words in (
        "CPM first 0.438 0.30 to 0.60 mean of 0.125 to 4 FPPI second 0.688",
        "all lesions first 0.250",
        "all lesions second 0.250",
        "second against first",
        "box AP50 0.710 0.740 +0.030 \u22120.02 to 0.08 0.210",
        "CPM 0.438 0.688 +0.250 0.04 to 0.35 < 0.001",
        "image, tumor: ROC AUC 0.900 \u2013 \u2013 \u2013",
        "second: 3 of 4 images have no prediction",
        "Pictures: first",
        "Pictures: second",
    ):
        assert words in text
    assert page.count("data:image/jpeg;base64,") == 4 + 1


def test_report_of_one_model_does_not_repeat_its_name(tmp_path):
    text = words_of(report(tmp_path, models=[("first", small_predictions())], metrics=small_metrics()))
    assert "model lesions" not in text
    assert "all lesions 0.250" in text
    assert "Pictures: first" not in text


def test_report_tells_overrides_and_leakage_loudly(tmp_path):
    assert 'class="alarm"' not in report(tmp_path, metrics=small_metrics())
    metrics = small_metrics()
    metrics["protocol"]["overrides"] = ["--allow-leakage"]
    metrics["models"][0]["protocol"]["patients_seen_in_training"] = 2
    page = report(tmp_path, metrics=metrics)
    alarm = page[page.index('<div class="alarm" role="alert">') :].split("</div>")[0]
    assert "Override: --allow-leakage" in alarm
    assert "first: 2 of these patients were seen in training" in alarm
    assert page.index('class="alarm"') < page.index('class="stamp panel"')


def test_report_gallery_follows_the_match_rule_of_the_metrics(tmp_path):
    dataset = Dataset(("mass",), (record(1, square(20, 20, 40, 40), spacing_mm_rc=(0.5, 0.1)),))
    inside = [("a", [prediction(1, ((28, 28, 32, 32), 0.8), tumor=0.9)])]  # IoU 16/400, its centre in the lesion
    metrics = small_metrics()
    text = words_of(report(tmp_path, dataset=dataset, models=inside, metrics=metrics))
    assert "1 of 1 images with a missed lesion (1 of 1 lesions)" in text
    assert "2.0 x 10.0 mm nothing there" in text
    metrics["protocol"]["match"] = "center"
    text = words_of(report(tmp_path, dataset=dataset, models=inside, metrics=metrics))
    assert "No lesion was missed at this score." in text
    assert "1 of 1 images on which every lesion was found" in text
    assert "under the rule center." in text
    metrics["protocol"]["match"] = "nearest"
    text = words_of(report(tmp_path, dataset=dataset, models=inside, metrics=metrics))
    assert "under the rule iou@0.2 (the metrics name no rule that pictures can follow)" in text


def test_report_gallery_follows_how_the_metrics_count_second_detections(tmp_path):
    dataset = Dataset(("mass",), (record(1, square(20, 20, 40, 40)),))
    models = [("a", [prediction(1, (TARGET, 0.9), ((21, 21, 41, 41), 0.8), tumor=0.9)])]
    metrics = small_metrics()
    assert "second detection of one lesion" in report(tmp_path, dataset=dataset, models=models, metrics=metrics)
    metrics["protocol"]["duplicates"] = "ignored"
    assert "second detection of one" not in report(tmp_path, dataset=dataset, models=models, metrics=metrics)


def test_report_lists_every_missed_lesion_beyond_the_pictures(tmp_path):
    images = tuple(record(i, square(20, 20, 40, 40)) for i in range(9))
    found = [prediction(i, (TARGET, 0.2), tumor=0.9) for i in range(9)]
    page = report(tmp_path, dataset=Dataset(("mass",), images), models=[("a", found)], gallery_size=4)
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

    report(tmp_path, dataset=Dataset(("mass",), images), models=[("a", found)], image_reader=reader, gallery_size=8)
    assert len(read) == 8
    assert sum(i % 2 == 0 for i in read) == 2


def test_report_without_predictions_metrics_or_lesions_explains_itself(tmp_path):
    dataset = Dataset(("mass",), (record(1), record(2)))
    text = words_of(report(tmp_path, dataset=dataset, models=[("a", [])]))
    for words in (
        "carry no protocol",
        "not measured",
        "no curve",
        "No operating points",
        "No label was scored",
        "No figures by stratum",
        "agreement of masks was not measured",
        "No training log was given",
        "no predictions to compare",
        "2 of 2 images have no prediction",
        "The metrics hold no model",
        "command was not recorded",
        "Not a medical device",
    ):
        assert words in text
    assert "no predictions to compare" in words_of(report(tmp_path, dataset=dataset))


def test_report_survives_whatever_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodet.reporting.html.to_svg", lambda figure: "<svg></svg>")  # drawn, but not written out
    empty = Dataset(("mass",), ())
    for metrics in without(small_metrics("first", "second"))[::20]:
        Checker(report(tmp_path, dataset=empty, metrics=metrics))
    nothing = dict.fromkeys(("protocol", "notes", "models", "comparisons"))
    page = report(tmp_path, dataset=empty, metrics=nothing, history_csv=tmp_path / "missing.csv")
    assert "could not be read" in page


def test_tables_survive_whatever_is_missing():
    for metrics in without(small_metrics("first", "second")):
        models = models_of(metrics)
        found = [
            tables.headline_table(metrics, 0),
            *tables.strata_tables(models),
            *(one for pair in tables.comparison_tables(metrics) for one in pair),
        ]
        for make in (
            tables.average_precision_table,
            tables.size_table,
            tables.sensitivity_table,
            tables.other_rules_table,
            tables.mask_table,
        ):
            found.append(make(models))
        for make in (
            tables.level_table,
            tables.operating_table,
            tables.aggregation_table,
            tables.calibration_table,
        ):
            found.append(make(models, "tumor"))
        for table in found:
            assert all(len(names) == len(table.corner) for names, _ in table.rows)
            assert all(len(cells) == len(table.head) for _, cells in table.rows)


def test_report_survives_an_image_that_cannot_be_read(tmp_path):
    def reader(item):
        raise InputError(f"{item.file_name}: no such file")

    page = report(tmp_path, models=[("a", small_predictions())], image_reader=reader)
    assert "e.png: no such file" in page


def test_report_of_noise_in_two_models_stays_below_6_megabytes(tmp_path):
    size = (900, 700)
    noise = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    images = tuple(record(i, size_hw=size) for i in range(16))
    found = [prediction(i, tumor=0.9, size_hw=size) for i in range(16)]
    models = [("a", found), ("b", found)]
    report(tmp_path, dataset=Dataset(("mass",), images), models=models, image_reader=lambda item: noise)
    assert (tmp_path / "r.html").stat().st_size < 6_000_000


def test_headline_takes_a_label_that_can_be_scored():
    def model(**aucs):
        return ("one", {"image": {label: {"roc_auc": value} for label, value in aucs.items()}})

    assert headline_label([model(tumor=None, malignant=0.7)]) == "malignant"
    assert headline_label([model(malignant=0.7, tumor=0.6)]) == "tumor"
    assert headline_label([model(tumor=None)]) == "tumor"
    assert headline_label([("one", {"image": None})]) == "tumor"
