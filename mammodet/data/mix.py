"""Training images made of several: lesions pasted from one image into another, and images laid over each other.

What is drawn is a function of the seed, apart from what is done with it. Labels say what the new image shows, and are
not known where that does not follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import masks_to_boxes

from mammodet.config import AugmentConfig
from mammodet.data.breast import find_breast
from mammodet.data.sampling import stable_seed
from mammodet.geometry import Mask, box_rle, rle_to_mask
from mammodet.records import ImageRecord

CONTEXT = 0.3  # of a lesion's longer side: width of the rim in which a pasted lesion fades
LEAST_CONTEXT = 4.0  # pixels
ON_TISSUE = 0.95  # of the pixels of a pasted lesion and its surroundings
PLACES = 20  # that are tried for a lesion
MIXUP_SHARES = (0.4, 0.6)


@dataclass(frozen=True, slots=True)
class Scene:
    """An image in the network's pixels with what it shows."""

    image: Tensor  #: float (C, H, W) in [0, 1]; never changed in place
    #: boxes, labels, masks: of n lesions and regions to ignore: float (n, 4) xyxy, int64 (n,), uint8 (n, H, W) or
    #: None.
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    record: ImageRecord  #: its labels speak of the scene


def tight_boxes(masks: Tensor) -> Tensor:
    """Boxes float (n, 4) around masks (n, H, W), reaching to the far edge of the last pixel."""
    if not len(masks):
        return torch.zeros((0, 4))
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1  # torchvision gives the index of the last pixel
    return boxes


@dataclass(frozen=True, slots=True)
class Paste:
    """A drawn paste."""

    donor: int  #: position of the image whose lesion is pasted
    mirror_xy: tuple[bool, bool]  #: whether the lesion is mirrored
    #: numbers in [0, 1), each a pixel of breast tissue, counted row by row; the best is taken.
    places: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A drawn mixup: the other image's position, and the share of this one."""

    other: int
    share: float


class Mixer:
    """Changes a scene by other images of its data set, of which `copy_paste` needs two `donors`."""

    def __init__(self, config: AugmentConfig, records: Sequence[ImageRecord]) -> None:
        self.copy_paste, self.mixup = config.copy_paste, config.mixup
        self.donors = donors(records)
        self.count = len(records)

    def draw(self, index: int, seed: int) -> tuple[Paste | None, Overlay | None]:
        """What is done to the image at `index`, from its seed alone."""
        rng = np.random.default_rng(stable_seed(seed, "mix"))
        pasted, mixed = rng.random(2)
        donor, mirror, places = rng.random(), rng.random(2) < 0.5, rng.random(PLACES)
        other, share = rng.random(), rng.uniform(*MIXUP_SHARES)
        paste = overlay = None
        if pasted < self.copy_paste:
            place = int(donor * len(self.donors))
            if self.donors[place] == index:
                place = (place + 1) % len(self.donors)
            paste = Paste(self.donors[place], (bool(mirror[0]), bool(mirror[1])), tuple(places.tolist()))
        if mixed < self.mixup and self.count > 1:
            position = int(other * (self.count - 1))
            overlay = Overlay(position + (position >= index), float(share))
        return paste, overlay

    def __call__(self, index: int, scene: Scene, seed: int, load: Callable[[int], Scene]) -> Scene:
        """The changed scene; `load` gives the scene at a position of the data set, unchanged."""
        paste, overlay = self.draw(index, seed)
        if paste is not None:
            scene = paste_lesion(scene, load(paste.donor), paste)
        if overlay is not None:
            scene = mix_scenes(scene, load(overlay.other), overlay.share)
        return scene


def donors(records: Sequence[ImageRecord]) -> list[int]:
    """Positions of images with a single lesion, whose place is known: its surroundings hold no other."""
    return [place for place, record in enumerate(records) if record.has_complete_boxes and len(record.lesions) == 1]


