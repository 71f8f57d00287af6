"""What a model was trained on, file by file, so that an evaluation recognises each of them, and its patients."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from mammodet.data.coco import data_hash
from mammodet.errors import InputError, faults_of
from mammodet.records import Dataset

WORDS = {"train": "training", "val": "validation"}
#: In the names of archives that publish films of the same women, each under patient ids of its own.
_SAME_WOMEN = ("ddsm", "mias")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A data set file that a model was trained on, or chosen by."""

    file: str | None = None  #: its name, for messages; None where it is not known
    subset: Literal["train", "val"] = "train"  #: what it served for
    archive: str | None = None  #: as the file's `info` says
    #: data_hash, split_hash: of the file as it lies on disk; None where not known.
    data_hash: str | None = None
    split_hash: str | None = None
    patient_prefix: str = ""  #: stands before its patient ids in the model's list of patients
    #: of a validation file, whether no training before or beside its own had its patients, as far as known.
    unseen: bool = True

    @property
    def chose_it(self) -> bool:
        """Whether the model was chosen by this file, and never trained on its patients."""
        return self.subset == "val" and self.unseen

    def seen_unless(self, hashes: Collection[str | None]) -> "SourceFile":
        """The file; one of validation as seen unless its hash is among these."""
        return replace(self, unseen=False) if self.chose_it and self.data_hash not in hashes else self

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def of(dataset: Dataset, file: str, subset: Literal["train", "val"], patient_prefix: str = "") -> "SourceFile":
        """The file that a data set was read from."""
        return SourceFile(
            file, subset, archive_of(dataset), data_hash(dataset), split_hash_of(dataset), patient_prefix=patient_prefix
        )


_FILES: TypeAdapter[tuple[SourceFile, ...]] = TypeAdapter(tuple[SourceFile, ...])  # keys of later versions are left out


def sources_of(model: Mapping[str, Any]) -> tuple[SourceFile, ...]:
    """The files behind a model: `files` of its predictions or checkpoint, or what older ones say of their only one.

    Raises InputError: they cannot be read.
    """
    try:
        files = _FILES.validate_python(model.get("files") or ())
    except ValidationError as error:
        raise InputError(
            f"'files' of a model: {faults_of(error)[0]}; expected objects whose 'subset' is train or val"
        ) from None
    if files or not (model.get("data_hash") or model.get("split_hash")):
        return files
    return (SourceFile(data_hash=model.get("data_hash"), split_hash=model.get("split_hash")),)


def seen_patients(model: Mapping[str, Any], dataset: Dataset) -> set[str]:
    """A model's patients by the ids that a data set gives them.

    A set that was trained on with a `patient_prefix` has ids of its own: they are compared with those of its archive
    alone. Where it is not known which of the sets a data set belongs to, it is held against the ids of all.
    """
    patients = set(model.get("patients") or ())
    files = sources_of(model)
    every = {file.patient_prefix for file in files} | {""}
    archive = archive_of(dataset)
    own = {file.patient_prefix for file in files if archive is not None and file.archive == archive}
    own = own | {file.patient_prefix for file in files if file.archive is None} if own else every
    seen = set()
    for patient in patients:
        prefix = max((prefix for prefix in every if patient.startswith(prefix)), key=len)
        if prefix in own:
            seen.add(patient.removeprefix(prefix))
    return seen


def share_women(first: str | None, second: str | None) -> bool:
    """Whether two archives are of the same women, whose ids do not say so: DDSM and CBIS-DDSM, for instance."""
    if first is None or second is None or first == second:
        return False
    return any(word in first.lower() and word in second.lower() for word in _SAME_WOMEN)


def joined_sources(*parts: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Files of several models or runs, each once."""
    return tuple(dict.fromkeys(file for part in parts for file in part))


def split_hash_of(dataset: Dataset) -> str | None:
    """Hash of the split that a data set is a part of."""
    split = dataset.info.get("split")
    value = split.get("hash") if isinstance(split, dict) else None
    return value if isinstance(value, str) else None


def archive_of(dataset: Dataset) -> str | None:
    """The archive that a data set says it is of."""
    value = dataset.info.get("archive")
    return value if isinstance(value, str) else None
