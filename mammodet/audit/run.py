"""Audit a data set file: read, measure, check, and write `audit.json` and the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mammodet
from mammodet.audit import check_images, check_lesions, check_splits
from mammodet.audit.check_totals import check_totals
from mammodet.audit.facts import ImageFacts, measure_image
from mammodet.audit.findings import SEVERITIES, AuditedImage, Finding, Item, by_part, count, own, ranked, worst
from mammodet.audit.inputs import Source, read_quarantine, read_sources
from mammodet.audit.tables import split_table, summary_of
from mammodet.audit.totals import find_totals
from mammodet.data.coco import data_hash
from mammodet.errors import InputError
from mammodet.files import write_json
from mammodet.parallel import in_parallel
from mammodet.records import ImageRecord
from mammodet.reporting.audit_page import write_audit_page

FORMAT = "mammodet-audit/1"

Check = Callable[[Sequence[AuditedImage]], list[Finding]]

#: Every check with what it looks for, in the order of the page.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("No patient in two subsets", check_splits.check_patient_leakage),
    ("A patient id at every image", check_splits.check_patient_ids),
    ("Patients are women, not images", check_splits.check_single_images),
    ("No image in two subsets or under two patients, also resized, re-encoded or mirrored", check_splits.check_copies),
    ("Every image file is there", check_images.check_missing),
    ("Every image file can be read", check_images.check_unreadable),
    ("Something is on every image", check_images.check_constant),
    ("Files have the size that the JSON says", check_images.check_size),
    ("No depth was lost", check_images.check_depth),
    ("Laterality fits the side of the tissue", check_images.check_laterality),
    ("Coordinates count from the right corner", check_lesions.check_origin),
    ("Lesions lie on the breast", check_lesions.check_on_breast),
    ("Boxes are those of their masks", check_lesions.check_mask_against_box),
    ("Lesions are neither specks nor half the image", check_lesions.check_lesion_size),
    ("No lesion stands twice", check_lesions.check_duplicate_lesions),
    ("Labels fit the lesions and each other", check_lesions.check_labels),
    ("Positive and negative images in every subset", check_splits.check_labels_per_subset),
    ("The same share of malignant images in every subset", check_splits.check_malignant_share),
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: the gravest first.
        checks: what each check looks for, to what came of it: `nothing found`, `1 finding`, `not checked: ...`.
        images: of the audited file and of those that it was compared with, with what was measured.
        sources: the files, the audited one first.
        seconds: how long reading and checking took.
    """

    findings: tuple[Finding, ...]
    checks: dict[str, str]
    images: tuple[AuditedImage, ...]
    sources: tuple[Source, ...]
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return worst(self.findings) != "error"

    def counts(self) -> dict[str, int]:
        """Severity to its number of findings."""
        return {name: sum(finding.severity == name for finding in self.findings) for name in SEVERITIES}

    def verdict(self) -> str:
        """One line: what was audited, and whether it can be trained on."""
        counts = self.counts()
        name = self.sources[0].name
        if not self.is_clean:
            return f"{name}: do not train on it yet: {count(counts['error'], 'error')}"
        if counts["warning"]:
            return f"{name}: no errors; look at {count(counts['warning'], 'warning')}"
        return f"{name}: clean"

    def to_json(self, *, command: str = "") -> dict[str, Any]:
        """The value of `audit.json`."""
        return {
            "format": FORMAT,
            "version": mammodet.__version__,
            "file": str(self.sources[0].path),
            "data_hash": data_hash(self.sources[0].dataset),
            "compared_with": [str(source.path) for source in self.sources[1:]],
            "command": command,
            "clean": self.is_clean,
            "verdict": self.verdict(),
            "counts": self.counts(),
            "checks": self.checks,
            "findings": [finding.to_json() for finding in self.findings],
            "subsets": split_table(self.images),
            "facts": summary_of(self.images),
        }

    def to_text(self) -> str:
        """A table for the screen: the verdict, then a line per finding with its first instances."""
        lines = [self.verdict()]
        for finding in self.findings:
            lines.append(f"  {finding.severity:<8} {finding.check}: {finding.title}")
            if finding.severity != "note":
                lines += [f"             {item.text}" for item in finding.items[:3]]
                if len(finding.items) > 3:
                    lines.append(f"             ... {len(finding.items) - 3} more in audit.json")
                lines.append(f"             -> {finding.advice}")
        return "\n".join(lines)


