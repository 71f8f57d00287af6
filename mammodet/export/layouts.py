"""Files of a data set as other tools want them: COCO, YOLO, Pascal VOC, RF-DETR (docs/export_data.md)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import yaml

from mammodet.data.coco import to_json
from mammodet.files import write_json, write_text
from mammodet.geometry import box_rle
from mammodet.outlines import one_outline
from mammodet.records import Dataset, ImageRecord, Lesion

_FACTS = "labels (tumor, malignant), patients, views, attributes: they are in train.json, ... beside it"
Datasets = Mapping[str, Dataset]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tool's data set looks."""

    image: str  #: path of an image, of its `subset` and `name`
    #: writes the tool's own files; takes the folder, the subsets, and the tolerance of polygons (None: boxes alone),
    #: and answers what is lost of them.
    write: Callable[[Path, Datasets, float | None], list[str]]
    folders: Mapping[str, str] = field(default_factory=dict)  #: subset to the tool's name of it
    holds_regions: bool = True  #: whether it can say that a region is to be ignored
    holds_unknown: bool = False  #: whether it can say that nothing is known of an image, or that a lesion has no place

    def refusal(self, record: ImageRecord) -> str | None:
        """Why an image cannot be said rightly in this format: its reader would learn background where none is known."""
        if self.holds_unknown:
            return None
        regions = sum(lesion.ignore for lesion in record.lesions)
        if record.unlocalized:
            return "a lesion without a place" if record.has_truth else "not known to be normal"
        if regions == len(record.lesions) and record.label("tumor") != 0:
            return "not known to be normal"
        return "regions to ignore" if regions and not self.holds_regions else None


def _write_nothing(folder: Path, datasets: Datasets, tolerance_px: float | None) -> list[str]:
    """Our own JSON files say all."""
    return []


def _write_coco(folder: Path, datasets: Datasets, tolerance_px: float | None) -> list[str]:
    """Our own JSON files are COCO already; some readers want them in `annotations`, with names as in `images`."""
    for subset, dataset in datasets.items():
        write_json(folder / f"annotations/instances_{subset}.json", to_json(_with_bare_names(dataset)))
    return []


def _with_bare_names(dataset: Dataset) -> Dataset:
    bare = (replace(record, file_name=PurePosixPath(record.file_name).name) for record in dataset.images)
    return replace(dataset, images=tuple(bare))


def _write_yolo(folder: Path, datasets: Datasets, tolerance_px: float | None) -> list[str]:
    """A text file for each image, empty where it has no lesion, and data.yaml.

    Lines are all polygons or all boxes: readers take a box among polygons for one of two points.
    """
    alone, outlined = _by_outline(datasets)
    tolerance_px = tolerance_px if outlined else None
    for dataset in datasets.values():
        for record in dataset.images:
            lines = (_yolo_line(lesion, dataset, record, tolerance_px) for lesion in record.lesions)
            label = PurePosixPath("labels", *PurePosixPath(record.file_name).parts[1:]).with_suffix(".txt")
            write_text(folder / label, "".join(f"{line}\n" for line in lines))
    names = dict(enumerate(next(iter(datasets.values())).categories))
    places: dict[str, object] = {subset: f"images/{subset}" for subset in datasets}
    write_text(folder / "data.yaml", yaml.safe_dump({**places, "names": names}, sort_keys=False, allow_unicode=True))
    lost = [_FACTS]
    if tolerance_px is None:
        return [*lost, f"masks of {outlined} lesions"] if outlined else lost
    lost += ["holes of masks"]
    return [*lost, f"that {alone} lesions have a box alone: it is their outline here"] if alone else lost


def _yolo_line(lesion: Lesion, dataset: Dataset, record: ImageRecord, tolerance_px: float | None) -> str:
    x1, y1, x2, y2 = lesion.box_xyxy
    numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    if tolerance_px is not None:
        numbers = [x1, y1, x2, y1, x2, y2, x1, y2]
        if lesion.rle is not None and lesion.has_outline:
            numbers = one_outline(lesion.rle, tolerance_px)
    height, width = record.size_hw
    shares = (number / (height if at % 2 else width) for at, number in enumerate(numbers))
    return " ".join([str(dataset.category_id(lesion.category) - 1), *(f"{share:.8g}" for share in shares)])


