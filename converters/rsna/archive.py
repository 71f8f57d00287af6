"""Where the images of the RSNA archive lie: DICOM files, or one of the PNG editions that are passed on.

| layout | example |
|---|---|
| the archive | `train_images/10006/462822612.dcm` |
| PNG, by woman | `10006/462822612.png` |
| PNG, flat | `10006_462822612.png` |

Folders may lie at any depth below the source. Patient and image id alone say what belongs together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_image
from mammodet.errors import InputError
from mammodet.folders import walk_files

#: Of several files of one image the first kind is taken: what has lost nothing before what may have.
_ORDER = {suffix: number for number, suffix in enumerate((*DICOM_SUFFIXES, ".png", ".tif", ".tiff", *IMAGE_SUFFIXES))}
_FLAT = re.compile(r"(\d{1,16})_(\d{1,16})")
_NUMBER = re.compile(r"\d{1,16}")


@dataclass(frozen=True, slots=True)
class Archive:
    """The files of an archive."""

    files: Mapping[tuple[int, int], Path]  #: (patient, image) to its file
    doubles: int  #: files beyond those, of images that have another one


def find_images(source: Path, part: str) -> Archive:
    """Find the images of `train` or `test` in a folder; folders named for the other part are passed over.

    Raises InputError: a folder cannot be opened, or there is no image of this archive.
    """
    files: dict[tuple[int, int], Path] = {}
    other_part = {"train": "test", "test": "train"}[part]
    doubles = 0
    strange: list[str] = []

    for folder, names in walk_files(source, lambda name: name.lower().startswith(f"{other_part}_images")):
        for name in names:
            path = folder / name
            if not is_image(path):
                continue
            key = _key(folder.name, path.stem)
            if key is None:
                strange.append(name)
                continue
            doubles += key in files
            if key not in files or _order(path) < _order(files[key]):
                files[key] = path
    if not files:
        found = f"; images that are there: {', '.join(strange[:3])} ..." if strange else ""
        raise InputError(
            f"{source}: no images of the archive; expected {part}_images/PATIENT/IMAGE.dcm, PATIENT/IMAGE.png or "
            f"PATIENT_IMAGE.png{found}"
        )
    return Archive(files, doubles)


def _order(path: Path) -> int:
    return _ORDER.get(path.suffix.lower(), 0)  # what has no such suffix is DICOM


def _key(parent: str, stem: str) -> tuple[int, int] | None:
    """Patient and image of a file."""
    if flat := _FLAT.fullmatch(stem):
        return int(flat[1]), int(flat[2])
    if _NUMBER.fullmatch(stem) and _NUMBER.fullmatch(parent):
        return int(parent), int(stem)
    return None
