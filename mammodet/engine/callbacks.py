"""One progress bar, one line an epoch, metrics.csv, and checkpoints that are whole or not there."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from tqdm import tqdm

from mammodet.config import TrainConfig
from mammodet.engine.checkpoint import save_torch
from mammodet.engine.progress import Pace, RunLog
from mammodet.errors import InputError
from mammodet.files import csv_text, write_text
from mammodet.parallel import has_terminal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to a temporary name, then rename."""
        save_torch(checkpoint, Path(path))


class OneBar(TQDMProgressBar):
    """Lightning's bar over the epoch's steps; validation shows in it as text instead of a bar of its own.

    Where the output goes to a file, there is no bar, but lines (`ProgressLines`).
    """

    def __init__(self, pace: Pace) -> None:
        super().__init__(refresh_rate=1 if has_terminal() else 0)
        self.pace = pace

    def init_sanity_tqdm(self) -> Any:
        """No bar."""
        return tqdm(disable=True)

    def init_validation_tqdm(self) -> Any:
        """No bar."""
        return tqdm(disable=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the validation set is predicted."""
        super().on_validation_start(trainer, pl_module)
        self._show_validation(0)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far the validation is."""
        self._show_validation(batch_idx + 1)

    def _show_validation(self, batch: int) -> None:
        bar = self._train_progress_bar
        if bar is not None:
            bar.set_description(f"Epoch {self.pace.epoch + 1}, validating {batch}/{self.pace.val_batches}")

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Count epochs from 1, as everywhere else."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}/{self.pace.epochs}")

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The loss, the pace, and what is left of the run; the epoch's line has the rest."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        left = tqdm.format_interval(self.pace.left())
        return {**items, "images/s": f"{self.pace.images_per_second:.3g}", "run left": left}


class Patience(EarlyStopping):
    """Lightning's early stopping; a resumed run that had stopped trains no further epoch."""

    def __init__(self, settings: TrainConfig) -> None:
        super().__init__(
            settings.monitor,
            mode=settings.monitor_mode,
            patience=settings.early_stopping or 0,
            check_on_train_epoch_end=not settings.monitor.startswith("val/"),
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once where the patience was over."""
        trainer.should_stop = self.wait_count >= self.patience

    def reason(self) -> str:
        """Why it stopped."""
        if self.wait_count < self.patience:
            return str(self.stopping_reason_message)
        times = f"{self.wait_count} {'validation' if self.wait_count == 1 else 'validations'}"
        return f"{self.monitor} did not improve on {float(self.best_score):.4g} in {times} (train.early_stopping)"


class MetricsTable(L.Callback):
    """metrics.csv, one row an epoch, and a line of it on screen.

    A resumed run goes on in the same file; rows past the epoch it resumes from are dropped.
    """

    def __init__(self, path: Path, shown: tuple[str, ...], log: RunLog, pace: Pace) -> None:
        self.path, self.shown, self.run_log, self.pace = path, shown, log, pace
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
        write_text(self.path, csv_text([columns, *([item.get(key) for key in columns] for item in self.rows)]))
        shown = "   ".join(f"{name} {float(row[name]):.4g}" for name in self.shown if name in row)
        left = tqdm.format_interval(self.pace.left())
        pace = f"{row['seconds']:.0f} s   {self.pace.images_per_second:.3g} images/s   {left} left"
        self.run_log.say(f"epoch {row['epoch']}/{trainer.max_epochs}   step {row['step']}   {shown}   {pace}")
