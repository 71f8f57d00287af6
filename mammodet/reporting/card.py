"""The model card: what a model is, what was measured of it, and what these figures do not say.

Facts come from `metrics.json` alone (Mitchell et al., Model Cards for Model Reporting, FAT* 2019).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mammodet.errors import InputError
from mammodet.evaluation.no_boxes import NO_BOXES
from mammodet.reporting.report_tables import Table, headline_table, strata_tables
from mammodet.reporting.report_values import (
    LEVELS,
    VOID,
    Model,
    entries,
    interval,
    is_classifier,
    is_number,
    labels_of,
    models_of,
    number,
    questions_of,
    section,
    texts,
    void_reason,
    words,
)

FEW_PATIENTS = 100
FEW_CASES = 30
FEW_IN_STRATUM = 10
INTENDED_USE = (
    "For research. Not a medical device: it has no clearance or approval, and its output must not be used to diagnose, "
    "to screen, or to decide on the care of a patient.",
    "Figures hold for data like that named under the protocol. On other scanners, populations or ways of selecting "
    "patients they must be measured again.",
)
#: Facts of a model that are shown, in this order; others follow.
_MODEL_FACTS = {
    "predictions": "predictions file",
    "predictions_sha256": "predictions SHA-256",
    "checkpoint": "checkpoint",
    "checkpoint_sha256": "checkpoint SHA-256",
    "trained_on_data_hash": "data hash of the training",
    "trained_on_split_hash": "split hash of the training",
    "box_masks": "masks of lesions with a box only",
    "patients_seen_in_training": "of these patients, seen in training",
    "calibration": "calibration",
}
_MARKDOWN = re.compile(r"([\\`*{}\[\]#|~!$]|(?<!\w)_|_(?!\w))")


@dataclass(frozen=True, slots=True)
class CardSection:
    """A part of the card, as text: facts as name and value, sentences, tables; each may be empty."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    tables: tuple[Table, ...] = field(default=())


