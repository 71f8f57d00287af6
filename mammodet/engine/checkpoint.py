"""What a checkpoint carries beside weights, and how it is written and read."""

import errno
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mammodet.config import Config, DetectorModelConfig, differences, make_config
from mammodet.data.patient_keys import PatientKey
from mammodet.engine.facts import RunFacts as RunFacts
from mammodet.errors import InputError, raise_faults
from mammodet.evaluation.calibration_file import Calibration
from mammodet.evaluation.calibration_file import from_json as calibration_from_json
from mammodet.files import atomic_path, check_is_file, dig
from mammodet.modeling.aggregation import LogisticStack
from mammodet.modeling.build import Model, build_model
from mammodet.modeling.packed_files import is_safetensors, read_parts
from mammodet.modeling.weight_files import KEY, read_torch, state_of
from mammodet.models.card import ModelCard, card_from_json

_MARGIN = 2**30  # bytes: the temporary file is gone when the free space is read


def save_torch(content: Any, path: Path) -> None:
    """Write a torch file, whole or not at all.

    Raises OSError: ENOSPC where the disk is full (torch itself raises a RuntimeError).
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

    Raises InputError: unreadable, or not one of ours.
    """
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict):
        raise InputError(f"{path}: is not a mammodet checkpoint (plain weights start a training: model.weights={path})")
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
    state = state_of(content, path)
    try:
        if not config.model.from_detectron2:  # whose sizes are in settings of its own
            with torch.device("meta"), _Unstarted():  # built without memory: a config may ask for more than there is
                check_fits(build_model(config, len(facts.categories), load_weights=False), state, path)
        with _Unstarted():
            model = build_model(config, len(facts.categories), load_weights=False)
    except (RuntimeError, OverflowError) as error:  # of sizes that torch cannot make
        raise InputError(f"{path}: its config names a network that cannot be built ({error})") from None
    load_strict(model, state, path)
    return model.eval(), config, facts


class _Unstarted(TorchFunctionMode):
    """Modules that are built in here get no random weights: those of a file replace all of them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else options["tensor"]
        return func(*args, **options)


def config_of(facts: RunFacts, path: Path) -> Config:
    """The config of a checkpoint, with the defaults of keys that the version which wrote it did not have.

    Raises InputError: faulty, or without the pixels that its network sees, which no default could be.
    """
    if dig(facts.config, "model", "pixels") is None:
        raise InputError(f"{path}: does not say which pixels its network sees (model.pixels); train it again")
    return make_config(facts.config, where=f"in {path}", stored=True)


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

    Raises InputError: with the names and shapes that differ, or weights that are not finite.
    """
    check_fits(model, state, path)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path}: {len(broken)} tensors hold weights that are not finite, for instance {broken[0]}")
    model.load_state_dict(dict(state))


def check_fits(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights of another architecture. Raises InputError: with the names and shapes that differ."""
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


def finish_checkpoint(path: Path, stack: LogisticStack | None, facts: RunFacts, key: PatientKey | None) -> None:
    """Make the best checkpoint ready to be handed on: with its fitted aggregation, without the optimiser's state.

    That state is three times the size of the weights and serves `--resume` only, which reads `last.ckpt`.

    Args:
        facts: of the run that finishes it; the patients that the aggregation was fitted on must be named, too.
        key: hashes patient ids; a run that was resumed with one may have written this checkpoint without.
    """
    content, own = read_facts(path)
    facts = own.with_earlier(facts).hashed(key)
    content[KEY] = replace(facts, stack=stack).to_json()
    kept = ("state_dict", KEY, "epoch", "global_step", "pytorch-lightning_version")
    save_torch({key: content[key] for key in kept if key in content}, path)


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed model holds beside its weights."""

    facts: RunFacts
    calibration: Calibration | None
    card: ModelCard | None


def read_packed(path: Path) -> Packed | None:
    """What the header of a packed model says; None for a checkpoint, or for plain weights.

    Raises InputError: damaged, or of another version.
    """
    check_is_file(path, "a packed model")
    with open(path, "rb") as file:
        start = file.read(16)
    parts = read_parts(path) if is_safetensors(start) else None
    if parts is None:
        return None
    return Packed(
        RunFacts.from_json(parts.facts, path),
        calibration_from_json(parts.calibration, f"{path}: calibration") if parts.calibration is not None else None,
        card_from_json(parts.card, f"{path}: card") if parts.card is not None else None,
    )
