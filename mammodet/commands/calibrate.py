"""Choose probabilities and thresholds on validation predictions, for mammodet predict --calibration."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mammodet.evaluation.calibration_file import Calibration, Fit

from mammodet.cli import Parser

EXAMPLE = """examples:
  mammodet predict --checkpoint output/run/best.ckpt --input data/mias/fold0_val.json --output val_preds/
  mammodet calibrate --ground-truth data/mias/fold0_val.json --predictions val_preds/predictions.json \\
      --output calibration.json --goal sensitivity@0.9 youden
  mammodet predict --checkpoint output/run/best.ckpt --input films/ --output preds/ \\
      --calibration calibration.json
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from mammodet.evaluation.calibration import GOAL_FORMS, METHODS
    from mammodet.evaluation.cases import OVER_IMAGES
    from mammodet.evaluation.results import LEVELS

    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "--ground-truth",
        type=Path,
        required=True,
        help="data set file (COCO JSON) of the validation images: the one the model was chosen on, or unseen patients",
    )
    main.add_argument("--predictions", type=Path, required=True, help="predictions.json of these images")
    main.add_argument("--output", type=Path, required=True, help="calibration file to write (JSON)")
    main.add_argument(
        "--method", choices=METHODS, default="platt", help="how scores become probabilities (%(default)s)"
    )
    main.add_argument(
        "--goal",
        nargs="+",
        default=["youden"],
        metavar="GOAL",
        help=f"what thresholds are chosen for; the first labels: {GOAL_FORMS} (youden)",
    )
    main.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS), help="what to calibrate (all)")
    main.add_argument(
        "--over-images",
        choices=OVER_IMAGES,
        help="how scores of a breast's images are joined (as the model does, else max)",
    )
    main.add_argument("--patient-key", type=Path, metavar="FILE", help="key of hashed patient ids (docs/leakage.md)")
    main.add_argument("--allow-test", action="store_true", help="allow a test set; reports say so")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Fit, write, print."""
    chosen = parser().parse_args(arguments)
    from mammodet.data.coco import read_coco
    from mammodet.data.patient_keys import PatientKey, known_patients
    from mammodet.data.predictions import match_to_dataset, read_predictions
    from mammodet.evaluation.admission import seen_before
    from mammodet.evaluation.calibration_file import write_calibration
    from mammodet.evaluation.fit_calibration import fit_calibration, provenance_of
    from mammodet.files import file_hash

    dataset = read_coco(chosen.ground_truth)
    predictions = read_predictions(chosen.predictions)
    key = PatientKey(chosen.patient_key) if chosen.patient_key is not None else None
    ids = [record.patient_id for record in dataset.images]
    predictions = replace(predictions, model=known_patients(predictions.model, ids, key))
    provenance = provenance_of(
        dataset,
        predictions,
        file_hash(chosen.predictions),
        ground_truth=chosen.ground_truth,
        over_images=chosen.over_images,
        allow_test=chosen.allow_test,
    )
    _, unchecked = seen_before(dataset, predictions, str(chosen.predictions))
    for reason in unchecked:
        print(f"whether the model was trained on these patients could not be checked: {reason}", file=sys.stderr)
    if key is not None:
        provenance = replace(provenance, patients=tuple(sorted(map(key.hash, provenance.patients))))
    matched = match_to_dataset(predictions.images, dataset)
    calibration = fit_calibration(
        dataset, matched, provenance, method=chosen.method, goals=chosen.goal, levels=chosen.levels
    )
    write_calibration(calibration, chosen.output)
    print(table(calibration))
    for one in calibration.refused:
        print(f"not calibrated: {one.level}, {one.label}: {one.reason}", file=sys.stderr)
    print(f"wrote {chosen.output}")
    return 0


def table(calibration: "Calibration") -> str:
    """What was fitted, and what came of it on the cases of the fit."""
    row = "{:<8} {:<10} {:<12} {:>8} {:>8}  {:<14} {}".format
    lines = [row("level", "label", "method", "positive", "negative", "Brier", "ECE").rstrip()]
    for fit in calibration.fits:
        change = [
            " -> ".join(f"{figures[name]:.3f}" for figures in (fit.before, fit.after) if figures)
            for name in ("brier", "ece")
        ]
        lines.append(row(fit.level, fit.label, calibration.method, fit.n_positive, fit.n_negative, *change))
        lines += [f"    {line}" for line in _points(fit, calibration.goals)]
    where = "the TEST set" if calibration.provenance.fitted_on_test else "the cases of the fit"
    lines.append(f"Brier, ECE, sensitivity and specificity are on {where}: on new patients expect worse.")
    lines.append(f"{calibration.goals[0]} labels (*); a case is called positive where score >= threshold.")
    return "\n".join(lines)


def _points(fit: "Fit", goals: tuple[str, ...]) -> list[str]:
    lines = [f"{'*' if goal == goals[0] else ' '} {reason}" for goal, reason in fit.not_reached.items()]
    for point in fit.points:
        probability = f" (probability {fit.scaling.apply([point.threshold])[0]:.3f})" if fit.scaling else ""
        note = f"; {point.note}" if point.note else ""
        lines.append(
            f"{'*' if point.goal == goals[0] else ' '} {point.goal}: score >= {point.threshold:.4f}{probability}, "
            f"sensitivity {point.tp}/{fit.n_positive} = {point.tp / fit.n_positive:.3f}, "
            f"specificity {point.tn}/{fit.n_negative} = {point.tn / fit.n_negative:.3f}{note}"
        )
    return lines
