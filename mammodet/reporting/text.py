"""Text as pixels: any file name, at any size, never cut off by a border."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SMALLEST_PX = 8


def _font_path(bold: bool) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


@functools.lru_cache(maxsize=64)
def _font(size_px: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_path(bold), size_px)


@functools.lru_cache(maxsize=2)
def _code_points(bold: bool) -> frozenset[int]:
    return frozenset(FT2Font(_font_path(bold)).get_charmap())


def printable(text: str, *, bold: bool = False) -> str:
    r"""The text, with control characters and those that the font lacks as escapes such as `\u4e2d`."""
    known = _code_points(bold)
    return "".join(
        c if c.isprintable() and ord(c) in known else c.encode("unicode_escape").decode("ascii") for c in text
    )


def text_width(text: str, size_px: int, *, bold: bool = False) -> int:
    """Width of one line in pixels."""
    font = _font(size_px, bold)
    return int(np.ceil(max(font.getlength(text), font.getbbox(text)[2])))


def line_height(size_px: int, *, bold: bool = False) -> int:
    """Height of one line in pixels."""
    ascent, descent = _font(size_px, bold).getmetrics()
    return ascent + descent


def text_alpha(text: str, size_px: int, *, bold: bool = False) -> NDArray[np.uint8]:
    """Coverage uint8 (line_height, text_width) of one line: 255 where the text is, 0 where it is not."""
    width, height = max(text_width(text, size_px, bold=bold), 1), line_height(size_px, bold=bold)
    bitmap = Image.new("L", (width, height), 0)
    ImageDraw.Draw(bitmap).text((0, 0), text, fill=255, font=_font(size_px, bold))
    return np.asarray(bitmap, dtype=np.uint8)


def fit_text(text: str, size_px: int, width: int, *, bold: bool = False) -> tuple[str, int]:
    """Text and font size that fit one line of a width: first smaller letters, then an ellipsis in the middle.

    Args:
        text: already `printable`.
        size_px: the size that is wanted; at most a third is taken off it.
        width: in pixels.
    Returns:
        (text, size in px); the text is empty where not even one letter fits.
    """
    size, smallest = size_px, max(SMALLEST_PX, round(size_px * 2 / 3))
    while size > smallest and text_width(text, size, bold=bold) > width:
        size -= 1
    if text_width(text, size, bold=bold) <= width:
        return text, size
    for keep in range(len(text) - 1, 0, -1):
        head = (keep + 1) // 2
        short = f"{text[:head]}…{text[len(text) - (keep - head) :]}"
        if text_width(short, size, bold=bold) <= width:
            return short, size
    return "", size


def wrap_text(text: str, size_px: int, width: int, *, bold: bool = False) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces, inside a word only where it alone is too wide."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if text_width(longer, size_px, bold=bold) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while len(line) > 1 and text_width(line, size_px, bold=bold) > width:
            cut = len(line) - 1
            while cut > 1 and text_width(line[:cut], size_px, bold=bold) > width:
                cut -= 1
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line else lines
