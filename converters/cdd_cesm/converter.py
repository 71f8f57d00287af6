"""CDD-CESM: contrast-enhanced spectral mammograms of 326 women (Khaled et al., Scientific Data 2022, CC BY 4.0).

What the archive means, and what this converter makes of it:
- Low-energy images (DM) look like ordinary mammograms; subtracted ones (CM) do not, and are left out by default.
- All findings of an image are outlined alike: masses, distortions, asymmetries, thickened skin, calcifications. Compact
  outlines become masses, all others regions to ignore (`shape.py`).
- Outlines come as one mask per image, or region by region in the original CSV.
- Nothing is normal unless the archive's table says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mammodet.converters.base import (
    Quarantined,
    Summary,
    check_folders,
    note_stretched,
    remove_tables,
    split_records,
    write_outputs,
)
from mammodet.converters.cdd_cesm.archive import Archive, ImageName, open_archive
from mammodet.converters.cdd_cesm.options import CATEGORIES, KINDS, CesmOptions
from mammodet.converters.cdd_cesm.regions import Region, Regions, draw, read_regions
from mammodet.converters.cdd_cesm.shape import Outline, components, kind_of, measure, skin_depth
from mammodet.converters.cdd_cesm.table import ImageFacts, Table, read_table

from mammodet.data.breast import Breast, find_breast
from mammodet.data.images import read_image, read_size_hw, write_png
from mammodet.data.splits import check_shares
from mammodet.errors import InputError
from mammodet.geometry import patch_to_rle, rle_box
from mammodet.parallel import in_parallel
from mammodet.records import Geometry, ImageRecord, Lesion

NAME = "CDD-CESM"
_THRESHOLD = 127  # masks are JPEG files: black and white with noise at the edges
_MOST_GREY = 0.05  # share of a mask that may be neither black nor white; the most in the archive's masks is 0.014


@dataclass(frozen=True, slots=True)
class _Task:
    """An image to convert. `facts`: its row of the table, or None; `drawn`: outlines, None: they are in `mask`."""

    number: int
    name: ImageName
    path: Path
    mask: Path | None
    drawn: tuple[Region, ...] | None
    faulty: bool
    facts: ImageFacts | None
    density: str | None


@dataclass(slots=True)
class _Found:
    """What was drawn on an image. `lost`: some of it cannot be placed."""

    outlines: list[tuple[Outline, Geometry]] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    specks: int = 0
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Converted:
    record: ImageRecord
    quarantine: tuple[Quarantined, ...]
    specks: int


def convert(source: Path, output: Path, options: CesmOptions) -> Summary:
    """Convert the archive, or a copy of it with masks.

    Raises:
        InputError: no archive there, nothing in it that can be converted, or options that cannot be met.
    """
    _check_options(options)
    check_folders(source, output)
    archive = open_archive(source, options.kind)
    table = read_table(options.table) if options.table else None
    path = options.segmentations or (None if archive.masks else archive.segmentations)
    regions = read_regions(path) if path else None
    if regions is not None:
        _check_originals(archive)
    quarantine = [*archive.quarantine, *(table.quarantine if table else ())]
    if regions is not None:
        quarantine += regions.quarantine
        quarantine += [
            Quarantined("region", str(name), "has no image")
            for name in sorted(regions.by_image)
            if name not in archive.images and options.kind in (name.kind, "both")
        ]
    remove_tables(output)
    tasks = [(task, output, options) for task in _tasks(archive, regions, table)]
    converted: list[_Converted] = []
    for item in in_parallel(_convert_image, tasks, jobs=options.jobs, name="cdd_cesm", progress=options.progress):
        if isinstance(item, Quarantined):
            quarantine.append(item)
        else:
            converted.append(item)
            quarantine.extend(item.quarantine)
    if not converted:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in quarantine[:3])
        raise InputError(f"{source}: no image could be converted ({reasons})")
    plain = [item.record for item in converted]
    records = note_stretched(plain)
    summary = Summary(NAME, str(source), str(output), quarantine=quarantine)
    _count(summary, archive, converted)
    _warn(summary, records, table, stretched=records != plain, options=options)
    category = options.all_findings or "mass"
    write_outputs(output, (category,), records, split_records(records, options.splits), summary)
    return summary


def _check_options(options: CesmOptions) -> None:
    chosen = options.splits
    check_shares(test_fraction=chosen.test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)
    if options.kind not in KINDS:
        raise InputError(f"--kind {options.kind}: expected one of {', '.join(KINDS)}")
    if options.all_findings not in (None, *CATEGORIES):
        raise InputError(f"--all-findings {options.all_findings}: expected one of {', '.join(CATEGORIES)}")
    if options.all_findings and options.background:
        raise InputError("--all-findings takes every outline, --background leaves some out; give one of them")
    if options.table and options.malignant_without_table:
        raise InputError("--malignant-without-table is for copies without a table; leave it out, --table says more")


def _check_originals(archive: Archive) -> None:
    """The CSV's pixels are those of the original files: refuse copies that were stretched."""
    sizes: set[tuple[int, int]] = set()
    for path in archive.images.values():
        try:
            sizes.add(read_size_hw(path))
        except InputError:  # quarantined when it is converted
            continue
    if len(sizes) == 1 and len(set(next(iter(sizes)))) == 1:
        side = sizes.pop()[0]
        raise InputError(
            f"all images are {side}x{side}: a stretched copy, which the outlines of the CSV do not fit; use the "
            "archive's own images, or a copy with masks/ and without --segmentations"
        )