def paste_lesion(scene: Scene, donor: Scene, paste: Paste) -> Scene:
    """The scene with the donor's lesion in its breast, beside its own lesions.

    The lesion comes with some of its surroundings, which fade towards their rim, where their mean brightness is that of
    the new place. The scene stays as it is where the lesion fits nowhere, or lies at the border of its own breast.
    """
    cut = _cut_lesion(donor, paste.mirror_xy)
    corner = _find_place(scene, cut, paste.places) if cut is not None else None
    if cut is None or corner is None:
        return scene
    x, y = corner
    height, width = scene.image.shape[-2:]
    h, w = cut.shape.shape
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + h, height), min(x + w, width)
    inside = slice(top - y, bottom - y), slice(left - x, right - x)
    weight, shape = cut.weight[inside], cut.shape[inside]
    image = scene.image.clone()
    below = image[:, top:bottom, left:right].numpy()
    below[:] += weight * (_matched(cut.pixels[(slice(None), *inside)], below, shape, weight) - below)
    masks = scene.masks
    if masks is not None:
        mask = torch.zeros((1, height, width), dtype=masks.dtype)
        mask[0, top:bottom, left:right] = torch.from_numpy(shape)
        masks = torch.cat([masks, mask])
    box = donor.boxes.new_tensor(cut.box_xyxy) + donor.boxes.new_tensor([x, y, x, y])
    return Scene(
        image,
        torch.cat([scene.boxes, box[None]]),
        torch.cat([scene.labels, donor.labels]),
        masks,
        _with_lesion(scene.record, donor.record),
    )


