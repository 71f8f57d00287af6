"""Shared by the calibration's tests: a small calibration, and validation predictions to fit one to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import SMALL
from small_cases import dataset, image, prediction

from mammodet.config import load_config
from mammodet.engine.checkpoint import RunFacts, save_torch
from mammodet.evaluation.calibration import OperatingPoint, Scaling
from mammodet.evaluation.calibration_file import Calibration, Fit, Provenance, Refused
from mammodet.files import file_hash
from mammodet.modeling.build import build_model
from mammodet.modeling.weight_files import KEY

CHECKPOINT, OTHER = "a" * 64, "b" * 64
PROVENANCE = Provenance(
    checkpoint_sha256=CHECKPOINT,
    predictions_sha256="c" * 64,
    data_hash="d" * 64,
    split_hash="e" * 64,
    subset="val",
    patients=("p1", "p2"),
    over_images="max",
    rule="learned",
)
# A score of 0.8 is 4 to 1 and becomes 16 to 1; one of 0.5 stays.
FIT = Fit(
    "image",
    "tumor",
    n_positive=4,
    n_negative=6,
    scaling=Scaling(2.0, 0.0),
    points=(OperatingPoint("sensitivity@0.9", 0.2, 4, 3, 3, 0), OperatingPoint("youden", 0.5, 3, 1, 5, 1)),
    before={"brier": 0.2, "log_loss": 0.6, "ece": 0.1},
    after={"brier": 0.15, "log_loss": 0.5, "ece": 0.05},
)
UNREACHED = replace(
    FIT, level="breast", points=FIT.points[1:], not_reached={"sensitivity@0.9": "sensitivity@0.9: out of reach"}
)
CALIBRATION = Calibration(
    "platt",
    ("sensitivity@0.9", "youden"),
    PROVENANCE,
    (FIT, UNREACHED),
    (Refused("patient", "tumor", "2 positive and 3 negative cases"),),
)


def small_validation(patients: int = 30, seed: int = 0) -> tuple[Any, list[Any]]:
    """Two breasts of one image for each patient; every third patient has a tumor on the left, none is malignant."""
    rng = np.random.default_rng(seed)
    images, predictions = [], []
    for number in range(patients):
        for side, laterality in enumerate("LR"):
            tumor = int(number % 3 == 0 and laterality == "L")
            name = {"patient_id": f"p{number:02}", "laterality": laterality}
            images.append(image(2 * number + side + 1, labels={"tumor": tumor, "malignant": 0}, split="val", **name))
            score = float(np.clip(rng.normal(0.3 + 0.3 * tumor, 0.15), 0, 1))
            scores = {"tumor": score, "malignant": score / 2}
            predictions.append(prediction(2 * number + side + 1, scores=scores, **name))
    truth = replace(dataset(*images), info={"split": {"name": "holdout", "subset": "val", "hash": "e" * 64}})
    return truth, predictions


def model_facts(checkpoint: str | None = CHECKPOINT, rule: str = "learned", over_images: str = "max") -> dict[str, Any]:
    config = {"model": {"aggregation": {"rule": rule, "over_images": over_images}}}
    return {"checkpoint_sha256": checkpoint, "config": config}


def write_checkpoint(path: Path, *overrides: str, patients: Sequence[str] = ()) -> Path:
    """A tiny model as it was drawn, with a rule that needs no fit."""
    torch.manual_seed(0)
    more = ("model.aggregation.rule=head", "data.image.max_size=64", "model.detector.score_threshold=0.0")
    config = load_config(None, (*SMALL, "data.root=some/where", "output_dir=else/where", *more, *overrides))
    network = build_model(config, 1, load_weights=False)
    facts = RunFacts(config.to_dict(), ("lesion",), "f" * 64, None, tuple(patients))
    save_torch({"state_dict": network.state_dict(), KEY: facts.to_json()}, path)
    return path


def for_checkpoint(path: Path, threshold: float) -> Calibration:
    points = (replace(FIT.points[0], threshold=threshold),)
    fits = tuple(replace(FIT, level=level, points=points) for level in ("image", "breast", "patient"))
    provenance = replace(PROVENANCE, checkpoint_sha256=file_hash(path), rule="head")
    return Calibration("platt", ("sensitivity@0.9",), provenance, fits)
