"""The command line of the CBIS-DDSM converter."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammodet.converters.base import SplitOptions
from mammodet.converters.cbis_ddsm.converter import CATEGORY_SCHEMES, DEFAULT_MAX_SIZE, FORMATS, CbisOptions
from mammodet.converters.cbis_ddsm.image import ImageOptions

from mammodet.parallel import BACKENDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    parser.add_argument("--tables", type=Path, nargs="+", default=[], help="the CSVs, where they lie outside --source")
    parser.add_argument("--abnormality", choices=["mass", "calc", "both"], default="both", help="(%(default)s)")
    parser.add_argument(
        "--categories",
        choices=CATEGORY_SCHEMES,
        default="abnormality",
        help="'abnormality': mass, calcification; 'lesion': all in one; 'pathology': benign, malignant (%(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="png16",
        help="'png16': lossless, in the depth of the archive's file; 'jpg': 8 bit; 'reference': no copies, the data "
        "set links to the archive's files (%(default)s)",
    )
    parser.add_argument(
        "--max-size",
        type=int,
        metavar="PX",
        help=f"longest side of the images; larger ones are reduced; 0 keeps the archive's size "
        f"({DEFAULT_MAX_SIZE}; with --format reference 0)",
    )
    parser.add_argument(
        "--without-callback",
        choices=["benign", "unknown"],
        default="benign",
        help="what the pathology BENIGN_WITHOUT_CALLBACK means (%(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=["official", "holdout"],
        default="official",
        help="'official': the archive's test set; 'holdout': --test-fraction of the patients (%(default)s)",
    )
    parser.add_argument(
        "--resolve-leaks",
        choices=["train", "test"],
        nargs="?",
        const="test",
        help="where patients go that the official split has on both sides, when mass and calc are pooled (test)",
    )
    parser.add_argument("--backend", choices=BACKENDS, help="run on a cluster by this backend of joblib")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of the cluster, for instance tcp://host:8786")


def options_from(args: argparse.Namespace) -> CbisOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs."""
    default_size = 0 if args.format == "reference" else DEFAULT_MAX_SIZE
    max_size = default_size if args.max_size is None else args.max_size
    return CbisOptions(
        abnormality=args.abnormality,
        image=ImageOptions(
            file_format=args.format,
            max_size=max_size or None,
            categories=args.categories,
            without_callback=args.without_callback,
        ),
        split=args.split,
        resolve_leaks=args.resolve_leaks,
        tables=tuple(args.tables),
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
        backend=args.backend,
        scheduler=args.scheduler,
    )
