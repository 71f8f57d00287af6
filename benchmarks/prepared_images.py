"""Seconds to prepare the images of a data set: one after another, by `data.num_workers` processes, and read back.

example:
  python benchmarks/prepared_images.py --config-file configs/base.yaml data.root=data/cbis data.val=val.json \\
      data.image.max_size=512 "data.image.channels=[full, tissue, clahe]"
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mammodet.config import load_config
from mammodet.data.coco import read_coco
from mammodet.data.prepared import DiskCache, prepare_record


def main() -> None:
    """Time the three on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("opts", nargs="*")
    chosen = parser.parse_args()
    data = load_config(chosen.config_file, chosen.opts).data
    records = read_coco(data.val_file).images
    with tempfile.TemporaryDirectory() as folder:
        cache = DiskCache(Path(folder), data.root, data.image)
        began = time.perf_counter()
        for record in records:
            prepare_record(data.root, data.image, record)
        serial = time.perf_counter() - began
        began = time.perf_counter()
        cache.fill(records, jobs=max(data.num_workers, 1), name="preparing", say=lambda _: None)
        parallel = time.perf_counter() - began
        began = time.perf_counter()
        for record in records:
            cache(record)
        back = time.perf_counter() - began
        size = sum(path.stat().st_size for path in cache.folder.iterdir()) / len(records)
    print(f"{len(records)} images, {size / 1e6:.2f} MB each; one after another {serial:.1f} s")
    print(f"{data.num_workers} processes, with their start and writing: {parallel:.1f} s ({serial / parallel:.2f}x)")
    print(f"read back: {back:.2f} s ({serial / back:.1f}x)")


if __name__ == "__main__":
    main()
