"""Files of labelling tools: Pascal VOC, LabelMe, CVAT, Label Studio, VIA and YOLO, each as a draft of a COCO file."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mammodet.converters.coco.draft import Draft
from mammodet.converters.sheet import read_bytes, read_sheet
from mammodet.converters.table.columns import as_number, read_boxes_table
from mammodet.converters.table.settings import HowToReadTables
from mammodet.converters.via import read_shape
from mammodet.data.json_values import is_finite, short
from mammodet.errors import InputError
from mammodet.files import load_yaml, parse_xml, read_json
from mammodet.outlines import ellipse, turned_box

_MOST_CLASSES = 10_000
#: What a reader says of a whole image.
_STUDIO_FACTS = {"choices", "text", "number", "rating", "taxonomy", "datetime"}
_YOLO_LINE = re.compile(r"\d+(\s+[-+.\deE]+){4,}")


def outline(numbers: Sequence[Any], kind: str = "contour") -> dict[str, Any]:
    """A mark of the polygon x, y, x, y, ...; or why it is none."""
    if len(numbers) < 6 or len(numbers) % 2 or not all(map(is_finite, numbers)):
        return {"fault": f"outline {short(list(numbers))}; expected the numbers x, y of at least 3 points"}
    xs, ys = numbers[::2], numbers[1::2]
    bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if kind == "box":
        return {"bbox": bbox}
    circle = {"geometry": "circle"} if kind == "circle" else {}
    return {"bbox": bbox, "segmentation": [list(numbers)], **circle}


def _corners(points: Sequence[Any]) -> dict[str, Any]:
    """A mark of the box between two points x, y, x, y, in any order."""
    if len(points) != 4 or not all(map(is_finite, points)):
        return {"fault": f"box {short(list(points))}; expected two corners x, y"}
    x1, y1, x2, y2 = points
    return {"bbox": [min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)]}


def read_voc(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """Pascal VOC: an XML file for each image, corners in pixels."""
    root = parse_xml(read_bytes(path), str(path))
    named = (root.findtext("filename") or "").strip().replace("\\", "/")
    name = how.file_name(named or path.stem, path)
    if name == named and not how.images.get(Path(named).stem):  # a copy that was renamed with its XML
        name = how.file_name(path.stem, path)
    size = {key: as_number(root.findtext(f"size/{key}")) for key in ("height", "width")}
    size = {key: value if value else None for key, value in size.items()}
    subset = draft.image(name, path, **size)
    for number, item in enumerate(root.iter("object"), start=1):
        points = [as_number(item.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        polygon = [as_number(child.text) for child in item.iterfind("polygon/*")]
        mark = outline(polygon) if polygon and item.find("bndbox") is None else _corners(points)
        draft.mark(name, subset, f"{path.name}, object {number}", (item.findtext("name") or "").strip(), **mark)


def read_labelme(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """LabelMe: a JSON file for each image."""
    value = read_json(path)
    name = how.file_name(str(value.get("imagePath", "")).replace("\\", "/"), path)
    subset = draft.image(name, path, height=value.get("imageHeight"), width=value.get("imageWidth"))
    for number, item in enumerate(value["shapes"], start=1):
        item = item if isinstance(item, dict) else {}
        kind, points = item.get("shape_type") or "polygon", item.get("points")
        flat = [xy for point in points or () for xy in point] if _are_points(points) else []
        if kind == "rectangle":  # newer versions write all four corners
            mark = _corners(flat) if len(flat) == 4 else outline(flat, "box")
        elif kind == "circle" and len(flat) == 4:
            radius = ((flat[2] - flat[0]) ** 2 + (flat[3] - flat[1]) ** 2) ** 0.5
            mark = outline(ellipse((flat[0], flat[1]), (radius, radius)), "circle")
        elif kind == "polygon":
            mark = outline(flat)
        else:
            mark = {"fault": f"is a {short(kind)} of {len(flat) // 2} points, which has no extent that could be read"}
        draft.mark(name, subset, f"{path.name}, shape {number}", str(item.get("label", "")), **mark)


def _are_points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(is_finite, point)) for point in value
    )


def read_cvat(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """CVAT for images: one XML file; boxes may be turned, which `attributes.rotation` says as in CVAT's COCO."""
    root = parse_xml(read_bytes(path), str(path))
    for image in root.iter("image"):
        name = how.file_name(image.get("name", "").replace("\\", "/"), path)
        size = {key: as_number(image.get(key)) for key in ("height", "width")}
        subset = draft.image(name, path, **size)
        for number, item in enumerate((each for each in image if each.get("label") is not None), start=1):
            what = f"{path.name}, {item.tag} {number} of image {image.get('id', name)}"
            if item.tag == "tag":  # of the whole image
                draft.tell(name, subset, what, item.get("label", ""))
                continue
            own = {child.get("name", ""): child.text or "" for child in item.iter("attribute")}
            mark = _cvat_mark(item)
            if attributes := {**own, **mark.pop("attributes", {})}:
                mark["attributes"] = attributes
            draft.mark(name, subset, what, item.get("label", ""), **mark)


