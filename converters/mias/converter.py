"""mini-MIAS: 322 films of 161 patients, circles for lesions (Suckling et al., Excerpta Medica ICS 1069, 1994).

What the archive means, and what this converter makes of it:
- Patient n's right breast has the odd number 2n-1, the left one the even number 2n; every view is MLO.
- Circle centres count y from the bottom: row = height - 1 - y.
- An image can have several lines. A line can lack its circle (`*NOTE 3*`, or no numbers at all): the image is positive,
  the lesion has no place (`unlocalized`).
- A circle on the film's background is quarantined; its image stays positive and becomes `unlocalized`.
- Circles count pixels of films of 1024x1024. Those of resized copies are rescaled where the masses prove that the films
  were only resized, or where the user says so; films of other sizes are quarantined.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mammodet.converters.base import Quarantined, SplitOptions, Summary, check_folders, split_records, write_outputs
from mammodet.converters.mias.scale import TABLE_SIZE, find_scales
from mammodet.converters.mias.table import MASSES, FilmEntry, Finding, parse_info
from numpy.typing import NDArray

from mammodet.data.breast import find_breast
from mammodet.data.contrast import surround_contrast
from mammodet.data.images import IMAGE_SUFFIXES, read_image, write_png
from mammodet.data.splits import check_shares
from mammodet.errors import InputError
from mammodet.geometry import circle_mask, mask_to_rle, rle_box
from mammodet.parallel import in_parallel
from mammodet.records import ImageRecord, Lesion
from mammodet.synthetic import is_synthetic

SPACING_MM = 0.2
ABNORMALITIES = {
    "CALC": "calcification",
    "CIRC": "circumscribed_mass",
    "SPIC": "spiculated_mass",
    "MISC": "ill_defined_mass",
    "ARCH": "architectural_distortion",
    "ASYM": "asymmetry",
}
PATHOLOGY = {"B": "benign", "M": "malignant"}

#: What `--categories` can be, to the category of each abnormality; one that is not named is left out.
CATEGORY_SCHEMES: dict[str, dict[str, str]] = {
    "lesion": dict.fromkeys(ABNORMALITIES, "lesion"),
    "mass": dict.fromkeys(MASSES, "mass"),
    "abnormality": dict(ABNORMALITIES),
}


@dataclass(frozen=True, slots=True)
class MiasOptions:
    """`categories`: a key of `CATEGORY_SCHEMES`; `jobs`: threads.

    `table_size`: side of the films whose pixels the table counts; None: 1024, and of a phantom its own.
    """

    categories: str = "lesion"
    splits: SplitOptions = field(default_factory=SplitOptions)
    jobs: int = 2
    progress: bool = True
    table_size: int | None = None


@dataclass(frozen=True, slots=True)
class _Archive:
    """Whose patients these are: synthetic ones must never be taken for mini-MIAS's, by a leakage check above all."""

    name: str
    patient_prefix: str
    table_size: int | None

    @staticmethod
    def of(table: Path) -> _Archive:
        """By the licence that lies beside the table."""
        if is_synthetic([table.parent]):
            return _Archive("phantom", "phantom", None)
        return _Archive("mini-MIAS", "mias", TABLE_SIZE)


@dataclass(frozen=True, slots=True)
class _Film:
    """A converted film, and what its pixels said of its circles."""

    record: ImageRecord
    quarantine: tuple[Quarantined, ...]
    brighter: tuple[tuple[bool, bool], ...]  # for each mass: with the bottom-left, with the top-left origin


def find_archive(source: Path) -> tuple[Path, Path]:
    """The table and the folder of the images, in `source` or one folder below it."""
    tables = [
        path
        for path in sorted([*source.glob("*"), *source.glob("*/*")])
        if path.is_file() and path.suffix.lower() in (".txt", ".csv") and path.stem.lower().startswith("info")
    ]
    for table in tables:
        folders = [table.parent, *sorted(folder for folder in table.parent.iterdir() if folder.is_dir())]
        for folder in folders:
            if any(_is_film(path) for path in folder.iterdir()):
                return table, folder
    if tables:
        full = sorted(path.name for path in tables[0].parent.glob("**/*") if _FULL_NAME.fullmatch(path.stem.lower()))
        if full:
            raise InputError(
                f"{tables[0].parent}: {', '.join(full[:3])} are named like the films of the full MIAS database (50 "
                "micrometres a pixel), which the circles of the table do not fit; take those of mini-MIAS, 1024x1024, "
                "mdb001.pgm ... mdb322.pgm"
            )
        raise InputError(f"{tables[0].parent}: has {tables[0].name} but no images mdb*.pgm (or .png, .jpg, .tif)")
    found = sorted(path.name for path in source.iterdir())[:5]
    raise InputError(
        f"{source}: no Info.txt; expected the unpacked all-mias folder with Info.txt and mdb001.pgm ... mdb322.pgm. "
        f"Found: {', '.join(found) if found else 'an empty folder'}"
    )


