"""What an image can be asked, and what its record answers.

A target is a name:
- `tumor`, `malignant`, or any other key of `ImageRecord.labels`: a binary label;
- `density`, `birads`, `view`, `laterality`, or `class` (the archive's own class): one of several classes;
- two or more of these joined by `+`, as `density+malignant`: one class for each combination, as `B malignant`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mammodet.records import LABELS, ImageRecord

#: Words for 0 and 1 of a label, inside the name of a class.
LABEL_WORDS: Mapping[str, tuple[str, str]] = {"tumor": ("no tumor", "tumor"), "malignant": ("benign", "malignant")}

#: Words for a score below and from the threshold of a label: one below it makes nothing benign.
REPORTED_WORDS: Mapping[str, tuple[str, str]] = {
    "tumor": ("no tumor reported", "tumor"),
    "malignant": ("no malignancy reported", "malignant"),
}

_FIELDS: Mapping[str, Callable[[ImageRecord], str | None]] = {
    "density": lambda record: record.density,
    "birads": lambda record: record.birads,
    "view": lambda record: record.view,
    "laterality": lambda record: record.laterality,
    "class": lambda record: record.class_name,
}
CLASS_FIELDS = tuple(_FIELDS)


def is_binary(target: str) -> bool:
    """Whether a target is a label with the answers 0 and 1, and not one of several classes."""
    return target not in _FIELDS and "+" not in target


def class_of(record: ImageRecord, target: str) -> str | None:
    """The class of an image, None where it (or a part of a joined target) is not known.

    >>> class_of(ImageRecord(1, "a.png", (8, 8), density="B", labels={"malignant": 1}), "density+malignant")
    'B malignant'
    """
    answers = [_answer(record, part) for part in target.split("+")]
    return None if None in answers else " ".join(str(answer) for answer in answers)


def _answer(record: ImageRecord, part: str) -> str | None:
    if part in _FIELDS:
        return _FIELDS[part](record) or None
    label = record.label(part)
    return None if label is None else label_words(part)[label]


def parts_of(target: str, name: str) -> tuple[str, ...] | None:
    """The answers to the parts of a joined target, from the name of its class; None for a name that is none.

    >>> parts_of("density+malignant", "B malignant")
    ('B', 'malignant')
    """
    patterns = []
    for part in target.split("+"):
        words = "|".join(re.escape(word) for word in label_words(part))
        patterns.append("(.+?)" if part in _FIELDS else f"({words})")
    found = re.fullmatch(" ".join(patterns), name)
    return found.groups() if found else None


def label_words(part: str) -> tuple[str, str]:
    """Words for 0 and 1 of a label."""
    return LABEL_WORDS.get(part, (f"no {part}", part))


def is_known(record: ImageRecord, target: str) -> bool:
    """Whether a record answers a target."""
    return (record.label(target) if is_binary(target) else class_of(record, target)) is not None


@dataclass(frozen=True, slots=True)
class Target:
    """A question with the order of its classes; a label's are 0 and 1, and `classes` is None."""

    name: str
    classes: tuple[str, ...] | None = None

    def value(self, record: ImageRecord) -> float:
        """The label, or the position of the class; NaN where it is not known or not among the classes."""
        answer = record.label(self.name) if self.classes is None else self._position(record)
        return math.nan if answer is None else float(answer)

    def _position(self, record: ImageRecord) -> int | None:
        name = class_of(record, self.name)
        return self.classes.index(name) if self.classes is not None and name in self.classes else None


def classes_of(records: Iterable[ImageRecord], target: str) -> tuple[str, ...]:
    """The classes that occur, in order."""
    return tuple(sorted({name for record in records if (name := class_of(record, target)) is not None}))


def collapses_of(
    records: Sequence[ImageRecord], target: str, labels: Sequence[str] = LABELS
) -> dict[str, tuple[str, ...]]:
    """Which labels follow from a class, and from which classes they are 1.

    A label follows where every class has one value of it on all its images, known on all of them, and both occur: with
    folders named `Density1Benign` ... `Density4Malignant`, `malignant` is the sum over the four malignant classes.

    Returns:
        label to the classes on which it is 1.
    """
    found: dict[str, tuple[str, ...]] = {}
    for label in labels:
        values: dict[str, set[int | None]] = {}
        for record in records:
            name = class_of(record, target)
            if name is not None:
                values.setdefault(name, set()).add(record.label(label))
        single = {name: next(iter(members)) for name, members in values.items() if len(members) == 1}
        if len(single) == len(values) and set(single.values()) == {0, 1}:
            found[label] = tuple(sorted(name for name, value in single.items() if value == 1))
    return found
