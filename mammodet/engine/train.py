"""Train a config: check everything first, then fit, then finish the best checkpoint and look at it."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader

from mammodet.config import Config
from mammodet.data.coco import data_hash, read_coco
from mammodet.data.dataset import EpochSampler, LesionDataset, Sample, make_loader, usable_indices
from mammodet.engine.anchors import fit_anchor_sizes
from mammodet.engine.callbacks import MetricsTable, OneBar
from mammodet.engine.checkpoint import KEY, AtomicCheckpointIO, RunFacts, finish_checkpoint, load_model
from mammodet.engine.module import TrainingModule
from mammodet.engine.predict import Predictor, Skipped
from mammodet.engine.run_folder import BEST, LAST, TABLE, clear, only_writer, starting_point
from mammodet.errors import InputError, raise_faults
from mammodet.files import write_text
from mammodet.modeling.aggregation import LogisticStack, fit_stack, stack_inputs
from mammodet.modeling.build import build_model
from mammodet.modeling.weights import read_torch
from mammodet.records import Dataset


@dataclass(frozen=True, slots=True)
class Machines:
    """Where to run. `num_gpus` None: what is there; 0: the CPU. `dist_url`: `auto` or `tcp://HOST:PORT`."""

    num_gpus: int | None = None
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"


@dataclass(frozen=True, slots=True)
class Run:
    """A checked experiment: config with nothing left `auto`, its data, and what goes into checkpoints."""

    config: Config
    train: Dataset
    val: Dataset
    facts: RunFacts


def prepare(config: Config) -> Run:
    """Read and check the data, and fill in what is `auto`.

    Raises:
        InputError: faulty data, or data and config that do not go together.
    """
    data = config.data
    for path in (data.train_file, data.val_file):
        if not path.exists():
            raise InputError(
                f"{path}: no such file. tools/convert.py writes it below data.root; files of folds with --folds K"
            )
    train = read_coco(data.train_file, skip_invalid=data.skip_invalid)
    val = read_coco(data.val_file, skip_invalid=data.skip_invalid)
    for path, dataset in ((data.train_file, train), (data.val_file, val)):
        dropped = dataset.info.get("dropped") or []
        if dropped:
            print(f"{path}: {len(dropped)} faulty records dropped:", *dropped[:20], sep="\n  - ")
    raise_faults(_data_faults(config, train, val), where=f"{data.train_file} and {data.val_file}")
    if config.model.detector.anchors.sizes == "auto":
        sizes = fit_anchor_sizes(train, data.root, data.image)
        print(f"anchors fitted to the training boxes: {', '.join(f'{side:g}' for side in sizes)} px")
        values = config.to_dict()
        values["model"]["detector"]["anchors"]["sizes"] = sizes
        config = Config.model_validate(values)
    patients = {str(record.patient_id) for record in (*train.images, *val.images) if record.patient_id}
    facts = RunFacts(
        config=config.to_dict(),
        categories=train.categories,
        data_hash=data_hash(train),
        split_hash=(train.info.get("split") or {}).get("hash"),
        patients=tuple(sorted(patients)),
    )
    return Run(config, train, val, facts)


def _with_earlier_patients(facts: RunFacts, start: Path | None, weights: str) -> RunFacts:
    """Facts that also name the patients seen before: a model does not forget them.

    Args:
        start: the checkpoint that is resumed (perhaps with other data), or None for a new run.
        weights: `model.weights`; what a resumed run once started from is known to its checkpoint.
    """
    if start is None and weights in ("none", "coco", "imagenet"):
        return facts
    content = read_torch(start or Path(weights))
    earlier = content.get(KEY) if isinstance(content, dict) else None
    seen = earlier.get("patients", ()) if isinstance(earlier, dict) else ()
    return replace(facts, patients=tuple(sorted({*facts.patients, *seen})))


def _data_faults(config: Config, train: Dataset, val: Dataset) -> list[str]:
    faults = []
    for name, dataset in (("training", train), ("validation", val)):
        if not dataset.images:
            faults.append(f"the {name} set has no images")
    if faults:
        return faults
    if train.categories != val.categories:
        faults.append(f"categories differ: {train.categories} in training, {val.categories} in validation")
    shared = {record.patient_id for record in train.images} & {record.patient_id for record in val.images} - {None}
    if shared:
        shown = ", ".join(sorted(str(patient) for patient in shared)[:10])
        faults.append(f"{len(shared)} patients are in training and in validation: {shown}")
    lesions = [lesion for record in train.images for lesion in record.lesions if not lesion.ignore]
    boxes_only = sum(lesion.rle is None for lesion in lesions)
    if config.model.detector.arch == "mask_rcnn" and boxes_only:
        faults.append(
            f"model.detector.arch=mask_rcnn, but {boxes_only} of {len(lesions)} training lesions have no mask; "
            "choose faster_rcnn"
        )
    missing = [
        name
        for name in {record.file_name for record in (*train.images, *val.images)}
        if not (config.data.root / name).is_file()
    ]
    if missing:
        faults.append(f"{len(missing)} image files are missing below {config.data.root}, for instance {min(missing)}")
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


class _Data(L.LightningDataModule):
    """Loaders for the processes that Lightning starts."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def _samples(self, dataset: Dataset, *, training: bool) -> LesionDataset:
        data, model = self.run.config.data, self.run.config.model
        return LesionDataset(
            dataset,
            data.root,
            data.image,
            model.image_head.targets,
            with_masks=model.detector.arch == "mask_rcnn" and training,
            augment=data.augment if training else None,
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        data, trainer = self.run.config.data, self.trainer
        assert trainer is not None
        sampler = EpochSampler(
            self.run.train,
            usable_indices(self.run.train, self.run.config.model.image_head.targets),
            batch_size=data.batch_size,
            seed=self.run.config.seed,
            negative_fraction=data.negative_fraction,
            epoch_size=data.epoch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        sampler.set_epoch(trainer.current_epoch)
        samples = self._samples(self.run.train, training=True)
        return make_loader(samples, batch_size=data.batch_size, num_workers=data.num_workers, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        trainer = self.trainer
        assert trainer is not None
        mine = self.run.val.images[trainer.global_rank :: trainer.world_size]
        part = replace(self.run.val, images=mine)
        data = self.run.config.data
        return make_loader(
            self._samples(part, training=False), batch_size=data.batch_size, num_workers=data.num_workers
        )


def train(
    run: Run,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force_data: bool = False,
    machines: Machines | None = None,
) -> Path:
    """Train to the end and finish the best checkpoint.

    Args:
        resume: go on from `last.ckpt` in the output folder, exactly.
        overwrite: start anew where a run already lies.
        force_data: resume although the data changed.
    Returns:
        path of the best checkpoint.
    Raises:
        InputError: a run lies in the output folder, or cannot be resumed.
        KeyboardInterrupt: stopped by hand; `last.ckpt` holds the last whole epoch.
    """
    config = run.config
    output = config.output_dir
    with only_writer(output):
        start = starting_point(output, run.facts, resume=resume, overwrite=overwrite, force_data=force_data)
        facts = _with_earlier_patients(run.facts, start, config.model.weights)
        L.seed_everything(config.seed, verbose=False)
        model = build_model(config, len(run.facts.categories), load_weights=start is None)
        module = TrainingModule(model, config, facts, run.val)
        trainer = _trainer(config, machines or Machines())
        # Everything was checked: only now is anything in the folder changed.
        if overwrite:
            clear(output)
        write_text(output / "config.yaml", config.to_yaml())
        _fit(trainer, module, _Data(run), start, output / LAST)
        best = output / BEST
        if trainer.is_global_zero:
            finish(best, run)
        trainer.strategy.barrier()
    return best


def _fit(
    trainer: L.Trainer, module: TrainingModule, data: L.LightningDataModule, start: Path | None, last: Path
) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
    if trainer.interrupted or trainer.state.status == TrainerStatus.INTERRUPTED:
        kept = f"{last} holds the last whole epoch, --resume goes on from it" if last.exists() else "no epoch was done"
        print(f"stopped; {kept}")
        raise KeyboardInterrupt


def finish(best: Path, run: Run) -> None:
    """Make the best checkpoint ready to predict: fit its aggregation, if that is learned, and slim it."""
    if run.config.model.aggregation.rule != "learned":
        finish_checkpoint(best, None, run.facts.patients)
        return
    stack = fit_on_validation(best, run)
    if stack is None:
        raise InputError(
            "model.aggregation.rule=learned: the validation images are all of one class; choose another rule"
        )
    finish_checkpoint(best, stack, run.facts.patients)


def fit_on_validation(best: Path, run: Run) -> LogisticStack | None:
    """The learned aggregation of a checkpoint, from its predictions on the validation images."""
    model, config, facts = load_model(best)
    predictor = Predictor(model, config, replace(facts, stack=None))
    inputs, labels = [], []
    for record, result in zip(run.val.images, predictor.predict(run.val, config.data.root), strict=True):
        if isinstance(result, Skipped):
            raise InputError(f"validation image {result.file_name}: {result.reason}")
        inputs.append(stack_inputs(result.scores_by_rule))
        labels.append(record.labels)
    return fit_stack(inputs, {name: [label.get(name) for label in labels] for name in model.targets})


def _trainer(config: Config, machines: Machines) -> L.Trainer:
    settings = config.train
    accelerator, devices = _devices(config, machines)
    on_gpu = accelerator == "gpu"
    precision: Any = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32"
    if precision == "32":
        precision = "32-true"
    many = machines.num_machines * devices > 1
    _rendezvous(machines)
    shown = (
        "train/loss",
        "val/bbox_AP50",
        "val/segm_AP50",
        "val/froc_cpm",
        "val/auc_tumor",
        "val/auc_tumor_head",
    )
    best = ModelCheckpoint(
        dirpath=config.output_dir,
        filename=Path(BEST).stem,
        monitor=settings.monitor,
        mode=settings.monitor_mode,
        save_on_train_epoch_end=not settings.monitor.startswith("val/"),
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=config.output_dir,
        filename=Path(LAST).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # The table stands before the checkpoints, so that a run killed between them has a row too many, not too few.
    callbacks: list[Callback] = [OneBar(), MetricsTable(config.output_dir / TABLE, shown), best, last]
    if settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.early_stopping is not None:
        callbacks.append(
            EarlyStopping(settings.monitor, mode=settings.monitor_mode, patience=settings.early_stopping, min_delta=0.0)
        )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips and its list of accelerators
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*tensorboardX.*")
    return L.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=machines.num_machines,
        strategy="ddp_find_unused_parameters_true" if many else "auto",
        precision=precision,
        max_epochs=settings.epochs,
        check_val_every_n_epoch=settings.validate_every,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=callbacks,
        logger=TensorBoardLogger(config.output_dir, name="tensorboard", version=""),
        log_every_n_steps=settings.log_every,
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def _devices(config: Config, machines: Machines) -> tuple[str, int]:
    """Accelerator and processes per machine.

    Raises:
        InputError: GPUs that are not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = machines.num_gpus
    if wanted is not None and wanted < 0:
        raise InputError(f"--num-gpus {wanted}: expected 0 (the CPU) or more")
    if wanted is None:
        accelerator = config.train.accelerator
        if accelerator == "auto":
            accelerator = "gpu" if there else "cpu"
        if accelerator == "gpu" and not there:
            raise InputError("train.accelerator=gpu: this machine has no CUDA device; choose cpu or auto")
        return accelerator, config.train.devices or 1
    if wanted == 0:
        return "cpu", config.train.devices or 1
    if wanted > there:
        raise InputError(f"--num-gpus {wanted}: this machine has {there}; use --num-gpus 0 for the CPU")
    return "gpu", wanted


def _rendezvous(machines: Machines) -> None:
    """Tell Lightning where the machines of a run meet."""
    if machines.num_machines < 1 or not 0 <= machines.machine_rank < machines.num_machines:
        raise InputError(
            f"--machine-rank {machines.machine_rank} of --num-machines {machines.num_machines}: "
            "expected a rank from 0 to one less than the number of machines"
        )
    if machines.dist_url == "auto":
        if machines.num_machines > 1:
            raise InputError("--num-machines: several machines need --dist-url tcp://HOST:PORT of the first one")
        return
    host, _, port = machines.dist_url.removeprefix("tcp://").partition(":")
    if not machines.dist_url.startswith("tcp://") or not host or not port.isdigit():
        raise InputError(f"--dist-url {machines.dist_url!r}: expected auto or tcp://HOST:PORT")
    os.environ.update(MASTER_ADDR=host, MASTER_PORT=port, NODE_RANK=str(machines.machine_rank))
