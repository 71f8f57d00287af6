"""Classes in figures, tables, report and model card; and classifiers, which have no boxes to report on."""

from __future__ import annotations

import copy
import csv

import numpy as np
import pytest
from PIL import Image
from small_metrics import HOSTILE, LABEL, MODEL, UNDEFINED, figure, metrics_value
from small_metrics import metrics_of as made

from mammodet.data.coco import read_coco
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import NO_BOXES, read_metrics
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord
from mammodet.reporting import curves
from mammodet.reporting import report_tables as tables
from mammodet.reporting.answers import judge_answer
from mammodet.reporting.card import known_limits, model_card
from mammodet.reporting.confusion import confusion_figure
from mammodet.reporting.curve_files import figures_of, write_curves
from mammodet.reporting.evaluation_files import evaluate_files
from mammodet.reporting.gallery import write_overlays
from mammodet.reporting.html import write_report
from mammodet.reporting.overlay import OverlayOptions, prediction_text

DENSITY = {
    "n": 12, "n_without_truth": 0, "n_without_answer": 0, "classes": ["A", "B"], "true_classes": ["A", "B", "C"],
    "ordered": True, "confusion": [[5, 1], [0, 2], [1, 3]],
    "accuracy": figure(0.583, 0.31, 0.82), "balanced_accuracy": figure(0.611), "kappa": figure(0.345),
    "quadratic_kappa": figure(0.456), "macro_precision": figure(0.389), "macro_f1": figure(0.478),
    "macro_roc_auc": figure(0.765), "log_loss": UNDEFINED,
    "per_class": [
        {"name": "A", "support": 6, "predicted": 6, "precision": figure(0.833), "recall": figure(0.833),
         "f1": figure(0.833), "roc_auc": figure(0.9)},
        {"name": "B", "support": 2, "predicted": 6, "precision": figure(0.333), "recall": figure(1.0, 0.71, 0.98),
         "f1": figure(0.5), "roc_auc": figure(0.63)},
        {"name": "C", "support": 4, "predicted": None, "precision": UNDEFINED, "recall": figure(0.0),
         "f1": figure(0.0), "roc_auc": UNDEFINED},
    ],
}  # fmt: skip


def classifier(name="net", **more):
    """A classifier's part of the metrics."""
    return {
        "name": name, "kind": "classifier", "notes": [NO_BOXES], "image": {"tumor": copy.deepcopy(LABEL)},
        "classes": {"density": copy.deepcopy(DENSITY)}, **more,
    }  # fmt: skip


def metrics_of(*models, **more):
    value = metrics_value()
    protocol = {**value["protocol"], "match": None, "denominator": None, "duplicates": None}
    return made({**value, "protocol": protocol, "notes": [], "models": list(models), **more})


def question(**changes):
    """Figures of a question, of which a drawing takes the classes and the counts."""
    return metrics_of(classifier(classes={"q": {**DENSITY, **changes}})).models[0].classes["q"]


def words_of(svg):
    return " ".join(svg.replace("<", "\n<").split())


def test_confusion_figure_shows_counts_shares_and_unknown_classes():
    svg = curves.to_svg(confusion_figure(question(), "density"))
    for words in (
        ">5<",
        ">83 %<",
        ">17 %<",
        ">0 %<",
        ">75 %<",
        "C, not known",
        "6 images",
        "predicted class",
        "true class",
    ):
        assert words in svg
    figure = confusion_figure(question(), "density")
    [axes] = figure.axes
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == ["A", "B", "C, not known"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    # the first row stands on top, and its colours follow its shares
    assert axes.get_ylim() == (2.5, -0.5)
    assert axes.collections[0].get_array().ravel().tolist() == pytest.approx([5 / 6, 1 / 6, 0, 1, 0.25, 0.75])


def test_confusion_figure_of_a_row_without_images_has_no_share():
    names = ["no", "yes"]
    figure = confusion_figure(question(classes=names, true_classes=names, confusion=[[5, 1], [0, 0]]), "q")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("0") == texts.count("\u2013") == 2


def test_a_small_share_is_not_zero():
    found = question(classes=["a", "b"], true_classes=["a", "b"], confusion=[[999, 1], [0, 7]])
    texts = [text.get_text() for text in confusion_figure(found, "q").axes[0].texts]
    assert "< 1 %" in texts


@pytest.mark.parametrize("count", [2, 12])
def test_every_cell_of_a_matrix_is_inside_of_its_figure(count):
    names = [f"Density{number}Malignant" for number in range(count)]
    counts = (np.eye(count, dtype=int) * 1234).tolist()
    figure = confusion_figure(question(classes=names, true_classes=names, confusion=counts), "class")
    figure.canvas.draw()
    [axes] = figure.axes
    inside = figure.bbox.padded(1)
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts, axes.xaxis.label, axes.yaxis.label]:
        box = text.get_window_extent()
        assert inside.contains(box.x0, box.y0), text
        assert inside.contains(box.x1, box.y1), text
    cell = axes.transData.transform([[0, 0], [1, 0]])
    widest = max(text.get_window_extent().width for text in axes.texts if text.get_text() == "1234")
    assert widest < cell[1, 0] - cell[0, 0]


