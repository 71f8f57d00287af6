"""Whether predictions may be scored on a ground truth: every reason to refuse, and what an override does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mammodet.data.coco import data_hash
from mammodet.data.predictions import Predictions, Repairs, match_to_dataset, unmatched
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import Provenance
from mammodet.records import Dataset, Detections, ImagePrediction

#: What can be overridden by `--allow`, and what it then does.
REFUSALS = {
    "leakage": "patients or images of the training are scored",
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
    """Predictions that may be scored.

    Attributes:
        predictions: one per image of the data set, in its order.
        overrides: which refusals were overridden, in words, with the first ids.
        patients_seen: how many patients of the data set the model has seen; None where that cannot be told, since the
            model does not say whom it saw, or an image whose it is.
    """

    predictions: list[ImagePrediction]
    overrides: tuple[str, ...]
    patients_seen: int | None


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
) -> Admitted:
    """Check that predictions belong to a ground truth, and that their model has not seen its patients.

    Args:
        truth, source: names of the two files, for messages.
        repairs: what was mended when the predictions were read.
        train: the data set that the model was trained on, where its predictions do not say.
        calibration: where probabilities and thresholds come from.
        allow: keys of REFUSALS.
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
    missing, extra = unmatched(predictions.images, dataset)
    seen = set(predictions.model.get("patients") or ())
    patients = {record.patient_id for record in dataset.images if record.patient_id}
    fitted_on = set(calibration.patients) if calibration else set()
    fitted = [f"patient {patient} (of the calibration)" for patient in sorted(fitted_on & patients - seen)]
    reasons = {
        "leakage": _leakage(dataset, predictions.model, train, seen) + fitted,
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
        f"{REFUSALS[kind]} ({len(found)}: {_shorten(found, 5)})" for kind, found in reasons.items() if found
    )
    if train is not None:
        seen |= {record.patient_id for record in train.images if record.patient_id}
    whole = all(record.patient_id for record in (*dataset.images, *(train.images if train is not None else ())))
    checked = seen and (whole or seen & patients)
    return Admitted(matched, overrides, len(seen & patients) if checked else None)


def _refuse(reasons: dict[str, list[str]], truth: str, source: str) -> None:
    if not reasons:
        return
    lines = [f"{source} is not scored on {truth}:"]
    for kind, found in reasons.items():
        lines.append(f"{_HEADS[kind].format(count=len(found))}")
        lines += [f"  - {fault}" for fault in found[:_MOST_SHOWN]]
        if len(found) > _MOST_SHOWN:
            lines.append(f"  ... and {len(found) - _MOST_SHOWN} more")
        lines.append(f"  {_ADVICE[kind]} --allow {kind}: {REFUSALS[kind]}; the report says so.")
    raise InputError("\n".join(lines))


_HEADS = {
    "leakage": "The model has seen what it would be scored on, in training or validation ({count}):",
    "calibration": "The calibration belongs to another model:",
    "truth": "The ground truth has changed:",
    "missing": "Images without a prediction ({count}):",
    "extra": "Predictions for images that the ground truth lacks ({count}):",
    "duplicates": "Images with several entries ({count}):",
    "scores": "Scores outside [0, 1] ({count}):",
}
_ADVICE = {
    "leakage": "Such a figure says nothing about new patients: evaluate on test.json.",
    "calibration": "Predict the validation set with this model, and run tools/calibrate.py.",
    "truth": "Predict its images again, or take the ground truth that was predicted.",
    "missing": "Predict them (skipped.json beside the predictions names unread ones).",
    "extra": "Take the ground truth of all images that were predicted.",
    "duplicates": "Predict again, or mend the file.",
    "scores": "Import them with --score-scale, or mend the file.",
}


def _leakage(dataset: Dataset, model: Any, train: Dataset | None, seen: set[str]) -> list[str]:
    patients = {record.patient_id for record in dataset.images if record.patient_id}
    found = [f"patient {patient}" for patient in sorted(seen & patients)]
    split = dataset.info.get("split") or {}
    if model.get("data_hash") and model["data_hash"] == data_hash(dataset):
        found.append("the whole file: its data hash is that of the training file")
    if model.get("split_hash") and split.get("hash"):
        if model["split_hash"] == split["hash"] and split.get("subset") in ("train", "val"):
            found.append(f"the whole file: it is the {split['subset']} part of the split that the model was trained on")
        elif model["split_hash"] != split["hash"] and not seen and train is None:
            found.append(
                f"perhaps: the model was trained on another division of the data (split hash {model['split_hash'][:12]}"
                f", here {split['hash'][:12]}) and does not name its patients; name its training file by --train-json"
            )
    if train is not None:
        trained = {record.patient_id for record in train.images if record.patient_id}
        found += [f"patient {patient} (of --train-json)" for patient in sorted((trained & patients) - seen)]
        names = {record.file_name: record.patient_id for record in train.images}
        found += [
            f"image {record.file_name!r} (of --train-json)"
            for record in dataset.images
            if record.file_name in names and not (record.patient_id and names[record.file_name])
        ]
    return found


def _other_model(model: Any, calibration: Provenance | None) -> list[str]:
    if calibration is None or calibration.checkpoint_sha256 == model.get("checkpoint_sha256"):
        return []  # of other programs neither may be known
    own = model.get("checkpoint_sha256") or "not known"
    return [f"it was fitted for the checkpoint {calibration.checkpoint_sha256 or 'not known'}, this one is {own}"]


def _changed_truth(dataset: Dataset, model: Any) -> list[str]:
    before = model.get("predicted_data_hash")
    if not before or before == data_hash(dataset):
        return []
    return [f"its data hash is {data_hash(dataset)[:12]}, that of the file that was predicted {before[:12]}"]


def _fill(dataset: Dataset, matched: Sequence[ImagePrediction]) -> list[ImagePrediction]:
    """With an empty prediction for each image that has none."""
    with_masks = any(prediction.detections.rles is not None for prediction in matched)
    by_id = {prediction.image_id: prediction for prediction in matched}
    empty = Detections.empty(with_masks=with_masks)
    blank = ImagePrediction(image_id=0, file_name="", size_hw=(1, 1), scores={}, detections=empty)
    return [
        by_id.get(record.image_id)
        or replace(
            blank,
            image_id=record.image_id,
            file_name=record.file_name,
            size_hw=record.size_hw,
            patient_id=record.patient_id,
            laterality=record.laterality,
            view=record.view,
        )
        for record in dataset.images
    ]


def _shorten(found: Sequence[str], most: int) -> str:
    return ", ".join(found[:most]) + (", ..." if len(found) > most else "")