def model_card(metrics: Mapping[str, Any], model_index: int = 0) -> str:
    """The card of one model as Markdown, with everything escaped that came with the data.

    Args:
        metrics: what `metrics.json` holds; each section may be missing, each value None.
        model_index: position in its `models`.
    Raises:
        InputError: there is no such model in the metrics.
    """
    models = models_of(metrics)
    if not 0 <= model_index < len(models):
        raise InputError(f"model_index {model_index}: the metrics hold {len(models)} models, counted from 0")
    void = f": {VOID}" if void_reason(models[model_index][1]) else ""
    lines = [f"# Model card: {escape(models[model_index][0])}{void}"]
    for part in card_sections(metrics, model_index):
        lines += ["", f"## {part.title}", ""]
        lines += [f"- {escape(name)}: {escape(value)}" for name, value in part.facts]
        lines += [f"- {escape(item)}" for item in part.items]
        for table in part.tables:
            lines += [*(["", f"### {escape(table.title)}"] if table.title else []), "", *_table_lines(table), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def card_sections(metrics: Mapping[str, Any], model_index: int) -> list[CardSection]:
    """The card's parts: intended use, the model, protocol, headline figures, figures by strata, limits."""
    one = models_of(metrics)[model_index]
    headline = headline_table(metrics, model_index)
    strata = strata_tables([one])
    none, tables = ("Nothing was measured.",), (headline,) if headline.rows else ()
    void = f": {VOID}" if void_reason(one[1]) else ""
    return [
        CardSection("Intended use", items=INTENDED_USE),
        CardSection("The model", facts=model_facts(metrics, one)),
        CardSection("Protocol", facts=protocol_facts(metrics)),
        CardSection(f"Headline figures{void}", items=() if tables else none, tables=tables),
        CardSection(f"Figures by stratum{void}", items=() if strata else none, tables=tuple(strata)),
        CardSection("Known limits", items=tuple(known_limits(metrics, one))),
    ]


def model_facts(metrics: Mapping[str, Any], model: Model) -> tuple[tuple[str, str], ...]:
    """What the model is and what it was trained on, as far as the metrics say."""
    facts, common = section(model[1], "protocol"), section(metrics, "protocol")
    names = [*(name for name in _MODEL_FACTS if name in facts), *(name for name in facts if name not in _MODEL_FACTS)]
    shown = [(_MODEL_FACTS.get(name, name.replace("_", " ")), words(facts[name])) for name in names]
    for mine, theirs, what in (
        ("trained_on_data_hash", "ground_truth_hash", "data"),
        ("trained_on_split_hash", "split_hash", "split"),
    ):
        if facts.get(mine) and common.get(theirs):
            same = "the same as evaluated on" if facts[mine] == common[theirs] else "not the same as evaluated on"
            shown.append((f"{what} of the training", same))
    return tuple(shown) or (("the model", "the metrics say nothing of it"),)


def protocol_facts(metrics: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The protocol's facts, without overrides and versions, which stand elsewhere."""
    facts = section(metrics, "protocol")
    return tuple(
        (str(name).removeprefix("n_").replace("_", " "), words(value))
        for name, value in facts.items()
        if name not in ("overrides", "versions")
    )


def stamp_facts(metrics: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What stands on top of a report: the protocol, the files of each model with their hashes, the version."""
    models = models_of(metrics)
    facts = [*protocol_facts(metrics)]
    for name, model in models:
        about = section(model, "protocol")
        prefix = f"{name}: " if len(models) > 1 else ""
        facts += [
            (prefix + _MODEL_FACTS.get(key, key), words(about[key]))
            for key in ("predictions_sha256", "checkpoint_sha256")
            if about.get(key)
        ]
    version = section(metrics, "protocol", "versions").get("mammodet")
    return (*facts, *((("mammodet", words(version)),) if version else ()))


def alarms(metrics: Mapping[str, Any]) -> list[str]:
    """What must not be overlooked: rules that were overridden, and patients seen in training."""
    models = models_of(metrics)
    found = [f"Override: {text}" for text in texts(section(metrics, "protocol"), "overrides")]
    found += [f"{name}: {VOID}: {void_reason(model)}." for name, model in models if void_reason(model)]
    for name, model in models:
        seen = section(model, "protocol").get("patients_seen_in_training")
        if is_number(seen) and seen > 0:
            found.append(
                f"{name}: {seen} of these patients were seen in training. Its figures say nothing about new patients."
            )
    return found


def known_limits(metrics: Mapping[str, Any], model: Model) -> list[str]:
    """What the figures of a model do not say, as far as that follows from the facts."""
    alone: dict[str, Any] = {**metrics, "models": [{**model[1], "name": model[0]}]}
    return list(
        dict.fromkeys(
            [
                *alarms(alone),
                *([NO_BOXES] if is_classifier(model[1]) else []),
                *_limits_of_data(section(metrics, "protocol"), with_boxes=not is_classifier(model[1])),
                *_limits_of_training(model[1]),
                *_limits_of_cases(model),
                *_missing_figures(model),
                *_limits_of_masks(section(model[1], "masks")),
                *texts(metrics, "notes"),
                *texts(model[1], "notes"),
            ]
        )
    )


def _limits_of_data(facts: Mapping[str, Any], *, with_boxes: bool) -> list[str]:
    if not facts:
        return ["The metrics carry no protocol: they cannot be compared with any others."]
    limits = []
    subset, patients = facts.get("split_subset"), facts.get("n_patients")
    if subset != "test":
        limits.append(f"Evaluated on the subset {subset}, not on a test set." if subset else "No named test subset.")
    if is_number(patients) and patients < FEW_PATIENTS:
        limits.append(f"Few patients ({patients}): the intervals are wide, and rare kinds of lesions may be absent.")
    if not facts.get("resamples"):
        limits.append("No intervals were computed: how far chance moves these figures is not known.")
    if facts.get("n_normal_images") == 0:
        limits.append("No image without a lesion: specificity and false positives on normal images are not known.")
    for key, text in (
        ("n_images_without_boxes", "images hold a lesion without a place; they take no part in AP and FROC."),
        ("n_ignored_regions", "ignored regions count neither as lesions nor as background."),
    ):
        if with_boxes and is_number(facts.get(key)) and facts[key] > 0:
            limits.append(f"{facts[key]} {text}")
    return limits


def _limits_of_training(model: Mapping[str, Any]) -> list[str]:
    facts = section(model, "protocol")
    limits = []
    if facts.get("patients_seen_in_training") is None:
        limits.append("Whether the model has seen these patients is not known for all: leakage could not be checked.")
    if facts.get("box_masks"):
        shape = "the ellipse inside it" if facts["box_masks"] == "ellipse" else "the box filled in"
        limits.append(
            f"Training lesions of which only a box is known taught outlines as {shape} (data.box_masks): the model's "
            "outlines of such lesions are guesses. Agreement of outlines is scored on drawn contours alone."
        )
    if not facts.get("calibration"):
        limits.append("No calibration: scores are not probabilities.")
    return limits


def _limits_of_cases(model: Model) -> list[str]:
    """Levels and strata that rest on few cases."""
    limits = []
    for label in labels_of([model]):
        for level in LEVELS:
            figures = section(model[1], level, label)
            for key, kind in (("n_positive", "positive"), ("n_negative", "negative")):
                if is_number(figures.get(key)) and figures[key] < FEW_CASES:
                    limits.append(f"Few {kind} cases of {label} at the level of the {level} ({figures[key]}).")
    for question in questions_of([model]):
        rare = [
            f"{words(row.get('class'))} ({row['support']})"
            for row in entries(section(model[1], "classes", question), "per_class")
            if is_number(row.get("support")) and row["support"] < FEW_CASES
        ]
        limits += [f"Few images of these classes of {question}: {', '.join(rare)}."] if rare else []
    small = [
        f"{words(row.get('variable'))} {words(row.get('value'))} ({row['n_patients']})"
        for row in entries(model[1], "strata")
        if is_number(row.get("n_patients")) and row["n_patients"] < FEW_IN_STRATUM
    ]
    if small:
        limits.append(f"Strata of fewer than {FEW_IN_STRATUM} patients: {', '.join(small)}.")
    rows = [row for row in entries(model[1], "strata") if is_number(row.get("sensitivity_at_1"))]
    if len(rows) > 1:
        worst = min(rows, key=lambda row: row["sensitivity_at_1"])
        between = interval(worst.get("sensitivity_at_1_ci95"))
        limits.append(
            f"Lowest sensitivity at 1 FPPI of all strata: {number(float(worst['sensitivity_at_1']))}"
            f"{f' ({between})' if between else ''} at {words(worst.get('variable'))} {words(worst.get('value'))}."
        )
    return limits


def _missing_figures(model: Model) -> list[str]:
    name, metrics = model
    labels = labels_of([(name, metrics)])
    places = (
        ("box AP", is_number(section(metrics, "detection", "bbox").get("AP50"))),
        ("mask AP", is_number(section(metrics, "detection", "segm").get("AP50"))),
        ("FROC", is_number(section(metrics, "froc").get("cpm"))),
        ("agreement of masks", is_number(section(metrics, "masks").get("dice"))),
    )
    missing = [
        what
        for what, there in (
            *(() if is_classifier(metrics) else places),
            ("figures by stratum", bool(entries(metrics, "strata"))),
            *((f"{level} level", any(section(metrics, level, label) for label in labels)) for level in LEVELS),
            *((f"label {label}", label in labels) for label in ("tumor", "malignant")),
        )
        if not there
    ]
    return [f"Not measured: {', '.join(missing)}."] if missing else []


def _limits_of_masks(masks: Mapping[str, Any]) -> list[str]:
    limits = texts(masks, "note")
    without = masks.get("n_without_contour")
    if is_number(without) and without > 0:
        limits.append(
            f"{without} of the lesions that were found have no drawn contour (but a circle or a box), and no part "
            "in the agreement of masks."
        )
    return limits


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no markup, no HTML, no link."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"^(\d*)([-+.)])(?=\s|$)", r"\1\\\2", _MARKDOWN.sub(r"\\\1", line))  # no list inside a list
    return line.encode("utf-8", "backslashreplace").decode()


def _table_lines(table: Table) -> list[str]:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    head = [*table.corner, *table.head]
    rows = [
        [*(escape(name) for name in names), *(_cell_text(found.value, found.interval) for found in cells)]
        for names, cells in table.rows
    ]
    marks = ["---"] * len(table.corner) + ["---:"] * len(table.head)
    return [line([escape(name) for name in head]), line(marks), *(line(row) for row in rows)]


def _cell_text(value: str, between: str) -> str:
    return escape(f"{value} ({between})" if between else value)
