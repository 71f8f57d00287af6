"""Checks across subsets: patients and images that stand on two sides, and subsets that cannot be compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2_contingency

from mammodet.audit.copies import Copy, find_copies
from mammodet.audit.findings import AuditedImage, Finding, Item, by_part, count

LEAST_CHI_SQUARE_P = 0.001


def check_patient_leakage(images: Sequence[AuditedImage]) -> list[Finding]:
    """No patient stands in two subsets."""
    places: dict[str, dict[str, list[AuditedImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        if image.record.patient_id is not None:
            places[image.record.patient_id][image.part].append(image)
    items = []
    for patient, parts in sorted(places.items()):
        if len(parts) < 2:
            continue
        where = " and ".join(f"{part} ({count(len(found), 'image')})" for part, found in parts.items())
        shown = tuple(found[0] for found in parts.values())
        items.append(Item(f"patient {patient!r} stands in {where}", shown))
    return Finding.of(
        items,
        "patient_leakage",
        "error",
        "in more than one subset",
        "All images of a patient stand in one subset; else the test measures memory.",
        "Split by patient: re-run the converter, which does. Check that patient ids mean women, not images.",
        counted="patient",
    )


def check_single_images(images: Sequence[AuditedImage]) -> list[Finding]:
    """Some patient has two images, as women have two breasts and two views."""
    patients = [image.record.patient_id for image in images if image.record.patient_id is not None]
    if len(patients) < 2 or len(set(patients)) < len(patients):
        return []
    return [
        Finding(
            "single_images",
            "warning",
            f"every one of {len(patients)} images is a patient of its own",
            "Patients with several images: views, sides or dates of one woman, who stay in one subset.",
            "Check that patient ids mean women, not images or files; else figures are not patient-clean.",
        )
    ]


def check_copies(images: Sequence[AuditedImage]) -> list[Finding]:
    """No image stands in two subsets, or under two patients, also not re-encoded, resized, windowed or mirrored."""
    prints = [image.facts.print for image in images]
    copies = find_copies(prints, [image.facts.sha256 for image in images])
    across: list[Item] = []
    patients: list[Item] = []
    same: list[Item] = []
    for copy in copies:
        first, second = images[copy.first], images[copy.second]
        item = Item(_describe(copy, first, second), (first, second))
        if first.part != second.part:
            across.append(item)
        elif not (first.is_own or second.is_own):
            continue
        elif first.record.patient_id is None or first.record.patient_id != second.record.patient_id:
            patients.append(item)
        else:
            same.append(item)
    unlike = "Every image is there once. Two breasts of one woman, or two views of a breast, are not copies."
    return [
        *Finding.of(
            across,
            "copies_across_subsets",
            "error",
            "of images that show the same in two subsets",
            unlike,
            "Keep one of each pair, or put the patients of both into one subset.",
            counted="pair",
        ),
        *Finding.of(
            patients,
            "copies_under_two_patients",
            "warning",
            "of images that show the same under different patients",
            unlike,
            "Find out which patient is right: a split by patient cannot keep such copies together.",
            counted="pair",
        ),
        *Finding.of(
            same,
            "copies_of_one_patient",
            "note",
            "of images of one patient that show the same",
            unlike,
            "Keep one of each pair if it is not meant: it counts twice.",
            counted="pair",
        ),
    ]


def _describe(copy: Copy, first: AuditedImage, second: AuditedImage) -> str:
    if copy.exact:
        how = "the files are equal, byte for byte"
    else:
        how = f"the same texture{', mirrored' if copy.mirrored else ''} (correlation {copy.correlation:.2f})"
    return (
        f"{first.part}: {first.name}, patient {first.record.patient_id!r}, and "
        f"{second.part}: {second.name}, patient {second.record.patient_id!r}: {how}"
    )


def check_labels_per_subset(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every subset has positive and negative images, where the label is known at all.

    Where no subset has any of a kind, that is what the archive is like (CBIS-DDSM has no normal images), and a note.
    """
    items, whole = [], []
    for label in ("tumor", "malignant"):
        known = {
            part: [image.record.label(label) for image in members if image.record.label(label) is not None]
            for part, members in by_part(images).items()
        }
        known = {part: values for part, values in known.items() if values}
        for value, word in ((1, "positive"), (0, "negative")):
            lacking = [part for part, values in known.items() if value not in values]
            text = f"is {label}-{word} ({label}={value})"
            if lacking and len(lacking) == len(known):
                total = count(sum(len(values) for values in known.values()), "image")
                whole.append(Item(f"{', '.join(lacking)}: none of {total} {text}"))
            else:
                items += [Item(f"{part}: none of {count(len(known[part]), 'image')} {text}") for part in lacking]
    expected = (
        "Both kinds in every subset: without negatives there is no specificity, without positives no sensitivity."
    )
    return Finding.of(
        items,
        "one_sided_subset",
        "warning",
        "without any positive or any negative image",
        expected,
        "Make the subset larger, split stratified by label, or do not report that label's ROC on it.",
        counted="subset",
    ) + Finding.of(
        whole,
        "one_sided_archive",
        "note",
        "of one value on every image",
        expected,
        "Do not train or report that label on this data alone; add an archive that has the other kind.",
        counted="label",
    )


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
    return Finding.of(
        (
            Item(f"{part}: {yes} of {yes + no} images are malignant ({100 * yes / (yes + no):.0f} %)")
            for part, (yes, no) in rows.items()
        ),
        "malignant_share",
        "warning",
        f"the share of malignant images differs between subsets (chi-square, p = {p:.2g})",
        f"Shares that differ by chance only (p of at least {LEAST_CHI_SQUARE_P}).",
        "Split stratified by pathology, or say in the report that the subsets differ.",
        counted="",
    )


def homogeneity_p(rows: Sequence[tuple[int, int]]) -> float | None:
    """p of Pearson's chi-square test that all rows (yes, no) have one share; None where there is nothing to test."""
    counts = np.array(rows, dtype=np.float64).reshape(-1, 2)
    if len(counts) < 2 or (counts.sum(axis=0) == 0).any():
        return None
    p = float(chi2_contingency(counts, correction=False).pvalue)
    return p if math.isfinite(p) else None


def check_patient_ids(images: Sequence[AuditedImage]) -> list[Finding]:
    """Every image has a patient, so that leakage can be seen."""
    return Finding.of(
        (
            Item(f"{part}: {without} of {len(members)} images")
            for part, members in by_part(images).items()
            if (without := sum(image.record.patient_id is None for image in members))
        ),
        "no_patient_id",
        "warning",
        "images without a patient: whether one stands in two subsets cannot be seen",
        "A patient id at every image.",
        "Give patient ids to the converter; copies of images are looked for all the same.",
        counted="",
    )
