"""What training shows the network: augmented versions of training images, with their lesions and labels."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mammodet.config import Config
from mammodet.data.dataset import LesionDataset, Sample
from mammodet.data.sampling import SampleKey, stable_seed
from mammodet.engine.checked_run import read_dataset
from mammodet.errors import InputError
from mammodet.explain.draw import sheet
from mammodet.explain.images import chosen_records
from mammodet.files import write_bytes
from mammodet.records import LABELS
from mammodet.reporting.canvas import Canvas, Line, View, draw_box, draw_outline
from mammodet.reporting.gallery import encode, picture_names
from mammodet.reporting.overlay import IGNORED, TRUTH, identity_lines, line_width, truth_text
from mammodet.targets import Target


def write_augmented(
    config: Config,
    output: Path,
    *,
    ids: Sequence[int] | None = None,
    first: int | None = None,
    versions: int = 7,
    progress: bool = True,
) -> list[Path]:
    """Draw training images as they are and as `data.augment` changes them: `NAME_augmented.png`.

    Args:
        ids: of the images that are drawn, None for all; copy-paste and mixup take theirs from the whole training set.
        first: only the first so many.
        versions: drawn of each.
    Raises:
        InputError: no version, a config that changes nothing, or images that cannot be read.
    """
    if versions < 1:
        raise InputError(f"--versions {versions}: expected 1 or more")
    data = config.data
    placed, *others = data.files("train")
    if others:
        raise InputError(f"data.train lists {1 + len(others)} files; draw one of them: data.train={placed.path}")
    train = read_dataset(config, placed.path)
    chosen = chosen_records(train.images, str(placed.path), ids=ids, first=first)
    plain, changed = (
        LesionDataset(
            train,
            placed.root,
            data.image,
            [Target(label) for label in LABELS],
            with_masks=config.model.with_masks,
            box_masks=data.box_masks,
            augment=augment,
        )
        for augment in (None, data.augment)
    )
    if changed.chain is None and changed.mixer is None:
        raise InputError("data.augment: changes nothing; expected data.augment.enabled=true and a setting above 0")
    positions = {record.image_id: position for position, record in enumerate(train.images)}
    files = []
    named = list(zip(chosen, picture_names(chosen, "_augmented.png"), strict=True))
    for record, name in tqdm(named, desc="augmented", unit="image", disable=None if progress else True):
        position = positions[record.image_id]
        samples = [("as it is", plain[position])]
        for number in range(1, versions + 1):
            key = SampleKey(position, stable_seed(config.seed, record.image_id, number))
            samples.append((f"version {number}", changed[key]))
        tiles = [(f"{title}: {_words(sample)}", _tile(sample)) for title, sample in samples]
        path = output / name
        lines = [*identity_lines(record), Line(truth_text(record), TRUTH)]
        write_bytes(path, encode(sheet(tiles, lines), ".png"))
        files.append(path)
    return files


def _words(sample: Sample) -> str:
    """The sample's size and labels, as the network learns them."""
    known = {1.0: "yes", 0.0: "no"}
    answers = [
        f"{label} {'?' if math.isnan(value) else known[value]}"
        for label, value in zip(LABELS, sample.labels.tolist(), strict=True)
    ]
    height, width = sample.image.shape[-2:]
    return ", ".join([*answers, f"{width}x{height}", *([] if sample.use_boxes else ["no boxes"])])


def _tile(sample: Sample) -> Canvas:
    """The first channel, with boxes and outlines of lesions, and the boxes of regions to ignore."""
    size_hw = sample.image.shape[-2], sample.image.shape[-1]
    pixels = np.round(sample.image[0].numpy().clip(0, 1) * 255).astype(np.uint8)
    canvas = View.around(size_hw).render(pixels)
    thickness = line_width(size_hw)
    for name, colour in (("ignored", IGNORED), ("boxes", TRUTH)):
        for box in sample.target[name].tolist():
            draw_box(canvas, box, colour, thickness)
    for mask in sample.target.get("masks", ()):
        draw_outline(canvas, mask.numpy().astype(bool), (0, 0), TRUTH, thickness)
    return canvas
