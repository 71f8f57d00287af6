"""Training and inference samples from a data set file, and the order in which they are drawn.

Everything random is a function of (seed, epoch, position): a run that was interrupted, or that has other workers, draws
the same samples with the same augmentation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mammodet.config import AugmentConfig, ImageConfig
from mammodet.data.augment import augment, build_augment, tight_boxes
from mammodet.data.images import read_image
from mammodet.data.preprocess import prepare_image
from mammodet.errors import InputError
from mammodet.geometry import Mask, clip_boxes, rle_to_mask
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.trace import Trace


class SampleKey(NamedTuple):
    """Which image (its position in the data set), and the seed of its augmentation."""

    position: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One image ready for the network.

    Attributes:
        image: float (C, H, W) in [0, 1].
        target: `boxes` float (n, 4) xyxy, `labels` int64 (n,) 1-based, `masks` uint8 (n, H, W) where there are masks.
        use_boxes: False for an image on which a lesion has no place: it must not teach boxes.
        labels: float (T,), NaN where not known.
    """

    image: Tensor
    target: dict[str, Tensor]
    use_boxes: bool
    labels: Tensor
    record: ImageRecord
    trace: Trace


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples side by side; images keep their own sizes, the detector pads them."""

    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    use_boxes: list[bool]
    labels: Tensor
    records: tuple[ImageRecord, ...]
    traces: tuple[Trace, ...]

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Move the tensors, as `Tensor.to` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Pinned host memory, for faster copies to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> Batch:
        return Batch(
            [change(image) for image in self.images],
            [{key: change(value) for key, value in target.items()} for target in self.targets],
            self.use_boxes,
            change(self.labels),
            self.records,
            self.traces,
        )

    def __len__(self) -> int:
        return len(self.images)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to a batch."""
    return Batch(
        [sample.image for sample in samples],
        [sample.target for sample in samples],
        [sample.use_boxes for sample in samples],
        torch.stack([sample.labels for sample in samples]),
        tuple(sample.record for sample in samples),
        tuple(sample.trace for sample in samples),
    )


class LesionDataset(TorchDataset[Sample]):
    """Images of a data set file as samples, with their lesions as targets.

    Args:
        dataset: the records.
        root: folder that their file names start from.
        targets: names of image labels, in the order of `Sample.labels`.
        with_masks: whether targets hold masks.
        augment: random changes, or None for none (validation, prediction).
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        image: ImageConfig,
        targets: Sequence[str],
        *,
        with_masks: bool,
        augment: AugmentConfig | None = None,
    ) -> None:
        self.dataset = dataset
        self.root = root
        self.image = image
        self.targets = tuple(targets)
        self.with_masks = with_masks
        self.chain = build_augment(augment) if augment is not None else None

    def __len__(self) -> int:
        return len(self.dataset.images)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        index, seed = key if isinstance(key, tuple) else (key, 0)
        record = self.dataset.images[index]
        path = self.root / record.file_name
        pixels = read_image(path)
        if pixels.shape != record.size_hw:
            raise InputError(
                f"{path}: the file is {pixels.shape[0]}x{pixels.shape[1]}, its record says "
                f"{record.size_hw[0]}x{record.size_hw[1]} (height x width); re-run the converter"
            )
        array, trace = prepare_image(pixels, self.image, record.breast_box_xyxy)
        image = torch.from_numpy(array)
        boxes, labels, masks = self._lesions(record, trace)
        if self.chain is not None:
            image, boxes, masks, keep = augment(self.chain, image, boxes, masks, seed)
            labels = labels[keep]
        target = {"boxes": boxes, "labels": labels}
        if masks is not None:
            target["masks"] = masks
        known = [record.label(name) for name in self.targets]
        return Sample(
            image,
            target,
            record.has_complete_boxes,
            torch.tensor([math.nan if label is None else float(label) for label in known]),
            record,
            trace,
        )

    def _lesions(self, record: ImageRecord, trace: Trace) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes, labels and masks of a record's lesions in the network's pixels; what the crop cut off is gone."""
        lesions = [lesion for lesion in record.lesions if not lesion.ignore]
        size_hw = trace.output_size_hw
        labels = torch.tensor([self.dataset.category_id(lesion.category) for lesion in lesions], dtype=torch.int64)
        if self.with_masks:
            arrays = [trace.mask_forward(_native_mask(lesion, record.size_hw)) for lesion in lesions]
            masks = torch.from_numpy(np.stack(arrays).astype(np.uint8)) if arrays else torch.zeros((0, *size_hw))
            masks = masks.to(torch.uint8)
            keep = masks.flatten(1).bool().any(dim=1)
            return tight_boxes(masks[keep]), labels[keep], masks[keep]
        boxes = clip_boxes(trace.boxes_forward([lesion.box_xyxy for lesion in lesions]), size_hw)
        keep = torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= 1)
        return torch.from_numpy(boxes).float()[keep], labels[keep], None


