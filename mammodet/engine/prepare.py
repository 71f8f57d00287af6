"""Check a config and its data before anything runs, and fill in what the config leaves to the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mammodet.config import Config, TrainConfig, make_config
from mammodet.data.coco import data_hash, read_coco
from mammodet.data.mix import donors
from mammodet.data.seen_images import SeenImages
from mammodet.data.several import Part, join_sets
from mammodet.data.sources import SourceFile, split_hash_of
from mammodet.engine.anchors import describe_anchors, fit_anchors, training_boxes
from mammodet.engine.checkpoint import RunFacts
from mammodet.engine.unsafe_split import make_unsafe_split
from mammodet.errors import InputError, raise_faults
from mammodet.modeling.build import pixel_stats
from mammodet.modeling.detectron2_backend.config import anchor_strides, resolve
from mammodet.records import Dataset
from mammodet.targets import class_of, classes_of, collapses_of, is_binary


@dataclass(frozen=True, slots=True)
class Run:
    """A checked experiment: config with nothing left `auto`, its data, and what goes into checkpoints.

    Attributes:
        root: folder that the image names of both sets start from.
        weights: of each training image, how often it is drawn; None where all are drawn equally often.
    """

    config: Config
    train: Dataset
    val: Dataset
    facts: RunFacts
    root: Path
    weights: Sequence[float] | None = None


def prepare(config: Config) -> Run:
    """Read and check the data that a config names, and fill in what is `auto`.

    Raises:
        InputError: faulty data, or data and config that do not go together.
    """
    if config.data.unsafe_split is not None:
        config = make_unsafe_split(config)
    parts: list[Part] = []
    faults: list[str] = []
    for subset in ("train", "val"):
        for placed in config.data.files(subset):
            try:
                parts.append(Part.of(placed, read_dataset(config, placed.path), subset))
            except InputError as error:
                faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    *paths, last = (str(part.path) for part in parts)
    where = f"{', '.join(paths)} and {last}"
    sources = tuple(part.source for part in parts)
    if not config.data.joins_sets:
        train, val = (part.dataset for part in parts)
        return make_run(config, train, val, where=where, sources=sources)
    joined = join_sets(parts)
    run = make_run(config, joined.train, joined.val, where=where, sources=sources, root=joined.root)
    facts = replace(run.facts, data_hash=joined.data_hash)
    return replace(run, facts=facts, weights=joined.weights if set(joined.weights) != {1.0} else None)


def read_dataset(config: Config, path: Path) -> Dataset:
    """One file of a config's data; what is dropped of it is told."""
    dataset = read_coco(path, skip_invalid=config.data.skip_invalid)
    dropped = dataset.info.get("dropped") or []
    if dropped:
        print(f"{path}: {len(dropped)} faulty records dropped:", *dropped[:20], sep="\n  - ")
    if clipped := dataset.info.get("clipped"):
        print(f"{path}: {len(clipped)} boxes cut to their images, for instance of {clipped[0]}")
    return dataset


def make_run(
    config: Config,
    train: Dataset,
    val: Dataset,
    *,
    where: str,
    sources: tuple[SourceFile, ...] = (),
    root: Path | None = None,
) -> Run:
    """Check data sets against a config, and fill in what is `auto`.

    Args:
        where: names both data sets in messages.
        sources: the files that they were read from.
        root: folder that image names start from; None for `data.root`.
    Raises:
        InputError: faulty data, or data and config that do not go together.
    """
    if config.model.from_detectron2:
        config = _resolve_detectron2(config)
    root = root or config.data.root
    raise_faults(data_faults(config, train, val, root), where=where)
    config = _fill_in(config, train, root)
    _tell_strange_classes(config, val)
    patients = {str(record.patient_id) for record in (*train.images, *val.images) if record.patient_id}
    facts = RunFacts(
        config=config.to_dict(),
        categories=train.categories,
        data_hash=data_hash(train),
        split_hash=split_hash_of(train),
        patients=tuple(sorted(patients)),
        files=sources,
        unknown_patients=sum(not record.patient_id for record in (*train.images, *val.images)),
        images=SeenImages.of((*train.images, *val.images), root).to_json(),
    )
    return Run(config, train, val, facts, root)


def _resolve_detectron2(config: Config) -> Config:
    """The config with all of detectron2's in it, so that its checkpoints need no other file."""
    values = config.to_dict()
    values["model"]["detectron2"] = resolve(config.model.detectron2).model_dump(mode="json")
    return make_config(values, where="with detectron2's config")


def _fill_in(config: Config, train: Dataset, root: Path) -> Config:
    """The config with what its training set decides: anchors of a detector, classes of a classifier."""
    values = config.to_dict()
    pixels = pixel_stats(config.model)
    values["model"]["pixels"] = {"mean": pixels.mean, "std": pixels.std}
    if config.model.kind == "detector":
        _fill_in_anchors(config, train, root, values)
    else:
        for name, head in values["model"]["classifier"]["heads"].items():
            if not is_binary(name):
                _fill_in_head(name, head, train)
    return make_config(values, where="with what the training set decides")


def _fill_in_anchors(config: Config, train: Dataset, root: Path, values: dict[str, Any]) -> None:
    """Fit anchors that are `auto`, and say how many lesions the anchors meet."""
    detector = config.model.detector
    fits = detector.anchors.sizes == "auto"
    if not any(not lesion.ignore for record in train.images for lesion in record.lesions) and not fits:
        return
    print("comparing anchors with the training boxes", flush=True)
    boxes = training_boxes(train, root, config.data.image)
    strides = detector.strides
    if config.model.from_detectron2:
        strides = anchor_strides(config.model.detectron2.resolved or {})
    sizes = fit_anchors(boxes, strides, uniform=config.model.from_detectron2) if fits else detector.anchors.per_level
    if fits:
        values["model"]["detector"]["anchors"]["sizes"] = sizes
    if len(strides) == len(sizes):
        print(describe_anchors(boxes, sizes, detector.anchors.ratios, strides))


def _fill_in_head(name: str, head: dict[str, Any], train: Dataset) -> None:
    if head["classes"] == "auto":
        head["classes"] = list(classes_of(train.images, name))
    counts = Counter(class_of(record, name) for record in train.images)
    if head["class_weights"] == "balanced":
        total = sum(counts[each] for each in head["classes"])
        head["class_weights"] = [total / (len(head["classes"]) * counts[each]) for each in head["classes"]]
    if head["collapse"] == "auto":
        head["collapse"] = {label: list(each) for label, each in collapses_of(train.images, name).items()}
    print(f"{name}: {', '.join(f'{each} ({counts[each]})' for each in head['classes'])}")
    for label, each in head["collapse"].items():
        print(f"  {label} is the sum over {', '.join(each)}")


def _tell_strange_classes(config: Config, val: Dataset) -> None:
    """Say which classes occur in validation alone: they are always answered wrongly."""
    for target in config.targets:
        strange = [name for name in classes_of(val.images, target.name) if name not in (target.classes or ())]
        if target.classes is not None and strange:
            print(
                f"{target.name}: validation images of {', '.join(strange)} count as wrong; training has no such class"
            )


def data_faults(config: Config, train: Dataset, val: Dataset, root: Path) -> list[str]:
    """What keeps a config from being trained on data sets whose images lie below `root`, in words."""
    faults = []
    for name, dataset in (("training", train), ("validation", val)):
        if not dataset.images:
            faults.append(f"the {name} set has no images")
    if faults:
        return faults
    shared = {record.patient_id for record in train.images} & {record.patient_id for record in val.images} - {None}
    if shared and config.data.unsafe_split is None:
        shown = ", ".join(sorted(str(patient) for patient in shared)[:10])
        faults.append(f"{len(shared)} patients are in training and in validation: {shown}")
    names = {record.file_name for record in (*train.images, *val.images)}
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        faults.append(f"{len(missing)} image files are missing below {root}, for instance {min(missing)}")
    augment = config.data.augment
    if augment.enabled and augment.copy_paste and (count := len(donors(train.images))) < 2:
        faults.append(
            f"data.augment.copy_paste={augment.copy_paste:g}: {count} training images have a single lesion with a "
            "place; expected two or more; set data.augment.copy_paste=0"
        )
    faults += _monitor_faults(config.train)
    return faults + (_detector_faults if config.model.kind == "detector" else _classifier_faults)(config, train, val)


#: Parts of the names of figures that fall, and that rise, as a model gets better.
_DIRECTIONS = {"min": ("loss",), "max": ("AP", "auc", "froc", "accuracy", "kappa", "pf1")}


