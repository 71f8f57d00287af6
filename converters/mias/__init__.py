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

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.converters.base import Quarantined, Reason, Summary, counted
from mammodet.converters.mias.scale import TABLE_SIZE, find_scales
from mammodet.converters.mias.table import MASSES, FilmEntry, Finding, parse_info
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Converter, Made, refused
from mammodet.data.breast import find_breast
from mammodet.data.images import IMAGE_SUFFIXES, read_image, write_png
from mammodet.errors import InputError
from mammodet.geometry import circle_mask, mask_to_rle, rle_box, surround_contrast
from mammodet.records import ImageRecord, Lesion

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


class MiasOptions(Options):
    """What is converted, and how."""

    categories: Literal["lesion", "mass", "abnormality"] = flag(
        "lesion",
        "'lesion': all in one; 'mass': masses only, other findings become regions to ignore; 'abnormality': six types",
    )
    table_size: int | None = flag(
        None,
        "side of the films that Info.txt was written for; circles on square films of another size are rescaled "
        f"({TABLE_SIZE}; other films only where their masses prove that they were resized)",
        metavar="PX",
        ge=16,
    )


@dataclass(frozen=True, slots=True)
class _Film:
    """A film to convert. `scale`: of its circles; `name`, `prefix`: of the archive and its patients."""

    entry: FilmEntry
    path: Path
    scale: float
    name: str
    prefix: str


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


class Mias(Converter[MiasOptions, _Film]):
    """mini-MIAS, and phantoms of it."""

    NAME = "mini-MIAS"
    options_type = MiasOptions

    def find(self) -> None:
        self.table, self.folder = find_archive(self.source)
        self.categories = tuple(dict.fromkeys(CATEGORY_SCHEMES[self.options.categories].values()))

    def synthetic_folders(self) -> set[Path]:
        return {self.table.parent}

    def rows(self) -> list[_Film]:
        table = self.table
        entries, quarantine = parse_info(table.read_text(encoding="utf-8-sig", errors="replace"), table.name)
        if not entries:
            raise InputError(f"{table}: no line like 'mdb001 G CIRC B 535 425 197' or 'mdb003 D NORM'")
        files = _films(self.folder)
        for name in sorted(set(entries) - set(files)):
            reason = f"has a line in {table.name} but no image file"
            quarantine.append(Quarantined(Reason.NO_FILE, "image", name, reason))
        for name in sorted(set(files) - set(entries)):
            reason = f"{files[name].name} has no line in {table.name}, or none that can be read"
            quarantine.append(Quarantined(Reason.NO_ROW, "image", name, reason))
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.lower().startswith("mdb") and not _is_film(path):
                kind = "of the full MIAS database" if _FULL_NAME.fullmatch(path.stem.lower()) else "that no film has"
                reason = f"{path.name} is a name {kind}; expected mdb001 ..."
                quarantine.append(Quarantined(Reason.BAD_NAME, "image", path.stem, reason))
        scales, other, self.resized = find_scales(
            {name: entries[name] for name in sorted(set(entries) & set(files))},
            files,
            self.options.table_size,
            None if self.phantom else TABLE_SIZE,
            table.name,
        )
        self.quarantine += [*quarantine, *other]
        name, prefix = ("phantom", "phantom") if self.phantom else (self.NAME, "mias")
        return [_Film(entries[film], files[film], scale, name, prefix) for film, scale in scales.items()]

    @staticmethod
    def convert_one(row: _Film, how: tuple[Path, MiasOptions]) -> Made:
        return _convert_film(row, *how)

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[_Film, Made]]) -> None:
        _count(self.summary, records, [row.entry for row, _ in done])
        _check_origin(self.summary, [pair for _, made in done for pair in made.facts])
        if outside := self.summary.by_kind().get(Reason.OUTSIDE):
            self.warnings.append(
                f"{outside} circles lie outside their images: if {self.table.name} was written for films of another "
                "size, every circle is misplaced; say for which by --table-size"
            )
        self.warnings += self.resized


convert = Mias.convert
ARCHIVE = Mias


def _films(folder: Path) -> dict[str, Path]:
    """Film name to file; where copies of several kinds lie side by side, the PGM, else the first of IMAGE_SUFFIXES."""
    order = (".pgm", *IMAGE_SUFFIXES)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: order.index(path.suffix.lower()) if _is_film(path) else 0):
        if _is_film(path):
            files.setdefault(path.stem.lower(), path)
    return files


def _convert_film(film: _Film, output: Path, options: MiasOptions) -> Made:
    """`facts`: for each mass, whether it is brighter than its surround with the bottom-left and the top-left origin."""
    entry, scale = film.entry, film.scale
    try:
        pixels = read_image(film.path)
    except InputError as error:
        return refused("image", entry.name, error, film.path)
    height, width = pixels.shape
    scheme = CATEGORY_SCHEMES[options.categories]
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
        if fault := _circle_fault(finding.circle[2], scale, disc, breast_mask):
            unlocalized = True
            x, y, radius = finding.circle
            quarantine.append(
                Quarantined(fault[0], "circle", f"{entry.name} ({x:g}, {y:g}, radius {radius:g})", fault[1])
            )
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
        patient_id=f"{film.prefix}_{entry.patient:03d}",
        laterality="R" if entry.number % 2 else "L",
        view="MLO",
        density=entry.tissue,
        labels=labels,
        source=film.name,
        spacing_mm_rc=(SPACING_MM * 1024 / height, SPACING_MM * 1024 / width),
        breast_box_xyxy=breast.box_xyxy,
        unlocalized=unlocalized,
        notes=tuple(notes + [f"circle quarantined: {item.reason}" for item in quarantine]),
        lesions=tuple(lesions),
    )
    return Made(record, tuple(quarantine), brighter)


def _circle_fault(
    radius: float, scale: float, disc: NDArray[np.bool_], breast_mask: NDArray[np.bool_]
) -> tuple[Reason, str] | None:
    height, width = disc.shape
    if not disc.any():
        return Reason.OUTSIDE, f"lies outside the image ({height}x{width} px, height x width)"
    if radius < 1:
        return Reason.NO_PLACE, "has no radius"
    if 2 * radius * scale > max(height, width):
        return Reason.NO_PLACE, f"is larger than the image ({height}x{width} px, height x width)"
    inside = float(breast_mask[disc].mean())
    if inside < 0.1:
        return Reason.NO_PLACE, f"lies on background: {100 * inside:.0f} % of it on the breast"
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
            "class": counted(finding.kind for finding in findings) | {"NORM": normal},
            "pathology": dict(Counter(PATHOLOGY[finding.severity] for finding in findings)),
            "tissue": counted(str(record.density) for record in records),
            "side": counted(str(record.laterality) for record in records),
            "ignored regions": sum(lesion.ignore for lesion in lesions),
        }
    )


def _check_origin(summary: Summary, pairs: Sequence[tuple[bool, bool]]) -> None:
    """The y-origin contrast test: masses are brighter than their surround, so the right origin finds more of them."""
    bottom, top = (sum(pair[side] for pair in pairs) for side in (0, 1))
    summary.checks["masses brighter"] = {"of": len(pairs), "origin bottom-left": bottom, "if it were top-left": top}
    if pairs and bottom < top:
        summary.warnings.append(
            f"{bottom} of {len(pairs)} masses are brighter than their surround with the archive's bottom-left origin, "
            f"{top} with a top-left one: this copy's images or coordinates seem to be turned upside down"
        )
