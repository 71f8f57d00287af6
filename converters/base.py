"""What every converter shares: its summary, its quarantine list, and how a converted data set lies on disk.

output/
  images/...                      the images, lossless
  train.json val.json test.json   the holdout, in the order of image ids
  splits.json                     patient to subset and fold, seed, hash
  summary.json quarantine.csv
"""

import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mammodet.converters.options import SplitOptions
from mammodet.data.coco import data_hash, write_coco
from mammodet.data.dataset_files import IMAGES, QUARANTINE, SPLITS, SUMMARY, stored_files, write_splits
from mammodet.data.splits import Splits, make_splits
from mammodet.errors import InputError
from mammodet.files import csv_text, remove_leftovers, write_json, write_text
from mammodet.records import SUBSETS, Dataset, ImageRecord
from mammodet.version import VERSION


class Reason(StrEnum):
    """Why something was left out."""

    UNREADABLE = "unreadable"  # its file
    NO_FILE = "no_file"
    NO_ROW = "no_row"  # in no table
    BAD_ROW = "bad_row"  # or one that speaks of no image
    BAD_NAME = "bad_name"  # that no file of the archive has
    DUPLICATE = "duplicate"
    OUTSIDE = "outside"  # its place is outside of the image
    NO_PLACE = "no_place"  # its place, or its outline, cannot be used
    OTHER_SIZE = "other_size"
    CONTRADICTION = "contradiction"
    IMAGE_LOST = "image_lost"  # the image that it is on is left out


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something left out of the data set, and why. `what`: `image`, `circle`, `line`, `lesion`, ..."""

    kind: Reason
    what: str
    name: str
    reason: str
    file: str = ""


@dataclass
class Summary:
    """What a conversion did."""

    archive: str
    source: str
    output: str
    counts: dict[str, Any] = field(default_factory=dict)  #: named counts, nested one level (`{"class": {"CALC": 25}}`)
    checks: dict[str, Any] = field(default_factory=dict)  #: results of the converter's checks on its own output
    quarantine: list[Quarantined] = field(default_factory=list)  #: what was left out
    warnings: list[str] = field(default_factory=list)  #: what the user should look at

    def by_kind(self) -> dict[str, int]:
        """Reasons of the quarantine, and how often each occurs."""
        return dict(sorted(Counter(str(item.kind) for item in self.quarantine).items()))

    def to_text(self) -> str:
        """A table for the screen."""
        lines = [f"{self.archive}: {self.source} -> {self.output}"]
        for name, value in [*self.counts.items(), *self.checks.items()]:
            if isinstance(value, Mapping):
                value = ", ".join(f"{key} {number}" for key, number in value.items())
            lines.append(f"  {name:<22} {value}")
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.by_kind().items())
        lines.append(f"  {'quarantine':<22} {len(self.quarantine)}{f' ({kinds})' if kinds else ''}")
        lines += [f"    {item.what} {item.name}: {item.reason}" for item in self.quarantine[:20]]
        if len(self.quarantine) > 20:
            lines.append(f"    ... {len(self.quarantine) - 20} more in quarantine.csv")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def counted(values: Iterable[object], nothing: str = "unknown") -> dict[str, int]:
    """How often each value occurs, None as `nothing`."""
    return dict(sorted(Counter(nothing if value is None else str(value) for value in values).items()))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of several names, and how many there are."""
    return ", ".join(names[:most]) + (f" ... (in all {len(names)})" if len(names) > most else "")


def check_folders(source: Path, output: Path) -> None:
    """Refuse a missing source, and an output that would write into the archive."""
    for folder in (source, output):
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(folder)!a}: its name is not UTF-8; rename the folder") from None
    if not source.exists():
        raise InputError(f"{source}: no such folder; --source is the archive's unpacked folder")
    if not source.is_dir():
        raise InputError(f"{source}: is a file; --source is a folder (unpack the archive first)")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; --output is a folder")
    if output.resolve() == source.resolve() or source.resolve() in output.resolve().parents:
        raise InputError(f"{output}: lies in the archive {source}; choose an --output outside of it")
    if (output / IMAGES).resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output / IMAGES}: leads into the archive {source}; choose another --output")


def settle_sides(
    subsets: Mapping[str, Collection[str]], resolve_leaks: str | None
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Patient to the one subset that holds its images, and to all that it was given where there are several.

    Args:
        resolve_leaks: `train`: those of several go to the one nearer to training; else to that nearer to test.
    """
    choose = min if resolve_leaks == "train" else max
    settled = {patient: choose(found, key=SUBSETS.index) for patient, found in subsets.items()}
    several = {patient: sorted(found, key=SUBSETS.index) for patient, found in sorted(subsets.items())}
    return settled, {patient: found for patient, found in several.items() if len(found) > 1}


#: The link in a data set's folder by which it refers to the archive's own files.
ARCHIVE_LINK = "archive"


def link_archive(source: Path, output: Path, otherwise: str) -> None:
    """Make `output/archive`, a link to the archive, so that no file name leaves the data set's folder.

    Raises InputError: where the disk has no symbolic links.
    """
    link = output / ARCHIVE_LINK
    if link.is_symlink() and Path(os.readlink(link)) == source:
        return
    try:
        if link.is_symlink():
            link.unlink()
        link.symlink_to(source, target_is_directory=True)
    except OSError as error:
        raise InputError(
            f"{link}: a link to the archive cannot be made here ({error.strerror}); use {otherwise}, "
            "or a disk with symbolic links"
        ) from None


def link_file(target: Path, path: Path) -> None:
    """Make a symbolic link to a file, in one step, in place of whatever stands there.

    Raises InputError: where the disk has no symbolic links.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".link.", suffix=".tmp", dir=target.parent))
    try:
        os.symlink(path.resolve(), folder / "link")
        os.replace(folder / "link", target)
    except (OSError, NotImplementedError) as error:
        raise InputError(f"{target}: no symbolic link can be made here ({error}); use --images copy") from None
    finally:
        (folder / "link").unlink(missing_ok=True)
        folder.rmdir()


