"""Train a config: check everything first, then fit, then finish the best checkpoint and look at it."""

import logging
import math
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerStatus

from mammodet.config import Config
from mammodet.data.domain import domain_of
from mammodet.data.inputs import Skipped
from mammodet.data.patient_keys import PatientKey
from mammodet.engine.callbacks import AtomicCheckpointIO, OneBar, Patience
from mammodet.engine.checked_run import Run, patient_key
from mammodet.engine.checkpoint import RunFacts, finish_checkpoint, load_model, read_facts
from mammodet.engine.loaders import Loaders
from mammodet.engine.loggers import EpochRows, make_loggers, read_rows
from mammodet.engine.module import TrainingModule, make_optimizer
from mammodet.engine.precision import fastest_on_cpu
from mammodet.engine.predict import Predictor
from mammodet.engine.progress import Pace, ProgressLines, RunLog
from mammodet.engine.resume import Start, check_content, not_resumable
from mammodet.engine.run_folder import BEST, LAST, LOG, TABLE, only_writer, starting_point
from mammodet.errors import InputError
from mammodet.files import write_text
from mammodet.modeling.aggregation import LogisticStack, fit_stack, stack_inputs
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.weight_files import KEY, read_torch
from mammodet.modeling.weights import is_published
from mammodet.models import model_path
from mammodet.parallel import reported


@dataclass(frozen=True, slots=True)
class Machines:
    """Where to run. `num_gpus` None: what is there; 0: the CPU. `dist_url`: `auto` or `tcp://HOST:PORT`."""

    num_gpus: int | None = None
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"


def _with_earlier_patients(
    facts: RunFacts, start: Path | None, weights: str, val_patients: Collection[str] = (), key: PatientKey | None = None
) -> RunFacts:
    """Facts that also name what the model saw before this run.

    Args:
        start: the checkpoint that is resumed (perhaps with other data), or None for a new run; what a resumed run once
            started from is known to its checkpoint.
        val_patients: of this run, hashed by `key` where there is one.
    """
    if start is not None:
        return facts.with_earlier(read_facts(start)[1].hashed(key), val_patients)
    if weights in ("none", "coco", "imagenet") or is_published(weights):
        return facts
    path = model_path(weights)
    content = read_torch(path) if "://" not in weights else None
    earlier = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(earlier, dict):
        return replace(facts, unknown_start=path.name)
    return facts.with_earlier(RunFacts.from_json(earlier, path).hashed(key), val_patients)


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
        log, pace = RunLog(output / LOG), Pace(config.train.epochs, config.train.validate_every)
        run = _with_precision(run, start, machines or Machines(), log)
        config = run.config
        own = replace(run.facts, domain=domain_of(run.train, run.root))
        key = patient_key(config)
        prefixes = {file.patient_prefix for file in own.files}
        val_patients = {key.hash(each, prefixes) if key else each for each in run.val.patients}
        facts = _with_earlier_patients(own, start.path, config.model.weights, val_patients, key).hashed(key)
        if any(file.subset == "val" and not file.unseen for file in facts.files[: len(own.files)]):
            log.say(
                f"WARNING: patients of validation were in the training that {config.model.weights} comes from, or may "
                "have been: figures of validation are too good, and mammodet calibrate refuses its file"
            )
        trainer = _trainer(config, machines or Machines(), log, pace)
        log.speaks = trainer.is_global_zero
        loaders = Loaders(run, log.progress)
        loaders.trainer = trainer
        pace.batches, pace.val_batches = len(loaders.train_dataloader()), len(loaders.val_dataloader())
        _say_what_is_ahead(run, trainer, pace, log)
        L.seed_everything(config.seed, verbose=False)
        model = build_model(config, len(run.facts.categories), load_weights=start.path is None)
        module = TrainingModule(model, config, facts, run.val, start)
        if start.path is not None:
            content, _ = read_facts(start.path)
            check_content(start, content, trainer, module, make_optimizer(model, config.train))
            del content  # as large as three models
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EpochRows):
                    callback.earlier = read_rows(output / TABLE, start.epochs)
        # Everything was checked: only now is anything in the folder changed.
        if overwrite:
            for name in (LAST, BEST, TABLE, LOG):
                (output / name).unlink(missing_ok=True)
        write_text(output / "config.yaml", config.to_yaml())
        log.begin()
        trainer.loggers = make_loggers(config)
        _fit(trainer, module, loaders, start.path, log)
        if trainer.current_epoch < config.train.epochs and isinstance(trainer.early_stopping_callback, Patience):
            log.say(f"stopped early after epoch {trainer.current_epoch}: {trainer.early_stopping_callback.reason()}")
        best = output / BEST
        if trainer.is_global_zero:
            finish(best, run, log)
            log.say(f"best checkpoint: {best}")
        trainer.strategy.barrier()
    return best


