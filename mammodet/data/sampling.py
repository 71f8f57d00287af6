"""In what order, and how often, images are drawn.

Everything random is a function of (seed, epoch, position): a run that was interrupted, or that has other workers, draws
the same samples with the same augmentation.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mammodet.config import SamplingConfig
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord
from mammodet.targets import Target


class SampleKey(NamedTuple):
    """Which image (its position in the data set), and the seed of its augmentation."""

    position: int
    seed: int


def usable_indices(dataset: Dataset, targets: Sequence[Target], *, boxes: bool = True) -> list[int]:
    """Images that can teach something: at least one answer, or, to a detector, `boxes` (or their absence).

    Where there are regions to ignore, what lies beside them teaches boxes.
    """
    return [
        index
        for index, record in enumerate(dataset.images)
        if (boxes and not record.unlocalized) or any(not math.isnan(target.value(record)) for target in targets)
    ]


class EpochSampler(Sampler[SampleKey]):
    """Keys of one epoch, in batches, for one of several processes.

    The order is a function of (seed, epoch). Images come from pools, each evenly among the others in its share: of one
    class each (`sampling`), or without and with lesions (`negative_fraction`). Each pool starts anew once it is used
    up. Lightning calls `set_epoch`.

    Args:
        negative_fraction: share of images without lesions; None for as many as there are.
        weights: of each image of the data set: within its pool, one of weight 2 is drawn twice as often as one of
            weight 1; None for equally often.
        sampling: which classes are drawn how often, and whether patients are drawn equally often.
        target: whose classes are meant; None for rules that need none.
        epoch_size: images drawn in an epoch; None for what the rule implies.
    Raises:
        InputError: no images, or a pool without any.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        negative_fraction: float | None = None,
        weights: Sequence[float] | None = None,
        sampling: SamplingConfig | None = None,
        target: Target | None = None,
        epoch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not indices:
            raise InputError("training set: no image with a known label or complete boxes")
        sampling = sampling or SamplingConfig()
        self.weights, self.fraction, self.per_patient = weights, negative_fraction, sampling.per_patient
        self.patients = [str(record.patient_id or f"image {record.image_id}") for record in dataset.images]
        self.pools, self.shares, natural = _pools(dataset, indices, sampling, target)
        if negative_fraction is not None:
            self.pools = _by_lesions(dataset, indices, negative_fraction)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.rank, self.world_size = rank, world_size
        self.batches = math.ceil((epoch_size or natural) / (batch_size * world_size))

    def set_epoch(self, epoch: int) -> None:
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
            turns = take_turns(self.shares, total)
        else:
            counts = [math.floor(position * self.fraction + 1e-9) for position in range(total + 1)]
            turns = [after - before for before, after in pairwise(counts)]
        drawn = [iter(self._draw(pool, turns.count(place), name)) for place, (name, pool) in enumerate(self.pools)]
        return [next(drawn[turn]) for turn in turns]

    def _draw(self, pool: Sequence[int], count: int, name: str) -> list[int]:
        if self.weights is None:
            return self._cycle(pool, count, name)
        members: dict[float, list[int]] = {}
        for index in pool:
            members.setdefault(self.weights[index], []).append(index)
        total = sum(weight * len(each) for weight, each in members.items())
        turns = take_turns([weight * len(each) / total for weight, each in members.items()], count)
        drawn = [
            iter(self._cycle(each, turns.count(place), f"{name} of weight {weight:g}"))
            for place, (weight, each) in enumerate(members.items())
        ]
        return [next(drawn[turn]) for turn in turns]

    def _cycle(self, pool: Sequence[int], count: int, name: str) -> list[int]:
        """Images of a pool, shuffled, over and over; or one of each of its patients, over and over."""
        drawn: list[int] = []
        generator = np.random.default_rng(stable_seed(self.seed, self.epoch, name))
        images: dict[str, list[int]] = {}
        for index in pool if self.per_patient else ():
            images.setdefault(self.patients[index], []).append(index)
        patients = sorted(images)
        queues: dict[str, list[int]] = {patient: [] for patient in patients}
        while len(drawn) < count:
            if not self.per_patient:
                drawn.extend(int(index) for index in generator.permutation(pool))
            for number in generator.permutation(len(patients)) if patients else ():
                queue = queues[patients[number]]
                if not queue:
                    queue.extend(int(index) for index in generator.permutation(images[patients[number]]))
                drawn.append(queue.pop())
        return drawn[:count]


