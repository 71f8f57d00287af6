"""Check a config and its data before anything runs, and fill in what the config leaves to the data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodet.config import Config, PixelsConfig, TrainConfig
from mammodet.data.coco import data_hash, read_coco
from mammodet.data.dataset_files import has_dataset
from mammodet.data.mix import donors
from mammodet.data.patient_keys import PatientKey
from mammodet.data.seen_images import SeenImages
from mammodet.data.several import Part, join_sets
from mammodet.data.sources import SourceFile, split_hash_of
from mammodet.engine.checkpoint import RunFacts
from mammodet.engine.loggers import logger_faults
from mammodet.engine.tasks import task_of
from mammodet.engine.unsafe_split import make_unsafe_split
from mammodet.errors import InputError, raise_faults
from mammodet.modeling.build import pixel_stats
from mammodet.records import Dataset
from mammodet.targets import classes_of


@dataclass(frozen=True, slots=True)
class Run:
    """A checked experiment: config with nothing left `auto`, its data, and what goes into checkpoints."""

    config: Config
    train: Dataset
    val: Dataset
    facts: RunFacts
    root: Path  #: folder that the image names of both sets start from
    #: of each training image, how often it is drawn; None where all are drawn equally often.
    weights: Sequence[float] | None = None


def prepare(config: Config) -> Run:
    """Read and check the data that a config names, and fill in what is `auto`.

    Raises InputError: faulty data, or data and config that do not go together.
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
    if not any(has_dataset(placed.path) for subset in ("train", "val") for placed in config.data.files(subset)):
        faults.append(f"data.root={config.data.root}: expected a folder of mammodet convert (data.root=FOLDER)")
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
    """One file of a config's data; what it drops is printed."""
    dataset = read_coco(path, skip_invalid=config.data.skip_invalid)
    dropped = dataset.info.get("dropped") or []
    if dropped:
        print(f"{path}: {len(dropped)} faulty records dropped:", *dropped[:20], sep="\n  - ")
    if clipped := dataset.info.get("clipped"):
        print(f"{path}: {len(clipped)} boxes cut to their images, for instance of {clipped[0]}")
    if unknown := dataset.info.get("unknown"):
        print(
            f"WARNING: {path}: {unknown} of {len(dataset.images)} images have neither annotations nor labels, and "
            "nothing says that they are normal: they teach no background and are not scored. If they were looked at "
            'and are normal, write "labels": {"tumor": 0} to them, or convert the file: mammodet convert coco '
            "--without-boxes normal"
        )
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
    task, root = task_of(config), root or config.data.root
    config = task.resolve(config)
    raise_faults(data_faults(config, train, val, root), where=where)
    pixels = pixel_stats(config.model)
    model = config.model.change(pixels=PixelsConfig(mean=pixels.mean, std=pixels.std))
    config = task.fill_in(config.change(model=model), train, root)
    _tell_strange_classes(config, val)
    facts = RunFacts(
        config=config.to_dict(),
        categories=train.categories,
        data_hash=data_hash(train),
        split_hash=split_hash_of(train),
        patients=tuple(sorted(train.patients | val.patients)),
        files=sources,
        unknown_patients=train.without_patient + val.without_patient,
        images=SeenImages.of((*train.images, *val.images), root),
    )
    return Run(config, train, val, facts.hashed(patient_key(config)), root)


def patient_key(config: Config) -> PatientKey | None:
    """The key of `data.patient_key`."""
    return PatientKey(config.data.patient_key) if config.data.patient_key is not None else None


def _tell_strange_classes(config: Config, val: Dataset) -> None:
    """Say which classes occur in validation alone: they are always answered wrongly."""
    for target in config.model.targets:
        strange = [name for name in classes_of(val.images, target.name) if name not in (target.classes or ())]
        if target.classes is not None and strange:
            print(f"{target.name}: validation images of {', '.join(strange)} count as wrong; training has none")


def data_faults(config: Config, train: Dataset, val: Dataset, root: Path) -> list[str]:
    """What keeps a config from being trained on data sets whose images lie below `root`, in words."""
    faults = []
    for name, dataset in (("training", train), ("validation", val)):
        if not dataset.images:
            faults.append(f"the {name} set has no images")
    if faults:
        return faults
    shared = sorted(train.patients & val.patients)
    if shared and config.data.unsafe_split is None:
        faults.append(f"{len(shared)} patients are in training and in validation: {', '.join(shared[:10])}")
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
    faults += [*_monitor_faults(config.train), *logger_faults(config.train.loggers)]
    return faults + task_of(config).faults(config, train, val)


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
    return faults
