"""Counts of a data set, as plain tables: what the page draws and `audit.json` keeps."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from mammodet.audit.findings import AuditedImage, by_part, own, pathology
from mammodet.records import LABELS, ImageRecord, Lesion

NOT_KNOWN = "not known"
MOST_ROWS = 12  # of a cross table; the rest is joined in one


def count_subsets(images: Sequence[AuditedImage]) -> list[dict[str, Any]]:
    """Every subset of any file in numbers.

    Returns:
        `subset`, `patients`, `images`, `lesions` (that count), `ignored`, `unlocalized`; `labels`: label to its images
        that are `positive`, `negative`, `unknown`; `pathology`, `density`, `view`: value to lesions, or images.
    """
    return [_subset(part, [image.record for image in members]) for part, members in by_part(images).items()]


def _subset(part: str, records: Sequence[ImageRecord]) -> dict[str, Any]:
    lesions = [lesion for record in records for lesion in record.lesions]
    words = {1: "positive", 0: "negative", None: "unknown"}
    labels = {label: Counter(words[record.label(label)] for record in records) for label in LABELS}
    return {
        "subset": part,
        "patients": _patients(records),
        "images": len(records),
        "lesions": sum(not lesion.ignore for lesion in lesions),
        "ignored": sum(lesion.ignore for lesion in lesions),
        "unlocalized": sum(record.unlocalized for record in records),
        "labels": {label: {word: found[word] for word in words.values()} for label, found in labels.items()},
        "pathology": _counts(map(pathology, lesions)),
        "density": _counts(record.density for record in records),
        "view": _counts(record.view for record in records),
    }


def _patients(records: Sequence[ImageRecord]) -> int:
    return len({record.patient_id for record in records if record.patient_id is not None})


def _counts(values: Iterable[Hashable]) -> dict[str, int]:
    counted = Counter(NOT_KNOWN if value in (None, "") else str(value) for value in values)
    return {name: counted[name] for name in sorted(counted)}


def image_kind(record: ImageRecord) -> str:
    """What an image counts as: `malignant`, `benign`, `no lesion` or `not known`."""
    if record.label("malignant") == 1:
        return "malignant"
    if record.label("tumor") == 0:
        return "no lesion"
    if record.label("tumor") == 1 and record.label("malignant") == 0:
        return "benign"
    return NOT_KNOWN


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return NOT_KNOWN if value is None or str(value).strip() in ("", "nan", "N/A", "NA") else str(value).strip()


Cross = dict[str, dict[str, int]]


def cross_table(pairs: Iterable[tuple[str, str]], *, rows: int = MOST_ROWS) -> Cross:
    """Counts of (row, column): row to column to number, the most frequent rows first, the rest as `other`."""
    members = list(pairs)
    sizes = Counter(row for row, _ in members)
    order = sorted(sizes, key=lambda row: (-sizes[row], row))
    kept = order if len(order) <= rows else order[: rows - 1]
    table: Cross = {row: {} for row in kept}
    for row, column in sorted(members):
        line = table.setdefault(row if row in kept else "other", {})
        line[column] = line.get(column, 0) + 1
    return table


def image_cross(images: Sequence[AuditedImage], value_of: Callable[[ImageRecord], Any]) -> Cross:
    """Images of the audited file by a value of their record and by what they count as; empty where none has it."""
    pairs = [(_text(value_of(image.record)), image_kind(image.record)) for image in own(images)]
    return {} if all(row == NOT_KNOWN for row, _ in pairs) else cross_table(sorted(pairs))


def lesion_cross(images: Sequence[AuditedImage], *names: str) -> Cross:
    """Lesions of the audited file by the first of these attributes that they have, and by pathology."""
    pairs = []
    for image in own(images):
        for lesion in image.record.lesions:
            row = next((text for name in names if (text := _text(lesion.attributes.get(name))) != NOT_KNOWN), NOT_KNOWN)
            pairs.append((row, pathology(lesion) or NOT_KNOWN))
    return {} if all(row == NOT_KNOWN for row, _ in pairs) else cross_table(pairs)


def lesion_sizes(images: Sequence[AuditedImage]) -> tuple[list[tuple[float, str]], str]:
    """(longer side, pathology) of each lesion, and the unit: `mm` where every image has a spacing, else `px`."""
    lesions = [(image.record, lesion) for image in own(images) for lesion in image.record.lesions]
    in_mm = bool(lesions) and all(record.spacing_mm_rc for record, _ in lesions)
    sizes = [(_longer_side(record, lesion, in_mm), pathology(lesion) or NOT_KNOWN) for record, lesion in lesions]
    return sizes, "mm" if in_mm else "px"


def _longer_side(record: ImageRecord, lesion: Lesion, in_mm: bool) -> float:
    x1, y1, x2, y2 = lesion.box_xyxy
    spacing = record.spacing_mm_rc
    row, column = spacing if in_mm and spacing is not None else (1.0, 1.0)
    return float(max((x2 - x1) * column, (y2 - y1) * row))


def find_facts(images: Sequence[AuditedImage]) -> dict[str, Any]:
    """The audited file in numbers, for `audit.json` and the foot of the page; of several values, each with its count.

    Returns:
        among others `counts_as`: `malignant`, `benign`, `no lesion`, `not known` to images; `size_hw`: `height x width`
        of the files in pixels, the most frequent ones, to images; `lesion_side`: of the longer sides of lesions the
        least, the median and the largest, in `mm` or `px`; `intensity`, `breast_intensity`: mean grey value of the
        images and of the breasts, on the scale of their depth.
    """
    members = own(images)
    records = [image.record for image in members]
    lesions = [lesion for record in records for lesion in record.lesions]
    readable = [image.facts for image in members if image.facts.fault is None]
    sizes, unit = lesion_sizes(images)
    side: dict[str, float | str] | None = None
    if sizes:
        quantiles = np.quantile([size for size, _ in sizes], [0, 0.5, 1])
        side = dict(zip(("least", "median", "most"), (round(float(value), 1) for value in quantiles), strict=True))
        side["unit"] = unit
    size_hw = Counter(f"{facts.size_hw[0]}x{facts.size_hw[1]}" for facts in readable if facts.size_hw)
    often = dict(sorted(size_hw.items(), key=lambda item: (-item[1], item[0]))[:8])
    rest = size_hw.total() - sum(often.values())
    return {
        "images": len(records),
        "patients": _patients(records),
        "lesions": len(sizes),
        "images_with_lesions": sum(bool(record.lesions) for record in records),
        **{
            name: _counts(getattr(record, name) for record in records)
            for name in ("source", "view", "laterality", "density", "birads")
        },
        "counts_as": _counts(map(image_kind, records)),
        "category": _counts(lesion.category for lesion in lesions),
        "abnormality": _counts(lesion.attributes.get("abnormality") for lesion in lesions),
        "pathology": _counts(map(pathology, lesions)),
        "geometry": _counts(lesion.geometry for lesion in lesions),
        "size_hw": often | ({"other": rest} if rest else {}),
        "bits": _counts(facts.bits for facts in readable),
        "spacing_known": sum(record.spacing_mm_rc is not None for record in records),
        "lesion_side": side,
        "intensity": _mean([facts.mean for facts in readable]),
        "breast_intensity": _mean([facts.breast_mean for facts in readable if not facts.is_flat]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
