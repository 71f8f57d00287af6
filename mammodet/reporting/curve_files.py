"""Curves and confusion matrices of a result as files: CSV, SVG, PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot

from mammodet.evaluation.results import QuestionResult, Record
from mammodet.files import write_text
from mammodet.reporting.confusion import confusion_figure
from mammodet.reporting.curves import (
    froc_figure,
    pr_figure,
    reliability_figure,
    roc_figure,
    short,
    stamped,
    write_figures,
)
from mammodet.reporting.report_tables import Models, by_level, by_question, labels_of, questions_of
from mammodet.reporting.tables import Cell, Table, to_csv

Rows = list[tuple[tuple[str, ...], tuple[Cell, ...]]]


def curve_tables(models: Models) -> dict[str, Table]:
    """Every curve that a model has, by file name without suffix, the model's name first in each row.

    `froc` (fppi, sensitivity, threshold), `froc_band` (fppi, low, high), per level and label `roc_...`, `pr_...` and
    `reliability_...`, whose column `scores` is `as predicted` or `calibrated`, and per question `confusion_...` with
    every pair of classes; an empty field is not known.
    """
    detectors = [model for model in models if model.froc]
    tables = {
        "froc": _lists([(model.name, model.froc and model.froc.curve) for model in detectors]),
        "froc_band": _lists([(model.name, model.froc and model.froc.band) for model in detectors]),
    }
    for label, stem in file_stems(labels_of(models)).items():
        for level in dict.fromkeys(level for _, level, _ in by_level(models, label)):
            found = [(model.name, figures) for model, at, figures in by_level(models, label) if at == level]
            tables[f"roc_{level}_{stem}"] = _lists([(name, figures.roc) for name, figures in found])
            tables[f"pr_{level}_{stem}"] = _lists([(name, figures.pr) for name, figures in found])
            rows: Rows = [
                ((name, scores), cells)
                for name, figures in found
                for scores, part in (("as predicted", figures), ("calibrated", figures.calibrated))
                if part is not None
                for bins in [part.reliability]
                for cells in zip(
                    bins.edges[:-1], bins.edges[1:], bins.mean_score, bins.share_positive, bins.count, strict=True
                )
            ]
            head = ("bin_low", "bin_high", "mean_score", "share_positive", "count")
            tables[f"reliability_{level}_{stem}"] = Table(("model", "scores"), head, tuple(rows))
    for question, stem in file_stems(questions_of(models)).items():
        rows = [row for model, figures in by_question(models, question) for row in _confusion(model.name, figures)]
        tables[f"confusion_{stem}"] = Table(("model", "true", "predicted"), ("count", "share_of_true"), tuple(rows))
    return {name: table for name, table in tables.items() if table.rows}


def _lists(curves: Sequence[tuple[str, Record | None]]) -> Table:
    """Records of equally long lists, a column each."""
    known = [(name, curve) for name, curve in curves if curve is not None]
    columns = tuple(type(known[0][1]).model_fields) if known else ()
    rows: Rows = [
        ((name,), cells)
        for name, curve in known
        for cells in zip(*(getattr(curve, column) for column in columns), strict=True)
    ]
    return Table(("model",), columns, tuple(rows))


def _confusion(name: str, figures: QuestionResult) -> Rows:
    return [
        ((name, truth, answer), (count, count / sum(row) if sum(row) else None))
        for truth, row in zip(figures.true_classes, figures.confusion, strict=True)
        for answer, count in zip(figures.classes, row, strict=True)
    ]


def figures_of(models: Models) -> dict[str, Plot]:
    """All curves and matrices by file name without suffix; without a detector there is no `froc`.

    `froc`, `roc_tumor`, `pr_tumor`, `reliability_tumor`, ..., `confusion_density`, and of several models
    `confusion_density_1`, ...
    """
    detectors = [model for model in models if model.detects]
    figures = {"froc": stamped(froc_figure(detectors), detectors)} if detectors else {}
    for label, stem in file_stems(labels_of(models)).items():
        for name, make in (("roc", roc_figure), ("pr", pr_figure), ("reliability", reliability_figure)):
            figures[f"{name}_{stem}"] = stamped(make(models, label), models)
    for question, stem in file_stems(questions_of(models)).items():
        for number, model in enumerate(models, start=1):
            if question not in model.classes:
                continue
            several = len(models) > 1
            title = f"{short(question)}: {short(model.name)}" if several else short(question)
            name = f"confusion_{stem}_{number}" if several else f"confusion_{stem}"
            figures[name] = stamped(confusion_figure(model.classes[question], title), [model])
    return figures


def write_curves(folder: Path, models: Models) -> list[Path]:
    """Write every table as CSV, and every figure as SVG and PNG.

    Args:
        folder: made where it is missing.
    Returns:
        the files' paths, in the order in which they were written.
    """
    written = []
    for name, table in curve_tables(models).items():
        written.append(Path(folder) / f"{name}.csv")
        write_text(written[-1], to_csv(table))
    return written + write_figures(Path(folder), figures_of(models))


def file_stems(labels: Sequence[str]) -> Mapping[str, str]:
    """A label's part of a file name: safe on every file system, and no two alike."""
    stems: dict[str, str] = {}
    for label in labels:
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in label)[:60] or "label"
        taken = {other.casefold() for other in stems.values()}
        stems[label] = f"{stem}_{len(stems)}" if stem.casefold() in taken else stem
    return stems
