"""What `predict` is given - files, folders, globs, DICOMDIR, zip files, data sets - as one data set of images.

Every file that is found is an image of the data set, or is listed with the reason: `skipped` has a fault, `left_out` is
none of the images to look at (`mammodet.data.study`).
"""

import glob
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from time import mktime

from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import has_dataset
from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_dicom, is_image, read_size_hw
from mammodet.data.json_values import check_file_name, check_new_name
from mammodet.data.study import Exam, StudyFile, exams_of, left_out, repeated
from mammodet.errors import InputError, printable
from mammodet.files import check_is_file, locked
from mammodet.folders import walk_files
from mammodet.records import Dataset, ImageRecord

_MOST_MEMBERS = 200_000  # of a zip file
_MOST_RATIO, _SLACK_BYTES = 50, 2**28  # unpacked bytes per packed one: mammograms take 2 to 20; a bomb 1000 and more
_MOST_MEMBER_BYTES = 2**29  # the largest image that is read has 2^26 pixels of 16 bits
#: What reading a damaged, encrypted or unusual zip file raises.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError)
_GROUPS = ("patient", "study", "laterality", "view")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not predicted, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Images to look at."""

    dataset: Dataset
    root: Path  #: folder that the images' names start from
    skipped: tuple[Skipped, ...] = ()  #: files with a fault
    left_out: tuple[Skipped, ...] = ()  #: files that are none of the images to look at
    files: dict[str, StudyFile] = field(default_factory=dict)  #: what DICOM headers say, by file name
    exams: tuple[Exam, ...] = ()  #: the images by study


@dataclass(slots=True)
class _Found:
    """Files in the order in which they are given, and what was said of others on the way."""

    paths: dict[Path, None] = field(default_factory=dict)
    records: dict[Path, ImageRecord] = field(default_factory=dict)  # of data sets
    skipped: list[tuple[Path | str, str]] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def gather(
    inputs: Sequence[str | Path], categories: Sequence[str], *, unpack_to: Path, pattern: str | None = None
) -> Inputs:
    """Find the images in everything that is given.

    Of a DICOM file patient, side, view and pixel spacing are taken from its header; of other files nothing is known but
    what a pattern finds in their names. One data set alone stays as it is, with its truth.

    Args:
        inputs: image or DICOM files, DICOMDIR, zip files, folders (searched to their depth), data sets (COCO JSON), or
            globs of them.
        unpack_to: folder for the content of zip files; `unpacked` makes and removes one.
        pattern: regular expression whose groups `patient`, `study`, `laterality` and `view` are searched in the file
            names, for what headers do not say.
    Raises:
        InputError: nothing is there, or no image in it.
    """
    matcher = _compile(pattern)
    paths = [path for given in inputs for path in expand(given)]
    if len(paths) == 1 and paths[0].suffix.lower() == ".json":
        dataset = read_coco(paths[0])
        return Inputs(dataset, paths[0].parent, exams=tuple(exams_of(dataset.images, {}, {})))
    found, bases = _Found(), []
    for number, path in enumerate(paths):
        bases.append(_add(path, found, unpack_to / f"{number:03d}_{path.stem}"))
    try:
        root = bases[0] if len(set(bases)) == 1 else Path(os.path.commonpath([base.resolve() for base in bases]))
    except ValueError:  # drives of Windows
        raise InputError(f"{', '.join(map(str, paths))}: lie on different drives; expected one") from None
    return _records(found, root, tuple(categories), matcher, [str(given) for given in inputs])


@contextmanager
def unpacked(output: Path) -> Iterator[Path]:
    """A folder for the content of zip files below an output folder, removed at the end."""
    folder = output / ".unpacked"
    made = not output.exists()
    try:
        with locked(folder, "another prediction unpacks there; wait for it, or choose another --output"):
            for path in [path for path in folder.iterdir() if path.is_dir()]:  # of a prediction that was killed
                shutil.rmtree(path)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        if made:
            with suppress(OSError):  # holds something
                output.rmdir()


def expand(given: str | Path) -> list[Path]:
    """What is there of a path or glob. Raises InputError: nothing."""
    path = Path(given)
    there = path.exists() or has_dataset(path)  # `all.json` and folds are made when they are read
    if there or not glob.has_magic(str(given)):
        if not there:
            raise InputError(
                f"{given}: no such file or folder; expected images, DICOM files, DICOMDIR, zip files, folders of them, "
                "or a data set's JSON"
            )
        return [path]
    matches = sorted(glob.glob(str(given), recursive=True))
    if not matches:
        raise InputError(f"{given}: no file has such a name")
    return [Path(match) for match in matches]


def _add(path: Path, found: _Found, unpack_to: Path) -> Path:
    """Note the files of one input; answers the folder that their names start from."""
    if path.is_dir():
        _add_folder(path, found)
        return path
    if path.suffix.lower() == ".json":
        for record in read_coco(path).images:
            found.records[path.parent / record.file_name] = replace(record, lesions=())
            found.paths.setdefault(path.parent / record.file_name)
    elif path.suffix.lower() == ".zip":
        _unpack(path, unpack_to, found)
        _add_folder(unpack_to, found)
        return unpack_to
    elif path.name.upper() == "DICOMDIR":
        _add_dicomdir(path, found)
    else:
        found.paths.setdefault(path)
    return path.parent


def _add_folder(folder: Path, found: _Found) -> None:
    drawn = {page.parent for page in folder.rglob("index.html") if (page.parent / "thumbnails").is_dir()}
    found.left_out += [(each, "holds pictures that mammodet has drawn") for each in sorted(drawn)]
    for path in sorted(place / name for place, names in walk_files(folder) for name in names):
        if path.name.upper() == "DICOMDIR" or not drawn.isdisjoint(path.parents):
            continue
        if is_image(path):
            found.paths.setdefault(path)
        elif path.suffix.lower() == ".zip":
            found.left_out.append((path, "is a zip file in a folder; name it after --input"))
        else:
            found.left_out.append((path, f"is no image by its name ({path.suffix or 'no suffix'}) and content"))


def _add_dicomdir(path: Path, found: _Found) -> None:
    """The files that a DICOMDIR lists (PS3.3 F.3); media may have been copied with names in lower case."""
    from pydicom.datadict import tag_for_keyword

    from mammodet.data.dicom import tags
    from mammodet.data.dicom.file import open_dicom

    with open_dicom(path, [tag_for_keyword("DirectoryRecordSequence") or 0]) as file:
        items = tags.items(file.dataset, "DirectoryRecordSequence")
        names = [tags.text(item, "ReferencedFileID") for item in items]
    listed = [PurePosixPath(*name.split("\\")) for name in names if name]
    if not listed:
        raise InputError(f"{path}: lists no files; expected a DICOMDIR")
    for name in listed:
        if check_new_name(str(name)) is not None:
            found.skipped.append((path, f"lists {printable(str(name))!r}, which leaves its folder"))
            continue
        there = [path.parent / each for each in (str(name), str(name).lower()) if (path.parent / each).is_file()]
        if there:
            found.paths.setdefault(there[0])
        else:
            found.skipped.append((path.parent / name, "is listed in DICOMDIR, and not there"))


def _unpack(path: Path, folder: Path, found: _Found) -> None:
    """Unpack a zip file into a folder, bounded in size, and nowhere else."""
    check_is_file(path, "a zip file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_size(path, members, folder)
            for member in members:
                reason = _refusal(member, folder)
                if reason is None:
                    try:
                        _write_member(archive, member, folder / member.filename)
                        continue
                    except DAMAGED_ZIP as error:
                        reason = f"cannot be unpacked ({str(error)[:120]})"
                        (folder / member.filename).unlink(missing_ok=True)
                found.skipped.append((f"{path.name}: {_shown(member.filename)}", reason))
    except (zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no zip file, or damaged ({str(error)[:120]})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked to {folder} ({error.strerror or error})") from None


def _check_size(path: Path, members: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    total, packed = sum(member.file_size for member in members), path.stat().st_size
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if len(members) > _MOST_MEMBERS:
        raise InputError(f"{path}: holds {len(members)} files; expected {_MOST_MEMBERS} or fewer")
    if total > _MOST_RATIO * packed + _SLACK_BYTES:
        raise InputError(
            f"{path}: states {total} bytes in {packed}, more than {_MOST_RATIO} times its size: is it a bomb? "
            "Unpack it yourself and name the folder"
        )
    if total > free // 2:
        raise InputError(f"{path}: needs {total} bytes unpacked; {folder} has {free} free, of which half may be used")


def _refusal(member: zipfile.ZipInfo, folder: Path) -> str | None:
    if check_file_name(member.filename):
        return "its name leaves the folder"
    if (fault := check_new_name(member.filename)) is not None:
        return f"its name {fault}"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted; unpack it yourself"
    if member.file_size > _MOST_MEMBER_BYTES:
        return f"has {member.file_size} bytes; expected {_MOST_MEMBER_BYTES} or fewer"
    return "is there twice" if (folder / member.filename).exists() else None


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file)
    except (FileExistsError, NotADirectoryError):
        raise ValueError("a folder of the zip file has the same name") from None
    # of the zip file, so that an interrupted prediction goes on (its images have not changed)
    with suppress(OverflowError, ValueError):
        when = mktime((*member.date_time, 0, 0, -1))
        os.utime(target, (when, when))


def _records(
    found: _Found, root: Path, categories: tuple[str, ...], matcher: re.Pattern[str] | None, given: Sequence[str]
) -> Inputs:
    skipped, left = (
        [Skipped(_name(path, root), reason) for path, reason in pairs] for pairs in (found.skipped, found.left_out)
    )
    records: dict[str, ImageRecord] = {}
    files: dict[str, StudyFile] = {}
    exams: dict[str, str] = {}
    matched = 0
    for path in found.paths:
        name = _name(path, root)
        fault = check_new_name(_relative(path, root))
        if fault is not None:
            skipped.append(Skipped(name, f"its name {fault}; rename it"))
            continue
        try:
            record, file = read_record(path, name, found.records.get(path))
        except InputError as error:
            skipped.append(Skipped(name, str(error)))
            continue
        if file is not None and file.unfit is not None:
            left.append(Skipped(name, file.unfit))
            continue
        if matcher is not None and (match := matcher.search(name)) is not None:
            matched += 1
            record, study = _by_name(record, match.groupdict())
            exams |= {name: study} if study else {}
        records[name] = record
        files |= {name: file} if file is not None else {}
    if matcher is not None and not matched and any(name not in files for name in records):
        raise InputError(f"--pattern {matcher.pattern!r}: is found in no file name, such as {next(iter(records))!r}")
    copies, others = repeated(files)
    reasons = copies | left_out({name: file for name, file in files.items() if name not in copies | others})
    left += [Skipped(name, reason) for name, reason in reasons.items()]
    skipped += [Skipped(name, reason) for name, reason in others.items()]
    chosen = [record for name, record in records.items() if name not in reasons | others]
    if not chosen:
        shown = "; ".join(f"{item.file_name}: {item.reason}" for item in [*skipped, *left][:3])
        suffixes = ", ".join((*IMAGE_SUFFIXES, *DICOM_SUFFIXES))
        raise InputError(f"{', '.join(given)}: no readable image; expected {suffixes}. {shown}".strip())
    images = tuple(replace(record, image_id=number) for number, record in enumerate(chosen, 1))
    return Inputs(
        Dataset(categories, images), root, tuple(skipped), tuple(left), files, tuple(exams_of(images, files, exams))
    )


def _relative(path: Path, root: Path) -> str:
    """The path below the root, with `/`; a data set's images may lie elsewhere by links, not by names."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return Path(os.path.relpath(path.parent.resolve() / path.name, root)).as_posix()


