"""YOLO label folders: one text file per image, as `save_txt` of YOLOv5 to YOLO11 and many others write them."""

from collections.abc import Iterator
from pathlib import Path

from mammodet.data.json_values import short
from mammodet.errors import InputError
from mammodet.folders import files_below
from mammodet.imports import ImportOptions
from mammodet.imports.entry import Entry, read_number
from mammodet.records import Dataset

_MOST = 1.5  # a share beyond it is no rounding: the numbers are pixels


def read(source: Path, options: ImportOptions, dataset: Dataset) -> Iterator[Entry]:
    """The lines of every `.txt` file of a folder, searched to its depth; an image without one has no detections.

    Raises InputError: it is no folder, or holds no text file.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; expected the folder 'labels' with one text file per image")
    paths = files_below(source, ".txt")
    if not paths:
        raise InputError(
            f"{source}: holds no .txt file; expected one per image with detections (YOLO writes them with "
            "save_txt=True save_conf=True). If the model found nothing on any image, put an empty one with an image's "
            "name there"
        )
    for path in paths:
        name = path.relative_to(source).as_posix()
        image = name[: -len(".txt")]
        yield Entry(name, image, opens=True)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            yield Entry(name, image, faults=[f"is not text ({error.reason} at byte {error.start})"])
            continue
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _read_line(line, Entry(f"{name} line {number}", image, given=line, shares=True))


def _read_line(line: str, entry: Entry) -> Entry:
    """`class xc yc w h [score]`, or `class x1 y1 x2 y2 x3 y3 ... [score]`."""
    cells = line.split()
    numbers = [number for cell in cells if (number := read_number(cell)) is not None]
    # A box has 4 numbers, an outline an even number of at least 6; with the class, an even count means a score.
    values = numbers[1:]
    if len(numbers) % 2 == 0 and values:
        entry.score = values.pop()
    if len(numbers) < len(cells):
        wrong = next(cell for cell in cells if read_number(cell) is None)
        entry.faults.append(f"{short(wrong)}; expected numbers alone, with spaces between")
    elif len(numbers) < 5:
        entry.faults.append(
            f"{len(numbers)} numbers in {short(line)}; expected class, x centre, y centre, width, height and score, or "
            "class, at least three points and score"
        )
    elif numbers[0] < 0 or not numbers[0].is_integer():
        entry.faults.append(f"class is {cells[0]}; expected a whole number from 0")
    elif max(map(abs, values)) > _MOST:
        entry.faults.append(f"{short(line)}; expected shares of the width and height, from 0 to 1, not pixels")
    elif len(values) == 4:
        entry.class_id, entry.box, entry.box_kind = int(numbers[0]), values, "cxcywh"
    else:
        xs, ys = values[::2], values[1::2]
        entry.class_id, entry.box, entry.mask = int(numbers[0]), (min(xs), min(ys), max(xs), max(ys)), [values]
    return entry
