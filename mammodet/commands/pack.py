"""Pack a trained model into one small file to hand on: weights, config, calibration and card, no code."""

import argparse
from pathlib import Path

from mammodet.cli import Parser
from mammodet.errors import InputError
from mammodet.models import model_path, write_pin

EXAMPLE = """examples:
  mammodet pack --checkpoint output/run/best.ckpt --output model.safetensors
  mammodet pack --checkpoint model.safetensors --output final.safetensors \\
      --calibration calibration.json --card card.yaml --metrics eval/metrics.json --fppi 1
  mammodet pack --show starter
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("--checkpoint", type=Path, metavar="FILE", help="best.ckpt, or a packed model to add to")
    main.add_argument("--output", type=Path, metavar="FILE", help="packed model to write (.safetensors)")
    main.add_argument("--show", type=Path, metavar="FILE", help="print the card of FILE, or of starter, as Markdown")
    precision = main.add_mutually_exclusive_group()
    precision.add_argument(
        "--half", action="store_true", default=True, help="store kernels and matrices in half precision (the default)"
    )
    precision.add_argument("--float", dest="half", action="store_false", help="store every weight as it is")
    main.add_argument("--calibration", type=Path, metavar="FILE", help="calibration file of this model")
    main.add_argument("--card", type=Path, metavar="FILE", help="YAML that describes the model (docs/starter.md)")
    main.add_argument("--name", help="title of the card (the card's own)")
    main.add_argument("--metrics", type=Path, metavar="FILE", help="metrics.json of this model, for the card")
    main.add_argument("--fppi", type=float, default=1.0, help="false positives per image on the card (%(default)s)")
    main.add_argument("--max-bytes", type=int, metavar="N", help="refuse to write a larger file, bytes (any size)")
    main.add_argument("--pin", action="store_true", help="also write size and SHA-256 to a .json file beside OUTPUT")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Pack and say what was written, or show."""
    main_parser = parser()
    chosen = main_parser.parse_args(arguments)
    if chosen.show is not None:
        print(show(model_path(chosen.show)), end="")
        return 0
    if chosen.checkpoint is None or chosen.output is None:
        main_parser.error("give --checkpoint and --output, or --show")
    from mammodet.engine.pack import pack_model

    report = pack_model(
        chosen.checkpoint,
        chosen.output,
        half=chosen.half,
        calibration=chosen.calibration,
        card=chosen.card,
        name=chosen.name,
        metrics=chosen.metrics,
        fppi=chosen.fppi,
        max_bytes=chosen.max_bytes,
    )
    kinds = f"{report.halved} tensors in half precision, {report.whole} as they were"
    print(f"wrote {chosen.output}: {report.size} bytes, {kinds}")
    if report.kept:
        print(f"half precision would lose digits of {', '.join(report.kept)}: kept as they were")
    for note in report.notes:
        print(note)
    if chosen.pin:
        print(f"wrote {write_pin(chosen.output)}")
    return 0


def show(path: Path) -> str:
    """The card of a packed model as Markdown. Raises InputError: it is no packed model, or has no card."""
    from mammodet.engine.checkpoint import read_packed
    from mammodet.files import file_hash
    from mammodet.reporting.packed_card import packed_card

    packed = read_packed(path)
    if packed is None or packed.card is None:
        what = "is no packed model" if packed is None else "has no card"
        raise InputError(f"{path}: {what}; mammodet pack --checkpoint {path} --output FILE --card FILE makes one")
    facts = packed.facts
    return packed_card(
        packed.card,
        [
            ("file", path.name),
            ("SHA-256", file_hash(path)),
            ("packed from (SHA-256)", ", ".join(facts.packed_from)),
            ("categories", ", ".join(facts.categories) or "none"),
            ("patients in training and validation", str(len(facts.patients))),
            ("data hash of the training", facts.data_hash),
            ("calibration", ", ".join(packed.calibration.goals) if packed.calibration else "none"),
            ("mammodet", facts.version),
        ],
    )
