"""Our data sets in detectron2's catalogs, for scripts that train with detectron2 itself (docs/detectron2_scripts.md).

detectron2 knows a data set by a name: `DatasetCatalog` gives its images as dicts, `MetadataCatalog` its classes. The
dicts are in the frame of the stored file's pixels, as everything in the file is; `MammogramMapper` reads the files.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammodet.data.coco import from_json, read_coco
from mammodet.data.dataset_files import check_dataset, dataset_names, find_view
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError
from mammodet.files import read_json
from mammodet.records import Dataset, Lesion

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from detectron2.data import Metadata

_log = logging.getLogger(__name__)
_NAMES = ("patient_id", "laterality", "view", "density", "birads", "class_name")


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What detectron2 calls for the images of a name: reads the file anew each time."""

    #: json_file, image_root: whole paths.
    json_file: str
    image_root: str
    skip_invalid: bool
    categories: tuple[str, ...]  #: names at registration; the file must still have them

    def __call__(self) -> list[dict[str, Any]]:
        """The images as `dataset_dicts` says.

        Raises InputError: with every fault of the file, or it has other categories than at registration.
        """
        dataset = read_coco(Path(self.json_file), skip_invalid=self.skip_invalid or None)
        if dataset.categories != self.categories:
            raise InputError(
                f"{self.json_file}: categories are {', '.join(dataset.categories)}; at registration they were "
                f"{', '.join(self.categories)}. The file was changed: start again"
            )
        for line in _warnings(dataset):
            _log.warning("%s: %s", self.json_file, line)
        return dataset_dicts(dataset, Path(self.image_root))


def register(
    name: str, json_file: Path | str, image_root: Path | str | None = None, *, skip_invalid: bool = False
) -> "Metadata":
    """Put a data set file into detectron2's catalogs.

    Categories and split are read now, images and lesions when detectron2 asks for them. The metadata holds
    `thing_classes`, `thing_dataset_id_to_contiguous_id` (1 to n becomes 0 to n - 1), `image_root`, `evaluator_type`
    ("coco"), `split`: `info.split` (name, subset, hash), None where it has none; and `json_file`, except of a fold,
    which is no file (COCOEvaluator makes one in its `output_dir`). The same name for the same file again changes
    nothing.

    Args:
        name: for `cfg.DATASETS`.
        image_root: folder that file names start from; None: the file's own.
        skip_invalid: drop faulty records instead of refusing the file. COCOEvaluator reads the file itself and still
            counts them.
    Raises:
        InputError: detectron2, the file or the folder is missing, categories are faulty, or the name means another
            data set.
    """
    require_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if not isinstance(name, str) or not name:
        raise InputError(f"name {name!r}: expected a text, for instance 'mias_train'")
    path = Path(json_file).resolve()
    root = path.parent if image_root is None else Path(image_root).resolve()
    head = _read_head(path)
    if not root.is_dir():
        raise InputError(f"image_root {root}: no such folder; file names in {path.name} start there")
    entry = CatalogEntry(str(path), str(root), skip_invalid, head.categories)
    facts = {
        "thing_classes": list(head.categories),
        "thing_dataset_id_to_contiguous_id": {number: number - 1 for number in range(1, len(head.categories) + 1)},
        **({"json_file": str(path)} if path.is_file() else {}),
        "image_root": str(root),
        "evaluator_type": "coco",
        "split": head.info.get("split"),
    }
    if name in DatasetCatalog and DatasetCatalog[name] != entry:
        raise InputError(f"{name!r} is registered already, {_told(DatasetCatalog[name])}; choose another name")
    metadata = MetadataCatalog.get(name)
    for key, value in facts.items():
        if metadata.get(key, value) != value:
            raise InputError(
                f"{name!r}: MetadataCatalog has {key} {metadata.get(key)!r:.300}, the file gives {value!r:.300}; "
                f"choose another name, or MetadataCatalog.remove({name!r}) first"
            )
    metadata.set(**facts)
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, entry)
    return metadata


def register_all(root: Path | str, prefix: str, *, skip_invalid: bool = False) -> "dict[str, Metadata]":
    """Register every data set of a converted folder: `train.json` as `PREFIX_train`, `fold0_val.json`, ...

    Returns:
        name to metadata, in the order train, val, test, all, folds, then each fold's.
    Raises:
        InputError: the folder has no such file, or as `register` says.
    """
    require_detectron2()
    folder = Path(root)
    paths = [folder / name for name in dataset_names(folder)]
    if not paths:
        raise InputError(f"{folder}: holds no train.json, val.json, ...; expected a folder that mammodet convert wrote")
    return {
        f"{prefix}_{path.stem}": register(f"{prefix}_{path.stem}", path, skip_invalid=skip_invalid) for path in paths
    }


