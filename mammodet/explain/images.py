"""Which images are looked at: of a data set's file, of a folder, or a single one. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.data.coco import read_coco
from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_image, read_size_hw
from mammodet.errors import InputError, raise_faults
from mammodet.records import Dataset, ImageRecord


@dataclass(frozen=True, slots=True)
class ChosenImages:
    """Images, and what could not be read of them.

    Attributes:
        dataset: their records; of bare files nothing but the size is known.
        root: folder that their file names start from.
        faults: files whose header cannot be read, a line each.
    """

    dataset: Dataset
    root: Path
    faults: tuple[str, ...] = ()

    def tell(self, faults: Sequence[str], output: Path) -> None:
        """Raise one `InputError` with these faults and those of the headers; none where there are none."""
        raise_faults(
            [*self.faults, *faults],
            where=str(output),
            advice=f"{len(self.dataset.images) - len(faults)} images were drawn.",
        )


def choose_images(path: Path, *, ids: Sequence[int] | None = None, first: int | None = None) -> ChosenImages:
    """The images that a user means.

    Args:
        path: a data set's JSON file, a folder (searched with its subfolders, ordered by name), or an image file.
        ids: image ids of a JSON file, in the order in which they are wanted; None for all.
        first: only the first so many.
    Raises:
        InputError: nothing there, no image in it, or ids that it does not have.
    """
    if first is not None and first < 1:
        raise InputError(f"--first {first}: expected 1 or more")
    path = Path(path)
    if path.suffix.lower() == ".json":
        dataset = read_coco(path)
        images = dataset.images if ids is None else _by_id(path, dataset.images, ids)
        if not images:
            raise InputError(f"{path}: holds no images")
        return ChosenImages(Dataset(dataset.categories, images[:first], dataset.info), path.parent)
    if ids is not None:
        raise InputError(
            f"--ids: are image ids of a data set's JSON file, and {path} is none; name the image file itself"
        )
    if path.is_dir():
        return _of_folder(path, first)
    suffixes = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
    if not is_image(path):
        raise InputError(f"{path}: expected a data set's JSON file, a folder, or an image ({', '.join(suffixes)})")
    return ChosenImages(Dataset((), (ImageRecord(1, path.name, read_size_hw(path)),)), path.parent)


def _by_id(path: Path, images: Sequence[ImageRecord], ids: Sequence[int]) -> tuple[ImageRecord, ...]:
    by_id = {record.image_id: record for record in images}
    unknown = [number for number in ids if number not in by_id]
    if unknown:
        some = ", ".join(str(number) for number in list(by_id)[:8])
        raise InputError(
            f"{path}: has no image of id {', '.join(map(str, unknown))}; it has {len(by_id)} images: {some}"
            f"{', ...' if len(by_id) > 8 else ''}"
        )
    return tuple(by_id[number] for number in dict.fromkeys(ids))


def _of_folder(folder: Path, first: int | None) -> ChosenImages:
    suffixes = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
    records: list[ImageRecord] = []
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.is_dir() or not is_image(path):
            continue
        name = path.relative_to(folder).as_posix()
        try:
            records.append(ImageRecord(len(records) + 1, name, read_size_hw(path)))
        except InputError as error:
            faults.append(str(error))
        if len(records) == first:
            break
    if not records:
        raise InputError(
            f"{folder}: no readable image; expected {', '.join(suffixes)}. {'; '.join(faults[:3])}".strip()
        )
    return ChosenImages(Dataset((), tuple(records)), folder, tuple(faults))
