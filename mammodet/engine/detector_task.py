"""What a lesion detector needs of its data, how it is run, and its answers in the pixels of the image file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammodet.config import Config, DetectorModelConfig
from mammodet.data.dataset import Batch
from mammodet.engine.anchors import describe_anchors, fit_anchors, training_boxes
from mammodet.engine.answers import answer_about, shortened, to_float32
from mammodet.evaluation.validation import detector_figures
from mammodet.modeling.aggregation import LogisticStack, image_scores
from mammodet.modeling.detectron2_backend.config import anchor_strides, resolve
from mammodet.modeling.mammo_rcnn import MammoRCNN, ModelOutput
from mammodet.records import Dataset, Detections, ImagePrediction
from mammodet.trace import Trace


class DetectorTask:
    """The task of `model.kind=detector`."""

    #: Losses that validation has, too.
    validation_losses: tuple[str, ...] = ()

    def resolve(self, config: Config) -> Config:
        """The config with all of detectron2's in it, so that its checkpoints need no other file."""
        model = _model(config)
        if not model.from_detectron2:
            return config
        return config.change(model=model.change(detectron2=resolve(model.detectron2)))

    def faults(self, config: Config, train: Dataset, val: Dataset) -> list[str]:
        """What keeps a config from being trained on data sets, in words."""
        model, monitor, faults = _model(config), config.train.monitor, []
        if train.categories != val.categories:
            faults.append(f"categories differ: {train.categories} in training, {val.categories} in validation")
        lesions = [lesion for record in train.images for lesion in record.lesions if not lesion.ignore]
        boxes_only = sum(not lesion.has_outline for lesion in lesions)
        if model.with_masks and boxes_only and config.data.box_masks == "none":
            chosen, choice = "model.detector.arch=mask_rcnn", "choose faster_rcnn"
            if model.from_detectron2:
                chosen = f"model.detectron2.config={model.detectron2.config}: outlines"
                choice = (
                    "choose one without masks, or set in model.detectron2.opts MODEL.MASK_ON False (of a LazyConfig "
                    "model.roi_heads.mask_in_features null)"
                )
            faults.append(
                f"{chosen}, but {boxes_only} of {len(lesions)} training lesions have no mask; {choice}, or let "
                "data.box_masks=ellipse make masks of their boxes"
            )
        boxed = any(not lesion.ignore for record in val.images for lesion in record.lesions)
        if ("AP" in monitor or "froc" in monitor) and not boxed:
            faults.append(f"train.monitor={monitor}: the validation set has no lesion with a place")
        known = {name for record in train.images for name, value in record.labels.items() if value is not None}
        unknown = [target.name for target in model.targets if target.name not in known]
        if unknown:
            faults.append(
                f"model.image_head.targets {unknown}: no training image has such a label; known: {sorted(known)}"
            )
        classes = {record.label("tumor") for record in val.images} - {None}
        if model.aggregation.rule == "learned" and classes != {0, 1}:
            faults.append(
                "model.aggregation.rule=learned needs validation images with and without tumor; "
                f"the label is {sorted(str(value) for value in classes)} on all; choose another rule"
            )
        return faults

    def fill_in(self, config: Config, train: Dataset, root: Path) -> Config:
        """Fit anchors that are `auto`, and say how many lesions the anchors meet."""
        model = _model(config)
        detector = model.detector
        fits = detector.anchors.sizes == "auto"
        if not any(not lesion.ignore for record in train.images for lesion in record.lesions) and not fits:
            return config
        print("comparing anchors with the training boxes", flush=True)
        boxes = training_boxes(train, root, config.data.image)
        theirs = model.from_detectron2
        strides = anchor_strides(model.detectron2.resolved or {}) if theirs else detector.strides
        if fits:
            anchors = detector.anchors.change(sizes=fit_anchors(boxes, strides, uniform=theirs))
            detector = detector.change(anchors=anchors)
        sizes = detector.anchors.per_level
        if len(strides) == len(sizes):
            print(describe_anchors(boxes, sizes, detector.anchors.ratios, strides))
        return config.change(model=model.change(detector=detector))

    def run(self, model: MammoRCNN, batch: Batch) -> ModelOutput:
        """The model's answer to a batch: losses in training mode, detections else."""
        if model.training:
            return model(batch.images, batch.targets, batch.labels, batch.use_boxes)
        return model(batch.images)

    def predictions(
        self, config: Config, model: MammoRCNN, output: ModelOutput, batch: Batch, stack: LogisticStack | None
    ) -> list[ImagePrediction]:
        """Predictions of a batch.

        Args:
            output: of the model in eval mode.
            stack: the learned aggregation, where it is fitted.
        """
        probabilities = torch.sigmoid(output.logits.detach().float()).cpu() if output.logits is not None else None
        aggregation, predictions = _model(config).aggregation, []
        for index, (record, trace) in enumerate(zip(batch.records, batch.traces, strict=True)):
            found = output.detections[index]
            head = {}
            if probabilities is not None:
                head = {name: float(probabilities[index, column]) for column, name in enumerate(model.targets)}
            scores, by_rule = image_scores(found["scores"], head, aggregation, stack)
            predictions.append(
                answer_about(
                    record,
                    scores=shortened(scores),
                    detections=to_detections(found, trace, model.with_masks),
                    scores_by_rule={rule: shortened(values) for rule, values in by_rule.items()},
                )
            )
        return predictions

    def figures(self, dataset: Dataset, predictions: list[ImagePrediction]) -> Mapping[str, float]:
        """Of a validation."""
        return detector_figures(dataset, predictions)


def _model(config: Config) -> DetectorModelConfig:
    assert isinstance(config.model, DetectorModelConfig)
    return config.model


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


def _cut(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Faint probabilities far from the border of 0.5 only widen the area that has to be resized."""
    return np.where(mask > 0.02, mask, 0).astype(np.float32)
