"""What a resumed run does with changed settings, a moved folder and a damaged checkpoint."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mammodet.config import ON_RESUME, Config, DataConfig, TrainConfig, load_config, on_resume
from mammodet.data.coco import read_coco, write_coco
from mammodet.engine.checked_run import prepare
from mammodet.engine.run_folder import BEST, LAST
from mammodet.engine.train import train
from mammodet.errors import InputError

#: A classifier that learns in a second: four images an epoch, two steps.
TINY = (
    "model.kind=classifier",
    "model.classifier.network=cnn",
    "model.classifier.cnn={blocks: [[4]], dense: [8]}",
    "model.classifier.heads={tumor: {}}",
    "data.image.max_size=32",
    "data.batch_size=2",
    "data.epoch_size=4",
    "data.num_workers=0",
    "train.epochs=2",
    "train.optimizer=adamw",
    "train.lr=1e-3",
    "train.schedule=constant",
    "train.warmup_steps=0",
    "train.monitor=val/loss",
    "train.monitor_mode=min",
    "train.accelerator=cpu",
)


def tiny(root: Path, output: Path, *overrides: str) -> Config:
    return load_config(None, (*TINY, f"data.root={root}", f"output_dir={output}", *overrides))


def go_on(root: Path, output: Path, *overrides: str) -> Path:
    return train(prepare(tiny(root, output, *overrides)), resume=True)


def rates(output: Path) -> list[float]:
    with open(output / "metrics.csv", newline="", encoding="utf-8") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


@pytest.fixture(scope="module")
def finished(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tiny") / "out"
    train(prepare(tiny(phantom_root, output)))
    return output


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, elsewhere."""
    return Path(shutil.copytree(finished, tmp_path / "moved"))


def test_every_setting_says_what_a_change_on_resume_means() -> None:
    data, settings = ({*part.model_fields} for part in (DataConfig, TrainConfig))
    expected = {f"data.{key}" for key in data} | {f"train.{key}" for key in settings}
    assert set(ON_RESUME) == expected | {"output_dir", "seed", "model"}
    assert on_resume("data.augment.noise") is ON_RESUME["data.augment"]
    assert on_resume("model.detector.anchors.sizes") is ON_RESUME["model"]


