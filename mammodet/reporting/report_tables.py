"""The tables of a result: for the report, the model card and the screen."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from mammodet.evaluation.results import (
    AllClasses,
    AtThreshold,
    ClassResult,
    Figure,
    FrocPoints,
    LabelResult,
    Level,
    Metrics,
    ModelResult,
    OneClass,
    OperatingPoint,
    PairAgreement,
    Place,
    Probabilities,
    QuestionResult,
    Ranking,
    Record,
    Stratum,
    figure_names,
)
from mammodet.reporting.case_links import case_fragment
from mammodet.reporting.tables import VOID, Cell, Shown, Table, interval, number, p_value, shown, to_text

Models = Sequence[ModelResult]
SCREEN: tuple[Place, ...] = ("screen",)
#: Names of a row, of which the first is the model's, and a record.
Row = tuple[tuple[str, ...], Record]
#: What a link to the cases of a cell asks for (`mammodet.serving.cases`).
Query = Mapping[str, Any]
#: The cases that lower a figure, by the name of its field; those of others are all.
CALLS = {
    **{"sensitivity": "fn", "specificity": "fp", "ppv": "fp", "npv": "fn"},
    **dict.fromkeys(("accuracy", "f1", "f2", "f1_at_half", "accuracy_at_half"), "wrong"),
    **{"n_positive": "positive", "n_negative": "negative", **{name: name for name in ("tp", "fp", "tn", "fn")}},
}


def labels_of(models: Models) -> list[str]:
    """Labels that any model has figures for, at any level."""
    return list(dict.fromkeys(label for model in models for _, label, _ in model.labels()))


def by_level(models: Models, label: str) -> Iterator[tuple[ModelResult, Level, LabelResult]]:
    """Model, level and figures of a label, where there are any."""
    for model in models:
        for level, name, figures in model.labels():
            if name == label:
                yield model, level, figures


def questions_of(models: Models) -> list[str]:
    """Questions with several classes that any model answers."""
    return list(dict.fromkeys(question for model in models for question in model.classes))


def by_question(models: Models, question: str) -> list[tuple[ModelResult, QuestionResult]]:
    """The models that answer a question, with their figures."""
    return [(model, model.classes[question]) for model in models if question in model.classes]


def _join(
    models: Models,
    corner: tuple[str, ...],
    head: Sequence[str],
    rows: Sequence[tuple[tuple[str, ...], tuple[Cell, ...]]],
    title: str = "",
) -> Table:
    """Rows that are given as (model, other names...); models stand line by line below each other.

    The model's column goes where there is one model and another name is left.
    """
    order = {rest: rank for rank, rest in enumerate(dict.fromkeys(names[1:] for names, _ in rows))}
    several = len(models) > 1 or not corner
    marked = {model.name: f"{model.name} ({VOID})" if model.not_a_result else model.name for model in models}
    return Table(
        (*corner, "model") if several else corner,
        tuple(head),
        tuple(
            ((*names[1:], marked[names[0]]) if several else names[1:], cells)
            for names, cells in sorted(rows, key=lambda row: order[row[0][1:]])
        ),
        title,
    )


def linked(models: Models, model: str, cell: Cell, query: Query) -> Cell:
    """A cell with a link to its cases; of several models the link names the one that it is of."""
    if cell is None or (isinstance(cell, Figure) and cell.value is None):
        return cell
    return shown(cell)._replace(cases=case_fragment(**query, **({"model": model} if len(models) > 1 else {})))


def _records(
    models: Models,
    corner: tuple[str, ...],
    rows: Sequence[Row],
    fields: Sequence[str],
    title: str = "",
    *,
    cases: Callable[[tuple[str, ...], Any, str], Query],
) -> Table:
    """Fields of records as columns, without those that are None everywhere; `cases`: of names, record and field."""
    columns = [name for name in fields if any(getattr(record, name, None) is not None for _, record in rows)]
    titles = {name: field.title or name for _, record in rows for name, field in type(record).model_fields.items()}
    cells = [
        (
            names,
            tuple(
                linked(models, names[0], getattr(record, name, None), cases(names[1:], record, name))
                for name in columns
            ),
        )
        for names, record in rows
    ]
    return _join(models, corner, [titles[name] for name in columns], cells, title)


def average_precision_table(models: Models) -> Table:
    """AP, AP50, AP75 of boxes and masks: over all categories, and AP50 of each."""
    head = ("AP50:95", "AP50", "AP75")
    rows: list[tuple[tuple[str, ...], tuple[Cell, ...]]] = []
    for model in models:
        found = model.detection
        for kind, figures in (("boxes", found and found.bbox), ("masks", found and found.segm)):
            if figures:
                by_category: dict[str, tuple[Cell, ...]] = {"all": (figures.AP, figures.AP50, figures.AP75)}
                by_category |= {name: (None, figure, None) for name, figure in figures.AP50_by_category.items()}
                for category, cells in by_category.items():
                    query = {"cases": "lesions"} | ({} if category == "all" else {"category": category})
                    rows.append(
                        ((model.name, kind, category), tuple(linked(models, model.name, cell, query) for cell in cells))
                    )
    return _join(models, ("of", "category"), head, rows)


def size_table(models: Models) -> Table:
    """AP of lesions of one size class at a time."""
    rows: list[Row] = [((model.name, row.size), row) for model in models for row in model.ap_by_size]
    fields = ("n_lesions", "bbox_ap", "bbox_ap50", "segm_ap", "segm_ap50")
    return _records(
        models,
        ("lesion size",),
        rows,
        fields,
        cases=lambda names, *_: {"cases": "images", "variable": "lesion size", "value": names[0]},
    )


def _points(models: Models, model: ModelResult, froc: FrocPoints, **of: str) -> tuple[Cell, ...]:
    query = {"cases": "lesions", **of}
    points = [linked(models, model.name, one.sensitivity, {**query, "fppi": f"{one.fppi:g}"}) for one in froc.points]
    return (*points, linked(models, model.name, froc.cpm, query))


def _point_heads(models: Models) -> list[str]:
    first = next((model.froc for model in models if model.froc), None)
    return [*(f"{point.fppi:g} FPPI" for point in first.points), "CPM"] if first else []


def sensitivity_table(models: Models) -> Table:
    """Sensitivity at 0.125 to 4 false positives per image, and CPM."""
    rows = [((model.name, "all lesions"), _points(models, model, model.froc)) for model in models if model.froc]
    rows += [
        ((model.name, f"{category} only"), _points(models, model, froc, category=category))
        for model in models
        for category, froc in model.froc_by_category.items()
    ]
    return _join(models, ("lesions",), _point_heads(models), rows)


def other_rules_table(models: Models) -> Table:
    """The same boxes under each match rule and denominator, the report's own first."""
    rows: list[tuple[tuple[str, ...], tuple[Cell, ...]]] = [
        (
            (model.name, f"{froc.match}{' (this report)' if froc is model.froc else ''}", froc.denominator),
            (froc.n_images, *_points(models, model, froc, match=froc.match, denominator=froc.denominator)),
        )
        for model in models
        if model.froc
        for froc in (model.froc, *model.froc_others)
    ]
    return _join(models, ("match", "denominator"), ["images", *_point_heads(models)], rows)


