"""The report: one HTML file that opens from disk, with everything in it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mammodet.files import write_text
from mammodet.records import Dataset, ImagePrediction, ImageRecord
from mammodet.reporting.curves import (
    LEVELS,
    froc_figure,
    pr_figure,
    read_history,
    roc_figure,
    to_svg,
    training_figure,
)
from mammodet.reporting.gallery import encode, render, shrink
from mammodet.reporting.overlay import (
    OverlayOptions,
    facts_text,
    prediction_text,
    side_by_side,
    truth_text,
)
from mammodet.reporting.ranking import Verdict, image_error, judge

__all__ = ["image_error", "write_report"]

PANEL_HEIGHT = 640
PICTURES_BYTES = 4_000_000  # of all pictures together, before base64 makes a third more of them
LEVEL_NAMES = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "n_positive": "positive", "n_negative": "negative"}
DETECTION_NAMES = {"bbox": "boxes", "segm": "masks"}


def write_report(
    path: Path,
    *,
    title: str,
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    metrics: Mapping[str, Any],
    image_reader: Callable[[ImageRecord], NDArray[np.uint8]],
    history_csv: Path | None = None,
    command: str = "",
    gallery_size: int = 24,
    score_threshold: float = 0.3,
) -> None:
    """Write the report, whole or not at all.

    A quarter of the gallery is kept for images without an error, the rest goes to the worst by
    `mammodet.reporting.ranking.judge`. Only the gallery's images are read, one at a time; one that cannot be
    read leaves a message in its place.

    Args:
        path: of the HTML file.
        title: its heading.
        dataset: images with ground truth.
        predictions: of these images; images without one are counted in a note, and not ranked.
        metrics: what `metrics.json` holds; each section may be missing, each value None.
        image_reader: gives an image as uint8 (H, W), at the size that its record says.
        history_csv: Lightning's `metrics.csv`, for the training curves.
        command: the command line that makes this report again.
        gallery_size: how many pictures; 24 keep the page below about 6 MB.
        score_threshold: from which score a detection counts as made, in the gallery.
    """
    options = OverlayOptions(
        score_threshold=score_threshold,
        crop_to_breast=True,
        panel_height=PANEL_HEIGHT,
        emphasis=1.5,
        captions=False,
        categories=dataset.categories,
    )
    by_id = {prediction.image_id: prediction for prediction in predictions}
    judged = [
        (
            record,
            by_id[record.image_id],
            judge(record, by_id[record.image_id], score_threshold=score_threshold),
        )
        for record in dataset.images
        if record.image_id in by_id
    ]
    worst, clean = choose_gallery(judged, gallery_size)
    budget = PICTURES_BYTES // max(1, len(worst) + len(clean))
    cards = [_card(*item, image_reader=image_reader, options=options, budget=budget) for item in worst + clean]
    labels = _labels(metrics)
    page = render(
        "report.html.j2",
        title=title,
        protocol=[(str(name), _cell(value)) for name, value in _section(metrics, "protocol").items()],
        notes=[*_notes(metrics), *_prediction_notes(dataset, by_id)],
        tiles=_tiles(metrics),
        detection=_table(_section(metrics, "detection"), DETECTION_NAMES, {}),
        froc=Markup(to_svg(froc_figure(_section(metrics, "froc")))),
        froc_points=_froc_points(metrics),
        froc_section=_section(metrics, "froc"),
        levels=[
            {
                "label": label,
                "roc": Markup(to_svg(roc_figure(metrics, label))),
                "pr": Markup(to_svg(pr_figure(metrics, label))),
                "table": _table({level: _section(metrics, level, label) for level in LEVELS}, {}, LEVEL_NAMES),
            }
            for label in labels
        ],
        training=_training(history_csv),
        worst=cards[: len(worst)],
        clean=cards[len(worst) :],
        n_wrong=sum(verdict.kind not in ("clean", "not judged") for _, _, verdict in judged),
        n_judged=sum(verdict.kind != "not judged" for _, _, verdict in judged),
        n_clean=sum(verdict.is_clean for _, _, verdict in judged),
        threshold=f"{score_threshold:.2f}",
        command=command,
    )
    write_text(Path(path), page)


Judged = tuple[ImageRecord, ImagePrediction, Verdict]


def choose_gallery(judged: Sequence[Judged], size: int) -> tuple[list[Judged], list[Judged]]:
    """The worst images, the largest error first; and clean ones, with lesions and without in turn.

    Args:
        judged: images with prediction and verdict.
        size: of both lists together; a quarter of it is for clean images, where there are so many.
    """
    wrong = [item for item in judged if item[2].kind not in ("clean", "not judged")]
    wrong.sort(key=lambda item: (-item[2].error, item[0].file_name))
    right = sorted((item for item in judged if item[2].is_clean), key=lambda item: item[2].error)
    turns: dict[bool, int] = {True: 0, False: 0}
    placed = []
    for item in right:
        has_lesions = bool(item[0].lesions)
        placed.append((turns[has_lesions], not has_lesions, item))
        turns[has_lesions] += 1
    placed.sort(key=lambda entry: entry[:2])
    clean = [entry[2] for entry in placed][: max(0, size) // 4]
    return wrong[: max(0, size) - len(clean)], clean


def _card(
    record: ImageRecord,
    prediction: ImagePrediction,
    verdict: Verdict,
    *,
    image_reader: Callable[[ImageRecord], NDArray[np.uint8]],
    options: OverlayOptions,
    budget: int,
) -> dict[str, Any]:
    card: dict[str, Any] = {
        "file_name": record.file_name,
        "facts": facts_text(record),
        "truth": truth_text(record),
        "prediction": prediction_text(prediction, options),
        "verdict": verdict,
        "error": f"{verdict.error:.2f}",
        "picture": None,
        "failure": "",
    }
    try:
        picture = side_by_side(image_reader(record), record, prediction, options)
    except (OSError, ValueError) as error:
        card["failure"] = str(error)
        return card
    card["height"], card["width"] = picture.shape[:2]
    card["picture"] = "data:image/jpeg;base64," + base64.b64encode(_small_jpeg(picture, budget)).decode("ascii")
    return card


def _small_jpeg(picture: NDArray[np.uint8], budget: int) -> bytes:
    """JPEG of at most about `budget` bytes: coarser first, then smaller."""
    for quality in (86, 76, 64, 50):
        content = encode(picture, quality=quality)
        if len(content) <= budget:
            return content
    while len(content) > budget and picture.shape[1] > 300:
        picture = shrink(picture, int(picture.shape[1] * 0.75))
        content = encode(picture, quality=50)
    return content


def _section(metrics: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A mapping inside the metrics; empty where it, or anything above it, is missing or None."""
    section: Any = metrics
    for name in names:
        section = section.get(name) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _cell(value: Any) -> str:
    """A value for a table: three digits for fractions, a dash for unknown, `0.41 to 0.52` for a pair."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(item, int | float) for item in value):
            return f"{_cell(value[0])} to {_cell(value[1])}"
        return ", ".join(_cell(item) for item in value)
    return str(value)


def _is_cell(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple) or (isinstance(value, list | tuple) and len(value) <= 2)


def _table(
    rows: Mapping[str, Any], row_names: Mapping[str, str], column_names: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Header and rows of all single values in a mapping of mappings; curves are left out."""
    found = {name: row for name, row in rows.items() if isinstance(row, Mapping) and row}
    columns = list(dict.fromkeys(key for row in found.values() for key, value in row.items() if _is_cell(value)))
    return {
        "head": [_column_name(str(column), column_names) for column in columns],
        "rows": [
            (row_names.get(name, name), [_cell(row.get(column)) for column in columns]) for name, row in found.items()
        ],
    }


