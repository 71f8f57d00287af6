"""YOLO label folders: one text file per image, as `save_txt` of YOLOv5 to YOLO11 and many others write them."""

from __future__ import annotations

import re
from pathlib import Path

from mammodet.data.checks import short
from mammodet.errors import InputError
from mammodet.imports.base import Collector, Wording
from mammodet.records import ImageRecord

WORDING = Wording("line", ("line", "class, then shares of width and height"))
_MOST = 1.5  # a share beyond it is no rounding: the numbers are pixels
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read(source: Path, collector: Collector) -> None:
    """Take every `.txt` file of a folder, searched to its depth; an image without one has no detections.

    Raises:
        InputError: it is no folder, or holds no text file.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; expected the folder 'labels' with one text file per image")
    paths = sorted(path for path in source.rglob("*.txt") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InputError(
            f"{source}: holds no .txt file; expected one per image with detections (YOLO writes them with "
            "save_txt=True save_conf=True). If the model found nothing on any image, put an empty one with an image's "
            "name there"
        )
    for path in paths:
        _read_file(path, path.relative_to(source).as_posix(), collector)


def _read_file(path: Path, name: str, collector: Collector) -> None:
    record = collector.image(name.removesuffix(".txt"), name)
    if record is None:
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        collector.fault(name, f"is not text ({error.reason} at byte {error.start})", record)
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _read_line(line, f"{name} line {number}", record, collector)


def _read_line(line: str, place: str, record: ImageRecord, collector: Collector) -> None:
    """`class xc yc w h [score]`, or `class x1 y1 x2 y2 x3 y3 ... [score]`."""
    cells = line.split()
    wrong = [cell for cell in cells if not _NUMBER.fullmatch(cell)]
    if wrong:
        collector.fault(place, f"{short(wrong[0])}; expected numbers alone, with spaces between", record)
        return
    numbers = [float(cell) for cell in cells]
    if len(numbers) < 5:
        collector.fault(
            place,
            f"{len(numbers)} numbers in {short(line)}; expected class, x centre, y centre, width, height and score, or "
            "class, at least three points and score",
            record,
        )
        return
    if numbers[0] < 0 or not numbers[0].is_integer():
        collector.fault(place, f"class is {cells[0]}; expected a whole number from 0", record)
        return
    # A box has 4 numbers, an outline an even number of at least 6; with the class, an even count means a score.
    values, confidence = (numbers[1:-1], numbers[-1]) if len(numbers) % 2 == 0 else (numbers[1:], None)
    if max(map(abs, values)) > _MOST:
        collector.fault(
            place, f"{short(line)}; expected shares of the width and height, from 0 to 1, not pixels", record
        )
        return
    category = collector.category(int(numbers[0]), None, place)
    score = collector.score(confidence, place, record)
    height, width = record.size_hw
    if len(values) == 4:
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        collector.add(record, box, score, category, place, given=line)
        return
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    outline = [number for point in zip(xs, ys, strict=True) for number in point]
    box = (min(xs), min(ys), max(xs), max(ys))
    collector.add(record, box, score, category, place, given=line, mask=[outline])