def strata_tables(models: Models) -> list[Table]:
    """Figures of a part of the data at a time, one table per variable."""
    fields = ("n_images", "n_lesions", "n_patients", "sensitivity_at_1", "cpm", "roc_auc")
    variables = dict.fromkeys(row.variable for model in models for row in model.strata)
    return [
        _records(
            models,
            (variable,),
            [((model.name, row.value), row) for model in models for row in model.strata if row.variable == variable],
            fields,
            variable,
            cases=_of_stratum,
        )
        for variable in variables
    ]


def _of_stratum(names: tuple[str, ...], record: Stratum, field: str) -> Query:
    query = {"variable": record.variable, "value": record.value}
    if field in ("sensitivity_at_1", "cpm", "n_lesions"):
        return {"cases": "lesions", **query, **({"fppi": "1"} if field == "sensitivity_at_1" else {})}
    return {"cases": "images", **query}


def level_table(models: Models, label: str) -> Table:
    """How well a label's score ranks cases, per level."""
    rows: list[Row] = [((model.name, level), figures) for model, level, figures in by_level(models, label)]
    return _records(
        models, ("level",), rows, ("n_positive", "n_negative", *figure_names(Ranking)), cases=_of_label(label)
    )


def _of_label(label: str, *more: str) -> Callable[[tuple[str, ...], Any, str], Query]:
    """Cases of the level in a row's names; `more` says what the names after it are."""

    def query(names: tuple[str, ...], record: Any, field: str) -> Query:
        found = {"cases": "scores", "level": names[0], "label": label, **dict(zip(more, names[1:], strict=False))}
        found |= {"call": CALLS[field]} if field in CALLS else {}
        return found | ({"threshold": repr(record.threshold)} if isinstance(record, OperatingPoint) else {})

    return query


def aggregation_table(models: Models, label: str) -> Table:
    """Every rule that makes a case's score out of its detections and the image head, per level."""
    rows: list[Row] = [
        ((model.name, level, rule), scores)
        for model, level, figures in by_level(models, label)
        for rule, scores in figures.by_rule.items()
    ]
    return _records(
        models,
        ("level", "rule"),
        rows,
        (*figure_names(Ranking), *figure_names(Probabilities)),
        cases=_of_label(label, "rule"),
    )


def operating_table(models: Models, label: str) -> Table:
    """What a threshold makes of the scores, per level and goal."""
    rows: list[Row] = [
        ((model.name, level, point.goal), point)
        for model, level, figures in by_level(models, label)
        for point in figures.operating_points
    ]
    fields = ("threshold", *figure_names(AtThreshold), "tp", "fp", "tn", "fn")
    return _records(models, ("level", "goal"), rows, fields, cases=_of_label(label))


