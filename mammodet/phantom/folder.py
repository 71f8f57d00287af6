"""A small archive of synthetic mammograms in folders named after classes, with augmented copies beside the images.

`Density1Benign` ... `Density4Malignant` hold `90000001.png`, and for some images copies as augmentation leaves them:
`90000001 (1).png`, turned and mirrored. Nothing in it comes from a real patient.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mammodet.data.images import write_png
from mammodet.phantom import FOLDERS, FolderPhantom
from mammodet.phantom.archive import make_room
from mammodet.phantom.breast import add_centred, draw_breast, draw_shape
from mammodet.phantom.film import finish_film
from mammodet.phantom.lesions import choose_place, draw_mass

_TISSUE = {"1": "F", "2": "G", "3": "G", "4": "D"}
FIRST_FILM = 90000001  # beyond any number of INbreast, whose films the public archive of this layout holds
_COPIES = 2  # at most, of one image


@dataclass(frozen=True, slots=True)
class FolderPhantomSummary:
    """What the archive holds."""

    images: int  #: files in all, `copies` among them
    copies: int
    classes: dict[str, int]  #: class to its files
    copied: tuple[str, ...]  #: stems of the images that have copies

    def to_text(self) -> str:
        """A few lines for the terminal."""
        counts = [f"  {name}: {count}" for name, count in self.classes.items()]
        return "\n".join([f"{self.images} images, {self.copies} of them copies of others", *counts])


def write_folder_archive(output: Path, *, progress: bool = True, **options: Any) -> FolderPhantomSummary:
    """Write a synthetic archive into a new or empty folder, or in place of an older one; `options` of `FolderPhantom`.

    Raises InputError: an option is out of range, or the folder holds something else.
    """
    chosen = FolderPhantom(**options)
    images, seed, size = chosen.images, chosen.seed, chosen.size
    make_room(output, FOLDERS, "folders of classes")
    names = [FOLDERS[number % len(FOLDERS)] for number in range(images)]
    copied: list[str] = []
    copies = number = 0
    with tqdm(total=images, desc="phantoms", unit="image", disable=None if progress else True) as bar:
        for class_name, wanted in Counter(names).items():
            left = wanted
            while left:
                stem = str(FIRST_FILM + 37 * number)
                pixels = _draw(class_name, number, seed, size)
                made = min(number % (3 * _COPIES) // 3 + 1 if number % 3 == 0 else 0, left - 1)
                for copy in range(made + 1):
                    file_name = f"{stem} ({copy}).png" if copy else f"{stem}.png"
                    write_png(output / class_name / file_name, _turned(pixels, copy))
                copied += [stem] if made else []
                copies += made
                left -= made + 1
                number += 1
                bar.update(made + 1)
    return FolderPhantomSummary(images, copies, dict(Counter(names)), tuple(copied))


def _draw(class_name: str, number: int, seed: int, size: int) -> NDArray[np.uint8]:
    """An image of a class, uint8 (size, size): a smooth mass where benign, a spiculated one where malignant."""
    rng = np.random.default_rng([seed, number, 71])
    density, severity = class_name[len("Density")], class_name[len("Density1") :]
    shape = draw_shape(rng)
    breast = draw_breast(rng, size, "L" if rng.random() < 0.5 else "R", _TISSUE[density], shape, clutter=0.4)
    image = breast.image.copy()
    if density == "3":  # between G and D: more of G's parenchyma
        image += 0.12 * breast.gland
    kind = "CIRC" if severity == "Benign" else "SPIC"
    row, column, radius = choose_place(rng, kind, breast.tissue & ~breast.muscle, breast.gland, 0.06)
    add_centred(image, draw_mass(rng, kind, radius, float(rng.uniform(0.28, 0.45))).added, (row, column))
    return finish_film(rng, breast, image, labels=False, scan_edges=False)


def _turned(pixels: NDArray[np.uint8], copy: int) -> NDArray[np.uint8]:
    """The image itself (0), mirrored (1), or turned by 90 degrees (2)."""
    if copy == 0:
        return pixels
    return np.asarray(cv2.flip(pixels, 1) if copy == 1 else cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE), np.uint8)
