"""A training step of MammoRCNN beside torchvision's reference step, on the same network, batch and optimiser.

example:
  python benchmarks/training_step.py --size 512 --batch 2 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mammodet.config import load_config
from mammodet.modeling.build import build_model


def make_batch(size: int, batch: int, device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Noise with one round lesion on each image."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = size // 12
    mask = ((rows - size // 2) ** 2 + (columns - size // 2) ** 2 <= radius**2).to(torch.uint8)
    low, high = float(size // 2 - radius), float(size // 2 + radius + 1)
    target = {
        "boxes": torch.tensor([[low, low, high, high]], device=device),
        "labels": torch.ones(1, dtype=torch.int64, device=device),
        "masks": mask[None].to(device),
    }
    return [torch.rand(1, size, size, device=device) for _ in range(batch)], [dict(target) for _ in range(batch)]


def main() -> None:
    """Time both steps in turn and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    model = build_model(load_config(None, [f"model.detector.backbone.name={chosen.backbone}"]), 1)
    model.to(chosen.device).train()
    images, targets = make_batch(chosen.size, chosen.batch, chosen.device)
    labels = torch.ones(chosen.batch, 2, device=chosen.device)
    everything = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    reference: nn.Module = model.detector.model  # type: ignore[assignment,union-attr]
    detector_only = torch.optim.SGD(reference.parameters(), lr=1e-6, momentum=0.9)

    # On the CPU its own seconds, which other programs on the machine disturb less than wall time.
    clock = time.perf_counter if chosen.device.startswith("cuda") else time.process_time

    def step(losses: Callable[[], dict[str, Tensor]], optimizer: torch.optim.Optimizer) -> float:
        torch.manual_seed(0)
        start = clock()
        total = torch.stack(list(losses().values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if chosen.device.startswith("cuda"):
            torch.cuda.synchronize()
        return clock() - start

    def ours() -> dict[str, Tensor]:
        return model(images, targets, labels, [True] * chosen.batch).losses

    def theirs() -> dict[str, Tensor]:
        return reference(images, targets)

    times: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for repeat in range(chosen.repeats + 1):
        pair = {"ours": step(ours, everything), "torchvision": step(theirs, detector_only)}
        if repeat:  # the first warms up
            for name, seconds in pair.items():
                times[name].append(seconds)
    ratios = [one / other for one, other in zip(times["ours"], times["torchvision"], strict=True)]
    print(
        f"{chosen.backbone}-FPN, {chosen.batch} x {chosen.size} px, {chosen.device}: ours "
        f"{statistics.median(times['ours']):.3f} s, torchvision {statistics.median(times['torchvision']):.3f} s, "
        f"ratio {statistics.median(ratios):.3f} (of {len(ratios)} pairs: {min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
