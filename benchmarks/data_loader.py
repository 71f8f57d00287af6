"""Images per second of a config: prepared by one process and by several, read back, loaded, and learnt from.

example:
  python benchmarks/data_loader.py --config-file configs/phantom/quickstart.yaml
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import arguments

from mammodet.config import load_config
from mammodet.data.dataset import LesionDataset, make_loader
from mammodet.data.prepared import DiskCache, prepare_record
from mammodet.data.sampling import EpochSampler, usable_indices
from mammodet.engine.checked_run import Run, prepare
from mammodet.modeling.build import build_model


def preparing(run: Run) -> None:
    """The validation images, one after another, by processes that write them down, and read back."""
    data, records = run.config.data, run.val.images
    with tempfile.TemporaryDirectory() as folder:
        cache = DiskCache(Path(folder), run.root, data.image)
        seconds = [time.perf_counter()]
        for record in records:
            prepare_record(run.root, data.image, record)
        seconds.append(time.perf_counter())
        cache.fill(records, jobs=max(data.num_workers, 1), name="preparing", say=lambda _: None)
        seconds.append(time.perf_counter())
        for record in records:
            cache(record)
        seconds.append(time.perf_counter())
        size = sum(path.stat().st_size for path in cache.folder.iterdir()) / len(records)
    one, several, back = (len(records) / taken for taken in np.diff(seconds))
    print(
        f"prepared one after another {one:.1f} images/s, by {data.num_workers} processes, with their start and writing "
        f"{several:.1f}; read back {back:.1f} ({size / 1e6:.2f} MB each)"
    )


def main() -> None:
    """Time each alone; the step on what the loader gave."""
    parser = arguments(__doc__)
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("opts", nargs="*")
    chosen = parser.parse_args()
    run = prepare(load_config(chosen.config_file, chosen.opts))
    preparing(run)
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
