"""What a training says while it runs: the pace by hand, lines without a terminal, and train.log over a resumed run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_training import read_rows
from test_engine import config_for

from mammodet.engine import progress
from mammodet.engine.checked_run import prepare
from mammodet.engine.module import TrainingModule
from mammodet.engine.progress import Pace, RunLog
from mammodet.engine.train import train
from mammodet.parallel import LineClock, reported


class Time:
    """A clock that is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("mammodet.parallel.time", time)
    return time


def test_lines_are_due_at_once_after_15_seconds_and_every_minute(clock):
    lines = LineClock()
    due = []
    for now in range(200):
        clock.now = float(now)
        if lines.due():
            due.append(now)
    assert due == [0, 15, 75, 135, 195]


def test_reported_says_how_much_is_left(clock):
    said: list[str] = []
    for number in reported(range(4), 4, name="work", say=said.append):
        clock.now += 10
        assert number < 4
    # due at 10 s (the first) and at 30 s, and said at the end in any case
    assert said == [
        "work 1/4   0.1 images/s   00:30 left",
        "work 3/4   0.1 images/s   00:10 left",
        "work 4/4   0.1 images/s   00:00 left",
    ]


def test_pace_by_hand():
    pace = Pace(epochs=4, validate_every=2, batches=10, val_batches=5)
    pace.add_step(0, 1, 60.0, 4)  # the workers start
    assert pace.left_in_epoch() == 9 * 60
    pace.add_step(0, 2, 2.0, 4)
    pace.add_step(0, 3, 4.0, 4)
    # 3 s a step; validations after epochs 2 and 4, each 5 steps long until one is measured
    assert pace.images_per_second == pytest.approx(8 / 6)
    assert pace.left_in_epoch() == 7 * 3
    assert pace.left() == 7 * 3 + 3 * 10 * 3 + 2 * 5 * 3
    pace.add_step(1, 10, 3.0, 4)
    assert pace.left_in_epoch() == 15
    pace.add_validation(2, 8.0)
    assert pace.validation_seconds == 20
    assert pace.left_in_epoch() == pytest.approx(3 / 5 * 20)
    pace.add_validation(5, 26.0, whole=True)
    assert pace.left_in_epoch() == 0
    assert pace.left() == 2 * 10 * 3 + 26
    pace.add_step(3, 10, 3.0, 4)
    pace.add_validation(1, 1.0)  # the last whole validation counts for more than the first batch of this one
    assert pace.left() == pytest.approx(4 / 5 * 26)


def test_pace_counts_the_validation_of_the_last_epoch():
    pace = Pace(epochs=3, validate_every=2, batches=10, val_batches=5)
    pace.add_step(0, 10, 1.0, 4)
    assert pace.left() == 2 * 10 + 2 * 5  # validations after epochs 2 and 3


def test_pace_of_a_resumed_run_counts_what_is_left_alone():
    pace = Pace(epochs=30, validate_every=1, batches=10, val_batches=0)
    pace.add_step(28, 1, 1.0, 4)
    assert pace.left() == 9 + 10


def test_run_log_keeps_earlier_lines_until_it_begins_and_appends(tmp_path, capsys):
    (tmp_path / "train.log").write_text("before\n")
    log = RunLog(tmp_path / "train.log")
    log.say("one")
    assert (tmp_path / "train.log").read_text() == "before\n"
    log.begin()
    log.progress("two")
    log.say("three", on_screen=False)
    before, *lines = (tmp_path / "train.log").read_text().splitlines()
    assert before == "before"
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in lines] == ["one", "two", "three"]
    assert capsys.readouterr().out == "one\ntwo\n"


def test_run_log_of_a_further_process_says_nothing(tmp_path, capsys):
    log = RunLog(tmp_path / "train.log", speaks=False)
    log.begin()
    log.say("one")
    assert not (tmp_path / "train.log").exists()
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_bars_and_the_log_has_the_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "has_terminal", lambda: True)
    log = RunLog(tmp_path / "train.log")
    log.begin()
    log.progress("moving")
    log.say("kept")
    assert capsys.readouterr().out == "\r\x1b[2Kkept\n"
    assert "moving" in (tmp_path / "train.log").read_text()


def test_training_without_a_terminal_says_all_and_logs_it_over_an_interruption(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LineClock, "due", lambda _self: True)
    options = ("train.epochs=2", "data.epoch_size=8", "data.cache=disk", f"data.cache_dir={tmp_path / 'cache'}")
    run = prepare(config_for(phantom_root, tmp_path / "out", *options))
    step = TrainingModule.training_step

    def killed(self: TrainingModule, batch: object, batch_idx: int) -> object:
        if self.current_epoch == 1:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingModule, "training_step", killed)
    capsys.readouterr()
    with pytest.raises(RuntimeError, match="killed"):
        train(run)
    first = capsys.readouterr().out
    val = len(run.val.images)
    for part in (
        f"training: {len(run.train.images)} images, 2 batches an epoch, 2 epochs",
        f"validation: {val} images, {-(-val // 4)} batches, after each epoch",
        "1 x CPU, precision 32-true, batches of 4, 0 workers, cache disk",
        f"preparing validation images: 0 of {val} images lie in",
        f"preparing validation images {val}/{val}",
        "epoch 1/2 begins\n",
    ):
        assert part in first, part
    assert re.search(r"epoch 1/2   batch 2/2   loss [\d.]+   [\d.]+ images/s   left: epoch [\d:]+, run [\d:]+\n", first)
    assert re.search(r"epoch 1/2   validating, batch 1/\d   left: epoch [\d:]+, run [\d:]+\n", first)
    assert re.search(r"epoch 1/2   step 2   train/loss .* images/s   [\d:]+ left\n", first)
    assert "\r" not in first

    monkeypatch.setattr(TrainingModule, "training_step", step)
    train(run, resume=True)
    second = capsys.readouterr().out
    assert "epoch 2/2 begins, resumed after epoch 1" in second
    assert f"preparing validation images: {val} of {val} images lie in" in second
    assert "epoch 1/2" not in second
    logged = (tmp_path / "out/train.log").read_text(encoding="utf-8").splitlines()
    assert [line[21:] for line in logged] == [
        line for line in (first + second).splitlines() if not line.startswith("resuming")
    ]
    assert [row["epoch"] for row in read_rows(tmp_path / "out")] == ["1", "2"]

    train(run, overwrite=True)
    logged = (tmp_path / "out/train.log").read_text(encoding="utf-8")
    assert logged.count("epoch 1/2 begins") == 1
    assert "resumed" not in logged
