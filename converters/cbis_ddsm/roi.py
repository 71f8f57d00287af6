"""Which of a lesion's files is its mask, and where that mask lies on the image.

Names and tables of CBIS-DDSM cannot be relied on: crop and mask are swapped in many rows. What a file holds decides. A
mask has two values and the size of the full image, or nearly; a crop is a small grey picture.

A mask of another size is brought to the image where that is sure: by a uniform scale that its crop agrees with, or by
finding the crop on the image. Otherwise the lesion is refused with its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.converters.cbis_ddsm.archive import SourceFile
from mammodet.converters.mask_files import (
    LesionError,
    check_covered,
    is_lossy,
    is_uniform_scale,
    resize_mask,
    two_valued,
)
from mammodet.data.dicom import read_stored
from mammodet.data.images import is_dicom, read_image, read_size_hw
from mammodet.errors import InputError
from mammodet.geometry import Mask

_SURE_MATCH = 0.9  # correlation from which a crop counts as found on its image


@dataclass(frozen=True, slots=True)
class Roi:
    """A lesion's mask on its image."""

    mask: Mask  #: bool (height, width) in native pixels of the image
    mask_path: Path  #: the file that proved to be the mask
    note: str | None  #: how it was brought to the image's size, None where it had it
    by_crop: bool  #: its crop said where it lies
    crop_agrees: bool | None  #: whether the crop has the size of the mask's box, None where there is no crop


def read_pixels(path: Path) -> NDArray[Any]:
    """The pixels of a file of the archive as they are stored, (height, width)."""
    return read_stored(path) if is_dicom(path) else read_image(path)


def read_roi(files: Sequence[SourceFile], image: NDArray[Any]) -> Roi:
    """Find the mask among the files of one lesion and bring it to the image.

    Args:
        files: what lies in the lesion's case: as a rule a crop and a mask, in any order.
        image: native pixels (height, width).
    Raises:
        LesionError: there is no mask, or its place is not sure.
    """
    size_hw = (image.shape[0], image.shape[1])
    if not files:
        raise LesionError("its mask and crop are missing")
    sizes: dict[Path, tuple[int, int]] = {}
    faults: list[str] = []
    for file in files:
        try:
            sizes[file.path] = read_size_hw(file.path)
        except InputError as error:
            faults.append(str(error))
    candidates = [file for file in files if file.path in sizes and _fit(sizes[file.path], size_hw) is not None]
    candidates.sort(
        key=lambda file: (_fit(sizes[file.path], size_hw), is_lossy(file.path), file.claim != "mask", file.path)
    )
    for file in candidates:
        try:
            mask = two_valued(read_pixels(file.path), lossy=is_lossy(file.path))
        except InputError as error:
            faults.append(str(error))
            continue
        if mask is None:
            faults.append(f"{file.path.name} is a grey picture")
            continue
        check_covered(mask, file.path)
        crops = [path for path in sizes if path != file.path]
        crop_path = min(crops, key=lambda path: sizes[path]) if crops else None
        placed, note, by_crop = _to_image(mask, image, crop_path)
        agrees = _same_size(placed, sizes[crop_path]) if crop_path else None
        covered = np.count_nonzero(placed) / placed.size
        if agrees is False and crop_path and covered > 0.5:
            height, width = sizes[crop_path]
            raise LesionError(
                f"its mask {file.path.name} covers {100 * covered:.0f} % of the image, its crop has only "
                f"{height}x{width} pixels: is the mask inverted?"
            )
        return Roi(placed, file.path, note, by_crop, agrees)
    for file in files:
        if file.path in sizes and file not in candidates:
            height, width = sizes[file.path]
            faults.append(f"{file.path.name} has {height}x{width} pixels")
    raise LesionError(
        f"no mask of the image's size ({size_hw[0]}x{size_hw[1]}, height x width) among its files: {'; '.join(faults)}"
    )


def _fit(size_hw: tuple[int, int], image_hw: tuple[int, int]) -> int | None:
    """0: the image's size, 1: a uniform scale of it, 2: nearly that size, None: a crop."""
    if size_hw == image_hw:
        return 0
    if is_uniform_scale(size_hw, image_hw):
        return 1
    ratios = [side / expected for side, expected in zip(size_hw, image_hw, strict=True)]
    return 2 if all(0.8 <= ratio <= 1.25 for ratio in ratios) else None


def _to_image(mask: Mask, image: NDArray[Any], crop_path: Path | None) -> tuple[Mask, str | None, bool]:
    """The mask at the image's size, what was done to it, and whether its crop told its place."""
    size_hw, found_hw = (image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1])
    if found_hw == size_hw:
        return mask, None, False
    text = f"{found_hw[0]}x{found_hw[1]}"
    fault = f"its mask has {text} pixels, the image {size_hw[0]}x{size_hw[1]} (height x width)"
    rescaled = resize_mask(mask, size_hw) if is_uniform_scale(found_hw, size_hw) else None
    note = f"mask rescaled from {text}"
    if crop_path is None:
        if rescaled is not None:
            return rescaled, note, False
        raise LesionError(f"{fault}: no uniform scale, and there is no crop to tell its place")
    try:
        crop = read_pixels(crop_path)
    except InputError as error:
        raise LesionError(f"{fault}, and its crop cannot be read ({error})") from None
    place = locate(crop, image)
    if place is None:
        if rescaled is not None and _has_size_of(rescaled, crop, image, size_hw[0] / found_hw[0]):
            return rescaled, note, False
        raise LesionError(f"{fault}, and its crop is not found on the image")
    try:
        placed = _place_by_crop(mask, image, crop.shape, place, fault)
    except LesionError:
        if rescaled is not None and not _part_outside(rescaled, place, crop.shape):
            return rescaled, note, False  # a crop with a wide margin
        raise
    # A frame that was cut or padded can have the image's shape all the same: where the crop lies tells.
    if rescaled is not None and _apart(rescaled, place, crop.shape) <= _apart(placed, place, crop.shape) + 1:
        return rescaled, note, False
    return placed, f"mask of {text} placed by its crop", True


