"""Several models as one, for instance of all folds: the mean of their probabilities, and fused detections."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from mammodet.config import DetectorModelConfig, TestTimeConfig, differences
from mammodet.engine.facts import RunFacts
from mammodet.engine.fusion import Look, fused
from mammodet.engine.predict import Predictor, Seen
from mammodet.errors import InputError, raise_faults
from mammodet.files import canonical_hash
from mammodet.records import ImagePrediction

EXPORTED = (".onnx", ".xml")  # endings of models for engines other than torch


class Ensemble(Predictor):
    """Models that answer together.

    Args:
        members: of checkpoints that were trained for the same questions; each sees images as it was trained to. Unless
            all of them outline what they find, the answers are boxes.
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
        bf16 = test_time is not None and test_time.bf16
        members = [_opened(path, device, engine, bf16) for path in paths]
        for member in members:
            if test_time is None:
                continue
            if not isinstance(member.config.model, DetectorModelConfig):
                raise InputError("--flip, --scales, --tiles, --bf16: are for detectors; leave them out")
            member.config = member.config.change(model=member.config.model.change(test_time=test_time))
        return members[0] if len(members) == 1 else Ensemble(members)

    @property
    def seen_as(self) -> tuple[Seen, ...]:
        """Those of the members, each once."""
        ways = [member.seen_as[0] for member in self.members]
        return tuple(way for index, way in enumerate(ways) if way not in ways[:index])

    def _run(self, images: Sequence[Sequence[Look]], *, soften: bool = True) -> list[ImagePrediction]:
        ways = self.seen_as
        parts = [
            member._run([[looks[ways.index(member.seen_as[0])]] for looks in images], soften=False)
            for member in self.members
        ]
        return fused(parts, self.config.model, soften=True)

    def describe(self) -> dict[str, Any]:
        """As of one model, with its members."""
        kept = ("checkpoint", "checkpoint_sha256", "data_hash")
        members = [member.describe() for member in self.members]
        return {**super().describe(), "ensemble": [{key: member[key] for key in kept} for member in members]}


def _opened(path: Path, device: str, engine: str | None, bf16: bool) -> Predictor:
    exported = path.suffix.lower() in EXPORTED
    if engine == "torch" and exported:
        raise InputError(f"{path}: is an exported model, --engine torch takes a checkpoint or a packed model")
    if exported or engine not in (None, "torch"):
        from mammodet.engine.exported import ExportedPredictor  # here, since it builds on this package

        return ExportedPredictor(path, engine, device, bf16=bf16)
    return Predictor.from_checkpoint(path, device)


def _name(member: Predictor) -> str:
    return str(member.checkpoint[0]) if member.checkpoint else "a model in memory"


def _differences(first: Predictor, other: Predictor) -> list[str]:
    """What keeps two models from being asked together: what is answered."""
    then, now = first.config, other.config
    lines = differences(then.model.kind, now.model.kind, "model.kind")
    if then.model.detects:
        lines += differences(list(first.facts.categories), list(other.facts.categories), "categories")
    return lines + (
        differences(then.model.agreed, now.model.agreed, "model") if type(then.model) is type(now.model) else []
    )
