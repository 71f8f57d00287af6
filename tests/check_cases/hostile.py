"""Cases of hostile inputs and of jobs that are stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from running import ENVIRONMENT, MADE, START, Answer, WrongError, checkpoint, right, small_run, tool, train


def colon_name(case: Path, work: Path) -> None:
    answer = tool("predict", "--checkpoint", checkpoint(), "--input", case / "images", "--output", work)
    right("status", True, answer.status in (0, 1, 3))
    answer.says("12:30.png")
    right("b.png is predicted", True, "b.png" in (work / "predictions.json").read_text(encoding="utf-8"))


def jpeg_bomb(case: Path, work: Path) -> None:
    answer = tool("convert", "mias", "--source", case / "mias", "--output", work, "--jobs", 1)
    answer.bounded()
    right("mdb001 is quarantined", True, "mdb001" in (work / "quarantine.csv").read_text(encoding="utf-8"))


def short_jpeg(case: Path, work: Path) -> None:
    tool("convert", "mias", "--source", case / "mias", "--output", work, "--jobs", 1)
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
    answer = tool("train", "--config-file", case / "laughs.yaml")
    answer.refused()
    answer.bounded()
    right("length of the message is short", True, len(answer.text) < 5000)
    many = work / "keys.yaml"
    work.mkdir(parents=True)
    many.write_text("".join(f"k{number}: 1\n" for number in range(30000)), encoding="utf-8")
    answer = tool("train", "--config-file", many)
    answer.refused()
    answer.bounded()


def weights_bombs(case: Path, work: Path) -> None:
    for path in sorted(case.glob("*.p*")):
        answer = tool("predict", "--checkpoint", path, "--input", path.parent, "--output", work / "out")
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
    answer = tool("predict", "--checkpoint", path, "--input", path.parent, "--output", work / "out")
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
    return tool("predict", "--checkpoint", path, "--input", images, "--output", work / "out", "--num-workers", 0)


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
        "evaluate", "--ground-truth", case / "gt.json", "--predictions", case / "predictions.json", "--output", work,
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
        ("audit", pipe, "--output", work / "o"),
        ("visualize", "--ground-truth", pipe, "--output", work / "o"),
        ("calibrate", "--ground-truth", pipe, "--predictions", pipe, "--output", work / "o.json"),
        ("predict", "--checkpoint", pipe, "--input", work, "--output", work / "o"),
        ("train", "--config-file", pipe),
    ):
        tool(name, *arguments).refused("x.json", "pipe")


def memo_bomb(case: Path, work: Path) -> None:
    answer = tool("predict", "--checkpoint", case / "w.pkl", "--input", case, "--output", work / "o")
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
    command = [*START, "predict", "--checkpoint", str(checkpoint())]
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
        "evaluate", "--ground-truth", work / "g.json", "--predictions", work / "p.json", "--output", work / "o",
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
    answer = tool("audit", images, "--output", work / "o")
    right("no escape is printed", False, "\x1b[31m" in answer.text)


def leakage(case: Path, work: Path) -> None:
    """Training images of unknown patients, and weights whose patients no file names, are said at every evaluation."""
    import torch

    bare = work / "bare.pth"
    work.mkdir(parents=True)
    torch.save(torch.load(checkpoint(), weights_only=True)["state_dict"], bare)
    data = work / "data"
    shutil.copytree(MADE["base"] / "data", data)
    content = json.loads((data / "train.json").read_text(encoding="utf-8"))
    for image in content["images"]:
        image["patient_id"] = None
    (data / "train.json").write_text(json.dumps(content), encoding="utf-8")
    for name, keys in {"unknown": (f"data.root={data}",), "weights": (f"model.weights={bare}",)}.items():
        right("status of training", 0, train(work / name, "train.epochs=1", *keys).status)
        truth, found = MADE["base"] / "data" / "test.json", work / f"{name}_preds"
        tool("predict", "--checkpoint", work / name / "best.ckpt", "--input", truth, "--output", found)
        answer = tool(
            "evaluate", "--ground-truth", truth, "--predictions", found / "predictions.json",
            "--output", work / f"{name}_eval", "--no-report", "--resamples", 0,
        )  # fmt: skip
        right("status of evaluation", 0, answer.status)
        answer.says("could not be checked")


def orphans(case: Path, work: Path) -> None:
    small_run()
    left = work / "images" / ".mdb002.loy7aznz.tmp.png"
    for _ in range(2):
        tool("convert", "mias", "--source", MADE["base"] / "arch", "--output", work)
        right("half-written file is there", False, left.exists())
        left.write_bytes(b"half of a PNG")
        (work / "train.json").unlink()


def moved_run(case: Path, work: Path) -> None:
    """A copied run folder still knows its best epoch; its score is written as if the first had been very good."""
    import torch

    answer = train(work / "a", "train.epochs=1", "train.monitor=val/auc_tumor")
    right("status", 0, answer.status)
    shutil.copytree(work / "a", work / "b")
    content = torch.load(work / "b" / "last.ckpt", weights_only=True)
    (state,) = (state for state in content["callbacks"].values() if state.get("best_k_models"))
    best = torch.tensor(0.99)
    state |= {"best_model_score": best, "kth_value": best, "best_k_models": dict.fromkeys(state["best_k_models"], best)}
    torch.save(content, work / "b" / "last.ckpt")
    answer = train(work / "b", "train.epochs=2", "train.monitor=val/auc_tumor", "--resume")
    right("status", 0, answer.status)
    right("epoch of best.ckpt", 0, torch.load(work / "b" / "best.ckpt", weights_only=True)["epoch"])


def stale_predictions(case: Path, work: Path) -> None:
    """An image that is replaced by another of its size while a prediction is interrupted is predicted again."""
    images = work / "images"
    images.mkdir(parents=True)
    for number in range(40):
        cv2.imwrite(str(images / f"{number:02}.png"), np.roll(film(), number, 0))
    arguments = ["--checkpoint", checkpoint(), "--input", images, "--num-workers", 0, "--force"]  # drawn films
    command = [*START, "predict", *map(str, arguments), "--output", str(work / "out")]
    partial = work / "out" / "predictions.partial.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while not (partial.is_file() and partial.read_bytes().count(b"\n") > 2):
        time.sleep(0.01)
        if process.poll() is not None:
            raise WrongError("the prediction ended before it could be killed")
    process.kill()
    process.wait()
    cv2.imwrite(str(images / "00.png"), film()[::-1] // 2 + 20)
    found = []
    for name in ("out", "fresh"):
        right("status", 0, tool("predict", *arguments, "--output", work / name).status)
        content = json.loads((work / name / "predictions.json").read_text(encoding="utf-8"))
        found.append({image["file_name"]: image["scores"] for image in content["images"]})
    right("scores", found[1], found[0])


def terminated(case: Path, work: Path) -> None:
    """SIGTERM ends the workers, too: the pipe that they hold closes."""
    arch = work.parent / "arch"
    tool("phantoms", "--archive", "cbis_ddsm", "--output", arch, "--patients", 12, "--abnormality", "mass")
    command = [*START, "convert", "cbis_ddsm", "--source", str(arch), "--output", str(work), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    while not list(work.glob("images/**/*.png")):
        time.sleep(0.05)
        if process.poll() is not None:
            raise WrongError("the conversion ended before it could be stopped")
    process.send_signal(signal.SIGTERM)
    try:
        text, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise WrongError("workers hold the pipe two minutes after SIGTERM") from None
    Answer(process.returncode, text, 0, 0).says("stopped" if "stopped" in text else "interrupted")
    right("status", 143, process.returncode)
