"""Read another program's detections, so that they are scored, compared and drawn like our own."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.command_line import add_arguments
from mammodet.errors import InputError
from mammodet.imports import ImportOptions

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
    columns = {"match", *(name for name in ImportOptions.model_fields if name.endswith("_column"))}
    for name, what in FORMATS.items():
        one = formats.add_parser(name, help=what, epilog=EXAMPLE)
        one.add_argument("--ground-truth", type=Path, required=True, help="COCO JSON of the images that were predicted")
        one.add_argument("--source", type=Path, required=True, help="file or folder of the other program")
        one.add_argument("--output", type=Path, required=True, help="predictions file to write")
        left_out = () if name == "csv" else (*columns, *(("coordinates",) if name != "ultralytics" else ()))
        add_arguments(one, ImportOptions, leave_out=left_out)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Import, write, and say what came in and what was left out."""
    chosen = parser().parse_args(arguments)
    from mammodet.data.predictions import write_predictions
    from mammodet.imports.run import import_predictions

    options = ImportOptions.of(chosen)
    if chosen.format == "csv" and options.image_column is None:
        raise InputError("--image-column: is missing; name the table's columns")
    for other in (chosen.source, chosen.ground_truth, *options.train_json):
        if chosen.output.exists() and other.exists() and chosen.output.samefile(other):
            raise InputError(f"--output {chosen.output}: would overwrite an input; choose another name")
    if chosen.output.is_dir():
        raise InputError(f"--output {chosen.output}: is a folder; name a file, for instance {chosen.output}/preds.json")
    predictions, summary = import_predictions(chosen.format, chosen.source, chosen.ground_truth, options)
    write_predictions(predictions, chosen.output)
    print(summary.to_text())
    print(f"wrote {chosen.output}")
    return 0
