"""Training and inference samples from a data set file."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from mammodet.config import AugmentConfig, ImageConfig
from mammodet.data.breasts import breast_key
from mammodet.data.mix import Mixer, Scene, tight_boxes
from mammodet.data.prepared import MemoryCache, Prepared, prepare_record
from mammodet.data.sampling import EpochSampler, SampleKey
from mammodet.errors import InputError
from mammodet.geometry import BoxShape, Mask, clip_boxes, lesion_rle, rle_box
from mammodet.parallel import use_one_thread
from mammodet.records import Dataset, ImageRecord, Lesion, Rle
from mammodet.run_lengths import mask_patch
from mammodet.targets import Target
from mammodet.trace import Trace

#: The label of a region to ignore among those of lesions, which count from 1.
IGNORED = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One image ready for the network."""

    image: Tensor  #: float (C, H, W) in [0, 1]
    #: `boxes` float (n, 4) xyxy, `labels` int64 (n,) 1-based, `masks` uint8 (n, H, W) where there are masks; `ignored`
    #: float (m, 4) xyxy, boxes of the regions to ignore.
    target: dict[str, Tensor]
    use_boxes: bool  #: False for an image on which a lesion has no place: it must not teach boxes
    labels: Tensor  #: float (T,), the label or the class's position for each question, NaN where not known
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

    @property
    def breasts(self) -> list[int]:
        """For each image the number of its breast in this batch, 0 to n-1."""
        numbers: dict[tuple[str, ...], int] = {}
        return [numbers.setdefault(breast_key(record), len(numbers)) for record in self.records]

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """Move the tensors, as `Tensor.to` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> "Batch":
        """Pinned host memory, for faster copies to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> "Batch":
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
    batch = Batch(
        [sample.image for sample in samples],
        [sample.target for sample in samples],
        [sample.use_boxes for sample in samples],
        torch.stack([sample.labels for sample in samples]),
        tuple(sample.record for sample in samples),
        tuple(sample.trace for sample in samples),
    )
    in_shared_memory([*batch.images, batch.labels, *(each for target in batch.targets for each in target.values())])
    return batch


def in_shared_memory(tensors: Iterable[Tensor]) -> None:
    """Put what a loader's worker has made where the main process can read it; elsewhere nothing is done.

    torch would do so in a thread of its own, whose errors nobody hears: the main process would wait for ever.

    Raises InputError: there is no room.
    """
    worker = get_worker_info()
    if worker is None:
        return
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise InputError(
            f"shared memory is too small for what {worker.num_workers} workers read ahead (df -h /dev/shm; "
            f"{str(error).splitlines()[0]}). Start the container with --shm-size=8g or --ipc=host, or read images in "
            "the main process: data.num_workers=0 (mammodet predict: --num-workers 0)"
        ) from None


