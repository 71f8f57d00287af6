"""Boxes, circles and masks in the pixel frame of `mammodet.records`."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from mammodet.records import BoxXYXY, Lesion, Rle

Boxes = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: What a box alone can stand for as a mask: its filled rectangle, or the ellipse inside it.
BoxShape = Literal["box", "ellipse"]
_AGREE_PX = 3.0  # how far the sides of a box may lie from those of its outline's box, whatever its size
_LEAST_IOU = 0.7  # of a box and its outline's box; less, where the box is drawn around the outline with a margin
_LEAST_IOU_AROUND = 0.4


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Float (n, 4) from anything box-like; an empty list becomes (0, 4)."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (n, 4), got {array.shape}")
    return array


def xywh_to_xyxy(boxes: ArrayLike) -> Boxes:
    """COCO's (x, y, width, height) to (x1, y1, x2, y2), both (n, 4)."""
    array = as_boxes(boxes)
    return np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: ArrayLike) -> Boxes:
    """(x1, y1, x2, y2) to COCO's (x, y, width, height), both (n, 4)."""
    array = as_boxes(boxes)
    return np.concatenate([array[:, :2], array[:, 2:] - array[:, :2]], axis=1)


def box_area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Areas (n,) of boxes_xyxy (n, 4) in square pixels; an inside-out box has area 0."""
    sides = as_boxes(boxes)[:, 2:] - as_boxes(boxes)[:, :2]
    return np.prod(np.clip(sides, 0, None), axis=1)


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union (n, m) of boxes_xyxy (n, 4) and (m, 4)."""
    a, b = as_boxes(first), as_boxes(second)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = np.prod(np.clip(sides, 0, None), axis=2)
    union = box_area(a)[:, None] + box_area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def clip_boxes(boxes: ArrayLike, size_hw: tuple[int, int]) -> Boxes:
    """boxes_xyxy (n, 4) cut to an image of size (height, width)."""
    height, width = size_hw
    return np.clip(as_boxes(boxes), 0, [width, height, width, height])


def circle_mask(centre_xy: tuple[float, float], radius: float, size_hw: tuple[int, int]) -> Mask:
    """The pixels whose centres lie in a circle.

    Args:
        centre_xy: in the pixel frame, so that the middle of the top-left pixel is (0.5, 0.5).
        radius: in pixels.
        size_hw: (height, width) of the mask; what lies outside is cut off.
    Returns:
        bool (height, width).
    """
    height, width = size_hw
    rows, columns = np.ogrid[0.5:height:1.0, 0.5:width:1.0]
    inside: Mask = (columns - centre_xy[0]) ** 2 + (rows - centre_xy[1]) ** 2 <= radius**2
    return inside


