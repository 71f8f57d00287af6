"""Convert weights of a Mask R-CNN, a Faster R-CNN or a ResNet between torchvision's layout and detectron2's."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammodet.cli import Parser

EXAMPLE = """examples:
  mammodet convert-weights model_final_f10217.pkl r50_coco.pth --to torchvision
  mammodet train --config-file configs/base.yaml model.weights=r50_coco.pth \\
      model.detector.backbone.norm=FrozenBN model.detector.backbone.stride_in_1x1=true
  mammodet convert-weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth r50.pkl --to detectron2 --pixels torchvision

It prints what it assumed, and what the network that takes the file must be set to (docs/weights.md).
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("input", type=Path, metavar="IN", help="of torchvision, detectron2, Caffe2 or mammodet")
    main.add_argument("output", type=Path, metavar="OUT", help=".pth, or .pkl as in detectron2's model zoo")
    main.add_argument("--to", required=True, choices=("torchvision", "detectron2"), help="the layout of OUT")
    main.add_argument(
        "--pixels",
        choices=("msra", "torchvision", "torchvision-bgr", "mammodet"),
        help="how the detectron2 network sees pixels, be it that of IN or of OUT (what IN says, else msra: BGR, 0 to "
        "255, std 1; of grey networks mammodet: one mean and std)",
    )
    main.add_argument(
        "--stride-in-1x1",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="where the bottlenecks of IN have their stride (what IN says, else in the 1x1 convolution for detectron2, "
        "in the 3x3 for torchvision)",
    )
    main.add_argument(
        "--batch-norm-eps",
        type=float,
        choices=(0.0, 1e-5),
        help="what torchvision's batch norms of IN add to the variance (0 for its COCO_V1 files, else 1e-5)",
    )
    main.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Convert, write, and say what the file needs."""
    chosen = parser().parse_args(arguments)
    from mammodet.modeling.convert_weights import convert, report, write_conversion

    conversion = convert(
        chosen.input,
        chosen.to,
        pixels=chosen.pixels,
        stride_in_1x1=chosen.stride_in_1x1,
        eps=chosen.batch_norm_eps,
    )
    write_conversion(conversion, chosen.input, chosen.output, overwrite=chosen.overwrite)
    print(report(conversion, chosen.input, chosen.output))
    return 0
