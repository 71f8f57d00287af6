"""How fast and how lean CBIS-DDSM is converted, beside a straight loop of pydicom and Pillow that writes the same.

The archive is made here: 16-bit DICOM films of full size (4600x2900, 27 MB) with two masks and crops each. The straight
loop reads image and masks with pydicom, reduces them with Pillow to the same size, writes a 16-bit PNG and run lengths.

example:
  OMP_NUM_THREADS=1 python benchmarks/convert_cbis.py --images 24
  OMP_NUM_THREADS=1 python benchmarks/convert_cbis.py --memory 100 3000
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pydicom
from mammodet.converters import cbis_ddsm
from mammodet.converters.cbis_ddsm import ImageOptions
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from mammodet.geometry import mask_to_rle
from mammodet.phantom.breast import draw_breast

HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)


def write_dicom(path: Path, pixels: np.ndarray, description: str) -> None:
    """A secondary capture image as the archive has them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesDescription = "MG", description
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    bits = 8 * pixels.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)


def make_archive(folder: Path, images: int, size_hw: tuple[int, int]) -> None:
    """Films that compress like real ones: a smooth breast, grain, dark background. After the first, links to it."""
    rng = np.random.default_rng(0)
    height, width = size_hw
    breast = draw_breast(rng, 512, "L", "G")
    film = breast.image[:, breast.film_columns[0] : breast.film_columns[1]]
    film = cv2.resize(film, (width, height), interpolation=cv2.INTER_CUBIC)
    film = film * (1 + rng.normal(0, 0.01, film.shape).astype(np.float32))
    pixels = np.clip(film * 52000 + 600 + rng.normal(0, 40, film.shape), 0, 65535).astype(np.uint16)
    rows = []
    first: dict[str, Path] = {}
    for number in range(1, images + 1):
        case = f"Mass-Training_P_{number:05d}_LEFT_CC"
        image_path = f"{case}/1.2.3.4.5.6.{number}/1.2.3.4.5.7.{number}/000000.dcm"
        files = {image_path: (pixels, "full mammogram images")}
        for lesion in (1, 2):
            mask = np.zeros(size_hw, np.uint8)
            centre = width // 3, height * lesion // 3
            cv2.ellipse(mask, centre, (width // 14, height // 30), 30, 0, 360, 255, -1)
            ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            crop = pixels[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
            series = f"{case}_{lesion}/1.2.3.4.5.8.{number}/1.2.3.4.5.9.{number}{lesion}"
            files |= {f"{series}/000000.dcm": (crop, "cropped"), f"{series}/000001.dcm": (mask, "ROI mask images")}
            rows.append(
                f"P_{number:05d},3,LEFT,CC,{lesion},mass,OVAL,CIRCUMSCRIBED,4,MALIGNANT,4,"
                f'{image_path},{series}/000000.dcm,"{series}/000001.dcm\n"\n'
            )
        for position, (name, (content, description)) in enumerate(files.items()):
            path = folder / name
            if str(position) in first:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to(first[str(position)])
            else:
                write_dicom(path, content, description)
                first[str(position)] = path
    (folder / "mass_case_description_train_set.csv").write_text(HEADER + "".join(rows), newline="")


def straight_loop(source: Path, output: Path, max_size: int, compression: int) -> None:
    """What a careful short script does: each image once, its masks after it."""
    output.mkdir(parents=True)
    for image_path in sorted(source.glob("*_CC/*/*/000000.dcm")):
        case = image_path.parents[2].name
        pixels = pydicom.dcmread(image_path).pixel_array
        scale = min(1.0, max_size / max(pixels.shape)) if max_size else 1.0
        size_wh = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        Image.fromarray(pixels).resize(size_wh, Image.Resampling.BOX).save(
            output / f"{case}.png", compress_level=compression
        )
        for mask_path in sorted(source.glob(f"{case}_*/*/*/000001.dcm")):
            mask = Image.fromarray(pydicom.dcmread(mask_path).pixel_array).resize(size_wh, Image.Resampling.BOX)
            mask_to_rle(np.asarray(mask) >= 128)


def convert(source: Path, output: Path, max_size: int, jobs: int) -> None:
    """Our converter."""
    options = cbis_ddsm.CbisOptions(
        abnormality="mass", image=ImageOptions(max_size=max_size), jobs=jobs, progress=False
    )
    cbis_ddsm.convert(source, output, options)


def compare(images: int, max_size: int, rounds: int, compression: int) -> None:
    """Seconds of the loop and of the converter with one and with two processes, in turn."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "archive"
        make_archive(source, images, (4600, 2900))
        for number in range(rounds):
            seconds = []
            for jobs in (0, 1, 2):
                output = Path(name) / f"out{number}{jobs}"
                start = time.perf_counter()
                if jobs:
                    convert(source, output, max_size, jobs)
                else:
                    straight_loop(source, output, max_size, compression)
                seconds.append(time.perf_counter() - start)
                shutil.rmtree(output)
            loop, one, two = seconds
            print(
                f"round {number + 1}, {images} images to at most {max_size or 'full'} px: loop {loop:.1f} s, "
                f"1 process {one:.1f} s (ratio {loop / one:.2f}), 2 processes {two:.1f} s (ratio {loop / two:.2f})"
            )


def memory(counts: list[int], size_hw: tuple[int, int]) -> None:
    """Peak memory of the largest process, with more and more images; each count in a process of its own."""
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "archive"
            make_archive(source, count, size_hw)
            command = [sys.executable, __file__, "--peak", str(source), str(Path(name) / "out")]
            print(
                f"{count} images of {size_hw}: {subprocess.run(command, capture_output=True, text=True).stdout.strip()}"
            )


def peak(source: Path, output: Path) -> None:
    """Convert, and print this process's and the workers' highest resident memory."""
    convert(source, output, 2048, 2)
    # Not ru_maxrss: it keeps what the parent had when it started this process.
    status = Path("/proc/self/status").read_text()
    ours = int(status.split("VmHWM:")[1].split()[0]) / 1024
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)  # so that the workers' use is accounted for
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"main process {ours:.0f} MB, largest worker {workers:.0f} MB")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--max-size", type=int, default=2048, help="0: full size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop-compression", type=int, default=6, help="the loop's PNG level; Pillow's default is 6")
    parser.add_argument("--memory", type=int, nargs="+", metavar="COUNT", help="peak memory for so many images")
    parser.add_argument("--size", type=int, nargs=2, default=[5600, 3600], metavar=("H", "W"), help="for --memory")
    parser.add_argument("--peak", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        peak(*chosen.peak)
    elif chosen.memory:
        memory(chosen.memory, tuple(chosen.size))
    else:
        compare(chosen.images, chosen.max_size, chosen.rounds, chosen.loop_compression)


if __name__ == "__main__":
    main()
