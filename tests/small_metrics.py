"""A small metrics.json by hand, with every section, for one model or several."""

from __future__ import annotations

import copy
from typing import Any

HOSTILE = "<script>alert(1)</script>"

FROC: dict[str, Any] = {
    "match": "iou@0.2",
    "denominator": "all images",
    "duplicates": "false positive",
    "n_images": 4,
    "n_lesions": 8,
    "points": [
        {"fppi": 0.125, "sensitivity": 0.25, "ci95": [0.1, 0.4]},
        {"fppi": 1, "sensitivity": 0.625, "ci95": [0.41, 0.8]},
        {"fppi": 4, "sensitivity": None, "ci95": None},
    ],
    "cpm": 0.4375,
    "cpm_ci95": [0.3, 0.6],
}
CURVE = {
    "curve": {"fppi": [0, 0.5, 2], "sensitivity": [0.1, 0.5, 0.9], "threshold": [None, 0.5, 0.1]},
    "band": {"fppi": [0, 1], "low": [0.0, 0.4], "high": [0.3, 0.8]},
}
RELIABILITY = {"edges": [0, 0.5, 1], "mean_score": [0.2, None], "share_positive": [0.25, None], "count": [4, 0]}
LABEL: dict[str, Any] = {
    "n_positive": 3,
    "n_negative": 4,
    "roc_auc": 0.9,
    "roc_auc_ci95": [0.71, 0.98],
    "pr_auc": 0.8,
    "brier": 0.125,
    "ece": 0.05,
    "log_loss": 0.4,
    "roc": {"fpr": [0, 0.5, 1], "tpr": [0, 1, 1]},
    "pr": {"recall": [0, 1], "precision": [1, 0.5]},
    "reliability": RELIABILITY,
    "by_rule": {"max": {"roc_auc": 0.87, "roc_auc_ci95": [0.7, 0.95]}, "noisy_or": {"roc_auc": 0.86}},
    "operating_points": [{"goal": "sensitivity@0.9", "threshold": 0.31, "sensitivity": 1.0, "tp": 3, "fn": 0}],
    "calibrated": {"brier": 0.1, "ece": 0.02, "log_loss": 0.3, "reliability": RELIABILITY},
}
MODEL: dict[str, Any] = {
    "name": "first",
    "protocol": {
        "predictions": "runs/first/predictions.json",
        "checkpoint_sha256": "ab" * 32,
        "trained_on_split_hash": "01" * 32,
        "patients_seen_in_training": 0,
        "calibration": {"method": "platt"},
    },
    "notes": [],
    "detection": {
        "bbox": {"AP": 0.4, "AP50": 0.71, "AP50_ci95": [0.612, 0.793], "AP75": None, "AP50/mass": 0.72},
        "segm": {"AP": 0.3, "AP50": 0.51, "AP50_ci95": [0.4, 0.6]},
    },
    "ap_by_size": [{"size": "under 10 mm", "n_lesions": 12, "bbox_AP50": 0.345, "bbox_AP50_ci95": [0.2, 0.5]}],
    "froc": {**FROC, **CURVE},
    "froc_others": [{**FROC, "match": "center", "cpm": 0.777}, {**FROC, "denominator": "normal images"}],
    "froc_by_category": {"mass": FROC, "calcification": {**FROC, "cpm": 0.333}},
    "strata": [
        {"variable": "density", "value": "A", "n_images": 9, "n_patients": 20, "sensitivity_at_1": 0.75, "cpm": 0.61},
        {"variable": "density", "value": "D", "n_images": 8, "n_patients": 5, "sensitivity_at_1": 0.5, "cpm": 0.51},
        {"variable": "view", "value": "CC", "n_images": 8, "n_patients": 15, "sensitivity_at_1": 0.7, "cpm": 0.6},
    ],
    "image": {"tumor": LABEL},
    "breast": {"tumor": {**LABEL, "roc_auc": 0.91}},
    "patient": {"tumor": {**LABEL, "roc_auc": 0.92}},
    "masks": {
        "n_pairs": 30,
        "n_without_contour": 3,
        "dice": 0.812,
        "dice_ci95": [0.7, 0.9],
        "hd95_mm": 3.456,
        "per_image": {"n_images": 28, "dice": 0.75},
        "note": "circles take no part",
    },
}
PROTOCOL: dict[str, Any] = {
    "ground_truth": "data/test.json",
    "split_subset": "test",
    "split_hash": "01" * 32,
    "match": "iou@0.2",
    "denominator": "all images",
    "duplicates": "false positive",
    "n_images": 17,
    "n_normal_images": 4,
    "n_patients": 12,
    "n_lesions": 8,
    "n_images_without_boxes": 1,
    "resamples": 1000,
    "seed": 0,
    "overrides": [],
    "versions": {"mammodet": "9.8.7", "numpy": "6.5.4"},
}


def small_metrics(*names: str) -> dict[str, Any]:
    """Metrics of models with these names (`first` without any), each 0.25 better in CPM than the one before."""
    models = []
    for position, name in enumerate(names or ("first",)):
        model = {**copy.deepcopy(MODEL), "name": name}
        model["froc"]["cpm"] += position / 4
        models.append(model)
    figures = {
        "detection/bbox/AP50": {"first": 0.71, "second": 0.74, "difference": 0.03, "ci95": [-0.02, 0.08], "p": 0.21},
        "froc/cpm": {"first": 0.4375, "second": 0.6875, "difference": 0.25, "ci95": [0.04, 0.35], "p": 0.0004},
        "image/tumor/roc_auc": {"first": 0.9, "second": None, "difference": None, "ci95": None, "p": None},
    }
    pairs = [{"first": names[0], "second": name, "figures": figures} for name in names[1:]]
    return {
        "format": "mammodet-metrics/2",
        "protocol": copy.deepcopy(PROTOCOL),
        "notes": ["one image holds a lesion without a place"],
        "models": models,
        "comparisons": pairs,
    }


def without(value: Any) -> list[Any]:
    """The same metrics once with each part None, and once with each part missing, one part at a time."""
    variants: list[Any] = []
    if isinstance(value, dict):
        for key, part in value.items():
            rest = {other: item for other, item in value.items() if other != key}
            variants += [rest, {**value, key: None}]
            variants += [{**value, key: variant} for variant in without(part)]
    elif isinstance(value, list):
        for position, part in enumerate(value):
            variants += [[*value[:position], variant, *value[position + 1 :]] for variant in (None, *without(part))]
    return variants