def test_changed_rate_momentum_and_decay_hold_from_the_next_step_on(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("train.optimizer=sgd", "train.epochs=1")
    train(prepare(tiny(phantom_root, tmp_path / "out", *first)))
    changed = ("train.lr=1e-5", "train.momentum=0.5", "train.weight_decay=5", "train.epochs=3")
    go_on(phantom_root, tmp_path / "out", *first, *changed)
    assert rates(tmp_path / "out") == [1e-3, 1e-5, 1e-5]
    groups = read(tmp_path / "out" / LAST)["optimizer_states"][0]["param_groups"]
    found = [(group["lr"], group["momentum"], group["weight_decay"]) for group in groups]
    assert found == [(1e-5, 0.5, 5), (1e-5, 0.5, 0)]
    assert "resuming with a changed setting: train.lr 0.001 -> 1e-05 (at once)" in capsys.readouterr().out


def test_schedule_goes_on_by_epochs_with_another_batch_size(phantom_root: Path, tmp_path: Path) -> None:
    options = ("train.schedule=cosine", "data.epoch_size=8")
    output = tmp_path / "out"
    train(prepare(tiny(phantom_root, output, *options, "train.epochs=2")))
    before = read(output / LAST)["state_dict"]
    go_on(phantom_root, output, *options, "train.epochs=4", "data.batch_size=8")
    assert rates(output)[2:] == pytest.approx([0.146447e-3, 0.0], abs=1e-9)  # of the step that would be next
    after = read(output / LAST)["state_dict"]
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_plateau_keeps_its_drops_with_another_rate(phantom_root: Path, tmp_path: Path) -> None:
    output, plateau = tmp_path / "out", ("train.schedule=plateau", "train.plateau_patience=50")
    train(prepare(tiny(phantom_root, output, *plateau)))
    content = read(output / LAST)
    for group in content["optimizer_states"][0]["param_groups"]:
        group["lr"] = 1e-4  # after a drop
    torch.save(content, output / LAST)
    go_on(phantom_root, output, *plateau, "train.lr=5e-3", "train.plateau_patience=3", "train.epochs=3")
    assert rates(output)[2] == pytest.approx(5e-4)
    assert read(output / LAST)["lr_schedulers"][0]["patience"] == 3


def test_early_stop_is_reported_and_more_patience_goes_on(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    # Without learning no validation is better than the first.
    options = ("train.lr=1e-12", "train.weight_decay=0", "train.monitor=val/auc_tumor", "train.monitor_mode=max")
    train(prepare(tiny(phantom_root, output, *options, "train.epochs=5", "train.early_stopping=1")))
    said = r"stopped early after epoch 2: val/auc_tumor did not improve on [\d.]+ in 1 validation \(train"
    assert re.search(said, capsys.readouterr().out)
    go_on(phantom_root, output, *options, "train.epochs=5", "train.early_stopping=1")
    assert "stopped early after epoch 2" in capsys.readouterr().out
    assert len(rates(output)) == 2
    go_on(phantom_root, output, *options, "train.epochs=4", "train.early_stopping=9")
    assert "stopped early" not in capsys.readouterr().out
    assert len(rates(output)) == 4


@pytest.mark.parametrize(
    "change",
    ["train.optimizer=sgd", "train.schedule=plateau", "train.ema_decay=0.9", "train.backbone_lr_factor=0.5",
     "train.monitor=train/loss", "data.image.max_size=64", "model.classifier.dropout=0.25"],
)  # fmt: skip
def test_changes_that_cannot_be_made_are_refused_with_the_way_on(change: str, run: Path, phantom_root: Path) -> None:
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    with pytest.raises(InputError) as error:
        go_on(phantom_root, run, "train.epochs=3", change)
    assert f"{change.partition('=')[0]} " in str(error.value)
    assert "cannot change" in str(error.value)
    assert f"model.weights={run / LAST}" in str(error.value)
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before


def test_fewer_epochs_than_were_done_are_refused(run: Path, phantom_root: Path) -> None:
    with pytest.raises(InputError, match=r"2 epochs are done, more than train.epochs=1"):
        go_on(phantom_root, run, "train.epochs=1")


def test_no_further_epochs_finish_a_run_that_was_stopped(run: Path, phantom_root: Path) -> None:
    before = read(run / LAST)["state_dict"]
    go_on(phantom_root, run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in read(run / LAST)["state_dict"].items())
    assert len(rates(run)) == 2


def test_other_validation_data_are_refused(run: Path, phantom_root: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(phantom_root, tmp_path / "data"))
    dataset = read_coco(data / "val.json")
    write_coco(replace(dataset, images=dataset.images[1:]), data / "val.json")
    with pytest.raises(InputError, match=r"the validation data changed: .*val.json(?s:.*)--force-data"):
        go_on(data, run, "train.epochs=3")


def test_moved_folder_keeps_its_best_checkpoint(run: Path, phantom_root: Path) -> None:
    content = read(run / LAST)
    state = next(state for state in content["callbacks"].values() if state["monitor"])
    for key in ("best_model_score", "kth_value"):
        state[key] = torch.tensor(1e-6)  # no later epoch is better
    state["best_k_models"] = {path: torch.tensor(1e-6) for path in state["best_k_models"]}
    torch.save(content, run / LAST)
    best = read(run / BEST)["epoch"]
    go_on(phantom_root, run, "train.epochs=3")
    assert read(run / BEST)["epoch"] == best
    kept = next(state for state in read(run / LAST)["callbacks"].values() if state["monitor"])
    assert kept["best_model_path"] == str(run / BEST)
    assert float(kept["best_model_score"]) == pytest.approx(1e-6)


def _no_moments(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"] = {}


def _wrong_shape(content: dict[str, Any]) -> None:
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.zeros(1)


def _no_epochs(content: dict[str, Any]) -> None:
    content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = 0


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"loops": {}}, "loops.fit_loop"),
        ({"loops": "x"}, "loops.fit_loop"),
        ({"lr_schedulers": "x"}, "lr_schedulers"),
        ({"lr_schedulers": []}, "lr_schedulers"),
        ({"state_dict": {}}, "state_dict"),
        ({"optimizer_states": []}, "optimizer_states"),
        ({"optimizer_states": [{"state": {}, "param_groups": []}]}, "param_groups"),
        ({"callbacks": {"x": 1}}, "callbacks"),
        ({"callbacks": None}, "callbacks"),
        ({"epoch": "a"}, "epoch 'a'"),
        ({"epoch": 7}, "train.epochs"),
        ({"global_step": -5}, "global_step -5"),
        ({"global_step": 5}, "5 steps"),
        (_no_moments, "no state after 4 steps"),
        (_wrong_shape, "state_dict"),
        (_no_epochs, "loops"),
    ],
)
def test_damaged_checkpoint_cannot_be_resumed_from(
    damage: dict[str, Any] | Callable[[dict[str, Any]], None], named: str, run: Path, phantom_root: Path
) -> None:
    content = read(run / LAST)
    if callable(damage):
        damage(content)
    else:
        content |= damage
    torch.save(content, run / LAST)
    with pytest.raises(InputError) as error:
        go_on(phantom_root, run, "train.epochs=3")
    assert named in str(error.value)
    assert "epochs are done" in str(error.value) or "cannot be resumed from" in str(error.value)