def _tasks(archive: Archive, regions: Regions | None, table: Table | None) -> list[_Task]:
    tasks: list[_Task] = []
    for number, (name, path) in enumerate(archive.images.items(), start=1):
        facts = table.images.get(name) if table else None
        density = facts.density if facts else None
        if table and not density:  # subtracted images take that of their breast
            density = table.densities.get((name.patient, name.laterality))
        tasks.append(
            _Task(
                number=number,
                name=name,
                path=path,
                mask=archive.masks.get(name),
                drawn=None if regions is None else tuple(regions.by_image.get(name, ())),
                faulty=regions is not None and name in regions.faulty,
                facts=facts,
                density=density,
            )
        )
    return tasks


def _convert_image(task: _Task, output: Path, options: CesmOptions) -> _Converted | Quarantined:
    try:
        pixels = read_image(task.path)
    except InputError as error:
        return Quarantined("image", str(task.name), str(error), str(task.path))
    size_hw = (pixels.shape[0], pixels.shape[1])
    found = _drawn(task, size_hw) if task.drawn is not None else _masked(task, size_hw, options)
    breast = find_breast(pixels)
    contradicts = task.facts is not None and task.facts.pathology == "normal" and bool(found.outlines or found.lost)
    if contradicts:
        reason = "the table says Normal, but a finding is outlined; its labels are not known, its outlines are ignored"
        found.quarantine.append(Quarantined("label", str(task.name), reason))
    labels = _labels(task.facts, bool(found.outlines), contradicts, options)
    lesions = _lesions(found, breast, task.facts, contradicts, options)
    file_name = f"images/{task.name}.png"
    write_png(output / file_name, pixels)
    facts = task.facts or ImageFacts()
    notes = [f"{key}: {text}" for key, text in (("findings", facts.findings), ("tags", facts.tags)) if text]
    record = ImageRecord(
        image_id=task.number,
        file_name=file_name,
        size_hw=size_hw,
        patient_id=f"cesm_P{task.name.patient}",
        laterality=task.name.laterality,
        view=task.name.view,
        density=task.density,
        birads=facts.birads,
        labels=labels,
        class_name=facts.pathology,
        source=NAME if task.name.kind == "DM" else f"{NAME} subtracted",
        breast_box_xyxy=breast.box_xyxy,
        # Without outlines, an image that is not known to be normal must not teach where no lesion is.
        unlocalized=found.lost or (not lesions and labels["tumor"] != 0),
        notes=tuple(notes + [f"{item.what} quarantined: {item.reason}" for item in found.quarantine]),
        lesions=tuple(lesions),
    )
    return _Converted(record, tuple(found.quarantine), found.specks)


def _masked(task: _Task, size_hw: tuple[int, int], options: CesmOptions) -> _Found:
    found = _Found()
    if task.mask is None:
        return found
    try:
        pixels = read_image(task.mask)
        if pixels.shape != size_hw:
            raise InputError(
                f"the mask is {pixels.shape[0]}x{pixels.shape[1]}, the image {size_hw[0]}x{size_hw[1]} (height x width)"
            )
        grey = float(((pixels > 32) & (pixels < 224)).mean())
        if pixels.dtype != np.uint8 or grey > _MOST_GREY:
            raise InputError(f"is no mask: {100 * grey:.0f} % of it is neither black nor white")
    except InputError as error:
        found.lost = True
        found.quarantine.append(Quarantined("mask", str(task.name), str(error), str(task.mask)))
        return found
    outlines, found.specks = components(pixels > _THRESHOLD, options.rule.min_pixels)
    found.outlines = [(outline, "contour") for outline in outlines]
    return found


