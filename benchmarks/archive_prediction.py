"""Images per CPU second and memory of `mammodet predict` over an archive, beside the network: it answers at once.

python benchmarks/archive_prediction.py [--images 1000 10000]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import arguments, peak_mb

from mammodet.commands import predict
from mammodet.config import Config
from mammodet.data.images import write_png
from mammodet.engine.ensemble import Ensemble
from mammodet.engine.facts import RunFacts
from mammodet.engine.fusion import Look
from mammodet.engine.predict import Predictor
from mammodet.geometry import patch_to_rle
from mammodet.records import Detections, ImagePrediction

SIDE = 128
DISC = (np.hypot(*np.mgrid[-20:20, -20:20]) < 19).astype(np.uint8)


class Instant(Predictor):
    """Three detections with masks on every image, at once."""

    def __init__(self) -> None:
        self.config, self.checkpoint, self.device, self.stack = Config(), None, "cpu", None
        self.facts = RunFacts(self.config.to_dict(), ("mass",), "0" * 64, None)

    def _run(self, images: Sequence[Sequence[Look]], *, soften: bool = True) -> list[ImagePrediction]:
        boxes = np.array([[20.0, 30, 60, 70], [21, 31, 61, 71], [50, 50, 90, 90]])
        rles = [patch_to_rle(DISC, (int(box[0]), int(box[1])), (SIDE, SIDE)) for box in boxes]
        scores = {"tumor": 0.9, "malignant": 0.2}
        found = Detections(boxes, np.array([0.9, 0.5, 0.1]), np.ones(3, dtype=np.int64), rles)
        by_rule = {"max": {"tumor": 0.9}, "noisy_or": {"tumor": 0.96}, "head": scores}
        return [ImagePrediction.of(look.record, scores, found, scores_by_rule=by_rule) for (look,) in images]


def one(count: int, folder: Path) -> None:
    """Predict a folder, and print the time and the peak memory of this process."""
    Ensemble.from_checkpoints = staticmethod(lambda *_: Instant())  # type: ignore[method-assign, assignment]
    start = time.process_time()
    pattern = r"(?P<patient>p\d+)_(?P<laterality>L|R)_(?P<view>CC|MLO)"
    given = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--pattern", pattern]
    predict.main([*given, "--force", "--num-workers", "0"])
    seconds = time.process_time() - start
    print(f"RESULT {count} images: {count / seconds:.0f} images per CPU second, peak {peak_mb():.0f} MB")


def main() -> None:
    """Make files, and predict each number of them in a process of its own."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(int(chosen.one[0]), Path(chosen.one[1]))
        return
    pixels = np.random.default_rng(0).integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)
    for count in chosen.images:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "in").mkdir()
            write_png(Path(name) / "film.png", pixels)
            for number in range(count):
                side, view = "LR"[number % 2], ("CC", "MLO")[number // 2 % 2]
                os.link(Path(name) / "film.png", Path(name) / "in" / f"p{number // 4:07}_{side}_{view}.png")
            command = [sys.executable, __file__, "--one", str(count), name]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            print("\n".join(line.removeprefix("RESULT ") for line in lines if line.startswith("RESULT")), flush=True)


if __name__ == "__main__":
    main()
