"""Read another program's detections, so that they are scored, compared and drawn like our own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mammodet.cli import Parser
from mammodet.errors import InputError
from mammodet.imports.options import (
    BOX_KINDS,
    COORDINATES,
    IMAGE_SCORE_RULES,
    SCORE_SCALES,
    ImportOptions,
    TableOptions,
    read_pairs,
)

EXAMPLE = """examples (docs/import_predictions.md):
  mammodet import coco --ground-truth test.json --source results.json --output preds.json
  mammodet import yolo --ground-truth test.json --source labels --output preds.json \\
      --category-map "0=mass 1=calcification" --train-json train.json val.json
  mammodet import csv --ground-truth test.json --source boxes.csv --output preds.json \\
      --image-column file --x1-column xmin --y1-column ymin --x2-column xmax --y2-column ymax --score-column prob
"""
FORMATS = {
    "coco": "a COCO result list: image_id, category_id, bbox, score, segmentation",
    "detectron2": "coco_instances_results.json of its COCO evaluator",
    "yolo": "a folder of label files: class, centre and size, or outline, and confidence",
    "csv": "a table of boxes, whose columns are named by options",
    "ultralytics": "predictions.json of a validation, or summaries per image",
}


def parser() -> argparse.ArgumentParser:
    """The command line: one sub-command per format."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    formats = main.add_subparsers(dest="format", required=True, metavar="FORMAT")
    common = _common()
    for name, what in FORMATS.items():
        one = formats.add_parser(name, parents=[common], help=what, epilog=EXAMPLE)
        if name == "csv":
            _add_columns(one)
        if name in ("csv", "ultralytics"):
            one.add_argument(
                "--coordinates",
                choices=COORDINATES,
                default="pixels",
                help="'normalized': shares of the width and height, from 0 to 1 (%(default)s)",
            )
    return main


def _common() -> Parser:
    common = Parser(add_help=False)
    common.add_argument("--ground-truth", type=Path, required=True, help="COCO JSON of the images that were predicted")
    common.add_argument("--source", type=Path, required=True, help="file or folder of the other program")
    common.add_argument("--output", type=Path, required=True, help="predictions file to write")
    common.add_argument(
        "--category-map",
        nargs="+",
        action="extend",
        default=[],
        metavar="THEIRS=OURS",
        help="their class id or name, and our category: 0=mass; OURS empty leaves such detections out (default: equal "
        "names; for coco and detectron2 equal ids)",
    )
    common.add_argument("--name", help="of the model, for reports (default: name of the source)")
    common.add_argument(
        "--score-scale",
        choices=SCORE_SCALES,
        default="none",
        help="'percent': scores from 0 to 100; 'sigmoid': scores are logits (%(default)s)",
    )
    common.add_argument(
        "--default-score", type=float, metavar="SCORE", help="of detections that come without one (default: refused)"
    )
    common.add_argument(
        "--image-score",
        action="append",
        default=[],
        metavar="RULE",
        help=f"how the image score 'tumor' is made of the detections: {', '.join(IMAGE_SCORE_RULES)} (none); for csv "
        "also LABEL=COLUMN: tumor=COLUMN, malignant=COLUMN",
    )
    common.add_argument(
        "--train-json",
        type=Path,
        nargs="+",
        default=[],
        metavar="JSON",
        help="data sets that the model was trained and chosen on, the training set first, so that evaluation can see "
        "leakage",
    )
    common.add_argument("--checkpoint-file", type=Path, help="of the model; its SHA-256 is kept")
    common.add_argument(
        "--ignore-unknown-images", action="store_true", help="pass over images that the ground truth lacks"
    )
    common.add_argument("--boxes-only", action="store_true", help="leave masks out")
    common.add_argument(
        "--clip-boxes",
        action="store_true",
        help="cut boxes to the image however far they leave it (default: by more than 1 px is refused)",
    )
    common.add_argument("--keep-top", type=int, metavar="N", help="the N strongest detections of each image")
    return common


