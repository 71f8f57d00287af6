"""Tables of the report and of the model card: plain text in, plain text out, no HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammodet.reporting.report_values import (
    LEVELS,
    VOID,
    Cell,
    Model,
    by_level,
    by_question,
    cell,
    entries,
    figure_keys,
    interval,
    is_number,
    models_of,
    name_of,
    number,
    p_value,
    path_name,
    questions_of,
    section,
    void_reason,
    words,
)

KINDS = {"bbox": "boxes", "segm": "masks"}
PROBABILITY_KEYS = ("brier", "ece", "log_loss")
CLASS_KEYS = (
    "accuracy",
    "balanced_accuracy",
    "kappa",
    "quadratic_kappa",
    "macro_precision",
    "macro_f1",
    "macro_roc_auc",
)
PER_CLASS_KEYS = ("support", "predicted", "precision", "recall", "f1", "roc_auc")
Row = tuple[tuple[str, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text.

    Attributes:
        corner: heads of the columns that name a row.
        head: heads of the other columns.
        rows: names (as many as `corner`) and cells (as many as `head`).
        title: what stands above it; may be empty.
    """

    corner: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    title: str = ""


def _table(
    models: Sequence[Model],
    corner: tuple[str, ...],
    rows: Sequence[Row],
    keys: Sequence[str] | None = None,
    *,
    head: Callable[[str], str] = name_of,
    title: str = "",
) -> Table:
    """Rows that are given as (model, other names...); models stand line by line below each other.

    The model's column goes where there is one model and another name is left.

    Args:
        keys: the columns; None for all single figures of the rows.
    """
    columns = figure_keys([row for _, row in rows]) if keys is None else list(keys)
    order = {rest: rank for rank, rest in enumerate(dict.fromkeys(names[1:] for names, _ in rows))}
    several = len(models) > 1 or not corner
    shown = {name: f"{name} ({VOID})" if void_reason(model) else name for name, model in models}

    def names_of(names: tuple[str, ...]) -> tuple[str, ...]:
        return (*names[1:], shown.get(names[0], names[0])) if several else names[1:]

    return Table(
        (*corner, "model") if several else corner,
        tuple(head(key) for key in columns),
        tuple(
            (names_of(names), tuple(cell(row, key) for key in columns))
            for names, row in sorted(rows, key=lambda row: order[row[0][1:]])
        ),
        title,
    )


def average_precision_table(models: Sequence[Model]) -> Table:
    """AP, AP50, AP75 of boxes and masks: over all categories, and of each."""
    rows: list[Row] = []
    for name, model in models:
        for kind, figures in section(model, "detection").items():
            if not isinstance(figures, Mapping) or not figures:
                continue
            of_category: dict[str, dict[str, Any]] = {"all": {}}
            for key, value in figures.items():
                bare, is_interval = key.removesuffix("_ci95"), key.endswith("_ci95")
                figure, _, category = bare.partition("/")
                of_category.setdefault(category or "all", {})[f"{figure}_ci95" if is_interval else figure] = value
            found = {category: row for category, row in of_category.items() if row}
            if len(found) == 2 and "all" in found:  # one category says nothing that all do not
                found = {"all": found["all"]}
            rows += [((name, KINDS.get(kind, kind), category), row) for category, row in found.items()]
    return _table(models, ("of", "category"), rows)


def size_table(models: Sequence[Model]) -> Table:
    """AP of lesions of one size class at a time."""
    rows: list[Row] = [
        ((name, words(row.get("size"))), row) for name, model in models for row in entries(model, "ap_by_size")
    ]
    return _table(models, ("lesion size",), rows)


def _with_points(froc: Mapping[str, Any], more: Sequence[str] = ()) -> dict[str, Any]:
    """A FROC section as one row: its points, then CPM, by keys that `_point_name` can read."""
    row: dict[str, Any] = {key: froc.get(key) for key in more if key in froc}
    for point in entries(froc, "points"):
        if is_number(point.get("fppi")):
            row[f"@{point['fppi']:g}"] = point.get("sensitivity")
            row[f"@{point['fppi']:g}_ci95"] = point.get("ci95")
    return {**row, "cpm": froc.get("cpm"), "cpm_ci95": froc.get("cpm_ci95")}


