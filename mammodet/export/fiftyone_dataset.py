"""A data set and predictions as a FiftyOne data set (docs/export_data.md)."""

import math
from pathlib import Path
from typing import Any

from mammodet.data.coco import read_coco
from mammodet.data.predictions import match_to_dataset, read_predictions
from mammodet.errors import InputError
from mammodet.export.layouts import LAYOUTS
from mammodet.records import LABELS, BoxXYXY, ImagePrediction, ImageRecord, Rle
from mammodet.run_lengths import mask_patch

_FACTS = ("image_id", "patient_id", "laterality", "view", "density", "birads", "unlocalized")


def to_fiftyone(dataset: str | Path, predictions: str | Path | None = None, *, name: str | None = None) -> Any:
    """A `fiftyone.Dataset` of a data set file, in `ground_truth`, and of a predictions file, in `predictions`.

    Samples carry what is known of their image (`patient_id`, `view`, `tumor`, `malignant`, ...), their split as a tag,
    and the tag `incomplete` where boxes do not say all: images not known to be normal, regions to ignore (`iscrowd`).

    Args:
        name: of the FiftyOne data set; None lets FiftyOne choose one.
    Raises:
        InputError: FiftyOne is not installed, or a file is faulty, or lacks images of the other.
    """
    try:
        import fiftyone
    except ImportError:
        raise InputError("to_fiftyone: needs the package; pip install fiftyone") from None
    path = Path(dataset)
    truth = read_coco(path)
    found: list[ImagePrediction | None] = [None] * len(truth.images)
    categories: tuple[str, ...] = ()
    if predictions is not None:
        file = read_predictions(Path(predictions))
        found, categories = [*match_to_dataset(file.images, truth)], file.categories
    samples = []
    for record, prediction in zip(truth.images, found, strict=True):
        incomplete = LAYOUTS["yolo"].refusal(record) is not None
        tags = [*([record.split] if record.split else []), *(["incomplete"] if incomplete else [])]
        sample = fiftyone.Sample(filepath=str((path.parent / record.file_name).resolve()), tags=tags)
        values = {key: getattr(record, key) for key in _FACTS} | {key: record.label(key) for key in LABELS}
        for key, value in values.items():
            if value is not None:
                sample[key] = value
        sample["ground_truth"] = fiftyone.Detections(
            detections=[
                fiftyone.Detection(
                    label=lesion.category,
                    **_place(record, lesion.box_xyxy, lesion.rle if lesion.has_outline else None),
                    iscrowd=lesion.ignore,
                    geometry=lesion.geometry,
                    pathology=lesion.attributes.get("pathology"),
                )
                for lesion in record.lesions
            ]
        )
        if prediction is not None:
            for key, score in prediction.scores.items():
                sample[f"{key}_score"] = score
            boxes = prediction.detections
            sample["predictions"] = fiftyone.Detections(
                detections=[
                    fiftyone.Detection(
                        label=categories[number - 1],
                        **_place(record, tuple(box), boxes.rles[at] if boxes.rles is not None else None),
                        confidence=score,
                    )
                    for at, (box, number, score) in enumerate(
                        zip(boxes.boxes_xyxy.tolist(), boxes.category_ids.tolist(), boxes.scores.tolist(), strict=True)
                    )
                ]
            )
        samples.append(sample)
    view = fiftyone.Dataset(name)
    view.add_samples(samples)
    return view


def _place(record: ImageRecord, box_xyxy: BoxXYXY, rle: Rle | None) -> dict[str, Any]:
    """A box as shares of the image (x, y, width, height), and the mask in the whole pixels that the box touches."""
    height, width = record.size_hw
    x1, y1, x2, y2 = box_xyxy
    place: dict[str, Any] = {"bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]}
    if rle is not None:
        place["mask"] = mask_patch(rle, (math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)))
    return place
