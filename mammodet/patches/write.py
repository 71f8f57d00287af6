"""Cut patches and write them as a data set with the same subsets as the one that they come from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodet.data.breast import find_breast
from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.dataset_files import SPLITS, SUMMARY
from mammodet.data.images import Pixels, read_image, write_png
from mammodet.data.predictions import match_to_dataset, read_predictions
from mammodet.errors import InputError, raise_faults
from mammodet.files import file_hash, read_json, remove_leftovers, write_json
from mammodet.parallel import in_parallel
from mammodet.patches import PatchOptions
from mammodet.patches.cut import file_trace, patch_record
from mammodet.patches.plan import (
    LEAST_SIDE,
    Patch,
    hard_patches,
    lesion_patches,
    lesion_sides,
    tissue_patches,
    why_no_negatives,
)
from mammodet.patches.source import Source, find_tables, patch_stems, read_source
from mammodet.records import SUBSETS, Dataset, ImagePrediction, ImageRecord
from mammodet.reporting.tables import Table, to_text
from mammodet.version import VERSION

LESIONS = "with a place"
Sides = Mapping[str | None, Sequence[int]]
_NO_SPLIT = "no subset"
_NO_CLASS = "(class not known)"
_MOST_NAMES = 5


@dataclass
class PatchSummary:
    """Counts of `make_patches`."""

    data: str
    output: str
    file_side: int  #: side of every patch file in pixels
    #: class to subset to patches; false positives stand apart from other `normal` ones.
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)  #: file to patches
    lesions: dict[str, int] = field(default_factory=dict)  #: what became of the lesions
    #: what became of the images that negatives were looked for on.
    negatives: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)  #: files of the images (or lesions) behind a count

    def add(self, group: str, what: str, name: str, count: int = 1) -> None:
        """Count something of `lesions` or `negatives`, and keep the name behind it."""
        counts: dict[str, int] = getattr(self, group)
        counts[what] = counts.get(what, 0) + count
        if count:
            self.names.setdefault(what, []).append(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for the screen."""
        total = sum(sum(row.values()) for row in self.classes.values())
        subsets = [name for name in (*SUBSETS, _NO_SPLIT) if any(name in row for row in self.classes.values())]
        rows = (
            ((name,), (*(row.get(one, 0) for one in subsets), sum(row.values()))) for name, row in self.classes.items()
        )
        title = f"{self.data} -> {self.output}: {total} patches of {self.file_side}x{self.file_side} px"
        lines = [to_text(Table(("class",), (*subsets, "all"), tuple(rows), title))]
        lines.append("  files: " + ", ".join(f"{name} {count}" for name, count in self.tables.items()))
        for title, counts in (("lesions", self.lesions), ("images with fewer negatives", self.negatives)):
            lines.append(f"  {title}:" + ("" if any(counts.values()) else " none"))
            for what, count in counts.items():
                if count:
                    names = self.names.get(what, [])
                    more = ", ..." if len(names) > _MOST_NAMES else ""
                    listed = f" ({', '.join(names[:_MOST_NAMES])}{more})" if names else ""
                    lines.append(f"    {count:>6} {what}{listed}")
        return "\n".join(lines)


def class_table(patches: Iterable[ImageRecord], hard: Sequence[bool]) -> dict[str, dict[str, int]]:
    """Class to subset to patches, in order of names; `hard` tells which patches are false positives."""
    counts: Counter[tuple[str, str]] = Counter()
    for record, is_hard in zip(patches, hard, strict=True):
        name = record.class_name or _NO_CLASS
        counts[name + (", false positive" if is_hard else ""), record.split or _NO_SPLIT] += 1
    table: dict[str, dict[str, int]] = {}
    for (name, subset), count in sorted(counts.items()):
        table.setdefault(name, {})[subset] = count
    return table


@dataclass
class Cut:
    """What came of one image: its patches, what `PatchSummary.negatives` says of it, or a fault."""

    patches: list[tuple[Patch, ImageRecord]] = field(default_factory=list)
    remarks: dict[str, int] = field(default_factory=dict)
    fault: str | None = None


