"""A data set for other tools: 8-bit copies of its images, and its split in their formats (docs/export_data.md)."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.dataset_files import has_dataset, read_splits, write_splits
from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, read_image, write_png
from mammodet.data.preprocess import to_8_bits
from mammodet.errors import InputError, raise_faults
from mammodet.export.layouts import Layout
from mammodet.files import csv_text, write_text
from mammodet.parallel import in_parallel
from mammodet.records import SUBSETS, Dataset, ImageRecord, fold_file

LEFT_OUT = "left_out.csv"
Window = Literal["full", "tissue", "clahe"]


@dataclass(slots=True)
class Exported:
    """What was written, and what was not."""

    subsets: dict[str, Dataset] = field(default_factory=dict)  #: with file names as they are in the export
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  #: subset, image and reason
    lost: list[str] = field(default_factory=list)  #: what the format cannot hold

    def to_text(self) -> str:
        """A few lines for the terminal."""
        lines = []
        for name, dataset in self.subsets.items():
            ignored = [lesion.ignore for record in dataset.images for lesion in record.lesions]
            text = f"{name}: {len(dataset.images)} images, {ignored.count(False)} lesions"
            lines.append(text + (f", {ignored.count(True)} regions to ignore" if any(ignored) else ""))
        counts = Counter((subset, reason) for subset, _, reason in self.left_out)
        lines += [f"left out of {subset}: {count} images: {reason}" for (subset, reason), count in counts.items()]
        if "val" not in self.subsets:
            lines.append("no validation images, which most trainers need: mammodet convert --val-fraction makes some")
        return "\n".join([*lines, *(f"not in this format: {text}" for text in self.lost)])


def export_data(
    source: Path,
    output: Path,
    layout: Layout,
    *,
    name: str | None = None,
    fold: int | None = None,
    window: Window = "tissue",
    tolerance_px: float | None = 0.5,
    jobs: int = 2,
) -> Exported:
    """Write the subsets of a converted folder for another tool, and our own JSON files of the same images.

    Args:
        output: a folder that does not exist, or is empty.
        name: of a subset (`mammodet subset`); fold: whose training and validation images are taken.
        window: of images of more than 8 bits.
        tolerance_px: of polygons (`mammodet.outlines.one_outline`), 0.5 or less; None: no polygons.
    Raises:
        InputError: no data set there, an output that holds something, or images that cannot be read, with all of them.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output}: exists; expected a new folder, so that no earlier file stays in it")
    exported = Exported()
    tasks = []
    datasets = _read(source, name, fold)
    names = _new_names([record.file_name for dataset in datasets.values() for record in dataset.images], source)
    for subset, dataset in datasets.items():
        records = []
        for record in dataset.images:
            if (reason := layout.refusal(record)) is not None:
                exported.left_out.append((subset, record.file_name, reason))
                continue
            new = layout.image.format(subset=layout.folders.get(subset, subset), name=names[record.file_name])
            tasks.append((record, source / record.file_name, output / new, window))
            records.append(replace(record, file_name=new))
        if records:
            exported.subsets[subset] = replace(dataset, images=tuple(records), info={**dataset.info, "window": window})
    if not tasks:
        raise InputError(f"{source}: no image can be exported. {exported.to_text()}")
    try:
        copies = in_parallel(_copy, tasks, jobs=jobs, name="export", progress=True)
        raise_faults([fault for fault in copies if fault is not None], where=str(source), advice="Nothing was written.")
        exported.lost = layout.write(output, exported.subsets, tolerance_px)
        for subset, dataset in exported.subsets.items():
            write_coco(dataset, output / f"{subset}.json")
        if fold is None and (splits := read_splits(source)) is not None:
            write_splits(output, splits)
        write_text(output / LEFT_OUT, csv_text([("subset", "image", "reason"), *exported.left_out]))
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return exported


def _read(source: Path, name: str | None, fold: int | None) -> dict[str, Dataset]:
    files = {subset: f"{subset}.json" for subset in SUBSETS}
    if fold is not None:
        files |= {subset: fold_file(fold, subset) for subset in ("train", "val")}
    paths = {subset: source / (f"{name}_{file}" if name else file) for subset, file in files.items()}
    found = {subset: path for subset, path in paths.items() if has_dataset(path)}
    lacking = [paths[subset].name for subset in ("train", "val") if fold is not None and subset not in found]
    if not found or lacking:
        wanted = ", ".join(lacking or [path.name for path in paths.values()])
        raise InputError(f"{source}: no {wanted}; expected a folder of mammodet convert, which makes folds by --folds")
    datasets = {subset: read_coco(path) for subset, path in found.items()}
    if len({dataset.categories for dataset in datasets.values()}) > 1:
        raise InputError(f"{source}: {', '.join(path.name for path in found.values())} have different categories")
    return datasets


def _new_names(file_names: Sequence[str], source: Path) -> dict[str, str]:
    """Names without folders and suffix, by which other tools tell images apart; with their folders where they need."""
    paths = {name: PurePosixPath(name) for name in file_names}
    bare = {
        name: path.with_suffix("") if path.suffix.lower() in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES) else path
        for name, path in paths.items()
    }
    times = Counter(path.name.lower() for path in bare.values())
    new = {name: path.name if times[path.name.lower()] == 1 else "_".join(path.parts) for name, path in bare.items()}
    again = Counter(each.lower() for each in new.values())
    faults = [f"image {name!r} would be {each!r}, as another" for name, each in new.items() if again[each.lower()] > 1]
    raise_faults(faults, where=str(source), advice="Rename the files, and convert again.")
    return new


def _copy(record: ImageRecord, source: Path, target: Path, window: Window) -> str | None:
    """Write an image of 8 bits; answers what is wrong with it."""
    try:
        pixels = read_image(source)
    except InputError as error:
        return str(error)
    if pixels.shape != record.size_hw:
        return f"{source}: has {pixels.shape} pixels (height, width); the data set says {record.size_hw}"
    write_png(target, to_8_bits(pixels, window))
    return None