def _column_name(key: str, names: Mapping[str, str]) -> str:
    if key.endswith("_ci95"):
        return f"{_column_name(key.removesuffix('_ci95'), names)}, 95 % CI"
    return names.get(key, key.replace("_", " "))


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    froc, tumor = _section(metrics, "froc"), _section(metrics, "image", "tumor")
    at_one = [
        point.get("sensitivity")
        for point in froc.get("points") or []
        if isinstance(point, Mapping) and point.get("fppi") == 1
    ]
    sizes = [f"{tumor[key]} {LEVEL_NAMES[key]}" for key in ("n_positive", "n_negative") if tumor.get(key) is not None]
    boxes, masks = _section(metrics, "detection", "bbox"), _section(metrics, "detection", "segm")
    rule = ", ".join(str(froc[key]) for key in ("match", "denominator") if froc.get(key))
    tiles = [
        ("box AP50", boxes.get("AP50"), f"AP50:95 {_cell(boxes.get('AP'))}"),
        ("mask AP50", masks.get("AP50"), f"AP50:95 {_cell(masks.get('AP'))}"),
        ("sensitivity at 1 FPPI", at_one[0] if at_one else None, f"CPM {_cell(froc.get('cpm'))}; {rule}"),
        ("image AUC, tumor", tumor.get("roc_auc"), ", ".join(sizes)),
    ]
    return [
        {
            "name": name,
            "value": _cell(value),
            "detail": "not measured" if value is None else detail.strip("; "),
        }
        for name, value, detail in tiles
    ]


def _froc_points(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    points = _section(metrics, "froc").get("points") or []
    return [
        (f"{point['fppi']:g}", _cell(point.get("sensitivity")))
        for point in points
        if isinstance(point, Mapping) and isinstance(point.get("fppi"), int | float)
    ]


def _labels(metrics: Mapping[str, Any]) -> list[str]:
    found = [label for level in LEVELS for label, section in _section(metrics, level).items() if section]
    return list(dict.fromkeys(str(label) for label in found))


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    notes = metrics.get("notes") or []
    return [notes] if isinstance(notes, str) else [str(note) for note in notes]


def _prediction_notes(dataset: Dataset, by_id: Mapping[int, ImagePrediction]) -> list[str]:
    known = {record.image_id for record in dataset.images}
    missing, unknown = len(known - by_id.keys()), len(by_id.keys() - known)
    notes = []
    if missing:
        notes.append(f"{missing} of {len(known)} images have no prediction; they are not in the gallery")
    if unknown:
        notes.append(f"{unknown} predictions belong to no image of the ground truth; they are not in the gallery")
    return notes


def _training(history_csv: Path | None) -> dict[str, Any]:
    """The training curves, or in `missing` why there are none."""
    if history_csv is None:
        return {"figure": None, "missing": "No training log was given."}
    try:
        rows = read_history(Path(history_csv))
    except OSError as error:
        return {
            "figure": None,
            "missing": f"The training log {history_csv} could not be read: {error.strerror}.",
        }
    if not rows:
        return {"figure": None, "missing": f"The training log {history_csv} is empty."}
    return {"figure": Markup(to_svg(training_figure(rows))), "missing": ""}
