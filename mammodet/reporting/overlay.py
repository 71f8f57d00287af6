"""Pictures of one image with its ground truth and its prediction drawn on it.

All functions are pure: arrays and records in, an RGB array out. Blue is the ground truth, orange the
prediction (Okabe & Ito's palette, distinct for every common kind of colour vision), dashed grey what is not
counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammodet.records import BoxXYXY, Detections, ImagePrediction, ImageRecord, Lesion, Rle
from mammodet.reporting.answers import answers_text
from mammodet.reporting.canvas import (
    Canvas,
    Colour,
    Line,
    View,
    banner,
    draw_box,
    draw_label,
    draw_outline,
    paint,
    paper,
    titled,
)
from mammodet.reporting.text import line_height, text_alpha, text_width

TRUTH: Colour = (86, 180, 233)
PREDICTION: Colour = (240, 170, 20)
IGNORED: Colour = (225, 225, 225)
TITLE: Colour = (245, 245, 245)
FAINT: Colour = (175, 175, 180)
FILL_ALPHA = 0.22
LONGEST_LABEL = 60


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    """How pictures are drawn."""

    score_threshold: float = 0.3  #: detections below it are not drawn
    max_detections: int = 10  #: at most so many are drawn, the strongest first
    #: show the breast, with a margin and with everything that is drawn, instead of the whole image.
    crop_to_breast: bool = False
    panel_height: int | None = None  #: of one image in the picture, in pixels; None for the image's own resolution
    emphasis: float = 1.0  #: times the usual size of letters and width of lines, for pictures that are shown small
    captions: bool = True  #: banner, titles and legend; without them there are the bare images
    #: names, to write beside scores where there are several; `category_ids` are positions + 1.
    categories: Sequence[str] = ()
    detects: bool = True  #: False for a classifier, which gives answers and no detections


DEFAULT = OverlayOptions()


def font_size(size_hw: tuple[int, int], emphasis: float = 1.0) -> int:
    """Letters' size in pixels on a canvas: about 14 px where the canvas is shown 700 px high, at least 11."""
    return max(11, round(0.02 * max(size_hw) * emphasis))


def line_width(size_hw: tuple[int, int], emphasis: float = 1.0) -> int:
    """Lines' width in pixels on a canvas: about one and a half where it is shown 700 px high, at least 1."""
    return max(1, round(max(size_hw) * emphasis / 500))


def shown_detections(detections: Detections, options: OverlayOptions = DEFAULT) -> NDArray[np.int64]:
    """Positions of the detections that are drawn, the strongest first."""
    order = np.argsort(-detections.scores, kind="stable")
    return order[detections.scores[order] >= options.score_threshold][: options.max_detections]


def draw_truth(
    pixels: NDArray[np.uint8], record: ImageRecord, options: OverlayOptions = DEFAULT, *, view: View | None = None
) -> Canvas:
    """The image with the outline of every lesion, its abnormality and its pathology.

    Args:
        pixels: uint8 (H, W) or RGB (H, W, 3), at the file's own size.
        record: its lesions; a `contour` or `circle` shows the rim of its mask, a `box` a rectangle.
        view: what is shown; None for all of it at its own resolution.
    Returns:
        uint8 RGB (h, w, 3): (H, W, 3) without a view. Only lines and labels differ from the input.
    """
    view = view or View.around(_size_of(pixels, record))
    canvas = view.render(pixels)
    _add_truth(canvas, record, view, options, [])
    return canvas


def draw_predictions(
    pixels: NDArray[np.uint8], prediction: ImagePrediction, options: OverlayOptions = DEFAULT, *, view: View
) -> Canvas:
    """As `draw_truth`, with the detections at or above the threshold: mask, outline, box and score."""
    canvas = view.render(pixels)
    _add_predictions(canvas, prediction, view, options, [])
    return canvas


def draw_overlay(
    pixels: NDArray[np.uint8],
    record: ImageRecord | None,
    prediction: ImagePrediction | None,
    options: OverlayOptions = DEFAULT,
) -> Canvas:
    """Ground truth and prediction on one image, below a banner that says what is known of it, above a legend.

    Args:
        pixels: uint8 (H, W), at the file's own size; record and prediction may each be None.
    Returns:
        uint8 RGB (h + captions, w, 3).
    """
    view = _choose_view(pixels, record, prediction, options)
    canvas = view.render(pixels)
    occupied: list[BoxXYXY] = []
    if prediction is not None:
        _add_predictions(canvas, prediction, view, options, occupied)
    if record is not None:
        _add_truth(canvas, record, view, options, occupied)
    if not options.captions:
        return canvas
    size = font_size(view.size_hw, options.emphasis)
    lines = [
        *identity_lines(record, prediction),
        Line(truth_text(record), TRUTH),
        Line(prediction_text(prediction, options), PREDICTION),
    ]
    width = canvas.shape[1]
    return np.concatenate([banner(lines, width, size), canvas, _legend(record, prediction, options, width, size)])