def make_patches(data: Path, output: Path, options: PatchOptions, *, progress: bool = True) -> PatchSummary:
    """Cut patches from a data set.

    Writes `output/images/...png`, one JSON file for each of the source's, and `summary.json`. The JSON files are
    written last: where they are, all is there. Patches of an earlier run are replaced.

    Args:
        data: a converted folder, or one JSON file of it.
        output: a folder; a data set that is none of patches is not overwritten.
        progress: whether to show a bar on a terminal.
    Raises:
        InputError: with every fault of the folders, the data or the predictions.
    """
    data, output = Path(data), Path(output)
    source = read_source(data)
    stems, faults = patch_stems(source.images)
    faults += _output_faults(source, output) + _data_faults(source, options)
    found, prediction_faults = _read_found(source, options)
    raise_faults(faults + prediction_faults, where=str(data))

    hard = file_hash(options.hard_negatives) if options.hard_negatives is not None else None
    provenance = {**options.to_json(), "predictions_sha256": hard}
    _remove_earlier(output, source.tables)
    sides = lesion_sides(source.images, options)
    tasks = [
        (
            source.root / record.file_name,
            record,
            found.get(record.file_name),
            output,
            stems[record.file_name],
            sides,
            options,
        )
        for record in source.images
    ]
    cuts = list(in_parallel(cut_image, tasks, jobs=options.jobs, name="cutting", progress=progress))
    raise_faults(
        [cut.fault for cut in cuts if cut.fault],
        where=str(data),
        advice="No JSON file was written. Mend these images, or leave them out, and cut again.",
    )
    tables = _write_tables(source, cuts, output, provenance)
    if data.is_dir() and (data / SPLITS).is_file():  # patients are divided as they were
        write_json(output / SPLITS, read_json(data / SPLITS), indent=1)
    summary = _summarize(source, cuts, tables, output, data, options)
    write_json(output / SUMMARY, summary.to_json(), indent=1)
    remove_leftovers(output / "images")
    return summary


def _output_faults(source: Source, output: Path) -> list[str]:
    """Why patches must not be written there."""
    where, root = output.resolve(), source.root.resolve()
    if output.exists() and not output.is_dir():
        return [f"--output {output}: is a file; expected a folder"]
    if where == root:
        return [f"--output {output}: is the folder of the data set itself; choose another"]
    folders = {(root / record.file_name).parent.resolve() for record in source.images}
    inside = [folder for folder in folders if folder != root and (folder == where or folder in where.parents)]
    if inside or where / "images" in folders:
        return [f"--output {output}: its images would lie among those of the data set; choose another folder"]
    try:
        earlier = _earlier(output, source.tables)
    except InputError as error:
        return [f"--output {output}: holds files that cannot be read ({error}); remove them, or choose another folder"]
    return [
        f"--output {output}: holds another data set ({path.name} is none of patches); choose another folder"
        for path, table in earlier.items()
        if "patches" not in table.info
    ][:1]


def _earlier(output: Path, names: Iterable[str]) -> dict[Path, Dataset]:
    """The data set files that lie in the output folder: under the usual names, and those about to be written."""
    paths = {*find_tables(output), *(output / name for name in names)} if output.is_dir() else set()
    return {path: read_coco(path) for path in sorted(paths) if path.is_file()}


def _data_faults(source: Source, options: PatchOptions) -> list[str]:
    """What is wrong with the data set as a source of patches."""
    if not source.images:
        return ["it holds no image"]
    faults = [
        f"image {record.file_name!r}: no such file in {source.root}"
        for record in source.images
        if not (source.root / record.file_name).is_file()
    ]
    lesions = [lesion for record in source.images for lesion in record.lesions if not lesion.ignore]
    if not lesions:
        faults.append(f"none of its {len(source.images)} images has a lesion with a place; expected at least one")
    needed = {"abnormality": ["abnormality"], "abnormality+pathology": ["abnormality", "pathology"]}
    for key in needed.get(options.classes, []):
        if lesions and not any(lesion.attributes.get(key) for lesion in lesions):
            faults.append(f"--classes {options.classes}: no lesion has the attribute {key!r}; choose tumor or category")
    return faults


def _read_found(source: Source, options: PatchOptions) -> tuple[dict[str, ImagePrediction], list[str]]:
    """Predictions by the file name of their image, and what is wrong with them."""
    if options.hard_negatives is None:
        return {}, []
    try:
        predictions = read_predictions(options.hard_negatives)
        matched = match_to_dataset(
            predictions.images,
            Dataset(source.categories, source.images),
            ignore_missing=True,
            where=f"--hard-negatives {options.hard_negatives}",
        )
    except InputError as error:
        return {}, [str(error)]
    return {prediction.file_name: prediction for prediction in matched}, []


def _remove_earlier(output: Path, names: Iterable[str]) -> None:
    """Remove the JSON files of an earlier run and the patches that they name, so that none outlives its record."""
    earlier = _earlier(output, names)
    for path in [*earlier, *(output / name for name in (SUMMARY, SPLITS) if earlier)]:
        path.unlink(missing_ok=True)
    for name in {record.file_name for table in earlier.values() for record in table.images}:
        (output / name).unlink(missing_ok=True)


