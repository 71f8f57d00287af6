"""The files of CDD-CESM: images and masks by name (`P105_L_DM_MLO.jpg`), wherever they lie in the source."""

import re
from dataclasses import dataclass
from pathlib import Path

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.sheet import Line
from mammodet.data.images import IMAGE_SUFFIXES
from mammodet.errors import InputError
from mammodet.folders import walk_files

_NAME = re.compile(r"P(\d{1,6})_([LR])_(DM|CM)_(CC|MLO)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class ImageName:
    """What a file's name says: patient, side, `DM` or `CM`, view."""

    patient: int
    laterality: str
    kind: str
    view: str

    def __str__(self) -> str:
        return f"P{self.patient}_{self.laterality}_{self.kind}_{self.view}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Images and masks by name; `segmentations`: CSV of outlines, None: not there; `other`: so many of another kind."""

    images: dict[ImageName, Path]
    masks: dict[ImageName, Path]
    segmentations: Path | None
    quarantine: tuple[Quarantined, ...]
    other: int


def parse_name(text: str) -> ImageName | None:
    """The parts of a name, with or without a suffix; some names of the archive have blanks before it."""
    match = _NAME.fullmatch(re.sub(r"\.(jpe?g|png|tiff?|bmp|pgm)$", "", text.strip(), flags=re.IGNORECASE).strip())
    if match is None:
        return None
    patient, side, kind, view = match.groups()
    return ImageName(int(patient), side.upper(), kind.upper(), view.upper())


def names_in(path: Path, line: Line) -> set[ImageName]:
    """The images that a row with a fault can speak of. Raises InputError: none can be read."""
    names = {name for cell in line.cells if (name := parse_name(cell))}
    if not names:
        raise InputError(f"{path}: line {line.number}: {line.fault}; of which image it speaks is lost. Mend the line")
    return names


def open_archive(source: Path, kind: str) -> Archive:
    """The `DM`, `CM` or `both` files of a folder and all folders below it; masks are what lies in a folder `masks`.

    Raises InputError: no image is there, or none of that kind, or several CSVs of outlines.
    """
    found: dict[bool, dict[ImageName, Path]] = {False: {}, True: {}}
    quarantine: list[Quarantined] = []
    other = 0
    files = sorted(folder / name for folder, names in walk_files(source) for name in names)
    for path in (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES):
        place = path.relative_to(source)
        is_mask = any(part.lower() == "masks" for part in place.parts[:-1])
        what = "mask" if is_mask else "image"
        name = parse_name(path.name)
        if name is None:
            reason = "its name is not like P105_L_DM_MLO (patient, side, DM or CM, CC or MLO)"
            quarantine.append(Quarantined(Reason.BAD_NAME, what, str(place), reason, str(path)))
        elif kind not in (name.kind, "both"):
            other += not is_mask
        elif name in found[is_mask]:
            first = found[is_mask][name].relative_to(source)
            reason = f"{name} is also {first}, which was taken"
            quarantine.append(Quarantined(Reason.DUPLICATE, what, str(place), reason, str(path)))
        else:
            found[is_mask][name] = path
    images, masks = found[False], found[True]
    if not images:
        there = sorted(path.name for path in source.iterdir())[:5]
        raise InputError(
            f"{source}: no images like P105_L_DM_MLO.jpg"
            + (f" of kind {kind}, but {other} of the other kind (--kind)" if other else "")
            + f"; expected the archive's folders. Found: {', '.join(there) or 'an empty folder'}"
        )
    for name in sorted(set(masks) - set(images)):
        quarantine.append(Quarantined(Reason.NO_FILE, "mask", str(name), "has no image", str(masks.pop(name))))
    tables = [
        path for path in files if path.suffix.lower() == ".csv" and "hand_drawn_segmentation" in path.name.lower()
    ]
    if len(tables) > 1:
        shown = ", ".join(str(path.relative_to(source)) for path in tables)
        raise InputError(f"{source}: has several CSVs of outlines ({shown}); name one by --segmentations")
    return Archive(dict(sorted(images.items())), masks, tables[0] if tables else None, tuple(quarantine), other)