def _drawn(task: _Task, size_hw: tuple[int, int]) -> _Found:
    found = _Found(lost=task.faulty)
    for region in task.drawn or ():
        try:
            found.outlines.append((draw(region, size_hw), region.geometry))
        except ValueError as error:
            found.lost = True
            found.quarantine.append(Quarantined("region", f"{task.name} ({region.place})", str(error)))
    return found


def _labels(facts: ImageFacts | None, outlined: bool, contradicts: bool, options: CesmOptions) -> dict[str, int | None]:
    """What the table says; without it, an outline is a tumor, and nothing else is known."""
    if contradicts:
        return {"tumor": None, "malignant": None}
    if facts is not None and facts.pathology is not None:
        return {"tumor": int(facts.pathology != "normal"), "malignant": int(facts.pathology == "malignant")}
    tumor = 1 if outlined else None
    return {"tumor": tumor, "malignant": tumor if options.malignant_without_table else None}


def _lesions(
    found: _Found, breast: Breast, facts: ImageFacts | None, contradicts: bool, options: CesmOptions
) -> list[Lesion]:
    depth = skin_depth(breast)
    pathology = facts.pathology if facts and not contradicts else None
    if pathology == "malignant" and (len(found.outlines) > 1 or found.lost):
        pathology = None  # which of the findings is, the table does not say
    lesions: list[Lesion] = []
    for outline, geometry in found.outlines:
        shape = measure(outline, breast, depth)
        kind = kind_of(shape, options.rule)
        if kind in options.background:
            continue
        rle = patch_to_rle(outline.patch, outline.corner_xy, breast.size_hw)
        attributes: dict[str, Any] = {
            "shape": kind,
            "solidity": round(shape.solidity, 3),
            "aspect": round(shape.aspect, 3),
            "roundness": round(shape.roundness, 3),
            "breast_share": round(shape.area, 5),
        }
        if pathology:
            attributes["pathology"] = pathology
        lesions.append(
            Lesion(
                category=options.all_findings or "mass",
                box_xyxy=rle_box(rle),
                rle=rle,
                geometry=geometry,
                attributes=attributes,
                ignore=contradicts or (options.all_findings is None and kind != "mass"),
            )
        )
    return lesions


def _count(summary: Summary, archive: Archive, converted: Sequence[_Converted]) -> None:
    records = [item.record for item in converted]
    lesions = [lesion for record in records for lesion in record.lesions]
    shapes = Counter(str(lesion.attributes["shape"]) for lesion in lesions)
    summary.counts.update(
        {
            "images": len(records),
            "patients": len({record.patient_id for record in records}),
            "left out (--kind)": archive.other,
            "images outlined": sum(bool(record.lesions) for record in records),
            "outlines": len(lesions),
            "by shape": {kind: shapes[kind] for kind in ("mass", "spread", "band", "small")},
            "lesions": sum(not lesion.ignore for lesion in lesions),
            "ignored regions": sum(lesion.ignore for lesion in lesions),
            "specks dropped": sum(item.specks for item in converted),
            "images with lesions": sum(any(not one.ignore for one in record.lesions) for record in records),
            "of these complete": sum(bool(record.lesions) and record.has_complete_boxes for record in records),
            "unlocalized images": sum(record.unlocalized for record in records),
            "class": dict(sorted(Counter(record.class_name or "not known" for record in records).items())),
            "view": dict(sorted(Counter(str(record.view) for record in records).items())),
        }
    )


def _warn(
    summary: Summary, records: Sequence[ImageRecord], table: Table | None, *, stretched: bool, options: CesmOptions
) -> None:
    warn = summary.warnings.append
    if stretched:
        height, width = records[0].size_hw
        warn(f"all images are {height}x{width}: films are not square, these were stretched, and their aspect is lost")
    without = sum(record.class_name is None for record in records)
    if table is None and not options.malignant_without_table:
        warn("no --table: whether a finding is malignant is not known; nor is any image known to be normal")
    elif table is not None and without:
        warn(f"{without} of {len(records)} images have no pathology in the table; their outlines alone count")
