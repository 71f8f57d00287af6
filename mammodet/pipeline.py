"""From files to files, for the tools: what joins data, evaluation and reporting, and needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodet.data.coco import data_hash, read_coco
from mammodet.data.images import read_image, to_display
from mammodet.data.predictions import Predictions, match_to_dataset, read_predictions
from mammodet.errors import InputError
from mammodet.evaluation.evaluate import evaluate, to_table
from mammodet.evaluation.froc import MatchRule
from mammodet.files import file_hash, write_json
from mammodet.records import Dataset, ImageRecord
from mammodet.reporting.gallery import write_overlays
from mammodet.reporting.html import write_report


def image_reader(root: Path) -> Callable[[ImageRecord], NDArray[np.uint8]]:
    """Reads the display image of a record below a folder."""
    return lambda record: to_display(read_image(root / record.file_name))


def evaluate_files(
    ground_truth: Path,
    predictions_path: Path,
    output: Path,
    *,
    match: MatchRule = "iou@0.2",
    over_images: str = "max",
    ignore_extra: bool = False,
    allow_leakage: bool = False,
    history: Path | None = None,
    report: bool = True,
    command: str = "",
) -> dict[str, Any]:
    """Score a predictions file, print the table, write `metrics.json` and `report.html`.

    Raises:
        InputError: faulty files, files that do not belong together, or patients of the training among those of the
            ground truth (unless `allow_leakage`).
    """
    dataset = read_coco(ground_truth)
    predictions = read_predictions(predictions_path)
    _check_categories(dataset, predictions, ground_truth, predictions_path)
    matched = match_to_dataset(predictions.images, dataset, ignore_extra=ignore_extra)
    leaked = leaking_patients(dataset, predictions)
    if leaked and not allow_leakage:
        shown = ", ".join(leaked[:10]) + (f", ... ({len(leaked)} in all)" if len(leaked) > 10 else "")
        raise InputError(
            f"{ground_truth}: the model has seen these patients in training or validation: {shown}. A figure on them "
            "says nothing about new patients. Evaluate on test.json, or see the figure anyway with "
            "tools/evaluate.py --allow-leakage, which is stamped on the report."
        )
    model = predictions.model
    protocol = {
        "ground_truth": str(ground_truth),
        "ground_truth_hash": data_hash(dataset),
        "split_hash": (dataset.info.get("split") or {}).get("hash"),
        "predictions": str(predictions_path),
        "predictions_sha256": file_hash(predictions_path),
        "checkpoint_sha256": model.get("checkpoint_sha256"),
        "trained_on_data_hash": model.get("data_hash"),
        "trained_on_split_hash": model.get("split_hash"),
        "patients_seen_in_training": len(leaked) if model.get("patients") else None,
    }
    metrics = evaluate(dataset, matched, match=match, over_images=over_images, protocol=protocol)
    if leaked:
        metrics["notes"].insert(
            0,
            f"LEAKAGE: {len(leaked)} of these patients were in training or validation. These figures say nothing about "
            "new patients.",
        )
    if not model.get("patients"):
        metrics["notes"].append(
            "The predictions file does not say on which patients its model was trained: leakage could not be checked."
        )
    write_json(output / "metrics.json", metrics, indent=1)
    print(to_table(metrics))
    if report:
        write_report(
            output / "report.html",
            title=f"{ground_truth.resolve().parent.name}: {ground_truth.name}",
            dataset=dataset,
            predictions=matched,
            metrics=metrics,
            image_reader=image_reader(ground_truth.parent),
            history_csv=history if history is not None and history.exists() else None,
            command=command,
        )
        print(f"wrote {output}/metrics.json; open {output}/report.html")
    return metrics


def _check_categories(dataset: Dataset, predictions: Predictions, ground_truth: Path, predictions_path: Path) -> None:
    if predictions.categories and predictions.categories != dataset.categories:
        raise InputError(
            f"{predictions_path}: its categories are {list(predictions.categories)}, those of {ground_truth} are "
            f"{list(dataset.categories)}; predict with a model that was trained on the same categories"
        )


def leaking_patients(dataset: Dataset, predictions: Predictions) -> list[str]:
    """Patients of a data set that the model of the predictions was trained or chosen on."""
    seen = set(predictions.model.get("patients") or ())
    return sorted(seen & {record.patient_id for record in dataset.images if record.patient_id})


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
        dataset = Dataset(
            predictions.categories,
            tuple(
                ImageRecord(
                    image_id=prediction.image_id,
                    file_name=prediction.file_name,
                    size_hw=prediction.size_hw,
                    patient_id=prediction.patient_id,
                    laterality=prediction.laterality,
                    view=prediction.view,
                )
                for prediction in predictions.images
            ),
        )
        by_id = {prediction.image_id: prediction for prediction in predictions.images}
    else:
        raise InputError("--ground-truth, --predictions: give at least one of them")
    if predictions is None or ground_truth is None:
        options["side_by_side"] = False  # one of both panels would show nothing
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --images names the one that the images' file names start from")
    return write_overlays(dataset, by_id, image_reader(root), output, **options)
