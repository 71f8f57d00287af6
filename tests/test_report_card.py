"""The model card and the words for figures."""

from __future__ import annotations

import pytest
from small_metrics import HOSTILE, bare_model, metrics_of, metrics_value, small_metrics

from mammodet.errors import InputError
from mammodet.evaluation.results import Figure
from mammodet.reporting.card import known_limits, model_card
from mammodet.reporting.tables import Table, interval, number, p_value, to_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4125, "0.412"), (1.0, "1.000"), (0.99961, "1.000"), (3.456, "3.46"), (34.21, "34.2"), (1234.5, "1234"),
        (7, "7"), (-0.0124, "\u22120.012"), (-0.0001, "0.000"), (None, "\u2013"),
    ],
)  # fmt: skip
def test_number_has_three_digits(value, text):
    assert number(value) == text


def test_number_with_its_sign():
    assert (number(0.03, sign=True), number(-0.03, sign=True), number(0.0, sign=True)) == (
        "+0.030",
        "\u22120.030",
        "0.000",
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.41, 0.52], "0.41 to 0.52"), ([-0.02, 0.08], "\u22120.02 to 0.08"), ([0.981, 0.992], "0.981 to 0.992"),
        ([28.04, 41.0], "28.0 to 41.0"), (None, ""),
    ],
)  # fmt: skip
def test_interval_has_two_digits_and_a_third_where_it_is_narrow(value, text):
    assert interval(value) == text


def test_small_p_values_are_not_zero():
    assert (p_value(0.0004), p_value(0.21), p_value(None)) == ("< 0.001", "0.210", "\u2013")


def test_a_table_on_the_screen_stands_in_columns_and_in_plain_letters():
    rows = ((("a",), (figure_of(0.5, 0.25, 0.75), -0.125)), (("longer",), (None, 7)))
    assert to_text(Table(("name",), ("value", "n"), rows, "title")).splitlines() == [
        "title",
        "  name                    value        n",
        "  a        0.500 (0.25 to 0.75)   -0.125",
        "  longer                      -        7",
    ]


def figure_of(value, *ci95):
    return Figure(value=value, ci95=ci95)


def test_model_card_tells_the_facts():
    card = model_card(small_metrics())
    for words in (
        "# Model card: first",
        "Not a medical device",
        "- predictions file: runs/first/predictions.json",
        "- split of the training: the same as evaluated on",
        "- match: iou@0.2",
        "| box AP50 | 0.710 | 0.61 to 0.79 | \u2013 |",
        "| lesion sensitivity at 1 FPPI | 0.625 | 0.41 to 0.80 | 8 lesions |",
        "| lesion sensitivity at 4 FPPI | \u2013 | \u2013 | 8 lesions |",
        "| image, tumor: ROC AUC | 0.900 | 0.71 to 0.98 | 3 of 7 positive |",
        "### density",
        "| D | 9 | 3 | 5 | 0.500 | 0.510 |",
    ):
        assert words in card


def test_model_card_derives_limits_from_the_facts():
    card = model_card(small_metrics())
    for words in (
        "Few patients (12)",
        "1 images hold a lesion without a place",
        "Few positive cases of tumor at the level of the patient (3).",
        "Strata of fewer than 10 patients: density D (5).",
        "Lowest sensitivity at 1 FPPI of all strata: 0.500 at density D.",
        "Not measured: label malignant.",
        "circles take no part",
        "3 of the lesions that were found have no drawn contour",
        "one image holds a lesion without a place",
    ):
        assert words in card
    assert "Override" not in card
    assert "leakage" not in card
    assert "No calibration" not in card


def test_model_card_of_a_doubtful_evaluation_says_so():
    metrics = metrics_value()
    metrics["protocol"].update(overrides=["--allow-leakage"], split_subset="val", resamples=0, n_normal_images=0)
    metrics["models"][0]["protocol"] = {"patients_seen_in_training": 3}
    made = metrics_of(metrics)
    limits = known_limits(made, made.models[0])
    assert limits[:2] == [
        "Override: --allow-leakage",
        "first: 3 of these patients were in training. Its figures say nothing of new ones.",
    ]
    for words in ("on the subset val", "No intervals", "No image without a lesion", "No calibration"):
        assert any(words in limit for limit in limits)


def test_model_card_is_of_the_model_that_was_asked_for():
    metrics = small_metrics("first", "second")
    assert "| CPM | 0.438 |" in model_card(metrics, 0)
    card = model_card(metrics, 1)
    assert "# Model card: second" in card
    assert "| CPM | 0.688 |" in card
    assert "first" not in card.replace("runs/first", "")
    with pytest.raises(InputError, match="model_index 2: the metrics hold 2 models"):
        model_card(metrics, 2)


def test_model_card_escapes_markup():
    metrics = metrics_value(f"{HOSTILE} | *x* [a](b)\n# y")
    metrics["models"][0]["strata"][0]["value"] = "a|b"
    metrics["notes"] = ["1. one\n- two", "<img src=x onerror=y>", "\ud800"]
    card = model_card(metrics_of(metrics))
    assert "<" not in card
    assert "# Model card: &lt;script&gt;alert(1)&lt;/script&gt; \\| \\*x\\* \\[a\\](b) \\# y\n" in card
    assert "\n| a\\|b |" in card
    assert "\n- 1\\. one - two\n" in card
    assert card.encode("utf-8")


def test_model_card_of_a_model_of_which_nothing_was_measured():
    card = model_card(metrics_of({**metrics_value(), "models": [bare_model()]}))
    for words in ("Nothing was measured.", "leakage could not be checked", "Not measured: box AP, mask AP, FROC"):
        assert words in card


@pytest.mark.parametrize(("shape", "words"), [("ellipse", "the ellipse inside it"), ("box", "the box filled in")])
def test_card_names_masks_made_of_boxes(shape, words):
    metrics = metrics_value()
    assert "data.box_masks" not in model_card(metrics_of(metrics))
    metrics["models"][0]["protocol"]["box_masks"] = shape
    card = model_card(metrics_of(metrics))
    assert f"taught outlines as {words}" in card
    assert f"masks of lesions with a box only: {shape}" in card
