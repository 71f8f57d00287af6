"""One progress bar, early stopping, and checkpoints that are whole or not there."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from tqdm import tqdm

from mammodet.config import TrainConfig
from mammodet.engine.checkpoint import save_torch
from mammodet.engine.progress import Pace
from mammodet.parallel import has_terminal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_torch(checkpoint, Path(path))


class OneBar(TQDMProgressBar):
    """Lightning's bar over the epoch's steps; validation shows in it as text instead of a bar of its own.

    Where the output goes to a file, there is no bar, but lines (`ProgressLines`).
    """

    def __init__(self, pace: Pace) -> None:
        super().__init__(refresh_rate=1 if has_terminal() else 0)
        self.pace = pace

    def init_validation_tqdm(self) -> Any:
        return tqdm(disable=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._show_validation(0)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._show_validation(args[3] + 1)  # the module, outputs, the batch, its number

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
        trainer.should_stop = self.wait_count >= self.patience

    def reason(self) -> str:
        """Why it stopped."""
        if self.wait_count < self.patience:
            return str(self.stopping_reason_message)
        times = f"{self.wait_count} {'validation' if self.wait_count == 1 else 'validations'}"
        return f"{self.monitor} did not improve on {float(self.best_score):.4g} in {times} (train.early_stopping)"
