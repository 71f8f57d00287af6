"""The split that must not be made: turned copies of images, divided at random (for docs/leakage.md only).

Several published figures on mini-MIAS come from such a split: each image was turned in small steps, and the copies were
divided at random, so that nearly every test image has a twin in training. The patients of the copies are kept, so that
every later check sees the leak.
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mammodet.config import Config
from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.dataset_files import ALL
from mammodet.data.images import Pixels, read_image, write_png
from mammodet.data.sampling import stable_seed
from mammodet.errors import InputError
from mammodet.files import canonical_hash, read_json, write_json
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, Dataset, ImageRecord
from mammodet.version import VERSION

SHARES = {"train": 0.64, "val": 0.16, "test": 0.2}
NAME = "unsafe rotated_copies"
WARNING = """WARNING: data.unsafe_split=rotated_copies puts copies of one image into training, validation and test.
WARNING: what is trained on it is for the lesson of docs/leakage.md. Its figures are no results."""


def make_unsafe_split(config: Config) -> Config:
    """Turn and divide all images of `data.root`, and point the config at them.

    The copies lie in `unsafe_split` in the output folder, at the network's size; those of an earlier call with the same
    settings are used again.

    Returns:
        the config with `data.root` at the copies.
    """
    print(WARNING, file=sys.stderr)
    data = config.data
    source = data.root / ALL
    dataset = read_coco(source, skip_invalid=data.skip_invalid)
    if not dataset.images:
        raise InputError(f"{source}: has no images to turn")
    folder, side = config.output_dir / "unsafe_split", data.image.max_size
    made = config.change(data=data.change(root=folder, train=None, val=None))
    key = canonical_hash([data_hash(dataset), str(data.root.resolve()), data.unsafe_copies, side, config.seed])
    marker = folder / "made.json"
    if marker.is_file() and read_json(marker) == {"key": key}:
        return made
    tasks = [(record, data.root, folder, data.unsafe_copies, side) for record in dataset.images]
    copies = [copy for part in in_parallel(_turn, tasks, jobs=2, name="unsafe copies", progress=True) for copy in part]
    order = np.random.default_rng(stable_seed(config.seed, "unsafe_split")).permutation(len(copies))
    stops = np.cumsum([round(share * len(copies)) for share in SHARES.values()])
    for subset, chosen in zip(SUBSETS, np.split(order, stops[:-1]), strict=True):
        images = tuple(replace(copies[index], split=subset) for index in sorted(chosen))
        split = {"name": NAME, "subset": subset, "seed": config.seed, "hash": key}
        info = {"archive": dataset.info.get("archive"), "version": VERSION, "split": split}
        write_coco(Dataset(dataset.categories, images, info), folder / f"{subset}.json")
    write_json(marker, {"key": key})
    return made


def _turn(record: ImageRecord, root: Path, folder: Path, copies: int, side: int) -> list[ImageRecord]:
    """An image's copies with a longest side of at most `side` pixels.

    They have its labels, and not its lesions, which a turned box would not fit.
    """
    pixels = read_image(root / record.file_name)
    scale = min(side / max(pixels.shape), 1.0)
    if scale < 1:
        height, width = (max(round(length * scale), 1) for length in pixels.shape)
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    made = []
    for number in range(copies):
        turned = _rotate(pixels, 360 * number / copies)
        name = f"images/{Path(record.file_name).stem}_{record.image_id}_turn{number:03d}.png"
        write_png(folder / name, turned)
        made.append(
            replace(
                record,
                image_id=record.image_id * copies + number,
                file_name=name,
                size_hw=(turned.shape[0], turned.shape[1]),
                spacing_mm_rc=None,
                breast_box_xyxy=None,
                trace=None,
                lesions=(),
                unlocalized=bool(record.lesions) or record.unlocalized,
                notes=(*record.notes, f"turned by {360 * number / copies:g} degrees"),
            )
        )
    return made


def _rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turned about its centre, in a frame of the same size; what was outside is black."""
    height, width = pixels.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned: Pixels = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return turned
