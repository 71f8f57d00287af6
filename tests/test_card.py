"""The card of a packed model: what its author writes, what an evaluation adds, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_metrics import metrics_of, metrics_value, small_metrics

from mammodet.errors import InputError
from mammodet.models.card import ModelCard, card_from_json, read_card, with_figures
from mammodet.reporting.packed_card import packed_card

TEXT: dict[str, Any] = {
    "title": "Small <b>",
    "finds": "masses",
    "images": "digitised film",
    "training_data": [{"name": "CBIS-DDSM", "licence": "CC BY 3.0", "citation": "Lee et al., Sci Data 2017"}],
    "intended_use": ["Research."],
    "known_failures": ["Dense breasts."],
}
SHA256 = "ab" * 32


def measured(change: Any = None, fppi: float = 1.0) -> ModelCard:
    value = metrics_value()
    if change is not None:
        change(value)
    return with_figures(card_from_json(TEXT, "card"), metrics_of(value), ("cd" * 32, SHA256), fppi, "metrics.json")


def test_card_of_an_author_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(TEXT), encoding="utf-8")
    card = read_card(tmp_path / "card.yaml")
    assert card == card_from_json(TEXT, "card")
    assert card.line() == (
        "Small <b>: research only; finds masses, trained on digitised film; its sensitivity was not measured"
    )


def test_faults_of_a_card_are_told_at_once(tmp_path: Path) -> None:
    wrong = {**TEXT, "training_data": [], "tittle": "x", "intended_use": "Research."}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(wrong), encoding="utf-8")
    with pytest.raises(InputError, match="3 faults") as caught:
        read_card(tmp_path / "card.yaml")
    for name in ("training_data", "tittle", "intended_use"):
        assert f"- {name}" in str(caught.value)


def test_author_writes_no_figures(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({**TEXT, "froc": None, "figures": []}), encoding="utf-8")
    with pytest.raises(InputError, match="names figures, froc; these come from an evaluation"):
        read_card(tmp_path / "card.yaml")


def test_card_takes_the_figures_of_an_evaluation() -> None:
    card = measured()
    figures = {figure.name: (figure.value, figure.ci95) for figure in card.figures}
    assert figures["box AP50"] == (0.71, (0.612, 0.793))
    assert figures["CPM"] == (0.4375, (0.3, 0.6))
    assert figures["lesion sensitivity at 0.125 FPPI"] == (0.25, (0.1, 0.4))
    assert "lesion sensitivity at 4 FPPI" not in figures  # was not measured
    assert figures["image, tumor: ROC AUC"] == (0.9, (0.71, 0.98))
    assert figures["image, tumor at sensitivity@0.9: sensitivity"] == (1.0, None)
    assert card.froc is not None
    assert (card.froc.fppi, card.froc.sensitivity, card.froc.ci95) == (1, 0.625, (0.41, 0.8))
    assert card.froc.score_threshold == 0.5  # the curve's last turn before 1 is that at 0.5
    assert card.line().startswith(
        "Small <b>: research only; finds masses, trained on digitised film; sensitivity 0.62 "
    )
    assert f"(0.41 to 0.80) at 1 false positive per image on {card.evaluated_on}" in card.line()


@pytest.mark.parametrize(
    ("change", "fppi", "message"),
    [
        (
            lambda value: value["models"][0]["protocol"].update(checkpoint_sha256="ef" * 32),
            1.0,
            "is of the checkpoints",
        ),
        (lambda value: value["models"][0].update(not_a_result="seen"), 1.0, "its figures are no result: seen"),
        (None, 4.0, "no sensitivity at 4 false positives per image; it has those at 0.125, 1"),
        (lambda value: value.update(format="mammodet-metrics/2"), 1.0, "run mammodet evaluate again"),
        (lambda value: value.pop("protocol"), 1.0, "metrics.json: 1 fault[^$]*protocol is missing"),
    ],
)
def test_figures_of_another_kind_are_refused(change: Any, fppi: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measured(change, fppi)


def test_card_names_its_test_set_or_the_file() -> None:
    assert measured().evaluated_on == "test.json, 17 images of 12 patients"
    card = card_from_json({**TEXT, "test_data": "the archive's"}, "card")
    card = with_figures(card, small_metrics(), (SHA256,), 1.0, "metrics.json")
    assert card.evaluated_on == "the archive's, 17 images of 12 patients"


def test_overridden_rules_stand_in_the_notes() -> None:
    card = measured(lambda value: value["protocol"].update(overrides=["extra predictions"]))
    assert card.notes == ["The evaluation overrode a rule: extra predictions"]


def test_markdown_shows_all_and_escapes_it() -> None:
    text = packed_card(measured(), [("file", "m.safetensors")])
    assert text.startswith("# Small &lt;b&gt;\n")
    assert "- CBIS-DDSM, CC BY 3.0. Lee et al., Sci Data 2017\n" in text
    assert "At 1 false positive per image it finds 0.625 of the lesions" in text
    assert "| box AP50 | 0.710 | 0.612 to 0.793 |\n" in text
    assert "## Known failures\n\n- Dense breasts.\n" in text
    assert "- file: m.safetensors\n" in text
    assert "Nothing was measured." in packed_card(card_from_json(TEXT, "card"))