def cut_image(
    path: Path,
    record: ImageRecord,
    prediction: ImagePrediction | None,
    output: Path,
    stem: str,
    sides: Sides,
    options: PatchOptions,
) -> Cut:
    """Plan, cut and write the patches of one image, whose names start with `stem`; `sides` of `lesion_sides`."""
    cut = Cut()
    plans = lesion_patches(record, options)
    obstacle = why_no_negatives(record, options)
    wants_tissue = options.negatives > 0 and obstacle is None
    if obstacle is not None and (options.negatives or prediction is not None):
        cut.remarks[obstacle] = 1
    if prediction is not None and obstacle is None:
        hard, without_room = hard_patches(record, prediction, options)
        plans += hard
        cut.remarks["false positives too near to a lesion"] = without_room
    if not plans and not wants_tissue:
        return cut
    try:
        pixels = read_image(path)
    except InputError as error:
        return Cut(fault=str(error))
    if pixels.shape != record.size_hw:
        return Cut(
            fault=f"{path}: the file is {pixels.shape[0]}x{pixels.shape[1]}, its record says "
            f"{record.size_hw[0]}x{record.size_hw[1]} (height x width); convert again"
        )
    if wants_tissue:
        plans += _find_tissue(pixels, record, sides, options, cut)
    for patch in plans:
        file_name = f"images/{stem}_{patch.kind}{patch.number}.png"
        made = patch_record(record, patch, file_name, options)
        if made is not None:
            write_png(output / file_name, file_trace(record, patch, options.file_side).image_forward(pixels))
            cut.patches.append((patch, made))
    return cut


def _find_tissue(pixels: Pixels, record: ImageRecord, sides: Sides, options: PatchOptions, cut: Cut) -> list[Patch]:
    """Patches of lesion-free tissue; what is lacking goes to the remarks."""
    breast = find_breast(pixels)
    if breast.mask.all():  # how it says that nothing can be told from background
        cut.remarks["on which no breast was found"] = 1
        return []
    patches = tissue_patches(record, breast, sides, options)
    if len(patches) < options.negatives:
        cut.remarks["with room for fewer negatives" if patches else "without room for negatives"] = 1
    return patches


def _write_tables(source: Source, cuts: Sequence[Cut], output: Path, provenance: Mapping[str, Any]) -> dict[str, int]:
    """One file for each of the source's, in its order; a patch has the same id in all. File to number of patches."""
    patches: dict[str, list[ImageRecord]] = {}
    last = 0
    for record, cut in zip(source.images, cuts, strict=True):
        patches[record.file_name] = [replace(made, image_id=last + n) for n, (_, made) in enumerate(cut.patches, 1)]
        last += len(cut.patches)
    counts = {}
    for name, table in source.tables.items():
        part = [replace(made, split=record.split) for record in table.images for made in patches[record.file_name]]
        made_by = {**provenance, "data_hash": data_hash(table)}
        info = {**table.info, "version": VERSION, "patches": made_by}
        write_coco(Dataset(table.categories, tuple(part), info), output / name)
        counts[name] = len(part)
    return counts


def _summarize(
    source: Source, cuts: Sequence[Cut], tables: dict[str, int], output: Path, data: Path, options: PatchOptions
) -> PatchSummary:
    summary = PatchSummary(str(data), str(output), options.file_side, tables=tables)
    patches = [(patch, record) for cut in cuts for patch, record in cut.patches]
    summary.classes = class_table([record for _, record in patches], [patch.kind == "hard" for patch, _ in patches])
    for record, cut in zip(source.images, cuts, strict=True):
        for number, lesion in enumerate(record.lesions):
            if not lesion.ignore:
                made = [patch for patch, _ in cut.patches if patch.lesion == number]
                for what in _lesion_remarks(record, number, made, options):
                    summary.add("lesions", what, f"{record.file_name} lesion {number + 1}")
        for what, count in cut.remarks.items():
            summary.add("negatives", what, record.file_name, count)
    summary.names.pop(LESIONS, None)
    return summary


def _lesion_remarks(record: ImageRecord, number: int, made: Sequence[Patch], options: PatchOptions) -> list[str]:
    """What the summary says of a lesion."""
    x1, y1, x2, y2 = record.lesions[number].box_xyxy
    longest = max(x2 - x1, y2 - y1)
    remarks = [LESIONS]
    if not made:
        return [*remarks, f"too small: not a pixel of them would be seen at {options.file_side} px; no patch"]
    if longest > made[0].side:
        remarks.append("too large: longer than their patch, which shows a part")
    if not options.fixed and options.context * longest < LEAST_SIDE - 0.5:
        remarks.append(f"small: their patches were widened to {LEAST_SIDE} px")
    if len(made) < options.per_lesion:
        remarks.append(f"with fewer than {options.per_lesion} patches: no room to shift them")
    return remarks
