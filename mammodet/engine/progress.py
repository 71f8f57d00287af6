"""How far a training is: the pace of its steps, and the lines about it on screen and in `train.log`."""

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from tqdm import tqdm

from mammodet.parallel import LineClock, has_terminal

_LATEST = 200  # steps whose mean is the pace, so that it follows a machine that gets busy


class RunLog:
    """Lines on screen and, with the time before each, at the end of a file.

    Args:
        path: the file; touched from `begin` on, which also writes the lines that came before.
        speaks: False in a process that says nothing, since another one says the same.
    """

    def __init__(self, path: Path, *, speaks: bool = True) -> None:
        self.path, self.speaks = path, speaks
        self._waiting: list[str] | None = []

    def begin(self) -> None:
        """From here on lines go to the file at once."""
        waiting, self._waiting = self._waiting or [], None
        self._write(waiting)

    def say(self, text: str, *, on_screen: bool = True) -> None:
        """One line."""
        if not self.speaks:
            return
        if on_screen:
            print(f"\r\x1b[2K{text}" if has_terminal() else text, flush=True)  # in place of a bar that stands there
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}"
        if self._waiting is None:
            self._write([line])
        else:
            self._waiting.append(line)

    def progress(self, text: str) -> None:
        """One line that a terminal, which shows the same as a bar, does not need."""
        self.say(text, on_screen=not has_terminal())

    def _write(self, lines: list[str]) -> None:
        if self.speaks:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)


@dataclass
class Pace:
    """How long what is left of a training takes, by the latest steps and the latest validation of this process."""

    epochs: int
    validate_every: int
    #: batches, val_batches: of an epoch and of a validation.
    batches: int = 0
    val_batches: int = 0
    epoch: int = 0  #: the one under way, from 0; of it `batch` and `val_batch` are done
    batch: int = 0
    val_batch: int = 0
    validation_seconds: float | None = None  #: of a whole validation; None before the first
    _steps: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_LATEST))
    _first: bool = True
    _measured: bool = False

    def add_step(self, epoch: int, batch: int, seconds: float, images: int) -> None:
        """Count a step, the `batch`-th of its epoch, from 1; `images` of all processes."""
        if len(self._steps) == 1 and self._first:
            self._steps.clear()  # the first step of a process also waits for its workers to start
            self._first = False
        self.epoch, self.batch, self.val_batch = epoch, batch, 0
        self._steps.append((seconds, images))

    def add_validation(self, batch: int, seconds: float, *, whole: bool = False) -> None:
        """Count `batch` batches of a validation, which took `seconds` since its start; `whole`: with its figures."""
        self.val_batch = batch
        if whole:
            self.validation_seconds, self._measured = seconds, True
        elif not self._measured:
            self.validation_seconds = seconds / batch * self.val_batches

    @property
    def images_per_second(self) -> float:
        """Of the latest steps, without validation; 0 before the first."""
        return sum(images for _, images in self._steps) / max(sum(seconds for seconds, _ in self._steps), 1e-6)

    def left_in_epoch(self) -> float:
        """Seconds to the end of the epoch, with its validation."""
        left = (self.batches - self.batch) * self._step_seconds()
        if self._validates(self.epoch):
            left += self._validation() * (1 - self.val_batch / max(self.val_batches, 1))
        return left

    def left(self) -> float:
        """Seconds to the end of the last epoch."""
        later = range(self.epoch + 1, self.epochs)
        training = len(later) * self.batches * self._step_seconds()
        return self.left_in_epoch() + training + sum(map(self._validates, later)) * self._validation()

    def _step_seconds(self) -> float:
        return sum(seconds for seconds, _ in self._steps) / max(len(self._steps), 1)

    def _validation(self) -> float:
        """Until one is measured, its batches count as steps."""
        if self.validation_seconds is None:
            return self.val_batches * self._step_seconds()
        return self.validation_seconds

    def _validates(self, epoch: int) -> bool:
        return (epoch + 1) % self.validate_every == 0 or epoch == self.epochs - 1


class ProgressLines(L.Callback):
    """Measures the pace, and says how far the epoch is: after the first step, 15 seconds, then every minute."""

    def __init__(self, log: RunLog, pace: Pace) -> None:
        self.run_log, self.pace = log, pace
        self.clock = LineClock()
        self.since = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch
        resumed = f", resumed after epoch {done}" if done else ""
        self.run_log.say(f"epoch {done + 1}/{self.pace.epochs} begins{resumed}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, pace = time.monotonic(), self.pace
        pace.add_step(trainer.current_epoch, batch_idx + 1, now - self.since, len(batch) * trainer.world_size)
        self.since = now
        if self.clock.due():
            loss = float(trainer.progress_bar_metrics["loss"])
            self._say(f"batch {pace.batch}/{pace.batches}   loss {loss:.4g}   {pace.images_per_second:.3g} images/s")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since = time.monotonic()

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        done = args[3] + 1  # the module, outputs, the batch, its number
        self.pace.add_validation(done, time.monotonic() - self.since)
        if self.clock.due():
            self._say(f"validating, batch {done}/{self.pace.val_batches}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pace.add_validation(self.pace.val_batches, time.monotonic() - self.since, whole=True)

    def _say(self, where: str) -> None:
        pace = self.pace
        epoch, run = (tqdm.format_interval(seconds) for seconds in (pace.left_in_epoch(), pace.left()))
        self.run_log.progress(f"epoch {pace.epoch + 1}/{pace.epochs}   {where}   left: epoch {epoch}, run {run}")
