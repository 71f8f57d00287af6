"""Images per second of the training loader beside those of the training step, for a config.

example:
  python benchmarks/data_loader.py --config-file configs/phantom/quickstart.yaml
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mammodet.config import load_config
from mammodet.data.dataset import LesionDataset, make_loader
from mammodet.data.sampling import EpochSampler, usable_indices
from mammodet.engine.checked_run import prepare
from mammodet.modeling.build import build_model


def main() -> None:
    """Time the loader alone, then the model alone on what it gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("opts", nargs="*")
    chosen = parser.parse_args()
    run = prepare(load_config(chosen.config_file, chosen.opts))
    data = run.config.data
    samples = LesionDataset(
        run.train,
        run.root,
        data.image,
        run.config.model.targets,
        with_masks=run.config.model.with_masks,
        box_masks=data.box_masks,
        augment=data.augment,
    )
    sampler = EpochSampler(
        run.train,
        usable_indices(run.train, run.config.model.targets),
        batch_size=data.batch_size,
        seed=0,
        negative_fraction=data.negative_fraction,
        epoch_size=data.batch_size * (chosen.batches + 1),
    )
    loader = iter(make_loader(samples, batch_size=data.batch_size, num_workers=data.num_workers, sampler=sampler))
    batches = [next(loader)]
    start = time.perf_counter()
    batches += [next(loader) for _ in range(chosen.batches)]
    loading = chosen.batches * data.batch_size / (time.perf_counter() - start)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(run.config, len(run.train.categories)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    start = time.perf_counter()
    for number, batch in enumerate(batches):
        if number == 1:  # the first warms up
            start = time.perf_counter()
        moved = batch.to(device)
        losses = model(moved.images, moved.targets, moved.labels, moved.use_boxes).losses
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    training = chosen.batches * data.batch_size / (time.perf_counter() - start)
    print(
        f"{chosen.config_file} on {device}: loader {loading:.1f} images/s ({data.num_workers} workers), "
        f"training step {training:.1f} images/s, loader / step {loading / training:.2f}"
    )


if __name__ == "__main__":
    main()
