"""Write a small archive of synthetic mammograms in the layout of mini-MIAS."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammodet import phantom
from mammodet.cli import run


def build_parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    quirks = "\n".join(
        f"  {name:22}{text}{'' if name in phantom.ALL_QUIRKS else ' (only where asked for)'}"
        for name, text in phantom.QUIRK_HELP.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""quirks:
{quirks}

example:
  python tools/make_phantoms.py --output /tmp/phantoms --patients 24 --size 512 --jobs 2
""",
    )
    parser.add_argument("--output", type=Path, required=True, help="new folder, or an older phantom archive")
    parser.add_argument("--patients", type=int, default=12, help="two images each (default %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side in pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same archive (default %(default)s)")
    parser.add_argument(
        "--quirks",
        nargs="*",
        default=list(phantom.ALL_QUIRKS),
        metavar="NAME",
        help="quirks to place, none for a clean archive (default: all but those only where asked for)",
    )
    parser.add_argument(
        "--abnormal-fraction",
        type=float,
        default=0.5,
        help="share of images with a lesion (default %(default)s)",
    )
    parser.add_argument(
        "--difficulty",
        choices=list(phantom.DIFFICULTIES),
        default="realistic",
        help="'easy': masses plain to see, but for what the quirks ask for (default %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, -1: all cores (default %(default)s)")
    parser.add_argument("--write-truth", action="store_true", help="also write masks truth/mdbNNN_k.png")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse, write, print what was written."""
    args = build_parser().parse_args(argv)
    summary = phantom.write_mias_archive(
        args.output,
        patients=args.patients,
        size=args.size,
        seed=args.seed,
        quirks=args.quirks,
        abnormal_fraction=args.abnormal_fraction,
        difficulty=args.difficulty,
        jobs=args.jobs,
        write_truth=args.write_truth,
    )
    print(f"{args.output}: {summary.images} images of {summary.patients} patients")
    print(f"  abnormal images {len(summary.abnormal_images)}, circles {summary.circles}")
    print("  lines " + ", ".join(f"{name} {count}" for name, count in summary.classes.items()))
    for name, ids in summary.quirks.items():
        shown = " ".join(ids[:6]) + (" ..." if len(ids) > 6 else "") or "no room in so few images"
        print(f"  {name}: {'Info.txt' if name == 'crlf' else shown}")
    return 0


if __name__ == "__main__":
    run(main)
