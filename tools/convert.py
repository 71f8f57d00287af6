"""Convert a public archive, as it lies on disk, to COCO JSON with images and splits."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from converters import cbis_ddsm, cdd_cesm, coco, ddsm_patches, folder, mias, rsna
from converters.base import SplitOptions, Summary
from mammodet.cli import run
from mammodet.errors import InputError
from mammodet.parallel import BACKENDS

EXAMPLE = """examples:
  python tools/convert.py mias --source all-mias --output data/mias --folds 5
  python tools/convert.py cbis_ddsm --source CBIS-DDSM --output data/cbis --abnormality mass
  python tools/convert.py coco --source cbis_ddsm_mass_800 --output data/cbis800 --preset cbis_ddsm_mass --tables CSVS
  python tools/convert.py rsna --source rsna-breast-cancer-detection --output data/rsna --folds 5 --jobs 8
  python tools/convert.py folder --source TREE --output data/density --patient '(P_[0-9]+)'
  python tools/convert.py cdd_cesm --source CDD-CESM --output data/cesm --table Radiology-manual-annotations.xlsx
  python tools/convert.py ddsm_patches --source ddsm-mammography --output data/ddsm_patches
"""

#: Converters that bring their own options.
OTHERS: dict[str, tuple[ModuleType, str]] = {
    "coco": (coco, "COCO files that others made, joined with tables"),
    "rsna": (rsna, "RSNA screening: train.csv and DICOM files"),
    "folder": (folder, "a tree whose folders are classes: benign/, malignant/, Density1Benign/, train/cancer/ ..."),
    "cdd_cesm": (cdd_cesm, "CDD-CESM: low-energy mammograms with outlines, or a copy with masks"),
    "ddsm_patches": (ddsm_patches, "DDSM patches of 299 x 299: TFRecord and .npy files"),
}


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

    _add_mias(archives, common)
    _add_cbis(archives, common)
    for name, (module, text) in OTHERS.items():
        _add(archives, common, name, module, text)
    return main


def _add_mias(archives: Any, common: argparse.ArgumentParser) -> None:
    one = archives.add_parser(
        "mias",
        parents=[common],
        help="mini-MIAS (Info.txt and mdb001.pgm ...)",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.set_defaults(convert=_convert_mias)
    one.add_argument(
        "--categories",
        choices=list(mias.CATEGORY_SCHEMES),
        default="lesion",
        help="'lesion': all in one; 'mass': masses only, other findings become regions to ignore; "
        "'abnormality': six types (%(default)s)",
    )
    one.add_argument(
        "--table-size",
        type=int,
        metavar="PX",
        help="side of the films that Info.txt was written for; circles on square films of another size are rescaled "
        f"({mias.TABLE_SIZE}; other films only where their masses prove that they were resized)",
    )


def _add_cbis(archives: Any, common: argparse.ArgumentParser) -> None:
    one = archives.add_parser(
        "cbis_ddsm",
        parents=[common],
        help="CBIS-DDSM in any of its layouts (DICOM, JPEG, PNG)",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.set_defaults(convert=_convert_cbis)
    one.add_argument("--tables", type=Path, nargs="+", default=[], help="the CSVs, where they lie outside --source")
    one.add_argument("--abnormality", choices=["mass", "calc", "both"], default="both", help="(%(default)s)")
    one.add_argument(
        "--categories",
        choices=cbis_ddsm.CATEGORY_SCHEMES,
        default="abnormality",
        help="'abnormality': mass, calcification; 'lesion': all in one; 'pathology': benign, malignant (%(default)s)",
    )
    one.add_argument(
        "--format",
        choices=cbis_ddsm.FORMATS,
        default="png16",
        help="'png16': lossless, in the depth of the archive's file; 'jpg': 8 bit; 'reference': no copies, the data "
        "set links to the archive's files (%(default)s)",
    )
    one.add_argument(
        "--max-size",
        type=int,
        metavar="PX",
        help=f"longest side of the images; larger ones are reduced; 0 keeps the archive's size "
        f"({cbis_ddsm.DEFAULT_MAX_SIZE}; with --format reference 0)",
    )
    one.add_argument(
        "--without-callback",
        choices=["benign", "unknown"],
        default="benign",
        help="what the pathology BENIGN_WITHOUT_CALLBACK means (%(default)s)",
    )
    one.add_argument(
        "--split",
        choices=["official", "holdout"],
        default="official",
        help="'official': the archive's test set; 'holdout': --test-fraction of the patients (%(default)s)",
    )
    one.add_argument(
        "--resolve-leaks",
        choices=["train", "test"],
        nargs="?",
        const="test",
        help="where patients go that the official split has on both sides, when mass and calc are pooled (test)",
    )
    one.add_argument("--backend", choices=BACKENDS, help="run on a cluster by this backend of joblib")
    one.add_argument("--scheduler", metavar="ADDRESS", help="of the cluster, for instance tcp://host:8786")


def _add(archives: Any, common: argparse.ArgumentParser, name: str, module: ModuleType, text: str) -> None:
    """A converter that brings its own options."""
    one = archives.add_parser(
        name, parents=[common], help=text, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    one.set_defaults(
        convert=lambda chosen: module.convert(chosen.source, chosen.output, module.options_from(chosen)),
    )
    module.add_arguments(one)


def _splits(chosen: argparse.Namespace) -> SplitOptions:
    return SplitOptions(chosen.test_fraction, chosen.val_fraction, chosen.folds, chosen.seed)


def _convert_mias(chosen: argparse.Namespace) -> Summary:
    options = mias.MiasOptions(chosen.categories, _splits(chosen), max(chosen.jobs, 1), table_size=chosen.table_size)
    return mias.convert(chosen.source, chosen.output, options)


def _convert_cbis(chosen: argparse.Namespace) -> Summary:
    default_size = 0 if chosen.format == "reference" else cbis_ddsm.DEFAULT_MAX_SIZE
    max_size = default_size if chosen.max_size is None else chosen.max_size
    options = cbis_ddsm.CbisOptions(
        abnormality=chosen.abnormality,
        image=cbis_ddsm.ImageOptions(
            file_format=chosen.format,
            max_size=max_size or None,
            categories=chosen.categories,
            without_callback=chosen.without_callback,
        ),
        split=chosen.split,
        resolve_leaks=chosen.resolve_leaks,
        tables=tuple(chosen.tables),
        splits=_splits(chosen),
        jobs=chosen.jobs,
        backend=chosen.backend,
        scheduler=chosen.scheduler,
    )
    return cbis_ddsm.convert(chosen.source, chosen.output, options)


def main(arguments: list[str] | None = None) -> int:
    """Run the converter and print its summary."""
    chosen = parser().parse_args(arguments)
    if chosen.jobs < 1:
        raise InputError(f"--jobs {chosen.jobs}: expected at least 1")
    summary: Summary = chosen.convert(chosen)
    print(summary.to_text())
    print(f"wrote {chosen.output}/all.json, the splits beside it, summary.json and quarantine.csv")
    return 0


if __name__ == "__main__":
    run(main)
