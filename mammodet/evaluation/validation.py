"""A short flat set of figures for the choice of checkpoints during training."""

from collections.abc import Sequence

import numpy as np

from mammodet.data.packed_predictions import PackedPredictions
from mammodet.evaluation.average_precision import average_precision
from mammodet.evaluation.cases import cases
from mammodet.evaluation.froc import froc
from mammodet.evaluation.roc import scores_of
from mammodet.records import LABELS, Dataset, ImagePrediction
from mammodet.targets import class_of


def detector_figures(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> dict[str, float]:
    """A short flat set for checkpoint choice during training; what cannot be computed is left out.

    Names: `bbox_AP50`, `bbox_AP`, `segm_AP50`, `froc_cpm`, `auc_tumor`, `auc_malignant`, `auc_tumor_RULE`.
    """
    predictions, figures = PackedPredictions.of(predictions), dict[str, float | None]()
    for kind in ("bbox", "segm"):
        if kind == "segm" and not any(prediction.detections.rles for prediction in predictions):
            continue
        result = average_precision(dataset, predictions, kind)
        figures[f"{kind}_AP50"], figures[f"{kind}_AP"] = result.AP50.value, result.AP.value
    if any(prediction.detections.rles is not None for prediction in predictions):
        figures.setdefault("segm_AP50", 0.0 if figures["bbox_AP50"] is not None else None)
        figures.setdefault("segm_AP", 0.0 if figures["bbox_AP"] is not None else None)
    figures["froc_cpm"] = froc(dataset, predictions).cpm
    for label in LABELS:
        for rule in (None, *predictions.rules):
            chosen = cases(dataset, predictions, "image", label, rule=rule)
            if len(chosen):
                name = f"auc_{label}" if rule is None else f"auc_{label}_{rule}"
                figures[name] = scores_of(chosen.labels, chosen.scores).roc_auc.value
    return {name: value for name, value in figures.items() if value is not None}


def classifier_figures(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> dict[str, float]:
    """Figures of a classifier; what cannot be computed is left out.

    Names: for each label that has a score `auc_LABEL`, `pr_auc_LABEL`, `pf1_LABEL` and `accuracy_LABEL` (from 0.5 on);
    for each question with classes `accuracy_QUESTION` and `balanced_accuracy_QUESTION`, the mean over the true classes.
    """
    figures: dict[str, float] = {}
    for label in sorted({name for prediction in predictions for name in prediction.scores}):
        chosen = cases(dataset, predictions, "image", label)
        if not len(chosen):
            continue
        found = scores_of(chosen.labels, chosen.scores)
        values = {"auc": found.roc_auc.value, "pr_auc": found.pr_auc.value, "pf1": found.pf1.value}
        values["accuracy"] = found.accuracy_at_half.value
        figures |= {f"{name}_{label}": value for name, value in values.items() if value is not None}
    for question in sorted({name for prediction in predictions for name in prediction.class_scores}):
        hits: dict[str, list[bool]] = {}
        for record, prediction in zip(dataset.images, predictions, strict=True):
            truth, answer = class_of(record, question), prediction.class_scores.get(question)
            if truth is not None and answer:
                hits.setdefault(truth, []).append(max(answer, key=lambda name: answer[name]) == truth)
        if hits:
            figures[f"accuracy_{question}"] = float(np.mean([hit for members in hits.values() for hit in members]))
            figures[f"balanced_accuracy_{question}"] = float(np.mean([np.mean(members) for members in hits.values()]))
    return figures
