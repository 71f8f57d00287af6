"""From files to files, for the tools: what joins data, evaluation and reporting, and needs no torch."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from mammodet.data.coco import data_hash, read_coco
from mammodet.data.dataset_files import check_dataset
from mammodet.data.images import read_image, to_display
from mammodet.data.patient_keys import PatientKey
from mammodet.data.predictions import Predictions, Repairs, match_to_dataset, read_predictions
from mammodet.errors import InputError
from mammodet.evaluation.admission import admit
from mammodet.evaluation.calibration_file import Calibration, check_belongs, read_calibration
from mammodet.evaluation.classes import in_order
from mammodet.evaluation.evaluate import Entry, Evaluation, evaluate
from mammodet.evaluation.masks import PAIR_FIGURES
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import Kind, Metrics, ModelFacts
from mammodet.files import file_hash, write_json, write_text
from mammodet.records import LABELS, Dataset, ImagePrediction, ImageRecord
from mammodet.reporting.report_tables import to_screen
from mammodet.reporting.tables import Table, to_csv
from mammodet.targets import class_of

_CARD = re.compile(r"model_card(_\d+)?\.md")
_CURVE = re.compile(r"(froc|froc_band|(roc|pr|reliability)_[a-z]+(_[a-z]+)?|confusion_[\w-]+)\.(csv|svg|png)", re.ASCII)
METRICS, REPORT, LESIONS, IMAGES, CURVES = "metrics.json", "report.html", "lesions.csv", "images.csv", "curves"


def image_reader(root: Path) -> Callable[[ImageRecord], NDArray[np.uint8]]:
    """Reads the display image of a record below a folder."""
    return lambda record: to_display(read_image(root / record.file_name))


def evaluate_files(
    ground_truth: Path,
    predictions: Sequence[Path],
    output: Path,
    *,
    names: Sequence[str] = (),
    options: Options | None = None,
    allow: Collection[str] = (),
    train_json: Path | None = None,
    patient_key: Path | None = None,
    calibrations: Sequence[Path] = (),
    history: Path | None = None,
    report: bool = True,
    score_threshold: float = 0.3,
    command: str = "",
    progress: bool = True,
) -> Metrics:
    """Score predictions files, print the table, and write what follows from it.

    Writes `metrics.json`, `lesions.csv` and `images.csv` (what became of each, for a user's own questions), and with
    `report` also `report.html`, `model_card.md` (one per model) and `curves/` (CSV, SVG, PNG). Where all models are
    classifiers, there is no `lesions.csv`.

    Args:
        names: of the models; by default from the files' paths.
        allow: refusals to override, keys of `mammodet.evaluation.admission.REFUSALS`.
        train_json: what the models were trained on, where their predictions do not say.
        patient_key: file that the patient ids of the models are hashed under.
        calibrations: one file of mammodet calibrate per predictions file, or none.
    Raises:
        InputError: faulty files, or a reason to refuse that is not allowed: each with its ids.
    """
    options = options or Options()
    key = PatientKey(patient_key) if patient_key is not None else None
    _check_output(output, [ground_truth, *predictions, train_json, *calibrations, history])
    names = _model_names(predictions, names)
    dataset = read_coco(ground_truth)
    train = read_coco(train_json) if train_json is not None else None
    if calibrations and len(calibrations) != len(predictions):
        raise InputError(
            f"--calibration: {len(calibrations)} files for {len(predictions)} of predictions; give one each"
        )
    fitted: Sequence[Path | None] = calibrations or [None] * len(predictions)
    inputs = [
        Scored(name, path, calibration) for name, path, calibration in zip(names, predictions, fitted, strict=True)
    ]
    entries, overrides = admit_inputs(dataset, inputs, options, truth=ground_truth, train=train, allow=allow, key=key)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass  # a folder that cannot be written is refused before the work
    result = score_entries(dataset, entries, overrides, options, truth=ground_truth, progress=progress)
    clear_evaluation(output)
    write_json(output / METRICS, result.metrics.to_json(), indent=1)
    if any(entry.kind == "detector" for entry in entries):
        write_text(output / LESIONS, to_csv(lesions_table(dataset, result)))
    write_text(output / IMAGES, to_csv(images_table(dataset, entries)))
    print(to_screen(result.metrics))
    if report:
        _write_report(ground_truth, dataset, entries, result.metrics, output, history, score_threshold, command)
        print(f"wrote {output}/metrics.json; open {output}/report.html")
    else:
        print(f"wrote {output}/metrics.json")
    return result.metrics


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
        train, allow: as in `evaluate_files`.
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
        "ground_truth": _text(truth) if truth else None,
        "ground_truth_hash": data_hash(dataset),
        "split_name": split.get("name"),
        "split_subset": split.get("subset"),
        "split_hash": split.get("hash"),
    }
    try:
        return evaluate(dataset, entries, options, facts=facts, overrides=overrides, progress=progress)
    except ValueError as error:
        raise InputError(str(error)) from None


def clear_evaluation(output: Path) -> None:
    """Remove what an earlier evaluation wrote: figures of two evaluations must not stand side by side."""
    if not (output / METRICS).is_file():
        return
    ours = [output / name for name in (METRICS, REPORT, LESIONS, IMAGES)]
    ours += [path for path in output.glob("model_card*.md") if _CARD.fullmatch(path.name)]
    ours += [path for path in (output / CURVES).glob("*") if _CURVE.fullmatch(path.name)]
    for path in ours:
        path.unlink(missing_ok=True)


def _check_output(output: Path, inputs: Sequence[Path | None]) -> None:
    """Refuse, before any work, an output that is a file, or that would replace what is read."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; name a folder, which may be new")
    for path in inputs:
        if path is None:
            continue
        check_dataset(path)
        inside = path.resolve().parent in (output.resolve(), (output / CURVES).resolve())
        if inside and (path.name in (METRICS, REPORT, LESIONS, IMAGES) or _CURVE.fullmatch(path.name)):
            raise InputError(f"--output {output}: would replace {path}, which is read; name another folder")


