"""What a lesion detector needs of its data, how it is run, and its answers in the pixels of the image file."""

from collections.abc import Mapping
from pathlib import Path

from mammodet.config import Config, DetectorModelConfig
from mammodet.data.dataset import Batch
from mammodet.engine.anchors import describe_anchors, fit_anchors, training_boxes
from mammodet.evaluation.validation import detector_figures
from mammodet.modeling.detectron2_backend.config import anchor_strides, resolve
from mammodet.modeling.mammo_rcnn import MammoRCNN, ModelOutput
from mammodet.records import Dataset, ImagePrediction


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
            faults.append(f"model.image_head.targets {unknown}: no training image has them; known: {sorted(known)}")
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

    def figures(self, dataset: Dataset, predictions: list[ImagePrediction]) -> Mapping[str, float]:
        return detector_figures(dataset, predictions)


def _model(config: Config) -> DetectorModelConfig:
    assert isinstance(config.model, DetectorModelConfig)
    return config.model