def _point_keys(rows: Sequence[Row], more: Sequence[str] = ()) -> list[str]:
    points = {key for _, row in rows for key in row if key.startswith("@") and not key.endswith("_ci95")}
    counts = [key for key in more if any(key in row for _, row in rows)]
    return [*counts, *sorted(points, key=lambda key: float(key[1:])), "cpm"] if rows else []


def _point_name(key: str) -> str:
    return f"{key[1:]} FPPI" if key.startswith("@") else name_of(key)


def _froc_row(froc: Mapping[str, Any], more: Sequence[str] = ()) -> dict[str, Any] | None:
    row = _with_points(froc, more)
    return row if len(row) > 2 + len(more) or is_number(row["cpm"]) else None


def sensitivity_table(models: Sequence[Model]) -> Table:
    """Sensitivity at 0.125 to 4 false positives per image, and CPM."""
    found = ((name, _froc_row(section(model, "froc"))) for name, model in models)
    rows: list[Row] = [((name, "all lesions"), row) for name, row in found if row is not None]
    for name, model in models:
        by_category = section(model, "froc_by_category")
        categories = [(category, _froc_row(section(by_category, category))) for category in by_category]
        if len(categories) > 1:
            rows += [((name, f"{category} only"), row) for category, row in categories if row is not None]
    return _table(models, ("lesions",), rows, _point_keys(rows), head=_point_name)


def other_rules_table(models: Sequence[Model]) -> Table:
    """The same boxes under each match rule and denominator, the report's own first."""
    counts = ("n_images",)
    rows: list[Row] = []
    for name, model in models:
        others = entries(model, "froc_others")
        for position, froc in enumerate([section(model, "froc"), *others] if others else []):
            row = _froc_row(froc, counts)
            if row is not None:
                mark = "" if position else " (this report)"
                rows.append(((name, f"{words(froc.get('match'))}{mark}", words(froc.get("denominator"))), row))
    return _table(models, ("match", "denominator"), rows, _point_keys(rows, counts), head=_point_name)


def strata_tables(models: Sequence[Model]) -> list[Table]:
    """Figures of a part of the data at a time, one table per variable."""
    rows = [
        (words(row.get("variable")), ((name, words(row.get("value"))), row))
        for name, model in models
        for row in entries(model, "strata")
    ]
    variables = list(dict.fromkeys(variable for variable, _ in rows))
    return [
        _table(models, (variable,), [row for name, row in rows if name == variable], title=variable)
        for variable in variables
    ]


def level_table(models: Sequence[Model], label: str) -> Table:
    """How well a label's score ranks cases, per level."""
    rows: list[Row] = [((name, level), figures) for name, level, figures in by_level(models, label)]
    keys = [key for key in figure_keys([row for _, row in rows]) if key not in PROBABILITY_KEYS]
    return _table(models, ("level",), rows, keys)


def aggregation_table(models: Sequence[Model], label: str) -> Table:
    """Every rule that makes a case's score out of its detections and the image head, per level."""
    rows: list[Row] = []
    for name, level, figures in by_level(models, label):
        for rule, row in section(figures, "by_rule").items():
            if isinstance(row, Mapping) and row:
                rows.append(((name, level, str(rule)), row))
    keys = [key for key in figure_keys([row for _, row in rows]) if key not in ("n_positive", "n_negative")]
    return _table(models, ("level", "rule"), rows, keys)


def operating_table(models: Sequence[Model], label: str) -> Table:
    """What a threshold makes of the scores, per level and goal."""
    rows: list[Row] = [
        ((name, level, words(point.get("goal"))), point)
        for name, level, figures in by_level(models, label)
        for point in entries(figures, "operating_points")
    ]
    return _table(models, ("level", "goal"), rows)


def calibration_table(models: Sequence[Model], label: str) -> Table:
    """How far scores can be read as probabilities, before and after calibration."""
    rows: list[Row] = []
    for name, level, figures in by_level(models, label):
        if any(key in figures for key in PROBABILITY_KEYS):
            rows.append(((name, level, "as predicted"), figures))
        calibrated = section(figures, "calibrated")
        if calibrated:
            rows.append(((name, level, "calibrated"), calibrated))
    keys = [key for key in PROBABILITY_KEYS if any(key in row for _, row in rows)]
    return _table(models, ("level", "scores"), rows, keys)


def mask_table(models: Sequence[Model]) -> Table:
    """Agreement of the masks: of matched pairs, and of all of an image at once."""
    rows: list[Row] = []
    for name, model in models:
        masks = section(model, "masks")
        if masks:
            rows.append(((name, "found lesion"), masks))
        if section(masks, "per_image"):
            rows.append(((name, "whole image"), section(masks, "per_image")))
    return _table(models, ("per",), rows)


