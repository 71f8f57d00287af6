"""Show what a model sees: layers, feature maps, Grad-CAM, input channels, augmented images, training curves."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mammodet.cli import Parser

if TYPE_CHECKING:
    from mammodet.data.inputs import Inputs
    from mammodet.engine.predict import Predictor

EXAMPLE = """examples:
  mammodet explain layers --checkpoint starter
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
    model, some, images, layer = (Parser(add_help=False) for _ in range(4))
    model.add_argument("--checkpoint", type=Path, required=True, help="best.ckpt, a packed model, or starter")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    which = some.add_mutually_exclusive_group()
    which.add_argument("--ids", nargs="+", type=int, metavar="ID", help="ids of images (all)")
    which.add_argument("--first", type=int, metavar="N", help="the first N images only (all)")
    some.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    images.add_argument(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        help="data set file (COCO JSON), or what mammodet predict takes: images, folders, zip files, DICOMDIR",
    )
    layer.add_argument(
        "--layer",
        nargs="+",
        default=[],
        metavar="NAME",
        help="layers, as `explain layers` names them (feature-maps: the last layer of each size of map; grad-cam: the "
        "last map before it is pooled)",
    )

    def add(name: str, does: Callable[[argparse.Namespace], str], what: str, *parents: Parser) -> Parser:
        one: Parser = commands.add_parser(name, help=what, parents=parents)
        one.set_defaults(does=does)
        return one

    add("layers", _layers, "print name, output shape and parameters of every layer", model)
    maps = add("feature-maps", _feature_maps, "draw what layers return for an image", model, images, some, layer)
    maps.add_argument("--most", type=int, default=32, metavar="N", help="channels drawn per layer (%(default)s)")
    cam = add(
        "grad-cam",
        _grad_cam,
        "draw what in an image speaks for an answer, and measure whether that is the lesion",
        *(model, images, some, layer),
    )
    cam.add_argument(
        "--target",
        help="answer to explain: tumor, tumor=0, density=C, or density for each image's most probable class (the "
        "model's first question)",
    )
    cam.add_argument(
        "--method",
        default="grad_cam",
        choices=("grad_cam", "grad_cam_pp", "layer_cam", "score_cam"),
        help="score_cam runs the network once for each channel of the layer (%(default)s)",
    )
    cam.add_argument("--crop", action="store_true", help="show the breast only")
    cam.add_argument("--native", action="store_true", help="draw in the image file's pixels, not 900 px high")
    filters = add("filters", _filters, "draw the input channels side by side, with histograms", images, some)
    filters.add_argument("--channels", nargs="+", metavar="NAME", help="as data.image.channels in docs/config.md (all)")
    filters.add_argument("--size", type=int, default=224, help="longest side, px (%(default)s)")
    filters.add_argument("--crop", default="breast", choices=("breast", "none"), help="what to crop to (%(default)s)")
    augmented = add("augmented", _augmented, "draw training images as data.augment changes them", some)
    augmented.add_argument("--config-file", type=Path, required=True, help="YAML file, or the name of a shipped config")
    augmented.add_argument("--versions", type=int, default=7, metavar="N", help="versions of each image (%(default)s)")
    augmented.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides, for instance data.root=data/mias")
    curves = add("curves", _curves, "draw loss, validation figures and learning rate of one or several runs")
    curves.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a training's output folder, or metrics.csv")
    curves.add_argument("--names", nargs="+", default=[], metavar="NAME", help="names of the runs (their folders')")
    curves.add_argument("--output", type=Path, required=True, help="folder for curves.png and curves.svg")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Do what the sub-command says."""
    chosen = parser().parse_args(arguments)
    print(chosen.does(chosen))
    return 0


@contextmanager
def _images(chosen: argparse.Namespace) -> "Iterator[Inputs]":
    from mammodet.data.inputs import unpacked
    from mammodet.explain.images import choose_images

    with unpacked(chosen.output) as folder:
        images = choose_images(chosen.images, unpack_to=folder, ids=chosen.ids, first=chosen.first)
        for item in images.left_out:
            print(f"left out: {item.file_name} {item.reason}")
        yield images


def _predictor(chosen: argparse.Namespace) -> "Predictor":
    from mammodet.engine.predict import Predictor
    from mammodet.models import model_path

    return Predictor.from_checkpoint(model_path(chosen.checkpoint), chosen.device)


def _layers(chosen: argparse.Namespace) -> str:
    from mammodet.explain.run import describe_layers

    return describe_layers(_predictor(chosen))


def _feature_maps(chosen: argparse.Namespace) -> str:
    with _images(chosen) as images:  # first, since loading a model takes longer
        from mammodet.explain.run import write_feature_maps

        predictor = _predictor(chosen)
        drawn = write_feature_maps(predictor, images, chosen.output, layer_names=chosen.layer, most=chosen.most)
    return f"wrote {len(drawn.files)} pictures to {chosen.output}"


def _grad_cam(chosen: argparse.Namespace) -> str:
    with _images(chosen) as images:
        from mammodet.explain.run import HEAT_TABLE, write_grad_cam

        drawn = write_grad_cam(
            _predictor(chosen),
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

    with _images(chosen) as images:
        channels, size, crop = chosen.channels, chosen.size, chosen.crop
        return _wrote(write_filters(images, chosen.output, channels=channels, size=size, crop=crop))


def _augmented(chosen: argparse.Namespace) -> str:
    from mammodet.config import load_config
    from mammodet.explain.augmented import write_augmented

    config = load_config(chosen.config_file, chosen.opts)
    return _wrote(write_augmented(config, chosen.output, ids=chosen.ids, first=chosen.first, versions=chosen.versions))


def _curves(chosen: argparse.Namespace) -> str:
    from mammodet.explain.curves import write_curves

    return _wrote(write_curves(chosen.runs, chosen.output, names=chosen.names))


def _wrote(files: Sequence[Path]) -> str:
    return "\n".join(f"wrote {path}" for path in files)
