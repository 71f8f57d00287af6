"""Lightning's loggers by name, and the row that each of them gets after an epoch."""

import csv
import importlib.util
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from tqdm import tqdm

from mammodet.config import Config
from mammodet.engine.progress import Pace, RunLog
from mammodet.errors import InputError


def logger_faults(names: Sequence[str]) -> list[str]:
    """Loggers whose library is missing, with the command that installs it."""
    missing = [name for name in names if name != "csv" and importlib.util.find_spec(name) is None]
    return [f"train.loggers: {name} is not installed: pip install {name}, or leave it out" for name in missing]


def make_loggers(config: Config) -> list[Logger]:
    """The loggers of `train.loggers`, which may open files and services at once."""
    output = config.output_dir
    loggers: list[Logger] = []
    for name in config.train.loggers:
        if name == "csv":
            loggers.append(CSVLogger(output, name="", version="", flush_logs_every_n_steps=1))
        elif name == "tensorboard":
            loggers.append(TensorBoardLogger(output, name="tensorboard", version=""))
        elif name == "mlflow":
            store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(output / 'mlflow.db').resolve().as_posix()}"
            loggers.append(MLFlowLogger("mammodet", run_name=output.name, tracking_uri=store))
        else:
            loggers.append(WandbLogger(output.name, save_dir=output, project="mammodet"))
    return loggers


def read_rows(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The rows of a metrics.csv up to an epoch; none where there is no file. Raises InputError: it cannot be read."""
    if not path.exists():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["epoch"]) <= epochs]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); restore it, or remove it and lose the curves so far"
        ) from None


class EpochRows(L.Callback):
    """One row an epoch for every logger, and a line of it on screen.

    Args:
        shown: figures on screen.

    Attributes:
        earlier: rows of metrics.csv from before a run was resumed, which Lightning's logger would lose.
    """

    def __init__(self, config: Config, shown: tuple[str, ...], log: RunLog, pace: Pace) -> None:
        self.config, self.shown, self.run_log, self.pace = config, shown, log, pace
        self.earlier: list[dict[str, Any]] = []
        self.began = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give metrics.csv its earlier rows, and services the config."""
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, CSVLogger):
                logger.experiment.metrics = [*self.earlier]
                logger.save()
            elif not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.config.to_dict())  # the others lie beside config.yaml

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self.began, 1),
        }
        for name, value in sorted(trainer.callback_metrics.items()):
            if name != "loss" and math.isfinite(value) and (validated or not name.startswith("val/")):
                row[name] = float(f"{float(value):.6g}")
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)
        shown = "   ".join(f"{name} {row[name]:.4g}" for name in self.shown if name in row)
        left = tqdm.format_interval(self.pace.left())
        pace = f"{row['seconds']:.0f} s   {self.pace.images_per_second:.3g} images/s   {left} left"
        self.run_log.say(f"epoch {row['epoch']}/{trainer.max_epochs}   step {trainer.global_step}   {shown}   {pace}")
