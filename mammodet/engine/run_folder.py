"""The output folder of a training: who may write there, and what a run resumes from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mammodet.engine.checkpoint import RunFacts, config_of, read_facts
from mammodet.engine.resume import Start, changed_data, changed_settings
from mammodet.errors import InputError, raise_faults
from mammodet.files import locked, remove_leftovers

BEST, LAST, TABLE, LOG = "best.ckpt", "last.ckpt", "metrics.csv", "train.log"


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Keep a second training out of the folder while the block runs.

    Raises InputError: another training writes there.
    """
    if "LOCAL_RANK" in os.environ:  # a further process of a training that holds the lock
        yield
        return
    with locked(output, "another training writes there; wait for it, or choose another output_dir=..."):
        remove_leftovers(output, names=(BEST, LAST, TABLE, LOG, "config.yaml"))
        yield


def starting_point(output: Path, facts: RunFacts, *, resume: bool, overwrite: bool, force_data: bool) -> Start:
    """Where a run begins; changes nothing. Raises InputError: a run lies there already, or it cannot be resumed."""
    last = output / LAST
    if resume and overwrite:
        raise InputError("--resume and --overwrite: choose one")
    if not resume:
        if last.exists() and not overwrite:
            raise InputError(
                f"{output}: holds a run already. Go on with --resume, start anew with --overwrite, or choose another "
                "output_dir=..."
            )
        return Start()
    if not last.exists():
        print(f"{last}: not there yet; starting from the beginning")
        return Start()
    content, then = read_facts(last)
    start = Start.of(last, content, then)
    data = [] if force_data else changed_data(then, facts)
    settings, notes = changed_settings(config_of(then, last), facts.config)
    wanted = facts.config["train"]["epochs"]
    if start.epochs > wanted:
        settings.append(f"{start.epochs} epochs are done, more than train.epochs={wanted}")
    forced = " Or resume with other data by --force-data." if data and not settings else ""
    advice = f"Restore what changed, or start a new output_dir=... from these weights: model.weights={last}.{forced}"
    more = [f"and {len(settings) - 10} settings more"] if len(settings) > 10 else []
    raise_faults([*data, *settings[:10], *more], where=str(last), advice=advice)
    if _has_best(content):
        try:
            read_facts(output / BEST)
        except InputError as error:
            raise InputError(
                f"{error}\n{last} remembers a best checkpoint, and would never write a worse one: restore {BEST}, or "
                "start anew with --overwrite."
            ) from None
    print(*notes, sep="\n", end="\n" if notes else "")
    return start


def _has_best(content: dict[str, Any]) -> bool:
    states = content["callbacks"]
    return isinstance(states, dict) and any(
        isinstance(state, dict) and state.get("monitor") and Path(str(state.get("best_model_path"))).name == BEST
        for state in states.values()
    )
