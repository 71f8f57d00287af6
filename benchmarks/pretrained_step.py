"""A training step on a pretrained backbone, and what each of the measures that make it fast is worth.

The variants take turns on one batch; the ratios are of medians of CPU seconds to those of the config as it is.

example:
  python benchmarks/pretrained_step.py --config-file configs/cbis_ddsm/mass_faster_rcnn_lite0_cpu.yaml --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from mammodet.config import load_config
from mammodet.modeling.build import Model, build_model

SIZES = "model.detector.anchors.sizes=[{}[18, 26, 36, 51], [72, 100], [], []]"


def main() -> None:
    """Time the variants in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-file", type=Path, default=Path("configs/cbis_ddsm/mass_faster_rcnn_lite0_cpu.yaml"), help="experiment"
    )
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=352)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()

    def build(*overrides: str, finest: int = 3) -> Model:
        sizes = SIZES.format("[], " if finest == 2 else "")
        return build_model(load_config(chosen.config_file, [sizes, *overrides]), 1).train()

    images = [torch.rand(3, chosen.height, chosen.width) for _ in range(chosen.batch)]
    targets = [{"boxes": torch.tensor([[60.0, 60.0, 120.0, 130.0]]), "labels": torch.ones(1, dtype=torch.int64)}]
    labels = torch.ones(chosen.batch, 1)

    def step(model: Model, optimizer: torch.optim.Optimizer) -> float:
        torch.manual_seed(0)
        start = time.process_time()
        output = model(images, [dict(targets[0]) for _ in images], labels)  # type: ignore[arg-type]
        torch.stack(list(output.losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    with mock.patch("mammodet.modeling.folding.fold_frozen_norms"):
        unfolded = build()
    variants = {
        "as it is": build(),
        "frozen norms not folded": unfolded,
        "channels first": build().to(memory_format=torch.contiguous_format),
        "all stages learn": build("model.detector.backbone.trainable_layers=5"),
        "with P2": build("model.detector.finest_level=2", finest=2),
    }
    # The detector lays its input out channels last; the variant undoes it.
    original = torch.Tensor.contiguous
    first: Callable[..., torch.Tensor] = lambda tensor, **_options: original(tensor)  # noqa: E731
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, model in variants.items()}
    for repeat in range(chosen.repeats + 1):
        for name, model in variants.items():
            with mock.patch.object(torch.Tensor, "contiguous", first if name == "channels first" else original):
                taken = step(model, optimizers[name])
            if repeat:  # the first warms up
                seconds[name].append(taken)
    reference = statistics.median(seconds["as it is"])
    print(f"{chosen.batch} images of {chosen.height}x{chosen.width}, {torch.get_num_threads()} threads")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:26} {median:6.2f} CPU s   {median / reference:5.2f}   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
