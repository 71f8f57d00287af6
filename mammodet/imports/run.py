"""From another program's files to a predictions file."""

from pathlib import Path
from typing import Any

from mammodet.data.coco import data_hash, read_coco
from mammodet.data.predictions import Predictions
from mammodet.data.sources import SourceFile
from mammodet.errors import InputError
from mammodet.files import canonical_hash, file_hash
from mammodet.folders import walk_files
from mammodet.imports import ImportOptions, coco, table, ultralytics, yolo
from mammodet.imports.collect import Collector, ImportSummary
from mammodet.imports.entry import Format
from mammodet.version import VERSION

_COCO = Format(coco.read, "entry", "bbox", "xywh px", by_id=True)
_NORMALIZED = "say --coordinates normalized"
FORMATS = {
    "coco": _COCO,
    "detectron2": _COCO,
    "yolo": Format(yolo.read, "line", "line", "class, then shares of width and height"),
    "csv": Format(table.read, "line", "box", "as in the table", _NORMALIZED),
    "ultralytics": Format(ultralytics.read, "entry", "box", "px", _NORMALIZED),
}


def import_predictions(
    source_format: str, source: Path, ground_truth: Path, options: ImportOptions | None = None
) -> tuple[Predictions, ImportSummary]:
    """Read another program's detections.

    Args:
        source_format: one of `FORMATS`.
        source: its file or folder.
        ground_truth: the data set file whose images were predicted; it gives ids, names, sizes and patients.
    Returns:
        One prediction for every image of the ground truth, in its order; what was counted on the way.
    Raises:
        InputError: with every fault: images or classes that the ground truth lacks, boxes that leave their image, ...
    """
    if source_format not in FORMATS:
        raise InputError(f"format {source_format!r}: expected one of {', '.join(FORMATS)}")
    options = options or ImportOptions()
    chosen = FORMATS[source_format]
    dataset = read_coco(ground_truth)
    collector = Collector(dataset, options, chosen)
    # Before the long work: what is wrong with these files should not be told after it.
    model = {"source": source_format, "name": options.name or source.stem, **_training(options, collector.summary)}
    for entry in chosen.read(source, options, dataset):
        collector.take(entry)
    images = collector.finish(source)
    model |= {
        "imported_from": str(source),
        "imported_sha256": source_hash(source),
        "predicted_data_hash": data_hash(dataset),
        "options": options.to_json(),
        "predicted_with": f"import by mammodet {VERSION}",
    }
    return Predictions(images, dataset.categories, model), collector.summary


def source_hash(source: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of its files, hidden ones left out."""
    if source.is_file():
        return file_hash(source)
    found = (folder / name for folder, names in walk_files(source) for name in names)
    paths = sorted(path for path in found if path.is_file())
    return canonical_hash({path.relative_to(source).as_posix(): file_hash(path) for path in paths})


def _training(options: ImportOptions, summary: ImportSummary) -> dict[str, Any]:
    """What is known of the model's training: patients, hashes, checkpoint; None where nothing is."""
    facts: dict[str, Any] = {"checkpoint": None, "checkpoint_sha256": None}
    if options.checkpoint_file is not None:
        if not options.checkpoint_file.is_file():
            raise InputError(f"--checkpoint-file {options.checkpoint_file}: no such file")
        facts |= {"checkpoint": str(options.checkpoint_file), "checkpoint_sha256": file_hash(options.checkpoint_file)}
    datasets = [read_coco(path) for path in options.train_json]
    facts |= {"patients": None, "data_hash": None, "split_hash": None, "files": []}
    if not datasets:
        summary.warnings.append("--train-json was not given: evaluation cannot check leakage, and will say so")
        return facts
    records = [record for dataset in datasets for record in dataset.images]
    without = sum(record.patient_id is None for record in records)
    if without:
        summary.warnings.append(f"{without} of {len(records)} training images have no patient: they may leak unseen")
    facts["patients"] = sorted({record.patient_id for record in records if record.patient_id is not None})
    facts["unknown_patients"] = without
    files = [
        SourceFile.of(
            dataset, str(path), "val" if (dataset.info.get("split") or {}).get("subset") == "val" else "train"
        )
        for path, dataset in zip(options.train_json, datasets, strict=True)
    ]
    facts["data_hash"], facts["split_hash"] = files[0].data_hash, files[0].split_hash
    facts["files"] = [file.to_json() for file in files]
    return facts