def _native_mask(lesion: Lesion, size_hw: tuple[int, int]) -> Mask:
    """A lesion's mask bool (height, width); its box filled in where only that is known."""
    if lesion.rle is not None:
        return rle_to_mask(lesion.rle)
    (x1, y1, x2, y2), (height, width) = lesion.box_xyxy, size_hw
    mask = np.zeros(size_hw, dtype=bool)
    rows = slice(max(math.floor(y1), 0), min(math.ceil(y2), height))
    mask[rows, max(math.floor(x1), 0) : min(math.ceil(x2), width)] = True
    return mask


def usable_indices(dataset: Dataset, targets: Sequence[str]) -> list[int]:
    """Images that can teach something: boxes (or their absence), or at least one known label."""
    return [
        index
        for index, record in enumerate(dataset.images)
        if record.has_complete_boxes or any(record.label(name) is not None for name in targets)
    ]


class EpochSampler(Sampler[SampleKey]):
    """Keys of one epoch, in batches, for one of several processes.

    The order is a function of (seed, epoch). With `negative_fraction`, images without lesions stand evenly among the
    others in that share; each pool starts anew when it is used up. Lightning calls `set_epoch`.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        negative_fraction: float | None = None,
        epoch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not indices:
            raise InputError("training set: no image with a known label or complete boxes")
        self.indices = list(indices)
        self.negatives = [index for index in indices if is_negative(dataset.images[index])]
        self.positives = [index for index in indices if not is_negative(dataset.images[index])]
        if negative_fraction and not self.negatives:
            raise InputError(
                f"data.negative_fraction={negative_fraction}: the training set has no image without lesions"
            )
        if negative_fraction is not None and negative_fraction < 1 and not self.positives:
            raise InputError(f"data.negative_fraction={negative_fraction}: the training set has no image with lesions")
        self.batch_size, self.seed, self.fraction = batch_size, seed, negative_fraction
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        whole = batch_size * world_size
        self.batches = math.ceil((epoch_size or len(self.indices)) / whole)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order `__iter__` gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        total = self.batches * self.batch_size * self.world_size
        order = self._order(total)
        for batch in range(self.batches):
            start = (batch * self.world_size + self.rank) * self.batch_size
            for position in range(start, start + self.batch_size):
                yield SampleKey(order[position], stable_seed(self.seed, self.epoch, position))

    def _order(self, total: int) -> list[int]:
        if self.fraction is None:
            return self._draw(self.indices, total, "all")
        counts = [math.floor((position + 1) * self.fraction + 1e-9) for position in range(total)]
        negatives = iter(self._draw(self.negatives, counts[-1], "negative"))
        positives = iter(self._draw(self.positives, total - counts[-1], "positive"))
        return [
            next(negatives) if count > before else next(positives)
            for before, count in zip([0, *counts], counts, strict=False)
        ]

    def _draw(self, pool: Sequence[int], count: int, name: str) -> list[int]:
        drawn: list[int] = []
        generator = np.random.default_rng(stable_seed(self.seed, self.epoch, name))
        while len(drawn) < count:
            drawn.extend(int(index) for index in generator.permutation(pool))
        return drawn[:count]


def is_negative(record: ImageRecord) -> bool:
    """Whether an image is known to hold no lesion."""
    return not record.lesions and not record.unlocalized and record.label("tumor") != 1


def stable_seed(*parts: object) -> int:
    """A 63-bit seed of any parts, the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_loader(
    dataset: LesionDataset, *, batch_size: int, num_workers: int, sampler: EpochSampler | None = None
) -> DataLoader[Sample]:
    """A loader of `Batch`es; without a sampler in the file's order, the last batch as small as it comes."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )
