"""The archive's table of images: Radiology-manual-annotations, sheet `all`.

Cells join the findings of an image by `$` (BI-RADS `4$2`), and `_` means nothing. Density is given for low-energy
images only. An image can have several rows.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.cdd_cesm.archive import ImageName, names_in, parse_name
from mammodet.converters.sheet import read_sheet
from mammodet.errors import InputError

#: Rising in seriousness.
PATHOLOGIES = ("normal", "benign", "malignant")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the table says of an image; None: nothing. `birads`: the highest of its findings."""

    pathology: str | None = None
    density: str | None = None
    birads: str | None = None
    findings: str | None = None
    tags: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Facts of each image, densities of breasts (patient, side), and rows that cannot be used."""

    images: dict[ImageName, ImageFacts] = field(default_factory=dict)
    densities: dict[tuple[int, str], str] = field(default_factory=dict)
    quarantine: list[Quarantined] = field(default_factory=list)


def read_table(path: Path) -> Table:
    """Read the table, XLSX or CSV. Raises InputError: it cannot be read, or columns are missing."""
    columns, lines = read_sheet(path)
    header = [_plain(cell) for cell in columns]
    at = {
        key: next((column for column, cell in enumerate(header) if cell.startswith(start)), None)
        for key, start in (
            *(("name", "imagename"), ("pathology", "pathology"), ("density", "breastdensity")),
            *(("birads", "birads"), ("findings", "findings"), ("tags", "tags")),
        )
    }
    missing = [
        title for key, title in (("name", "Image_name"), ("pathology", "Pathology Classification")) if at[key] is None
    ]
    if missing:
        raise InputError(
            f"{path}: column {' and '.join(missing)} missing; found {', '.join(columns)}. Expected the sheet 'all' "
            "of the archive's Radiology-manual-annotations"
        )
    table = Table()
    for line in lines:
        place = f"{path.name} line {line.number}"
        if line.fault:
            table.quarantine.append(Quarantined(Reason.BAD_ROW, "row", place, line.fault))
            for image in names_in(path, line):
                table.images[image] = _joined(table.images.get(image), ImageFacts())
            continue

        def cell(key: str, cells: list[str] = line.cells) -> str | None:
            column = at[key]
            text = cells[column] if column is not None else ""
            return None if text in ("", "_") else text

        name = parse_name(cell("name") or "")
        if name is None:
            reason = f"Image_name {cell('name')!r} is not like P105_L_DM_MLO"
            table.quarantine.append(Quarantined(Reason.BAD_NAME, "row", place, reason))
            continue
        pathology = (cell("pathology") or "").lower()
        if pathology not in PATHOLOGIES:
            reason = f"{name}: pathology {cell('pathology')!r}, expected Normal, Benign or Malignant; not known then"
            table.quarantine.append(Quarantined(Reason.BAD_ROW, "row", place, reason))
        density = (cell("density") or "").upper()
        facts = ImageFacts(
            pathology=pathology if pathology in PATHOLOGIES else None,
            density=density if re.fullmatch("[A-D]", density) else None,
            birads=max(re.findall(r"[0-6]", cell("birads") or ""), default=None),
            findings=cell("findings"),
            tags=cell("tags"),
        )
        table.images[name] = _joined(table.images.get(name), facts)
        if facts.density:
            table.densities.setdefault((name.patient, name.laterality), facts.density)
    return table


def _plain(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _joined(first: ImageFacts | None, second: ImageFacts) -> ImageFacts:
    """Facts of two rows of one image: the more serious; a pathology that one of them lacks can only be malignant."""
    if first is None:
        return second
    known = [facts.pathology for facts in (first, second) if facts.pathology]
    worst = max(known, key=PATHOLOGIES.index, default=None)
    texts = {
        key: "$".join(dict.fromkeys(text for text in (getattr(first, key), getattr(second, key)) if text)) or None
        for key in ("findings", "tags")
    }
    return ImageFacts(
        pathology=worst if len(known) == 2 or worst == "malignant" else None,
        density=first.density or second.density,
        birads=max(filter(None, (first.birads, second.birads)), default=None),
        **texts,
    )
