"""Cut patches of lesions, of lesion-free tissue and of false positives, as a data set to pretrain or classify on."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError
from mammodet.patches.options import CLASS_SCHEMES, NEGATIVES_FROM, PatchOptions

EXAMPLE = """examples (docs/patches.md):
  mammodet patches --data data/mias --output data/mias_patches
  mammodet patches --data data/cbis --output data/cbis_patches --fixed --size 512 --output-size 224 \\
      --classes abnormality+pathology
  mammodet patches --data data/mias --output data/mias_patches --hard-negatives preds/predictions.json
"""


def parser() -> argparse.ArgumentParser:
    """The command line; defaults are those of `PatchOptions`."""
    default = PatchOptions()
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--data", type=Path, required=True, help="converted folder, or one JSON file of it")
    main.add_argument("--output", type=Path, required=True, help="folder for images/ and the JSON files")
    sides = main.add_mutually_exclusive_group()
    sides.add_argument(
        "--context",
        type=float,
        help=f"side of a patch as a multiple of its lesion's longest side ({default.context:g})",
    )
    sides.add_argument("--fixed", action="store_true", help="patches of one size in the image's own pixels")
    main.add_argument("--size", type=int, help=f"with --fixed: that size ({default.size})")
    main.add_argument(
        "--output-size",
        type=int,
        help=f"side of the files, to which patches are resized ({default.file_side}; with --fixed: as --size)",
    )
    main.add_argument(
        "--per-lesion",
        type=int,
        default=default.per_lesion,
        help="patches of a lesion, the first centred, the others shifted (%(default)s)",
    )
    main.add_argument(
        "--negatives", type=int, default=default.negatives, help="patches of lesion-free tissue per image (%(default)s)"
    )
    main.add_argument(
        "--negatives-from",
        choices=NEGATIVES_FROM,
        default=default.negatives_from,
        help="any image whose lesions are all known, or normal images only (%(default)s)",
    )
    main.add_argument(
        "--hard-negatives",
        type=Path,
        metavar="PREDICTIONS",
        help="predictions file whose false positives become negatives",
    )
    main.add_argument(
        "--hard-per-image", type=int, default=default.hard_per_image, help="at most so many per image (%(default)s)"
    )
    main.add_argument("--hard-score", type=float, default=default.hard_score, help="their least score (%(default)s)")
    main.add_argument(
        "--classes", choices=CLASS_SCHEMES, default=default.classes, help="what names a class (%(default)s)"
    )
    main.add_argument("--seed", type=int, default=default.seed, help="of everything random (%(default)s)")
    main.add_argument("--jobs", type=int, default=default.jobs, help="images at a time (%(default)s)")
    return main


def options_from(chosen: argparse.Namespace) -> PatchOptions:
    """Options of a command line.

    Raises:
        InputError: options that do not fit together.
    """
    default = PatchOptions()
    if chosen.size is not None and not chosen.fixed:
        raise InputError(f"--size {chosen.size}: is the size of --fixed patches; give --fixed too, or --output-size")
    return PatchOptions(
        context=None if chosen.fixed else default.context if chosen.context is None else chosen.context,
        size=default.size if chosen.size is None else chosen.size,
        output_size=chosen.output_size,
        per_lesion=chosen.per_lesion,
        negatives=chosen.negatives,
        negatives_from=chosen.negatives_from,
        predictions=chosen.hard_negatives,
        hard_per_image=chosen.hard_per_image,
        hard_score=chosen.hard_score,
        classes=chosen.classes,
        seed=chosen.seed,
        jobs=chosen.jobs,
    )


def main(arguments: list[str] | None = None) -> int:
    """Cut, write, and say what there is."""
    chosen = parser().parse_args(arguments)
    from mammodet.patches.write import make_patches

    print(make_patches(chosen.data, chosen.output, options_from(chosen)).to_text())
    return 0
