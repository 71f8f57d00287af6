"""What a checkpoint carries beside weights, and how it is written and read."""

from __future__ import annotations

import copy
import errno
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mammodet
from mammodet.config import Config, DetectorModelConfig, differences, make_config
from mammodet.config.classifier import RESNETS
from mammodet.data.seen_images import SeenImages
from mammodet.data.sources import SourceFile, joined_sources, sources_of
from mammodet.errors import InputError, raise_faults, short_repr
from mammodet.files import atomic_path, check_tree
from mammodet.modeling.aggregation import LogisticStack
from mammodet.modeling.build import Model, build_model
from mammodet.modeling.pixel_stats import CLASSIFIER_0_1, IMAGENET
from mammodet.modeling.weight_files import KEY, read_torch, state_of
from mammodet.modeling.weights import without_sequences

FORMAT = "mammodet-checkpoint/1"
_MARGIN = 2**30  # bytes: the temporary file is gone when the free space is read


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a model comes from.

    Attributes:
        config: the experiment, with everything that was `auto` filled in.
        categories: what it detects.
        data_hash, split_hash: of the training data (`mammodet.data.coco.data_hash`) and of its split; of several files
            joined, that hash is None where their splits differ.
        patients: of the training and validation set, so that an evaluation can refuse to meet them again.
        files: that the two sets were read from, and those of trainings before this one.
        unknown_patients: images of these sets without a patient id; None in checkpoints that do not say.
        unknown_start: name of the weights that a training started from, if nothing says which patients they saw.
        stack: the learned aggregation, as `LogisticStack.to_json`; None before it is fitted.
        packed_from: SHA-256 of the files that a packed model was made from, the checkpoint first; else empty.
        images: of the two sets, as `mammodet.data.seen_images.SeenImages.to_json`; empty where not recorded.
    """

    config: Mapping[str, Any]
    categories: tuple[str, ...]
    data_hash: str
    split_hash: str | None
    patients: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()
    unknown_patients: int | None = None
    unknown_start: str | None = None
    stack: Mapping[str, Any] | None = None
    packed_from: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    version: str = mammodet.__version__
    format: str = field(default=FORMAT)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        lists = {name: list(getattr(self, name)) for name in _TEXTS}
        return {**asdict(self), **lists, "files": [file.to_json() for file in self.files]}

    @staticmethod
    def from_json(value: Mapping[str, Any], path: Path) -> RunFacts:
        """The inverse of `to_json`."""
        check_tree(value, f"{path}: its facts")
        if value.get("format") != FORMAT:
            raise InputError(f"{path}: format is {value.get('format')!r}; this version reads {FORMAT!r}")
        known = {key: item for key, item in value.items() if key in RunFacts.__dataclass_fields__}
        try:
            if known.get("stack") is not None:
                LogisticStack.from_json(known["stack"])
            lists = {name: _texts(known, name) for name in _TEXTS}
            _check_kinds(known)
            SeenImages.from_json(known.get("images", {}))
            return RunFacts(**{**known, **lists, "files": sources_of(value)})
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: its facts are damaged ({type(error).__name__}: {error})") from None

    def with_earlier(self, earlier: RunFacts) -> RunFacts:
        """Facts that also name what a model saw before: it does not forget."""
        counts = [count for count in (self.unknown_patients, earlier.unknown_patients) if count is not None]
        same = self.data_hash == earlier.data_hash
        unknown = (max if same else sum)(counts) if len(counts) == 2 or any(counts) else None
        return replace(
            self,
            patients=tuple(sorted({*self.patients, *earlier.patients})),
            files=joined_sources(self.files, earlier.files),
            unknown_patients=unknown,
            unknown_start=earlier.unknown_start or self.unknown_start,
            images=SeenImages.from_json(self.images).joined(SeenImages.from_json(earlier.images)).to_json(),
        )


_TEXTS = ("categories", "patients", "packed_from")
_KINDS: Mapping[str, Any] = {
    "config": Mapping,
    "data_hash": str,
    "split_hash": str | None,
    "version": str,
    "unknown_patients": int | None,
    "unknown_start": str | None,
}


def _check_kinds(known: Mapping[str, Any]) -> None:
    for name, kind in _KINDS.items():
        if name in known and not isinstance(known[name], kind):
            raise ValueError(f"{name} is {short_repr(known[name])}")
    if isinstance(count := known.get("unknown_patients"), bool) or (count or 0) < 0:
        raise ValueError(f"unknown_patients is {count}")


def _texts(known: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = known.get(name, []) if name == "packed_from" else known[name]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{name} are {short_repr(found)}, expected a list of texts")
    return tuple(found)


def save_torch(content: Any, path: Path) -> None:
    """Write a torch file, whole or not at all.

    Raises:
        OSError: ENOSPC where the disk is full (torch itself raises a RuntimeError).
    """
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < _MARGIN:
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def read_facts(path: Path) -> tuple[dict[str, Any], RunFacts]:
    """The whole content of a checkpoint or a packed model, and its facts.

    Raises:
        InputError: unreadable, or not one of ours.
    """
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict):
        raise InputError(
            f"{path}: is not a mammodet checkpoint (plain weights can start a training: model.weights={path})"
        )
    return content, RunFacts.from_json(content[KEY], path)


def load_model(path: Path, wanted: Config | None = None) -> tuple[Model, Config, RunFacts]:
    """The model of a checkpoint or a packed model, in eval mode on the CPU, with its config and facts.

    Args:
        wanted: a config that must describe the same model; its thresholds, aggregation and versions of images are taken
            over.
    Raises:
        InputError: unreadable, not one of ours, weights that do not fit the architecture it names, or one that differs
            from `wanted`.
    """
    content, facts = read_facts(path)
    config = config_of(facts, path)
    if (
        isinstance(config.model, DetectorModelConfig)
        and config.model.from_detectron2
        and config.model.detectron2.resolved is None
    ):
        raise InputError(
            f"{path}: names detectron2's config {config.model.detectron2.config}, but does not hold its network "
            "(model.detectron2.resolved), as every checkpoint of a training does; it is not read from elsewhere, since "
            "a LazyConfig is code"
        )
    if wanted is not None:
        config = _take_over(config, wanted, path)
    state = without_sequences(state_of(content, path))
    try:
        _check_size(config, len(facts.categories), state, path)
        model = build_model(config, len(facts.categories), load_weights=False)
    except (RuntimeError, OverflowError) as error:  # of sizes that torch cannot make
        raise InputError(f"{path}: its config names a network that cannot be built ({error})") from None
    load_strict(model, state, path)
    return model.eval(), config, facts


def config_of(facts: RunFacts, path: Path) -> Config:
    """The config of a checkpoint, with the defaults of keys that the version which wrote it did not have.

    Version 0.1 had one mean and std of pixels for all networks, and left the norm of timm's classifiers alone.
    """
    values = copy.deepcopy(facts.config)
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict) and "pixels" not in model:
        model["pixels"] = asdict(CLASSIFIER_0_1 if model.get("kind") == "classifier" else IMAGENET)
        classifier = model.get("classifier")
        if isinstance(classifier, dict) and str(classifier.get("network")) not in RESNETS:
            classifier["norm"] = "auto"
    return make_config(values, where=f"in {path}", stored=True)


def _check_size(config: Config, num_categories: int, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a config whose network has other shapes than the file, before memory of its size is taken.

    detectron2's networks are not checked: their sizes are in detectron2's own settings.
    """
    if config.model.from_detectron2:
        return
    with torch.device("meta"):  # built without memory
        check_fits(build_model(config, num_categories, load_weights=False), state, path)


