"""Curves as figures and as files."""

from __future__ import annotations

import csv

import pytest
from PIL import Image
from small_metrics import HOSTILE, UNDEFINED, bare_model, metrics_of, metrics_value, small_metrics

from mammodet.reporting import curves
from mammodet.reporting.curve_files import figures_of, write_curves
from mammodet.reporting.report_training import curves_figure, read_history, training_section

ONE = small_metrics().models
TWO = small_metrics("first", "second").models
HISTORY = (
    "epoch,step,train/loss,val/bbox_AP50,val/image_auc_tumor,lr-AdamW\n"
    "0,9,1.5,,,\n0,9,,,,0.001\n0,9,,-1,0.5,\n1,19,nan,,,\n1,19,oops,0.4,0.7,\n"
)


def test_froc_figure_names_its_denominator_and_match_rule():
    svg = curves.to_svg(curves.froc_figure(ONE))
    assert svg.startswith("<svg")
    for words in ("false positives per image (all images)", "iou@0.2", "CPM 0.438", "95 % interval", "currentColor"):
        assert words in svg
    assert curves.INK not in svg


@pytest.mark.parametrize("figure", [curves.froc_figure, curves.roc_figure, curves.pr_figure])
def test_empty_curves_say_so(figure):
    assert "no curve" in curves.to_svg(figure(metrics_of({**metrics_value(), "models": [bare_model()]}).models))


def test_a_froc_that_is_not_defined_says_so():
    value = metrics_value()
    froc = value["models"][0]["froc"]
    froc.update(cpm=UNDEFINED, band=None, points=[{"fppi": 1, "sensitivity": UNDEFINED}])
    assert "no curve" in curves.to_svg(curves.froc_figure(metrics_of(value).models))


def test_single_point_says_so_and_png_is_png():
    value = metrics_value()
    value["models"][0]["froc"]["curve"] = {"fppi": [0.5], "sensitivity": [0.5], "threshold": [0.9]}
    figure = curves.froc_figure(metrics_of(value).models)
    assert "a single operating point" in curves.to_svg(figure)
    assert curves.to_png(figure, dpi=40)[:4] == b"\x89PNG"


def test_figures_of_one_model_count_both_classes_and_colour_levels():
    roc = curves.to_svg(curves.roc_figure(ONE))
    assert "image: AUC 0.900 (3 pos., 4 neg.)" in roc
    assert "patient: AUC 0.920" in roc
    assert "first" not in roc
    assert "area 0.800" in curves.to_svg(curves.pr_figure(ONE))
    assert "image, calibrated: ECE 0.020" in curves.to_svg(curves.reliability_figure(ONE))
    lines = [line for line in curves.roc_figure(ONE).axes[0].lines if not line.get_label().startswith("_")]
    assert [line.get_color() for line in lines] == list(curves.COLOURS[:3])


def test_figures_of_two_models_have_a_colour_per_model_and_a_line_per_level():
    lines = [line for line in curves.roc_figure(TWO).axes[0].lines if not line.get_label().startswith("_")]
    first, second = curves.COLOURS[:2]
    assert [line.get_label().split(":")[0] for line in lines[2:4]] == ["first, patient", "second, image"]
    assert [line.get_color() for line in lines] == [first] * 3 + [second] * 3
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-."] * 2
    froc = curves.to_svg(curves.froc_figure(TWO))
    assert "first: CPM 0.438" in froc
    assert "second: CPM 0.688" in froc


def test_figures_are_the_same_text_twice():
    assert curves.to_svg(curves.froc_figure(TWO)) == curves.to_svg(curves.froc_figure(TWO))


def test_figure_of_hostile_names_is_escaped():
    hostile = metrics_value(HOSTILE, "模型\n\x00")
    hostile["models"][0]["image"] = {HOSTILE: hostile["models"][0]["image"]["tumor"]}
    figures = figures_of(metrics_of(hostile).models)
    assert all("<script" not in curves.to_svg(figure) for figure in figures.values())
    assert "&lt;script&gt;" in curves.to_svg(figures["froc"])


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_written_curves_hold_the_numbers_of_the_metrics(tmp_path):
    paths = write_curves(tmp_path / "new", TWO)
    names = {path.name for path in paths}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    rows = [["0.0", "0.1", ""], ["0.5", "0.5", "0.5"], ["2.0", "0.9", "0.1"]]
    assert read(tmp_path / "new" / "froc.csv") == [
        ["model", "fppi", "sensitivity", "threshold"],
        *([name, *row] for name in ("first", "second") for row in rows),
    ]
    assert read(tmp_path / "new" / "froc_band.csv")[1:3] == [
        ["first", "0.0", "0.0", "0.3"],
        ["first", "1.0", "0.4", "0.8"],
    ]
    assert read(tmp_path / "new" / "roc_breast_tumor.csv")[:3] == [
        ["model", "fpr", "tpr"], ["first", "0.0", "0.0"], ["first", "0.5", "1.0"]
    ]  # fmt: skip
    assert read(tmp_path / "new" / "pr_patient_tumor.csv")[-1] == ["second", "1.0", "0.5"]
    assert read(tmp_path / "new" / "reliability_image_tumor.csv")[:5] == [
        ["model", "scores", "bin_low", "bin_high", "mean_score", "share_positive", "count"],
        ["first", "as predicted", "0.0", "0.5", "0.2", "0.25", "4"],
        ["first", "as predicted", "0.5", "1.0", "", "", "0"],
        ["first", "calibrated", "0.0", "0.5", "0.2", "0.25", "4"],
        ["first", "calibrated", "0.5", "1.0", "", "", "0"],
    ]
    for stem in ("froc", "roc_tumor", "pr_tumor", "reliability_tumor"):
        assert Image.open(tmp_path / "new" / f"{stem}.png").width > 500
        assert "currentColor" not in (tmp_path / "new" / f"{stem}.svg").read_text(encoding="utf-8")


def test_written_curves_of_nothing_are_a_figure_that_says_so(tmp_path):
    nothing = metrics_of({**metrics_value(), "models": [bare_model()]}).models
    assert [path.name for path in write_curves(tmp_path, nothing)] == ["froc.svg", "froc.png"]
    assert "no curve" in (tmp_path / "froc.svg").read_text()


def test_written_curves_of_hostile_labels_stay_in_their_folder(tmp_path):
    metrics = metrics_value()
    label = metrics["models"][0]["image"]["tumor"]
    metrics["models"][0].update(image={"../../x": label, "a/b": label, "A?b": label}, breast={}, patient={})
    paths = write_curves(tmp_path / "deep" / "down", metrics_of(metrics).models)
    assert {path.parent for path in paths} == {tmp_path / "deep" / "down"}
    assert len({path.name.casefold() for path in paths}) == len(paths)
    assert "roc_image_______x.csv" in {path.name for path in paths}


def test_read_history_leaves_blank_and_broken_cells_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HISTORY)
    rows = read_history(path)
    assert rows[0] == {"epoch": 0, "step": 9, "train/loss": 1.5}
    assert rows[4] == {"epoch": 1, "step": 19, "val/bbox_AP50": 0.4, "val/image_auc_tumor": 0.7}
    svg = curves.to_svg(curves_figure({"": rows}))
    assert all(name in svg for name in (">loss<", "val/bbox_AP50", "learning rate", "loss: training"))


def test_training_log_without_epochs_says_so(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,2.0\n")
    assert "holds no epoch" in training_section(tmp_path / "metrics.csv")["missing"]
    assert curves.to_svg(curves_figure({"": [{"epoch": 1.0}]}))
