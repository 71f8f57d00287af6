"""Loaders for the processes that Lightning starts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import lightning as L
from torch.utils.data import DataLoader

from mammodet.data.breasts import breasts_of
from mammodet.data.dataset import LesionDataset, Sample, make_loader
from mammodet.data.prepared import DiskCache, MemoryCache
from mammodet.data.sampling import BreastBatches, EpochSampler, usable_indices
from mammodet.engine.checked_run import Run
from mammodet.records import Dataset, ImageRecord


class Loaders(L.LightningDataModule):
    """Training and validation batches of a run.

    Args:
        say: takes lines about the images that are prepared ahead of the first epoch.
    """

    def __init__(self, run: Run, say: Callable[[str], None] = print) -> None:
        super().__init__()
        self.run, self.say = run, say
        data = run.config.data
        self.caches: dict[bool, DiskCache | MemoryCache] = {}
        if data.cache == "disk":
            self.caches = dict.fromkeys((True, False), DiskCache(data.cache_folder, run.root, data.image))
        elif data.cache == "memory":
            self.caches = {training: MemoryCache(run.root, data.image) for training in (True, False)}
        self.joins_views = run.config.model.joins_views

    def prepare_data(self) -> None:
        """Fill the cache on disk; Lightning calls this in one process of a machine, and lets the others wait."""
        if self.run.config.data.cache == "disk":
            self._fill_caches()

    def setup(self, stage: str) -> None:
        """Fill the cache in memory, of every process its own; the loaders' workers share it."""
        if self.run.config.data.cache == "memory":
            self._fill_caches()

    def _fill_caches(self) -> None:
        jobs = max(self.run.config.data.num_workers, 1)
        train = [self.run.train.images[index] for index in self._usable()]
        parts: dict[bool, Sequence[ImageRecord]] = {True: train, False: self.run.val.images}
        for training, records in parts.items():
            name = f"preparing {'training' if training else 'validation'} images"
            self.caches[training].fill(records, jobs=jobs, name=name, say=self.say)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Drawn anew each epoch."""
        data, trainer = self.run.config.data, self.trainer
        assert trainer is not None
        usable = self._usable()
        breasts: dict[int, list[int]] = {}
        if self.joins_views:
            every = breasts_of([self.run.train.images[index] for index in usable])
            breasts = {usable[first]: [usable[place] for place in places] for first, places in every.items()}
        sampler = self._sampler(list(breasts) or usable)
        sampler.set_epoch(trainer.current_epoch)
        return make_loader(
            self._samples(self.run.train, training=True),
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            sampler=sampler,
            batches=BreastBatches(sampler, breasts) if breasts else None,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """In the file's order, or breast by breast."""
        trainer, data = self.trainer, self.run.config.data
        assert trainer is not None
        images = self.run.val.images
        rank, size = trainer.global_rank, trainer.world_size
        if not self.joins_views:
            part = replace(self.run.val, images=images[rank::size])
            samples = self._samples(part, training=False)
            return make_loader(samples, batch_size=data.batch_size, num_workers=data.num_workers)
        samples = self._samples(self.run.val, training=False)
        mine = list(breasts_of(images).values())[rank::size]
        return make_loader(samples, batch_size=1, num_workers=data.num_workers, batches=mine)

    def _usable(self) -> list[int]:
        model = self.run.config.model
        return usable_indices(self.run.train, model.targets, boxes=model.detects)

    def _sampler(self, indices: list[int]) -> EpochSampler:
        data, trainer = self.run.config.data, self.trainer
        assert trainer is not None
        targets = {target.name: target for target in self.run.config.model.targets}
        return EpochSampler(
            self.run.train,
            indices,
            batch_size=data.batch_size,
            seed=self.run.config.seed,
            negative_fraction=data.negative_fraction,
            weights=self.run.weights,
            sampling=data.sampling,
            target=targets.get(data.sampling.target or ""),
            epoch_size=data.epoch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _samples(self, dataset: Dataset, *, training: bool) -> LesionDataset:
        data, model = self.run.config.data, self.run.config.model
        return LesionDataset(
            dataset,
            self.run.root,
            data.image,
            self.run.config.model.targets,
            with_masks=model.with_masks and training,
            box_masks=data.box_masks,
            augment=data.augment if training else None,
            prepared=self.caches.get(training),
        )
