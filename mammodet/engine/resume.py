"""Go on from a checkpoint: whether it can be resumed with these settings, and what they change in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor

from mammodet.config import Config, TrainConfig, changes, on_resume
from mammodet.data.sources import SourceFile
from mammodet.engine.checkpoint import RunFacts, config_of
from mammodet.errors import InputError
from mammodet.files import dig

#: What Lightning resumes from.
_PARTS = ("loops", "optimizer_states", "lr_schedulers", "callbacks", "state_dict", "pytorch-lightning_version")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins: at the beginning, or after the last whole epoch of a checkpoint."""

    path: Path | None = None  #: the checkpoint
    #: epochs, steps: that were done.
    epochs: int = 0
    steps: int = 0
    settings: TrainConfig | None = None  #: of the run until then

    @staticmethod
    def of(path: Path, content: Mapping[str, Any], then: RunFacts) -> "Start":
        """The start from a checkpoint. Raises InputError: it cannot be resumed from."""
        missing = [key for key in _PARTS if key not in content]
        if missing:
            raise not_resumable(path, f"{', '.join(missing)} missing")
        epoch, steps = content.get("epoch"), content.get("global_step")
        if not _is_count(epoch) or not _is_count(steps):
            raise not_resumable(path, f"epoch {epoch!r:.40}, global_step {steps!r:.40}; expected numbers from 0 on")
        return Start(path, epoch + 1, steps, config_of(then, path).train)


def not_resumable(path: Path, reason: str) -> InputError:
    """The error for a checkpoint that is damaged."""
    return InputError(f"{path}: cannot be resumed from: {reason}; restore it, or start anew with --overwrite")


def asked_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings in which a config differs from that of a run, but for a precision that the run chose itself."""
    return [each for each in changes(then, now) if (each[0], each[2]) != ("train.precision", "auto")]


def changed_settings(then: Config, now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What a run that is resumed would change: faults, and what to say of the rest."""
    faults, notes = [], []
    for key, before, after in asked_changes(then.to_dict(), now):
        meaning, change = on_resume(key), f"{key} {before!r} -> {after!r}"
        if meaning.refuses(before, after):
            faults.append(f"{change} cannot change: {meaning.note}")
        elif meaning.answer == "applies":
            notes.append(f"resuming with a changed setting: {change} ({meaning.note})")
        else:
            notes.append(f"resuming with another {change} (no effect: {meaning.note})")
    return faults, notes


def changed_data(then: RunFacts, now: RunFacts) -> list[str]:
    """Data that are not those of the checkpoint."""
    faults = []
    if then.data_hash != now.data_hash:
        faults.append(f"the training data changed: {then.data_hash[:12]} then, {now.data_hash[:12]} now")
    if then.split_hash != now.split_hash:
        faults.append(f"the split changed: {str(then.split_hash)[:12]} then, {str(now.split_hash)[:12]} now")
    before, after = _validation_files(then.files), _validation_files(now.files)
    new = [after[digest] for digest in after if digest not in before]
    if before and new:
        faults.append(f"the validation data changed: {', '.join(map(str, new))}")
    return faults


def _validation_files(files: Sequence[SourceFile]) -> dict[str | None, str | None]:
    return {file.data_hash: file.file for file in files if file.subset == "val"}


def check_content(
    start: Start, content: Mapping[str, Any], trainer: Any, module: L.LightningModule, optimizer: Any
) -> None:
    """Compare a checkpoint with what the run that goes on from it would write.

    Args:
        optimizer: a new one of this run.
    Raises:
        InputError: parts are missing or damaged.
    """
    assert start.path is not None
    assert start.settings is not None
    faults = _unlike(module.state_dict(), content["state_dict"], "state_dict")
    if start.settings.ema_decay is not None:
        faults += _unlike(module.state_dict(), content.get("current_model_state"), "current_model_state")
        faults += _unlike({"n_averaged": torch.zeros(())}, content.get("averaging_state"), "averaging_state")
    same_version = content["pytorch-lightning_version"] == L.__version__
    faults += _callback_faults(trainer, content["callbacks"], start.settings, same_version=same_version)
    faults += _unlike([{}], content["lr_schedulers"], "lr_schedulers")
    faults += _optimizer_faults(optimizer.state_dict(), content["optimizer_states"], start)
    if same_version:
        faults += _unlike(trainer.fit_loop.state_dict(), dig(content["loops"], "fit_loop"), "loops.fit_loop")
        done = [
            dig(content["loops"], "fit_loop", "epoch_progress", "current", "processed"),
            dig(content["loops"], *_OPTIMIZER_STEPS, "total", "completed"),
        ]
        if done != [start.epochs, start.steps]:
            faults.append(f"epoch and global_step say {start.epochs} epochs and {start.steps} steps, loops {done}")
    if faults:
        more = f" ({len(faults)} faults in all)" if len(faults) > 3 else ""
        raise not_resumable(start.path, "; ".join(faults[:3]) + more)


_OPTIMIZER_STEPS = ("fit_loop", "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step")


