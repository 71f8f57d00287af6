"""Write a data set, or predictions, in the format of another tool (docs/export_data.md)."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet export-data --data data/cbis --format yolo --output cbis_yolo
  mammodet export-data --data data/mias --fold 0 --format rfdetr --output mias_rfdetr
  mammodet export-data --predictions preds/predictions.json --format cvat --output preds.xml

Score the other tool's detections with the export's own test.json, which has the same images:
  mammodet import ultralytics --ground-truth cbis_yolo/test.json --source predictions.json --output preds.json \\
      --category-map "1=mass"
"""
OF_DATA = ("8bit", "coco", "yolo", "voc", "rfdetr")
OF_PREDICTIONS = {"coco-results": ".json", "cvat": ".xml", "label-studio": ".json"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--format", required=True, choices=(*OF_DATA, *OF_PREDICTIONS), help="what is written")
    main.add_argument("--output", type=Path, required=True, metavar="PATH", help="new folder; for predictions a file")
    main.add_argument("--boxes-only", action="store_true", help="leave outlines out (yolo, rfdetr, predictions)")
    main.add_argument(
        "--tolerance",
        type=float,
        metavar="PX",
        help="by which polygons are made simpler than their masks, 0.5 or less (0.5)",
    )
    data = main.add_argument_group(f"a data set: {', '.join(OF_DATA)}")
    data.add_argument("--data", type=Path, metavar="FOLDER", help="converted folder")
    data.add_argument("--name", help="prefix of the files of mammodet subset, for instance cc (none)")
    data.add_argument("--fold", type=int, metavar="K", help="training and validation images of a fold (the holdout)")
    data.add_argument(
        "--window",
        choices=("full", "tissue", "clahe"),
        help="of images of more than 8 bits, as the input channels of config.md; those of 8 bits stay (tissue)",
    )
    data.add_argument("--jobs", type=int, metavar="N", help="images at a time (2)")
    predictions = main.add_argument_group(f"predictions: {', '.join(OF_PREDICTIONS)}")
    predictions.add_argument("--predictions", type=Path, metavar="FILE", help="predictions.json")
    predictions.add_argument(
        "--score-threshold", type=float, metavar="T", help="detections from T on (coco-results: 0; others: 0.3)"
    )
    predictions.add_argument("--url-prefix", metavar="URL", help="label-studio: before names (/data/local-files/?d=)")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Export, and say what was left out and what the format cannot hold."""
    chosen = parser().parse_args(arguments)
    of_data = chosen.format in OF_DATA
    groups = ["data", "name", "fold", "window", "jobs"], ["predictions", "score_threshold", "url_prefix"]
    own, other = groups if of_data else groups[::-1]
    faults = [f"--{key.replace('_', '-')}" for key in other if getattr(chosen, key) is not None]
    if chosen.url_prefix is not None and chosen.format != "label-studio":
        faults.append("--url-prefix")
    if chosen.boxes_only and chosen.format in ("8bit", "coco", "voc"):
        faults.append("--boxes-only")
    if chosen.tolerance is not None and (chosen.boxes_only or chosen.format not in ("yolo", "cvat", "label-studio")):
        faults.append("--tolerance")
    if faults:
        raise InputError(f"{', '.join(dict.fromkeys(faults))}: is not for --format {chosen.format}")
    if getattr(chosen, own[0]) is None:
        raise InputError(f"--{own[0]}: is missing; --format {chosen.format} needs it")
    if chosen.tolerance is not None and not 0 <= chosen.tolerance <= 0.5:
        raise InputError(f"--tolerance {chosen.tolerance:g}: expected 0 to 0.5 (px): more would change boxes")
    if chosen.jobs is not None and chosen.jobs < 1:
        raise InputError(f"--jobs {chosen.jobs}: expected 1 or more")
    given = {key: value for key in own[1:] if (value := getattr(chosen, key)) is not None}
    given["tolerance_px"] = None if chosen.boxes_only else 0.5 if chosen.tolerance is None else chosen.tolerance
    if of_data:
        from mammodet.export.data_sets import export_data
        from mammodet.export.layouts import LAYOUTS

        print(export_data(chosen.data, chosen.output, LAYOUTS[chosen.format], **given).to_text())
        print(f"wrote {chosen.output}")
        return 0
    suffix = OF_PREDICTIONS[chosen.format]
    if chosen.output.suffix.lower() != suffix or chosen.output.is_dir():
        raise InputError(f"--output {chosen.output}: expected a file whose name ends in {suffix}")
    if chosen.output.exists():
        raise InputError(f"--output {chosen.output}: exists; expected a new name")
    from mammodet.data.predictions import read_predictions
    from mammodet.export.annotations import export_predictions

    given.setdefault("score_threshold", 0.0 if chosen.format == "coco-results" else 0.3)
    predictions = read_predictions(chosen.predictions)
    written = export_predictions(predictions, chosen.output, chosen.format, **given)
    print(f"labels: {', '.join(predictions.categories)}")
    print("\n".join(f"wrote {path}" for path in written))
    return 0