def _text(path: Path | str) -> str:
    """A path or name as text that every file can hold; bytes that are no letters become `\\xfc`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _model_names(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Given names, or the shortest end of each path that tells it from the others.

    Raises:
        InputError: another number of names, or two alike.
    """
    if not names:
        parts = [path.resolve().with_suffix("").parts for path in paths]
        if all(one[-1] == "predictions" and len(one) > 2 for one in parts):  # the folder tells more
            parts = [one[:-1] for one in parts]
        for depth in range(1, max(map(len, parts)) + 1):
            found = [_text("/".join(one[-depth:])) for one in parts]
            if len(set(found)) == len(found):
                return found
    if len(names) != len(paths) or len(set(names)) != len(names) or not all(name.strip() for name in names):
        same = [str(path) for path in paths] if not names else list(names)
        raise InputError(f"--names {same}: expected {len(paths)}, one for each predictions file, no two alike")
    return [_text(name) for name in names]


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
        predictions=_text(path) if path else None,
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
        calibration=_text(fitted or "given") if calibration else None,
        calibration_sha256=file_hash(fitted) if fitted else None,
    )
    notes = []
    if calibration and calibration.provenance.fitted_on_test:
        notes.append("CALIBRATED ON TEST: its thresholds and probabilities were fitted on a test set.")
    if calibration and calibration.provenance.checkpoint_sha256 is None:
        notes.append(
            "Neither calibration nor predictions name a checkpoint: that they belong together was not checked."
        )
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


def _write_report(
    ground_truth: Path,
    dataset: Dataset,
    entries: Sequence[Entry],
    metrics: Metrics,
    output: Path,
    history: Path | None,
    score_threshold: float,
    command: str,
) -> None:
    # here, since plotting takes a second to import that figures alone do not need
    from mammodet.reporting.card import model_card
    from mammodet.reporting.curve_files import write_curves
    from mammodet.reporting.html import write_report

    write_curves(output / CURVES, metrics.models)
    for number in range(len(entries)):
        name = "model_card.md" if len(entries) == 1 else f"model_card_{number + 1}.md"
        write_text(output / name, model_card(metrics, number))
    write_report(
        output / REPORT,
        title=f"{ground_truth.resolve().parent.name}: {ground_truth.name}",
        dataset=dataset,
        predictions=[entry.predictions for entry in entries],
        metrics=metrics,
        image_reader=image_reader(ground_truth.parent),
        history_csv=history if history is not None and history.exists() else None,
        command=command,
        score_threshold=score_threshold,
    )


_IMAGE_HEADS = ("model", "image_id", "file_name", "patient_id", "laterality", "view", "density")


def _image_cells(model: str, record: ImageRecord) -> list[Any]:
    return [model, record.image_id, record.file_name, record.patient_id, record.laterality, record.view, record.density]


