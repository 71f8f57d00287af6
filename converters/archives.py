"""Make a data set (COCO JSON, images, splits by patient) of an archive as it was downloaded."""

import argparse
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mammodet.cli import Parser

if TYPE_CHECKING:
    from mammodet.converters.base import Summary

EXAMPLES = r"""  mammodet convert mias --source all-mias --output data/mias --folds 5
  mammodet convert cbis_ddsm --source CBIS-DDSM --output data/cbis --abnormality mass
  mammodet convert coco --source cbis_ddsm_mass_800 --output data/cbis800 --preset cbis_ddsm_mass --tables CSVS
  mammodet convert masks --source SET --output data/set --images "images/*.jpg" --masks "masks/{stem}*.png" \
    --pattern "(?P<patient>P[0-9]+)_(?P<laterality>[LR])_(?P<view>CC|MLO)"
  mammodet convert rsna --source rsna-breast-cancer-detection --output data/rsna --folds 5 --jobs 8
  mammodet convert folder --source TREE --output data/density --patient '(P_[0-9]+)'
  mammodet convert cdd_cesm --source CDD-CESM --output data/cesm --table Radiology-manual-annotations.xlsx
  mammodet convert table --source SET --output data/set --pattern "(?P<patient>P[0-9]+)_(?P<laterality>[LR])"
  mammodet convert inbreast --source "INbreast Release 1.0" --output data/inbreast
  mammodet convert vindr --source vindr-mammo/1.0.0 --output data/vindr
  mammodet convert cmmd --source manifest-1616439774456 --output data/cmmd
  mammodet convert dmid --source DMID --output data/dmid --format png16
  mammodet convert embed --source EMBED --output data/embed
  mammodet convert kau_bcmd --source KAU-BCMD --output data/kau
  mammodet convert ddsm --source DDSM --output data/ddsm --format png16
  mammodet convert merge --source data --sets mias cbis --category mias/lesion=mass --output joined
  mammodet convert ddsm_patches --source ddsm-mammography --output data/ddsm_patches
"""

#: Modules of `mammodet.converters`, and what they read.
ARCHIVES = {
    "mias": "mini-MIAS (Info.txt and mdb001.pgm ...)",
    "cbis_ddsm": "CBIS-DDSM in any of its layouts (DICOM, JPEG, PNG)",
    "table": "boxes and outlines in CSV, XLSX, YOLO, Pascal VOC, LabelMe, CVAT, Label Studio, VIA",
    "masks": "images and masks in folders, described by two patterns",
    "coco": "COCO files that others made, joined with tables",
    "rsna": "RSNA screening: train.csv and DICOM files",
    "folder": "a tree whose folders are classes: benign/, malignant/, Density1Benign/, train/cancer/ ...",
    "cdd_cesm": "CDD-CESM: low-energy mammograms with outlines, or a copy with masks",
    "inbreast": "INbreast: DICOM files, OsiriX outlines and INbreast.csv",
    "vindr": "VinDr-Mammo: DICOM files and finding_annotations.csv",
    "cmmd": "CMMD: DICOM files and CMMD_clinicaldata_revision.xlsx",
    "dmid": "DMID: Info.txt, TIFF images and masks",
    "embed": "EMBED: DICOM files and the tables of metadata and clinical findings",
    "kau_bcmd": "KAU-BCMD: images in folders by BI-RADS, and correctSheetlast.xlsx",
    "ddsm": "DDSM: LJPEG files, or copies of them, with .ics and .OVERLAY files",
    "merge": "converted data sets below one folder, as one",
    "ddsm_patches": "DDSM patches of 299 x 299: TFRecord and .npy files",
}


def parser(named: Sequence[str] = tuple(ARCHIVES), *, raises: bool = False) -> argparse.ArgumentParser:
    """The command line: one sub-command per archive, with the options of those `named`: importing all takes long."""
    main = Parser(
        description=__doc__,
        epilog=f"examples:\n{_examples('mias', 'cbis_ddsm', 'masks')}\nOptions: mammodet convert ARCHIVE --help",
        raises=raises,
    )
    archives = main.add_subparsers(dest="archive", required=True, metavar="ARCHIVE")
    common = Parser(add_help=False)
    common.add_argument("--source", type=Path, required=True, help="folder of the unpacked archive")
    common.add_argument("--output", type=Path, required=True, help="folder for the data set")
    for name, text in ARCHIVES.items():
        words = f"example (docs/{name}.md):\n{_examples(name)}"
        one = archives.add_parser(name, parents=[common], help=text, description=text, epilog=words, raises=raises)
        if name in named:
            from mammodet.converters.options import add_arguments  # here: it imports pydantic

            converter = importlib.import_module(f"mammodet.converters.{name}").ARCHIVE
            add_arguments(one, converter.options_type)
            one.set_defaults(converter=converter)
    return main


def _examples(*archives: str) -> str:
    return "".join(re.findall(rf"  mammodet convert (?:{'|'.join(archives)}) (?:.*\\\n)*.*\n", EXAMPLES))


def convert_chosen(chosen: argparse.Namespace) -> "Summary":
    """Convert as a command line says."""
    converter = chosen.converter
    summary: Summary = converter.convert(chosen.source, chosen.output, converter.options_type.of(chosen))
    return summary
