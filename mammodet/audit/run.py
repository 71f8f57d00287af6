"""Audit a data set file: read, measure, check, and write `audit.json` and the page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mammodet.audit import check_images, check_lesions, check_splits
from mammodet.audit.facts import ImageFacts, measure_image
from mammodet.audit.findings import AuditedImage, Check, Finding, Item, by_part, count, own, ranked
from mammodet.audit.inputs import Source, read_quarantine, read_sources
from mammodet.audit.page import write_audit_page
from mammodet.audit.result import Audit, Checked
from mammodet.audit.totals import check_totals, find_totals
from mammodet.errors import InputError
from mammodet.files import write_json
from mammodet.parallel import in_parallel
from mammodet.records import ImageRecord, Lesion

WhyNot = Callable[[Sequence[AuditedImage]], str | None]


def _whole(images: Sequence[AuditedImage]) -> str | None:
    return "there is one subset only; name others by --with" if len(by_part(images)) < 2 else None


def _sided(images: Sequence[AuditedImage]) -> str | None:
    sides = sum(image.record.laterality is not None for image in images)
    return f"{count(sides, 'image')} with a laterality" if sides < check_images.FEWEST_SIDES else None


def _lesions(images: Sequence[AuditedImage]) -> list[Lesion]:
    return [lesion for image in own(images) for lesion in image.record.lesions]


def _with_lesions(images: Sequence[AuditedImage]) -> str | None:
    return None if _lesions(images) else "there are no lesions"


def _with_masses(images: Sequence[AuditedImage]) -> str | None:
    lesions = len(_lesions(images))
    return count(lesions, "lesion") if lesions < check_lesions.FEWEST_MASSES else None


def _with_masks(images: Sequence[AuditedImage]) -> str | None:
    return None if any(lesion.rle for lesion in _lesions(images)) else "there are no masks"


#: Every check in the order of the page: what it looks for, and where it may have nothing to look at, why: silence must
#: not be taken for soundness.
CHECKS: tuple[tuple[str, Check, WhyNot | None], ...] = (
    ("No patient in two subsets", check_splits.check_patient_leakage, _whole),
    ("A patient id at every image", check_splits.check_patient_ids, None),
    ("Patients are women, not images", check_splits.check_single_images, None),
    ("No copies in two subsets or under two patients, also resized or mirrored", check_splits.check_copies, None),
    ("Every image file is there, can be read, and shows something", check_images.check_files, None),
    ("Files have the size that the JSON says", check_images.check_size, None),
    ("No depth was lost", check_images.check_depth, None),
    ("Laterality fits the side of the tissue", check_images.check_laterality, _sided),
    ("Coordinates count from the right corner", check_lesions.check_origin, _with_masses),
    ("Lesions lie on the breast", check_lesions.check_on_breast, _with_lesions),
    ("Boxes are those of their masks", check_lesions.check_mask_against_box, _with_masks),
    ("Lesions are no specks, not half the image, and there once", check_lesions.check_boxes, _with_lesions),
    ("Labels fit the lesions and each other", check_lesions.check_labels, None),
    ("Positive and negative images in every subset", check_splits.check_labels_per_subset, None),
    ("The same share of malignant images in every subset", check_splits.check_malignant_share, _whole),
)


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
    sources = read_sources(path, others, siblings=siblings)
    quarantine = read_quarantine(path.parent) if expect is not None else []
    images = _measure(sources, jobs=jobs, progress=progress)
    # Records that cannot be read were left out of all other checks.
    faulty = [Item(f"{source.name}: {fault}") for source in sources for fault in source.dropped]
    checked = [Checked("Every record can be read", [Finding.of("faulty_record", faulty)] if faulty else [])]
    checked += [Checked(what, check(images), why_not(images) if why_not else None) for what, check, why_not in CHECKS]
    if expect is not None:
        # An official training set is counted with the validation set taken from it.
        names = {source.name for source in sources if source.is_own or (source.is_val and expect.endswith("-train"))}
        counted = [image for image in images if image.file in names]
        checked.append(Checked(f"Counts of {expect}", check_totals(counted, expect, quarantine)))
    findings = ranked([finding for check in checked for finding in check.findings])
    return Audit(tuple(findings), tuple(checked), tuple(images), tuple(sources))


def _measure(sources: Sequence[Source], *, jobs: int, progress: bool) -> list[AuditedImage]:
    tasks = [
        (source, record, part, source.path.parent / record.file_name)
        for source in sources
        for record, part in zip(source.dataset.images, source.parts(), strict=True)
    ]

    def work(source: Source, record: ImageRecord, part: str, path: Path) -> ImageFacts:
        return measure_image(path, record, with_lesions=source.is_own)

    measured = in_parallel(work, tasks, jobs=jobs, name="audit", progress=progress)
    return [
        AuditedImage(record, facts, source.name, part, source.is_own, path)
        for (source, record, part, path), facts in zip(tasks, measured, strict=True)
    ]


def audit_to_files(
    path: Path, output: Path, *, command: str = "", others: Sequence[Path] = (), **options: Any
) -> Audit:
    """Audit a file, print what was found, write `audit.json` and `index.html`; `options` are those of `audit_file`.

    Raises InputError: wrong input, or an output that is no folder.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; expected a folder")
    audit = audit_file(path, others=others, **options)
    write_json(output / "audit.json", audit.to_json(command=command), indent=1)
    write_audit_page(output / "index.html", audit, command=command)
    print(audit.to_text())
    return audit
