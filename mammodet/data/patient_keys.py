"""Patient ids for files that leave a hospital: HMAC-SHA256 under a key that stays (docs/leakage.md).

A hashed id is `hmac-MARK-DIGEST`; the mark tells one key from another, so that ids under different keys, or plain ones
beside hashed ones, are never taken for those of different people.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mammodet.errors import InputError
from mammodet.files import check_is_file

_HASHED = re.compile(r"(?P<prefix>.*)hmac-(?P<mark>[0-9a-f]{8})-(?P<digest>[0-9a-f]{32})", re.DOTALL)
_FEWEST, _MOST = 32, 4096  # bytes of a key


class PatientKey:
    """The key of a file of 32 bytes or more that nobody can guess; white space at both ends does not count.

    Raises InputError: missing, or too short.
    """

    def __init__(self, path: Path) -> None:
        advice = f"Make one, and keep it: python -c 'import secrets; print(secrets.token_hex(32))' > {path}"
        if not path.exists():
            raise InputError(f"{path}: no such key of patient ids. {advice}")
        check_is_file(path, "a key of patient ids")
        with open(path, "rb") as file:
            self._key = file.read(_MOST + 1).strip()
        if not _FEWEST <= len(self._key) <= _MOST:
            raise InputError(f"{path}: has {len(self._key)} bytes; expected a key of {_FEWEST} to {_MOST}. {advice}")
        self.mark = self._digest("mammodet patient key")[:8]

    def hash(self, patient: str, prefixes: Iterable[str] = ()) -> str:
        """An id as it may leave, behind any of the `prefixes` of data sets; one that was hashed before stays."""
        if _HASHED.fullmatch(patient):
            return patient
        prefix = max((each for each in prefixes if patient.startswith(each)), key=len, default="")
        return f"{prefix}hmac-{self.mark}-{self._digest(patient.removeprefix(prefix))[:32]}"

    def known(self, hashed: Iterable[str], patients: Iterable[str]) -> list[str]:
        """Hashed ids with the plain ones of these patients in place of theirs; others under this key stay hashed."""
        plain = {self._digest(patient)[:32]: patient for patient in patients}
        found = []
        for text in hashed:
            parts = _HASHED.fullmatch(text)
            if parts is not None and parts["mark"] == self.mark:
                text = parts["prefix"] + plain.get(parts["digest"], f"(of another patient) {parts['digest']}")
            found.append(text)
        return found

    def _digest(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def known_patients(model: Mapping[str, Any], patients: Iterable[str | None], key: PatientKey | None) -> dict[str, Any]:
    """What predictions say of their model, with the data set's `patients` by plain ids where `key` hashed them."""
    if key is None:
        return dict(model)
    plain = [patient for patient in patients if patient]

    def shown(part: Mapping[str, Any]) -> dict[str, Any]:
        listed = part.get("patients")
        return {**part, "patients": key.known(listed, plain)} if isinstance(listed, list) else dict(part)

    folds = model.get("folds")
    return {**shown(model), **({"folds": [shown(fold) for fold in folds]} if isinstance(folds, list) else {})}


def not_comparable(seen: Iterable[str], patients: Iterable[str], of: str = "training") -> str | None:
    """Why the ids of a training (or calibration) say nothing about those of a data set.

    None where they can be compared, or one has none.
    """
    there, here = _marks(seen), _marks(patients)
    if not there or not here or there == here:
        return None
    if there == {""}:
        return f"the patient ids of the data set are hashed, those of the {of} are not"
    return f"the patient ids of the {of} are hashed under a key (give its file: --patient-key)"


def is_hashed(patients: Iterable[str]) -> bool:
    """Whether there are ids, and all are hashed."""
    marks = _marks(patients)
    return bool(marks) and "" not in marks


def _marks(patients: Iterable[str]) -> set[str]:
    """Marks of the keys of hashed ids, and "" of plain ones."""
    found = (_HASHED.fullmatch(patient) for patient in patients)
    return {"" if parts is None else parts["mark"] for parts in found}
