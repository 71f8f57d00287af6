"""Images per second of the DICOM decoders: the CPU, and the GPU where there is one, in turns on the same files.

The files are made here: synthetic mammograms of a real one's size, with grain that costs a decoder time, as JPEG 2000
lossless or JPEG lossless. Every round reads all of them by each decoder; the ratio is that of the medians. The pixels
of the decoders are compared first, so that no speed is told of wrong ones.

example:
  OMP_NUM_THREADS=1 python benchmarks/decode_dicom.py --images 16 --height 3328 --threads 4
  OMP_NUM_THREADS=1 python benchmarks/decode_dicom.py --kind jpeg12 --batch 32
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from mammodet.data.dicom.gpu import FrameDecoder, choose_decoder
from mammodet.data.dicom.reader import decode_many
from mammodet.errors import InputError
from mammodet.phantom.rsna import dicom_bytes, draw_image

#: Number of the machine in `mammodet.phantom.rsna.DEVICES` that writes such files.
KINDS = {"j2k12": "0", "jpeg12": "1", "j2k14": "2", "j2k16": "5"}
DISTINCT = 4
GRAIN = 0.02  # standard deviation, as a share of the full scale
ROW = {"patient_id": "1", "density": "B", "cancer": "0", "BIRADS": "1.0"}


def make_files(folder: Path, images: int, height: int, kind: str) -> list[Path]:
    """A few different mammograms, and hard links to them."""
    paths = [folder / f"{number}.dcm" for number in range(images)]
    for number, path in enumerate(paths):
        if number >= DISTINCT:
            path.hardlink_to(paths[number % DISTINCT])
            continue
        side, view = "LR"[number % 2], ("CC", "MLO")[number // 2 % 2]
        row = ROW | {"image_id": str(number), "laterality": side, "view": view, "machine_id": KINDS[kind]}
        level = draw_image(row, seed=0, size=height)
        grain = np.random.default_rng(number).normal(0, GRAIN, level.shape).astype(np.float32)
        path.write_bytes(dicom_bytes(np.clip(level + grain * (level > 0), 0, 1), row))
    return paths


def seconds(paths: Sequence[Path], decoder: FrameDecoder, batch: int, threads: int) -> float:
    """Time to read all files."""
    start = time.perf_counter()
    for _ in decode_many(paths, decoder=decoder, batch=batch, threads=threads):
        pass
    return time.perf_counter() - start


def check_equal(paths: Sequence[Path], decoders: Sequence[FrameDecoder], batch: int) -> None:
    """Raise where two decoders give different pixels; the files are lossless."""
    readings = [decode_many(paths[:DISTINCT], decoder=decoder, batch=batch) for decoder in decoders]
    for same in zip(*readings, strict=True):
        if not all(np.array_equal(same[0][1], pixels) for _, pixels, _ in same[1:]):
            raise InputError(f"{same[0][0]}: the decoders give different pixels")


def main() -> None:
    """Make the files, then time the decoders in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--height", type=int, default=3328, help="of the images, in pixels")
    parser.add_argument("--kind", choices=KINDS, default="j2k12", help="compression and bits; all are lossless")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    decoders = {"CPU": choose_decoder("cpu")}
    try:
        decoders["GPU"] = choose_decoder("gpu")
    except InputError as error:
        print(f"no GPU is measured: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), chosen.images, chosen.height, chosen.kind)
        sizes = [path.stat().st_size / 1e6 for path in paths[:DISTINCT]]
        check_equal(paths, list(decoders.values()), chosen.batch)  # and starts the GPU, outside of the time
        times: dict[str, list[float]] = {name: [] for name in decoders}
        for _ in range(chosen.rounds):
            for name, decoder in decoders.items():
                times[name].append(seconds(paths, decoder, chosen.batch, chosen.threads))
    print(f"{chosen.images} images of {chosen.height} rows, {chosen.kind}, {median(sizes):.1f} MB each")
    print(f"batches of {chosen.batch}, {chosen.threads} threads, {chosen.rounds} rounds")
    for name, found in times.items():
        rates = sorted(chosen.images / value for value in found)
        ratio = median(times["CPU"]) / median(found)
        print(
            f"{name}: {median(rates):7.2f} images/s ({rates[0]:.2f} to {rates[-1]:.2f}), {ratio:.2f} times the CPU's; "
            f"{decoders[name].summary()}"
        )


if __name__ == "__main__":
    main()
