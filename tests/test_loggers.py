"""Where the figures of each epoch go."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
from conftest import SMALL
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from small_training import SHORT

from mammodet.config import load_config
from mammodet.engine.checked_run import prepare
from mammodet.engine.loggers import logger_faults, make_loggers, read_rows
from mammodet.engine.train import train
from mammodet.errors import InputError


def test_missing_library_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, phantom_root: Path, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("mlflow", "wandb") else find(name))
    assert logger_faults(["csv", "tensorboard"]) == []
    overrides = (*SMALL, f"data.root={phantom_root}", f"output_dir={tmp_path}", "train.loggers=[csv, mlflow, wandb]")
    with pytest.raises(InputError, match=r"(?s)mlflow is not installed: pip install mlflow.*pip install wandb"):
        prepare(load_config(None, overrides))


def test_loggers_are_lightnings_own(tmp_path: Path) -> None:
    loggers = make_loggers(load_config(None, [f"output_dir={tmp_path}"]))
    assert [type(each) for each in loggers] == [CSVLogger, TensorBoardLogger]
    assert Path(str(loggers[0].log_dir)) == tmp_path
    assert make_loggers(load_config(None, ["train.loggers=[]"])) == []


def test_mlflow_writes_a_database_in_the_output_folder_or_to_its_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mammodet.engine.loggers.MLFlowLogger", lambda name, **how: (name, how))
    config = load_config(None, [f"output_dir={tmp_path}/run", "train.loggers=[mlflow]"])
    for server, store in ((None, f"sqlite:///{tmp_path.resolve()}/run/mlflow.db"), ("http://there", "http://there")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server or "")
        assert make_loggers(config) == [("mammodet", {"run_name": "run", "tracking_uri": store})]
    assert not (tmp_path / "run").exists()


def test_rows_after_the_epoch_that_is_resumed_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_rows(path, 3) == []
    path.write_text("epoch,step,train/loss\n1,2,0.5\n2,4,0.25\n3,6,0.125\n")
    assert [row["step"] for row in read_rows(path, 2)] == ["2", "4"]


def test_a_resumed_run_keeps_its_rows(phantom_root: Path, tmp_path: Path) -> None:
    overrides = (*SMALL, *SHORT, f"data.root={phantom_root}", f"output_dir={tmp_path}", "data.epoch_size=4")
    first = load_config(None, (*overrides, "train.epochs=1", "train.monitor=train/loss", "train.monitor_mode=min"))
    train(prepare(first))
    table = tmp_path / "metrics.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    train(prepare(first.change(train=first.train.change(epochs=2))), resume=True)
    with open(table, newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["epoch"] for row in found] == ["1", "2"]
    assert found[0]["train/loss"] == rows[0]["train/loss"]
    assert all(float(row["train/loss"]) > 0 for row in found)
