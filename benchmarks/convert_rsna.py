"""How fast and how lean the RSNA archive is converted: headers per second, PNGs per second, memory, and what that makes
of the whole archive of 54 706 images.

The archive is made here: a few synthetic images (2000x1600, 12 bits, JPEG 2000 lossless, with grain that costs the
decoder time), and links to them under as many names as are asked for. Real images are larger, most of them about twice.

example:
  OMP_NUM_THREADS=1 python benchmarks/convert_rsna.py --images 48 --headers 2000
  OMP_NUM_THREADS=1 python benchmarks/convert_rsna.py --memory 5000 10000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mammodet.converters import rsna

from mammodet.data.dicom import read_header
from mammodet.parallel import in_parallel, in_processes
from mammodet.phantom.rsna import COLUMNS, dicom_bytes, draw_image

ARCHIVE = 54_706
DISTINCT = 4
GRAIN = 0.06
CHUNK = 64


def make_archive(folder: Path, images: int, height: int) -> None:
    """Women with four images each; after the first files, hard links to them."""
    common = {"site_id": "1", "age": "60.0", "biopsy": "0", "invasive": "0", "implant": "0", "density": "B"}
    common |= {"BIRADS": "1.0", "machine_id": "60", "difficult_negative_case": "False"}
    first: list[Path] = []
    lines = [",".join(COLUMNS)]
    for number in range(images):
        woman = number // 4
        row = common | {
            "patient_id": str(1000 + woman),
            "image_id": str(10**6 + number),
            "laterality": "LR"[number % 2],
            "view": ("CC", "MLO")[number // 2 % 2],
            "cancer": str(int(woman % 40 == 0)),
        }
        lines.append(",".join(row[column] for column in COLUMNS))
        path = folder / "train_images" / row["patient_id"] / f"{row['image_id']}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(first) < DISTINCT:
            level = draw_image(row, seed=0, size=height)
            grain = np.random.default_rng(number).normal(0, GRAIN, level.shape).astype(np.float32)
            path.write_bytes(dicom_bytes(np.clip(level + grain * (level > 0), 0, 1), row))
            first.append(path)
        else:
            path.hardlink_to(first[number % DISTINCT])
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def convert(source: Path, output: Path, file_format: str, max_size: int | None, jobs: int) -> float:
    """Seconds of our converter."""
    options = rsna.RsnaOptions(pixels=rsna.PixelOptions(file_format, max_size), jobs=jobs, progress=False)
    start = time.perf_counter()
    rsna.convert(source, output, options)
    return time.perf_counter() - start


def header_sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Work for one process: its headers, one after the other."""
    return [read_header(path).size_hw for path in paths]


def told(what: str, images: int, seconds: float) -> None:
    """One line, with what it makes of the whole archive."""
    rate = images / seconds
    print(f"  {what:<44} {rate:8.1f} images/s; {ARCHIVE} images: {ARCHIVE / rate / 60:.1f} min")


def compare_headers(source: Path, images: int, jobs: int, rounds: int) -> None:
    """A plain loop, threads, and processes that get the headers one by one and in lots, in turn."""
    paths = sorted(source.glob("train_images/*/*.dcm"))
    lots = [(paths[at : at + CHUNK],) for at in range(0, len(paths), CHUNK)]
    single = [([path],) for path in paths]
    for number in range(rounds):
        print(f"headers of {images} files, round {number + 1}:")
        start = time.perf_counter()
        header_sizes(paths)
        told("loop", images, time.perf_counter() - start)
        for what, loop, tasks in (
            (f"{jobs} threads", in_parallel, single),
            (f"{jobs} processes, one at a time", in_processes, single),
            (f"{jobs} processes, {CHUNK} at a time", in_processes, lots),
        ):
            start = time.perf_counter()
            for _ in loop(header_sizes, tasks, jobs=jobs, name="headers", progress=False):
                pass
            told(what, images, time.perf_counter() - start)


def measure(images: int, headers: int, height: int, max_size: int, jobs: int, rounds: int) -> None:
    """Print what headers, the reference conversion and the PNG conversion take."""
    with tempfile.TemporaryDirectory() as name:
        many, few = Path(name) / "many", Path(name) / "few"
        make_archive(many, headers, height)
        make_archive(few, images, height)
        size = sum(path.stat().st_size for path in few.glob("train_images/*/*")) / images / 1e6
        bits = 8e6 * size / (0.8 * height**2)
        print(f"images {height}x{round(0.8 * height)}, JPEG 2000 lossless, {size:.1f} MB each, {bits:.1f} bits a pixel")
        compare_headers(many, headers, jobs, rounds)
        for number in range(rounds):
            print(f"converter, round {number + 1}:")
            seconds = convert(many, Path(name) / f"reference{number}", "reference", None, jobs)
            told(f"reference, {headers} images, {jobs} threads", headers, seconds)
            seconds = convert(few, Path(name) / f"png{number}", "png16", max_size or None, jobs)
            told(f"png16 to {max_size or 'full'} px, {images} images, {jobs} processes", images, seconds)


def memory(counts: Sequence[int], height: int, file_format: str, jobs: int) -> None:
    """Peak memory with more and more images; each count in a process of its own."""
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            make_archive(Path(name) / "archive", count, height)
            command = [sys.executable, __file__, "--peak", str(Path(name) / "archive"), str(Path(name) / "out")]
            command += ["--format", file_format, "--jobs", str(jobs)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{file_format}, {count} images of height {height}: {done.stdout.strip()}")


def peak(source: Path, output: Path, file_format: str, jobs: int) -> None:
    """Convert, and print this process's and the workers' highest resident memory."""
    seconds = convert(source, output, file_format, 2048 if file_format == "png16" else None, jobs)
    # Not ru_maxrss: it keeps what the parent had when it started this process.
    ours = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)  # so that the workers' use is accounted for
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"main process {ours:.0f} MB, largest worker {workers:.0f} MB, {seconds:.1f} s")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48, help="to write as PNG (%(default)s)")
    parser.add_argument("--headers", type=int, default=2000, help="to read (%(default)s)")
    parser.add_argument("--height", type=int, default=2000, help="of the images (%(default)s)")
    parser.add_argument("--max-size", type=int, default=1024, help="of the PNGs; 0: full size (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="+", metavar="COUNT", help="peak memory for so many images")
    parser.add_argument("--format", choices=rsna.FORMATS, default="reference", help="for --memory (%(default)s)")
    parser.add_argument("--peak", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        source, output = chosen.peak
        peak(source, output, chosen.format, chosen.jobs)
    elif chosen.memory:
        memory(chosen.memory, chosen.height, chosen.format, chosen.jobs)
    else:
        measure(chosen.images, chosen.headers, chosen.height, chosen.max_size, chosen.jobs, chosen.rounds)


if __name__ == "__main__":
    main()