def prepare_cfg(cfg: "CfgNode", train: str | Sequence[str], test: str | Sequence[str] = ()) -> None:
    """Set what a configuration needs for our data sets; everything else stays.

    `DATASETS.TRAIN` and `TEST`; the number of classes of ROI heads and RetinaNet; `INPUT.MASK_FORMAT` "bitmask", since
    our masks are run lengths; `DATALOADER.FILTER_EMPTY_ANNOTATIONS` False, since detectron2 would drop every image
    without a lesion; `INPUT.FORMAT` "L" for a model of one channel.

    Raises InputError: the configuration is frozen, a name is not registered, or classes differ between them.
    """
    require_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if cfg.is_frozen():
        raise InputError("cfg is frozen: prepare it before cfg.freeze()")
    chosen = {"train": _names(train), "test": _names(test)}
    names = [*chosen["train"], *chosen["test"]]
    unknown = [name for name in names if name not in DatasetCatalog]
    if unknown or not names:
        ours = [name for name in DatasetCatalog if isinstance(DatasetCatalog[name], CatalogEntry)]
        raise InputError(
            f"data sets {', '.join(map(repr, unknown)) or 'none'}: expected names that were registered "
            f"({', '.join(ours) or 'none of ours is'})"
        )
    classes = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    first = classes[names[0]]
    different = [f"{name}: {found}" for name, found in classes.items() if found != first or not found]
    if different:
        raise InputError(f"classes differ from those of {names[0]}, {first}: {'; '.join(different)}")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = chosen["train"], chosen["test"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(first)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    if len(cfg.MODEL.PIXEL_MEAN) == 1:
        cfg.INPUT.FORMAT = "L"


def dataset_dicts(dataset: Dataset, root: Path) -> list[dict[str, Any]]:
    """A data set as detectron2's list of dicts, in the file's order; images without lesions stay in.

    Of each image `file_name` (with `root`), `height`, `width`, `image_id`, `annotations`; and ours: `patient_id`,
    `laterality`, `view`, `density`, `birads`, `class_name`, `labels`, and `use_boxes`, False where a lesion has no
    place or is to be ignored: such an image must not teach boxes. Annotations: `bbox` xyxy with `bbox_mode`,
    `category_id` from 0, `iscrowd` 1 for a region to ignore, `segmentation` as run lengths where there is a mask,
    `geometry`, `attributes`.
    """
    return [
        {
            "file_name": str(root / record.file_name),
            "height": record.size_hw[0],
            "width": record.size_hw[1],
            "image_id": record.image_id,
            "annotations": [_annotation(lesion, dataset.category_id(lesion.category)) for lesion in record.lesions],
            **{name: getattr(record, name) for name in _NAMES},
            "labels": dict(record.labels),
            "use_boxes": record.has_complete_boxes,
        }
        for record in dataset.images
    ]


def _annotation(lesion: Lesion, category_id: int) -> dict[str, Any]:
    from detectron2.structures import BoxMode

    annotation: dict[str, Any] = {
        "bbox": [float(value) for value in lesion.box_xyxy],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category_id - 1,
        "iscrowd": int(lesion.ignore),
        "geometry": lesion.geometry,
        "attributes": dict(lesion.attributes),
    }
    if lesion.rle is not None:
        annotation["segmentation"] = dict(lesion.rle)
    return annotation


def _read_head(path: Path) -> Dataset:
    """Categories and info of a data set file, checked as the reader does, without its images."""
    view = find_view(path)
    if view is not None:
        return view.take([_read_head(part) for part in view.parts])
    check_dataset(path)
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("images"), list):
        value = {**value, "images": [], "annotations": []}
    return from_json(value, where=str(path))


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _told(entry: Any) -> str:
    if not isinstance(entry, CatalogEntry):
        return "by other code than ours"
    skipping = ", skip_invalid=True" if entry.skip_invalid else ""
    return f"for {entry.json_file} (image_root {entry.image_root}{skipping})"


def _warnings(dataset: Dataset) -> list[str]:
    """What of the data set does not go into detectron2 as it is."""
    lines = []
    dropped = dataset.info.get("dropped")
    if dropped:
        lines.append(
            f"{len(dropped)} faults, whose records were dropped (the first: {dropped[0]}); COCOEvaluator counts them"
        )
    incomplete = sum(not record.has_complete_boxes for record in dataset.images)
    if incomplete:
        lines.append(
            f"{incomplete} of {len(dataset.images)} images show a lesion without a place or to be ignored: "
            "MammogramMapper leaves them out of training"
        )
    unlocalized = sum(record.unlocalized for record in dataset.images)
    if unlocalized:
        lines.append(
            f"{unlocalized} images show a lesion without a place: COCOEvaluator takes detections on them for false "
            "ones, mammodet evaluate does not"
        )
    lesions = [lesion for record in dataset.images for lesion in record.lesions]
    bare = sum(lesion.rle is None for lesion in lesions)
    if bare:
        lines.append(
            f"{bare} of {len(lesions)} lesions are boxes without masks: COCOEvaluator of a model with masks needs "
            'tasks=("bbox",)'
        )
    return lines
