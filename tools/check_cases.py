"""Run the tools on a folder of inputs that once went wrong, and compare with the right values.

Each case is a folder with a README.txt that gives the command and the right value. Cases whose input is described in
words are made here. Answers to hostile inputs are limited to 5 s of CPU time beyond the start of a tool, and to 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mammodet.cli import run

EXAMPLE = """example:
  python tools/check_cases.py cases --only attack/ data/03
"""
ROOT = Path(__file__).resolve().parent.parent
BOX = [80, 180, 41, 41]
PATTERN = ["--pattern", r"(?P<patient>p\W*\d+)"]
MOST_CPU, MOST_MEMORY = 5.0, 1.0  # seconds, gigabytes


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
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, preexec_fn=_limit)
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
    data = json.loads((output / "all.json").read_text(encoding="utf-8"))
    images = {image["id"]: image | {"lesions": []} for image in data["images"]}
    for annotation in data["annotations"]:
        if not annotation["ignore"]:
            images[annotation["image_id"]]["lesions"].append(annotation)
    return {Path(image["file_name"]).stem: image for image in images.values()}


def boxes(image: dict[str, Any]) -> list[list[int]]:
    """Boxes xywh of an image's lesions in whole pixels."""
    return [[round(value) for value in lesion["bbox"]] for lesion in image["lesions"]]


def converted(case: Path, output: Path, kind: str, *arguments: object) -> tuple[dict[str, dict[str, Any]], Answer]:
    """Convert a case's `src`."""
    answer = tool("convert.py", kind, "--source", case / "src", "--output", output, *arguments)
    right("status", 0, answer.status)
    return records(output), answer


# Conversion and reading


