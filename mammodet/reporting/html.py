"""The report: one HTML file that opens from disk, with everything in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from mammodet.evaluation.no_boxes import NO_BOXES
from mammodet.files import write_text
from mammodet.records import Dataset, ImagePrediction
from mammodet.reporting import report_tables as tables
from mammodet.reporting.card import INTENDED_USE, alarms, known_limits, model_facts, stamp_facts
from mammodet.reporting.class_gallery import answer_gallery, judge_answers
from mammodet.reporting.confusion import confusion_figure
from mammodet.reporting.curves import (
    COLOURS,
    drawn_in,
    froc_figure,
    pr_figure,
    reliability_figure,
    roc_figure,
    stamped,
    to_svg,
)
from mammodet.reporting.gallery import render
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.ranking import DEFAULT_RULE, known_rule
from mammodet.reporting.report_gallery import (
    ImageReader,
    Judged,
    choose_gallery,
    gallery,
    judge_all,
    prediction_notes,
)
from mammodet.reporting.report_training import training_section
from mammodet.reporting.report_values import (
    UNKNOWN,
    VOID,
    Cell,
    Model,
    by_question,
    cell,
    interval,
    is_classifier,
    labels_of,
    models_of,
    number,
    questions_of,
    section,
    sensitivity_at,
    short,
    texts,
    void_reason,
    words,
)

PANEL_HEIGHT = 640
PICTURES_BYTES = 4_000_000  # of all pictures together, before base64 makes a third more of them
GLOSSARY = (
    ("95 % CI", "the interval under a value: where chance in choosing patients would mostly leave it"),
    (
        "no interval",
        "all resamples of the patients agree (what never failed here may fail elsewhere), or too few define it",
    ),
    (
        "p",
        "twice the share of resamples that turn the difference round; of many p, one in 20 is below 0.05",
    ),
    ("FPPI", "false positives per image: detections that hit no lesion, divided by the denominator's images"),
    ("sensitivity", "part of the positives that are found; of lesions in FROC, of cases elsewhere"),
    ("specificity", "part of the negatives that are called negative"),
    ("CPM", "mean of the lesion sensitivities at the FPPI of the table"),
    ("AP50, AP75", "average precision, a box or mask being right from IoU 0.5, 0.75; AP50:95: mean over 0.5 to 0.95"),
    ("IoU", "intersection over union of two boxes or masks"),
    ("match", "when a detection finds a lesion: iou@t from that IoU, center where its centre lies in the lesion's box"),
    ("ROC AUC", "probability that a positive case scores above a negative one; 0.5 is chance"),
    ("PR AUC", "area under precision and recall; chance is the share of positive cases"),
    ("pF1", "F1 with scores taken as probabilities, without a threshold"),
    ("PPV, NPV", "part of the cases called positive (negative) that are; they change with the share of positives"),
    ("TP, FP, TN, FN", "true and false positives, true and false negatives, in cases"),
    (
        "balanced accuracy",
        "mean over the classes of the part of their cases that is predicted to be of them (recall)",
    ),
    (
        "kappa, quadratic kappa",
        "agreement beyond chance, 1 is best; quadratic: of ordered classes, a mistake counts by its steps squared",
    ),
    ("Brier score, ECE, log loss", "distance of scores from the truth as probabilities; 0 is best"),
    ("Dice, HD95", "agreement of two outlines: overlap, 1 is best; 95th percentile of their distance, 0 is best"),
    ("breast, patient", "all images of one side, or of one person, joined to one score"),
)


def write_report(
    path: Path,
    *,
    title: str,
    dataset: Dataset,
    models: Sequence[tuple[str, Sequence[ImagePrediction]]],
    metrics: Mapping[str, Any],
    image_reader: ImageReader,
    history_csv: Path | None = None,
    command: str = "",
    gallery_size: int = 24,
    score_threshold: float = 0.3,
) -> None:
    """Write the report, whole or not at all.

    Every model has a gallery: images with missed lesions, with false positives, with a wrong label, and a quarter for
    images without an error. Only the galleries' images are read, one at a time; one that cannot be read leaves a
    message in its place. What counts as found follows the match rule of the metrics' protocol.

    Args:
        path: of the HTML file.
        title: its heading.
        dataset: images with ground truth.
        models: name and predictions of each; images without a prediction are counted in a note.
        metrics: what `metrics.json` holds (mammodet-metrics/2); each section may be missing, each value None.
        image_reader: gives an image as uint8 (H, W), at the size that its record says.
        history_csv: Lightning's `metrics.csv`, for the training curves.
        command: the command line that makes this report again.
        gallery_size: how many pictures per model; all pictures together stay below about 4 MB.
        score_threshold: from which score a detection counts as made, in the galleries.
    """
    measured = models_of(metrics)
    protocol = section(metrics, "protocol")
    rule = known_rule(protocol.get("match"))
    options = OverlayOptions(
        score_threshold=score_threshold,
        crop_to_breast=True,
        panel_height=PANEL_HEIGHT,
        emphasis=1.5,
        captions=False,
        categories=dataset.categories,
    )
    duplicates = str(protocol.get("duplicates") or "")
    count_seconds = not any(word in duplicates for word in ("ignore", "neither", "not counted"))
    classifiers = {name for name, model in measured if is_classifier(model)}
    judged = [
        judge_answers(dataset, predictions)
        if name in classifiers
        else judge_all(
            dataset,
            predictions,
            score_threshold=score_threshold,
            rule=rule or DEFAULT_RULE,
            count_seconds=count_seconds,
        )
        for name, predictions in models
    ]
    page = render(
        "report.html.j2",
        title=title,
        alarms=alarms(metrics),
        void=[name for name, model in measured if void_reason(model)],
        protocol=stamp_facts(metrics),
        model_facts=[(name, model_facts(metrics, (name, model))) for name, model in measured],
        tiles=_tiles(measured),
        notes=_notes(metrics, measured, dataset, models),
        detection=_detection(metrics, measured),
        with_boxes=not measured or len(classifiers) < len(measured),
        no_boxes=NO_BOXES,
        levels=[_level(measured, label) for label in labels_of(measured)],
        questions=[_question(measured, question) for question in questions_of(measured)],
        masks=tables.mask_table(measured),
        mask_notes=_mask_notes(measured),
        strata=tables.strata_tables(measured),
        comparisons=tables.comparison_tables(metrics),
        training=training_section(history_csv),
        galleries=_galleries(models, judged, image_reader, options, gallery_size, classifiers),
        gallery_rule=rule or DEFAULT_RULE,
        rule_is_known=rule is not None,
        threshold=f"{score_threshold:.2f}",
        intended_use=INTENDED_USE,
        limits=[(name, known_limits(metrics, (name, model))) for name, model in measured],
        versions=[(str(name), words(value)) for name, value in section(protocol, "versions").items()],
        glossary=GLOSSARY,
        command=command,
    )
    write_text(Path(path), page)


def _galleries(
    models: Sequence[tuple[str, Sequence[ImagePrediction]]],
    judged: Sequence[Sequence[Judged]],
    reader: ImageReader,
    options: OverlayOptions,
    size: int,
    classifiers: Collection[str],
) -> list[dict[str, Any]]:
    choices = [choose_gallery(items, size) for items in judged]
    pictures = sum(len(part) for choice in choices for part in choice)
    budget = PICTURES_BYTES // max(1, pictures)
    return [
        {
            "model": name,
            **(answer_gallery if name in classifiers else gallery)(items, choice, reader, options, budget=budget),
        }
        for (name, _), items, choice in zip(models, judged, choices, strict=True)
    ]


def _detection(metrics: Mapping[str, Any], models: Sequence[Model]) -> dict[str, Any]:
    """What stands under the heading of the lesions."""
    froc = next((section(model, "froc") for _, model in models if section(model, "froc")), {})
    facts = {**section(metrics, "protocol"), **{key: value for key, value in froc.items() if value is not None}}
    rule = [
        f"{name} {words(facts[key])}"
        for key, name in (("match", "match"), ("denominator", "denominator"), ("duplicates", "second detections"))
        if facts.get(key)
    ]
    return {
        "froc": _svg(froc_figure(models), drawn_in("froc", models)),
        "rule": "; ".join(rule),
        "sensitivity": tables.sensitivity_table(models),
        "others": tables.other_rules_table(models),
        "average_precision": tables.average_precision_table(models),
        "sizes": tables.size_table(models),
    }


def _level(models: Sequence[Model], label: str) -> dict[str, Any]:
    """What stands under the heading of one label."""
    return {
        "label": label,
        "roc": _svg(roc_figure(models, label), models),
        "pr": _svg(pr_figure(models, label), models),
        "reliability": _svg(reliability_figure(models, label), models),
        "figures": tables.level_table(models, label),
        "rules": tables.aggregation_table(models, label),
        "operating": tables.operating_table(models, label),
        "calibration": tables.calibration_table(models, label),
    }


def _question(models: Sequence[Model], question: str) -> dict[str, Any]:
    """What stands under the heading of one question with classes."""
    asked = {name for name, _ in by_question(models, question)}
    return {
        "name": question,
        "figures": tables.class_table(models, question),
        "per_class": tables.per_class_table(models, question),
        "confusions": [
            _svg(confusion_figure(model, question, title=short(model[0]) if len(models) > 1 else ""), [model])
            for model in models
            if model[0] in asked
        ],
    }


def _svg(figure: Figure, models: Sequence[Model]) -> Markup:
    return Markup(to_svg(stamped(figure, models)))


def _tiles(models: Sequence[Model]) -> list[dict[str, Any]]:
    """The headline figures, each with a line per model."""
    label = headline_label(models)
    figures = [_headline(model, label) for _, model in models] or [_headline({}, label)]
    names = [name for name, _ in models] or [""]
    void = {name for name, model in models if void_reason(model)}
    return [
        {
            "name": title,
            "lines": [
                {
                    "model": name if len(models) > 1 else "",
                    "colour": COLOURS[position % len(COLOURS)],
                    "value": of_model[title][0].value,
                    "interval": of_model[title][0].interval,
                    "detail": "not measured" if of_model[title][0].value == UNKNOWN else of_model[title][1],
                    "void": VOID if name in void else "",
                }
                for position, (name, of_model) in enumerate(zip(names, figures, strict=True))
                if title in of_model
            ],
        }
        for title in dict.fromkeys(title for of_model in sorted(figures, key=len, reverse=True) for title in of_model)
    ]


def headline_label(models: Sequence[Model]) -> str:
    """The label whose AUC stands on top: `tumor`, or the first that has one, as where every image shows a tumor."""
    labels = [label for _, model in models for label, one in section(model, "image").items() if _has_auc(one)]
    return "tumor" if "tumor" in labels or not labels else str(labels[0])


def _has_auc(figures: Any) -> bool:
    return isinstance(figures, Mapping) and figures.get("roc_auc") is not None


def _headline(model: Mapping[str, Any], label: str) -> dict[str, tuple[Cell, str]]:
    """Title to value and what stands under it; a classifier has nothing to say of places."""
    found = {} if is_classifier(model) else _headline_of_places(model)
    for level in ("image", "patient"):
        figures = section(model, level, label)
        if is_classifier(model) and not figures:
            continue
        cases = [
            f"{number(figures[key])} {name}"
            for key, name in (("n_positive", "positive"), ("n_negative", "negative"))
            if figures.get(key) is not None
        ]
        found[f"{level} ROC AUC, {label}"] = (cell(figures, "roc_auc"), ", ".join(cases))
    for question in questions_of([("", model)]):
        figures = section(model, "classes", question)
        detail = f"accuracy {cell(figures, 'accuracy').value}, {number(figures.get('n'))} images"
        found[f"{question}: balanced accuracy"] = (cell(figures, "balanced_accuracy"), detail)
    return found


def _headline_of_places(model: Mapping[str, Any]) -> dict[str, tuple[Cell, str]]:
    froc, boxes, masks = (
        section(model, "froc"),
        section(model, "detection", "bbox"),
        section(model, "detection", "segm"),
    )
    value, between = sensitivity_at(froc, 1)
    rule = ", ".join(str(froc[key]) for key in ("match", "denominator") if froc.get(key))
    return {
        "lesion sensitivity at 1 FPPI": (Cell(number(value), interval(between)), rule),
        "CPM": (cell(froc, "cpm"), "mean of 0.125 to 4 FPPI"),
        "box AP50": (cell(boxes, "AP50"), f"AP50:95 {cell(boxes, 'AP').value}"),
        "mask AP50": (cell(masks, "AP50"), f"AP50:95 {cell(masks, 'AP').value}"),
    }


def _notes(
    metrics: Mapping[str, Any],
    measured: Sequence[Model],
    dataset: Dataset,
    models: Sequence[tuple[str, Sequence[ImagePrediction]]],
) -> list[str]:
    several = max(len(measured), len(models)) > 1
    notes = texts(metrics, "notes")
    for name, model in measured:
        notes += [f"{name}: {note}" if several else note for note in texts(model, "notes")]
    for name, predictions in models:
        notes += [f"{name}: {note}" if several else note for note in prediction_notes(dataset, predictions)]
    return notes


def _mask_notes(models: Sequence[Model]) -> list[str]:
    notes = [note for _, model in models for note in texts(section(model, "masks"), "note")]
    return list(dict.fromkeys(notes))
