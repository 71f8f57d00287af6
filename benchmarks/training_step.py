"""A training step beside other ways of doing it, in CPU (or GPU) seconds and as ratios to the first way.

torchvision: ours beside torchvision's Mask R-CNN as its reference script trains it: same layers, batch, precision
pretrained:  a config with a pretrained body, and what each of the measures that make it fast is worth
detectron2:  its Mask R-CNN beside torchvision's with the same layers (ResNet-FPN with GroupNorm), and their inference

examples:
  python benchmarks/training_step.py torchvision --size 512 --batch 2 --repeats 5
  python benchmarks/training_step.py detectron2 --backbone resnet50 --size 512 --batch 2 --repeats 5
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from measuring import arguments, show, take_turns
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from mammodet.config import load_config
from mammodet.modeling.build import build_model

ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
NONE = "none.pth"  # frozen norms ask for weights, which do not matter here
PRETRAINED = Path("configs/cbis_ddsm/mass_faster_rcnn_lite0_cpu.yaml")
Work = dict[str, Callable[[], object]]


def make_batch(chosen: argparse.Namespace, channels: int = 1) -> tuple[list[Tensor], list[dict[str, Tensor]], Tensor]:
    """Noise with one round lesion on each image, its targets, and labels."""
    size = chosen.size
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = size // 12
    low, high = float(size // 2 - radius), float(size // 2 + radius + 1)
    target = {
        "boxes": torch.tensor([[low, low, high, high]], device=chosen.device),
        "labels": torch.ones(1, dtype=torch.int64, device=chosen.device),
        "masks": ((rows - size // 2) ** 2 + (columns - size // 2) ** 2 <= radius**2)[None].byte().to(chosen.device),
    }
    images = [torch.rand(channels, size, size, device=chosen.device) for _ in range(chosen.batch)]
    return images, [dict(target) for _ in images], torch.ones(chosen.batch, 2, device=chosen.device)


def step(chosen: argparse.Namespace, model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], object]:
    """A whole training step; `losses` runs the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def run() -> None:
        with torch.autocast(chosen.device, torch.bfloat16, enabled=chosen.bf16):
            total = torch.stack(list(losses().values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return run


def detector(chosen: argparse.Namespace, overrides: Sequence[str] = (), config: Path | None = None) -> Any:
    """A detector with one category, ready to be trained."""
    torch.manual_seed(0)
    settings = load_config(config, overrides)
    return build_model(settings, 1, load_weights=settings.model.weights != NONE).to(chosen.device).train()


def against_torchvision(chosen: argparse.Namespace) -> Work:
    """Torchvision's own Mask R-CNN as its reference script trains it, and ours of the same layers and limits."""
    body = (f"name={chosen.backbone}", "norm=FrozenBN", "trainable_layers=3")
    settings = [f"model.detector.backbone.{each}" for each in body]
    settings += ["data.image.channels=[full, tissue, clahe]", f"model.weights={NONE}"]
    model = detector(chosen, [*settings, "model.image_head.enabled=false", "model.aggregation.rule=max"])
    images, targets, labels = make_batch(chosen, channels=3)
    limits = {"rpn_pre_nms_top_n_train": 2000, "rpn_post_nms_top_n_train": 1000}
    size = {"min_size": chosen.size, "max_size": chosen.size}
    pyramid = resnet_fpn_backbone(backbone_name=chosen.backbone, weights=None, trainable_layers=3)
    reference = MaskRCNN(pyramid, num_classes=2, **size, **limits).to(chosen.device).train()
    return {
        "torchvision": step(chosen, reference, lambda: reference(images, targets)),
        "ours": step(chosen, model, lambda: model(images, targets, labels, [True] * len(images)).losses),
    }


def pretrained(chosen: argparse.Namespace) -> Work:
    """A config as it is, and without each of its measures."""
    images, targets, labels = make_batch(chosen, channels=3)
    for target in targets:
        del target["masks"]

    def build(*overrides: str, finest: int = 3) -> Any:
        sizes = f"model.detector.anchors.sizes=[{'[], ' if finest == 2 else ''}[18, 26, 36, 51], [72, 100], [], []]"
        return detector(chosen, [sizes, *overrides], chosen.config_file)

    def run(model: Any) -> Callable[[], object]:
        return step(chosen, model, lambda: model(images, [dict(each) for each in targets], labels[:, :1]).losses)

    with mock.patch("mammodet.modeling.folding.fold_frozen_norms"):
        unfolded = build()
    contiguous = torch.Tensor.contiguous
    channels_first = run(build().to(memory_format=torch.contiguous_format))

    def undone() -> None:  # the detector lays its input out channels last
        with mock.patch.object(torch.Tensor, "contiguous", lambda tensor, **_options: contiguous(tensor)):
            channels_first()

    return {
        "as it is": run(build()),
        "frozen norms not folded": run(unfolded),
        "channels first": undone,
        "all stages learn": run(build("model.detector.backbone.trainable_layers=5")),
        "with P2": run(build("model.detector.finest_level=2", finest=2)),
    }


def against_detectron2(chosen: argparse.Namespace) -> Work:
    """Training and inference of both, with the layers that torchvision's defaults have."""
    depth = int(chosen.backbone.removeprefix("resnet"))
    opts = (
        f"[MODEL.RESNETS.DEPTH, {depth}, MODEL.RESNETS.NORM, GN, MODEL.RESNETS.STRIDE_IN_1X1, false, "
        "MODEL.FPN.NORM, GN, MODEL.BACKBONE.FREEZE_AT, 0, MODEL.RPN.PRE_NMS_TOPK_TEST, 2000"
        f"{', MODEL.RESNETS.RES2_OUT_CHANNELS, 64' if depth < 50 else ''}]"
    )
    theirs = ["model.detector.backend=detectron2", f"model.detectron2.config={ZOO}", f"model.detectron2.opts={opts}"]
    images, targets, labels = make_batch(chosen)
    work: Work = {}
    for name, overrides in {
        "torchvision": [f"model.detector.backbone.name=resnet{depth}"],
        "detectron2": theirs,
    }.items():
        model = detector(chosen, overrides)
        print(f"{name}: {sum(each.numel() for each in model.parameters()) / 1e6:.2f} M parameters")
        losses = lambda model=model: model(images, targets, labels, [True] * len(images)).losses  # noqa: E731
        train = step(chosen, model, losses)
        work[name] = lambda model=model, train=train: (model.train(), train())
        infer = torch.no_grad()(lambda model=model: (model.eval(), model(images)))
        work[f"{name}, inference"] = infer
    return work


WAYS = {
    "torchvision": (against_torchvision, "resnet50", 512, 2),
    "pretrained": (pretrained, "", 448, 4),
    "detectron2": (against_detectron2, "resnet50", 512, 2),
}


def main() -> None:
    """Let them take turns, and print medians and ratios."""
    parser = arguments(__doc__)
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("--config-file", type=Path, default=PRETRAINED, help="for pretrained (%(default)s)")
    parser.add_argument("--backbone", help="for the others")
    parser.add_argument("--size", type=int, help="side of the images in pixels")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bf16", action="store_true", help="forward passes of all in bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    make, backbone, size, batch = WAYS[chosen.way]
    chosen.backbone, chosen.size = chosen.backbone or backbone, chosen.size or size
    chosen.batch = chosen.batch or batch
    print(
        f"{chosen.batch} x {chosen.size} px on {chosen.device}, {torch.get_num_threads()} threads"
        f"{', bf16' if chosen.bf16 else ''}"
    )
    show(take_turns(make(chosen), chosen.repeats, chosen.device))


if __name__ == "__main__":
    main()