def cvat_masks(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("boxes", [[BOX]] * 6, [boxes(image) for image in images.values()])
    right("tumor", {1}, {image["labels"]["tumor"] for image in images.values()})
    right("area", {1257.0}, {float(image["lesions"][0]["area"]) for image in images.values()})


def exif(case: Path, work: Path) -> None:
    pattern = ["--pattern", r"(?P<patient>pt?\d+)(_(?P<laterality>LEFT)_(?P<view>CC))?"]
    answer = tool("convert.py", "coco", "--source", case / "src", "--output", work, *pattern)
    if answer.status == 2:
        answer.says("EXIF")
        return
    from mammodet.data.images import read_image

    kept = records(work)
    for name, image in kept.items():
        pixels = read_image(work / image["file_name"])
        for x, y, w, h in boxes(image):
            right(f"{name}: grey in the box is bright", True, float(pixels[y : y + h, x : x + w].mean()) > 150)
    quarantine = (work / "quarantine.csv").read_text(encoding="utf-8")
    if len(kept) < len(list((case / "src" / "images").iterdir())) and "EXIF" not in quarantine:
        raise WrongError(f"quarantined without the word EXIF: {quarantine[:500]}")


def number_ids(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("boxes", [[BOX]] * 5, [boxes(image) for image in images.values()])


def via(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN, "--without-boxes", "normal")
    found = {name: (boxes(image), image["labels"]["tumor"]) for name, image in images.items()}
    right("images", {f"p0{n}": ([BOX] if n < 3 else [], int(n < 3)) for n in range(6)}, found)


def outlines(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    for name in ("p00", "p01", "p03", "p06"):
        right(name, [BOX], boxes(images[name]))
    for name in ("p01", "p03"):
        right(f"{name} has an outline", True, bool(images[name]["lesions"][0].get("segmentation")))


def label_studio(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("images with their lesion", [[BOX]] * 8, [boxes(image) for image in images.values()])


def shares(case: Path, work: Path) -> None:
    answer = tool("convert.py", "coco", "--source", case / "src", "--output", work, *PATTERN)
    if answer.status == 2:
        answer.says("within one pixel", "--boxes fractions")
    else:
        right("boxes", [[BOX]], [boxes(image) for image in records(work).values() if image["lesions"]][:1])


def near(found: list[int], box: list[int]) -> bool:
    """Within a pixel."""
    return max(abs(a - b) for a, b in zip(found, box, strict=True)) <= 1


def mias_1080(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    expected = {"mdb001": [359, 464, 127, 127], "mdb008": [221, 359, 84, 84]}
    for name, box in expected.items():
        if name in images and images[name]["lesions"]:
            (found,) = boxes(images[name])
            right(f"{name} within a pixel of {box}", True, near(found, box))


def mias_512(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    found = boxes(images["mdb002"]) if "mdb002" in images else []
    right("mdb002", True, found == [] or near(found[0], [125, 300, 50, 50]))


def white_is_zero(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "folder", "--patient", r"(p\d+)")
    right("breast boxes", 1, len({str(image["breast_bbox"]) for image in images.values()}))
    right("breast box", [0, 13, 233, 376], [round(v) for v in next(iter(images.values()))["breast_bbox"]])


def tomosynthesis(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "rsna", "--format", "png16", "--max-size", "0")
    for image in images.values():
        pixels = np.asarray(cv2.imread(str(work / image["file_name"]), cv2.IMREAD_UNCHANGED))
        right(f"{image['file_name']} at row 200, column 100", 65535, int(pixels[200, 100]))
        right("spacing", [0.1, 0.1], image["spacing_mm_rc"])


def padding(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "rsna", "--format", "png16", "--max-size", "0")
    for image in images.values():
        pixels = np.asarray(cv2.imread(str(work / image["file_name"]), cv2.IMREAD_UNCHANGED))
        corners = {int(pixels[row, column]) for row in (0, -1) for column in (0, -1)}
        right(f"{image['file_name']}: a corner is background", True, 0 in corners and 65535 not in corners)


def no_suffix(case: Path, work: Path) -> None:
    from mammodet.data.inputs import gather

    right("images", 6, len(gather([case / "src"], ("mass",), unpack_to=work).dataset.images))


def full_mias(case: Path, work: Path) -> None:
    tool("convert.py", "mias", "--source", case / "src", "--output", work).refused("50 micro")


def flat_cbis(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "cbis_ddsm", "--abnormality", "mass")
    right("images, lesions", (7, 8), (len(images), sum(len(image["lesions"]) for image in images.values())))


def mias_nan(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    right("normal films", [0, 0], [images[name]["labels"]["tumor"] for name in ("mdb003", "mdb004")])


# Hostile inputs


def colon_name(case: Path, work: Path) -> None:
    answer = tool("predict.py", "--checkpoint", checkpoint(), "--input", case / "images", "--output", work)
    right("status", True, answer.status in (0, 1, 3))
    answer.says("12:30.png")
    right("b.png is predicted", True, "b.png" in (work / "predictions.json").read_text(encoding="utf-8"))


def jpeg_bomb(case: Path, work: Path) -> None:
    answer = tool("convert.py", "mias", "--source", case / "mias", "--output", work, "--jobs", 1)
    answer.bounded()
    right("mdb001 is quarantined", True, "mdb001" in (work / "quarantine.csv").read_text(encoding="utf-8"))


def short_jpeg(case: Path, work: Path) -> None:
    tool("convert.py", "mias", "--source", case / "mias", "--output", work, "--jobs", 1)
    right("mdb001 is quarantined", True, "mdb001" in (work / "quarantine.csv").read_text(encoding="utf-8"))
    from mammodet.data.images import read_image

    read_image(case / "dicom_whole.dcm")
    try:
        read_image(case / "dicom_baseline_quarter_of_scan.dcm")
    except ValueError:
        return
    raise WrongError("a DICOM file with a quarter of its JPEG is read")


def tiff_16(case: Path, work: Path) -> None:
    from mammodet.data.images import read_image

    eight, sixteen = read_image(case / "a8.tif"), read_image(case / "a16.tif")
    right("brighter half is the same", True, bool(np.corrcoef(eight.ravel(), sixteen.ravel())[0, 1] > 0.99))


def yaml_laughs(case: Path, work: Path) -> None:
    answer = tool("train_net.py", "--config-file", case / "laughs.yaml")
    answer.refused()
    answer.bounded()
    right("length of the message is short", True, len(answer.text) < 5000)
    many = work / "keys.yaml"
    work.mkdir(parents=True)
    many.write_text("".join(f"k{number}: 1\n" for number in range(30000)), encoding="utf-8")
    answer = tool("train_net.py", "--config-file", many)
    answer.refused()
    answer.bounded()


def weights_bombs(case: Path, work: Path) -> None:
    for path in sorted(case.glob("*.p*")):
        answer = tool("convert_weights.py", path, work / "out.pth", "--to", "torchvision")
        answer.refused(path.name)
        answer.bounded()


def deflated(case: Path, work: Path) -> None:
    import zipfile

    import torch

    work.mkdir(parents=True)
    plain, path = work / "plain.pth", work / "deflated.pth"
    torch.save({"a": torch.zeros(1_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    answer = tool("convert_weights.py", path, work / "out.pth", "--to", "torchvision")
    answer.refused("deflated.pth")
    answer.bounded()


def changed_checkpoint(work: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A small run's checkpoint with something changed in it."""
    import torch

    work.mkdir(parents=True, exist_ok=True)
    content = torch.load(checkpoint(), weights_only=True)
    change(content)
    torch.save(content, work / "changed.ckpt")
    return work / "changed.ckpt"


def predicted(path: Path, work: Path) -> Answer:
    images = work / "images"
    images.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / "a.png"), film())
    return tool("predict.py", "--checkpoint", path, "--input", images, "--output", work / "out", "--num-workers", 0)


def film() -> Any:
    """A breast and nothing else, uint8."""
    rows, columns = np.mgrid[:200, :150]
    return np.where((rows - 100) ** 2 / 90**2 + columns**2 / 120**2 < 1, 90 + columns // 3, 4).astype(np.uint8)


def nan_scores(case: Path, work: Path) -> None:
    path = changed_checkpoint(work, lambda content: _scale(content["state_dict"], 1e30))
    answer = predicted(path, work)
    right("no traceback", False, "Traceback" in answer.text)
    right("status is not 0", True, answer.status != 0)


def _scale(state: dict[str, Any], factor: float) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor * factor


def huge_config(case: Path, work: Path) -> None:
    for key, value in (("box_head_channels", 10**9), ("mask_head_layers", 10**7)):

        def change(content: dict[str, Any], key: str = key, value: int = value) -> None:
            content["mammodet"]["config"]["model"]["detector"][key] = value

        answer = predicted(changed_checkpoint(work, change), work)
        answer.refused("changed.ckpt")
        answer.bounded()


def csv_cells(case: Path, work: Path) -> None:
    answer = tool(
        "evaluate.py", "--ground-truth", case / "gt.json", "--predictions", case / "predictions.json", "--output", work,
        "--allow", "truth", "--resamples", 0, "--no-report",
    )  # fmt: skip
    right("status", 0, answer.status)
    text = (work / "images.csv").read_text(encoding="utf-8")
    right("formulas are quoted", [False, False], [",@SUM" in text, ',"=HYPER' in text])


def fifos(case: Path, work: Path) -> None:
    work.mkdir(parents=True)
    pipe = work / "x.json"
    os.mkfifo(pipe)
    for name, *arguments in (
        ("audit.py", pipe, "--output", work / "o"),
        ("visualize.py", "--ground-truth", pipe, "--output", work / "o"),
        ("calibrate.py", "--ground-truth", pipe, "--predictions", pipe, "--output", work / "o.json"),
        ("predict.py", "--checkpoint", pipe, "--input", work, "--output", work / "o"),
        ("train_net.py", "--config-file", pipe),
    ):
        tool(name, *arguments).refused("x.json", "pipe")


def memo_bomb(case: Path, work: Path) -> None:
    answer = tool("convert_weights.py", case / "w.pkl", work / "o.pth", "--to", "torchvision")
    answer.refused()
    answer.bounded()


def stack_facts(case: Path, work: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        stack = content["mammodet"].get("stack") or {"coefficients": {}, "fitted_on": {}}
        stack["fitted_on"]["tumor"] = [3]
        content["mammodet"]["stack"] = stack

    predicted(changed_checkpoint(work, change), work).refused("damaged")


def two_predictions(case: Path, work: Path) -> None:
    images = work / "images"
    images.mkdir(parents=True)
    for number in range(6):
        cv2.imwrite(str(images / f"{number}.png"), film())
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), "--checkpoint", str(checkpoint())]
    command += ["--input", str(images), "--output", str(work / "out"), "--num-workers", "0"]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    texts = [process.communicate()[0] for process in pair]
    right("one is done, the other is done or refused", True, sorted(p.returncode for p in pair) in ([0, 0], [0, 2]))
    right("no traceback", False, any("Traceback" in text or "No such file" in text for text in texts))


def many_lesions(case: Path, work: Path) -> None:
    work.mkdir(parents=True)
    rng = np.random.default_rng(0)
    spots = rng.uniform(0, 900, (23000, 2))
    image = {"width": 1000, "height": 1000, "patient_id": "p", "laterality": "L", "view": "CC", "labels": {"tumor": 1}}
    images = [{"id": n, "file_name": f"{n}.png", **image, "patient_id": f"p{n}"} for n in range(1, 5)]
    found = [
        {"bbox": [*map(float, xy), 20.0, 20.0], "score": float(rng.random()), "category_id": 1} for xy in spots[3000:]
    ]
    truth = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": [*map(float, xy), 20, 20], "area": 400, "iscrowd": 0}
        for n, xy in enumerate(spots[:3000])
    ]
    categories = [{"id": 1, "name": "mass"}]
    content: dict[str, Any] = {"images": images, "annotations": truth, "categories": categories}
    (work / "g.json").write_text(json.dumps(content), encoding="utf-8")
    entries = [
        {
            **{name: each[name] for name in ("file_name", "height", "width", "patient_id", "laterality", "view")},
            **{"image_id": each["id"], "scores": {}, "scores_by_rule": {}},
            "detections": found if each["id"] == 1 else [],
        }
        for each in images
    ]
    content = {"format": "mammodet-predictions/1", "model": {}, "categories": categories, "images": entries}
    (work / "p.json").write_text(json.dumps(content), encoding="utf-8")
    answer = tool(
        "evaluate.py", "--ground-truth", work / "g.json", "--predictions", work / "p.json", "--output", work / "o",
        "--resamples", 200, "--no-report",
    )  # fmt: skip
    right("status", True, answer.status in (0, 2))
    right("memory below 2 GB", True, answer.memory < 2)


def damaged_last(case: Path, work: Path) -> None:
    import torch

    changes: list[dict[str, Any]] = [
        {"loops": {}}, {"lr_schedulers": "x"}, {"state_dict": {}}, {"optimizer_states": []}, {"callbacks": {"x": 1}},
        {"epoch": "a"}, {"global_step": -5},
    ]  # fmt: skip
    for change in changes:
        run_folder = work / next(iter(change))
        shutil.copytree(small_run(), run_folder)
        content = torch.load(run_folder / "last.ckpt", weights_only=True)
        torch.save(content | change, run_folder / "last.ckpt")
        train(run_folder, "train.epochs=2", "--resume").refused("cannot be resumed")


def beyond_epochs(case: Path, work: Path) -> None:
    answer = train(work, "train.epochs=1", "train.validate_every=2")
    if answer.status == 0:
        right("best.ckpt is there", True, (work / "best.ckpt").is_file())
    else:
        answer.refused("validate_every")


def escapes(case: Path, work: Path) -> None:
    images = work / "images"
    images.mkdir(parents=True)
    cv2.imwrite(str(images / "\x1b[31mred.png"), film())
    answer = tool("audit.py", images, "--output", work / "o")
    right("no escape is printed", False, "\x1b[31m" in answer.text)


# Training


def columns(folder: Path, name: str) -> list[float]:
    """A column of metrics.csv."""
    header, *rows = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    place = header.split(",").index(name)
    return [float(row.split(",")[place]) for row in rows]


def other_rate(case: Path, work: Path) -> None:
    train(work, "train.epochs=1")
    answer = train(work, "--resume", "train.lr=1e-5", "train.epochs=3")
    if answer.status == 0:
        right("rate of the last epoch", 1e-5, round(columns(work, "lr")[-1], 8))
    else:
        answer.refused("train.lr")


def other_patience(case: Path, work: Path) -> None:
    train(work, "train.epochs=1", "train.early_stopping=1")
    answer = train(work, "--resume", "train.early_stopping=20", "train.epochs=8")
    right("status", 0, answer.status)
    right("epochs", 8, len(columns(work, "lr")))


def other_optimizer(case: Path, work: Path) -> None:
    train(work, "train.epochs=1")
    answer = train(work, "--resume", "train.optimizer=sgd", "train.epochs=2")
    answer.refused("train.optimizer")


def wrong_mode(case: Path, work: Path) -> None:
    train(work, "train.monitor=train/loss").refused("monitor_mode")
    train(work, "train.monitor=val/bbox_AP50", "train.monitor_mode=min").refused("monitor_mode")


def ties(case: Path, work: Path) -> None:
    found = []
    for name in ("ab", "ba"):
        answer = tool(
            "evaluate.py", "--ground-truth", case / "gt.json", "--predictions", case / f"{name}.json",
            "--output", work / name, "--no-report", "--resamples", 0,
        )  # fmt: skip
        right("status", 0, answer.status)
        found.append([line for line in answer.text.splitlines() if "CPM" in line])
    right("CPM does not depend on the order", found[0], found[1])


def mask_size(case: Path, work: Path) -> None:
    """A disc through the mask head's grid and back: as large as it was."""
    import torch

    from mammodet.modeling.masks import paste_masks
    from mammodet.modeling.roi_heads import masks_on_boxes

    for radius in (5, 8, 20):
        ratios = []
        for offset in np.random.default_rng(0).uniform(0, 1, (20, 2)):
            rows, cols = np.mgrid[:128, :96]
            disc = (rows + 0.5 - 60 - offset[0]) ** 2 + (cols + 0.5 - 45 - offset[1]) ** 2 <= radius**2
            ys, xs = np.nonzero(disc)
            box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], dtype=torch.float32)
            grid = masks_on_boxes(torch.from_numpy(disc.astype(np.uint8))[None], box, torch.tensor([0]), 28)
            ratios.append(float((paste_masks(grid.float()[:, None], box, (128, 96))[0, 0] >= 0.5).sum()) / disc.sum())
        right(f"area at radius {radius} within 5 %", True, abs(float(np.mean(ratios)) - 1) < 0.05)


def larger_batch(case: Path, work: Path) -> None:
    common = ("train.schedule=cosine", "data.epoch_size=8", "train.epochs=4")
    shutil.copytree(half_run(common), work)
    answer = train(work, "--resume", *common, "data.batch_size=8")
    if answer.status == 0:
        right(
            "rates after the epochs", [0.0005, 0.000146, 0.0], [round(value, 6) for value in columns(work, "lr")[-3:]]
        )
    else:
        answer.refused("batch_size")


_MADE: dict[str, Path] = {}


def small_run() -> Path:
    """A run of one epoch on synthetic films, made once."""
    if "run" not in _MADE:
        base = Path(tempfile.mkdtemp(prefix="cases"))
        made = ("--patients", 24, "--size", 192, "--difficulty", "easy", "--quirks")
        tool("make_phantoms.py", "--output", base / "arch", *made)
        tool("convert.py", "mias", "--source", base / "arch", "--output", base / "data", "--folds", 3)
        for config in (_MADE["cases"] / "train").glob("*.yaml"):
            shutil.copy(config, base)
        (base / "configs").symlink_to(ROOT / "configs")
        _MADE["base"] = base
        answer = train(base / "run", "train.epochs=1")
        right("status of a small run", 0, answer.status)
        _MADE["run"] = base / "run"
    return _MADE["run"]


def half_run(common: tuple[str, ...]) -> Path:
    """A run that was killed after two of four epochs."""
    small_run()
    folder = _MADE["base"] / "half"
    command = _train_command(folder, *common, "data.batch_size=2")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
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


def _train_command(folder: Path, *arguments: str) -> list[str]:
    config = _MADE["base"] / "tiny3.yaml"
    flags = [each for each in arguments if each.startswith("--")]
    keys = [each for each in arguments if not each.startswith("--")]
    data = f"data.root={_MADE['base'] / 'data'}"
    start = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", str(config)]
    return [*start, data, f"output_dir={folder}", *keys, *flags]


def train(folder: Path, *arguments: str) -> Answer:
    """Train a tiny model."""
    if "base" not in _MADE:
        small_run()
    return tool("train_net.py", *_train_command(folder, *arguments)[2:])


CASES: dict[str, Callable[[Path, Path], None]] = {
    "data/01-cvat-mask-iscrowd": cvat_masks,
    "data/03-exif-turned-jpeg": exif,
    "data/04-string-ids": number_ids,
    "data/05-float-iscrowd": number_ids,
    "data/06-via-export": via,
    "data/07-segmentation-shapes": outlines,
    "data/08-label-studio-paths": label_studio,
    "data/10-mias-rescaled-1080": mias_1080,
    "data/11-mias-half-512": mias_512,
    "data/14-tiff16-min-is-white": white_is_zero,
    "data/16-tomo-sop-single-frame": tomosynthesis,
    "data/17-pixel-padding-becomes-white": padding,
    "data/19-boxes-as-shares": shares,
    "data/22-dicom-no-suffix": no_suffix,
    "data/23-mias-full-names": full_mias,
    "data/25-cbis-flat-by-uid": flat_cbis,
    "data/26-mias-info-nan": mias_nan,
    "attack/01-colon-name-stops-predict": colon_name,
    "attack/02-jpeg-bomb": jpeg_bomb,
    "attack/03-jpeg-without-scan-accepted": short_jpeg,
    "attack/04-tiff16-whiteiszero-not-inverted": tiff_16,
    "attack/05-yaml-laughs": yaml_laughs,
    "attack/06-stride0-weights": weights_bombs,
    "attack/07-deflated-weights-bomb": deflated,
    "attack/08-nan-scores-traceback": nan_scores,
    "attack/09-huge-config-in-checkpoint": huge_config,
    "attack/10-csv-injection": csv_cells,
    "attack/11-fifo-hangs": fifos,
    "attack/15-pickle-memo-bomb": memo_bomb,
    "attack/16-stack-fitted-on-indexerror": stack_facts,
    "attack/17-two-predicts": two_predictions,
    "attack/20-many-lesions-memory": many_lesions,
    "attack/25-damaged-last-ckpt": damaged_last,
    "attack/27-validate-every-beyond-epochs": beyond_epochs,
    "attack/28-terminal-escapes": escapes,
    "train/01-resume-other-learning-rate": other_rate,
    "train/03-resume-other-patience": other_patience,
    "train/04-resume-other-optimizer": other_optimizer,
    "train/06-best-checkpoint-is-the-worst": wrong_mode,
    "train/07-exif-turned-by-half": exif,
    "train/09-froc-depends-on-order-of-ties": ties,
    "train/10-outlines-a-pixel-too-large": mask_size,
    "train/13-resume-with-larger-batch": larger_batch,
}


def main(arguments: list[str] | None = None) -> int:
    """Check every case, or those that are named; status 1 if one is wrong or has no check."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with data/, attack/ and train/")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="cases whose names hold one of these")
    chosen = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _MADE["cases"] = chosen.folder.resolve()
    folders = sorted(path.relative_to(chosen.folder).as_posix() for path in chosen.folder.glob("*/*") if path.is_dir())
    wrong = 0
    for name in (name for name in folders if any(part in name for part in chosen.only)):
        check = CASES.get(name)
        said = "no check here; see the tests" if check is None else _outcome(check, chosen.folder.resolve() / name)
        wrong += said not in ("right", "no check here; see the tests")
        print(f"{name:45} {said}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


def _outcome(check: Callable[[Path, Path], None], case: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="case") as work:
        try:
            check(case, Path(work) / "out")
        except Exception as error:
            return f"WRONG: {type(error).__name__}: {error}" if not isinstance(error, WrongError) else f"WRONG: {error}"
    return "right"


if __name__ == "__main__":
    run(main)