_FULL_NAME = re.compile(r"mdb\d+[lr][a-z]")


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and re.fullmatch(r"mdb\d+", path.stem.lower()) is not None


def convert(source: Path, output: Path, options: MiasOptions) -> Summary:
    """Convert a mini-MIAS folder.

    Raises:
        InputError: no archive there, nothing in it that can be converted, or options that cannot be met.
    """
    if options.table_size is not None and options.table_size < 16:
        raise InputError(f"--table-size {options.table_size}: expected the side of the films in pixels, from 16")
    if options.categories not in CATEGORY_SCHEMES:
        raise InputError(f"categories {options.categories!r}: expected one of {', '.join(CATEGORY_SCHEMES)}")
    chosen = options.splits
    check_shares(test_fraction=chosen.test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)
    check_folders(source, output)
    table, folder = find_archive(source)
    entries, quarantine = parse_info(table.read_text(encoding="utf-8-sig", errors="replace"), table.name)
    if not entries:
        raise InputError(f"{table}: no line like 'mdb001 G CIRC B 535 425 197' or 'mdb003 D NORM'")
    files = _films(folder)
    for name in sorted(set(entries) - set(files)):
        quarantine.append(Quarantined("image", name, f"has a line in {table.name} but no image file"))
    for name in sorted(set(files) - set(entries)):
        quarantine.append(
            Quarantined("image", name, f"{files[name].name} has no line in {table.name}, or none that can be read")
        )

    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.lower().startswith("mdb") and not _is_film(path):
            kind = "of the full MIAS database" if _FULL_NAME.fullmatch(path.stem.lower()) else "that no film has"
            quarantine.append(Quarantined("image", path.stem, f"{path.name} is a name {kind}; expected mdb001 ..."))
    names = sorted(set(entries) & set(files))
    archive = _Archive.of(table)
    scales, other, resized = find_scales(
        {name: entries[name] for name in names}, files, options.table_size, archive.table_size, table.name
    )
    quarantine += other
    tasks = [(entries[name], files[name], output, options.categories, archive, scale) for name, scale in scales.items()]
    films: list[_Film] = []
    for film in in_parallel(_convert_film, tasks, jobs=options.jobs, name="mias", progress=options.progress):
        if isinstance(film, Quarantined):
            quarantine.append(film)
        else:
            films.append(film)
            quarantine.extend(film.quarantine)
    if not films:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in quarantine[:3])
        raise InputError(f"{source}: no image could be converted ({reasons})")

    records = [film.record for film in films]
    splits = split_records(records, chosen)
    summary = Summary(archive.name, str(source), str(output), quarantine=quarantine)
    _count(summary, records, [entries[Path(record.file_name).stem] for record in records])
    _check_origin(summary, films)
    outside = sum("outside the image" in item.reason for item in quarantine)
    if outside:
        summary.warnings.append(
            f"{outside} circles lie outside their images: if {table.name} was written for films of another size, every "
            "circle is misplaced; say for which by --table-size"
        )
    summary.warnings += resized
    scheme = CATEGORY_SCHEMES[options.categories]
    write_outputs(output, tuple(dict.fromkeys(scheme.values())), records, splits, summary)
    return summary


def _films(folder: Path) -> dict[str, Path]:
    """Film name to file; where copies of several kinds lie side by side, the PGM, else the first of IMAGE_SUFFIXES."""
    order = (".pgm", *IMAGE_SUFFIXES)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: order.index(path.suffix.lower()) if _is_film(path) else 0):
        if _is_film(path):
            files.setdefault(path.stem.lower(), path)
    return files