def audit_file(
    path: Path,
    *,
    others: Sequence[Path] = (),
    siblings: bool = True,
    expect: str | None = None,
    jobs: int = 2,
    progress: bool = True,
) -> Audit:
    """Read a data set file and those beside it, measure their images, and run every check.

    Args:
        path: COCO JSON of a converter; image names count from its folder.
        others: more files that must share no patient and no image with it.
        siblings: compare with the other subsets in the same folder (`find_siblings`).
        expect: a name in `mammodet.audit.totals.TOTALS`.
        jobs: images at a time; each holds one in memory.
    Raises:
        InputError: a file that is no data set, an unknown name, or no job at all. Faults in the data are findings.
    """
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: expected 1 or more")
    if expect is not None:
        find_totals(expect)
    start = time.monotonic()
    sources = read_sources(path, others, siblings=siblings)
    quarantine = read_quarantine(path.parent) if expect is not None else []
    images = _measure(sources, jobs=jobs, progress=progress)
    findings: list[Finding] = []
    checks: dict[str, str] = {}
    skipped = why_not_checked(images)

    def note(what: str, found: list[Finding]) -> None:
        reason = skipped.get(what)
        checks[what] = (
            count(len(found), "finding") if found else f"not checked: {reason}" if reason else "nothing found"
        )
        findings.extend(found)

    note("Every record can be read", check_records(sources))
    for what, check in CHECKS:
        note(what, check(images))
    if expect is not None:
        note(f"Counts of {expect}", check_totals(_counted(sources, images, expect), expect, quarantine))
    return Audit(tuple(ranked(findings)), checks, tuple(images), tuple(sources), time.monotonic() - start)


def _measure(sources: Sequence[Source], *, jobs: int, progress: bool) -> list[AuditedImage]:
    tasks: list[tuple[Source, ImageRecord, str, Path]] = []
    for source in sources:
        for record, part in zip(source.dataset.images, source.parts(), strict=True):
            tasks.append((source, record, part, source.path.parent / record.file_name))

    def work(source: Source, record: ImageRecord, part: str, path: Path) -> ImageFacts:
        return measure_image(path, record, with_lesions=source.is_own)

    measured = in_parallel(work, tasks, jobs=jobs, name="audit", progress=progress)
    return [
        AuditedImage(record, facts, source.name, part, source.is_own, path)
        for (source, record, part, path), facts in zip(tasks, measured, strict=True)
    ]


def _counted(sources: Sequence[Source], images: Sequence[AuditedImage], expect: str) -> list[AuditedImage]:
    """Images whose totals are known: an official training set is counted with the validation set taken from it."""
    names = {source.name for source in sources if source.is_own or (source.is_val and expect.endswith("-train"))}
    return [image for image in images if image.file in names]


def why_not_checked(images: Sequence[AuditedImage]) -> dict[str, str]:
    """What a check looks for, to the reason why it could not look: silence must not be taken for soundness."""
    members = own(images)
    lesions = [lesion for image in members for lesion in image.record.lesions]
    sides = [image for image in images if image.record.laterality is not None]
    reasons = {}
    if len(by_part(images)) < 2:
        reasons[CHECKS[0][0]] = reasons[CHECKS[-1][0]] = "there is one subset only; name others by --with"
    if len(sides) < check_images.FEWEST_SIDES:
        reasons["Laterality fits the side of the tissue"] = f"{count(len(sides), 'image')} with a laterality"
    if len(lesions) < check_lesions.FEWEST_MASSES:
        reasons["Coordinates count from the right corner"] = f"{count(len(lesions), 'lesion')}"
    if not any(lesion.rle for lesion in lesions):
        reasons["Boxes are those of their masks"] = "there are no masks"
    for what in (
        "Lesions lie on the breast",
        "Lesions are neither specks nor half the image",
        "No lesion stands twice",
    ):
        if not lesions:
            reasons[what] = "there are no lesions"
    return reasons


def check_records(sources: Sequence[Source]) -> list[Finding]:
    """Every record of every file can be used; those that cannot were left out of all other checks."""
    items = tuple(Item(f"{source.name}: {fault}") for source in sources for fault in source.dropped)
    if not items:
        return []
    return [
        Finding(
            "faulty_record",
            "error",
            f"{count(len(items), 'record')} that cannot be used",
            "Records as docs/data_format.md says: boxes inside the image and not empty, masks of its size.",
            "Re-run the converter, or mend the file. data.skip_invalid=true trains without them. Other checks passed "
            "over these records.",
            items,
        )
    ]


def audit_to_files(
    path: Path, output: Path, *, command: str = "", others: Sequence[Path] = (), **options: Any
) -> Audit:
    """Audit a file, print what was found, write `audit.json` and `index.html`; `options` are those of `audit_file`.

    Raises:
        InputError: wrong input, or an output that is no folder.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; expected a folder")
    audit = audit_file(path, others=others, **options)
    value = audit.to_json(command=command)
    write_json(output / "audit.json", value, indent=1)
    write_audit_page(
        output / "index.html",
        title=f"Audit of {path.resolve().parent.name}/{path.name}",
        audit=value,
        findings=audit.findings,
        images=audit.images,
    )
    print(audit.to_text())
    return audit
