"""The command line of the mini-MIAS converter."""

from __future__ import annotations

import argparse

from mammodet.converters.base import SplitOptions
from mammodet.converters.mias.converter import CATEGORY_SCHEMES, MiasOptions
from mammodet.converters.mias.scale import TABLE_SIZE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    parser.add_argument(
        "--categories",
        choices=list(CATEGORY_SCHEMES),
        default="lesion",
        help="'lesion': all in one; 'mass': masses only, other findings become regions to ignore; "
        "'abnormality': six types (%(default)s)",
    )
    parser.add_argument(
        "--table-size",
        type=int,
        metavar="PX",
        help="side of the films that Info.txt was written for; circles on square films of another size are rescaled "
        f"({TABLE_SIZE}; other films only where their masses prove that they were resized)",
    )


def options_from(args: argparse.Namespace) -> MiasOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs."""
    splits = SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed)
    return MiasOptions(args.categories, splits, args.jobs, table_size=args.table_size)
