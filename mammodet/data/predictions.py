"""The predictions file: what a model said of each image, in the pixels of the image file, and what model it was.

Evaluation and pictures need this file and the data set file, no model (docs/data_format.md).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from mammodet.data.json_values import check_file_name
from mammodet.data.packed_predictions import Columns, PackedPredictions
from mammodet.data.sources import sources_of
from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.geometry import xywh_to_xyxy, xyxy_to_xywh
from mammodet.json_lists import JsonList, read_members, sharing, write_members
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Masks
from mammodet.run_lengths import check_counts

FORMAT = "mammodet-predictions/1"
_MOST_FAULTS = 100_000


def _inside(name: str) -> str:
    if fault := check_file_name(name):
        raise ValueError(fault)
    return name


def _extended(box: list[float]) -> list[float]:
    if min(box[2:]) < 0:
        raise ValueError("expected x, y, width and height in pixels")
    return box


_Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Scores = dict[str, _Score]
_Pixels = Annotated[float, Field(gt=-1e9, lt=1e9)]
_Side = Annotated[int, Field(ge=1, le=100_000)]


class Mask(TypedDict):
    """Run lengths of COCO: `size` is height, width."""

    size: list[int]
    counts: str


class Detection(TypedDict):
    """A box (x, y, width, height) of pixels of the image file, with its mask."""

    bbox: Annotated[list[_Pixels], Field(min_length=4, max_length=4), AfterValidator(_extended)]
    score: _Score
    category_id: Annotated[int, Field(ge=1, le=2**53)]
    segmentation: NotRequired[Mask]


class Answer(TypedDict):
    """What is said of an image, whichever it is."""

    height: _Side
    width: _Side
    scores: _Scores
    detections: list[Detection]
    scores_by_rule: NotRequired[dict[str, _Scores]]
    class_scores: NotRequired[dict[str, _Scores]]
    patient_id: NotRequired[str | None]
    laterality: NotRequired[Literal["L", "R"] | None]
    view: NotRequired[str | None]
    warnings: NotRequired[list[str] | None]


class _Image(Answer):
    image_id: Annotated[int, Field(ge=-(2**53), le=2**53)]
    file_name: Annotated[str, AfterValidator(_inside)]


class Category(TypedDict):
    """A category of detections."""

    id: int
    name: str


class _Model(TypedDict, total=False):
    checkpoint_sha256: str | None
    data_hash: str | None
    split_hash: str | None
    predicted_data_hash: str | None
    unknown_start: str | None
    unknown_patients: int | None
    patients: list[str] | None
    packed_from: list[str] | None
    images_seen: list[str] | None


class _File(TypedDict, total=False):
    categories: list[Category] | None
    model: _Model | None
    breasts: list[dict[str, Any]] | None
    patients: list[dict[str, Any]] | None


_IMAGE, _FILE = TypeAdapter(_Image), TypeAdapter(_File)


@dataclass(frozen=True, slots=True)
class Predictions:
    """A predictions file."""

    images: Sequence[ImagePrediction]
    categories: tuple[str, ...]  #: names; the id of a category is its position + 1
    #: what made it: checkpoint hash, config, data and split hash, version.
    model: Mapping[str, Any] = field(default_factory=dict)
    #: breasts, patients: joined scores, as the file has them.
    breasts: tuple[Mapping[str, Any], ...] = ()
    patients: tuple[Mapping[str, Any], ...] = ()

    def dataset(self) -> Dataset:
        """The images that were predicted, of which nothing else is known."""
        names = ("image_id", "file_name", "size_hw", "patient_id", "laterality", "view")
        records = (ImageRecord(**{name: getattr(image, name) for name in names}) for image in self.images)
        return Dataset(self.categories, tuple(records))


@dataclass
class Repairs:
    """Faults of a predictions file that can be mended, and were: one line each."""

    scores: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


def prediction_to_json(prediction: ImagePrediction) -> dict[str, Any]:
    """One image's entry."""
    found = prediction.detections.in_order()
    boxes = xyxy_to_xywh(found.boxes_xyxy)
    items = []
    for index in range(len(found)):
        item: dict[str, Any] = {
            "bbox": [round(float(value), 6) for value in boxes[index]],
            "score": float(found.scores[index]),
            "category_id": int(found.category_ids[index]),
        }
        if found.rles is not None:
            item["segmentation"] = dict(found.rles[index])
        items.append(item)
    classes = {name: dict(scores) for name, scores in prediction.class_scores.items()}
    return {
        "image_id": prediction.image_id,
        "file_name": prediction.file_name,
        "height": prediction.size_hw[0],
        "width": prediction.size_hw[1],
        "patient_id": prediction.patient_id,
        "laterality": prediction.laterality,
        "view": prediction.view,
        "scores": dict(prediction.scores),
        "scores_by_rule": {rule: dict(scores) for rule, scores in prediction.scores_by_rule.items()},
        **({"class_scores": classes} if classes else {}),
        **({"warnings": list(prediction.warnings)} if prediction.warnings else {}),
        "detections": items,
    }


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a predictions file, whole or not at all."""
    write_members(
        path,
        {
            "format": FORMAT,
            "model": dict(predictions.model),
            "categories": [{"id": number, "name": name} for number, name in enumerate(predictions.categories, start=1)],
            "images": map(prediction_to_json, predictions.images),
            "breasts": map(dict, predictions.breasts),
            "patients": map(dict, predictions.patients),
        },
    )


_same_size, _same_text = sharing(), sharing()


def prediction_from_json(item: Any, where: str, repairs: Repairs | None = None) -> ImagePrediction:
    """Read one image's entry; scores outside [0, 1] are noted in `repairs` and clipped, or refused where it is None.

    Raises ValueError: saying what is wrong with it.
    """

    try:
        try:
            found = _IMAGE.validate_python(item, strict=True)
        except ValidationError as error:
            if repairs is None or not _clip_scores(item, error, where, repairs):
                raise
            found = _IMAGE.validate_python(item, strict=True)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {fault}" for fault in faults_of(error))) from None
    detections, size_hw = found["detections"], _same_size((found["height"], found["width"]))
    with_masks = not detections or any("segmentation" in entry for entry in detections)
    try:
        counts = [_counts(entry.get("segmentation"), size_hw) for entry in detections] if with_masks else []
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    scores = _interned(found["scores"])
    by_rule = {sys.intern(rule): _interned(one) for rule, one in found.get("scores_by_rule", {}).items()}
    return ImagePrediction(
        image_id=found["image_id"],
        file_name=found["file_name"],
        size_hw=size_hw,
        scores=scores,
        detections=Detections(
            xywh_to_xyxy([entry["bbox"] for entry in detections]),
            np.array([entry["score"] for entry in detections], dtype=np.float64),
            _same_ids(tuple(entry["category_id"] for entry in detections)),
            Masks(counts, [size_hw] * len(counts)) if with_masks else None,
        ).in_order(),
        scores_by_rule={rule: scores if one == scores else one for rule, one in by_rule.items()},
        class_scores=found.get("class_scores", {}),
        patient_id=_same_text(found.get("patient_id")),
        laterality=_same_text(found.get("laterality")),
        view=_same_text(found.get("view")),
        warnings=tuple(found.get("warnings") or ()),
    )


def _clip_scores(item: Any, error: ValidationError, where: str, repairs: Repairs) -> bool:
    """Clip the scores that are refused for their size alone; whether there was any."""
    clipped = False
    for fault in error.errors(include_url=False, include_context=False):
        *parents, key = fault["loc"]
        if fault["type"].endswith("_than_equal") and (key == "score" or "scores" in str(fault["loc"][0])):
            place = item
            for parent in parents:
                place = place[parent]
            repairs.scores.append(f"{where}: {'.'.join(map(str, fault['loc']))} is {place[key]!r:.60}")
            place[key] = min(max(place[key], 0.0), 1.0)
            clipped = True
    return clipped


@lru_cache(maxsize=4096)
def _same_ids(category_ids: tuple[int, ...]) -> NDArray[np.int64]:
    """One array for all images with detections of these categories."""
    found = np.array(category_ids, dtype=np.int64)
    found.flags.writeable = False
    return found


def _interned(scores: Mapping[str, float]) -> dict[str, float]:
    """With one text for each name in all images."""
    return {sys.intern(name): score for name, score in scores.items()}


def _counts(mask: Mask | None, size_hw: tuple[int, int]) -> str:
    if mask is None:
        raise ValueError("segmentation is missing; other detections of the image have one")
    if mask["size"] != list(size_hw):
        raise ValueError(f"segmentation: expected run lengths of size {list(size_hw)} (height, width)")
    check_counts(mask["counts"].encode("ascii"), size_hw[0] * size_hw[1])
    return mask["counts"]


def read_predictions(path: Path, repairs: Repairs | None = None, *, joined: bool = True) -> Predictions:
    """Read and check a predictions file.

    Args:
        joined: also the scores of breasts and patients.
        repairs: where to note scores outside [0, 1], which are clipped, and second entries of an image, which are
            dropped; None to refuse both.
    Raises:
        InputError: with every fault in the file.
    """
    value = read_members(path, ("images",) if joined else ("images", "breasts", "patients"))
    if isinstance(value, dict) and "annotations" in value:
        raise InputError(f"{path}: is a data set, no predictions. Were --ground-truth and --predictions exchanged?")
    if isinstance(value, list):
        raise InputError(f"{path}: is a list, as of COCO results; mammodet import makes predictions of it")
    if not isinstance(value, dict) or not isinstance(value.get("images"), list | JsonList):
        raise InputError(f"{path}: expected a predictions object with a list 'images' (mammodet predict writes one)")
    if value.get("format") != FORMAT:
        raise InputError(f"{path}: format is {value.get('format')!r}; expected {FORMAT!r}")
    faults: list[str] = []
    try:
        short = {key: member for key, member in value.items() if not isinstance(member, JsonList)}
        _FILE.validate_python(short, strict=True)
    except ValidationError as error:
        faults += faults_of(error)
    names = {} if faults else {each["id"]: each["name"] for each in value.get("categories") or ()}
    if not faults and sorted(names) != list(range(1, len(value.get("categories") or ()) + 1)):
        faults.append(f"categories: ids {[each['id'] for each in value['categories']]}; expected 1 to n, each once")
    if not faults:
        try:
            sources_of(value.get("model") or {})
        except InputError as error:
            faults.append(str(error))
    of_file = bool(faults)
    columns = Columns()
    for position, item in enumerate(value["images"]):
        name = item.get("file_name", position) if isinstance(item, dict) else position
        where = f"image {name!r:.200}"
        try:
            image = prediction_from_json(item, where, repairs)
        except ValueError as error:
            faults += str(error).splitlines()
            if len(faults) > _MOST_FAULTS:
                break
            continue
        columns.append(image)
        unknown = sorted({int(number) for number in image.detections.category_ids if number > len(names)})
        if unknown and not of_file:
            faults.append(f"{where}: category_id {unknown}; expected 1 to {len(names)}, as in 'categories'")
    keys: dict[str, Sequence[Any]] = {"image_id": columns.ids, "file_name": columns.names}
    rows = list(range(len(columns.ids)))
    for key, members in keys.items():
        if len(set(members)) == len(members):
            continue
        notes = faults if repairs is None else repairs.duplicates
        notes += [
            f"{key} {member!r} stands {count} times; expected once"
            for member, count in Counter(members).items()
            if count > 1
        ]
    for members in keys.values():  # the first counts
        rows = list({members[row]: row for row in reversed(rows)}.values())[::-1]
    raise_faults(faults, where=str(path), advice="Predict again, or mend the file.")
    return Predictions(
        PackedPredictions(columns, np.array(rows, dtype=np.int64)),
        tuple(names[number] for number in sorted(names)),
        value.get("model") or {},
        tuple(short.get("breasts") or ()),
        tuple(short.get("patients") or ()),
    )


def unmatched(predictions: Sequence[ImagePrediction], dataset: Dataset) -> tuple[list[str], list[str]]:
    """Images that no prediction could belong to, and predictions that belong to no image, in words."""
    rows, extra = _pair(PackedPredictions.of(predictions).names, dataset)
    stems = {Path(name).stem for name in extra}
    missing = [
        _name(record)
        for record, row in zip(dataset.images, rows, strict=True)
        if row < 0 and Path(record.file_name).stem not in stems
    ]
    return missing, [repr(name) for name in extra]


def _name(record: ImageRecord) -> str:
    return f"image {record.file_name!r} (id {record.image_id})"


def _pair(names: Sequence[str], dataset: Dataset) -> tuple[list[int], list[str]]:
    """Where the prediction of each image stands, or -1, and the names of predictions that are left over."""
    by_name = {name: row for row, name in enumerate(names)}
    rows = [by_name.get(record.file_name, -1) for record in dataset.images]
    if -1 in rows:
        stems, sought = _stems(names), _stems(record.file_name for record in dataset.images)
        by_stem = {Path(name).stem: row for name, row in by_name.items()}
        for place, record in enumerate(dataset.images):
            stem = Path(record.file_name).stem
            if rows[place] < 0 and stems[stem] == sought[stem] == 1:
                rows[place] = by_stem[stem]
    used = {names[row] for row in rows if row >= 0}
    return rows, [name for name in by_name if name not in used]


def _stems(names: Iterable[str]) -> Counter[str]:
    return Counter(Path(name).stem for name in names)


def match_to_dataset(
    predictions: Sequence[ImagePrediction],
    dataset: Dataset,
    *,
    ignore_extra: bool = False,
    ignore_missing: bool = False,
    where: str = "predictions against ground truth",
) -> PackedPredictions:
    """One prediction for each image of a data set, in its order; `where` names both in messages.

    Images meet by file name, else by the name without folder and suffix (a prediction made on a bare folder) where that
    is unique on both sides. What the data set knows (id, patient, side, view) replaces what the prediction says.

    Raises InputError: images without a prediction (unless `ignore_missing`), of another size, ambiguous names, or
    predictions for images that the data set lacks (unless `ignore_extra`).
    """
    found = PackedPredictions.of(predictions)
    rows, extra = _pair(found.names, dataset)
    left = {Path(name).stem for name in extra}
    names, sought = (found.names, [one.file_name for one in dataset.images]) if left else ((), ())
    theirs, ours = _stems(names), _stems(sought)
    matched: list[int] = []
    faults: list[str] = []
    for place, (record, row) in enumerate(zip(dataset.images, rows, strict=True)):
        if row < 0:
            stem = Path(record.file_name).stem
            if stem in left:
                faults.append(
                    f"{_name(record)}: has no prediction of this path, and {theirs[stem]} predictions and {ours[stem]} "
                    "images share its name"
                )
            elif not ignore_missing:
                faults.append(f"{_name(record)}: has no prediction")
        elif (size_hw := found[row].size_hw) != record.size_hw:
            faults.append(
                f"image {record.file_name!r}: predicted at {size_hw}, the data set says {record.size_hw} "
                "(height, width)"
            )
        else:
            matched.append(place)
    if not ignore_extra:
        faults += [f"prediction for {name!r}: no such image in the ground truth" for name in extra]
    raise_faults(
        faults,
        where=where,
        advice="Predict the images of the ground-truth file (skipped.json beside the predictions names unread ones).",
    )
    return found.select(np.array(rows, dtype=np.int64)[matched], [dataset.images[place] for place in matched])
