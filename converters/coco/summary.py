"""What a conversion of COCO files tells: counts that add up, and warnings."""

from collections import Counter
from collections.abc import Sequence

from mammodet.converters.base import Summary, listed
from mammodet.converters.coco.boxes import FAULT, Categories
from mammodet.converters.coco.image import TURNED, ImageTask, Seen
from mammodet.converters.coco.join import IMAGE_KEYS, Joined
from mammodet.converters.coco.source import CocoFile, SourceImage
from mammodet.records import ImageRecord

MOST_NAMES = 5  # how many are listed where there can be many
_IMAGE_KEYS = {"id", "file_name", "width", "height", *IMAGE_KEYS}
_ANNOTATION_KEYS: set[object] = {"id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "ignore"}
_ANNOTATION_KEYS |= {"rotation", "attributes", "geometry", FAULT}


def count(
    summary: Summary,
    files: Sequence[CocoFile],
    categories: Categories,
    joined: Joined,
    records: Sequence[ImageRecord],
    seen: Sequence[tuple[ImageTask, Seen]],
) -> None:
    """Add the counts to a summary whose quarantine is complete; `seen` in the order of `records`."""
    images = [image for file in files for image in file.images]
    lesions = [lesion for record in records for lesion in record.lesions]
    aside = Counter(item.what for item in summary.quarantine)
    annotations = sum(file.annotation_count for file in files)
    summary.counts["files"] = ", ".join(f"{file.label} ({file.subset or 'no subset given'})" for file in files)
    summary.counts["images"] = {"listed": len(images), "converted": len(records), "quarantined": aside["image"]}
    summary.counts["annotations"] = {
        "listed": annotations,
        "converted": len(lesions),
        "quarantined": aside["annotation"],
    }
    summary.counts["patients"] = len({record.patient_id for record in records})
    told = Counter(task.subset or "not given" for task, _ in seen)
    summary.counts["images as given"] = dict(sorted(told.items()))
    summary.counts["category"] = dict(Counter(lesion.category for lesion in lesions if not lesion.ignore))
    if ignored := sum(lesion.ignore for lesion in lesions):
        summary.counts["ignored regions"] = ignored
    if categories.unused:
        summary.counts["unused categories"] = ", ".join(categories.unused)
    facts: Counter[str] = Counter()
    for _, found in seen:
        facts.update(found.counts)
    summary.counts |= {name: count for name, count in sorted(facts.items()) if count}
    for name in ("tumor", "malignant"):
        labels = Counter({1: "yes", 0: "no", None: "not known"}[record.label(name)] for record in records)
        summary.counts[name] = dict(sorted(labels.items(), reverse=True))
    attributes = Counter(name for lesion in lesions for name in lesion.attributes)
    if attributes:
        summary.counts["attributes of lesions"] = dict(attributes)
    if joined.tables:
        summary.counts["tables"] = ", ".join(path.name for path in joined.tables.files)
        summary.counts["rows"] = {
            "meant": len(joined.tables.rows),
            "joined": len(joined.tables.rows) - len(joined.unused),
            "of no image": len(joined.unused),
            "images without": joined.unmatched,
        }
    if left := _keys_left(images):
        summary.counts["JSON keys left out"] = left
    lost = aside["image"] + len(records) - len(images), aside["annotation"] + len(lesions) - annotations
    if lost != (0, 0):
        raise AssertionError(f"images and annotations do not add up: {lost} more come out than go in")


def _keys_left(images: Sequence[SourceImage]) -> dict[str, int]:
    """Keys of images and annotations that the data set has no place for."""
    left = Counter(f"image {key}" for image in images for key in image.item if key not in _IMAGE_KEYS)
    for image in images:
        for _, item in image.annotations:
            left.update(f"annotation {key}" for key in item if key not in _ANNOTATION_KEYS)
    return dict(sorted(left.items()))


def warn_of(
    summary: Summary,
    files: Sequence[CocoFile],
    joined: Joined,
    records: Sequence[ImageRecord],
    seen: Sequence[tuple[ImageTask, Seen]],
    kind: str,
) -> None:
    """Add what the user should look at; `kind`: `given` or `holdout`."""
    warn = summary.warnings.append
    mismatches = [
        f"{task.image.name} ({found.mismatch[0]} boxes, {found.mismatch[1]} rows)"
        for task, found in seen
        if found.mismatch
    ]
    if joined.tables:
        summary.checks["boxes and rows differ"] = len(mismatches)
    if mismatches:
        warn(f"{len(mismatches)} images have another number of boxes than of rows: {listed(mismatches, 20)}")
    if joined.unused:
        places = [f"{row.table} line {row.line}" for row in joined.unused]
        warn(f"{len(places)} rows of the tables belong to no image: {listed(places)}")
    if joined.shared:
        warn(
            f"{joined.shared} images share their rows with another image: several exposures, or copies that an export "
            "has augmented; of copies keep one, and let training augment"
        )
    if joined.tables and joined.tables.skipped:
        warn(f"tables left aside: {'; '.join(joined.tables.skipped)}")
    if joined.unmatched:
        warn(f"{joined.unmatched} images have no row; they are kept with what their boxes and names say (notes)")
    if turned := sum(found.counts[TURNED] for _, found in seen):
        warn(
            f"{turned} images are stored turned (Exif or TIFF orientation): they are read upright, and their boxes are "
            "taken to lie on the upright picture, as viewers show it; remove the Exif data if they were drawn otherwise"
        )
    if repeated := sum(file.repeated_ids for file in files):
        warn(f"{repeated} annotations have the id of another one; all got new ids")
    if orphans := sum(len(file.quarantine) for file in files):
        warn(
            f"{orphans} annotations belong to no image, so any image may show a lesion that is not on it: none is "
            "called normal or benign; mend their image_id"
        )
    if outlines := sum(item.what == "outline" for item in summary.quarantine):
        warn(f"{outlines} outlines cannot be read, their boxes are kept without one (quarantine.csv)")
    unknown = sum(not record.has_truth for record in records)
    if unknown:
        advice = "" if orphans else "; if they were looked at and are normal, say --without-boxes normal"
        warn(
            f"{unknown} images have neither boxes nor rows: nothing is known of them, and they are neither learnt nor "
            f"scored{advice}"
        )
    if len({record.size_hw for record in records}) == 1 and len(records) > 1:
        height, width = records[0].size_hw
        if height == width:
            warn(f"all images are {height}x{width}: films are not square, these were stretched, or padded")
    untold = [file.label for file in files if file.subset is None]
    if kind == "holdout" and untold and len(untold) < len(files):
        warn(f"not every file tells its subset ({listed(untold)}): all were pooled and divided anew")


def warn_of_crowd(summary: Summary, seen: Sequence[Seen], option: str) -> None:
    """Add what became of annotations that are marked `iscrowd`."""
    warn = summary.warnings.append
    facts = sum((found.counts for found in seen), Counter[str]())
    if crowd := facts["crowd taken as lesions"]:
        warn(
            f"{crowd} annotations are marked iscrowd and were taken as lesions"
            + (
                " (--crowd lesion)"
                if option == "lesion"
                else ", since all of their file are, as CVAT marks masks; if they are regions to ignore: --crowd ignore"
            )
        )
    if crowd := facts["crowd taken as regions to ignore"]:
        warn(
            f"{crowd} annotations are marked iscrowd and became regions to ignore; if they are lesions, as CVAT marks "
            "brush masks: --crowd lesion"
        )