def write_outputs(
    output: Path,
    categories: Sequence[str],
    images: Sequence[ImageRecord],
    splits: Splits,
    summary: Summary,
    *,
    has_lesions: bool = True,
    knows_patients: bool = True,
) -> None:
    """Write the JSON files, the splits, the summary and the quarantine list; the images are there already.

    `summary` gets the counts per split. What a killed run left half written is removed.

    Args:
        has_lesions: the archive has lesions with a place: it is said if none is left of them.
        knows_patients: the archive says whose the images are: it is said if no patient has two.
    """
    if has_lesions and not any(not lesion.ignore for record in images for lesion in record.lesions):
        summary.warnings.insert(
            0, "THE DATA SET HAS NO LESIONS: no detector can be trained on it; quarantine.csv says what was left out"
        )
    if knows_patients and len(images) > 1 and len({record.patient_id for record in images}) == len(images):
        summary.warnings.append(
            f"every one of the {len(images)} images is a patient of its own: if women have several images, their ids "
            "are not what was taken for them, and one woman can lie on both sides of the split"
        )

    def provenance(name: str, subset: str) -> dict[str, Any]:
        split = {"name": name, "subset": subset, "seed": splits.seed, "hash": splits.hash}
        return {"archive": summary.archive, "version": VERSION, "split": split}

    placed = sorted(
        (replace(record, split=splits.subset(str(record.patient_id), None)) for record in images),
        key=lambda record: record.image_id,
    )
    remove_tables(output)
    for subset in SUBSETS:
        part = [record for record in placed if record.split == subset]
        summary.counts[subset] = split_counts(part)
        if part:
            dataset = Dataset(tuple(categories), tuple(part), provenance(splits.name, subset))
            write_coco(dataset, output / f"{subset}.json")
    for fold in range(max(splits.folds.values(), default=-1) + 1):
        for subset in ("train", "val"):
            part = [record for record in placed if splits.subset(str(record.patient_id), fold) == subset]
            summary.counts[f"fold{fold}_{subset}"] = split_counts(part)
    write_splits(output, splits)
    remove_leftovers(output, names=(SPLITS, SUMMARY, QUARANTINE, *(f"{subset}.json" for subset in SUBSETS)))
    remove_leftovers(output / IMAGES)
    rows = [[item.what, item.name, item.file, item.reason, item.kind.value] for item in summary.quarantine]
    write_text(output / QUARANTINE, csv_text([["what", "name", "file", "reason", "kind"], *rows]))
    summary.checks["split hash"] = splits.hash[:12]
    summary.checks["data hash"] = data_hash(Dataset(tuple(categories), tuple(placed)))[:12]
    write_json(output / SUMMARY, {**asdict(summary), "quarantined": summary.by_kind()}, indent=1)


def remove_tables(output: Path) -> None:
    """Remove the tables of an earlier conversion, which must not outlive its images."""
    for path in (*stored_files(output), *(output / name for name in (SPLITS, SUMMARY, QUARANTINE))):
        path.unlink(missing_ok=True)


def note_stretched(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Films are never square: a set whose images all are, in one size, has lost their shape."""
    sizes = {record.size_hw for record in records}
    height, width = next(iter(sizes))
    if len(sizes) > 1 or height != width:
        return list(records)
    note = f"stretched to {height}x{width}: lengths and shapes are not those of the film"
    return [replace(record, notes=(*record.notes, note)) for record in records]


def split_records(
    records: Sequence[ImageRecord], chosen: SplitOptions, given: Mapping[str, str] | None = None
) -> Splits:
    """Divide the patients of records, stratified by the worst that each has; `given` as in `make_splits`."""
    strata: dict[str, str] = {}
    for record in records:
        patient = str(record.patient_id)
        strata[patient] = max(strata.get(patient, ""), _stratum(record))
    return make_splits(
        strata,
        test_fraction=chosen.test_fraction,
        val_fraction=chosen.val_fraction,
        folds=chosen.folds,
        seed=chosen.seed,
        given={patient: given[patient] for patient in strata} if given is not None else None,
    )


def _stratum(record: ImageRecord) -> str:
    """Rising in seriousness when compared as text: normal < not known < tumor < malignant."""
    if record.label("malignant") == 1:
        kind = "3 malignant"
    elif record.label("tumor") == 1:
        kind = "2 tumor"
    else:
        kind = "0 normal" if record.label("tumor") == 0 else "1 not known"
    return kind + (" unlocalized" if record.unlocalized else "")


def split_counts(records: Sequence[ImageRecord]) -> dict[str, int]:
    """Patients, images, positive and unlocalized images, lesions."""
    return {
        "patients": len({record.patient_id for record in records}),
        "images": len(records),
        "tumor": sum(record.label("tumor") == 1 for record in records),
        "no tumor": sum(record.label("tumor") == 0 for record in records),
        "malignant": sum(record.label("malignant") == 1 for record in records),
        "unlocalized": sum(record.unlocalized for record in records),
        "lesions": sum(not lesion.ignore for record in records for lesion in record.lesions),
    }