def test_written_confusions_hold_the_counts(tmp_path):
    paths = write_curves(tmp_path, metrics_of(classifier("one"), classifier("two")).models)
    assert sorted(path.name for path in paths if path.name.startswith("confusion")) == [
        "confusion_density.csv", "confusion_density_1.png", "confusion_density_1.svg", "confusion_density_2.png",
        "confusion_density_2.svg",
    ]  # fmt: skip
    with open(tmp_path / "confusion_density.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [
        ["model", "true", "predicted", "count", "share_of_true"], ["one", "A", "A", "5", str(5 / 6)],
        ["one", "A", "B", "1", str(1 / 6)],
    ]  # fmt: skip
    assert rows[-1] == ["two", "C", "B", "3", "0.75"]
    assert Image.open(tmp_path / "confusion_density_1.png").width > 500


def test_confusion_of_hostile_names_is_escaped_and_stays_in_its_folder(tmp_path):
    section = {**DENSITY, "classes": [HOSTILE, "\x00"], "true_classes": [HOSTILE, "\x00", "\u4e2d"]}
    metrics = metrics_of(classifier(HOSTILE, classes={f"../{HOSTILE}": section}))
    paths = write_curves(tmp_path / "deep", metrics.models)
    [path] = [path for path in paths if path.suffix == ".svg" and path.name.startswith("confusion")]
    assert path.parent == tmp_path / "deep"
    assert "<script" not in path.read_text(encoding="utf-8")


def test_curves_of_classifiers_alone_have_no_froc():
    assert "froc" not in figures_of(metrics_of(classifier()).models)
    assert "froc" in figures_of(metrics_of(classifier(), MODEL).models)


def record(number, *, density=None, tumor=None):
    return ImageRecord(number, f"{number}.png", (40, 30), density=density, labels={"tumor": tumor})


def answer(number, tumor, **density):
    empty = Detections.empty(with_masks=False)
    scores = {} if tumor is None else {"tumor": tumor}
    return ImagePrediction(number, f"{number}.png", (40, 30), scores, empty, class_scores={"density": density})


def page_of(folder, metrics, predictions=None):
    images = (record(1, density="A", tumor=1), record(2, density="B", tumor=0), record(3))
    write_report(
        folder / "r.html", title="t", dataset=Dataset(("mass",), images), metrics=metrics,
        predictions=predictions or [[answer(n, n / 4, A=1.0) for n in (1, 2, 3)]] * len(metrics.models),
        image_reader=lambda item: np.full(item.size_hw, 60, dtype=np.uint8),
    )  # fmt: skip
    return (folder / "r.html").read_text(encoding="utf-8")


def test_report_of_a_classifier_shows_classes_and_no_boxes(tmp_path):
    found = [answer(1, 0.9, A=0.2, B=0.8), answer(2, 0.1, A=0.3, B=0.7), answer(3, 0.5, A=0.5, B=0.5)]
    page = page_of(tmp_path, metrics_of(classifier()), [found])
    for words in (
        NO_BOXES, "balanced accuracy", "density: balanced accuracy", "C (not known to the model)", "0.71 to 0.98",
        "confusion matrix, density", "Wrong answers", "Right answers",
        "density is A, predicted B 0.80, A 0.20", "every answer is right", "ground truth: tumor 1 \u00b7 density A",
        "prediction: tumor 0.90 \u00b7 density B (0.80)", "2 images were judged",
    ):  # fmt: skip
        assert words in page
    text = page[page.index("<body>") :]
    for words in (
        "CPM</div>",
        "box AP50</div>",
        "FROC curves",
        "Missed lesions",
        "no detection",
        "Where the lesions are",
    ):
        assert words not in text


def test_report_of_a_classifier_beside_a_detector_keeps_boxes_for_the_detector(tmp_path):
    page = page_of(tmp_path, made({**metrics_value(), "models": [classifier("net"), {**MODEL, "name": "boxes"}]}))
    tile = page[page.index(">CPM</abbr></div>") :].split("tile panel")[0]
    assert "boxes" in tile
    assert "net" not in tile
    assert "FROC curves" in page