def lesions_table(dataset: Dataset, result: Evaluation) -> Table:
    """One row per model and lesion to be found."""
    keys = list(
        dict.fromkeys(key for record in dataset.images for lesion in record.lesions for key in lesion.attributes)
    )
    rows = []
    for model, outcomes in result.outcomes.items():
        for outcome in outcomes:
            record = dataset.images[outcome.image]
            lesion = record.lesions[outcome.position]
            cells = [*_image_cells(model, record), lesion.category, *lesion.box_xyxy, outcome.score]
            cells += [outcome.threshold_fppi, *(outcome.agreement.get(figure) for figure in PAIR_FIGURES)]
            rows.append(((), (*cells, *(lesion.attributes.get(key) for key in keys))))
    head = (*_IMAGE_HEADS, "category", "x1", "y1", "x2", "y2", "score", "fppi", *PAIR_FIGURES)
    return Table((), (*head, *(f"attribute {key}" for key in keys)), tuple(rows))


def images_table(dataset: Dataset, entries: Sequence[Entry]) -> Table:
    """One row per model and image: its labels, its scores by every rule, its classes, its detections."""
    every = [prediction for entry in entries for prediction in entry.predictions]
    questions = list(dict.fromkeys(name for prediction in every for name in prediction.class_scores))
    rules = sorted({rule for prediction in every for rule in prediction.scores_by_rule})
    rows = []
    for entry in entries:
        for record, prediction in zip(dataset.images, entry.predictions, strict=True):
            cells = _image_cells(entry.name, record)
            cells += [sum(not lesion.ignore for lesion in record.lesions), len(prediction.detections)]
            cells += [record.label(label) for label in LABELS]
            cells += [prediction.scores.get(label) for label in LABELS]
            cells += [prediction.scores_by_rule.get(rule, {}).get(label) for rule in rules for label in LABELS]
            cells += [cell for name in questions for cell in (class_of(record, name), *_answer(prediction, name))]
            rows.append(((), tuple(cells)))
    head = [*_IMAGE_HEADS, "n_lesions", "n_detections"]
    head += [*(f"label {label}" for label in LABELS), *(f"score {label}" for label in LABELS)]
    head += [f"score {label} by {rule}" for rule in rules for label in LABELS]
    head += [f"{what} {name}" for name in questions for what in ("true", "predicted", "probability of predicted")]
    return Table((), tuple(head), tuple(rows))


def _answer(prediction: ImagePrediction, question: str) -> tuple[str | None, float | None]:
    """The most probable class, the first in order of equal ones, and its probability."""
    classes = prediction.class_scores.get(question)
    if not classes:
        return None, None
    name = max(in_order(question, tuple(classes)), key=lambda one: classes[one])
    return name, classes[name]


def _check_categories(dataset: Dataset, predictions: Predictions, ground_truth: Path, predictions_path: Path) -> None:
    if predictions.categories and predictions.categories != dataset.categories:
        raise InputError(
            f"{predictions_path}: its categories are {list(predictions.categories)}, those of {ground_truth} are "
            f"{list(dataset.categories)}; predict with a model that was trained on the same categories"
        )


def draw_files(
    ground_truth: Path | None,
    predictions_path: Path | None,
    images: Path | None,
    output: Path,
    **options: Any,
) -> list[Path]:
    """Draw overlays of a data set, of predictions, or of both; `options` are those of `write_overlays`.

    Raises:
        InputError: neither is given, they do not belong together, or the images' folder is not known or not there.
    """
    predictions = read_predictions(predictions_path) if predictions_path is not None else None
    if ground_truth is not None:
        dataset = read_coco(ground_truth)
        root = images if images is not None else ground_truth.parent
        if predictions is not None and predictions_path is not None:
            _check_categories(dataset, predictions, ground_truth, predictions_path)
            matched = match_to_dataset(predictions.images, dataset, ignore_extra=True, ignore_missing=True)
            by_id = {prediction.image_id: prediction for prediction in matched}
        else:
            by_id = {}
    elif predictions is not None:
        if images is None:
            raise InputError("--images: without a ground truth, name the folder that was predicted")
        root = images
        dataset = predictions.dataset()
        by_id = {prediction.image_id: prediction for prediction in predictions.images}
    else:
        raise InputError("--ground-truth, --predictions: give at least one of them")
    from mammodet.reporting.gallery import write_overlays

    if predictions is None or ground_truth is None:
        options["side_by_side"] = False  # one of both panels would show nothing
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --images names the one that the images' file names start from")
    options["detects"] = predictions is None or predictions.model.get("kind") != "classifier"
    return write_overlays(dataset, by_id, image_reader(root), output, **options)