def _say_what_is_ahead(run: Run, trainer: L.Trainer, pace: Pace, log: RunLog) -> None:
    """The first lines, before anything that takes long."""
    settings = run.config.train
    steps = math.ceil(pace.batches / settings.accumulate) * settings.epochs
    if settings.warmup_steps >= steps:
        log.say(
            f"WARNING: train.warmup_steps={settings.warmup_steps}, and the run has {steps} steps: the learning rate "
            f"never reaches train.lr. Set for instance train.warmup_steps={steps // 10}"
        )
    data, config = run.config.data, run.config
    device = "CPU" if trainer.strategy.root_device.type == "cpu" else "GPU"
    often = f"every {pace.validate_every} epochs and the last" if pace.validate_every > 1 else "each epoch"
    log.say(f"training: {len(run.train.images)} images, {pace.batches} batches an epoch, {pace.epochs} epochs")
    log.say(f"validation: {len(run.val.images)} images, {pace.val_batches} batches, after {often}")
    log.say(
        f"{trainer.world_size} x {device}, precision {trainer.precision}, batches of {data.batch_size}, "
        f"{data.num_workers} workers, cache {data.cache}; output in {config.output_dir}"
    )


def _fit(trainer: L.Trainer, module: TrainingModule, data: Loaders, start: Path | None, log: RunLog) -> None:
    last = log.path.with_name(LAST)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
    except (KeyError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if not module.restoring or start is None or isinstance(error, InputError):
            raise
        raise not_resumable(start, f"{type(error).__name__}: {error}") from error
    if trainer.interrupted or trainer.state.status == TrainerStatus.INTERRUPTED:
        kept = f"{last} holds the last whole epoch, --resume goes on from it" if last.exists() else "no epoch was done"
        log.say(f"stopped; {kept}")
        raise KeyboardInterrupt


def finish(best: Path, run: Run, log: RunLog) -> None:
    """Make the best checkpoint ready to predict: fit its aggregation, if that is learned, and slim it."""
    learns = run.config.model.learns_aggregation
    stack = fit_on_validation(best, run, log) if learns else None
    if learns and stack is None:
        raise InputError("model.aggregation.rule=learned: validation images are all of one class; choose another rule")
    finish_checkpoint(best, stack, run.facts, patient_key(run.config))


def fit_on_validation(best: Path, run: Run, log: RunLog) -> LogisticStack | None:
    """The learned aggregation of a checkpoint, from its predictions on the validation images."""
    model, config, facts = load_model(best)
    assert isinstance(model, MammoRCNN)
    predictor = Predictor(model, config, replace(facts, stack=None))
    inputs, labels = [], []
    results = predictor.predict(run.val, run.root)
    results = reported(results, len(run.val.images), name="fitting the aggregation", say=log.progress)
    for record, result in zip(run.val.images, results, strict=True):
        if isinstance(result, Skipped):
            raise InputError(f"validation image {result.file_name}: {result.reason}")
        inputs.append(stack_inputs(result.scores_by_rule))
        labels.append(record.labels)
    return fit_stack(inputs, {name: [label.get(name) for label in labels] for name in model.targets})


def _with_precision(run: Run, start: Start, machines: Machines, log: RunLog) -> Run:
    """The run with its precision chosen; one that is resumed keeps its own."""
    config = run.config
    choice: Literal["auto", "32", "16-mixed", "bf16-mixed"] = config.train.precision
    if choice == "auto" and start.settings is not None:
        choice = start.settings.precision
    if choice == "auto":
        accelerator, devices = _devices(config, machines)
        if accelerator == "gpu":
            choice = "bf16-mixed" if torch.cuda.is_bf16_supported() else "32"
        elif machines.num_machines * devices > 1:
            choice = "32"
        else:
            choice, why = fastest_on_cpu(config, len(run.facts.categories))
            log.say(f"train.precision=auto: {choice}; {why}")
    config = config.change(train=config.train.change(precision=choice))
    return replace(run, config=config, facts=replace(run.facts, config=config.to_dict()))


def _trainer(config: Config, machines: Machines, log: RunLog, pace: Pace) -> L.Trainer:
    settings = config.train
    accelerator, devices = _devices(config, machines)
    precision: Any = "32-true" if settings.precision == "32" else settings.precision
    many = machines.num_machines * devices > 1
    _rendezvous(machines)
    shown = (
        *("train/loss", "val/bbox_AP50", "val/segm_AP50", "val/froc_cpm", "val/loss"),
        *("val/auc_tumor", "val/auc_tumor_head", "val/auc_malignant"),
        *(f"val/balanced_accuracy_{target.name}" for target in config.model.targets),
    )
    kept: dict[str, Any] = {"dirpath": config.output_dir, "enable_version_counter": False}
    rated: dict[str, Any] = {"monitor": settings.monitor, "mode": settings.monitor_mode}
    after_training = not settings.monitor.startswith("val/")
    best = ModelCheckpoint(filename=Path(BEST).stem, save_on_train_epoch_end=after_training, **rated, **kept)
    last = ModelCheckpoint(filename=Path(LAST).stem, save_on_train_epoch_end=True, **kept)
    # The rows stand before the checkpoints, so that a run killed between them has a row too many, not too few.
    rows = EpochRows(config, shown, log, pace)
    callbacks: list[Callback] = [ProgressLines(log, pace), OneBar(pace), rows, best, last]
    if settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.early_stopping is not None:
        callbacks.append(Patience(settings))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips and its list of accelerators
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
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
        logger=False,
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def _devices(config: Config, machines: Machines) -> tuple[str, int]:
    """Accelerator and processes per machine. Raises InputError: GPUs that are not there."""
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
