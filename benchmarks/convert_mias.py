"""Seconds to convert a mini-MIAS folder.

example:
  python benchmarks/convert_mias.py --source all-mias --jobs 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mammodet.converters import mias


def main() -> None:
    """Convert into a temporary folder and print the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = mias.convert(chosen.source, Path(folder), mias.MiasOptions(jobs=chosen.jobs, progress=False))
        seconds = time.perf_counter() - start
    images = int(summary.counts["images"])
    print(f"{images} images in {seconds:.1f} s with {chosen.jobs} threads ({images / seconds:.0f} images/s)")


if __name__ == "__main__":
    main()
