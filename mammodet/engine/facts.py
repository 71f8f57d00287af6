"""Where a model comes from, as its checkpoint says; read without torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mammodet.data.domain import Domain
from mammodet.data.patient_keys import PatientKey, not_comparable
from mammodet.data.seen_images import SeenImages
from mammodet.data.sources import SourceFile, joined_sources, sources_of
from mammodet.errors import InputError, faults_of
from mammodet.files import check_tree
from mammodet.modeling.aggregation import LogisticStack
from mammodet.version import VERSION

FORMAT = "mammodet-checkpoint/1"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a model comes from."""

    config: Mapping[str, Any]  #: the experiment, with everything that was `auto` filled in
    categories: tuple[str, ...]  #: what it detects
    #: data_hash, split_hash: of the training data (`mammodet.data.coco.data_hash`) and of its split; of several files
    #: joined, that hash is None where their splits differ.
    data_hash: str
    split_hash: str | None
    #: of the training and validation set, so that an evaluation can refuse to meet them again.
    patients: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()  #: that the two sets were read from, and those of trainings before this one
    #: images of these sets without a patient id; None in checkpoints that do not say.
    unknown_patients: Annotated[int, Field(ge=0, strict=True)] | None = None
    #: name of the weights that a training started from, if nothing says which patients they saw.
    unknown_start: str | None = None
    stack: LogisticStack | None = None  #: the learned aggregation; None before it is fitted
    #: SHA-256 of the files that a packed model was made from, the checkpoint first; else empty.
    packed_from: tuple[str, ...] = ()
    images: SeenImages = field(default_factory=SeenImages)  #: of the two sets; empty where not recorded
    domain: Domain | None = None  #: what the training images look like; None in checkpoints that do not say
    version: str = VERSION
    format: str = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = _JSON.dump_python(self, mode="json")
        return plain

    def hashed(self, key: PatientKey | None) -> "RunFacts":
        """Facts that may leave a hospital: with hashed patient ids, and without the hashes of file names."""
        if key is None:
            return self
        prefixes = {file.patient_prefix for file in self.files}
        patients = tuple(sorted(key.hash(patient, prefixes) for patient in self.patients))
        return replace(self, patients=patients, images=replace(self.images, names=frozenset()))

    def without_folders(self) -> "RunFacts":
        """Facts whose files are known by the last two parts of their paths: not those of the machine that trained."""
        files = (
            replace(each, file="/".join(PurePath(each.file).parts[-2:]) if each.file else each.file)
            for each in self.files
        )
        return replace(self, files=tuple(files))

    @staticmethod
    def from_json(value: Mapping[str, Any], path: Path) -> "RunFacts":
        """The inverse of `to_json`."""
        check_tree(value, f"{path}: its facts")
        if value.get("format") != FORMAT:
            raise InputError(f"{path}: format is {value.get('format')!r}; this version reads {FORMAT!r}")
        known = {key: item for key, item in value.items() if key in RunFacts.__dataclass_fields__}
        try:
            known = {"patients": None, **known, "files": sources_of(value)}  # never of nobody for want of the key
            facts = _JSON.validate_python(known)
        except ValueError as error:
            faults = faults_of(error) if isinstance(error, ValidationError) else [str(error)]
            raise InputError(f"{path}: its facts are damaged ({'; '.join(faults[:3])})") from None
        return facts.without_folders() if facts.packed_from else facts  # the first packed models named them

    def with_earlier(self, earlier: "RunFacts", val_patients: Collection[str] | None = None) -> "RunFacts":
        """Facts that also name what a model saw before, or another one of its ensemble: it does not forget.

        A validation file that only one of them has may hold patients that the other one was trained on.

        Args:
            val_patients: of the validation files of `self`, if nothing else was learnt by `self`.
        """
        mine, theirs = ({file.data_hash for file in each.files if file.chose_it} for each in (self, earlier))
        apart = val_patients is not None and not (
            set(val_patients) & set(earlier.patients) or not_comparable(earlier.patients, set(val_patients))
        )
        files = joined_sources(
            (file if apart else file.seen_unless(theirs) for file in self.files),
            (file.seen_unless(mine) for file in earlier.files),
        )
        counts = [count for count in (self.unknown_patients, earlier.unknown_patients) if count is not None]
        same = self.data_hash == earlier.data_hash
        unknown = (max if same else sum)(counts) if len(counts) == 2 or any(counts) else None
        domains = [each for each in (self.domain, earlier.domain) if each is not None]
        return replace(
            self,
            domain=domains[0].joined(domains[1]) if len(domains) == 2 else next(iter(domains), None),
            patients=tuple(sorted({*self.patients, *earlier.patients})),
            files=files,
            unknown_patients=unknown,
            unknown_start=earlier.unknown_start or self.unknown_start,
            images=self.images.joined(earlier.images),
        )


_JSON = TypeAdapter(RunFacts)
