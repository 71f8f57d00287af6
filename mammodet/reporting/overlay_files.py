"""Overlays of a data set, of predictions, or of both, from files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodet.data.coco import read_coco
from mammodet.data.images import read_image, to_display
from mammodet.data.predictions import match_to_dataset, read_predictions
from mammodet.errors import InputError
from mammodet.records import ImageRecord


def image_reader(root: Path) -> Callable[[ImageRecord], NDArray[np.uint8]]:
    """Reads the display image of a record below a folder."""
    return lambda record: to_display(read_image(root / record.file_name))


def draw_files(
    ground_truth: Path | None, predictions_path: Path | None, images: Path | None, output: Path, **options: Any
) -> list[Path]:
    """Draw overlays of a data set, of predictions, or of both; `options` are those of `write_overlays`.

    Raises InputError: neither is given, they do not belong together, or the images' folder is not known or not there.
    """
    predictions = read_predictions(predictions_path) if predictions_path is not None else None
    if ground_truth is not None:
        dataset = read_coco(ground_truth)
        root = images if images is not None else ground_truth.parent
        by_id = {}
        if predictions is not None:
            if predictions.categories and predictions.categories != dataset.categories:
                raise InputError(
                    f"{predictions_path}: its categories are {list(predictions.categories)}, those of {ground_truth} "
                    f"are {list(dataset.categories)}; predict with a model that was trained on the same categories"
                )
            matched = match_to_dataset(predictions.images, dataset, ignore_extra=True, ignore_missing=True)
            by_id = {prediction.image_id: prediction for prediction in matched}
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
