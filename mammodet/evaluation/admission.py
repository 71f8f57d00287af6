"""Whether predictions may be scored on a ground truth: every reason to refuse, and what an override does."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from mammodet.data.coco import data_hash
from mammodet.data.packed_predictions import PackedPredictions
from mammodet.data.patient_keys import PatientKey, known_patients, not_comparable
from mammodet.data.predictions import Predictions, Repairs, match_to_dataset, unmatched
from mammodet.data.sources import WORDS, archive_of, seen_patients, share_women, sources_of
from mammodet.errors import InputError, faults_of, listed, raise_faults
from mammodet.evaluation.calibration_file import Provenance, checkpoints_of
from mammodet.files import dig
from mammodet.records import Dataset, ImageRecord

#: What can be overridden by `--allow`, and what it then does.
REFUSALS = {
    "leakage": "patients or images of the training are scored",
    "unsafe_split": "NOT A RESULT: copies of test images were in training",
    "calibration": "the calibration was fitted to the scores of another model",
    "truth": "the ground truth is not the one that was predicted",
    "missing": "images without a prediction count as images on which nothing was found, and have no score",
    "extra": "predictions for images that the ground truth lacks are passed over",
    "duplicates": "of several entries of one image the first counts",
    "scores": "scores outside [0, 1] are clipped",
}
_MOST_SHOWN = 25


@dataclass(frozen=True, slots=True)
class Admitted:
    """Predictions that may be scored."""

    predictions: PackedPredictions  #: one per image of the data set, in its order
    overrides: tuple[str, ...]  #: which refusals were overridden, in words, with the first ids
    #: how many patients of the data set the model has seen; None where none was found, and that nothing was seen could
    #: not be checked. Of out-of-fold predictions: seen by the fold that predicted them.
    patients_seen: int | None
    unchecked: tuple[str, ...] = ()  #: why leakage could not be checked, or not for all images; empty where it was
    #: why the figures are no result; None where they are one.
    not_a_result: str | None = None


def admit(
    dataset: Dataset,
    predictions: Predictions,
    *,
    truth: str,
    source: str,
    repairs: Repairs | None = None,
    train: Dataset | None = None,
    calibration: Provenance | None = None,
    allow: Collection[str] = (),
    key: PatientKey | None = None,
) -> Admitted:
    """Check that predictions belong to a ground truth, and that their model has not seen its patients.

    Of out-of-fold predictions (`model["folds"]`) each image is held against the patients of the fold that predicted it.

    Args:
        truth, source: names of the two files, for messages.
        repairs: what was mended when the predictions were read.
        train: the data set that the model was trained on, where its predictions do not say.
        calibration: where probabilities and thresholds come from.
        allow: keys of REFUSALS.
        key: that patient ids of model and calibration may be hashed under.
    Raises:
        InputError: with every reason to refuse that is not allowed, and the ids.
    """
    unknown = set(allow) - set(REFUSALS)
    if unknown:
        raise InputError(f"allow {sorted(unknown)}: expected some of {', '.join(REFUSALS)}")
    if predictions.categories and predictions.categories != dataset.categories:
        raise InputError(
            f"{source}: its categories are {list(predictions.categories)}, those of {truth} are "
            f"{list(dataset.categories)}; predict with a model that was trained on the same categories"
        )
    repairs = repairs or Repairs()
    ids = [record.patient_id for record in dataset.images]
    predictions = replace(predictions, model=known_patients(predictions.model, ids, key))
    missing, extra = unmatched(predictions.images, dataset)
    folds = _read_folds(predictions, source)
    patients = dataset.patients
    seen = _seen(dataset, predictions, folds)
    unsafe = _unsafe_splits(dataset, predictions.model, train)
    fitted_on = set(
        known_patients({"patients": list(calibration.patients if calibration else ())}, ids, key)["patients"]
    )
    fitted = [f"patient {patient} (of the calibration)" for patient in sorted(fitted_on & patients - seen)]
    reasons = {
        "leakage": _leakage(dataset, predictions, train, seen, folds) + fitted,
        "unsafe_split": unsafe,
        "calibration": _other_model(predictions.model, calibration),
        "truth": _changed_truth(dataset, predictions.model),
        "missing": missing,
        "extra": extra,
        "duplicates": repairs.duplicates,
        "scores": repairs.scores,
    }
    _refuse({kind: found for kind, found in reasons.items() if found and kind not in allow}, truth, source)
    matched = match_to_dataset(
        predictions.images, dataset, ignore_extra=True, ignore_missing=True, where=f"{source} against {truth}"
    )
    if missing:
        matched = _fill(dataset, matched)
    overrides = tuple(
        f"{REFUSALS[kind]} ({len(found)}: {listed(found, 5)})" for kind, found in reasons.items() if found
    )
    if train is not None:
        seen |= train.patients
    unchecked = _unchecked(dataset, predictions.model, train, folds)
    if reason := not_comparable(fitted_on, patients, of="calibration"):
        unchecked = (*unchecked, reason)
    count = len(seen & patients) if seen & patients or not unchecked else None
    return Admitted(matched, overrides, count, unchecked, "; ".join(unsafe) or None)


def seen_before(dataset: Dataset, predictions: Predictions, source: str) -> tuple[list[str], tuple[str, ...]]:
    """Patients and images of a data set that were in training or validation, and why others may have been.

    Args:
        source: name of the predictions file, for messages.
    """
    folds = _read_folds(predictions, source)
    seen = _seen(dataset, predictions, folds)
    found = [f"patient {patient}" for patient in sorted(seen & dataset.patients)]
    return found + _images_seen(dataset, predictions, folds, seen), _unchecked(dataset, predictions.model, None, folds)


def _seen(dataset: Dataset, predictions: Predictions, folds: "Sequence[_Fold]") -> set[str]:
    """Patients of the data set that the model had in training; of folds, the one that predicted an image of theirs."""
    if not folds:
        return seen_patients(predictions.model, dataset)
    pairs = _folds_of(dataset, predictions, folds)
    return {record.patient_id for record, fold in pairs if record.patient_id and record.patient_id in fold.patients}


def _unchecked(
    dataset: Dataset, model: Mapping[str, Any], train: Dataset | None, folds: "Sequence[_Fold]"
) -> tuple[str, ...]:
    """Why patients of the data set may have been in training although none was found."""
    found = []
    if bare := dataset.without_patient:
        found.append(f"{bare} images of the ground truth do not say whose they are")
    named = all(fold.patients for fold in folds) if folds else bool(model.get("patients"))
    known = [patient for fold in folds for patient in fold.patients] if folds else model.get("patients") or ()
    if reason := not_comparable(known, dataset.patients):
        found.append(reason)
    if train is not None:
        bare = train.without_patient
        found += [f"{bare} images of --train-json do not say whose they are"] if bare else []
    elif not named:
        found.append("the predictions do not say on which patients the model was trained (--train-json names them)")
    archive = archive_of(dataset)
    trained = [file.archive for file in sources_of(model)] + [archive_of(train) if train is not None else None]
    found += [
        f"it was trained on {other}, which has films of the same women as {archive} under other ids"
        for other in trained
        if share_women(other, archive)
    ]
    single = (model.get("unknown_patients"), model.get("unknown_start"))
    for count, start in [(fold.unknown_patients, fold.unknown_start) for fold in folds] or [single]:
        if count:
            found.append(f"{count} images of its training or validation do not say whose they are")
        elif count is None and named and train is None:
            found.append(
                "it was trained by a version that did not record images of unknown patients (train again, or name the "
                "training file by --train-json)"
            )
        if start:
            found.append(f"it started from weights whose patients are not known ({start})")
    return tuple(dict.fromkeys(found))


def _refuse(reasons: dict[str, list[str]], truth: str, source: str) -> None:
    if not reasons:
        return
    lines = [f"{source} is not scored on {truth}:"]
    for kind, found in reasons.items():
        lines.append(f"{_HEADS[kind].format(count=len(found))}")
        lines += [f"  - {fault}" for fault in found[:_MOST_SHOWN]]
        if len(found) > _MOST_SHOWN:
            lines.append(f"  ... and {len(found) - _MOST_SHOWN} more")
        lines.append(f"  {_ADVICE[kind]} mammodet evaluate --allow {kind}: {REFUSALS[kind]}; the report says so.")
    raise InputError("\n".join(lines))


_HEADS = {
    "leakage": "The model has seen what it would be scored on, in training or validation ({count}):",
    "unsafe_split": "The split is unsafe:",
    "calibration": "The calibration belongs to another model:",
    "truth": "The ground truth has changed:",
    "missing": "Images without a prediction ({count}):",
    "extra": "Predictions for images that the ground truth lacks ({count}):",
    "duplicates": "Images with several entries ({count}):",
    "scores": "Scores outside [0, 1] ({count}):",
}
_ADVICE = {
    "leakage": "Such a figure says nothing about new patients: evaluate on test.json.",
    "unsafe_split": "Train with data.unsafe_split=null on a split by patient.",
    "calibration": "Predict the validation set with this model, and run mammodet calibrate.",
    "truth": "Predict its images again, or take the ground truth that was predicted.",
    "missing": "Predict them (skipped.json beside the predictions names unread ones).",
    "extra": "Take the ground truth of all images that were predicted.",
    "duplicates": "Predict again, or mend the file.",
    "scores": "Import them with --score-scale, or mend the file.",
}


@dataclass(frozen=True, slots=True)
class _Fold:
    """What trained the model of one fold, and which images it predicted."""

    fold: int | str
    patients: frozenset[str]
    images: tuple[str, ...]
    data_hash: str | None = None
    unknown_patients: int | None = None
    unknown_start: str | None = None
    images_seen: frozenset[str] | None = None

    @property
    def name(self) -> str:
        return f"fold {self.fold}"


_FOLDS = TypeAdapter(list[_Fold])


def _read_folds(predictions: Predictions, source: str) -> list[_Fold]:
    """The folds of out-of-fold predictions, none of those of a single model.

    Raises InputError: they cannot be read, or do not say of every image which one fold predicted it.
    """
    advice = "Predict again with the checkpoints of all folds."
    try:
        folds = _FOLDS.validate_python(predictions.model.get("folds") or [])
    except ValidationError as error:
        raise_faults(faults_of(error), where=f"{source}: 'folds' of its model cannot be read", advice=advice)
        raise
    if not folds:
        return []
    faults = []
    if predictions.model.get("patients"):
        faults.append("'patients' stands beside 'folds'; expected the patients of each fold alone")
    faults += [f"{name} stands {n} times" for name, n in Counter(fold.name for fold in folds).items() if n > 1]
    owners = Counter(name for fold in folds for name in fold.images)
    for prediction in predictions.images:
        count = owners[prediction.file_name]
        if count != 1:
            faults.append(f"image {prediction.file_name!r} was predicted by {count or 'no'} folds; expected one")
    raise_faults(faults, where=f"{source}: out-of-fold predictions", advice=advice)
    return folds


def _folds_of(dataset: Dataset, predictions: Predictions, folds: Sequence[_Fold]) -> list[tuple[ImageRecord, _Fold]]:
    """Each image that has a prediction, with its fold; images meet as in `match_to_dataset`."""
    owner = {name: fold for fold in folds for name in fold.images}
    names = {prediction.file_name for prediction in predictions.images}
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(Path(name).stem, []).append(name)
    sought = Counter(Path(record.file_name).stem for record in dataset.images)
    found = []
    for record in dataset.images:
        alike = by_stem.get(Path(record.file_name).stem, [])
        if record.file_name in names:
            found.append((record, owner[record.file_name]))
        elif len(alike) == 1 and sought[Path(record.file_name).stem] == 1:
            found.append((record, owner[alike[0]]))
    return found


def _unsafe_splits(dataset: Dataset, model: Mapping[str, Any], train: Dataset | None) -> list[str]:
    """Splits that put copies of one image on both sides."""
    found = []
    name = dig(model, "config", "data", "unsafe_split")
    if name is not None:
        found.append(
            f"the model was trained on an unsafe split ({name}): copies of test images were in training; its figures "
            "are no result"
        )
    for one, what in ((dataset, "the ground truth"), (train, "the file of --train-json")):
        split = str(((one.info.get("split") or {}) if one is not None else {}).get("name") or "")
        if split.startswith("unsafe"):
            found.append(
                f"{what} is a part of an unsafe split ({split}): copies of its images may be in training; figures on "
                "it are no result"
            )
    return found


def _leakage(
    dataset: Dataset, predictions: Predictions, train: Dataset | None, seen: set[str], folds: Sequence[_Fold]
) -> list[str]:
    model = predictions.model
    patients = dataset.patients
    by = " (of the fold that predicted an image of theirs)" if folds else ""
    found = [f"patient {patient}{by}" for patient in sorted(seen & patients)]
    found += _images_seen(dataset, predictions, folds, seen)
    own_hash = data_hash(dataset)
    found += [
        f"the whole file: its data hash is that of the training file of {fold.name}"
        for fold in folds
        if fold.data_hash == own_hash
    ]
    files = sources_of(model)
    found += [
        f"the whole file: its data hash is that of the {WORDS[file.subset]} file{f' {file.file}' if file.file else ''}"
        for file in files
        if file.data_hash == own_hash
    ]
    split = dataset.info.get("split") or {}
    splits = list(dict.fromkeys(file.split_hash for file in files if file.split_hash))
    if splits and split.get("hash"):
        if split["hash"] in splits and split.get("subset") in ("train", "val"):
            found.append(f"the whole file: it is the {split['subset']} part of the split that the model was trained on")
        elif split["hash"] not in splits and not model.get("patients") and train is None:
            found.append(
                "perhaps: the model was trained on another division of the data (split hash "
                f"{' and '.join(one[:12] for one in splits)}, here {split['hash'][:12]}) and does not name its "
                "patients; name its training file by --train-json"
            )
    if train is not None:
        found += [f"patient {patient} (of --train-json)" for patient in sorted((train.patients & patients) - seen)]
        names = {record.file_name for record in train.images}
        found += [f"image {one.file_name!r} (of --train-json)" for one in dataset.images if one.file_name in names]
    return found


def _images_seen(
    dataset: Dataset, predictions: Predictions, folds: Sequence[_Fold], patients: Collection[str]
) -> list[str]:
    """Images of others than these patients that training or validation held, by name and size or by content."""
    seen = set(predictions.model.get("images_seen") or ())
    for fold in folds:
        seen |= (fold.images_seen or frozenset()) & set(fold.images)
    matched = match_to_dataset(
        [prediction for prediction in predictions.images if prediction.file_name in seen],
        dataset,
        ignore_extra=True,
        ignore_missing=True,
    )
    return [
        f"image {prediction.file_name!r} (this name and size, or this file, was in training)"
        for prediction in matched
        if prediction.patient_id not in patients
    ]


def _other_model(model: Any, calibration: Provenance | None) -> list[str]:
    if calibration is None or calibration.checkpoint_sha256 in checkpoints_of(model):
        return []  # of other programs neither may be known
    own = model.get("checkpoint_sha256") or "not known"
    return [f"it was fitted for the checkpoint {calibration.checkpoint_sha256 or 'not known'}, this one is {own}"]


def _changed_truth(dataset: Dataset, model: Any) -> list[str]:
    before = model.get("predicted_data_hash")
    if not before or before == data_hash(dataset):
        return []
    return [f"its data hash is {data_hash(dataset)[:12]}, that of the file that was predicted {before[:12]}"]


def _fill(dataset: Dataset, matched: PackedPredictions) -> PackedPredictions:
    """With an empty prediction for each image that has none."""
    places = {prediction.image_id: place for place, prediction in enumerate(matched)}
    rows = np.array([places.get(record.image_id, -1) for record in dataset.images], dtype=np.int64)
    return matched.select(rows, dataset.images)
