"""Find what is wrong with a data set before anyone trains on it: leakage, copies, damaged files, misplaced lesions."""

import argparse
import shlex
import sys
from pathlib import Path

from mammodet.cli import Parser

EXAMPLE = """examples:
  mammodet audit data/mias/train.json --output audit/
  mammodet audit data/mias/all.json --expect mias --output audit/
  mammodet audit data/cbis/train.json --with data/mias/test.json --output audit/

exit status: 0 no errors (there may be warnings), 1 errors in the data, 2 wrong input
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("file", type=Path, help="data set file (COCO JSON)")
    main.add_argument("--output", type=Path, required=True, help="folder for audit.json and index.html")
    main.add_argument(
        "--expect",
        metavar="NAME",
        help="archive whose known totals the counts must equal, for instance mias (docs/audit.md)",
    )
    main.add_argument(
        "--with",
        dest="others",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="JSON",
        help="more data set files that must share no patient and no image with it",
    )
    main.add_argument("--no-siblings", action="store_true", help="do not compare with the other subsets in its folder")
    main.add_argument("--jobs", type=int, default=2, help="images at a time (%(default)s)")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Audit, print, write."""
    chosen = parser().parse_args(arguments)
    from mammodet.audit.run import audit_to_files

    audit = audit_to_files(
        chosen.file,
        chosen.output,
        others=chosen.others,
        siblings=not chosen.no_siblings,
        expect=chosen.expect,
        jobs=chosen.jobs,
        command="mammodet audit " + shlex.join(arguments if arguments is not None else sys.argv[1:]),
    )
    print(f"wrote {chosen.output}/audit.json; open {chosen.output}/index.html")
    return 0 if audit.is_clean else 1
