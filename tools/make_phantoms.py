"""Write a small archive of synthetic mammograms in the layout of mini-MIAS or CBIS-DDSM."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mammodet import phantom
from mammodet.cli import run
from mammodet.errors import InputError

#: Options that only one kind of archive has, with what they are when nothing is said.
MIAS_ONLY: dict[str, Any] = {"abnormal_fraction": 0.5, "write_truth": False}
CBIS_ONLY: dict[str, Any] = {"layout": "tcia", "abnormality": "both", "tables": None}


def build_parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""quirks of mias:
{_quirks(phantom.QUIRK_HELP, phantom.ALL_QUIRKS)}

quirks of cbis_ddsm:
{_quirks(phantom.CBIS_QUIRK_HELP, phantom.CBIS_QUIRKS)}

examples:
  python tools/make_phantoms.py --output /tmp/phantoms --patients 24 --size 512 --jobs 2
  python tools/make_phantoms.py --archive cbis_ddsm --layout kaggle_jpeg --output /tmp/phantoms --patients 20
""",
    )
    parser.add_argument("--output", type=Path, required=True, help="new folder, or an older phantom archive")
    parser.add_argument("--archive", choices=["mias", "cbis_ddsm"], default="mias", help="(default %(default)s)")
    parser.add_argument("--patients", type=int, default=12, help="two images each (default %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="height in pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same archive (default %(default)s)")
    parser.add_argument(
        "--quirks",
        nargs="*",
        metavar="NAME",
        help="quirks to place, none for a clean archive (default: all but those only where asked for)",
    )
    parser.add_argument(
        "--difficulty",
        choices=list(phantom.DIFFICULTIES),
        default="realistic",
        help="'easy': masses plain to see, but for what the quirks ask for (default %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, -1: all cores (default %(default)s)")
    only = parser.add_argument_group("mias only")
    only.add_argument(
        "--abnormal-fraction", type=float, metavar="F", help="share of images with a lesion (default 0.5)"
    )
    only.add_argument("--write-truth", action="store_true", default=None, help="also write masks truth/mdbNNN_k.png")
    only = parser.add_argument_group("cbis_ddsm only")
    only.add_argument("--layout", choices=phantom.LAYOUTS, help="(default tcia)")
    only.add_argument("--abnormality", choices=["mass", "calc", "both"], help="(default both)")
    only.add_argument("--tables", type=Path, help="folder of the official tables: an image for each of their rows")
    return parser


def _quirks(texts: dict[str, str], default: tuple[str, ...]) -> str:
    return "\n".join(
        f"  {name:24}{text}{'' if name in default else ' (only where asked for)'}" for name, text in texts.items()
    )


def _own_options(args: argparse.Namespace, own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The options of the chosen kind; those of the other kind are refused."""
    wrong = [f"--{name.replace('_', '-')}" for name in other if getattr(args, name) is not None]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: not for --archive {args.archive}")
    return {name: value if (given := getattr(args, name)) is None else given for name, value in own.items()}


def main(argv: list[str] | None = None) -> int:
    """Parse, write, print what was written."""
    args = build_parser().parse_args(argv)
    common = {name: getattr(args, name) for name in ("patients", "size", "seed", "difficulty", "jobs")}
    if args.quirks is not None:
        common["quirks"] = args.quirks
    if args.archive == "mias":
        _print_mias(
            args.output, phantom.write_mias_archive(args.output, **common, **_own_options(args, MIAS_ONLY, CBIS_ONLY))
        )
    else:
        _print_cbis(
            args.output, phantom.write_cbis_archive(args.output, **common, **_own_options(args, CBIS_ONLY, MIAS_ONLY))
        )
    return 0


def _print_mias(output: Path, summary: phantom.PhantomSummary) -> None:
    print(f"{output}: {summary.images} images of {summary.patients} patients")
    print(f"  abnormal images {len(summary.abnormal_images)}, circles {summary.circles}")
    print("  lines " + ", ".join(f"{name} {count}" for name, count in summary.classes.items()))
    for name, ids in summary.quirks.items():
        shown = " ".join(ids[:6]) + (" ..." if len(ids) > 6 else "") or "no room in so few images"
        print(f"  {name}: {'Info.txt' if name == 'crlf' else shown}")


def _print_cbis(output: Path, summary: phantom.CbisPhantomSummary) -> None:
    lesions = len(summary.lesions)
    print(f"{output}: {summary.images} images of {summary.patients} patients, {lesions} lesions ({summary.layout})")
    for name, count in summary.rows.items():
        print(f"  {name}: {count} rows")
    for name, ids in summary.quirks.items():
        shown = " ".join(ids) or ("in the folders" if name == "stray_files" else "no room in so few images")
        print(f"  {name}: {shown}")


if __name__ == "__main__":
    run(main)
