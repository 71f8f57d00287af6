"""Convert a public archive, as it lies on disk, to COCO JSON with images and splits."""

from __future__ import annotations

import argparse
from pathlib import Path

from converters import mias
from converters.base import SplitOptions
from mammodet.cli import run

EXAMPLE = """example:
  python tools/convert.py mias --source all-mias --output data/mias --folds 5
"""


def parser() -> argparse.ArgumentParser:
    """The command line: one sub-command per archive."""
    main = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    archives = main.add_subparsers(dest="archive", required=True, metavar="ARCHIVE")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--source", type=Path, required=True, help="folder of the unpacked archive")
    common.add_argument("--output", type=Path, required=True, help="folder for the data set")
    common.add_argument("--test-fraction", type=float, default=0.2, help="share of patients for test (%(default)s)")
    common.add_argument(
        "--val-fraction", type=float, default=0.16, help="share of patients for validation (%(default)s)"
    )
    common.add_argument(
        "--folds", type=int, default=0, help="k folds over the patients outside the test set (default: none)"
    )
    common.add_argument("--seed", type=int, default=0, help="seed of the splits (%(default)s)")
    common.add_argument("--jobs", type=int, default=2, help="images at a time (%(default)s)")

    one = archives.add_parser(
        "mias",
        parents=[common],
        help="mini-MIAS (Info.txt and mdb001.pgm ...)",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "--categories",
        choices=list(mias.CATEGORY_SCHEMES),
        default="lesion",
        help="'lesion': all in one; 'mass': masses only, other findings become regions to ignore; "
        "'abnormality': six types (%(default)s)",
    )
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the converter and print its summary."""
    chosen = parser().parse_args(arguments)
    splits = SplitOptions(chosen.test_fraction, chosen.val_fraction, chosen.folds, chosen.seed)
    options = mias.MiasOptions(chosen.categories, splits, max(chosen.jobs, 1))
    summary = mias.convert(chosen.source, chosen.output, options)
    print(summary.to_text())
    print(f"wrote {chosen.output}/all.json, the splits beside it, summary.json and quarantine.csv")
    return 0


if __name__ == "__main__":
    run(main)
