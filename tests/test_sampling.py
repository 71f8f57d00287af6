"""How often classes, patients and breasts are drawn."""

from __future__ import annotations

from collections import Counter

import pytest

from mammodet.config import SamplingConfig
from mammodet.data.breasts import breasts_of
from mammodet.data.sampling import BreastBatches, EpochSampler, SampleKey, usable_indices
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord
from mammodet.targets import Target

TUMOR = Target("tumor")


def record(number: int, tumor: int | None = None, patient: str | None = None, **known: object) -> ImageRecord:
    return ImageRecord(number, f"{number}.png", (8, 8), patient, labels={"tumor": tumor}, **known)  # type: ignore[arg-type]


def pool(negatives: int, positives: int, unknown: int = 0) -> Dataset:
    answers = [0] * negatives + [1] * positives + [None] * unknown
    return Dataset(("lesion",), tuple(record(number, answer) for number, answer in enumerate(answers)))


def sampler(dataset: Dataset, target: Target | None = TUMOR, **options: object) -> EpochSampler:
    settings = {key: options.pop(key) for key in ("rule", "factor", "per_patient") if key in options}
    config = SamplingConfig(target=target.name if target else None, **settings)  # type: ignore[arg-type]
    given = {"batch_size": 4, "seed": 0} | options
    return EpochSampler(dataset, range(len(dataset.images)), sampling=config, target=target, **given)  # type: ignore[arg-type]


def positions(keys: EpochSampler) -> list[int]:
    return [key.position for key in keys]


def test_balanced_draws_classes_equally_and_evenly():
    drawn = positions(sampler(pool(30, 2), rule="balanced", epoch_size=40))
    assert sum(position >= 30 for position in drawn) == 20
    for start in range(0, 40, 4):
        assert sum(position >= 30 for position in drawn[start : start + 4]) == 2


def test_balanced_gives_three_classes_a_third_each():
    images = tuple(record(number, density="AAAAAABBC"[number]) for number in range(9))
    density = Target("density", ("A", "B", "C"))
    drawn = positions(sampler(Dataset(("lesion",), images), density, rule="balanced", epoch_size=12))
    assert Counter("AAAAAABBC"[position] for position in drawn) == {"A": 4, "B": 4, "C": 4}


def test_oversample_draws_positives_factor_times_as_often():
    # 20 negatives + 3 * 4 positives = 32: one epoch shows every negative once and every positive three times
    counts = Counter(positions(sampler(pool(20, 4), rule="oversample", factor=3)))
    assert [counts[position] for position in range(24)] == [1] * 20 + [3] * 4


def test_undersample_drops_the_others_anew_each_epoch():
    keys = sampler(pool(40, 4), rule="undersample")
    assert len(keys) == 8
    first = positions(keys)
    assert sorted(position for position in first if position >= 40) == [40, 41, 42, 43]
    negatives = {position for position in first if position < 40}
    assert len(negatives) == 4
    keys.set_epoch(1)
    assert {position for position in positions(keys) if position < 40} != negatives


def test_unknown_answers_are_not_drawn_by_class():
    assert max(positions(sampler(pool(4, 4, unknown=5), rule="balanced"))) < 8


def test_per_patient_draws_patients_equally():
    images = [record(number, 0, "many") for number in range(9)] + [record(9, 1, "one"), record(10, 0, "two")]
    dataset = Dataset(("lesion",), tuple(images))
    drawn = positions(sampler(dataset, None, per_patient=True, epoch_size=24))
    assert Counter(images[position].patient_id for position in drawn) == {"many": 8, "one": 8, "two": 8}
    # and of a patient every image before any comes again
    assert len({position for position in drawn if position < 9}) == 8


def test_per_patient_within_classes():
    images = [record(number, 0, "many") for number in range(6)] + [record(6, 0, "few"), record(7, 1, "sick")]
    drawn = positions(sampler(Dataset(("lesion",), tuple(images)), rule="balanced", per_patient=True, epoch_size=16))
    assert Counter(images[position].patient_id for position in drawn) == {"many": 4, "few": 4, "sick": 8}


def test_per_patient_keeps_the_share_of_negatives():
    images = [record(number, 0, "many") for number in range(6)] + [record(6, 0, "few"), record(7, 1, "sick")]
    drawn = positions(sampler(Dataset(("lesion",), tuple(images)), None, per_patient=True, negative_fraction=0.5))
    assert Counter(images[position].patient_id for position in drawn) == {"many": 2, "few": 2, "sick": 4}


@pytest.mark.parametrize("rule", ["balanced", "undersample"])
def test_one_class_alone_is_refused(rule):
    with pytest.raises(InputError, match=f"sampling.rule={rule}: training images are all of one class of tumor"):
        sampler(pool(4, 0), rule=rule)


def test_class_order_is_a_function_of_seed_and_epoch_and_shared_by_ranks():
    options = {"rule": "balanced", "epoch_size": 16}
    one = list(sampler(pool(9, 3), batch_size=4, **options))
    ranks = [list(sampler(pool(9, 3), rank=rank, world_size=2, batch_size=2, **options)) for rank in range(2)]
    together = [key for start in range(0, 8, 2) for rank in ranks for key in rank[start : start + 2]]
    assert together == one
    assert list(sampler(pool(9, 3), batch_size=4, seed=1, **options)) != one


def test_breasts_gather_views_and_leave_strangers_alone():
    images = [
        record(0, patient="p", laterality="L"),
        record(1, patient="p", laterality="R"),
        record(2, patient="p", laterality="L"),
        record(3, patient="q"),
        record(4),
    ]
    assert breasts_of(images) == {0: [0, 2], 1: [1], 3: [3], 4: [4]}


def test_breast_batches_hold_whole_breasts_with_their_own_seeds():
    images = tuple(record(number, 0, f"p{number // 2}", laterality="L") for number in range(8))
    breasts = breasts_of(images)
    inner = EpochSampler(Dataset(("lesion",), images), list(breasts), batch_size=2, seed=0)
    batches = list(BreastBatches(inner, breasts))
    assert len(batches) == len(BreastBatches(inner, breasts)) == 2
    assert sorted(key.position for batch in batches for key in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 4
        assert {key.position ^ 1 for key in batch} == {key.position for key in batch}
    assert len({key.seed for batch in batches for key in batch}) == 8
    assert all(isinstance(key, SampleKey) for batch in batches for key in batch)


def test_usable_are_images_with_an_answer_and_for_boxes_those_without_lesions():
    images = (record(0, None), record(1, 1), record(2, None, density="A"))
    dataset = Dataset(("lesion",), images)
    assert usable_indices(dataset, [TUMOR], boxes=False) == [1]
    assert usable_indices(dataset, [TUMOR, Target("density", ("A", "B"))], boxes=False) == [1, 2]
    assert usable_indices(dataset, [TUMOR]) == [0, 1, 2]
