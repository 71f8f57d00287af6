"""`mammodet convert ARCHIVE` (docs/archives.md)."""

import sys

from mammodet.converters.archives import convert_chosen, parser

__all__ = ["main", "parser"]


def main(arguments: list[str] | None = None) -> int:
    """Run the converter and print its summary."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser(arguments).parse_args(arguments)
    print(convert_chosen(chosen).to_text())
    print(
        f"wrote {chosen.output}: train.json, val.json, test.json (those with images), splits.json, summary.json, "
        "quarantine.csv"
    )
    return 0
