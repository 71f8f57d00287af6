"""What a heat map is asked: one answer of a model as one number, the higher the surer."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mammodet.config import ClassifierModelConfig, Config
from mammodet.errors import InputError
from mammodet.modeling.build import Model
from mammodet.modeling.classifier import ImageClassifier
from mammodet.records import ImageRecord
from mammodet.targets import Target, class_of, label_words


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers to a question."""

    text: str  #: as the user writes it: `tumor`, `tumor=0`, `density=C`
    target: str  #: the question, by which the truth is found
    value: int | str  #: 0 or 1 of a label, or the class
    #: positions of the logits that speak for it: that of a label, of a class, or of all classes from which a label
    #: follows.
    logits_for: tuple[int, ...]
    logits_against: tuple[int, ...] = ()  #: positions of those of the other classes; none of a label's own logit

    def score(self, logits: Tensor) -> Tensor:
        """What heat maps derive: the answer's own logit, (B,) of (B, n), as Grad-CAM's paper takes it.

        That of a label that follows from classes is the logit of their summed probability.
        """
        if len(self.logits_for) == 1 and isinstance(self.value, str):
            return logits[:, self.logits_for[0]]
        return self._against_all(logits)

    def probability(self, logits: Tensor) -> float:
        """Of the only image of logits (1, n)."""
        return float(torch.sigmoid(self._against_all(logits.detach().double()))[0])

    def _against_all(self, logits: Tensor) -> Tensor:
        value = logits[:, list(self.logits_for)].logsumexp(dim=1)
        if self.logits_against:
            value = value - logits[:, list(self.logits_against)].logsumexp(dim=1)
        return -value if self.value == 0 else value

    def truth(self, record: ImageRecord) -> str:
        """`true`, `false`, or nothing where the record does not know."""
        known = record.label(self.target) if isinstance(self.value, int) else class_of(record, self.target)
        return "" if known is None else str(known == self.value).lower()


def choose_answers(model: Model, config: Config, text: str | None) -> tuple[Answer, ...]:
    """The answers that a user means, of which an image takes its most probable one.

    Args:
        text: `tumor` or `tumor=1` for a label, `tumor=0` for its absence, `density=C` for a class, `density` for each
            image's most probable class; None for the model's first question.
    Raises:
        InputError: a detector without an image head, or a question or an answer that the model does not know.
    """
    questions = all_answers(model, config)
    if not questions:
        raise InputError(
            "this detector has no image head (model.image_head.enabled=false): it answers no question for an image, so "
            "that there is nothing to derive a heat map from. Its boxes and masks are its explanation "
            "(mammodet visualize); feature-maps works."
        )
    if text is None:
        return tuple(answer for answer in next(iter(questions.values())) if answer.value != 0)
    name, given, value = text.partition("=")
    if name not in questions:
        near = difflib.get_close_matches(name, questions, n=3, cutoff=0.4)
        raise InputError(
            f"--target {text}: the model is not asked {name!r}{f'; did you mean {near[0]!r}?' if near else '.'} "
            f"It knows {', '.join(questions)}."
        )
    if not given:
        return tuple(answer for answer in questions[name] if answer.value != 0)
    found = tuple(answer for answer in questions[name] if str(answer.value) == value)
    if not found:
        values = ", ".join(str(answer.value) for answer in questions[name])
        raise InputError(f"--target {text}: {value!r} is no answer to {name!r}; expected one of {values}")
    return found


def all_answers(model: Model, config: Config) -> dict[str, tuple[Answer, ...]]:
    """Every answer by its question, in the order of the model's logits; last, labels that follow from classes."""
    if not isinstance(model, ImageClassifier):
        return {name: _label(name, (column,)) for column, name in enumerate(model.targets)}
    questions: dict[str, tuple[Answer, ...]] = {}
    following: dict[str, tuple[Answer, ...]] = {}
    start = 0
    for target, width in zip(model.targets, model.widths, strict=True):
        columns = tuple(range(start, start + width))
        start += width
        if target.classes is None:
            questions[target.name] = _label(target.name, columns)
            continue
        questions[target.name] = tuple(
            Answer(f"{target.name}={name}", target.name, name, (column,), tuple(c for c in columns if c != column))
            for name, column in zip(target.classes, columns, strict=True)
        )
        for label, names in _collapse(config, target).items():
            those = tuple(column for name, column in zip(target.classes, columns, strict=True) if name in names)
            rest = tuple(column for column in columns if column not in those)
            if those and rest:
                following.setdefault(label, _label(label, those, rest))
    return {**questions, **{name: answers for name, answers in following.items() if name not in questions}}


def _label(name: str, logits_for: tuple[int, ...], against: tuple[int, ...] = ()) -> tuple[Answer, ...]:
    return Answer(name, name, 1, logits_for, against), Answer(f"{name}=0", name, 0, logits_for, against)


def _collapse(config: Config, target: Target) -> Mapping[str, Sequence[str]]:
    assert isinstance(config.model, ClassifierModelConfig)
    rule = config.model.classifier.heads[target.name].collapse
    return rule if isinstance(rule, dict) else {}


def answer_words(answer: Answer) -> str:
    """For people: `tumor`, `no tumor`, `density C`."""
    if isinstance(answer.value, int):
        return label_words(answer.target)[answer.value]
    return f"{answer.target} {answer.value}"