def box_pixels(box_xyxy: BoxXYXY, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels (left, top, right, bottom) whose centres a box holds, at least one; right and bottom are exclusive.

    Args:
        size_hw: (height, width) of the image; what lies outside is cut off.
    """
    ((x1, y1, x2, y2),) = clip_boxes([box_xyxy], size_hw).tolist()
    (left, right), (top, bottom) = _pixel_range(x1, x2, size_hw[1]), _pixel_range(y1, y2, size_hw[0])
    return left, top, right, bottom


def _pixel_range(low: float, high: float, side: int) -> tuple[int, int]:
    first, end = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first >= end:  # narrower than a pixel, between two centres
        first = min(int((low + high) / 2), side - 1)
        end = first + 1
    return first, end


def box_rle(box_xyxy: BoxXYXY, size_hw: tuple[int, int], shape: BoxShape = "box") -> Rle:
    """The mask of a lesion that has only a box: the pixels, at least one, centred in the `box` or its `ellipse`."""
    left, top, right, bottom = box_pixels(box_xyxy, size_hw)
    patch = np.ones((bottom - top, right - left), dtype=bool)
    if shape == "ellipse":
        x1, y1, x2, y2 = box_xyxy
        rows, columns = np.ogrid[top + 0.5 : bottom : 1.0, left + 0.5 : right : 1.0]
        across, down = (2 * columns - x1 - x2) / (x2 - x1), (2 * rows - y1 - y2) / (y2 - y1)
        patch = across**2 + down**2 <= 1
        if not patch.any():  # of a pixel or two, all of whose centres lie near the corners
            patch[len(patch) // 2, patch.shape[1] // 2] = True
    return patch_to_rle(patch, (left, top), size_hw)


def lesion_rle(lesion: Lesion, size_hw: tuple[int, int], shape: BoxShape = "box") -> Rle:
    """The mask of a lesion: its own, or that of its box, by `shape` as in `box_rle`, where only a box is known."""
    if lesion.rle is not None and lesion.has_outline:
        return lesion.rle
    return box_rle(lesion.box_xyxy, size_hw, shape)


def mask_to_rle(mask: NDArray[np.generic]) -> Rle:
    """Compressed run lengths of a binary mask (height, width)."""
    if mask.ndim != 2:
        raise ValueError(f"mask: expected shape (height, width), got {mask.shape}")
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Rle(size=[int(side) for side in rle["size"]], counts=rle["counts"].decode("ascii"))


def rle_to_mask(rle: Rle) -> Mask:
    """Binary mask bool (height, width) of run lengths."""
    return np.asarray(coco_mask.decode(rle), dtype=bool)


def patch_to_rle(patch: NDArray[np.generic], corner_xy: tuple[int, int], size_hw: tuple[int, int]) -> Rle:
    """Run lengths of a mask that is empty but for a patch, without making the whole mask.

    Args:
        patch: binary (h, w), lying wholly inside the image.
        corner_xy: column and row of the patch's top-left pixel.
        size_hw: (height, width) of the whole mask.
    """
    (height, width), (x, y), (h, w) = size_hw, corner_xy, patch.shape
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise ValueError(f"patch {h}x{w} at ({x}, {y}) leaves the image {height}x{width}")
    strip = np.zeros((height, w), dtype=bool)
    strip[y : y + h] = patch
    pixels = strip.ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [pixels.size]]))
    before, after = x * height, (width - x - w) * height
    if pixels.size and pixels[0]:
        counts = np.concatenate([[before], counts])
    else:
        counts[0] += before
    if pixels.size and pixels[-1]:
        counts = np.concatenate([counts, [after]]) if after else counts
    else:
        counts[-1] += after
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return Rle(size=[height, width], counts=rle["counts"].decode("ascii"))


def rle_area(rle: Rle) -> int:
    """Number of pixels in a mask."""
    return int(coco_mask.area(rle))


def fits_outline(box_xyxy: BoxXYXY, rle: Rle) -> bool:
    """Whether a box can be that of an outline, drawn with a margin perhaps."""
    drawn = rle_box(rle)
    apart = [inner - outer for inner, outer in zip(drawn, box_xyxy, strict=True)]
    if max(map(abs, apart)) <= _AGREE_PX:
        return True
    around = min(*apart[:2], -apart[2], -apart[3]) >= -_AGREE_PX
    iou = float(box_iou([box_xyxy], [drawn])[0, 0])
    return iou >= (_LEAST_IOU_AROUND if around else _LEAST_IOU)


def rle_box(rle: Rle) -> BoxXYXY:
    """Tight box_xyxy of a mask; all zeros where it is empty."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, x + width, y + height


def surround_contrast(pixels: NDArray[Any], centre_xy: tuple[float, float], radius: float) -> float:
    """Mean of a disc less that of the ring around it, to twice its radius, in grey levels of pixels (height, width).

    Masses are brighter than what surrounds them, which tells whether coordinates are right. 0 where the disc or its
    ring lies wholly outside the image.
    """
    height, width = pixels.shape
    x, y = centre_xy
    left, right = max(int(x - 2 * radius), 0), min(int(x + 2 * radius) + 2, width)
    top, bottom = max(int(y - 2 * radius), 0), min(int(y + 2 * radius) + 2, height)
    if right <= left or bottom <= top:
        return 0.0
    patch = pixels[top:bottom, left:right]
    disc = circle_mask((x - left, y - top), radius, patch.shape)
    ring = circle_mask((x - left, y - top), 2 * radius, patch.shape) & ~disc
    if not disc.any() or not ring.any():
        return 0.0
    return float(patch[disc].mean() - patch[ring].mean())