def class_table(models: Sequence[Model], question: str) -> Table:
    """Figures over all classes of a question; mean recall is the balanced accuracy, and stands once."""
    rows: list[Row] = [((name, "all classes"), figures) for name, figures in by_question(models, question)]
    keys = [key for key in (*CLASS_KEYS, "log_loss") if any(row.get(key) is not None for _, row in rows)]
    return _table(models, (question,), rows, ["n", *keys])


def per_class_table(models: Sequence[Model], question: str) -> Table:
    """Figures of each class, against all others; a class that the model does not know is marked."""
    rows: list[Row] = []
    for name, figures in by_question(models, question):
        for row in entries(figures, "per_class"):
            mark = "" if row.get("predicted") is not None else " (not known to the model)"
            rows.append(((name, f"{words(row.get('class'))}{mark}"), row))
    return _table(models, ("class",), rows, PER_CLASS_KEYS if rows else ())


_QUOTED = (
    *("AP50", "cpm", "sensitivity@0.5", "sensitivity@1", "sensitivity@2", "roc_auc", "pr_auc", "dice of images"),
    *("accuracy", "balanced_accuracy", "quadratic_kappa", "macro_roc_auc"),
)


def comparison_tables(metrics: Mapping[str, Any]) -> list[tuple[Table, Table]]:
    """Differences of two models on the same patients, second minus first: figures that are quoted, and the others."""
    tables = []
    void = {name for name, model in models_of(metrics) if void_reason(model)}
    for comparison in entries(metrics, "comparisons"):
        first, second = words(comparison.get("first")), words(comparison.get("second"))
        rows: dict[bool, list[Any]] = {True: [], False: []}
        for path, figures in section(comparison, "figures").items():
            row = figures if isinstance(figures, Mapping) else {}
            cells = (
                Cell(number(row.get("first"))),
                Cell(number(row.get("second"))),
                Cell(number(row.get("difference"), sign=True), interval(row.get("ci95"))),
                Cell(p_value(row.get("p"), section(metrics, "protocol").get("resamples"))),
            )
            rows[str(path).rpartition("/")[2] in _QUOTED].append(((path_name(str(path)),), cells))
        title = f"{second} against {first}{f': {VOID}' if void & {first, second} else ''}"
        head = (("figure",), (first, second, "difference", "p"))
        tables.append((Table(*head, tuple(rows[True]), title), Table(*head, tuple(rows[False]), title)))
    return tables


def headline_table(metrics: Mapping[str, Any], index: int) -> Table:
    """The figures of one model that are quoted: one row each, value and interval."""
    models = models_of(metrics)[index : index + 1]
    rows: list[tuple[str, Cell]] = []
    for _, model in models:
        for kind, title in (("bbox", "box"), ("segm", "mask")):
            figures = section(model, "detection", kind)
            rows += [(f"{title} {name_of(key)}", cell(figures, key)) for key in ("AP50", "AP") if key in figures]
        froc = section(model, "froc")
        points = [point for point in entries(froc, "points") if is_number(point.get("fppi"))]
        rows += [
            (
                f"lesion sensitivity at {point['fppi']:g} FPPI",
                Cell(number(point.get("sensitivity")), interval(point.get("ci95"))),
            )
            for point in points
        ]
        rows += [("CPM", cell(froc, "cpm"))] if "cpm" in froc else []
        for level in LEVELS:
            for label, figures in section(model, level).items():
                rows += [
                    (f"{level}, {label}: {name_of(key)}", cell(figures, key))
                    for key in ("roc_auc", "pr_auc", "sensitivity_at_90_specificity")
                    if isinstance(figures, Mapping) and key in figures
                ]
        for question in questions_of([("", model)]):
            figures = section(model, "classes", question)
            rows += [
                (f"{question}: {name_of(key)}", cell(figures, key))
                for key in CLASS_KEYS
                if figures.get(key) is not None
            ]
        masks = section(model, "masks")
        rows += [(f"masks: {name_of(key)}", cell(masks, key)) for key in ("dice", "hd95_mm") if key in masks]
    return Table(
        ("figure",),
        ("value", "95 % interval"),
        tuple(((name,), (Cell(found.value), Cell(found.interval or "\u2013"))) for name, found in rows),
    )