class LesionDataset(TorchDataset[Sample]):
    """Images of a data set file as samples, with their lesions as targets.

    Args:
        dataset: the records.
        root: folder that their file names start from.
        targets: questions for the image, in the order of `Sample.labels`.
        with_masks: whether targets hold masks.
        box_masks: what a lesion with a box only has for a mask.
        prepared: gives the network's input and its trace, as a cache does; by default from the file, each time anew.
        augment: random changes, or None for none (validation, prediction).
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        image: ImageConfig,
        targets: Sequence[Target],
        *,
        with_masks: bool,
        box_masks: Literal["none", "ellipse", "box"] = "none",
        augment: AugmentConfig | None = None,
        prepared: Callable[[ImageRecord], Prepared] | None = None,
    ) -> None:
        self.dataset = dataset
        self.root = root
        self.image = image
        self.targets = tuple(targets)
        self.with_masks, self.box_masks = with_masks, box_masks
        self.prepared = prepared or partial(prepare_record, root, image)
        self.chain = None
        if augment is not None:
            from mammodet.data.augment import build_augment  # here: torchvision's transforms take long to import

            self.chain = build_augment(augment)
        self.mixer = Mixer(augment, dataset.images) if augment is not None and augment.mixes_images else None

    def __len__(self) -> int:
        return len(self.dataset.images)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        index, seed = key if isinstance(key, tuple) else (key, 0)
        scene, trace = self._scene(index)
        if self.mixer is not None:
            scene = self.mixer(index, scene, seed, lambda other: self._scene(other)[0])
        image, boxes, labels, masks = scene.image, scene.boxes, scene.labels, scene.masks
        if self.chain is not None:
            from mammodet.data.augment import augment

            image, boxes, masks, keep = augment(self.chain, image, boxes, masks, seed)
            labels = labels[keep]
        wanted = labels != IGNORED
        target = {"boxes": boxes[wanted], "labels": labels[wanted], "ignored": boxes[~wanted]}
        if masks is not None:
            target["masks"] = masks[wanted]
        return Sample(
            image,
            target,
            not scene.record.unlocalized,
            torch.tensor([target.value(scene.record) for target in self.targets]),
            self.dataset.images[index],
            trace,
        )

    def _scene(self, index: int) -> tuple[Scene, Trace]:
        """An image before anything random, with its lesions."""
        record = self.dataset.images[index]
        array, trace = self.prepared(record)
        return Scene(torch.from_numpy(array), *self._lesions(record, trace), record), trace

    def _lesions(self, record: ImageRecord, trace: Trace) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes, labels and masks of a record's lesions in the network's pixels; what the crop cut off is gone."""
        lesions, size_hw = record.lesions, trace.output_size_hw
        numbers = [IGNORED if lesion.ignore else self.dataset.category_id(lesion.category) for lesion in lesions]
        labels = torch.tensor(numbers, dtype=torch.int64)
        if self.with_masks:
            arrays = [_patch_forward(self._mask(lesion, record), trace) for lesion in lesions]
            masks = torch.from_numpy(np.stack(arrays).astype(np.uint8)) if arrays else torch.zeros((0, *size_hw))
            masks = masks.to(torch.uint8)
            keep = masks.flatten(1).bool().any(dim=1)
            return tight_boxes(masks[keep]), labels[keep], masks[keep]
        boxes = clip_boxes(trace.boxes_forward([lesion.box_xyxy for lesion in lesions]), size_hw)
        keep = torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= 1)
        return torch.from_numpy(boxes).float()[keep], labels[keep], None

    def _mask(self, lesion: Lesion, record: ImageRecord) -> Rle:
        """A lesion's native mask: its own, or what is made of its box."""
        if not lesion.has_outline and self.box_masks == "none" and not lesion.ignore:
            raise InputError(
                f"image {record.file_name!r}: a lesion at {lesion.box_xyxy} (xyxy px) has a box only; "
                "data.box_masks=ellipse makes a mask of it"
            )
        shape: BoxShape = "ellipse" if self.box_masks == "ellipse" and not lesion.ignore else "box"
        return lesion_rle(lesion, record.size_hw, shape)


def _patch_forward(rle: Rle, trace: Trace) -> Mask:
    x1, y1, x2, y2 = (int(side) for side in rle_box(rle))
    return trace.patch_forward(mask_patch(rle, (x1, y1, x2, y2)), (x1, y1))


def make_loader(
    dataset: LesionDataset,
    *,
    batch_size: int,
    num_workers: int,
    sampler: EpochSampler | None = None,
    batches: Sampler[list[Any]] | Sequence[Sequence[int]] | None = None,
) -> DataLoader[Sample]:
    """A loader of `Batch`es: of a sampler, of `batches` of breasts, or in the file's order, the last one short."""
    drawn: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler} if batches is None else {}
    if batches is not None:
        drawn["batch_sampler"] = batches
    if num_workers:
        use_one_thread()
    if num_workers and isinstance(dataset.prepared, MemoryCache) and sys.platform == "linux":
        drawn["multiprocessing_context"] = "fork"  # shares the images; other ways to start a process copy them
    return DataLoader(
        dataset,
        **drawn,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )


def _start_worker(worker: int) -> None:
    use_one_thread()
