"""Predict images with a trained model, one at a time, going on after an interruption.

torch is imported where a checkpoint is loaded: exported models (exported.py) do without.
"""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mammodet.config import Config, ImageConfig
from mammodet.data.breasts import breasts_of
from mammodet.data.coco import data_hash
from mammodet.data.doubts import Stored, doubts_of, read_stored
from mammodet.data.images import Pixels
from mammodet.data.inputs import Skipped
from mammodet.data.patient_keys import PatientKey
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.data.prepared import prepare_record
from mammodet.data.preprocess import prepare_image
from mammodet.engine.facts import RunFacts
from mammodet.engine.fusion import Look, fused, tiles_of, views_of, with_tiles
from mammodet.engine.partial import Partial, Written
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import Calibration, check_belongs, label_predictions
from mammodet.files import atomic_path, canonical_hash, file_hash, file_stamp, locked, write_json
from mammodet.modeling.aggregation import joined_scores
from mammodet.models.card import ModelCard
from mammodet.parallel import read_ahead
from mammodet.records import Dataset, ImagePrediction, ImageRecord
from mammodet.version import VERSION

if TYPE_CHECKING:
    from mammodet.modeling.build import Model

Seen = tuple[ImageConfig, bool]  # how an image is prepared, and whether its native pixels are wanted, too


_PARTIAL, _SHARDS = "predictions.partial.jsonl", "shards"


class Predictor:
    """A trained model, ready to look at images.

    Args:
        model: in eval mode.
        facts: of its checkpoint.
        checkpoint: where it lies, and the hash of that file; None for a model that was never saved.
        device: `auto`, `cpu`, `cuda`, ...
    """

    device: Any  # torch's, or its name
    #: calibration, card: that a packed model brings along; else None.
    calibration: Calibration | None = None
    card: ModelCard | None = None

    def __init__(
        self,
        model: "Model",
        config: Config,
        facts: RunFacts,
        checkpoint: tuple[Path, str] | None = None,
        device: str = "auto",
    ) -> None:
        import torch

        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self.device = torch.device(name)
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.config, self.facts, self.checkpoint = config, facts, checkpoint
        self.stack = facts.stack

    @staticmethod
    def from_checkpoint(path: Path, device: str = "auto", config: Config | None = None) -> "Predictor":
        """Load a checkpoint, or a packed model with its calibration and card.

        Args:
            config: must describe the same model; its thresholds and its aggregation replace those of the checkpoint.
        Raises:
            InputError: unreadable, another architecture, a device that is not there, or a rule it cannot do.
        """
        from mammodet.modeling.without_dynamo import without_dynamo

        with without_dynamo():
            from mammodet.engine.checkpoint import load_model, read_packed

            model, own, facts = load_model(path, config)
        if own.model.learns_aggregation and facts.stack is None:
            settings = shlex.quote(str(path.with_name("config.yaml")))
            raise InputError(
                f"{path}: its aggregation 'learned' was not fitted, since its training did not end. Finish it:\n"
                f"  mammodet train --config-file {settings} --resume\n"
                "With train.epochs=N behind it, N being the epochs that are done, it ends at once."
            )
        predictor = Predictor(model, own, facts, (path, file_hash(path)), device)
        if (packed := read_packed(path)) is not None:
            predictor.calibration, predictor.card = packed.calibration, packed.card
        return predictor

    def predict(
        self,
        dataset: Dataset,
        root: Path,
        *,
        num_workers: int = 0,
        batch_size: int = 1,
        read: Callable[[Path], tuple[Pixels, Stored]] = read_stored,
        force: bool = False,
    ) -> Iterator[ImagePrediction | Skipped]:
        """Predict the images of a data set, in its order (breast by breast where views are joined).

        An image that cannot be read, or is no mammogram, gives `Skipped`.

        Args:
            read: gives pixels, and what their file says.
            force: predict also what is no mammogram, with a warning.
        """
        judge = partial(doubts_of, domain=self.facts.domain, force=force)
        prepare = partial(_looks, root, self.seen_as, read, judge)
        count = len(dataset.images)
        rows = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
        groups = breasts_of(dataset.images).values() if self.joins_views else rows
        tasks = [([dataset.images[row] for row in group],) for group in groups]
        for items in read_ahead(prepare, tasks, jobs=num_workers):
            found = iter(self._run([item for item, _ in items if not isinstance(item, Skipped)]))
            for item, doubts in items:
                yield item if isinstance(item, Skipped) else replace(next(found), warnings=tuple(doubts))

    @property
    def joins_views(self) -> bool:
        """Whether the images of a breast are answered for together."""
        return self.config.model.joins_views

    @property
    def seen_as(self) -> tuple[Seen, ...]:
        """The ways in which an image is prepared, in the order of the looks that `_run` takes."""
        return ((self.config.data.image, self.config.model.test_time.tiles),)

    def _run(self, images: Sequence[Sequence[Look]], *, soften: bool = True) -> list[ImagePrediction]:
        """Predictions; of several versions, scores are softened once they are fused, and not without `soften`."""
        if not images:
            return []
        looks = [image[0] for image in images]
        test_time, side = self.config.model.test_time, self.config.data.image.max_size
        views = [[view.of(look) for look in looks] for view in views_of(test_time)]
        try:
            if len(views) == 1 and soften and not test_time.tiles:
                return self._answer(views[0])
            answers = [self._answer(view, soften=False) for view in views]
            tiles = [tiles_of(look, side) for look in looks]
            of_tiles = [[self._answer([tile], soften=False)[0] for tile in each] for each in tiles]
        except InputError as error:
            raise InputError(f"{self.checkpoint[0] if self.checkpoint else 'the model'}: {error}") from None
        if not test_time.tiles:
            return fused(answers, self.config.model, soften=soften)
        whole = fused(answers, self.config.model, soften=False)
        joined = [with_tiles(*each) for each in zip(whole, tiles, of_tiles, strict=True)]
        return fused([joined], self.config.model, soften=soften)

    def _answer(self, looks: Sequence[Look], *, soften: bool = True) -> list[ImagePrediction]:
        """What the network answers for images, of one breast where views are joined."""
        import torch

        from mammodet.data.dataset import Batch
        from mammodet.engine.tasks import run_model, to_predictions

        images = [torch.from_numpy(look.image).to(self.device) for look in looks]
        records, traces = tuple(look.record for look in looks), tuple(look.trace for look in looks)
        batch = Batch(images, [], [], torch.zeros((len(images), 0)), records, traces)
        bf16 = self.config.model.detects and self.config.model.test_time.bf16
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output = run_model(self.config, self.model, batch)
            return to_predictions(output, batch, self.config, self.stack, soften=soften)

    def describe(self) -> dict[str, Any]:
        """What goes into a predictions file about the model."""
        return {
            "kind": self.config.model.kind,
            "checkpoint": str(self.checkpoint[0]) if self.checkpoint else None,
            "checkpoint_sha256": self.checkpoint[1] if self.checkpoint else None,
            "config": self.config.to_dict(),
            "data_hash": self.facts.data_hash,
            "split_hash": self.facts.split_hash,
            "patients": list(self.facts.patients),
            "files": [file.to_json() for file in self.facts.files],
            "unknown_patients": self.facts.unknown_patients,
            "unknown_start": self.facts.unknown_start,
            **({"packed_from": list(self.facts.packed_from)} if self.facts.packed_from else {}),
            "version": self.facts.version,
            "predicted_with": VERSION,
        }

    def to_file(self, images: Sequence[ImagePrediction]) -> Predictions:
        """Image predictions with breast and patient scores, ready to be written."""
        breasts, patients = joined_scores(images, self.config.model.aggregation.over_images)
        return Predictions(images, self.facts.categories, self.describe(), breasts, patients)