def test_warm_up_longer_than_the_run_is_reported(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(prepare(tiny(phantom_root, tmp_path / "out", "train.epochs=1", "train.warmup_steps=2")))
    assert "train.warmup_steps=2, and the run has 2 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("monitor", "mode", "named"),
    [
        ("train/loss", "max", "train.monitor_mode=min"),
        ("val/loss", "max", "train.monitor_mode=min"),
        ("val/auc_tumor", "min", "train.monitor_mode=max"),
        ("val/balanced_accuracy_density", "min", "train.monitor_mode=max"),
        ("loss", "min", "a column of metrics.csv"),
    ],
)
def test_monitor_and_mode_that_keep_the_worst_are_refused(
    monitor: str, mode: str, named: str, phantom_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=named):
        prepare(tiny(phantom_root, tmp_path, f"train.monitor={monitor}", f"train.monitor_mode={mode}"))


def test_best_checkpoint_has_the_lowest_training_loss(phantom_root: Path, tmp_path: Path) -> None:
    best = train(prepare(tiny(phantom_root, tmp_path / "out", "train.monitor=train/loss", "train.epochs=4")))
    with open(tmp_path / "out" / "metrics.csv", newline="", encoding="utf-8") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert read(best)["epoch"] == losses.index(min(losses))


def test_unknown_figure_of_training_is_refused(phantom_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.monitor=train/loss_box: not among .*: train/loss, train/loss_tumor"):
        train(prepare(tiny(phantom_root, tmp_path / "out", "train.monitor=train/loss_box")))


def test_run_shorter_than_validate_every_is_validated_at_its_end(phantom_root: Path, tmp_path: Path) -> None:
    best = train(prepare(tiny(phantom_root, tmp_path / "out", "train.validate_every=3")))
    with open(best.parent / "metrics.csv", newline="", encoding="utf-8") as file:
        assert [bool(row["val/loss"]) for row in csv.DictReader(file)] == [False, True]


def test_laterality_is_refused_where_all_breasts_are_turned_to_one_side(phantom_root: Path, tmp_path: Path) -> None:
    heads = "model.classifier.heads={laterality: {}}"
    with pytest.raises(InputError, match=r"horizontal_flip=0\.5(?s:.*)data.image.orient=none"):
        prepare(tiny(phantom_root, tmp_path / "out", heads, "data.image.orient=left", "train.monitor=val/loss"))


def test_laterality_is_no_question_for_a_detector(phantom_root: Path, tmp_path: Path) -> None:
    """Its flips would exchange left and right."""
    targets = "model.image_head.targets=[tumor, laterality]"
    with pytest.raises(InputError, match=r"image_head.targets \['laterality'\]: no training image has them"):
        prepare(load_config(None, [f"data.root={phantom_root}", f"output_dir={tmp_path}", targets]))
