"""CPU time that the mask of one lesion takes a training: from run lengths on the film to the network's pixels.

example:
  python benchmarks/lesion_masks.py --height 4000 --width 3000
"""

import time

import cv2
import numpy as np
from measuring import arguments

from mammodet.data.dataset import LesionDataset
from mammodet.geometry import box_rle, rle_box
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.trace import Trace


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--height", type=int, default=4000, help="of the film in pixels (%(default)s)")
    parser.add_argument("--width", type=int, default=3000, help="(%(default)s)")
    parser.add_argument("--max-size", type=int, default=1024, help="of the network's input (%(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="(%(default)s)")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    size_hw = (chosen.height, chosen.width)
    scale = chosen.max_size / max(size_hw)
    trace = Trace(size_hw).then("resize", *(round(side * scale) for side in size_hw))
    for side in (60, 300, 900):
        x, y = chosen.width / 3, chosen.height / 3
        rle = box_rle((x, y, x + side, y + 1.2 * side), size_hw, "ellipse")
        record = ImageRecord(1, "a.png", size_hw, lesions=(Lesion("mass", rle_box(rle), rle, "contour"),))
        samples = LesionDataset(Dataset(("mass",), (record,)), None, None, (), with_masks=True)  # type: ignore[arg-type]
        times = []
        for _ in range(chosen.repeats):
            start = time.process_time()
            samples._lesions(record, trace)
            times.append(time.process_time() - start)
        print(f"lesion of {side} x {1.2 * side:g} px: {1000 * np.median(times):.1f} ms")


if __name__ == "__main__":
    main()
