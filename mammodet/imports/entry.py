"""What the reader of each format makes of its source: entries, one after the other."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mammodet.files import check_is_file, read_json
from mammodet.imports import ImportOptions
from mammodet.records import Dataset

Place = int | str  # number of an entry or a line, or the whole text of it
FAULTY: Any = object()  # in place of a value whose fault is among the entry's faults
NO_PIXEL: Any = object()  # a mask that shows nothing
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(slots=True)
class Entry:
    """One detection as its source has it; without box and mask, what it says of an image on which nothing was found."""

    place: Place
    image: Any  #: what names the image; FAULTY where nothing can
    #: what a whole number as `image` is: the `id` in the ground truth, or the `stem` of a file name.
    number_is: Literal["id", "stem"] = "id"
    file_name: str | None = None  #: a name that must mean the same image
    box: Sequence[float] | Any = None  #: four finite numbers
    box_kind: str = "xyxy"  #: key of `BOX_KINDS`
    given: Any = None  #: the box as in the source, for messages
    mask: Any = None  #: run lengths or polygons as in COCO, None, or NO_PIXEL
    shares: bool = False  #: box and polygons are in shares of the width and height, not in pixels
    #: of the image in which the box was predicted; None for that of the ground truth.
    size_wh: tuple[float, float] | None = None
    #: class_id, class_name: one or both; `class_id` is FAULTY where neither is one.
    class_id: int | Any = None
    class_name: str | None = None
    score: Any = None
    score_name: str = "score"  #: of the score, for messages
    #: label to name and value of a score of the whole image.
    image_scores: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  #: what is wrong with it
    opens: bool = False  #: it stands before all others of its image: where that is unknown, they are passed over


@dataclass(frozen=True, slots=True)
class Format:
    """A form of results."""

    read: Callable[[Path, ImportOptions, Dataset], Iterator[Entry]]  #: gives the entries of a source, of whatever form
    unit: str  #: what is counted in messages: entry, line
    #: box, frame: name of a box there, and of what its numbers are.
    box: str
    frame: str
    #: what to do about boxes that are shares of the image's sides instead of pixels.
    normalized_hint: str = "write them in pixels"
    by_id: bool = False  #: whether class ids are those of the ground truth where `category_map` is empty


def read_results(path: Path) -> Any:
    """The JSON value of a results file; NaN and infinity stay in, so that each is reported with its entry.

    Raises InputError: the file is missing, is no UTF-8, or is cut short.
    """
    check_is_file(path, "a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return read_json(path)  # which says in words what is wrong


def read_number(text: str) -> float | None:
    """A finite number; None for anything else, NaN and `1_000` too, which Python would take."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if abs(number) < 1e300 else None
