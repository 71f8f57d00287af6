"""Score predictions against ground truth: AP, FROC and ROC with intervals, comparison of models, HTML report."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import cast

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet evaluate --ground-truth data/mias/test.json --predictions preds/predictions.json --output eval/
  mammodet evaluate --ground-truth test.json --predictions a.json b.json --names ours theirs --output eval/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from mammodet.evaluation.admission import REFUSALS

    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--ground-truth", type=Path, required=True, help="data set file (COCO JSON)")
    main.add_argument(
        "--predictions",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="predictions.json of mammodet predict or import; several are compared",
    )
    main.add_argument("--output", type=Path, required=True, help="folder for report.html, metrics.json, tables, curves")
    main.add_argument("--names", nargs="+", default=(), metavar="NAME", help="names of the models (from the paths)")
    main.add_argument(
        "--match",
        default="iou@0.2",
        metavar="RULE",
        help="when a detection finds a lesion: iou@T, mask_iou@T or center (%(default)s)",
    )
    main.add_argument(
        "--fppi",
        choices=["all", "normal", "positive"],
        default="all",
        help="images on which false positives are counted (%(default)s)",
    )
    main.add_argument(
        "--second-detections",
        choices=["false", "ignored"],
        default="false",
        help="count a second detection of a found lesion as a false positive, or not at all (%(default)s)",
    )
    main.add_argument(
        "--over-images",
        choices=["max", "mean"],
        default="max",
        help="how scores of a breast's images are joined (%(default)s)",
    )
    main.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="calibration file of each model: measure its probabilities and thresholds here",
    )
    main.add_argument("--train-json", type=Path, help="training set, if the predictions do not name its patients")
    main.add_argument("--patient-key", type=Path, metavar="FILE", help="key of hashed patient ids (docs/leakage.md)")
    main.add_argument(
        "--allow",
        nargs="+",
        default=(),
        choices=list(REFUSALS),
        metavar="REFUSAL",
        help=f"refusals to override, stamped on the report: {', '.join(REFUSALS)}",
    )
    main.add_argument(
        "--resamples",
        type=int,
        default=1000,
        help="bootstrap resamples of the patients for intervals; 0: none (%(default)s)",
    )
    main.add_argument("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")
    main.add_argument(
        "--mask-score",
        type=float,
        default=0.5,
        help="least score of detections whose masks make an image's mask (%(default)s)",
    )
    main.add_argument("--score-threshold", type=float, default=0.3, help="least score that is drawn (%(default)s)")
    main.add_argument("--history", type=Path, help="metrics.csv of the training, to draw its curves")
    main.add_argument("--no-report", action="store_true", help="write metrics.json and tables only")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Score, print, write."""
    chosen = parser().parse_args(arguments)
    from mammodet.evaluation.options import Options
    from mammodet.evaluation.results import Denominator
    from mammodet.reporting.evaluation_files import evaluate_files

    if chosen.history is not None and not chosen.history.is_file():
        raise InputError(f"--history {chosen.history}: no such file; it is metrics.csv in the training's output folder")
    if not 0 <= chosen.score_threshold <= 1:
        raise InputError(f"--score-threshold {chosen.score_threshold}: expected a number from 0 to 1")
    try:
        options = Options(
            match=chosen.match,
            denominator=cast(Denominator, f"{chosen.fppi} images"),
            count_seconds=chosen.second_detections == "false",
            over_images=chosen.over_images,
            resamples=chosen.resamples,
            seed=chosen.seed,
            mask_score=chosen.mask_score,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    evaluate_files(
        chosen.ground_truth,
        chosen.predictions,
        chosen.output,
        names=chosen.names,
        options=options,
        allow=chosen.allow,
        train_json=chosen.train_json,
        patient_key=chosen.patient_key,
        calibrations=chosen.calibration,
        history=chosen.history,
        report=not chosen.no_report,
        score_threshold=chosen.score_threshold,
        command="mammodet evaluate " + shlex.join(arguments if arguments is not None else sys.argv[1:]),
    )
    return 0
