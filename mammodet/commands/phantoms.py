"""Write a small archive of synthetic mammograms in the layout of a public one."""

import argparse
import importlib
from pathlib import Path

from mammodet import phantom
from mammodet.cli import Parser
from mammodet.command_line import Leaf, Options, add_argument, leaves
from mammodet.errors import InputError

#: Archive, its options, and the function that writes it, in the module of the archive's name.
ARCHIVES: dict[str, tuple[type[Options], str]] = {
    "mias": (phantom.MiasPhantom, "write_mias_archive"),
    "cbis_ddsm": (phantom.CbisPhantom, "write_cbis_archive"),
    "rsna": (phantom.RsnaPhantom, "write_rsna_archive"),
    "folder": (phantom.FolderPhantom, "write_folder_archive"),
    "ddsm_patches": (phantom.PatchesPhantom, "write_ddsm_patches"),
}
EXAMPLE = """examples:
  mammodet phantoms --output phantoms/mias --patients 24 --size 512 --jobs 2
  mammodet phantoms --archive cbis_ddsm --layout kaggle_jpeg --output phantoms/cbis --patients 20
  mammodet phantoms --archive rsna --output phantoms/rsna --patients 40 --size 512 --positive-fraction 0.3
  mammodet phantoms --archive folder --output phantoms/classes --images 96
"""


def parser() -> argparse.ArgumentParser:
    """The command line: the options of all archives."""
    texts = [_quirks(name) for name in ("mias", "cbis_ddsm", "rsna")]
    main = Parser(description=__doc__, epilog="\n".join([*texts, EXAMPLE]))
    main.add_argument("--output", type=Path, required=True, help="new folder, or an older phantom archive")
    main.add_argument("--archive", choices=list(ARCHIVES), default="mias", help="whose layout is drawn (%(default)s)")
    having: dict[str, list[tuple[str, Leaf]]] = {}
    for name, (model, _) in ARCHIVES.items():
        for leaf in leaves(model):
            having.setdefault(leaf.dest, []).append((name, leaf))
    for field, found in having.items():
        who = "" if len(found) == len(ARCHIVES) else f"{', '.join(name for name, _ in found)}: "
        shared = [leaf for leaf in leaves(phantom.WomenOptions) if leaf.dest == field]
        usual = {name: ARCHIVES[name][0].model_fields[field].default for name, _ in found}
        first = usual[found[0][0]]
        other = [f"{name} {value}" for name, value in usual.items() if value != first]
        after = f"; {', '.join(other)}" if other else ""
        add_argument(main, shared[0] if shared else found[0][1], first, before=who, after=after)
    return main


def _quirks(archive: str) -> str:
    model = ARCHIVES[archive][0]
    assert issubclass(model, phantom.WomenOptions)
    rows = (
        f"  {name:24}{text}{'' if name in model.USUAL else ' (only where asked for)'}"
        for name, text in model.QUIRKS.items()
    )
    return "\n".join([f"quirks of {archive}:", *rows, ""])


def main(arguments: list[str] | None = None) -> int:
    """Write an archive, and say what is in it."""
    given = vars(parser().parse_args(arguments))
    archive, output = given.pop("archive"), given.pop("output")
    model, name = ARCHIVES[archive]
    wrong = [f"--{field.replace('_', '-')}" for field in given if field not in model.model_fields]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: not for --archive {archive}")
    write = getattr(importlib.import_module(f"mammodet.phantom.{archive}"), name)
    print(f"{output}: {write(output, **given).to_text()}")
    return 0
