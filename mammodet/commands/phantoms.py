"""Write a small archive of synthetic mammograms in the layout of a public one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodet import phantom
from mammodet.cli import Parser
from mammodet.errors import InputError
from mammodet.phantom.ddsm_patches import PatchesPhantomSummary, write_ddsm_patches
from mammodet.phantom.folder import FolderPhantomSummary, write_folder_archive
from mammodet.phantom.rsna import RSNA_QUIRK_HELP, RsnaPhantomSummary, write_rsna_archive


@dataclass(frozen=True, slots=True)
class Layout:
    """How an archive is written.

    Attributes:
        write: the function, by keyword.
        options: its options on the command line, with what they are when nothing is said (None: the function's own).
        show: prints its summary.
    """

    write: Callable[..., Any]
    options: dict[str, Any]
    show: Callable[[Path, Any], None]


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    main = Parser(
        description=__doc__,
        epilog=f"""quirks of mias:
{_quirks(phantom.QUIRK_HELP, phantom.ALL_QUIRKS)}

quirks of cbis_ddsm:
{_quirks(phantom.CBIS_QUIRK_HELP, phantom.CBIS_QUIRKS)}

quirks of rsna:
{_quirks(RSNA_QUIRK_HELP, ())}

examples:
  mammodet phantoms --output /tmp/phantoms --patients 24 --size 512 --jobs 2
  mammodet phantoms --archive cbis_ddsm --layout kaggle_jpeg --output /tmp/phantoms --patients 20
  mammodet phantoms --archive rsna --output /tmp/rsna --patients 40 --size 512 --positive-fraction 0.3
  mammodet phantoms --archive folder --output /tmp/classes --images 96
""",
    )
    main.add_argument("--output", type=Path, required=True, help="new folder, or an older phantom archive")
    main.add_argument("--archive", choices=list(LAYOUTS), default="mias", help="(default %(default)s)")
    main.add_argument("--seed", type=int, default=0, help="same seed, same archive (default %(default)s)")
    main.add_argument(
        "--size", type=int, help="height in pixels (default 1024; folder 224, ddsm_patches 299, both square)"
    )
    some = main.add_argument_group("of some archives only")
    some.add_argument("--patients", type=int, help="mias, cbis_ddsm, rsna: women, with two to five images (default 12)")
    some.add_argument("--images", type=int, help="folder (default 64), ddsm_patches (default 200): files, patches")
    some.add_argument(
        "--quirks",
        nargs="*",
        metavar="NAME",
        help="mias, cbis_ddsm, rsna: quirks to place, none for a clean archive (default: all but those only where "
        "asked for)",
    )
    some.add_argument(
        "--difficulty",
        choices=list(phantom.DIFFICULTIES),
        help="mias, cbis_ddsm, rsna: 'easy': masses plain to see, but for what the quirks ask for (default realistic)",
    )
    some.add_argument("--jobs", type=int, help="mias, cbis_ddsm, rsna: processes, -1: all cores (default 1)")
    some.add_argument(
        "--abnormal-fraction", type=float, metavar="F", help="mias: share of images with a lesion (default 0.5)"
    )
    some.add_argument("--write-truth", action="store_true", default=None, help="mias: also masks truth/mdbNNN_k.png")
    some.add_argument("--layout", choices=phantom.LAYOUTS, help="cbis_ddsm (default tcia)")
    some.add_argument("--abnormality", choices=["mass", "calc", "both"], help="cbis_ddsm (default both)")
    some.add_argument("--tables", type=Path, help="cbis_ddsm: folder of the official tables: an image for each row")
    some.add_argument("--positive-fraction", type=float, metavar="F", help="rsna: women with cancer (default 0.25)")
    some.add_argument("--table", type=Path, help="rsna: a table of the archive's form: an image for each row")
    some.add_argument("--limit", type=int, help="rsna: at most so many rows of --table")
    return main


def _quirks(texts: dict[str, str], default: tuple[str, ...]) -> str:
    return "\n".join(
        f"  {name:24}{text}{'' if name in default else ' (only where asked for)'}" for name, text in texts.items()
    )


def main(argv: list[str] | None = None) -> int:
    """Parse, write, print what was written."""
    given = {name: value for name, value in vars(parser().parse_args(argv)).items() if value is not None}
    archive, output, seed = given.pop("archive"), given.pop("output"), given.pop("seed")
    layout = LAYOUTS[archive]
    wrong = [f"--{name.replace('_', '-')}" for name in given if name not in layout.options]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: not for --archive {archive}")
    options = {name: value for name, value in layout.options.items() if value is not None} | given
    if archive == "ddsm_patches":
        options["patches"] = options.pop("images")
    layout.show(output, layout.write(output, seed=seed, **options))
    return 0


def _show_mias(output: Path, summary: phantom.PhantomSummary) -> None:
    print(f"{output}: {summary.images} images of {summary.patients} patients")
    print(f"  abnormal images {len(summary.abnormal_images)}, circles {summary.circles}")
    print("  lines " + ", ".join(f"{name} {count}" for name, count in summary.classes.items()))
    for name, ids in summary.quirks.items():
        shown = " ".join(ids[:6]) + (" ..." if len(ids) > 6 else "") or "no room in so few images"
        print(f"  {name}: {'Info.txt' if name == 'crlf' else shown}")


def _show_cbis(output: Path, summary: phantom.CbisPhantomSummary) -> None:
    lesions = len(summary.lesions)
    print(f"{output}: {summary.images} images of {summary.patients} patients, {lesions} lesions ({summary.layout})")
    for name, count in summary.rows.items():
        print(f"  {name}: {count} rows")
    for name, ids in summary.quirks.items():
        shown = " ".join(ids) or ("in the folders" if name == "stray_files" else "no room in so few images")
        print(f"  {name}: {shown}")


def _show_rsna(output: Path, summary: RsnaPhantomSummary) -> None:
    print(f"{output}: {summary.images} images of {summary.patients} patients, {summary.positives} with cancer")
    for name, file in summary.quirks.items():
        print(f"  {name}: {file}")


def _show_folder(output: Path, summary: FolderPhantomSummary) -> None:
    print(f"{output}: {summary.images} images, {summary.copies} of them copies of others")
    for name, count in summary.classes.items():
        print(f"  {name}: {count}")


def _show_patches(output: Path, summary: PatchesPhantomSummary) -> None:
    print(f"{output}: {summary.patches} patches")
    for subset, classes in summary.classes.items():
        print(f"  {subset}: " + ", ".join(f"{name} {count}" for name, count in classes.items()))


_OF_WOMEN: dict[str, Any] = {"patients": 12, "size": 1024, "quirks": None, "difficulty": "realistic", "jobs": 1}
LAYOUTS = {
    "mias": Layout(
        phantom.write_mias_archive, {**_OF_WOMEN, "abnormal_fraction": 0.5, "write_truth": False}, _show_mias
    ),
    "cbis_ddsm": Layout(
        phantom.write_cbis_archive,
        {**_OF_WOMEN, "layout": "tcia", "abnormality": "both", "tables": None},
        _show_cbis,
    ),
    "rsna": Layout(
        write_rsna_archive, {**_OF_WOMEN, "positive_fraction": 0.25, "table": None, "limit": None}, _show_rsna
    ),
    "folder": Layout(write_folder_archive, {"images": 64, "size": 224}, _show_folder),
    "ddsm_patches": Layout(write_ddsm_patches, {"images": 200, "size": 299}, _show_patches),
}
