"""The output folder of a training, and what weights bring along."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_engine import config_for

from mammodet.data.coco import read_coco, write_coco
from mammodet.engine.checked_run import prepare
from mammodet.engine.checkpoint import KEY, RunFacts, load_model, read_facts
from mammodet.engine.run_folder import BEST, LAST, TABLE, only_writer
from mammodet.engine.train import Machines, train
from mammodet.errors import InputError
from mammodet.files import file_hash
from mammodet.modeling.weights import is_published


@pytest.fixture(scope="module")
def finished(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    train(prepare(config_for(phantom_root, output, "train.epochs=1")))
    return output


def copy_of(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    def second() -> None:
        with only_writer(tmp_path):
            pass

    with only_writer(tmp_path), pytest.raises(InputError, match="another training writes there"):
        second()
    second()


def test_what_a_killed_run_left_goes_when_the_next_one_begins(tmp_path: Path) -> None:
    mine, others = (
        tmp_path / ".last.a1b2c3d4.tmp.ckpt",
        [tmp_path / ".mine.a1b2c3d4.tmp.ckpt", tmp_path / "fold0" / BEST],
    )
    (tmp_path / "fold0").mkdir()
    others.append(tmp_path / "fold0/.last.a1b2c3d4.tmp.ckpt")  # another run's
    for path in (mine, *others):
        path.touch()
    with only_writer(tmp_path):
        assert not mine.exists()
    assert all(path.exists() for path in others)


def test_overwrite_changes_nothing_when_the_start_fails(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    output = copy_of(finished, tmp_path)
    before = {name: (output / name).read_bytes() for name in (BEST, LAST, TABLE, "config.yaml")}
    run = prepare(config_for(phantom_root, output, "train.epochs=1"))
    with pytest.raises(InputError, match="this machine has"):
        train(run, overwrite=True, machines=Machines(num_gpus=99))
    assert {name: (output / name).read_bytes() for name in before} == before


def test_resume_and_overwrite_together_are_refused(finished: Path, phantom_root: Path) -> None:
    with pytest.raises(InputError, match="choose one"):
        train(prepare(config_for(phantom_root, finished, "train.epochs=1")), resume=True, overwrite=True)


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_resume_without_a_usable_best_checkpoint_is_refused(
    damage: str, finished: Path, phantom_root: Path, tmp_path: Path
) -> None:
    output = copy_of(finished, tmp_path)
    content = (output / BEST).read_bytes()
    (output / BEST).unlink()
    if damage == "cut short":
        (output / BEST).write_bytes(content[:2000])
    run = prepare(config_for(phantom_root, output, "train.epochs=2"))
    with pytest.raises(InputError, match=r"(?s)restore best.ckpt.*--overwrite"):
        train(run, resume=True)


def test_resume_from_weights_alone_is_refused(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    output = copy_of(finished, tmp_path)
    shutil.copy(output / BEST, output / LAST)
    with pytest.raises(InputError, match=r"cannot be resumed from: loops, optimizer_states, .* missing"):
        train(prepare(config_for(phantom_root, output, "train.epochs=2")), resume=True)


def test_resume_with_a_damaged_table_is_refused(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    output = copy_of(finished, tmp_path)
    (output / TABLE).write_text("epoch,step\none,2\n")
    with pytest.raises(InputError, match=r"metrics.csv: cannot be read"):
        train(prepare(config_for(phantom_root, output, "train.epochs=2")), resume=True)


def test_weights_bring_their_patients_along(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    content = torch.load(finished / BEST, weights_only=True)
    content[KEY]["patients"].append("elsewhere_007")
    torch.save(content, tmp_path / "start.ckpt")
    weights = f"model.weights={tmp_path / 'start.ckpt'}"
    expected = {*read_facts(finished / BEST)[1].patients, "elsewhere_007"}
    output = tmp_path / "out"
    best = train(prepare(config_for(phantom_root, output, weights, "train.epochs=1", "data.epoch_size=4")))
    assert set(read_facts(best)[1].patients) == expected
    # A resumed run needs the weights no more, and remembers what they had seen, and other data before it.
    (tmp_path / "start.ckpt").unlink()
    run = prepare(config_for(phantom_root, output, weights, "train.epochs=2", "data.epoch_size=4"))
    changed = replace(run, facts=replace(run.facts, data_hash="0" * 64, patients=("new_001",)))
    train(changed, resume=True, force_data=True)
    for name in (LAST, BEST):
        assert set(read_facts(output / name)[1].patients) == {*expected, "new_001"}


def test_images_without_a_patient_are_counted(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(phantom_root, tmp_path / "data"))
    dataset = read_coco(data / "train.json")
    images = (replace(dataset.images[0], patient_id=None), *dataset.images[1:])
    write_coco(replace(dataset, images=images), data / "train.json")
    assert prepare(config_for(data, tmp_path / "out")).facts.unknown_patients == 1
    facts = read_facts(finished / BEST)[1]
    assert (facts.unknown_patients, facts.unknown_start) == (0, None)


def test_older_checkpoint_does_not_say_whether_patients_are_unknown(finished: Path) -> None:
    value = read_facts(finished / BEST)[1].to_json()
    del value["unknown_patients"], value["unknown_start"]
    older = RunFacts.from_json(value, finished)
    assert older.unknown_patients is None
    known = replace(older, unknown_patients=0)
    assert known.with_earlier(older).unknown_patients is None
    assert replace(older, unknown_patients=2).with_earlier(older).unknown_patients == 2
    assert replace(older, unknown_patients=2).with_earlier(known).unknown_patients == 2
    other = replace(older, unknown_patients=3, data_hash="other")
    assert replace(older, unknown_patients=2).with_earlier(other).unknown_patients == 5
    with pytest.raises(InputError, match="facts are damaged"):
        RunFacts.from_json({**value, "unknown_patients": "none"}, finished)


def test_weights_of_unknown_origin_are_named_for_good(finished: Path, phantom_root: Path, tmp_path: Path) -> None:
    torch.save(torch.load(finished / BEST, weights_only=True)["state_dict"], tmp_path / "bare.pth")
    short = ("train.epochs=1", "data.epoch_size=4")
    start = f"model.weights={tmp_path / 'bare.pth'}"
    best = train(prepare(config_for(phantom_root, tmp_path / "one", start, *short)))
    assert read_facts(best)[1].unknown_start == "bare.pth"
    again = train(prepare(config_for(phantom_root, tmp_path / "two", f"model.weights={best}", *short)))
    assert read_facts(again)[1].unknown_start == "bare.pth"


def test_published_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "net.pth")
    digest = file_hash(tmp_path / "net.pth")
    for name, known in ((f"net-{digest[:8]}.pth", True), ("net-0123abcd.pth", False)):
        shutil.copy(tmp_path / "net.pth", tmp_path / name)
        assert is_published(str(tmp_path / name)) == known
    assert is_published("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    assert not is_published(str(tmp_path / "net.pth"))


def test_checkpoint_with_weights_that_are_not_finite_is_refused(finished: Path, tmp_path: Path) -> None:
    content = torch.load(finished / BEST, weights_only=True)
    name = next(key for key in content["state_dict"] if key.endswith("conv1.weight"))
    content["state_dict"][name].fill_(float("nan"))
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(InputError, match=r"1 tensors hold weights that are not finite.*conv1.weight"):
        load_model(tmp_path / "nan.ckpt")


@pytest.mark.parametrize("key", ["categories", "patients", "data_hash"])
def test_checkpoint_with_damaged_facts_is_refused(key: str, finished: Path, tmp_path: Path) -> None:
    content = torch.load(finished / BEST, weights_only=True)
    del content[KEY][key]
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match="facts are damaged"):
        read_facts(tmp_path / "odd.ckpt")


def test_training_set_without_images_is_told_as_such(phantom_root: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(phantom_root, tmp_path / "data"))
    write_coco(replace(read_coco(data / "train.json"), images=()), data / "train.json")
    with pytest.raises(InputError, match="the training set has no images"):
        prepare(config_for(data, tmp_path / "out"))


@pytest.mark.slow
def test_interrupted_training_says_how_to_go_on(phantom_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = config_for(phantom_root, output, "train.epochs=200", "data.epoch_size=4")
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "mammodet", "train", "--config-file", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where a shell runs the tests in its background, they ignore interrupts, and so would the training.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (output / LAST).exists() and process.poll() is None:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err[-2000:]
    assert "--resume goes on from it" in out
    assert "Traceback" not in err
    assert not list(output.glob("*.tmp*"))
