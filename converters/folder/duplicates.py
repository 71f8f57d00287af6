"""Identical files: within a class, in two classes, on two sides of a split; and patients on two sides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason, settle_sides
from mammodet.converters.folder.patients import Person
from mammodet.converters.folder.tree import TreeImage
from mammodet.errors import InputError
from mammodet.files import file_hash
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS

_MOST_NAMES = 12
_ADVICE = (
    "What a model has trained on says nothing of it in a test. Keep them on one side (--resolve-leaks test, or train), "
    "or divide all anew (--split holdout)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that is to be converted: `class_name` is that of the data set."""

    image: TreeImage
    class_name: str
    person: Person


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Entries without identical ones beside each other."""

    entries: list[Entry]
    quarantine: list[Quarantined]  #: one item for each that was left out
    torn: list[list[str]]  #: names of identical files in different classes, a group each; these stay
    told_apart: list[list[str]]  #: names of identical files that `--patient` gives to different patients, a group each


def clean(entries: Sequence[Entry], *, given: bool, resolve_leaks: str | None, jobs: int, progress: bool) -> Cleaned:
    """Leave out identical files, and give those that stay in several classes one patient.

    Args:
        given: whether the images' own subsets are kept; then no two identical files may stay in different ones.
    Raises:
        InputError: identical files in two subsets, and nobody said where they are to go.
    """
    groups = _identical([entry.image.path for entry in entries], jobs, progress)
    if given:
        _refuse_crossing(entries, groups, resolve_leaks)
    lost: dict[int, str] = {}
    torn: list[list[str]] = []
    apart: list[list[str]] = []
    owner = {entry.person.patient: entry.person.patient for entry in entries}
    for group in groups:
        kept = _keep(entries, group, given, resolve_leaks, lost)
        if len(kept) > 1:
            torn.append([entries[place].image.relative for place in kept])
        patients = [entries[place].person.patient for place in group]
        if len(set(patients)) > 1:
            apart.append([entries[place].image.relative for place in group])
        for patient in patients[1:]:
            owner[_root(owner, patient)] = _root(owner, patients[0])
    quarantine = [
        Quarantined(Reason.DUPLICATE, "image", entries[place].image.relative, reason, str(entries[place].image.path))
        for place, reason in sorted(lost.items())
    ]
    cleaned = [
        replace(entry, person=replace(entry.person, patient=_root(owner, entry.person.patient)))
        for place, entry in enumerate(entries)
        if place not in lost
    ]
    return Cleaned(cleaned, quarantine, torn, apart)


def _identical(paths: Sequence[Path], jobs: int, progress: bool) -> list[list[int]]:
    """Positions of files with equal bytes; only files of equal size are read."""
    by_size: dict[int, list[int]] = {}
    for place, path in enumerate(paths):
        try:
            by_size.setdefault(path.stat().st_size, []).append(place)
        except OSError:  # a link to nothing: told when it is read
            continue
    asked = [place for places in by_size.values() if len(places) > 1 for place in places]
    by_hash: dict[str, list[int]] = {}
    hashes = in_parallel(_hash, [(paths[place],) for place in asked], jobs=jobs, name="compare", progress=progress)
    for place, found in zip(asked, hashes, strict=True):
        if found is not None:
            by_hash.setdefault(found, []).append(place)
    return [sorted(places) for places in by_hash.values() if len(places) > 1]


def _hash(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None


def _refuse_crossing(entries: Sequence[Entry], groups: Sequence[Sequence[int]], resolve_leaks: str | None) -> None:
    crossing = [group for group in groups if len({entries[place].image.subset for place in group}) > 1]
    if crossing and resolve_leaks is None:
        names = [" = ".join(entries[place].image.relative for place in group) for group in crossing[:_MOST_NAMES]]
        more = f"\n  ... and {len(crossing) - _MOST_NAMES} more" if len(crossing) > _MOST_NAMES else ""
        lines = "".join(f"\n  - {name}" for name in names)
        raise InputError(f"{len(crossing)} files lie on several sides of the given split:{lines}{more}\n{_ADVICE}")


def _keep(
    entries: Sequence[Entry], group: Sequence[int], given: bool, resolve_leaks: str | None, lost: dict[int, str]
) -> list[int]:
    """Positions that stay: one for each class, of the chosen subset; the others go to `lost` with a reason."""
    subset = _side({str(entries[place].image.subset) for place in group}, resolve_leaks) if given else None
    here = [place for place in group if not given or entries[place].image.subset == subset]
    kept: dict[str, int] = {}
    for place in here:
        kept.setdefault(entries[place].class_name, place)
    for place in group:
        if place not in kept.values():
            # The same class's copy where there is one: it is the one that it repeats.
            first = kept.get(entries[place].class_name, here[0])
            lost[place] = f"is the same file as {entries[first].image.relative}"
    return list(kept.values())


def _side(subsets: set[str], resolve_leaks: str | None) -> str:
    choose = min if resolve_leaks == "train" else max
    return choose(subsets, key=SUBSETS.index)


def _root(owner: dict[str, str], patient: str) -> str:
    while owner[patient] != patient:
        patient = owner[patient]
    return patient


def given_subsets(
    entries: Sequence[Entry], resolve_leaks: str | None, *, guessed: bool
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Patient to its images' subset, and to all where there are several; `guessed` ones are copies of one image.

    Raises InputError: patients in two subsets, and nobody said where they are to go.
    """
    subsets: dict[str, set[str]] = {}
    for entry in entries:
        subsets.setdefault(entry.person.patient, set()).add(str(entry.image.subset))
    sides, leaking = settle_sides(subsets, resolve_leaks)
    if leaking and resolve_leaks is None:
        what = "images, with their copies by name," if guessed else "patients"
        names = [f"{patient} ({' and '.join(found)})" for patient, found in list(leaking.items())[:_MOST_NAMES]]
        more = f" ... and {len(leaking) - _MOST_NAMES} more" if len(leaking) > _MOST_NAMES else ""
        hint = (
            ". If names only count and are other images on each side, say whose they are by --patient"
            if guessed
            else ""
        )
        raise InputError(f"{len(leaking)} {what} are in two subsets: {', '.join(names)}{more}. {_ADVICE}{hint}")
    return sides, leaking
