"""Cut patches of lesions, of lesion-free tissue and of false positives, as a data set to pretrain or classify on."""

import argparse
from pathlib import Path

from mammodet.cli import Parser

EXAMPLE = """examples (docs/patches.md):
  mammodet patches --data data/mias --output data/mias_patches
  mammodet patches --data data/cbis --output data/cbis_patches --fixed --size 512 --output-size 224 \\
      --classes abnormality+pathology
  mammodet patches --data data/mias --output data/mias_patches --hard-negatives preds/predictions.json
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from mammodet.command_line import add_arguments
    from mammodet.patches import PatchOptions

    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--data", type=Path, required=True, help="converted folder, or one JSON file of it")
    main.add_argument("--output", type=Path, required=True, help="folder for images/ and the JSON files")
    add_arguments(main, PatchOptions)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Cut, write, and say what there is."""
    chosen = parser().parse_args(arguments)
    from mammodet.patches import PatchOptions
    from mammodet.patches.write import make_patches

    print(make_patches(chosen.data, chosen.output, PatchOptions.of(chosen)).to_text())
    return 0
