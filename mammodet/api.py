"""The Python API, as `import mammodet` offers it (docs/python.md)."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mammodet.config import make_config
from mammodet.converters.base import Summary
from mammodet.data.coco import read_coco
from mammodet.data.doubts import Stored, read_stored
from mammodet.data.images import Pixels, read_image, to_display
from mammodet.data.inputs import Skipped, gather, read_record
from mammodet.data.json_values import check_new_name
from mammodet.data.patient_keys import PatientKey
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.engine import predict as engine
from mammodet.engine.ensemble import Ensemble
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import Calibration
from mammodet.evaluation.entries import Scored, admit_inputs, score_entries
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import Metrics
from mammodet.export.annotations import coco_results
from mammodet.export.fiftyone_dataset import to_fiftyone
from mammodet.geometry import rle_to_mask
from mammodet.models import STARTER, model_path
from mammodet.models.card import ModelCard
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord

#: What `Predictor.predict` takes.
Images = str | Path | NDArray[Any] | Dataset | Sequence["str | Path | NDArray[Any]"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a model says of one image.

    Attributes:
        prediction: scores, detections and identity, in pixels of the image file.
    """

    prediction: ImagePrediction
    _image: Path | Pixels = field(repr=False)
    _categories: tuple[str, ...] = field(repr=False)
    _unpacked: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def file_name(self) -> str:
        """As the image was named; `array 0`, ... for arrays."""
        return self.prediction.file_name

    @property
    def detections(self) -> Detections:
        """Boxes (n, 4) xyxy, scores (n,), categories (n,) and masks, the strongest first."""
        return self.prediction.detections.in_order()

    @property
    def scores(self) -> dict[str, float]:
        """Of the image: `tumor`, `malignant` to a number in [0, 1]."""
        return dict(self.prediction.scores)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the image may be no mammogram that a model can judge; scores mean little where there are any."""
        return self.prediction.warnings

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Masks of the detections, bool (n, H, W); None of a model without masks."""
        rles = self.detections.rles
        if rles is None:
            return None
        height, width = self.prediction.size_hw
        return np.array([rle_to_mask(rle) for rle in rles], dtype=bool).reshape(-1, height, width)

    def draw(self, *, score_threshold: float = 0.3, captions: bool = True) -> NDArray[np.uint8]:
        """The image with its detections, uint8 RGB (H, W, 3); with captions below a banner that says what was found."""
        from mammodet.reporting.overlay import OverlayOptions, draw_overlay  # here: a prediction needs no fonts

        pixels = read_image(self._image) if isinstance(self._image, Path) else self._image
        options = OverlayOptions(score_threshold=score_threshold, captions=captions, categories=self._categories)
        return draw_overlay(to_display(pixels), None, self.prediction, options)

    def to_coco(self) -> list[dict[str, Any]]:
        """The detections as COCO results: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`, masks."""
        return coco_results([self.prediction])


class Results(Sequence[Result]):
    """Results in the order of the images.

    Attributes:
        skipped: images that could not be read, and why.
        left_out: files that are none of the images to look at, and why (docs/dicom.md).
        breasts, patients: joined scores, where side and patient are known.
    """

    def __init__(
        self, items: Sequence[Result], file: Predictions, skipped: Sequence[Skipped], left_out: Sequence[Skipped] = ()
    ) -> None:
        self._items, self._file, self.skipped, self.left_out = tuple(items), file, tuple(skipped), tuple(left_out)
        self.breasts, self.patients = file.breasts, file.patients

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self._items[index]

    def to_coco(self) -> list[dict[str, Any]]:
        """The detections of all images as COCO results."""
        return [item for result in self for item in result.to_coco()]

    def save(self, path: str | Path) -> Path:
        """Write a predictions file (docs/data_format.md), which `mammodet evaluate` and `visualize` read."""
        write_predictions(self._file, Path(path))
        return Path(path)


#: What `evaluate` takes of a model.
Predicted = str | Path | Predictions | Results


