"""How fast and how lean an archive is converted: images a second and memory, with one process and with several.

Without `--source` the archive is drawn here, of `--images` images of `--height` pixels. CBIS-DDSM is converted beside a
straight loop of pydicom and Pillow that writes the same: each image once, reduced, as a 16-bit PNG; masks as run
lengths. Every conversion runs in a process of its own.

examples:
  OMP_NUM_THREADS=1 python benchmarks/convert.py cbis_ddsm --images 24 --height 4600
  OMP_NUM_THREADS=1 python benchmarks/convert.py rsna --images 48 --height 2000 --max-size 1024
  python benchmarks/convert.py mias --source all-mias
"""

import importlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from measuring import arguments, peak_mb
from PIL import Image

from mammodet.converters import cbis_ddsm, mias, rsna
from mammodet.geometry import mask_to_rle

WRITERS = {"mias": "write_mias_archive", "cbis_ddsm": "write_cbis_archive", "rsna": "write_rsna_archive"}
VIEWS = {"mias": 2, "cbis_ddsm": 2, "rsna": 4}  # of a woman


def straight_loop(source: Path, output: Path, max_size: int, level: int) -> None:
    """What a careful short script does: each image once, its masks after it."""
    output.mkdir(parents=True)
    for image_path in sorted(source.rglob("*_CC/*/*/000000.dcm")) + sorted(source.rglob("*_MLO/*/*/000000.dcm")):
        case = image_path.parents[2]
        pixels = pydicom.dcmread(image_path).pixel_array
        scale = min(1.0, max_size / max(pixels.shape)) if max_size else 1.0
        size_wh = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        Image.fromarray(pixels).resize(size_wh, Image.Resampling.BOX).save(
            output / f"{case.name}.png", compress_level=level
        )
        for mask_path in sorted(case.parent.glob(f"{case.name}_*/*/*/000001.dcm")):
            mask = Image.fromarray(pydicom.dcmread(mask_path).pixel_array).resize(size_wh, Image.Resampling.BOX)
            mask_to_rle(np.asarray(mask) >= 128)


def convert(archive: str, source: Path, output: Path, max_size: int, jobs: int) -> None:
    """Our converter."""
    if archive == "mias":
        mias.convert(source, output, mias.MiasOptions(jobs=jobs, progress=False))
    elif archive == "cbis_ddsm":
        image = cbis_ddsm.ImageOptions(max_size=max_size)
        cbis_ddsm.convert(
            source, output, cbis_ddsm.CbisOptions(abnormality="mass", image=image, jobs=jobs, progress=False)
        )
    else:
        pixels = rsna.PixelOptions("png16", max_size or None)
        rsna.convert(source, output, rsna.RsnaOptions(pixels=pixels, jobs=jobs, progress=False))


def alone(archive: str, source: Path, output: Path, max_size: int, jobs: int, level: int) -> None:
    """One conversion in this process (`jobs` 0: the straight loop), and what it took."""
    start = time.perf_counter()
    if jobs:
        convert(archive, source, output, max_size, jobs)
    else:
        straight_loop(source, output, max_size, level)
    seconds = time.perf_counter() - start
    sizes = [path.stat().st_size for path in output.rglob("*.png")]
    images = len(sizes)
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)  # so that the workers' use is accounted for
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    what = f"{jobs} at a time" if jobs else "straight loop"
    print(
        f"{what}: {images} images in {seconds:.1f} s ({images / seconds:.1f}/s); "
        f"{sum(sizes) / images / 1e6:.1f} MB each; main process {peak_mb():.0f} MB, largest worker {workers:.0f} MB"
    )


def main() -> None:
    """Draw what is not given, and convert it in turns."""
    parser = arguments(__doc__)
    parser.add_argument("archive", choices=list(WRITERS))
    parser.add_argument("--source", type=Path, help="the archive, instead of a drawn one")
    parser.add_argument("--images", type=int, default=24, help="to draw (%(default)s)")
    parser.add_argument("--height", type=int, default=2000, help="of the drawn images (%(default)s)")
    parser.add_argument("--max-size", type=int, default=2048, help="of the PNGs; 0: full size (%(default)s)")
    parser.add_argument(
        "--level", type=int, default=6, help="of zlib, for the loop's PNG files; ours are of 1 (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--alone", nargs=2, help="(for itself: output and jobs)")
    chosen = parser.parse_args()
    if chosen.alone:
        alone(chosen.archive, chosen.source, Path(chosen.alone[0]), chosen.max_size, int(chosen.alone[1]), chosen.level)
        return
    with tempfile.TemporaryDirectory() as name:
        source = chosen.source or Path(name) / "archive"
        if chosen.source is None:
            write = getattr(importlib.import_module(f"mammodet.phantom.{chosen.archive}"), WRITERS[chosen.archive])
            options = {"abnormality": "mass"} if chosen.archive == "cbis_ddsm" else {}
            patients = max(chosen.images // VIEWS[chosen.archive], 1)
            write(source, patients=patients, size=chosen.height, quirks=(), jobs=2, progress=False, **options)
        for number in range(chosen.rounds):
            for jobs in [*([0] if chosen.archive == "cbis_ddsm" else []), *chosen.jobs]:
                command = [sys.executable, __file__, chosen.archive, "--source", source, "--max-size", chosen.max_size]
                command += ["--level", chosen.level]
                command += ["--alone", Path(name) / f"out{number}{jobs}", jobs]
                subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    main()
