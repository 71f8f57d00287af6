"""Whose image is which: by the user's expression, or, where none is given, which images are copies of one.

Archives of this kind often hold augmented copies beside the images they were made of: `20586908.png` and
`20586908 (1).png`, `mdb001_rot90.png`, `img-aug2.png`. Copies of one image must not lie on both sides of a split.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mammodet.converters.folder.tree import TreeImage
from mammodet.converters.tables import laterality_of
from mammodet.errors import InputError, raise_faults

_CHANGES = (
    r"(?:aug(?:ment(?:ed|ation)?)?|rot(?:at(?:ed?|ion))?|[hv]?flip(?:ped)?|mirror(?:ed)?|shear(?:ed)?|zoom(?:ed)?"
    r"|shift(?:ed)?|translat(?:ed?|ion)|noisy?|noise|blur(?:red)?|bright(?:ness)?|contrast|gamma|elastic|clahe"
    r"|crop(?:ped)?|scaled?|copy|duplicate)"
)
_SUFFIX = re.compile(
    rf"(?:[\s_.\-]+|(?<=\d)){_CHANGES}[\s_.\-]*[+-]?\d*(?:deg)?(?:[\s_.\-]+(?:lr|ud|[hvxy]))?$", re.IGNORECASE
)
_PREFIX = re.compile(rf"^{_CHANGES}[\s_.\-]*\d*[\s_.\-]+(?=.)", re.IGNORECASE)
_COUNT = re.compile(r"\s*\(\d+\)$")
#: Words of names that are given by a program that counts, and are no name of a film.
_GENERIC = re.compile(
    r"im(?:age|g)?s?|pic(?:ture)?s?|photos?|scans?|files?|frames?|samples?|cases?|mammo(?:gram)?s?|crops?|patch(?:es)?"
    r"|train(?:ing)?|val(?:idation)?|test(?:ing)?|benign|malignant|normal|cancer|tumou?r"
)
_NUMBERING_FROM = 10  # images of a folder, from which on a shared stem of more than half of them is taken for a word


@dataclass(frozen=True, slots=True)
class Person:
    """Whose image it is, as far as its path tells."""

    patient: str
    laterality: str | None = None
    view: str | None = None


@dataclass(frozen=True, slots=True)
class Copies:
    """What was taken for copies."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]  #: (stem, names of the files) of every group of two and more
    #: stems with a number in brackets that seem to be plain numbering (`benign (17).png`), and how often.
    numbered: dict[str, int]


def compile_patient(expression: str) -> re.Pattern[str]:
    """The user's expression. Raises InputError: it is none, or has no group for the patient."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(f"--patient {expression!r}: is no regular expression ({error})") from None
    if "patient" not in pattern.groupindex and (pattern.groups == 0 or pattern.groupindex):
        raise InputError(rf"--patient {expression!r}: no group for the patient; write (?P<patient>...), or (P_\d{{5}})")
    return pattern


def read_persons(images: Sequence[TreeImage], pattern: re.Pattern[str]) -> list[Person]:
    """Patient, side and view of each image by the user's expression.

    Raises InputError: with every image that the expression does not fit.
    """
    persons: list[Person] = []
    faults: list[str] = []
    for image in images:
        try:
            persons.append(_read_person(image.relative, pattern))
        except ValueError as error:
            faults.append(f"{image.relative}: {error}")
    raise_faults(faults, where=f"--patient {pattern.pattern!r}", advice="Change the expression, or rename the files.")
    return persons


def _read_person(relative: str, pattern: re.Pattern[str]) -> Person:
    match = pattern.search(relative)
    if match is None:
        raise ValueError("does not match")
    groups = match.groupdict()
    patient = groups["patient"] if "patient" in groups else match[1]
    if not patient:
        raise ValueError("its patient is empty")
    side = groups.get("laterality")
    if side and laterality_of(side) is None:
        raise ValueError(f"laterality {side!r}; expected L, R, LEFT or RIGHT")
    view = groups.get("view")
    return Person(patient, laterality_of(side or ""), view.upper() if view else None)


def stem_of(name: str) -> tuple[str, bool, bool]:
    """The stem that copies of an image share, in lower case; whether a word of change or a number was taken off.

    >>> stem_of("20586908 (1).png"), stem_of("mdb001_rot90.png")
    (('20586908', False, True), ('mdb001', True, False))
    """
    stem = PurePosixPath(name).stem.casefold()
    changed = counted = False
    while True:
        for pattern in (_COUNT, _SUFFIX, _PREFIX):
            shorter = pattern.sub("", stem, count=1).strip(" _.-")
            if shorter and shorter != stem:
                changed |= pattern is not _COUNT
                counted |= pattern is _COUNT
                stem = shorter
                break
        else:
            return stem, changed, counted


def guess_persons(images: Sequence[TreeImage]) -> tuple[list[Person], Copies]:
    """Every image is a person, but for copies of one image, which share theirs.

    Stems that name a film (`mdb001`, `20586908`) are one film wherever they lie; those that only count (`1`, `img_12`)
    begin anew in every folder. A number in brackets tells a copy where the stem has digits, and numbers the files of a
    folder where it has none (`benign (1).png`, `benign (2).png`) or where half of the folder shares it.
    """
    stems = [stem_of(PurePosixPath(image.relative).name) for image in images]
    parents = [str(PurePosixPath(image.relative).parent) for image in images]
    in_folder = Counter(parents)
    sharing = Counter((parent, stem) for parent, (stem, _, _) in zip(parents, stems, strict=True))
    persons: list[Person] = []
    members: dict[str, list[str]] = {}
    numbered: Counter[str] = Counter()
    for image, parent, (stem, changed, counted) in zip(images, parents, stems, strict=True):
        crowded = in_folder[parent] >= _NUMBERING_FROM and 2 * sharing[parent, stem] > in_folder[parent]
        if counted and not changed and (crowded or not any(map(str.isdigit, stem))):
            numbered[f"{parent}/{stem} (...)"] += 1
            stem = PurePosixPath(image.relative).stem.casefold()
        patient = f"{parent}/{stem}" if _only_counts(stem) else stem
        persons.append(Person(patient))
        members.setdefault(patient, []).append(image.relative)
    groups = tuple((patient, tuple(names)) for patient, names in members.items() if len(names) > 1)
    return persons, Copies(groups, dict(numbered))


def _only_counts(stem: str) -> bool:
    """Whether a stem is a number in a row, and no name of a film: `7`, `img_012`, `benign (3)`."""
    words = re.findall(r"[^\W\d_]+|\d+", stem)
    return all(len(word) < 5 if word.isdigit() else _GENERIC.fullmatch(word) for word in words)
