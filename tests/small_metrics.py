"""A small metrics.json by hand, with every section, for one model or several."""

from __future__ import annotations

import copy
from typing import Any

from mammodet.evaluation.results import FORMAT, Figure, Metrics, Record, metrics_from_json

HOSTILE = "<script>alert(1)</script>"


def figure(value: float | None, *ci95: float) -> dict[str, Any]:
    return {"value": value, "ci95": list(ci95) or None}


UNDEFINED = figure(None)
FROC: dict[str, Any] = {
    "match": "iou@0.2",
    "denominator": "all images",
    "duplicates": "false positive",
    "n_images": 4,
    "n_lesions": 8,
    "points": [
        {"fppi": 0.125, "sensitivity": figure(0.25, 0.1, 0.4)},
        {"fppi": 1, "sensitivity": figure(0.625, 0.41, 0.8)},
        {"fppi": 4, "sensitivity": UNDEFINED},
    ],
    "cpm": figure(0.4375, 0.3, 0.6),
}
POINTS = {"points": FROC["points"], "cpm": FROC["cpm"]}
CURVE = {
    "curve": {"fppi": [0, 0.5, 2], "sensitivity": [0.1, 0.5, 0.9], "threshold": [None, 0.5, 0.1]},
    "band": {"fppi": [0, 1], "low": [0.0, 0.4], "high": [0.3, 0.8]},
}
RELIABILITY = {"edges": [0, 0.5, 1], "mean_score": [0.2, None], "share_positive": [0.25, None], "count": [4, 0]}
SCORES: dict[str, Any] = {
    "roc_auc": figure(0.87, 0.7, 0.95),
    "pr_auc": figure(0.8),
    **dict.fromkeys(
        ("partial_auc", "sensitivity_at_90_specificity", "specificity_at_90_sensitivity", "pf1"), UNDEFINED
    ),
    **dict.fromkeys(("f1_at_half", "accuracy_at_half"), UNDEFINED),
    "brier": figure(0.125),
    "log_loss": figure(0.4),
    "ece": figure(0.05),
}
POINT = {
    "goal": "sensitivity@0.9",
    "threshold": 0.31,
    "sensitivity": figure(1.0),
    **dict.fromkeys(("specificity", "ppv", "npv", "accuracy", "f1", "f2"), UNDEFINED),
    **{"tp": 3, "fp": 1, "tn": 3, "fn": 0},
}
LABEL: dict[str, Any] = {
    "n_positive": 3,
    "n_negative": 4,
    **SCORES,
    "roc_auc": figure(0.9, 0.71, 0.98),
    "roc": {"fpr": [0, 0.5, 1], "tpr": [0, 1, 1]},
    "pr": {"recall": [0, 1], "precision": [1, 0.5]},
    "reliability": RELIABILITY,
    "by_rule": {"max": SCORES, "noisy_or": {**SCORES, "roc_auc": figure(0.86)}},
    "operating_points": [POINT],
    "calibrated": {"brier": figure(0.1), "ece": figure(0.02), "log_loss": figure(0.3), "reliability": RELIABILITY},
}
COUNTS = {"n_images": 9, "n_lesions": 3, "n_patients": 20}
MODEL: dict[str, Any] = {
    "name": "first",
    "protocol": {
        "predictions": "runs/first/predictions.json",
        "checkpoint_sha256": "ab" * 32,
        "trained_on_split_hash": "01" * 32,
        "patients_seen_in_training": 0,
        "calibration": "calibration.json",
    },
    "detection": {
        "bbox": {
            "AP": figure(0.4),
            "AP50": figure(0.71, 0.612, 0.793),
            "AP75": UNDEFINED,
            "AP50_by_category": {"mass": figure(0.72)},
        },
        "segm": {"AP": figure(0.3), "AP50": figure(0.51, 0.4, 0.6), "AP75": UNDEFINED},
    },
    "ap_by_size": [
        {"size": "under 10 mm", "n_lesions": 12, "bbox_ap": figure(0.2), "bbox_ap50": figure(0.345, 0.2, 0.5)}
    ],
    "froc": {**FROC, **CURVE},
    "froc_others": [{**FROC, "match": "center", "cpm": figure(0.777)}, {**FROC, "denominator": "normal images"}],
    "froc_by_category": {"mass": POINTS, "calcification": {**POINTS, "cpm": figure(0.333)}},
    "strata": [
        {"variable": "density", "value": "A", **COUNTS, "sensitivity_at_1": figure(0.75), "cpm": figure(0.61)},
        {
            **{"variable": "density", "value": "D", **COUNTS, "n_patients": 5},
            **{"sensitivity_at_1": figure(0.5), "cpm": figure(0.51)},
        },
        {"variable": "view", "value": "CC", **COUNTS, "sensitivity_at_1": figure(0.7), "cpm": figure(0.6)},
    ],
    "image": {"tumor": LABEL},
    "breast": {"tumor": {**LABEL, "roc_auc": figure(0.91)}},
    "patient": {"tumor": {**LABEL, "roc_auc": figure(0.92)}},
    "masks": {
        "n_pairs": 30,
        "n_without_contour": 3,
        "dice": figure(0.812, 0.7, 0.9),
        "hd95_mm": figure(3.456),
        "per_image": {"n_images": 28, "dice": figure(0.75), "score_threshold": 0.5},
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
    "over_images": "max",
    "n_images": 17,
    "n_normal_images": 4,
    "n_positive_images": 12,
    "n_patients": 12,
    "n_images_without_patient": 0,
    "n_lesions": 8,
    "n_images_without_boxes": 1,
    "n_ignored_regions": 0,
    "resamples": 1000,
    "seed": 0,
    "versions": {"mammodet": "9.8.7", "numpy": "6.5.4"},
}


def metrics_value(*names: str) -> dict[str, Any]:
    """What the file holds of models with these names (`first` without any), each 0.25 better in CPM than the last."""
    models = []
    for position, name in enumerate(names or ("first",)):
        model = {**copy.deepcopy(MODEL), "name": name}
        model["froc"]["cpm"]["value"] += position / 4
        models.append(model)
    differences = [
        {
            **{"figure": "box AP50", "first": 0.71, "second": 0.74, "difference": figure(0.03, -0.02, 0.08)},
            **{"p": 0.21, "place": "screen"},
        },
        {
            **{"figure": "CPM", "first": 0.4375, "second": 0.6875, "difference": figure(0.25, 0.04, 0.35)},
            **{"p": 0.0004, "place": "screen"},
        },
    ]
    return {
        "format": FORMAT,
        "protocol": copy.deepcopy(PROTOCOL),
        "notes": ["one image holds a lesion without a place"],
        "models": models,
        "comparisons": [{"first": names[0], "second": name, "differences": differences} for name in names[1:]],
    }


def metrics_of(value: Any) -> Metrics:
    return metrics_from_json(value, "metrics.json")


def small_metrics(*names: str) -> Metrics:
    return metrics_of(metrics_value(*names))


def bare_model(name: str = "first", **more: Any) -> dict[str, Any]:
    """A model of which nothing was measured."""
    return {"name": name, **more}


def flat(value: Any) -> Any:
    """A result as plain values, with each figure as its number."""
    if isinstance(value, Figure):
        return value.value
    if isinstance(value, Record):
        return {name: flat(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: flat(one) for key, one in value.items()}
    return [flat(one) for one in value] if isinstance(value, list) else value
