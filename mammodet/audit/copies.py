"""Find copies of images: the same film re-encoded, resized, windowed anew or mirrored.

Two steps. A hash of 255 bits picks candidates: the signs, against their median, of the 16x16 lowest frequencies of the
cosine transform (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). It is computed
here, by OpenCV, since the common libraries' 64 bits do not tell mammograms apart (all are a bright D on black), and
since the mirrored image's hash follows from the same small copy. Then the texture inside the breast is compared, pixel
by pixel: film edges, labels and the breast's outline, which many films share, do not count.

The texture of two different films correlates by at most 0.60 in mini-MIAS (all pairs, also mirrored), the two breasts
of one woman included, and by at most 0.64 in CBIS-DDSM's masses (all pairs of one woman, 60 000 others). That of
copies (JPEG of quality 30, 30 % of the size, gamma 0.7 and 1.4, adaptive equalisation, noise) does by at least 0.82.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammodet.geometry import Mask

HASH_BITS = 255
MOST_BITS_APART = (
    70  # of copies at most 0.27 of the bits differ, of other films less than 1 % of the pairs differ so little
)
SAME_TEXTURE = 0.75
_WORTH_SHIFTING = 0.4  # a copy that was cut by a few pixels correlates at least so much before it is aligned
_HASH_SIDE, _HASH_BAND, _TEXTURE_SIDE = 64, 16, 96
_SCALE, _OUTSIDE = 30.0, -128  # texture is kept as int8: 30 per standard deviation
_FEWEST_PIXELS = 150  # of the breast that two images must share to be compared

Texture = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Print:
    """What is kept of an image to know it again."""

    #: bits, mirrored_bits: bool (255,), of the image and of its mirror image.
    bits: NDArray[np.bool_]
    mirrored_bits: NDArray[np.bool_]
    texture: Texture  #: int8 (96, 96), local brightness inside the breast, -128 outside of it


@dataclass(frozen=True, slots=True)
class Copy:
    """Two images, by position, that show the same: `first` < `second`."""

    first: int
    second: int
    exact: bool  #: the files are equal byte for byte
    mirrored: bool  #: the second is the first one's mirror image
    correlation: float  #: of the texture inside the breast; 1 where exact


def take_print(pixels: NDArray[Any], breast: Mask) -> Print:
    """The print of an image (height, width); `breast` is its mask at any size."""
    small = cv2.resize(pixels, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Print(_bits(small), _bits(np.ascontiguousarray(small[:, ::-1])), _texture(pixels, breast))


def _bits(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    low = cv2.dct(small)[:_HASH_BAND, :_HASH_BAND].ravel()[1:]
    return np.asarray(low > np.median(low))


def _texture(pixels: NDArray[Any], breast: Mask) -> Texture:
    """Brightness less its surround's, by the local standard deviation: windows and gamma hardly change it."""
    side = (_TEXTURE_SIDE, _TEXTURE_SIDE)
    small = cv2.resize(pixels, side, interpolation=cv2.INTER_AREA).astype(np.float32)
    small *= 255 / max(float(small.max()), 1.0)
    detail = small - cv2.GaussianBlur(small, (0, 0), 2)
    spread = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4))
    # Half a grey level: below it there is nothing but the noise of rounding.
    texture = np.clip(np.round(_SCALE * detail / (spread + 0.5)), -127, 127).astype(np.int8)
    inside = cv2.resize(breast.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)
    texture[cv2.erode(inside, np.ones((5, 5), np.uint8)) == 0] = _OUTSIDE
    return texture