def _convert_film(
    entry: FilmEntry, path: Path, output: Path, categories: str, archive: _Archive, scale: float
) -> _Film | Quarantined:
    try:
        pixels = read_image(path)
    except InputError as error:
        return Quarantined("image", entry.name, str(error))
    height, width = pixels.shape
    scheme = CATEGORY_SCHEMES[categories]
    breast = find_breast(pixels)
    breast_mask = breast.mask_at((height, width))
    lesions: list[Lesion] = []
    quarantine: list[Quarantined] = []
    brighter: list[tuple[bool, bool]] = []
    unlocalized = False
    for finding in entry.findings:
        if finding.circle is None:
            unlocalized = True
            continue
        x, y, radius = (number * scale for number in finding.circle)
        centre_xy = (x + scale / 2, height - scale / 2 - y)
        disc = circle_mask(centre_xy, radius, (height, width))
        reason = _circle_fault(finding.circle[2], scale, disc, breast_mask)
        if reason:
            unlocalized = True
            x, y, radius = finding.circle
            quarantine.append(Quarantined("circle", f"{entry.name} ({x:g}, {y:g}, radius {radius:g})", reason))
            continue
        if finding.kind in MASSES:
            flipped = (x + scale / 2, y + scale / 2)
            brighter.append(
                (surround_contrast(pixels, centre_xy, radius) > 0, surround_contrast(pixels, flipped, radius) > 0)
            )
        rle = mask_to_rle(disc)
        lesions.append(
            Lesion(
                # A finding that is left out is a region to ignore, under the scheme's first category.
                category=scheme.get(finding.kind, next(iter(scheme.values()))),
                box_xyxy=rle_box(rle),
                rle=rle,
                geometry="circle",
                attributes={
                    "abnormality": ABNORMALITIES[finding.kind],
                    "pathology": PATHOLOGY[finding.severity],
                    "circle_xyr": [centre_xy[0], centre_xy[1], radius],
                },
                ignore=finding.kind not in scheme,
            )
        )
    labels, notes = _labels(entry.findings, scheme)
    file_name = f"images/{entry.name}.png"
    write_png(output / file_name, pixels)
    record = ImageRecord(
        image_id=entry.number,
        file_name=file_name,
        size_hw=(height, width),
        patient_id=f"{archive.patient_prefix}_{entry.patient:03d}",
        laterality="R" if entry.number % 2 else "L",
        view="MLO",
        density=entry.tissue,
        labels=labels,
        source=archive.name,
        spacing_mm_rc=(SPACING_MM * 1024 / height, SPACING_MM * 1024 / width),
        breast_box_xyxy=breast.box_xyxy,
        unlocalized=unlocalized,
        notes=tuple(notes + [f"circle quarantined: {item.reason}" for item in quarantine]),
        lesions=tuple(lesions),
    )
    return _Film(record, tuple(quarantine), tuple(brighter))


def _circle_fault(radius: float, scale: float, disc: NDArray[np.bool_], breast_mask: NDArray[np.bool_]) -> str | None:
    height, width = disc.shape
    if not disc.any():
        return f"lies outside the image ({height}x{width} px, height x width)"
    if radius < 1:
        return "has no radius"
    if 2 * radius * scale > max(height, width):
        return f"is larger than the image ({height}x{width} px, height x width)"
    inside = float(breast_mask[disc].mean())
    if inside < 0.1:
        return f"lies on background: {100 * inside:.0f} % of it on the breast"
    return None


def _labels(findings: Sequence[Finding], scheme: Mapping[str, str]) -> tuple[dict[str, int | None], list[str]]:
    """Labels of a film: its worst finding; unknown where a finding that is left out could change them."""
    kept = [finding for finding in findings if finding.kind in scheme]
    left_out = [finding for finding in findings if finding.kind not in scheme]
    notes = [f"finding left out: {ABNORMALITIES[item.kind]} ({PATHOLOGY[item.severity]})" for item in left_out]
    if not findings:
        return {"tumor": 0, "malignant": 0}, notes
    malignant: int | None = int(any(finding.severity == "M" for finding in kept))
    if left_out and not malignant:
        malignant = None
    return {"tumor": 1 if kept else None, "malignant": malignant}, notes


def _count(summary: Summary, records: Sequence[ImageRecord], entries: Sequence[FilmEntry]) -> None:
    findings = [finding for entry in entries for finding in entry.findings]
    lesions = [lesion for record in records for lesion in record.lesions]
    normal = sum(not entry.findings for entry in entries)
    summary.counts.update(
        {
            "images": len(records),
            "patients": len({record.patient_id for record in records}),
            "normal / abnormal": f"{normal} / {len(records) - normal}",
            "findings": len(findings),
            "circles kept": len(lesions),
            "images with circles": sum(bool(record.lesions) for record in records),
            "unlocalized images": sum(record.unlocalized for record in records),
            "class": dict(sorted(Counter(finding.kind for finding in findings).items())) | {"NORM": normal},
            "pathology": dict(Counter(PATHOLOGY[finding.severity] for finding in findings)),
            "tissue": dict(sorted(Counter(str(record.density) for record in records).items())),
            "side": dict(sorted(Counter(str(record.laterality) for record in records).items())),
            "ignored regions": sum(lesion.ignore for lesion in lesions),
        }
    )


def _check_origin(summary: Summary, films: Sequence[_Film]) -> None:
    """The y-origin contrast test: masses are brighter than their surround, so the right origin finds more of them."""
    pairs = [pair for film in films for pair in film.brighter]
    bottom, top = (sum(pair[side] for pair in pairs) for side in (0, 1))
    summary.checks["masses brighter"] = {
        "of": len(pairs),
        "origin bottom-left": bottom,
        "if it were top-left": top,
    }
    if pairs and bottom < top:
        summary.warnings.append(
            f"{bottom} of {len(pairs)} masses are brighter than their surround with the archive's bottom-left origin, "
            f"{top} with a top-left one: this copy's images or coordinates seem to be turned upside down"
        )
