"""By which rules a data set is evaluated."""

from dataclasses import dataclass
from typing import Literal

from mammodet.evaluation.cases import OVER_IMAGES
from mammodet.evaluation.froc import DENOMINATORS
from mammodet.evaluation.matching import parse_rule
from mammodet.evaluation.results import Denominator, Duplicates

MOST_RESAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class Options:
    """The protocol, as far as it can be chosen."""

    match: str = "iou@0.2"  #: `iou@T`, `mask_iou@T` or `center`: when a detection finds a lesion
    denominator: Denominator = "all images"  #: on which images false positives are counted
    #: whether a second detection of a found lesion is a false positive; else it counts neither way.
    count_seconds: bool = True
    over_images: Literal["max", "mean"] = "max"  #: `max` or `mean`: how the images of a breast or a patient are joined
    resamples: int = 1000  #: of the patients, for intervals; 0 for none
    seed: int = 0  #: of the resamples
    mask_score: float = 0.5  #: from which score a detection belongs to the mask of its image

    def __post_init__(self) -> None:
        kind, threshold = parse_rule(self.match)
        if kind != "center":
            object.__setattr__(self, "match", f"{kind}@{threshold:g}")  # iou@0.20 is no other rule
        if self.denominator not in DENOMINATORS:
            raise ValueError(f"denominator {self.denominator!r}: expected one of {', '.join(DENOMINATORS)}")
        if self.over_images not in OVER_IMAGES:
            raise ValueError(f"over_images {self.over_images!r}: expected max or mean")
        if self.resamples and not 100 <= self.resamples <= MOST_RESAMPLES:
            raise ValueError(
                f"resamples {self.resamples}: expected 0 for no intervals, or at least 100 and at most {MOST_RESAMPLES}"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed}: expected 0 or more")
        if not 0 <= self.mask_score <= 1:
            raise ValueError(f"mask_score {self.mask_score}: expected a number from 0 to 1")

    @property
    def duplicates(self) -> Duplicates:
        """What a second detection of a found lesion is, in words."""
        return "false positive" if self.count_seconds else "ignored"
