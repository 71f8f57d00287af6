"""How figures are read out of `metrics.json` and written for people: pages, model cards and figures share this.

Every section of the metrics may be missing and every value None: what is not there is shown as not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from mammodet.reporting.text import printable

UNKNOWN = "\u2013"
LEVELS = ("image", "breast", "patient")
LONGEST_SHORT_NAME = 30
VOID = "NOT A RESULT"
#: A model's name and its part of the metrics.
Model = tuple[str, Mapping[str, Any]]

#: Keys of the metrics, in the words of a table's head; the order is that of its columns.
NAMES = {
    "n": "images",
    "n_images": "images",
    "n_pairs": "pairs",
    "n_lesions": "lesions",
    "n_patients": "patients",
    "n_without_contour": "found lesions without contour",
    "n_positive": "positive cases",
    "n_negative": "negative cases",
    "support": "true cases",
    "predicted": "predicted",
    "AP": "AP50:95",
    "bbox_AP": "box AP50:95",
    "bbox_AP50": "box AP50",
    "bbox_AP75": "box AP75",
    "segm_AP": "mask AP50:95",
    "segm_AP50": "mask AP50",
    "segm_AP75": "mask AP75",
    "threshold": "threshold",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "sensitivity_at_1": "sensitivity at 1 FPPI",
    "cpm": "CPM",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "partial_auc": "partial ROC AUC",
    "sensitivity_at_90_specificity": "sensitivity at 90 % specificity",
    "specificity_at_90_sensitivity": "specificity at 90 % sensitivity",
    "pf1": "pF1",
    "f1": "F1",
    "f2": "F2",
    "f1_at_half": "F1 at score 0.5",
    "accuracy_at_half": "accuracy at score 0.5",
    "brier": "Brier score",
    "ece": "ECE",
    "log_loss": "log loss",
    "ppv": "PPV",
    "npv": "NPV",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "quadratic_kappa": "quadratic kappa",
    "precision": "precision",
    "recall": "recall",
    "macro_precision": "precision, mean over classes",
    "macro_recall": "recall, mean over classes",
    "macro_f1": "F1, mean over classes",
    "macro_roc_auc": "ROC AUC, mean over classes",
    "tp": "TP",
    "fp": "FP",
    "tn": "TN",
    "fn": "FN",
    "dice": "Dice",
    "iou": "IoU",
    "hd95_px": "HD95 (px)",
    "hd95_mm": "HD95 (mm)",
}
#: Keys that hold a name, a list or a curve, and None where it was not made; never a column of figures.
_NOT_FIGURES = {
    *("size", "variable", "value", "goal", "note", "name", "match", "denominator", "duplicates"),
    *("points", "curve", "band", "roc", "pr", "reliability", "by_rule", "operating_points", "calibrated", "per_image"),
}
_ORDER = {key: position for position, key in enumerate(NAMES)}


class Cell(NamedTuple):
    """A value and its 95 % interval as text; the interval is empty where there is none."""

    value: str
    interval: str = ""


def section(value: Any, *names: str) -> Mapping[str, Any]:
    """A mapping inside a mapping; empty where it, or anything above it, is missing or None."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def entries(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The mappings of a list inside a mapping; empty where it is missing or None."""
    found = value.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list | tuple) else []


