"""The headline figures of metrics.json as text for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mammodet.evaluation.cases import LEVELS


def to_table(metrics: Mapping[str, Any]) -> str:
    """The headline figures of every model, with their intervals where there are some."""
    facts = metrics["protocol"]
    lines = [f"{facts['n_images']} images, {facts['n_patients']} patients"]
    if any(model["froc"] is not None for model in metrics["models"]):
        lines[0] += f", {facts['n_lesions']} lesions with a place"
    lines += [f"  OVERRIDDEN: {override}" for override in facts["overrides"]]
    void = {model["name"] for model in metrics["models"] if model.get("not_a_result")}
    for model in metrics["models"]:
        if len(metrics["models"]) > 1:
            lines.append(f"{model['name']}")
        lines += [f"{line}{VOID if model['name'] in void else ''}" for line in _model(model)]
        lines += [f"  note: {note}" for note in model["notes"]]
    for pair in metrics["comparisons"]:
        stamp = VOID if void & {pair["first"], pair["second"]} else ""
        lines.append(f"{pair['second']} - {pair['first']}{stamp}")
        for name, figure in pair["figures"].items():
            if _is_headline(name):
                interval = _interval(figure["ci95"])
                shown = name.removeprefix("classes/").replace("/", " ")
                least = 2 / (facts["resamples"] + 1) if facts["resamples"] else 0.0
                sign = "<=" if figure["p"] is not None and figure["p"] <= least * 1.001 else "="
                p = "" if figure["p"] is None else f"   p {sign} {figure['p']:.3f}"
                lines.append(f"  {shown:<34} {figure['difference']:+.3f}{interval}{p}{stamp}")
    if facts["resamples"]:
        lines.append(f"  in brackets: {facts['interval']}, {facts['resamples']} resamples, seed {facts['seed']}")
    lines += [f"  note: {note}" for note in metrics["notes"]]
    return "\n".join(lines)


#: Of a comparison on the screen; metrics.json holds more.
HEADLINES = (
    "detection/bbox/AP50",
    "detection/segm/AP50",
    "froc/sensitivity@1",
    "froc/cpm",
    *(f"{level}/{label}/roc_auc" for level in LEVELS for label in ("tumor", "malignant")),
)
CLASS_HEADLINES = ("accuracy", "balanced_accuracy", "quadratic_kappa", "macro_roc_auc")
#: Behind every figure of a model whose figures must not be told as a result.
VOID = "   NOT A RESULT"


def _is_headline(name: str) -> bool:
    return name in HEADLINES or (name.startswith("classes/") and name.rpartition("/")[2] in CLASS_HEADLINES)


def _model(model: Mapping[str, Any]) -> list[str]:
    """Without its notes. A classifier has no figures of places."""
    lines = _places(model) if model["froc"] is not None else []
    for level in LEVELS:
        for label, figures in model[level].items():
            lines += _label(level, label, figures)
    for question, figures in model.get("classes", {}).items():
        lines += _classes(question, figures)
    masks = model.get("masks")
    if masks and masks["n_pairs"]:
        distance = "  -  " if masks["hd95_px"] is None else f"{masks['hd95_px']:.1f} px"
        if masks["hd95_mm"] is not None:
            distance = f"{masks['hd95_mm']:.1f} mm"
        lines.append(
            f"  outlines   Dice {_show(masks['dice'])}{_interval(masks['dice_ci95'])}   IoU {_show(masks['iou'])}   "
            f"HD95 {distance}   ({masks['n_pairs']} found lesions)"
        )
    return lines


def _places(model: Mapping[str, Any]) -> list[str]:
    lines = []
    for kind, title in (("bbox", "box"), ("segm", "mask")):
        figures = model["detection"].get(kind)
        if figures:
            shown = "   ".join(
                f"{name} {_show(value)}{_interval(figures.get(f'{name}_ci95')) if name == 'AP50' else ''}"
                for name, value in figures.items()
                if not name.endswith("_ci95")
            )
            lines.append(f"  {title:<10} {shown}")
    curve = model["froc"]
    points = curve["points"]
    lines.append(
        f"  FROC       {'false positives per image':<28}" + "".join(f"{point['fppi']:>8g}" for point in points)
    )
    found = "".join(f"{_show(point['sensitivity']):>8}" for point in points)
    lines.append(
        f"             {'lesions found (' + curve['match'] + ')':<28}{found}   "
        f"mean (CPM) {_show(curve['cpm'])}{_interval(curve['cpm_ci95'])}"
    )
    if curve["denominator"] != "all images":
        lines.append(f"             counted on {curve['denominator']}")
    return lines


def _label(level: str, label: str, figures: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {level:<8} {label:<10} ROC AUC {_show(figures['roc_auc'])}{_interval(figures['roc_auc_ci95'])}   "
        f"PR AUC {_show(figures['pr_auc'])}   "
        f"({figures['n_positive']} of {figures['n_positive'] + figures['n_negative']} positive)"
    ]
    if level == "image" and figures.get("by_rule"):
        rules = "".join(f"   {rule} {_show(one['roc_auc'])}" for rule, one in figures["by_rule"].items())
        lines.append(f"      AUC by rule:{rules}")
    for point in figures.get("operating_points", ())[:1]:
        lines.append(
            f"      at {point['threshold']:.3f} ({point['goal']} on validation): sensitivity "
            f"{_show(point['sensitivity'])}{_interval(point['sensitivity_ci95'])}   specificity "
            f"{_show(point['specificity'])}{_interval(point['specificity_ci95'])}"
        )
    return lines


def _classes(question: str, figures: Mapping[str, Any]) -> list[str]:
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "F1"}
    names |= {"quadratic_kappa": "quadratic kappa"} if figures["ordered"] else {"kappa": "kappa"}
    shown = "   ".join(
        f"{text} {_show(figures[key])}{_interval(figures[f'{key}_ci95'])}" for key, text in names.items()
    )
    return [
        f"  {question:<19} {shown}",
        f"      ROC AUC, mean of {len(figures['classes'])} classes {_show(figures['macro_roc_auc'])}"
        f"{_interval(figures['macro_roc_auc_ci95'])}   ({figures['n']} images)",
    ]


def _show(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _interval(interval: list[float] | None) -> str:
    return "" if not interval else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
