"""An evaluation from files to files: predictions and ground truth in; figures, tables, curves, cards and a page out."""

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import check_dataset
from mammodet.data.packed_predictions import PackedPredictions
from mammodet.data.patient_keys import PatientKey
from mammodet.errors import InputError
from mammodet.evaluation.entries import Scored, admit_inputs, as_text, score_entries
from mammodet.evaluation.evaluate import Entry, Evaluation
from mammodet.evaluation.masks import PAIR_FIGURES
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import Metrics
from mammodet.files import csv_lines, short_names, write_json, write_lines, write_text
from mammodet.records import LABELS, Dataset, ImagePrediction, ImageRecord
from mammodet.reporting.answers import answer_of
from mammodet.reporting.overlay_files import image_reader
from mammodet.reporting.report_tables import to_screen
from mammodet.targets import class_of

_CARD = re.compile(r"model_card(_\d+)?\.md")
_CURVE = re.compile(r"(froc|froc_band|(roc|pr|reliability)_[a-z]+(_[a-z]+)?|confusion_[\w-]+)\.(csv|svg|png)", re.ASCII)
METRICS, REPORT, LESIONS, IMAGES, CURVES = "metrics.json", "report.html", "lesions.csv", "images.csv", "curves"


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
    if any(entry.detects for entry in entries):
        write_lines(output / LESIONS, csv_lines(lesion_rows(dataset, result)))
    write_lines(output / IMAGES, csv_lines(image_rows(dataset, entries)))
    print(to_screen(result.metrics))
    if report:
        _write_report(ground_truth, dataset, entries, result.metrics, output, history, score_threshold, command)
        print(f"wrote {output}/metrics.json; open {output}/report.html")
    else:
        print(f"wrote {output}/metrics.json")
    return result.metrics


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


def _model_names(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Given names, or the shortest end of each path that tells it from the others.

    Raises InputError: another number of names, or two alike.
    """
    if not names:
        parts = [path.resolve().with_suffix("") for path in paths]
        if all(one.name == "predictions" and len(one.parts) > 2 for one in parts):  # the folder tells more
            parts = [one.parent for one in parts]
        found = [as_text(name) for name in short_names(parts)]
        if len(set(found)) == len(found):
            return found
    if len(names) != len(paths) or len(set(names)) != len(names) or not all(name.strip() for name in names):
        same = [str(path) for path in paths] if not names else list(names)
        raise InputError(f"--names {same}: expected {len(paths)}, one for each predictions file, no two alike")
    return [as_text(name) for name in names]


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


def lesion_rows(dataset: Dataset, result: Evaluation) -> Iterator[list[Any]]:
    """The heads of columns, and one row per model and lesion to be found."""
    keys = list(
        dict.fromkeys(key for record in dataset.images for lesion in record.lesions for key in lesion.attributes)
    )
    head = [*_IMAGE_HEADS, "category", "x1", "y1", "x2", "y2", "score", "fppi", *PAIR_FIGURES]
    yield [*head, *(f"attribute {key}" for key in keys)]
    for model, outcomes in result.outcomes.items():
        for outcome in outcomes:
            record = dataset.images[outcome.image]
            lesion = record.lesions[outcome.position]
            cells = [*_image_cells(model, record), lesion.category, *lesion.box_xyxy, outcome.score]
            cells += [outcome.threshold_fppi, *(outcome.agreement.get(figure) for figure in PAIR_FIGURES)]
            yield [*cells, *(lesion.attributes.get(key) for key in keys)]


def image_rows(dataset: Dataset, entries: Sequence[Entry]) -> Iterator[list[Any]]:
    """The heads of columns, and one row per model and image: its labels, its scores by every rule, its classes."""
    every = (prediction for entry in entries for prediction in entry.predictions)
    questions = list(dict.fromkeys(name for prediction in every for name in prediction.class_scores))
    rules = sorted({rule for entry in entries for rule in PackedPredictions.of(entry.predictions).rules})
    head = [*_IMAGE_HEADS, "n_lesions", "n_detections"]
    head += [*(f"label {label}" for label in LABELS), *(f"score {label}" for label in LABELS)]
    head += [f"score {label} by {rule}" for rule in rules for label in LABELS]
    yield head + [f"{what} {name}" for name in questions for what in ("true", "predicted", "probability of predicted")]
    for entry in entries:
        for record, prediction in zip(dataset.images, entry.predictions, strict=True):
            cells = _image_cells(entry.name, record)
            cells += [sum(not lesion.ignore for lesion in record.lesions), len(prediction.detections)]
            cells += [record.label(label) for label in LABELS]
            cells += [prediction.scores.get(label) for label in LABELS]
            cells += [prediction.scores_by_rule.get(rule, {}).get(label) for rule in rules for label in LABELS]
            yield cells + [cell for name in questions for cell in (class_of(record, name), *_answer(prediction, name))]


def _answer(prediction: ImagePrediction, question: str) -> tuple[str | None, float | None]:
    """The most probable class, the first in order of equal ones, and its probability."""
    classes = prediction.class_scores.get(question)
    if not classes:
        return None, None
    name = answer_of(question, prediction)
    return name, classes[name]