def _looks(
    root: Path,
    seen_as: Sequence[Seen],
    read: Callable[[Path], tuple[Pixels, Stored]],
    judge: Callable[[Pixels, Stored, ImageRecord], list[str]],
    records: Sequence[ImageRecord],
) -> list[tuple[tuple[Look, ...] | Skipped, list[str]]]:
    """Images ready for the networks, or `Skipped` where one is refused, and what is doubtful about each."""
    found: list[tuple[tuple[Look, ...] | Skipped, list[str]]] = []
    for record in records:
        try:
            pixels, stored = read(root / record.file_name)
            doubts = judge(pixels, stored, record)
            looks = tuple(_look(root, image, pixels, record, tiles) for image, tiles in seen_as)
            found.append((looks, doubts))
        except InputError as error:
            found.append((Skipped(record.file_name, str(error)), []))
    return found


def _look(root: Path, image: ImageConfig, pixels: Pixels, record: ImageRecord, tiles: bool) -> Look:
    look = Look(*prepare_record(root, image, record, lambda _: pixels), record)
    return _with_native(look, pixels, image) if tiles else look


def _with_native(look: Look, pixels: Pixels, image: ImageConfig) -> Look:
    """A look with the same in native pixels, if these are finer than the network's input."""
    steps = [step for step in look.trace.steps if step.name == "crop"]
    longest = max(steps[0].values[2:] if steps else pixels.shape)
    if longest <= image.max_size:
        return look
    record = look.record
    finer = prepare_image(pixels, image.model_copy(update={"max_size": longest}), record.breast_box_xyxy)
    return replace(look, native=Look(*finer, record))