def _take_over(config: Config, wanted: Config, path: Path) -> Config:
    """The config of a model, with the settings of another that are free."""
    faults = differences(config.model.kind, wanted.model.kind, "model.kind")
    if not faults:
        # of one kind, which no type checker knows
        other: Any = wanted.model.filled_from(config.model)  # type: ignore[arg-type]
        config = config.change(model=config.model.with_settings_of(other))
        then, now = (model.model_dump(mode="json", exclude={"weights"}) for model in (config.model, other))
        faults = differences(then, now, "model")
    then, now = (each.data.image.model_dump(mode="json") for each in (config, wanted))
    faults += differences(then, now, "data.image")
    raise_faults(
        faults,
        where=f"{path}: is of another model than the config (checkpoint -> config)",
        advice="Use the config that trained it (config.yaml beside the checkpoint).",
    )
    return config


def load_strict(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Take all weights or none.

    Raises:
        InputError: with the names and shapes that differ, or weights that are not finite.
    """
    check_fits(model, state, path)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path}: {len(broken)} tensors hold weights that are not finite, for instance {broken[0]}")
    model.load_state_dict(dict(state))


def check_fits(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights of another architecture.

    Raises:
        InputError: with the names and shapes that differ.
    """
    own = model.state_dict()
    faults = [f"{name}: not in the checkpoint" for name in own if name not in state]
    faults += [f"{name}: not in the model" for name in state if name not in own]
    faults += [
        f"{name}: {tuple(state[name].shape)} in the checkpoint, {tuple(own[name].shape)} in the model"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        shown = "\n  - ".join(faults[:8])
        raise InputError(
            f"{path}: is of another architecture than the config: {len(faults)} tensors differ\n  - {shown}\n"
            "Use the config that trained it (config.yaml beside it)."
        )


def finish_checkpoint(path: Path, stack: LogisticStack | None, facts: RunFacts) -> None:
    """Make the best checkpoint ready to be handed on: with its fitted aggregation, without the optimiser's state.

    That state is three times the size of the weights and serves `--resume` only, which reads `last.ckpt`.

    Args:
        facts: of the run that finishes it; the patients that the aggregation was fitted on must be named, too.
    """
    content, own = read_facts(path)
    finished = replace(own.with_earlier(facts), stack=stack.to_json() if stack is not None else None)
    content[KEY] = finished.to_json()
    kept = ("state_dict", KEY, "epoch", "global_step", "pytorch-lightning_version")
    save_torch({key: content[key] for key in kept if key in content}, path)
