"""Inputs under names that say nothing, for results that leave a hospital."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES
from mammodet.data.inputs import Inputs, Skipped
from mammodet.data.patient_keys import PatientKey
from mammodet.errors import InputError

_WITHHELD = "the reason may hold names: it was printed"


def deidentified(inputs: Inputs, key: PatientKey, folder: Path) -> Inputs:
    """The same images as links in a folder, named by hashes of their names under the key; exams by hashes of theirs.

    Names in reasons are withheld. Pixels are not touched, nor are the patient ids of the records.

    Raises InputError: the folder takes no links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {record.file_name: _hashed(record.file_name, key) for record in inputs.dataset.images}
    try:
        for name, link in names.items():
            (folder / link).symlink_to((inputs.root / name).resolve())
    except OSError as error:
        raise InputError(f"--deidentify: {folder} takes no links ({error.strerror}); choose another --output") from None
    exams = [
        replace(
            exam,
            name=key.hash(exam.name),
            patient_id=None if exam.patient_id is None else key.hash(exam.patient_id),
            files=tuple(names[name] for name in exam.files),
            special=tuple(_renamed(each, exam.files, names) for each in exam.special),
        )
        for exam in inputs.exams
    ]
    return replace(
        inputs,
        root=folder,
        dataset=replace(
            inputs.dataset,
            images=tuple(replace(each, file_name=names[each.file_name]) for each in inputs.dataset.images),
        ),
        skipped=_withheld(inputs.skipped, key),
        left_out=_withheld(inputs.left_out, key),
        files={names[name]: file for name, file in inputs.files.items() if name in names},
        exams=tuple(exams),
    )


def _hashed(name: str, key: PatientKey) -> str:
    suffix = Path(name).suffix.lower()
    return key.hash(name) + (suffix if suffix in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES) else "")


def _renamed(special: str, files: Iterable[str], names: dict[str, str]) -> str:
    """`R CC spot compression: NAME` with the new name."""
    (found,) = [name for name in files if special.endswith(f": {name}")][:1]
    return special.removesuffix(found) + names[found]


def _withheld(items: Iterable[Skipped], key: PatientKey) -> tuple[Skipped, ...]:
    return tuple(Skipped(_hashed(item.file_name, key), _WITHHELD) for item in items)