def _has_size_of(rescaled: Mask, crop: NDArray[Any], image: NDArray[Any], scale: float) -> bool:
    """Whether a crop that is not found as it is agrees with a rescaled mask.

    It may have the mask's own resolution; one that is found nowhere, being flat or damaged, still tells the size.
    """
    height, width = (max(round(side * scale), 1) for side in crop.shape[:2])
    place = locate(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), image)
    if place is None:
        return _same_size(rescaled, crop.shape)
    return _apart(rescaled, place, (height, width)) <= max(4, 0.1 * min(height, width))


def _part_outside(mask: Mask, place: tuple[int, int], crop_hw: Sequence[int]) -> bool:
    (x, y), (height, width) = place, crop_hw
    return bool(np.count_nonzero(mask[y : y + height, x : x + width]) < np.count_nonzero(mask))


def _apart(mask: Mask, place: tuple[int, int], crop_hw: Sequence[int]) -> float:
    """The most that a side of a mask's box lies from that of a crop found at `place` (column, row), in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    wanted = *place, place[0] + crop_hw[1], place[1] + crop_hw[0]
    return float(np.abs(np.subtract(found, wanted)).max())


def _place_by_crop(mask: Mask, image: NDArray[Any], crop_hw: Sequence[int], place: tuple[int, int], fault: str) -> Mask:
    """Put the mask's content where its crop, a piece of the image around the lesion, was found."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    patch = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # The frame was cut or padded, or the picture was stretched: the crop's size tells.
    stretched_hw = tuple(
        max(round(side * whole / found), 1)
        for side, whole, found in zip(patch.shape, image.shape, mask.shape, strict=True)
    )
    as_is, as_stretched = (_size_error(hw, crop_hw) for hw in (patch.shape, stretched_hw))
    if min(as_is, as_stretched) > 0.1:
        raise LesionError(f"{fault}, and its crop of {crop_hw[0]}x{crop_hw[1]} pixels shows another region")
    if as_stretched < as_is:
        patch = resize_mask(patch, (stretched_hw[0], stretched_hw[1]))
    x, y = place
    top = round(y + (crop_hw[0] - patch.shape[0]) / 2)
    left = round(x + (crop_hw[1] - patch.shape[1]) / 2)
    placed = np.zeros(image.shape[:2], dtype=bool)
    inside = placed[max(top, 0) : top + patch.shape[0], max(left, 0) : left + patch.shape[1]]
    inside[:] = patch[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]
    return placed


def _size_error(found_hw: Sequence[int], crop_hw: Sequence[int]) -> float:
    """How far two sizes differ, as a part of the larger; a few pixels of margin do not count."""
    return max(max(abs(a - b) - 4, 0) / max(a, b) for a, b in zip(found_hw, crop_hw, strict=True))


def _same_size(mask: Mask, crop_hw: Sequence[int]) -> bool:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return _size_error((int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)), crop_hw) <= 0.1


def locate(crop: NDArray[Any], image: NDArray[Any]) -> tuple[int, int] | None:
    """Column and row where a crop was cut from an image, by normalised correlation; None where that is not sure.

    A coarse search over the whole image, then a fine one around its best place. A crop that fits in two places, or
    that has no structure, is not sure.
    """
    (height, width), (h, w) = image.shape[:2], crop.shape[:2]
    if h > height or w > width or h < 4 or w < 4 or crop.min() == crop.max():
        return None
    factor = max(max(height, width) / 1200, 1.0)
    if min(h, w) / factor < 12:
        factor = max(min(h, w) / 12, max(height, width) / 2500, 1.0)
    small_image, small_crop = _shrink(image, factor), _shrink(crop, factor)
    if small_crop.min() == small_crop.max():
        return None
    scores = cv2.matchTemplate(small_image, small_crop, cv2.TM_CCOEFF_NORMED)
    scores[~np.isfinite(scores)] = -1
    _, best, _, (column, row) = cv2.minMaxLoc(scores)
    near_y, near_x = max(small_crop.shape[0] // 3, 2), max(small_crop.shape[1] // 3, 2)
    scores[max(row - near_y, 0) : row + near_y + 1, max(column - near_x, 0) : column + near_x + 1] = -1
    if best < 0.8 or best - float(scores.max()) < 0.02:
        return None
    margin = int(2 * factor) + 2
    left, top = max(round(column * factor) - margin, 0), max(round(row * factor) - margin, 0)
    window = image[top : round(row * factor) + h + margin, left : round(column * factor) + w + margin]
    if window.shape[0] < h or window.shape[1] < w:
        return None
    fine = cv2.matchTemplate(window.astype(np.float32), crop.astype(np.float32), cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(fine)
    return (left + column, top + row) if best >= _SURE_MATCH else None


def _shrink(pixels: NDArray[Any], factor: float) -> NDArray[np.float32]:
    height, width = (max(round(side / factor), 1) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
