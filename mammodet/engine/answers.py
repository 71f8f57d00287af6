"""From a network's answer to predictions in the pixels of the image file, whatever engine ran it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mammodet.config import ClassifierModelConfig, Config, DetectorModelConfig
from mammodet.errors import InputError
from mammodet.modeling.aggregation import LogisticStack, image_scores
from mammodet.modeling.masks import paste_mask
from mammodet.modeling.second_boxes import Found, without_second_boxes
from mammodet.records import Detections, ImagePrediction, ImageRecord
from mammodet.targets import CLASS_FIELDS, Target, parts_of
from mammodet.trace import Trace

FAINT = 0.02  # probabilities of a mask, far from the border of 0.5, that would only widen the area to be resized


def answers_to_predictions(
    detections: Sequence[Found],
    logits: NDArray[np.float32] | None,
    records: Sequence[ImageRecord],
    traces: Sequence[Trace],
    config: Config,
    stack: LogisticStack | None = None,
    *,
    soften: bool = True,
) -> list[ImagePrediction]:
    """Predictions of images from what a network answers.

    Args:
        detections: as `DetectorOutput` describes them, as arrays; of a classifier none.
        logits: (B, T) of a detector, (B, sum of the questions' classes) of a classifier; None of a plain detector.
        stack: a detector's learned aggregation, where it is fitted.
        soften: whether scores of overlapping detections are lowered where the config says so.
    Raises:
        InputError: the network answers with NaN or infinity.
    """
    for index, record in enumerate(records):
        answers = [] if logits is None else [logits[index]]
        answers += [detections[index][key] for key in ("boxes", "scores")] if detections else []
        if not all(np.isfinite(answer).all() for answer in answers):
            raise InputError(
                f"image {record.file_name!r}: the model answers with NaN or infinity; its training diverged, or its "
                "weights are damaged. Take another checkpoint"
            )
    if isinstance(config.model, ClassifierModelConfig):
        assert logits is not None
        return classified(logits, records, config.model)
    found = [without_second_boxes(each, config.model.detector, soften=soften) for each in detections]
    return detected(found, logits, records, traces, config.model, stack)


def classified(
    logits: NDArray[np.float32], records: Sequence[ImageRecord], config: ClassifierModelConfig
) -> list[ImagePrediction]:
    """Predictions of a classifier: labels and classes, no detections.

    A field that is a part of a joined question and no question itself, as the density of `density+malignant`, has the
    sums over the other parts as its probabilities. A label that is not asked for, but follows from the classes of a
    question, has the sum of their probabilities as its score. Where several questions speak of it, the first one does;
    all are in `scores_by_rule`.
    """
    answers = probabilities(logits, config.targets)
    predictions = []
    for index, record in enumerate(records):
        by_rule: dict[str, dict[str, float]] = {}
        classes: dict[str, dict[str, float]] = {}
        for target, values in zip(config.targets, answers, strict=True):
            if target.classes is None:
                by_rule.setdefault("head", {})[target.name] = float(values[index])
                continue
            each = dict(zip(target.classes, (float(value) for value in values[index]), strict=True))
            classes[target.name] = _shortened(each)
            collapse = config.classifier.heads[target.name].collapse
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
            ImagePrediction.of(
                record,
                scores=_shortened(scores),
                detections=Detections.empty(with_masks=False),
                scores_by_rule={rule: _shortened(values) for rule, values in by_rule.items()}
                if len(by_rule) > 1
                else {},
                class_scores=classes,
            )
        )
    return predictions


def probabilities(logits: NDArray[np.float32], targets: Sequence[Target]) -> list[NDArray[np.float32]]:
    """For each question (B,) of a label, or (B, k) of classes, together 1, from logits (B, sum of widths)."""
    ends = np.cumsum([1 if target.classes is None else len(target.classes) for target in targets])
    return [
        _sigmoid(part[:, 0]) if target.classes is None else _softmax(part)
        for target, part in zip(targets, np.split(logits, ends[:-1], axis=1), strict=True)
    ]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64)), dtype=np.float32)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


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
    detections: Sequence[Found],
    logits: NDArray[np.float32] | None,
    records: Sequence[ImageRecord],
    traces: Sequence[Trace],
    config: DetectorModelConfig,
    stack: LogisticStack | None = None,
) -> list[ImagePrediction]:
    """Predictions of a detector, as `answers_to_predictions`."""
    heads = _sigmoid(logits).tolist() if logits is not None else [()] * len(records)
    predictions = []
    for found, answers, record, trace in zip(detections, heads, records, traces, strict=True):
        head = dict(zip((target.name for target in config.targets), answers, strict=True))
        scores, by_rule = image_scores(found["scores"], head, config.aggregation, stack)
        predictions.append(
            ImagePrediction.of(
                record,
                scores=_shortened(scores),
                detections=to_detections(found, trace),
                scores_by_rule={rule: _shortened(values) for rule, values in by_rule.items()},
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


def to_detections(found: Found, trace: Trace) -> Detections:
    """One image's detections in native pixels; what falls wholly into the crop's outside is gone.

    Boxes are rounded to hundredths of a pixel: more is noise, and makes files longer. Scores keep their precision.
    """
    boxes = trace.boxes_backward(found["boxes"])
    scores = found["scores"].astype(np.float64).clip(0, 1)
    keep = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > 0)
    rles = None
    if "masks" in found:
        rles = []
        for index in keep:
            patch, corner_xy = paste_mask(found["masks"][index, 0], found["boxes"][index], trace.output_size_hw)
            rles.append(trace.patch_backward(np.where(patch > FAINT, patch, 0), corner_xy))
    exact = np.array([to_float32(score) for score in scores[keep]], dtype=np.float64)
    return Detections(boxes[keep].round(2), exact, found["labels"][keep].astype(np.int64), rles)
