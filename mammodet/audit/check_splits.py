"""Checks across subsets: patients and images that stand on two sides, and subsets that cannot be compared."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2_contingency

from mammodet.audit.copies import Copy, find_copies
from mammodet.audit.findings import AuditedImage, Finding, Found, Item, by_part, count, grouped

LEAST_CHI_SQUARE_P = 0.001


@grouped()
def check_patient_leakage(images: Sequence[AuditedImage]) -> Found:
    """No patient is in two subsets."""
    places: dict[str, dict[str, list[AuditedImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        if image.record.patient_id is not None:
            places[image.record.patient_id][image.part].append(image)
    for patient, parts in sorted(places.items()):
        if len(parts) > 1:
            where = " and ".join(f"{part} ({count(len(found), 'image')})" for part, found in parts.items())
            shown = tuple(found[0] for found in parts.values())
            yield "patient_leakage", Item(f"patient {patient!r} is in {where}", shown)


def check_single_images(images: Sequence[AuditedImage]) -> list[Finding]:
    """Some patient has two images, as women have two breasts and two views."""
    patients = [image.record.patient_id for image in images if image.record.patient_id is not None]
    if len(patients) < 2 or len(set(patients)) < len(patients):
        return []
    return [Finding.of("single_images", number=len(patients))]


@grouped()
def check_copies(images: Sequence[AuditedImage]) -> Found:
    """No image is in two subsets, or under two patients, also not re-encoded, resized, windowed or mirrored."""
    for copy in find_copies([image.facts.print for image in images], [image.facts.sha256 for image in images]):
        first, second = images[copy.first], images[copy.second]
        item = Item(_describe(copy, first, second), (first, second))
        if first.part != second.part:
            yield "copies_across_subsets", item
        elif first.is_own or second.is_own:
            patient = first.record.patient_id
            known = patient is not None and patient == second.record.patient_id
            yield "copies_of_one_patient" if known else "copies_under_two_patients", item


def _describe(copy: Copy, first: AuditedImage, second: AuditedImage) -> str:
    if copy.exact:
        how = "the files are equal, byte for byte"
    else:
        how = f"the same texture{', mirrored' if copy.mirrored else ''} (correlation {copy.correlation:.2f})"
    return (
        f"{first.part}: {first.name}, patient {first.record.patient_id!r}, and "
        f"{second.part}: {second.name}, patient {second.record.patient_id!r}: {how}"
    )


@grouped()
def check_labels_per_subset(images: Sequence[AuditedImage]) -> Found:
    """Every subset has positive and negative images, where the label is known at all.

    Where no subset has any of a kind, that is what the archive is like (CBIS-DDSM has no normal images), and a note.
    """
    for label in ("tumor", "malignant"):
        known = {
            part: values
            for part, members in by_part(images).items()
            if (values := [value for image in members if (value := image.record.label(label)) is not None])
        }
        for value, word in ((1, "positive"), (0, "negative")):
            lacking = [part for part, values in known.items() if value not in values]
            text = f"is {label}-{word} ({label}={value})"
            if lacking and len(lacking) == len(known):
                total = count(sum(len(values) for values in known.values()), "image")
                yield "one_sided_archive", Item(f"{', '.join(lacking)}: none of {total} {text}")
            else:
                for part in lacking:
                    yield "one_sided_subset", Item(f"{part}: none of {count(len(known[part]), 'image')} {text}")


def check_malignant_share(images: Sequence[AuditedImage]) -> list[Finding]:
    """The share of malignant images differs between subsets by no more than chance."""
    table = {}
    for part, members in by_part(images).items():
        values = [image.record.label("malignant") for image in members]
        table[part] = (values.count(1), values.count(0))
    rows = {part: row for part, row in table.items() if sum(row)}
    p = homogeneity_p(list(rows.values()))
    if p is None or p >= LEAST_CHI_SQUARE_P:
        return []
    items = (
        Item(f"{part}: {yes} of {yes + no} images are malignant ({100 * yes / (yes + no):.0f} %)")
        for part, (yes, no) in rows.items()
    )
    return [Finding.of("malignant_share", items, p=p, least=LEAST_CHI_SQUARE_P)]


def homogeneity_p(rows: Sequence[tuple[int, int]]) -> float | None:
    """p of Pearson's chi-square test that all rows (yes, no) have one share; None where there is nothing to test."""
    counts = np.array(rows, dtype=np.float64).reshape(-1, 2)
    if len(counts) < 2 or (counts.sum(axis=0) == 0).any():
        return None
    p = float(chi2_contingency(counts, correction=False).pvalue)
    return p if math.isfinite(p) else None


@grouped()
def check_patient_ids(images: Sequence[AuditedImage]) -> Found:
    """Every image has a patient, so that leakage can be seen."""
    for part, members in by_part(images).items():
        if without := sum(image.record.patient_id is None for image in members):
            yield "no_patient_id", Item(f"{part}: {without} of {len(members)} images")
