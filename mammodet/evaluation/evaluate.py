"""All figures of a data set and its predictions, with the protocol that they were made by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mammodet
from mammodet.evaluation.average_precision import average_precision
from mammodet.evaluation.froc import MatchRule, froc
from mammodet.evaluation.roc import classification_figures
from mammodet.records import LABELS, Dataset, Geometry, ImagePrediction, ImageRecord

LEVELS: dict[str, Callable[[ImageRecord], tuple[str, ...] | None]] = {
    "image": lambda record: (str(record.image_id),),
    "breast": lambda record: (
        (record.patient_id, record.laterality) if record.patient_id and record.laterality else None
    ),
    "patient": lambda record: (record.patient_id,) if record.patient_id else None,
}


_PLURALS: dict[Geometry, str] = {"contour": "contours", "circle": "circles", "box": "boxes"}


def evaluate(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    *,
    match: MatchRule = "iou@0.2",
    over_images: str = "max",
    protocol: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """metrics.json, as plain values.

    Args:
        predictions: one per image of the data set, in its order.
        match: rule of the FROC curve.
        over_images: `max` or `mean`: how the images of a breast or a patient are joined.
        protocol: facts to stamp on the result.
    Raises:
        ValueError: predictions of other images, or in another order; another way of joining images.
    """
    if [prediction.image_id for prediction in predictions] != [record.image_id for record in dataset.images]:
        raise ValueError(
            f"{len(predictions)} predictions for {len(dataset.images)} images: expected one each, in the same order"
        )
    if over_images not in ("max", "mean"):
        raise ValueError(f"over_images {over_images!r}: expected max or mean")
    localized = [record for record in dataset.images if not record.unlocalized]
    lesions = [lesion for record in localized for lesion in record.lesions if not lesion.ignore]
    unlocalized = len(dataset.images) - len(localized)
    notes = []
    geometries = {lesion.geometry if lesion.rle else "box" for lesion in lesions}
    with_masks = any(prediction.detections.rles for prediction in predictions) and bool(geometries - {"box"})
    if with_masks and geometries != {"contour"}:
        kinds = " and ".join(_PLURALS[geometry] for geometry in sorted(geometries))
        notes.append(
            f"The ground-truth masks are {kinds}: mask AP tells the agreement with those, not with a drawn outline."
        )
    if unlocalized:
        notes.append(
            f"{unlocalized} images hold a lesion without a place: they count in the image, breast and patient figures "
            "and take no part in AP and FROC."
        )
    if not lesions:
        notes.append("No lesion with a place: AP and FROC cannot be computed.")
    detection = {"bbox": average_precision(dataset, predictions, "bbox")}
    if with_masks:
        detection["segm"] = average_precision(dataset, predictions, "segm")
    metrics: dict[str, Any] = {
        "protocol": {
            **(protocol or {}),
            "n_images": len(dataset.images),
            "n_patients": len({record.patient_id for record in dataset.images if record.patient_id}),
            "n_lesions": len(lesions),
            "n_images_without_boxes": unlocalized,
            "match": match,
            "fppi": "all images",
            "over_images": over_images,
            "version": mammodet.__version__,
        },
        "notes": notes,
        "detection": detection,
        "froc": froc(dataset, predictions, match).to_json(),
        "froc_other_rules": {
            rule: _summary_of(froc(dataset, predictions, rule).to_json())
            for rule in ("iou@0.1", "iou@0.2", "iou@0.5", "center")
            if rule != match
        },
    }
    for level in LEVELS:
        metrics[level] = {}
        for label in LABELS:
            figures = level_figures(dataset, predictions, level, label, over_images)
            if figures is not None:
                metrics[level][label] = figures
    return metrics


def _summary_of(curve: Mapping[str, Any]) -> dict[str, Any]:
    return {key: curve[key] for key in ("points", "cpm")}


def level_figures(
    dataset: Dataset, predictions: Sequence[ImagePrediction], level: str, label: str, over_images: str = "max"
) -> dict[str, Any] | None:
    """Figures of a label at a level, with the AUC of every aggregation rule beside.

    A breast or patient is positive if one of its images is, and unknown if none is positive and one is unknown.

    Returns:
        None where no prediction has such a score or no case a known label.
    """
    figures = None
    rules: dict[str, float | None] = {}
    names = {rule for prediction in predictions for rule in prediction.scores_by_rule}
    for rule in [None, *sorted(names)]:
        labels, scores = _cases(dataset, predictions, level, label, over_images, rule)
        if not labels:
            continue
        one = classification_figures(labels, scores)
        if rule is None:
            figures = one
        else:
            rules[rule] = one["roc_auc"]
    if figures is not None and rules:
        figures["roc_auc_by_rule"] = rules
    return figures


def _cases(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    level: str,
    label: str,
    over_images: str,
    rule: str | None,
) -> tuple[list[int], list[float]]:
    truths: dict[tuple[str, ...], list[int | None]] = defaultdict(list)
    values: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record, prediction in zip(dataset.images, predictions, strict=True):
        scores = prediction.scores if rule is None else prediction.scores_by_rule.get(rule, {})
        key = LEVELS[level](record)
        if key is None:
            continue
        truths[key].append(record.label(label))
        if label in scores:
            values[key].append(scores[label])
    labels, joined = [], []
    for key, members in truths.items():
        if key not in values:
            continue
        if 1 in members:
            truth = 1
        elif None in members:
            continue
        else:
            truth = 0
        labels.append(truth)
        joined.append(max(values[key]) if over_images == "max" else sum(values[key]) / len(values[key]))
    return labels, joined


def validation_figures(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> dict[str, float]:
    """A short flat set for checkpoint choice during training; what cannot be computed is left out.

    Names: `bbox_AP50`, `bbox_AP`, `segm_AP50`, `froc_cpm`, `auc_tumor`, `auc_malignant`, `auc_tumor_RULE`.
    """
    figures: dict[str, float | None] = {}
    for kind in ("bbox", "segm"):
        if kind == "segm" and not any(prediction.detections.rles for prediction in predictions):
            continue
        result = average_precision(dataset, predictions, kind)
        figures[f"{kind}_AP50"], figures[f"{kind}_AP"] = result["AP50"], result["AP"]
    if any(prediction.detections.rles is not None for prediction in predictions):
        figures.setdefault("segm_AP50", 0.0 if figures["bbox_AP50"] is not None else None)
        figures.setdefault("segm_AP", 0.0 if figures["bbox_AP"] is not None else None)
    figures["froc_cpm"] = froc(dataset, predictions).to_json()["cpm"]
    for label in LABELS:
        one = level_figures(dataset, predictions, "image", label)
        if one is not None:
            figures[f"auc_{label}"] = one["roc_auc"]
            for rule, auc in one.get("roc_auc_by_rule", {}).items():
                figures[f"auc_{label}_{rule}"] = auc
    return {name: value for name, value in figures.items() if value is not None}


def to_table(metrics: Mapping[str, Any]) -> str:
    """The headline figures for the screen."""
    facts = metrics["protocol"]
    lines = [f"{facts['n_images']} images, {facts['n_patients']} patients, {facts['n_lesions']} lesions with a place"]
    for kind, title in (("bbox", "box"), ("segm", "mask")):
        if kind in metrics["detection"]:
            figures = metrics["detection"][kind]
            shown = "   ".join(f"{name} {_show(value)}" for name, value in figures.items())
            lines.append(f"  {title:<10} {shown}")
    curve = metrics["froc"]
    points = curve["points"]
    lines.append(
        f"  FROC       {'false positives per image':<28}" + "".join(f"{point['fppi']:>8g}" for point in points)
    )
    found = "".join(f"{_show(point['sensitivity']):>8}" for point in points)
    lines.append(
        f"             {'lesions found (' + curve['match'] + ')':<28}{found}   mean (CPM) {_show(curve['cpm'])}"
    )
    for level in LEVELS:
        for label, figures in metrics[level].items():
            by_rule = figures.get("roc_auc_by_rule", {})
            rules = "".join(f"   {rule} {_show(value)}" for rule, value in by_rule.items())
            lines.append(
                f"  {level:<8} {label:<10} ROC AUC {_show(figures['roc_auc'])}   PR AUC {_show(figures['pr_auc'])}   "
                f"({figures['n_positive']} of {figures['n_positive'] + figures['n_negative']} positive)"
                + (f"\n      AUC by rule:{rules}" if rules and level == "image" else "")
            )
    lines += [f"  note: {note}" for note in metrics["notes"]]
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