def calibration_table(models: Models, label: str) -> Table:
    """How far scores can be read as probabilities, before and after calibration."""
    rows: list[Row] = [
        ((model.name, level, scores), record)
        for model, level, figures in by_level(models, label)
        for scores, record in (("as predicted", figures), ("calibrated", figures.calibrated))
        if record is not None
    ]
    return _records(models, ("level", "scores"), rows, figure_names(Probabilities), cases=_of_label(label))


def mask_table(models: Models) -> Table:
    """Agreement of the masks: of matched pairs, and of all of an image at once."""
    rows: list[Row] = [
        ((model.name, per), record)
        for model in models
        if model.masks
        for per, record in (("found lesion", model.masks), ("whole image", model.masks.per_image))
        if record is not None
    ]
    fields = ("n_images", "n_pairs", "n_without_contour", *figure_names(PairAgreement))
    return _records(models, ("per",), rows, fields, cases=lambda names, *_: {"cases": "outlines", "per": names[0]})


def class_table(models: Models, question: str) -> Table:
    """Figures over all classes of a question."""
    rows: list[Row] = [((model.name, "all classes"), figures) for model, figures in by_question(models, question)]
    return _records(models, (question,), rows, ("n", *figure_names(AllClasses)), cases=_of_question(question))


def _of_question(question: str) -> Callable[[tuple[str, ...], Any, str], Query]:
    """The images that lower a figure: wrong ones, of the class that a row may be about."""

    def query(names: tuple[str, ...], record: Any, field: str) -> Query:
        side = {"support": "true", "recall": "true", "predicted": "predicted", "precision": "predicted"}.get(field)
        of = {side: record.name} if side and isinstance(record, ClassResult) else {}
        whole = field in ("n", "support", "predicted", "roc_auc", "macro_roc_auc", "log_loss")
        return {"cases": "classes", "question": question, **of, **({} if whole else {"wrong": "true"})}

    return query


def per_class_table(models: Models, question: str) -> Table:
    """Figures of each class, against all others; a class that the model does not know is marked."""
    rows: list[Row] = [
        ((model.name, f"{row.name}{'' if row.predicted is not None else ' (not known to the model)'}"), row)
        for model, figures in by_question(models, question)
        for row in figures.per_class
    ]
    return _records(
        models, ("class",), rows, ("support", "predicted", *figure_names(OneClass)), cases=_of_question(question)
    )


def comparison_tables(metrics: Metrics) -> list[tuple[Table, Table]]:
    """Differences of two models on the same patients, second minus first: headline figures, and the others."""
    void = {model.name for model in metrics.models if model.not_a_result}
    tables = []
    for pair in metrics.comparisons:
        rows: dict[bool, list[tuple[tuple[str, ...], tuple[Cell, ...]]]] = {True: [], False: []}
        for one in pair.differences:
            difference = Shown(number(one.difference.value, sign=True), interval(one.difference.ci95))
            p = p_value(one.p, metrics.protocol.resamples)
            rows[one.place == "screen"].append(((one.figure,), (one.first, one.second, difference, p)))
        title = f"{pair.second} against {pair.first}{f': {VOID}' if void & {pair.first, pair.second} else ''}"
        head = (pair.first, pair.second, "difference", "p")
        tables.append(
            (Table(("figure",), head, tuple(rows[True]), title), Table(("figure",), head, tuple(rows[False]), title))
        )
    return tables


def headline_table(model: ModelResult, places: Collection[Place] = ("screen", "card")) -> Table:
    """The headline figures of one model: one row each, value and interval."""
    rows = tuple(
        ((one.name,), (number(one.figure.value), interval(one.figure.ci95) or number(None), one.cases or number(None)))
        for one in model.figures()
        if one.place in places
    )
    return Table(("figure",), ("value", "95 % interval", "cases"), rows)


def to_screen(metrics: Metrics) -> str:
    """The headline figures of every model and every comparison, with what a reader must know."""
    facts = metrics.protocol
    lines = [f"{facts.n_images} images, {facts.n_patients} patients"]
    if any(model.detects for model in metrics.models):
        lines[0] += f", {facts.n_lesions} lesions with a place"
    lines += [f"  OVERRIDDEN: {override}" for override in facts.overrides]
    void = {model.name for model in metrics.models if model.not_a_result}
    for model in metrics.models:
        lines += [model.name] if len(metrics.models) > 1 else []
        lines += _stamped(headline_table(model, SCREEN), stamp=model.name in void)
        lines += [f"  note: {note}" for note in model.notes]
    for pair, (table, _) in zip(metrics.comparisons, comparison_tables(metrics), strict=True):
        lines += _stamped(table, stamp=bool(void & {pair.first, pair.second}))
    if facts.resamples:
        lines.append(f"  {facts.interval}, {facts.resamples} resamples, seed {facts.seed}")
    return "\n".join([*lines, *(f"  note: {note}" for note in metrics.notes)])


def _stamped(table: Table, *, stamp: bool) -> list[str]:
    """Lines of a table; NOT A RESULT behind each, where it is none."""
    return [f"{line}   {VOID}" if stamp else line for line in to_text(table).splitlines()]
