"""Show what a model sees: layers, feature maps, Grad-CAM, input channels, augmented images, training curves."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammodet.cli import Parser

EXAMPLE = """examples:
  mammodet explain layers --checkpoint best.ckpt
  mammodet explain feature-maps --checkpoint best.ckpt --images data/mias/test.json --ids 3 17 --output maps/
  mammodet explain grad-cam --checkpoint best.ckpt --images data/mias/test.json --target tumor --output cam/
  mammodet explain filters --images data/mias/test.json --first 4 --output filters/
  mammodet explain augmented --config-file base --first 4 --output augmented/ data.root=data/mias
  mammodet explain curves output/run_a output/run_b --output curves/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    commands = main.add_subparsers(dest="command", required=True)
    layers = commands.add_parser("layers", help="print name, output shape and parameters of every layer")
    _add_model(layers)
    maps = commands.add_parser("feature-maps", help="draw what layers return for an image")
    _add_model(maps)
    _add_images(maps)
    _add_layer(maps, "(the last layer of each size of map)")
    maps.add_argument("--most", type=int, default=32, metavar="N", help="channels drawn per layer (%(default)s)")
    _add_cam(
        commands.add_parser(
            "grad-cam", help="draw what in an image speaks for an answer, and measure whether that is the lesion"
        )
    )
    filters = commands.add_parser("filters", help="draw the input channels side by side, with histograms")
    _add_images(filters)
    _add_filters(filters)
    augmented = commands.add_parser("augmented", help="draw training images as data.augment changes them")
    augmented.add_argument("--config-file", type=Path, required=True, help="YAML file, or the name of a shipped config")
    some = augmented.add_mutually_exclusive_group()
    some.add_argument("--ids", nargs="+", type=int, metavar="ID", help="ids of images (all)")
    some.add_argument("--first", type=int, metavar="N", help="the first N images only (all)")
    augmented.add_argument("--versions", type=int, default=7, metavar="N", help="versions of each image (%(default)s)")
    augmented.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    augmented.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides, for instance data.root=data/mias")
    curves = commands.add_parser(
        "curves", help="draw loss, validation figures and learning rate of one or several runs"
    )
    curves.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="output folder of a training, or its metrics.csv"
    )
    curves.add_argument("--names", nargs="+", default=[], metavar="NAME", help="names of the runs (their folders')")
    curves.add_argument("--output", type=Path, required=True, help="folder for curves.png and curves.svg")
    return main


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.ckpt of a training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="data set file (COCO JSON), folder, or image")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--ids", nargs="+", type=int, metavar="ID", help="ids of images (all)")
    some.add_argument("--first", type=int, metavar="N", help="the first N images only (all)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")


def _add_layer(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--layer", nargs="+", default=[], metavar="NAME", help=f"layers, as `explain layers` names them {default}"
    )


def _add_cam(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_images(parser)
    _add_layer(parser, "(the last map before it is pooled)")
    parser.add_argument(
        "--target",
        help="answer to explain: tumor, tumor=0, density=C, or density for each image's most probable class (the "
        "model's first question)",
    )
    parser.add_argument(
        "--method",
        default="grad_cam",
        choices=("grad_cam", "grad_cam_pp", "layer_cam", "score_cam"),
        help="score_cam runs the network once for each channel of the layer (%(default)s)",
    )
    parser.add_argument("--crop", action="store_true", help="show the breast only")
    parser.add_argument("--native", action="store_true", help="draw in the image file's pixels, not 900 px high")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channels", nargs="+", metavar="NAME", help="input channels, as data.image.channels in docs/config.md (all)"
    )
    parser.add_argument("--size", type=int, default=224, help="longest side, px (%(default)s)")
    parser.add_argument(
        "--crop", default="breast", choices=("breast", "none"), help="crop to the breast, or not (%(default)s)"
    )


def main(arguments: list[str] | None = None) -> int:
    """Do what the sub-command says."""
    chosen = parser().parse_args(arguments)
    text = {
        "layers": _layers,
        "feature-maps": _feature_maps,
        "grad-cam": _grad_cam,
        "filters": _filters,
        "augmented": _augmented,
        "curves": _curves,
    }[chosen.command](chosen)
    print(text)
    return 0


def _layers(chosen: argparse.Namespace) -> str:
    from mammodet.engine.predict import Predictor
    from mammodet.explain.run import describe_layers

    return describe_layers(Predictor.from_checkpoint(chosen.checkpoint, chosen.device))


def _feature_maps(chosen: argparse.Namespace) -> str:
    from mammodet.explain.images import choose_images

    images = choose_images(chosen.images, ids=chosen.ids, first=chosen.first)
    from mammodet.engine.predict import Predictor
    from mammodet.explain.run import write_feature_maps

    predictor = Predictor.from_checkpoint(chosen.checkpoint, chosen.device)
    drawn = write_feature_maps(predictor, images, chosen.output, layer_names=chosen.layer, most=chosen.most)
    return f"wrote {len(drawn.files)} pictures to {chosen.output}"


def _grad_cam(chosen: argparse.Namespace) -> str:
    from mammodet.explain.images import choose_images

    images = choose_images(chosen.images, ids=chosen.ids, first=chosen.first)
    from mammodet.engine.predict import Predictor
    from mammodet.explain.run import HEAT_TABLE, write_grad_cam

    drawn = write_grad_cam(
        Predictor.from_checkpoint(chosen.checkpoint, chosen.device),
        images,
        chosen.output,
        target=chosen.target,
        layer_names=chosen.layer,
        method=chosen.method,
        panel_height=None if chosen.native else 900,
        crop_to_breast=chosen.crop,
    )
    return f"{drawn.text}\nwrote {len(drawn.files) - 1} pictures and {chosen.output / HEAT_TABLE}"


def _filters(chosen: argparse.Namespace) -> str:
    from mammodet.explain.filters import write_filters
    from mammodet.explain.images import choose_images

    images = choose_images(chosen.images, ids=chosen.ids, first=chosen.first)
    files = write_filters(images, chosen.output, channels=chosen.channels, size=chosen.size, crop=chosen.crop)
    return "\n".join(f"wrote {path}" for path in files)


def _augmented(chosen: argparse.Namespace) -> str:
    from mammodet.config import load_config
    from mammodet.explain.augmented import write_augmented

    config = load_config(chosen.config_file, chosen.opts)
    files = write_augmented(config, chosen.output, ids=chosen.ids, first=chosen.first, versions=chosen.versions)
    return "\n".join(f"wrote {path}" for path in files)


def _curves(chosen: argparse.Namespace) -> str:
    from mammodet.explain.curves import write_curves

    return "\n".join(f"wrote {path}" for path in write_curves(chosen.runs, chosen.output, names=chosen.names))
