"""What a changed setting means to a run that is resumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a change does."""

    #: `applies` to what follows, is `refused`, or has `no effect` on what is learnt.
    answer: Literal["applies", "refused", "no effect"]
    note: str  #: more on it, for messages and docs/config.md
    fixed: tuple[Any, ...] = ()  #: the change is refused if either value is one of these

    def refuses(self, then: Any, now: Any) -> bool:
        """Whether this change is refused."""
        return self.answer == "refused" or then in self.fixed or now in self.fixed


_NEXT = Meaning("applies", "from the next epoch on")
_STEPS = Meaning("applies", "the schedule goes by epochs done, warm-up by steps")
_FILES = Meaning("no effect", "the data themselves must be the same, unless --force-data takes others")
_SPEED = Meaning("no effect", "on what is learnt")
_BEST = Meaning("refused", "best.ckpt was chosen by it")

#: By key or section; the longest that fits counts.
ON_RESUME: Mapping[str, Meaning] = {
    "output_dir": Meaning("no effect", "a moved folder keeps its best checkpoint"),
    "seed": _NEXT,
    "data.root": _FILES,
    "data.fold": _FILES,
    "data.train": _FILES,
    "data.val": _FILES,
    "data.test": Meaning("no effect", "--eval-only reads it"),
    "data.patient_key": Meaning("applies", "to what is written from now on"),
    "data.skip_invalid": _FILES,
    "data.image": Meaning("refused", "the network learnt from images prepared otherwise"),
    "data.augment": _NEXT,
    "data.box_masks": _NEXT,
    "data.batch_size": _STEPS,
    "data.negative_fraction": _NEXT,
    "data.sampling": _NEXT,
    "data.epoch_size": _STEPS,
    "data.num_workers": _SPEED,
    "data.cache": _SPEED,
    "data.cache_dir": _SPEED,
    "data.unsafe_split": _FILES,
    "data.unsafe_copies": _FILES,
    "model": Meaning("refused", "it is another model"),
    "train.epochs": Meaning("applies", "the schedule is stretched or shortened to it"),
    "train.optimizer": Meaning("refused", "its state does not fit another"),
    "train.lr": Meaning("applies", "at once"),
    "train.momentum": Meaning("applies", "at once"),
    "train.weight_decay": Meaning("applies", "at once"),
    "train.backbone_lr_factor": Meaning("refused", "the optimizer's groups depend on it"),
    "train.schedule": Meaning("applies", "at once; plateau cannot be entered or left", fixed=("plateau",)),
    "train.step_epochs": Meaning("applies", "at once"),
    "train.plateau_patience": Meaning("applies", "at once"),
    "train.warmup_steps": Meaning("applies", "counted from the first step of the run"),
    "train.gradient_clip": Meaning("applies", "at once"),
    "train.accumulate": _STEPS,
    "train.precision": Meaning("applies", "at once"),
    "train.ema_decay": Meaning("applies", "at once; null is neither entered nor left", fixed=(None,)),
    "train.monitor": _BEST,
    "train.monitor_mode": _BEST,
    "train.early_stopping": Meaning("applies", "validations without gain are counted on"),
    "train.validate_every": _NEXT,
    "train.accelerator": Meaning("no effect", "but for rounding"),
    "train.devices": _STEPS,
    "train.loggers": _SPEED,
}


def on_resume(key: str) -> Meaning:
    """What a change of a setting means; `key` may lie below one of the table's, as `data.augment.noise` does."""
    while key not in ON_RESUME:
        key, _, _ = key.rpartition(".")
    return ON_RESUME[key]
