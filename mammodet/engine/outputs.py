"""From the model's answer to predictions in the pixels of the image file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mammodet.config import AggregationConfig, ClassifierConfig, ModelConfig
from mammodet.data.dataset import Batch
from mammodet.errors import InputError
from mammodet.modeling.aggregation import LogisticStack, image_scores
from mammodet.modeling.build import Model
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.mammo_rcnn import ModelOutput
from mammodet.records import Detections, ImagePrediction, ImageRecord
from mammodet.targets import CLASS_FIELDS, parts_of
from mammodet.trace import Trace


def run_model(model: Model, batch: Batch) -> ModelOutput:
    """The model's answer to a batch: losses in training mode; of a classifier, losses and logits in both modes."""
    if isinstance(model, ImageClassifier):
        return model(batch.images, batch.labels if batch.labels.shape[1] else None, batch.breasts)
    if model.training:
        return model(batch.images, batch.targets, batch.labels, batch.use_boxes)
    return model(batch.images)


def to_predictions(
    model: Model, output: ModelOutput, batch: Batch, config: ModelConfig, stack: LogisticStack | None = None
) -> list[ImagePrediction]:
    """Predictions of a batch.

    Args:
        output: of the model in eval mode.
        stack: a detector's learned aggregation, where it is fitted.
    Raises:
        InputError: the model answers with NaN or infinity.
    """
    for index, record in enumerate(batch.records):
        answers = [] if output.logits is None else [output.logits[index]]
        answers += [output.detections[index][key] for key in ("boxes", "scores")] if output.detections else []
        if not all(bool(answer.isfinite().all()) for answer in answers):
            raise InputError(
                f"image {record.file_name!r}: the model answers with NaN or infinity; its training diverged, or its "
                "weights are damaged. Take another checkpoint"
            )
    if isinstance(model, ImageClassifier):
        return classified(model, output, batch.records, config.classifier)
    return detected(
        output,
        batch.records,
        batch.traces,
        targets=model.targets,
        with_masks=model.with_masks,
        aggregation=config.aggregation,
        stack=stack,
    )


def classified(
    model: ImageClassifier, output: ModelOutput, records: Sequence[ImageRecord], config: ClassifierConfig
) -> list[ImagePrediction]:
    """Predictions of a classifier: labels and classes, no detections.

    A field that is a part of a joined question and no question itself, as the density of `density+malignant`, has the
    sums over the other parts as its probabilities. A label that is not asked for, but follows from the classes of a
    question, has the sum of their probabilities as its score. Where several questions speak of it, the first one does;
    all stand in `scores_by_rule`.
    """
    assert output.logits is not None
    answers = [values.cpu().numpy() for values in model.probabilities(output.logits)]
    predictions = []
    for index, record in enumerate(records):
        by_rule: dict[str, dict[str, float]] = {}
        classes: dict[str, dict[str, float]] = {}
        for target, values in zip(model.targets, answers, strict=True):
            if target.classes is None:
                by_rule.setdefault("head", {})[target.name] = float(values[index])
                continue
            each = dict(zip(target.classes, (float(value) for value in values[index]), strict=True))
            classes[target.name] = _shortened(each)
            collapse = config.heads[target.name].collapse
            if isinstance(collapse, dict) and collapse:
                by_rule[f"sum over {target.name}"] = {
                    label: min(sum(each[name] for name in names), 1.0) for label, names in collapse.items()
                }
        for joined in [name for name in classes if "+" in name]:
            for part, summed in _sums_by_part(joined, classes[joined]).items():
                classes.setdefault(part, _shortened(summed))
        scores: dict[str, float] = {}
        for values_by_label in by_rule.values():
            scores = {**values_by_label, **scores}
        predictions.append(
            ImagePrediction(
                image_id=record.image_id,
                file_name=record.file_name,
                size_hw=record.size_hw,
                scores=_shortened(scores),
                detections=Detections.empty(with_masks=False),
                scores_by_rule={rule: _shortened(values) for rule, values in by_rule.items()}
                if len(by_rule) > 1
                else {},
                class_scores=classes,
                patient_id=record.patient_id,
                laterality=record.laterality,
                view=record.view,
            )
        )
    return predictions


def _sums_by_part(target: str, scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The probabilities of each field of a joined question."""
    sums: dict[str, dict[str, float]] = {part: {} for part in target.split("+") if part in CLASS_FIELDS}
    for name, score in scores.items():
        answers = parts_of(target, name)
        if answers is None:  # classes that a config names otherwise
            return {}
        for part, answer in zip(target.split("+"), answers, strict=True):
            if part in sums:
                sums[part][answer] = sums[part].get(answer, 0.0) + score
    return sums


def detected(
    output: ModelOutput,
    records: Sequence[ImageRecord],
    traces: Sequence[Trace],
    *,
    targets: Sequence[str],
    with_masks: bool,
    aggregation: AggregationConfig,
    stack: LogisticStack | None = None,
) -> list[ImagePrediction]:
    """Predictions of a detector.

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
                scores=_shortened(scores),
                detections=to_detections(found, trace, with_masks),
                scores_by_rule={rule: _shortened(values) for rule, values in by_rule.items()},
                patient_id=record.patient_id,
                laterality=record.laterality,
                view=record.view,
            )
        )
    return predictions


def to_float32(score: float) -> float:
    """The shortest number that reads back as the same float32: what the network knows, and no more digits in files.

    A fixed number of decimals would turn the small scores of a rare class into ties.
    """
    return float(str(np.float32(score)))


def _shortened(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: to_float32(value) for name, value in scores.items()}


def to_detections(found: dict[str, Tensor], trace: Trace, with_masks: bool) -> Detections:
    """One image's detections in native pixels; what falls wholly into the crop's outside is gone.

    Boxes are rounded to hundredths of a pixel: more is noise, and makes files longer. Scores keep their precision.
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
    exact = np.array([to_float32(score) for score in scores[keep]], dtype=np.float64)
    return Detections(boxes[keep].round(2), exact, labels[keep].astype(np.int64), rles)


def _cut(mask: np.ndarray) -> np.ndarray:
    """Faint probabilities far from the border of 0.5 only widen the area that has to be resized."""
    return np.where(mask > 0.02, mask, 0).astype(np.float32)