def predict_to_folder(
    predictor: Predictor,
    dataset: Dataset,
    root: Path,
    output: Path,
    *,
    num_workers: int = 0,
    progress: bool = True,
    unreadable: Sequence[Skipped] = (),
    calibration: Calibration | None = None,
    allow_other_checkpoint: bool = False,
    key: PatientKey | None = None,
    force: bool = False,
    shard: tuple[int, int] | None = None,
) -> tuple[Path, list[Skipped]]:
    """Predict a data set and write `predictions.json` (and `skipped.json` where images could not be read).

    Every image is written to `predictions.partial.jsonl` as it is done; a second call with the same checkpoint,
    images and `force` goes on from there.

    Args:
        unreadable: images that were found to be so before, to be listed with those found here.
        calibration: adds labels and probabilities to the scores.
        allow_other_checkpoint: take a calibration that was fitted for another checkpoint.
        key: hashes the patient ids that are written, those of the model's training included.
        force: predict also what is no mammogram.
        shard: (i, n): predict the i-th (from 1) of n shares of the breasts, for a call without it to go on from. The
            path is then that of what is done.
    Raises:
        InputError: no image can be predicted, or the calibration belongs to another model.
    """
    if calibration is not None:
        check_belongs(calibration, predictor.describe(), "calibration", allow_other=allow_other_checkpoint)
    folder = share_folder(output, shard) if shard else output
    stamps = [file_stamp(root / record.file_name) for record in dataset.images]
    made_of = [data_hash(dataset), str(root.resolve()), stamps, force]
    task = canonical_hash([predictor.describe(), *made_of])
    shares = [] if shard else sorted(output.glob(f"{_SHARDS}/*/{_PARTIAL}"))
    with ExitStack() as stack:
        for each in (folder, *(path.parent for path in shares)):
            stack.enter_context(locked(each, "another prediction writes there; wait, or choose another --output"))
        partial = stack.enter_context(Partial(folder / _PARTIAL, task))
        for path in shares:
            partial.take(path)
        own = _share(dataset, shard) if shard else dataset
        skipped = [*unreadable, *_predict_rest(predictor, own, root, partial, num_workers, progress, force)]
        if shard:
            return partial.path, skipped
        if not partial.places:
            reasons = "; ".join(item.reason for item in skipped[:3])
            raise InputError(f"{root}: no image could be predicted ({reasons})")
        path = output / "predictions.json"
        _write(predictor, dataset, root, Written(partial, dataset, key), path, calibration, key)
        if skipped:
            write_json(output / "skipped.json", [{"file_name": one.file_name, "reason": one.reason} for one in skipped])
        else:
            (output / "skipped.json").unlink(missing_ok=True)
        partial.path.unlink()
        for each in shares:
            shutil.rmtree(each.parent)
    return path, skipped


def share_folder(output: Path, shard: tuple[int, int]) -> Path:
    """Where the i-th of n shares is kept until all are joined."""
    return output / _SHARDS / "{}-of-{}".format(*shard)


def _share(dataset: Dataset, shard: tuple[int, int]) -> Dataset:
    """Every n-th breast from the i-th on."""
    breasts = list(breasts_of(dataset.images).values())[shard[0] - 1 :: shard[1]]
    rows = sorted(row for breast in breasts for row in breast)
    return replace(dataset, images=tuple(dataset.images[row] for row in rows))


def _predict_rest(
    predictor: Predictor, dataset: Dataset, root: Path, partial: Partial, num_workers: int, progress: bool, force: bool
) -> list[Skipped]:
    """Predict what is not done; answers what was skipped."""
    skipped = []
    if predictor.joins_views:  # a breast is predicted as a whole
        partial.keep_breasts(dataset)
    rest = tuple(record for record in dataset.images if record.image_id not in partial.places)
    if partial.places:
        print(f"{partial.path}: going on after {len(partial.places)} images that are done")
    remaining = Dataset(dataset.categories, rest, dataset.info)
    with _say_what_is_done(partial):
        results = predictor.predict(remaining, root, num_workers=num_workers, force=force)
        for result in tqdm(results, total=len(rest), desc="predict", unit="image", disable=None if progress else True):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                partial.add(result)
    return skipped


def _write(
    predictor: Predictor,
    dataset: Dataset,
    root: Path,
    images: Sequence[ImagePrediction],
    path: Path,
    calibration: Calibration | None,
    key: PatientKey | None,
) -> None:
    """Write the predictions file of all images, and say what is doubtful."""
    predictions = predictor.to_file(images)
    # so that an evaluation can tell when it meets another truth; a bare folder has none
    truth_hash = data_hash(dataset) if any(record.has_answers for record in dataset.images) else None
    seen = predictor.facts.images.found_in(dataset, root)
    model = {**predictions.model, "predicted_data_hash": truth_hash, "images_seen": seen}
    model["patients"] = list(predictor.facts.hashed(key).patients)
    with atomic_path(path) as whole:  # with its labels or not at all
        write_predictions(replace(predictions, model=model), whole)
        if calibration is not None:
            label_predictions(whole, calibration)
    _say_warnings(images)


def _say_warnings(images: Sequence[ImagePrediction], most: int = 20) -> None:
    doubtful = 0
    for image in images:
        doubtful += bool(image.warnings)
        if image.warnings and doubtful <= most:
            print(f"warning: {image.file_name}: {'; '.join(image.warnings)}", file=sys.stderr)
    if doubtful:
        print(
            f"warning: {doubtful} of {len(images)} images have warnings, as a rule that their scores mean little; "
            "predictions.json has them",
            file=sys.stderr,
        )


@contextmanager
def _say_what_is_done(partial: Partial) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, InputError):  # as where a worker was killed
        print(f"stopped; {partial.path} holds {len(partial.places)} images, the same command goes on from it")
        raise
