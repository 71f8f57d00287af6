"""Where a model comes from, as its checkpoint says; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mammodet
from mammodet.data.seen_images import SeenImages
from mammodet.data.sources import SourceFile, joined_sources, sources_of
from mammodet.errors import InputError, short_repr
from mammodet.files import check_tree
from mammodet.modeling.aggregation import LogisticStack

FORMAT = "mammodet-checkpoint/1"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a model comes from.

    Attributes:
        config: the experiment, with everything that was `auto` filled in.
        categories: what it detects.
        data_hash, split_hash: of the training data (`mammodet.data.coco.data_hash`) and of its split; of several files
            joined, that hash is None where their splits differ.
        patients: of the training and validation set, so that an evaluation can refuse to meet them again.
        files: that the two sets were read from, and those of trainings before this one.
        unknown_patients: images of these sets without a patient id; None in checkpoints that do not say.
        unknown_start: name of the weights that a training started from, if nothing says which patients they saw.
        stack: the learned aggregation, as `LogisticStack.to_json`; None before it is fitted.
        packed_from: SHA-256 of the files that a packed model was made from, the checkpoint first; else empty.
        images: of the two sets, as `mammodet.data.seen_images.SeenImages.to_json`; empty where not recorded.
    """

    config: Mapping[str, Any]
    categories: tuple[str, ...]
    data_hash: str
    split_hash: str | None
    patients: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()
    unknown_patients: int | None = None
    unknown_start: str | None = None
    stack: Mapping[str, Any] | None = None
    packed_from: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    version: str = mammodet.__version__
    format: str = field(default=FORMAT)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        lists = {name: list(getattr(self, name)) for name in _TEXTS}
        return {**asdict(self), **lists, "files": [file.to_json() for file in self.files]}

    @staticmethod
    def from_json(value: Mapping[str, Any], path: Path) -> RunFacts:
        """The inverse of `to_json`."""
        check_tree(value, f"{path}: its facts")
        if value.get("format") != FORMAT:
            raise InputError(f"{path}: format is {value.get('format')!r}; this version reads {FORMAT!r}")
        known = {key: item for key, item in value.items() if key in RunFacts.__dataclass_fields__}
        try:
            if known.get("stack") is not None:
                LogisticStack.from_json(known["stack"])
            lists = {name: _texts(known, name) for name in _TEXTS}
            _check_kinds(known)
            SeenImages.from_json(known.get("images", {}))
            return RunFacts(**{**known, **lists, "files": sources_of(value)})
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: its facts are damaged ({type(error).__name__}: {error})") from None

    def with_earlier(self, earlier: RunFacts) -> RunFacts:
        """Facts that also name what a model saw before: it does not forget."""
        counts = [count for count in (self.unknown_patients, earlier.unknown_patients) if count is not None]
        same = self.data_hash == earlier.data_hash
        unknown = (max if same else sum)(counts) if len(counts) == 2 or any(counts) else None
        return replace(
            self,
            patients=tuple(sorted({*self.patients, *earlier.patients})),
            files=joined_sources(self.files, earlier.files),
            unknown_patients=unknown,
            unknown_start=earlier.unknown_start or self.unknown_start,
            images=SeenImages.from_json(self.images).joined(SeenImages.from_json(earlier.images)).to_json(),
        )


_TEXTS = ("categories", "patients", "packed_from")
_KINDS: Mapping[str, Any] = {
    "config": Mapping,
    "data_hash": str,
    "split_hash": str | None,
    "version": str,
    "unknown_patients": int | None,
    "unknown_start": str | None,
}


def _check_kinds(known: Mapping[str, Any]) -> None:
    for name, kind in _KINDS.items():
        if name in known and not isinstance(known[name], kind):
            raise ValueError(f"{name} is {short_repr(known[name])}")
    if isinstance(count := known.get("unknown_patients"), bool) or (count or 0) < 0:
        raise ValueError(f"unknown_patients is {count}")


def _texts(known: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = known.get(name, []) if name == "packed_from" else known[name]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{name} are {short_repr(found)}, expected a list of texts")
    return tuple(found)
