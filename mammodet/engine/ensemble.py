"""Several models as one, for instance of all folds: the mean of their probabilities, and fused detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from mammodet.config import TestTimeConfig, differences
from mammodet.engine.facts import RunFacts
from mammodet.engine.fusion import Look, fuse, soften_answer
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError, raise_faults
from mammodet.files import canonical_hash
from mammodet.records import ImagePrediction

EXPORTED = (".onnx", ".xml")  # endings of models for engines other than torch


class Ensemble(Predictor):
    """Models that answer together.

    Args:
        members: of checkpoints that were trained for the same questions on images prepared alike.
    Raises:
        InputError: models that do not go together.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = members[0]
        faults = []
        for member in members:
            lines = _differences(first, member)
            faults += [f"{_name(member)}: differs from {_name(first)}: {line}" for line in lines]
        raise_faults(faults, where="an ensemble of checkpoints")
        self.members = list(members)
        self.config, self.device, self.stack = first.config, first.device, None
        facts = reduce(RunFacts.with_earlier, (member.facts for member in members))
        self.facts = replace(facts, packed_from=())
        self.calibration, self.card = None, None  # each member's is of its own scores
        hashes = [member.checkpoint[1] for member in members if member.checkpoint]
        names = " + ".join(_name(member) for member in members)
        self.checkpoint = (Path(names), canonical_hash(hashes))

    @staticmethod
    def from_checkpoints(
        paths: Sequence[Path], device: str = "auto", test_time: TestTimeConfig | None = None, engine: str | None = None
    ) -> Predictor:
        """One predictor of one or several checkpoints or exported models.

        Args:
            engine: `torch`, `onnx` or `openvino`; None for that of each file's kind.
            test_time: versions of the images that detectors look at, instead of what their configs say.
        """
        doubled = sorted({str(path) for path in paths if list(paths).count(path) > 1})
        if doubled:
            raise InputError(f"checkpoints {doubled}: given more than once")
        members = [_opened(path, device, engine) for path in paths]
        for member in members if test_time is not None else ():
            if member.config.model.kind != "detector":
                raise InputError("--flip, --scales: are for detectors; leave them out")
            model = member.config.model.model_copy(update={"test_time": test_time})
            member.config = member.config.model_copy(update={"model": model})
        return members[0] if len(members) == 1 else Ensemble(members)

    def _run(self, looks: Sequence[Look], *, soften: bool = True) -> list[ImagePrediction]:
        parts = [member._run(looks, soften=False) for member in self.members]
        model = self.config.model
        fused = [fuse(answers, model.test_time.fuse_iou) for answers in zip(*parts, strict=True)]
        return [soften_answer(each, model.detector) for each in fused]

    def describe(self) -> dict[str, Any]:
        """As of one model, with its members."""
        kept = ("checkpoint", "checkpoint_sha256", "data_hash")
        members = [member.describe() for member in self.members]
        return {**super().describe(), "ensemble": [{key: member[key] for key in kept} for member in members]}


def _opened(path: Path, device: str, engine: str | None) -> Predictor:
    exported = path.suffix.lower() in EXPORTED
    if engine == "torch" and exported:
        raise InputError(f"{path}: is an exported model, --engine torch takes a checkpoint or a packed model")
    if exported or engine not in (None, "torch"):
        from mammodet.export.onnx_predict import ExportedPredictor  # here, since it builds on this package

        return ExportedPredictor(path, engine, device)
    return Predictor.from_checkpoint(path, device)


def _name(member: Predictor) -> str:
    return str(member.checkpoint[0]) if member.checkpoint else "a model in memory"


def _differences(first: Predictor, other: Predictor) -> list[str]:
    """What keeps two models from being asked together: how images are prepared, and what is answered."""
    then, now = first.config.to_dict(), other.config.to_dict()
    lines = differences(then["model"]["kind"], now["model"]["kind"], "model.kind")
    lines += differences(then["data"]["image"], now["data"]["image"], "data.image")
    if first.config.model.kind == "detector":
        lines += differences(list(first.facts.categories), list(other.facts.categories), "categories")
        lines += differences(then["model"]["aggregation"], now["model"]["aggregation"], "model.aggregation")
        lines += differences(list(first.config.model.targets), list(other.config.model.targets), "image_head.targets")
        return lines + differences(
            first.config.model.with_masks, other.config.model.with_masks, "whether there are masks"
        )
    answers = [
        {name: (head["classes"], head["collapse"]) for name, head in values["model"]["classifier"]["heads"].items()}
        for values in (then, now)
    ]
    lines += differences(answers[0], answers[1], "model.classifier.heads")
    views = [values["model"]["classifier"]["views"] != "none" for values in (then, now)]
    return lines + differences(views[0], views[1], "whether model.classifier.views are joined")
