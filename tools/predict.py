"""Predict lesions and tumor scores for a folder of images, or for the images of a data set file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mammodet.cli import run

EXAMPLE = """examples:
  python tools/predict.py --checkpoint output/run/best.ckpt --input some/folder --output preds/
  python tools/predict.py --checkpoint output/run/best.ckpt --input data/mias/test.json --output preds/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    main.add_argument("--checkpoint", type=Path, required=True, help="best.ckpt of a training")
    main.add_argument(
        "--input", type=Path, required=True, help="folder of images (searched to its depth), or COCO JSON"
    )
    main.add_argument("--output", type=Path, required=True, help="folder for predictions.json")
    main.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    main.add_argument("--num-workers", type=int, default=2, help="processes that read images (%(default)s)")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Predict and say what was found."""
    chosen = parser().parse_args(arguments)
    from mammodet.data.coco import read_coco
    from mammodet.engine.predict import Predictor, Skipped, folder_dataset, predict_to_folder

    predictor = Predictor.from_checkpoint(chosen.checkpoint, chosen.device)
    unreadable: list[Skipped] = []
    if chosen.input.suffix.lower() == ".json":
        dataset, root = read_coco(chosen.input), chosen.input.parent
    else:
        dataset, unreadable = folder_dataset(chosen.input, predictor.facts.categories)
        root = chosen.input
    path, skipped = predict_to_folder(
        predictor, dataset, root, chosen.output, num_workers=max(chosen.num_workers, 0), unreadable=unreadable
    )
    print(f"wrote {path}: {len(dataset.images) + len(unreadable) - len(skipped)} images")
    for item in skipped:
        print(f"skipped {item.file_name}: {item.reason}", file=sys.stderr)
    if skipped:
        print(
            f"{len(skipped)} images were skipped; they are listed in {chosen.output}/skipped.json",
            file=sys.stderr,
        )
    return 1 if skipped else 0


if __name__ == "__main__":
    run(main)
