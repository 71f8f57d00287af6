"""Parts of a data set that get figures of their own: by density, view, source, and by lesion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mammodet.evaluation.flat import Bools, FlatLesions
from mammodet.evaluation.sizes import SizeBins
from mammodet.records import Dataset, ImageRecord, Lesion

UNKNOWN = "not known"
IMAGE_VARIABLES: dict[str, Callable[[ImageRecord], Any]] = {
    "density": lambda record: record.density,
    "view": lambda record: record.view,
    "source": lambda record: record.source,
}
LESION_VARIABLES: dict[str, Callable[[Lesion], Any]] = {
    "pathology": lambda lesion: lesion.attributes.get("pathology"),
    "subtlety": lambda lesion: lesion.attributes.get("subtlety"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the data."""

    #: variable, value: `density`, `B`.
    variable: str
    value: str
    images: Bools  #: bool (images,): where false positives are counted
    lesions: Bools  #: bool (lesions,): which are to be found
    of_images: bool  #: whether it divides the images; else only the lesions, at the false positives of the whole


def make_parts(dataset: Dataset, lesions: FlatLesions, sizes: SizeBins) -> list[Part]:
    """All parts by every variable that has at least two values."""
    found: list[Part] = []
    for variable, of_image in IMAGE_VARIABLES.items():
        values = [_text(of_image(record)) for record in dataset.images]
        for value in _distinct(values):
            images = np.array([one == value for one in values], dtype=bool)
            found.append(Part(variable, value, images, images[lesions.images], True))
    everywhere = np.ones(len(dataset.images), dtype=bool)
    of_lesions = {name: [_text(get(lesion)) for lesion in lesions.lesions] for name, get in LESION_VARIABLES.items()}
    for variable, values in (of_lesions | {"lesion size": sizes.bin_of_lesions()}).items():
        wanted = [value for value, ignored in zip(values, lesions.ignored, strict=True) if not ignored]
        for value in _distinct(wanted, sizes if variable == "lesion size" else None):
            chosen = np.array([one == value for one in values], dtype=bool)
            found.append(Part(variable, value, everywhere, chosen, False))
    return found


def _text(value: Any) -> str:
    return UNKNOWN if value is None or str(value).strip() == "" else str(value)


def _distinct(values: Sequence[str], sizes: SizeBins | None = None) -> list[str]:
    """The values, sorted, `not known` last; none where there is nothing to compare."""
    there = set(values)
    if len(there - {UNKNOWN}) < 2 and not (there - {UNKNOWN} and UNKNOWN in there):
        return []
    known = [label for label in sizes.labels if label in there] if sizes else sorted(there - {UNKNOWN})
    return [*known, *([UNKNOWN] if UNKNOWN in there else [])]
