"""COCO files that no converter of ours wrote: what other tools leave open in them is asked for, and never guessed.

`mammodet convert coco` settles it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mammodet.data.json_values import read_id
from mammodet.errors import InputError
from mammodet.geometry import fits_outline
from mammodet.records import Lesion


def lesion_fault(item: Mapping[str, Any], lesion: Lesion) -> str | None:
    """Why the place of an annotation is in doubt, or None."""
    if lesion.rle is not None and not fits_outline(lesion.box_xyxy, lesion.rle):
        return f"bbox {item['bbox']} contradicts its outline; mend one of them, or remove it"
    if lesion.attributes.get("rotation") or item.get("rotation"):
        return "its box is turned (rotation); mammodet convert coco makes it upright"
    if max(map(abs, item["bbox"])) <= 1 and any(side % 1 for side in item["bbox"]):
        return f"bbox {item['bbox']} lies within one pixel; of fractions: mammodet convert coco --boxes fractions"
    return None


def check_crowd(annotations: Iterable[Any], where: str) -> None:
    """Refuse files in which every annotation is `iscrowd`: it may say no more than that outlines are run lengths.

    Raises InputError: it is so.
    """
    count = 0
    for item in annotations:
        if not isinstance(item, dict) or "ignore" in item or read_id(item.get("iscrowd")) != 1:
            return
        count += 1
    if count:
        raise InputError(
            f"{where}: all {count} annotations are marked iscrowd, as CVAT marks masks; convert the file: mammodet "
            "convert coco (--crowd lesion, or --crowd ignore if they are regions to ignore)"
        )
