"""A small archive of synthetic mammograms in the layouts of CBIS-DDSM, quirks included.

Full images are 16-bit, masks 8-bit of two values, crops the part of the image that the mask's box covers. Nothing in it
comes from a real patient. The archive depends on the seed and the options, not on the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.files import write_bytes, write_text
from mammodet.geometry import Mask, circle_mask
from mammodet.phantom import CbisPhantom
from mammodet.phantom.archive import draw_all, make_room
from mammodet.phantom.breast import add_centred, draw_breast, draw_shape
from mammodet.phantom.cbis_layouts import Picture, write_picture
from mammodet.phantom.cbis_plan import FilmPlan, LesionPlan, Row, plan_films, read_plan, table_texts, uid
from mammodet.phantom.film import expose_film
from mammodet.phantom.lesions import DIFFICULTIES, SUBTLE, choose_place, draw_mass
from mammodet.records import BoxXYXY

_SHAPES = ("CIRC", "SPIC", "MISC")
_OWN = ("CBIS-DDSM", "csv", "jpeg", "png", ".DS_Store", "*_case_description_*_set.csv")


@dataclass(frozen=True, slots=True)
class LesionTruth:
    """What a converter must find of one lesion: its box and its number of pixels on the full image."""

    image: str
    box_xyxy: BoxXYXY
    area_px: int
    pathology: str


@dataclass(frozen=True, slots=True)
class CbisPhantomSummary:
    """What an archive holds."""

    layout: str
    rows: dict[str, int]  #: table to its number of rows
    #: patients, images: distinct patients, and distinct patient, side and view.
    patients: int
    images: int
    quirks: dict[str, tuple[str, ...]]  #: quirk to the images that show it; every requested quirk is a key
    lesions: dict[str, LesionTruth]  #: name, as `Mass-Training_P_00001_LEFT_CC_1`, to its truth

    def to_text(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.images} images of {self.patients} patients, {len(self.lesions)} lesions ({self.layout})"]
        lines += [f"  {name}: {count} rows" for name, count in self.rows.items()]
        for name, ids in self.quirks.items():
            none = "in the folders" if name == "stray_files" else "no room in so few images"
            lines.append(f"  {name}: {' '.join(ids) or none}")
        return "\n".join(lines)


def write_cbis_archive(output: Path, *, progress: bool = True, **options: Any) -> CbisPhantomSummary:
    """Write a synthetic archive into a new or empty folder, or in place of an older one; `options` of `CbisPhantom`.

    Raises InputError: an option is out of range, or the folder holds something else.
    """
    chosen = CbisPhantom(**options)
    layout, seed, names = chosen.layout, chosen.seed, chosen.placed
    # Before anything is cleared: wrong tables must not cost an older archive, and they may lie in it.
    if chosen.tables is not None:
        films, rows, files = read_plan(chosen.tables)
        texts = {path.name: path.read_bytes() for path in files}
    else:
        films = plan_films(chosen.patients, chosen.abnormality, seed, names)
        rows = {
            f"{film.case(lesion)}_{lesion.number}": film.row(lesion, seed) for film in films for lesion in film.lesions
        }
        texts = {name: text.encode() for name, text in table_texts(films, seed).items()}
    make_room(output, _OWN, "the CBIS-DDSM collection")
    for name, content in texts.items():
        write_bytes(output / ("csv" if layout == "kaggle_jpeg" else ".") / name, content)
    tasks = []
    for film in films:
        own = [rows[f"{film.case(lesion)}_{lesion.number}"] for lesion in film.lesions]
        tasks.append((output, film, own, layout, seed, chosen.size, chosen.difficulty))
    results = draw_all(_write_film, tasks, jobs=chosen.jobs, progress=progress)
    if layout == "kaggle_jpeg":
        table = [row for _, info in results for row in info]
        lines = map(",".join, (table[0], *(row.values() for row in table)))
        write_text(output / "csv" / "dicom_info.csv", "\n".join(lines) + "\n")
    if "stray_files" in names and chosen.tables is None:
        _write_stray_files(output)
    shown = {name: tuple(film.name for film in films if name in film.quirks) for name in sorted(names)}
    parts = {name: f"{name[:4].capitalize()}-{'Training' if '_train_' in name else 'Test'}_" for name in sorted(texts)}
    return CbisPhantomSummary(
        layout=layout,
        rows={name: sum(key.startswith(part) for key in rows) for name, part in parts.items()},
        patients=len({film.patient for film in films}),
        images=len(films),
        quirks=shown if chosen.tables is None else {},
        lesions={name: truth for truths, _ in results for name, truth in truths.items()},
    )


def _write_film(
    output: Path, film: FilmPlan, rows: Sequence[Row], layout: str, seed: int, size: int, difficulty: str
) -> tuple[dict[str, LesionTruth], list[dict[str, str]]]:
    """Draw one film and write everything that shows it."""
    pixels, masks = draw_film(film, seed=seed, size=size, difficulty=difficulty)
    info: list[dict[str, str] | None] = []
    for case, row in {film.case(lesion): row for lesion, row in zip(film.lesions, rows, strict=True)}.items():
        if "missing_image" not in film.quirks:
            part = 0.6 if "truncated_image" in film.quirks else 1.0
            info.append(
                write_picture(output, layout, Picture("image", case, row["image file path"], pixels), part=part)
            )
    truths: dict[str, LesionTruth] = {}
    for lesion, row, mask in zip(film.lesions, rows, masks, strict=True):
        name = f"{film.case(lesion)}_{lesion.number}"
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
        truths[name] = LesionTruth(film.name, box, int(mask.sum()), lesion.pathology)
        crop = pixels[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        crop_path, mask_path = row["cropped image file path"], row["ROI mask file path"]
        if "swapped_columns" in lesion.quirks:
            crop_path, mask_path = mask_path, crop_path
        lone = Path(crop_path).parent != Path(mask_path).parent
        if not lesion.quirks & {"missing_crop", "mask_stretched_unclear"}:
            info.append(write_picture(output, layout, Picture("crop", name, crop_path, crop, lone)))
        if "missing_mask" not in lesion.quirks:
            picture = Picture("mask", name, mask_path, _mask_pixels(mask, pixels, lesion), lone)
            part = 0.6 if "truncated_mask" in lesion.quirks else 1.0
            info.append(write_picture(output, layout, picture, part=part))
    return truths, [row for row in info if row is not None]


def draw_film(
    film: FilmPlan, *, seed: int, size: int, difficulty: str = "realistic"
) -> tuple[NDArray[np.uint16], list[Mask]]:
    """A film, uint16 (size, width), and a bool mask of each of its lesions; a function of its arguments alone."""
    key = [seed, int(film.patient.split("_")[1]), film.side == "LEFT"]
    shape = draw_shape(np.random.default_rng([*key, 31]))
    rng = np.random.default_rng([*key, film.view == "MLO", 32])
    if film.view == "CC":
        shape = shape.from_above()
    level = DIFFICULTIES[difficulty]
    drawn = max(size, 128)  # a breast of fewer pixels has no room for its parts
    density = {1: "F", 2: "G", 3: "G"}.get(film.density, "D")
    breast = draw_breast(rng, drawn, film.side[0], density, shape, level.clutter)
    image, free = breast.image.copy(), breast.tissue & ~breast.muscle
    masks = []
    for lesion in film.lesions:
        mask = np.zeros(image.shape, np.bool_)
        contrast = rng.uniform(*(SUBTLE if rng.random() < level.subtle_fraction else level.contrast))
        for _ in range(2 if "several_components" in lesion.quirks else 1):
            kind = "CALC" if lesion.kind == "calc" else str(rng.choice(_SHAPES))
            row, column, radius = choose_place(rng, kind, free, breast.gland, max(level.smallest, 0.02))
            patch = draw_mass(rng, kind, radius, contrast)
            add_centred(image, patch.added, (row, column))
            add_centred(mask, patch.mask, (row, column))
            free &= ~circle_mask((column + 0.5, row + 0.5), 1.3 * radius, free.shape)
        masks.append(mask)
    film_pixels = expose_film(rng, breast, image, labels=drawn == size, scan_edges=False)
    columns = slice(*breast.film_columns)
    level16: NDArray[Any] = np.clip(film_pixels[:, columns] * 62000, 1, 65535)
    cut = [mask[:, columns] for mask in masks]
    if drawn != size:
        width = max(round(level16.shape[1] * size / drawn), 1)
        level16 = cv2.resize(level16, (width, size), interpolation=cv2.INTER_AREA)
        cut = [cv2.resize(mask.astype(np.uint8), (width, size), interpolation=cv2.INTER_LINEAR) > 0 for mask in cut]
    return level16.astype(np.uint16), cut


def _mask_pixels(mask: Mask, pixels: NDArray[np.uint16], lesion: LesionPlan) -> NDArray[Any]:
    """What the mask's file holds."""
    values = mask.astype(np.uint8) * np.uint8(255)
    height, width = mask.shape
    if "empty_mask" in lesion.quirks:
        return np.zeros_like(values)
    if "mask_not_binary" in lesion.quirks:
        return pixels
    if "mask_rescaled" in lesion.quirks:
        size_wh = round(1.15 * width), round(1.15 * height)
        return np.asarray(cv2.resize(values, size_wh, interpolation=cv2.INTER_NEAREST))
    if lesion.quirks & {"mask_stretched", "mask_stretched_unclear"}:
        rows, columns = max(height // 16, 4), max(width // 16, 4)
        cut = values[rows:] if not mask[:rows].any() else values[:-rows]
        return np.pad(cut, ((0, 0), (columns, 0)))
    return values


def _write_stray_files(output: Path) -> None:
    write_bytes(output / ".DS_Store", b"\0\0\0\1Bud1")
    write_bytes(output / "CBIS-DDSM" / "LICENSE", b"text\n")
    write_bytes(output / "CBIS-DDSM" / "notes.xlsx", b"PK\3\4 no workbook")
    write_bytes(output / "CBIS-DDSM" / "thumbnail.png", b"no picture")
    (output / "CBIS-DDSM" / "Mass-Training_P_09999_LEFT_CC" / uid("stray")).mkdir(parents=True, exist_ok=True)
