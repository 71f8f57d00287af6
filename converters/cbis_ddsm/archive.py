"""Where the files of CBIS-DDSM lie, in each layout in which the archive is passed on.

| layout | example |
|---|---|
| `tcia` | `Mass-Training_P_00001_LEFT_CC/1.3.6.../1.3.6.../000000.dcm`, as the tables say |
| `tcia_dated` | `Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-NA-30288/1.000000-full mammogram images-24515/1-1.dcm` |
| `kaggle_jpeg` | `csv/dicom_info.csv`, `jpeg/1.3.6.../1-172.jpg` |
| `flat_png` | `Mass-Training_P_00001_LEFT_CC.png`, `..._1_MASK.png`, `..._1_CROP.png`, in any folder |
| `by_header` | `1.3.6....dcm`, `0a1b2c3d-....dcm`, in any folder: the header's Patient ID is the case |

Files are found by the case they belong to: the folder `Mass-Training_P_00001_LEFT_CC` has the full image,
`Mass-Training_P_00001_LEFT_CC_1` the crop and the mask of its lesion number 1. Which of two files is which is not
decided here; names and tables say it wrongly too often.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mammodet.data.dicom import read_header
from mammodet.data.images import IMAGE_SUFFIXES, is_dicom
from mammodet.data.json_values import check_file_name
from mammodet.errors import InputError
from mammodet.folders import walk_files

_CASE = r"(?:Mass|Calc)-(?:Training|Test)_P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO)(?:_\d+)?"
_CASE_FOLDER = re.compile(_CASE)
_CASE_FILE = re.compile(rf"({_CASE})(?![0-9])[ _.-]*([A-Za-z]*).*", re.DOTALL)
_UID = re.compile(r"\d+(?:\.\d+){5,}")
_DATED = re.compile(r"\d+\.\d+-.*")
_ROLES = {"full": "image", "image": "image", "mask": "mask", "roi": "mask", "crop": "crop", "cropped": "crop"}

LAYOUTS = {
    "tcia": "TCIA, original (UID folders, 000000.dcm)",
    "tcia_dated": "TCIA, newer (dated folders, 1-1.dcm)",
    "kaggle_jpeg": "Kaggle JPEG edition (dicom_info.csv)",
    "flat_png": "image files named by case",
    "by_header": "DICOM files told by their headers",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the archive, and what its name or series description claims: `image`, `mask`, `crop` or None."""

    path: Path
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """The files of an archive by case, and by series UID where the layout tells it."""

    root: Path  #: what the user named
    layouts: Mapping[str, int]  #: layout to its number of files
    by_case: Mapping[str, Sequence[SourceFile]]
    by_series: Mapping[str, Sequence[SourceFile]]

    def files(self, case: str, table_paths: Iterable[str] = ()) -> list[SourceFile]:
        """The files of a case; in the JPEG edition also those of the series that the tables name for it."""
        found = {file.path: file for file in self.by_case.get(case, ())}
        for text in table_paths:
            for series in PurePosixPath(text).parts[2:-1]:
                for file in self.by_series.get(series, ()):
                    found.setdefault(file.path, file)
        return [found[path] for path in sorted(found)]

    def layout_text(self) -> str:
        """What was recognised, for the summary."""
        return "; ".join(f"{LAYOUTS[name]}: {count} files" for name, count in self.layouts.items())


