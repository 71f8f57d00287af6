"""One image of CBIS-DDSM: from its files and rows to a record with lesions. Runs in worker processes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mammodet.converters.base import ARCHIVE_LINK, Quarantined, Reason
from mammodet.converters.cbis_ddsm.archive import SourceFile
from mammodet.converters.cbis_ddsm.roi import Roi, read_roi
from mammodet.converters.cbis_ddsm.table import RoiRow
from mammodet.converters.mask_files import LesionError, is_lossy, resize_mask, two_valued
from mammodet.converters.options import flag
from mammodet.converters.pixels import SizeOptions
from mammodet.converters.skeleton import Made
from mammodet.data.breast import find_breast
from mammodet.data.dicom import read_dicom
from mammodet.data.images import is_dicom, read_image, write_jpeg, write_png
from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_box
from mammodet.records import ImageRecord, Lesion
from mammodet.trace import Trace

NAME = "CBIS-DDSM"
ABNORMALITIES = {"mass": "mass", "calc": "calcification"}


@pydantic_dataclass(frozen=True)
class ImageOptions(SizeOptions):
    """What the pixels and the lesions of an image become."""

    categories: Literal["abnormality", "lesion", "pathology"] = flag(
        "abnormality", "'abnormality': mass, calcification; 'lesion': all in one; 'pathology': benign, malignant"
    )
    file_format: Literal["png16", "jpg", "reference"] = flag(
        "png16",
        "'png16': lossless, in the depth of the archive's file; 'jpg': 8 bit; 'reference': no copies, the data set "
        "links to the archive's files",
        name="format",
    )
    without_callback: Literal["benign", "unknown"] = flag("benign", "what the pathology BENIGN_WITHOUT_CALLBACK means")


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image and what belongs to it."""

    rows: tuple[RoiRow, ...]  #: its lesions
    left_out: tuple[RoiRow, ...]  #: rows of the abnormality that is not converted
    #: for each of its case folders (two where the image is in the mass and the calcification set), in order of
    #: preference, the files there.
    cases: Mapping[str, tuple[SourceFile, ...]]
    roi_files: tuple[tuple[SourceFile, ...], ...]  #: for each row, the files of its own case
    incomplete: bool = False  #: the tables hold a row of this image that cannot be used

    @property
    def name(self) -> str:
        """`P_00001_LEFT_CC`."""
        return "_".join(self.rows[0].image_case.split("_")[1:])

    def paths(self) -> list[Path]:
        """Every file that is looked at."""
        groups = [*self.cases.values(), *self.roi_files]
        return [file.path for files in groups for file in files]


def convert_image(task: ImageTask, source: Path, output: Path, options: ImageOptions, *, phantom: bool) -> Made:
    """Convert one image; what cannot be converted is in the result's quarantine; `facts` are counts for the summary."""
    cv2.setNumThreads(1)  # the processes share the cores already
    facts: Counter[str] = Counter()
    quarantine: list[Quarantined] = []
    base, path, pixels, faults = _read_first(task.cases)
    if pixels is None or path is None:
        absent = [f"no file for {case}" for case, files in task.cases.items() if not files]
        reason = _relative("; ".join([*faults, *absent]), source)
        images = [file for group in task.cases.values() for file in group]
        quarantine = [Quarantined(Reason.UNREADABLE, "image", task.name, reason, _names(images, source))]
        for row, files in zip(task.rows, task.roi_files, strict=True):
            text = f"its image cannot be read: {reason}"
            quarantine.append(Quarantined(Reason.IMAGE_LOST, "lesion", row.name, text, _names(files, source)))
        return Made(None, tuple(quarantine), facts)
    # The image is in the other set, too, but the user's copy of this file is damaged all the same.
    quarantine += [Quarantined(Reason.UNREADABLE, "file", task.name, _relative(fault, source)) for fault in faults]
    other_images = {case: _difference(pixels, files) for case, files in task.cases.items() if case != base and files}
    facts["images in both sets"] += len(task.cases) > 1
    stored, trace = _fit_size(pixels, options.longest_side)
    lesions: list[Lesion] = []
    unlocalized = task.incomplete
    notes = ["a row of the tables that belongs to this image cannot be used"] if task.incomplete else []
    for row, files in zip(task.rows, task.roi_files, strict=True):
        try:
            if difference := other_images.get(row.image_case):
                raise LesionError(f"the image of {row.image_case} is not that of {base}: {difference}")
            roi = read_roi(files, pixels)
        except LesionError as fault:
            reason = _relative(str(fault), source)
            quarantine.append(Quarantined(Reason.NO_PLACE, "lesion", row.name, reason, _names(files, source)))
            notes.append(f"lesion {row.name} quarantined: {reason}")
            unlocalized = True
            continue
        lesion = _lesion(row, roi, stored.shape[:2], options)
        lesions.append(lesion)
        _count(facts, row, roi)
    file_name = _write(stored, task.name, path, source, output, options)
    return Made(
        replace(
            _record(task, stored.shape[:2], trace, options, phantom=phantom),
            file_name=file_name,
            breast_box_xyxy=find_breast(stored).box_xyxy,
            unlocalized=unlocalized or any(lesion.ignore for lesion in lesions),
            notes=(*_notes(task), *notes),
            lesions=tuple(lesions),
        ),
        tuple(quarantine),
        facts,
    )


