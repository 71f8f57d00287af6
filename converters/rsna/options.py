"""Options of the converter of the RSNA archive: as a dataclass, and on the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from mammodet.converters.base import SplitOptions
from mammodet.converters.rsna.image import PixelOptions

FORMATS = ("reference", "png16")
VIEWS = ("all", "standard")
NEGATIVES = ("all", "birads1")
DEFAULT_MAX_SIZE = 2048


@dataclass(frozen=True, slots=True)
class RsnaOptions:
    """What is converted, and how.

    Attributes:
        table: the CSV, where it does not lie in the source (or is not the one that is found there first).
        pixels: format, size and crop of the images.
        views: `all`, or `standard` (CC and MLO).
        negatives: what has the label `tumor` 0: `all` images without cancer, or of those the ones with BI-RADS 1.
        limit_patients: so many women are converted, chosen by a hash of their ids; None: all.
        jobs: threads that read headers, or processes that write images.
    """

    table: Path | None = None
    pixels: PixelOptions = field(default_factory=PixelOptions)
    views: str = "all"
    negatives: str = "all"
    limit_patients: int | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="train.csv or test.csv, where it does not lie in --source"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="reference",
        help="'reference': no copies, the data set links to the archive's files; 'png16': decoded through the files' "
        "windows, tissue bright (%(default)s)",
    )
    parser.add_argument(
        "--max-size",
        type=int,
        metavar="PX",
        help=f"longest side of the images; larger ones are reduced; 0 keeps the archive's size ({DEFAULT_MAX_SIZE}; "
        "with --format reference 0)",
    )
    parser.add_argument("--crop", action="store_true", help="cut the images to the breast (with --format png16)")
    parser.add_argument(
        "--views", choices=VIEWS, default="all", help="'standard': CC and MLO only, others are left out (%(default)s)"
    )
    parser.add_argument(
        "--negatives",
        choices=NEGATIVES,
        default="all",
        help="what is no tumor: 'all' images without cancer, benign findings among them, or only those with BI-RADS 1; "
        "of the others it is not known then (%(default)s)",
    )
    parser.add_argument(
        "--limit-patients", type=int, metavar="N", help="convert N women only, the same ones on every machine"
    )


def options_from(args: argparse.Namespace) -> RsnaOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs."""
    default_size = 0 if args.format == "reference" else DEFAULT_MAX_SIZE
    max_size = default_size if args.max_size is None else args.max_size
    return RsnaOptions(
        table=args.table,
        pixels=PixelOptions(file_format=args.format, max_size=max_size or None, crop=args.crop),
        views=args.views,
        negatives=args.negatives,
        limit_patients=args.limit_patients,
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
    )
