"""Patches around lesions and of lesion-free tissue, as a data set of their own (docs/patches.md)."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from mammodet.command_line import Options, flag

_SIZE = 256  # of --fixed patches, in native pixels
_CONTEXT_OUTPUT = 224
ClassScheme = Literal["tumor", "category", "abnormality", "abnormality+pathology"]


class PatchOptions(Options):
    """What patches are asked for."""

    context: float = flag(
        1.5, "side of a patch, in longest sides of its lesion", metavar="X", ge=1, le=100, allow_inf_nan=False
    )
    fixed: bool = flag(False, "patches of one size in the image's own pixels, without --context")
    size: int | None = flag(None, f"with --fixed: that size ({_SIZE})", ge=1, le=8192)
    output_size: int | None = flag(
        None,
        f"side of the files, to which patches are resized ({_CONTEXT_OUTPUT}; with --fixed: as --size)",
        ge=1,
        le=8192,
    )
    per_lesion: int = flag(3, "patches of a lesion, the first centred, the others shifted", ge=1, le=1000)
    negatives: int = flag(2, "patches of lesion-free tissue per image", ge=0, le=1000)
    negatives_from: Literal["any", "normal"] = flag(
        "any", "any image whose lesions are all known, or normal images only (tumor label 0)"
    )
    hard_negatives: Path | None = flag(None, "predictions file whose false positives become negatives", metavar="FILE")
    hard_per_image: int = flag(3, "hard negatives per image at most, the highest scores first", ge=1, le=1000)
    hard_score: float = flag(0.1, "least score of a hard negative", ge=0, le=1)
    classes: ClassScheme = flag("tumor", "what names a class")
    seed: int = flag(0, "seed of every random choice")
    jobs: int = flag(2, "images at a time; what is written does not depend on it", ge=1, le=1024)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size is not None and not self.fixed:
            raise ValueError(f"--size {self.size}: is the size of --fixed patches; give --fixed too, or --output-size")
        if self.fixed and "context" in self.model_fields_set:
            raise ValueError(f"--context {self.context}: patches are --fixed; give one of both")
        return self

    @property
    def fixed_side(self) -> int:
        """Side of `fixed` patches in native pixels."""
        return self.size or _SIZE

    @property
    def file_side(self) -> int:
        """Side in pixels of every patch file."""
        return self.output_size or (self.fixed_side if self.fixed else _CONTEXT_OUTPUT)

    def to_json(self) -> dict[str, Any]:
        """What decides the patches, for their `info`."""
        hard = self.hard_negatives is not None
        return {
            "context": None if self.fixed else self.context,
            "size": self.fixed_side if self.fixed else None,
            "output_size": self.file_side,
            "hard_per_image": self.hard_per_image if hard else None,
            "hard_score": self.hard_score if hard else None,
            **self.model_dump(include={"per_lesion", "negatives", "negatives_from", "classes", "seed"}),
        }
