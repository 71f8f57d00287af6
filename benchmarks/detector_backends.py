"""Training step, inference and memory of detectron2's Mask R-CNN beside torchvision's, with the same layers and batch.

Both are ResNet-FPN with GroupNorm, torchvision's head widths and proposals, in this package's own wiring.

example:
  python benchmarks/detector_backends.py --depth 50 --size 512 --batch 2 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from training_step import make_batch

from mammodet.config import load_config
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN

ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


def make_models(depth: int) -> dict[str, MammoRCNN]:
    """The two, with the layers that torchvision's defaults have."""
    opts = (
        f"[MODEL.RESNETS.DEPTH, {depth}, MODEL.RESNETS.NORM, GN, MODEL.RESNETS.STRIDE_IN_1X1, false, "
        "MODEL.FPN.NORM, GN, MODEL.BACKBONE.FREEZE_AT, 0, MODEL.RPN.PRE_NMS_TOPK_TEST, 2000"
        f"{', MODEL.RESNETS.RES2_OUT_CHANNELS, 64' if depth < 50 else ''}]"
    )
    overrides = {
        "torchvision": [f"model.detector.backbone.name=resnet{depth}"],
        "detectron2": [
            "model.detector.backend=detectron2",
            f"model.detectron2.config={ZOO}",
            f"model.detectron2.opts={opts}",
        ],
    }
    models = {}
    for name, each in overrides.items():
        torch.manual_seed(0)
        model = build_model(load_config(None, each), 1)
        assert isinstance(model, MammoRCNN)
        models[name] = model
    return models


def main() -> None:
    """Time both in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--depth", type=int, default=50, choices=[18, 34, 50, 101])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    models = {name: model.to(chosen.device) for name, model in make_models(chosen.depth).items()}
    images, targets = make_batch(chosen.size, chosen.batch, chosen.device)
    labels = torch.ones(chosen.batch, 2, device=chosen.device)
    on_gpu = chosen.device.startswith("cuda")
    # On the CPU its own seconds, which other programs on the machine disturb less than wall time.
    clock = time.perf_counter if on_gpu else time.process_time

    def timed(run: Callable[[], object]) -> float:
        torch.manual_seed(0)
        start = clock()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - start

    steps: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
        steps[name] = step_of(model, optimizer, images, targets, labels)
    parameters = {name: sum(each.numel() for each in model.parameters()) / 1e6 for name, model in models.items()}
    print(f"R{chosen.depth}-FPN, {chosen.batch} x {chosen.size} px, {chosen.device}")
    print(f"parameters: {', '.join(f'{name} {count:.2f} M' for name, count in parameters.items())}")
    for what in ("training step", "inference"):
        times: dict[str, list[float]] = {name: [] for name in models}
        for repeat in range(chosen.repeats + 1):
            for name, model in models.items():
                model.train(what == "training step")
                seconds = timed(steps[name] if what == "training step" else inference_of(model, images))
                if repeat:  # the first warms up
                    times[name].append(seconds)
        ratios = [one / other for one, other in zip(times["detectron2"], times["torchvision"], strict=True)]
        medians = ", ".join(f"{name} {statistics.median(each):.3f} s" for name, each in times.items())
        print(
            f"{what}: {medians}, detectron2 / torchvision {statistics.median(ratios):.2f} "
            f"(of {len(ratios)} pairs: {min(ratios):.2f} to {max(ratios):.2f})"
        )


def step_of(
    model: MammoRCNN,
    optimizer: torch.optim.Optimizer,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    labels: Tensor,
) -> Callable[[], object]:
    """A whole training step."""

    def step() -> None:
        total = torch.stack(list(model(images, targets, labels, [True] * len(images)).losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def inference_of(model: MammoRCNN, images: list[Tensor]) -> Callable[[], object]:
    """Detections of a batch."""

    @torch.no_grad()
    def infer() -> object:
        return model(images)

    return infer


if __name__ == "__main__":
    main()
