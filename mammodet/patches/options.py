"""What patches are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How a patch's class is named.
CLASS_SCHEMES = ("tumor", "category", "abnormality", "abnormality+pathology")
NEGATIVES_FROM = ("any", "normal")
_MOST_SIDE = 8192
_CONTEXT_OUTPUT = 224


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """Options of `make_patches`.

    Attributes:
        context: side of a patch as a multiple of its lesion's longest side; None for patches of one size.
        size: side in native pixels where `context` is None.
        output_size: side in pixels of the files; None for 224 with `context`, else `size`.
        per_lesion: patches of each lesion; the first is centred.
        negatives: patches of lesion-free tissue of each image.
        negatives_from: `any` image whose lesions are known, or `normal` ones only (tumor label 0).
        predictions: a predictions file whose false positives become negatives; None for none.
        hard_per_image: how many of them at most of each image, the highest scores first.
        hard_score: the least score of such a false positive.
        classes: one of CLASS_SCHEMES.
        seed: what everything random starts from.
        jobs: images at a time; changes nothing in what is written.
    """

    context: float | None = 1.5
    size: int = 256
    output_size: int | None = None
    per_lesion: int = 3
    negatives: int = 2
    negatives_from: str = "any"
    predictions: Path | None = None
    hard_per_image: int = 3
    hard_score: float = 0.1
    classes: str = "tumor"
    seed: int = 0
    jobs: int = 2

    @property
    def file_side(self) -> int:
        """Side in pixels of every patch file."""
        if self.output_size is not None:
            return self.output_size
        return self.size if self.context is None else _CONTEXT_OUTPUT

    def faults(self) -> list[str]:
        """What is wrong with them, one line each."""
        found = []
        if self.context is not None and not (math.isfinite(self.context) and 1 <= self.context <= 100):
            found.append(f"--context {self.context}: expected a number from 1 (the lesion's own side) to 100")
        for name, value, least, most in (
            ("size", self.size, 1, _MOST_SIDE),
            ("output-size", self.output_size, 1, _MOST_SIDE),
            ("per-lesion", self.per_lesion, 1, 1000),
            ("negatives", self.negatives, 0, 1000),
            ("hard-per-image", self.hard_per_image, 1, 1000),
            ("jobs", self.jobs, 1, 1024),
        ):
            if value is not None and not least <= value <= most:
                found.append(f"--{name} {value}: expected a whole number from {least} to {most}")
        if not 0 <= self.hard_score <= 1:
            found.append(f"--hard-score {self.hard_score}: expected a number from 0 to 1")
        for name, text, choices in (
            ("classes", self.classes, CLASS_SCHEMES),
            ("negatives-from", self.negatives_from, NEGATIVES_FROM),
        ):
            if text not in choices:
                found.append(f"--{name} {text}: expected one of {', '.join(choices)}")
        return found

    def to_json(self) -> dict[str, Any]:
        """What decides the patches, for their `info`."""
        return {
            "context": self.context,
            "size": self.size if self.context is None else None,
            "output_size": self.file_side,
            "per_lesion": self.per_lesion,
            "negatives": self.negatives,
            "negatives_from": self.negatives_from,
            "hard_per_image": self.hard_per_image if self.predictions is not None else None,
            "hard_score": self.hard_score if self.predictions is not None else None,
            "classes": self.classes,
            "seed": self.seed,
        }
