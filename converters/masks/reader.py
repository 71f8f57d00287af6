"""What one mask file holds, at the size of its image."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.converters.mask_files import (
    LesionError,
    check_covered,
    components,
    is_lossy,
    is_uniform_scale,
    resize_mask,
    two_valued,
)
from mammodet.data.images import read_image, read_pixels, read_size_hw
from mammodet.errors import InputError
from mammodet.geometry import Mask, mask_to_rle, patch_to_rle
from mammodet.records import Rle

Instances = Literal["file", "component", "value"]
_JPEG_SPECKS = 20  # px; the edges of a JPEG leave smaller ones
_MOST_VALUES = 64


@dataclass(frozen=True, slots=True)
class HowToSplit:
    """As in `MasksOptions`."""

    instances: Instances | None
    values: Mapping[int, str]
    threshold: int | None
    least: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """What a mask holds."""

    size_hw: tuple[int, int] | None  #: of its image
    parts: tuple[tuple[str | None, Rle], ...] = ()  #: (category where its value says it, run lengths)
    regions: int = 0  #: connected ones, without specks
    specks: int = 0
    fault: str | None = None  #: why it cannot be used
    is_empty: bool = False  #: it says that there is nothing
    rescaled_from: tuple[int, int] | None = None  #: its own size


def read_mask(image: Path, path: Path, how: HowToSplit) -> Read:
    """Read a mask of an image."""
    try:
        size_hw = read_size_hw(image)
    except InputError:  # its conversion says so
        return Read(None, fault="its image cannot be read")
    try:
        pixels = read_pixels(path) if how.instances == "value" else read_image(path)
        masks = _by_value(pixels, path, how) if how.instances == "value" else {None: _set(pixels, path, how)}
        if not any(mask.any() for mask in masks.values()):
            return Read(size_hw, is_empty=True)
        found_hw = pixels.shape[0], pixels.shape[1]
        if found_hw != size_hw:
            if not is_uniform_scale(found_hw, size_hw):
                raise LesionError(
                    f"has {found_hw[0]}x{found_hw[1]} pixels, the image {size_hw[0]}x{size_hw[1]} (height x width): no "
                    "uniform scale by up to 2"
                )
            masks = {category: resize_mask(mask, size_hw) for category, mask in masks.items()}
        check_covered(np.logical_or.reduce(list(masks.values())), path)
    except (InputError, LesionError) as error:
        return Read(size_hw, fault=str(error))
    least = how.least if how.least is not None else (_JPEG_SPECKS if is_lossy(path) else 1)
    parts: list[tuple[str | None, Rle]] = []
    regions = specks = 0
    for category, mask in masks.items():
        outlines, dropped = components(mask, least)
        regions, specks = regions + len(outlines), specks + dropped
        if how.instances == "file":
            kept = np.zeros_like(mask)
            for outline in outlines:
                (x, y), (height, width) = outline.corner_xy, outline.patch.shape
                kept[y : y + height, x : x + width] |= outline.patch
            parts += [(category, mask_to_rle(kept))] if outlines else []
        elif how.instances == "value":
            parts.append((category, mask_to_rle(mask)))
        else:
            parts += [(category, patch_to_rle(outline.patch, outline.corner_xy, size_hw)) for outline in outlines]
    fault = None if parts else f"holds nothing but specks of less than {least} px"
    return Read(size_hw, tuple(parts), regions, specks, fault, rescaled_from=None if found_hw == size_hw else found_hw)


def _set(pixels: NDArray[Any], path: Path, how: HowToSplit) -> Mask:
    """The pixels that belong to a lesion."""
    if how.threshold is not None:
        return np.asarray(pixels >= how.threshold)
    mask = two_valued(pixels, lossy=is_lossy(path))
    if mask is None:
        raise LesionError(
            f"is a grey picture of {len(np.unique(pixels))} values; --threshold says from which on a pixel is set, or "
            "--instances value that each is a lesion"
        )
    return mask


def _by_value(pixels: NDArray[Any], path: Path, how: HowToSplit) -> dict[Any, Mask]:
    """The pixels of each value but 0, by the category that a value means, or by the value itself."""
    if is_lossy(path):
        raise LesionError("is a JPEG, whose values are not exact; --instances value needs PNG or TIFF")
    if pixels.ndim == 3:
        raise LesionError("is coloured; --instances value needs grey values")
    values = [int(value) for value in np.unique(pixels) if value]
    if len(values) > _MOST_VALUES:
        raise LesionError(f"has {len(values)} values: is it a grey picture? Up to {_MOST_VALUES} are lesions")
    if how.values and (unknown := [value for value in values if value not in how.values]):
        raise LesionError(f"has the values {unknown}, which no --value explains")
    return {value: np.asarray(pixels == value) for value in values}
