"""Draw ground truth and predictions on the images, side by side, with an index page."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet visualize --ground-truth data/mias/test.json --predictions preds/predictions.json --output overlays/
  mammodet visualize --ground-truth data/mias/all.json --output overlays/          # the annotations alone
  mammodet visualize --predictions preds/predictions.json --images films/ --output overlays/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--ground-truth", type=Path, help="data set file (COCO JSON)")
    main.add_argument("--predictions", type=Path, help="predictions.json of mammodet predict or import")
    main.add_argument("--images", type=Path, help="folder that image names start from (the ground truth's)")
    main.add_argument("--output", type=Path, required=True, help="folder for the pictures and index.html")
    main.add_argument("--score-threshold", type=float, default=0.3, help="least score that is drawn (%(default)s)")
    main.add_argument("--limit", type=int, metavar="N", help="draw the first N images only (all)")
    main.add_argument("--crop", action="store_true", help="show the breast only")
    main.add_argument("--native", action="store_true", help="draw in the image file's pixels, not 1400 px high")
    main.add_argument("--together", action="store_true", help="draw both on one image, not side by side")
    main.add_argument("--png", action="store_true", help="write PNG, not JPEG")
    main.add_argument("--jobs", type=int, default=2, help="images at a time (%(default)s)")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Draw."""
    chosen = parser().parse_args(arguments)
    from mammodet.reporting.overlay_files import draw_files

    if not 0 <= chosen.score_threshold <= 1:
        raise InputError(f"--score-threshold {chosen.score_threshold}: expected a number from 0 to 1")
    if chosen.limit is not None and chosen.limit < 1:
        raise InputError(f"--limit {chosen.limit}: expected 1 or more")
    written = draw_files(
        chosen.ground_truth,
        chosen.predictions,
        chosen.images,
        chosen.output,
        score_threshold=chosen.score_threshold,
        side_by_side=not chosen.together,
        limit=chosen.limit,
        crop_to_breast=chosen.crop,
        panel_height=None if chosen.native else 1400,
        suffix=".png" if chosen.png else ".jpg",
        n_jobs=max(chosen.jobs, 1),
    )
    print(f"wrote {len(written)} pictures; open {chosen.output}/index.html")
    return 0
