"""Average precision against plain pycocotools, and the time and memory of a whole evaluation with its resamples.

python benchmarks/evaluation.py [--images 20000] [--detections 5] [--resamples 1000]
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import arguments, peak_mb
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.evaluation.average_precision import average_precision
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.options import Options
from mammodet.geometry import patch_to_rle
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


def whole(folder: Path, resamples: int) -> list[float]:
    """Reading, then everything with intervals."""
    start = time.perf_counter()
    dataset, predictions = read_coco(folder / "truth.json"), read_predictions(folder / "predictions.json")
    read = time.perf_counter() - start
    result = evaluate(dataset, [Entry("a", predictions.images)], Options(resamples=resamples), progress=True)
    return [read, time.perf_counter() - start - read, result.metrics.models[0].froc.cpm.value]


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
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        what, folder, *rest = chosen.one
        work = {"official": official, "ours": ours, "whole": lambda path, count: whole(path, int(count))}[what]
        numbers = work(Path(folder), *rest)  # type: ignore[operator]
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (chosen.images // 2, chosen.images // 8):
            make(images, chosen.detections, folder)
            for resamples in (chosen.resamples, 0):
                (read, worked, _), megabytes = alone("whole", folder, str(resamples))
                print(
                    f"{images} images, {resamples} resamples of every figure: {worked:.1f} s, reading {read:.1f} s, "
                    f"peak {megabytes:.0f} MB"
                )


if __name__ == "__main__":
    main()
