"""A short flat set of figures for the choice of checkpoints during the training of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mammodet.evaluation.cases import cases
from mammodet.evaluation.roc import classification_figures
from mammodet.records import Dataset, ImagePrediction
from mammodet.targets import class_of


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
        found = classification_figures(chosen.labels, chosen.scores)
        values = {"auc": found["roc_auc"], "pr_auc": found["pr_auc"], "pf1": found["pf1"]}
        values["accuracy"] = float(((chosen.scores >= 0.5) == (chosen.labels == 1)).mean())
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