def side_by_side(
    pixels: NDArray[np.uint8],
    record: ImageRecord | None,
    prediction: ImagePrediction | None,
    options: OverlayOptions = DEFAULT,
) -> Canvas:
    """The image twice: the ground truth on the left, the prediction on the right, with titles and a legend.

    Args:
        pixels: uint8 (H, W), at the file's own size; record and prediction may each be None.
    Returns:
        uint8 RGB (h + captions, 2 w + gap, 3).
    """
    view = _choose_view(pixels, record, prediction, options)
    left, right = view.render(pixels), view.render(pixels)
    if record is not None:
        _add_truth(left, record, view, options, [])
    if prediction is not None:
        _add_predictions(right, prediction, view, options, [])
    size = font_size(view.size_hw, options.emphasis)
    gap = max(2, size // 3)
    if not options.captions:
        return titled([((), left), ((), right)], size, gap)
    truth, predicted = Line(truth_text(record), TRUTH), Line(prediction_text(prediction, options), PREDICTION)
    panels = titled([([truth], left), ([predicted], right)], size, gap)
    width = panels.shape[1]
    return np.concatenate(
        [
            banner(identity_lines(record, prediction), width, size),
            panels,
            _legend(record, prediction, options, width, size),
        ]
    )


def facts_text(record: ImageRecord | None, prediction: ImagePrediction | None = None) -> str:
    """Patient, side and view, density: `patient P_01 · L MLO · density D`."""
    source = record if record is not None else prediction
    if source is None:
        return ""
    parts = [f"patient {source.patient_id}"] if source.patient_id else []
    place = " ".join(part for part in (source.laterality, source.view) if part)
    parts += [place] if place else []
    if record is not None:
        parts += [f"density {record.density}"] if record.density else []
        parts += [f"BI-RADS {record.birads}"] if record.birads else []
    return " · ".join(parts)


def truth_text(record: ImageRecord | None) -> str:
    """`ground truth: tumor 1 · malignant 0 · unlocalized`; labels that are not known are left out."""
    if record is None:
        return "ground truth: not known"
    return f"ground truth: {truth_words(record) or 'not known'}"


def truth_words(record: ImageRecord) -> str:
    """`tumor 1 · malignant 0 · unlocalized`; nothing of an image without a ground truth."""
    if not record.has_truth:
        return ""
    parts = [f"{name} {value}" for name, value in record.labels.items() if value is not None]
    if record.unlocalized:
        parts.append("unlocalized")
    if not record.lesions:
        parts.append("no lesion drawn" if record.label("tumor") or record.unlocalized else "no lesion")
    return " · ".join(parts or ["no labels"])


def prediction_text(prediction: ImagePrediction | None, options: OverlayOptions = DEFAULT) -> str:
    """`prediction: tumor 0.87 · malignant 0.12`, and how many detections are drawn or not."""
    if prediction is None:
        return "not predicted"
    if not options.detects:
        return answers_text(prediction)
    parts = [f"{name} {value:.2f}" for name, value in prediction.scores.items()]
    shown = len(shown_detections(prediction.detections, options))
    above = int(np.count_nonzero(prediction.detections.scores >= options.score_threshold))
    if not above:
        parts.append(f"no detection ≥ {options.score_threshold:.2f}")
    elif above > shown:
        parts.append(f"the strongest {shown} of {above} detections")
    return "prediction: " + " · ".join(parts)


def lesion_text(lesion: Lesion) -> str:
    """Abnormality and pathology, or the category where neither is known."""
    values = [lesion.attributes.get(name) for name in ("abnormality", "pathology")]
    text = ", ".join(str(value) for value in values if value not in (None, "")) or lesion.category
    if lesion.ignore:
        text += " (not counted)"
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _size_of(pixels: NDArray[np.uint8], *items: ImageRecord | ImagePrediction | None) -> tuple[int, int]:
    """(height, width) of the pixels, which every item must agree with."""
    size = (int(pixels.shape[0]), int(pixels.shape[1]))
    for item in items:
        if item is not None and tuple(item.size_hw) != size:
            kind = "prediction" if isinstance(item, ImagePrediction) else "record"
            raise ValueError(
                f"image {item.file_name!r}: the file has {size[0]}x{size[1]} pixels (height x width), "
                f"the {kind} says {item.size_hw[0]}x{item.size_hw[1]}; boxes would land in the wrong place"
            )
    return size


def _choose_view(
    pixels: NDArray[np.uint8], record: ImageRecord | None, prediction: ImagePrediction | None, options: OverlayOptions
) -> View:
    size = _size_of(pixels, record, prediction)
    if not options.crop_to_breast or record is None or record.breast_box_xyxy is None:
        return View.around(size, height=options.panel_height)
    boxes = [record.breast_box_xyxy, *(lesion.box_xyxy for lesion in record.lesions)]
    if prediction is not None:
        detections = prediction.detections
        boxes += [tuple(detections.boxes_xyxy[index]) for index in shown_detections(detections, options)]
    return View.around(size, np.array(boxes, dtype=np.float64), height=options.panel_height)


def _mask_of(
    rle: Rle | None, view: View, size_hw: tuple[int, int], name: str
) -> tuple[NDArray[np.bool_], tuple[int, int]] | None:
    if rle is None:
        return None
    if tuple(rle["size"]) != tuple(size_hw):
        raise ValueError(f"image {name!r}: a mask of size {rle['size']}, expected {list(size_hw)} (height, width)")
    return view.mask(rle)


def _add_truth(
    canvas: Canvas, record: ImageRecord, view: View, options: OverlayOptions, occupied: list[BoxXYXY]
) -> None:
    thickness = line_width(view.size_hw, options.emphasis)
    size = font_size(view.size_hw, options.emphasis)
    boxes = [view.box(lesion.box_xyxy) for lesion in record.lesions]
    for lesion, box in zip(record.lesions, boxes, strict=True):
        colour = IGNORED if lesion.ignore else TRUTH
        rle = None if lesion.geometry == "box" else lesion.rle
        shape = _mask_of(rle, view, record.size_hw, record.file_name)
        if shape is None:
            draw_box(canvas, box, colour, thickness, dashed=lesion.ignore)
        else:
            draw_outline(canvas, *shape, colour, thickness, dashed=lesion.ignore)
    occupied.extend(boxes)
    for lesion, box in zip(record.lesions, boxes, strict=True):
        colour = IGNORED if lesion.ignore else TRUTH
        draw_label(canvas, lesion_text(lesion), box, colour, size, occupied, gap=thickness + 1)


def _add_predictions(
    canvas: Canvas, prediction: ImagePrediction, view: View, options: OverlayOptions, occupied: list[BoxXYXY]
) -> None:
    thickness = line_width(view.size_hw, options.emphasis)
    size = font_size(view.size_hw, options.emphasis)
    detections = prediction.detections
    shown = [int(index) for index in shown_detections(detections, options)]
    boxes = {index: view.box(tuple(detections.boxes_xyxy[index])) for index in shown}
    masks = {
        index: _mask_of(detections.rles[index], view, prediction.size_hw, prediction.file_name)
        for index in shown
        if detections.rles is not None
    }
    for shape in masks.values():
        if shape is not None:
            paint(canvas, *shape, PREDICTION, FILL_ALPHA)
    for index in reversed(shown):
        shape = masks.get(index)
        if shape is not None:
            draw_outline(canvas, *shape, PREDICTION, thickness)
        draw_box(canvas, boxes[index], PREDICTION, max(1, thickness // 2) if shape is not None else thickness)
    occupied.extend(boxes.values())
    for index in shown:
        text = f"{detections.scores[index]:.2f}"
        if len(options.categories) > 1:
            category = int(detections.category_ids[index])
            known = 1 <= category <= len(options.categories)
            text = f"{options.categories[category - 1] if known else f'category {category}'} {text}"
        draw_label(canvas, text, boxes[index], PREDICTION, size, occupied, gap=thickness + 1)


def identity_lines(record: ImageRecord | None, prediction: ImagePrediction | None = None) -> list[Line]:
    """The image's name, and below it what `facts_text` says."""
    source = record if record is not None else prediction
    if source is None:
        return []
    facts = facts_text(record, prediction)
    return [Line(source.file_name, TITLE, bold=True), *([Line(facts, FAINT)] if facts else [])]


def _legend(
    record: ImageRecord | None, prediction: ImagePrediction | None, options: OverlayOptions, width: int, size: int
) -> Canvas:
    lesions = record.lesions if record is not None else ()
    names = {"contour": "lesion outline", "circle": "circle around a lesion", "box": "box around a lesion"}
    kinds = {lesion.geometry for lesion in lesions if not lesion.ignore}
    items = [(names[kind], TRUTH) for kind in names if kind in kinds]
    if not lesions and record is not None and record.has_truth:
        items.append(("lesion", TRUTH))
    if any(lesion.ignore for lesion in lesions):
        items.append(("not counted", IGNORED))
    if options.detects and prediction is not None:
        items.append((f"detection with score ≥ {options.score_threshold:.2f}", PREDICTION))
    pad, swatch, step = max(3, size // 2), size, line_height(size) + size // 3
    places: list[tuple[int, int]] = []
    x = y = pad
    for text, _ in items:
        wide = swatch + pad + text_width(text, size)
        if x > pad and x + wide > width - pad:
            x, y = pad, y + step
        places.append((x, y))
        x += wide + 2 * pad
    strip = paper(y + step + pad // 2, width)
    thickness = max(1, size // 8)
    for (text, colour), (x, y) in zip(items, places, strict=True):
        top = y + (line_height(size) - swatch) // 2
        if colour == PREDICTION:
            paint(strip, np.ones((swatch, swatch), dtype=bool), (x, top), colour, 2 * FILL_ALPHA)
        box = (float(x), float(top), float(x + swatch), float(top + swatch))
        draw_box(strip, box, colour, thickness, dashed=colour == IGNORED)
        paint(strip, text_alpha(text, size), (x + swatch + pad, y), FAINT)
    return strip