def test_report_and_figures_that_are_no_result_say_so(tmp_path):
    metrics = metrics_of(classifier("bad", not_a_result="trained on copies"), classifier("good"))
    page = page_of(tmp_path, metrics)
    assert '<div class="void">NOT A RESULT: bad</div>' in page
    assert "bad: NOT A RESULT: trained on copies." in page
    assert "bad (NOT A RESULT)" in page
    assert "good (NOT A RESULT)" not in page
    figures = figures_of(metrics.models)
    assert ["NOT A RESULT" in curves.to_svg(figures[f"confusion_density_{n}"]) for n in (1, 2)] == [True, False]
    assert all("NOT A RESULT" in curves.to_svg(figures[name]) for name in ("roc_tumor", "reliability_tumor"))
    card = model_card(metrics, 0)
    assert "# Model card: bad: NOT A RESULT\n" in card
    assert "## Headline figures: NOT A RESULT\n" in card
    assert "NOT A RESULT" not in model_card(metrics, 1)
    assert "NOT A RESULT" not in page_of(tmp_path, metrics_of(classifier()))


def test_a_comparison_with_what_is_no_result_says_so():
    row = {"first": 0.5, "second": 0.75, "difference": figure(0.25), "p": None, "place": "screen"}
    pairs = [{"first": "bad", "second": "good", "differences": [{"figure": "density: accuracy", **row}]}]
    metrics = metrics_of(classifier("bad", not_a_result="x"), classifier("good"), comparisons=pairs)
    [(quoted, _)] = tables.comparison_tables(metrics)
    assert quoted.title == "good against bad: NOT A RESULT"
    assert quoted.rows[0][0] == ("density: accuracy",)


def test_model_card_of_a_classifier_tells_its_classes_and_misses_no_boxes():
    card = model_card(metrics_of(classifier()))
    for words in (
        "| density: accuracy | 0.583 | 0.31 to 0.82 | 12 images |", "| density: quadratic kappa | 0.456 |", NO_BOXES,
        "Few images of these classes of density: A (6), B (2), C (4).",
    ):  # fmt: skip
        assert words in card
    metrics = metrics_of(classifier())
    limits = " ".join(known_limits(metrics, metrics.models[0]))
    for words in ("box AP", "mask AP", "without a place", "agreement of masks"):
        assert words not in limits


@pytest.mark.parametrize(
    ("truth", "given", "kind", "error", "reason"),
    [
        (record(1, density="A", tumor=1), answer(1, 0.9, A=0.75, B=0.25), "clean", 0.25, "every answer is right"),
        (record(1, tumor=1), answer(1, 0.25, A=1.0), "image label", 0.75, "tumor is 1, predicted 0.25"),
        (record(1, density="C"), answer(1, None, A=0.75, B=0.25), "image label", 1.0,
         "density is C, predicted A 0.75, which does not know the true one"),
        (record(1), answer(1, 0.9, A=1.0), "not judged", 0.0, "nothing on it that can be compared"),
        # equal ones: the first on the scale, whatever the order in the file
        (record(1, density="A"), answer(1, None, B=0.5, A=0.5), "clean", 0.5, "every answer is right"),
    ],
)  # fmt: skip
def test_answers_are_judged_without_boxes(truth, given, kind, error, reason):
    verdict = judge_answer(truth, given)
    assert (verdict.kind, verdict.error, verdict.reason) == (kind, pytest.approx(error), reason)
    assert verdict.missed == ()


@pytest.fixture
def write(phantom_root, tmp_path):
    """Writes a classifier's predictions for the validation set and answers their path."""

    def write(**model):
        dataset = read_coco(phantom_root / "val.json")
        classes = sorted({str(one.density) for one in dataset.images} | {"F", "G", "D"})
        images = tuple(
            ImagePrediction(
                one.image_id, one.file_name, one.size_hw, {"tumor": 0.25}, Detections.empty(with_masks=False),
                class_scores={"density": {name: 0.5 if name == "F" else 0.5 / (len(classes) - 1) for name in classes}},
            )
            for one in dataset.images
        )  # fmt: skip
        path = tmp_path / "predictions.json"
        known = {"kind": "classifier", "patients": ["someone else"], "unknown_patients": 0, "checkpoint_sha256": "ab"}
        write_predictions(Predictions(images, dataset.categories, {**known, **model}), path)
        return path

    return write


