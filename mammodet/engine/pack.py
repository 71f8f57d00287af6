"""Pack a checkpoint: its weights in half precision, with all that prediction needs, into one small file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from mammodet.data.patient_keys import is_hashed
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import check_belongs, checkpoints_of, read_calibration
from mammodet.evaluation.calibration_file import to_json as calibration_to_json
from mammodet.evaluation.results import read_metrics
from mammodet.modeling.packed_files import Parts, to_half, write_packed
from mammodet.models.card import read_card, with_figures


@dataclass(frozen=True, slots=True)
class PackReport:
    """What was written."""

    size: int  #: of the file in bytes
    halved: int  #: tensors in half precision; `whole`: all others
    whole: int
    kept: tuple[str, ...]  #: those of the others that half precision would have changed by more than its rounding
    notes: tuple[str, ...]  #: what the user should know


def pack_model(
    checkpoint: Path,
    output: Path,
    *,
    half: bool = True,
    calibration: Path | None = None,
    card: Path | None = None,
    name: str | None = None,
    metrics: Path | None = None,
    fppi: float = 1.0,
    max_bytes: int | None = None,
) -> PackReport:
    """Pack a checkpoint, or pack a packed model again with what it lacked.

    Args:
        half: whether kernels and matrices are kept in half precision.
        calibration: of mammodet calibrate, fitted for this model or for what it was packed from.
        card: as `mammodet.models.card.read_card`.
        name: the card's title instead of its own.
        metrics: an evaluation of this model, or of what it was packed from, for the card's figures.
        fppi: false positives per image of the card's operating point.
        max_bytes: refuse to write a larger file.
    Raises:
        InputError: faulty files, a calibration or an evaluation of another model, figures without a card.
    """
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    made_by = predictor.describe()
    fitted = predictor.calibration
    if calibration is not None:
        fitted = read_calibration(calibration)
        check_belongs(fitted, made_by, str(calibration))
    patients = predictor.facts.patients
    calibrated_on = fitted.provenance.patients if fitted is not None else ()
    if is_hashed(patients) and calibrated_on and not is_hashed(calibrated_on):
        raise InputError(
            f"{calibration or checkpoint}: names patients by their ids, the model by hashes: fit it with mammodet "
            "calibrate --patient-key FILE"
        )
    shown = read_card(card) if card is not None else predictor.card
    if shown is None and (name is not None or metrics is not None):
        raise InputError(f"{checkpoint}: has no card; --name and --metrics go into one, give its text by --card FILE")
    if shown is not None and name is not None:
        shown = shown.model_copy(update={"title": name})
    if shown is not None and metrics is not None:
        shown = with_figures(shown, read_metrics(metrics), checkpoints_of(made_by), fppi, str(metrics))
    facts = replace(
        predictor.facts.without_folders(),
        config=without_folders(predictor.config.to_dict()),
        packed_from=(*predictor.facts.packed_from, made_by["checkpoint_sha256"]),
    )
    before = predictor.model.state_dict()
    state = {key: to_half(tensor) if half else tensor for key, tensor in before.items()}
    parts = Parts(
        facts.to_json(),
        calibration_to_json(fitted) if fitted is not None else None,
        shown.model_dump(mode="json") if shown is not None else None,
    )
    size = write_packed(output, state, parts, max_bytes)
    halved = {key for key, tensor in state.items() if tensor.dtype == torch.float16}
    kept = (key for key, tensor in state.items() if half and tensor.ndim > 1 and tensor.dtype != torch.float16)
    notes = []
    if fitted is None:
        notes.append("It has no calibration: its scores get no labels (mammodet calibrate, then --calibration).")
    if shown is None:
        notes.append("It has no card (--card).")
    return PackReport(size, len(halved), len(state) - len(halved), tuple(kept), tuple(notes))


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose paths name no folders of the machine that trained: nobody else has them."""
    model, data = dict(config["model"]), dict(config["data"])
    if "://" not in model["weights"]:
        model["weights"] = PurePath(model["weights"]).name
    data |= {key: PurePath(data[key]).name for key in ("root", "patient_key", "cache_dir") if data[key]}
    return {**config, "output_dir": PurePath(config["output_dir"]).name, "model": model, "data": data}
