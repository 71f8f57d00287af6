"""Write a model for ONNX Runtime or OpenVINO, which predict on a CPU without torch."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet export starter --format onnx --output starter.onnx
  mammodet predict --checkpoint starter.onnx --input films/ --output preds/
  mammodet export output/run/best.ckpt --format openvino --output model.xml
  mammodet export output/run/best.ckpt --output model_int8.onnx --int8 data/cbis
"""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "checkpoint", type=Path, nargs="+", metavar="CHECKPOINT", help="best.ckpt, a packed model, or starter"
    )
    main.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="file format (%(default)s)")
    main.add_argument("--output", type=Path, required=True, metavar="FILE", help="model.onnx, or model.xml (+ .bin)")
    main.add_argument(
        "--int8",
        type=Path,
        metavar="FOLDER",
        help="most convolutions in 8 bits, with ranges from the training images of this data set; refused if AP50 on "
        "its validation images falls by more than 0.01",
    )
    main.add_argument("--force", action="store_true", help="with --int8: write it although AP50 falls")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Export and say how near the graph's answers are."""
    chosen = parser().parse_args(arguments)
    if len(chosen.checkpoint) > 1:
        raise InputError(
            "an ensemble cannot be exported as one model: export each checkpoint, and give all of them to "
            "mammodet predict --checkpoint"
        )
    if chosen.output.suffix.lower() != (suffix := SUFFIXES[chosen.format]):
        raise InputError(f"--output {chosen.output}: expected a name that ends in {suffix} (--format {chosen.format})")
    if chosen.force and chosen.int8 is None:
        raise InputError("--force has a meaning with --int8 alone: leave it out")
    needed = ("train.json", "val.json") if chosen.int8 is not None else ()
    if missing := [name for name in needed if not (chosen.int8 / name).is_file()]:
        raise InputError(
            f"--int8 {chosen.int8}: has no {', '.join(missing)}; expected a folder that mammodet convert wrote, with "
            "images to train and to validate on"
        )
    from mammodet.export.onnx_export import export_onnx, export_openvino
    from mammodet.models import model_path

    (checkpoint,) = chosen.checkpoint
    write = export_onnx if chosen.format == "onnx" else export_openvino
    for line in write(model_path(checkpoint), chosen.output, int8=chosen.int8, force=chosen.force):
        print(line)
    weights = chosen.output.with_suffix(".bin") if suffix == ".xml" else chosen.output
    print(f"wrote {chosen.output}: {weights.stat().st_size} bytes")
    return 0