def _write_voc(folder: Path, datasets: Datasets, tolerance_px: float | None) -> list[str]:
    """An XML file for each image; a region to ignore is `difficult`, which VOC's evaluation leaves out."""
    for subset, dataset in datasets.items():
        names = [PurePosixPath(record.file_name) for record in dataset.images]
        for record, name in zip(dataset.images, names, strict=True):
            write_text(folder / "Annotations" / f"{name.stem}.xml", xml_text(_voc(record, name)))
        write_text(folder / "ImageSets/Main" / f"{subset}.txt", "".join(f"{name.stem}\n" for name in names))
    # Without it Datumaro and CVAT know the twenty classes of VOC alone: name, colour, parts, actions.
    names_of = next(iter(datasets.values())).categories
    write_text(folder / "labelmap.txt", "".join(f"{name}:::\n" for name in names_of))
    _, outlined = _by_outline(datasets)
    return [_FACTS, *([f"masks of {outlined} lesions"] if outlined else [])]


def _voc(record: ImageRecord, name: PurePosixPath) -> Element:
    root = Element("annotation")
    height, width = record.size_hw
    _add(root, folder=name.parent.name, filename=name.name)
    _add(SubElement(root, "size"), width=width, height=height, depth=1)
    for lesion in record.lesions:
        item = SubElement(root, "object")
        _add(item, name=lesion.category, truncated=0, difficult=int(lesion.ignore))
        corners = zip(("xmin", "ymin", "xmax", "ymax"), lesion.box_xyxy, strict=True)
        _add(SubElement(item, "bndbox"), **{corner: number_text(value) for corner, value in corners})
    return root


def _add(parent: Element, **values: object) -> None:
    for key, value in values.items():
        SubElement(parent, key).text = str(value)


def number_text(value: float) -> str:
    """A number of pixels to its thousandth, without needless zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def xml_text(root: Element) -> str:
    """An XML file's text."""
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _write_rfdetr(folder: Path, datasets: Datasets, tolerance_px: float | None) -> list[str]:
    """`_annotations.coco.json` in each folder of images, with a mask for every lesion or for none."""
    alone, outlined = _by_outline(datasets)
    with_masks = outlined > 0 and tolerance_px is not None
    for dataset in datasets.values():
        records = tuple(
            replace(
                record,
                lesions=tuple(
                    _masked(lesion, record) if with_masks else replace(lesion, rle=None) for lesion in record.lesions
                ),
            )
            for record in _with_bare_names(dataset).images
        )
        place = folder / PurePosixPath(dataset.images[0].file_name).parent
        write_json(place / "_annotations.coco.json", to_json(replace(dataset, images=records)))
    if not with_masks:
        return [f"masks of {outlined} lesions"] if outlined else []
    return [f"that {alone} lesions have a box alone: it is their mask here"] if alone else []


def _masked(lesion: Lesion, record: ImageRecord) -> Lesion:
    return lesion if lesion.has_outline else replace(lesion, rle=box_rle(lesion.box_xyxy, record.size_hw))


def _by_outline(datasets: Datasets) -> tuple[int, int]:
    """Numbers of lesions without and with an outline."""
    lesions = list(_lesions(datasets))
    outlined = sum(lesion.has_outline for lesion in lesions)
    return len(lesions) - outlined, outlined


def _lesions(datasets: Datasets) -> Iterator[Lesion]:
    return (lesion for dataset in datasets.values() for record in dataset.images for lesion in record.lesions)


LAYOUTS: dict[str, Layout] = {
    "8bit": Layout("images/{name}.png", _write_nothing, holds_unknown=True),
    "coco": Layout("images/{name}.png", _write_coco),
    "yolo": Layout("images/{subset}/{name}.png", _write_yolo, holds_regions=False),
    "voc": Layout("JPEGImages/{name}.png", _write_voc),
    # its reader leaves out what has iscrowd, and learns it as background
    "rfdetr": Layout("{subset}/{name}.png", _write_rfdetr, {"val": "valid"}, holds_regions=False),
}