def _callback_faults(trainer: Any, states: Any, then: TrainConfig, *, same_version: bool) -> list[str]:
    fresh = {
        callback.state_key: state if same_version else {}
        for callback in trainer.callbacks
        if (state := callback.state_dict()) and not (isinstance(callback, EarlyStopping) and not then.early_stopping)
    }
    faults = _unlike(fresh, states, "callbacks")
    for callback in trainer.checkpoint_callbacks if not faults else ():
        state = states[callback.state_key]
        kept, worst = state.get("best_k_models"), state.get("kth_best_model_path")
        if not isinstance(kept, dict) or not all(isinstance(score, Tensor) for score in kept.values()):
            faults.append(f"callbacks.{callback.state_key}.best_k_models is {kept!r:.40}, expected scores by path")
        elif kept and worst not in kept:
            faults.append(f"callbacks.{callback.state_key}.kth_best_model_path is {worst!r:.40}, none of the best")
    return faults


def _optimizer_faults(fresh: Mapping[str, Any], states: Any, start: Start) -> list[str]:
    groups = [{"params": group["params"], "lr": group["lr"]} for group in fresh["param_groups"]]
    faults = _unlike([{"state": {}, "param_groups": groups}], states, "optimizer_states")
    if faults:
        return faults
    count = sum(len(group["params"]) for group in groups)
    state = states[0]["state"]
    settings = start.settings
    assert settings is not None
    without = settings.optimizer == "sgd" and settings.momentum == 0
    if not all(_is_count(key) and key < count and isinstance(value, dict) for key, value in state.items()):
        return [f"optimizer_states: state is not of the {count} parameters"]
    if start.steps and not state and not without:
        return [f"optimizer_states: no state after {start.steps} steps"]
    return [
        f"optimizer_states: state {key}.{name} is not finite"
        for key, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor) and not value.isfinite().all()
    ]


def _unlike(fresh: Any, stored: Any, place: str) -> list[str]:
    """Where stored values have not the keys, lengths, shapes and kinds of new ones."""
    if isinstance(fresh, Mapping):
        if not isinstance(stored, Mapping):
            return [f"{place} is {stored!r:.40}, expected keys and values"]
        return [
            fault
            for key in fresh
            for fault in (
                _unlike(fresh[key], stored[key], f"{place}.{key}") if key in stored else [f"{place}.{key} is missing"]
            )
        ]
    if isinstance(fresh, list):
        if not isinstance(stored, list) or len(stored) != len(fresh):
            return [f"{place} is {stored!r:.40}, expected a list of {len(fresh)}"]
        pairs = zip(fresh, stored, strict=True)
        return [fault for at, pair in enumerate(pairs) for fault in _unlike(*pair, f"{place}[{at}]")]
    if isinstance(fresh, Tensor):
        good = isinstance(stored, Tensor) and stored.shape == fresh.shape
        expected = f"a tensor of shape {tuple(fresh.shape)}"
    elif isinstance(fresh, int | float):
        good = isinstance(stored, int | float) and math.isfinite(stored) and stored >= 0
        good, expected = good and isinstance(stored, bool) == isinstance(fresh, bool), "a number from 0 on"
    elif isinstance(fresh, str):
        good, expected = isinstance(stored, str), "a text"
    else:
        good, expected = True, ""
    return [] if good else [f"{place} is {stored!r:.40}, expected {expected}"]


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def adapt_callbacks(states: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Give stored callbacks what this run sets: the patience, and the folder, which may have been moved."""
    for callback in callbacks:
        state = states.get(callback.state_key)
        if state is None:
            continue
        if isinstance(callback, EarlyStopping):
            state["patience"] = callback.patience
        if isinstance(callback, ModelCheckpoint):
            folder = Path(str(callback.dirpath))
            state["dirpath"] = str(callback.dirpath)
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = _moved(state[key], folder)
            state["best_k_models"] = {_moved(path, folder): score for path, score in state["best_k_models"].items()}


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path


def adapt_optimizer(
    checkpoint: dict[str, Any], optimizer: torch.optim.Optimizer, settings: TrainConfig, start: Start, factor: float
) -> None:
    """Give a stored optimiser and schedule the rates, momentum, decay and patience of this run.

    Args:
        optimizer: a new one of this run.
        factor: the schedule's next factor on each rate. `plateau` goes by the figures so far: its rate stays the same
            part of `train.lr`.
    """
    assert start.settings is not None
    plateau = settings.schedule == "plateau"
    groups, scheduler = checkpoint["optimizer_states"][0]["param_groups"], checkpoint["lr_schedulers"][0]
    for group, new in zip(groups, optimizer.param_groups, strict=True):
        group |= {key: new[key] for key in ("momentum", "weight_decay") if key in new}
        group["lr"] = group["lr"] * (settings.lr / start.settings.lr) if plateau else new["lr"] * factor
    scheduler["_last_lr"] = [group["lr"] for group in groups]
    if plateau:
        scheduler["patience"] = settings.plateau_patience
        return
    scheduler |= {"base_lrs": [new["lr"] for new in optimizer.param_groups], "last_epoch": start.steps}
    for group, new in zip(groups, optimizer.param_groups, strict=True):
        group["initial_lr"] = new["lr"]