class Predictor:
    """A trained model that looks at images; `load` makes one.

    Attributes:
        categories: names of what is found; `category_ids` of detections are positions + 1.
        calibration, card: that a packed model brings along, else None.
    """

    def __init__(self, model: engine.Predictor) -> None:
        self._model = model
        self.categories: tuple[str, ...] = tuple(model.facts.categories)
        self.calibration: Calibration | None = model.calibration
        self.card: ModelCard | None = model.card

    def __repr__(self) -> str:
        name = self.card.title if self.card else self._model.config.model.kind
        return f"<mammodet.Predictor: {name}, finds {', '.join(self.categories)}, on {self._model.device}>"

    def predict(
        self,
        images: Images,
        *,
        root: str | Path | None = None,
        num_workers: int = 0,
        force: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Results:
        """Look at images.

        Args:
            images: an image or DICOM file, a DICOMDIR, a zip file, a folder (searched to its depth), a data set's JSON
                file, a glob of them, or a list; a `Dataset`; an array, grey (H, W), uint8 or uint16 with tissue bright;
                or a list of image files and arrays.
            root: folder that the image names of a `Dataset` start from.
            num_workers: processes that read files; arrays need none.
            force: look also at what is no mammogram (docs/images.md), with a warning.
            progress: is called with the number of images that are done, after each.
        Returns:
            a result for each image; those that cannot be read, or are no mammograms, are in `skipped`.
        Raises:
            InputError: no image among them, or an array that is no grey image.
        """
        chosen = _choose(images, Path(root) if root is not None else None, self.categories)
        results, skipped = [], list(chosen.unreadable)
        # each task of a process carries `read`, which must then hold no images
        how: dict[str, Any] = {"read": chosen.read} if chosen.arrays else {"num_workers": num_workers}
        for done, found in enumerate(self._model.predict(chosen.dataset, chosen.root, force=force, **how), 1):
            if progress is not None:
                progress(done)
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            image = chosen.arrays.get(found.file_name, chosen.root / found.file_name)
            results.append(Result(found, image, self.categories, chosen.unpacked))
        return Results(
            results, self._model.to_file(tuple(each.prediction for each in results)), skipped, chosen.left_out
        )


def load(
    name: str | Path | Sequence[str | Path] = STARTER, device: str = "auto", engine: str | None = None, **test_time: Any
) -> Predictor:
    """A trained model.

    Args:
        name: `starter`, the model that comes with the package; `best.ckpt` of a training, a packed model, or one that
            `mammodet export` wrote (`model.onnx`), which needs no torch; or several of them, which answer together.
        device: `auto`, `cpu`, `cuda`, ...
        engine: `torch`, `onnx` or `openvino`; None for that of the file's kind.
        test_time: of `model.test_time` in docs/config.md, for detectors: `flip=True`, `scales=[1, 1.2]`, `bf16=True`.
    Raises:
        InputError: no such model, damaged, or a device or a setting that is not there.
    """
    names = [name] if isinstance(name, str | Path) else list(name)
    chosen = make_config({"model": {"test_time": test_time}}, where="given to mammodet.load")
    settings = chosen.model.test_time if test_time else None
    return Predictor(Ensemble.from_checkpoints([model_path(each) for each in names], device, settings, engine))


def read_dataset(path: str | Path) -> Dataset:
    """A data set file, checked (docs/data_format.md). Raises InputError: with all its faults."""
    return read_coco(Path(path))


def convert(archive: str, source: str | Path, output: str | Path, **options: Any) -> Summary:
    """Convert an archive, as `mammodet convert ARCHIVE`.

    Args:
        archive: `mias`, `cbis_ddsm`, `rsna`, ...
        options: of the command, with `_` for `-`: `folds=5`, `abnormality="mass"`, `tables=["a.csv", "b.csv"]`,
            `crop=True`.
    Returns:
        what was done: counts, checks, quarantine, warnings.
    Raises:
        InputError: an unknown archive or option, or a source that cannot be converted.
    """
    from mammodet.converters.archives import ARCHIVES, convert_chosen, parser

    if archive not in ARCHIVES:
        raise InputError(f"{archive!r}: no such archive; there are {', '.join(ARCHIVES)}")
    arguments = [archive, "--source", str(source), "--output", str(output)]
    for key, value in options.items():
        if value is None or value is False:
            continue
        values = [] if value is True else [value] if isinstance(value, str | Path) else value
        arguments += [f"--{key.replace('_', '-')}", *map(str, values if isinstance(values, list | tuple) else [values])]
    return convert_chosen(parser([archive], raises=True).parse_args(arguments))


def train(config: str | Path, *overrides: str, resume: bool = False, overwrite: bool = False) -> Path:
    """Train as `mammodet train --config-file CONFIG KEY=VALUE ...`.

    Args:
        config: a YAML file, or the name of one that comes with the package.
        resume: go on from the last epoch of the output folder.
        overwrite: start anew where a run already lies.
    Returns:
        the best checkpoint.
    """
    from mammodet.config import load_config
    from mammodet.engine.checked_run import prepare
    from mammodet.engine.train import train as run

    return run(prepare(load_config(Path(config), overrides)), resume=resume, overwrite=overwrite)


def evaluate(
    ground_truth: str | Path | Dataset,
    predictions: Predicted | Mapping[str, Predicted],
    *,
    calibration: str | Path | Calibration | Mapping[str, str | Path | Calibration] | None = None,
    train: str | Path | Dataset | None = None,
    allow: Collection[str] = (),
    patient_key: str | Path | None = None,
    **options: Any,
) -> Metrics:
    """Score predictions, as `mammodet evaluate`; nothing is written.

    Args:
        ground_truth: a data set, or its JSON file.
        predictions: results of `Predictor.predict` on its images, or a predictions file; of several models, which are
            compared, by name.
        calibration: what its thresholds and probabilities are worth here; of several models by name.
        train: what the models were trained on, where their predictions do not say.
        allow: refusals to override: `leakage`, `missing`, ... (docs/evaluation.md).
        patient_key: file that the patient ids of the models are hashed under.
        options: fields of `mammodet.evaluation.options.Options`: `match="center"`, `resamples=0`, ...
    Returns:
        every figure with its interval (`mammodet.evaluation.results`).
    Raises:
        InputError: faulty files or options, or a reason to refuse that is not allowed: each with its ids.
    """
    named = predictions if isinstance(predictions, Mapping) else {"model": predictions}
    fitted = calibration if isinstance(calibration, Mapping) else dict.fromkeys(named, calibration)
    inputs = [
        Scored(
            name,
            found._file if isinstance(found, Results) else found if isinstance(found, Predictions) else Path(found),
            Path(one) if isinstance(one := fitted.get(name), str) else one,
        )
        for name, found in named.items()
    ]
    trained = read_coco(Path(train)) if isinstance(train, str | Path) else train
    try:
        rules = Options(**options)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    path = None if isinstance(ground_truth, Dataset) else Path(ground_truth)
    dataset = ground_truth if isinstance(ground_truth, Dataset) else read_coco(Path(ground_truth))
    key = PatientKey(Path(patient_key)) if patient_key is not None else None
    entries, overrides = admit_inputs(dataset, inputs, rules, truth=path, train=trained, allow=allow, key=key)
    return score_entries(dataset, entries, overrides, rules, truth=path).metrics


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Images to look at, and how they are read."""

    dataset: Dataset
    root: Path
    unreadable: Sequence[Skipped] = ()
    arrays: dict[str, Pixels] = field(default_factory=dict)
    left_out: Sequence[Skipped] = ()
    unpacked: TemporaryDirectory[str] | None = None  # is removed with the last reference to it

    def read(self, path: Path) -> tuple[Pixels, Stored]:
        """An image, and what its file says."""
        for name, pixels in self.arrays.items():
            if path == self.root / name:
                return pixels, Stored()
        return read_stored(path)


def _choose(images: Images, root: Path | None, categories: tuple[str, ...]) -> _Chosen:
    if isinstance(images, Dataset):
        if root is None:
            raise InputError("predict(Dataset): give root=..., the folder that its image names start from")
        return _Chosen(images, root)
    items = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
    if any(isinstance(item, np.ndarray) for item in items) or not items:
        return _choose_several(items, categories)
    folder = TemporaryDirectory(prefix="mammodet-")
    paths = [item for item in items if not isinstance(item, np.ndarray)]
    found = gather(paths, categories, unpack_to=Path(folder.name))
    return _Chosen(found.dataset, found.root, found.skipped, left_out=found.left_out, unpacked=folder)


def _choose_several(items: Sequence[str | Path | NDArray[Any]], categories: tuple[str, ...]) -> _Chosen:
    files = [Path(os.path.abspath(item)) for item in items if not isinstance(item, np.ndarray)]
    root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
    records: list[ImageRecord] = []
    unreadable: list[Skipped] = []
    arrays: dict[str, Pixels] = {}
    for number, item in enumerate(items, 1):
        if isinstance(item, np.ndarray):
            name = f"array {number - 1}"
            if item.ndim != 2 or item.dtype not in (np.uint8, np.uint16) or not item.size:
                raise InputError(
                    f"{name}: has shape {item.shape} and type {item.dtype}; expected a grey image (H, W) of uint8 or "
                    "uint16, tissue bright"
                )
            arrays[name] = item
            records.append(ImageRecord(number, name, (item.shape[0], item.shape[1])))
            continue
        path = Path(os.path.abspath(item))
        name = path.relative_to(root).as_posix()
        if path.is_dir() or (fault := check_new_name(name)):
            raise InputError(f"{item}: {'is a folder; give it alone' if path.is_dir() else f'its name {fault}'}")
        try:
            record, header = read_record(path, name)
            if header is not None and header.unfit is not None:
                raise InputError(f"{name}: {header.unfit}")
            records.append(replace(record, image_id=number))
        except InputError as error:
            unreadable.append(Skipped(name, str(error)))
    if not records:
        raise InputError("; ".join(each.reason for each in unreadable[:3]) or "no images: the list is empty")
    return _Chosen(Dataset(categories, tuple(records)), root, unreadable, arrays)


__all__ = ["Predictor", "Result", "Results", "convert", "evaluate", "load", "read_dataset", "to_fiftyone", "train"]
