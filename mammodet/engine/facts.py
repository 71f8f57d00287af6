"""Where a model comes from, as its checkpoint says; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

import mammodet
from mammodet.data.domain import Domain
from mammodet.data.patient_keys import PatientKey
from mammodet.data.seen_images import SeenImages
from mammodet.data.sources import SourceFile, joined_sources, sources_of
from mammodet.errors import InputError
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
        domain: what the training images look like; None in checkpoints that do not say.
    """

    config: Mapping[str, Any]
    categories: tuple[str, ...]
    data_hash: str
    split_hash: str | None
    patients: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()
    unknown_patients: Annotated[int, Field(ge=0, strict=True)] | None = None
    unknown_start: str | None = None
    stack: Mapping[str, Any] | None = None
    packed_from: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    domain: Domain | None = None
    version: str = mammodet.__version__
    format: str = field(default=FORMAT)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {**asdict(self), "files": [file.to_json() for file in self.files]}
        values["domain"] = self.domain.model_dump(mode="json") if self.domain is not None else None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def hashed(self, key: PatientKey | None) -> RunFacts:
        """Facts that may leave a hospital: with hashed patient ids, and without the hashes of file names."""
        if key is None:
            return self
        prefixes = {file.patient_prefix for file in self.files}
        images = replace(SeenImages.from_json(self.images), names=frozenset())
        patients = tuple(sorted(key.hash(patient, prefixes) for patient in self.patients))
        return replace(self, patients=patients, images=images.to_json())

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
            SeenImages.from_json(known.get("images", {}))
            known = {"patients": None, **known, "files": sources_of(value)}  # never of nobody for want of the key
            facts: RunFacts = TypeAdapter(RunFacts).validate_python(known)
            return facts
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            raise InputError(f"{path}: its facts are damaged ({'; '.join(faults[:3])})") from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: its facts are damaged ({type(error).__name__}: {error})") from None

    def with_earlier(self, earlier: RunFacts) -> RunFacts:
        """Facts that also name what a model saw before: it does not forget."""
        counts = [count for count in (self.unknown_patients, earlier.unknown_patients) if count is not None]
        same = self.data_hash == earlier.data_hash
        unknown = (max if same else sum)(counts) if len(counts) == 2 or any(counts) else None
        domains = [each for each in (self.domain, earlier.domain) if each is not None]
        return replace(
            self,
            domain=domains[0].joined(domains[1]) if len(domains) == 2 else next(iter(domains), None),
            patients=tuple(sorted({*self.patients, *earlier.patients})),
            files=joined_sources(self.files, earlier.files),
            unknown_patients=unknown,
            unknown_start=earlier.unknown_start or self.unknown_start,
            images=SeenImages.from_json(self.images).joined(SeenImages.from_json(earlier.images)).to_json(),
        )
