"""The breast that is found on mini-MIAS films against drawn outlines: overlap, and what the crop cuts off.

    python benchmarks/breast_masks.py --source all-mias --masks breast_masks --table breast_masks_registration.csv

The table has a row for each mask mdbNNN.png (1024x1024, breast above 127): `k`, whether to mirror it (`flip`), and by
how many pixels to shift it to the right (`shift`) to lie on the film.
"""

import csv
import time
from pathlib import Path

import cv2
import numpy as np
from measuring import arguments
from numpy.typing import NDArray

from mammodet.data.breast import find_breast
from mammodet.data.images import read_image
from mammodet.geometry import Mask


def main() -> None:
    """Print medians and the films with the largest loss."""
    parser = arguments(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with mdbNNN.pgm")
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--leave-out", type=int, nargs="*", default=[191, 291], help="films whose row is wrong")
    chosen = parser.parse_args()
    overlaps, losses, seconds = {}, {}, []
    for row in csv.DictReader(chosen.table.open(encoding="utf-8")):
        number = int(row["k"])
        path = chosen.source / f"mdb{number:03d}.pgm"
        if number in chosen.leave_out or not path.is_file():
            continue
        drawn = _drawn(chosen.masks / f"mdb{number:03d}.png", int(row["flip"]) == 1, int(row["shift"]))
        pixels = read_image(path)
        start = time.process_time()
        breast = find_breast(pixels)
        seconds.append(time.process_time() - start)
        found = breast.mask_at(drawn.shape)
        overlaps[number] = float((found & drawn).sum() / (found | drawn).sum())
        losses[number] = _cut_off(drawn, breast.box_xyxy)
    values, cut = np.array(list(overlaps.values())), np.array(list(losses.values()))
    share, worst = 100 * (cut > 5).mean(), sorted(losses, key=lambda number: -losses[number])[:5]
    print(f"{len(values)} films, {1000 * np.median(seconds):.0f} ms of CPU each")
    tenth = np.quantile(values, 0.1)
    print(f"IoU: median {np.median(values):.3f}, tenth percentile {tenth:.3f}, least {min(values):.3f}")
    print(f"more than 5 px of drawn breast cut off on the nipple side: {(cut > 5).sum()} ({share:.1f} %)")
    print("largest losses:", ", ".join(f"mdb{number:03d} {losses[number]:.0f} px" for number in worst))


def _drawn(path: Path, flip: bool, shift: int) -> Mask:
    mask: NDArray[np.bool_] = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
    mask = mask[:, ::-1] if flip else mask
    moved = np.zeros_like(mask)
    moved[:, max(shift, 0) : mask.shape[1] + min(shift, 0)] = mask[:, max(-shift, 0) : mask.shape[1] - max(shift, 0)]
    return moved


def _cut_off(drawn: Mask, box_xyxy: tuple[float, float, float, float]) -> float:
    """Pixels of the breast beyond the box, on the side that touches fewer rows of the mask's end: the nipple's."""
    columns = np.flatnonzero(drawn.any(axis=0))
    first, last = int(columns[0]), int(columns[-1])
    wall_left = drawn[:, first : first + 8].any(axis=1).sum() > drawn[:, last - 7 : last + 1].any(axis=1).sum()
    return last + 1 - box_xyxy[2] if wall_left else box_xyxy[0] - first


if __name__ == "__main__":
    main()
