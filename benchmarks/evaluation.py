"""Average precision against plain pycocotools, and the time and memory of `mammodet evaluate` on large files.

python benchmarks/evaluation.py [--images 20000] [--detections 5] [--large 20000 100000] [--resamples 100]
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import arguments, peak_mb
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.evaluation.average_precision import average_precision
from mammodet.geometry import patch_to_rle
from mammodet.json_lists import write_members
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion, Rle

SIZE_HW = (3000, 2400)
CATEGORIES = ("mass", "calcification")


def ellipse(box: tuple[float, float, float, float]) -> Rle:
    """The mask of an ellipse that fills a box."""
    x1, y1, x2, y2 = (int(value) for value in box)
    rows, columns = np.ogrid[: y2 - y1, : x2 - x1]
    height, width = y2 - y1, x2 - x1
    patch = ((rows + 0.5) / height - 0.5) ** 2 + ((columns + 0.5) / width - 0.5) ** 2 <= 0.25
    return patch_to_rle(patch, (x1, y1), SIZE_HW)


def make(images: int, detections: int, folder: Path) -> None:
    """Four views per woman, a lesion on every second image, detections near lesions and elsewhere."""
    rng = np.random.default_rng(0)
    records, predictions = [], []
    for number in range(1, images + 1):
        lesions = []
        for _ in range(int(rng.integers(0, 2)) + int(rng.random() < 0.05)):
            corner, sides = rng.integers(100, 2000, 2), rng.integers(60, 380, 2)
            box = (*map(float, corner), *map(float, corner + sides))
            lesions.append(Lesion(CATEGORIES[int(rng.integers(2))], box, ellipse(box), "contour"))
        boxes, scores, kinds = [], [], []
        for place in range(detections):
            if lesions and rng.random() < 0.4:
                lesion = lesions[place % len(lesions)]
                box = np.array(lesion.box_xyxy) + rng.integers(-25, 26, 4)
                score, kind = rng.beta(4, 2), CATEGORIES.index(lesion.category) + 1
            else:
                corner = rng.integers(100, 2000, 2)
                box = np.concatenate([corner, corner + rng.integers(60, 380, 2)])
                score, kind = rng.beta(2, 4), int(rng.integers(2)) + 1
            boxes.append(box.astype(float))
            scores.append(round(float(score), 6))
            kinds.append(kind)
        found = Detections(
            np.array(boxes), np.array(scores), np.array(kinds, dtype=np.int64), [ellipse(tuple(box)) for box in boxes]
        )
        name, tumor = f"images/{number}.png", {"tumor": float(max(scores))}
        woman, view = (number - 1) // 4, (number - 1) % 4
        facts = {"labels": {"tumor": int(bool(lesions)), "malignant": None}, "spacing_mm_rc": (0.1, 0.1)}
        sides = {"laterality": "LR"[view % 2], "view": ("CC", "MLO")[view // 2], "density": "ABCD"[woman % 4]}
        records.append(ImageRecord(number, name, SIZE_HW, f"p{woman:05d}", lesions=tuple(lesions), **sides, **facts))
        predictions.append(ImagePrediction(number, name, SIZE_HW, tumor, found, {"max": tumor, "noisy_or": tumor}))
    write_coco(Dataset(CATEGORIES, tuple(records)), folder / "truth.json")
    write_predictions(Predictions(tuple(predictions), CATEGORIES, {"patients": ["x"]}), folder / "predictions.json")


def official(folder: Path, kind: str) -> list[float]:
    """Plain pycocotools, from the same files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        value = json.loads((folder / "predictions.json").read_text())
        results = [
            {**detection, "image_id": image["image_id"]}
            for image in value["images"]
            for detection in image["detections"]
        ]
        answers = truth.loadRes(results)
        start = time.perf_counter()
        evaluation = COCOeval(truth, answers, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [time.perf_counter() - start, *map(float, evaluation.stats[:3])]


def ours(folder: Path, kind: str) -> list[float]:
    """The same figures; pycocotools gives those by size, too."""
    dataset, predictions = read_coco(folder / "truth.json"), read_predictions(folder / "predictions.json")
    start = time.perf_counter()
    found = average_precision(dataset, predictions.images, kind)  # type: ignore[arg-type]
    return [time.perf_counter() - start, *(float(each.value or 0) for each in (found.AP, found.AP50, found.AP75))]


def repeat(folder: Path, images: int, *, masks: bool) -> None:
    """500 images under other names and of other women, with three masks or two boxes each."""
    make(500, 3 if masks else 2, folder)
    truth, predictions = (json.loads((folder / name).read_text()) for name in ("truth.json", "predictions.json"))
    lesions: dict[int, list[dict[str, Any]]] = {}
    for lesion in truth["annotations"]:
        lesions.setdefault(lesion["image_id"], []).append(lesion)
    if not masks:
        for each in (*truth["annotations"], *(one for image in predictions["images"] for one in image["detections"])):
            del each["segmentation"]

    def renamed(items: list[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
        for number in range(images):
            name, woman = f"images/{number + 1}.png", f"p{number // 4}"
            yield {**items[number % 500], key: number + 1, "file_name": name, "patient_id": woman}

    pairs = ((number + 1, lesion) for number in range(images) for lesion in lesions.get(number % 500 + 1, ()))
    annotations = ({**lesion, "id": place, "image_id": image} for place, (image, lesion) in enumerate(pairs, start=1))
    truth |= {"images": renamed(truth["images"], "id"), "annotations": annotations}
    write_members(folder / "truth.json", truth)
    write_members(folder / "predictions.json", {**predictions, "images": renamed(predictions["images"], "image_id")})


def command(folder: Path, resamples: int) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of the command."""
    names = ["--ground-truth", folder / "truth.json", "--predictions", folder / "predictions.json"]
    more = ["--output", folder / "out", "--resamples", str(resamples), "--no-report"]
    process = subprocess.Popen([sys.executable, "-m", "mammodet", "evaluate", *names, *more], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mammodet evaluate ended with {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def alone(what: str, folder: Path, *arguments: str) -> tuple[list[float], float]:
    """One measurement in a process of its own: its numbers, and its peak memory in MB."""
    command = [sys.executable, __file__, "--one", what, str(folder), *arguments]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()
    value = json.loads(lines[-1])
    return value["numbers"], value["megabytes"]


def main() -> None:
    """Make the files, measure each part in its own process, print ratios."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--detections", type=int, default=5, help="per image")
    parser.add_argument("--large", type=int, nargs="*", default=[20_000, 100_000], help="images of the whole command")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        what, folder, *rest = chosen.one
        work = {"official": official, "ours": ours}[what]
        numbers = work(Path(folder), *rest)
        print(json.dumps({"numbers": numbers, "megabytes": peak_mb()}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(chosen.images, chosen.detections, folder)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"{chosen.images} images, {chosen.images * chosen.detections} detections, {size:.0f} MB of JSON")
        for kind in ("bbox", "segm"):
            (slow, *expected), slow_mb = alone("official", folder, kind)
            (fast, *found), fast_mb = alone("ours", folder, kind)
            same = "equal" if expected == found else f"DIFFERENT: {expected} and {found}"
            print(
                f"{kind}: pycocotools {slow:.1f} s ({slow_mb:.0f} MB), ours {fast:.2f} s ({fast_mb:.0f} MB): "
                f"{slow / fast:.1f} times as fast, {same} (AP {found[0]:.4f})"
            )
    for masks, images in itertools.product((False, True), chosen.large):
        with tempfile.TemporaryDirectory() as name:
            repeat(Path(name), images, masks=masks)
            sizes = [(Path(name) / each).stat().st_size / 1e6 for each in ("predictions.json", "truth.json")]
            seconds, megabytes = command(Path(name), chosen.resamples)
        print(
            f"{images} images, {'masks' if masks else 'boxes'}, {sizes[0]:.0f} and {sizes[1]:.0f} MB: "
            f"{seconds:.0f} CPU seconds, peak {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
