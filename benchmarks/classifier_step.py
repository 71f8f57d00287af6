"""A training step of a classifier with channels last in memory (as it is) beside the default order, in 32 and 16 bits.

example:
  python benchmarks/classifier_step.py --network resnet18 --size 128 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from mammodet.config import make_config
from mammodet.modeling.build import build_model
from mammodet.modeling.classifier import ImageClassifier


class DefaultOrder(ImageClassifier):
    """The same classifier with images in the default order of memory."""

    def padded(self, images: list[torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """One batch (B, C, side, side), channels first."""
        return super().padded(images).contiguous(memory_format=torch.contiguous_format)


def main() -> None:
    """Time the variants in turn and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    settings = {"kind": "classifier", "classifier": {"network": chosen.network, "norm": "BN"}}
    config = make_config({"model": settings, "data": {"image": {"max_size": chosen.size}}}, where="the benchmark")
    models: dict[str, ImageClassifier] = {}
    for name in ("channels first", "channels last"):
        model = build_model(config, 1)
        assert isinstance(model, ImageClassifier)
        models[name] = model.to(chosen.device).train()
    models["channels first"].__class__ = DefaultOrder
    models["channels first"].to(memory_format=torch.contiguous_format)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, model in models.items()}
    images = [torch.rand(1, chosen.size, chosen.size, device=chosen.device) for _ in range(chosen.batch)]
    labels = torch.ones(chosen.batch, 1, device=chosen.device)

    def step(name: str, bits: int) -> float:
        start = time.perf_counter()
        with torch.autocast(chosen.device, dtype=torch.bfloat16, enabled=bits == 16):
            losses = models[name](images, labels).losses
        optimizers[name].zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizers[name].step()
        if chosen.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    variants = [(name, bits) for bits in (32, 16) for name in models]
    times: dict[tuple[str, int], list[float]] = {variant: [] for variant in variants}
    for repeat in range(chosen.repeats + 1):
        for variant in variants:
            seconds = step(*variant)
            if repeat:  # the first warms up
                times[variant].append(seconds)
    base = statistics.median(times[variants[0]])
    for (name, bits), taken in times.items():
        median = statistics.median(taken)
        print(f"{name}, {bits} bits: {1000 * median / chosen.batch:.1f} ms an image, {base / median:.2f} x as fast")


if __name__ == "__main__":
    main()
