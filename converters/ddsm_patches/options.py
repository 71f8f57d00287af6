"""Options of the converter of DDSM patches: as a dataclass, and on the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from mammodet.converters.base import SplitOptions

SPLITS = ("given", "combined")


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """What is converted, and how.

    Attributes:
        size: side of the patches in pixels; others are quarantined.
        split: `given`: validation is cv10, test is test10; `combined`: both are test, and validation is taken from
            the training patches by `splits.val_fraction`.
        jobs: threads.
    """

    size: int = 299
    split: str = "combined"
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    parser.add_argument("--size", type=int, default=299, metavar="PX", help="side of the patches (%(default)s)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="combined",
        help="'given': cv10 is validation (calcifications only), test10 is test (masses only); 'combined': both are "
        "test, and validation comes from the training patches by --val-fraction (%(default)s)",
    )


def options_from(args: argparse.Namespace) -> PatchOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs."""
    return PatchOptions(
        size=args.size,
        split=args.split,
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
    )
