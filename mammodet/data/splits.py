"""Patient-grouped, stratified splits that do not depend on the order of files, the machine or a library's version.

Patients of one stratum are shuffled by a hash of seed and id and dealt out in turn, so that each part gets its share of
each stratum, and the images of one patient never part.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mammodet.errors import InputError
from mammodet.files import canonical_hash


@dataclass(frozen=True, slots=True)
class Splits:
    """Who is where."""

    holdout: Mapping[str, str]  #: patient to `train`, `val` or `test`
    folds: Mapping[str, int]  #: patient to 0 ... k-1, for all patients that are not in `test`; empty without folds.
    seed: int  #: what the shuffle started from
    name: str = "holdout"  #: `holdout`, or `official` where the archive says who is in the test set

    @property
    def hash(self) -> str:
        """SHA-256 of the assignment."""
        return canonical_hash({"holdout": dict(self.holdout), "folds": dict(self.folds)})

    def subset(self, patient: str, fold: int | None) -> str:
        """`train`, `val` or `test`, for the holdout (None) or with fold number `fold` as validation."""
        if fold is None or self.holdout[patient] == "test":
            return self.holdout[patient]
        return "val" if self.folds[patient] == fold else "train"


def check_shares(*, test_fraction: float, val_fraction: float, folds: int) -> None:
    """Refuse what no set of patients can meet, before any of them is read.

    Raises InputError: shares that leave nothing to train on, or one fold.
    """
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise InputError(
            f"splits: --test-fraction {test_fraction:g} and --val-fraction {val_fraction:g}: expected shares from 0 on "
            "that stay below 1 together, such as 0.2 and 0.16"
        )
    if folds < 0 or folds == 1:
        raise InputError(f"splits: --folds {folds}: expected 0 (none), or 2 and more")


def make_splits(
    strata: Mapping[str, str],
    *,
    test_fraction: float,
    val_fraction: float,
    folds: int,
    seed: int,
    given: Mapping[str, str] | None = None,
) -> Splits:
    """Split patients.

    Args:
        strata: patient to the name of its stratum (for instance its worst finding).
        test_fraction, val_fraction: shares of patients; the test set is the same for the holdout and all folds.
        folds: k, or 0 for none; the k folds divide all patients outside the test set.
        given: patient to `train`, `val` or `test`, as the archive's authors divided them; `test_fraction` is not used
            then, and `val_fraction`, still a share of all patients, only where the authors named no `val`.
    Raises:
        InputError: shares that leave nothing to train on, or more folds than patients.
    """
    check_shares(test_fraction=0.0 if given else test_fraction, val_fraction=val_fraction, folds=folds)
    # Stratum after stratum, in hashed order within each.
    hashes = {patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest() for patient in strata}
    order = sorted(strata, key=lambda patient: (strata[patient], hashes[patient]))
    test = _take(order, test_fraction) if given is None else {name for name in order if given[name] == "test"}
    remaining = [patient for patient in order if patient not in test]
    if given is not None and "val" in given.values():
        val = {name for name in order if given[name] == "val"}
    elif given is not None:
        val = _take(remaining, min(val_fraction * len(order) / len(remaining), 1.0)) if remaining else set()
    else:
        val = _take(remaining, val_fraction / (1 - test_fraction))
    nobody = given is not None and "train" not in given.values()  # the user holds a test set alone
    if len(val) == len(remaining) and not nobody:
        raise InputError(
            f"splits: {len(strata)} patients leave none to train on; lower --test-fraction or --val-fraction"
        )
    if folds > len(remaining):
        raise InputError(f"splits: --folds {folds} for {len(remaining)} patients outside the test set: lower it")
    holdout = {
        patient: "test" if patient in test else "val" if patient in val else "train" for patient in sorted(strata)
    }
    name = "holdout" if given is None else "official"
    fold_of = {patient: position % folds for position, patient in enumerate(remaining)} if folds else {}
    return Splits(holdout, {patient: fold_of[patient] for patient in sorted(fold_of)}, seed, name)


def _take(order: Sequence[str], share: float) -> set[str]:
    """Every 1/share-th patient of an order that runs through the strata, so that each gives its share."""
    return {
        patient
        for position, patient in enumerate(order)
        if int((position + 0.5) * share + 0.5) > int((position - 0.5) * share + 0.5)
    }