def _relative(text: str, source: Path) -> str:
    """A message without the folder that every file lies in."""
    return text.replace(f"{source}{os.sep}", "")


def _names(files: Sequence[SourceFile], source: Path) -> str:
    return "; ".join(file.path.relative_to(source).as_posix() for file in files)


def _read_first(
    cases: Mapping[str, Sequence[SourceFile]],
) -> tuple[str | None, Path | None, NDArray[Any] | None, list[str]]:
    """The first full image that can be read: its case, file, pixels; and the faults of those before it."""
    faults: list[str] = []
    for case, files in cases.items():
        # Of two copies the one that has lost nothing: a DICOM file before the JPEG edition's.
        for file in sorted(files, key=lambda file: (is_lossy(file.path), file.path)):
            if file.claim not in (None, "image"):
                faults.append(f"{file.path}: is named a {file.claim}, not a full image")
                continue
            try:
                return case, file.path, _read_full(file.path), faults
            except InputError as error:
                faults.append(str(error))
    return None, None, None, faults


def _read_full(path: Path) -> NDArray[Any]:
    pixels = read_dicom(path, window=None)[0] if is_dicom(path) else read_image(path)
    if two_valued(pixels, lossy=False) is not None:
        raise InputError(f"{path}: has no more than two values; expected a mammogram, this is a mask or an empty image")
    return pixels


def _difference(pixels: NDArray[Any], files: Sequence[SourceFile]) -> str | None:
    """How the same image of the other set differs from this one; None where it is the same picture."""
    try:
        other = _read_full(files[0].path)
    except InputError:
        return None  # its masks are still checked against this image's size
    if np.array_equal(other, pixels):
        return None
    small = [
        cv2.resize(image, (64, 128), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        for image in (pixels, other)
    ]
    correlation = float(np.corrcoef(small[0], small[1])[0, 1]) if all(image.std() > 0 for image in small) else 0.0
    return None if correlation > 0.98 else f"their correlation is {correlation:.2f}"


def _fit_size(pixels: NDArray[Any], max_size: int | None) -> tuple[NDArray[Any], Trace | None]:
    height, width = pixels.shape
    scale = min(1.0, max_size / max(height, width)) if max_size else 1.0
    if scale == 1.0:
        return pixels, None
    size_hw = max(round(height * scale), 1), max(round(width * scale), 1)
    resized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_AREA)
    return resized, Trace((height, width)).then("resize", *size_hw)


def _write(stored: NDArray[Any], name: str, path: Path, source: Path, output: Path, options: ImageOptions) -> str:
    if options.file_format == "reference":
        return f"{ARCHIVE_LINK}/{path.relative_to(source).as_posix()}"
    if options.file_format == "jpg":
        write_jpeg(output / "images" / f"{name}.jpg", stored)
        return f"images/{name}.jpg"
    write_png(output / "images" / f"{name}.png", stored)
    return f"images/{name}.png"


