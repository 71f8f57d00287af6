"""Score a predictions file against a data set file: AP, FROC, ROC, and an HTML report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mammodet.cli import run
from mammodet.errors import InputError
from mammodet.evaluation.froc import MATCH_RULES

EXAMPLE = """example:
  python tools/evaluate.py --ground-truth data/mias/test.json --predictions preds/predictions.json --output eval/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    main.add_argument("--ground-truth", type=Path, required=True, help="COCO JSON of a converter")
    main.add_argument("--predictions", type=Path, required=True, help="predictions.json of tools/predict.py")
    main.add_argument("--output", type=Path, required=True, help="folder for metrics.json and report.html")
    main.add_argument("--match", choices=MATCH_RULES, default="iou@0.2", help="FROC match rule (%(default)s)")
    main.add_argument(
        "--over-images",
        choices=["max", "mean"],
        default="max",
        help="how images of a breast are joined (%(default)s)",
    )
    main.add_argument("--ignore-extra", action="store_true", help="pass over predictions for other images")
    main.add_argument(
        "--allow-leakage",
        action="store_true",
        help="go on though patients were in training; stamped on the report",
    )
    main.add_argument("--history", type=Path, help="metrics.csv of the training, for its curves")
    main.add_argument("--no-report", action="store_true", help="metrics.json only")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Score, print, write."""
    chosen = parser().parse_args(arguments)
    from mammodet.pipeline import evaluate_files

    if chosen.history is not None and not chosen.history.is_file():
        raise InputError(
            f"--history {chosen.history}: no such file; it is the metrics.csv in the training's output folder"
        )
    evaluate_files(
        chosen.ground_truth,
        chosen.predictions,
        chosen.output,
        match=chosen.match,
        over_images=chosen.over_images,
        ignore_extra=chosen.ignore_extra,
        allow_leakage=chosen.allow_leakage,
        history=chosen.history,
        report=not chosen.no_report,
        command="python tools/evaluate.py " + shlex.join(arguments if arguments is not None else sys.argv[1:]),
    )
    return 0


if __name__ == "__main__":
    run(main)