def _monitor_faults(settings: TrainConfig) -> list[str]:
    monitor, mode = settings.monitor, settings.monitor_mode
    faults = [
        f"train.monitor={monitor} with train.monitor_mode={mode} keeps the worst checkpoint; set "
        f"train.monitor_mode={better}"
        for better, parts in _DIRECTIONS.items()
        if mode != better and any(part in monitor for part in parts)
    ]
    if not monitor.startswith(("val/", "train/")):
        faults.append(f"train.monitor={monitor}: expected a column of metrics.csv, as val/bbox_AP50 or train/loss")
    if settings.validate_every > settings.epochs:
        faults.append(
            f"train.validate_every={settings.validate_every} with train.epochs={settings.epochs}: nothing would be "
            f"validated; set train.validate_every={settings.epochs} or less"
        )
    return faults


def _detector_faults(config: Config, train: Dataset, val: Dataset) -> list[str]:
    faults = []
    if train.categories != val.categories:
        faults.append(f"categories differ: {train.categories} in training, {val.categories} in validation")
    lesions = [lesion for record in train.images for lesion in record.lesions if not lesion.ignore]
    boxes_only = sum(not lesion.has_outline for lesion in lesions)
    if config.model.with_masks and boxes_only and config.data.box_masks == "none":
        chosen, choice = "model.detector.arch=mask_rcnn", "choose faster_rcnn"
        if config.model.from_detectron2:
            chosen = f"model.detectron2.config={config.model.detectron2.config}: outlines"
            choice = (
                "choose one without masks, or set in model.detectron2.opts MODEL.MASK_ON False (of a LazyConfig "
                "model.roi_heads.mask_in_features null)"
            )
        faults.append(
            f"{chosen}, but {boxes_only} of {len(lesions)} training lesions have no mask; {choice}, or let "
            "data.box_masks=ellipse make masks of their boxes"
        )
    monitor = config.train.monitor
    boxed = any(not lesion.ignore for record in val.images for lesion in record.lesions)
    if ("AP" in monitor or "froc" in monitor) and not boxed:
        faults.append(f"train.monitor={monitor}: the validation set has no lesion with a place")
    if config.model.image_head.enabled:
        known = {name for record in train.images for name, value in record.labels.items() if value is not None}
        unknown = [name for name in config.model.image_head.targets if name not in known]
        if unknown:
            faults.append(
                f"model.image_head.targets {unknown}: no training image has such a label; known: {sorted(known)}"
            )
    if config.model.aggregation.rule == "learned":
        classes = {record.label("tumor") for record in val.images} - {None}
        if classes != {0, 1}:
            faults.append(
                "model.aggregation.rule=learned needs validation images with and without tumor; "
                f"the label is {sorted(str(value) for value in classes)} on all; choose another rule"
            )
    return faults


def _classifier_faults(config: Config, train: Dataset, val: Dataset) -> list[str]:
    faults = []
    monitor = config.train.monitor
    if "AP" in monitor or "froc" in monitor:
        faults.append(
            f"train.monitor={monitor}: a classifier gives no boxes; choose val/loss (with train.monitor_mode=min), "
            "val/auc_LABEL, or val/balanced_accuracy_QUESTION"
        )
    for name, head in config.model.classifier.heads.items():
        if "laterality" in name.split("+"):
            faults += _side_faults(config, f"model.classifier.heads.{name}")
        if is_binary(name):
            faults += _label_faults(name, train, val)
        else:
            faults += _class_faults(name, head.classes, train, val)
    return faults


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


def _class_faults(name: str, given: list[str] | str, train: Dataset, val: Dataset) -> list[str]:
    place = f"model.classifier.heads.{name}"
    found = classes_of(train.images, name)
    wanted = tuple(given) if isinstance(given, list) else found
    faults = []
    if len(found) < 2:
        faults.append(
            f"{place}: the training images have {len(found)} classes ({', '.join(found)}); expected two or more"
        )
    absent = [each for each in wanted if each not in found]
    if absent:
        faults.append(f"{place}.classes {absent}: no training image is of them; found: {', '.join(found)}")
    if not classes_of(val.images, name):
        faults.append(f"{place}: no validation image answers it")
    return faults