def _pathology(row: RoiRow, options: ImageOptions) -> str | None:
    if row.pathology == "BENIGN_WITHOUT_CALLBACK":
        return "benign" if options.without_callback == "benign" else None
    return row.pathology.lower()


def _lesion(row: RoiRow, roi: Roi, size_hw: tuple[int, ...], options: ImageOptions) -> Lesion:
    stored_hw = (size_hw[0], size_hw[1])
    mask = roi.mask if roi.mask.shape == stored_hw else resize_mask(roi.mask, stored_hw)
    rle = mask_to_rle(mask)
    pathology = _pathology(row, options)
    schemes = {"abnormality": ABNORMALITIES[row.abnormality], "lesion": "lesion", "pathology": pathology or "benign"}
    attributes: dict[str, Any] = {
        "abnormality": ABNORMALITIES[row.abnormality],
        "pathology": pathology,
        "pathology_csv": row.pathology,
        **row.attributes,
        "roi": row.name,
        "area_native_px": int(np.count_nonzero(roi.mask)),
    }
    if roi.note:
        attributes["mask_note"] = roi.note
    return Lesion(
        category=schemes[options.categories],
        box_xyxy=rle_box(rle),
        rle=rle,
        geometry="contour",
        attributes=attributes,
        # Of which class it is cannot be said, so it is neither a target nor background.
        ignore=options.categories == "pathology" and pathology is None,
    )


def _count(facts: Counter[str], row: RoiRow, roi: Roi) -> None:
    if roi.note:
        facts["masks placed by their crop" if roi.by_crop else "masks rescaled"] += 1
    written = PurePosixPath(row.crop_path).parts
    facts["crop and mask swapped in the table"] += bool(written) and roi.mask_path.parts[-len(written) :] == written
    if roi.crop_agrees is not None:
        facts["crop has the size of the mask's box"] += roi.crop_agrees
        facts["crop has another size"] += not roi.crop_agrees


def _record(
    task: ImageTask, size_hw: tuple[int, ...], trace: Trace | None, options: ImageOptions, *, phantom: bool
) -> ImageRecord:
    """Everything about the image that its rows tell."""
    first = task.rows[0]
    patient = int(first.patient.split("_")[1])
    assessments = [row.attributes["assessment"] for row in task.rows if "assessment" in row.attributes]
    densities = [row.density for row in task.rows if row.density]
    return ImageRecord(
        # A number that does not depend on which part of the archive is converted.
        image_id=patient * 4 + 2 * (first.laterality == "R") + (first.view == "MLO"),
        file_name=task.name,
        size_hw=(size_hw[0], size_hw[1]),
        patient_id=f"{'phantom_' if phantom else ''}{first.patient}",
        laterality=first.laterality,
        view=first.view,
        density=max(densities) if densities else None,
        birads=str(max(assessments)) if assessments else None,
        labels={"tumor": 1, "malignant": _malignant(task, options)},
        source="phantom" if phantom else NAME,
        trace=trace.to_json() if trace else None,
    )


def _malignant(task: ImageTask, options: ImageOptions) -> int | None:
    """The worst of the lesions; unknown where one that is not converted, or not known, could be worse."""
    if any(row.pathology == "MALIGNANT" for row in task.rows):
        return 1
    hidden = task.incomplete or any(row.pathology == "MALIGNANT" for row in task.left_out)
    unknown = any(_pathology(row, options) is None for row in (*task.rows, *task.left_out))
    return None if hidden or unknown else 0


def _notes(task: ImageTask) -> list[str]:
    notes: list[str] = []
    if left_out := Counter((ABNORMALITIES[row.abnormality], row.pathology) for row in task.left_out):
        also = ", ".join(f"{count} {kind} ({word})" for (kind, word), count in sorted(left_out.items()))
        notes.append(f"also holds, not converted: {also}")
    if any(row.density is None for row in task.rows):
        notes.append("density 0 in the table: not assessed")
    if len({row.density for row in task.rows if row.density}) > 1:
        notes.append("the rows differ in density; the highest is kept")
    return notes
