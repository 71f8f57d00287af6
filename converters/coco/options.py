"""Options of the COCO converter: as a dataclass, on the command line, and the presets for known archives."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mammodet.converters.base import SplitOptions
from mammodet.converters.coco.join import PATHOLOGIES, PATHOLOGY_WORDS, UNMATCHED, JoinRule

from mammodet.data.json_values import CLIP_PX
from mammodet.errors import InputError
from mammodet.records import SUBSETS

CROWD = ("auto", "ignore", "lesion")
UNITS = ("pixels", "fractions")


@dataclass(frozen=True, slots=True)
class CocoOptions:
    """What is converted, and how.

    Attributes:
        join: what file names and tables say of the images.
        annotations: (subset or None, JSON file); none: every COCO file below the source.
        categories: (old name, new name), the new one empty to drop it; others get their name in lower case.
        split: `given` (as the files or folders say), `holdout` (by shares of patients), None: given where all say it.
        resolve_leaks: where patients go that are given to two subsets: `test` or `train`; None refuses them.
        images: `copy` or `link`.
        without_boxes: what an image without boxes and rows is: `unknown` or `normal`.
        crowd: what `iscrowd` means: `ignore` (a region to ignore), `lesion` (run lengths, and nothing else), `auto`:
            `lesion` in files where every annotation has it, as CVAT writes brush masks.
        boxes: whether boxes and polygons count `pixels` or `fractions` of the image.
        clip_boxes: pixels by which a box may pass the border; it is cut.
        name: of the data set, in every record; None: that of the source's folder.
        preset: one of `PRESETS`, for checks that only a known archive allows.
    """

    join: JoinRule = field(default_factory=JoinRule)
    annotations: tuple[tuple[str | None, Path], ...] = ()
    categories: tuple[tuple[str, str], ...] = ()
    split: str | None = None
    resolve_leaks: str | None = None
    images: str = "copy"
    without_boxes: str = "unknown"
    crowd: str = "auto"
    boxes: str = "pixels"
    clip_boxes: float = CLIP_PX
    name: str | None = None
    preset: str | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True


def _cbis_rule(kind: str, more: Sequence[tuple[str, str]]) -> JoinRule:
    return JoinRule(
        pattern=r"(?<!\d)(?P<patient>\d{5})_(?P<laterality>LEFT|RIGHT)_(?P<view>CC|MLO)(?![a-zA-Z])",
        patient="P_{patient}",
        on=(("patient id", "P_{patient}"), ("left or right breast", "{laterality}"), ("image view", "{view}")),
        where=(("abnormality type", kind),),
        attributes=(("pathology", "pathology"), ("subtlety", "subtlety"), ("assessment", "assessment"), *more),
        image_keys=(("density", "breast density"), ("birads", "assessment")),
        constants=(("abnormality", kind),),
        unknown=(("density", "0"),),
    )


#: Name of the data set and rule. Patient ids are those of `mammodet convert cbis_ddsm`: leaks between both show.
PRESETS: dict[str, tuple[str, JoinRule]] = {
    "cbis_ddsm_mass": (
        "CBIS-DDSM",
        _cbis_rule("mass", (("shape", "mass shape"), ("margins", "mass margins"))),
    ),
    "cbis_ddsm_calc": (
        "CBIS-DDSM",
        _cbis_rule("calcification", (("calc_type", "calc type"), ("calc_distribution", "calc distribution"))),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The converter's own options; those that all converters share are the tool's."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--annotations",
        nargs="+",
        default=[],
        metavar="[SUBSET=]FILE.json",
        help="the COCO files, for instance train=a.json test=b.json (default: all below --source)",
    )
    files.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="rename or merge a category; OLD= makes its findings regions to ignore (default: its name in lower case)",
    )
    files.add_argument(
        "--images", choices=["copy", "link"], default="copy", help="'link': symbolic links, no copies (%(default)s)"
    )
    files.add_argument(
        "--without-boxes",
        choices=["unknown", "normal"],
        default="unknown",
        help="what an image without boxes and rows is: not known, or looked at and found normal (%(default)s)",
    )
    files.add_argument(
        "--crowd",
        choices=CROWD,
        default="auto",
        help="what iscrowd means: a region to ignore, or a lesion as run lengths; 'auto': a lesion where every "
        "annotation of a file has it, as CVAT marks brush masks (%(default)s)",
    )
    files.add_argument(
        "--boxes", choices=UNITS, default="pixels", help="what boxes and polygons are counted in (%(default)s)"
    )
    files.add_argument(
        "--clip-boxes",
        type=float,
        default=CLIP_PX,
        metavar="PX",
        help="boxes that pass the border by up to this are cut to the image, others are faulty (%(default)g)",
    )
    files.add_argument("--name", help="of the data set, kept with every image (default: the name of the folder)")
    join = parser.add_argument_group("what file names and tables say")
    join.add_argument("--preset", choices=list(PRESETS), help="all of this group, for a known archive")
    join.add_argument(
        "--pattern",
        metavar="REGEX",
        help="searched in the file name without its suffix; groups 'patient', 'laterality', 'view', and any others",
    )
    join.add_argument("--patient", metavar="TEMPLATE", help="the patient's id (default: {patient})")
    join.add_argument(
        "--table",
        "--tables",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="CSV",
        help="tables, or folders of tables",
    )
    join.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="COLUMN=TEMPLATE",
        help="a row belongs to an image where this column is this; templates hold groups of --pattern, {stem}, "
        "{file_name}, {side} (L, R), {side_word} (LEFT, RIGHT)",
    )
    join.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="rows that are meant")
    join.add_argument(
        "--attribute", action="append", default=[], metavar="NAME=COLUMN", help="an attribute of the lesions"
    )
    join.add_argument(
        "--image-key",
        action="append",
        default=[],
        metavar="KEY=COLUMN",
        help="density, birads, view, laterality or patient_id of the image",
    )
    join.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an attribute of every lesion")
    join.add_argument(
        "--pathology",
        action="append",
        default=[],
        metavar="WORD=MEANING",
        help=f"what a word of the attribute 'pathology' means: {', '.join(PATHOLOGIES)}",
    )
    join.add_argument(
        "--without-callback",
        choices=["benign", "unknown", "malignant"],
        help="what the pathology BENIGN_WITHOUT_CALLBACK means (benign)",
    )
    join.add_argument(
        "--unknown", action="append", default=[], metavar="KEY=WORD", help="a word that says nothing: density=0"
    )
    join.add_argument(
        "--rows",
        choices=["lesions", "images"],
        default="lesions",
        help="what a row is: a lesion, or facts about an image, with a lesion or without (%(default)s)",
    )
    join.add_argument(
        "--unmatched",
        choices=list(UNMATCHED),
        default="refuse",
        help="images whose name does not match or that have no row: 'skip' quarantines them, 'keep' also keeps those "
        "that only lack a row (%(default)s)",
    )
    subsets = parser.add_argument_group("subsets")
    subsets.add_argument(
        "--split",
        choices=["given", "holdout"],
        help="'given': as files or folders are named; 'holdout': --test-fraction of the patients (default: given where "
        "every file is told)",
    )
    subsets.add_argument(
        "--resolve-leaks",
        choices=["test", "train"],
        help="where patients go that are given to two subsets: to the one nearer to test, or nearer to train",
    )


def options_from(args: argparse.Namespace) -> CocoOptions:
    """Options of a command line: those of `add_arguments`, and test_fraction, val_fraction, folds, seed and jobs.

    Raises:
        InputError: a pair that is none, or a preset without tables.
    """
    name, base = PRESETS[args.preset] if args.preset else (None, JoinRule())
    if args.preset and not args.table:
        raise InputError(f"--preset {args.preset}: needs the archive's tables; name them, or their folder, by --tables")
    words = {**PATHOLOGY_WORDS, **dict(_pairs("--pathology", args.pathology))}
    if args.without_callback:
        words["BENIGN_WITHOUT_CALLBACK"] = args.without_callback
    join = replace(
        base,
        pattern=base.pattern if args.pattern is None else args.pattern,
        patient=base.patient if args.patient is None else args.patient,
        tables=tuple(args.table),
        on=_pairs("--on", args.on) or base.on,
        where=(*base.where, *_pairs("--where", args.where)),
        attributes=_merged(base.attributes, _pairs("--attribute", args.attribute)),
        image_keys=_merged(base.image_keys, _pairs("--image-key", args.image_key)),
        constants=_merged(base.constants, _pairs("--set", args.set)),
        pathology_words=words,
        unknown=(*base.unknown, *_pairs("--unknown", args.unknown)),
        rows=args.rows,
        unmatched=args.unmatched,
    )
    return CocoOptions(
        join=join,
        annotations=tuple(_annotations(text) for text in args.annotations),
        categories=_pairs("--category", args.category, empty=True),
        split=args.split,
        resolve_leaks=args.resolve_leaks,
        images=args.images,
        without_boxes=args.without_boxes,
        crowd=args.crowd,
        boxes=args.boxes,
        clip_boxes=args.clip_boxes,
        name=args.name or name,
        preset=args.preset,
        splits=SplitOptions(args.test_fraction, args.val_fraction, args.folds, args.seed),
        jobs=args.jobs,
    )


def _pairs(option: str, texts: Sequence[str], *, empty: bool = False) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for text in texts:
        left, sign, right = text.partition("=")
        if not sign or not left.strip() or not (right.strip() or empty):
            raise InputError(f"{option} {text!r}: expected {'OLD=NEW, or OLD=' if empty else 'NAME=VALUE'}")
        if left.strip() in dict(pairs):
            raise InputError(f"{option} {text!r}: {left.strip()!r} is said twice")
        pairs.append((left.strip(), right.strip()))
    return tuple(pairs)


def _merged(base: Sequence[tuple[str, str]], more: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple({**dict(base), **dict(more)}.items())


def _annotations(text: str) -> tuple[str | None, Path]:
    """`train=a.json`, or a path alone, which may hold a `=` itself."""
    subset, sign, path = text.partition("=")
    if sign and subset in SUBSETS:
        return subset, Path(path)
    if sign and not Path(text).exists() and "/" not in subset:
        raise InputError(f"--annotations {text}: expected FILE.json or SUBSET=FILE.json with {', '.join(SUBSETS)}")
    return None, Path(text)
