"""The command lines, as a user calls them: the whole way on a small archive, help, and wrong input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

from mammodet.commands import COMMANDS, main
from mammodet.errors import InputError

ROOT = Path(__file__).parent.parent
TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py") if path.name != "__init__.py")


def call(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "mammodet", *map(str, arguments)], folder)


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder or ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_comes_without_arguments_too(name: str) -> None:
    asked = call(name, "--help")
    bare = call(name) if name != "view" else asked  # which opens an empty page (test_view_command.py)
    assert (asked.returncode, bare.returncode) == (0, 0)
    assert asked.stdout == bare.stdout
    assert asked.stdout.startswith(f"usage: mammodet {name} ")
    assert f"\n  mammodet {name} " in asked.stdout


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_files_of_tools_are_the_commands(path: Path) -> None:
    done = _run([sys.executable, str(path), "--help"])
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {path.name} ")


def test_command_without_arguments_lists_all_and_an_unknown_one_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    with pytest.raises(InputError, match=r"no such sub-command \(did you mean train\?\); expected one of convert, "):
        main(["trian"])
    with pytest.raises(InputError, match="--verbose: no such sub-command; expected one of convert, "):
        main(["--verbose"])


def test_unknown_flag_names_the_nearest() -> None:
    for arguments in (("--confg-file", "x"), ("--config-file", "x", "--resum-e")):
        done = call("train", *arguments)
        assert done.returncode == 2
        assert "did you mean --config-file?" in done.stderr or "did you mean --resume?" in done.stderr
    assert "--source?" in call("convert", "mias", "--sorce", "x").stderr


def test_the_whole_way_from_archive_to_pictures(tmp_path: Path) -> None:
    work = tmp_path / "my work ü"
    work.mkdir()
    done = call("phantoms", "--output", "archive", "--patients", 14, "--size", 128, "--difficulty", "easy", folder=work)
    assert done.returncode == 0, done.stderr
    done = call("convert", "mias", "--source", "archive", "--output", "data", "--folds", 2, folder=work)
    assert done.returncode == 0, done.stderr
    assert "masses brighter" in done.stdout

    (work / "config.yaml").write_text(f"_base_: {ROOT}/configs/phantom/quickstart.yaml\n", encoding="utf-8")
    options = [
        *SMALL,
        "data.root=data",
        "data.fold=0",
        "data.image.max_size=64",
        "output_dir=out",
        "train.epochs=1",
        "train.validate_every=1",
        "data.num_workers=0",
    ]
    train = ("train", "--config-file", "config.yaml", "--num-gpus", 0)
    done = call(*train, *options, folder=work)
    assert done.returncode == 0, done.stderr
    assert (work / "out/best.ckpt").exists()
    assert "epoch 1/1" in done.stdout
    assert (
        (work / "out/train.log").read_text(encoding="utf-8").splitlines()[-1].endswith("best checkpoint: out/best.ckpt")
    )

    again = call(*train, *options, folder=work)
    assert again.returncode == 2
    assert "--resume" in again.stderr

    resumed = call(*train, "--resume", *options, "train.epochs=2", folder=work)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 2/2" in resumed.stdout
    assert "resuming with a changed setting: train.epochs 1 -> 2" in resumed.stdout

    # The commands that follow a training do what they say, pasted as they are printed.
    printed = [
        shlex.split(line) for line in resumed.stdout.splitlines() if line.startswith("  ") and "mammodet" in line
    ]
    measure, look, predict, look_at_own = [command[command.index("mammodet") + 1 :] for command in printed]
    done = call(*measure, folder=work)
    assert done.returncode == 0, done.stderr
    assert "ROC AUC" in done.stdout
    done = call(*look, folder=work)
    assert done.returncode == 0, done.stderr
    assert (work / "out/eval_test/pictures/index.html").exists()
    own = ["--checkpoint", "out/best.ckpt", "--input", "FOLDER", "--output", "out/preds"]
    assert predict == ["predict", *own]
    own = ["--images", "FOLDER", "--predictions", "out/preds/predictions.json", "--output", "out/preds/pictures"]
    assert look_at_own == ["visualize", *own]
    metrics = json.loads((work / "out/eval_test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["models"][0]["protocol"]["patients_seen_in_training"] == 0

    done = call("predict", "--checkpoint", "out/best.ckpt", "--input", "data/images", "--output", "preds", folder=work)
    assert done.returncode == 0, done.stderr
    scored = ("evaluate", "--ground-truth", "data/test.json", "--predictions", "preds/predictions.json")
    done = call(*scored, "--output", "eval", folder=work)
    assert done.returncode == 2
    assert "--allow extra" in done.stderr
    done = call(*scored, "--output", "eval", "--allow", "extra", "--history", "out/metrics.csv", folder=work)
    assert done.returncode == 0, done.stderr
    one = json.loads((work / "eval/metrics.json").read_text(encoding="utf-8"))
    [one], [expected] = one["models"], metrics["models"]
    assert one["image"]["tumor"]["roc_auc"] == expected["image"]["tumor"]["roc_auc"]
    assert one["detection"] == expected["detection"]
    assert "<html" in (work / "eval/report.html").read_text(encoding="utf-8")

    leaked = call(
        "evaluate",
        "--ground-truth",
        "data/train.json",
        "--predictions",
        "preds/predictions.json",
        "--output",
        "eval2",
        "--allow",
        "extra",
        folder=work,
    )
    assert leaked.returncode == 2
    assert "phantom_0" in leaked.stderr
    assert "Traceback" not in leaked.stderr

    done = call(
        "visualize",
        "--ground-truth",
        "data/test.json",
        "--predictions",
        "preds/predictions.json",
        "--output",
        "overlays",
        folder=work,
    )
    assert done.returncode == 0, done.stderr
    images = len(json.loads((work / "data/test.json").read_text(encoding="utf-8"))["images"])
    assert len(list((work / "overlays").glob("**/*.jpg"))) >= images
    assert (work / "overlays/index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "mias", "--source", "nowhere", "--output", "x"), "no such folder"),
        (("train", "--config-file", "nowhere.yaml"), "no such file"),
        (("train", "--config-file", f"{ROOT}/configs/base.yaml", "data.flod=0"), "did you mean 'fold'"),
        (("train", "--config-file", f"{ROOT}/configs/base.yaml", "data.root=none"), "train.json: no such file"),
        (("train", "--config-file", f"{ROOT}/configs/base.yaml", "--eval-only"), "path of a checkpoint"),
        (("predict", "--checkpoint", "none.ckpt", "--input", ".", "--output", "x"), "no such checkpoint"),
        (("evaluate", "--ground-truth", "a.json", "--predictions", "b.json", "--output", "x"), "no such file"),
        (("visualize", "--output", "x"), "give at least one"),
    ],
)
def test_wrong_input_gets_a_message_and_no_traceback(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = call(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_make_finds_an_environment_and_names_its_targets() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "make quickstart" in done.stdout
