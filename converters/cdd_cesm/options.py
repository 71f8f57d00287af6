"""Options of the converter of CDD-CESM: as a dataclass, and on the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from mammodet.converters.base import SplitOptions
from mammodet.converters.cdd_cesm.shape import MassRule, rule_from

KINDS = ("DM", "CM", "both")
CATEGORIES = ("mass", "lesion")
BACKGROUND = ("band", "small")


@dataclass(frozen=True, slots=True)
class CesmOptions:
    """What is converted, and how.

    Attributes:
        kind: `DM` low-energy images, `CM` subtracted ones, `both`.
        table: Radiology-manual-annotations, as XLSX or CSV.
        segmentations: Radiology_hand_drawn_segmentations, where it does not lie in the source.
        malignant_without_table: images with a finding are malignant, by the user's word.
        all_findings: None: `rule` says which outlines are masses, the others are regions to ignore; else the category
            that all of them have.
        background: kinds of outlines (`BACKGROUND`) that are neither lesions nor regions to ignore, but left out.
        rule: what a mass looks like.
        jobs: threads.
    """

    kind: str = "DM"
    table: Path | None = None
    segmentations: Path | None = None
    malignant_without_table: bool = False
    all_findings: str | None = None
    background: tuple[str, ...] = ()
    rule: MassRule = field(default_factory=MassRule)
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="DM",
        help="'DM': low-energy images, like ordinary mammograms; 'CM': subtracted contrast images (%(default)s)",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="the archive's Radiology-manual-annotations.xlsx, or its sheet 'all' as CSV: pathology, density, BI-RADS",
    )
    parser.add_argument(
        "--segmentations",
        type=Path,
        metavar="CSV",
        help="the archive's Radiology_hand_drawn_segmentations_v2.csv, where it does not lie in --source",
    )
    parser.add_argument(
        "--malignant-without-table",
        action="store_true",
        help="without --table: every image with a finding is malignant; only for a copy of which that is known",
    )
    parser.add_argument(
        "--all-findings",
        choices=CATEGORIES,
        help="take every outline as a lesion of this category (default: compact ones as 'mass', regions to ignore of "
        "the others)",
    )
    parser.add_argument(
        "--background",
        nargs="+",
        choices=BACKGROUND,
        default=[],
        help="leave out bands along the skin, or outlines too small for the rule, as no masses: more images teach boxes"
        " then, since those with regions to ignore do not (default: regions to ignore)",
    )
    parser.add_argument(
        "--mass-rule",
        nargs="+",
        default=[],
        metavar="NAME=NUMBER",
        help="numbers of the rule that tells masses, such as min_solidity=0.8 max_aspect=1.8 (docs/cdd_cesm.md)",
    )


def options_from(args: argparse.Namespace) -> CesmOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs."""
    return CesmOptions(
        kind=args.kind,
        table=args.table,
        segmentations=args.segmentations,
        malignant_without_table=args.malignant_without_table,
        all_findings=args.all_findings,
        background=tuple(args.background),
        rule=rule_from(args.mass_rule),
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
    )
