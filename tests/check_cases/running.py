"""Run a tool as a user does, and compare what it left with the right values."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
START = (sys.executable, "-m", "mammodet")
MOST_CPU, MOST_MEMORY = 5.0, 1.0  # seconds, gigabytes
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left: exit status (negative: its signal), printed text, CPU seconds and peak memory in GB."""

    status: int
    text: str
    cpu: float
    memory: float

    def refused(self, *words: str) -> None:
        """Check that it refused in words, without a traceback."""
        right("status", 2, self.status)
        self.says(*words)

    def says(self, *words: str) -> None:
        """Check that it printed each of the words, and no traceback."""
        lowered = self.text.lower()
        missing = [word for word in words if word.lower() not in lowered]
        if missing or "Traceback" in self.text:
            raise WrongError(f"expected {missing or 'no traceback'} in:\n{self.text[-1500:]}")

    def bounded(self) -> None:
        """Check CPU time and memory."""
        if self.cpu > MOST_CPU + START_CPU or self.memory > MOST_MEMORY:
            raise WrongError(f"took {self.cpu:.1f} s of CPU time and {self.memory:.2f} GB")


class WrongError(Exception):
    """A value that is not the right one."""


START_CPU = 8.0  # of importing torch and Lightning on a slow core


def right(what: str, expected: Any, found: Any) -> None:
    """Compare a value with the right one."""
    if found != expected:
        raise WrongError(f"{what}: right {expected}, found {found}")


def tool(name: str, *arguments: object) -> Answer:
    """Run a tool in a process of its own; what hangs is ended after five minutes of CPU time or ten of waiting."""
    command = [*START, name, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT, preexec_fn=_limit)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    return Answer(process.returncode, text, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
    signal.alarm(600)


def records(output: Path) -> dict[str, dict[str, Any]]:
    """Images of a converted data set by the stem of their files, with their `lesions`."""
    files = [output / f"{name}.json" for name in ("train", "val", "test")]
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    images = {image["id"]: image | {"lesions": []} for data in tables for image in data["images"]}
    for annotation in (each for data in tables for each in data["annotations"] if not each["ignore"]):
        images[annotation["image_id"]]["lesions"].append(annotation)
    return {Path(image["file_name"]).stem: image for _, image in sorted(images.items())}


def boxes(image: dict[str, Any]) -> list[list[int]]:
    """Boxes xywh of an image's lesions in whole pixels."""
    return [[round(value) for value in lesion["bbox"]] for lesion in image["lesions"]]


def converted(case: Path, output: Path, kind: str, *arguments: object) -> tuple[dict[str, dict[str, Any]], Answer]:
    """Convert a case's `src`."""
    answer = tool("convert", kind, "--source", case / "src", "--output", output, *arguments)
    right("status", 0, answer.status)
    return records(output), answer


MADE: dict[str, Path] = {}


def small_run() -> Path:
    """A run of one epoch on synthetic films, made once."""
    if "run" not in MADE:
        base = Path(tempfile.mkdtemp(prefix="cases"))
        made = ("--patients", 24, "--size", 192, "--difficulty", "easy", "--quirks")
        tool("phantoms", "--output", base / "arch", *made)
        tool("convert", "mias", "--source", base / "arch", "--output", base / "data", "--folds", 3)
        for config in (MADE["cases"] / "train").glob("*.yaml"):
            shutil.copy(config, base)
        (base / "configs").symlink_to(ROOT / "configs")
        MADE["base"] = base
        answer = train(base / "run", "train.epochs=1")
        right("status of a small run", 0, answer.status)
        MADE["run"] = base / "run"
    return MADE["run"]


def half_run(common: tuple[str, ...]) -> Path:
    """A run that was killed after two of four epochs."""
    small_run()
    folder = MADE["base"] / "half"
    command = train_command(folder, *common, "data.batch_size=2")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while not ((folder / "metrics.csv").is_file() and len(columns(folder, "lr")) >= 1):
        time.sleep(0.2)
        if process.poll() is not None:
            raise WrongError("the run ended before it could be killed")
    process.kill()
    process.wait()
    return folder


def checkpoint() -> Path:
    """The checkpoint of a small run."""
    return small_run() / "best.ckpt"


def train_command(folder: Path, *arguments: str) -> list[str]:
    config = MADE["base"] / "tiny3.yaml"
    flags = [each for each in arguments if each.startswith("--")]
    keys = [each for each in arguments if not each.startswith("--")]
    data = f"data.root={MADE['base'] / 'data'}"
    start = [*START, "train", "--config-file", str(config)]
    return [*start, data, f"output_dir={folder}", *keys, *flags]


def train(folder: Path, *arguments: str) -> Answer:
    """Train a tiny model."""
    if "base" not in MADE:
        small_run()
    return tool(*train_command(folder, *arguments)[len(START) :])


def columns(folder: Path, name: str) -> list[float]:
    """A column of metrics.csv."""
    header, *rows = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    place = header.split(",").index(name)
    return [float(row.split(",")[place]) for row in rows]
