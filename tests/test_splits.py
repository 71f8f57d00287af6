"""Patients divided: grouped, in their strata's shares, and the same on every machine."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from mammodet.data.splits import Splits, make_splits
from mammodet.errors import InputError


def strata_of(counts: dict[str, int]) -> dict[str, str]:
    return {f"{name}_{number:03d}": name for name, count in counts.items() for number in range(count)}


def split(strata: dict[str, str], **options):
    return make_splits(strata, **{"test_fraction": 0.2, "val_fraction": 0.16, "folds": 5, "seed": 0} | options)


def test_every_patient_stands_once():
    strata = strata_of({"normal": 100, "benign": 36, "malignant": 25})
    splits = split(strata)
    assert sorted(splits.holdout) == sorted(strata)
    assert set(splits.holdout.values()) == {"train", "val", "test"}
    outside = [patient for patient, subset in splits.holdout.items() if subset != "test"]
    assert sorted(splits.folds) == sorted(outside)


def test_shares_are_met_in_all_and_in_every_stratum():
    counts = {"normal": 100, "benign": 40, "malignant": 25}
    strata = strata_of(counts)
    splits = split(strata)
    assert Counter(splits.holdout.values()) == {"test": 33, "val": 26, "train": 106}
    for name, count in counts.items():
        for subset, share in (("test", 0.2), ("val", 0.16)):
            found = sum(splits.holdout[patient] == subset for patient in strata if strata[patient] == name)
            assert abs(found - share * count) <= 1, (name, subset)
        folds = Counter(splits.folds[patient] for patient in splits.folds if strata[patient] == name)
        assert max(folds.values()) - min(folds.values()) <= 1


def test_folds_partition_the_patients_outside_the_test_set():
    strata = strata_of({"a": 30, "b": 11})
    splits = split(strata, folds=4)
    validated = [patient for fold in range(4) for patient in strata if splits.subset(patient, fold) == "val"]
    assert sorted(validated) == sorted(splits.folds)
    for fold in range(4):
        subsets = {patient: splits.subset(patient, fold) for patient in strata}
        assert {patient for patient, subset in subsets.items() if subset == "test"} == {
            patient for patient, subset in splits.holdout.items() if subset == "test"
        }
        assert "train" in subsets.values()


def test_subset_without_a_fold_is_the_holdout():
    splits = split(strata_of({"a": 20}))
    assert all(splits.subset(patient, None) == subset for patient, subset in splits.holdout.items())


def test_split_does_not_depend_on_the_order_of_patients():
    strata = strata_of({"normal": 40, "benign": 17, "malignant": 9})
    items = list(strata.items())
    random.Random(3).shuffle(items)
    first, second = split(strata), split(dict(items))
    assert first == second
    assert list(first.holdout) == list(second.holdout)


def test_split_is_pinned():
    # Computed once with this very code: it changes only when every split ever published changes, too.
    splits = split({f"p{number}": "ab"[number % 2] for number in range(10)}, folds=2, seed=7)
    assert "".join(splits.holdout[f"p{number}"][:2] for number in range(10)) == "trtrtrtevatrtetrtrtr"
    assert splits.hash[:12] == "e1454af5def6"


def test_seed_and_assignment_change_the_hash():
    strata = strata_of({"a": 40})
    assert split(strata).hash == split(strata).hash
    assert split(strata, seed=1).holdout != split(strata).holdout
    hashes = {split(strata, **options).hash for options in ({}, {"seed": 1}, {"folds": 4}, {"test_fraction": 0.25})}
    assert len(hashes) == 4


def test_hash_is_of_the_assignment_not_of_the_seed():
    strata = strata_of({"a": 3})
    options = {"test_fraction": 0, "val_fraction": 0, "folds": 0}
    assert split(strata, seed=1, **options).hash == split(strata, seed=2, **options).hash


def test_no_shares_and_no_folds_leave_all_in_train():
    splits = split(strata_of({"a": 5}), test_fraction=0, val_fraction=0, folds=0)
    assert set(splits.holdout.values()) == {"train"}
    assert splits.folds == {}


@pytest.mark.parametrize("count", range(1, 8))
def test_tiny_counts_leave_someone_to_train_on(count):
    splits = split(strata_of({"a": count}), folds=0)
    found = Counter(splits.holdout.values())
    assert found["train"] >= 1
    assert sum(found.values()) == count


def test_as_many_folds_as_patients_is_leave_one_out():
    splits = split(strata_of({"a": 4}), test_fraction=0, val_fraction=0, folds=4)
    assert sorted(splits.folds.values()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.6, "val_fraction": 0.4}, "stay below 1 together"),
        ({"test_fraction": -0.1}, "--test-fraction -0.1"),
        ({"val_fraction": 1}, "--val-fraction 1:"),
        ({"test_fraction": math.nan}, "--test-fraction nan"),
        ({"folds": 1}, "--folds 1: expected 0 .none., or 2 and more"),
        ({"folds": -1}, "--folds -1"),
        ({"folds": 9}, "--folds 9 for 8 patients outside the test set"),
    ],
)
def test_impossible_splits_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        split(strata_of({"a": 10}), **options)


def test_no_patients_are_refused():
    with pytest.raises(InputError, match="0 patients leave none to train on"):
        split({}, folds=0)


GIVEN = {f"p{number:02d}": "test" if number < 4 else "train" for number in range(20)}


def given(sides: dict[str, str], **options) -> Splits:
    chosen = {"test_fraction": 0.5, "val_fraction": 0.2, "folds": 0, "seed": 0} | options
    return make_splits(dict.fromkeys(sides, "a"), given=sides, **chosen)


def test_given_test_set_stays_and_validation_comes_from_training():
    splits = given(GIVEN, folds=4)
    assert splits.name == "official"
    assert {name for name, side in splits.holdout.items() if side == "test"} == {"p00", "p01", "p02", "p03"}
    assert list(splits.holdout.values()).count("val") == 4  # a fifth of all 20
    assert set(splits.folds) == {name for name, side in GIVEN.items() if side == "train"}


def test_given_validation_set_is_kept():
    sides = GIVEN | {"p19": "val"}
    assert given(sides).holdout == sides


def test_given_test_set_alone_needs_no_training():
    assert set(given(dict.fromkeys("abc", "test")).holdout.values()) == {"test"}


def test_given_split_that_leaves_none_to_train_on_is_refused():
    with pytest.raises(InputError, match="leave none to train on"):
        given(GIVEN, val_fraction=0.9)