def _matched(
    lesion: NDArray[np.float32], below: NDArray[np.float32], shape: Mask, weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The lesion (C, h, w), its rim as bright as that of its new place, with less contrast where it would saturate."""
    rim = (weight > 0) & ~shape
    old, new = (pixels[:, rim].mean(axis=1)[:, None, None] for pixels in (lesion, below))
    contrast = lesion - old
    height = np.maximum(contrast[:, shape].max(axis=1)[:, None, None], 1e-6)
    return np.asarray((new + contrast * np.minimum(1, (1 - new) / height)).clip(0, 1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A lesion with its surroundings (h, w): pixels of all channels, its mask, how much each pixel covers, its box."""

    pixels: NDArray[np.float32]
    shape: Mask
    weight: NDArray[np.float32]
    box_xyxy: tuple[float, float, float, float]


def _cut_lesion(donor: Scene, mirror_xy: tuple[bool, bool]) -> _Cut | None:
    """None where the donor's lesion was cropped away, or where the breast's border runs through it."""
    if len(donor.boxes) != 1:
        return None
    height, width = donor.image.shape[-2:]
    x1, y1, x2, y2 = donor.boxes[0].tolist()
    if donor.masks is not None:
        whole = donor.masks[0].numpy().astype(bool)
    else:
        whole = rle_to_mask(box_rle((x1, y1, x2, y2), (height, width), "ellipse"))
    context = max(CONTEXT * max(x2 - x1, y2 - y1), LEAST_CONTEXT)
    left, top = max(int(x1 - context), 0), max(int(y1 - context), 0)
    right, bottom = min(int(np.ceil(x2 + context)), width), min(int(np.ceil(y2 + context)), height)
    window = slice(top, bottom), slice(left, right)
    shape = whole[window]
    # How far inside the breast, and how far outside of the lesion; beyond the image there is no breast.
    depth = cv2.distanceTransform(np.pad(_tissue(donor.image), 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1][window]
    distance = cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, 3)
    fade = np.clip(1 - distance / context, 0, 1)
    weight = fade * fade * (3 - 2 * fade) * np.clip(depth / context, 0, 1)
    if not shape.any() or weight[shape].mean() < ON_TISSUE or not ((weight > 0) & ~shape).any():
        return None
    step_y, step_x = (-1 if mirror else 1 for mirror in (mirror_xy[1], mirror_xy[0]))
    box = (x1 - left, y1 - top, x2 - left, y2 - top)
    if mirror_xy[0]:
        box = (right - left - box[2], box[1], right - left - box[0], box[3])
    if mirror_xy[1]:
        box = (box[0], bottom - top - box[3], box[2], bottom - top - box[1])
    pixels = donor.image[(slice(None), *window)].numpy()[:, ::step_y, ::step_x]
    return _Cut(pixels, shape[::step_y, ::step_x].copy(), weight[::step_y, ::step_x].astype(np.float32), box)


def _find_place(scene: Scene, cut: _Cut, places: Sequence[float]) -> tuple[int, int] | None:
    """Column and row of the cut's corner, where it lies in the breast and beside other lesions.

    Of several places, the one whose rim is most like the lesion's own, in brightness and in its variation.
    """
    height, width = scene.image.shape[-2:]
    tissue = _tissue(scene.image)
    candidates = np.flatnonzero(tissue)
    h, w = cut.shape.shape
    rows, columns = np.nonzero(cut.weight)
    rim = ~cut.shape[rows, columns]
    old = cut.pixels[0, rows, columns][rim]
    fits: list[tuple[float, int, int]] = []
    for place in places if len(candidates) else ():
        row, column = divmod(int(candidates[int(place * len(candidates))]), width)
        x, y = column - w // 2, row - h // 2
        if any(x < b[2] and b[0] < x + w and y < b[3] and b[1] < y + h for b in scene.boxes.tolist()):
            continue
        inside = (rows + y >= 0) & (rows + y < height) & (columns + x >= 0) & (columns + x < width)
        if inside.all() and tissue[rows + y, columns + x].mean() >= ON_TISSUE:
            new = scene.image[0].numpy()[rows + y, columns + x][rim]
            fits.append((float(abs(new.mean() - old.mean()) + abs(new.std() - old.std())), x, y))
    return min(fits)[1:] if fits else None


def _tissue(image: Tensor) -> Mask:
    """Where the breast lies on an image float (C, H, W), by its first channel."""
    height, width = image.shape[-2:]
    return find_breast((image[0].numpy() * 255).astype(np.uint8)).mask_at((height, width))


def _with_lesion(record: ImageRecord, donor: ImageRecord) -> ImageRecord:
    """The record with the answers of its image after the donor's only lesion was pasted into it."""
    (lesion,) = donor.lesions
    pasted = donor.label("malignant") if lesion.malignant is None else lesion.malignant
    labels: dict[str, int | None] = dict.fromkeys(record.labels)
    labels |= {"tumor": 1, "malignant": _either(record.label("malignant"), pasted)}
    return replace(record, labels=labels, birads=None, class_name=None)


def mix_scenes(scene: Scene, other: Scene, share: float) -> Scene:
    """Two images over each other, `share` of the first, with the lesions of both (Zhang et al., arXiv:1902.04103).

    Both lie in the top-left corner of an image as high and as wide as the larger.
    """
    size_hw = [max(scene.image.shape[axis], other.image.shape[axis]) for axis in (1, 2)]
    image = torch.zeros((len(scene.image), *size_hw))
    for pixels, part in ((scene.image, share), (other.image, 1 - share)):
        image[:, : pixels.shape[1], : pixels.shape[2]] += part * pixels
    masks = None
    if scene.masks is not None and other.masks is not None:
        masks = torch.zeros((len(scene.boxes) + len(other.boxes), *size_hw), dtype=scene.masks.dtype)
        for mine, start in ((scene.masks, 0), (other.masks, len(scene.boxes))):
            masks[start : start + len(mine), : mine.shape[1], : mine.shape[2]] = mine
    first, second = scene.record, other.record
    labels: dict[str, int | None] = dict.fromkeys([*first.labels, *second.labels])
    labels |= {name: _either(first.label(name), second.label(name)) for name in ("tumor", "malignant")}
    record = replace(
        first,
        labels=labels,
        laterality=first.laterality if first.laterality == second.laterality else None,
        view=first.view if first.view == second.view else None,
        density=None,
        birads=None,
        class_name=None,
        unlocalized=first.unlocalized or second.unlocalized,
    )
    boxes, names = torch.cat([scene.boxes, other.boxes]), torch.cat([scene.labels, other.labels])
    return Scene(image.clamp_(0, 1), boxes, names, masks, record)


def _either(first: int | None, second: int | None) -> int | None:
    """1 if one is 1, 0 if both are 0, else not known."""
    if 1 in (first, second):
        return 1
    return 0 if first == second == 0 else None
