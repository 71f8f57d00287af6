"""Predictions as entries of an evaluation: what may be scored, with its calibration and the facts of its model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from mammodet.data.coco import data_hash
from mammodet.data.patient_keys import PatientKey
from mammodet.data.predictions import Predictions, Repairs, read_predictions
from mammodet.errors import InputError
from mammodet.evaluation.admission import admit
from mammodet.evaluation.calibration_file import Calibration, check_belongs, read_calibration
from mammodet.evaluation.evaluate import Entry, Evaluation, evaluate
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import Kind, ModelFacts
from mammodet.files import file_hash
from mammodet.records import Dataset


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions that are scored, and the calibration that belongs to them; each a file, or what one holds."""

    name: str
    predictions: Path | Predictions
    calibration: Path | Calibration | None = None


def admit_inputs(
    dataset: Dataset,
    inputs: Sequence[Scored],
    options: Options,
    *,
    truth: Path | None = None,
    train: Dataset | None = None,
    allow: Collection[str] = (),
    key: PatientKey | None = None,
) -> tuple[list[Entry], list[str]]:
    """Predictions that may be scored, and which refusals were overridden.

    Args:
        truth: the data set's file, where it comes from one.
        train, allow: as in `mammodet.reporting.evaluation_files.evaluate_files`.
        key: that the patient ids of the models are hashed under.
    Raises:
        InputError: with every reason to refuse that is not allowed, of all models.
    """
    entries, overrides, refusals = [], [], []
    for one in inputs:
        try:
            entry, overridden = _entry(one, dataset, str(truth or "the ground truth"), train, options, allow, key)
        except InputError as error:
            refusals.append(str(error))
            continue
        entries.append(entry)
        overrides += [f"{one.name}: {text}" if len(inputs) > 1 else text for text in overridden]
    if refusals:
        raise InputError("\n".join(refusals))
    return entries, overrides


def score_entries(
    dataset: Dataset,
    entries: Sequence[Entry],
    overrides: Sequence[str],
    options: Options,
    *,
    truth: Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Every figure, stamped with the data set's file, hashes and split; arguments as `admit_inputs` gives them."""
    split = dataset.info.get("split") or {}
    facts = {
        "ground_truth": as_text(truth) if truth else None,
        "ground_truth_hash": data_hash(dataset),
        "split_name": split.get("name"),
        "split_subset": split.get("subset"),
        "split_hash": split.get("hash"),
    }
    try:
        return evaluate(dataset, entries, options, facts=facts, overrides=overrides, progress=progress)
    except ValueError as error:
        raise InputError(str(error)) from None


def as_text(path: Path | str) -> str:
    """A path or name as text that every file can hold; bytes that are no letters become `\\xfc`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _entry(
    one: Scored,
    dataset: Dataset,
    truth: str,
    train: Dataset | None,
    options: Options,
    allow: Collection[str],
    key: PatientKey | None,
) -> tuple[Entry, tuple[str, ...]]:
    repairs, path, calibration, fitted = Repairs(), None, one.calibration, None
    if isinstance(calibration, Path):
        fitted, calibration = calibration, read_calibration(calibration)
    where = str(fitted or f"the calibration of {one.name}")
    if calibration and calibration.provenance.over_images != options.over_images:
        made = calibration.provenance.over_images
        raise InputError(
            f"{where}: was fitted on scores joined by {made!r}; evaluate with --over-images {made}, or calibrate with "
            f"--over-images {options.over_images}"
        )
    if isinstance(one.predictions, Path):
        path, predictions = one.predictions, read_predictions(one.predictions, repairs, joined=False)
    else:
        predictions = one.predictions
    model = predictions.model
    if calibration:
        check_belongs(calibration, model, where, allow_other=True)
    admitted = admit(
        dataset,
        predictions,
        truth=truth,
        source=str(path or one.name),
        repairs=repairs,
        train=train,
        calibration=calibration.provenance if calibration else None,
        allow=allow,
        key=key,
    )
    kind, kinds = model.get("kind") or "detector", get_args(Kind)
    if kind not in kinds:
        raise InputError(
            f"{path or one.name}: the kind of its model is {kind!r:.60}; expected {' or '.join(kinds)}, or none"
        )
    facts = ModelFacts(
        predictions=as_text(path) if path else None,
        predictions_sha256=file_hash(path) if path else None,
        checkpoint=_plain(model.get("checkpoint")),
        checkpoint_sha256=model.get("checkpoint_sha256"),
        imported_from=_plain(model.get("imported_from")),
        architecture=_architecture(model.get("config"), kind),
        box_masks=_box_masks(model.get("config"), kind),
        folds=_folds(model),
        patients_in_training=len(model["patients"]) if model.get("patients") else None,
        trained_on_data_hash=model.get("data_hash") or (data_hash(train) if train is not None else None),
        trained_on_split_hash=model.get("split_hash"),
        patients_seen_in_training=admitted.patients_seen,
        version=_plain(model.get("version")),
        calibration=as_text(fitted or "given") if calibration else None,
        calibration_sha256=file_hash(fitted) if fitted else None,
    )
    notes = []
    if calibration and calibration.provenance.fitted_on_test:
        notes.append("CALIBRATED ON TEST: its thresholds and probabilities were fitted on a test set.")
    if calibration and calibration.provenance.checkpoint_sha256 is None:
        notes.append("Neither calibration nor predictions name a checkpoint: whether they match was not checked.")
    if admitted.patients_seen:
        notes.append(
            f"LEAKAGE: {admitted.patients_seen} of these patients were in training or validation. These figures say "
            "nothing about new patients."
        )
    if admitted.unchecked:
        notes.append(f"Leakage could not be checked: {'; '.join(admitted.unchecked)}.")
    entry = Entry(one.name, admitted.predictions, facts, notes, calibration, cast(Kind, kind), admitted.not_a_result)
    return entry, admitted.overrides


def _plain(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _architecture(config: Any, kind: str) -> str | None:
    """The network in a few words; None where the predictions hold no config of ours."""
    try:
        size = f"{config['data']['image']['max_size']} px"
        if kind == "classifier":
            return f"classifier, {config['model']['classifier']['network']}, {size}"
        detector = config["model"]["detector"]
        if detector.get("backend") == "detectron2":
            theirs = config["model"]["detectron2"]
            changed = ", changed by model.detectron2.opts" if theirs["opts"] else ""
            return f"detectron2, {theirs['config'] or 'resolved in the checkpoint'}{changed}, {size}"
        return f"{detector['arch']}, {detector['backbone']['name']}, {size}"
    except (KeyError, TypeError):
        return None


def _box_masks(config: Any, kind: str) -> Any:
    """What taught the mask head where only a box was known; None where nothing did."""
    try:
        made, model = config["data"]["box_masks"], config["model"]
        theirs = model["detector"]["backend"] == "detectron2"
        with_masks = model["detectron2"]["masks"] if theirs else model["detector"]["arch"] == "mask_rcnn"
    except (KeyError, TypeError):
        return None
    return made if kind == "detector" and with_masks and made in ("ellipse", "box") else None


def _folds(model: Mapping[str, Any]) -> str | None:
    """Of out-of-fold predictions, the checkpoint of each fold."""
    folds = model.get("folds") or ()
    shown = [f"{fold['fold']} ({str(fold.get('checkpoint_sha256') or 'not known')[:12]})" for fold in folds]
    return f"{len(shown)}, each image predicted by the one that had not seen it: {', '.join(shown)}" if shown else None
