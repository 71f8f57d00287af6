"""Predictions for other tools: COCO results, and pre-annotations for CVAT and Label Studio (docs/export_data.md)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from mammodet.data.predictions import Predictions, prediction_to_json
from mammodet.export.layouts import number_text, xml_text
from mammodet.files import write_json, write_text
from mammodet.geometry import rle_area
from mammodet.outlines import one_outline
from mammodet.records import BoxXYXY, ImagePrediction

#: Where Label Studio finds files of its local storage.
URL_PREFIX = "/data/local-files/?d="


def coco_results(images: Iterable[ImagePrediction]) -> list[dict[str, Any]]:
    """Detections as pycocotools' `loadRes` and `mammodet import coco` read them."""
    return [
        {"image_id": image.image_id, **item} for image in images for item in prediction_to_json(image)["detections"]
    ]


def _shapes(
    image: ImagePrediction, tolerance_px: float | None
) -> Iterator[tuple[int, BoxXYXY, list[float] | None, int]]:
    """Position, box, outline (None: the box says all) and category number of each detection."""
    found = image.detections
    for at, box in enumerate(found.boxes_xyxy.tolist()):
        rle = found.rles[at] if found.rles is not None and tolerance_px is not None else None
        outline = one_outline(rle, tolerance_px or 0.0) if rle is not None and rle_area(rle) else None
        yield at, tuple(box), outline, int(found.category_ids[at])


def _write_results(path: Path, predictions: Predictions, tolerance_px: float | None, url_prefix: str) -> list[Path]:
    items = coco_results(predictions.images)
    if tolerance_px is None:
        items = [{key: value for key, value in item.items() if key != "segmentation"} for item in items]
    write_json(path, items)
    return [path]


def _write_cvat(path: Path, predictions: Predictions, tolerance_px: float | None, url_prefix: str) -> list[Path]:
    """CVAT for images 1.1: images by name, numbered in the order in which CVAT lists them."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")  # without which Datumaro reads nothing
    for name in predictions.categories:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        score = SubElement(SubElement(label, "attributes"), "attribute")
        for key, text in (("name", "score"), ("mutable", "False"), ("input_type", "text")):
            SubElement(score, key).text = text
    for number, image in enumerate(sorted(predictions.images, key=lambda image: image.file_name)):
        height, width = image.size_hw
        item = SubElement(root, "image", id=str(number), name=image.file_name, width=str(width), height=str(height))
        for at, box, outline, category in _shapes(image, tolerance_px):
            how = {"label": predictions.categories[category - 1], "source": "auto", "occluded": "0", "z_order": "0"}
            if outline is None:
                corners = zip(("xtl", "ytl", "xbr", "ybr"), map(number_text, box), strict=True)
                shape = SubElement(item, "box", how | dict(corners))
            else:
                points = zip(map(number_text, outline[::2]), map(number_text, outline[1::2]), strict=True)
                shape = SubElement(item, "polygon", how | {"points": ";".join(map(",".join, points))})
            SubElement(shape, "attribute", name="score").text = f"{image.detections.scores[at]:.4f}"
    write_text(path, xml_text(root))
    return [path]


def _write_label_studio(
    path: Path, predictions: Predictions, tolerance_px: float | None, url_prefix: str
) -> list[Path]:
    """Tasks with predictions, and the labelling interface whose names they use."""
    tasks = []
    for image in predictions.images:
        height, width = image.size_hw
        results = []
        for at, (x1, y1, x2, y2), outline, category in _shapes(image, tolerance_px):
            value: dict[str, Any]
            if outline is None:
                value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
                value = {key: 100 * side / (width if key in ("x", "width") else height) for key, side in value.items()}
                kind, value = "rectanglelabels", value | {"rotation": 0}
            else:
                corners = zip(outline[::2], outline[1::2], strict=True)
                kind = "polygonlabels"
                value = {"points": [[100 * x / width, 100 * y / height] for x, y in corners], "closed": True}
            results.append(
                {
                    "id": f"{image.image_id}-{at}",
                    "type": kind,
                    "from_name": kind,
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": float(image.detections.scores[at]),
                    "value": value | {kind: [predictions.categories[category - 1]]},
                }
            )
        prediction = {"model_version": "mammodet", "result": results}
        tasks.append({"data": {"image": url_prefix + image.file_name}, "predictions": [prediction]})
    write_json(path, tasks)
    interface = path.with_suffix(".interface.xml")
    write_text(interface, xml_text(_interface(predictions.categories)))
    return [path, interface]


def _interface(categories: Sequence[str]) -> Element:
    root = Element("View")
    SubElement(root, "Image", name="image", value="$image", zoom="true", brightnessControl="true")
    for kind in ("RectangleLabels", "PolygonLabels"):
        labels = SubElement(root, kind, name=kind.lower(), toName="image")
        for category in categories:
            SubElement(labels, "Label", value=category)
    return root


Writer = Callable[[Path, Predictions, float | None, str], list[Path]]
WRITERS: dict[str, Writer] = {"coco-results": _write_results, "cvat": _write_cvat, "label-studio": _write_label_studio}


def export_predictions(
    predictions: Predictions,
    path: Path,
    format_name: str,
    *,
    score_threshold: float = 0.0,
    tolerance_px: float | None = 0.5,
    url_prefix: str = URL_PREFIX,
) -> list[Path]:
    """Write the detections from a score on; answers the files.

    Args:
        tolerance_px: of polygons (`mammodet.outlines.one_outline`), 0.5 or less; None: boxes alone.
        url_prefix: of Label Studio, before image names.
    """
    images = [
        replace(image, detections=image.detections.at((image.detections.scores >= score_threshold).nonzero()[0]))
        for image in predictions.images
    ]
    return WRITERS[format_name](path, replace(predictions, images=tuple(images)), tolerance_px, url_prefix)
