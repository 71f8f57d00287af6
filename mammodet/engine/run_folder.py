"""The output folder of a training: who may write there, and what a run resumes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mammodet.config import differences, make_config
from mammodet.engine.checkpoint import RunFacts, config_of_today, read_facts
from mammodet.errors import InputError, raise_faults
from mammodet.files import locked

BEST, LAST, TABLE, LOG = "best.ckpt", "last.ckpt", "metrics.csv", "train.log"


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Keep a second training out of the folder while the block runs.

    Raises:
        InputError: another training writes there.
    """
    if "LOCAL_RANK" in os.environ:  # a further process of a training that holds the lock
        yield
        return
    with locked(output, "another training writes there; wait for it, or choose another output_dir=..."):
        yield


def starting_point(output: Path, facts: RunFacts, *, resume: bool, overwrite: bool, force_data: bool) -> Path | None:
    """The checkpoint to resume from, or None to start; changes nothing.

    Raises:
        InputError: a run lies there already, or it cannot be resumed.
    """
    last = output / LAST
    if resume and overwrite:
        raise InputError("--resume and --overwrite: choose one")
    if not resume:
        if last.exists() and not overwrite:
            raise InputError(
                f"{output}: holds a run already. Go on with --resume, start anew with --overwrite, or choose another "
                "output_dir=..."
            )
        return None
    if not last.exists():
        print(f"{last}: not there yet; starting from the beginning")
        return None
    content, then = read_facts(last)
    missing = [key for key in ("loops", "optimizer_states", "pytorch-lightning_version") if key not in content]
    if missing:
        raise InputError(f"{last}: cannot be resumed from: {', '.join(missing)} missing; start anew with --overwrite")
    faults = []
    if not force_data:
        if then.data_hash != facts.data_hash:
            faults.append(f"the training data changed: {then.data_hash[:12]} then, {facts.data_hash[:12]} now")
        if then.split_hash != facts.split_hash:
            faults.append(f"the split changed: {str(then.split_hash)[:12]} then, {str(facts.split_hash)[:12]} now")
    forced = " Or resume with other data by --force-data." if faults else ""
    # With the defaults of keys that the version which wrote it did not have.
    before = make_config(config_of_today(then.config), where=f"in {last}").to_dict()
    changed = differences(before["model"], facts.config["model"], "model")
    if changed:
        more = f", ... ({len(changed)} in all)" if len(changed) > 10 else ""
        faults.append(f"the model changed: {', '.join(changed[:10])}{more}")
    raise_faults(faults, where=str(last), advice=f"Start a new output_dir, or restore what changed.{forced}")
    if _has_best(content):
        try:
            read_facts(output / BEST)
        except InputError as error:
            raise InputError(
                f"{error}\n{last} remembers a best checkpoint, and would never write a worse one: restore {BEST}, or "
                "start anew with --overwrite."
            ) from None
    for line in differences(before, facts.config, ""):
        print(f"resuming with a changed setting: {line}")
    return last


def _has_best(content: dict[str, Any]) -> bool:
    states = content.get("callbacks") or {}
    return any(
        isinstance(state, dict) and state.get("monitor") and Path(str(state.get("best_model_path"))).name == BEST
        for state in states.values()
    )


def clear(output: Path) -> None:
    """Remove what an earlier run left."""
    for name in (LAST, BEST, TABLE, LOG):
        (output / name).unlink(missing_ok=True)
