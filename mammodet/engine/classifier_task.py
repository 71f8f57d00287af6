"""What an image classifier needs of its data, how it is run, and its answers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mammodet.config import ClassHeadConfig, ClassifierModelConfig, Config
from mammodet.data.dataset import Batch
from mammodet.evaluation.validation import classifier_figures
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.mammo_rcnn import ModelOutput
from mammodet.records import Dataset, ImagePrediction
from mammodet.targets import class_of, classes_of, collapses_of, is_binary

#: The side in the name of a class: LEFT_CC, R-MLO, lcc.
_SIDE = re.compile(r"(?<![a-z])(left|right|[lr])(?=(?:cc|mlo)?(?![a-z]))")


class ClassifierTask:
    """The task of `model.kind=classifier`."""

    #: Losses that validation has, too.
    validation_losses: tuple[str, ...] = ("loss",)

    def resolve(self, config: Config) -> Config:
        return config

    def faults(self, config: Config, train: Dataset, val: Dataset) -> list[str]:
        """What keeps a config from being trained on data sets, in words."""
        monitor, faults = config.train.monitor, []
        if "AP" in monitor or "froc" in monitor:
            faults.append(
                f"train.monitor={monitor}: a classifier gives no boxes; choose val/loss (with train.monitor_mode=min), "
                "val/auc_LABEL, or val/balanced_accuracy_QUESTION"
            )
        for name, head in _model(config).classifier.heads.items():
            place = f"model.classifier.heads.{name}"
            parts = name.split("+")
            names = [record.class_name for record in train.images] if "class" in parts else []
            if "laterality" in parts or _tell_sides(names):
                faults += _side_faults(config, place)
            faults += _label_faults(name, train, val) if is_binary(name) else _class_faults(name, head, train, val)
        return faults

    def fill_in(self, config: Config, train: Dataset, root: Path) -> Config:
        """The classes of each question, their weights, and the labels that follow from them; they are printed."""
        model = _model(config)
        heads = {
            name: head if is_binary(name) else _filled(name, head, train)
            for name, head in model.classifier.heads.items()
        }
        return config.change(model=model.change(classifier=model.classifier.change(heads=heads)))

    def run(self, model: ImageClassifier, batch: Batch) -> ModelOutput:
        """The model's answer to a batch: losses and logits in both modes."""
        return model(batch.images, batch.labels if batch.labels.shape[1] else None, batch.breasts)

    def figures(self, dataset: Dataset, predictions: list[ImagePrediction]) -> Mapping[str, float]:
        return classifier_figures(dataset, predictions)


def _model(config: Config) -> ClassifierModelConfig:
    assert isinstance(config.model, ClassifierModelConfig)
    return config.model


def _filled(name: str, head: ClassHeadConfig, train: Dataset) -> ClassHeadConfig:
    counts = Counter(class_of(record, name) for record in train.images)
    classes = list(classes_of(train.images, name)) if head.classes == "auto" else head.classes
    weights, collapse = head.class_weights, head.collapse
    if weights == "balanced":
        total = sum(counts[each] for each in classes)
        weights = [total / (len(classes) * counts[each]) for each in classes]
    if collapse == "auto":
        collapse = {label: list(each) for label, each in collapses_of(train.images, name).items()}
    print(f"{name}: {', '.join(f'{each} ({counts[each]})' for each in classes)}")
    for label, names in collapse.items():
        print(f"  {label} is the sum over {', '.join(names)}")
    return head.change(classes=classes, class_weights=weights, collapse=collapse)


def _tell_sides(names: Iterable[str | None]) -> bool:
    """Whether the archive's classes say of what side an image is, as `LEFT_CC` and `right benign` do."""
    words = {word[:1] for name in set(names) for word in _SIDE.findall((name or "").lower())}
    return words == {"l", "r"}


def _side_faults(config: Config, place: str) -> list[str]:
    """What hides which side an image is of."""
    augment = config.data.augment
    faults = []
    if augment.enabled and (augment.horizontal_flip > 0 or augment.rotate_degrees > 90):
        faults.append(
            f"{place}: data.augment.horizontal_flip={augment.horizontal_flip:g} and rotate_degrees="
            f"{augment.rotate_degrees:g} make right breasts of left ones; expected 0, and at most 90: set "
            "data.augment.horizontal_flip=0 data.augment.rotate_degrees=10"
        )
    if config.data.image.orient != "none":
        faults.append(f"{place}: data.image.orient=left turns all breasts to one side; set data.image.orient=none")
    return faults


def _label_faults(name: str, train: Dataset, val: Dataset) -> list[str]:
    faults = []
    for where, dataset in (("training", train), ("validation", val)):
        counts = Counter(record.label(name) for record in dataset.images)
        if not counts[0] or not counts[1]:
            faults.append(
                f"model.classifier.heads.{name}: the {where} set has {counts[1]} positive and {counts[0]} negative "
                f"images ({counts[None]} unknown); both classes are needed"
            )
    return faults


def _class_faults(name: str, head: ClassHeadConfig, train: Dataset, val: Dataset) -> list[str]:
    place, found, faults = f"model.classifier.heads.{name}", classes_of(train.images, name), []
    if len(found) < 2:
        faults.append(f"{place}: training images have {len(found)} classes ({', '.join(found)}); expected two or more")
    absent = [each for each in head.classes if each not in found] if isinstance(head.classes, list) else []
    if absent:
        faults.append(f"{place}.classes {absent}: no training image is of them; found: {', '.join(found)}")
    if not classes_of(val.images, name):
        faults.append(f"{place}: no validation image answers it")
    return faults
