"""One progress bar, one line an epoch, metrics.csv, and checkpoints that are whole or not there."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

from mammodet.engine.checkpoint import save_torch
from mammodet.errors import InputError
from mammodet.files import write_text


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to a temporary name, then rename."""
        save_torch(checkpoint, Path(path))


class OneBar(TQDMProgressBar):
    """Lightning's bar over the epoch's steps; validation shows in it as text instead of a bar of its own.

    Where the output goes to a file, there is no bar: the line of each epoch is enough.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 0)

    def init_sanity_tqdm(self) -> Any:
        """No bar."""
        return tqdm(disable=True)

    def init_validation_tqdm(self) -> Any:
        """No bar."""
        return tqdm(disable=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the validation set is predicted."""
        super().on_validation_start(trainer, pl_module)
        if not trainer.sanity_checking and hasattr(self, "_train_progress_bar") and self._train_progress_bar:
            self._train_progress_bar.set_description(f"Epoch {trainer.current_epoch}, validating")

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The loss; the epoch's line has the rest."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


class MetricsTable(L.Callback):
    """metrics.csv, one row an epoch, and a line of it on screen.

    A resumed run goes on in the same file; rows past the epoch it resumes from are dropped.
    """

    def __init__(self, path: Path, shown: tuple[str, ...]) -> None:
        self.path = path
        self.shown = shown
        self.rows: list[dict[str, Any]] = []
        self.began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the rows of an interrupted run."""
        self.began = time.monotonic()
        if trainer.current_epoch > 0 and self.path.exists():
            try:
                with open(self.path, encoding="utf-8", newline="") as file:
                    self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= trainer.current_epoch]
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise InputError(
                    f"{self.path}: cannot be read ({error}); restore it, or remove it and lose the curves so far"
                ) from None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a row; written whole each time."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "loss"}
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self.began, 1),
        }
        row |= {
            name: f"{value:.6g}"
            for name, value in sorted(values.items())
            if math.isfinite(value) and (validated or not name.startswith("val/"))
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        columns = list(dict.fromkeys(key for item in self.rows for key in item))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
        shown = "   ".join(f"{name} {float(row[name]):.4g}" for name in self.shown if name in row)
        print(
            f"\repoch {row['epoch']}/{trainer.max_epochs}   step {row['step']}   {shown}   {row['seconds']:.0f} s",
            flush=True,
        )
