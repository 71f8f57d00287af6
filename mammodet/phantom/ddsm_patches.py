"""A small archive of synthetic patches, in the layout of the DDSM patches (TFRecord and .npy), quirks included.

As in the archive, test holds masses only, validation calcifications only, and each lesion is shown on three patches,
cropped, flipped and turned anew. Nothing in it comes from a real patient. The files are written from the formats'
definitions, not by the reader's code, so that one checks the other.
"""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mammodet.files import write_bytes
from mammodet.phantom import PatchesPhantom
from mammodet.phantom.archive import make_room
from mammodet.phantom.breast import add_centred, layered_noise, smooth_noise
from mammodet.phantom.lesions import draw_mass

CLASSES = ("negative", "benign calcification", "benign mass", "malignant calcification", "malignant mass")
SHARDS = 5
CROPS = 3  # patches of one lesion

Patch = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PatchesPhantomSummary:
    """What the archive holds: subset to class to its patches; subsets are `train`, `val` and `test`."""

    patches: int
    classes: dict[str, dict[str, int]]

    def to_text(self) -> str:
        """A few lines for the terminal."""
        rows = (
            f"  {subset}: " + ", ".join(f"{name} {count}" for name, count in classes.items())
            for subset, classes in self.classes.items()
        )
        return "\n".join([f"{self.patches} patches", *rows])


def write_ddsm_patches(output: Path, *, progress: bool = True, **options: Any) -> PatchesPhantomSummary:
    """Write a synthetic archive into a new or empty folder, or in place of an older one; `options` of `PatchesPhantom`.

    Raises InputError: an option is out of range, or the folder holds something else.
    """
    chosen = PatchesPhantom(**options)
    patches, seed, size = chosen.images, chosen.seed, chosen.size
    own = ("test10_data", "test10_labels.npy", "cv10_data", "cv10_labels.npy", "training10_[0-4]")
    make_room(output, own, "the DDSM patches")
    aside = round(0.15 * patches)
    plan = {"train": (patches - 2 * aside, (1, 2, 3, 4)), "val": (aside, (1, 3)), "test": (aside, (2, 4))}
    classes: dict[str, dict[str, int]] = {}
    with tqdm(total=patches, desc="phantoms", unit="patch", disable=None if progress else True) as bar:
        for part, (subset, (count, kinds)) in enumerate(plan.items()):
            labels = _labels(np.random.default_rng([seed, part, 61]), count, kinds)
            images: list[Patch] = []
            for number, (label, lesion) in enumerate(labels):
                images.append(draw_patch(label, key=(seed, part, lesion), number=number, size=size))
                bar.update()
            if subset == "train":
                _write_records(output, images, [label for label, _ in labels])
            else:
                _write_arrays(output, {"val": "cv", "test": "test"}[subset], images, [label for label, _ in labels])
            counted = Counter(label for label, _ in labels)
            classes[subset] = {name: counted[label] for label, name in enumerate(CLASSES) if counted[label]}
    return PatchesPhantomSummary(patches, classes)


def _labels(rng: np.random.Generator, count: int, kinds: tuple[int, ...]) -> list[tuple[int, int]]:
    """Label and lesion of each patch, shuffled; a negative patch is its own lesion."""
    positive = count // 2
    labels = [(kinds[(k // CROPS) % len(kinds)], k // CROPS) for k in range(positive)]
    labels += [(0, positive + k) for k in range(count - positive)]
    return [labels[k] for k in rng.permutation(count)]


def draw_patch(label: int, *, key: tuple[int, int, int], number: int, size: int) -> Patch:
    """A patch, uint8 (size, size); a function of its arguments alone.

    Args:
        label: position in `CLASSES`.
        key: of the lesion and the tissue around it; patches of one key are crops of one place.
        number: of the patch, which decides how it is cropped, flipped and turned.
    """
    rng = np.random.default_rng([*key, 62])
    large = size + size // 4
    tissue = rng.uniform(0.25, 0.5) + 0.05 * smooth_noise(rng, large, 4)
    tissue += 0.02 * layered_noise(rng, large, (12, 24, 48, 96), 0.7)
    for kind, radius, contrast in _lesions(rng, label, size):
        middle = large // 2 + rng.integers(-size // 16, size // 16 + 1, 2)
        add_centred(tissue, draw_mass(rng, kind, radius, contrast).added, (int(middle[0]), int(middle[1])))
    crop = np.random.default_rng([*key, number, 63])
    top, left = crop.integers(0, large - size + 1, 2)
    view = np.rot90(tissue[top : top + size, left : left + size], int(crop.integers(4)))
    view = view[:, ::-1] if crop.random() < 0.5 else view
    grain = 0.01 * crop.standard_normal((size, size), dtype=np.float32)
    soft = cv2.GaussianBlur(np.ascontiguousarray(view), (0, 0), 0.6)
    return np.clip((soft + grain) * 255, 1, 255).astype(np.uint8)


def _lesions(rng: np.random.Generator, label: int, size: int) -> list[tuple[str, int, float]]:
    """Kind, radius and contrast of what is drawn: coarse or fine dots, a smooth or a spiculated mass."""
    contrast = float(rng.uniform(0.3, 0.42))
    if label == 1:
        return [("CALC", round(0.3 * size), contrast)]
    if label == 3:
        return [("CALC", round(0.12 * size), contrast)] * 3
    if label == 2:
        return [("CIRC", round(rng.uniform(0.14, 0.24) * size), contrast)]
    if label == 4:
        return [("SPIC", round(rng.uniform(0.2, 0.32) * size), contrast)]
    return []


def _write_records(output: Path, images: list[Patch], labels: list[int]) -> None:
    for shard in range(SHARDS):
        content = b"".join(
            frame_record(encode_example(image, label))
            for image, label in zip(images[shard::SHARDS], labels[shard::SHARDS], strict=True)
        )
        write_bytes(output / f"training10_{shard}" / f"training10_{shard}.tfrecords", content)


def _write_arrays(output: Path, prefix: str, images: list[Patch], labels: list[int]) -> None:
    for path, array in (
        (output / f"{prefix}10_data" / f"{prefix}10_data.npy", np.stack(images)[..., None]),
        (output / f"{prefix}10_labels.npy", np.array(labels, np.int64)),
    ):
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        write_bytes(path, content.getvalue())


def encode_example(image: Patch, label: int) -> bytes:
    """A `tf.train.Example` with the archive's features `label`, `label_normal` and `image` (raw bytes, by rows)."""
    features = {
        "label": _field(3, _field(1, _varint(label))),
        "label_normal": _field(3, _field(1, _varint(int(label > 0)))),
        "image": _field(1, _field(1, image.tobytes())),
    }
    entries = (_field(1, name.encode()) + _field(2, value) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _field(number: int, content: bytes) -> bytes:
    """A field of wire type 2: bytes with their length before them."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def frame_record(message: bytes) -> bytes:
    """A message in TFRecord's frame."""
    length = len(message).to_bytes(8, "little")
    return length + _masked_crc(length) + message + _masked_crc(message)


def _masked_crc(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")
