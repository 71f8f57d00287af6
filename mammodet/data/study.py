"""Which images of a study are those to look at: exams, views, and what is left out.

| rule | where it is written down |
|---|---|
| FOR PRESENTATION before synthetic before FOR PROCESSING images of one view | PS3.3 C.8.11.1 |
| implant-displaced before ordinary images of one view | PS3.16 CID 4015 |
| a secondary capture only if the study holds nothing better | PS3.3 C.8.6 |
"""

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.records import ImageRecord

_SCREENING = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
_KINDS = ("for presentation", "synthetic", "for processing", "secondary capture")  # the first that a view has is taken


@dataclass(frozen=True, slots=True)
class Spacing:
    """(row, column) distance of pixel centres in the breast in mm, and which tags say so."""

    mm_rc: tuple[float, float]
    basis: str


@dataclass(frozen=True, slots=True)
class StudyFile:
    """What a DICOM file says of the exam it belongs to."""

    path: Path
    #: study, instance: UIDs.
    study: str | None
    instance: str | None
    patient_id: str | None
    laterality: str | None
    view: str | None
    modifiers: tuple[str, ...]  #: of the view, as in `implant displaced`
    kind: str  #: `for presentation`, `synthetic`, `for processing`, `secondary capture`
    unfit: str | None  #: why it is no projection image of a breast; None of one that may be
    spacing: Spacing | None


@dataclass(frozen=True, slots=True)
class Exam:
    """Images of one study."""

    name: str  #: Study Instance UID; without one what the file names say, or the patient
    patient_id: str | None
    files: tuple[str, ...]  #: names of its images
    missing: tuple[str, ...]  #: standard views it lacks, as `L CC`; none where no image says its view
    repeated: tuple[str, ...]  #: views of several images, which all count
    special: tuple[str, ...]  #: images of other than the standard views, as `R CC spot compression: NAME`


def repeated(files: Mapping[str, StudyFile]) -> tuple[dict[str, str], dict[str, str]]:
    """Files (by name) with the SOP Instance UID of an earlier one, and why: copies, and those of other content."""
    first: dict[str, str] = {}
    copies: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, file in files.items():
        if file.instance is None or (same := first.setdefault(file.instance, name)) == name:
            continue
        if filecmp.cmp(files[same].path, file.path, shallow=False):
            copies[name] = f"is a copy of {same}"
        else:
            others[name] = (
                f"has the SOP Instance UID of {same} and other content: two versions of one image, of which the first "
                "is taken. If they are two images, predict this one in a call of its own"
            )
    return copies, others


def left_out(files: Mapping[str, StudyFile]) -> dict[str, str]:
    """Of the projection images of one or several studies (by name) those not to look at, with the reason.

    Files that do not say their study, side or view are compared with no others.
    """
    reasons: dict[str, str] = {}
    studies: dict[str, list[str]] = {}
    views: dict[tuple[str | None, ...], list[str]] = {}
    for name, file in files.items():
        if name in reasons or file.study is None:
            continue
        studies.setdefault(file.study, []).append(name)
        if file.laterality and file.view:
            views.setdefault((file.study, file.laterality, file.view, *file.modifiers), []).append(name)
    for names in studies.values():
        better = next((name for name in names if files[name].kind != "secondary capture"), None)
        for name in names:
            if better is not None and files[name].kind == "secondary capture":
                reasons[name] = f"is a secondary capture; its study holds mammograms, for instance {better}"
    for names in views.values():
        best = min(names, key=lambda name: _KINDS.index(files[name].kind))
        for name in names:
            if files[name].kind != files[best].kind and name not in reasons:
                reasons[name] = f"is {files[name].kind}; of the same view {best} is {files[best].kind}"
    for key, names in views.items():
        displaced = [name for name in views.get((*key[:3], "implant displaced"), []) if name not in reasons]
        for name in names if len(key) == 3 and displaced else ():
            reasons.setdefault(name, f"shows the implant; of the same view {displaced[0]} has it displaced")
    return reasons


def exams_of(records: Iterable[ImageRecord], files: Mapping[str, StudyFile], by_name: Mapping[str, str]) -> list[Exam]:
    """The exams of images, in their order; an image without study and patient belongs to none.

    Args:
        files: DICOM headers by file name.
        by_name: exams that file names state, by file name.
    """
    members: dict[tuple[str | None, str], list[ImageRecord]] = {}
    for record in records:
        file = files.get(record.file_name)
        name = (file.study if file else None) or by_name.get(record.file_name) or record.patient_id
        if name:
            members.setdefault((record.patient_id, name), []).append(record)
    return [_exam(name, patient, images, files) for (patient, name), images in members.items()]


def _exam(name: str, patient: str | None, images: Sequence[ImageRecord], files: Mapping[str, StudyFile]) -> Exam:
    views: dict[tuple[str | None, str | None], int] = {}
    special = []
    for record in images:
        place = (record.laterality, record.view)
        file = files.get(record.file_name)
        extra = [each for each in (file.modifiers if file else ()) if each != "implant displaced"]
        if place[1] and (place[1] not in ("CC", "MLO") or extra):
            special.append(f"{' '.join([place[0] or '?', place[1], *extra])}: {record.file_name}")
        elif all(place):
            views[place] = views.get(place, 0) + 1
    missing = [f"{side} {view}" for side, view in _SCREENING if views and (side, view) not in views]
    repeated = [f"{side} {view}" for (side, view), count in views.items() if count > 1]
    return Exam(
        name, patient, tuple(each.file_name for each in images), tuple(missing), tuple(repeated), tuple(special)
    )
