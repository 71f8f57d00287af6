"""Curves of the metrics as rows of CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mammodet.files import csv_text
from mammodet.reporting.report_values import by_level, by_question, labels_of, models_of, questions_of, section

CsvTable = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def to_csv(table: CsvTable) -> str:
    """A head and its rows as CSV, numbers in full; None is an empty field."""
    head, rows = table
    return csv_text([head, *rows]).encode("utf-8", "backslashreplace").decode()


def curve_tables(metrics: Mapping[str, Any]) -> dict[str, CsvTable]:
    """Every curve by file name without suffix, the model's name first in each row; no rows where no model has it."""
    models = models_of(metrics)
    froc, band = ("fppi", "sensitivity", "threshold"), ("fppi", "low", "high")
    tables: dict[str, CsvTable] = {
        "froc": (("model", *froc), [row for n, m in models for row in _rows(n, section(m, "froc", "curve"), froc)]),
        "froc_band": (("model", *band), [row for n, m in models for row in _rows(n, section(m, "froc", "band"), band)]),
    }
    for label, stem in file_stems(labels_of(models)).items():
        for name, level, figures in by_level(models, label):
            for kind, columns in (("roc", ("fpr", "tpr")), ("pr", ("recall", "precision"))):
                _, rows = tables.setdefault(f"{kind}_{level}_{stem}", (("model", *columns), []))
                rows += _rows(name, section(figures, kind), columns)
            head = ("model", "scores", "bin_low", "bin_high", "mean_score", "share_positive", "count")
            _, rows = tables.setdefault(f"reliability_{level}_{stem}", (head, []))
            for scores, part in (("as predicted", figures), ("calibrated", section(figures, "calibrated"))):
                bins = section(part, "reliability")
                edges = list(bins.get("edges") or [])
                split = {**bins, "bin_low": edges[:-1], "bin_high": edges[1:]}
                rows += [(row[0], scores, *row[1:]) for row in _rows(name, split, head[2:])]
    return tables


def confusion_tables(metrics: Mapping[str, Any]) -> dict[str, CsvTable]:
    """Of each question with classes every pair of classes, by file name without suffix.

    Columns: the model, `true`, `predicted`, `count`, and `share_of_true`, None for a class without cases.
    """
    models = models_of(metrics)
    tables: dict[str, CsvTable] = {}
    for question, stem in file_stems(questions_of(models)).items():
        rows: list[tuple[Any, ...]] = []
        for name, figures in by_question(models, question):
            true, predicted, counts = confusion_of(figures)
            for truth, row in zip(true, counts, strict=True):
                whole = sum(row)
                shares = [count / whole if whole else None for count in row]
                rows += [(name, truth, *cell) for cell in zip(predicted, row, shares, strict=True)]
        tables[f"confusion_{stem}"] = (("model", "true", "predicted", "count", "share_of_true"), rows)
    return tables


def confusion_of(figures: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[int]]]:
    """True classes, predicted classes and the counts (true, predicted) of a question; all empty where they misfit."""
    predicted = [str(name) for name in figures.get("classes") or ()]
    true = [str(name) for name in figures.get("true_classes") or ()]
    counts = figures.get("confusion") or ()
    if len(counts) != len(true) or not all(isinstance(row, list) and len(row) == len(predicted) for row in counts):
        return [], [], []
    if not all(isinstance(count, int) for row in counts for count in row):
        return [], [], []
    return true, predicted, [list(row) for row in counts]


def _rows(name: str, curve: Mapping[str, Any], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for values in zip_longest(*(curve.get(column) or [] for column in columns)):
        yield name, *values


def file_stems(labels: Sequence[str]) -> dict[str, str]:
    """A label's part of a file name: safe on every file system, and no two alike."""
    stems: dict[str, str] = {}
    for label in labels:
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in label)[:60] or "label"
        taken = {other.casefold() for other in stems.values()}
        stems[label] = f"{stem}_{len(stems)}" if stem.casefold() in taken else stem
    return stems
