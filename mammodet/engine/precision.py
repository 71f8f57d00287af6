"""Which precision trains fastest on this processor."""

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

from mammodet.config import Config
from mammodet.data.dataset import Batch
from mammodet.engine.tasks import run_model
from mammodet.modeling.build import build_model
from mammodet.records import ImageRecord
from mammodet.trace import Trace

_REPEATS = 2
#: Longest side in pixels of images whose coarsest maps can be that narrow.
SMALL = 256


def fastest_on_cpu(config: Config, num_categories: int) -> tuple[Literal["32", "bf16-mixed"], str]:
    """`32` or `bf16-mixed`, and why, by a training step in each on images of noise.

    Processors without units for bfloat16 emulate it, many times slower: there a single convolution says enough. For
    small images it is not asked: torch's convolutions of stride 2 (2.14, on AMX) read beyond maps of a width of two.
    """
    if config.data.image.max_size <= SMALL:
        return "32", f"images of up to {SMALL} px gain too little"
    kernel, pixels = torch.randn(64, 64, 3, 3), torch.randn(1, 64, 64, 64)
    whole = _seconds(lambda: functional.conv2d(pixels, kernel))
    kernel, pixels = kernel.bfloat16(), pixels.bfloat16()
    if _seconds(lambda: functional.conv2d(pixels, kernel)) > whole:
        return "32", "this processor is slower in bfloat16"
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, num_categories, load_weights=False).train()
        batch = _noise(config)

        def step(reduced: bool) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                losses = run_model(config, model, batch).losses
            torch.stack([value.float() for value in losses.values()]).sum().backward()

        whole, reduced = _seconds(lambda: step(False)), _seconds(lambda: step(True))
    why = f"a step on {len(batch)} images of noise took {whole:.2f} s in 32 bits, {reduced:.2f} s with bfloat16"
    return "bf16-mixed" if reduced < whole else "32", why


def _seconds(call: Callable[[], object]) -> float:
    """The least time of a few calls, after one to warm up."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _noise(config: Config) -> Batch:
    """A batch of the config's size and shape with a lesion on each image."""
    side, count = config.data.image.max_size, config.data.batch_size
    size_hw = (side, side) if config.data.image.aspect == "stretch" else (side, max(round(0.7 * side), 32))
    masks = torch.zeros((1, *size_hw), dtype=torch.uint8)
    masks[:, 4:20, 6:24] = 1
    target = {
        "boxes": torch.tensor([[6.0, 4.0, 24.0, 20.0]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": masks,
    }
    return Batch(
        [torch.rand(len(config.data.image.channels), *size_hw) for _ in range(count)],
        [dict(target) for _ in range(count)],
        [True] * count,
        torch.zeros((count, len(config.model.targets))),
        tuple(ImageRecord(number, f"{number}.png", size_hw) for number in range(count)),
        (Trace(size_hw),) * count,
    )
