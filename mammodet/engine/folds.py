"""Cross-validation in one command: train on every fold, and predict each image by the one model that never saw it.

Fold k is held out, fold k + 1 chooses the checkpoint, the others teach. So the held-out fold decides nothing, and its
figures are not those of the best of many epochs on the very images that are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mammodet.config import Config
from mammodet.data.dataset_files import FOLDS, fold_numbers
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.engine.checked_run import Run, data_faults, make_run, patient_key, read_dataset
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.resume import asked_changes
from mammodet.engine.run_folder import BEST, LAST
from mammodet.engine.train import Machines, train
from mammodet.errors import InputError, raise_faults
from mammodet.files import file_hash
from mammodet.modeling.aggregation import joined_scores
from mammodet.records import Dataset, ImagePrediction, fold_file

OUT_OF_FOLD = "out_of_fold"


@dataclass(frozen=True, slots=True)
class Fold:
    """One round of a cross-validation: whom it trains on, chooses by, and holds out."""

    number: int
    config: Config
    train: Dataset
    val: Dataset
    held_out: Dataset


def read_folds(config: Config) -> tuple[list[Fold], Path]:
    """The rounds of a config's data, all checked, and the name of the data set with the images of all folds.

    Raises InputError: no folds, fewer than three, or faults of any of them (a fold without a positive image, ...).
    """
    if config.data.train or config.data.val or config.data.unsafe_split or config.data.fold is not None:
        raise InputError(
            "--all-folds chooses the data: leave out data.fold, data.train, data.val and data.unsafe_split"
        )
    root = config.data.root
    numbers = fold_numbers(root)
    count = len(numbers)
    if numbers != list(range(count)) or count < 3:
        found = ", ".join(fold_file(number, "val") for number in numbers) or "none"
        raise InputError(
            f"{root}: --all-folds needs fold0_val.json, fold1_val.json, ... of three or more folds (one is held out, "
            f"one chooses the checkpoint, the others teach); found: {found}. mammodet convert --folds 5 makes them"
        )
    paths = [root / fold_file(number, "val") for number in numbers]
    parts = [read_dataset(config, path) for path in paths]
    hashes = {str((part.info.get("split") or {}).get("hash")) for part in parts}
    if len(hashes) != 1:
        raise InputError(f"{root}: its folds come from different splits ({', '.join(sorted(hashes))}); convert again")
    folds = []
    for number in range(count):
        chooser = (number + 1) % count
        teachers = [part for place, part in enumerate(parts) if place not in (number, chooser)]
        folds.append(
            Fold(
                number,
                config.change(output_dir=config.output_dir / f"fold{number}", data=config.data.change(fold=number)),
                join(teachers, f"fold{number}", "train"),
                join([parts[chooser]], f"fold{number}", "val"),
                join([parts[number]], f"fold{number}", "test"),
            )
        )
    faults = [
        f"fold {fold.number}: {fault}"
        for fold in folds
        for fault in data_faults(fold.config, fold.train, fold.val, root)
    ]
    raise_faults(faults, where=f"{root}: its {count} folds", advice="Convert with fewer --folds, or another --seed.")
    return folds, root / FOLDS


def join(parts: Sequence[Dataset], name: str, subset: str) -> Dataset:
    """Data sets of one split as one, in the order of their image numbers."""
    images = sorted((record for part in parts for record in part.images), key=lambda record: record.image_id)
    first = parts[0]
    split = {**(first.info.get("split") or {}), "name": name, "subset": subset}
    return Dataset(
        first.categories, tuple(replace(record, split=subset) for record in images), {**first.info, "split": split}
    )


def train_folds(
    config: Config, *, resume: bool = False, overwrite: bool = False, machines: Machines | None = None
) -> tuple[Path, Path]:
    """Train every fold, and write the out-of-fold predictions.

    Folds lie in `fold0`, `fold1`, ... in the output folder, the predictions of all in `out_of_fold`. With `resume`,
    finished folds are left as they are.

    Returns:
        the predictions file, and the ground truth that it belongs to.
    """
    folds, truth = read_folds(config)
    parts: list[Predictions] = []
    for fold in folds:
        run = make_run(fold.config, fold.train, fold.val, where=f"fold {fold.number}")
        output = run.config.output_dir
        found = _finished(output, run, fold) if resume else None
        if found is not None:
            print(f"fold {fold.number}: finished before")
        else:
            teaching = f"{len(fold.train.images)} images teach, {len(fold.val.images)} choose the checkpoint"
            print(f"fold {fold.number} of {len(folds)}: {teaching}, {len(fold.held_out.images)} are held out")
            best = train(run, resume=resume and (output / LAST).exists(), overwrite=overwrite, machines=machines)
            found = _predict(best, fold, machines)
        parts.append(found)
    path = config.output_dir / OUT_OF_FOLD / "predictions.json"
    write_predictions(merge(parts, config), path)
    print(f"wrote {path}: every image predicted by the model of the fold that held it out")
    return path, truth


def _predict(best: Path, fold: Fold, machines: Machines | None) -> Predictions:
    device = "cpu" if machines is not None and machines.num_gpus == 0 else "auto"
    path, skipped = predict_to_folder(
        Predictor.from_checkpoint(best, device),
        fold.held_out,
        fold.config.data.root,
        best.parent / OUT_OF_FOLD,
        num_workers=fold.config.data.num_workers,
        key=patient_key(fold.config),
    )
    if skipped:
        faults = [f"{item.file_name}: {item.reason}" for item in skipped]
        raise_faults(faults, where=f"fold {fold.number}, held-out images", advice="Mend or remove them, then --resume.")
    return read_predictions(path)


def _finished(output: Path, run: Run, fold: Fold) -> Predictions | None:
    """The predictions of a fold that was finished with this very config and data, or None."""
    path = output / OUT_OF_FOLD / "predictions.json"
    if not path.exists() or not (output / BEST).exists():
        return None
    found = read_predictions(path)
    same = (
        found.model.get("checkpoint_sha256") == file_hash(output / BEST)
        and not asked_changes(found.model.get("config") or {}, run.facts.config)
        and found.model.get("data_hash") == run.facts.data_hash
        and [image.file_name for image in found.images] == [record.file_name for record in fold.held_out.images]
    )
    return found if same else None


def merge(parts: Sequence[Predictions], config: Config) -> Predictions:
    """Predictions of all folds as one file, which names the model and the images of each."""
    described: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        kept = (
            *("checkpoint", "checkpoint_sha256", "data_hash", "split_hash"),
            *("patients", "unknown_patients", "unknown_start", "images_seen"),
        )
        described.append(
            {
                "fold": number,
                **{key: part.model.get(key) for key in kept},
                "images": [image.file_name for image in part.images],
            }
        )
    images: list[ImagePrediction] = sorted(
        (image for part in parts for image in part.images), key=lambda image: image.image_id
    )
    nothing = dict.fromkeys(("checkpoint", "checkpoint_sha256", "data_hash", "split_hash"))  # each fold has its own
    model = {key: parts[0].model.get(key) for key in ("kind", "version", "predicted_with")} | nothing
    model |= {"config": config.to_dict(), "patients": [], "folds": described}
    breasts, patients = joined_scores(images, config.model.aggregation.over_images)
    return Predictions(tuple(images), parts[0].categories, model, breasts, patients)
