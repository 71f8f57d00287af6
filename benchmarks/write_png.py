"""Milliseconds and size of PNG settings on the images of a folder; why `mammodet.data.images.write_png` uses its own.

example:
  OMP_NUM_THREADS=1 python benchmarks/write_png.py --images data/mias/images --limit 40
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2

from mammodet.data.images import _PNG_OPTIONS, read_image

SETTINGS = {
    "OpenCV, level 1": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    "OpenCV, level 6": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    "ours": _PNG_OPTIONS,
}


def main() -> None:
    """Encode and decode every image with every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNG files")
    parser.add_argument("--limit", type=int, default=40)
    chosen = parser.parse_args()
    paths = sorted(chosen.images.glob("*.png"))[: chosen.limit]
    totals = {name: [0.0, 0.0, 0.0] for name in SETTINGS}
    for path in paths:
        pixels = read_image(path)
        for name, options in SETTINGS.items():
            start = time.perf_counter()
            content = cv2.imencode(".png", pixels, options)[1]
            middle = time.perf_counter()
            cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
            totals[name][0] += middle - start
            totals[name][1] += time.perf_counter() - middle
            totals[name][2] += len(content)
    for name, (encode, decode, size) in totals.items():
        count = len(paths)
        print(
            f"{name:18} write {1000 * encode / count:6.1f} ms, read {1000 * decode / count:6.1f} ms, "
            f"{size / count / 1e6:.2f} MB an image ({count} images)"
        )


if __name__ == "__main__":
    main()
