"""Packed models: a trained model with its calibration and card in one file without code (docs/starter.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mammodet.engine.checkpoint import RunFacts
from mammodet.evaluation.calibration_file import Calibration
from mammodet.evaluation.calibration_file import from_json as calibration_from_json
from mammodet.files import check_is_file
from mammodet.modeling.packed_files import is_safetensors, read_parts
from mammodet.models.card import ModelCard, card_from_json


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed model holds beside its weights."""

    facts: RunFacts
    calibration: Calibration | None
    card: ModelCard | None


def read_packed(path: Path) -> Packed | None:
    """What the header of a packed model says; None for a checkpoint, or for plain weights.

    Raises:
        InputError: damaged, or of another version.
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
