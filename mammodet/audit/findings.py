"""What checks look at and what they give back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal

import yaml

from mammodet.audit.facts import ImageFacts
from mammodet.records import BoxXYXY, ImageRecord, Lesion

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """One image of one of the compared files."""

    record: ImageRecord  #: what the JSON says
    facts: ImageFacts  #: what the pixels say
    file: str  #: the JSON's name, for messages
    part: str  #: the subset that it belongs to, such as `train`; no patient may be in two parts
    is_own: bool  #: it belongs to the file that is audited, not to one that it is compared with
    path: Path  #: of the image file

    def to_json(self) -> dict[str, Any]:
        """What tells it from others, for `audit.json`."""
        record = self.record
        names = {"image_id": record.image_id, "file_name": record.file_name, "patient_id": record.patient_id}
        return {"file": self.file, "part": self.part, **names}

    @property
    def name(self) -> str:
        """`'images/mdb001.png' (id 1)`."""
        return f"'{self.record.file_name}' (id {self.record.image_id})"

    def lesion_name(self, position: int) -> str:
        """`'images/mdb001.png' (id 1), lesion 2 of 3 [335, 410, 381, 381]` (xywh px)."""
        x1, y1, x2, y2 = self.record.lesions[position].box_xyxy
        box = ", ".join(f"{value:g}" for value in (round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)))
        return f"{self.name}, lesion {position + 1} of {len(self.record.lesions)} [{box}] (xywh px)"


@dataclass(frozen=True, slots=True)
class Item:
    """One instance of a finding."""

    text: str  #: what is the matter
    images: tuple[AuditedImage, ...] = ()  #: those that show it
    #: (label, box_xyxy) of what else a picture of the first image should show, such as another place.
    marks: tuple[tuple[str, BoxXYXY], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found."""

    check: str  #: its name, such as `patient_leakage`
    severity: Severity  #: `error`: do not train on it; `warning`: look at it; `note`: know it
    title: str  #: what was found, with its count
    expected: str  #: what a sound data set has instead
    advice: str  #: what to do
    items: tuple[Item, ...] = ()  #: each instance; may be empty where the finding is about the whole
    pictured: bool = True  #: whether pictures of its images show it

    @classmethod
    def of(cls, key: str, items: Iterable[Item] = (), **facts: object) -> "Finding":
        """A finding in the words of `findings.yaml`, with what they leave to `facts` filled in."""
        words = _words()[key]
        found = tuple(items)
        title = str(words["title"]).format(**facts)
        return cls(
            words.get("name", key),
            words["severity"],
            f"{count(len(found), words['counted'])} {title}" if "counted" in words else title,
            words["expected"].format(**facts),
            words["advice"],
            found,
            words.get("pictured", True),
        )

    def to_json(self) -> dict[str, Any]:
        """For `audit.json`; images as file, id and name."""
        return {
            "check": self.check,
            "severity": self.severity,
            "title": self.title,
            "expected": self.expected,
            "advice": self.advice,
            "count": len(self.items),
            "items": [{"text": item.text, "images": [image.to_json() for image in item.images]} for item in self.items],
        }


@cache
def _words() -> Any:
    return yaml.safe_load((Path(__file__).parent / "findings.yaml").read_text(encoding="utf-8"))


Found = Iterator[tuple[str, Item]]
Check = Callable[[Sequence[AuditedImage]], list[Finding]]


def grouped(**facts: object) -> Callable[[Callable[[Sequence[AuditedImage]], Found]], Check]:
    """Makes a check of a function that gives items, each with the name of its finding; `facts` fill in the words."""

    def made(look: Callable[[Sequence[AuditedImage]], Found]) -> Check:
        @wraps(look)
        def check(images: Sequence[AuditedImage]) -> list[Finding]:
            items: dict[str, list[Item]] = {}
            for name, item in look(images):
                items.setdefault(name, []).append(item)
            return [Finding.of(name, found, **facts) for name, found in items.items()]

        return check

    return made


def own(images: Sequence[AuditedImage]) -> list[AuditedImage]:
    """Those of the audited file."""
    return [image for image in images if image.is_own]


def by_part(images: Sequence[AuditedImage]) -> dict[str, list[AuditedImage]]:
    """Part to its images, both in the order of the files."""
    parts: dict[str, list[AuditedImage]] = {}
    for image in images:
        parts.setdefault(image.part, []).append(image)
    return parts


def is_mass(lesion: Lesion) -> bool:
    """Whether a lesion is a mass, or is not said to be anything else."""
    kind = lesion.attributes.get("abnormality") or lesion.category
    return str(kind).strip().lower() == "lesion" or "mass" in str(kind).lower()


def pathology(lesion: Lesion) -> str | None:
    """`malignant`, `benign`, another word of the archive in small letters, or None."""
    value = lesion.attributes.get("pathology")
    text = str(value).strip().lower() if value not in (None, "") else None
    if text and text.startswith("malignant"):
        return "malignant"
    return "benign" if text and text.startswith("benign") else text


def count(number: int, what: str, plural: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {what if number == 1 else plural or what + 's'}"


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """The gravest first, otherwise in the order of the checks."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
