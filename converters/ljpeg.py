"""LJPEG, the lossless JPEG of DDSM, as Stanford's PVRG coder wrote it and reads it.

The coder departs from the standard (ITU-T T.81 H.1.2.1): its predictor holds in the first row, too, as if a row of
2 ** (precision - 1) lay above it. Other decoders make wrong pixels of that, without an error. What is coded, the
differences to the predictions, is read by a common decoder; only the sums are made here.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodet.data.dicom.codec import decode_lossless_jpeg
from mammodet.data.headers import MOST_FILE_BYTES
from mammodet.data.jpeg import LOSSLESS, PREDICTORS, read_head, segments
from mammodet.errors import InputError


def read_ljpeg(path: Path) -> NDArray[np.uint16]:
    """Values of the scanner, uint16 (height, width), of the size that the stream itself states.

    Raises InputError: the file is missing, damaged, cut short or too large, or no stream of this coder.
    """
    try:
        if (size := path.stat().st_size) > MOST_FILE_BYTES:
            raise InputError(f"{path}: has {size} bytes; expected an image of at most {MOST_FILE_BYTES}")
        stream = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        head = read_head(stream)
        if head.frame != LOSSLESS or len(head.components) != 1 or not 8 <= head.precision <= 16:
            raise ValueError(f"frame type {head.frame:02X} of {head.precision} bits; expected one grey, lossless frame")
        if head.restart or min(head.size_hw) < 2:  # of which the coder makes something else again
            raise ValueError(
                f"it is {head.size_hw} pixels (height, width), its restart interval {head.restart}; expected 0"
            )
        *_, (_, _, scan) = segments(stream, 2)
        if scan[3] not in PREDICTORS or scan[5] & 15:
            raise ValueError(f"predictor {scan[3]}, point transform {scan[5] & 15}; expected 1 to 7 and 0")
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: is damaged or no LJPEG: {error}") from None
    # As a stream of 16 bits that predicts from the left, it has the same differences, and any decoder's sums say them.
    plain = bytearray(stream)
    plain[next(at for marker, at, _ in segments(stream, 2) if marker == LOSSLESS) + 4] = 16
    plain[head.scan_at + 7] = 1
    summed = decode_lossless_jpeg(path, bytes(plain)).astype(np.int32)
    middle = 1 << head.precision - 1
    differences = np.diff(summed, axis=1, prepend=0)
    differences[:, 0] = np.diff(summed[:, 0], prepend=1 << 15)
    pixels = _sum(differences, scan[3], middle)
    if (high := int(pixels.max())) >> head.precision:
        raise InputError(f"{path}: is damaged: a value of {high}, {head.precision} bits are stated")
    return pixels.astype(np.uint16)


def _sum(differences: NDArray[np.int32], predictor: int, middle: int) -> NDArray[np.int32]:
    """Pixels (height, width) of their differences to the predictions, modulo 2 ** 16."""
    height, width = differences.shape
    pixels = np.empty((height + 1, width), np.int32)
    pixels[0] = middle
    pixels[1:, 0] = middle + np.cumsum(differences[:, 0]) & 0xFFFF  # from above, whatever the predictor
    if predictor == 1:
        pixels[1:, 1:] = pixels[1:, :1] + np.cumsum(differences[:, 1:], axis=1) & 0xFFFF
        return pixels[1:]
    flat, coded, predict = pixels.reshape(-1), differences.reshape(-1), PREDICTORS[predictor]
    # Along a diagonal, from the lower left upwards, every pixel's neighbours are known.
    for diagonal in range(2, height + width):
        first, last = (
            row * (width - 1) + diagonal for row in (max(1, diagonal - width + 1), min(height, diagonal - 1))
        )
        here, left, up, corner, code = (
            slice(first - back, last - back + 1, width - 1) for back in (0, 1, width, width + 1, width)
        )
        flat[here] = predict(flat[left], flat[up], flat[corner]) + coded[code] & 0xFFFF
    return pixels[1:]
