"""The report: one HTML file that opens from disk, with everything in it."""

import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from matplotlib.figure import Figure as Plot

from mammodet.evaluation.results import NO_BOXES, Figure, Metrics, ModelResult
from mammodet.files import write_text
from mammodet.records import Dataset, ImagePrediction
from mammodet.reporting import report_tables as tables
from mammodet.reporting.card import INTENDED_USE, alarms, known_limits, model_facts, protocol_facts
from mammodet.reporting.case_links import case_fragment, svg_links
from mammodet.reporting.confusion import confusion_figure
from mammodet.reporting.curves import (
    COLOURS,
    froc_figure,
    pr_figure,
    reliability_figure,
    roc_figure,
    short,
    stamped,
    to_svg,
)
from mammodet.reporting.gallery import ImageReader, render
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.ranking import DEFAULT_RULE
from mammodet.reporting.report_gallery import PICTURES, choose_gallery, gallery, judge_all, judge_answers
from mammodet.reporting.report_training import training_section
from mammodet.reporting.tables import VOID, Cell, shown

PANEL_HEIGHT = 640
PICTURES_BYTES = 4_000_000  # of all pictures together, before base64 makes a third more of them
GLOSSARY = (
    ("95 % CI", "the interval under a value: where chance in choosing patients would mostly leave it"),
    (
        "no interval",
        "all resamples of the patients agree (what never failed here may fail elsewhere), or too few define it",
    ),
    ("p", "twice the share of resamples that turn the difference round; of many p, one in 20 is below 0.05"),
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
    ("balanced accuracy", "mean over the classes of the part of their cases that is predicted to be of them (recall)"),
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
    predictions: Sequence[Sequence[ImagePrediction]],
    metrics: Metrics,
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
        predictions: of each model of the metrics, in their order.
        image_reader: gives an image as uint8 (H, W), at the size that its record says.
        history_csv: Lightning's `metrics.csv`, for the training curves.
        command: the command line that makes this report again.
        gallery_size: how many pictures per model; all pictures together stay below about 4 MB.
        score_threshold: from which score a detection counts as made, in the galleries.
    """
    models = metrics.models
    page = render(
        "report.html.j2",
        title=title,
        metrics=metrics,
        answers=_answers(models),
        explained=_explained,
        here=shlex.quote(str(path.parent)),
        alarms=alarms(metrics),
        void=[model.name for model in models if model.not_a_result],
        tiles=_tiles(models),
        with_boxes=any(model.detects for model in models),
        no_boxes=NO_BOXES,
        froc=_svg(froc_figure(models), [model for model in models if model.froc]),
        tables=tables,
        levels=[_level(models, label) for label in tables.labels_of(models)],
        questions=[_question(models, question) for question in tables.questions_of(models)],
        training=training_section(history_csv),
        galleries=_galleries(metrics, dataset, predictions, image_reader, gallery_size, score_threshold),
        threshold=f"{score_threshold:.2f}",
        intended_use=INTENDED_USE,
        about=[(model.name, known_limits(metrics, model), model_facts(metrics, model)) for model in models],
        protocol=protocol_facts(metrics.protocol),
        glossary=GLOSSARY,
        command=command,
    )
    write_text(Path(path), page)


def _galleries(
    metrics: Metrics,
    dataset: Dataset,
    predictions: Sequence[Sequence[ImagePrediction]],
    reader: ImageReader,
    size: int,
    score_threshold: float,
) -> list[dict[str, Any]]:
    rule, count_seconds = metrics.protocol.match or DEFAULT_RULE, metrics.protocol.duplicates != "ignored"
    judged = [
        judge_answers(dataset, found)
        if not model.detects
        else judge_all(dataset, found, score_threshold=score_threshold, rule=rule, count_seconds=count_seconds)
        for model, found in zip(metrics.models, predictions, strict=True)
    ]
    choices = [choose_gallery(items, size) for items in judged]
    budget = PICTURES_BYTES // max(1, sum(len(part) for choice in choices for part in choice))
    galleries = []
    for model, items, choice in zip(metrics.models, judged, choices, strict=True):
        options = OverlayOptions(
            score_threshold=score_threshold,
            crop_to_breast=True,
            panel_height=PANEL_HEIGHT,
            emphasis=1.5,
            captions=False,
            categories=dataset.categories,
            detects=model.detects,
        )
        more = {"model": model.name} if len(metrics.models) > 1 else {}
        links = {
            kind: case_fragment(cases="pictures", of=kind, threshold=f"{score_threshold:g}", **more)
            for kind in PICTURES
        }
        made = gallery(items, choice, reader, options, budget=budget)
        image = partial(case_fragment, **({"study": model.name} if more else {}))
        galleries.append({"model": model.name, "links": links, "link": image, **made})
    return galleries


def _level(models: Sequence[ModelResult], label: str) -> dict[str, Any]:
    """What stands under the heading of one label."""
    return {
        "label": label,
        "roc": _svg(roc_figure(models, label), models),
        "pr": _svg(pr_figure(models, label), models),
        "reliability": _svg(reliability_figure(models, label), models),
    }


def _question(models: Sequence[ModelResult], question: str) -> dict[str, Any]:
    """What stands under the heading of one question with classes."""
    several = len(models) > 1

    def cells(model: ModelResult) -> Callable[[str, str], str]:
        more = {"model": model.name} if several else {}
        return lambda true, predicted: case_fragment(
            cases="classes", question=question, true=true, predicted=predicted, **more
        )

    return {
        "name": question,
        "confusions": [
            _svg(confusion_figure(figures, short(model.name if several else question), cells(model)), [model])
            for model, figures in tables.by_question(models, question)
        ],
    }


def _svg(figure: Plot, models: Sequence[ModelResult]) -> Markup:
    return Markup(svg_links(to_svg(stamped(figure, models))))


def _explained(text: str) -> Markup:
    """Words with their meaning on hover, where the glossary has them."""
    found = [
        f"{words}: {meaning}"
        for words, meaning in GLOSSARY
        if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in words.split(", "))
    ]
    return Markup('<abbr title="{}">{}</abbr>').format("\n".join(found), text) if found else escape(text)


def _answers(models: Sequence[ModelResult]) -> list[tuple[str, str]]:
    """Each model's name and its headline figures in a sentence."""
    label, found = headline_label(models), []
    for model in models:
        parts = []
        if model.froc and (at := model.froc.at(1.0)) is not None and at.value is not None:
            parts.append(f"finds {_percent(at)} of the lesions at one false positive per image")
        for level, by_label in (("patients", model.patient), ("images", model.image)):
            auc = by_label[label].roc_auc if label in by_label else None
            if auc is not None and auc.value is not None:
                parts.append(f"ranks {level} with the label {label} above those without in {_percent(auc)} of pairs")
                break
        found.append((f"{model.name} ({VOID})" if model.not_a_result else model.name, "; ".join(parts)))
    return [each for each in found if each[1]]


def _percent(figure: Figure) -> str:
    value = f"{100 * (figure.value or 0.0):.0f} %"
    return (
        value
        if figure.ci95 is None
        else f"{value} (95 % CI {100 * figure.ci95[0]:.0f} to {100 * figure.ci95[1]:.0f} %)"
    )


def _tiles(models: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """The headline figures, each with a line per model that has it."""
    label = headline_label(models)
    figures = [_headline(models, model, label) for model in models]
    return [
        {
            "name": title,
            "lines": [
                {
                    "model": model.name if len(models) > 1 else "",
                    "colour": COLOURS[position % len(COLOURS)],
                    "figure": shown(of_model[title][0]),
                    "detail": of_model[title][1],
                    "void": VOID if model.not_a_result else "",
                }
                for position, (model, of_model) in enumerate(zip(models, figures, strict=True))
                if title in of_model
            ],
        }
        for title in dict.fromkeys(title for of_model in sorted(figures, key=len, reverse=True) for title in of_model)
    ]


def headline_label(models: Sequence[ModelResult]) -> str:
    """The label whose AUC stands on top: `tumor`, or the first that has one, as where every image shows a tumor."""
    labels = [label for model in models for label, one in model.image.items() if one.roc_auc.value is not None]
    return "tumor" if "tumor" in labels or not labels else labels[0]


def _headline(models: Sequence[ModelResult], model: ModelResult, label: str) -> dict[str, tuple[Cell, str]]:
    """Title to figure and what stands under it; a classifier has nothing to say of places."""
    found: dict[str, tuple[Cell, str]] = {}

    def link(figure: Figure | None, **query: str) -> Cell:
        return tables.linked(models, model.name, figure, query)

    if model.froc:
        rule = f"{model.froc.match}, {model.froc.denominator}"
        found["lesion sensitivity at 1 FPPI"] = (link(model.froc.at(1.0), cases="lesions", fppi="1"), rule)
        found["CPM"] = (link(model.froc.cpm, cases="lesions"), "mean of 0.125 to 4 FPPI")
    if model.detection:
        for title, kind in (("box AP50", model.detection.bbox), ("mask AP50", model.detection.segm)):
            if kind:
                found[title] = (link(kind.AP50, cases="lesions"), f"AP50:95 {shown(kind.AP).value}")
    for level, by_label in (("image", model.image), ("patient", model.patient)):
        figures = by_label.get(label)
        if figures:
            counts = f"{figures.n_positive} positive, {figures.n_negative} negative"
            found[f"{level} ROC AUC, {label}"] = (
                link(figures.roc_auc, cases="scores", level=level, label=label),
                counts,
            )
    for question, answers in model.classes.items():
        detail = f"accuracy {shown(answers.accuracy).value}, {answers.n} images"
        found[f"{question}: balanced accuracy"] = (
            link(answers.balanced_accuracy, cases="classes", question=question, wrong="true"),
            detail,
        )
    return found