def take_turns(shares: Sequence[float], total: int) -> list[int]:
    """Which of several pools each draw comes from; `shares`, together 1, stand evenly among each other.

    The pool that lags most behind its share is next.
    """
    counts = [0] * len(shares)
    turns = []
    for position in range(1, total + 1):
        lags = [share * position - count for share, count in zip(shares, counts, strict=True)]
        turn = lags.index(max(lags))
        counts[turn] += 1
        turns.append(turn)
    return turns


def _by_lesions(dataset: Dataset, indices: Sequence[int], negative_fraction: float) -> list[tuple[str, list[int]]]:
    """The pools of images with and without lesions."""
    negatives = [index for index in indices if is_negative(dataset.images[index])]
    positives = [index for index in indices if not is_negative(dataset.images[index])]
    if negative_fraction and not negatives:
        raise InputError(f"data.negative_fraction={negative_fraction}: the training set has no image without lesions")
    if negative_fraction < 1 and not positives:
        raise InputError(f"data.negative_fraction={negative_fraction}: the training set has no image with lesions")
    return [("positive", positives), ("negative", negatives)]


def _pools(
    dataset: Dataset, indices: Sequence[int], config: SamplingConfig, target: Target | None
) -> tuple[list[tuple[str, list[int]]], list[float], int]:
    """Named pools of images, the share of each in what is drawn (together 1), and the natural length of an epoch."""
    if config.rule == "all" or target is None:
        return [("all", list(indices))], [1.0], len(indices)
    pools: dict[float, list[int]] = {}
    for index in indices:
        value = target.value(dataset.images[index])
        if not math.isnan(value):
            pools.setdefault(value, []).append(index)
    if len(pools) < 2:
        raise InputError(f"data.sampling.rule={config.rule}: training images are all of one class of {config.target}")
    values = sorted(pools)
    sizes = [len(pools[value]) for value in values]
    named = [(f"{config.target} {value:g}", pools[value]) for value in values]
    if config.rule == "oversample":
        rare = values.index(1.0) if target.classes is None else sizes.index(min(sizes))
        weights = [size * (config.factor if place == rare else 1) for place, size in enumerate(sizes)]
        return named, [weight / sum(weights) for weight in weights], round(sum(weights))
    length = min(sizes) * len(values) if config.rule == "undersample" else sum(sizes)
    return named, [1 / len(values)] * len(values), length


class BreastBatches(Sampler[list[SampleKey]]):
    """Batches of whole breasts: `sampler` draws the first image of each, `breasts` has all of its by that one."""

    def __init__(self, sampler: EpochSampler, breasts: dict[int, list[int]]) -> None:
        self.sampler = sampler  # by this name Lightning finds its `set_epoch`
        self.breasts = breasts

    def __len__(self) -> int:
        return self.sampler.batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batch: list[SampleKey] = []
        drawn = 0
        for key in self.sampler:
            batch += [SampleKey(index, stable_seed(key.seed, index)) for index in self.breasts[key.position]]
            drawn += 1
            if drawn == self.sampler.batch_size:
                yield batch
                batch, drawn = [], 0


def is_negative(record: ImageRecord) -> bool:
    """Whether an image is known to hold no lesion."""
    return not record.lesions and not record.unlocalized and record.label("tumor") != 1


def stable_seed(*parts: object) -> int:
    """A 63-bit seed of any parts, the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
