"""A folder of pictures, one per image, with a page that shows them all."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from mammodet.errors import raise_faults
from mammodet.files import write_bytes, write_text
from mammodet.parallel import in_parallel
from mammodet.records import Dataset, ImagePrediction, ImageRecord
from mammodet.reporting import overlay
from mammodet.reporting.answers import judge_answer
from mammodet.reporting.canvas import Canvas
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.ranking import judge
from mammodet.reporting.tables import shown

ImageReader = Callable[[ImageRecord], NDArray[np.uint8]]

SUFFIXES = (".jpg", ".png")
THUMBNAIL_HEIGHT = 360
LONGEST_NAME_BYTES = 180
_TURNS = dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")


def write_overlays(
    dataset: Dataset,
    predictions_by_id: Mapping[int, ImagePrediction],
    image_reader: ImageReader,
    output: Path,
    *,
    side_by_side: bool = True,
    limit: int | None = None,
    suffix: str = ".jpg",
    n_jobs: int = 2,
    progress: bool = True,
    **drawing: Any,
) -> list[Path]:
    """Write one picture per image, and an `index.html` with all of them as thumbnails.

    Args:
        dataset: the images, with their ground truth; pictures come in its order.
        predictions_by_id: image id to prediction; may lack images, may be empty.
        image_reader: gives the image as uint8 (H, W), at the size that the record says.
        output: folder; made where it is missing. Thumbnails go to `output/thumbnails`.
        side_by_side: ground truth left and prediction right, else both on one image.
        limit: only the first so many images; None for all.
        suffix: `.jpg` or `.png`.
        n_jobs: threads; each holds one image in memory.
        drawing: of `OverlayOptions`; panels are 1400 px high.
    Returns:
        the pictures' paths, in the data set's order, without those that failed.
    Raises:
        InputError: some images could not be read or drawn; all others were written first.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix {suffix!r}: expected one of {', '.join(SUFFIXES)}")
    options = OverlayOptions(**{"panel_height": 1400, "categories": dataset.categories, **drawing})
    small = replace(options, captions=False, crop_to_breast=True, panel_height=THUMBNAIL_HEIGHT, emphasis=1.8)
    draw = overlay.side_by_side if side_by_side else overlay.draw_overlay
    records = dataset.images if limit is None else dataset.images[:limit]
    names = picture_names(records, suffix)
    (output / "thumbnails").mkdir(parents=True, exist_ok=True)

    def work(record: ImageRecord, name: str) -> str | None:
        try:
            pixels, prediction = image_reader(record), predictions_by_id.get(record.image_id)
            picture = draw(pixels, record, prediction, options)
            thumbnail = draw(pixels, record, prediction, small)
        except (OSError, ValueError) as error:
            return f"image {record.file_name!r} (id {record.image_id}): {error}"
        write_bytes(output / name, encode(picture, suffix))
        write_bytes(output / "thumbnails" / f"{name}.jpg", encode(thumbnail))
        return None

    tasks = list(zip(records, names, strict=True))
    faults = list(in_parallel(work, tasks, jobs=n_jobs, name="pictures", progress=progress))
    done = [(record, name) for record, name, fault in zip(records, names, faults, strict=True) if fault is None]
    entries = [_entry(record, name, predictions_by_id.get(record.image_id), options) for record, name in done]
    threshold = options.score_threshold if options.detects else None
    write_text(output / "index.html", render("index.html.j2", entries=entries, threshold=threshold))
    raise_faults(
        [fault for fault in faults if fault is not None],
        where=str(output),
        advice=f"{len(done)} of {len(records)} pictures were written.",
    )
    return [output / name for _, name in done]


def picture_names(records: tuple[ImageRecord, ...], suffix: str) -> list[str]:
    """A file name per image, flat, unique (also where case does not count), and safe on every file system."""
    taken: set[str] = set()
    names = []
    for record in records:
        stem = record.file_name.rsplit(".", 1)[0] if "." in record.file_name.rsplit("/", 1)[-1] else record.file_name
        stem = stem.replace("/", "__")
        stem = "".join(c if c.isalnum() or c in "._- " else "_" for c in stem).strip(". ") or "image"
        stem = stem.encode("utf-8", "replace")[:LONGEST_NAME_BYTES].decode("utf-8", "ignore")
        if stem.casefold() in taken or stem.casefold() == "index":
            stem = f"{stem}_{record.image_id}"
        taken.add(stem.casefold())
        names.append(stem + suffix)
    return names


def encode(picture: Canvas, suffix: str = ".jpg", *, quality: int = 88) -> bytes:
    """A picture uint8 RGB (h, w, 3) as PNG, or as JPEG with full colour resolution: thin lines stay clean."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=4)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def shrink(picture: Canvas, width: int) -> Canvas:
    """The picture at most `width` pixels wide."""
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def render(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """A page from a template of this package, every value escaped; lone surrogates become `\\udc80`.

    Characters that turn the direction of text become U+FFFD, so that a name cannot reverse the numbers after it.

    Args:
        folder: of the template, if it is none of this room.
    """
    own = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader([folder or own, own]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "backslashreplace").decode("utf-8").translate(_TURNS)


def _entry(
    record: ImageRecord, name: str, prediction: ImagePrediction | None, options: OverlayOptions
) -> dict[str, Any]:
    verdict = None
    if prediction is not None and options.detects:
        verdict = judge(record, prediction, score_threshold=options.score_threshold)
    elif prediction is not None:
        verdict = judge_answer(record, prediction)
    return {
        "href": quote(name),
        "thumbnail": "thumbnails/" + quote(f"{name}.jpg"),
        "file_name": record.file_name,
        "facts": overlay.facts_text(record),
        "truth": overlay.truth_text(record),
        "prediction": overlay.prediction_text(prediction, options),
        "verdict": verdict,
    }
