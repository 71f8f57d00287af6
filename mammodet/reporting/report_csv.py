"""Curves of the metrics as rows of CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mammodet.reporting.report_values import by_level, labels_of, models_of, section

CsvTable = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def to_csv(table: CsvTable) -> str:
    """A head and its rows as CSV, numbers in full; None is an empty field."""
    head, rows = table
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *rows])
    return buffer.getvalue().encode("utf-8", "backslashreplace").decode()


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
