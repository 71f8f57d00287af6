"""Read, check and write the data set file: COCO JSON with more keys (docs/data_format.md).

The file is valid for pycocotools as it is. The reader checks everything and tells all faults at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mammodet.data.dataset_files import check_dataset, find_view
from mammodet.data.json_values import CLIP_PX, Checker, check_file_name, read_id, read_segmentation, short
from mammodet.data.plain_coco import check_crowd, lesion_fault
from mammodet.errors import InputError, raise_faults
from mammodet.geometry import clip_boxes, rle_area
from mammodet.json_lists import JsonList, members_hash, read_members, sharing, write_members
from mammodet.records import GEOMETRIES, LATERALITIES, SUBSETS, BoxXYXY, Dataset, ImageRecord, Lesion
from mammodet.trace import Trace

FORMAT = "mammodet-coco/1"
_SPLIT_TEXTS = ("name", "subset", "hash")
_MOST_ID = 2**53  # beyond it, JSON readers of other languages round
_MOST_FAULTS = 100_000
_SLACK = 1e-3  # pixels by which a box may pass the border through rounding
_MOST_PIXELS = 2**30  # OpenCV reads no larger image, and run lengths are 32-bit numbers


def to_json(dataset: Dataset) -> dict[str, Any]:
    """The COCO JSON value of a data set."""
    return {key: list(value) if isinstance(value, Iterator) else value for key, value in _members(dataset).items()}


def _members(dataset: Dataset) -> dict[str, Any]:
    """The members of its COCO JSON, the long ones as iterators."""
    lesions = ((record, lesion) for record in dataset.images for lesion in record.lesions)
    annotations = (
        _lesion_to_json(lesion, number, record, dataset.category_id(lesion.category))
        for number, (record, lesion) in enumerate(lesions, start=1)
    )
    categories = [
        {"id": number, "name": name, "supercategory": "abnormality"}
        for number, name in enumerate(dataset.categories, start=1)
    ]
    info = {"format": FORMAT, **dataset.info}
    return {
        "info": info,
        "categories": categories,
        "images": map(_image_to_json, dataset.images),
        "annotations": annotations,
    }


def write_coco(dataset: Dataset, path: Path) -> None:
    """Write a data set, whole or not at all."""
    write_members(path, _members(dataset))


def data_hash(dataset: Dataset) -> str:
    """SHA-256 over images, annotations and categories; provenance in `info` does not count."""
    value = _members(dataset)
    value.pop("info")
    return members_hash(value)


def _image_to_json(record: ImageRecord) -> dict[str, Any]:
    height, width = record.size_hw
    box = record.breast_box_xyxy
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "width": width,
        "height": height,
        "patient_id": record.patient_id,
        "laterality": record.laterality,
        "view": record.view,
        "density": record.density,
        "birads": record.birads,
        "labels": dict(record.labels),
        # Only where there is one, so that the hashes of data sets without classes stay what they were.
        **({"class_name": record.class_name} if record.class_name is not None else {}),
        "source": record.source,
        "split": record.split,
        "spacing_mm_rc": [float(side) for side in record.spacing_mm_rc] if record.spacing_mm_rc else None,
        "breast_bbox": _to_xywh(box) if box else None,
        "trace": dict(record.trace) if record.trace else None,
        "unlocalized": record.unlocalized,
        "notes": list(record.notes),
    }


def _lesion_to_json(lesion: Lesion, number: int, record: ImageRecord, category_id: int) -> dict[str, Any]:
    bbox = _to_xywh(lesion.box_xyxy)
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": record.image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": rle_area(lesion.rle) if lesion.rle else bbox[2] * bbox[3],
        # pycocotools knows regions to ignore by `iscrowd` only.
        "iscrowd": int(lesion.ignore),
        "ignore": int(lesion.ignore),
        "geometry": lesion.geometry,
        "attributes": dict(lesion.attributes),
    }
    if lesion.rle:
        annotation["segmentation"] = dict(lesion.rle)
    return annotation


def read_coco(path: Path, *, skip_invalid: bool | None = None) -> Dataset:
    """Read and check a data set: a file, or one that is made of others (`mammodet.data.dataset_files`).

    Boxes that pass the border by up to `CLIP_PX` are cut to the image, and listed in `info["clipped"]`. An image of
    another tool's file that has neither annotations nor labels is normal, or was never looked at: nothing is known of
    it, so that it is `unlocalized`; `info["unknown"]` counts these.

    Args:
        skip_invalid: drop annotations and images with faults instead of refusing the file; what was dropped is
            listed in `info["dropped"]`. An image that loses an annotation becomes `unlocalized`: something is there,
            and must not be learnt as background. Of an outline that cannot be read the box is kept. While an annotation
            has no image, no image counts as normal. None: refuse, where no setting of the user's says otherwise.
    Raises:
        InputError: with every fault in the file: its place, its value and what was expected.
    """
    path = Path(path)
    view = find_view(path)
    if view is None:
        check_dataset(path)
        return _read(path, skip_invalid)
    return view.take([_read(part, skip_invalid) for part in view.parts])


def _read(path: Path, skip_invalid: bool | None) -> Dataset:
    return from_json(read_members(path, ("images", "annotations")), where=str(path), skip_invalid=skip_invalid)


def from_json(value: Any, *, where: str, skip_invalid: bool | None = None) -> Dataset:
    """The data set of a COCO JSON value; `read_coco` says the rest. `where` names the value in messages."""
    if isinstance(value, dict) and str(value.get("format")).startswith("mammodet-predictions/"):
        raise InputError(f"{where}: holds predictions, no data set. Were --ground-truth and --predictions exchanged?")
    long = list | JsonList
    if not (
        isinstance(value, dict) and isinstance(value.get("images"), long) and isinstance(value.get("categories"), list)
    ):
        raise InputError(f"{where}: expected a COCO object with lists 'images', 'annotations' and 'categories'")
    annotations = value.get("annotations", [])
    if not isinstance(annotations, long):
        raise InputError(f"{where}: 'annotations' is {short(annotations)}; expected a list")
    checker = Checker()
    names = _read_categories(value["categories"], checker)
    raise_faults(checker.faults, where=where, advice="Category faults cannot be skipped.")

    info = value.get("info") or {}
    if not isinstance(info, dict):
        raise InputError(f"{where}: 'info' is {short(info)}; expected an object")
    split = info.get("split") or {}
    if not isinstance(split, dict) or any(not isinstance(split.get(key), str | None) for key in _SPLIT_TEXTS):
        raise InputError(
            f"{where}: info.split is {short(split)}; expected an object with texts {', '.join(_SPLIT_TEXTS)} or null"
        )
    plain = not str(info.get("format")).startswith("mammodet-coco/")  # another tool's
    if plain:
        check_crowd(annotations, where)
    bare: set[int] = set()
    records: dict[int, ImageRecord] = {}
    file_names: set[str] = set()
    listed: set[Any] = set()
    for position, item in enumerate(value["images"]):
        listed.add(read_id(item.get("id")) if isinstance(item, dict) else None)
        _check_number(checker, where)
        record = _read_image(item, position, checker)
        if record is None:
            continue
        if record.image_id in records:
            checker.faults.append(f"{_image_name(item, position)}: its id occurs more than once")
            continue
        if record.file_name in file_names:
            checker.faults.append(f"{_image_name(item, position)}: its file_name occurs more than once")
            continue
        records[record.image_id] = record
        file_names.add(record.file_name)
        if plain and "labels" not in item and "unlocalized" not in item:
            bare.add(record.image_id)

    lesions: dict[int, list[Lesion]] = {}
    seen: set[Any] = set()
    clipped: list[str] = []
    orphans = False
    for position, item in enumerate(annotations):
        _check_number(checker, where)
        good = _read_annotation(item, position, records, names, lesions, seen, checker, clipped)
        if good and plain and (fault := lesion_fault(item, lesions[item["image_id"]][-1])):
            checker.faults.append(f"annotation {short(item['id'])}: {fault}")
            lesions[item["image_id"]].pop()
            good = False
        if not good:
            image_id = read_id(item.get("image_id")) if isinstance(item, dict) else None
            if isinstance(image_id, int) and image_id in records:
                records[image_id] = replace(records[image_id], unlocalized=True)
            orphans |= image_id is None or image_id not in listed
    if orphans:
        # Nothing is known to be absent where an annotation may belong to any image.
        for number, record in records.items():
            records[number] = replace(record, labels={name: value or None for name, value in record.labels.items()})

    if not skip_invalid:
        raise_faults(
            checker.faults,
            where=where,
            advice="Re-run the converter, or mend the file"
            + (", or leave out the faulty records (data.skip_invalid=true)." if skip_invalid is False else "."),
        )
    unknown = [number for number in records if number in bare and not lesions.get(number)]
    for number in unknown:
        records[number] = replace(records[number], unlocalized=True)
    if unknown:
        info = {**info, "unknown": len(unknown)}
    ordered = sorted(names)
    if checker.faults:
        info = {**info, "dropped": checker.faults}
    if clipped:
        info = {**info, "clipped": clipped}
    return Dataset(
        categories=tuple(names[number] for number in ordered),
        images=tuple(replace(records.pop(number), lesions=tuple(lesions.pop(number, ()))) for number in list(records)),
        info=info,
    )


def _check_number(checker: Checker, where: str) -> None:
    """Refuse a file that is no data set before its faults fill the memory."""
    if len(checker.faults) > _MOST_FAULTS:
        raise_faults(checker.faults, where=where, advice="The rest was not read: this seems to be no data set.")


def _read_categories(items: Sequence[Any], checker: Checker) -> dict[int, str]:
    names: dict[int, str] = {}
    for position, item in enumerate(items):
        where = f"category at position {position}"
        if not isinstance(item, dict):
            checker.faults.append(f"{where}: is {short(item)}; expected an object")
            continue
        number = checker.take(item, "id", int, where, need=True)
        name = checker.take(item, "name", str, where, need=True)
        if number is None or name is None:
            continue
        if number in names or name in names.values():
            checker.faults.append(f"{where}: id {number} or name {name!r} occurs more than once")
        names[number] = name
    if not names and not checker.faults:
        checker.faults.append("'categories' is empty; expected at least one")
    if names and not checker.faults and sorted(names) != list(range(1, len(names) + 1)):
        checker.faults.append(f"category ids are {sorted(names)}; expected 1 to {len(names)}, no gaps (0: background)")
    return names


def _image_name(item: Any, position: int) -> str:
    if isinstance(item, dict) and "file_name" in item:
        return f"image {short(item['file_name'])} (id {short(item.get('id'))})"
    return f"image at position {position}"


def _read_image(item: Any, position: int, checker: Checker) -> ImageRecord | None:
    where = _image_name(item, position)
    if not isinstance(item, dict):
        checker.faults.append(f"{where}: is {short(item)}; expected an object")
        return None
    before = len(checker.faults)
    number = checker.take(item, "id", int, where, need=True)
    if number is not None and abs(number) > _MOST_ID:
        checker.faults.append(f"{where}: 'id' is {short(number)}; expected at most 2^53 in size")
    file_name = checker.take(item, "file_name", str, where, need=True)
    height = checker.take(item, "height", int, where, need=True)
    width = checker.take(item, "width", int, where, need=True)
    if file_name is not None and (fault := check_file_name(file_name)):
        checker.faults.append(f"{where}: {fault}")
    sized = height is not None and width is not None
    for key, side in (("height", height), ("width", width)):
        if side is not None and not 0 < side <= 100_000:
            checker.faults.append(f"{where}: '{key}' is {short(side)}; expected 1 to 100000 px")
            sized = False
    if sized and height * width > _MOST_PIXELS:
        checker.faults.append(f"{where}: {height}x{width} (height x width); expected at most {_MOST_PIXELS} pixels")
    laterality = checker.take(item, "laterality", str, where, need=False)
    if laterality not in (None, *LATERALITIES):
        checker.faults.append(f"{where}: 'laterality' is {laterality!r}; expected 'L', 'R' or null")
    split = checker.take(item, "split", str, where, need=False)
    if split not in (None, *SUBSETS):
        checker.faults.append(f"{where}: 'split' is {split!r}; expected 'train', 'val', 'test' or null")
    labels = checker.take(item, "labels", dict, where, need=False) or {}
    for name, label in labels.items():
        if label is not None and (type(label) is not int or label not in (0, 1)):
            checker.faults.append(f"{where}: label '{name}' is {short(label)}; expected 0, 1 or null")
    spacing = checker.numbers(item, "spacing_mm_rc", 2, where, need=False)
    if spacing is not None and min(spacing) <= 0:
        checker.faults.append(f"{where}: 'spacing_mm_rc' is {spacing}; expected two positive numbers (mm)")
    breast = checker.numbers(item, "breast_bbox", 4, where, need=False)
    if breast is not None and sized:
        fault = _box_fault(breast, height, width)
        if fault:
            checker.faults.append(f"{where}: breast_bbox {fault}")
    trace = checker.take(item, "trace", dict, where, need=False)
    if trace is not None:
        try:
            output = Trace.from_json(trace).output_size_hw
            if sized and output != (height, width):
                checker.faults.append(f"{where}: 'trace' ends at {output} (height, width), the file is {height, width}")
        except (KeyError, TypeError, ValueError) as error:
            checker.faults.append(f"{where}: 'trace' cannot be read ({error})")
    texts = {
        key: _same_text(checker.take(item, key, str, where, need=False))
        for key in ("patient_id", "view", "density", "birads", "class_name", "source")
    }
    unlocalized = checker.flag(item, "unlocalized", where)
    notes = checker.take(item, "notes", list, where, need=False) or []
    if len(checker.faults) > before:
        return None
    return ImageRecord(
        image_id=number,
        file_name=file_name,
        size_hw=_same_size((height, width)),
        laterality=laterality,
        labels=_same_labels(tuple(labels.items())),
        split=split,
        spacing_mm_rc=_same_spacing((spacing[0], spacing[1])) if spacing else None,
        breast_box_xyxy=_to_xyxy(breast) if breast else None,
        trace=trace,
        unlocalized=unlocalized,
        notes=tuple(str(note) for note in notes),
        **texts,
    )


_same_size, _same_spacing, _same_text = sharing(), sharing(), sharing()


@lru_cache(maxsize=4096)
def _same_labels(items: tuple[tuple[str, int | None], ...]) -> dict[str, int | None]:
    return dict(items)


def _to_xywh(box_xyxy: BoxXYXY) -> list[float]:
    """Floats, rounded so that a box that was written, read and written again is the same, and so is its hash."""
    x1, y1, x2, y2 = box_xyxy
    return [round(float(value), 6) for value in (x1, y1, x2 - x1, y2 - y1)]


def _to_xyxy(box_xywh: Sequence[float]) -> BoxXYXY:
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def _box_fault(box: Sequence[float], height: int, width: int, slack: float = _SLACK) -> str | None:
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return f"{list(box)} (xywh px) is empty; expected a positive width and height"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return f"{list(box)} (xywh px) has nothing inside the image (height {height}, width {width})"
    if x < -slack or y < -slack:
        return f"{list(box)} (xywh px) leaves the image (negative corner)"
    if x + w > width + slack:
        return f"{list(box)} (xywh px) leaves the image (width {width})"
    if y + h > height + slack:
        return f"{list(box)} (xywh px) leaves the image (height {height})"
    return None


def _read_annotation(
    item: Any,
    position: int,
    records: Mapping[int, ImageRecord],
    names: Mapping[int, str],
    lesions: dict[int, list[Lesion]],
    seen: set[Any],
    checker: Checker,
    clipped: list[str],
) -> bool:
    """Add a lesion; False where there are faults that cost it."""
    if not isinstance(item, dict):
        checker.faults.append(f"annotation at position {position}: is {short(item)}; expected an object")
        return False
    where = f"annotation {short(item['id'])}" if "id" in item else f"annotation at position {position}"
    before = len(checker.faults)
    number = checker.take(item, "id", int, where, need=True)
    image_id = checker.take(item, "image_id", int, where, need=True)
    category_id = checker.take(item, "category_id", int, where, need=True)
    box = checker.numbers(item, "bbox", 4, where, need=True)
    if number is not None and number in seen:
        checker.faults.append(f"{where}: its id occurs more than once")
    seen.add(number)
    if image_id is not None and image_id not in records:
        checker.faults.append(f"{where}: image_id {short(image_id)} is not among the (valid) images")
        return False
    if image_id is not None:
        where = f"image {records[image_id].file_name!r} (id {image_id}), {where}"
    if category_id is not None and category_id not in names:
        checker.faults.append(f"{where}: category_id {short(category_id)}; expected one of {sorted(names)}")
    geometry = checker.take(item, "geometry", str, where, need=False)
    geometry = geometry or ("contour" if item.get("segmentation") else "box")
    if geometry not in GEOMETRIES:
        checker.faults.append(f"{where}: geometry {short(geometry)}; expected one of {', '.join(GEOMETRIES)}")
    attributes = checker.take(item, "attributes", dict, where, need=False) or {}
    ignored = [checker.flag(item, key, where) for key in ("ignore", "iscrowd")]
    rle = None
    outline = Checker()
    box_xyxy: BoxXYXY | None = None
    if image_id is not None and box is not None:
        height, width = records[image_id].size_hw
        box_xyxy = _to_xyxy(box)
        if fault := _box_fault(box, height, width, slack=CLIP_PX):
            checker.faults.append(f"{where}: bbox {fault}")
        elif fault := _box_fault(box, height, width):
            clipped.append(f"{where}: bbox {fault}")
            x1, y1, x2, y2 = clip_boxes([box_xyxy], (height, width))[0].tolist()
            box_xyxy = x1, y1, x2, y2
        rle = read_segmentation(item.get("segmentation"), height, width, where, outline)
    faulty = len(checker.faults) > before
    checker.faults += outline.faults
    if faulty or box_xyxy is None or image_id is None or category_id is None:
        return False
    lesions.setdefault(image_id, []).append(
        Lesion(
            category=names[category_id],
            box_xyxy=box_xyxy,
            rle=rle,
            geometry="box" if outline.faults else geometry,
            attributes=attributes,
            ignore=any(ignored),
        )
    )
    return True
