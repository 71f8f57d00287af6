"""Cases of training and evaluation."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
from running import ENVIRONMENT, Answer, WrongError, columns, half_run, right, small_run, tool, train, train_command


def other_rate(case: Path, work: Path) -> None:
    train(work, "train.epochs=1")
    answer = train(work, "--resume", "train.lr=1e-5", "train.epochs=3")
    if answer.status == 0:
        right("rate of the last epoch", 1e-5, round(columns(work, "lr")[-1], 8))
    else:
        answer.refused("train.lr")


def other_patience(case: Path, work: Path) -> None:
    train(work, "train.epochs=1", "train.early_stopping=1")
    answer = train(work, "--resume", "train.early_stopping=20", "train.epochs=8")
    right("status", 0, answer.status)
    right("epochs", 8, len(columns(work, "lr")))


def other_optimizer(case: Path, work: Path) -> None:
    train(work, "train.epochs=1")
    answer = train(work, "--resume", "train.optimizer=sgd", "train.epochs=2")
    answer.refused("train.optimizer")


def wrong_mode(case: Path, work: Path) -> None:
    train(work, "train.monitor=train/loss").refused("monitor_mode")
    train(work, "train.monitor=val/bbox_AP50", "train.monitor_mode=min").refused("monitor_mode")


def ties(case: Path, work: Path) -> None:
    found = []
    for name in ("ab", "ba"):
        answer = tool(
            "evaluate", "--ground-truth", case / "gt.json", "--predictions", case / f"{name}.json",
            "--output", work / name, "--no-report", "--resamples", 0,
        )  # fmt: skip
        right("status", 0, answer.status)
        found.append([line for line in answer.text.splitlines() if "CPM" in line])
    right("CPM does not depend on the order", found[0], found[1])


def mask_size(case: Path, work: Path) -> None:
    """A disc through the mask head's grid and back: as large as it was."""
    import torch

    from mammodet.modeling.masks import paste_mask
    from mammodet.modeling.roi_heads import masks_on_boxes

    for radius in (5, 8, 20):
        ratios = []
        for offset in np.random.default_rng(0).uniform(0, 1, (20, 2)):
            rows, cols = np.mgrid[:128, :96]
            disc = (rows + 0.5 - 60 - offset[0]) ** 2 + (cols + 0.5 - 45 - offset[1]) ** 2 <= radius**2
            ys, xs = np.nonzero(disc)
            box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], dtype=torch.float32)
            grid = masks_on_boxes(torch.from_numpy(disc.astype(np.uint8))[None], box, torch.tensor([0]), 28)
            pasted, _ = paste_mask(grid[0].numpy(), box[0].numpy(), (128, 96))
            ratios.append(float((pasted >= 0.5).sum()) / disc.sum())
        right(f"area at radius {radius} within 5 %", True, abs(float(np.mean(ratios)) - 1) < 0.05)


def larger_batch(case: Path, work: Path) -> None:
    common = ("train.schedule=cosine", "data.epoch_size=8", "train.epochs=4")
    shutil.copytree(half_run(common), work)
    answer = train(work, "--resume", *common, "data.batch_size=8")
    if answer.status == 0:
        right(
            "rates after the epochs", [0.0005, 0.000146, 0.0], [round(value, 6) for value in columns(work, "lr")[-3:]]
        )
    else:
        answer.refused("batch_size")


def small_shared_memory(case: Path, work: Path) -> None:
    """A megabyte of /dev/shm, in a mount namespace of its own (as root)."""
    small_run()
    keys = ("train.epochs=1", "data.num_workers=2", "data.image.max_size=256", "data.batch_size=4")
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec " + shlex.join(train_command(work, *keys))
    command = ["unshare", "-m", "bash", "-c", small]
    try:
        process = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise WrongError("hangs") from None
    Answer(process.returncode, process.stdout + process.stderr, 0, 0).refused("shared memory is too small")