def texts(value: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a list inside a mapping; a single text is a list of one."""
    found = value.get(name) or []
    return [found] if isinstance(found, str) else [str(item) for item in found]


def models_of(metrics: Mapping[str, Any]) -> list[Model]:
    """The models of the metrics, each with a name of its own."""
    models: list[Model] = []
    for position, model in enumerate(entries(metrics, "models"), start=1):
        name = str(model.get("name") or f"model {position}")
        taken = {other for other, _ in models}
        models.append((f"{name} ({position})" if name in taken else name, model))
    return models


def labels_of(models: Sequence[Model]) -> list[str]:
    """Labels that any model has figures for, at any level."""
    found = (
        label for _, model in models for level in LEVELS for label, figures in section(model, level).items() if figures
    )
    return list(dict.fromkeys(str(label) for label in found))


def is_classifier(model: Mapping[str, Any]) -> bool:
    """Whether a model's part of the metrics is that of a classifier; metrics that do not say are a detector's."""
    return model.get("kind") == "classifier"


def void_reason(model: Mapping[str, Any]) -> str:
    """Why a model's figures must not be told as a result; empty where nothing speaks against that."""
    return str(model.get("not_a_result") or "")


def questions_of(models: Sequence[Model]) -> list[str]:
    """Questions with several classes that any model has figures for."""
    return list(
        dict.fromkeys(str(name) for _, model in models for name, one in section(model, "classes").items() if one)
    )


def by_question(models: Sequence[Model], question: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Model name and figures of a question, where there are any."""
    for name, model in models:
        figures = section(model, "classes", question)
        if figures:
            yield name, figures


def by_level(models: Sequence[Model], label: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Model name, level and figures of a label, where there are any."""
    for name, model in models:
        for level in LEVELS:
            figures = section(model, level, label)
            if figures:
                yield name, level, figures


def is_number(value: Any) -> TypeGuard[float]:
    """A finite number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, *, sign: bool = False) -> str:
    """Three digits: `0.412`, `3.41`, `34.1`; whole numbers as they are; a dash for what is not known."""
    if not is_number(value):
        return UNKNOWN
    if isinstance(value, int):
        text = str(abs(value))
    else:
        size = abs(value)
        digits = 3 if size < 1.0005 else 2 if size < 9.995 else 1 if size < 99.95 else 0
        text = f"{size:.{digits}f}"
    if value < 0 and float(text):
        return f"\u2212{text}"
    return f"+{text}" if sign and float(text) else text


def interval(value: Any) -> str:
    """`0.41 to 0.52`; a third digit where two would hide the width; empty for anything but a pair of numbers."""
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(is_number(end) for end in value)):
        return ""
    low, high = (float(end) for end in value)
    digits = 3 if 0 < high - low < 0.02 else 2
    if max(abs(low), abs(high)) >= 9.995:
        digits = 1
    return " to ".join(f"{end:.{digits}f}".replace("-", "\u2212") for end in (low, high))


def cell(figures: Mapping[str, Any], key: str) -> Cell:
    """The value under `key`, with the interval under `key_ci95`."""
    return Cell(number(figures.get(key)), interval(figures.get(f"{key}_ci95")))


def p_value(value: Any, resamples: Any = None) -> str:
    """`0.031`, `< 0.001`; `≤ 0.002` where so many resamples cannot tell less."""
    if is_number(value) and is_number(resamples) and 0.001 <= value <= 2.002 / (resamples + 1):
        return f"\u2264 {number(float(value))}"
    return (
        "< 0.001" if is_number(value) and 0 <= value < 0.001 else number(float(value)) if is_number(value) else UNKNOWN
    )


def words(value: Any) -> str:
    """A fact of the protocol as text: lists with commas, mappings as `name value`."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(item)}" for name, item in value.items()) or UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value) or UNKNOWN
    return str(value)


def name_of(key: str) -> str:
    """A key of the metrics as the head of a column."""
    return NAMES.get(key, key.replace("_", " "))


def figure_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of single figures in any of the rows, the known ones first; intervals and curves are left out."""
    keys = {
        key: None
        for row in rows
        for key, value in row.items()
        if key not in _NOT_FIGURES and not key.endswith("_ci95") and (value is None or is_number(value))
    }
    return sorted(keys, key=lambda key: _ORDER.get(key, len(_ORDER)))


def sensitivity_at(froc: Mapping[str, Any], fppi: float) -> tuple[Any, Any]:
    """Sensitivity and its interval at a number of false positives per image; None where it is not reported."""
    for point in entries(froc, "points"):
        if point.get("fppi") == fppi:
            return point.get("sensitivity"), point.get("ci95")
    return None, None


def path_name(path: str) -> str:
    """`detection/bbox/AP50`, `image/tumor/roc_auc` as `box AP50`, `image, tumor: ROC AUC`."""
    *place, key = path.split("/")
    kinds = {"bbox": "box", "segm": "mask"}
    if place and place[0] == "detection":
        kind = kinds.get(place[1], place[1]) if len(place) > 1 else ""
        return " ".join(part for part in (kind, *place[2:], name_of(key)) if part)
    if place[:1] == ["classes"]:
        return f"{'/'.join(place[1:])}: {name_of(key)}"
    if place == ["froc"]:
        figure, _, fppi = key.partition("@")
        return f"lesion {figure} at {fppi} FPPI" if fppi else name_of(key)
    return f"{', '.join(place)}: {name_of(key)}" if place else name_of(key)


def short(name: str) -> str:
    """A name for a figure's legend: one line, without characters that its font lacks."""
    line = printable(" ".join(str(name).split()))
    return line if len(line) <= LONGEST_SHORT_NAME else line[: LONGEST_SHORT_NAME - 1] + "\u2026"
