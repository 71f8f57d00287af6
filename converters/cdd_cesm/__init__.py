"""CDD-CESM: contrast-enhanced spectral mammograms of 326 women (Khaled et al., Scientific Data 2022, CC BY 4.0).

What the archive means, and what this converter makes of it:
- Low-energy images (DM) look like ordinary mammograms; subtracted ones (CM) do not, and are left out by default.
- All findings of an image are outlined alike: masses, distortions, asymmetries, thickened skin, calcifications. Compact
  outlines become masses, all others regions to ignore (`shape.py`).
- Outlines come as one mask per image, or region by region in the original CSV.
- Nothing is normal unless the archive's table says so.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from mammodet.converters.base import Quarantined, Reason, Summary, counted, note_stretched
from mammodet.converters.cdd_cesm.archive import Archive, ImageName, open_archive
from mammodet.converters.cdd_cesm.regions import Region, Regions, draw, read_regions
from mammodet.converters.cdd_cesm.shape import MassRule, kind_of, measure, rule_from, skin_depth
from mammodet.converters.cdd_cesm.table import ImageFacts, Table, read_table
from mammodet.converters.mask_files import Outline, components
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Converter, Made, refused
from mammodet.data.breast import Breast, find_breast
from mammodet.data.images import read_image, read_size_hw, write_png
from mammodet.errors import InputError
from mammodet.geometry import patch_to_rle, rle_box
from mammodet.records import Geometry, ImageRecord, Lesion

NAME = "CDD-CESM"
_THRESHOLD = 127  # masks are JPEG files: black and white with noise at the edges
_MOST_GREY = 0.05  # share of a mask that may be neither black nor white; the most in the archive's masks is 0.014


def _rule(value: Any) -> Any:
    """A rule, or numbers of it as a command line gives them."""
    return rule_from(value) if isinstance(value, list | tuple) else value


class CesmOptions(Options):
    """What is converted, and how."""

    kind: Literal["DM", "CM", "both"] = flag(
        "DM", "'DM': low-energy images, like ordinary mammograms; 'CM': subtracted contrast images"
    )
    table: Path | None = flag(
        None,
        "the archive's Radiology-manual-annotations.xlsx, or its sheet 'all' as CSV: pathology, density, BI-RADS",
        metavar="FILE",
    )
    segmentations: Path | None = flag(
        None,
        "the archive's Radiology_hand_drawn_segmentations_v2.csv, where it does not lie in --source",
        metavar="CSV",
    )
    malignant_without_table: bool = flag(
        False, "without --table: every image with a finding is malignant; only for a copy of which that is known"
    )
    #: None: `rule` says which outlines are masses, the others are regions to ignore.
    all_findings: Literal["mass", "lesion"] | None = flag(
        None,
        "take every outline as a lesion of this category",
        words="compact ones as 'mass', regions to ignore of the others",
    )
    #: kinds of outlines that are neither lesions nor regions to ignore, but left out.
    background: tuple[Literal["band", "small"], ...] = flag(
        (),
        "leave out bands along the skin, or outlines too small for the rule, as no masses: more images teach boxes "
        "then, since those with regions to ignore do not",
        words="regions to ignore",
    )
    rule: Annotated[MassRule, BeforeValidator(_rule)] = flag(
        MassRule(),
        "numbers of the rule that tells masses, such as min_solidity=0.8 max_aspect=1.8 (docs/cdd_cesm.md)",
        name="mass-rule",
        metavar="NAME=NUMBER",
        many=True,
        words="",
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.all_findings and self.background:
            raise InputError("--all-findings takes every outline, --background leaves some out; give one of them")
        if self.table and self.malignant_without_table:
            raise InputError("--malignant-without-table is for copies without a table; leave it out, --table says more")
        return self


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


class CddCesm(Converter[CesmOptions, _Task]):
    """The archive, or a copy of it with masks."""

    NAME = NAME
    options_type = CesmOptions

    def find(self) -> None:
        options = self.options
        self.categories = (options.all_findings or "mass",)
        self.archive = open_archive(self.source, options.kind)
        self.table = read_table(options.table) if options.table else None

    def rows(self) -> list[_Task]:
        archive, table = self.archive, self.table
        path = self.options.segmentations or (None if archive.masks else archive.segmentations)
        regions = read_regions(path) if path else None
        self.quarantine += [*archive.quarantine, *(table.quarantine if table else ())]
        if regions is not None:
            _check_originals(archive)
            self.quarantine += regions.quarantine
            self.quarantine += [
                Quarantined(Reason.NO_FILE, "region", str(name), "has no image")
                for name in sorted(regions.by_image)
                if name not in archive.images and self.options.kind in (name.kind, "both")
            ]
        return _tasks(archive, regions, table)

    @staticmethod
    def convert_one(row: _Task, how: tuple[Path, CesmOptions]) -> Made:
        return _convert_image(row, *how)

    def complete(self, done: Sequence[tuple[_Task, Made]]) -> list[ImageRecord]:
        return note_stretched(super().complete(done))

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[_Task, Made]]) -> None:
        _count(self.summary, self.archive, records, specks=sum(made.facts for _, made in done))
        _warn(self.summary, records, self.table, self.options, stretched=records != super().complete(done))


convert = CddCesm.convert
ARCHIVE = CddCesm


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


def _convert_image(task: _Task, output: Path, options: CesmOptions) -> Made:
    """`facts`: specks that were dropped."""
    try:
        pixels = read_image(task.path)
    except InputError as error:
        return refused("image", str(task.name), error, task.path)
    size_hw = (pixels.shape[0], pixels.shape[1])
    found = _drawn(task, size_hw) if task.drawn is not None else _masked(task, size_hw, options)
    breast = find_breast(pixels)
    contradicts = task.facts is not None and task.facts.pathology == "normal" and bool(found.outlines or found.lost)
    if contradicts:
        reason = "the table says Normal, but a finding is outlined; its labels are not known, its outlines are ignored"
        found.quarantine.append(Quarantined(Reason.CONTRADICTION, "label", str(task.name), reason))
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
    return Made(record, tuple(found.quarantine), found.specks)


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
        found.quarantine.append(Quarantined(Reason.UNREADABLE, "mask", str(task.name), str(error), str(task.mask)))
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
            found.quarantine.append(Quarantined(Reason.NO_PLACE, "region", f"{task.name} ({region.place})", str(error)))
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


def _count(summary: Summary, archive: Archive, records: Sequence[ImageRecord], *, specks: int) -> None:
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
            "specks dropped": specks,
            "images with lesions": sum(any(not one.ignore for one in record.lesions) for record in records),
            "of these complete": sum(bool(record.lesions) and record.has_complete_boxes for record in records),
            "unlocalized images": sum(record.unlocalized for record in records),
            "class": counted(record.class_name or "not known" for record in records),
            "view": counted(str(record.view) for record in records),
        }
    )


def _warn(
    summary: Summary, records: Sequence[ImageRecord], table: Table | None, options: CesmOptions, *, stretched: bool
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
