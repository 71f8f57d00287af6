"""Make a data set of a part of another: one view, certain densities, known labels, renamed categories."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet subset --data data/cbis --name cc --view CC
  mammodet train --config-file classification/cbis_mass_cc_cnn data.root=data/cbis
  mammodet subset --data data/rsna --name known --known density malignant --view CC MLO
  mammodet subset --data data/cbis_all --name mass --category calcification=

It writes cc_train.json, cc_val.json, cc_test.json, ... beside train.json, val.json, test.json; images stay where they
are. A config names them as data.train=cc_train.json data.val=cc_val.json data.test=cc_test.json.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="converted folder")
    main.add_argument("--name", required=True, help="prefix of the new files")
    for name in ("view", "laterality", "density", "birads", "class"):
        main.add_argument(
            f"--{name}", dest=f"field_{name}", nargs="+", metavar="VALUE", help=f"keep images with this {name}"
        )
    main.add_argument("--source", nargs="+", default=[], metavar="NAME", help="keep images of these archives")
    main.add_argument(
        "--known",
        nargs="+",
        default=[],
        metavar="TARGET",
        help="keep images whose tumor, malignant, density, ... is known",
    )
    main.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="rename or merge a category; OLD= makes its lesions regions to ignore; repeatable",
    )
    return main


def main(arguments: list[str] | None = None) -> int:
    """Write the files and say how many images stayed."""
    chosen = parser().parse_args(arguments)
    from mammodet.data.subset import Filter, write_subset

    given = {name.removeprefix("field_"): value for name, value in vars(chosen).items() if name.startswith("field_")}
    fields = {name: value for name, value in given.items() if value}
    categories = dict(_renamed(item) for item in chosen.category)
    for part in write_subset(chosen.data, chosen.name, Filter(fields, chosen.known, chosen.source, categories)):
        written = f"wrote {part.path}" if part.path else f"{part.name} would be empty: not written"
        print(f"{written}: {part.kept} of {part.of} images")
    return 0


def _renamed(item: str) -> tuple[str, str | None]:
    old, found, new = item.partition("=")
    if not found or not old:
        raise InputError(f"--category {item!r}: expected OLD=NEW, or OLD= for findings to ignore")
    return old, new or None