def _cvat_mark(item: Element) -> dict[str, Any]:
    turn = as_number(item.get("rotation")) or 0
    if item.tag == "box":
        mark = _corners([as_number(item.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")])
        return {**mark, "attributes": {"rotation": turn}} if turn else mark
    if item.tag == "polygon":
        return outline([as_number(text) for text in re.split("[;,]", item.get("points", ""))])
    values = [as_number(item.get(key)) for key in ("cx", "cy", "rx", "ry")]
    if item.tag == "ellipse" and all(map(is_finite, [*values, turn])):
        cx, cy, rx, ry = values
        return outline(ellipse((cx, cy), (rx, ry), turn), "circle")
    return {"fault": f"is a {item.tag}, whose extent cannot be read; export masks as COCO"}


def read_label_studio(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """Label Studio's JSON: shapes in percent of `original_width` and `original_height`.

    A task that was skipped, or that nobody has done, is not listed.

    Raises InputError: a task has the work of several readers, whose lesions would be counted twice.
    """
    for task in read_json(path):
        file = next((str(text) for text in task["data"].values() if _is_image_name(text)), "")
        name = how.file_name(re.sub(r"^.*\?d=", "", file), path)
        if not name:
            draft.lose(f"{path.name}, task {task.get('id')}", "its data name no image")
            continue
        works = [
            work for work in task.get("annotations", task.get("completions")) or [] if not work.get("was_cancelled")
        ]
        if len(works) > 1:
            raise InputError(f"{path}: task {task.get('id')} has the work of {len(works)} readers; keep one of each")
        if not works:
            draft.unfinished.add(name)
        for work in works:
            subset = draft.image(name, path)
            for number, (item, value) in enumerate(_studio_regions(work.get("result") or []), start=1):
                size = item.get("original_width"), item.get("original_height")
                what = f"{path.name}, region {number} of task {task.get('id')}"
                labels = next((value[key] for key in value if key.endswith("labels") and value[key]), [""])
                mark: dict[str, Any]
                if item.get("image_rotation"):
                    mark = {"fault": f"image_rotation is {short(item['image_rotation'])}; turn the image file instead"}
                elif all(map(is_finite, size)):
                    draft.image(name, path, width=size[0], height=size[1])
                    mark = _studio_mark(value, size)
                else:
                    mark = {"fault": "has no original_width and original_height"}
                draft.mark(name, subset, what, str(labels[0]), **mark)


def _studio_regions(results: Sequence[Any]) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """The regions of a task, and their values: what is said of one (its shape, label, rating) is a result each."""
    regions: dict[Any, tuple[Mapping[str, Any], dict[str, Any]]] = {}
    for number, item in enumerate(results):
        value = item.get("value")
        if isinstance(value, dict) and not (set(value) <= _STUDIO_FACTS):
            regions.setdefault(item.get("id") or number, (item, {}))[1].update(value)
    return list(regions.values())


def _is_image_name(text: Any) -> bool:
    return isinstance(text, str) and bool(re.search(r"\.(png|jpe?g|tiff?|bmp|pgm|dcm)$", text, re.IGNORECASE))


def _studio_mark(value: Mapping[str, Any], size_wh: Sequence[Any]) -> dict[str, Any]:
    across, down = (side / 100 for side in size_wh)
    turn = value.get("rotation") or 0
    if "points" in value and _are_points(value["points"]):
        return outline([xy for x, y in value["points"] for xy in (x * across, y * down)])
    numbers = [
        value.get(key) for key in ("x", "y", *(("width", "height") if "width" in value else ("radiusX", "radiusY")))
    ]
    if not all(map(is_finite, [*numbers, turn])):
        return {"fault": f"value {short(dict(value))} has no extent that could be read; export brushes as COCO"}
    x, y, w, h = numbers[0] * across, numbers[1] * down, numbers[2] * across, numbers[3] * down
    if "width" not in value:
        return outline(ellipse((x, y), (w, h), turn), "circle")
    if not turn:
        return {"bbox": [x, y, w, h]}
    x1, y1, x2, y2 = turned_box([x, y, w, h], turn, around_corner=True)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "attributes": {"turned_deg": turn}}


def read_via(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """The VGG Image Annotator's JSON (project or annotations alone) or CSV."""
    if path.suffix.lower() == ".json":
        value = read_json(path)
        for entry in (value.get("_via_img_metadata") or value).values():
            regions = entry.get("regions") or []
            regions = list(regions.values()) if isinstance(regions, dict) else regions
            pairs = [(item.get("shape_attributes"), item.get("region_attributes")) for item in regions]
            _via_image(path, draft, how, str(entry.get("filename", "")), pairs, "region")
        return
    header, lines = read_sheet(path)
    names = [cell.lstrip("#").strip().lower() for cell in header]
    at = [names.index(name) for name in ("filename", "region_shape_attributes", "region_attributes")]
    for line, cells, fault in lines:
        if fault:
            draft.lose(f"{path.name} line {line}", fault)
            continue
        file, shape, attributes = (cells[position] for position in at)
        try:
            pairs = [(json.loads(shape or "{}"), json.loads(attributes or "{}"))]
        except (ValueError, RecursionError):
            pairs = [(shape, {})]
        _via_image(path, draft, how, file, [] if pairs[0][0] == {} else pairs, f"line {line}, region")


def _via_image(
    path: Path, draft: Draft, how: HowToReadTables, file: str, pairs: Sequence[tuple[Any, Any]], what: str
) -> None:
    name = how.file_name(re.sub(r"\s+(?=\.\w+$)", "", file.replace("\\", "/")), path)
    subset = draft.image(name, path)
    for number, (shape, attributes) in enumerate(pairs, start=1):
        try:
            mark = outline(*read_shape(shape))
        except ValueError as error:
            mark = {"fault": str(error)}
        words = [
            word for word in (attributes if isinstance(attributes, dict) else {}).values() if isinstance(word, str)
        ]
        category = words[0].strip() if len(words) == 1 and words[0].strip() else "lesion"
        draft.mark(name, subset, f"{path.name}, {what} {number}", category, **mark)


def read_yolo(path: Path, draft: Draft, how: HowToReadTables) -> None:
    """YOLO: a text file for each image; a line is a class, then centre and size, or a polygon, as shares."""
    name = how.file_name(path.stem, path)
    if name == path.stem:  # labels/train/a.txt is of images/train/a.png
        own = path.relative_to(how.source).with_suffix("").as_posix()
        ends = [found for found in how.images.get(path.stem, ()) if _swapped(found) == _swapped(own)]
        name = ends[0] if len(ends) == 1 else name
    subset = draft.image(name, path)
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        what, numbers = f"{path.name} line {number}", [as_number(word) for word in words[1:]]
        index = int(words[0]) if words[0].isdecimal() else -1
        category = how.classes[index] if 0 <= index < len(how.classes) else f"class {words[0]}"
        if len(numbers) in (4, 5) and all(map(is_finite, numbers)):
            x, y, w, h = numbers[:4]
            mark: dict[str, Any] = {"bbox": [x - w / 2, y - h / 2, w, h]}
        else:
            mark = outline(numbers)
        draft.mark(name, subset, what, category, **mark)


def _swapped(name: str) -> str:
    """A path without its suffix and without the folder that tells images from labels."""
    parts = name.rsplit(".", 1)[0].split("/") if "." in name.rsplit("/", 1)[-1] else name.split("/")
    return "/".join(part for part in parts if part.lower() not in ("images", "labels"))


def yolo_classes(source: Path) -> tuple[str, ...]:
    """Names of the classes by `data.yaml`, `classes.txt`, or `obj.names`; none where there is no such file."""
    for path in sorted([*source.glob("*.yaml"), *source.glob("*.yml")]):
        value = load_yaml(path)
        names = value.get("names") if isinstance(value, dict) else None
        if isinstance(names, dict):
            if not all(isinstance(number, int) and 0 <= number < _MOST_CLASSES for number in names):
                raise InputError(f"{path}: names {short(names)}; expected numbers of classes, 0 to {_MOST_CLASSES}")
            return tuple(str(names.get(number, f"class {number}")) for number in range(max(names, default=-1) + 1))
        if isinstance(names, list):
            return tuple(map(str, names))
    for path in sorted([*source.rglob("classes.txt"), *source.rglob("obj.names")]):
        lines = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return ()


READERS: dict[str, Callable[[Path, Draft, HowToReadTables], None]] = {
    "table": read_boxes_table,
    "yolo": read_yolo,
    "voc": read_voc,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "label_studio": read_label_studio,
    "via": read_via,
}
#: Formats with a file for each image, and the ends of their names.
SINGLE = {"yolo": ".txt", "voc": ".xml", "labelme": ".json"}
#: Formats whose files need not say how large an image is.
SIZELESS = ("table", "yolo", "voc", "labelme", "label_studio", "via")


def format_of(path: Path) -> str | None:
    """The format of a file by its content; None for other files. Raises InputError: it is damaged."""
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return {"annotation": "voc", "annotations": "cvat"}.get(parse_xml(read_bytes(path), str(path)).tag)
    if suffix == ".json":
        return _json_format(read_json(path))
    if suffix in (".csv", ".tsv", ".xlsx"):
        header = [cell.lstrip("#").lower() for cell in read_sheet(path)[0]]
        return "via" if "region_shape_attributes" in header else "table"
    if suffix == ".txt" and path.name not in ("classes.txt", "requirements.txt"):
        lines = read_bytes(path).decode("utf-8", "replace").split("\n")
        return "yolo" if all(_YOLO_LINE.fullmatch(line.strip()) for line in lines if line.strip()) else None
    return None


def _json_format(value: Any) -> str | None:
    if isinstance(value, list):
        keys = {"annotations", "completions"}
        tasks = [item for item in value if isinstance(item, dict) and isinstance(item.get("data"), dict)]
        return "label_studio" if value and len(tasks) == len(value) and keys & set(value[0]) else None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("shapes"), list) and "imagePath" in value:
        return "labelme"
    entries = value.get("_via_img_metadata") or value
    good = isinstance(entries, dict) and all(
        isinstance(entry, dict) and {"filename", "regions"} <= set(entry) for entry in entries.values()
    )
    return "via" if entries and good else None
