"""The Lightning module: how a model learns, and how it is looked at between epochs."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from mammodet.config import Config, TrainConfig
from mammodet.data.dataset import Batch
from mammodet.data.sampling import stable_seed
from mammodet.engine.checkpoint import RunFacts
from mammodet.engine.resume import Start, adapt_callbacks, adapt_optimizer
from mammodet.engine.tasks import run_model, task_of, to_predictions
from mammodet.errors import InputError
from mammodet.modeling.build import Model, backbone_of
from mammodet.modeling.weight_files import KEY
from mammodet.records import Dataset, ImagePrediction


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite."""


class TrainingModule(L.LightningModule):
    """A model in training.

    Args:
        facts: written into every checkpoint.
        validation: records of the validation set, to score predictions against.
        start: where the run begins.
    """

    def __init__(
        self, model: Model, config: Config, facts: RunFacts, validation: Dataset, start: Start | None = None
    ) -> None:
        super().__init__()
        self.start = start or Start()
        self.restoring = False
        self.model = model
        self.config = config
        self.facts = facts
        self.validation = validation
        self._predictions: list[ImagePrediction] = []

    def on_train_epoch_start(self) -> None:
        """Validate after the last epoch, too, wherever `train.validate_every` falls: it is often the best."""
        if self.current_epoch == self.config.train.epochs - 1:
            self.trainer.check_val_every_n_epoch = 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of all losses of a batch.

        What the detector draws (anchors, regions) is a function of (seed, epoch, batch, process), so that a resumed run
        draws as an uninterrupted one.
        """
        torch.manual_seed(stable_seed(self.config.seed, self.current_epoch, batch_idx, self.global_rank))
        output = run_model(self.config, self.model, batch)
        loss = torch.stack([value.float() for value in output.losses.values()]).sum()
        if not torch.isfinite(loss):
            parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in output.losses.items())
            names = ", ".join(f"{record.file_name} (id {record.image_id})" for record in batch.records)
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {self.current_epoch}, step {self.global_step}: {parts}; images: "
                f"{names}. Lower train.lr, or set train.gradient_clip; --resume goes on from the last epoch."
            )
        size = len(batch)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)
        # Loggers get a row an epoch from `EpochRows`.
        mean: dict[str, Any] = {"on_step": False, "on_epoch": True, "logger": False, "sync_dist": True}
        self.log("train/loss", loss.detach(), batch_size=size, **mean)
        for name, value in output.losses.items():
            # Of the first process alone: names differ with the batch, and a process would wait for a name of another's.
            self.log(f"train/{name}", value.detach(), batch_size=size, rank_zero_only=True, **mean)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._predictions = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        output = run_model(self.config, self.model, batch)
        if output.losses:
            loss = torch.stack([value.float() for value in output.losses.values()]).sum()
            self.log(
                "val/loss", loss, on_step=False, on_epoch=True, logger=False, batch_size=len(batch), sync_dist=True
            )
        self._predictions += to_predictions(output, batch, self.config)

    def on_validation_epoch_end(self) -> None:
        gathered: list[list[ImagePrediction]] = [self._predictions]
        if self.trainer.world_size > 1:
            gathered = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self._predictions)
        by_id = {prediction.image_id: prediction for part in gathered for prediction in part}
        ordered = [by_id[record.image_id] for record in self.validation.images]
        task = task_of(self.config)
        figures = task.figures(self.validation, ordered)
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, logger=False)
        self._check_monitor("val/", [f"val/{name}" for name in {*figures, *task.validation_losses}])
        self._predictions = []

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule; the warm-up lies in `optimizer_step`."""
        settings = self.config.train
        optimizer = make_optimizer(self.model, settings)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if settings.schedule == "plateau":
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode=settings.monitor_mode, factor=0.1, patience=settings.plateau_patience
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {
                    "scheduler": scheduler,
                    "monitor": settings.monitor,
                    "interval": "epoch",
                    "frequency": settings.validate_every,
                },
            }
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(settings, step, self._steps_per_epoch, self.start)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Warm up linearly under `plateau`, whose scheduler knows no steps."""
        settings = self.config.train
        step = self.trainer.global_step
        if settings.schedule == "plateau" and step < settings.warmup_steps:
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * (step + 1) / settings.warmup_steps
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    @property
    def _steps_per_epoch(self) -> int:
        return max(int(self.trainer.estimated_stepping_batches) // self.config.train.epochs, 1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let this run's settings stand against those that Lightning keeps in a checkpoint."""
        self.restoring = True
        settings = self.config.train
        callbacks: Sequence[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        factor = lr_factor(settings, self.start.steps, self._steps_per_epoch, self.start)
        adapt_optimizer(checkpoint, make_optimizer(self.model, settings), settings, self.start, factor)
        adapt_callbacks(checkpoint["callbacks"], callbacks)

    def on_train_start(self) -> None:
        self.restoring = False

    def on_train_epoch_end(self) -> None:
        self._check_monitor("train/", [name for name in self.trainer.callback_metrics if name.startswith("train/")])

    def _check_monitor(self, kind: str, names: list[str]) -> None:
        """Refuse to monitor what is not there."""
        monitor = self.config.train.monitor
        if monitor.startswith("val/") == (kind == "val/") and monitor not in names:
            raise InputError(f"train.monitor={monitor}: not among the figures: {', '.join(sorted(names))}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.facts.to_json()


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; biases and norm weights do not decay, the backbone has a rate of its own."""
    slow = settings.backbone_lr_factor < 1
    body = {id(parameter) for parameter in backbone_of(model).parameters()} if slow else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in body, parameter.ndim > 1), []).append(parameter)
    split = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr": settings.lr * (settings.backbone_lr_factor if in_body else 1.0),
        }
        for (in_body, decays), parameters in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(split, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(split, lr=settings.lr)


def lr_factor(settings: TrainConfig, step: int, per_epoch: int, start: Start) -> float:
    """The learning rate at a step, as a part of `train.lr`: linear warm-up, then cosine, step or constant.

    The warm-up goes by steps, the schedule by epochs done: a run that is resumed with other batches or more epochs goes
    on where it should be.

    Args:
        per_epoch: steps of an epoch.
        start: what was done before this run.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    epoch = start.epochs + Fraction(step - start.steps, per_epoch)
    if settings.schedule == "cosine":
        # Steps before the start were of its mean size.
        warm = start.epochs + Fraction(warmup - start.steps, per_epoch)
        if start.steps > warmup:
            warm = Fraction(start.epochs * warmup, start.steps)
        passed = float((epoch - warm) / (settings.epochs - warm)) if settings.epochs > warm else 1.0
        return 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))
    if settings.schedule == "step":
        return float(0.1 ** sum(epoch >= each for each in settings.step_epochs))
    return 1.0
