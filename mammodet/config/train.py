"""Optimiser, schedule, checkpoints."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mammodet.config.base import AtLeastOne, Count, NonNegative, Positive, Section


class TrainConfig(Section):
    """Optimiser, schedule, precision, checkpoints."""

    #: Passes over `data.epoch_size` images.
    epochs: AtLeastOne = 30
    #: `sgd` or `adamw`.
    optimizer: Literal["sgd", "adamw"] = "sgd"
    #: Learning rate after the warm-up, momentum of `sgd`, and weight decay.
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    #: Learning rate of the backbone as a part of `lr`: pretrained weights need smaller steps than new heads.
    backbone_lr_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    #: How the rate falls after the warm-up.
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    #: Epochs after which `step` divides the rate by ten.
    step_epochs: list[AtLeastOne] = Field(default=[20, 27])
    #: Validations without gain after which `plateau` divides the rate by ten.
    plateau_patience: AtLeastOne = 5
    #: Steps over which the rate rises linearly from 0.
    warmup_steps: Count = 200
    #: Largest norm of the gradient; 0 for no limit.
    gradient_clip: NonNegative = 10.0
    #: Batches whose gradients are summed before a step.
    accumulate: AtLeastOne = 1
    #: `auto`: bf16-mixed on a GPU that has it; on a CPU, for images above 256 px, what is faster, by a
    #: step in each. A run keeps its choice when it is resumed.
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    #: Decay of the exponential moving average of the weights, or null for none.
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    #: Metric that chooses the best checkpoint and stops early; see metrics.csv for the names.
    monitor: str = "val/bbox_AP50"
    monitor_mode: Literal["max", "min"] = "max"
    #: Validations without gain after which training stops, or null to go on to the end.
    early_stopping: AtLeastOne | None = None
    #: Epochs from one validation to the next; the last epoch is validated in any case.
    validate_every: AtLeastOne = 1
    #: Where to train; `--num-gpus` has precedence.
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    #: Processes on this machine; null means one. `--num-gpus` has precedence.
    devices: AtLeastOne | None = None
    #: Where the figures of each epoch go (docs/experiments.md): `csv` to metrics.csv, `tensorboard` to its folder in
    #: the output folder, `mlflow` to MLFLOW_TRACKING_URI or `mlflow.db` in the output folder, `wandb` to the account
    #: that is logged in.
    loggers: list[Literal["csv", "tensorboard", "mlflow", "wandb"]] = Field(default=["csv", "tensorboard"])

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: Any) -> Any:
        """Version 0.1 had `log_every`, which had no effect."""
        return {key: each for key, each in values.items() if key != "log_every"} if isinstance(values, dict) else values

    @field_validator("precision", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        """YAML reads `precision=32` as a number."""
        return str(value) if type(value) is int else value

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.schedule == "step" and self.step_epochs != sorted(set(self.step_epochs)):
            raise ValueError(f"train.step_epochs {self.step_epochs}: expected rising numbers")
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise ValueError("train.precision=16-mixed needs a GPU; choose 32 or bf16-mixed")
        return self