def _add_columns(one: argparse.ArgumentParser) -> None:
    columns = one.add_argument_group("columns", "a box is x1 y1 x2 y2, or x y w h, or cx cy w h")
    columns.add_argument("--image-column", required=True, metavar="COLUMN", help="the image")
    columns.add_argument(
        "--match",
        choices=["name", "id"],
        default="name",
        help="whether the image column holds a file name (or its stem), or the id of the ground truth (%(default)s)",
    )
    for name in dict.fromkeys(name for names in BOX_KINDS.values() for name in names):
        columns.add_argument(f"--{name}-column", metavar="COLUMN")
    columns.add_argument("--score-column", metavar="COLUMN", help="the score of a detection")
    columns.add_argument(
        "--category-column", metavar="COLUMN", help="the class (not needed where the ground truth has one category)"
    )
    for side in ("width", "height"):
        columns.add_argument(
            f"--{side}-column",
            metavar="COLUMN",
            help=f"{side} of the image at which boxes were predicted, where it is not that of the ground truth",
        )


def options_from(chosen: argparse.Namespace) -> ImportOptions:
    """Options of a command line.

    Raises:
        InputError: options that do not fit together.
    """
    rules = [text for text in chosen.image_score if "=" not in text]
    columns = [text for text in chosen.image_score if "=" in text]
    if len(rules) > 1 or (columns and chosen.format != "csv"):
        raise InputError(
            f"--image-score {' '.join(chosen.image_score)}: expected one of {', '.join(IMAGE_SCORE_RULES)}"
            + ("; LABEL=COLUMN is for csv" if columns else "")
        )
    return ImportOptions(
        name=chosen.name,
        category_map=read_pairs("--category-map", chosen.category_map),
        score_scale=chosen.score_scale,
        default_score=chosen.default_score,
        image_score=rules[0] if rules else "none",
        coordinates=getattr(chosen, "coordinates", "pixels"),
        train_jsons=tuple(chosen.train_json),
        checkpoint_file=chosen.checkpoint_file,
        ignore_unknown_images=chosen.ignore_unknown_images,
        boxes_only=chosen.boxes_only,
        clip_boxes=chosen.clip_boxes,
        keep_top=chosen.keep_top,
        table=_table_options(chosen, columns) if chosen.format == "csv" else None,
    )


def _table_options(chosen: argparse.Namespace, image_scores: list[str]) -> TableOptions:
    given: dict[str, Any] = {
        name: column for names in BOX_KINDS.values() for name in names if (column := getattr(chosen, f"{name}_column"))
    }
    kinds = [kind for kind, names in BOX_KINDS.items() if set(names) == set(given)]
    if given and not kinds:
        raise InputError(
            f"{', '.join(f'--{name}-column' for name in given)}: no whole box; expected x1 y1 x2 y2, x y w h, or "
            "cx cy w h"
        )
    if bool(chosen.width_column) != bool(chosen.height_column):
        raise InputError("--width-column, --height-column: expected both or neither")
    kind = kinds[0] if kinds else "xyxy"
    return TableOptions(
        image=chosen.image_column,
        box_kind=kind,
        box=tuple(given[name] for name in BOX_KINDS[kind]) if given else (),
        score=chosen.score_column,
        category=chosen.category_column,
        size=(chosen.width_column, chosen.height_column) if chosen.width_column else None,
        image_scores=read_pairs("--image-score", image_scores),
        match=chosen.match,
    )


def main(arguments: list[str] | None = None) -> int:
    """Import, write, and say what came in and what was left out."""
    chosen = parser().parse_args(arguments)
    from mammodet.data.predictions import write_predictions
    from mammodet.imports.run import import_predictions

    options = options_from(chosen)
    for other in (chosen.source, chosen.ground_truth, *chosen.train_json):
        if chosen.output.exists() and other.exists() and chosen.output.samefile(other):
            raise InputError(f"--output {chosen.output}: would overwrite an input; choose another name")
    if chosen.output.is_dir():
        raise InputError(f"--output {chosen.output}: is a folder; name a file, for instance {chosen.output}/preds.json")
    predictions, summary = import_predictions(chosen.format, chosen.source, chosen.ground_truth, options)
    write_predictions(predictions, chosen.output)
    print(summary.to_text())
    print(f"wrote {chosen.output}")
    return 0