def find_archive(source: Path) -> Archive:
    """Look through a folder and recognise what lies there. Raises InputError: nothing of CBIS-DDSM is there."""
    by_case: dict[str, list[SourceFile]] = {}
    by_series: dict[str, list[SourceFile]] = {}
    layouts: Counter[str] = Counter()
    other: list[str] = []
    jpeg_tables: list[Path] = []
    is_series: dict[Path, bool] = {}
    for folder, names in walk_files(source):
        if "dicom_info.csv" in names:
            jpeg_tables.append(folder / "dicom_info.csv")
        case = next((part for part in reversed(folder.parts) if _CASE_FOLDER.fullmatch(part)), None)
        series = folder.name if _UID.fullmatch(folder.name) else None
        for name in names:
            path = folder / name
            if not path.is_file():  # a pipe, or a link to nothing
                continue
            dicom = is_dicom(path)
            if dicom and case is not None:
                by_case.setdefault(case, []).append(SourceFile(path, _claim(folder.name)))
                layouts["tcia_dated" if _DATED.fullmatch(folder.name) else "tcia"] += 1
            elif dicom and series is not None and is_series.setdefault(folder, _told_by(path)[1] in (None, series)):
                by_series.setdefault(series, []).append(SourceFile(path))
                layouts["tcia"] += 1
            elif dicom or path.suffix.lower() in IMAGE_SUFFIXES:
                if named := _CASE_FILE.fullmatch(path.stem):
                    by_case.setdefault(named[1], []).append(SourceFile(path, _ROLES.get(named[2].lower())))
                    layouts["flat_png"] += 1
                elif dicom and (told := _told_by(path)[0]) is not None:
                    by_case.setdefault(told, []).append(SourceFile(path))
                    layouts["by_header"] += 1
                elif series is not None:
                    by_series.setdefault(series, []).append(SourceFile(path))
                    layouts["kaggle_jpeg"] += 1
                else:
                    other.append(name)
    for table in jpeg_tables:
        _read_dicom_info(table, by_case, by_series)
    if not by_case and not by_series:
        found = f"; images that are there: {', '.join(other[:3])} ..." if other else ""
        raise InputError(
            f"{source}: no images of CBIS-DDSM; expected folders or files named like Mass-Training_P_00001_LEFT_CC, "
            f"or the JPEG edition with csv/dicom_info.csv and jpeg/{found}"
        )
    _check_names(file.path for group in (*by_case.values(), *by_series.values()) for file in group)
    return Archive(source, dict(layouts), by_case, by_series)


def _check_names(paths: Iterable[Path]) -> None:
    """Refuse names that no JSON file can hold, before anything is converted."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(path)!a}: its name is not UTF-8; rename it") from None


def _told_by(path: Path) -> tuple[str | None, str | None]:
    """The case and the series that a DICOM file's header names."""
    try:
        header = read_header(path)
    except InputError:
        return None, None
    case = header.patient_id or ""
    return case if _CASE_FOLDER.fullmatch(case) else None, header.series_uid


def _claim(text: str) -> str | None:
    """What a series description, or a folder's name made of it, says."""
    lower = text.lower()
    for word, role in (("full mammogram", "image"), ("roi mask", "mask"), ("cropped", "crop")):
        if word in lower:
            return role
    return None


def _read_dicom_info(table: Path, by_case: dict[str, list[SourceFile]], by_series: dict[str, list[SourceFile]]) -> None:
    """Give the JPEG edition's files their cases and what their series descriptions claim."""
    files = {file.path: file for group in by_series.values() for file in group}
    # Paths in the table start above the archive's own folder: CBIS-DDSM/jpeg/<series>/1-172.jpg
    places = {(path.parent.name, path.name): path for path in files}
    try:
        with open(table, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"image_path", "PatientID", "SeriesDescription"} - set(reader.fieldnames or [])
            if missing:
                raise InputError(f"{table}: column {', '.join(sorted(missing))} missing; expected Kaggle's table")
            for row in reader:
                image_path, case = row["image_path"] or "", (row["PatientID"] or "").strip()
                if check_file_name(image_path) or not _CASE_FOLDER.fullmatch(case):
                    continue
                *_, series, name = ("", *PurePosixPath(image_path).parts)
                if path := places.get((series, name)):
                    by_case.setdefault(case, []).append(SourceFile(path, _claim(row["SeriesDescription"] or "")))
    except csv.Error as error:
        raise InputError(f"{table}: cannot be read as a table ({error})") from None
