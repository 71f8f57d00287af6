"""Several classifiers as one: the mean of their probabilities, for instance of the models of all folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mammodet.config import differences
from mammodet.data.dataset import Sample
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError, raise_faults
from mammodet.files import canonical_hash
from mammodet.modeling.classifier import ImageClassifier
from mammodet.records import ImagePrediction


class Ensemble(Predictor):
    """Classifiers that answer together.

    Args:
        members: of checkpoints that were trained for the same questions on images prepared alike.
    Raises:
        InputError: detectors among them, or models that do not go together.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = members[0]
        faults = []
        for member in members:
            name = _name(member)
            if not isinstance(member.model, ImageClassifier):
                faults.append(f"{name}: is a detector; boxes of several detectors are not joined, give one checkpoint")
            lines = _differences(first, member)
            faults += [f"{name}: differs from {_name(first)}: {line}" for line in lines]
        raise_faults(faults, where="an ensemble of checkpoints")
        self.members = list(members)
        self.model, self.config, self.device, self.stack = first.model, first.config, first.device, None
        patients = sorted({patient for member in members for patient in member.facts.patients})
        self.facts = replace(first.facts, patients=tuple(patients), packed_from=())
        self.calibration, self.card = None, None  # each member's is of its own scores
        hashes = [member.checkpoint[1] for member in members if member.checkpoint]
        names = " + ".join(_name(member) for member in members)
        self.checkpoint = (Path(names), canonical_hash(hashes))

    @staticmethod
    def from_checkpoints(paths: Sequence[Path], device: str = "auto") -> Predictor:
        """One predictor of one or several checkpoints."""
        doubled = sorted({str(path) for path in paths if list(paths).count(path) > 1})
        if doubled:
            raise InputError(f"checkpoints {doubled}: given more than once")
        members = [Predictor.from_checkpoint(path, device) for path in paths]
        return members[0] if len(members) == 1 else Ensemble(members)

    def _run(self, samples: Sequence[Sample]) -> list[ImagePrediction]:
        parts = [member._run(samples) for member in self.members]
        return [mean_of(answers) for answers in zip(*parts, strict=True)]

    def describe(self) -> dict[str, Any]:
        """As of one model, with its members."""
        kept = ("checkpoint", "checkpoint_sha256", "data_hash")
        members = [member.describe() for member in self.members]
        return {**super().describe(), "ensemble": [{key: member[key] for key in kept} for member in members]}


def mean_of(answers: Sequence[ImagePrediction]) -> ImagePrediction:
    """The mean of several models' probabilities for one image."""
    first = answers[0]
    return replace(
        first,
        scores=_mean([answer.scores for answer in answers]),
        scores_by_rule={
            rule: _mean([answer.scores_by_rule[rule] for answer in answers]) for rule in first.scores_by_rule
        },
        class_scores={name: _mean([answer.class_scores[name] for answer in answers]) for name in first.class_scores},
    )


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(sum(each[name] for each in scores) / len(scores), 6) for name in scores[0]}


def _name(member: Predictor) -> str:
    return str(member.checkpoint[0]) if member.checkpoint else "a model in memory"


def _differences(first: Predictor, other: Predictor) -> list[str]:
    """What keeps two models from being asked together: how images are prepared, and what is answered."""
    then, now = first.config.to_dict(), other.config.to_dict()
    lines = differences(then["data"]["image"], now["data"]["image"], "data.image")
    answers = [
        {name: (head["classes"], head["collapse"]) for name, head in values["model"]["classifier"]["heads"].items()}
        for values in (then, now)
    ]
    lines += differences(answers[0], answers[1], "model.classifier.heads")
    views = [values["model"]["classifier"]["views"] != "none" for values in (then, now)]
    return lines + differences(views[0], views[1], "whether model.classifier.views are joined")