def find_copies(prints: Sequence[Print | None], file_hashes: Sequence[str | None]) -> list[Copy]:
    """All pairs of images that show the same.

    Args:
        prints: per image; None for one that takes no part (unreadable, empty).
        file_hashes: per image, of its file's bytes; n equal files make n - 1 pairs, each with the first.
    """
    found: list[Copy] = []
    first_of: dict[int, int] = {}
    groups: dict[str, list[int]] = defaultdict(list)
    for position, (content, kept) in enumerate(zip(file_hashes, prints, strict=True)):
        if content is not None and kept is not None:
            groups[content].append(position)
    for group in groups.values():
        found += [Copy(group[0], other, True, False, 1.0) for other in group[1:]]
        first_of.update(dict.fromkeys(group, group[0]))
    # Of equal files the first stands for all, so that a hundred copies of one file are not compared with each other.
    positions = [position for position, first in first_of.items() if position == first]
    shown = [(position, kept) for position in positions if (kept := prints[position]) is not None]
    found += _find_alike([position for position, _ in shown], [kept for _, kept in shown])
    return sorted(found, key=lambda copy: (copy.first, copy.second))


def _find_alike(positions: Sequence[int], prints: Sequence[Print]) -> Iterator[Copy]:
    if len(prints) < 2:
        return
    textures = np.stack([item.texture for item in prints])
    bits = _signs([item.bits for item in prints])
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for mirrored, others in ((False, bits), (True, _signs([item.mirrored_bits for item in prints]))):
        for pairs in _candidates(bits, others):
            values = _compare(textures, pairs, mirrored=mirrored)
            alike = values >= SAME_TEXTURE
            for (first, second), value in zip(pairs[alike].tolist(), values[alike], strict=True):
                if value > best.get((first, second), (0.0, False))[0]:
                    best[first, second] = (float(value), mirrored)
    for (first, second), (value, mirrored) in best.items():
        a, b = sorted((positions[first], positions[second]))
        yield Copy(a, b, False, mirrored, round(value, 3))


def _signs(bits: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    return np.where(np.stack(bits), np.float32(1), np.float32(-1))


def _candidates(signs: NDArray[np.float32], others: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Blocks of pairs (n, 2), first < second, whose hashes are close. The product of signs counts bits by the BLAS."""
    least = HASH_BITS - 2 * MOST_BITS_APART
    for start in range(0, len(signs), 512):
        agreement = signs[start : start + 512] @ others[start:].T
        rows, columns = np.nonzero(agreement >= least)
        pairs = np.stack([rows, columns], axis=1)[rows < columns] + start
        for piece in range(0, len(pairs), 256):
            yield pairs[piece : piece + 256]


def _compare(textures: NDArray[np.int8], pairs: NDArray[np.int64], *, mirrored: bool) -> NDArray[np.float64]:
    """Correlation (n,) of the textures of pairs (n, 2), each at its best place within a pixel of 96."""
    first = textures[pairs[:, 0]]
    second = textures[pairs[:, 1]]
    if mirrored:
        second = second[..., ::-1]
    values = _correlate(first, second)
    near = np.flatnonzero((values >= _WORTH_SHIFTING) & (values < 0.95))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if len(near) and (down, right) != (0, 0):
                shifted = np.roll(second[near], (down, right), axis=(1, 2))
                values[near] = np.maximum(values[near], _correlate(first[near], shifted))
    return values


def _correlate(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.float64]:
    """Correlation (n,) of textures (n, h, w) where both show the breast; 0 where they share less than half of it."""
    in_first, in_second = first != _OUTSIDE, second != _OUTSIDE
    both = (in_first & in_second).reshape(len(first), -1)
    count = both.sum(axis=1)
    smaller = np.minimum(in_first.sum(axis=(1, 2)), in_second.sum(axis=(1, 2)))
    x = np.where(both, first.reshape(len(first), -1), 0).astype(np.float32)
    y = np.where(both, second.reshape(len(second), -1), 0).astype(np.float32)
    pixels = np.maximum(count, 1)
    covariance = np.einsum("np,np->n", x, y) - x.sum(axis=1) * y.sum(axis=1) / pixels
    variance_x = np.einsum("np,np->n", x, x) - x.sum(axis=1) ** 2 / pixels
    variance_y = np.einsum("np,np->n", y, y) - y.sum(axis=1) ** 2 / pixels
    scale = np.sqrt(np.maximum(variance_x * variance_y, 1e-9))
    usable = (count >= _FEWEST_PIXELS) & (count >= 0.5 * smaller)
    return np.where(usable, covariance / scale, 0.0).astype(np.float64)