def _name(path: Path | str, root: Path) -> str:
    return _shown(path if isinstance(path, str) else _relative(path, root))


def _shown(name: str) -> str:
    return printable(name).replace("\n", "\\n")


def read_record(path: Path, name: str, known: ImageRecord | None = None) -> tuple[ImageRecord, StudyFile | None]:
    """What a file's header says of the image and, if it is DICOM, of its exam; of unfit objects no size.

    Args:
        name: of the image; known: what a data set says of it.

    Raises:
        InputError: it cannot be read.
    """
    if not is_dicom(path):
        if known is None:
            return ImageRecord(image_id=1, file_name=name, size_hw=read_size_hw(path)), None
        return replace(known, file_name=name), None
    from mammodet.data.dicom import read_header
    from mammodet.data.dicom.study_file import read_study_file

    file = read_study_file(path)
    if file.unfit is not None:
        return ImageRecord(image_id=1, file_name=name, size_hw=(1, 1)), file
    if known is not None:
        return replace(known, file_name=name), file
    header = read_header(path)
    return (
        ImageRecord(
            image_id=1,
            file_name=name,
            size_hw=header.size_hw,
            patient_id=file.patient_id,
            laterality=file.laterality,
            view=file.view,
            spacing_mm_rc=header.spacing_mm_rc,
        ),
        file,
    )


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        matcher = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"--pattern {pattern!r}: is no regular expression ({error})") from None
    strange = sorted(set(matcher.groupindex) - set(_GROUPS))
    if strange or not matcher.groupindex:
        named = ", ".join(f"(?P<{group}>...)" for group in _GROUPS)
        raise InputError(f"--pattern {pattern!r}: has the groups {strange or 'none'}; expected some of {named}")
    return matcher


def _by_name(record: ImageRecord, groups: dict[str, str | None]) -> tuple[ImageRecord, str | None]:
    """A record with what its header does not say, and the exam."""
    side = {"L": "L", "R": "R"}.get((groups.get("laterality") or "")[:1].upper())
    view = (groups.get("view") or "").upper() or None
    filled = replace(
        record,
        patient_id=record.patient_id or groups.get("patient"),
        laterality=record.laterality or side,
        view=record.view or view,
    )
    return filled, groups.get("study")
