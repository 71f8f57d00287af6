"""From the model's answer to predictions in the pixels of the image file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mammodet.config import AggregationConfig
from mammodet.modeling.aggregation import LogisticStack, image_scores
from mammodet.modeling.mammo_rcnn import ModelOutput
from mammodet.records import Detections, ImagePrediction, ImageRecord
from mammodet.trace import Trace


def to_predictions(
    output: ModelOutput,
    records: Sequence[ImageRecord],
    traces: Sequence[Trace],
    *,
    targets: Sequence[str],
    with_masks: bool,
    aggregation: AggregationConfig,
    stack: LogisticStack | None = None,
) -> list[ImagePrediction]:
    """Predictions of a batch.

    Args:
        output: of `MammoRCNN` in eval mode.
        targets: names of the logits' columns.
    """
    probabilities = torch.sigmoid(output.logits.detach().float()).cpu() if output.logits is not None else None
    predictions = []
    for index, (record, trace) in enumerate(zip(records, traces, strict=True)):
        found = output.detections[index]
        head = {}
        if probabilities is not None:
            head = {name: float(probabilities[index, column]) for column, name in enumerate(targets)}
        scores, by_rule = image_scores(found["scores"], head, aggregation, stack)
        predictions.append(
            ImagePrediction(
                image_id=record.image_id,
                file_name=record.file_name,
                size_hw=record.size_hw,
                scores=_rounded(scores),
                detections=to_detections(found, trace, with_masks),
                scores_by_rule={rule: _rounded(values) for rule, values in by_rule.items()},
                patient_id=record.patient_id,
                laterality=record.laterality,
                view=record.view,
            )
        )
    return predictions


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}


def to_detections(found: dict[str, Tensor], trace: Trace, with_masks: bool) -> Detections:
    """One image's detections in native pixels; what falls wholly into the crop's outside is gone.

    Boxes are rounded to hundredths of a pixel and scores to six digits: more is noise, and makes files longer.
    """
    boxes = trace.boxes_backward(found["boxes"].detach().double().cpu().numpy())
    scores = found["scores"].detach().double().cpu().numpy().clip(0, 1)
    labels = found["labels"].cpu().numpy()
    keep = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > 0)
    rles = None
    if with_masks:
        # Half precision from mixed-precision runs is no type that OpenCV resizes.
        masks = found["masks"].detach().float().cpu().numpy()[:, 0]
        rles = [trace.mask_backward(_cut(masks[index])) for index in keep]
    return Detections(boxes[keep].round(2), scores[keep].round(6), labels[keep].astype(np.int64), rles)


def _cut(mask: np.ndarray) -> np.ndarray:
    """Faint probabilities far from the border of 0.5 only widen the area that has to be resized."""
    return np.where(mask > 0.02, mask, 0).astype(np.float32)
