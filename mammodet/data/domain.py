"""What the training images of a model look like, so that a prediction can warn of an image that is far from them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mammodet.config.base import Section, Share
from mammodet.data.guard import DOUBTED, LEAST, MEASURES, mammogram_probability, measure
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.records import Dataset

_MOST_IMAGES = 64  # that are measured, evenly spaced over the data set
_MARGIN = 0.75  # of the training images' range, that an image may lie outside of it
_SPACING = 1.5  # factor that pixels may be finer or coarser by
_FILM = ("CBIS-DDSM", "mini-MIAS")  # sources of scanned film
_DIGITAL = ("CDD-CESM", "RSNA", "INbreast", "VinDr-Mammo", "CMMD")
#: Measurements that are compared, and what they are called.
_SHOWN = {
    "breast": "share of the breast in the image",
    "level": "brightness of the breast",
    "contrast": "contrast within the breast",
    "grain": "texture of the breast",
    "edges": "sharpness of the breast's edges",
    "outside": "brightness beside the breast",
}

Range = Annotated[tuple[float, float], Field(description="lowest and highest")]


class Domain(Section):
    """Training images: ranges of what is measured of each, `mammodet.data.guard.MEASURES`."""

    images: int = Field(ge=1)  #: how many were measured
    mammograms: Share  #: share of them that look like mammograms
    ranges: dict[str, Range]
    origins: tuple[str, ...] = ()  #: `film`, `digital`, or `unknown`
    spacing_mm: Range | None = None  #: range of their spacing; None where none has any

    @property
    def is_other(self) -> bool:
        """Whether the model was trained on other images than whole mammograms."""
        return self.mammograms < 0.9

    def doubts(
        self, measured: NDArray[np.float64], spacing_mm_rc: Sequence[float] | None, origin: str | None
    ) -> list[str]:
        """In what an image is far outside of the training images."""
        found = []
        for name, shown in _SHOWN.items():
            value = float(measured[MEASURES.index(name)])
            if name in self.ranges and not _is_near(value, self.ranges[name]):
                low, high = self.ranges[name]
                found.append(f"{shown} {value:.2g} is far from the training images' {low:.2g} to {high:.2g}")
        if spacing_mm_rc is not None and self.spacing_mm is not None:
            low, high = self.spacing_mm
            if not low / _SPACING <= spacing_mm_rc[0] <= high * _SPACING:
                found.append(f"spacing {spacing_mm_rc[0]:g} mm is far from the training images' {low:g} to {high:g} mm")
        if origin is not None and self.origins and not {origin, "unknown"} & set(self.origins):
            found.append(f"is {origin}; the training images are {' and '.join(self.origins)}")
        return found

    def joined(self, other: "Domain") -> "Domain":
        """Of both trainings' images."""
        pairs = [(name, each) for part in (self, other) for name, each in part.ranges.items()]
        spacings = [each.spacing_mm for each in (self, other) if each.spacing_mm is not None]
        return Domain(
            images=max(self.images, other.images),
            mammograms=min(self.mammograms, other.mammograms),
            ranges={name: _around([each for own, each in pairs if own == name]) for name, _ in pairs},
            origins=tuple(sorted({*self.origins, *other.origins})),
            spacing_mm=_around(spacings) if spacings else None,
        )


def domain_of(dataset: Dataset, root: Path) -> Domain | None:
    """Of the images of a data set; None where none can be measured."""
    step = max(len(dataset.images) // _MOST_IMAGES, 1)
    rows = []
    for record in dataset.images[::step]:
        with suppress(InputError):  # the training itself reports what cannot be read
            pixels = read_image(root / record.file_name)
            if max(pixels.shape) >= LEAST and np.ptp(pixels) > 0:
                rows.append(measure(pixels))
    if not rows:
        return None
    low, high = np.quantile(rows, [0.01, 0.99], axis=0)
    origins = {_origin(record.source) for record in dataset.images}
    spacings = [record.spacing_mm_rc[0] for record in dataset.images if record.spacing_mm_rc is not None]
    return Domain(
        images=len(rows),
        mammograms=float(np.mean([mammogram_probability(row) >= DOUBTED for row in rows])),
        ranges={name: (float(low[place]), float(high[place])) for place, name in enumerate(MEASURES)},
        origins=tuple(sorted(origins)),
        spacing_mm=(min(spacings), max(spacings)) if spacings else None,
    )


def _origin(source: str | None) -> str:
    return "film" if source in _FILM else "digital" if source in _DIGITAL else "unknown"


def _is_near(value: float, between: Range) -> bool:
    low, high = between
    margin = _MARGIN * (high - low) + 0.02
    return low - margin <= value <= high + margin


def _around(ranges: Sequence[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