def run(phantom_root, predictions, output, **more):
    options = {"options": Options(resamples=0), "progress": False, **more}
    return evaluate_files(phantom_root / "val.json", [predictions], output, **options)


def test_evaluate_files_of_a_classifier_writes_classes_and_no_lesions(phantom_root, write, tmp_path, capsys):
    config = {"model": {"classifier": {"network": "resnet18"}}, "data": {"image": {"max_size": 224}}}
    metrics = run(phantom_root, write(config=config), tmp_path / "eval")
    assert read_metrics(tmp_path / "eval" / "metrics.json") == metrics
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == [
        "curves", "images.csv", "metrics.json", "model_card.md", "report.html",
    ]  # fmt: skip
    names = {path.name for path in (tmp_path / "eval" / "curves").iterdir()}
    assert {"confusion_density.csv", "confusion_density.png", "confusion_density.svg", "roc_tumor.svg"} <= names
    assert not [name for name in names if name.startswith("froc")]
    assert metrics.models[0].protocol.architecture == "classifier, resnet18, 224 px"
    with open(tmp_path / "eval" / "images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["true density"] == row["predicted density"] == "F" for row in rows)
    assert {row["probability of predicted density"] for row in rows} == {"0.5"}
    assert metrics.models[0].classes["density"].accuracy.value == pytest.approx(right / len(rows))
    assert NO_BOXES in capsys.readouterr().out


def test_confusions_of_an_earlier_evaluation_do_not_stay(phantom_root, write, tmp_path):
    run(phantom_root, write(), tmp_path / "eval")
    run(phantom_root, write(), tmp_path / "eval", report=False)
    assert list((tmp_path / "eval" / "curves").iterdir()) == []


def test_evaluate_files_refuses_an_unsafe_split_and_stamps_it(phantom_root, write, tmp_path, capsys):
    predictions = write(config={"data": {"unsafe_split": "rotated_copies"}})
    with pytest.raises(InputError, match=r"unsafe split \(rotated_copies\)[^$]*--allow unsafe_split"):
        run(phantom_root, predictions, tmp_path / "eval")
    metrics = run(phantom_root, predictions, tmp_path / "eval", allow=["unsafe_split"])
    assert "rotated_copies" in metrics.models[0].not_a_result
    assert metrics.protocol.overrides[0].startswith("NOT A RESULT")
    for name in ("report.html", "model_card.md", "curves/confusion_density.svg", "curves/roc_tumor.svg"):
        assert "NOT A RESULT" in (tmp_path / "eval" / name).read_text(encoding="utf-8")
    figures = [line for line in capsys.readouterr().out.splitlines() if "AUC" in line or "accuracy" in line]
    assert len(figures) > 2
    assert all(line.endswith("NOT A RESULT") for line in figures)


def test_evaluate_files_names_the_folds(phantom_root, write, tmp_path):
    names = [one.file_name for one in read_coco(phantom_root / "val.json").images]
    folds = [
        {
            "fold": number,
            "checkpoint_sha256": f"{number}" * 64,
            "patients": ["someone else"],
            "unknown_patients": 0,
            "images": part,
        }
        for number, part in enumerate((names[::2], names[1::2]))
    ]
    metrics = run(phantom_root, write(patients=None, folds=folds), tmp_path / "eval", report=False)
    facts = metrics.models[0].protocol
    assert facts.folds.startswith("2, each image predicted by the one that had not seen it: 0 (000000000000), 1 (1")
    assert facts.patients_seen_in_training == 0


def test_evaluate_files_refuses_an_unknown_kind_of_model(phantom_root, write, tmp_path):
    with pytest.raises(InputError, match="the kind of its model is 'segmenter'; expected detector or classifier"):
        run(phantom_root, write(kind="segmenter"), tmp_path / "eval")


def test_pictures_of_a_classifier_show_answers_and_no_detections(tmp_path):
    record = ImageRecord(1, "1.png", (40, 40), density="C", labels={"tumor": 1})
    found = Detections.empty(with_masks=False)
    one = ImagePrediction(
        1, "1.png", (40, 40), {"tumor": 0.25}, found, class_scores={"density": {"B": 0.375, "C": 0.625}}
    )
    options = OverlayOptions(detects=False)
    assert prediction_text(one, options) == "prediction: tumor 0.25 · density C (0.62)"
    assert "no detection" in prediction_text(one)
    write_overlays(
        Dataset(("lesion",), (record,)),
        {1: one},
        lambda _: np.zeros((40, 40), np.uint8),
        tmp_path,
        detects=False,
        progress=False,
    )
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "tumor is 1, predicted 0.25" in page
    assert "Detections from score" not in page
